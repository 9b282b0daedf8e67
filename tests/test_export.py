"""pretrained/export.py: packed weights found by name, and a card with the run's figures."""

import importlib
import json
import re
import shlex
import shutil

import h5py
import keras
import numpy as np
import pytest
from conftest import ORIGIN, ROOT, TARGET
from scripts import load_script

import models
from common import cli
from common.kinds import ENTRY, PLAIN
from common.run_facts import RunFacts
from conversion import known_models, model_files

CARDS = sorted((ROOT / "pretrained").glob("*/README.md"))
ABOUT = ("--notes", "NSynth, CC BY 4.0", "--pieces", "mine", "--hardware", "an abacus")
FLAGS = {
    "script": "train",
    "origin": "a",
    "target": "guitar_acoustic",
    "filters": 2,
    "gen_lr": 0.001,
    "gpu": "cpu",
    "epoch_tiles": 600,
    "batch_size": 4,
    "weights": "an earlier model",
}


@pytest.fixture
def export(tmp_path, monkeypatch):
    """The script as a module, which writes below tmp_path/pretrained."""
    monkeypatch.setattr(known_models, "PRETRAINED", tmp_path / "pretrained")
    return load_script("pretrained/export.py", monkeypatch)


@pytest.fixture
def run(tmp_path):
    """A run folder of a small generator."""
    run = tmp_path / "runs/a_2_guitar_acoustic"
    (run / "evaluation").mkdir(parents=True)
    keras.utils.set_random_seed(0)
    model_files.save_generator(models.build_generator(2), run / "generator.keras")
    config = {
        "flags": FLAGS,
        "policy": "float32",
        "baselines_db": {"identity": 6, "median": 7},
        "split": {"train": ["x", "y"], "validation": ["z"]},
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "history.csv").write_text("epoch,seconds,tiles_per_s,val_mae_db\n1,9,2,3.21\n2,9,2,4\n")
    np.save(run / "median.npy", np.zeros(256))
    cell = {"mean": 1.234, "spread": None, "n": 1}
    results = {"rows": {"model (phase: input)": {"mae_db": cell}}}
    (run / "evaluation/results.json").write_text(json.dumps(results))
    return run


def test_export(tmp_path, export, run):
    assert export.main(["--run", str(run), *ABOUT]) == 0
    folder = tmp_path / "pretrained/a_2_guitar_acoustic"
    card = (folder / "README.md").read_text(encoding="utf-8")
    command = (
        "`python train.py --origin a --target guitar_acoustic --filters 2 --gen_lr 0.001 "
        "--epoch_tiles 600 --batch_size 4 --choose best`"
    )
    figures = (
        "300 steps of 4",
        "Tiles of the one held-out piece, dB MAE: **3.21** (identity 6.00",
        "Width 2, a byte a weight:",
        "- It was trained on a. Other",
        "the notes of one sampled guitar.",
        "training set has no rooms",
        "- First weights: an earlier model; not in",
        "- Settings: L1 and discriminator, λ = 100, dropout 0.5, learning rates 0.001 and 5e-05",
        "| model (phase: input) | 1.23 ± 0.00",
    )
    for text in ("NSynth, CC BY 4.0", "an abacus", command, *figures):
        assert text in card

    whole = model_files.load_generator(run)
    packed = model_files.load_generator("a_2_guitar_acoustic")
    assert packed.kind is PLAIN
    with h5py.File(folder / "generator.weights.h5") as file:
        entry = {"kind": "magnitude", "bins": 256}
        assert json.loads(file.attrs[ENTRY]) == entry
    assert all(weight.dtype == "float32" for weight in packed.weights)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 256, 256, 1)).astype(np.float32)
    difference = np.abs(packed.predict_on_batch(x) - whole.predict_on_batch(x))
    assert 0 < difference.max() < 1e-2
    size = (folder / "generator.weights.h5").stat().st_size
    assert size < 0.7 * (run / "generator.keras").stat().st_size


