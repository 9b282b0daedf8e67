"""The training scripts, run as a user would, on the small data set."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import soundfile
from conftest import ORIGIN, ROOT, TARGET

import models
import training
from cli import UserError

RUN = f"{ORIGIN}_2_{TARGET}"
SMALL = (
    "--origin",
    ORIGIN,
    "--target",
    TARGET,
    "--filters",
    2,
    "--batch_size",
    3,
    "--gpu",
    "cpu",
    "--validation_split",
    0.3,
)


def datasets(path):
    """Every array in an HDF5 file, by name."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


def history(run):
    with open(run / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "tiles_per_s")} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(features, tmp_path_factory):
    """Run folder of 4 epochs without a stop, and what the script printed."""
    runs = tmp_path_factory.mktemp("runs")
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--dataset_path",
        features,
        *SMALL,
        "--epochs",
        "4",
        "--runs_path",
        runs,
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return runs / RUN, done.stdout


def test_a_run_folder_holds_what_it_should(undisturbed):
    run, output = undisturbed
    config = json.loads((run / "config.json").read_text())
    assert config["flags"]["filters"] == 2
    assert sorted(config["split"]["train"] + config["split"]["validation"]) == [
        "bach/one",
        "bach/two",
        "four",
        "three",
    ]
    assert not set(config["split"]["train"]) & set(config["split"]["validation"])
    assert set(config["baselines_db"]) == {"identity", "median"}
    rows = history(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["mae_db"]) < float(rows[0]["mae_db"])
    assert (run / "plots/history.png").stat().st_size > 5000
    for epoch in range(1, 5):
        preview = run / f"previews/epoch_{epoch:03d}"
        assert (preview / "spectrogram.png").stat().st_size > 5000
        assert soundfile.info(preview / "audio.wav").duration == pytest.approx(7, abs=0.5)
    assert sorted(os.listdir(run / "last")) == ["epoch_0004.weights.h5", "state.json"]
    assert "* filters           2   (default 64)" in output
    assert f"identity {config['baselines_db']['identity']:.2f} dB" in output
    assert output.count("\nepoch ") == 4


def test_the_best_generator_is_the_one_kept(undisturbed, features):
    import dataset

    run, _ = undisturbed
    config = json.loads((run / "config.json").read_text())
    pairs = dataset.TilePairs(features, ORIGIN, TARGET, config["split"]["validation"], 99)
    x, y = pairs[0]
    error = np.abs(models.load_generator(run).predict(x, verbose=0) - y).mean() * 96.3297 / 2
    assert error == pytest.approx(min(float(row["val_mae_db"]) for row in history(run)), rel=1e-4)


