"""Compare phase estimators in one table: each start, unchanged and refined by Griffin-Lim.

    python benchmarks/phase.py --model runs/A --audios_path audios \\
        --phase_model runs/A_phase --both runs/A_both

Each estimator is measured with the true magnitude and with the model's. A second table compares it
with the input's phase, piece by piece. The pieces are the run's held-out pieces, the first
--seconds of each. The starts are the input's phase, random phases, phase zero, and the phases
predicted by --phase_model and --both. The anchored estimator has rows of its own. Measures: see
measuring/metrics.py.

Speed is seconds of audio per second, over all pieces, on all cores. It covers the phase, with its
network if it has one, and the inverse STFT. A short warm-up is not counted: it compiles the
networks and sets up threads and transforms.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
from measure import time_call
from tqdm import tqdm

import data
from common import devices, kinds
from common.cli import UserError
from conversion import convert, known_models
from measuring import metrics, tables
from measuring.pieces import find_pieces, read_piece, read_run
from measuring.rows import MeasuredSound, Row, compute_spectrum, measure, resynthesise
from research import learned_phase
from sound import phase as phases

SHOWN = (
    "reanalysis_db",
    "convergence",
    "written_mae_db",
    "lsd_db",
    "multi_resolution",
)
COLUMNS = [measure for measure in metrics.MEASURES if measure.key in SHOWN]
WARM_UP = 3.0  # s of audio
MAGNITUDES = ("true magnitude", "model's magnitude")


class Networks(NamedTuple):
    """The models in use; ``phase_model`` and ``both`` may be None."""

    model: object
    phase_model: object
    both: object


def make_starts(audio, asked, networks):
    """Yield each start for the picture ``asked`` (t, 256): (name, phasors (t, 256), seconds)."""
    spectrum = compute_spectrum(audio)
    unit = data.phasor(spectrum)
    picture = convert.spectrum_to_db(spectrum)
    yield "input", unit, 0.0
    for name in ("random", "flat"):
        start, took = time_call(phases.ESTIMATORS[name], asked.T, unit.T)
        yield name, start.T, took
    learned = (
        ("learned apart", networks.phase_model, np.stack([picture, asked], axis=-1)),
        ("learned together", networks.both, picture),
    )
    for name, network, inputs in learned:
        if network:
            start, took = time_call(turn_by_network, network, inputs, unit)
            yield name, start, took


def turn_by_network(network, inputs, unit):
    """Turn phasors (t, 256) by the angles a network predicts from (t, 256) or (t, 256, 2)."""
    outputs = convert.convert_picture(network, inputs.swapaxes(0, 1)).swapaxes(0, 1)
    return learned_phase.turn(unit, outputs[..., -2:])


def make_rows(audio, asked, iterations, networks):
    """Yield (name, audio (n,), seconds) for each start and number of iterations.

    The rows "anchored" are `phase.griffinlim_anchored`, which starts from the input's phase.
    """
    mag = data.db_to_amplitude(asked)
    spectrum = compute_spectrum(audio)
    for count in filter(None, iterations):
        making = mag, spectrum, len(audio), phases.griffinlim_anchored, count
        made, took = time_call(resynthesise, *making)
        yield f"anchored, {count} iterations", made, took
    for name, unit, starting in make_starts(audio, asked, networks):
        for count in iterations:
            estimate = phases.griffinlim if count else phases.keep_input
            making = mag, unit, len(audio), estimate, count
            made, took = time_call(resynthesise, *making)
            row = f"{name}, {count} iterations" if count else name
            yield row, made, starting + took


def measure_piece(audio, reference, iterations, networks):
    """Measure every row of one piece, the true magnitude's rows first.

    Returns:
        list of (row, measures, seconds).
    """
    target = MeasuredSound(reference)
    true = convert.spectrum_to_db(compute_spectrum(reference))
    picture = convert.spectrum_to_db(compute_spectrum(audio))
    converted = convert.convert_picture(networks.model, picture.T)[..., 0].T
    frames = 1 + len(audio) // data.HOP_LENGTH
    measured = []
    for magnitude, asked in zip(MAGNITUDES, (true, converted)):
        for name, made, took in make_rows(audio, asked, iterations, networks):
            row = Row(f"{magnitude}, {name}", made, asked[:frames].T, True)
            measured.append((row.name, measure(row, target), took))
    return measured


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="run folder or pretrained model of magnitudes")
    add("--phase_model", help="run of train_generator.py --learn phase")
    add("--both", help="run of train.py --learn both")
    add("--audios_path", type=Path, required=True, help="audio folder with the run's pieces")
    add(
        "--iterations",
        type=cli.number(int, 0),
        nargs="+",
        default=[0, 8, 32, 100],
        help="iterations of Griffin-Lim; must include 0, the unchanged start, for comparison",
    )
    add("--seconds", type=cli.number(float, 1), default=60, help="length of each piece, s")
    add("--limit", type=cli.number(int, 1), help="measure the first n pieces only")
    add("--gpu", help="GPU number, or cpu; default: GPU 0 if there is one")
    return parser


def load_networks(args):
    """Load the `Networks` that the flags name. Raises UserError."""
    devices.setup_device(args.gpu)
    from conversion.model_files import load_generator

    paths = (args.model, args.phase_model, args.both)
    networks = Networks(*(load_generator(path) if path else None for path in paths))
    learned_phase.check_phases([], networks.model, networks.phase_model)
    if networks.both and kinds.kind_of(networks.both) is not learned_phase.BOTH:
        raise UserError(
            f"--both {args.both}: does not predict magnitude and phase; give a run of "
            "train.py --learn both"
        )
    return networks


def choose_pieces(args):
    """Find the pieces to measure. Raises UserError."""
    run = read_run(args.model)
    if not run:
        raise UserError(f"--model {args.model}: is not a run folder; give a run folder")
    pieces = find_pieces([run], run.origins[0], run.targets[0], args.audios_path)
    return pieces[: args.limit]


def list_comparisons(rows):
    """Pair each row with the row of the same magnitude and the input's phase."""
    comparisons = []
    for magnitude in MAGNITUDES:
        first = f"{magnitude}, input"
        comparisons += [(row, first) for row in rows if row.startswith(magnitude) and row != first]
    return comparisons


