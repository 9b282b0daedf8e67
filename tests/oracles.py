"""The slow, well-known computation of what `data` and `phase` do in their own way."""

import librosa
import numpy as np

import data


def istft(spectrum, length):
    """librosa's inverse of `data.stft`, the oracle: complex (513, frames) -> float32 (length,)."""
    return librosa.istft(
        spectrum, n_fft=data.N_FFT, hop_length=data.HOP_LENGTH, window=data.WINDOW, length=length
    )


def combine(mag, phase):
    """Magnitude and phase -> spectrum, complex64 (513, t), the upper bins zero.

    Args:
        mag: (256, t).
        phase: unit phasors, complex (256 or 513, t).
    """
    spectrum = np.zeros((data.N_FFT // 2 + 1, mag.shape[1]), np.complex64)
    spectrum[: data.BINS] = mag * np.float32(data.WINDOW.sum() / 2) * phase[: data.BINS]
    return spectrum
