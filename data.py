"""Signal processing: audio <-> STFT <-> dB-scaled picture <-> tiles. Pure functions.

Both directions, with shapes:

    audio (n,)
      -- stft -->                          spectrum, complex (513, t)
      -- magnitude, amplitude_to_db -->    picture (bins, t) in [0, 1]
      -- slice_tiles -->                   tiles (tiles, bins, 256, 1)

    tiles
      -- join_tiles -->                    picture (bins, t)
      -- db_to_amplitude, a phase -->      frames, complex (t, bins)
      -- istft_frames -->                  audio (n,)

A picture's height ``bins`` is one of `HEIGHTS`: 256 (up to 11 kHz) or 512 (up to 22 kHz).

Recordings of any length are processed as streams: `stft_stream`, `rechunk`, `istft_frames`.
"""

import numpy as np
import scipy.fft

SAMPLE_RATE = 44100  # Hz, of all audio in the method
N_FFT = 1024  # samples, 23 ms
HOP_LENGTH = 512  # samples, 12 ms; conversion may use a finer hop
WINDOW = np.hanning(N_FFT).astype(np.float32)  # the method's window is the symmetric Hann
BINS = (N_FFT // 2 + 1) // 2  # 256 bins, 0 - 11 kHz, the method's number: NSynth ends at 8 kHz
FULL_BINS = N_FFT // 2  # 512, 0 - 22 kHz: the full band without the Nyquist frequency
HEIGHTS = (BINS, FULL_BINS)  # allowed heights of a picture, bins
TILE_FRAMES = 256  # frames, 2.97 s: a tile of 256 bins is square
BLOCK_FRAMES = 1024  # frames of one block in a stream, 12 s
AMIN = 2.0**-16  # smallest relevant magnitude: about one step of 16-bit audio
DB_RANGE = 20 * np.log10(1 + 1 / AMIN)  # 96.33 dB: the range of the dB scale, 0 ... 1

_FULL_SCALE = np.float32(2 / WINDOW.sum())  # makes a full-scale sine read 1.0
_DB_SCALE = np.float32(1 / np.log1p(1 / AMIN))

FEATURE_PARAMETERS = {  # raise "format" when the meaning of tiles on disk changes
    "format": 1,
    "sample_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop_length": HOP_LENGTH,
    "window": "hanning",
    "bins": BINS,  # or FULL_BINS
    "tile_frames": TILE_FRAMES,
    "amin": AMIN,
}


def _cut_frames(audio, hop_length):
    """View audio as frames, (..., n) -> (..., t, N_FFT). Frame k starts at k * hop_length."""
    windows = np.lib.stride_tricks.sliding_window_view(audio, N_FFT, axis=-1)
    return windows[..., ::hop_length, :]


def stft(audio):
    """Short-time Fourier transform of a whole sound, all bins, unscaled.

    Frame t is centred on sample t * HOP_LENGTH; the ends are padded with zeros. Equal to
    ``librosa.stft(audio, n_fft=N_FFT, hop_length=HOP_LENGTH, window=WINDOW, pad_mode="constant")``;
    own code, because librosa cannot process streams as `stft_stream` does.

    Args:
        audio: (n,), full scale = 1.

    Returns:
        complex64 (N_FFT // 2 + 1, 1 + n // HOP_LENGTH).
    """
    padded = np.pad(np.asarray(audio, np.float32), N_FFT // 2)
    frames = _cut_frames(padded, HOP_LENGTH)
    return scipy.fft.rfft(frames * WINDOW).T


def magnitude(spectrum, bins=BINS):
    """Magnitude of the lowest ``bins``, scaled so that a full-scale sine reads 1.0.

    Complex (513, t) -> float32 (bins, t).
    """
    return np.abs(spectrum[:bins]) * _FULL_SCALE


def phasor(spectrum):
    """exp(i * phase) of a complex array, 1 where it is zero: complex64, same shape.

    Faster than computing angles, and exact.
    """
    mag = np.abs(spectrum)
    tiny = np.finfo(np.float32).tiny  # smaller numbers lose digits, and so does their phase
    unit = spectrum / np.maximum(mag, tiny)
    return np.where(mag >= tiny, unit, np.complex64(1))


def stft_frames(audio, hop_length=HOP_LENGTH, bins=BINS):
    """`stft` for streams: the lowest bins only, time first, not centred, on `magnitude`'s scale.

    Its absolute value is the magnitude. Frame k begins at sample k * hop_length.

    Args:
        audio: float32 (..., n), n at least N_FFT.
        hop_length: samples; a divisor of HOP_LENGTH.
        bins: how many are kept.

    Returns:
        complex64 (..., 1 + (n - N_FFT) // hop_length, bins).
    """
    frames = _cut_frames(audio, hop_length)
    window = WINDOW * _FULL_SCALE
    return scipy.fft.rfft(frames * window)[..., :bins]


def istft_frames(frames, hop_length=HOP_LENGTH):
    """Inverse of `stft_frames` by least squares; missing bins are zero.

    A sample is the mean of the frames that cover it, weighted by the window, over the sum of
    the window's squares (Griffin and Lim, 1984, eq. 6).

    Args:
        frames: complex64 (..., t, bins); frame k starts at sample k * hop_length.
        hop_length: samples; a divisor of HOP_LENGTH.

    Returns:
        The samples covered by N_FFT // hop_length frames, starting with sample
        N_FFT - hop_length of the first frame: float32 (..., (t + 1) * hop_length - N_FFT).
    """
    overlap = N_FFT // hop_length  # frames that cover a sample
    squares = (WINDOW**2).reshape(overlap, hop_length).sum(axis=0)
    window = WINDOW / _FULL_SCALE / np.tile(squares, overlap)

    parts = scipy.fft.irfft(frames, N_FFT) * window  # (..., t, 1024)
    parts = parts.reshape(*parts.shape[:-1], overlap, hop_length)
    count = max(0, parts.shape[-3] - overlap + 1)
    audio = np.zeros((*parts.shape[:-3], count, hop_length), np.float32)
    for part in range(overlap):
        first = overlap - 1 - part  # the first frame whose part this is lies that far on
        audio += parts[..., first : first + count, part, :]
    return audio.reshape(*audio.shape[:-2], count * hop_length)


def rechunk(blocks, size, keep=0):
    """Cut a stream into new blocks: (channels, any, ...) -> (channels, size + keep, ...).

    Each block starts with the last ``keep`` items of the one before; the last block may be shorter.
    There is at least one: an empty stream of shape (channels, 0, ...) gives one empty block.
    """
    held = []
    count = 0  # items in ``held``
    for block in blocks:
        held.append(block)
        count += block.shape[1]
        if count <= size + keep:
            continue
        joined = np.concatenate(held, axis=1)
        start = 0
        while count - start > size + keep:
            yield joined[:, start : start + size + keep]
            start += size
        held = [joined[:, start:].copy()]
        count -= start
    yield np.concatenate(held, axis=1)


def _pad_stream(blocks, hop_length):
    """Pad a stream of audio with zeros, so that its ends are covered by as many frames."""
    margin = N_FFT - hop_length
    length = 0
    for i, block in enumerate(blocks):
        if i == 0:
            yield np.zeros((len(block), margin), np.float32)
        yield block
        length += block.shape[1]
    yield np.zeros((len(block), -length % hop_length + margin), np.float32)


def stft_stream(blocks, hop_length=HOP_LENGTH, bins=BINS):
    """`stft_frames` of a stream; `istft_frames` of it starts with the stream's first sample.

    Frame k is centred on sample (k + 1) * hop_length - HOP_LENGTH: at the usual hop on
    k * HOP_LENGTH, as in `stft`; at a finer one, the first frames are centred before the sound.
    The last frames extend beyond the end. So every sample is covered by N_FFT // hop_length frames,
    and none is divided by a window value near 0.

    Args:
        blocks: float32 (channels, any), at least one.
        hop_length: samples; a divisor of HOP_LENGTH.
        bins: how many are kept.

    Yields:
        complex64 (channels, any, bins).
    """
    padded = _pad_stream(blocks, hop_length)
    for block in rechunk(padded, BLOCK_FRAMES * hop_length, keep=N_FFT - hop_length):
        yield stft_frames(block, hop_length, bins)


def band_edge(bins):
    """Upper edge of a picture in Hz: 11,025 for 256 bins, 22,050 for 512."""
    return bins * SAMPLE_RATE / N_FFT


def amplitude_to_db(mag):
    """Magnitude -> the method's dB scale: 20 ln(1 + mag/AMIN) / (20 ln(1 + 1/AMIN)).

    0 -> 0, 1 -> 1; one unit is DB_RANGE = 96.33 dB. Float32, any shape, ``mag`` non-negative.
    """
    return np.log1p(np.asarray(mag, np.float32) / np.float32(AMIN)) * _DB_SCALE


def db_to_amplitude(db):
    """Inverse of `amplitude_to_db`: dB scale -> magnitude, float32."""
    return np.expm1(np.asarray(db, np.float32) / _DB_SCALE) * np.float32(AMIN)


def spectrogram(audio, bins=BINS):
    """Compute the picture of a sound: its magnitude on the dB scale, 0 ... 1 or slightly more.

    Audio (n,) -> float32 (bins, 1 + n // 512).
    """
    mag = magnitude(stft(audio), bins)
    return amplitude_to_db(mag)


def to_network(db):
    """dB scale [0, 1] -> the networks' range [-1, 1], clipped there. Float32."""
    return np.clip(np.asarray(db, np.float32) * 2 - 1, -1, 1)  # a peak may exceed 1


def from_network(x):
    """Inverse of `to_network`: [-1, 1] -> [0, 1], float32."""
    return (np.asarray(x, np.float32) + 1) / 2


def slice_tiles(picture):
    """Cut a picture into tiles, the last one padded with zeros.

    (bins, t) -> (ceil(t / 256), bins, 256, 1), same dtype.
    """
    bins, frames = picture.shape
    count = -(-frames // TILE_FRAMES)
    padded = np.pad(picture, ((0, 0), (0, count * TILE_FRAMES - frames)))
    tiles = padded.reshape(bins, count, TILE_FRAMES).swapaxes(0, 1)
    return tiles[..., np.newaxis]


def join_tiles(tiles, frames=None):
    """Inverse of `slice_tiles`: (n, bins, 256, 1) -> (bins, frames).

    All n * 256 frames if ``frames`` is None.
    """
    return np.concatenate(tiles[..., 0], axis=1)[:, :frames]
