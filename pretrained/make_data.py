"""The tiles that the pretrained models learn from: SoundFonts and MIDI files -> features, at once.

    python pretrained/make_data.py --midi_path midi --features features
    python train_generator.py --dataset_path features --origin ... --target guitar_acoustic

Half a minute each of many pieces. An excerpt is played by every target, which are the instruments
of instruments.csv without a number; by two more pianos; and by two instruments of each of two
other families: `train.py --family_share` and origins with pieces of their own are made for that.
Half of the excerpts are as their files have them, a fifth without the pedal, the rest their highest
voice alone, for most instruments play one; all of them a little faster or slower, higher or lower.

Notes are played when they are needed, and nothing but tiles is written: NSynth-shaped notes
and audio would take ten times the disk. What is there and was made from the same is kept, so that a
run that was stopped goes on, and a larger --excerpts adds to a smaller one.
"""

import functools
import hashlib
import json
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import soxr

import data
import NoteSynthesizer
import render_notes
from common import cli, parallel
from common.cli import UserError
from common.files import complete, find_files, read_csv, write_json
from common.names import family_of, version_name
from common.record import Record
from synthesis.scores import NOTE, change_score, read_score

INSTRUMENTS = Path(__file__).with_name("instruments.csv")
PIANOS = "keyboard_acoustic"  # the family of which every excerpt has two
OF_A_FAMILY = 2  # instruments, of each family that an excerpt has
OTHER_FAMILIES = 2  # than pianos, of an excerpt
TILES = 10  # of an excerpt: 30 s
SAMPLES = TILES * data.TILE_FRAMES * data.HOP_LENGTH
SECONDS = SAMPLES / data.SAMPLE_RATE
# What an excerpt is: as the file has it, without the pedal, the highest voice alone
WAYS = {"pedal": 0.5, "plain": 0.22, "melody": 0.28}
SILENT = 1e-4  # peak on FluidSynth's scale, where notes reach about 0.1: no sample at this pitch
# s of one core, measured: to play an instrument's notes once, and to make a picture of 30 s
SECONDS_A_BANK, SECONDS_A_PICTURE = 4.0, 0.7
FORMAT = 1  # raised whenever the same files come to give other tiles
# Pieces of piano-midi.de that older tables report
LEFT_OUT = (
    "albeniz/alb_esp6",
    "albeniz/alb_se8",
    "bach/bach_847",
    "beeth/beethoven_hammerklavier_2",
    "haydn/haydn_9_3",
    "mozart/mz_331_2",
    "mozart/mz_333_3",
    "beeth/pathetique_2",
    "schubert/schu_143_3",
    "schubert/schubert_D935_3",
)


class Source(NamedTuple):
    """Where an instrument's notes come from."""

    font: str  # path
    program: int  # General MIDI's, 0 - 127


class Excerpt(NamedTuple):
    """A stretch of a piece, and who plays it."""

    name: str  # of its tiles, below the instrument's folder
    midi: Path
    score: np.ndarray  # of `scores.NOTE`
    instruments: list


@functools.lru_cache(maxsize=2)  # for the next program: a compressed font takes long to load
def open_font(path):
    """A `render_notes.SoundFont`."""
    return render_notes.SoundFont(path)


class FontBank:
    """The notes of a program, played when first asked for; otherwise as `NoteBank`.

    Args:
        source: `Source`.
    """

    def __init__(self, source):
        self._font = open_font(source.font)
        self._program = source.program
        self._played = {}  # (pitch, velocity) -> samples, as the font gives them
        self._notes = {}  # the same, faded, and shifted where the font has no such note

    def gain(self):
        """Factor for notes in a piece: see `NoteBank.gain`."""
        peaks = []
        for pitch in NoteSynthesizer.PITCHES:
            if self._sounds(pitch):
                peaks.append(np.abs(self._play(pitch, 100)).max())
        return NoteSynthesizer.LEVEL / max(np.median(peaks), SILENT)

    def note(self, pitch, velocity):
        """The note that plays (pitch, velocity): float32 (n,); empty if there is none near."""
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
        """The note of the nearest pitch that there is, of two as near the higher, shifted."""
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


