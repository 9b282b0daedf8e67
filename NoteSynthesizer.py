"""A bank of single notes, and rendering a score with it.

    bank = NoteBank("nsynth-train", "keyboard_acoustic")
    for block in render(read_score("piece.mid"), bank): ...

Notes are resampled once, as they are loaded, and added up at the rate of the piece: a piece is never resampled.
"""

import functools
import hashlib
import os
import re
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import soxr

from audio import read_audio
from cli import UserError, complete
from data import SAMPLE_RATE
from midi import change_score

PITCHES = range(21, 109)  # MIDI numbers of NSynth's notes, the 88 keys of a piano
VELOCITIES = (25, 50, 75, 100, 127)  # NSynth's five
DEFAULT_INSTRUMENTS = (
    "keyboard_acoustic",
    "guitar_acoustic",
    "string_acoustic",
    "synth_lead_synthetic",
)
MAX_SHIFT = 12  # semitones that a note may be resampled by, to stand in for one that the bank lacks
PLACINGS = ("exact", "other velocity", "shifted", "lost")

RELEASE = SAMPLE_RATE  # samples, 1 s: from full level to nothing
RELEASE_TIME = (
    3000 / 16000
)  # s, the decay's time constant: 3,000 samples of a 16 kHz note in the method's renderer
FADE = (
    SAMPLE_RATE // 100
)  # samples, 10 ms: so that a recorded note that is cut off at its end does not click
LEVEL = 0.28  # peak in a piece of a typical note at velocity 100: the method's example mixes hold their notes times 0.35
BLOCK = 1 << 18  # samples rendered at a time, 6 s: larger ones leave the processor's cache


_DECAY = np.exp(-np.linspace(0, RELEASE / SAMPLE_RATE / RELEASE_TIME, RELEASE))
_ENVELOPE = ((_DECAY - _DECAY[-1]) / (1 - _DECAY[-1])).astype(
    np.float32
)  # shifted and scaled to go from 1 to 0 exactly


def note_prefix(instrument):
    """What the names of an instrument's notes begin with: ``organ_electronic_001``; preset 000 where none is given.

    Raises:
        UserError: the name is not ``family_source`` or ``family_source_PPP`` in small letters.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", instrument):
        raise UserError(
            f"instrument '{instrument}': no such name; write family_source or family_source_003, as NSynth does"
        )
    return instrument if re.search(r"_\d{3}$", instrument) else f"{instrument}_000"


def note_name(instrument, pitch, velocity):
    """NSynth's name of a note's file: ``note_name("keyboard_acoustic", 60, 100) == "keyboard_acoustic_000-060-100.wav"``."""
    return f"{note_prefix(instrument)}-{pitch:03d}-{velocity:03d}.wav"


class NoteBank:
    """The single notes of one instrument, read when first asked for.

    Args:
        folder: an NSynth split's folder, or the ``audio`` folder inside.
        instrument: ``family_source`` (preset 000) or ``family_source_PPP``.
        max_shift: semitones that a note may be resampled by.

    Raises:
        UserError: no such folder, or no note of this instrument in it.
    """

    def __init__(self, folder, instrument, max_shift=MAX_SHIFT):
        folder = Path(folder)
        folder = folder / "audio" if (folder / "audio").is_dir() else folder
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; give --nsynth_path the folder of an NSynth split"
            )
        name = re.compile(
            re.escape(note_prefix(instrument)) + r"-(\d{3})-(\d{3})(\.wav|\.flac|\.ogg)",
            re.IGNORECASE,
        )
        files = sorted(filter(name.fullmatch, os.listdir(folder)))
        self.paths = {
            tuple(map(int, name.fullmatch(file).groups()[:2])): folder / file for file in files
        }
        if not self.paths:
            raise UserError(
                f"{folder}: has no note of '{note_prefix(instrument)}'; found {_instruments(folder, instrument)}"
            )
        self.max_shift = max_shift
        self._sources, self._notes = {}, {}

    @functools.cached_property
    def gain(self):
        """Factor for notes in a piece: makes `LEVEL` of the median peak of the notes nearest to velocity 100, one a pitch."""
        pitches = sorted({pitch for pitch, _ in self.paths})
        return LEVEL / max(
            np.median([np.abs(self.note(pitch, 100)).max() for pitch in pitches]), 1e-3
        )

    def place(self, pitch, velocity):
        """Which of the bank's notes plays a note: (its pitch, its velocity, one of `PLACINGS`).

        The pitch counts first (of two as near, the higher: it keeps its treble), then the velocity. "exact" is the pitch
        itself, at that of NSynth's five velocities which is nearest to ``velocity``.
        """
        source = min({p for p, _ in self.paths}, key=lambda p: (abs(p - pitch), -p))
        layer = min((v for p, v in self.paths if p == source), key=lambda v: (abs(v - velocity), v))
        if abs(source - pitch) > self.max_shift:
            return source, layer, "lost"
        if source != pitch:
            return source, layer, "shifted"
        return (
            source,
            layer,
            "exact"
            if layer == min(VELOCITIES, key=lambda v: abs(v - velocity))
            else "other velocity",
        )

    def note(self, pitch, velocity):
        """The note that plays (pitch, velocity): read-only float32 (n,) at SAMPLE_RATE, empty if it is lost.

        Raises:
            UserError: its file cannot be read, or has no samples.
        """
        if (pitch, velocity) not in self._notes:
            source, layer, placing = self.place(pitch, velocity)
            key = source, layer, pitch - source
            if placing != "lost" and key not in self._sources:
                self._sources[key] = self._load(*key)
            self._notes[pitch, velocity] = self._sources.get(key, np.empty(0, np.float32))
        return self._notes[pitch, velocity]

    def _load(self, pitch, velocity, shift):
        audio = read_audio(self.paths[pitch, velocity])
        if shift:
            audio = soxr.resample(audio, SAMPLE_RATE * 2 ** (shift / 12), SAMPLE_RATE)
        if not len(audio):
            raise UserError(
                f"{self.paths[pitch, velocity]}: has no samples; leave this note out or record it again"
            )
        fade = min(FADE, len(audio))
        audio[len(audio) - fade :] *= np.cos(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
        audio.setflags(write=False)
        return audio

    def count(self, score):
        """How a score's notes are placed: `Counter` of `PLACINGS`."""
        pairs, times = np.unique(
            np.stack([score["pitch"], score["velocity"]]), axis=1, return_counts=True
        )
        counts = Counter()
        for pitch, velocity, n in zip(*pairs.tolist(), times.tolist()):
            counts[self.place(pitch, velocity)[2]] += n
        return counts

    def fingerprint(self):
        """A hash of the bank's files, names and contents: tells one bank from another."""
        digest = hashlib.blake2b(digest_size=8)
        for path in sorted(self.paths.values()):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


