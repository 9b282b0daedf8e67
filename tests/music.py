"""MIDI files and banks of single notes that tests make for themselves."""

import struct

import numpy as np
import soundfile


def varint(number):
    """A MIDI file's number of variable length: seven bits a byte, all but the last marked."""
    out = [number & 127]
    number >>= 7
    while number:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(reversed(out))


def midi_bytes(*tracks, division=480):
    """A MIDI file from tracks of (tick, *message bytes).

    480 ticks are 0.5 s unless a message sets the tempo.
    """
    out = struct.pack(">4sIHHh", b"MThd", 6, 1, len(tracks), division)
    for track in tracks:
        body, now = b"", 0
        for tick, *message in sorted(track, key=lambda event: event[0]):
            body += varint(tick - now) + bytes(message)
            now = tick
        body += b"\0\xff\x2f\0"
        out += struct.pack(">4sI", b"MTrk", len(body)) + body
    return out


def note(on, off, pitch=60, velocity=100, channel=0):
    """Two messages of a track."""
    return [(on, 0x90 | channel, pitch, velocity), (off, 0x80 | channel, pitch, 0)]


def tempo(tick, microseconds):
    """A track's message that sets the tempo, in microseconds a quarter note."""
    return [(tick, 0xFF, 0x51, 3, *microseconds.to_bytes(3, "big"))]


def note_sound(pitch, seconds=1.5, rate=16000, amplitude=0.5, decay=1.0):
    """A decaying sine with NSynth's abrupt beginning: float64 (n,), peak ``amplitude``."""
    t = np.arange(int(seconds * rate)) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    return amplitude * np.exp(-decay * t) * np.sin(2 * np.pi * frequency * t)


PITCHES = (21, 48, 60, 61, 108)
VELOCITIES = (25, 50, 75, 100, 127)


def make_bank(
    folder, prefix="keyboard_acoustic_000", pitches=PITCHES, velocities=VELOCITIES, **kwargs
):
    """An NSynth-shaped folder: a `note_sound` for each pitch and velocity."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rate = kwargs.get("rate", 16000)
    for pitch in pitches:
        for velocity in velocities:
            sound = note_sound(pitch, **kwargs) * velocity / 127
            path = folder / "audio" / f"{prefix}-{pitch:03d}-{velocity:03d}.wav"
            soundfile.write(path, sound, rate)
    return folder


TUNE = midi_bytes(
    tempo(0, 400_000), note(0, 480, 60, 100) + note(480, 960, 64, 50) + note(480, 1440, 67, 127)
)
