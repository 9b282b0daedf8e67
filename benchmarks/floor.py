"""How low can the error go? What of a target's picture cannot be known from the input's, for it hangs on phases.

    python benchmarks/floor.py --nsynth_path notes --midi_path midi
    python benchmarks/floor.py --nsynth_path notes --random 1 2 4 8

Where partials of two notes meet, the magnitude depends on their phases, which a shift of a note by a fraction of a millisecond
turns, and which no magnitude of another instrument tells. So each piece is rendered several times with every onset moved by
up to --jitter, which nobody hears, and each rendering is compared with the best guess that the others give: their median, bin
by bin (the guess that has the least mean absolute error). With --random the pieces are chance notes, so many at a time: with
one there is nothing to meet, and what is left of the error of a model is what it has not learned of the notes themselves.
Prints spectrogram MAE in dB, mean +- standard deviation over pieces, by instrument: floors, and beside them that of the one
of --models, if there is one, whose target it is.
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import cli
import convert
import data
import devices
import evaluate
import learned_phase
import metrics
from cli import UserError
from midi import NOTE, read_score
from NoteSynthesizer import DEFAULT_INSTRUMENTS, NoteBank, render

RANDOM_NOTES, EVERY = 40, 2.4  # beginnings in a piece of --random, s between them


def random_score(together, rng):
    """Notes of 1.2 s from four octaves, ``together`` at a time, all but the first of each up to 0.2 s late.

    The next begin when they have faded, so that one at a time meets no other.
    """
    begins = 0.3 + EVERY * np.repeat(np.arange(RANDOM_NOTES), together)
    late = rng.uniform(0, 0.2, len(begins)) * (np.arange(len(begins)) % together > 0)
    notes = zip(
        begins + late, rng.integers(36, 84, len(begins)), rng.choice([50, 75, 100], len(begins))
    )
    return np.sort(
        np.array([(onset, 1.2, pitch, velocity) for onset, pitch, velocity in notes], NOTE),
        order="onset",
    )


def picture_of(score, bank):
    """Picture (256, t) of a score."""
    return data.spectrogram(np.concatenate(list(render(score, bank, bank.gain))))


def jittered(score, bank, jitter, rng):
    """Picture (256, t) of a score whose onsets are moved by up to ``jitter`` seconds either way."""
    score = score.copy()
    score["onset"] = np.maximum(0, score["onset"] + rng.uniform(-jitter, jitter, len(score)))
    return picture_of(np.sort(score, order="onset"), bank)


def floor(score, bank, jitter, count, rng):
    """Mean MAE in dB between each of ``count`` renderings and the median of the others."""
    pictures = [jittered(score, bank, jitter, rng) for _ in range(count)]
    frames = min(picture.shape[1] for picture in pictures)
    pictures = np.stack([picture[:, :frames] for picture in pictures])
    others = [np.median(np.delete(pictures, k, axis=0), axis=0) for k in range(count)]
    return np.mean(
        [metrics.picture_mae(picture, guess) for picture, guess in zip(pictures, others)]
    )


def model_error(model, score, origin, bank):
    """MAE in dB between what a model makes of a score played by the bank ``origin``, and the score played by ``bank``."""
    return metrics.picture_mae(
        convert.convert_picture(model, picture_of(score, origin))[..., 0], picture_of(score, bank)
    )


def read_scores(args):
    """The scores that the flags ask for: {what stands behind the instrument's name: list of scores}."""
    if args.random:
        return {
            f", {n} at a time": [random_score(n, np.random.default_rng(n))] for n in args.random
        }
    files = cli.find_files(args.midi_path, (".mid", ".midi"))
    if not files:
        raise UserError(f"{args.midi_path}: holds no .mid or .midi file; check the path")
    files = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, args.pieces).astype(int))]
    return {
        "": [
            score[score["onset"] < score["onset"][0] + args.seconds]
            for score in map(read_score, files)
        ]
    }


def read_models(names):
    """{target: (model's path, its origin)} of models that turn one instrument into another's magnitude."""
    sides = {}
    for path in map(cli.find_model, names):
        config = evaluate.read_config(path)
        if (
            not config
            or len(config["origins"] + config["targets"]) > 2
            or config["target"] in sides
        ):
            raise UserError(
                f"--models {path}: is no run folder of one target, or the second for its target; leave it out"
            )
        sides[config["target"]] = path, config["origin"]
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


@cli.command
def main(argv=None):
    """Measure, print a table."""
    args = parse_flags(argv)
    sides = read_models(args.models)
    if sides:
        devices.setup_device("cpu")
        import models
    heads = [f"{ms:g} ms" for ms in args.jitter] + ["model"] * bool(sides)
    print("| instrument | " + " | ".join(heads) + " |\n|---|" + "---:|" * len(heads))
    scores = read_scores(args)
    for instrument in args.instruments:
        bank = NoteBank(args.nsynth_path, instrument)
        if instrument in sides:
            learned_phase.check_phases([], model := models.load_generator(sides[instrument][0]))
            origin = NoteBank(args.nsynth_path, sides[instrument][1])
        for kind, pieces in scores.items():
            cells = []
            for jitter in args.jitter:
                rng = np.random.default_rng(0)
                bar = tqdm(pieces, instrument, leave=False)
                cells.append(
                    [floor(score, bank, jitter / 1000, args.renderings, rng) for score in bar]
                )
            if instrument in sides:
                cells.append(
                    [
                        model_error(model, score, origin, bank)
                        for score in tqdm(pieces, instrument, leave=False)
                    ]
                )
            texts = [
                f"{np.mean(cell):.2f}" + (f" ± {np.std(cell, ddof=1):.2f}" if len(cell) > 1 else "")
                for cell in cells
            ]
            texts += ["–"] * (len(heads) - len(texts))
            print(f"| {instrument}{kind} | " + " | ".join(texts) + " |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
