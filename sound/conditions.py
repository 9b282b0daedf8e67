"""Simulate rooms, noise and other conditions on whole recordings, for evaluate.py.

augment.py does this to spectrograms for training, with random strength. Here each condition has a
fixed strength and changes the audio, so that figures of different models can be compared.
"""

from typing import NamedTuple

import numpy as np
import scipy  # whose parts load when they are first used

import data
from sound.augment import db_to_gain

SEED = 0  # of noise and echoes: the same for every piece and model
RT60 = 0.8  # s, of the room: a living room with few soft things in it, or a small hall
NOISE_LEVEL = -60  # dB of full scale, root mean square: a cassette, a cheap microphone
BAND = (200, 4000)  # Hz: a shellac record, a telephone
QUIET = -12  # dB


class Condition(NamedTuple):
    """One way to record a sound."""

    apply: object  # function of audio float32 (n,) -> float32 (n,)
    words: str  # for titles


def add_room(audio):
    """A room: Polack's model (1988), noise that decays by 60 dB in RT60, as loud as the sound."""
    count = int(RT60 * data.SAMPLE_RATE)
    seconds = np.arange(count) / data.SAMPLE_RATE
    echoes = np.random.default_rng(SEED).normal(size=count) * 10 ** (-3 * seconds / RT60)
    echoes /= np.sqrt(np.sum(echoes**2))
    echoes[0] += 1  # the direct sound
    return scipy.signal.oaconvolve(audio, echoes)[: len(audio)].astype(np.float32)


def add_noise(audio):
    """Pink noise at NOISE_LEVEL: its power falls by 3 dB an octave, above 20 Hz."""
    spectrum = np.fft.rfft(np.random.default_rng(SEED).normal(size=len(audio)))
    frequencies = np.fft.rfftfreq(len(audio), 1 / data.SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 20)), len(audio))
    power = np.mean(noise**2)
    if power > 0:
        noise *= db_to_gain(NOISE_LEVEL) / np.sqrt(power)
    return (audio + noise).astype(np.float32)


def limit_band(audio):
    """An old recording's band: Butterworth filters, 24 dB an octave on either side of BAND."""
    sections = scipy.signal.butter(4, BAND, "bandpass", fs=data.SAMPLE_RATE, output="sos")
    return scipy.signal.sosfilt(sections, audio).astype(np.float32)


def turn_down(audio):
    """The same, QUIET."""
    return audio * np.float32(db_to_gain(QUIET))


CONDITIONS = {
    "room": Condition(add_room, f"in a room (RT60 {RT60} s)"),
    "noise": Condition(add_noise, f"with noise at {NOISE_LEVEL} dB"),
    "band": Condition(limit_band, f"from {BAND[0]} to {BAND[1]} Hz"),
    "quiet": Condition(turn_down, f"at {QUIET} dB"),
}
