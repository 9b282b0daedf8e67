"""Make an instrument from a folder of recorded notes of any pitches, rates and loudnesses.

The file name says which note a recording holds: ``C4v8.ogg``, ``Piano.ff.Bb3.aiff``,
``D#4_v2.wav``, ``060-100.flac``. The pitches between are resampled from the nearest recorded one;
each note is held for `HELD` seconds and then damped.
"""

import hashlib
import itertools
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from tqdm import tqdm

from common import cli
from common.cli import UserError
from common.files import find_files
from data import SAMPLE_RATE
from NoteSynthesizer import FADE, HELD, MAX_SHIFT, NOTE_RATE, PITCHES, RELEASED, VELOCITIES
from sound.recordings import AUDIO_EXTENSIONS, read_audio

# Rates that notes may have, Hz, and at which they are made before they are resampled: FluidSynth
# does not filter what it plays faster, so that high notes would alias, and a recording that is
# played lower must not have lost what is heard of it then.
WORK_RATES = {NOTE_RATE: 3 * NOTE_RATE, SAMPLE_RATE: 2 * SAMPLE_RATE}
DAMPING = 0.08  # s, time constant of the decay after the key comes up, as of a piano's damper
# A note begins where it first reaches this part of its peak (-40 dB); what comes before is cut,
# for the notes of two instruments must begin together
ONSET_LEVEL = 0.01
ONSET_MARGIN = 0.002  # s that stay before it

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "s": 1, "♯": 1, "b": -1, "♭": -1}
_NOTE_NAME = re.compile(r"(?<![A-Za-z])([A-G])(#|♯|s|b|♭)?(-1|\d)(?!\d)")
_LAYER = re.compile(r"(?:(?<![A-Za-z])|(?<=\d))v(?:el(?:ocity)?)?[ _.-]?(\d{1,3})", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![A-Za-z\d])m?(\d{1,3})(?!\d)")
_DYNAMICS = ("ppp", "pp", "p", "mp", "mf", "f", "ff", "fff")  # soft to loud
_DYNAMIC = re.compile(r"(?<![A-Za-z])(p{1,3}|mp|mf|f{1,3})(?![A-Za-z])")
# Which velocities so many layers are written as: those between are played from the nearest
_VELOCITIES_OF = {
    1: (100,),
    2: (50, 100),
    3: (25, 75, 127),
    4: (25, 50, 100, 127),
    5: VELOCITIES,
}


class Recording(NamedTuple):
    """A recorded note: ``layer`` grows with its loudness, 0 where its name does not say."""

    path: Path
    pitch: int  # MIDI number
    layer: int


def parse_recorded_name(stem):
    """What a file's name, without extension, says: (pitch, layer), or None if it is of no note.

    ``"C4v8"`` is (60, 8), ``"D#4"`` (63, 0), ``"Piano.ff.Bb3"`` (58, 6), ``"060-100"`` (60, 100).
    """
    layer = _layer_of(stem)
    match = _NOTE_NAME.search(stem)
    if match:
        letter, accidental, octave = match.groups()
        pitch = 12 * (int(octave) + 1) + _SEMITONES[letter] + _ACCIDENTALS[accidental or ""]
    else:
        numbers = [int(digits) for digits in _NUMBER.findall(stem)]
        if not numbers:
            return None
        # NSynth's own names end in pitch and velocity; else the pitch stands first
        first = -2 if re.search(r"-\d{3}-\d{3}$", stem) else 0
        pitch = numbers[first]
        if layer == 0 and len(numbers) > 1:
            layer = numbers[first + 1]
    return (pitch, layer) if 0 <= pitch <= 127 else None


def _layer_of(stem):
    """The loudness that a name gives as ``v8`` or ``mf``, or 0."""
    match = _LAYER.search(stem)
    if match:
        return int(match[1])
    match = _DYNAMIC.search(stem)
    return _DYNAMICS.index(match[1]) if match else 0


def find_recorded_notes(folders):
    """The recorded notes in folders and what is below: (list of `Recording`, files passed over).

    Raises:
        UserError: no such folder, or no recording of a note in one.
    """
    recordings = []
    passed_over = 0
    for folder in folders:
        here = []
        for path in find_files(Path(folder), AUDIO_EXTENSIONS):
            parsed = parse_recorded_name(path.stem)
            if parsed is None:
                passed_over += 1
            else:
                here.append(Recording(path, *parsed))
        if not here:
            raise UserError(
                f"{folder}: holds no recorded notes; name them by pitch, "
                "say C4.wav, D#4v2.flac (the second loudness) or 060.wav"
            )
        recordings += here
    return recordings, passed_over


