"""pretrained/export.py: float16 weights that predict.py finds by name, and a card whose figures are the run's."""

import json
import shutil

import h5py
import keras
import numpy as np
from conftest import ROOT

import cli
import models
from kinds import ENTRY, Kind


def test_export(tmp_path, monkeypatch, run_script):
    for path in (*ROOT.glob("*.py"), ROOT / "report.html"):
        shutil.copy(path, tmp_path)
    (tmp_path / "pretrained").mkdir()
    shutil.copy(ROOT / "pretrained/export.py", tmp_path / "pretrained")
    run = tmp_path / "runs/a_2_guitar_acoustic"
    run.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    generator = models.build_generator(2)
    generator.save(run / "generator.keras")
    flags = {
        "script": "train",
        "origin": "a",
        "target": "guitar_acoustic",
        "filters": 2,
        "gen_lr": 0.001,
        "gpu": "cpu",
    }
    flags |= {"epoch_tiles": 600, "batch_size": 4}
    split = {"train": ["x", "y"], "validation": ["z"]}
    config = {
        "flags": flags,
        "policy": "float32",
        "baselines_db": {"identity": 6, "median": 7},
        "split": split,
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "history.csv").write_text("epoch,seconds,tiles_per_s,val_mae_db\n1,9,2,3.21\n2,9,2,4\n")
    np.save(run / "median.npy", np.zeros(256))
    (run / "evaluation").mkdir()
    cell = {"mean": 1.234, "spread": None, "n": 1}
    (run / "evaluation/results.json").write_text(
        json.dumps({"rows": {"model (phase: input)": {"mae_db": cell}}})
    )
    about = ("--notes", "NSynth, CC BY 4.0", "--pieces", "mine", "--hardware", "an abacus")
    done = run_script(tmp_path / "pretrained/export.py", "--run", run, *about)
    assert done.returncode == 0, done.stderr

    card = (tmp_path / "pretrained/a_2_guitar_acoustic/README.md").read_text()
    command = "`python train.py --origin a --target guitar_acoustic --filters 2 --gen_lr 0.001 --epoch_tiles 600 "
    figures = (
        "300 steps of 4",
        "dB MAE: **3.21** (identity 6.00",
        "| model (phase: input) | 1.23 ± 0.00",
    )
    for text in ("NSynth, CC BY 4.0", "an abacus", command, *figures):
        assert text in card
    monkeypatch.setattr(cli, "PRETRAINED", tmp_path / "pretrained")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 256, 256, 1)).astype(np.float32)
    half = models.load_generator("a_2_guitar_acoustic")
    assert all(w.dtype == "float32" for w in half.weights)
    assert half.kind is Kind.MAGNITUDE
    difference = np.abs(half.predict_on_batch(x) - generator.predict_on_batch(x))
    assert 0 < difference.max() < 1e-2
    weights = tmp_path / "pretrained/a_2_guitar_acoustic/generator.weights.h5"
    with h5py.File(weights) as file:
        assert json.loads(file.attrs[ENTRY]) == {"kind": "magnitude", "style": "none"}
    generator.save_weights(whole := tmp_path / "whole.weights.h5")
    assert weights.stat().st_size < 0.9 * whole.stat().st_size

    (run / "history.csv").unlink()
    done = run_script(tmp_path / "pretrained/export.py", "--run", run, *about)
    assert done.returncode == 2
    assert "is no complete run folder" in done.stderr
