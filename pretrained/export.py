"""Put a trained run into pretrained/: packed weights, what evaluating needs, and a card.

    python pretrained/export.py --run runs/keyboard_acoustic_2_guitar_acoustic \\
        --notes "..." --pieces "..." --hardware "..."

Afterwards `predict.py --model keyboard_acoustic_2_guitar_acoustic` and `train.py --weights ...`
find it by name. The card's figures are those of the run's config.json, history.csv and, if there is
one, evaluation/results.json.
"""

import csv
import hashlib
import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cli
import devices
import packed_weights
from cli import UserError
from known_models import find_error

ROWS = (  # of results.json
    "identity",
    "median picture",
    "model (phase: input)",
    "model (phase: griffinlim)",
    "true magnitude (phase: input)",
    "true magnitude (phase: griffinlim)",
)
MEASURES = {
    "mae_db": "picture MAE, dB",
    "written_mae_db": "audio MAE, dB",
    "lsd_db": "log-spectral distance, dB",
}
SILENT = {  # flags that change no weight
    "script",
    "gpu",
    "cache",
    "workers",
    "runs_path",
    "name",
    "resume",
    "preview_every",
    "preview_piece",
    "keep_every",
    "choose",
    "tensorboard",
    "fresh",
}
WEAKNESSES = """Known weaknesses:

- It knows the notes that it was trained on, of {origins}, and one sampled {target}. Other
  instruments, and recordings in rooms, lie outside; it still answers with its own {target}.
- What training pieces hardly have, it has hardly learned: the lowest and highest octave, very dense
  or very soft textures.
- Above 11 kHz the output is silent, as with every model of this repository.
"""


def command_line(flags):
    """The training command of config.json's ``flags``, without what changes nothing."""
    parser = importlib.import_module(flags["script"]).build_parser()
    words = ["python", f"{flags['script']}.py"]
    for key, value in flags.items():
        if key in SILENT or value == parser.get_default(key):
            continue
        words.append(f"--{key}")
        words += [str(each) for each in cli.as_list(value)]
    return " ".join(words)


def join_names(names):
    """Instruments' names as a text: all of a few, of many the first and the last."""
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} … {names[-1]} ({len(names)} instruments)"


def make_card(run, config, history, args):
    """Model card, Markdown. Raises KeyError or ValueError if the run's files are incomplete."""
    flags = config["flags"]
    origins = join_names(cli.as_list(flags["origin"]))
    target = cli.as_list(flags["target"])[0]
    error = find_error(history, config)
    baselines = config["baselines_db"]
    pieces = {side: len(names) for side, names in config["split"].items()}
    tiles = flags["epoch_tiles"] or config["tiles"]
    steps = f"{len(history) * tiles / flags['batch_size']:,.0f}"
    if flags.get("minutes"):  # which cut the last epoch short
        steps = f"at most {steps}"
    hours = sum(float(row["seconds"]) for row in history) / 3600
    text = f"""# {origins} → {target}

Width {flags["filters"]}, a byte a weight:
`python predict.py --model {run.name} --input x.wav --output y.wav`

- Notes: {args.notes}
- Pieces: {args.pieces}; {pieces["train"]} for training, {pieces["validation"]} held out (listed in
  config.json)
- Training: {len(history)} epochs of {tiles:,.0f} tiles,
  {steps} steps of {flags["batch_size"]}; {hours:.1f} h on {args.hardware}; {config["policy"]}
{describe_mean(config)}- Command: `{command_line(flags)}`
- To train on: the same with `--weights {run.name}`

Held-out tiles, dB MAE: **{error:.2f}** (identity {baselines["identity"]:.2f}, median
{baselines["median"]:.2f}).

"""
    results = run / "evaluation/results.json"
    if results.is_file():
        text += make_table(json.loads(results.read_text())["rows"])
    if args.measured:
        text += f"{args.measured}\n\n"
    return text + WEAKNESSES.format(origins=origins, target=target.split("_")[0])


def describe_mean(config):
    """The card's line about a mean of epochs, or ""."""
    if "mean" not in config:
        return ""
    return f"- Weights: the mean (`average.py`) of {config['mean']['of']}\n"


def make_table(rows):
    """The card's table of `evaluate.py`'s rows, Markdown."""
    lines = ["Whole held-out pieces, mean ± standard deviation (`evaluate.py`):", ""]
    lines.append("| | " + " | ".join(MEASURES.values()) + " |")
    lines.append("|---|" + "---:|" * len(MEASURES))
    for name in ROWS:
        if name not in rows:
            continue
        texts = [name]
        for measure in MEASURES:
            cell = rows[name].get(measure)
            if cell is None:
                texts.append("–")
            else:
                texts.append(f"{cell['mean']:.2f} ± {cell['spread'] or 0:.2f}")
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n\n"


def read_run(run):
    """config.json and the rows of history.csv. Raises OSError or ValueError."""
    config = json.loads((run / "config.json").read_text())
    with open(run / "history.csv", newline="") as file:
        return config, list(csv.DictReader(file))


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="run folder of train.py")
    add("--notes", required=True, help="where the notes are from, and their licence")
    add("--pieces", required=True, help="where the pieces are from, and their licence")
    add("--hardware", required=True, help="what it was trained on")
    add("--mean", metavar="FILE", help="a generator of average.py, instead of the run's own")
    add("--mean_of", default="epochs of the run", help="what --mean is the mean of, in words")
    add("--mean_error", type=cli.number(float, 0), help="its error on held-out tiles, dB")
    add("--measured", default="", help="what else was measured, Markdown")
    return parser


@cli.command
def main(argv=None):
    """Parse flags, write the folder."""
    args = build_parser().parse_args(argv)
    if args.mean and args.mean_error is None:
        raise UserError("--mean_error: give it, for history.csv does not know that of --mean")
    devices.setup_device("cpu")
    import models

    generator = models.load_generator(args.mean or args.run)
    try:
        config, history = read_run(args.run)
        if args.mean:
            config["mean"] = {"of": args.mean_of, "val_mae_db": args.mean_error}
        several = len(cli.as_list(config["flags"]["target"])) > 1
        text = None if several else make_card(args.run, config, history, args)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{args.run}: is no complete run folder ({error}); give one that train.py made"
        ) from None
    if several:
        raise UserError(f"{args.run}: knows several targets, and a card is of one; give another")
    folder = cli.PRETRAINED / args.run.name
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "generator.weights.h5"
    with tempfile.TemporaryDirectory() as temporary, cli.complete(weights) as part:
        whole = Path(temporary) / "whole.weights.h5"
        models.save_generator(generator, whole)
        packed_weights.pack(whole, part)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  {weights.name}\n")
    for name in ("history.csv", "median.npy"):
        shutil.copy(args.run / name, folder / name)
    cli.write_json(folder / "config.json", config)
    (folder / "README.md").write_text(text)
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(main())