def test_resuming_after_a_kill_is_exact(undisturbed, features, tmp_path, run_script):
    """4 epochs, and 4 epochs killed with SIGKILL during the third and continued, give the same bits."""
    flags = ["--dataset_path", features, *SMALL, "--epochs", "4", "--runs_path", tmp_path]
    state = tmp_path / RUN / "last" / "state.json"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *map(str, flags)],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.time() + 240
    while (
        not (state.exists() and len(json.loads(state.read_text())["history"]) >= 2)
        and time.time() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(json.loads(state.read_text())["history"])
    assert 2 <= done < 4, "killed too late to test anything"
    again = run_script("train.py", *flags)
    assert again.returncode == 0, again.stderr
    assert f"continuing after {done} of 4 epochs" in again.stdout
    run, _ = undisturbed
    assert history(tmp_path / RUN) == history(run)
    ours, theirs = (datasets(r / "last/epoch_0004.weights.h5") for r in (tmp_path / RUN, run))
    assert ours.keys() == theirs.keys()
    assert len(ours) > 200  # both networks and two moments of each weight
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert not list(tmp_path.rglob(".part-*"))


def test_what_a_kill_after_the_last_epoch_left_undone_is_done(
    undisturbed, features, tmp_path, run_script
):
    """As if the process had been killed as soon as state.json was replaced."""
    run, again = undisturbed[0], tmp_path / RUN
    shutil.copytree(run, again)
    undone = (
        "history.csv",
        "plots/history.png",
        "previews/epoch_004/audio.wav",
        "previews/epoch_004/spectrogram.png",
    )
    for name in undone:
        (again / name).unlink()
    (again / "last/epoch_0003.weights.h5").touch()
    result = run_script(
        "train.py", "--dataset_path", features, *SMALL, "--epochs", "4", "--runs_path", tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert history(again) == history(run)
    assert (again / undone[2]).read_bytes() == (run / undone[2]).read_bytes()
    files = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        for folder in (run, again)
    ]
    assert files[0] == files[1]


def test_flags_that_would_break_a_run_are_refused_with_both_values(
    undisturbed, features, run_script
):
    run, _ = undisturbed
    flags = ["--dataset_path", features, *SMALL, "--epochs", "5", "--runs_path", run.parent]
    refused = run_script("train.py", *flags, "--filters", "3")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--filters 2, now 3; give --fresh to start over" in refused.stderr
    finished = run_script("train.py", *flags, "--epochs", "4")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("\nepoch ") == 0


def test_fresh_starts_over_and_deletes_only_runs(undisturbed, features, tmp_path, run_script):
    run = shutil.copytree(undisturbed[0], tmp_path / RUN)
    flags = [
        "--dataset_path",
        features,
        *SMALL,
        "--runs_path",
        tmp_path,
        "--epochs",
        1,
        "--preview_every",
        0,
    ]
    done = run_script("train.py", *flags, "--fresh", "--filters", 3, "--epoch_offset", 10)
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in history(run)] == ["11"]
    assert not (run / "previews").exists()


def test_short_epochs_falling_rates_and_given_weights(undisturbed, features, tmp_path, run_script):
    flags = [
        "--dataset_path",
        features,
        *SMALL,
        "--runs_path",
        tmp_path,
        "--preview_every",
        0,
        "--epoch_tiles",
        3,
    ]
    flags += [
        "--decay_epochs",
        1,
        "--epochs",
        2,
        "--weights",
        undisturbed[0],
        "--gen_lr",
        1e-9,
        "--disc_lr",
        1e-9,
    ]
    refused = run_script("train.py", *flags, "--filters", 3)
    assert refused.returncode == 2
    assert (
        f"--weights {undisturbed[0]}: is of width 2; give --filters 2 or a multiple"
        in refused.stderr
    )
    done = run_script("train.py", *flags, "--fresh")
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / RUN / "last/epoch_0002.weights.h5") as file:
        assert file["optimizer/vars/0"][()] == 2  # steps: one of three tiles, in each epoch
        assert file["optimizer/vars/1"][()] == pytest.approx(
            0.5e-9
        )  # half the rate in the last epoch
    before, after = (
        models.load_generator(run).get_weights() for run in (undisturbed[0], tmp_path / RUN)
    )
    kernels = [(a, b) for a, b in zip(before, after) if a.ndim == 4]
    assert all(
        np.abs(a - b).max() < 1e-6 for a, b in kernels
    )  # at such rates the given weights stay


def test_weights_of_another_width_or_kind_are_refused(tmp_path):
    wide, film, plain = (
        models.build_generator(**kind)
        for kind in ({"filters": 3}, {"filters": 2, "channels": 2, "film": True}, {"filters": 2})
    )
    for network, reason in (
        (wide, "is of width 3; give --filters 3"),
        (film, "is a model of another kind"),
    ):
        network.save(tmp_path / "w.keras")
        with pytest.raises(UserError, match=reason):
            training.start_from(plain, tmp_path / "w.keras")


def test_settings_may_change_until_the_first_epoch_is_done(tmp_path):
    config = lambda filters, piece: {
        "flags": {"filters": filters},
        "split": {"train": ["a", piece]},
    }
    run = training.Run(tmp_path)
    run.check_config(config(2, "b"))
    run.check_config(config(3, "b"))
    run.history = [{"epoch": 1}]
    run.check_config(config(3, "b"))
    with pytest.raises(UserError, match="trained with --filters 3, now 4"):
        run.check_config(config(4, "b"))
    with pytest.raises(UserError, match=r"other pieces \(2 differ, b for one\)"):
        run.check_config(config(3, "c"))


