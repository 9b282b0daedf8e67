"""Make the training tiles of the many_2_* models from SoundFonts and MIDI files, in one step.

    python pretrained/make_data.py --midi_path midi --features features
    python train_generator.py --dataset_path features --origin all --target guitar_acoustic

Each excerpt is 30 s of a piece. Every target plays it: the instruments of instruments.csv without a
number. Two more pianos play it, and two instruments of each of two other families. So origins have
different pieces; `train.py --family_share` balances the families. Half of the excerpts are
unchanged, 22 % are without the pedal, and 28 % keep the highest voice only, because most
instruments play one note at a time. All excerpts change tempo and pitch a little.

A duet, such as duet_acoustic_001, is two instruments: the first plays the highest voice, the second
all other notes. Two duets play each excerpt without the pedal, whose voices do not blur.

The script plays notes on demand and writes tiles only: notes and audio on disk would take ten times
the space. Current files are kept, so a stopped run continues, and a larger --excerpts adds files.
"""

import hashlib
import json
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import font_bank
import numpy as np

import data
import NoteSynthesizer
import render_notes
from common import parallel
from common.cli import UserError
from common.files import MEND, find_named, read_csv, read_json, write_json
from common.names import MIDI_EXTENSIONS, family_of, version_name
from common.record import CURRENT, FOREIGN, Record
from synthesis.scores import change_score, read_score

INSTRUMENTS = Path(__file__).with_name("instruments.csv")
PIANOS = "keyboard_acoustic"  # every excerpt has two instruments of this family
OF_A_FAMILY = 2  # instruments of each family in an excerpt
OTHER_FAMILIES = 2  # families other than pianos in an excerpt
DUET = "duet_"  # begins the names of instruments that are two others
SECONDS = font_bank.SAMPLES / data.SAMPLE_RATE  # of an excerpt
# Shares of the excerpts: unchanged, without the pedal, highest voice only
WAYS = {"pedal": 0.5, "plain": 0.22, "melody": 0.28}
# s of one core, measured: play all notes of an instrument once; make a picture of 30 s
SECONDS_A_BANK, SECONDS_A_PICTURE = 4.0, 0.7
FORMAT = 1  # raise it when a change of the code changes the tiles
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


class Excerpt(NamedTuple):
    """A part of a piece and the instruments that play it."""

    name: str  # of its tiles' files, below the instrument's folder
    midi: Path
    score: np.ndarray  # array of `scores.NOTE`
    instruments: list
    voices: tuple = ()  # scores of the highest voice and the rest, if duets play it

    def list_scores(self, instrument):
        """List the scores of an instrument's sources: two of a duet, otherwise one."""
        return self.voices if is_duet(instrument) else (self.score,)


# Choosing the excerpts


def read_instruments(path):
    """Read the table of instruments: {name: tuple of `Source`, two of a duet}. Raises UserError."""
    rows = read_csv(path)
    if rows[:1] != [["instrument", "font", "program"]]:
        raise UserError(f"{path}: the first line must be 'instrument,font,program'; add it")
    sources = {}
    for row in rows[1:]:
        if len(row) != 3:
            raise _not_an_instrument(path, row)
        name = row[0]
        NoteSynthesizer.note_prefix(name)  # refuses a malformed name
        if name in sources:
            raise UserError(f"{path}: {name}: is named twice; give one of them another number")
        if is_duet(name):
            sources[name] = read_duet(path, row, sources)
        else:
            sources[name] = (read_source(path, row),)
    if not list_targets(sources):
        raise UserError(f"{path}: has no target; add an instrument without a number")
    return sources


def read_source(path, row):
    """Read a row (name, font, program) of the table: `Source`. Raises UserError."""
    name, font, program = row
    if not program.strip().isdecimal():
        raise _not_an_instrument(path, row)
    if int(program) > 127:
        raise UserError(f"{path}: {name}: no such program: {program}; give 0 - 127")
    return font_bank.Source(str(render_notes.find_font(font)), int(program))


def read_duet(path, row, sources):
    """Read a row (name, instrument, instrument) of the table: the two `Source`.

    Raises UserError if an instrument is not among ``sources``, those of the rows above.
    """
    name, *instruments = row
    for instrument in instruments:
        if instrument not in sources or is_duet(instrument):
            raise UserError(
                f"{path}: {name}: '{instrument}' is not an instrument of a row above; name two of "
                "these: who plays the highest voice, who plays the rest"
            )
    highest, rest = instruments
    return sources[highest] + sources[rest]


def _not_an_instrument(path, row):
    return UserError(f"{path}: {','.join(row)}: is not an instrument; write name,font,program")


def list_targets(instruments):
    """List the targets: instruments without a preset number, which play every excerpt."""
    return [name for name in instruments if family_of(name) == name and not is_duet(name)]


