"""The training scripts, run as a user would, on the small data set."""

import contextlib
import csv
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import soundfile
import two_devices
from conftest import ORIGIN, ROOT, TARGET
from files import arrays_in, contents
from sounds import identity

import losses
import models
import train
import train_generator
from common import cli, dataset, kinds
from common.cli import UserError
from common.files import lock, write_json
from conversion import convert, model_files
from research.learned_phase import PHASE
from sound.recordings import write_audio
from training import callbacks, feeding, preview, run_folder, setup, splits
from training.flags import (
    EARLIER,
    FIXED_FLAGS,
    add_training_flags,
    check_dataset,
    expand_origins,
    name_folder,
)
from training.preview import write_sound

RUN = f"{ORIGIN}_2_{TARGET}"
PAIR = ["--origin", ORIGIN, "--target", TARGET]
SMALL = ["--filters", 2, "--batch_size", 3, "--gpu", "cpu", "--validation_split", 0.3]
SILENT = ["--preview_every", 0]  # previews take most of such a short epoch


def run_main(script, *flags):
    """Run a script's main: (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = script.main([str(flag) for flag in flags])
    return code, out.getvalue(), err.getvalue()


def last_line(text):
    """Without progress bars, which go back to the line's start."""
    return text.replace("\r", "\n").strip().splitlines()[-1]