@pytest.mark.parametrize(
    ("flags", "choose"),
    [
        ({"script": "train"}, "best"),  # older than the flag
        ({"script": "train", "choose": "best"}, "best"),
        ({"script": "train", "choose": "last"}, "last"),
        ({"script": "train_generator"}, "best"),
        ({"script": "train_generator", "choose": "last"}, "last"),
    ],
)
def test_a_cards_command_chooses_the_same_epoch(export, flags, choose):
    command = export.command_line({"dataset_path": "x", "origin": "a", "target": "b", **flags})
    words = shlex.split(command)
    parser = importlib.import_module(flags["script"]).build_parser()
    assert words[:2] == ["python", f"{flags['script']}.py"]
    assert parser.parse_args(words[2:]).choose == choose


def test_a_pull_of_its_own_goes_with_the_model(tmp_path, export, run):
    assert export.main(["--run", str(run), *ABOUT, "--pull", "0.03"]) == 0
    folder = tmp_path / "pretrained/a_2_guitar_acoustic"
    assert RunFacts(folder).pull == RunFacts(folder / "config.json").pull == 0.03
    assert RunFacts(run).pull is None
    assert "anchored with a pull of 0.03" in (folder / "README.md").read_text(encoding="utf-8")


def test_weaknesses_are_those_of_the_run(export):
    pianos = ["keyboard_acoustic", "keyboard_acoustic_012"]
    flags = {"origin": pianos, "target": ["string_acoustic"], "conditions": ["room"]}
    text = export.describe_weaknesses(flags, 512)
    assert "- It was trained on pianos." in text
    assert "sampled string section. It gives that string section for every input.\n- The" in text
    assert "rooms" not in text
    assert "- Above 22 kHz the output is silent.\n" in text


def test_a_card_says_of_how_many_pieces_its_error_is(export, run):
    config, history = export.read_run(run)
    config["split"]["validation"] = ["y", "z"]
    args = export.build_parser().parse_args(["--run", str(run), *ABOUT])
    card = export.make_card(run, config, history, args)
    assert "Tiles of the 2 held-out pieces, dB MAE" in card


def test_what_cannot_have_a_card_is_refused_before_it_is_loaded(export, run, capsys):
    (run / "generator.keras").write_bytes(b"damaged")
    config = json.loads((run / "config.json").read_text())
    flags = {**FLAGS, "target": ["guitar_acoustic", "string_acoustic"]}
    (run / "config.json").write_text(json.dumps({**config, "flags": flags}))
    assert export.main(["--run", str(run), *ABOUT]) == 2
    assert "has several targets" in capsys.readouterr().err
    imports = {**config, "flags": {**config["flags"], "script": "this"}}  # no script, a module
    for damaged in ({**config, "baselines_db": {}}, imports):
        (run / "config.json").write_text(json.dumps(damaged))
        assert export.main(["--run", str(run), *ABOUT]) == 2
        assert "config.json: damaged" in capsys.readouterr().err


def test_a_run_without_its_history_is_refused(capsys, export, run):
    (run / "history.csv").unlink()
    assert export.main(["--run", str(run), *ABOUT]) == 2
    assert "is not a complete run folder" in capsys.readouterr().err


def test_many_origins_are_told_by_their_families(tmp_path, export, run):
    origins = [
        f"{family}_{n:03d}" for family in ("organ_acoustic", "reed_acoustic") for n in range(15)
    ]
    config = json.loads((run / "config.json").read_text())
    config["flags"] |= {"origin": origins, "delta_weight": 2.0}
    (run / "config.json").write_text(json.dumps(config))
    assert export.main(["--run", str(run), *ABOUT]) == 0
    folder = tmp_path / "pretrained/a_2_guitar_acoustic"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# 30 instruments of 2 families → guitar_acoustic\n")
    assert "- It was trained on 30 instruments of 2 families." in card
    assert "λ = 100, `--delta_weight 2`, dropout" in card
    assert "`python train.py --origin all --target guitar_acoustic" in card
    assert RunFacts(folder).config["flags"]["origin"] == origins


