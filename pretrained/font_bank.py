"""The notes of SoundFonts, rendered on first use, and tiles of what they play.

Apart from make_data.py, because worker processes import it: what a script itself defines they
cannot import, and not all of it can be sent to them.
"""

import functools
from typing import NamedTuple

import numpy as np
import soxr

import data
import NoteSynthesizer
import render_notes
from common.cli import UserError
from common.files import complete

TILES = 10  # in an excerpt: 30 s
SAMPLES = TILES * data.TILE_FRAMES * data.HOP_LENGTH
SILENT = 1e-4  # peak of a pitch without a sample; on FluidSynth's scale notes reach about 0.1


class Source(NamedTuple):
    """Source of an instrument's notes."""

    font: str  # path
    program: int  # General MIDI's, 0 - 127


@functools.lru_cache(maxsize=2)  # for the next program: a compressed font takes long to load
def open_font(path):
    """A `render_notes.SoundFont`."""
    return render_notes.SoundFont(path)


class FontBank:
    """The notes of a SoundFont program, rendered on first use: `gain` and `note` of `NoteBank`.

    Args:
        source: `Source`.

    Raises:
        UserError: the font lacks the program.
    """

    def __init__(self, source):
        self._font = open_font(source.font)
        if (0, source.program) not in self._font.programs:
            raise UserError(
                f"{source.font}: has no program {source.program}; give another in --instruments"
            )
        self._program = source.program
        self._played = {}  # (pitch, velocity) -> samples of the font
        self._notes = {}  # (pitch, velocity) -> samples, shifted if needed and faded out

    @functools.cached_property
    def gain(self):
        """Factor for the notes of a piece, see `NoteBank.gain`.

        Raises UserError if the program is silent.
        """
        peaks = []
        for pitch in NoteSynthesizer.PITCHES:
            if self._sounds(pitch):
                peaks.append(np.abs(self._play(pitch, 100)).max())
        if not peaks:
            raise UserError(f"program {self._program}: is silent; give another in --instruments")
        return NoteSynthesizer.LEVEL / max(np.median(peaks), SILENT)

    def note(self, pitch, velocity):
        """Return the note for (pitch, velocity): float32 (n,); empty if no note is near."""
        key = pitch, NoteSynthesizer.nearest_velocity(velocity)
        if key not in self._notes:
            self._notes[key] = self._make(*key)
        return self._notes[key]

    def _play(self, pitch, velocity):
        key = pitch, velocity
        if key not in self._played:
            self._played[key] = self._font.note(0, self._program, pitch, velocity, data.SAMPLE_RATE)
        return self._played[key]

    def _sounds(self, pitch):
        if pitch not in NoteSynthesizer.PITCHES:
            return False
        return np.abs(self._play(pitch, 100)).max() > SILENT

    def _make(self, pitch, velocity):
        """Make a note from the nearest pitch that sounds, shifted; at equal distance the higher."""
        shift = NoteSynthesizer.MAX_SHIFT
        near = sorted(
            range(pitch - shift, pitch + shift + 1), key=lambda each: (abs(each - pitch), -each)
        )
        source = next((each for each in near if self._sounds(each)), None)
        if source is None:
            return np.empty(0, np.float32)
        audio = self._play(source, velocity)
        if source != pitch:
            rate = data.SAMPLE_RATE * 2 ** ((pitch - source) / 12)
            audio = soxr.resample(audio, rate, data.SAMPLE_RATE)
        audio = audio.copy()
        NoteSynthesizer.fade_out(audio)
        return audio


def make_picture(parts, bins):
    """Make the tiles of parts that sound together: float16 (`TILES`, bins, 256, 1) in [0, 1].

    ``parts``: list of (score, bank).
    """
    audio = np.zeros(SAMPLES - 1, np.float32)
    for score, bank in parts:
        blocks = [block.copy() for block in NoteSynthesizer.render(score, bank, bank.gain)]
        part = np.concatenate(blocks)[: len(audio)]
        audio[: len(part)] += part
    audio *= 0.999 / max(np.abs(audio).max(), 0.999)  # only where it would clip
    picture = np.minimum(data.spectrogram(audio, bins), 1).astype(np.float16)
    return data.slice_tiles(picture[:, : TILES * data.TILE_FRAMES])


def play(sources, work, bins):
    """Make all tiles of one instrument, in a worker.

    Args:
        sources: tuple of `Source`.
        work: list of (path of tiles, tuple of scores, one for each source).
        bins: height of the tiles.
    """
    banks = [FontBank(source) for source in sources]
    for path, scores in work:
        tiles = make_picture(list(zip(scores, banks)), bins)
        with complete(path) as part, open(part, "wb") as file:
            np.save(file, np.ascontiguousarray(tiles))