# Which excerpts there are


def read_instruments(path):
    """The table of instruments -> {name: `Source`}. Raises UserError."""
    rows = read_csv(path)
    if rows[:1] != [["instrument", "font", "program"]]:
        raise UserError(f"{path}: does not begin with instrument,font,program; write these columns")
    sources = {}
    for row in rows[1:]:
        try:
            name, font, program = row
            program = int(program)
        except ValueError:
            raise UserError(
                f"{path}: {','.join(row)}: is no instrument; write a name, a font, a program"
            ) from None
        NoteSynthesizer.note_prefix(name)  # refuses a malformed name
        if not 0 <= program <= 127:
            raise UserError(f"{path}: {name}: program {program}; write one of 0 - 127")
        sources[name] = Source(str(render_notes.find_font(font)), program)
    if not list_targets(sources):
        raise UserError(f"{path}: has no target; write one instrument without a number at least")
    return sources


def list_targets(instruments):
    """Those that play every excerpt: their names have no preset's number."""
    return [name for name in instruments if family_of(name) == name]


def group_by_family(instruments):
    """{family: its instruments} of those that are no targets, in the table's order."""
    families = {}
    for name in instruments:
        if family_of(name) != name:
            families.setdefault(family_of(name), []).append(name)
    return families


def draw_instruments(instruments, rng):
    """Who plays an excerpt: the targets, some pianos, some of some other families."""
    families = group_by_family(instruments)
    chosen = list_targets(instruments)
    pianos = families.pop(PIANOS, [])
    drawn = []
    if pianos:
        drawn.append(draw(pianos, OF_A_FAMILY, rng))
    for family in draw(list(families), OTHER_FAMILIES, rng):
        drawn.append(draw(families[family], OF_A_FAMILY, rng))
    for names in drawn:
        chosen += names
    return chosen


def draw(names, count, rng):
    """``count`` of a list, each once; all of a shorter one, in any order."""
    places = rng.choice(len(names), min(count, len(names)), replace=False)
    return [names[place] for place in places]


def make_excerpt(number, pieces, instruments, seed):
    """Excerpt number ``number``: all that is drawn follows from (seed, number) and the arguments.

    The pieces come in turn, each lap in another order.

    Args:
        number: from 0.
        pieces: {name: path}.
        instruments: names, see `read_instruments`.
        seed: any.

    Raises:
        UserError: the piece is no MIDI file.
    """
    lap, place = divmod(number, len(pieces))
    order = np.random.default_rng((seed, 999, lap)).permutation(len(pieces))
    piece = list(pieces)[order[place]]
    rng = np.random.default_rng((seed, number))
    way = rng.choice(list(WAYS), p=list(WAYS.values()))
    score = read_score(pieces[piece], pedal=way == "pedal")
    speed = round(float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))), 4)
    transpose = int(rng.integers(-5, 7))
    duration_rate = rng.uniform(0.5, 1.1) if way == "plain" else 1.0
    if way == "melody":
        score = keep_highest(score)
    score = cut(change_score(score, speed, duration_rate, transpose), rng)
    if way == "melody":
        score["pitch"] += 12 * rng.integers(-1, 1)
        score["velocity"] = np.clip(score["velocity"] * rng.uniform(1, 1.4), 1, 127)
    players = draw_instruments(instruments, rng)
    return Excerpt(version_name(piece, transpose, speed), pieces[piece], score, players)


def keep_highest(score):
    """The highest voice of a score alone, one note at a time, nearly legato.

    Of a chord the highest note stays.
    """
    kept = []
    for note in score:
        last = kept[-1] if kept else None
        if last is not None and note["onset"] < last["onset"] + 0.03:
            if note["pitch"] > last["pitch"]:
                kept[-1] = note.copy()
            continue
        if last is not None and is_accompaniment(note, last):
            continue
        kept.append(note.copy())
    voice = np.array(kept, NOTE)
    gaps = np.diff(voice["onset"], append=voice["onset"][-1] + 2)
    longest = np.maximum(voice["duration"] * 1.5, 0.15)
    voice["duration"] = np.clip(gaps * 0.97, 0.05, longest)
    return voice


