"""Compare the terms of the loss at an equal number of tiles: short runs, three seeds each.

    python benchmarks/loss_terms.py --features features --nsynth_path notes

The losses are L1 alone, L1 with frame differences (--delta_weight 2), and L1 with the discriminator
(λ = 100). Prints the validation error after the last epoch, and the rise of 49 single notes of the
origin after conversion (measuring/signals.py). Both are mean ± standard deviation over seeds, with
paired differences from L1 alone. The input's and the target's own rise stand below. Existing runs
are not repeated.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
from short_runs import ERROR, add_flags, print_tables, train

import data
from common import devices
from conversion import convert, model_files
from measuring import metrics, signals
from NoteSynthesizer import NoteBank, render

BATCH = 4
RISE = metrics.Measure("rise_ms", "rise, ms", 1, None, (), "")
SLOW = metrics.Measure("slow_ms", "90 %, ms", 1, None, (), "")
GAPS = metrics.Measure("gaps_db", "gaps, dB", 1, None, (), "")
ALONE = "L1 alone"
LOSSES = {  # {row: (name of the run, script, its flags)}
    ALONE: ("l1", "train_generator.py", []),
    "L1 and frame differences": ("delta", "train_generator.py", ["--delta_weight", 2]),
    "L1 and discriminator": ("discriminator", "train.py", []),
}


def train_loss(args, row, seed):
    """Train one run if it is missing: (its folder, its history)."""
    name, script, flags = LOSSES[row]
    flags = [*flags, "--batch_size", BATCH, "--choose", "last"]
    if script == "train.py":
        flags += ["--gen_lr", args.gen_lr, "--disc_lr", args.disc_lr]
    else:
        flags += ["--lr", args.gen_lr]
    folder = args.runs_path / f"{name}_seed_{seed}"
    return folder, train(args, script, folder.name, seed, flags)


def play_notes(notes, instrument):
    """Render the 49 notes of `signals.make_test_notes`: float32 (n,) at 44.1 kHz."""
    bank = NoteBank(notes, instrument)
    blocks = [block.copy() for block in render(signals.make_test_notes(), bank, bank.gain)]
    return np.concatenate(blocks)


def measure_notes(audio):
    """Measure attacks and gaps of the 49 notes: {key: value}."""
    rises = signals.measure_attacks(audio)
    gaps = signals.measure_gaps(audio)
    return {
        RISE.key: float(np.median(rises)),
        SLOW.key: float(np.percentile(rises, 90)),
        GAPS.key: float(np.median(gaps)),
    }


def convert_notes(folder, audio, quality):
    """Convert ``audio`` with a run's generator: float32 (n,)."""
    model = model_files.load_generator(folder, "auto")
    options = convert.QUALITIES[quality]
    return convert.convert_audio(model, audio, data.SAMPLE_RATE, options)


@cli.command
def main(argv=None):
    """Train the missing runs, convert the notes, print the tables."""
    parser = cli.Parser(__doc__)
    add_flags(parser, "runs/loss_terms")
    add = parser.add_argument
    add("--nsynth_path", type=Path, required=True, help="folder of single notes, for the attacks")
    add("--quality", choices=convert.QUALITIES, default="normal", help="as of predict.py")
    args = parser.parse_args(argv)
    source, target = (play_notes(args.nsynth_path, name) for name in (args.origin, args.target))
    devices.setup_device("cpu")
    results = []
    for seed in range(args.seeds):
        for row in LOSSES:
            folder, history = train_loss(args, row, seed)
            found = {ERROR.key: float(history[-1][ERROR.key])}
            found |= measure_notes(convert_notes(folder, source, args.quality))
            results.append((f"seed {seed}", row, found))
    pairs = [(row, ALONE) for row in LOSSES if row != ALONE]
    print(f"width {args.filters}, {args.tiles} tiles, batch {BATCH}, rate {args.gen_lr:g}")
    print_tables(results, pairs, [ERROR, RISE, SLOW, GAPS])
    for name, audio in (("input", source), ("target", target)):
        found = measure_notes(audio)
        print(f"{name}: " + ", ".join(f"{key} {value:.1f}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