def test_a_cards_command_keeps_weights_that_a_reader_has(tmp_path, export):
    (tmp_path / "pretrained" / "guitar").mkdir(parents=True)
    flags = {"script": "train", "dataset_path": "x", "origin": "a", "target": "b"}
    command = export.command_line({**flags, "weights": "guitar"})
    assert "--weights guitar" in command
    assert "--weights" not in export.command_line({**flags, "weights": "runs/mine"})
    assert export.describe_start({**flags, "weights": "guitar"}) == ""


@pytest.mark.parametrize("name", [path.parent.name for path in CARDS])
def test_the_commands_of_shipped_cards_run_as_typed(name):
    """Each is taken by its script, with the settings of config.json and weights that exist."""
    folder = ROOT / "pretrained" / name
    card = (folder / "README.md").read_text(encoding="utf-8")
    flags = json.loads((folder / "config.json").read_text(encoding="utf-8"))["flags"]
    commands = re.findall(r"`(python [^`]+)`", card)
    scripts = [command.split()[1].removesuffix(".py") for command in commands]
    assert scripts == ["predict", flags["script"]]
    parser = importlib.import_module(flags["script"]).build_parser()
    args = vars(parser.parse_args(shlex.split(commands[1])[2:]))
    assert args["origin"] == ["all"] or set(args["origin"]) <= set(flags["origin"])
    assert [args["target"]] == cli.as_list(flags["target"])
    for key in ("filters", "dropout", "batch_size", "epoch_tiles", "conditions"):
        assert args[key] == flags[key]
    for key in set(args) & {"l1_weight", "gen_lr", "disc_lr", "lr", "ema"}:
        assert args[key] == flags[key]
    assert args["weights"] is None or (ROOT / "pretrained" / args["weights"]).is_dir()


@pytest.fixture(scope="module")
def many_instruments(features, tmp_path_factory):
    """A features folder with the instruments of all cards, which are copies of two."""
    folder = tmp_path_factory.mktemp("many")
    shutil.copy(features / "features.json", folder)
    names = [f"keyboard_acoustic_{number:03d}" for number in range(1, 18)]
    for name in (*names, "keyboard_acoustic", "flute_acoustic", "organ_acoustic"):
        shutil.copytree(features / ORIGIN, folder / name)
    for name in ("guitar_acoustic", "string_acoustic", "synth_lead_synthetic"):
        shutil.copytree(features / TARGET, folder / name)
    return folder


@pytest.mark.parametrize("name", [path.parent.name for path in CARDS])
def test_the_trainings_of_shipped_cards_run(name, many_instruments, tmp_path, capsys):
    """Each trains for one step, on little data and, without --weights, at a small width."""
    card = (ROOT / "pretrained" / name / "README.md").read_text(encoding="utf-8")
    command = re.findall(r"`python (train[^`]+)`", card)[0]
    script, *flags = shlex.split(command)
    flags += ["--dataset_path", str(many_instruments), "--runs_path", str(tmp_path)]
    flags += ["--epochs", "1", "--epoch_tiles", "2", "--batch_size", "2", "--preview_every", "0"]
    flags += ["--name", "run", "--gpu", "cpu", "--precision", "float32", "--workers", "1"]
    if "--weights" not in flags:
        flags += ["--filters", "2"]
    module = importlib.import_module(script.removesuffix(".py"))
    assert module.main(flags) == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "generator.keras").exists()


def test_settings_name_every_part_of_the_loss(export):
    alone = {"script": "train_generator", "lr": 0.001}
    assert export.describe_settings(alone).startswith("L1 alone, dropout 0.5")
    differences = export.describe_settings({**alone, "delta_weight": 2})
    assert differences.startswith(
        "L1 and frame differences (`--delta_weight 2`), no discriminator,"
    )
    both = export.describe_settings({"script": "train", "delta_weight": 1, "ema": 0.998})
    assert "L1 and discriminator, λ = 100, `--delta_weight 1`, dropout 0.5" in both
    assert both.endswith("; moving average of the weights 0.998")