def assert_same_state(run, other):
    """That the third epoch of both has left the same weights and moments, bit for bit."""
    files = [folder / "last/epoch_0003.weights.h5" for folder in (run, other)]
    ours, theirs = (arrays_in(file) for file in files)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def history(run):
    with open(run / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["tiles_per_s"]
    return rows


def config_of(run):
    return json.loads((run / "config.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(features, tmp_path_factory):
    """Run folder of 3 epochs without a stop, and what the script printed."""
    runs = tmp_path_factory.mktemp("runs")
    flags = ["--dataset_path", features, *PAIR, *SMALL, "--epochs", 3, "--runs_path", runs]
    code, output, errors = run_main(train, *flags)
    assert code == 0, errors
    return runs / RUN, output


@pytest.fixture
def copied(undisturbed, tmp_path):
    """A copy of that run, to go on with."""
    return shutil.copytree(undisturbed[0], tmp_path / RUN)


def test_a_run_folder_holds_what_it_should(undisturbed):
    run, output = undisturbed
    config = config_of(run)
    assert config["flags"]["filters"] == 2
    names = config["split"]["train"] + config["split"]["validation"]
    assert sorted(names) == ["bach/one", "bach/two", "four", "three"]
    assert not set(config["split"]["train"]) & set(config["split"]["validation"])
    assert set(config["baselines_db"]) == {"identity", "median"}
    assert config["kind"] == "magnitude"
    rows = history(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {row["gen_lr"] for row in rows} == {"0.0005"}
    assert {row["disc_lr"] for row in rows} == {"5e-05"}
    if keras.backend.backend() == "tensorflow":  # with its first weights so few steps are enough
        assert float(rows[-1]["mae_db"]) < float(rows[0]["mae_db"])
    assert (run / "plots/history.png").stat().st_size > 5000
    for epoch in range(1, 4):
        preview = run / f"previews/epoch_{epoch:03d}"
        assert (preview / "spectrogram.png").stat().st_size > 5000
        assert soundfile.info(preview / "output.flac").duration == pytest.approx(7, abs=0.5)
    kept = ["epoch_0002.weights.h5", "epoch_0003.weights.h5", "state.json"]
    assert sorted(os.listdir(run / "last")) == kept
    # Both networks and two moments of each weight
    assert len(arrays_in(run / "last/epoch_0003.weights.h5")) > 200
    assert "* filters           2   (default 64)" in output
    assert f"identity {config['baselines_db']['identity']:.2f} dB" in output
    assert output.count("\nepoch ") == 3


@pytest.mark.parametrize(("choice", "kept"), [("best", 1), ("last", 2)])
def test_the_generator_of_the_chosen_epoch_is_kept(tmp_path, choice, kept):
    generator = models.build_generator(1)
    models.compile_at_once(generator, models.TwoRateAdam(1e-3), loss="mae")
    run = run_folder.Run(tmp_path, choose=choice)
    run.config = {"baselines_db": {"identity": 9.0}, "flags": {"choose": choice}}
    for epoch, error in ((1, 3.0), (2, 4.0)):
        generator.layers[-1].bias.assign([epoch])
        run.commit(generator, {"epoch": epoch, "seconds": 1.0, "val_mae_db": error})
    assert float(model_files.load_generator(tmp_path).layers[-1].bias[0]) == kept
    assert f"held-out MAE {kept + 2:.2f} dB" in run.summarise()


def test_the_last_epoch_counts_with_a_discriminator_the_best_without():
    assert train.build_parser().get_default("choose") == "last"
    assert train_generator.build_parser().get_default("choose") == "best"


def test_a_run_from_before_the_choice_goes_on_with_the_best_and_no_average(copied):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    for flags in [config["flags"], *(start["flags"] for start in config.get("starts", []))]:
        flags.pop("choose", None)
        flags.pop("ema", None)
    path.write_text(json.dumps(config))
    code, _, errors = run_main(train, "--resume", copied, "--epochs", 4, *SILENT)
    assert code == 0, errors
    flags = config_of(copied)["flags"]
    assert (flags["choose"], flags["ema"]) == ("best", 0.0)


@pytest.fixture(scope="module")
def averaging(features, tmp_path_factory):
    """Run folder of 3 epochs with --ema, without a stop."""
    runs = tmp_path_factory.mktemp("averaging")
    flags = ["--dataset_path", features, *PAIR, *SMALL, "--epochs", 3, "--runs_path", runs]
    code, output, errors = run_main(train, *flags, "--ema", 0.9, "--keep_every", 3)
    assert code == 0, errors
    assert "* ema               0.9   (default 0.0)" in output
    return runs / RUN


def test_what_is_seen_and_saved_is_the_averaged_generator(averaging, features):
    state = arrays_in(averaging / "last/epoch_0003.weights.h5")
    generator = model_files.load_generator(averaging)
    for number, weight in enumerate(generator.get_weights()):
        np.testing.assert_array_equal(weight, state[f"vars/{number + 1}"])
    kept = model_files.load_generator(averaging / "epochs/epoch_0003.keras")
    np.testing.assert_equal(kept.get_weights(), generator.get_weights())
    names = config_of(averaging)["split"]["validation"]
    x, y = dataset.TilePairs(features, [ORIGIN], TARGET, names, dataset.Batching(99))[0]
    error = np.asarray(losses.mae_db(y, generator.predict(x, verbose=0))).mean()
    assert float(history(averaging)[-1]["val_mae_db"]) == pytest.approx(error, rel=1e-4)
    preview = averaging / "previews/epoch_003/output.flac"
    audio, rate = soundfile.read(averaging / "previews/input.flac", dtype="float32")
    assert np.abs(audio).max() > 0
    again = averaging / "again"
    normal = convert.QUALITIES["normal"]
    write_sound(again, convert.convert_audio(generator, audio, rate, normal))
    ours, theirs = soundfile.read(again.with_suffix(".flac"))[0], soundfile.read(preview)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_training_itself_is_the_same_with_an_average(undisturbed, averaging):
    """Weights, moments and training errors; only what is validated and saved differs."""
    files = [folder / "last/epoch_0003.weights.h5" for folder in (undisturbed[0], averaging)]
    without, with_average = (arrays_in(file) for file in files)
    for name in without:
        np.testing.assert_array_equal(without[name], with_average[name], err_msg=name)
    more = len(with_average) - len(without)
    assert more == len(models.build_generator(2).weights) + 1  # and the number of steps
    rows = history(undisturbed[0]), history(averaging)
    for before, now in zip(*rows):
        assert before["mae_db"] == now["mae_db"]
        assert before["val_mae_db"] != now["val_mae_db"]


def test_resuming_a_run_with_an_average_is_exact(averaging, tmp_path):
    """The last epoch is taken away, and done again from what the one before has left."""
    run = shutil.copytree(averaging, tmp_path / RUN)
    (run / "last/epoch_0003.weights.h5").unlink()
    (run / "generator.keras").unlink()
    code, output, errors = run_main(train, "--resume", run, *SILENT)
    assert code == 0, errors
    assert "continuing after 2 of 3 epochs" in output
    assert history(run) == history(averaging)
    assert_same_state(run, averaging)
    saved = [model_files.load_generator(folder).get_weights() for folder in (run, averaging)]
    np.testing.assert_equal(*saved)


def test_resuming_a_generator_alone_is_exact(features, tmp_path):
    flags = ["--dataset_path", features, *PAIR, *SMALL, *SILENT, "--epochs", 3]
    code, _, errors = run_main(train_generator, *flags, "--runs_path", tmp_path / "one")
    assert code == 0, errors
    whole = tmp_path / "one" / f"{RUN}_generator"
    run = shutil.copytree(whole, tmp_path / "two" / f"{RUN}_generator")
    (run / "last/epoch_0003.weights.h5").unlink()
    code, output, errors = run_main(train_generator, *flags, "--runs_path", tmp_path / "two")
    assert code == 0, errors
    assert "continuing after 2 of 3 epochs" in output
    assert history(run) == history(whole)
    assert_same_state(run, whole)


def test_what_a_kill_after_the_last_epoch_left_undone_is_done(undisturbed, copied, features):
    """As if the process had been killed as soon as state.json was replaced."""
    run, _ = undisturbed
    undone = [
        "history.csv",
        "plots/history.png",
        "previews/epoch_003/output.flac",
        "previews/epoch_003/spectrogram.png",
        "index.html",
    ]
    for name in undone:
        (copied / name).unlink()
    (copied / "last/epoch_0001.weights.h5").touch()
    where = ["--dataset_path", features, "--runs_path", copied.parent]
    code, output, errors = run_main(train, *where, *PAIR, *SMALL, "--epochs", 3)
    assert code == 0, errors
    assert output.count("\nepoch ") == 0
    assert history(copied) == history(run)
    assert (copied / undone[2]).read_bytes() == (run / undone[2]).read_bytes()
    files = []
    for folder in (run, copied):
        files.append(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
    assert files[0] == files[1]
    assert config_of(copied) == config_of(run)  # nothing was trained, so nothing is forgotten


# What may change while a run goes on, and what may not


def start_of(**changes):
    """Flags, policy and fingerprint as `Run.check` takes them."""
    flags = {"filters": 2, "origin": [ORIGIN], "gen_lr": 1e-3, "epochs": 9, **changes}
    return {"flags": flags, "policy": "float32", "versions": {}}


@pytest.fixture
def begun(tmp_path):
    """A run with one epoch done."""
    run = run_folder.Run(tmp_path)
    split = {"train": ["a", "b"], "validation": ["c"]}
    run.record_start(start_of(), {"split": split, "baselines_db": {}, "fingerprint": "f1"})
    run.history = [{"epoch": 1, "val_mae_db": 3.0}]
    return run


def test_settings_may_change_until_the_first_epoch_is_done(tmp_path):
    run = run_folder.Run(tmp_path)
    run.record_start(start_of(), {"split": {}})
    again = run_folder.Run(tmp_path)
    again.check(start_of(filters=3)["flags"], "float32")
    again.record_start(start_of(filters=3), {"split": {}})
    assert [start["flags"]["filters"] for start in config_of(tmp_path)["starts"]] == [3]


def test_what_makes_it_another_run_is_refused_with_both_values(begun):
    with pytest.raises(UserError, match="--filters 2, now 3; leave --filters out"):
        begun.check(start_of(filters=3)["flags"], "float32")
    with pytest.raises(UserError, match=f"--origin {ORIGIN}, now x y"):
        begun.check(start_of(origin=["x", "y"])["flags"], "float32")
    with pytest.raises(UserError, match=r"--l1_weight 0\.0, now 30\.0"):  # it began without
        begun.check(start_of(l1_weight=30.0)["flags"], "float32")
    begun.config["flags"]["origin"] = ORIGIN  # as older runs have it
    begun.check(start_of()["flags"], "float32")


def test_what_makes_a_run_is_named_as_its_flags_are():
    known = {action.dest for action in train.build_parser()._actions}
    assert set(FIXED_FLAGS) - known == {"script"}
    assert set(EARLIER) < set(FIXED_FLAGS)


def test_a_flag_that_is_newer_than_the_run_has_no_other_value_than_the_run_had(begun):
    assert "test_split" not in begun.config["flags"]
    begun.check(start_of(test_split=0.0)["flags"], "float32")
    with pytest.raises(UserError, match=r"--test_split 0.0, now 0.1; leave --test_split out"):
        begun.check(start_of(test_split=0.1)["flags"], "float32")


def test_features_that_changed_are_refused_if_the_runs_own_pieces_did(features, tmp_path, capsys):
    """The fingerprint is of all features; pieces that came since are no reason to refuse."""
    names = ["bach/one", "four"]
    pairs = [
        dataset.TilePairs(features, [ORIGIN], TARGET, [name], dataset.Batching(1)) for name in names
    ]
    sets = setup.Sets(*pairs, None, {}, {"fingerprint": "new"})
    run = run_folder.Run(tmp_path)
    median = dataset.find_target_median(pairs[0])
    run.config = {"baselines_db": dataset.measure_baselines(pairs[1], median)}
    setup.check_tiles(run, sets)
    assert "not the pieces of this run" in capsys.readouterr().err
    changed = shutil.copytree(features, tmp_path / "features")
    for name in names:
        path = changed / TARGET / f"{name}.npy"
        original = np.load(path)
        np.save(path, original * np.float16(0.9))
        pairs = [
            dataset.TilePairs(changed, [ORIGIN], TARGET, [n], dataset.Batching(1)) for n in names
        ]
        with pytest.raises(UserError, match="its pieces have changed"):
            setup.check_tiles(run, setup.Sets(*pairs, None, {}, {}))
        np.save(path, original)


@pytest.mark.parametrize("policies", [("float32", "mixed_float16"), ("mixed_float16", "float32")])
def test_precision_may_not_change_from_or_to_float16(begun, policies):
    begun.config["policy"], now = policies
    before = policies[0].removeprefix("mixed_")
    with pytest.raises(UserError, match=f"trained with --precision {before}"):
        begun.check(start_of()["flags"], now)
    begun.config["policy"] = "float32"
    begun.check(start_of()["flags"], "mixed_bfloat16")


def test_a_changed_rate_is_said(begun, capsys):
    begun.check(start_of(gen_lr=1e-4)["flags"], "float32")
    assert capsys.readouterr().out == "--gen_lr changes from 0.001 to 0.0001\n"


def test_every_start_has_its_entry_also_of_a_run_of_older_code(begun, tmp_path):
    del begun.config["starts"]
    begun.record_start(start_of(gen_lr=1e-4), {})
    starts = config_of(tmp_path)["starts"]
    assert [start["first_epoch"] for start in starts] == [1, 2]
    assert [start["flags"]["gen_lr"] for start in starts] == [1e-3, 1e-4]
    assert config_of(tmp_path)["split"]["validation"] == ["c"]


def test_pieces_are_kept_for_the_test_where_that_is_asked():
    names = [f"p{number}" for number in range(40)]
    where = ["--dataset_path", "x", *PAIR, "--validation_split", "0.1"]
    parser = cli.Parser("")
    add_training_flags(parser)
    without = setup.choose_split(parser.parse_args(where), names)
    split = setup.choose_split(parser.parse_args([*where, "--test_split", "0.2"]), names)
    assert without.keys() == {"train", "validation"}
    assert split["validation"] == without["validation"]
    assert split["test"]
    assert sorted(split["train"] + split["test"]) == sorted(without["train"])


@pytest.mark.parametrize(
    ("table", "advice"), [(None, "raise --validation_split"), ("maestro.csv", "give more music")]
)
def test_the_advice_for_one_held_out_piece_is_of_use(capsys, table, advice):
    args = SimpleNamespace(maestro_split=table, split_of=None)
    setup.warn_of_one_piece(args, ["waltz", "etude"])
    assert capsys.readouterr().out == ""
    setup.warn_of_one_piece(args, ["waltz"])
    assert capsys.readouterr().out.endswith(f"{advice}\n")


def test_a_resumed_run_keeps_its_split(begun, capsys):
    assert begun.known_split(["a", "b", "c", "new"]) == {"train": ["a", "b"], "validation": ["c"]}
    assert "left out, newer than this run: 1 pieces" in capsys.readouterr().err
    with pytest.raises(UserError, match="trained with 1 pieces that are missing now, such as b"):
        begun.known_split(["a", "c"])


def test_weights_that_do_not_fit_are_an_error_and_not_a_warning(tmp_path):
    """Keras only warns where the optimiser's state is of other variables."""
    generator = models.compiled_generator(1, 1e-3)
    generator.optimizer.build(generator.trainable_variables)
    path = tmp_path / "w.weights.h5"
    generator.save_weights(path)
    other = models.build_generator(1)
    other.compile(keras.optimizers.SGD(1e-3), loss="mae")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises((UserWarning, ValueError)):
        run_folder.load_weights(other, path)


def test_flags_that_would_break_a_run_are_refused(copied, features):
    where = ["--dataset_path", features, "--runs_path", copied.parent]
    code, _, errors = run_main(train, *where, *PAIR, *SMALL, "--filters", 3)
    assert code == 2
    assert "--filters 2, now 3" in last_line(errors)


def test_fresh_starts_over_and_deletes_only_runs(copied, features):
    where = ["--dataset_path", features, "--runs_path", copied.parent, *PAIR, *SMALL, *SILENT]
    changed = ["--fresh", "--filters", 1, "--epoch_offset", 10, "--epochs", 1]
    code, _, errors = run_main(train, *where, *changed)
    assert code == 0, errors
    assert [row["epoch"] for row in history(copied)] == ["11"]
    assert not (copied / "previews").exists()
    users = copied.parent / f"{ORIGIN}_2_{TARGET}_generator"
    (users / "last").mkdir(parents=True)
    (users / "mine.txt").write_text("x")
    with run_folder.Run(users, fresh=True).locked():
        assert (users / "mine.txt").exists()


def test_a_second_training_in_one_folder_is_refused_and_names_the_first(copied, features):
    where = ["--dataset_path", features, "--runs_path", copied.parent]
    with lock(copied):
        code, _, errors = run_main(train, *where, *PAIR, *SMALL, "--epochs", 4)
    assert code == 2
    assert f"process {os.getpid()} on " in last_line(errors)
    assert len(history(copied)) == 3


def test_damaged_weights_of_the_last_epoch_cost_one_epoch(undisturbed, copied, features):
    (copied / "last/epoch_0003.weights.h5").write_bytes(b"\0" * 100)
    where = ["--dataset_path", features, "--runs_path", copied.parent, *SILENT]
    code, output, errors = run_main(train, *where, *PAIR, *SMALL, "--epochs", 3)
    assert code == 0, errors
    assert "using the epoch before" in output
    assert history(copied) == history(undisturbed[0])
    assert_same_state(copied, undisturbed[0])


def test_damaged_state_is_refused(tmp_path):
    (tmp_path / "last").mkdir()
    (tmp_path / "last/state.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        run_folder.Run(tmp_path)


def test_an_epoch_is_on_the_disk_before_the_state_names_it(tmp_path, monkeypatch):
    """Every file, and the folders that list them, in this order."""
    written = []
    monkeypatch.setattr(
        run_folder.os, "fsync", lambda descriptor: written.append(descriptor_path(descriptor))
    )
    replace = os.replace

    def note(source, target):
        written.append(f"-> {os.path.basename(target)}")
        replace(source, target)

    monkeypatch.setattr(cli.os, "replace", note)
    model = models.compiled_generator(1, 1e-3)
    model.optimizer.build(model.trainable_variables)
    run_folder.Run(tmp_path).commit(model, {"epoch": 1, "val_mae_db": 1.0})
    state = written.index("-> state.json")
    weights = written.index("-> epoch_0001.weights.h5")
    assert written.index("-> generator.keras") < weights < state
    for before in (0, weights - 1, state - 1):  # on the disk before they get their names
        assert ".part-" in written[before]
    assert {str(tmp_path), str(tmp_path / "last")} <= set(written[weights:state])
    assert str(tmp_path / "last") in written[state:]


def descriptor_path(descriptor):
    return os.readlink(f"/proc/self/fd/{descriptor}")


# Starting from other weights


def test_short_epochs_falling_rates_and_given_weights(undisturbed, features, tmp_path):
    given = ["--weights", undisturbed[0], "--gen_lr", 1e-9, "--disc_lr", 1e-9]
    short = ["--epoch_tiles", 3, "--decay_epochs", 1, "--epochs", 2]
    where = ["--dataset_path", features, "--runs_path", tmp_path, *PAIR, *SMALL, *SILENT]
    code, _, errors = run_main(train, *where, *short, *given)
    assert code == 0, errors
    run = tmp_path / RUN
    with h5py.File(run / "last/epoch_0002.weights.h5") as file:
        assert file["optimizer/vars/0"][()] == 2  # steps: one of three tiles, in each epoch
    assert [row["gen_lr"] for row in history(run)] == ["1e-09", "5e-10"]
    before, after = (model_files.load_generator(r).get_weights() for r in (undisturbed[0], run))
    for a, b in zip(before, after):
        if a.ndim == 4:
            assert np.abs(a - b).max() < 1e-6  # at such rates the given weights stay
    (start,) = config_of(run)["starts"]
    assert start["weights_sha256"] == setup.hash_model(undisturbed[0])


def test_training_for_a_time_ends_with_a_saved_epoch_and_is_then_done(features, tmp_path):
    flags = ["--dataset_path", features, *PAIR, *SMALL, *SILENT, "--runs_path", tmp_path]
    flags += ["--minutes", 0.05, "--lr", 1e-3]  # 3 s: the first steps take longer
    code, output, _ = run_main(train_generator, *flags)
    assert code == 0
    assert "--minutes 0.05 are over" in output
    rows = history(tmp_path / f"{RUN}_generator")
    assert 1 <= len(rows) < 100
    assert (tmp_path / f"{RUN}_generator" / "generator.keras").is_file()
    code, _, _ = run_main(train_generator, *flags)  # the time is over
    assert code == 0
    assert history(tmp_path / f"{RUN}_generator") == rows


def test_rates_fall_in_the_second_half_of_the_time():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    for trained, share in ((0, 1), (29, 1), (45, 0.5), (60, 0)):
        limit = callbacks.TimeLimit(1, lambda seconds=trained: seconds)
        limit.set_model(model)
        model.optimizer.learning_rate = 0.1
        limit.on_train_begin()
        limit.on_epoch_begin(0)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.1 * share, abs=2e-3)


def test_time_is_over_in_a_run_when_a_later_start_would_say_so():
    seconds = 59.9  # that the complete epochs took
    limit = callbacks.TimeLimit(1, lambda: seconds)
    limit.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1), stop_training=0))
    limit.on_train_begin()
    limit.on_epoch_begin(0)
    limit.on_train_batch_end(0)
    assert not limit.model.stop_training
    seconds = 60.0
    limit.on_epoch_end(0)
    assert limit.model.stop_training


def test_weights_of_another_width_or_kind_are_refused(tmp_path):
    plain = models.build_generator(2)
    wide = models.build_generator(3)
    turning = models.build_generator(2, PHASE)
    for network, reason in (
        (wide, "has width 3; give --filters 3"),
        (turning, "is a model of another kind"),
    ):
        model_files.save_generator(network, tmp_path / "w.keras")
        with pytest.raises(UserError, match=reason):
            setup.load_start(tmp_path / "w.keras", 2, plain.kind)


def test_it_is_said_how_many_held_out_pieces_given_weights_were_trained_on(tmp_path, capsys):
    other = {"flags": {}, "split": {"train": ["a", "b~t+1", "c"], "validation": ["d"]}}
    write_json(tmp_path / "config.json", other)
    setup.tell_overlap(tmp_path, {"train": ["c", "d"], "validation": ["a", "b"]})
    said = capsys.readouterr().err
    assert "trained on 2 of the 2 held-out pieces" in said and f"--split_of {tmp_path}" in said
    setup.tell_overlap(tmp_path, {"train": ["a", "c"], "validation": ["d", "e"]})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("split", [{"train": 5}, {"left": ["a"], "validation": ["b"]}])
def test_a_split_to_follow_that_is_damaged(tmp_path, split):
    write_json(tmp_path / "config.json", {"flags": {}, "split": split})
    (tmp_path / "generator.keras").touch()
    flags = ["--dataset_path", "x", *PAIR, "--split_of", str(tmp_path)]
    args = train.build_parser().parse_args(flags)
    with pytest.raises(UserError, match=r"--split_of .*: damaged; give another"):
        setup.choose_split(args, ["a", "b"])


# Several origins, and the rest of the flags


def test_many_origins_one_target_and_a_stranger(features, tmp_path):
    made = shutil.copytree(features, tmp_path / "features")
    for number in (1, 2):
        other = shutil.copytree(features / ORIGIN, made / f"{ORIGIN}_00{number}")
        for path in other.rglob("*.npy"):
            np.save(path, np.load(path) / np.float16(1 + number / 4))
    flags = ["--dataset_path", made, *SMALL, "--runs_path", tmp_path, "--epochs", 1]
    flags += ["--origin", ORIGIN, f"{ORIGIN}_001", "--hold_out_origin", f"{ORIGIN}_002"]
    code, output, errors = run_main(train_generator, *flags, "--target", TARGET, "--conditions")
    assert code == 0, errors
    run = tmp_path / "many_2_guitar_generator"
    config = config_of(run)
    assert config["flags"]["origin"] == [ORIGIN, f"{ORIGIN}_001"]
    assert "room" in config["flags"]["conditions"]
    (row,) = history(run)
    generator = model_files.load_generator(run)
    assert generator.input_shape[-1] == 1
    for column, origins in (
        ("val_mae_db", [ORIGIN, f"{ORIGIN}_001"]),
        ("unheard_mae_db", [f"{ORIGIN}_002"]),
    ):
        names = config["split"]["validation"]
        x, y = dataset.TilePairs(made, origins, TARGET, names, dataset.Batching(99))[0]
        error = np.asarray(losses.mae_db(y, generator.predict(x, verbose=0))).mean()
        assert float(row[column]) == pytest.approx(error, rel=1e-4)
    assert f"unheard origin {float(row['unheard_mae_db']):5.2f} dB" in output
    assert (run / "previews/epoch_001/spectrogram.png").exists()


def test_origins_with_pieces_of_their_own(features, tmp_path):
    """Each origin lacks some pieces; of the one that is shown first, two lack it."""
    made = shutil.copytree(features, tmp_path / "features")
    for name in ("organ_electronic", "flute_acoustic"):
        shutil.copytree(features / ORIGIN, made / name)
    flags = ["--dataset_path", made, *SMALL, "--runs_path", tmp_path, "--epochs", 1]
    flags += ["--origin", ORIGIN, "organ_electronic", "--target", TARGET]
    flags += ["--validation_split", 0.8, "--family_share", f"{ORIGIN}=0.4"]
    training, held_out = splits.split_pieces(["bach/one", "bach/two", "four", "three"], 0.8)
    assert len(held_out) > 1
    (made / "organ_electronic" / f"{training[0]}.npy").unlink()
    for name in (ORIGIN, "flute_acoustic"):
        (made / name / f"{held_out[0]}.npy").unlink()
    flags += ["--hold_out_origin", "flute_acoustic"]
    code, _, errors = run_main(train_generator, *flags)
    assert code == 0, errors
    assert "no partner" not in errors
    run = tmp_path / "many_2_guitar_generator"
    assert config_of(run)["split"] == {"train": training, "validation": held_out}
    (row,) = history(run)
    assert float(row["unheard_mae_db"]) > 0
    about = json.loads((run / "previews/epoch_001/about.json").read_text())
    assert about["piece"] == held_out[0] and about["origin"] == "organ_electronic"


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        ("organ_acoustic=0.3", "is not a share of an origin's family"),
        (f"{ORIGIN}=1.5", "is not a share"),
        (ORIGIN, "is not a share"),
    ],
)
def test_shares_that_are_none(features, tmp_path, share, reason):
    flags = ["--dataset_path", features, *PAIR, *SMALL, "--runs_path", tmp_path]
    code, _, errors = run_main(train, *flags, "--family_share", share)
    assert code == 2
    assert f"--family_share {share}: {reason}" in last_line(errors)


