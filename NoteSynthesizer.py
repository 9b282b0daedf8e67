"""Load a bank of single notes and render scores with it.

    bank = NoteBank("nsynth-train", "keyboard_acoustic")
    for block in render(read_score("piece.mid"), bank, bank.gain): ...

Notes are resampled once, when they are loaded, and added at the piece's rate. So a piece is never
resampled.
"""

import functools
import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import soxr

from common.cli import UserError
from common.files import list_folders
from data import SAMPLE_RATE
from sound.recordings import AUDIO_EXTENSIONS, read_audio

PITCHES = range(21, 109)  # MIDI numbers of NSynth's notes, the 88 keys of a piano
VELOCITIES = (25, 50, 75, 100, 127)  # NSynth's five
NOTE_RATE = 16000  # Hz, NSynth's; notes of any rate are read
HELD, RELEASED = 3, 1  # s: an NSynth note is held, then released
DEFAULT_INSTRUMENTS = (
    "keyboard_acoustic",
    "guitar_acoustic",
    "string_acoustic",
    "synth_lead_synthetic",
)
MAX_SHIFT = 12  # semitones by which a note may be resampled to replace a missing one
NESTED = 3  # levels of subfolders in which an NSynth split is searched for
PLACINGS = ("exact", "other velocity", "shifted", "lost")

RELEASE = SAMPLE_RATE  # samples, 1 s: from full level to zero
# s, the decay's time constant: in the method's renderer 3,000 samples of a 16 kHz note
RELEASE_TIME = 3000 / 16000
# samples, 10 ms: so that a recorded note with an abrupt end does not click
FADE = SAMPLE_RATE // 100
# Peak of a typical note at velocity 100 in a piece; in the method's example mixes notes are scaled
# by 0.35
LEVEL = 0.28
_NSYNTH_NAME = re.compile(r"(\w+)-\d{3}-\d{3}\.\w+")  # keyboard_acoustic_000-060-100.wav
BLOCK = 1 << 18  # samples rendered at a time, 6 s: larger blocks do not fit into the cache


def _release_envelope():
    """Exponential decay, float32 (RELEASE,), shifted and scaled to go from exactly 1 to 0."""
    decay = np.exp(-np.linspace(0, RELEASE / SAMPLE_RATE / RELEASE_TIME, RELEASE))
    return ((decay - decay[-1]) / (1 - decay[-1])).astype(np.float32)


_ENVELOPE = _release_envelope()


def note_prefix(instrument):
    """Prefix of the file names of an instrument's notes.

    ``organ_electronic_001`` is unchanged; ``organ_electronic`` becomes ``organ_electronic_000``.

    Raises:
        UserError: the name is not ``family_source`` or ``family_source_PPP`` in lower case.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", instrument):
        raise UserError(
            f"instrument '{instrument}': no such name; "
            "write family_source or family_source_003, as in NSynth"
        )
    has_preset = re.search(r"_\d{3}$", instrument)
    return instrument if has_preset else f"{instrument}_000"


def note_name(instrument, pitch, velocity):
    """File name of a note, as in NSynth.

    ``note_name("keyboard_acoustic", 60, 100) == "keyboard_acoustic_000-060-100.wav"``
    """
    return f"{note_prefix(instrument)}-{pitch:03d}-{velocity:03d}.wav"


def nearest_velocity(velocity):
    """Nearest of NSynth's velocities; at equal distance the softer."""
    return _nearest(VELOCITIES, velocity)


def _nearest(numbers, wanted):
    """Nearest of ``numbers`` to ``wanted``; at equal distance the smaller."""
    return min(numbers, key=lambda number: (abs(number - wanted), number))


