"""Compare batch sizes at an equal number of tiles: short runs of train.py, three seeds each.

    python benchmarks/batch_size.py --features features

Every run uses the same number of tiles and the same rates, so a smaller batch takes more steps. The
seed determines the split, the weights and the order of the tiles, so runs of one seed are compared
in pairs. Prints the validation error after the last epoch, mean ± standard deviation over seeds,
and its paired difference from the first size. Existing runs are not repeated.
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


def train(args, batch, seed):
    """Return the history of one run, a list of dicts of text per epoch; trains it if missing.

    Raises:
        UserError: train.py failed.
    """
    folder = args.runs_path / f"batch_{batch}_seed_{seed}"
    history = folder / "history.csv"
    if not history.exists() or len(read_history(history)) < EPOCHS:
        tiles = args.tiles // EPOCHS
        command = [sys.executable, ROOT / "train.py", "--dataset_path", args.features]
        command += ["--origin", args.origin, "--target", args.target, "--name", folder.name]
        command += ["--runs_path", args.runs_path, "--filters", args.filters, "--seed", seed]
        command += ["--batch_size", batch, "--epoch_tiles", tiles, "--epochs", EPOCHS]
        command += ["--decay_epochs", EPOCHS // 2, "--gen_lr", args.gen_lr]
        command += ["--disc_lr", args.disc_lr, "--preview_every", 0, "--workers", 1]
        if subprocess.run([str(word) for word in command], check=False).returncode:
            raise UserError(f"{folder}: train.py failed; see above")
    return read_history(history)


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    whole = cli.number(int, 1)
    add("--features", type=Path, required=True, help="features folder")
    add("--origin", default="keyboard_acoustic", help="instrument to convert from")
    add("--target", default="guitar_acoustic", help="instrument to convert to")
    add("--batch_size", type=whole, nargs="+", default=[1, 2, 4, 8], help="sizes to compare")
    add("--seeds", type=whole, default=3, help="runs of each size")
    add("--tiles", type=whole, default=2000, help="tiles that each run sees")
    add("--filters", type=whole, default=8, help="width of the networks")
    add("--gen_lr", type=float, default=1e-3, help="as of train.py")
    add("--disc_lr", type=float, default=1e-4, help="as of train.py")
    add("--runs_path", type=Path, default=Path("runs/batch_size"), help="where the runs go")
    return parser


@cli.command
def main(argv=None):
    """Train the missing runs, print the table."""
    args = build_parser().parse_args(argv)
    results = []
    for seed in range(args.seeds):
        for batch in args.batch_size:
            error = float(train(args, batch, seed)[-1][ERROR.key])
            results.append((f"seed {seed}", f"batch {batch}", {ERROR.key: error}))
    first = f"batch {args.batch_size[0]}"
    pairs = [(f"batch {batch}", first) for batch in args.batch_size[1:]]
    print(f"width {args.filters}, {args.tiles} tiles, rates {args.gen_lr:g} and {args.disc_lr:g}")
    print(tables.markdown(*tables.text_table(tables.summarise(results, [ERROR]), [ERROR])))
    differences = tables.compare(results, pairs, [ERROR])
    print(f"\n{tables.markdown(*tables.text_table(differences, [ERROR]))}")
    spent = os.times()
    minutes = (spent.children_user + spent.children_system) / 60
    print(f"\n{minutes:.1f} minutes of processor time")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