def test_shares_that_add_up_to_one():
    """0.33 + 0.56 + 0.11 is more than 1 in floating point."""
    shares = {"piano_a": 0.33, "organ_a": 0.56, "harp_a": 0.11}
    assert sum(shares.values()) > 1
    texts = [f"{family}={share}" for family, share in shares.items()]
    args = SimpleNamespace(family_share=texts, target=["a"], origin=list(shares))
    assert setup.read_shares(args) == shares
    args.family_share[0] = "piano_a=0.34"
    with pytest.raises(UserError, match="add up to more than 1"):
        setup.read_shares(args)
    args.family_share[1] = "piano_a=0.1"
    with pytest.raises(UserError, match="piano_a is named twice"):
        setup.read_shares(args)


def test_conditions_that_there_are_not(features, tmp_path):
    flags = ["--dataset_path", features, *PAIR, *SMALL, "--runs_path", tmp_path]
    code, _, errors = run_main(train, *flags, "--conditions", "rain")
    assert code == 2
    assert "--conditions rain: no such condition; choose from " in last_line(errors)
    assert list(tmp_path.iterdir()) == []


def test_generator_alone(features, tmp_path):
    flags = ["--dataset_path", features, *PAIR, *SMALL, *SILENT, "--runs_path", tmp_path]
    flags += ["--cache", "--epochs", 1]
    if importlib.util.find_spec("tensorboard") and importlib.util.find_spec("tensorflow"):
        flags.append("--tensorboard")
    code, _, errors = run_main(train_generator, *flags)
    assert code == 0, errors
    run = tmp_path / f"{RUN}_generator"
    (row,) = history(run)
    assert "disc_loss" not in row and row["lr"] == "0.0005"
    assert not (run / "discriminator.keras").exists()
    assert bool(list(run.rglob("events*"))) == ("--tensorboard" in flags)
    assert (
        model_files.load_generator(run).count_params() == models.build_generator(2).count_params()
    )