def is_accompaniment(note, last):
    """Whether a note lies more than 4 semitones below the last one of the voice, which sounds.

    After 0.6 s it sounds no more, whatever the pedal says.
    """
    held = min(last["duration"], 0.6)
    return note["pitch"] < last["pitch"] - 4 and note["onset"] < last["onset"] + held


def cut(score, rng):
    """`SECONDS` of a score, from just before one of its notes."""
    begin = rng.uniform(0, max(score["onset"].max() - SECONDS, 0))
    begin = score["onset"][score["onset"] >= begin - 1e-6][0] - rng.uniform(0.02, 0.3)
    inside = (score["onset"] >= begin) & (score["onset"] < begin + SECONDS - 0.2)
    part = score[inside].copy()
    part["onset"] -= min(begin, part["onset"].min())
    return part


# Excerpts -> tiles


def make_picture(score, bank, gain, bins):
    """Tiles of a score on an instrument: float16 (`TILES`, bins, 256, 1) in [0, 1]."""
    blocks = [block.copy() for block in NoteSynthesizer.render(score, bank, gain)]
    audio = np.concatenate(blocks)
    audio = np.pad(audio, (0, SAMPLES))[: SAMPLES - 1]
    audio *= 0.999 / max(np.abs(audio).max(), 0.999)  # where it would clip
    picture = np.minimum(data.spectrogram(audio, bins), 1).astype(np.float16)
    return data.slice_tiles(picture[:, : TILES * data.TILE_FRAMES])


def play(source, work, bins):
    """What a worker does: one instrument, ``work`` a list of (path of the tiles, score)."""
    bank = FontBank(source)
    gain = bank.gain()
    for path, score in work:
        tiles = make_picture(score, bank, gain, bins)
        with complete(path) as part, open(part, "wb") as file:
            np.save(file, np.ascontiguousarray(tiles))


class Work:
    """What is to be made, by instrument, and what of it is there.

    Args:
        args: flags.
        sources: {instrument: `Source`}.
        excerpts: list of `Excerpt`.
    """

    def __init__(self, args, sources, excerpts):
        self.features = args.features
        self.bins = args.bins
        self.sources = sources
        self.record = Record(args.features)
        self.wanted = {name: [] for name in sources}  # (path, excerpt)
        for excerpt in excerpts:
            for name in excerpt.instruments:
                path = args.features / name / f"{excerpt.name}.npy"
                self.wanted[name].append((path, excerpt))
        self.due = {}
        for name, files in self.wanted.items():
            self.due[name] = [file for file in files if not self._is_current(name, *file)]

    def _made_from(self, name, excerpt):
        """Sources and settings of an excerpt's tiles, as of `Record`."""
        notes = hashlib.blake2b(excerpt.score.tobytes(), digest_size=8).hexdigest()
        settings = {"format": FORMAT, "bins": self.bins, "notes": notes}
        source = self.sources[name]
        return [excerpt.midi, source.font], {**settings, "program": source.program}

    def _is_current(self, name, path, excerpt):
        if self.record.is_current(path, *self._made_from(name, excerpt)):
            return True
        if path.exists() and not self.record.knows(path):
            raise UserError(f"{path}: was not made by this script; give another --features")
        return False

    def count(self):
        """Tiles' files that are to be made."""
        return sum(len(files) for files in self.due.values())

    def run(self, workers):
        """Make what is due; note it instrument by instrument."""
        tasks = []
        names = [name for name, files in self.due.items() if files]
        paths = []
        for name in names:
            files = [(path.absolute(), excerpt.score) for path, excerpt in self.due[name]]
            tasks.append((self.sources[name], files, self.bins))
            paths += [path for path, _ in files]
        by_first = {task[1][0][0]: name for task, name in zip(tasks, names)}

        def note_done(task, _):
            name = by_first[task[1][0][0]]
            for path, excerpt in self.due[name]:
                self.record.add(path, *self._made_from(name, excerpt))

        self.record.begin(paths)
        with parallel.engine(workers) as run:
            run(play, tasks, paths, note_done, unit="instrument", desc="playing")

    def fingerprint(self):
        """A hash of all that the tiles were made from, as features.json has it."""
        parts = []
        for name, files in self.wanted.items():
            for path, excerpt in files:
                _, settings = self._made_from(name, excerpt)
                parts.append([path.relative_to(self.features).as_posix(), settings])
        text = json.dumps(sorted(parts, key=lambda part: part[0]))
        return hashlib.sha256(text.encode()).hexdigest()