class NoteBank:
    """The single notes of one instrument, read on first use.

    Args:
        folder: an NSynth split's folder, its ``audio`` folder, or a folder with one such split
            somewhere below, as in nested downloads.
        instrument: ``family_source`` (preset 000) or ``family_source_PPP``.
        max_shift: semitones by which a note may be resampled.

    Attributes:
        paths: {(pitch, velocity): path}.

    Raises:
        UserError: no such folder, several splits in it, or no note of this instrument.
    """

    def __init__(self, folder, instrument, max_shift=MAX_SHIFT):
        folder = _find_folder(Path(folder))
        self.paths = _find_notes(folder, note_prefix(instrument))
        if not self.paths:
            there = _list_instruments(folder, instrument)
            raise UserError(f"{folder}: has no note of '{note_prefix(instrument)}'; found {there}")
        self.max_shift = max_shift
        self._sources = {}  # (pitch, velocity, shift in semitones) -> samples
        self._notes = {}  # requested (pitch, velocity) -> samples

    @functools.cached_property
    def gain(self):
        """Factor for the notes of a piece, so that all banks have the same level.

        It scales the median peak of the notes nearest to velocity 100, one per pitch, to `LEVEL`.
        """
        pitches = sorted({pitch for pitch, _ in self.paths})
        peaks = [np.abs(self.note(pitch, 100)).max() for pitch in pitches]
        return LEVEL / max(np.median(peaks), 1e-3)

    def place(self, pitch, velocity):
        """Choose the bank's note for a note: (its pitch, its velocity, one of `PLACINGS`).

        The pitch has priority over the velocity. At equal distance the higher pitch is used, which
        keeps its treble. "exact": the same pitch, at the nearest of NSynth's five velocities.
        """
        pitches = {pitch for pitch, _ in self.paths}
        source = min(pitches, key=lambda p: (abs(p - pitch), -p))
        layers = [v for p, v in self.paths if p == source]
        layer = _nearest(layers, velocity)
        if abs(source - pitch) > self.max_shift:
            return source, layer, "lost"
        if source != pitch:
            return source, layer, "shifted"
        if layer != nearest_velocity(velocity):
            return source, layer, "other velocity"
        return source, layer, "exact"

    def note(self, pitch, velocity):
        """Return the note for (pitch, velocity): read-only float32 (n,) at SAMPLE_RATE.

        Empty if it is lost.

        Raises:
            UserError: its file cannot be read or has no samples.
        """
        wanted = pitch, velocity
        if wanted not in self._notes:
            source, layer, placing = self.place(pitch, velocity)
            if placing == "lost":
                self._notes[wanted] = np.empty(0, np.float32)
            else:
                self._notes[wanted] = self._source(source, layer, pitch - source)
        return self._notes[wanted]

    def count(self, score):
        """Count how a score's notes are placed: `Counter` of `PLACINGS`."""
        columns = np.stack([score["pitch"], score["velocity"]])
        keys, times = np.unique(columns, axis=1, return_counts=True)
        counts = Counter()
        for pitch, velocity, n in zip(*keys.tolist(), times.tolist()):
            counts[self.place(pitch, velocity)[2]] += n
        return counts

    def fingerprint(self):
        """Hash of the bank's file names and contents, to detect changes."""
        digest = hashlib.blake2b(digest_size=8)
        for path in sorted(self.paths.values()):
            digest.update(os.fsencode(path.name))
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def _source(self, pitch, velocity, shift):
        key = pitch, velocity, shift
        if key not in self._sources:
            self._sources[key] = self._load(*key)
        return self._sources[key]

    def _load(self, pitch, velocity, shift):
        """Load a file's samples, shifted up by ``shift`` semitones and faded out at the end."""
        path = self.paths[pitch, velocity]
        audio = read_audio(path)
        if shift != 0:
            audio = soxr.resample(audio, SAMPLE_RATE * 2 ** (shift / 12), SAMPLE_RATE)
        if len(audio) == 0:
            raise UserError(f"{path}: has no samples; leave this note out or record it again")
        fade_out(audio)
        audio.setflags(write=False)
        return audio


def fade_out(audio):
    """Fade out samples (n,) over `FADE`, in place."""
    fade = min(FADE, len(audio))
    quarter = np.linspace(0, np.pi / 2, fade, dtype=np.float32)
    audio[len(audio) - fade :] *= np.cos(quarter) ** 2


def _find_folder(folder):
    """Find the folder with the notes: ``folder``, or the ``audio`` folder inside.

    Raises UserError if there is none, or if there are several.
    """
    if (folder / "audio").is_dir():
        return folder / "audio"
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give --nsynth_path the folder of an NSynth split"
        )
    if any(_NSYNTH_NAME.fullmatch(name) for name in os.listdir(folder)):
        return folder
    inside = _find_audio_folders(folder, NESTED)
    if len(inside) > 1:
        splits = ", ".join(str(path.parent) for path in inside)
        raise UserError(f"{folder}: has several folders of notes; give one of {splits}")
    return inside[0] if inside else folder


