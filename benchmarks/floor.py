"""Estimate the lowest possible error: the part of the target that the input cannot determine.

    python benchmarks/floor.py --nsynth_path notes --midi_path midi
    python benchmarks/floor.py --nsynth_path notes --random 1 2 4 8

Where partials of two notes overlap, the magnitude depends on their phases. A shift of a note by a
fraction of a millisecond changes these phases. The magnitude of another instrument does not
determine them. So each piece is rendered --renderings times, and each time every onset moves by up
to --jitter, which is inaudible. The guess with the least mean absolute error is the median of all
possible renderings, bin by bin. Its error lies between two bounds:

    lower bound   error of the median of all renderings, the compared one included
    upper bound   error of the median of the other renderings

With --random the pieces are random notes. With one note at a time no partials overlap; then the
whole error of a model comes from the notes themselves. Prints spectrogram MAE in dB for each
instrument: lower – upper bound ± standard deviation of the upper one over pieces. A model of
--models with this target gets a column.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
from measure import find_midi
from tqdm import tqdm

import data
from common import devices
from common.cli import UserError
from conversion import convert, known_models
from measuring import metrics
from measuring.pieces import read_run
from NoteSynthesizer import DEFAULT_INSTRUMENTS, NoteBank, render
from research import learned_phase
from synthesis.scores import NOTE, read_score

RANDOM_NOTES, EVERY = 40, 2.4  # chords in a piece of --random; s from one to the next


def random_score(together, rng):
    """Draw notes of 1.2 s from four octaves, ``together`` at a time.

    All but the first of a chord start up to 0.2 s late. The next chord starts when the last one
    has faded, so single notes never overlap.
    """
    begins = 0.3 + EVERY * np.repeat(np.arange(RANDOM_NOTES), together)
    late = rng.uniform(0, 0.2, len(begins)) * (np.arange(len(begins)) % together > 0)
    score = np.zeros(len(begins), NOTE)
    score["onset"] = begins + late
    score["duration"] = 1.2
    score["pitch"] = rng.integers(36, 84, len(begins))
    score["velocity"] = rng.choice([50, 75, 100], len(begins))
    return np.sort(score, order="onset")


def picture_of(score, bank):
    """Compute the picture (256, t) of a score."""
    return data.spectrogram(np.concatenate(list(render(score, bank, bank.gain))))


def jittered(score, bank, jitter, rng):
    """Compute the picture (256, t) of a score; each onset moves by at most ``jitter`` s."""
    score = score.copy()
    score["onset"] = np.maximum(0, score["onset"] + rng.uniform(-jitter, jitter, len(score)))
    return picture_of(np.sort(score, order="onset"), bank)


def bracket_floor(pictures):
    """Compute bounds of the least mean MAE between one guess and all renderings of a piece.

    Args:
        pictures: (renderings, 256, t), of one piece.

    Returns:
        (lower, upper) in dB: the mean MAE to the median of all renderings, and to the median of
        the others.
    """
    of_all = np.median(pictures, axis=0)
    lower, upper = [], []
    for k, picture in enumerate(pictures):
        of_others = np.median(np.delete(pictures, k, axis=0), axis=0)
        lower.append(metrics.picture_mae(picture, of_all))
        upper.append(metrics.picture_mae(picture, of_others))
    return np.mean(lower), np.mean(upper)


def find_floor(score, bank, jitter, count, rng):
    """`bracket_floor` of ``count`` renderings of a score; onsets move by at most ``jitter`` s."""
    pictures = [jittered(score, bank, jitter, rng) for _ in range(count)]
    frames = min(picture.shape[1] for picture in pictures)
    return bracket_floor(np.stack([picture[:, :frames] for picture in pictures]))


def model_error(model, score, origin, bank):
    """Compute a model's MAE in dB: input is the score played by ``origin``, target by ``bank``."""
    converted = convert.convert_picture(model, picture_of(score, origin))[..., 0]
    return metrics.picture_mae(converted, picture_of(score, bank))


