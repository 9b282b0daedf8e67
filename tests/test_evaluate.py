import contextlib
import csv
import io
import itertools
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scripts import error_lines
from sounds import identity, music, shifted, tone

import data
import evaluate
from common.cli import UserError
from conversion import convert
from measuring import judges, metrics
from measuring.page import GroupPage
from measuring.pieces import (
    Candidate,
    Group,
    Piece,
    find_candidates,
    find_groups,
    find_median,
    find_names,
    find_pieces,
    read_pairs,
    read_piece,
    read_run,
    tell_left_out,
)
from measuring.rows import (
    MEASURED,
    OWN_PHASE,
    MeasuredSound,
    Settings,
    Systems,
    make_rows,
    measure,
    name_row,
    things_to_compare,
)
from report import listening
from sound import phase
from sound.recordings import read_audio, write_audio

ORIGIN, TARGET = "keyboard_acoustic", "guitar_acoustic"
PHASES = list(phase.ESTIMATORS)
OPTIONS = convert.Options(phase_iterations=3, overlap=0.5, batch_size=2)
SETTINGS = Settings(PHASES, OPTIONS)


def rows_of(model, audio, reference, median, settings=SETTINGS):
    systems = Systems({"model": model}, median, settings)
    return {row.name: row for row in make_rows(systems, audio, reference)}


def test_a_models_rows_have_its_own_pull():
    audio = music(30000)
    mine = SETTINGS._replace(phases=["griffinlim_anchored"], pulls={"model": 1.0})
    usual = mine._replace(pulls={})
    name = "model (phase: griffinlim_anchored)"
    own = rows_of(shifted, audio, None, None, mine)[name].audio
    other = rows_of(shifted, audio, None, None, usual)[name].audio
    options = OPTIONS._replace(phase="griffinlim_anchored", pull=1.0)
    converted = convert.convert_audio(shifted, audio, data.SAMPLE_RATE, options)
    np.testing.assert_allclose(own, converted, atol=1e-5)
    assert np.abs(own - other).max() > 0.001