@cli.command
def main(argv=None):
    """Parse flags, measure, print the tables."""
    args = build_parser().parse_args(argv)
    if 0 not in args.iterations:
        given = " ".join(map(str, args.iterations))
        raise UserError(f"--iterations {given}: lacks 0, the start for comparison; add 0")
    args.model = known_models.find_model(args.model, "--model")
    pieces = choose_pieces(args)
    networks = load_networks(args)
    results, took, seconds = [], {}, 0.0
    for number, piece in enumerate(tqdm(pieces, unit="piece")):
        audio, reference = read_piece(piece)
        if number == 0:
            short = int(WARM_UP * data.SAMPLE_RATE)
            measure_piece(audio[:short], reference[:short], args.iterations, networks)
        samples = int(args.seconds * data.SAMPLE_RATE)
        audio, reference = audio[:samples], reference[:samples]
        seconds += len(audio) / data.SAMPLE_RATE
        for row, found, spent in measure_piece(audio, reference, args.iterations, networks):
            results.append((piece.name, row, found))
            took[row] = took.get(row, 0.0) + spent
    header, rows = tables.text_table(tables.summarise(results, COLUMNS), COLUMNS)
    rows = [[*row, f"{seconds / took[row[0]]:,.0f}"] for row in rows]
    print(tables.markdown([*header, "× real time"], rows))
    differences = tables.compare(results, list_comparisons(took), COLUMNS)
    print("\nPaired differences, piece by piece:\n")
    print(tables.markdown(*tables.text_table(differences, COLUMNS)))


if __name__ == "__main__":
    raise SystemExit(main())