@pytest.mark.parametrize(
    ("conditioning", "origins"), [("film", [ORIGIN]), ("tile", [ORIGIN, TARGET])]
)
def test_one_model_for_several_instruments(
    features, audios, tmp_path, run_script, conditioning, origins
):
    for folder, made in ((features, "features"), (audios, "audios")):
        shutil.copytree(folder, tmp_path / made)
        shutil.copytree(folder / TARGET, tmp_path / made / "string_acoustic")
    model = tmp_path / f"{'any' if origins[1:] else ORIGIN}_2_any"
    flags = [
        "--dataset_path",
        tmp_path / "features",
        *SMALL,
        "--runs_path",
        tmp_path,
        "--target",
        TARGET,
        "string_acoustic",
    ]
    flags += ["--origin", *origins]
    flags += ["--conditioning", conditioning, "--epochs", 1, "--validation_split", 0.5]
    done = run_script("train.py", *flags)
    assert done.returncode == 0, done.stderr
    source, output = audios / ORIGIN / "three.wav", tmp_path / "out.wav"
    convert = [
        "predict.py",
        "--model",
        model,
        "--input",
        source,
        "--output",
        output,
        "--gpu",
        "cpu",
    ]
    refused = run_script(*convert)
    assert refused.returncode == 2
    assert "--style: is missing" in refused.stderr
    sounds = []
    for style in (audios / TARGET / "four.wav", audios / ORIGIN / "bach/one.wav"):
        done = run_script(*convert, "--style", style)
        assert done.returncode == 0, done.stderr
        sounds.append(soundfile.read(output)[0])
    assert not np.array_equal(*sounds)
    evaluate = [
        "evaluate.py",
        "--model",
        model,
        "--audios_path",
        tmp_path / "audios",
        "--phase",
        "input",
        "--gpu",
        "cpu",
    ]
    done = run_script(*evaluate, "--origin", origins[-1])
    assert done.returncode == 0, done.stderr
    refused = run_script(*evaluate, "--origin", origins[-1], "--target", origins[-1])
    assert refused.returncode == 2 and f"--target {origins[-1]}: is the origin" in refused.stderr
    for target in {TARGET, "string_acoustic"} - {origins[-1]}:
        rows = json.loads((model / "evaluation" / target / "results.json").read_text())["rows"]
        assert rows["model (phase: input)"]["mae_db"]["mean"] > 0


def test_learned_phase(features, audios, tmp_path, run_script):
    """Both ways from audio to audio: a second network for the phase, and one network for magnitude and phase."""
    features = tmp_path / "features"
    done = run_script(
        "compute_features.py", "--audios", audios, "--features", features, "--phase", "--workers", 1
    )
    assert done.returncode == 0, done.stderr
    flags = [
        "--dataset_path",
        features,
        *SMALL,
        "--runs_path",
        tmp_path,
        "--epochs",
        1,
        "--filters",
        4,
    ]
    for learn in ("magnitude", "phase", "both"):
        done = run_script("train.py", *flags, "--learn", learn)
        assert done.returncode == 0, done.stderr
    magnitude, phase, both = (tmp_path / f"{RUN}{suffix}" for suffix in ("", "_phase", "_both"))
    output = tmp_path / "out.wav"
    convert = [
        "predict.py",
        "--input",
        audios / ORIGIN / "three.wav",
        "--output",
        output,
        "--gpu",
        "cpu",
    ]
    for flags in (
        ["--model", magnitude],
        ["--model", phase],
        ["--model", both, "--phase_model", both],
    ):
        refused = run_script(*convert, *flags, "--phase", "learned")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "model" in refused.stderr
    done = run_script(
        *convert, "--model", both, "--phase_model", phase, "--phase", "learned"
    )  # one phase for the other
    assert done.returncode == 0, done.stderr
    refused = run_script(*convert, "--model", magnitude, "--phase_model", phase)
    assert refused.returncode == 2 and "is not used by --phase input" in refused.stderr
    for flags in (["--model", both], ["--model", magnitude, "--phase_model", phase]):
        sounds = []
        for name in ("input", "learned", "learned_griffinlim"):
            done = run_script(*convert, *(flags[:2] if name == "input" else flags), "--phase", name)
            assert done.returncode == 0, done.stderr
            sounds.append(soundfile.read(output)[0])
        assert not np.array_equal(sounds[0], sounds[1])
        assert not np.array_equal(sounds[1], sounds[2])
        done = run_script(
            "evaluate.py", *flags, "--audios_path", audios, "--limit", 1, "--gpu", "cpu"
        )
        assert done.returncode == 0, done.stderr
        assert "| true magnitude (phase: learned_griffinlim) " in done.stdout
    refused = run_script(
        "train.py", "--dataset_path", features, *SMALL, "--target", TARGET, "x", "--learn", "both"
    )
    assert "--learn both: goes with one --target" in refused.stderr