def make_run(folder, train=("bach/one", "bach/two"), validation=("three", "four"), **more):
    folder.mkdir(parents=True, exist_ok=True)
    split = {"train": list(train), "validation": list(validation)}
    flags = {"origin": ORIGIN, "target": TARGET}
    flags.update(more.pop("flags", {}))
    config = {"flags": flags, "split": {**split, **more}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def parse(*flags):
    return evaluate.build_parser().parse_args(["--model", "run", *map(str, flags)])


def groups_of(args, *runs):
    candidates = []
    for run in runs:
        path = run.folder if run else Path("run")
        candidates.append(Candidate(path.name if len(runs) > 1 else "", path, run))
    return find_groups(args, candidates)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A run with an untrained generator of width 1."""
    import models

    folder = make_run(tmp_path_factory.mktemp("run"))
    models.build_generator(1).save(folder / "generator.keras")
    np.save(folder / "median.npy", np.full(256, 0.2, np.float32))
    return folder


# ---- Rows and measures


@pytest.mark.parametrize("name", phase.ESTIMATORS)
@pytest.mark.parametrize(("length", "hops", "offset"), [(1, 1, 0), (5000, 2, 0.1), (200_000, 1, 0)])
def test_model_rows_are_what_predict_writes(name, length, hops, offset):
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, length).astype(np.float32)
    audio += offset - audio.mean()

    def model(tiles):
        return tiles[:, ::-1] * np.float32(0.5)

    options = OPTIONS._replace(hops=hops)
    settings = Settings([name], options)
    found = rows_of(model, audio, None, None, settings)
    expected = convert.convert_audio(model, audio, data.SAMPLE_RATE, options._replace(phase=name))
    made = found[name_row("model", name)].audio
    np.testing.assert_allclose(made, expected, atol=1e-6)
    np.testing.assert_array_equal(found["identity"].audio, audio)
    np.testing.assert_allclose(found["identity"].asked, data.spectrogram(audio), atol=1e-3)


def test_rows_that_need_a_reference_or_a_median_are_left_out_without_it():
    audio, median = tone(seconds=1), np.full(256, 0.1, np.float32)
    own = [name_row("model", name) for name in PHASES]
    ceilings = [name_row("true magnitude", name) for name in PHASES]
    ceilings += [OWN_PHASE, "target"]
    assert list(rows_of(identity, audio, None, None)) == ["identity", *own]
    without_median = ["identity", "silence", *own, *ceilings]
    assert list(rows_of(identity, audio, audio, None)) == without_median
    everything = ["identity", "silence", "median picture", *own, *ceilings]
    assert list(rows_of(identity, audio, audio, median)) == everything


@pytest.mark.parametrize("reference", [None, Path("b.wav")])
def test_a_missing_median_is_told_where_its_row_would_be(capsys, reference):
    pieces = [Piece("a", Path("a.wav"), reference)]
    evaluate.tell_no_median(Group("", "", "", None, None, pieces))
    lines = error_lines(capsys.readouterr().err)
    assert len(lines) == (reference is not None)


def test_network_runs_once_a_piece():
    calls = []

    def model(tiles):
        calls.append(len(tiles))
        return tiles

    rows_of(model, tone(seconds=1), tone(seconds=1), None)
    assert len(calls) == 1


def test_finer_hops_are_compared_where_the_usual_frames_stand():
    audio, other = tone(seconds=1), tone(660, seconds=1)
    target = MeasuredSound(other)
    settings = Settings(["input"], OPTIONS._replace(hops=4))
    rows = rows_of(identity, audio, other, None, settings)
    for name in ("identity", "model (phase: input)"):
        expected = data.spectrogram(audio)
        np.testing.assert_allclose(rows[name].asked, expected, atol=1e-3)
    assert measure(rows["true magnitude (phase: input)"], target)["mae_db"] < 1e-2


def test_network_hears_the_training_loudness_and_its_answer_is_brought_back():
    heard = []

    def model(tiles):
        heard.append(tiles.max())
        return tiles

    settings = SETTINGS._replace(phases=["input"], level="match")
    for level in (1, 0.03):
        audio = tone(seconds=1) * np.float32(level)
        row = rows_of(model, audio, None, None, settings)["model (phase: input)"]
        np.testing.assert_allclose(row.asked, data.spectrogram(audio), atol=1e-3)
    assert heard[0] == pytest.approx(heard[1], abs=1e-3)


def test_network_that_diverged_is_a_users_mistake():
    with pytest.raises(UserError, match="NaN"):
        rows_of(lambda tiles: tiles * np.float32("nan"), tone(seconds=1), None, None)


def test_measures_of_a_perfect_and_of_a_silent_conversion():
    audio = tone(seconds=1)
    target = MeasuredSound(audio)
    rows = rows_of(identity, audio, audio, None)
    found = {name: measure(row, target) for name, row in rows.items()}
    perfect, silence = found[name_row("model", "input")], found["silence"]
    assert perfect["mae_db"] < 1e-3 and perfect["level_matched_db"] < 1e-3
    assert perfect["written_mae_db"] < 0.05 and perfect["convergence"] < 0.01
    assert perfect["lsd_db"] < 3
    black = metrics.picture_mae(0 * target.picture, target.picture)
    assert silence["mae_db"] == pytest.approx(black)
    assert silence["mfcc_distance"] == 1
    assert "reanalysis_db" not in silence and "convergence" not in found["identity"]
    with_snr = [name for name, measures in found.items() if "snr_db" in measures]
    assert with_snr == [OWN_PHASE]
    assert found[OWN_PHASE]["snr_db"] > 40
    keys = {column.key for column in MEASURED}
    for measures in found.values():
        assert set(measures) <= keys
        assert all(np.isfinite(value) for value in measures.values())


def test_the_target_has_no_error_by_any_measure():
    audio, other = tone(seconds=1), tone(660, seconds=1)
    rows = rows_of(identity, other, audio, None)
    found = measure(rows["target"], MeasuredSound(audio))
    assert set(found) >= {"mae_db", "level_matched_db", "lsd_db"}
    assert all(value == pytest.approx(0, abs=1e-3) for value in found.values())
    unchanged = measure(rows["identity"], MeasuredSound(audio))
    assert unchanged["lsd_db"] > 1


def test_every_measure_has_all_that_it_takes():
    audio = tone(seconds=1)
    rows = rows_of(identity, audio, audio, None)
    things = things_to_compare(rows[OWN_PHASE], MeasuredSound(audio))
    for column in (*metrics.MEASURES, *metrics.BAND_MEASURES):
        assert set(column.takes) <= set(things), column.key


# ---- Which pieces


def test_only_held_out_pieces_count_by_default(audios, tmp_path, capsys):
    run = read_run(make_run(tmp_path, validation=["three", "three~t2", "gone"]))
    found = find_pieces([run], ORIGIN, TARGET, audios)
    assert [piece.name for piece in found] == ["three"]
    assert "gone" in capsys.readouterr().err
    everything = find_pieces([run], ORIGIN, TARGET, audios, "all")
    assert [piece.name for piece in everything] == ["bach/one", "bach/two", "four", "three"]
    assert everything[0].source == audios / ORIGIN / "bach/one.wav"
    assert everything[0].reference == audios / TARGET / "bach/one.wav"


def test_test_side_is_a_table_of_its_own_where_there_is_one(audios, tmp_path):
    run = read_run(make_run(tmp_path, validation=["three"], test=["four"]))
    groups = groups_of(parse("--audios", audios), run)
    (validation,), (for_test,) = [group.pieces for group in groups]
    assert (validation.name, for_test.name) == ("three", "four")
    assert [group.folder for group in groups] == ["", "test"]
    assert "kept for the test" in groups[1].title
    for side, name in (("validation", "three"), ("held_out", "three"), ("test", "four")):
        (group,) = groups_of(parse("--audios", audios, "--pieces", side), run)
        assert [piece.name for piece in group.pieces] == [name] and group.folder == ""
    without = read_run(make_run(tmp_path, validation=["three"]))
    with pytest.raises(UserError, match="--pieces test: this run kept none"):
        groups_of(parse("--audios", audios, "--pieces", "test"), without)


def test_each_origin_is_a_table_of_its_own(audios, tmp_path):
    shutil.copytree(audios, tmp_path / "audios")
    for name in ("piano_acoustic", "grand_acoustic"):
        shutil.copytree(audios / ORIGIN, tmp_path / "audios" / name)
    flags = {"origin": [ORIGIN, "piano_acoustic"], "hold_out_origin": "piano_acoustic"}
    run = read_run(make_run(tmp_path / "run", flags=flags))
    assert run.origins == [ORIGIN] and run.unheard == ["piano_acoustic"]
    groups = groups_of(parse("--audios", tmp_path / "audios"), run)
    assert [group.origin for group in groups] == [ORIGIN, "piano_acoustic"]
    assert ["never heard" in group.title for group in groups] == [False, True]
    assert [group.folder for group in groups] == [ORIGIN, "piano_acoustic"]
    chosen = parse("--audios", tmp_path / "audios", "--origin", "grand_acoustic")
    (group,) = groups_of(chosen, run)
    assert group.origin == "grand_acoustic"
    assert group.pieces[0].source == tmp_path / "audios/grand_acoustic/three.wav"


def test_origin_and_target_that_do_not_fit_are_said(audios, tmp_path):
    run = read_run(make_run(tmp_path))
    both = parse("--audios", audios, "--origin", TARGET, "--target", TARGET)
    with pytest.raises(UserError, match=f"--target {TARGET}: is the origin"):
        groups_of(both, run)
    for flag in ("--origin", "--target"):
        with pytest.raises(UserError, match=f"{flag}: needs --audios_path"):
            groups_of(parse("--inputs", audios, flag, "organ"), run)


def test_pieces_that_are_not_there_are_a_users_mistake(audios, tmp_path):
    with pytest.raises(UserError, match="--pairs or --inputs"):
        groups_of(parse("--audios", audios), None)
    run = read_run(make_run(tmp_path, validation=["gone"]))
    with pytest.raises(UserError, match="none of these pieces"):
        find_pieces([run], ORIGIN, TARGET, audios)
    with pytest.raises(UserError, match="no such folder"):
        find_pieces([run], "flute", TARGET, audios)


def test_damaged_config_is_said(tmp_path):
    inner = '{"flags": {}, "split": {}}', '{"flags": {"origin": 1, "target": "a"}, "split": {}}'
    for text in ("{", "[]", '{"flags": {}}', *inner):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match="damaged"):
            read_run(tmp_path)


def test_pairs_are_read_relative_to_their_file(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        'input,reference\nsub/a.wav, b.wav\n\n"with, comma.wav",\nc.wav\n', encoding="utf-8"
    )
    assert read_pairs(path) == [
        ("sub/a.wav", tmp_path / "sub/a.wav", tmp_path / "b.wav"),
        ("with, comma.wav", tmp_path / "with, comma.wav", None),
        ("c.wav", tmp_path / "c.wav", None),
    ]


def test_pairs_as_spreadsheets_write_them(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"\xef\xbb\xbfinput;reference\r\na.wav;b.wav\r\na.wav;c.wav\r\n")
    assert read_pairs(path) == [
        ("a.wav", tmp_path / "a.wav", tmp_path / "b.wav"),
        ("a.wav (2)", tmp_path / "a.wav", tmp_path / "c.wav"),
    ]


@pytest.mark.parametrize(
    "content", [b"", b"input,reference\n", b"a,b,c\n", b",b\n", b"\xff\xfe\x00", b"a\x00b\n"]
)
def test_bad_pairs_are_said_in_one_line(tmp_path, content):
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"pairs\.csv"):
        read_pairs(path)
    with pytest.raises(UserError):
        read_pairs(tmp_path / "missing.csv")


def test_pairs_of_different_lengths_are_refused(tmp_path):
    for name, seconds in (("a", 1.0), ("near", 0.995), ("short", 0.5), ("empty", 0)):
        write_audio(tmp_path / f"{name}.wav", tone(seconds=seconds))

    def read(first, second):
        return read_piece(Piece("x", tmp_path / f"{first}.wav", tmp_path / f"{second}.wav"))

    audio, reference = read("a", "near")
    assert len(audio) == len(reference) == round(0.995 * data.SAMPLE_RATE)
    for first, second in (("a", "short"), ("short", "a")):
        with pytest.raises(UserError, match=rf"{second}\.wav: lasts .*{first}\.wav"):
            read(first, second)
    with pytest.raises(UserError, match=r"/empty\.wav: has no samples"):
        read("a", "empty")
    with pytest.raises(UserError, match=r"/empty\.wav: has no samples"):
        read("empty", "a")


def test_score_of_a_name_with_a_dot_is_not_anothers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(judges, "score_notes", lambda path, seconds: (path.name, ""))
    scores = {"sonata": tmp_path / "sonata.mid", "bach/two": tmp_path / "two.mid"}
    notes = {}
    for name in ("sonata", "sonata.1", "sonata.1.wav", "sonata.wav", "bach/two", "two.wav"):
        notes[name] = evaluate.read_notes(scores, Piece(name, None, None), 1)
    assert notes["sonata"] == notes["sonata.wav"] == "sonata.mid"
    assert notes["sonata.1"] is None and notes["sonata.1.wav"] is None
    assert notes["bach/two"] == "two.mid" and notes["two.wav"] is None
    assert "no score of sonata.1:" in capsys.readouterr().err


def test_a_damaged_score_is_read_and_told_or_left_out_and_told(tmp_path, capsys):
    track = bytes.fromhex("00903c40 8360803c40 00903e40")  # the second note never ends
    head = b"MThd" + (6).to_bytes(4, "big") + bytes.fromhex("0000 0001 01e0")
    content = head + b"MTrk" + len(track).to_bytes(4, "big") + track
    scores = {name: tmp_path / f"{name}.mid" for name in ("cut", "bad", "gone")}
    scores["cut"].write_bytes(content)
    scores["bad"].write_bytes(b"no score")
    _, pitches = evaluate.read_notes(scores, Piece("cut", None, None), 10)
    assert pitches[0] == pytest.approx(261.63, abs=0.01)
    assert "cut.mid: repaired:" in capsys.readouterr().err
    assert evaluate.read_notes(scores, Piece("bad", None, None), 10) is None
    err = capsys.readouterr().err
    assert "note F1 is left out" in err and "bad.mid" in err
    assert evaluate.read_notes(scores, Piece("gone", None, None), 10) is None
    assert "note F1 is left out" in capsys.readouterr().err


def test_median_is_the_runs_or_of_the_training_targets(audios, run_folder, tmp_path):
    run = read_run(run_folder)
    assert find_median(run, TARGET, audios) == pytest.approx(0.2)
    run = read_run(make_run(tmp_path))
    found = find_median(run, TARGET, audios)
    pictures = []
    for name in run.split["train"]:
        pictures.append(data.spectrogram(read_audio(audios / TARGET / f"{name}.wav")))
    expected = np.median(np.concatenate(pictures, axis=1), axis=1)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert find_median(run, TARGET, None) is None
    assert find_median(None, TARGET, audios) is None


# ---- The command


def table_rows(text):
    """The first cells of each Markdown table in a text: a list of lists."""
    found, before = [], False
    for line in text.splitlines():
        is_row = line.startswith("|")
        if is_row and not before:
            found.append([])
        if is_row:
            found[-1].append(line.split("|")[1].strip())
        before = is_row
    return [table[2:] for table in found]


def first_and_last(text):
    """`table_rows` of values and of differences; wide tables and bands repeat the same rows."""
    tables = table_rows(text)
    values, differences = tables[0], tables[-1]
    count = tables.index(differences)
    assert tables == [values] * count + [differences] * (len(tables) - count)
    return values, differences


def test_command_evaluates_held_out_pieces_and_writes_all_it_promises(
    audios, run_folder, tmp_path, capsys
):
    page, out = tmp_path / "page", tmp_path / "out"
    flags = ["--model", run_folder, "--audios_path", audios, "--phase", "input", "griffinlim"]
    flags += ["--phase_iterations", 2, "--output", out]
    flags += ["--report", page, "--report_seconds", 1]
    assert evaluate.main([*map(str, flags), "--gpu", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "2 pieces held out from training: three, four" in printed
    own = ["model (phase: input)", "model (phase: griffinlim)"]
    true = ["true magnitude (phase: input)", "true magnitude (phase: griffinlim)"]
    rows = ["identity", "silence", "median picture", *own, *true, OWN_PHASE, "target"]
    table, paired = first_and_last(printed)
    assert table == rows
    assert "8 – 11 kHz" in printed
    assert paired == [f"{own[0]} − identity", f"{own[1]} − {own[0]}", f"{true[1]} − {true[0]}"]

    with open(out / "results.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    names = [(line["piece"], line["row"]) for line in lines]
    assert names == list(itertools.product(("three", "four"), rows))
    written = json.loads((out / "results.json").read_text())
    errors = {}
    for row in ("identity", own[0]):
        errors[row] = [float(line["mae_db"]) for line in lines if line["row"] == row]
        assert written["rows"][row]["mae_db"]["mean"] == pytest.approx(np.mean(errors[row]))
    assert written["rows"]["identity"]["mae_db"]["n"] == 2
    difference = written["differences"][f"{own[0]} − identity"]["mae_db"]
    expected = np.subtract(errors[own[0]], errors["identity"])
    assert difference["mean"] == pytest.approx(expected.mean())
    assert difference["spread"] == pytest.approx(expected.std(ddof=1))

    text = (page / "index.html").read_text(encoding="utf-8")
    assert text.count('class="play"') == 2 * 5
    assert len(read_audio(page / "piece01_2.flac")) == data.SAMPLE_RATE


def test_seconds_measures_the_beginning_of_each_piece(audios, run_folder, tmp_path, capsys):
    """The same figures as of files that end there, and both pages and tables say so."""
    for folder in audios.iterdir():
        for path in folder.glob("*.wav"):
            short = tmp_path / "short" / folder.name / path.name
            short.parent.mkdir(parents=True, exist_ok=True)
            write_audio(short, read_audio(path)[: data.SAMPLE_RATE])
    shown = []
    for name, where, more in (("a", audios, ["--seconds", 1]), ("b", tmp_path / "short", [])):
        flags = ["--model", run_folder, "--audios_path", where, "--phase", "input"]
        flags += ["--output", tmp_path / name, "--report", tmp_path / name / "page", *more]
        assert evaluate.main([*map(str, flags), "--gpu", "cpu"]) == 0
        shown.append(capsys.readouterr().out)
    assert "three, four; the first 1 s of each" in shown[0]
    csvs = [(tmp_path / name / "results.csv").read_text() for name in "ab"]
    assert csvs[0] == csvs[1]
    assert json.loads((tmp_path / "a" / "results.json").read_text())["seconds"] == 1
    page = (tmp_path / "a" / "page" / "index.html").read_text(encoding="utf-8")
    assert "The first 1 s of each piece are here, and measured." in page  # not the usual 20 s


def test_pull_is_the_flags_or_the_models_own(run_folder):
    flags = ["--model", str(run_folder), "--inputs", "x", "--gpu", "cpu", "--phase", "input"]
    for more, pull in (([], phase.PULL), (["--pull", "0.3"], 0.3)):
        args = evaluate.build_parser().parse_args([*flags, *more])
        candidate = Candidate("", run_folder, None)
        _, settings = evaluate.load_models(args, [candidate])
        assert settings.pulls == {"model": pull}


def test_command_compares_origins(audios, run_folder, tmp_path, capsys):
    shutil.copytree(audios, tmp_path / "audios")
    shutil.copytree(audios / TARGET, tmp_path / "audios" / "grand_acoustic")
    flags = ["--model", run_folder, "--audios_path", tmp_path / "audios", "--limit", 1]
    flags += [
        "--origin",
        ORIGIN,
        "grand_acoustic",
        "--phase",
        "input",
        "--output",
        tmp_path / "out",
    ]
    assert evaluate.main([*map(str, flags), "--gpu", "cpu"]) == 0
    overview = table_rows(capsys.readouterr().out)[-1]
    assert len(overview) == 2 and "never heard" in overview[1] and "never" not in overview[0]
    with open(tmp_path / "out" / "overview.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines[0][1] == "picture MAE, dB: unchanged" and lines[2][1] == "0.00"
    for name in (ORIGIN, "grand_acoustic"):
        written = json.loads((tmp_path / "out" / name / "results.json").read_text())
        assert written["origin"] == name


def test_command_compares_families(audios, run_folder, tmp_path, capsys):
    """Two flutes that were never heard, and one piano that was, which is no family here."""
    shutil.copytree(audios, tmp_path / "audios")
    for name in ("flute_acoustic", "flute_acoustic_003"):
        side = TARGET if name == "flute_acoustic" else ORIGIN
        shutil.copytree(audios / side, tmp_path / "audios" / name)
    flags = ["--model", run_folder, "--audios_path", tmp_path / "audios", "--limit", 1]
    flags += ["--origin", ORIGIN, "flute_acoustic", "flute_acoustic_003", "--phase", "input"]
    flags += ["--output", tmp_path / "out", "--gpu", "cpu"]
    assert evaluate.main([*map(str, flags)]) == 0
    piano, _, _, family = table_rows(capsys.readouterr().out)[-1]
    assert "flute_acoustic → " in family and "mean of 2 instruments" in family
    assert "never heard" in family and "never heard" not in piano
    with open(tmp_path / "out" / "overview.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))[1:]
    found = [float(line[1].partition(" ")[0]) for line in lines]
    assert found[3] == pytest.approx((found[1] + found[2]) / 2, abs=0.006)
    assert lines[3][-1] == "2"


def test_command_compares_rooms_and_noises(audios, run_folder, tmp_path, capsys):
    flags = ["--model", run_folder, "--audios_path", audios, "--limit", 1, "--phase", "input"]
    flags += ["--output", tmp_path, "--conditions", "noise", "quiet"]
    assert evaluate.main([*map(str, flags), "--gpu", "cpu"]) == 0
    overview = table_rows(capsys.readouterr().out)[-1]
    assert [row.count("dB") for row in overview] == [0, 1, 1]
    assert "with noise at -60 dB" in overview[1]
    unchanged = []
    for folder in (".", "noise", "quiet"):
        written = json.loads((tmp_path / folder / "results.json").read_text())
        assert written["condition"] == (None if folder == "." else folder)
        unchanged.append(written["rows"]["identity"]["mae_db"]["mean"])
    assert len(set(unchanged)) == 3
    target = written["rows"]["target"]["mae_db"]["mean"]
    assert target == pytest.approx(0, abs=1e-3)  # which is as it was


def test_conditions_need_a_target(audios, run_folder, tmp_path, capsys):
    recording = next(audios.rglob("*.wav"))
    flags = ["--model", run_folder, "--inputs", recording, "--conditions", "room"]
    assert evaluate.main([*map(str, flags), "--output", str(tmp_path)]) == 2
    assert "--conditions: needs the target of every recording" in capsys.readouterr().err


def test_command_takes_recordings_without_reference(audios, run_folder, tmp_path, capsys):
    folder = tmp_path / "recordings"
    folder.mkdir()
    shutil.copy(audios / ORIGIN / "three.wav", folder)
    flags = ["--model", run_folder / "generator.keras", "--inputs", folder, "--phase", "input"]
    assert evaluate.main([*map(str, flags), "--output", str(tmp_path), "--gpu", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert table_rows(printed) == [["identity", "model (phase: input)"]]
    header = next(line for line in printed.splitlines() if line.startswith("|"))
    assert "MAE" not in header and "re-analysis" in header


@pytest.mark.skipif(os.name == "nt", reason="links, permissions")
def test_recordings_that_cannot_be_read_stop_no_other(
    audios, run_folder, tmp_path, capsys, powerless, monkeypatch
):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("a.wav", "b.wav", "c.wav", "d.wav"):
        shutil.copy(audios / ORIGIN / "three.wav", folder / name)
    (folder / "b.wav").chmod(0)
    (folder / "c.wav").write_bytes(b"no sound")
    (folder / "self").symlink_to("self")
    read = evaluate.read_piece

    def read_piece(piece, seconds):
        if piece.source.name == "d.wav":  # damaged in its middle
            raise UserError(f"{piece.source}: is damaged")
        return read(piece)

    monkeypatch.setattr(evaluate, "read_piece", read_piece)
    flags = ["--model", run_folder / "generator.keras", "--inputs", folder, "--phase", "input"]
    assert evaluate.main([*map(str, flags), "--output", str(tmp_path), "--gpu", "cpu"]) == 0
    printed = capsys.readouterr()
    for name in ("b.wav", "c.wav", "d.wav", "self"):
        assert printed.err.count(f"skipped: {folder / name}: ") == 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert f"left out, as they cannot be read: {folder / 'd.wav'}" in results["pieces"]
    measured = results["rows"]["model (phase: input)"].values()
    assert {cell["n"] for cell in measured} == {1}
    flags[3] = folder / "c.wav"
    assert evaluate.main([*map(str, flags), "--output", str(tmp_path), "--gpu", "cpu"]) == 2
    assert "skipped" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--audios_path", "no_such_folder"],
        ["--audios_path", "x", "--inputs", "y"],
        ["--inputs", "missing.wav"],
        ["--inputs", "missing.wav", "--phase", "magic"],
        ["--inputs", "missing.wav", "--overlap", "1"],
        ["--inputs", "missing.wav", "--target", "string_acoustic"],
        ["--inputs", "."],
        ["--pairs", "missing.csv"],
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run_folder, tmp_path, capsys, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)  # which holds no recording
    try:
        code = evaluate.main(
            ["--model", str(run_folder), "--output", str(tmp_path / "out"), "--gpu", "cpu", *flags]
        )
    except SystemExit as refused:
        code = refused.code
    lines = error_lines(capsys.readouterr().err)
    assert code == 2 and len(lines) == 1 and "error:" in lines[0], lines
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--output", "--report"])
def test_a_file_where_a_folder_goes_is_refused_before_the_work(
    audios, run_folder, tmp_path, capsys, monkeypatch, flag
):
    def load_models(args):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(evaluate, "load_models", load_models)
    (tmp_path / "file").write_text("the user's")
    recording = str(audios / ORIGIN / "three.wav")
    where = ["--model", str(run_folder), "--inputs", recording, "--output", str(tmp_path)]
    assert evaluate.main([*where, flag, str(tmp_path / "file")]) == 2
    assert f"{flag} {tmp_path / 'file'}" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "the user's"


# ---- Several models


def candidates_of(*folders):
    return find_candidates([str(folder) for folder in folders])


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Two runs, a and b, with untrained generators; b was trained on a piece that a held out."""
    import keras

    import models

    folder = tmp_path_factory.mktemp("two")
    validation = ["bach/two", "three", "four"]
    runs = [
        make_run(folder / "a", train=["bach/one"], validation=validation),
        make_run(folder / "b", validation=["four", "three"]),
    ]
    for seed, run in enumerate(runs):
        keras.utils.set_random_seed(seed)
        models.build_generator(1).save(run / "generator.keras")
        np.save(run / "median.npy", np.full(256, 0.2 + seed, np.float32))
    return runs


def test_rows_of_several_models_are_those_of_each():
    def brighter(tiles):
        return np.minimum(tiles + np.float32(0.1), 1)

    audio, other = tone(seconds=1), tone(660, seconds=1)
    settings = SETTINGS._replace(phases=["input", "flat"])
    models = {"model a": identity, "model b": brighter}
    rows = list(make_rows(Systems(models, None, settings), audio, other))
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.startswith("model")] == [
        *("model a (phase: input)", "model a (phase: flat)"),
        *("model b (phase: input)", "model b (phase: flat)"),
    ]
    found = dict(zip(names, rows))
    for label, model in (("a", identity), ("b", brighter)):
        alone = rows_of(model, audio, other, None, settings)
        assert len(alone) == len(rows) - 2
        for phase_name in settings.phases:
            expected = alone[name_row("model", phase_name)].audio
            made = found[name_row(f"model {label}", phase_name)].audio
            np.testing.assert_array_equal(made, expected)