def test_tensorboard_shows_numbers_pictures_and_sounds_at_the_epochs_numbers(copied):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("tensorflow")
    code, _, errors = run_main(train, "--resume", copied, "--epochs", 5, "--tensorboard")
    assert code == 0, errors
    events = accumulator.EventAccumulator(str(copied / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    for name in ("gen_lr", "disc_lr", "val_mae_db", "preview", "output"):
        assert [event.step for event in events.Tensors(name)] == [4, 5], name
    for name in ("input", "target"):  # the same sounds for all epochs: a megabyte each
        assert [event.step for event in events.Tensors(name)] == [4], name


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(copied, features, tmp_path):
    before = arrays_in(copied / "last/epoch_0003.weights.h5")
    bad = shutil.copytree(features, tmp_path / "features")
    for path in (bad / TARGET).rglob("*.npy"):
        np.save(path, np.full_like(np.load(path), np.nan))
    flags = ["--dataset_path", bad, *PAIR, *SMALL, "--runs_path", copied.parent, "--epochs", 4]
    code, _, errors = run_main(train, *flags)
    assert code == 2
    assert "lower the learning rates" in last_line(errors)
    after = arrays_in(copied / "last/epoch_0003.weights.h5")
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert len(history(copied)) == 3


def test_a_loss_that_is_not_finite_is_seen_where_callbacks_run_late(tmp_path, features):
    """The epoch ends before the steps' own callbacks have looked at the loss."""
    pairs = dataset.TilePairs(features, [ORIGIN], TARGET, ["three"], dataset.Batching(1))
    session = callbacks.Session(run_folder.Run(tmp_path), pairs, preview=None)
    session.on_train_begin()
    session.on_epoch_begin(0)
    session.on_test_begin()
    with pytest.raises(UserError, match="epoch 1: the loss is nan; lower the learning rates"):
        session.on_epoch_end(0, {"loss": float("nan"), "mae_db": 1.0, "val_mae_db": 1.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("disc_loss", "hint"), [(1.386, "at chance"), (0.05, "too strong"), (1.0, None)]
)
def test_hints(disc_loss, hint):
    row = dict.fromkeys([*run_folder.FIRST_COLUMNS, "gan_loss"], 1) | {"disc_loss": disc_loss}
    line = callbacks.format_epoch(row, 9, best=True)
    assert (hint in line) if hint else ("(" not in line)


@pytest.mark.parametrize(
    ("origins", "target", "name"),
    [
        (["a"], "b", "a_2_b"),
        (["a", "c"], "b", "many_2_b"),
        (["a", "c"], "string_acoustic", "many_2_strings"),
        (["a"], "string_acoustic", "a_2_string_acoustic"),
    ],
)
def test_the_run_folders_name(origins, target, name):
    given = ["--dataset_path", "x", "--origin", *origins, "--target", target]
    args = train.build_parser().parse_args(given)
    assert name_folder(args).name == name
    assert name_folder(args, "_generator").name == f"{name}_generator"


def test_all_origins_are_every_instrument_but_the_target(features, tmp_path):
    made = shutil.copytree(features, tmp_path / "features")
    shutil.copytree(features / ORIGIN, made / f"{ORIGIN}_001")
    shutil.copytree(features / ORIGIN, made / "flute_acoustic")
    flags = ["--dataset_path", made, *SMALL, *SILENT, "--runs_path", tmp_path, "--epochs", 1]
    code, _, errors = run_main(train_generator, *flags, "--origin", "all", "--target", TARGET)
    assert code == 0, errors
    config = config_of(tmp_path / "many_2_guitar_generator")
    assert config["flags"]["origin"] == ["flute_acoustic", ORIGIN, f"{ORIGIN}_001"]
    (made / "empty").mkdir()
    flags[1] = made / "empty"
    code, _, errors = run_main(train, *flags, "--origin", "all", "--target", TARGET, "--name", "x")
    assert code == 2 and "--origin all: " in last_line(errors)


def test_a_run_folder_of_the_name_of_before_is_taken(tmp_path):
    (tmp_path / "many_2_guitar_acoustic").mkdir()
    given = ["--dataset_path", "x", "--origin", "a", "b", "--target", "guitar_acoustic"]
    args = train.build_parser().parse_args([*given, "--runs_path", str(tmp_path)])
    assert name_folder(args).name == "many_2_guitar_acoustic"
    assert name_folder(args, "_generator").name == "many_2_guitar_generator"


BAD_FLAGS = [
    ("--epochs", "0"),
    ("--batch_size", "x"),
    ("--gen_lr", "-1"),
    ("--validation_split", "1"),
]


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_flags(features, capsys, flags):
    with pytest.raises(SystemExit) as end:
        train.main(["--dataset_path", str(features), *PAIR, *flags])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and flags[0] in error


def test_a_batch_that_cannot_be_shared_out_is_refused():
    flags = ["--dataset_path", "x", *PAIR, "--batch_size", "3"]
    args = train.build_parser().parse_args(flags)
    with pytest.raises(UserError, match="cannot be divided among 2 GPUs; give a multiple of 2"):
        setup.check_flags(args, gpus=2)


def test_find_learning_rates(features, tmp_path):
    flags = ["--dataset_path", features, *PAIR, *SMALL, "--runs_path", tmp_path]
    code, output, errors = run_main(train, *flags, "--findlr", "True", "--findlr_steps", 12)
    assert code == 0, errors
    names = ["both.csv", "discriminator.csv", "generator.csv", "lr_finder.png"]
    assert sorted(os.listdir(tmp_path / RUN / "lr_finder")) == names
    assert os.listdir(tmp_path / RUN) == ["lr_finder"]  # no trace in the run
    assert "are too few for a reliable rate; give --findlr_steps 400" in output
    assert "--gen_lr" not in output.partition("parameters")[2]


# Names, resuming, what one sees


def test_fresh_deletes_nothing_where_the_weights_do_not_fit(copied, features, tmp_path):
    models.build_generator(3).save(tmp_path / "wide.keras")
    flags = ["--dataset_path", features, *PAIR, *SMALL, "--runs_path", copied.parent]
    code, _, errors = run_main(train, *flags, "--fresh", "--weights", tmp_path / "wide.keras")
    assert code == 2
    assert "has width 3; give --filters 3 or more" in last_line(errors)
    assert len(history(copied)) == 3


def test_a_fresh_run_may_begin_with_the_generator_that_it_replaces(copied, features):
    """The folder was deleted before the weights were read, and the run was lost."""
    sha256 = setup.hash_model(copied)
    flags = ["--dataset_path", features, *PAIR, *SMALL, *SILENT, "--runs_path", copied.parent]
    rates = ["--gen_lr", 1e-9, "--disc_lr", 1e-9]
    before = model_files.load_generator(copied).get_weights()
    flags += ["--epochs", 1, "--fresh", "--weights", copied]
    code, _, errors = run_main(train, *flags, *rates)
    assert code == 0, errors
    assert len(history(copied)) == 1
    assert config_of(copied)["starts"][0]["weights_sha256"] == sha256
    after = model_files.load_generator(copied).get_weights()
    kernels = [(a, b) for a, b in zip(before, after) if a.ndim == 4]
    assert all(np.abs(a - b).max() < 1e-6 for a, b in kernels)


def test_a_run_is_resumed_by_its_folder_alone_and_under_a_new_name(copied, tmp_path):
    copied = copied.rename(tmp_path / "my run #1")
    code, output, errors = run_main(train, "--resume", f"{copied}/", "--epochs", 4, *SILENT)
    assert code == 0, errors
    assert output.count("\nepoch ") == 1
    assert [row["epoch"] for row in history(copied)] == ["1", "2", "3", "4"]
    settings = config_of(copied)["flags"]
    assert settings["filters"] == 2
    assert settings["origin"] == [ORIGIN]
    assert "resume" not in settings
    assert (settings["name"], settings["runs_path"]) == ("my run #1", str(tmp_path))
    code, output, errors = run_main(train, "--resume", copied)
    assert code == 0, errors
    assert "nothing to train: the run is complete; to continue, give --epochs 8" in output
    code, output, errors = run_main(train, "--resume", copied, "--epochs", 3)  # fewer than it has
    assert code == 0, errors
    assert "to continue, give --epochs 8" in output


def test_a_run_that_goes_on_needs_no_table_of_its_split(features, tmp_path):
    where = ["--dataset_path", str(features), "--maestro_split", str(tmp_path / "gone.csv")]
    args = train.build_parser().parse_args([*PAIR, *where])
    with pytest.raises(UserError, match=r"gone\.csv"):
        check_dataset(args, tmp_path)
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "state.json").touch()
    check_dataset(args, tmp_path)
    args.fresh = True
    with pytest.raises(UserError, match=r"gone\.csv"):
        check_dataset(args, tmp_path)


def test_a_complete_run_says_for_how_many_minutes_it_goes_on():
    run = SimpleNamespace(
        history=[{"seconds": 84.0}], config={}, baselines={}, seconds_trained=lambda: 84.0
    )
    parser = train.build_parser()
    args = parser.parse_args(["--dataset_path", "x", "--origin", "a", "--target", "b"])
    for minutes, more in ((0.2, 3), (1.4, 3), (1, 3)):
        args.minutes = minutes
        with contextlib.redirect_stdout(io.StringIO()) as output:
            training = setup.Training(args, "train", kinds.PLAIN, run, 0, "float32")
            setup.introduce(training, models.build_generator(1), parser)
        assert f"to continue, give --minutes {more}" in output.getvalue()


@pytest.mark.parametrize("seconds", [5, 30])
def test_a_previews_pictures_are_as_long_as_its_sound(tmp_path, monkeypatch, capsys, seconds):
    """So that a click on a picture plays what it shows: a tile may reach beyond the sound."""
    shown = []
    monkeypatch.setattr(
        preview.pictures, "write_card_picture", lambda picture, path: shown.append(picture)
    )
    monkeypatch.setattr(preview.pictures, "write_spectrograms", lambda *_, **__: None)
    tiles = np.zeros((11, 256, 256, 1), np.float16)
    for instrument in (ORIGIN, TARGET):
        path = tmp_path / "features" / instrument / "piece.npy"
        path.parent.mkdir(parents=True)
        np.save(path, tiles)
        write_audio(tmp_path / "audios" / instrument / "piece.wav", np.zeros(44100 * seconds))
    args = train.build_parser().parse_args(
        ["--dataset_path", str(tmp_path / "features"), "--origin", ORIGIN, "--target", TARGET]
    )
    split = {"train": ["piece"], "validation": ["piece"]}
    monkeypatch.chdir(tmp_path / "audios")  # features without recordings must not take those here
    kept, gone = {"audios": str(tmp_path / "audios")}, {"audios": str(tmp_path / "gone")}
    for description, sounds in ((kept, True), (gone, False), ({}, False)):
        sets = SimpleNamespace(split=split, description=description)
        run = run_folder.Run(tmp_path / "run")
        training = setup.Training(args, "train", kinds.PLAIN, run, 0, "float32", sets)
        preview.Preview(training, identity)(1)
        heard = min(seconds, preview.PREVIEW_SECONDS) if sounds else preview.PREVIEW_SECONDS
        for picture in shown:
            assert abs(picture.shape[1] * 512 / 44100 - heard) < 0.02
        said = capsys.readouterr().err
        assert said == "" if sounds else "previews have no sound" in said
        assert len(shown) == 3
        shown.clear()


def test_a_folders_own_settings_are_the_defaults(copied, features):
    where = ["--dataset_path", features, "--runs_path", copied.parent]
    code, output, errors = run_main(train, *where, *PAIR, *SILENT, "--epochs", 4)  # no --filters
    assert code == 0, errors
    assert len(history(copied)) == 4
    assert "* filters           2   (default 64)" in output
    code, _, errors = run_main(train, *where, *PAIR, "--filters", 3)
    assert code == 2
    line = last_line(errors)
    assert line.index("--filters out to continue") < line.index("--name")
    assert "--fresh" not in line  # which would delete the run


def test_a_config_that_an_editor_saved_goes_on(copied):
    paths = copied / "config.json", copied / "last/state.json"
    texts = [path.read_text() for path in paths]

    def save(*encodings):
        for path, text, encoding in zip(paths, texts, encodings):
            path.write_text(text, encoding=encoding)

    save("utf-16", "utf-8-sig")
    code, output, errors = run_main(train, "--resume", copied)
    assert code == 0, errors
    assert "nothing to train: the run is complete" in output
    save("utf-8-sig", "utf-16")
    code, _, errors = run_main(train, "--resume", copied, "--epochs", 4, *SILENT)
    assert code == 0, errors
    assert len(history(copied)) == 4


@pytest.mark.parametrize("name", ["config.json", "last/state.json"])
def test_what_is_offered_for_a_damaged_run_loses_nothing(copied, name):
    (copied / name).write_text('{"fl')
    before = contents(copied)
    code, _, errors = run_main(train, "--resume", copied, "--epochs", 4)
    assert code == 2
    line = last_line(errors)
    assert f"{copied / name}: damaged; repair it" in line and f"--weights {copied}" in line
    assert "--fresh" not in line and "delete" not in line
    assert contents(copied) == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda content: content["flags"].update(epochs=["x"])),
        ("config.json", lambda content: content["flags"].update(cache="yes")),
        ("config.json", lambda content: content["flags"].update(precision="float8")),
        ("config.json", lambda content: content["flags"].update(origin={"a": 1})),
        ("config.json", lambda content: content.update(baselines_db={"identity": "7"})),
        ("last/state.json", lambda content: content.update(history=[5])),
        ("last/state.json", lambda content: content["history"][0].pop("seconds")),
    ],
)
def test_odd_values_in_the_files_of_a_run_are_told(copied, name, change):
    content = json.loads((copied / name).read_text())
    change(content)
    write_json(copied / name, content)
    code, _, errors = run_main(train, "--resume", copied, "--epochs", 4)
    assert code == 2
    assert f"{copied / name}: damaged; repair it" in last_line(errors)


