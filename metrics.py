"""Objective measures of a conversion: pure functions of pictures and sounds, formula and source in each docstring.

Lower is better for all but `snr`. Identity gives 0 (infinite `snr`). Every 0/0 is decided and said. Two sounds or pictures
that are compared have the same shape and are not empty; ValueError otherwise.

What to trust each for: `picture_mae` is what training lowers, and of the audio that was written it measures a phase
estimator alone, as `spectral_convergence` does; `lsd_per_frame` and `multi_resolution_stft` hear phase artefacts too;
`mfcc_distance` is a weak surrogate of timbre; `pitch_jaccard` asks whether the notes survived. SI-SDR is left out on purpose:
the phase of a converted sound never matches the target's.
"""

import functools

import librosa
import numpy as np
import scipy.fft
import scipy.sparse
from numpy.lib.stride_tricks import sliding_window_view

import data

RATE = 16000  # Hz, at which sounds are compared: that of NSynth, DDSP and ss-vq-vae
FFT_SIZES = (2048, 1024, 512, 256, 128, 64)  # DDSP's
LOG_FLOOR = 1e-5  # DDSP's safe_log
MFCC = 13
LOWEST, HIGHEST = 21, 108  # MIDI pitches of the piano, both included
PITCH_FFT, PITCH_HOP = 2048, 800  # samples at RATE: 128 ms windows, 20 frames a second
PITCH_SLOPES = (
    0.5,
    3,
    8,
    15,
)  # dB by which each harmonic is below the one before: from bright to a flute's
PITCH_HARMONICS = 12
PITCH_ITERATIONS = 50
PITCH_THRESHOLDS = (
    10 ** (-6 / 20),
    10 ** (-24 / 20),
)  # of the frame's strongest pitch, of the piece's (95th percentile)
_BLOCK = 2048  # frames that are transformed at a time: memory stays flat
_PITCH_BLOCK = (
    128  # frames whose pitches are estimated at a time: they stay in the processor's cache
)


def picture_mae(a, b):
    """Spectrogram MAE in dB: mean abs(a - b) on the networks' clipped -1 ... 1, times 96.33 / 2.

    Args:
        a, b: pictures (256, t) on the dB scale of `data.amplitude_to_db`, 0 ... 1.
    """
    _check(a, b)
    return float(np.abs(data.to_network(a) - data.to_network(b)).mean() * data.DB_RANGE / 2)


def spectral_convergence(written, mag):
    """Norm of written - mag over the norm of mag (Sturmel & Daudet 2011): what a phase estimator costs.

    Args:
        written: magnitude of audio that was made from ``mag`` and some phase, on the scale of `data.magnitude`.
        mag: the magnitude asked for, of the same shape.

    Returns:
        0 ... ; where ``mag`` is all zero: 0 if ``written`` is, too, infinite otherwise.
    """
    _check(written, mag)
    error, norm = np.linalg.norm(written - mag), np.linalg.norm(mag)
    return float(error / norm) if norm > 0 else (0.0 if error == 0 else np.inf)


def multi_resolution_stft(a, b):
    """Spectral loss of DDSP (Engel et al. 2020): sum over FFT sizes 2048 ... 64 of L1 magnitude + L1 log magnitude.

    Periodic Hann windows, overlap 0.75, the end padded with zeros, magnitudes not normalised, logarithms (natural) of
    at least 1e-5, as in DDSP's code. Absolute in level: a louder copy is not equal.

    Args:
        a, b: float (n,), best at 16 kHz as DDSP's: at 44.1 kHz what little noise there is above 8 kHz rules the logarithms.
    """
    _check(a, b)
    return float(
        sum(
            _stft_loss(np.asarray(a, np.float32), np.asarray(b, np.float32), size)
            for size in FFT_SIZES
        )
    )


