"""Streams: the pieces hold what the whole holds, at every hop length."""

import librosa
import numpy as np
import pytest
import soundfile
import soxr
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import combine
from sounds import noise

import data
from sound.recordings import resample_stream

SETTINGS = settings(max_examples=40)
HOPS = pytest.mark.parametrize("hop_length", [512, 256, 128])


def cut(array, sizes):
    """Blocks of (channels, n) whose lengths cycle through ``sizes``."""
    start = 0
    blocks = []
    while start < array.shape[1] or not blocks:
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(array[:, start : start + size])
        start += size
    return blocks


def test_frames_are_the_stft_of_the_kept_bins():
    audio = noise(2, 5 * 512)
    frames = data.stft_frames(audio)
    assert frames.shape == (2, 4, 256)
    assert frames.dtype == np.complex64
    for channel, spectrum in zip(audio, frames):
        expected = data.stft(channel)[: data.BINS, 1:-1].T * (2 / data.WINDOW.sum())
        np.testing.assert_allclose(spectrum, expected, atol=1e-6)


@pytest.mark.parametrize("hop_length", [256, 128])
def test_frames_of_a_finer_hop_are_those_of_the_audio_moved(hop_length):
    audio = noise(2, 8 * 512)
    steps = 512 // hop_length
    fine = data.stft_frames(audio, hop_length)
    for step in range(steps):
        expected = data.stft_frames(audio[:, step * hop_length :])
        np.testing.assert_array_equal(fine[:, step::steps], expected)


@HOPS
def test_a_full_scale_sine_reads_one(hop_length):
    sine = np.sin(2 * np.pi * 64 / 1024 * np.arange(4096)).astype(np.float32)
    frames = data.stft_frames(sine, hop_length)
    np.testing.assert_allclose(np.abs(frames)[:, 64], 1, atol=1e-3)


@HOPS
def test_audio_below_11_khz_comes_back(hop_length):
    time = np.arange(20 * 512) / data.SAMPLE_RATE
    low = np.sin(440 * time)  # radians a second
    high = np.cos(9000 * time)
    audio = np.stack([low, high]).astype(np.float32)
    restored = data.istft_frames(data.stft_frames(audio, hop_length), hop_length)
    assert restored.dtype == np.float32
    margin = 1024 - hop_length  # samples at each end that fewer frames cover
    np.testing.assert_allclose(restored, audio[:, margin:-margin], atol=1e-4)


@HOPS
def test_the_inverse_of_inconsistent_frames_is_librosas_least_squares(hop_length):
    frames = (noise(19, 256) + 1j * noise(19, 256, seed=1)).astype(np.complex64)
    spectrum = combine(np.abs(frames).T, data.phasor(frames).T)
    whole = librosa.istft(
        spectrum, n_fft=1024, hop_length=hop_length, window=data.WINDOW, center=False
    )
    audio = data.istft_frames(frames, hop_length)
    assert len(audio) == 20 * hop_length - 1024
    first = 1024 - hop_length
    np.testing.assert_allclose(audio, whole[first : first + len(audio)], atol=1e-4)


@HOPS
@pytest.mark.parametrize("frames", [0, 1])
def test_too_few_frames_give_no_audio(hop_length, frames):
    audio = data.istft_frames(np.zeros((2, frames, 256), np.complex64), hop_length)
    assert audio.shape == (2, 0)


@SETTINGS
@given(
    length=st.integers(600, 9000),  # anything shorter fades too fast to lie below 11 kHz
    sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=4),
    hop_length=st.sampled_from([512, 256, 128]),
)
def test_a_stream_comes_back_from_its_first_sample_to_its_last(length, sizes, hop_length):
    time = np.arange(length) / data.SAMPLE_RATE
    fade = np.sin(np.pi * np.arange(length) / (length - 1)) ** 2  # nothing above 11 kHz
    audio = np.stack([fade * np.sin(2000 * time), fade]).astype(np.float32)
    spectra = list(data.stft_stream(iter(cut(audio, sizes)), hop_length))
    restored = data.istft_frames(np.concatenate(spectra, axis=1), hop_length)
    assert restored.shape[1] >= length
    np.testing.assert_allclose(restored[:, :length], audio, atol=5e-3)


