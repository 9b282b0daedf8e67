"""Objective measures of a conversion: pure functions, formula and source in each docstring.

They compare pictures (spectrograms on the dB scale) or sounds. Lower is better, except for `snr`.
Identical arguments give 0 (infinite `snr`). Each docstring defines its 0/0. Two arguments must have
the same shape and not be empty; otherwise ValueError.

- `picture_mae` is the training loss. Computed on the written audio it measures the phase estimator
  alone, as does `spectral_convergence`.
- `level_matched_mae` ignores a constant difference in level.
- `lsd_per_frame` and `multi_resolution_stft` also include phase artefacts.
- `mfcc_distance` is a weak measure of timbre.

The judges in judges.py check whether notes survive. SI-SDR is left out on purpose, because the
phase of a converted sound never matches the target's.

`MEASURES`, at the end, lists all measures in the order of the tables' columns. `BAND_MEASURES` have
a separate table.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import librosa
import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

import data

RATE = 16000  # Hz, rate at which sounds are compared, as in NSynth, DDSP and ss-vq-vae
LEVEL_GAINS = np.arange(-12, 12.1, 1.5)  # dB, gains of `level_matched_mae`
FFT_SIZES = (2048, 1024, 512, 256, 128, 64)  # DDSP's
LOG_FLOOR = 1e-5  # DDSP's safe_log
MFCC = 13
# kHz: what NSynth's notes reach, what a picture of 256 bins reaches, and the two halves of the rest
BANDS = ((0, 8), (8, 11.025), (11.025, 16), (16, 22.05))
_BLOCK = 2048  # frames transformed at a time, to limit memory


def picture_mae(a, b):
    """Spectrogram MAE in dB: mean abs(a - b) in the networks' range, clipped, times 96.33 / 2.

    Args:
        a, b: pictures (bins, t) on the dB scale of `data.amplitude_to_db`, 0 ... 1.
    """
    _check(a, b)
    return float(np.abs(data.to_network(a) - data.to_network(b)).mean() * data.DB_RANGE / 2)


def level_matched_mae(picture, target):
    """`picture_mae` at the best level: the minimum over gains of -12 ... 12 dB.

    One gain for the whole piece, in steps of 1.5 dB, is applied to the target's linear magnitude.
    It ignores a wrong level, for pianos and recordings with other dynamics than the training piano.
    Not symmetric. It is never above `picture_mae`, because the gains include 0 dB.

    Args:
        picture: output, (bins, t) on the dB scale, 0 ... 1.
        target: target, the same.
    """
    _check(picture, target)
    made = data.to_network(picture)
    mag = data.db_to_amplitude(target)
    errors = []
    for gain in LEVEL_GAINS:
        louder = data.amplitude_to_db(mag * np.float32(10 ** (gain / 20)))
        errors.append(np.abs(made - data.to_network(louder)).mean())
    return float(min(errors) * data.DB_RANGE / 2)


def band_error(picture, target, low, high):
    """`picture_mae` in dB of the bins from ``low`` to ``high`` Hz; border bins are in both.

    Args:
        picture, target: (512, t) on the dB scale, of the full band.
        low, high: Hz, 0 ... 22,050.
    """
    _check(picture, target)
    first = int(low * data.N_FFT / data.SAMPLE_RATE)
    last = int(high * data.N_FFT / data.SAMPLE_RATE)
    return picture_mae(picture[first : last + 1], target[first : last + 1])


def spectral_convergence(written, mag):
    """Norm of written - mag over the norm of mag (Sturmel & Daudet 2011): the cost of a phase.

    Args:
        written: magnitude of audio that was made from ``mag`` and some phase, on
            `data.magnitude`'s scale.
        mag: the magnitude given to the estimator, same shape.

    Returns:
        0 ... ; if ``mag`` is all zero: 0 if ``written`` is, too, otherwise infinite.
    """
    _check(written, mag)
    error = np.linalg.norm(written - mag)
    norm = np.linalg.norm(mag)
    if norm > 0:
        return float(error / norm)
    return 0.0 if error == 0 else np.inf


def multi_resolution_stft(a, b):
    """Spectral loss of DDSP (Engel et al. 2020): L1 of magnitudes + L1 of their logarithms.

    Summed over FFT sizes 2048 ... 64; periodic Hann windows, overlap 0.75, the end padded with
    zeros, magnitudes not normalised, logarithms (natural) of at least 1e-5, as in DDSP's code.
    It depends on the level.

    Args:
        a, b: float (n,), best at 16 kHz as in DDSP: at 44.1 kHz the weak noise above 8 kHz
            dominates the logarithms.
    """
    _check(a, b)
    a = np.asarray(a, np.float32)
    b = np.asarray(b, np.float32)
    return float(sum(_stft_loss(a, b, size) for size in FFT_SIZES))


def _stft_loss(a, b, size):
    """Mean L1 of the magnitudes and of their logarithms, for one FFT size."""
    hop = size // 4
    window = librosa.filters.get_window("hann", size).astype(np.float32)
    frames_a = _frames(a, size, hop)
    frames_b = _frames(b, size, hop)
    total = 0.0
    for start in range(0, len(frames_a), _BLOCK):
        span = slice(start, start + _BLOCK)
        mag_a = np.abs(scipy.fft.rfft(frames_a[span] * window))
        mag_b = np.abs(scipy.fft.rfft(frames_b[span] * window))
        log_ratio = np.log(np.maximum(mag_a, LOG_FLOOR) / np.maximum(mag_b, LOG_FLOOR))
        total += np.abs(mag_a - mag_b).sum(dtype=float)
        total += np.abs(log_ratio).sum(dtype=float)
    return total / len(frames_a) / (size // 2 + 1)


def _frames(audio, size, hop):
    """A view of audio (n,) as frames (ceil(n / hop), size), the end padded with zeros."""
    return sliding_window_view(np.pad(audio, (0, size)), size)[: len(audio) : hop]


def resample(audio, sample_rate=data.SAMPLE_RATE):
    """Resample audio (n,) from ``sample_rate`` Hz to float32 at 16 kHz."""
    audio = np.asarray(audio, np.float32)
    return librosa.resample(audio, orig_sr=sample_rate, target_sr=RATE, res_type="soxr_hq")


def log_mel(audio):
    """Log mel spectrogram as in ss-vq-vae's evaluation (Cifka et al. 2021), for LSD and MFCC.

    The audio is divided by its RMS, so the level does not matter. librosa's default mel spectrogram
    (FFT 2048, hop 512, 128 mels) follows, in dB, limited to 80 dB below its peak.

    Args:
        audio: float32 (n,) at 16 kHz.

    Returns:
        float32 (128, t) in dB; silence gives -100 everywhere.
    """
    audio = audio / (_rms(audio) + np.finfo(np.float32).eps)
    mel = librosa.feature.melspectrogram(y=_at_least(2048, audio), sr=RATE)
    return librosa.power_to_db(mel, top_db=80)


def lsd_per_frame(mel_a, mel_b):
    """Log-spectral distance in dB, usual definition: root mean square over mels, mean over frames.

    mel_a, mel_b: (128, t), of `log_mel`.
    """
    _check(mel_a, mel_b)
    return float(np.sqrt(np.mean((mel_a - mel_b) ** 2, axis=0)).mean())


def lsd_time_first(mel_a, mel_b):
    """Log-spectral distance in dB as in ss-vq-vae's code: RMS over time, mean over mels.

    mel_a, mel_b: (128, t), of `log_mel`.
    """
    _check(mel_a, mel_b)
    return float(np.sqrt(np.mean((mel_a - mel_b) ** 2, axis=1)).mean())


def mfcc_distance(mel_a, mel_b):
    """1 - cosine of the mean MFCC 1 ... 12 of two log mel spectrograms (128, t): 0 ... 2.

    A weak measure of timbre. A flat spectrum (silence) has no direction: 0 from another flat
    one, 1 from everything else.
    """
    a = _mean_mfcc(mel_a)
    b = _mean_mfcc(mel_b)
    norm_a = np.linalg.norm(a)
    norm_b = np.linalg.norm(b)
    a_is_flat = norm_a < 1e-3
    b_is_flat = norm_b < 1e-3
    if a_is_flat and b_is_flat:
        return 0.0
    if a_is_flat or b_is_flat:
        return 1.0
    return float(max(0, 1 - a @ b / norm_a / norm_b))


def _mean_mfcc(mel):
    """MFCC 1 ... 12 of the mean over frames of a log mel spectrogram (128, t): (12,)."""
    mean = mel.mean(axis=1, keepdims=True)
    return librosa.feature.mfcc(S=mean, n_mfcc=MFCC)[1:, 0]


def snr(reference, estimate):
    """Signal-to-noise ratio in dB: 20 log10(rms(reference) / rms(estimate - reference)).

    Use it only if the waveforms should match. Equal sounds (also two silences) give infinity, a
    silent reference with another estimate minus infinity.
    """
    _check(reference, estimate)
    signal = _rms(reference)
    noise = _rms(np.subtract(estimate, reference))
    if noise == 0:
        return np.inf
    return float(20 * np.log10(signal / noise)) if signal > 0 else -np.inf


def _at_least(samples, audio):
    """Pad audio that is shorter than a frame with silence, because librosa would warn."""
    return audio if len(audio) >= samples else np.pad(audio, (0, samples - len(audio)))


def _rms(audio):
    return np.sqrt(np.mean(np.square(audio), dtype=np.float64))


def _check(a, b):
    if np.shape(a) != np.shape(b) or not np.size(a):
        raise ValueError(f"shapes {np.shape(a)} and {np.shape(b)}: must be equal and not empty")


class Measure(NamedTuple):
    """One column of the tables: a function of this module and its description.

    ``takes`` names the arguments of the function, see `rows.things_to_compare`. A row without
    one of them has no such cell.
    """

    key: str  # in results.csv and results.json
    heading: str
    digits: int
    function: Callable
    takes: tuple[str, ...]
    meaning: str  # on the listening page


MEASURES = (
    Measure(
        "mae_db",
        "picture MAE, dB",
        2,
        picture_mae,
        ("asked", "target_picture"),
        "Mean absolute difference between the network's spectrogram and the target's. Blind to "
        "texture: a smooth median scores well.",
    ),
    Measure(
        "level_matched_db",
        "level-matched MAE, dB",
        2,
        level_matched_mae,
        ("asked", "target_picture"),
        "The same at the level that suits best: the target as much as 12 dB louder or softer.",
    ),
    Measure(
        "written_mae_db",
        "audio MAE, dB",
        2,
        picture_mae,
        ("picture", "target_picture"),
        "Mean absolute difference between the spectrogram of the audio written and the target's.",
    ),
    Measure(
        "reanalysis_db",
        "re-analysis, dB",
        2,
        picture_mae,
        ("written_picture", "asked"),
        "How far the audio's spectrogram is from the one it was made from: the price of the phase.",
    ),
    Measure(
        "convergence",
        "spectral convergence",
        3,
        spectral_convergence,
        ("written_mag", "asked_mag"),
        "The same on linear magnitudes, as a fraction.",
    ),
    Measure(
        "lsd_db",
        "LSD, dB",
        2,
        lsd_per_frame,
        ("mel", "target_mel"),
        "Log-spectral distance from the target on 128 mels, frame by frame; blind to level.",
    ),
    Measure(
        "lsd_time_first_db",
        "LSD time first, dB",
        2,
        lsd_time_first,
        ("mel", "target_mel"),
        "The same averaged over time first, as the code of ss-vq-vae has it.",
    ),
    Measure(
        "multi_resolution",
        "multi-resolution STFT",
        2,
        multi_resolution_stft,
        ("low", "target_low"),
        "DDSP's spectral loss from the target, six window sizes: hears smearing.",
    ),
    Measure(
        "mfcc_distance",
        "MFCC cosine distance",
        4,
        mfcc_distance,
        ("mel", "target_mel"),
        "A weak surrogate of timbre.",
    ),
    Measure(
        "snr_db",
        "SNR, dB",
        1,
        snr,
        ("target_waveform", "waveform"),
        "Signal-to-noise ratio, where the waveform should be the target's.",
    ),
)


def _band_measure(low, high):
    """Make the `Measure` of one of `BANDS`."""
    error = functools.partial(band_error, low=1000 * low, high=1000 * high)
    name = f"{low:.0f} – {high:.0f} kHz"
    return Measure(
        f"band_{low:.0f}_{high:.0f}_db",
        name,
        2,
        error,
        ("full_picture", "target_full_picture"),
        f"Audio MAE, dB, of {name} alone, whatever the height of the network's picture.",
    )


BAND_MEASURES = tuple(_band_measure(low, high) for low, high in BANDS)
