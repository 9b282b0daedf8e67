"""Add a trained run to pretrained/: packed weights, the files for evaluation, and a model card.

    python pretrained/export.py --run runs/keyboard_acoustic_2_guitar_acoustic \\
        --notes "..." --pieces "..." --hardware "..."

Afterwards `predict.py --model keyboard_acoustic_2_guitar_acoustic` and `train.py --weights ...`
find the model by name. The card's figures come from the run's config.json, history.csv and, if it
exists, evaluation/results.json.
"""

import hashlib
import importlib
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import data
from common import devices
from common.cli import UserError
from common.files import complete, read_json, undamaged, write_json
from common.names import family_of
from common.run_facts import find_error, read_history
from conversion import known_models, packed_weights
from report import listening
from training.flags import EARLIER

ROWS = (  # shown, of results.json
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
    "tensorboard",
    "fresh",
}
WEAKNESSES = """Known weaknesses:

- It was trained on {origins}. Other inputs are outside its training set.
- It has one target, the notes of one sampled {target}. It gives that {target} for every input.
{rooms}\
- The lowest and highest octave, and very dense or very soft passages, are rare in its training set.
  Errors are larger there.
- Above {edge:.0f} kHz the output is silent.
"""
TRAINERS = ("train", "train_generator")
MANY = 24  # largest number of origins that are named one by one
ROOMS = "- Its training set has no rooms. Expect more errors on recordings made in a room.\n"
REMEDY = "give a run that train.py made"


def command_line(flags):
    """Write the training command for config.json's ``flags``; it runs as typed.

    It leaves out flags that do not change the weights, and initial weights outside the repository.
    Raises ValueError if they name a script that does not train.
    """
    flags = {**flags}
    if not is_shipped(flags.get("weights")):
        flags.pop("weights", None)
    flags.setdefault("choose", EARLIER["choose"])  # runs older than the flag
    if flags["script"] not in TRAINERS:
        raise ValueError
    parser = importlib.import_module(flags["script"]).build_parser()
    words = ["python", f"{flags['script']}.py"]
    for key, value in flags.items():
        if key in SILENT or value == parser.get_default(key):
            continue
        if key == "origin" and len(cli.as_list(value)) > MANY:  # as make_data.py makes them
            value = "all"
        words.append(f"--{key}")
        words += [str(each) for each in cli.as_list(value)]
    return shlex.join(words)


def is_shipped(weights):
    """Whether --weights names a model of this repository."""
    return bool(weights) and (known_models.PRETRAINED / weights).is_dir()


def join_names(names):
    """Format names of instruments: all names up to three, otherwise the first and the last.

    More than `MANY` names become ``"118 instruments of 18 families"``.
    """
    if len(names) <= 3:
        return ", ".join(names)
    if len(names) > MANY:
        return f"{len(names)} instruments of {len(set(map(family_of, names)))} families"
    return f"{names[0]} … {names[-1]} ({len(names)} instruments)"


def make_card(run, config, history, args):
    """Write the model card, Markdown.

    Args:
        run: the run's folder.
        config, history: from `read_run`.
        args: flags.

    Raises:
        UserError: the run's files are damaged.
    """
    results = read_json(run / "evaluation/results.json", "run evaluate.py again", rows=dict)
    with undamaged(run / "config.json", REMEDY):
        text = describe_run(run, config, history, args)
        if results:
            text += make_table(results["rows"])
        if args.measured:
            text += f"{args.measured}\n\n"
        return text + describe_weaknesses(config["flags"], config.get("bins", data.BINS))


def describe_run(run, config, history, args):
    """Write the card's first part: the model, its training and its error."""
    flags = config["flags"]
    origins = join_names(cli.as_list(flags["origin"]))
    target = cli.as_list(flags["target"])[0]
    error = find_error(history, config)
    baselines = config["baselines_db"]
    pieces = {side: len(names) for side, names in config["split"].items()}
    held_out = "the one held-out piece"
    if pieces["validation"] != 1:
        held_out = f"the {pieces['validation']} held-out pieces"
    tiles = flags["epoch_tiles"] or config["tiles"]
    steps = f"{len(history) * tiles / flags['batch_size']:,.0f}"
    if flags.get("minutes"):  # the time limit may end the last epoch early
        steps = f"at most {steps}"
    hours = sum(float(row["seconds"]) for row in history) / 3600
    return f"""# {origins} → {target}

Width {flags["filters"]}, a byte a weight:
`python predict.py --model {run.name} --input x.wav --output y.wav`

- Notes: {args.notes}
- Pieces: {args.pieces}; {pieces["train"]} for training, {pieces["validation"]} held out (listed in
  config.json)
- Training: {len(history)} epochs of {tiles:,.0f} tiles,
  {steps} steps of {flags["batch_size"]}; {hours:.1f} h on {args.hardware}; {config["policy"]}
- Settings: {describe_settings(flags)}
{describe_start(flags)}{describe_pull(config)}- Command: `{command_line(flags)}`
- To train on: add `--weights {run.name}`

Tiles of {held_out}, dB MAE: **{error:.2f}** (identity {baselines["identity"]:.2f}, median
{baselines["median"]:.2f}).

"""


