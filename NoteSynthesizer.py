"""A bank of single notes, and rendering a score with it.

    bank = NoteBank("nsynth-train", "keyboard_acoustic")
    for block in render(read_score("piece.mid"), bank, bank.gain): ...

Notes are resampled once, as they are loaded, and added up at the rate of the piece: a piece is
never resampled.
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
HELD, RELEASED = 3, 1  # s: a note of NSynth's is held, and then rings on
DEFAULT_INSTRUMENTS = (
    "keyboard_acoustic",
    "guitar_acoustic",
    "string_acoustic",
    "synth_lead_synthetic",
)
MAX_SHIFT = 12  # semitones that a note may be resampled by, to stand in for one that the bank lacks
NESTED = 3  # folders deep that an NSynth split may lie in the folder given
PLACINGS = ("exact", "other velocity", "shifted", "lost")

RELEASE = SAMPLE_RATE  # samples, 1 s: from full level to nothing
# s, the decay's time constant: in the method's renderer 3,000 samples of a 16 kHz note
RELEASE_TIME = 3000 / 16000
# samples, 10 ms: so that a recorded note that is cut off at its end does not click
FADE = SAMPLE_RATE // 100
# Peak in a piece of a typical note at velocity 100: the method's example mixes hold their notes
# times 0.35
LEVEL = 0.28
_NSYNTH_NAME = re.compile(r"(\w+)-\d{3}-\d{3}\.\w+")  # keyboard_acoustic_000-060-100.wav
BLOCK = 1 << 18  # samples rendered at a time, 6 s: larger ones leave the processor's cache


def _release_envelope():
    """float32 (RELEASE,): an exponential decay, shifted and scaled to go from 1 to 0 exactly."""
    decay = np.exp(-np.linspace(0, RELEASE / SAMPLE_RATE / RELEASE_TIME, RELEASE))
    return ((decay - decay[-1]) / (1 - decay[-1])).astype(np.float32)


_ENVELOPE = _release_envelope()


def note_prefix(instrument):
    """What the names of an instrument's notes begin with.

    ``organ_electronic_001`` as it is; ``organ_electronic`` becomes ``organ_electronic_000``.

    Raises:
        UserError: the name is not ``family_source`` or ``family_source_PPP`` in small letters.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", instrument):
        raise UserError(
            f"instrument '{instrument}': no such name; "
            "write family_source or family_source_003, as NSynth does"
        )
    has_preset = re.search(r"_\d{3}$", instrument)
    return instrument if has_preset else f"{instrument}_000"


def note_name(instrument, pitch, velocity):
    """NSynth's name of a note's file.

    ``note_name("keyboard_acoustic", 60, 100) == "keyboard_acoustic_000-060-100.wav"``
    """
    return f"{note_prefix(instrument)}-{pitch:03d}-{velocity:03d}.wav"


def nearest_velocity(velocity):
    """NSynth's velocity that is nearest to ``velocity``; of two as near, the softer."""
    return _nearest(VELOCITIES, velocity)


def _nearest(numbers, wanted):
    """The one of ``numbers`` that is nearest to ``wanted``; of two as near, the smaller."""
    return min(numbers, key=lambda number: (abs(number - wanted), number))


class NoteBank:
    """The single notes of one instrument, read when first asked for.

    Args:
        folder: an NSynth split's folder, the ``audio`` folder inside, or a folder with one such
            split somewhere inside, as downloads nest them.
        instrument: ``family_source`` (preset 000) or ``family_source_PPP``.
        max_shift: semitones that a note may be resampled by.

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
        self._sources = {}  # (pitch, velocity, semitones it is shifted by) -> samples
        self._notes = {}  # (pitch, velocity) asked for -> samples

    @functools.cached_property
    def gain(self):
        """Factor for notes in a piece, so that levels are the same for every bank.

        It makes `LEVEL` of the median peak of the notes nearest to velocity 100, one a pitch.
        """
        pitches = sorted({pitch for pitch, _ in self.paths})
        peaks = [np.abs(self.note(pitch, 100)).max() for pitch in pitches]
        return LEVEL / max(np.median(peaks), 1e-3)

    def place(self, pitch, velocity):
        """Which of the bank's notes plays a note: (its pitch, its velocity, one of `PLACINGS`).

        The pitch counts first (of two as near, the higher: it keeps its treble), then the velocity.
        "exact" is the pitch itself, at that of NSynth's five velocities which is nearest to
        ``velocity``.
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
        """The note that plays (pitch, velocity): read-only float32 (n,) at SAMPLE_RATE.

        Empty if it is lost.

        Raises:
            UserError: its file cannot be read, or has no samples.
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
        """How a score's notes are placed: `Counter` of `PLACINGS`."""
        columns = np.stack([score["pitch"], score["velocity"]])
        keys, times = np.unique(columns, axis=1, return_counts=True)
        counts = Counter()
        for pitch, velocity, n in zip(*keys.tolist(), times.tolist()):
            counts[self.place(pitch, velocity)[2]] += n
        return counts

    def fingerprint(self):
        """A hash of the bank's files, names and contents: tells one bank from another."""
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
        """A file's samples, ``shift`` semitones higher, faded out at their end."""
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
    """Let samples (n,) end softly, within `FADE`, in place."""
    fade = min(FADE, len(audio))
    quarter = np.linspace(0, np.pi / 2, fade, dtype=np.float32)
    audio[len(audio) - fade :] *= np.cos(quarter) ** 2