def _instruments(folder, wanted):
    """A few of the instruments whose notes a folder holds, those named like ``wanted`` first, for an error message."""
    matches = (re.fullmatch(r"(\w+)-\d{3}-\d{3}\.\w+", name) for name in os.listdir(folder))
    family = re.sub(r"_\d{3}$", "", wanted)
    names = sorted(
        {match[1] for match in matches if match},
        key=lambda name: (not name.startswith(family), name),
    )
    return (
        ", ".join(names[:6] + ["..."] * (len(names) > 6)) or "no notes named as NSynth names them"
    )


def describe(counts):
    """``"1,546 notes: 1,534 exact, 9 other velocity, 3 shifted, 0 lost"``."""
    return f"{sum(counts.values()):,} notes: " + ", ".join(
        f"{counts[placing]:,} {placing}" for placing in PLACINGS
    )


def _samples(score):
    """First sample and number of held samples of each note: two int64 arrays."""
    return tuple(
        np.rint(score[name] * SAMPLE_RATE).astype(np.int64) for name in ("onset", "duration")
    )


def length(score):
    """Samples that a piece takes, with the last release: the same for every instrument."""
    starts, held = _samples(score)
    return int((starts + held).max()) + RELEASE


def render(score, bank, gain, block=BLOCK):
    """Render a score in blocks: memory does not grow with the length of the piece.

    Each note sounds as recorded while it is held, and then fades within `RELEASE`. Notes are added in the score's order,
    whatever the block size, so that the samples are always the same.

    Args:
        score: array of `midi.NOTE`, sorted by onset.
        bank: `NoteBank`.
        gain: factor for all notes.
        block: samples in a block.

    Yields:
        float32 (block,), the last one shorter; together `length` samples.
    """
    starts, holds = _samples(score)
    total = length(score)
    notes = zip(
        starts.tolist(), holds.tolist(), score["pitch"].tolist(), score["velocity"].tolist()
    )
    note = next(notes)
    buffer = np.zeros(2 * block, np.float32)
    for begin in range(0, total, block):
        while note and note[0] < begin + block:
            start, hold, pitch, velocity = note
            at, audio = start - begin, bank.note(pitch, velocity)[: hold + RELEASE]
            missing = at + len(audio) - len(buffer)
            if missing > 0:
                buffer = np.append(buffer, np.zeros(max(missing, block), np.float32))
            held, released = audio[:hold], audio[hold:]
            buffer[at : at + len(held)] += held
            buffer[at + hold : at + len(audio)] += released * _ENVELOPE[: len(released)]
            note = next(notes, None)
        yield buffer[: min(block, total - begin)] * np.float32(gain)
        buffer = np.append(buffer[block:], np.zeros(block, np.float32))


def write_piece(path, score, bank):
    """Render a score to a 16-bit mono wav file.

    The level is `NoteBank.gain` for every piece, so that levels can be learned; only a piece that would clip is rendered
    a second time, lower.

    Returns:
        whether that was so.
    """
    with complete(path) as part:
        peak = _write_blocks(part, render(score, bank, bank.gain))
        if peak > 1:
            _write_blocks(part, render(score, bank, bank.gain * 0.999 / peak))
    return peak > 1


def _write_blocks(path, blocks):
    """Write float blocks as 16-bit wav (by Python's own module, which reports a full disk as such); return their peak.

    Beyond a peak of 1 nothing more is written: the caller has to lower the level.
    """
    peak = 0.0
    with open(path, "wb") as file, wave.open(file) as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        for samples in blocks:
            peak = max(peak, float(np.abs(samples).max()))
            if peak <= 1:
                wav.writeframesraw(np.rint(samples * 32767).astype("<i2"))
    return peak


_bank = functools.lru_cache(maxsize=1)(NoteBank)


def render_task(path, piece, bank):
    """What a worker process does for one piece; it keeps the last bank it used.

    Args:
        path: wav file to write.
        piece: arguments of `midi.change_score`.
        bank: arguments of `NoteBank`.

    Returns:
        (`Counter` of `PLACINGS`, whether the piece had to be made lower, its number of samples).
    """
    bank, score = _bank(*bank), change_score(*piece)
    return bank.count(score), write_piece(path, score, bank), length(score)
