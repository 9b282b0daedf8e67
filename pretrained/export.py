"""Put a trained run into pretrained/: float16 weights, what evaluating needs, and a model card.

    python pretrained/export.py --run runs/keyboard_acoustic_2_guitar_acoustic --notes "..." --pieces "..." --hardware "..."

Afterwards `predict.py --model keyboard_acoustic_2_guitar_acoustic` and `train.py --weights ...` find it by name. The card's
figures are those of the run's config.json, history.csv and, if there is one, evaluation/results.json.
"""

import csv
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cli
import devices
from cli import UserError
from flags import add_training_flags

PHASES = ("input", "griffinlim")
ROWS = (
    "identity",
    "median picture",
    *(f"{row} (phase: {name})" for row in ("model", "true magnitude") for name in PHASES),
)
MEASURES = {
    "mae_db": "picture MAE, dB",
    "written_mae_db": "audio MAE, dB",
    "lsd_db": "log-spectral distance, dB",
}
SILENT = {
    "script",
    "gpu",
    "cache",
    "workers",
    "runs_path",
    "preview_every",
    "tensorboard",
    "fresh",
}  # change no weight
WEAKNESSES = """- It knows one sampled keyboard and one sampled {target}: those of its notes. Other pianos, and recordings in
  rooms, lie outside; it still answers with its own {target}.
- What training pieces hardly have, it has hardly learned: the lowest and highest octave, very dense or very soft textures.
- Above 11 kHz the output is silent, as with every model of this repository."""


def halve(source, target):
    """Copy an HDF5 weights file, float32 arrays as float16. Half precision keeps 11 bits, 0.05 % of a weight."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                content = item[()]
                content = content.astype(np.float16) if content.dtype == np.float32 else content
                new.create_dataset(name, data=content)
            else:
                new.require_group(name)
            for key, value in item.attrs.items():
                new[name].attrs[key] = value

        old.visititems(copy)
        for key, value in old.attrs.items():  # what kind of network it is
            new.attrs[key] = value


def command_line(flags):
    """The training command that config.json's ``flags`` stand for, without defaults and what does not change the result."""
    parser = cli.Parser("")
    add_training_flags(parser)
    chosen = [
        f"--{key} {value}"
        for key, value in flags.items()
        if key not in SILENT and value != parser.get_default(key)
    ]
    return f"python {flags['script']}.py {' '.join(chosen)}"


def one_pair(flags):
    """Whether the run is of one origin and one target; these are then texts in ``flags``."""
    for side in ("origin", "target"):
        if isinstance(flags[side], list) and len(flags[side]) == 1:
            flags[side] = flags[side][0]
    return isinstance(flags["origin"], str) and isinstance(flags["target"], str)


def card(run, config, history, args):
    """Model card, Markdown."""
    flags, best = config["flags"], min(float(row["val_mae_db"]) for row in history)
    tiles = flags["epoch_tiles"] or config["tiles"]
    hours = sum(float(row["seconds"]) for row in history) / 3600
    lines = [
        f"# {flags['origin']} → {flags['target']}",
        "",
        f"Width {flags['filters']}, float16: `python predict.py --model {run.name} --input x.wav --output y.wav`",
        "",
        f"- Notes: {args.notes}",
        f"- Pieces: {args.pieces}; {len(config['split']['train'])} for training, "
        f"{len(config['split']['validation'])} held out (listed in config.json)",
        f"- Training: {len(history)} epochs of {tiles:,.0f} tiles, {len(history) * tiles / flags['batch_size']:,.0f} steps of "
        f"{flags['batch_size']}; {hours:.1f} h on {args.hardware}; {config['policy']}",
        f"- Command: `{command_line(flags)}`",
        "- To train on: the same with `--weights " + run.name + "`",
        "",
        f"Held-out tiles, dB MAE: **{best:.2f}** (identity {config['baselines_db']['identity']:.2f}, median "
        f"{config['baselines_db']['median']:.2f}).",
    ]
    results = run / "evaluation/results.json"
    if results.is_file():
        rows = json.loads(results.read_text())["rows"]
        lines += ["", "Whole held-out pieces, mean ± standard deviation (`evaluate.py`):", ""]
        lines += ["| | " + " | ".join(MEASURES.values()) + " |", "|---|" + "---:|" * len(MEASURES)]
        for name in (name for name in ROWS if name in rows):
            cells = [rows[name].get(measure) for measure in MEASURES]
            texts = [f"{c['mean']:.2f} ± {c['spread'] or 0:.2f}" if c else "–" for c in cells]
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return (
        "\n".join(
            [
                *lines,
                "",
                "Known weaknesses:",
                "",
                WEAKNESSES.format(target=flags["target"].split("_")[0]),
            ]
        )
        + "\n"
    )


@cli.command
def main(argv=None):
    """Parse flags, write the folder."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder of train.py")
    parser.add_argument(
        "--notes", required=True, help="where the notes are from, and their licence"
    )
    parser.add_argument(
        "--pieces", required=True, help="where the pieces are from, and their licence"
    )
    parser.add_argument("--hardware", required=True, help="what it was trained on")
    args = parser.parse_args(argv)
    devices.setup_device("cpu")
    import models

    generator = models.load_generator(args.run)
    try:
        config = json.loads((args.run / "config.json").read_text())
        with open(args.run / "history.csv", newline="") as file:
            history = list(csv.DictReader(file))
        if not one_pair(config["flags"]):
            raise UserError(
                f"{args.run}: knows several instruments, and a card is of one pair; give such a run"
            )
        text = card(args.run, config, history, args)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{args.run}: is no complete run folder ({error}); give one that train.py made"
        ) from None
    folder = cli.PRETRAINED / args.run.name
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "generator.weights.h5"
    with tempfile.TemporaryDirectory() as temporary, cli.complete(weights) as part:
        whole = Path(temporary) / "whole.weights.h5"
        models.save_generator(generator, whole)
        halve(whole, part)
    (folder / "SHA256SUMS").write_text(
        f"{hashlib.sha256(weights.read_bytes()).hexdigest()}  {weights.name}\n"
    )
    for name in ("config.json", "history.csv", "median.npy"):
        shutil.copy(args.run / name, folder / name)
    (folder / "README.md").write_text(text)
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(main())