def _find_folder(folder):
    """The folder that holds the notes themselves: ``folder``, or the ``audio`` folder inside.

    Raises UserError if there is no such folder, or if there are several.
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
        raise UserError(f"{folder}: holds several folders of notes; give one of {splits}")
    return inside[0] if inside else folder


def _find_audio_folders(folder, depth):
    """The folders called ``audio`` up to so many folders below ``folder``, sorted."""
    found = []
    for path in list_folders(folder) or ():
        if path.name == "audio":
            found.append(path)
        elif depth > 1:
            found += _find_audio_folders(path, depth - 1)
    return found


def _find_notes(folder, prefix):
    """The notes of one instrument: {(pitch, velocity): path}."""
    paths = {}
    rest = re.compile(r"-(\d{3})-(\d{3})(\.\w+)")
    # NSynth's folder has 289,205 files: only those of the instrument are sorted and parsed
    names = [name for name in os.listdir(folder) if name.lower().startswith(prefix)]
    for name in sorted(names):
        match = rest.fullmatch(name, len(prefix))
        if match and match[3].lower() in AUDIO_EXTENSIONS:
            paths[int(match[1]), int(match[2])] = folder / name
    return paths


def _list_instruments(folder, wanted):
    """A few of the instruments whose notes a folder holds, those most like ``wanted`` first."""
    names = set()
    for file in os.listdir(folder):
        match = _NSYNTH_NAME.fullmatch(file)
        if match:
            names.add(match[1])
    if not names:
        return "no notes named as NSynth names them"
    family = re.sub(r"_\d{3}$", "", wanted)
    alike = sorted(name for name in names if name.startswith(family))
    others = sorted(name for name in names if not name.startswith(family))
    listed = [*alike, *others]
    if len(listed) > 6:
        listed[6:] = ["..."]
    return ", ".join(listed)


def describe_placings(counts):
    """``"1,546 notes: 1,534 exact, 9 other velocity, 3 shifted, 0 lost"``."""
    parts = [f"{counts[placing]:,} {placing}" for placing in PLACINGS]
    return f"{counts.total():,} notes: " + ", ".join(parts)


def _in_samples(score):
    """First sample and number of held samples of each note: two int64 arrays (notes,)."""
    starts = np.rint(score["onset"] * SAMPLE_RATE).astype(np.int64)
    holds = np.rint(score["duration"] * SAMPLE_RATE).astype(np.int64)
    return starts, holds


def length(score):
    """Samples that a piece takes, with the last release: the same for every instrument."""
    starts, holds = _in_samples(score)
    return int((starts + holds).max()) + RELEASE


def render(score, bank, gain, block=BLOCK):
    """Render a score in blocks: memory does not grow with the length of the piece.

    Each note sounds as recorded while it is held, and then fades within `RELEASE`. Notes are added
    in the score's order, whatever the block size, so that the samples are always the same.

    Args:
        score: array of `scores.NOTE`, sorted by onset.
        bank: `NoteBank`.
        gain: factor for all notes.
        block: samples in a block.

    Yields:
        float32 (block,), the last one shorter; together `length` samples.
    """
    starts, holds = _in_samples(score)
    pitches = score["pitch"].tolist()
    velocities = score["velocity"].tolist()
    total = length(score)
    # Samples from the block's beginning on; the ends of its notes may reach far beyond the block
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
    """Add a note, float32 (n,), to ``place``, (n,): as it is for ``hold`` samples, then fading."""
    released = note[hold:]
    place[:hold] += note[:hold]
    place[hold:] += released * _ENVELOPE[: len(released)]