def test_a_complete_run_without_baselines_is_told_to_be_complete(copied):
    config = config_of(copied)
    del config["baselines_db"]
    write_json(copied / "config.json", config)
    code, output, errors = run_main(train, "--resume", copied, *SILENT)
    assert code == 0, errors
    assert "nothing to train: the run is complete" in output


def test_hidden_folders_are_no_instruments(tmp_path):
    for name in (".ipynb_checkpoints", "organ_a_001", "organ_a", "guitar_a"):
        (tmp_path / name).mkdir()
    given = ["--dataset_path", str(tmp_path), "--origin", "all", "--target", "guitar_a"]
    args = train.build_parser().parse_args(given)
    assert expand_origins(args) == ["organ_a", "organ_a_001"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--resume", "nowhere"], "--resume nowhere: is not a run folder"),
        (["--resume", RUN, "--runs_path", "{run}/.."], "there are: {run}"),
        (["--resume", ""], "--resume .: is not a run folder"),
        (["--resume", "{run}"], "was trained by train.py; resume it with that script"),
        (["--dataset_path", "x", *PAIR, "--name", "a/b"], "--name a/b: is a path"),
        (["--dataset_path", "x", *PAIR, "--name", ".."], "--name ..: is the folder above"),
        (["--dataset_path", "x", *PAIR, "--name", ""], "--name '': is empty"),
        (["--dataset_path", "x", *PAIR], "--dataset_path x: no such folder"),
    ],
)
def test_what_cannot_be_resumed_or_named(copied, given, reason):
    given = [text.format(run=copied) for text in given]
    code, _, errors = run_main(train_generator, *given)
    assert code == 2
    assert reason.format(run=f"{copied}/../{RUN}") in last_line(errors)


