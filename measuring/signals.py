"""What a producer hears beside timbre: attacks, gaps between notes, and stereo. Pure functions.

Attacks and gaps are those of a recording of single notes at known times, `TEST_NOTES`.
"""

from typing import NamedTuple

import numpy as np
from scipy.signal import butter, sosfiltfilt

import data
from synthesis.scores import NOTE

FIRST, EVERY, HELD = 0.5, 0.6, 0.5  # s: the first onset, between onsets, of a note
PITCHES = range(40, 89)  # MIDI numbers of the test's 49 notes
VELOCITY = 80
ATTACK_BAND = (2000, 7500)  # Hz, where an attack is clearest
SMOOTHING = 0.002  # s, over which the power of that band is averaged
RISE = (0.2, 0.8)  # parts of an attack's peak
ATTACK_SPAN = (-0.03, 0.15)  # s about an onset, where its peak is looked for
NOTE_SPAN = (0.3, 0.45)  # s after an onset: the held note
GAP_SPAN = (0.55, 0.59)  # s after an onset: after this note, before the next one
POWER_FLOOR = 1e-12
STEREO_WINDOW = 0.2  # s
QUIET = 1e-4  # fraction of the loudest window's power; quieter windows do not count


def make_test_notes():
    """Make the score of the test: 49 notes, one at a time, array of `scores.NOTE`."""
    notes = []
    for number, pitch in enumerate(PITCHES):
        notes.append((FIRST + EVERY * number, HELD, pitch, VELOCITY))
    return np.array(notes, NOTE)


def measure_attacks(audio):
    """Measure the attack of each test note: ms from 20 to 80 % of the peak in 2 - 7.5 kHz, (49,).

    Args:
        audio: of `make_test_notes`, (n,) at 44.1 kHz; a shorter one has fewer notes.
    """
    rate = data.SAMPLE_RATE
    band = sosfiltfilt(butter(8, ATTACK_BAND, "band", fs=rate, output="sos"), audio)
    width = int(SMOOTHING * rate)
    envelope = np.sqrt(np.convolve(band**2, np.ones(width) / width, "same"))
    rises = []
    for part in _cut_spans(envelope, ATTACK_SPAN):
        first = np.argmax(part > RISE[0] * part.max())
        last = np.argmax(part > RISE[1] * part.max())
        rises.append(1000 * (last - first) / rate)
    return np.array(rises)


def measure_gaps(audio):
    """Measure how much softer the gap after each test note is than the note, dB, (49,)."""
    depths = []
    for note, gap in zip(_cut_spans(audio, NOTE_SPAN), _cut_spans(audio, GAP_SPAN)):
        powers = np.array([np.mean(note**2), np.mean(gap**2)]) + POWER_FLOOR
        depths.append(10 * np.log10(powers[0] / powers[1]))
    return np.array(depths)


def _cut_spans(samples, span):
    """Cut span[0] ... span[1] s around each onset of the test; whole spans only."""
    rate = data.SAMPLE_RATE
    parts = []
    for number in range(len(PITCHES)):
        onset = int((FIRST + EVERY * number) * rate)
        begin = onset + int(span[0] * rate)
        end = onset + int(span[1] * rate)
        if end <= len(samples):
            parts.append(samples[begin:end])
    return parts


class StereoChange(NamedTuple):
    """Change of a recording's stereo image."""

    moved: np.ndarray  # change of left - right in each sounding window, dB
    before: float  # correlation of the channels
    after: float


def compare_stereo(before, after):
    """`StereoChange` between two recordings (n, 2) at 44.1 kHz.

    The level difference of left and right is taken in windows of 200 ms.
    """
    levels, power = _measure_sides(before)
    levels_after, _ = _measure_sides(after)
    count = min(len(levels), len(levels_after))
    sounds = power[:count] > QUIET * power.max()
    moved = np.abs(levels[:count] - levels_after[:count])[sounds]
    return StereoChange(moved, _correlate(before), _correlate(after))


def _measure_sides(audio):
    """Measure (left - right in dB, power) of each window."""
    size = round(STEREO_WINDOW * data.SAMPLE_RATE)
    count = len(audio) // size
    windows = audio[: count * size].reshape(count, size, 2)
    powers = np.mean(windows**2, axis=1) + POWER_FLOOR
    return 10 * np.log10(powers[:, 0] / powers[:, 1]), powers.sum(axis=1)


def _correlate(audio):
    """Correlation of the channels, -1 ... 1; NaN if one is silent."""
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(audio[:, 0], audio[:, 1])[0, 1])