def find_repeated(recordings):
    """Those of ``recordings`` whose pitch and layer one before has: `choose_source` takes none."""
    seen = set()
    repeated = []
    for recording in recordings:
        note = recording.pitch, recording.layer
        if note in seen:
            repeated.append(recording)
        seen.add(note)
    return repeated


def choose_layers(recordings):
    """Which layer serves which velocity: {velocity: layer}.

    Layers are ordered by their numbers. Those named as NSynth's velocities are these; of others,
    and of more than five, the softest and the loudest are taken and what is spread between them.
    """
    layers = sorted({recording.layer for recording in recordings})
    if set(layers) <= set(VELOCITIES):
        return {layer: layer for layer in layers}
    velocities = _VELOCITIES_OF[min(len(layers), 5)]
    chosen = np.linspace(0, len(layers) - 1, len(velocities)).round().astype(int)
    return {velocity: layers[index] for velocity, index in zip(velocities, chosen)}


def choose_source(recordings, pitch, layer):
    """The recording that plays a pitch: the nearest in its layer, of two as near the higher.

    None if there is none within `MAX_SHIFT` semitones.
    """
    near = [r for r in recordings if r.layer == layer and abs(r.pitch - pitch) <= MAX_SHIFT]
    return min(near, key=lambda r: (abs(r.pitch - pitch), -r.pitch), default=None)


def render_recordings(recordings, name, rate=NOTE_RATE):
    """Every note that the recordings give, with a progress bar of this name.

    A recording that cannot be read is named and passed over: the nearest others take its place.

    Returns:
        {(pitch, velocity): float32 (4 s at ``rate``,)}, at their levels in the recordings.

    Raises:
        UserError: none can be read.
    """
    layers = choose_layers(recordings)
    usable = list(recordings)
    due = list(itertools.product(PITCHES, layers))
    notes = {}
    while due:
        plays = {}  # recording -> the notes it plays: each file is read once
        for pitch, velocity in due:
            source = choose_source(usable, pitch, layers[velocity])
            if source is not None:
                plays.setdefault(source, []).append((pitch, velocity))
        due = []
        for recording, keys in tqdm(plays.items(), desc=name, unit="file"):
            sound = cli.attempt(read_audio, recording.path, WORK_RATES[rate])
            if isinstance(sound, UserError):
                cli.pass_over(sound)
                usable.remove(recording)
                due += keys
                continue
            sound = trim_onset(sound, WORK_RATES[rate])
            for pitch, velocity in keys:
                notes[pitch, velocity] = shape_note(sound, pitch - recording.pitch, rate)
    if not usable:
        raise UserError(f"{name}: none of its recordings can be read; give others")
    return notes


def trim_onset(sound, rate):
    """float32 (n,) from its note's beginning on; empty if it is silent."""
    peak = np.abs(sound).max(initial=0)
    loud = np.flatnonzero(np.abs(sound) >= max(peak * ONSET_LEVEL, np.finfo(np.float32).tiny))
    if len(loud) == 0:
        return sound[:0]
    return sound[max(loud[0] - round(ONSET_MARGIN * rate), 0) :]


def shape_note(sound, semitones, rate=NOTE_RATE):
    """A recording, so many semitones higher, as a note: float32 (n,) -> (4 s at ``rate``,).

    ``sound`` is at the rate's `WORK_RATES`.
    """
    work_rate = WORK_RATES[rate] * 2 ** (semitones / 12)
    needed = int((HELD + RELEASED + 1) * work_rate)  # a second more than is kept
    note = soxr.resample(sound[:needed], work_rate, rate)
    length = (HELD + RELEASED) * rate
    if len(note) < length:  # a recording that stops must not click
        fade = min(round(FADE / SAMPLE_RATE * rate), len(note))
        note[len(note) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        note = np.pad(note, (0, length - len(note)))
    note = note[:length].copy()
    held = HELD * rate
    seconds = np.arange(length - held) / rate
    note[held:] *= np.exp(-seconds / DAMPING).astype(np.float32)
    return note


def fingerprint(recordings):
    """A hash of what files these are: their names, sizes and modification times."""
    digest = hashlib.blake2b(digest_size=8)
    for recording in sorted(recordings):
        state = os.stat(recording.path)
        digest.update(os.fsencode(recording.path.name))
        digest.update(f" {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