OWN = [
    *("model a (phase: input)", "model a (phase: flat)"),
    *("model b (phase: input)", "model b (phase: flat)"),
]
TRUE = ["true magnitude (phase: input)", "true magnitude (phase: flat)"]
ROWS = ["identity", "silence", "median picture", *OWN, *TRUE, OWN_PHASE, "target"]
PAIRS = [  # what is compared: each with a row before it, its base
    (OWN[0], "identity"),
    (OWN[2], "identity"),
    (OWN[2], OWN[0]),
    (OWN[3], OWN[1]),
    (OWN[1], OWN[0]),
    (OWN[3], OWN[2]),
    (TRUE[1], TRUE[0]),
]
DIFFERENCES = [f"{row} − {other}" for row, other in PAIRS]


@pytest.fixture(scope="module")
def compared(audios, two_runs, tmp_path_factory):
    """What the command made of two models: stdout, stderr, folders of tables and of the page."""
    folder = tmp_path_factory.mktemp("compared")
    flags = ["--model", *two_runs, "--audios", audios, "--phase", "input", "flat"]
    flags += ["--output", folder / "out", "--report", folder / "page", "--report_seconds", 1]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert evaluate.main([*map(str, flags), "--gpu", "cpu"]) == 0
    return SimpleNamespace(
        out=out.getvalue(), err=err.getvalue(), tables=folder / "out", page=folder / "page"
    )