def test_generator_alone(features, tmp_path, run_script):
    flags = [
        "--dataset_path",
        features,
        *SMALL,
        "--runs_path",
        tmp_path,
        "--cache",
        "--tensorboard",
    ]
    for epochs in (1, 2):
        done = run_script("train_generator.py", *flags, "--epochs", epochs)
        assert done.returncode == 0, done.stderr
    run = tmp_path / f"{RUN}_generator"
    assert [row["epoch"] for row in history(run)] == ["1", "2"]
    assert "disc_loss" not in history(run)[0]
    assert not (run / "discriminator.keras").exists()
    assert list((run / "tensorboard").rglob("events*"))
    assert models.load_generator(run).count_params() == models.build_generator(2).count_params()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    undisturbed, features, tmp_path, run_script
):
    run = shutil.copytree(undisturbed[0], tmp_path / RUN)
    before = datasets(run / "last/epoch_0004.weights.h5")
    bad = shutil.copytree(features, tmp_path / "features")
    for path in (bad / TARGET).rglob("*.npy"):
        np.save(path, np.full_like(np.load(path), np.nan))
    flags = ["--dataset_path", bad, *SMALL, "--runs_path", tmp_path, "--epochs", "5"]
    stopped = run_script("train.py", *flags)
    assert stopped.returncode == 2
    assert "lower the learning rates" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    after = datasets(run / "last/epoch_0004.weights.h5")
    assert all(np.array_equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("disc_loss", "hint"), [(1.386, "at chance"), (0.05, "has won"), (1.0, None)]
)
def test_hints(disc_loss, hint):
    row = dict.fromkeys(
        ("epoch", "seconds", "tiles_per_s", "mae_db", "val_mae_db", "gan_loss"), 1
    ) | {"disc_loss": disc_loss}
    line = training.epoch_line(row, 9, best=True)
    assert (hint in line) if hint else ("(" not in line)


def test_damaged_state_is_refused(tmp_path):
    (tmp_path / "last").mkdir()
    (tmp_path / "last/state.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        training.Run(tmp_path)


BAD_FLAGS = [
    ("--epochs", "0"),
    ("--batch_size", "x"),
    ("--gen_lr", "-1"),
    ("--gpu", "first"),
    ("--gpu", "7"),
]


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_flags(features, run_script, flags):
    done = run_script("train.py", "--dataset_path", features, *SMALL, *flags)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert flags[0] in done.stderr


def test_find_learning_rates(features, tmp_path, run_script):
    flags = [
        "--dataset_path",
        features,
        *SMALL,
        "--runs_path",
        tmp_path,
        "--findlr",
        "True",
        "--findlr_steps",
        30,
    ]
    done = run_script("train.py", *flags)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / RUN / "lr_finder"
    assert sorted(os.listdir(folder)) == [
        "both.csv",
        "discriminator.csv",
        "generator.csv",
        "lr_finder.png",
    ]
    assert os.listdir(tmp_path / RUN) == ["lr_finder"]  # no trace in the run
    assert "use: --gen_lr " in done.stdout
    assert "--disc_lr " in done.stdout