def test_a_name_beside_resume_is_refused_with_the_way_to_begin_another_run(copied):
    code, _, errors = run_main(train, "--resume", copied, "--name", "other")
    assert code == 2
    assert f"--name other --weights {copied}" in last_line(errors)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--preview_piece", "sonata"], "--preview_piece sonata: matches 0"),
        (["--fresh", "--preview_piece", "sonata"], "--preview_piece sonata: matches 0"),
        (["--fresh", "--weights", "nowhere"], "nowhere: no such model"),
        (["--epoch_offset", 100], "was trained with --epoch_offset 0, now 100"),
        (["--ema", 0.999], "was trained with --ema 0.0, now 0.999"),
    ],
)
def test_a_wrong_flag_leaves_the_run_as_it_was(copied, wrong, reason):
    """Else the next --resume would take the wrong name over, or the run would be gone."""
    before = config_of(copied)
    code, _, errors = run_main(train, "--resume", copied, "--epochs", 4, *wrong)
    assert code == 2
    assert reason in last_line(errors)
    assert config_of(copied) == before
    assert len(history(copied)) == 3


def test_a_run_without_its_state_is_not_written_over(copied):
    """As pretrained/ has them, or a run that was copied without last/."""
    shutil.rmtree(copied / "last")
    before = (copied / "generator.keras").read_bytes()
    code, _, errors = run_main(train, "--resume", copied)
    assert code == 2
    line = last_line(errors)
    assert "last/state.json: is missing" in line
    assert f"--weights {copied}" in line and "--fresh" not in line
    assert (copied / "generator.keras").read_bytes() == before