def is_duet(name):
    """Whether an instrument is a duet, by its name."""
    return name.startswith(DUET)


def group_by_family(instruments):
    """Group all other instruments except duets: {family: instruments}, in the table's order."""
    families = {}
    for name in instruments:
        if family_of(name) != name and not is_duet(name):
            families.setdefault(family_of(name), []).append(name)
    return families


def draw_instruments(instruments, rng):
    """Draw the instruments of an excerpt: all targets, some pianos, some of other families."""
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
    """Draw ``count`` different names, or all if there are fewer, in random order."""
    places = rng.choice(len(names), min(count, len(names)), replace=False)
    return [names[place] for place in places]


def make_excerpt(number, pieces, instruments, seed):
    """Make excerpt ``number``. The same arguments always give the same excerpt.

    Each lap uses every piece once, in a new order.

    Args:
        number: from 0.
        pieces: {name: path}.
        instruments: names, see `read_instruments`.
        seed: random seed.

    Raises:
        UserError: the piece is not a MIDI file.
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
    voices = split_voices(score) if way == "plain" else ()
    if voices:
        # The last draw, so that data made before there were duets stay the same
        players += draw([name for name in instruments if is_duet(name)], OF_A_FAMILY, rng)
    name = version_name(piece, transpose, speed)
    return Excerpt(name, pieces[piece], score, players, voices)


def split_voices(score):
    """Split a score in two: (highest voice, all other notes); () if one would be empty."""
    is_highest = np.zeros(len(score), bool)
    is_highest[find_highest(score)] = True
    if is_highest.all():
        return ()
    return score[is_highest], score[~is_highest]


def keep_highest(score):
    """Keep the highest voice of a score, one note at a time, nearly legato."""
    voice = score[find_highest(score)]
    gaps = np.diff(voice["onset"], append=voice["onset"][-1] + 2)
    longest = np.maximum(voice["duration"] * 1.5, 0.15)
    voice["duration"] = np.clip(gaps * 0.97, 0.05, longest)
    return voice


def find_highest(score):
    """Find the notes of the highest voice: list of indices. Of a chord it is the highest note."""
    kept = []
    for index, note in enumerate(score):
        last = score[kept[-1]] if kept else None
        if last is not None and note["onset"] < last["onset"] + 0.03:
            if note["pitch"] > last["pitch"]:
                kept[-1] = index
            continue
        if last is not None and is_accompaniment(note, last):
            continue
        kept.append(index)
    return kept


def is_accompaniment(note, last):
    """Whether a note is more than 4 semitones below the voice's last note while that one sounds.

    The last note counts as sounding for 0.6 s at most, even with the pedal.
    """
    held = min(last["duration"], 0.6)
    return note["pitch"] < last["pitch"] - 4 and note["onset"] < last["onset"] + held


def cut(score, rng):
    """Cut `SECONDS` out of a score, starting just before one of its notes."""
    begin = rng.uniform(0, max(score["onset"].max() - SECONDS, 0))
    begin = score["onset"][score["onset"] >= begin - 1e-6][0] - rng.uniform(0.02, 0.3)
    inside = (score["onset"] >= begin) & (score["onset"] < begin + SECONDS - 0.2)
    part = score[inside].copy()
    part["onset"] -= min(begin, part["onset"].min())
    return part


# Making tiles


class Work:
    """All tiles to make, by instrument, and those that are missing or out of date.

    Args:
        args: flags.
        sources: see `read_instruments`.
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
        """Sources and settings of an excerpt's tiles, for `Record`."""
        sources = self.sources[name]
        scores = b"".join(score.tobytes() for score in excerpt.list_scores(name))
        notes = hashlib.blake2b(scores, digest_size=8).hexdigest()
        programs = [source.program for source in sources]
        settings = {
            "format": FORMAT,
            "bins": self.bins,
            "notes": notes,
            "program": programs if is_duet(name) else programs[0],
        }
        return [excerpt.midi, *[source.font for source in sources]], settings

    def _is_current(self, name, path, excerpt):
        plan = self.record.plan(path, *self._made_from(name, excerpt))
        if plan == FOREIGN:
            raise UserError(f"{path}: was not made by this script; give another --features")
        return plan == CURRENT

    def count(self):
        """Number of files to make."""
        return sum(len(files) for files in self.due.values())

    def run(self, workers):
        """Make the files that are due; record them after each instrument."""
        tasks = []
        names = [name for name, files in self.due.items() if files]
        paths = []
        for name in names:
            files = []
            for path, excerpt in self.due[name]:
                files.append((path.absolute(), excerpt.list_scores(name)))
            tasks.append((self.sources[name], files, self.bins))
            paths += [path for path, _ in files]
        by_first = {task[1][0][0]: name for task, name in zip(tasks, names)}

        def note_done(task, _):
            name = by_first[task[1][0][0]]
            for path, excerpt in self.due[name]:
                self.record.add(path, *self._made_from(name, excerpt))

        self.record.begin(paths)
        with parallel.engine(workers) as run:
            run(font_bank.play, tasks, paths, note_done, unit="instrument", desc="playing")

    def fingerprint(self):
        """Hash of all inputs of the tiles, for features.json."""
        parts = []
        for name, files in self.wanted.items():
            for path, excerpt in files:
                _, settings = self._made_from(name, excerpt)
                parts.append([path.relative_to(self.features).as_posix(), settings])
        text = json.dumps(sorted(parts, key=lambda part: part[0]))
        return hashlib.sha256(text.encode()).hexdigest()


