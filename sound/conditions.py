"""Simulate rooms, noise and other conditions on whole recordings, for evaluate.py.

augment.py changes spectrograms for training, with random strength. Here each condition changes the
audio with a fixed strength, so that results of different models are comparable.
"""

from typing import NamedTuple

import numpy as np
import scipy  # whose parts load when they are first used

import data
from sound.augment import db_to_gain

SEED = 0  # of noise and echoes: the same for every piece and model
RT60 = 0.8  # s, reverberation time: a sparsely furnished living room, or a small hall
NOISE_LEVEL = -60  # dBFS, root mean square: a cassette, a cheap microphone
BAND = (200, 4000)  # Hz: a shellac record, a telephone
QUIET = -12  # dB


class Condition(NamedTuple):
    """One way to record a sound."""

    apply: object  # function of audio float32 (n,) -> float32 (n,)
    words: str  # for titles


def add_room(audio):
    """Add a room by Polack's model (1988): noise that decays by 60 dB in RT60, of unit energy."""
    count = int(RT60 * data.SAMPLE_RATE)
    seconds = np.arange(count) / data.SAMPLE_RATE
    echoes = np.random.default_rng(SEED).normal(size=count) * 10 ** (-3 * seconds / RT60)
    echoes /= np.sqrt(np.sum(echoes**2))
    echoes[0] += 1  # the direct sound
    return scipy.signal.oaconvolve(audio, echoes)[: len(audio)].astype(np.float32)


def add_noise(audio):
    """Add pink noise at NOISE_LEVEL: its power falls by 3 dB per octave above 20 Hz."""
    spectrum = np.fft.rfft(np.random.default_rng(SEED).normal(size=len(audio)))
    frequencies = np.fft.rfftfreq(len(audio), 1 / data.SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 20)), len(audio))
    power = np.mean(noise**2)
    if power > 0:
        noise *= db_to_gain(NOISE_LEVEL) / np.sqrt(power)
    return (audio + noise).astype(np.float32)


def limit_band(audio):
    """Limit to an old recording's band: Butterworth, 24 dB per octave on both sides of BAND."""
    sections = scipy.signal.butter(4, BAND, "bandpass", fs=data.SAMPLE_RATE, output="sos")
    return scipy.signal.sosfilt(sections, audio).astype(np.float32)


def turn_down(audio):
    """Turn the audio down by QUIET."""
    return audio * np.float32(db_to_gain(QUIET))


CONDITIONS = {
    "room": Condition(add_room, f"in a room (RT60 {RT60} s)"),
    "noise": Condition(add_noise, f"with noise at {NOISE_LEVEL} dB"),
    "band": Condition(limit_band, f"from {BAND[0]} to {BAND[1]} Hz"),
    "quiet": Condition(turn_down, f"at {QUIET} dB"),
}
