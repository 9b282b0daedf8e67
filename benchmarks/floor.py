"""How low can the error go? What of a target's picture cannot be known from the input's.

    python benchmarks/floor.py --nsynth_path notes --midi_path midi
    python benchmarks/floor.py --nsynth_path notes --random 1 2 4 8

Where partials of two notes meet, the magnitude depends on their phases, which a shift of a note
by a fraction of a millisecond turns, and which no magnitude of another instrument tells. So each
piece is rendered several times with every onset moved by up to --jitter, which nobody hears. The
best guess at a rendering, of someone who knows the piece and the instrument by heart but not
these phases, is the median of all possible renderings, bin by bin: the guess that has the least
mean absolute error. We have --renderings of them, so its error lies between two that can be
measured:

    lower bound   from the median of all renderings, the one that is compared included
    upper bound   from the median of the others, which do not know it

With --random the pieces are chance notes, so many at a time: with one there is nothing to meet, and
what is left of the error of a model is what it has not learned of the notes themselves. Prints
spectrogram MAE in dB by instrument, lower – upper bound ± standard deviation of the upper one over
pieces, and beside them that of the one of --models, if there is one, whose target it is.
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import find_midi

import data
from common import cli, devices
from common.cli import UserError
from conversion import convert, known_models
from measuring import metrics
from measuring.pieces import read_run
from NoteSynthesizer import DEFAULT_INSTRUMENTS, NoteBank, render
from research import learned_phase
from synthesis.scores import NOTE, read_score

RANDOM_NOTES, EVERY = 40, 2.4  # beginnings in a piece of --random, s between them


def random_score(together, rng):
    """Notes of 1.2 s from four octaves, ``together`` at a time.

    All but the first of each are up to 0.2 s late. The next begin when they have faded, so that
    one at a time meets no other.
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
    """Picture (256, t) of a score."""
    return data.spectrogram(np.concatenate(list(render(score, bank, bank.gain))))


def jittered(score, bank, jitter, rng):
    """Picture (256, t) of a score whose onsets are moved by up to ``jitter`` seconds either way."""
    score = score.copy()
    score["onset"] = np.maximum(0, score["onset"] + rng.uniform(-jitter, jitter, len(score)))
    return picture_of(np.sort(score, order="onset"), bank)


def bracket_floor(pictures):
    """Bounds of the least mean MAE that one guess at all of these renderings can have.

    Args:
        pictures: (renderings, 256, t), of one piece.

    Returns:
        (lower, upper) in dB: mean over renderings of the MAE from the median of all, of the others.
    """
    of_all = np.median(pictures, axis=0)
    lower, upper = [], []
    for k, picture in enumerate(pictures):
        of_others = np.median(np.delete(pictures, k, axis=0), axis=0)
        lower.append(metrics.picture_mae(picture, of_all))
        upper.append(metrics.picture_mae(picture, of_others))
    return np.mean(lower), np.mean(upper)


def find_floor(score, bank, jitter, count, rng):
    """`bracket_floor` of ``count`` renderings of a score, onsets moved by up to ``jitter`` s."""
    pictures = [jittered(score, bank, jitter, rng) for _ in range(count)]
    frames = min(picture.shape[1] for picture in pictures)
    return bracket_floor(np.stack([picture[:, :frames] for picture in pictures]))


def model_error(model, score, origin, bank):
    """MAE in dB of a model that is given a score played by the bank ``origin``.

    The target is the same score played by ``bank``.
    """
    converted = convert.convert_picture(model, picture_of(score, origin))[..., 0]
    return metrics.picture_mae(converted, picture_of(score, bank))


def read_groups(args):
    """The scores that the flags ask for: {what stands behind the instrument's name: scores}."""
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
    """{target: (path, origin)} of models that turn one instrument into another's magnitude."""
    sides = {}
    for path in map(known_models.find_model, names):
        run = read_run(path)
        if not run or len(run.targets) > 1 or run.targets[0] in sides:
            raise UserError(
                f"--models {path}: is no run folder of one target, or the second for its target; "
                "leave it out"
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
        help="chance notes, so many at a time",
    )
    add("--instruments", nargs="+", default=DEFAULT_INSTRUMENTS, help="as NSynth names them")
    add("--models", nargs="+", default=[], help="run folders, or names in pretrained/")
    add(
        "--pieces",
        type=cli.number(int, 1),
        default=9,
        help="number of pieces, evenly spaced over the sorted files",
    )
    add("--seconds", type=cli.number(float, 1), default=30, help="of each piece")
    add(
        "--jitter",
        type=cli.number(float, 0),
        nargs="+",
        default=[0.2, 1, 6],
        help="largest shift of an onset, ms",
    )
    add("--renderings", type=cli.number(int, 2), default=9, help="of each piece")
    return parser.parse_args(argv)


def floor_cells(scores, bank, instrument, args):
    """A cell for each jitter: lower – upper bound ± standard deviation of the upper one."""
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
    """Text: the mean ± standard deviation (n - 1), which one value has not."""
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