@HOPS
@pytest.mark.parametrize("length", [0, 1, 511, 512, 513])
def test_the_shortest_streams_come_back_whole(hop_length, length):
    spectra = list(data.stft_stream([noise(2, length)], hop_length))
    restored = data.istft_frames(np.concatenate(spectra, axis=1), hop_length)
    assert length <= restored.shape[1] < length + 512


@HOPS
def test_of_a_real_recording_a_stream_gives_librosas_stft(hop_length):
    audio, _ = soundfile.read(ROOT / "docs/audio/piano.ogg", dtype="float32", always_2d=True)
    audio = audio.T
    spectra = list(data.stft_stream(iter(cut(audio, [70_000, 1, 15_000])), hop_length))
    steps = 512 // hop_length
    frames = np.concatenate(spectra, axis=1)[:, steps - 1 :]  # before: centred before the sound
    window = data.WINDOW.astype(float)
    expected = librosa.stft(
        audio, n_fft=1024, hop_length=hop_length, window=window, pad_mode="constant"
    )
    expected = np.swapaxes(expected[:, : data.BINS], 1, 2) * (2 / window.sum())
    assert 0.01 < np.abs(expected).max() < 1
    np.testing.assert_allclose(frames[:, : expected.shape[1]], expected, atol=1e-6)


@HOPS
def test_a_streams_frames_are_the_stft_at_its_hop_whatever_the_blocks(hop_length, monkeypatch):
    monkeypatch.setattr(data, "BLOCK_FRAMES", 3)  # many blocks
    audio = noise(1, 5000)
    spectra = list(data.stft_stream(iter(cut(audio, [700, 1, 1500])), hop_length))
    assert {len(spectrum[0]) for spectrum in spectra[:-1]} == {3}
    frames = np.concatenate(spectra, axis=1)[0]
    centred = frames[512 // hop_length - 1 :: 512 // hop_length]  # those at multiples of 512
    expected = data.stft(audio[0])[: data.BINS].T * (2 / data.WINDOW.sum())
    np.testing.assert_allclose(centred[: len(expected)], expected, atol=1e-6)


@SETTINGS
@given(
    length=st.integers(0, 60),
    sizes=st.lists(st.integers(0, 17), min_size=1, max_size=4).filter(any),
    size=st.integers(1, 20),
    keep=st.integers(0, 9),
)
def test_pieces_hold_the_stream_once(length, sizes, size, keep):
    stream = np.arange(2 * length).reshape(2, length)
    pieces = list(data.rechunk(cut(stream, sizes), size, keep))
    assert all(piece.shape[1] == size + keep for piece in pieces[:-1])
    assert len(pieces) == 1 or keep < pieces[-1].shape[1] <= size + keep
    for i, piece in enumerate(pieces):
        np.testing.assert_array_equal(piece, stream[:, i * size : i * size + size + keep])
    assert (len(pieces) - 1) * size + pieces[-1].shape[1] == length


@pytest.mark.parametrize(
    ("rate", "new_rate"),
    [(8000, 44100), (48000, 44100), (44100, 96000), (96000, 44100), (1000, 44100)],
)
@pytest.mark.parametrize("length", [0, 1, 1000, 20001])
def test_resampling_a_stream_is_resampling_the_whole(rate, new_rate, length):
    audio = noise(2, length)
    streamed = np.concatenate(
        list(resample_stream(cut(audio, [777, 1, 3000]), rate, new_rate)), axis=1
    )
    assert streamed.shape[1] >= round(length * new_rate / rate)
    padded = np.pad(audio, ((0, 0), (0, rate)))
    whole = soxr.resample(padded.T, rate, new_rate, quality="HQ").T
    end = round(length * new_rate / rate)
    np.testing.assert_allclose(streamed[:, :end], whole[:, :end], atol=1e-5)


def test_resampling_to_the_same_rate_passes_blocks_through():
    blocks = cut(noise(1, 100), [30])
    assert all(a is b for a, b in zip(resample_stream(iter(blocks), 44100, 44100), blocks))
