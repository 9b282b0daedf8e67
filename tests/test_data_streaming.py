import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from music import combine, istft

import data
from audio import resample_stream

SETTINGS = settings(max_examples=40, deadline=None)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def cut(array, sizes):
    """Blocks of (channels, n) whose lengths cycle through ``sizes``."""
    start, blocks = 0, []
    while start < array.shape[1] or not blocks:
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(array[:, start : start + size])
        start += size
    return blocks


def test_analyse_equals_the_stft_of_the_kept_bins():
    audio = noise(2, 5 * 512)
    frames = data.stft_frames(audio)
    assert frames.shape == (2, 4, 256)
    assert frames.dtype == np.complex64
    for channel, spectrum in zip(audio, frames):
        expected = data.stft(channel)[: data.BINS, 1:-1].T * (2 / data.WINDOW.sum())
        np.testing.assert_allclose(spectrum, expected, atol=1e-6)


def test_a_full_scale_sine_reads_one():
    sine = np.sin(2 * np.pi * 64 / 1024 * np.arange(4096)).astype(np.float32)
    np.testing.assert_allclose(np.abs(data.stft_frames(sine))[:, 64], 1, atol=1e-3)


def test_synthesise_inverts_analyse():
    time = np.arange(20 * 512) / data.SAMPLE_RATE
    audio = np.stack([np.sin(440 * time), np.cos(9000 * time)]).astype(
        np.float32
    )  # radians a second: well below 11 kHz
    restored = data.istft_frames(data.stft_frames(audio))
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, audio[:, 512:-512], atol=1e-4)


def test_synthesise_is_the_least_squares_inverse_of_inconsistent_frames():
    frames = (noise(9, 256) + 1j * noise(9, 256, seed=1)).astype(np.complex64)
    full = combine(np.abs(frames).T, data.phasor(frames).T)
    np.testing.assert_allclose(data.istft_frames(frames), istft(full, 8 * 512), atol=1e-4)


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