def test_a_second_run_of_the_same_pair_has_a_name(copied, features):
    flags = ["--dataset_path", features, *PAIR, *SMALL, "--runs_path", copied.parent]
    code, output, errors = run_main(train, *flags, "--name", "other", "--preview_piece", "sonata")
    assert code == 2
    assert "--preview_piece sonata: matches 0 held-out pieces; give one of " in last_line(errors)
    name = config_of(copied)["split"]["validation"][-1]
    flags += ["--name", "other", "--epochs", 2, "--keep_every", 2, "--preview_piece", name]
    code, output, errors = run_main(train, *flags)
    assert code == 0, errors
    other = copied.parent / "other"
    assert os.listdir(other / "epochs") == ["epoch_0002.keras"]
    assert model_files.load_generator(other / "epochs/epoch_0002.keras").count_params() > 0
    about = json.loads((other / "previews/epoch_001/about.json").read_text())
    assert about == {"piece": name, "origin": ORIGIN, "target": TARGET}
    assert "verdict: " in output
    log = (other / "log.txt").read_text()
    for line in output.partition("settings")[2].splitlines()[1:]:
        assert line in log
    assert len(history(copied)) == 3  # the first run is what it was


def test_what_ends_a_run_is_in_its_log(tmp_path):
    with pytest.raises(UserError), run_folder.logged(tmp_path / "log.txt"):
        print("epoch 1")
        raise UserError("the disk is full")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0].endswith("  epoch 1")
    assert lines[1].endswith("  stopped: the disk is full")
    with pytest.raises(KeyboardInterrupt), run_folder.logged(tmp_path / "log.txt"):
        raise KeyboardInterrupt  # which has no text
    assert (tmp_path / "log.txt").read_text().endswith("  stopped: KeyboardInterrupt\n")


