"""Known answers for every constant and formula of the signal conventions, and round trips."""

import subprocess
import sys

import librosa
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import combine, istft
from sounds import uniform_noise

import data
from common.names import piece_of, version_name
from sound.recordings import read_audio


def test_constants():
    assert data.SAMPLE_RATE == 44100
    assert data.N_FFT == 1024
    assert data.HOP_LENGTH == 512
    assert data.BINS == 256
    assert data.TILE_FRAMES == 256
    assert data.AMIN == 1 / 65536
    assert pytest.approx(96.3297, abs=1e-4) == data.DB_RANGE
    assert data.WINDOW[0] == data.WINDOW[-1] == 0  # symmetric Hann


def test_stft_is_its_slow_definition():
    audio = uniform_noise(3000)
    padded = np.pad(audio.astype(float), 512)
    n = np.arange(1024)
    basis = np.exp(-2j * np.pi * np.arange(513)[:, None] * n / 1024)
    spectrum = data.stft(audio)
    assert spectrum.shape == (513, 1 + 3000 // 512)
    assert spectrum.dtype == np.complex64
    for t in range(spectrum.shape[1]):
        frame = padded[t * 512 : t * 512 + 1024] * np.hanning(1024)
        np.testing.assert_allclose(spectrum[:, t], basis @ frame, atol=2e-4)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 1024, 30000])
def test_stft_is_librosas(length):
    audio = uniform_noise(length)
    np.testing.assert_allclose(data.stft(audio), stft_by_librosa(audio), atol=1e-4)


def test_stft_of_a_recording_is_librosas():
    audio = read_audio(ROOT / "docs/audio/recorded_piano.ogg")
    expected = stft_by_librosa(audio)
    assert np.abs(expected).max() > 10
    np.testing.assert_allclose(data.stft(audio), expected, atol=1e-4)


def stft_by_librosa(audio):
    return librosa.stft(
        np.pad(audio, 512), n_fft=1024, hop_length=512, window=np.hanning(1024), center=False
    )


def test_full_scale_sine_reads_one():
    bin_number = 40
    audio = np.sin(2 * np.pi * bin_number / 1024 * np.arange(44100))
    mag = data.magnitude(data.stft(audio))
    assert mag.shape == (256, 87)
    assert mag[bin_number, 5:-5] == pytest.approx(1, abs=1e-3)


def test_db_scale_known_values():
    assert data.amplitude_to_db(np.float32(0)) == 0
    assert data.amplitude_to_db(np.float32(1)) == pytest.approx(1, abs=1e-6)
    for mag in (1e-6, 1e-3, 0.5):
        exact = 20 * np.log(1 + mag * 65536) / (20 * np.log(1 + 65536))
        assert data.amplitude_to_db(np.float32(mag)) == pytest.approx(exact, rel=1e-5)
    # far above AMIN one unit of the scale is DB_RANGE decibels
    ten_db = data.amplitude_to_db(np.float32(1)) - data.amplitude_to_db(np.float32(10**-0.5))
    assert ten_db * data.DB_RANGE == pytest.approx(10, abs=2e-3)


@given(st.floats(0, 2, width=32))
def test_db_round_trip(mag):
    assert data.db_to_amplitude(data.amplitude_to_db(mag)) == pytest.approx(mag, rel=1e-4, abs=1e-9)


def test_network_range_is_clipped_at_its_ends():
    np.testing.assert_array_equal(data.to_network(np.array([0, 0.5, 1, 1.2])), [-1, 0, 1, 1])
    np.testing.assert_array_equal(data.from_network(np.array([-1, 0, 1])), [0, 0.5, 1])


@given(frames=st.integers(1, 800))
@settings(max_examples=30)
def test_tiles_round_trip_and_are_padded_with_zeros(frames):
    picture = np.random.default_rng(frames).random((256, frames)).astype(np.float32)
    tiles = data.slice_tiles(picture)
    assert tiles.shape == (-(-frames // 256), 256, 256, 1)
    np.testing.assert_array_equal(data.join_tiles(tiles, frames), picture)
    np.testing.assert_array_equal(tiles[0, :, : min(frames, 256), 0], picture[:, :256])
    assert not data.join_tiles(tiles)[:, frames:].any()


@given(length=st.integers(1, 20000))
@settings(max_examples=30)
def test_stft_round_trip_has_the_exact_length(length):
    audio = uniform_noise(length, length)
    back = istft(data.stft(audio), length)
    assert back.shape == audio.shape
    inside = max(0, length - 512)  # the last half window is covered by one faded frame only
    np.testing.assert_allclose(back[:inside], audio[:inside], atol=1e-5)


def test_magnitude_and_phase_make_the_lower_half_of_the_spectrum_again():
    spectrum = data.stft(uniform_noise(10000))
    again = combine(data.magnitude(spectrum), data.phasor(spectrum))
    np.testing.assert_allclose(again[:256], spectrum[:256], atol=1e-4)
    assert not again[256:].any()
    assert data.phasor(np.zeros(3, np.complex64)) == pytest.approx(1)


def test_tiles_last_2_97_seconds():
    seconds = data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE
    assert seconds == pytest.approx(2.97, abs=0.005)


def test_signal_side_needs_no_files_and_no_keras():
    code = (
        "import sys, data\n"
        "assert not {'keras', 'librosa', 'soundfile', 'av', 'audio', 'cli'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@given(
    piece=st.text("ab/~s1", min_size=1),
    transpose=st.integers(-12, 12),
    speed=st.sampled_from((0.5, 1, 1.25)),
)
def test_versions_of_a_piece_are_found_again(piece, transpose, speed):
    assert piece_of(version_name(piece + ".x", transpose, speed)) == piece + ".x"
    assert version_name(piece) == piece