def find_pieces(folder, left_out):
    """Find MIDI files below ``folder``: {name: path}, sorted. Raises UserError if none is left."""
    pieces = {}
    for name, path in find_named(folder, MIDI_EXTENSIONS).items():
        if name not in left_out:
            pieces[name] = path
    if not pieces:
        raise UserError(f"--midi_path {folder}: holds no MIDI file; check the path")
    return dict(sorted(pieces.items()))


def read_bins(features):
    """Read the height of the tiles in a folder, None if it is new. Raises UserError if damaged."""
    path = features / "features.json"
    description = read_json(path, f"{MEND}, or give another --features", parameters=dict)
    return description and description["parameters"].get("bins")


def describe_work(work, excerpts, workers):
    """Describe the work: hours of music, disk space, time."""
    banks = sum(len(work.sources[name]) for name, files in work.due.items() if files)
    size = work.count() * font_bank.TILES * data.TILE_FRAMES * work.bins * 2 / 1e9
    seconds = (banks * SECONDS_A_BANK + work.count() * SECONDS_A_PICTURE) / workers
    there = sum(len(files) for files in work.wanted.values()) - work.count()
    return (
        f"{len(excerpts):,} excerpts, {len(excerpts) * SECONDS / 3600:.1f} h of music, on "
        f"{len(work.sources)} instruments, {work.bins} bins\n"
        f"{work.count():,} files to make ({size:.1f} GB), {there:,} already made; "
        f"about {math.ceil(seconds / 60)} min with {workers} workers"
    )


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--midi_path", type=Path, required=True, help="folder of MIDI files")
    add("--features", type=Path, required=True, help="output folder for the tiles")
    add(
        "--instruments",
        type=Path,
        default=INSTRUMENTS,
        metavar="FILE",
        help="CSV file: instrument,font,program; instruments without a number are targets and "
        "play every excerpt; a duet: duet_acoustic_001, who plays the highest voice, who the rest",
    )
    add("--excerpts", type=cli.number(int, 2), default=260, help="number of excerpts, 30 s each")
    add(
        "--bins",
        type=int,
        choices=data.HEIGHTS,
        default=data.FULL_BINS,
        help="height of the tiles: 256 (0 - 11 kHz) or 512 (0 - 22 kHz)",
    )
    add(
        "--leave_out",
        nargs="*",
        default=LEFT_OUT,
        metavar="PIECE",
        help="pieces to leave out of the training set; default: the pieces of piano-midi.de in the "
        "documentation's tables",
    )
    add("--seed", type=cli.number(int, 0, 2**31), default=7, help="random seed")
    add("--workers", type=cli.number(int, 1), default=2, help="number of processes")
    return parser


@cli.command
def main(argv=None):
    """Print the work, then do it."""
    args = build_parser().parse_args(argv)
    start = time.time()
    known = read_bins(args.features)
    if known not in (None, args.bins):
        raise UserError(
            f"--bins {args.bins}: {args.features} has tiles of {known} bins; give --bins {known}, "
            "or another --features"
        )
    sources = read_instruments(args.instruments)
    pieces = find_pieces(args.midi_path, args.leave_out)
    excerpts = []
    for number in range(args.excerpts):
        excerpts.append(make_excerpt(number, pieces, list(sources), args.seed))
    work = Work(args, sources, excerpts)
    print(describe_work(work, excerpts, args.workers), flush=True)
    description = {"parameters": {**data.FEATURE_PARAMETERS, "bins": args.bins}}
    if work.count():  # no fingerprint until all is there
        write_json(args.features / "features.json", description, indent=2)
    work.run(args.workers)
    description["fingerprint"] = work.fingerprint()
    write_json(args.features / "features.json", description, indent=2)
    print(f"{work.count():,} files made in {(time.time() - start) / 60:.0f} min -> {args.features}")


if __name__ == "__main__":
    raise SystemExit(main())