def test_a_wrong_name_is_found_before_the_backend_loads(features):
    command = [sys.executable, str(ROOT / "train.py"), "--dataset_path", str(features)]
    command += ["--origin", ORIGIN, "--target", "gitar"]
    program = f"import sys; sys.argv = {command[1:]!r}; import runpy\n"
    program += "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    program += "finally:\n    assert 'keras' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "gitar: no such instrument; there are:" in done.stderr


def test_another_width_is_refused_before_the_backend_loads(copied):
    command = ["train.py", "--resume", str(copied), "--filters", "3"]
    program = f"import sys; sys.argv = {command!r}; import runpy\n"
    program += f"try:\n    runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    program += "finally:\n    assert 'keras' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "was trained with --filters 2, now 3" in done.stderr


def test_what_was_read_ahead_for_another_epoch_is_not_given_out():
    pairs = two_devices.Numbered()
    batches = feeding.Batches(pairs, workers=2)
    assert np.unique(batches[0]) == [0]
    pairs.epoch = 3
    found = [batches[number] for number in range(len(batches))]
    assert np.unique(found) == [3]


def test_a_batch_is_read_once_and_ahead(monkeypatch):
    pairs = two_devices.Numbered()
    read = []
    monkeypatch.setattr(two_devices.Numbered, "__getitem__", lambda _, number: read.append(number))
    batches = feeding.Batches(pairs, workers=1)
    for number in range(len(pairs)):
        batches[number]
    assert read == list(range(len(pairs)))
    batches[0]
    batches.threads.shutdown()  # once what was begun is done
    assert len(read) == len(pairs) + batches.ahead


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of tf.data")
def test_no_epoch_waits_for_the_tuning_of_its_data_set():
    dataset = feeding.feed(two_devices.Numbered())
    assert dataset.options().autotune.enabled is False
    assert len(dataset) == len(two_devices.Numbered())


def test_an_epoch_is_trained_on_its_own_batches():
    """Those that Keras reads before the first one, for their shape, among them."""
    assert two_devices.epochs_read() == [2, 3, 4]


class FewPairs:
    batch_size = 1

    def __len__(self):
        return 1


def test_the_rest_of_the_run_is_told(tmp_path):
    run = run_folder.Run(tmp_path)
    run.history = [{"seconds": 100.0}, {"seconds": 90.0}]
    session = callbacks.Session(run, FewPairs(), preview=None)
    session.set_params({"epochs": 42})
    assert session._format_rest(1) == "1 h 00 min left"
    session.compile_seconds = 60.0  # which no other epoch of this start will take
    assert session._format_rest(1) == "20 min left"
    session.compile_seconds = 0.0
    session.minutes = 5
    assert session._format_rest(1) == "2 min left"
    assert session._format_rest(41) == ""


def test_the_bar_tells_how_long_the_whole_run_takes(tmp_path, monkeypatch):
    run = run_folder.Run(tmp_path)
    run.history = [{"seconds": 100.0}, {"seconds": 100.0}]
    session = callbacks.Session(run, FewPairs(), preview=None)
    session.set_params({"epochs": 12})
    session.start, session.tiles, session.seen = 1000.0, 400, 100
    monkeypatch.setattr(callbacks.time, "time", lambda: 1060.0)
    assert session._format_run() == "whole run 39 min left"  # 9.75 epochs of 240 s
    session.compile_seconds = 30.0
    assert session._format_run() == "whole run 20 min left"
    session.minutes = 5
    assert session._format_run() == "whole run 40 s left"