def _find_audio_folders(folder, depth):
    """Find the folders named ``audio`` up to ``depth`` levels below ``folder``, sorted."""
    found = []
    for path in list_folders(folder) or ():
        if path.name == "audio":
            found.append(path)
        elif depth > 1:
            found += _find_audio_folders(path, depth - 1)
    return found


def _find_notes(folder, prefix):
    """Find the notes of one instrument: {(pitch, velocity): path}."""
    paths = {}
    rest = re.compile(r"-(\d{3})-(\d{3})(\.\w+)")
    # NSynth's folder has 289,205 files, so only those of the instrument are sorted and parsed
    names = [name for name in os.listdir(folder) if name.lower().startswith(prefix)]
    for name in sorted(names):
        match = rest.fullmatch(name, len(prefix))
        if match and match[3].lower() in AUDIO_EXTENSIONS:
            paths[int(match[1]), int(match[2])] = folder / name
    return paths


def _list_instruments(folder, wanted):
    """List some instruments with notes in a folder, those most like ``wanted`` first."""
    names = set()
    for file in os.listdir(folder):
        match = _NSYNTH_NAME.fullmatch(file)
        if match:
            names.add(match[1])
    if not names:
        return "no notes with NSynth's names"
    family = re.sub(r"_\d{3}$", "", wanted)
    alike = sorted(name for name in names if name.startswith(family))
    others = sorted(name for name in names if not name.startswith(family))
    listed = [*alike, *others]
    if len(listed) > 6:
        listed[6:] = ["..."]
    return ", ".join(listed)


def describe_placings(counts):
    """Format placings: ``"1,546 notes: 1,534 exact, 9 other velocity, 3 shifted, 0 lost"``."""
    parts = [f"{counts[placing]:,} {placing}" for placing in PLACINGS]
    return f"{counts.total():,} notes: " + ", ".join(parts)


def _in_samples(score):
    """Compute each note's first sample and number of held samples: two int64 arrays (notes,)."""
    starts = np.rint(score["onset"] * SAMPLE_RATE).astype(np.int64)
    holds = np.rint(score["duration"] * SAMPLE_RATE).astype(np.int64)
    return starts, holds


def length(score):
    """Length of a piece in samples, with the last release; the same for every instrument."""
    starts, holds = _in_samples(score)
    return int((starts + holds).max()) + RELEASE


def render(score, bank, gain, block=BLOCK):
    """Render a score in blocks; memory does not grow with the length of the piece.

    Each note sounds as recorded while it is held, then fades within `RELEASE`. Notes are added
    in the score's order, so the samples do not depend on the block size.

    Args:
        score: array of `scores.NOTE`, sorted by onset.
        bank: `NoteBank`.
        gain: factor for all notes.
        block: samples per block.

    Yields:
        float32 (block,), the last one shorter; together `length` samples.
    """
    starts, holds = _in_samples(score)
    pitches = score["pitch"].tolist()
    velocities = score["velocity"].tolist()
    total = length(score)
    # Samples from the start of the block; its notes may end far beyond the block
    buffer = np.zeros(2 * block, np.float32)
    number = 0  # of the next note
    for begin in range(0, total, block):
        while number < len(score) and starts[number] < begin + block:
            at = int(starts[number] - begin)
            hold = int(holds[number])
            note = bank.note(pitches[number], velocities[number])[: hold + RELEASE]
            missing = at + len(note) - len(buffer)
            if missing > 0:
                buffer = np.append(buffer, np.zeros(max(missing, block), np.float32))
            _add_note(buffer[at : at + len(note)], note, hold)
            number += 1
        yield buffer[: min(block, total - begin)] * np.float32(gain)
        buffer = np.append(buffer[block:], np.zeros(block, np.float32))


def _add_note(place, note, hold):
    """Add a note, float32 (n,), to ``place``, (n,): unchanged for ``hold`` samples, then fading."""
    released = note[hold:]
    place[:hold] += note[:hold]
    place[hold:] += released * _ENVELOPE[: len(released)]
