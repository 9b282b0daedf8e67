"""Sounds, files of sound and networks that tests make for themselves."""

from fractions import Fraction

import av
import numpy as np
import soundfile

import data


def identity(tiles):
    """A network that changes nothing."""
    return tiles


def load_identity(path):
    """A model that changes nothing, for what loads one by its path."""
    return identity


def louder(tiles):
    """A network that adds 9.6 dB, and noise where there was silence."""
    return np.minimum(tiles + 0.2, 1)


def uneven(tiles):
    """A network whose output depends on the place in the tile."""
    ramp = np.linspace(0, 0.5, data.TILE_FRAMES, dtype=np.float32)[:, np.newaxis]
    return np.clip(tiles + ramp - 0.3, -1, 1)


def shifted(tiles):
    """A network that moves everything up by 3 bins: no sound has that picture and the old phase."""
    return np.roll(tiles, 3, axis=1)


def music(samples, rate=data.SAMPLE_RATE, level=0.1, seed=0):
    """Chords of soft-edged tones below 4 kHz with pauses: float32 (samples,), peak ~``level``."""
    random, time = np.random.default_rng(seed), np.arange(samples) / rate
    audio = np.zeros(samples)
    for onset in np.arange(0, samples / rate, 0.4):
        since = np.clip(time - onset, 0, None)
        for frequency in random.uniform(150, 1500, 3):
            envelope = since * np.exp(-12 * since) * 12 * np.e
            audio += envelope * np.sin(2 * np.pi * frequency * since) / 3
    return (level * audio).astype(np.float32)


def tone(frequency=440, seconds=2.0, rate=data.SAMPLE_RATE, level=0.4):
    """A sine that begins at 0: float32 (n,), peak ``level``."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def noise(*shape, seed=0):
    """Normal noise of sigma 0.1 at any rate, float32 of ``shape``: clip it where 1 is the limit."""
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def uniform_noise(samples, seed=0):
    """Uniform noise between -0.5 and 0.5 at any rate, float32 (samples,)."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def write(path, audio, rate=44100):
    """Write a recording, its folder included; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate)
    return path


def encode(path, sound, codec, rate=data.SAMPLE_RATE, video=None, bit_rate=128_000, options=None):
    """Write mono ``sound``, (n,), by FFmpeg; grey pictures too if there is a ``video`` codec."""
    with av.open(path, "w", options=options or {}) as container:
        container.metadata["title"] = "Chanson triste"
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = bit_rate
        if video:
            pictures = container.add_stream(video, rate=5)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
            for _ in range(10):
                picture = np.full((64, 64, 3), 128, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode())
        frame = av.AudioFrame.from_ndarray(sound[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = rate
        frame.pts = 0
        frame.time_base = Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
