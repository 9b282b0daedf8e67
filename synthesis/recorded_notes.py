"""Make an instrument from a folder of recorded notes of any pitches, rates and loudnesses.

The file name gives the note: ``C4v8.ogg``, ``Piano.ff.Bb3.aiff``, ``D#4_v2.wav``,
``060-100.flac``. Missing pitches are resampled from the nearest recorded one. Each note is held for
`HELD` seconds and then damped.
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

# {rate of the notes: rate at which they are made}, Hz. FluidSynth has no anti-aliasing filter for
# notes played faster, and a recording shifted down still needs its treble.
WORK_RATES = {NOTE_RATE: 3 * NOTE_RATE, SAMPLE_RATE: 2 * SAMPLE_RATE}
DAMPING = 0.08  # s, time constant of the decay after the release, as with a piano's damper
# A note starts where it first reaches this fraction of its peak (-40 dB). Earlier sound is cut, so
# that the notes of two instruments start together.
ONSET_LEVEL = 0.01
ONSET_MARGIN = 0.002  # s kept before the onset

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "s": 1, "♯": 1, "b": -1, "♭": -1}
_NOTE_NAME = re.compile(r"(?<![A-Za-z])([A-G])(#|♯|s|b|♭)?(-1|\d)(?!\d)")
_LAYER = re.compile(r"(?:(?<![A-Za-z])|(?<=\d))v(?:el(?:ocity)?)?[ _.-]?(\d{1,3})", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![A-Za-z\d])m?(\d{1,3})(?!\d)")
_DYNAMICS = ("ppp", "pp", "p", "mp", "mf", "f", "ff", "fff")  # soft to loud
_DYNAMIC = re.compile(r"(?<![A-Za-z])(p{1,3}|mp|mf|f{1,3})(?![A-Za-z])")
# {number of layers: their velocities}; step 1 uses the nearest for velocities in between
_VELOCITIES_OF = {
    1: (100,),
    2: (50, 100),
    3: (25, 75, 127),
    4: (25, 50, 100, 127),
    5: VELOCITIES,
}


class Recording(NamedTuple):
    """A recorded note. ``layer`` grows with its loudness; 0 if the name does not give it."""

    path: Path
    pitch: int  # MIDI number
    layer: int


def parse_recorded_name(stem):
    """Parse a file's name, without extension: (pitch, layer), or None without a pitch.

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
        # NSynth's own names end in pitch and velocity; in other names the pitch comes first
        first = -2 if re.search(r"-\d{3}-\d{3}$", stem) else 0
        pitch = numbers[first]
        if layer == 0 and len(numbers) > 1:
            layer = numbers[first + 1]
    return (pitch, layer) if 0 <= pitch <= 127 else None


def _layer_of(stem):
    """Read the loudness in a name, such as ``v8`` or ``mf``; 0 if it has none."""
    match = _LAYER.search(stem)
    if match:
        return int(match[1])
    match = _DYNAMIC.search(stem)
    return _DYNAMICS.index(match[1]) if match else 0


def find_recorded_notes(folders):
    """Find recorded notes in folders and below: (list of `Recording`, number of skipped files).

    Raises:
        UserError: a folder does not exist or has no recorded notes.
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
                f"{folder}: has no recorded notes; name the files by pitch: "
                "C4.wav, D#4v2.flac (second loudness) or 060.wav"
            )
        recordings += here
    return recordings, passed_over


def find_repeated(recordings):
    """List recordings with the pitch and layer of an earlier one; they are not used."""
    seen = set()
    repeated = []
    for recording in recordings:
        note = recording.pitch, recording.layer
        if note in seen:
            repeated.append(recording)
        seen.add(note)
    return repeated


def choose_layers(recordings):
    """Assign layers to velocities: {velocity: layer}.

    Layers are ordered by their numbers. Layers named like NSynth's velocities keep these. Up to
    five others are all used; of more, five from the softest to the loudest, evenly spread.
    """
    layers = sorted({recording.layer for recording in recordings})
    if set(layers) <= set(VELOCITIES):
        return {layer: layer for layer in layers}
    velocities = _VELOCITIES_OF[min(len(layers), 5)]
    chosen = np.linspace(0, len(layers) - 1, len(velocities)).round().astype(int)
    return {velocity: layers[index] for velocity, index in zip(velocities, chosen)}


def choose_source(recordings, pitch, layer):
    """Choose the recording for a pitch: the nearest in the layer; at equal distance the higher.

    None if none is within `MAX_SHIFT` semitones.
    """
    near = [r for r in recordings if r.layer == layer and abs(r.pitch - pitch) <= MAX_SHIFT]
    return min(near, key=lambda r: (abs(r.pitch - pitch), -r.pitch), default=None)


def render_recordings(recordings, name, rate=NOTE_RATE):
    """Make all notes from the recordings; ``name`` labels the progress bar.

    A recording that cannot be read is reported and skipped; the nearest others replace it.

    Returns:
        {(pitch, velocity): float32 (4 s at ``rate``,)}, with the levels of the recordings.

    Raises:
        UserError: no recording can be read, or all are too far from `PITCHES`.
    """
    layers = choose_layers(recordings)
    usable = list(recordings)
    due = list(itertools.product(PITCHES, layers))
    notes = {}
    while due:
        plays = {}  # {recording: notes made from it}, so that each file is read once
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
        raise UserError(f"{name}: none of its recordings can be read; give other recordings")
    if not notes:
        first = recordings[0]
        raise UserError(
            f"{first.path}: its name says MIDI pitch {first.pitch}, and no recording is within "
            f"{MAX_SHIFT} semitones of {PITCHES[0]} - {PITCHES[-1]}; name the files by pitch: "
            "C4.wav or 060.wav"
        )
    return notes


def trim_onset(sound, rate):
    """Cut float32 (n,) before the onset of its note; empty if silent."""
    peak = np.abs(sound).max(initial=0)
    loud = np.flatnonzero(np.abs(sound) >= max(peak * ONSET_LEVEL, np.finfo(np.float32).tiny))
    if len(loud) == 0:
        return sound[:0]
    return sound[max(loud[0] - round(ONSET_MARGIN * rate), 0) :]


def shape_note(sound, semitones, rate=NOTE_RATE):
    """Make a note from a recording, shifted by ``semitones``: float32 (n,) -> (4 s at ``rate``,).

    ``sound`` has the rate ``WORK_RATES[rate]``.
    """
    work_rate = WORK_RATES[rate] * 2 ** (semitones / 12)
    needed = int((HELD + RELEASED + 1) * work_rate)  # one second more than the note
    note = soxr.resample(sound[:needed], work_rate, rate)
    length = (HELD + RELEASED) * rate
    if len(note) < length:  # fade out, because a short recording would click at its end
        fade = min(round(FADE / SAMPLE_RATE * rate), len(note))
        note[len(note) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        note = np.pad(note, (0, length - len(note)))
    note = note[:length].copy()
    held = HELD * rate
    seconds = np.arange(length - held) / rate
    note[held:] *= np.exp(-seconds / DAMPING).astype(np.float32)
    return note


def fingerprint(recordings):
    """Hash of the recordings' names, sizes and modification times."""
    digest = hashlib.blake2b(digest_size=8)
    for recording in sorted(recordings):
        state = os.stat(recording.path)
        digest.update(os.fsencode(recording.path.name))
        digest.update(f" {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
