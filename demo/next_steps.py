"""Print the result of `make demo` and the next commands. The last step of `make demo`.

python demo/next_steps.py --run runs/demo/keyboard_acoustic_2_guitar_acoustic --page runs/demo/page
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
from common.files import MEND, read_json

NEXT = """
listen             {page}/index.html
your own piano     python predict.py --input song.m4a --model {run}
train longer       python train.py --dataset_path {features} --runs_path {runs} \\
                       --origin keyboard_acoustic --target guitar_acoustic \\
                       --filters {filters} --batch_size {batch_size} --seed {seed} \\
                       --validation_split {validation_split:g} --gen_lr {gen_lr:g} \\
                       --disc_lr {disc_lr:g} --cache --minutes 30
larger models      python predict.py --list
(first: . .venv/bin/activate)
"""

FLAGS = (  # copied from the run
    "filters",
    "batch_size",
    "validation_split",
    "seed",
    "gen_lr",
    "disc_lr",
)


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder with an evaluation")
    parser.add_argument("--page", type=Path, required=True, help="folder of the listening page")
    return parser


@cli.command
def main(argv=None):
    """Read the evaluation, print."""
    args = build_parser().parse_args(argv)
    path = args.run / "evaluation" / "results.json"
    results = read_json(path, "run evaluate.py again", rows=dict)
    if results is None:
        raise cli.UserError(f"{path}: not found; run evaluate.py first")
    rows = results["rows"]
    ours = rows["model (phase: input)"]["mae_db"]["mean"]
    unchanged = rows["identity"]["mae_db"]["mean"]
    print(
        f"held-out MAE {ours:.2f} dB, {1 - ours / unchanged:.0%} below the unchanged "
        f"input ({unchanged:.2f} dB)"
    )
    path = args.run / "config.json"
    config = read_json(path, MEND, flags=dict)
    if config is None:
        raise cli.UserError(f"{path}: not found; restore it from a copy, or give another --run")
    runs = args.run.parent
    places = {"page": args.page, "run": args.run, "features": runs / "features", "runs": runs}
    print(NEXT.format(**places, **{flag: config["flags"][flag] for flag in FLAGS}))


if __name__ == "__main__":
    raise SystemExit(main())
