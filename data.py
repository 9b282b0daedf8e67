"""The signal side: audio <-> STFT <-> dB-scaled picture <-> 256 x 256 tiles. Pure functions, numpy and librosa only.

audio (n,)  --stft-->  (513, t) complex  --magnitude, amplitude_to_db-->  (256, t) in [0, 1]  --slice_tiles-->  tiles
audio (n,)  <--istft_frames--  (t, 256) complex: magnitude and phase  <--db_to_amplitude--  (256, t)  <--join_tiles--  tiles
"""

import librosa
import numpy as np
import scipy.fft

SAMPLE_RATE = 44100  # Hz, of all audio files that the method works on
N_FFT = 1024  # samples, 23 ms
HOP_LENGTH = 512  # samples, 12 ms
WINDOW = np.hanning(N_FFT).astype(np.float32)  # the method's window is the symmetric Hann
BINS = (
    N_FFT // 2 + 1
) // 2  # 256 kept bins, 0 - 11 kHz: NSynth ends at 8 kHz, so the upper half is empty
TILE_FRAMES = 256  # frames, 2.97 s: makes the tile a square
BLOCK_FRAMES = 1024  # frames of one block in a stream, 12 s
AMIN = 2.0**-16  # smallest magnitude of interest: about one step of 16-bit audio
DB_RANGE = 20 * np.log10(1 + 1 / AMIN)  # 96.33 dB: what 1.0 of the dB scale stands for
_DB_SCALE = np.float32(1 / np.log1p(1 / AMIN))

FEATURE_PARAMETERS = {  # "format" is raised whenever tiles on disk change their meaning
    "format": 1,
    "sample_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop_length": HOP_LENGTH,
    "window": "hanning",
    "bins": BINS,
    "tile_frames": TILE_FRAMES,
    "amin": AMIN,
}


def stft(audio):
    """Short-time Fourier transform: audio (n,) -> complex64 (N_FFT // 2 + 1, 1 + n // HOP_LENGTH).

    Frame t is centred on sample t * HOP_LENGTH, the ends padded with zeros.
    """
    audio = np.pad(
        np.asarray(audio, np.float32), N_FFT // 2
    )  # not librosa's own, which warns of every sound below a frame
    return librosa.stft(
        audio, n_fft=N_FFT, hop_length=HOP_LENGTH, window=WINDOW, center=False, dtype=np.complex64
    )


def magnitude(spectrum):
    """Complex (513, t) -> float32 (256, t): magnitude of the kept bins, scaled so that a full-scale sine reads 1.0."""
    return np.abs(spectrum[:BINS]) * np.float32(2 / WINDOW.sum())


def phasor(spectrum):
    """exp(i * phase) of a complex array, 1 where it is zero: complex64, same shape. Cheaper than angles, and exact."""
    mag, tiny = (
        np.abs(spectrum),
        np.finfo(np.float32).tiny,
    )  # below it numbers lose digits, and the phase with them
    return np.where(mag >= tiny, spectrum / np.maximum(mag, tiny), np.complex64(1))


_HALVES = WINDOW.reshape(2, HOP_LENGTH)
_ANALYSIS = WINDOW * np.float32(2 / WINDOW.sum())
_SYNTHESIS = (WINDOW * np.float32(WINDOW.sum() / 2)).reshape(2, HOP_LENGTH) / (_HALVES**2).sum(
    axis=0
)


def stft_frames(audio):
    """`stft` for streams: kept bins only, frames first, not centred, on `magnitude`'s scale (its abs is the magnitude).

    Float32 (..., (t + 1) * 512) -> complex64 (..., t, 256): frame k begins at sample k * HOP_LENGTH.
    """
    frames = np.lib.stride_tricks.sliding_window_view(audio, N_FFT, axis=-1)[..., ::HOP_LENGTH, :]
    return scipy.fft.rfft(frames * _ANALYSIS)[..., :BINS]