def describe_settings(flags):
    """Describe losses, dropout and learning rates of the training."""
    dropout = f"dropout {flags.get('dropout', 0.5):g}"
    delta = f"`--delta_weight {flags['delta_weight']:g}`" if flags.get("delta_weight") else ""
    if flags["script"] == "train_generator":
        loss = f"L1 and frame differences ({delta}), no discriminator" if delta else "L1 alone"
        return f"{loss}, {dropout}, learning rate {flags.get('lr', 5e-4):g}"
    if delta:
        dropout = f"{delta}, {dropout}"
    rates = f"{flags.get('gen_lr', 5e-4):g} and {flags.get('disc_lr', 5e-5):g}"
    text = (
        f"L1 and discriminator, λ = {flags.get('l1_weight', 100):g}, {dropout}, "
        f"learning rates {rates} (generator, discriminator)"
    )
    if flags.get("ema"):
        text += f"; moving average of the weights {flags['ema']:g}"
    return text


def describe_start(flags):
    """Write the card's line about initial weights outside the repository, or ""."""
    weights = flags.get("weights")
    if not weights or is_shipped(weights):
        return ""
    return f"- First weights: {weights}; not in this repository, so not in the command\n"


def describe_pull(config):
    """Write the card's line about the model's own pull, or ""."""
    if "pull" not in config:
        return ""
    pull = f"{config['pull']:g}"
    return f"- Phase: anchored with a pull of {pull} ([why](../../docs/phase.md#an-anchor))\n"


def describe_weaknesses(flags, bins):
    """Write the card's last part: known weaknesses."""
    origins = cli.as_list(flags["origin"])
    known = join_names(origins)
    if len(origins) <= MANY:
        known = join_names([listening.plain_instrument(name) for name in origins])
    if all(name.startswith("keyboard_acoustic") for name in origins):
        known = "pianos"
    target = listening.plain_instrument(cli.as_list(flags["target"])[0])
    target = target.replace("strings", "string section")  # "one sampled strings"
    rooms = "" if flags.get("conditions") else ROOMS
    edge = data.band_edge(bins) / 1000  # kHz
    return WEAKNESSES.format(origins=known, target=target, rooms=rooms, edge=edge)


def make_table(rows):
    """Write the card's table of `evaluate.py`'s rows, Markdown."""
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
    """Read config.json and the rows of history.csv. Raises UserError."""
    config = read_json(run / "config.json", REMEDY, flags=dict, split=dict, baselines_db=dict)
    history = read_history(run / "history.csv")
    if config is None or not history:
        raise UserError(
            f"{run}: is not a complete run folder (config.json or history.csv is missing); {REMEDY}"
        )
    if len(cli.as_list(config["flags"].get("target"))) > 1:
        raise UserError(f"{run}: has several targets; give a run with one target")
    return config, history


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="run folder of train.py")
    add("--notes", required=True, help="source and licence of the notes")
    add("--pieces", required=True, help="source and licence of the pieces")
    add("--hardware", required=True, help="hardware of the training")
    add(
        "--pull",
        type=cli.number(float, 0, 10),
        help="pull of the anchored phase for this model; default: the usual pull",
    )
    add("--measured", default="", help="further measurements for the card, Markdown")
    return parser


@cli.command
def main(argv=None):
    """Parse flags, write the folder."""
    args = build_parser().parse_args(argv)
    config, history = read_run(args.run)
    if args.pull is not None:
        config["pull"] = args.pull
    make_card(args.run, config, history, args)  # reports a damaged run before Keras loads
    devices.setup_device("cpu")
    from conversion import model_files

    generator = model_files.load_generator(args.run)
    config["bins"] = generator.bins
    card = make_card(args.run, config, history, args)
    folder = known_models.PRETRAINED / args.run.name
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "generator.weights.h5"
    with tempfile.TemporaryDirectory() as temporary, complete(weights) as part:
        whole = Path(temporary) / "whole.weights.h5"
        model_files.save_generator(generator, whole)
        packed_weights.pack(whole, part)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  {weights.name}\n", encoding="utf-8")
    for name in ("history.csv", "median.npy"):
        shutil.copy(args.run / name, folder / name)
    write_json(folder / "config.json", config)
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(main())
