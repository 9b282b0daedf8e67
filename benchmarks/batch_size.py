"""Compare batch sizes at an equal number of tiles: short runs of train.py, three seeds each.

    python benchmarks/batch_size.py --features features

Every run uses the same number of tiles and the same rates, so a smaller batch takes more steps. The
seed determines the split, the weights and the order of the tiles, so runs of one seed are compared
in pairs. Prints the validation error after the last epoch, mean ± standard deviation over seeds,
and its paired difference from the first size. Existing runs are not repeated.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
from short_runs import ERROR, add_flags, print_tables
from short_runs import train as train_run


def train(args, batch, seed):
    """Return the history of one run, a list of dicts of text per epoch; trains it if missing.

    Raises:
        UserError: train.py failed.
    """
    flags = ["--batch_size", batch, "--gen_lr", args.gen_lr, "--disc_lr", args.disc_lr]
    return train_run(args, "train.py", f"batch_{batch}_seed_{seed}", seed, flags)


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    sizes = [1, 2, 4, 8]
    whole = cli.number(int, 1)
    parser.add_argument(
        "--batch_size", type=whole, nargs="+", default=sizes, help="sizes to compare"
    )
    add_flags(parser, "runs/batch_size")
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
    print_tables(results, pairs, [ERROR])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