def istft_frames(frames):
    """Inverse of `stft_frames` (least squares): complex64 (..., t, 256) -> float32 (..., (t - 1) * 512).

    Returns the samples that two frames cover, which begin with the second half of the first frame.
    """
    audio = scipy.fft.irfft(frames, N_FFT)
    joined = (
        audio[..., :-1, HOP_LENGTH:] * _SYNTHESIS[1] + audio[..., 1:, :HOP_LENGTH] * _SYNTHESIS[0]
    )
    return joined.reshape(*joined.shape[:-2], -1)


def rechunk(blocks, size, keep=0):
    """Cut a stream anew: arrays (channels, any, ...), joined along axis 1 -> arrays (channels, size + keep, ...).

    Each piece begins with the last ``keep`` items of the one before; the last piece is as long as what is left.
    At least one piece comes, so an empty stream of shape (channels, 0, ...) gives one empty piece.
    """
    held, count = [], 0
    for block in blocks:
        held.append(block)
        count += block.shape[1]
        if count > size + keep:
            joined, start = np.concatenate(held, axis=1), 0
            for start in range(0, count - size - keep, size):
                yield joined[:, start : start + size + keep]
            held = [joined[:, start + size :].copy()]
            count -= start + size
    yield np.concatenate(held, axis=1)


def stft_stream(blocks):
    """`stft_frames` of a whole stream: audio (channels, any) -> stream of centred spectra complex64 (channels, any, 256).

    The last frames reach beyond the end: every sample is covered by two, so that none is divided by a window near 0.
    """

    def padded():
        length = 0
        for i, block in enumerate(blocks):
            if i == 0:
                yield np.zeros((len(block), HOP_LENGTH), np.float32)
            yield block
            length += block.shape[1]
        yield np.zeros((len(block), -length % HOP_LENGTH + HOP_LENGTH), np.float32)

    for piece in rechunk(padded(), BLOCK_FRAMES * HOP_LENGTH, keep=HOP_LENGTH):
        yield stft_frames(piece)


def amplitude_to_db(mag):
    """Magnitude -> the method's dB scale: 20 ln(1 + mag/AMIN) / (20 ln(1 + 1/AMIN)).

    0 -> 0, 1 -> 1; one unit is DB_RANGE = 96.33 dB. Float32, any shape, ``mag`` non-negative.
    """
    return np.log1p(np.asarray(mag, np.float32) / np.float32(AMIN)) * _DB_SCALE


def db_to_amplitude(db):
    """Inverse of `amplitude_to_db`: dB scale -> magnitude, float32."""
    return np.expm1(np.asarray(db, np.float32) / _DB_SCALE) * np.float32(AMIN)


def spectrogram(audio):
    """The picture of a sound: audio (n,) -> dB-scaled magnitude, float32 (256, 1 + n // 512), 0 ... 1 and a little above."""
    return amplitude_to_db(magnitude(stft(audio)))


def to_network(db):
    """dB scale [0, 1] -> the networks' range [-1, 1], clipped there (a peak may exceed 1). Float32."""
    return np.clip(np.asarray(db, np.float32) * 2 - 1, -1, 1)


def from_network(x):
    """Inverse of `to_network`: [-1, 1] -> [0, 1], float32."""
    return (np.asarray(x, np.float32) + 1) / 2


def slice_tiles(picture):
    """Cut a picture into tiles, the last one padded with zeros: (256, t) -> (ceil(t / 256), 256, 256, 1), same dtype."""
    bins, frames = picture.shape
    count = -(-frames // TILE_FRAMES)
    padded = np.pad(picture, ((0, 0), (0, count * TILE_FRAMES - frames)))
    return padded.reshape(bins, count, TILE_FRAMES).swapaxes(0, 1)[..., np.newaxis]


def join_tiles(tiles, frames=None):
    """Inverse of `slice_tiles`: (n, 256, 256, 1) -> (256, frames); all n * 256 frames if ``frames`` is None."""
    return np.concatenate(tiles[..., 0], axis=1)[:, :frames]