def _stft_loss(a, b, size):
    hop = size // 4
    window = librosa.filters.get_window("hann", size).astype(np.float32)
    frames = [sliding_window_view(np.pad(x, (0, size)), size)[: len(x) : hop] for x in (a, b)]
    total = 0.0
    for start in range(0, len(frames[0]), _BLOCK):
        mag_a, mag_b = (np.abs(scipy.fft.rfft(x[start : start + _BLOCK] * window)) for x in frames)
        total += np.abs(mag_a - mag_b).sum(dtype=float)
        total += np.abs(np.log(np.maximum(mag_a, LOG_FLOOR) / np.maximum(mag_b, LOG_FLOOR))).sum(
            dtype=float
        )
    return total / len(frames[0]) / (size // 2 + 1)


def resample(audio, sample_rate=data.SAMPLE_RATE):
    """Audio (n,) at ``sample_rate`` Hz -> float32 at 16 kHz, as the functions below take it."""
    return librosa.resample(
        np.asarray(audio, np.float32), orig_sr=sample_rate, target_sr=RATE, res_type="soxr_hq"
    )


def log_mel(audio):
    """Log mel spectrogram as the evaluation of ss-vq-vae takes it (Cifka et al. 2021): what LSD and MFCC compare.

    Divided by its RMS (so blind to level), librosa's default mel spectrogram (FFT 2048, hop 512, 128 mels),
    in dB, at most 80 below its own peak.

    Args:
        audio: float32 (n,) at 16 kHz.

    Returns:
        float32 (128, t) in dB; silence gives -100 everywhere.
    """
    audio = audio / (_rms(audio) + np.finfo(np.float32).eps)
    return librosa.power_to_db(
        librosa.feature.melspectrogram(y=_at_least(2048, audio), sr=RATE), top_db=80
    )


def lsd_per_frame(mel_a, mel_b):
    """Log-spectral distance in dB, the usual reading: root mean square over mels, mean over frames. See `log_mel`."""
    _check(mel_a, mel_b)
    return float(np.sqrt(np.mean((mel_a - mel_b) ** 2, axis=0)).mean())


def lsd_time_first(mel_a, mel_b):
    """Log-spectral distance in dB as the code of ss-vq-vae has it: root mean square over time, mean over mels."""
    _check(mel_a, mel_b)
    return float(np.sqrt(np.mean((mel_a - mel_b) ** 2, axis=1)).mean())


def mfcc_distance(mel_a, mel_b):
    """1 - cosine of the mean MFCC 1 ... 12 of two log mel spectrograms (128, t): 0 ... 2, a weak surrogate of timbre.

    A flat spectrum (silence) has no direction: 0 from another flat one, 1 from everything else.
    """
    a, b = (
        librosa.feature.mfcc(S=mel.mean(axis=1, keepdims=True), n_mfcc=MFCC)[1:, 0]
        for mel in (mel_a, mel_b)
    )
    norms = np.linalg.norm(a), np.linalg.norm(b)
    flat = [norm < 1e-3 for norm in norms]
    return (
        float(flat[0] != flat[1]) if any(flat) else float(max(0, 1 - a @ b / norms[0] / norms[1]))
    )


def snr(reference, estimate):
    """Signal-to-noise ratio in dB: 20 log10(rms(reference) / rms(estimate - reference)). Only where waveforms should match.

    Equal sounds (two silences too) give infinity, a silent reference and another estimate minus infinity.
    """
    _check(reference, estimate)
    signal, noise = _rms(reference), _rms(np.subtract(estimate, reference))
    if noise == 0:
        return np.inf
    return float(20 * np.log10(signal / noise)) if signal > 0 else -np.inf


def pitch_jaccard(a, b):
    """Mean over frames of 1 - (pitches in both) / (pitches in either), 0 where neither has any: 0 ... 1.

    a, b: bool (88, t), which pitches sound, from `score_pitches` or `sounding_pitches`; the shorter is padded with silence.
    """
    frames = max(a.shape[1], b.shape[1])
    a, b = (np.pad(x, ((0, 0), (0, frames - x.shape[1]))) for x in (a, b))
    either = (a | b).sum(axis=0)
    return (
        float(np.where(either > 0, 1 - (a & b).sum(axis=0) / np.maximum(either, 1), 0).mean())
        if frames
        else 0.0
    )


def score_pitches(onsets, durations, pitches, seconds):
    """The score as a piano roll: bool (88, t), 20 frames a second, pitch 21 first; other pitches are left out.

    Args:
        onsets, durations: (notes,) in s.
        pitches: (notes,) MIDI numbers.
        seconds: length of the roll.
    """
    roll = np.zeros((HIGHEST - LOWEST + 1, 1 + int(seconds * RATE) // PITCH_HOP), bool)
    for onset, duration, pitch in zip(onsets, durations, pitches):
        if LOWEST <= pitch <= HIGHEST:
            first, last = (
                int(np.ceil(time * RATE / PITCH_HOP)) for time in (onset, onset + duration)
            )
            roll[int(pitch) - LOWEST, first : max(last, first + 1)] = True
    return roll


def sounding_pitches(audio):
    """Estimate which pitches sound in audio (n,) at 16 kHz: bool (88, t), 20 frames a second. Blind to level.

    Non-negative matrix factorisation with fixed harmonic templates, several spectral slopes a pitch (in the manner of
    Vincent, Bertin & Badeau 2010), of the square root of the magnitude, by multiplicative updates for the
    Kullback-Leibler divergence (Lee & Seung 2001). A pitch sounds where its activation is within 6 dB of the frame's
    strongest and within 24 dB of the piece's. Simple, and often wrong on real music: compare a conversion's distance
    from the score with that of the target recording, which is the estimator's ceiling.
    """
    audio = _at_least(PITCH_FFT, audio)
    spectrum = librosa.stft(
        audio, n_fft=PITCH_FFT, hop_length=PITCH_HOP, window="hann", pad_mode="constant"
    )
    mag = np.sqrt(np.abs(spectrum))
    blocks = [
        _activations(mag[:, start : start + _PITCH_BLOCK])
        for start in range(0, mag.shape[1], _PITCH_BLOCK)
    ]
    activations = np.concatenate(blocks, axis=1)
    strongest = activations.max(axis=0)
    in_frame, in_piece = PITCH_THRESHOLDS
    return activations > np.maximum(in_frame * strongest, in_piece * np.percentile(strongest, 95))


def _activations(mag):
    """Strength of each pitch: square roots of magnitudes float32 (bins, t) -> (88, t)."""
    templates, transposed = _templates()
    strength = templates @ mag
    weights = templates.sum(axis=1)[:, np.newaxis]
    for _ in range(PITCH_ITERATIONS):
        strength *= templates @ (mag / (transposed @ strength + np.float32(1e-7))) / weights
    return strength.reshape(HIGHEST - LOWEST + 1, len(PITCH_SLOPES), -1).sum(axis=1)


@functools.cache
def _templates():
    """Spectrum of each pitch and slope, float32 (88 * slopes, bins) of norm 1: a Hann window's main lobe at each harmonic.

    Returned with its transpose, both sparse: 96 % of it is zero, and products are a tenth of the work.
    """
    bins = np.arange(PITCH_FFT // 2 + 1)
    pitches = np.repeat(np.arange(LOWEST, HIGHEST + 1), len(PITCH_SLOPES))[:, np.newaxis]
    slopes = np.tile(PITCH_SLOPES, HIGHEST - LOWEST + 1)[:, np.newaxis]
    templates = np.zeros((len(pitches), len(bins)))
    for harmonic in range(1, PITCH_HARMONICS + 1):
        centre = harmonic * librosa.midi_to_hz(pitches) * PITCH_FFT / RATE
        distance = np.abs(bins - centre)
        lobe = (
            np.abs(np.sinc(distance) / (1 - distance**2 + 1e-9))
            * (distance < 2)
            * (centre < len(bins))
        )
        templates = np.maximum(templates, 10 ** (-slopes * (harmonic - 1) / 20) * lobe)
    templates = np.sqrt(templates)
    templates = (templates / np.linalg.norm(templates, axis=1, keepdims=True)).astype(np.float32)
    return scipy.sparse.csr_array(templates), scipy.sparse.csr_array(templates.T)


def _at_least(samples, audio):
    """Audio followed by silence if it is shorter than a frame, of which librosa would warn."""
    return audio if len(audio) >= samples else np.pad(audio, (0, samples - len(audio)))


def _rms(audio):
    return np.sqrt(np.mean(np.square(audio), dtype=np.float64))


def _check(a, b):
    if np.shape(a) != np.shape(b) or not np.size(a):
        raise ValueError(f"shapes {np.shape(a)} and {np.shape(b)}: must be equal and not empty")