def read_groups(args):
    """Read or draw the scores that the flags ask for: {suffix of the table's label: scores}."""
    if args.random:
        groups = {}
        for count in args.random:
            groups[f", {count} at a time"] = [random_score(count, np.random.default_rng(count))]
        return groups
    files = find_midi(args.midi_path)
    chosen = np.unique(np.linspace(0, len(files) - 1, args.pieces).astype(int))
    beginnings = []
    for k in chosen:
        score = read_score(files[k])
        beginnings.append(score[score["onset"] < score["onset"][0] + args.seconds])
    return {"": beginnings}


def read_models(names):
    """Find the models, one for each target: {target: (path, origin)}. Raises UserError."""
    sides = {}
    for path in map(known_models.find_model, names):
        run = read_run(path)
        if not run or run.targets[0] in sides:
            raise UserError(
                f"--models {path}: is no run folder, or has the target of an earlier model; leave "
                "it out"
            )
        sides[run.targets[0]] = path, run.origins[0]
    return sides


def parse_flags(argv):
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--nsynth_path", type=Path, required=True, help="folder of single notes")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--midi_path", type=Path, help="folder of MIDI files")
    source.add_argument(
        "--random",
        type=cli.number(int, 1),
        nargs="+",
        metavar="NOTES",
        help="random notes instead of MIDI files, this many at a time",
    )
    add("--instruments", nargs="+", default=DEFAULT_INSTRUMENTS, help="instruments, NSynth's names")
    add("--models", nargs="+", default=[], help="run folders, or names in pretrained/")
    add(
        "--pieces",
        type=cli.number(int, 1),
        default=9,
        help="number of pieces, evenly spaced over the sorted files",
    )
    add("--seconds", type=cli.number(float, 1), default=30, help="length of each piece, s")
    add(
        "--jitter",
        type=cli.number(float, 0),
        nargs="+",
        default=[0.2, 1, 6],
        help="largest shift of an onset, ms",
    )
    add("--renderings", type=cli.number(int, 2), default=9, help="renderings of each piece")
    return parser.parse_args(argv)


def floor_cells(scores, bank, instrument, args):
    """Make a cell for each jitter: lower – upper bound ± standard deviation of the upper one."""
    cells = []
    for jitter in args.jitter:
        rng = np.random.default_rng(0)
        bounds = []
        for score in tqdm(scores, instrument, leave=False):
            bounds.append(find_floor(score, bank, jitter / 1000, args.renderings, rng))
        lower, upper = np.array(bounds).T
        cells.append(f"{np.mean(lower):.2f} – {mean_and_spread(upper)}")
    return cells


def mean_and_spread(values):
    """Format the mean ± standard deviation (n - 1); of one value, the mean alone."""
    text = f"{np.mean(values):.2f}"
    return text + f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else text


@cli.command
def main(argv=None):
    """Measure, print a table."""
    args = parse_flags(argv)
    groups = read_groups(args)
    sides = read_models(args.models)
    if sides:
        devices.setup_device("cpu")
        from conversion import model_files
    heads = [f"{ms:g} ms" for ms in args.jitter] + ["model"] * bool(sides)
    print("| instrument | " + " | ".join(heads) + " |\n|---|" + "---:|" * len(heads))
    for instrument in args.instruments:
        bank = NoteBank(args.nsynth_path, instrument)
        model = None
        if instrument in sides:
            path, origin = sides[instrument]
            model = model_files.load_generator(path)
            learned_phase.check_phases([], model)
            origin_bank = NoteBank(args.nsynth_path, origin)
        for label, scores in groups.items():
            cells = floor_cells(scores, bank, instrument, args)
            if model:
                errors = [model_error(model, score, origin_bank, bank) for score in scores]
                cells.append(mean_and_spread(errors))
            elif sides:
                cells.append("–")
            print(f"| {instrument}{label} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
