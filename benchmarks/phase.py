"""One table of phases: every start, as it is and refined by Griffin-Lim, with the true magnitude and with the model's.

    python benchmarks/phase.py --model runs/A --phase_model runs/A_phase --both runs/A_both --audios_path audios

Takes the first --seconds of the pieces that the run held out. Starts: the input's phase, random, flat, what --phase_model
makes of the input's (from the magnitude in question), what --both makes of it. Speed counts all that finding the phase takes,
a network for it included, on all cores. Measures: see metrics.py.
"""

import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import cli
import convert
import data
import devices
import evaluate
import kinds
import learned_phase
import metrics
import phase as phases
import tables
from cli import UserError

SHOWN = (
    "reanalysis_db",
    "convergence",
    "written_mae_db",
    "lsd_db",
    "multi_resolution",
    "pitch_jaccard",
)
COLUMNS = [measure for measure in metrics.MEASURES if measure.key in SHOWN]
SPEED = metrics.Measure("speed", "x real time", 0, None, (), "", more_is_better=True)


def starts(audio, asked, phase_model, both):
    """Yield (name, unit phasors (t, 256), seconds it took) of each start for the picture ``asked`` (t, 256)."""
    spectrum = evaluate.spectrum_of(audio)
    unit, picture = data.phasor(spectrum), convert.spectrum_to_db(spectrum)
    yield "input", unit, 0.0
    for name in ("random", "flat"):
        began = time.perf_counter()
        yield name, phases.ESTIMATORS[name](asked.T, unit.T).T, time.perf_counter() - began
    for name, model, inputs in (
        ("learned apart", phase_model, [picture, asked]),
        ("learned together", both, [picture]),
    ):
        if model:
            began = time.perf_counter()
            learned = convert.convert_picture(
                model, np.stack([channel.T for channel in inputs], -1)
            ).swapaxes(0, 1)
            yield name, learned_phase.turned(unit, learned[..., -2:]), time.perf_counter() - began


def rows(audio, asked, iterations, phase_model, both):
    """Yield (name, audio made (n,), speed in audio seconds a second) for each start and number of iterations."""
    for name, unit, took in starts(audio, asked, phase_model, both):
        for count in iterations:
            began = time.perf_counter()
            estimate = phases.griffinlim if count else phases.keep_input
            made = evaluate.resynthesise(
                data.db_to_amplitude(asked), unit, len(audio), estimate, count
            )
            speed = len(audio) / data.SAMPLE_RATE / (took + time.perf_counter() - began)
            yield name + (f", {count} iterations" if count else ""), made, speed


def measure_piece(piece, args, models):
    """Measure every row of one piece: [(row, measures)], rows of the true magnitude first."""
    samples = int(args.seconds * data.SAMPLE_RATE)
    audio, reference = (sound[:samples] for sound in evaluate.read_piece(piece))
    heard = evaluate.Sound(reference)
    true = convert.spectrum_to_db(evaluate.spectrum_of(reference))
    converted = convert.convert_picture(
        models["model"], convert.spectrum_to_db(evaluate.spectrum_of(audio)).T
    )[..., 0].T
    measured = []
    for kind, asked in (("true magnitude", true), ("model's magnitude", converted)):
        for name, made, speed in rows(
            audio, asked, args.iterations, models["phase_model"], models["both"]
        ):
            frames = asked[: 1 + len(audio) // data.HOP_LENGTH].T
            measured.append(
                (
                    f"{kind}, {name}",
                    evaluate.measure(evaluate.Row(name, made, frames, True), heard)
                    | {"speed": speed},
                )
            )
    return measured


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="run folder or pretrained model of magnitudes")
    add("--phase_model", help="run of train_generator.py --learn phase")
    add("--both", help="run of train.py --learn both")
    add("--audios_path", type=Path, required=True, help="audio folder that the run's pieces lie in")
    add(
        "--iterations",
        type=cli.number(int, 0),
        nargs="+",
        default=[0, 8, 32, 100],
        help="of Griffin-Lim",
    )
    add("--seconds", type=cli.number(float, 1), default=60, help="of each piece")
    add("--limit", type=cli.number(int, 1), help="take the first pieces only")
    add("--gpu", help="as of train.py")
    return parser


@cli.command
def main(argv=None):
    """Parse flags, measure, print the table."""
    args = build_parser().parse_args(argv)
    devices.setup_device(args.gpu)
    from models import load_generator

    model = cli.find_model(args.model)
    run = evaluate.read_run(model)
    if not run:
        raise UserError(f"--model {model}: is no run folder; give one")
    sides = run.origins[0], run.targets[0]
    pieces = evaluate.find_pieces(run, *sides, args.audios_path)[: args.limit]
    paths = {"model": model, "phase_model": args.phase_model, "both": args.both}
    models = {name: load_generator(path) if path else None for name, path in paths.items()}
    learned_phase.check_phases([], models["model"], models["phase_model"])
    if models["both"] and kinds.kind_of(models["both"]) is not kinds.Kind.BOTH:
        raise UserError(
            f"--both {args.both}: gives no phase beside its magnitude; give a run of train.py --learn both"
        )
    results = [
        (piece.name, row, found)
        for piece in tqdm(pieces, unit="piece")
        for row, found in measure_piece(piece, args, models)
    ]
    columns = [*COLUMNS, SPEED]
    print(tables.markdown(*tables.text_table(tables.summarise(results, columns), columns)))


if __name__ == "__main__":
    raise SystemExit(main())