def read_table(path):
    """A CSV file's lines, by heading."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_models_are_compared_on_pieces_that_are_new_to_each(compared, two_runs):
    (told,) = [line for line in compared.err.splitlines() if "left out" in line]
    assert "1 piece; a was trained on 0, b was trained on 1" in told
    assert "2 pieces held out from training: three, four" in compared.out
    assert f"model b: {two_runs[1]}" in compared.out


def test_models_and_phases_are_rows_and_differences_of_one_table(compared):
    table, paired = first_and_last(compared.out)
    assert table == ROWS
    assert paired == DIFFERENCES


def test_each_models_results_are_written(compared, two_runs):
    lines = read_table(compared.tables / "results.csv")
    assert [line["row"] for line in lines] == ROWS * 2
    written = json.loads((compared.tables / "results.json").read_text())
    assert written["model"] == [str(run) for run in two_runs]


def test_differences_of_models_are_those_of_their_results(compared):
    errors = {row: [] for row in ROWS}
    for line in read_table(compared.tables / "results.csv"):
        errors[line["row"]].append(float(line["mae_db"]))
    lines = read_table(compared.tables / "differences.csv")
    cells = [line for line in lines if line["measure"] == "mae_db"]
    assert [cell["difference"] for cell in cells] == DIFFERENCES
    for cell, (row, other) in zip(cells, PAIRS):
        expected = np.subtract(errors[row], errors[other])
        assert float(cell["mean"]) == pytest.approx(expected.mean())
        assert float(cell["standard deviation"]) == pytest.approx(expected.std(ddof=1))
        assert cell["n"] == "2"
    assert float(cells[2]["mean"]) != 0


def test_models_are_heard_beside_each_other_on_the_page(compared):
    text = (compared.page / "index.html").read_text(encoding="utf-8")
    assert text.count('class="play"') == 2 * 8
    cards = re.findall(r'<(?:button|p) class="(?:play|label)".*?>(?:<kbd>.</kbd>)?(.*?)</', text)
    assert cards[:4] == ["Input: keyboard", "Output: a", "Output: b", "Target: guitar"]
    assert cards[4].startswith("Output: a minus target")
    assert cards[5].startswith("Output: b minus target")
    first, second = [read_audio(compared.page / f"piece01_{k}.flac") for k in (2, 3)]
    assert len(first) == len(second) == data.SAMPLE_RATE and not np.array_equal(first, second)


def test_models_named_twice_are_one(two_runs, tmp_path):
    a, b = two_runs
    assert [each.label for each in candidates_of(a, b, a)] == ["a", "b"]
    (alone,) = candidates_of(a, a.parent / "b" / ".." / "a")
    assert alone.label == "" and alone.path == a and alone.run.targets == [TARGET]
    same = [tmp_path / name / f"{ORIGIN}_2_{TARGET}" for name in ("long", "short")]
    for folder in same:
        shutil.copytree(a, folder)
    assert [each.label for each in candidates_of(*same)] == ["long_guitar", "short_guitar"]


def test_pieces_are_those_that_no_model_was_trained_on(tmp_path, capsys):
    a = make_run(tmp_path / "a", train=["p", "q"], validation=["r", "s", "t"], test=["u", "v"])
    b = make_run(tmp_path / "b", train=["p", "r~t+2"], validation=["q", "v", "s~t+2"], test=["u"])
    both = candidates_of(a, b)
    runs = [each.run for each in both]
    assert find_names(runs, "held_out") == ["s", "v"]
    assert find_names(runs, "test") == ["u"]
    assert find_names(runs[:1], "held_out") == ["r", "s", "t"]
    assert find_names(runs[:1], "test") == ["u", "v"]
    tell_left_out(both)
    told = capsys.readouterr().err
    assert "3 pieces; a was trained on 1, b was trained on 1" in told  # q, r; t is not b's at all
    tell_left_out(both[:1])
    assert capsys.readouterr().err == ""


def test_origins_are_those_in_common_and_who_never_heard_one_is_said(audios, tmp_path):
    shutil.copytree(audios, tmp_path / "audios")
    shutil.copytree(audios / ORIGIN, tmp_path / "audios" / "piano_acoustic")
    a = make_run(tmp_path / "a", flags={"origin": ["organ", "piano_acoustic", ORIGIN]})
    b = make_run(tmp_path / "b", flags={"origin": [ORIGIN, "piano_acoustic"]})
    args = parse("--audios", tmp_path / "audios")
    groups = find_groups(args, candidates_of(a, b))
    assert [group.origin for group in groups] == ["piano_acoustic", ORIGIN]
    make_run(b, flags={"origin": [ORIGIN, "piano_acoustic"], "hold_out_origin": ORIGIN})
    groups = find_groups(args, candidates_of(a, b))
    assert ["that b never heard" in group.title for group in groups] == [False, True]


@pytest.mark.parametrize(
    ("changes", "flags", "says"),
    [
        ({"flags": {"target": "string_acoustic"}}, [], "makes string_acoustic"),
        ({"flags": {"origin": "organ"}}, [], "converts from organ"),
        ({"train": ["three", "four"], "validation": ["bach/one"]}, [], "out in common"),
        ({"test": ["four"]}, ["--pieces", "test"], "kept none in common"),
    ],
)
def test_models_that_cannot_be_compared_are_refused_in_one_line(
    audios, run_folder, tmp_path, capsys, changes, flags, says
):
    other = make_run(tmp_path / "other", **changes)
    shutil.copy(run_folder / "generator.keras", other)
    out = tmp_path / "out"
    flags = ["--model", run_folder, other, "--audios", audios, "--output", out, *flags]
    assert evaluate.main([*map(str, flags), "--gpu", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line and "; " in line and not out.exists()
    assert str(other) in line or "--pieces" in line


def test_a_model_of_another_kind_is_named(audios, run_folder, tmp_path, capsys):
    import models
    from conversion import model_files
    from research import learned_phase

    other = make_run(tmp_path / "other")
    model_files.save_generator(
        models.build_generator(1, learned_phase.PHASE), other / "generator.keras"
    )
    out = tmp_path / "out"
    files = run_folder, run_folder / "generator.keras"
    cases = [
        ((run_folder, other), "predicts phase, not magnitude", other),
        (files, "is not a run folder", files[1]),
    ]
    for found, says, which in cases:
        flags = ["--model", *found, "--audios", audios, "--output", out, "--gpu", "cpu"]
        assert evaluate.main(list(map(str, flags))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line and f"--model {which}:" in line and not out.exists()


def test_results_of_other_models_do_not_pass_as_these(two_runs, tmp_path):
    names = "results.csv", "results.json", "differences.csv", "overview.csv"

    def fill(model):
        for name in names:
            (tmp_path / name).write_text("theirs")
        (tmp_path / "results.json").write_text(json.dumps({"model": model, "rows": {}}))

    def left():
        return [name for name in names if (tmp_path / name).exists()]

    group = Group("", "", "", None, None, [])
    for earlier, now, stay in (
        (["a", "b"], ["a", "b"], True),
        ("a", "a", True),
        (["a", "b"], ["a", "c"], False),
        (["a", "b"], "a", False),
        ({"of": "another program"}, "a", True),
    ):
        fill(earlier)
        evaluate.drop_others(tmp_path, [group], now)
        assert left() == (list(names) if stay else [])
    listening.write_index(tmp_path, listening.Page("an earlier page"), [])
    GroupPage(tmp_path, group, candidates_of(*two_runs), Systems({}, None, SETTINGS), 1)
    assert not (tmp_path / "index.html").exists()


@pytest.mark.parametrize("name", evaluate.TABLES)
def test_a_file_of_the_users_is_kept(audios, run_folder, tmp_path, capsys, name):
    (tmp_path / name).write_text("piece;verdict\nGymnopédie;lovely\n", encoding="utf-8")
    flags = ["--model", run_folder, "--audios", audios, "--output", tmp_path, "--gpu", "cpu"]
    assert evaluate.main(list(map(str, flags))) == 2
    assert f"{name}: is there and was not written by evaluate.py" in capsys.readouterr().err
    with pytest.raises(UserError, match="give another --output"):  # one that appears meanwhile
        evaluate.write_group(tmp_path, [], {})
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]


def test_a_page_of_the_users_is_kept(audios, run_folder, tmp_path, capsys):
    page = tmp_path / "site"
    page.mkdir()
    (page / "index.html").write_text("<h1>my site</h1>")
    flags = ["--model", run_folder, "--audios", audios, "--output", tmp_path, "--gpu", "cpu"]
    assert evaluate.main(list(map(str, [*flags, "--report", page]))) == 2
    (line,) = error_lines(capsys.readouterr().err)
    assert "index.html" in line and "give another --report" in line
    with pytest.raises(UserError, match="so it is kept"):  # one that appears meanwhile
        GroupPage(page, Group("", "", "", None, None, []), [], Systems({}, None, SETTINGS), 1)
    assert [path.name for path in page.iterdir()] == ["index.html"]
    assert (page / "index.html").read_text() == "<h1>my site</h1>"


def test_results_of_several_models_lie_in_no_models_folder(two_runs):
    several = candidates_of(*two_runs)
    args = parse("--inputs", "x")
    assert evaluate.choose_output(args, several) == Path("evaluation")
    alone = candidates_of(two_runs[0])
    assert evaluate.choose_output(args, alone) == two_runs[0] / "evaluation"


# ---- The judge of notes


def test_note_f1_counts_onsets():
    pytest.importorskip("mir_eval")
    score = np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([440.0, 220.0])
    half = score[0][:1], score[1][:1]
    late = score[0] + 0.2, score[1]
    nothing = np.zeros((0, 2)), np.zeros(0)
    assert judges.note_f1(score, score) == 1
    assert judges.note_f1(half, score) == pytest.approx(2 / 3)
    assert judges.note_f1(late, score) == 0
    assert judges.note_f1(nothing, score) == 0 and judges.note_f1(nothing, nothing) == 1