def find_pieces(folder, left_out):
    """{name: path} of the MIDI files below ``folder``, sorted. Raises UserError if none is left."""
    pieces = {}
    for path in find_files(folder, (".mid", ".midi")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name not in left_out:
            pieces[name] = path
    if not pieces:
        raise UserError(f"--midi_path {folder}: holds no MIDI file; check the path")
    return dict(sorted(pieces.items()))


def describe_work(work, excerpts, workers):
    """What is going to be made: hours of music, disk, time."""
    banks = sum(1 for files in work.due.values() if files)
    size = work.count() * TILES * data.TILE_FRAMES * work.bins * 2 / 1e9
    seconds = (banks * SECONDS_A_BANK + work.count() * SECONDS_A_PICTURE) / workers
    there = sum(len(files) for files in work.wanted.values()) - work.count()
    return (
        f"{len(excerpts):,} excerpts, {len(excerpts) * SECONDS / 3600:.1f} h of music, on "
        f"{len(work.sources)} instruments, {work.bins} bins\n"
        f"{work.count():,} files to make, {there:,} are there: {size:.1f} GB, "
        f"about {math.ceil(seconds / 60)} min with {workers} workers"
    )


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--midi_path", type=Path, required=True, help="folder of MIDI files")
    add("--features", type=Path, required=True, help="where the tiles go")
    add(
        "--instruments",
        type=Path,
        default=INSTRUMENTS,
        metavar="FILE",
        help="CSV of instrument, font, program; those without a number play every excerpt",
    )
    add("--excerpts", type=cli.number(int, 2), default=260, help="how many, of 30 s each")
    add(
        "--bins",
        type=int,
        choices=data.HEIGHTS,
        default=data.FULL_BINS,
        help="height of the pictures: 256, 0 - 11 kHz, or 512, 0 - 22 kHz",
    )
    add(
        "--leave_out",
        nargs="*",
        default=LEFT_OUT,
        metavar="PIECE",
        help="pieces that are not to be trained on; default: those of piano-midi.de that the "
        "documentation's tables report",
    )
    add("--seed", type=cli.number(int, 0, 2**31), default=7, help="of all that is drawn")
    add("--workers", type=cli.number(int, 1), default=2, help="processes")
    return parser


@cli.command
def main(argv=None):
    """Say what is to be done, do it."""
    args = build_parser().parse_args(argv)
    start = time.time()
    sources = read_instruments(args.instruments)
    pieces = find_pieces(args.midi_path, args.leave_out)
    excerpts = []
    for number in range(args.excerpts):
        excerpts.append(make_excerpt(number, pieces, list(sources), args.seed))
    work = Work(args, sources, excerpts)
    print(describe_work(work, excerpts, args.workers), flush=True)
    work.run(args.workers)
    parameters = {**data.FEATURE_PARAMETERS, "bins": args.bins}
    description = {"parameters": parameters, "fingerprint": work.fingerprint()}
    write_json(args.features / "features.json", description, indent=2)
    print(f"{work.count():,} files made in {(time.time() - start) / 60:.0f} min -> {args.features}")


if __name__ == "__main__":
    raise SystemExit(main())
