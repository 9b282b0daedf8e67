"""Known answers for every constant and formula of the signal conventions, and round trips."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from music import combine, istft

import data
import midi
from audio import find_audio, read_audio, write_audio
from cli import UserError


def noise(n, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n).astype(np.float32)


def test_constants():
    assert (data.SAMPLE_RATE, data.N_FFT, data.HOP_LENGTH, data.BINS, data.TILE_FRAMES) == (
        44100,
        1024,
        512,
        256,
        256,
    )
    assert data.AMIN == 1 / 65536
    assert pytest.approx(96.3297, abs=1e-4) == data.DB_RANGE
    assert data.WINDOW[0] == data.WINDOW[-1] == 0  # symmetric Hann
    assert data.WINDOW.sum() == pytest.approx(511.5)


def test_stft_equals_the_slow_definition():
    audio = noise(3000)
    padded = np.pad(audio.astype(float), 512)
    frames = 1 + len(audio) // 512
    n = np.arange(1024)
    basis = np.exp(-2j * np.pi * np.arange(513)[:, None] * n / 1024)
    slow = np.stack(
        [basis @ (padded[t * 512 : t * 512 + 1024] * np.hanning(1024)) for t in range(frames)],
        axis=1,
    )
    assert data.stft(audio).shape == (513, frames)
    np.testing.assert_allclose(data.stft(audio), slow, atol=2e-4)


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
@settings(max_examples=30, deadline=None)
def test_stft_round_trip_has_the_exact_length(length):
    audio = noise(length, length)
    back = istft(data.stft(audio), length)
    assert back.shape == audio.shape
    inside = slice(
        None, max(0, length - 512)
    )  # the last half window is covered by one faded frame only
    np.testing.assert_allclose(back[inside], audio[inside], atol=1e-5)


def test_magnitude_and_phase_make_the_lower_half_of_the_spectrum_again():
    spectrum = data.stft(noise(10000))
    again = combine(data.magnitude(spectrum), data.phasor(spectrum))
    np.testing.assert_allclose(again[:256], spectrum[:256], atol=1e-4)
    assert not again[256:].any()
    assert data.phasor(np.zeros(3, np.complex64)) == pytest.approx(1)


def test_tiles_last_2_97_seconds():
    assert pytest.approx(2.97, abs=0.005) == data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE


@given(
    piece=st.text("ab/~s1", min_size=1),
    transpose=st.integers(-12, 12),
    speed=st.sampled_from((0.5, 1, 1.25)),
)
def test_versions_of_a_piece_are_found_again(piece, transpose, speed):
    assert midi.piece_of(midi.version_name(piece + ".x", transpose, speed)) == piece + ".x"
    assert midi.version_name(piece) == piece


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_read_audio_of_any_kind(tmp_path, rate, extension):
    tone = 0.4 * np.sin(2 * np.pi * 440 / rate * np.arange(rate))
    soundfile.write(tmp_path / f"x.{extension}", np.stack([tone, tone], 1), rate)
    audio = read_audio(tmp_path / f"x.{extension}")
    assert audio.dtype == np.float32
    assert len(audio) == pytest.approx(
        44100, abs=5000 if extension == "mp3" and rate == 8000 else 1500
    )  # mp3 frames
    spectrum = np.abs(np.fft.rfft(audio[10000:30000]))
    assert np.argmax(spectrum) * 44100 / 20000 == pytest.approx(440, abs=3)


def test_audio_is_found_in_any_format_by_its_whole_name(tmp_path):
    for name in ("a/[b] c.flac", "a/[b] c.d.wav", "a/[b] c.txt", "a/x c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio(tmp_path, "a/[b] c") == tmp_path / "a/[b] c.flac"
    assert find_audio(tmp_path, "a/[b] c.d") == tmp_path / "a/[b] c.d.wav"
    assert find_audio(tmp_path, "a/[b]") is None


def test_read_audio_refuses_what_is_no_sound(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF, but no more")
    with pytest.raises(UserError, match=r"x\.wav"):
        read_audio(tmp_path / "x.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan, 1]), 44100, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN"):
        read_audio(tmp_path / "nan.wav")


def test_write_audio_never_clips(tmp_path):
    with pytest.raises(ValueError, match="exceeds"):
        write_audio(tmp_path / "x.wav", np.array([0, 1.01]))
    assert list(tmp_path.iterdir()) == []
    write_audio(tmp_path / "x.wav", np.array([0, -1.0, 1.0, 0.5]))
    np.testing.assert_allclose(soundfile.read(tmp_path / "x.wav")[0], [0, -1, 1, 0.5], atol=1e-4)
