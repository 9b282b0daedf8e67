"""Short trainings of one pair that all see the same number of tiles, for the benchmarks.

Finished runs are not repeated. The seed determines the split, the weights and the order of the
tiles, so runs of one seed are compared in pairs.
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import cli
from common.cli import UserError
from common.run_facts import read_history
from measuring import metrics, tables

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 4  # the rates fall to 0 over the second half
ERROR = metrics.Measure("val_mae_db", "held-out MAE, dB", 2, None, (), "")


def add_flags(parser, runs_path):
    """Add the flags of all short runs; ``runs_path`` is the default folder of the runs."""
    add = parser.add_argument
    whole = cli.number(int, 1)
    add("--features", type=Path, required=True, help="features folder")
    add("--origin", default="keyboard_acoustic", help="instrument to convert from")
    add("--target", default="guitar_acoustic", help="instrument to convert to")
    add("--seeds", type=whole, default=3, help="runs of each kind")
    add("--tiles", type=whole, default=2000, help="tiles that each run sees")
    add("--filters", type=whole, default=8, help="width of the networks")
    add("--gen_lr", type=float, default=1e-3, help="learning rate of the generator")
    add("--disc_lr", type=float, default=1e-4, help="learning rate of the discriminator")
    add("--runs_path", type=Path, default=Path(runs_path), help="where the runs go")


def train(args, script, name, seed, flags):
    """Train a run if it is missing.

    Args:
        args: the flags of `add_flags`.
        script: "train.py" or "train_generator.py".
        name: of the run's folder.
        seed: of split, weights and order.
        flags: other flags of the script, a list.

    Returns:
        The run's history, a list of dicts of text per epoch.

    Raises:
        UserError: the script failed.
    """
    folder = args.runs_path / name
    history = folder / "history.csv"
    if not history.exists() or len(read_history(history)) < EPOCHS:
        command = [sys.executable, ROOT / script, "--dataset_path", args.features]
        command += ["--origin", args.origin, "--target", args.target, "--name", name]
        command += ["--runs_path", args.runs_path, "--filters", args.filters, "--seed", seed]
        command += ["--epoch_tiles", args.tiles // EPOCHS, "--epochs", EPOCHS]
        command += ["--decay_epochs", EPOCHS // 2, "--preview_every", 0, "--workers", 1, *flags]
        if subprocess.run([str(word) for word in command], check=False).returncode:
            raise UserError(f"{folder}: {script} failed; see above")
    return read_history(history)


def print_tables(results, pairs, columns):
    """Print the mean ± standard deviation over seeds, and the paired differences.

    Args:
        results: list of (seed, row, {key: value}).
        pairs: list of (row, other row) to compare.
        columns: list of `metrics.Measure`.
    """
    print(tables.markdown(*tables.text_table(tables.summarise(results, columns), columns)))
    differences = tables.compare(results, pairs, columns)
    print(f"\n{tables.markdown(*tables.text_table(differences, columns))}")
    spent = os.times()
    minutes = (spent.children_user + spent.children_system) / 60
    print(f"\n{minutes:.1f} minutes of processor time")
