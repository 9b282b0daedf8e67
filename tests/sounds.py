"""Sounds and networks that the tests of the conversion make for themselves."""

import numpy as np
import soundfile

import data


def identity(tiles):
    """A network that changes nothing."""
    return tiles


def louder(tiles):
    """A network that adds 9.6 dB, and noise where there was silence."""
    return np.minimum(tiles + 0.2, 1)


def uneven(tiles):
    """A network whose output depends on the place in the tile."""
    ramp = np.linspace(0, 0.5, data.TILE_FRAMES, dtype=np.float32)[:, np.newaxis]
    return np.clip(tiles + ramp - 0.3, -1, 1)


def music(samples, rate=data.SAMPLE_RATE, level=0.1, seed=0):
    """Chords of soft-edged tones below 4 kHz with pauses, (n,)."""
    random, time = np.random.default_rng(seed), np.arange(samples) / rate
    audio = np.zeros(samples)
    for onset in np.arange(0, samples / rate, 0.4):
        since = np.clip(time - onset, 0, None)
        for frequency in random.uniform(150, 1500, 3):
            envelope = since * np.exp(-12 * since) * 12 * np.e
            audio += envelope * np.sin(2 * np.pi * frequency * since) / 3
    return (level * audio).astype(np.float32)


def noise(*shape):
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def write(path, audio, rate=44100):
    """Write a recording, its folder included; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate)
    return path
