import csv
import json
import shutil

import numpy as np
import pretty_midi
import pytest

import convert
import data
import evaluate
import metrics
import phase
from audio import read_audio, write_audio
from cli import UserError

ORIGIN, TARGET = "keyboard_acoustic", "guitar_acoustic"
OPTIONS = {"names": list(phase.ESTIMATORS), "iterations": 3, "overlap": 0.5, "batch_size": 2}


def identity(tiles):
    return tiles


def tone(frequency=440.0, seconds=1.0):
    time = np.arange(int(seconds * data.SAMPLE_RATE)) / data.SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def write_score(path, seconds):
    """A MIDI file of one note, middle C."""
    score, instrument = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0)
    instrument.notes.append(pretty_midi.Note(100, 60, 0, seconds))
    score.instruments.append(instrument)
    score.write(str(path))


def rows_of(model, audio, reference, median, **changes):
    return {
        row[0]: row[1:]
        for row in evaluate.systems(model, audio, reference, median, **{**OPTIONS, **changes})
    }


def make_run(folder, train=("bach/one", "bach/two"), validation=("three", "four")):
    folder.mkdir(parents=True, exist_ok=True)
    split = {"train": list(train), "validation": list(validation)}
    config = {"flags": {"origin": ORIGIN, "target": TARGET}, "split": split}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A run with an untrained generator of width 1."""
    import models

    folder = make_run(tmp_path_factory.mktemp("run"))
    models.build_generator(1).save(folder / "generator.keras")
    np.save(folder / "median.npy", np.full(256, 0.2, np.float32))
    return folder


@pytest.mark.parametrize("name", phase.ESTIMATORS)
@pytest.mark.parametrize("length", [1, 5000, 200_000])
def test_model_rows_are_what_predict_writes(name, length):
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, length).astype(np.float32)

    def model(tiles):
        return tiles[:, ::-1] * np.float32(0.5)

    found = rows_of(model, audio, None, None, names=[name])
    expected = convert.convert_audio(
        model, audio, data.SAMPLE_RATE, phase=name, phase_iterations=3, overlap=0.5, batch_size=2
    )
    np.testing.assert_allclose(found[f"model, {name}"][0], expected, atol=1e-6)


def test_rows_that_need_a_reference_or_a_median_are_left_out_without_it():
    audio, median = tone(), np.full(256, 0.1, np.float32)
    models = {f"model, {name}" for name in phase.ESTIMATORS}
    ceilings = {f"true magnitude, {name}" for name in phase.ESTIMATORS} | {
        "target",
        evaluate.OWN_PHASE,
    }
    assert set(rows_of(identity, audio, None, None)) == {"identity", *models}
    assert set(rows_of(identity, audio, audio, None)) == {"identity", "silence", *models, *ceilings}
    assert set(rows_of(identity, audio, audio, median)) == {
        "identity",
        "silence",
        "median picture",
        *models,
        *ceilings,
    }


def test_network_runs_once_a_piece():
    calls = []

    def model(tiles):
        calls.append(len(tiles))
        return tiles

    rows_of(model, tone(), tone(), None)
    assert len(calls) == 1


def test_network_that_diverged_is_a_users_mistake():
    with pytest.raises(UserError, match="NaN"):
        rows_of(lambda tiles: tiles * np.float32("nan"), tone(), None, None)


def test_measures_of_a_perfect_and_of_a_silent_conversion():
    audio = tone()
    reference = evaluate.Sound(audio)
    score = metrics.score_pitches([0], [1], [69], 1)
    found = {
        name: evaluate.measure(name, *row, reference, score)
        for name, row in rows_of(identity, audio, audio, None).items()
    }
    perfect, silence = found["model, input"], found["silence"]
    assert (
        perfect["mae_db"] < 1e-3
        and perfect["written_mae_db"] < 0.05
        and perfect["convergence"] < 0.01
    )
    assert perfect["pitch_jaccard"] < 0.1 and perfect["lsd_db"] < 3
    assert silence["mae_db"] == pytest.approx(
        metrics.picture_mae(0 * reference.picture, reference.picture)
    )
    assert silence["mfcc_distance"] == 1 and silence["pitch_jaccard"] > 0.9
    assert "reanalysis_db" not in silence and "convergence" not in found["identity"]
    assert [name for name, measures in found.items() if "snr_db" in measures] == [
        evaluate.OWN_PHASE
    ]
    assert found[evaluate.OWN_PHASE]["snr_db"] > 40
    assert all(np.isfinite(value) for measures in found.values() for value in measures.values())
    assert all(set(measures) <= set(evaluate.COLUMNS) for measures in found.values())


def test_summary_is_mean_deviation_and_count_of_what_is_finite():
    results = [
        ("a", "x", {"mae_db": 1.0, "convergence": np.inf}),
        ("a", "y", {"mae_db": 5.0}),
        ("b", "x", {"mae_db": 3.0, "convergence": 0.5}),
    ]
    summary = evaluate.summarise(results)
    assert list(summary) == ["x", "y"]
    assert summary["x"]["mae_db"] == {"mean": 2.0, "spread": pytest.approx(np.sqrt(2)), "n": 2}
    assert summary["x"]["convergence"] == {"mean": 0.5, "spread": None, "n": 1}
    header, rows = evaluate.text_table(summary)
    assert header == ["", "picture MAE, dB", "spectral convergence", "n"]
    assert rows == [["x", "2.00 ± 1.41", "0.500 (n = 1)", "2"], ["y", "5.00", "–", "1"]]


def test_markdown_has_one_width_and_keeps_its_columns():
    lines = evaluate.markdown(["", "long heading"], [["a | b", "1"], ["c", "22"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].count("---") == 2 and "a \\| b" in lines[2]


def test_best_phase_is_named_beside_the_inputs():
    summary = {
        f"model, {n}": {"lsd_db": {"mean": m, "spread": None, "n": 1}}
        for n, m in (("input", 3), ("griffinlim", 2))
    }
    assert evaluate.best_phases(summary)[1] == "  LSD, dB: griffinlim 2.00, input 3.00"
    summary["model, griffinlim"]["lsd_db"]["mean"] = 4
    assert evaluate.best_phases(summary)[1] == "  LSD, dB: input 3.00"
    del summary["model, griffinlim"]
    assert evaluate.best_phases(summary) == []


def test_only_held_out_pieces_count_by_default(audios, tmp_path, capsys):
    config = evaluate.read_config(make_run(tmp_path, validation=["three", "three~t2", "gone"]))
    assert [piece.name for piece in evaluate.find_pieces("run", config, audios)] == ["three"]
    assert "gone" in capsys.readouterr().err
    everything = evaluate.find_pieces("run", config, audios, which="all")
    assert [piece.name for piece in everything] == ["bach/one", "bach/two", "four", "three"]
    assert everything[0].input == audios / ORIGIN / "bach/one.wav"
    assert everything[0].reference == audios / TARGET / "bach/one.wav"
    tested = evaluate.find_pieces("run", config | {"test": ["four"]}, audios, which="test")
    assert [piece.name for piece in tested] == ["four"]


def test_pieces_that_are_not_there_are_a_users_mistake(audios, tmp_path):
    with pytest.raises(UserError, match="--pairs or --inputs"):
        evaluate.find_pieces("run", {}, audios)
    with pytest.raises(UserError, match="none of these pieces"):
        evaluate.find_pieces(
            "run", evaluate.read_config(make_run(tmp_path, validation=["gone"])), audios
        )
    with pytest.raises(UserError, match="no such folder"):
        evaluate.find_pieces(
            "run", {"origin": "flute", "target": TARGET, "validation": ["three"]}, audios
        )


def test_damaged_config_is_said(tmp_path):
    inner = '{"flags": {}, "split": {}}', '{"flags": {"origin": 1, "target": "a"}, "split": {}}'
    for text in ("{", "[]", '{"flags": {}}', *inner):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match="damaged"):
            evaluate.read_config(tmp_path)


def test_pairs_are_read_relative_to_their_file(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        'input,reference\nsub/a.wav, b.wav\n\n"with, comma.wav",\nc.wav\n', encoding="utf-8"
    )
    assert evaluate.read_pairs(path) == [
        ("sub/a.wav", tmp_path / "sub/a.wav", tmp_path / "b.wav"),
        ("with, comma.wav", tmp_path / "with, comma.wav", None),
        ("c.wav", tmp_path / "c.wav", None),
    ]


@pytest.mark.parametrize(
    "content", [b"", b"input,reference\n", b"a,b,c\n", b",b\n", b"\xff\xfe\x00", b"a\x00b\n"]
)
def test_bad_pairs_are_said_in_one_line(tmp_path, content):
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"pairs\.csv"):
        evaluate.read_pairs(path)
    with pytest.raises(UserError):
        evaluate.read_pairs(tmp_path / "missing.csv")


def test_sounds_are_cut_to_the_shorter(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 0.5), ("empty", 0)):
        write_audio(tmp_path / f"{name}.wav", tone(seconds=seconds))
    piece = evaluate.Piece("a", tmp_path / "a.wav", tmp_path / "b.wav")
    audio, reference = evaluate.read_piece(piece)
    assert len(audio) == len(reference) == 22050
    with pytest.raises(UserError, match="no sound"):
        evaluate.read_piece(evaluate.Piece("a", tmp_path / "a.wav", tmp_path / "empty.wav"))


@pytest.mark.parametrize(
    ("settings", "frames"), [(None, 6), ("{", 6), ('{"duration_rate": 0.5, "pedal": false}', 3)]
)
def test_score_is_read_as_it_was_rendered(tmp_path, settings, frames):
    write_score(tmp_path / "a.mid", 0.3)
    if settings:
        (tmp_path / "audios.json").write_text(settings)
    pitches = evaluate.read_pitches(tmp_path / "a.mid", tmp_path, 0.5)
    assert pitches.shape == (88, 11) and pitches[60 - 21].nonzero()[0].tolist() == list(
        range(frames)
    )
    assert evaluate.read_pitches(tmp_path / "a.mid", None, 0.5).sum() == 6


def test_median_is_the_runs_or_of_the_training_targets(audios, run_folder, tmp_path):
    assert evaluate.target_median(
        run_folder, evaluate.read_config(run_folder), audios
    ) == pytest.approx(0.2)
    config = evaluate.read_config(make_run(tmp_path))
    found = evaluate.target_median(tmp_path, config, audios)
    pictures = [
        data.spectrogram(read_audio(audios / TARGET / f"{name}.wav")) for name in config["train"]
    ]
    np.testing.assert_allclose(
        found, np.median(np.concatenate(pictures, axis=1), axis=1), atol=0.02
    )
    assert evaluate.target_median(tmp_path, config, None) is None
    assert evaluate.target_median(tmp_path, {}, audios) is None


def test_command_evaluates_held_out_pieces_and_writes_all_it_promises(
    audios, run_folder, tmp_path, capsys
):
    write_score(tmp_path / "three.mid", 5)
    flags = [
        "--model",
        run_folder,
        "--audios_path",
        audios,
        "--midi_path",
        tmp_path,
        "--phase",
        "input",
        "griffinlim",
    ]
    flags += [
        "--phase_iterations",
        2,
        "--output",
        tmp_path / "out",
        "--report",
        tmp_path / "page",
        "--report_seconds",
        1,
    ]
    assert evaluate.main([*map(str, flags), "--gpu", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "2 pieces held out from training: three, four" in printed
    rows = [
        "identity",
        "silence",
        "median picture",
        "model, input",
        "model, griffinlim",
        "true magnitude, input",
        "true magnitude, griffinlim",
        evaluate.OWN_PHASE,
        "target",
    ]
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[2:]] == rows

    with open(tmp_path / "out" / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["piece"], line["row"]) for line in lines] == [
        (piece, row) for piece in ("three", "four") for row in rows
    ]
    assert all(
        line["pitch_jaccard"] == "" for line in lines if line["piece"] == "four"
    )  # it has no score
    summary = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    errors = [float(line["mae_db"]) for line in lines if line["row"] == "identity"]
    assert summary["identity"]["mae_db"]["mean"] == pytest.approx(np.mean(errors))
    assert (
        summary["identity"]["mae_db"]["n"] == 2 and summary["identity"]["pitch_jaccard"]["n"] == 1
    )

    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio ") == 2 * 4 and "output, phase: griffinlim" in page
    assert len(read_audio(tmp_path / "page" / "piece01_2.flac")) == data.SAMPLE_RATE


def test_command_takes_recordings_without_reference(audios, run_folder, tmp_path, capsys):
    folder = tmp_path / "recordings"
    folder.mkdir()
    shutil.copy(audios / ORIGIN / "three.wav", folder)
    flags = [
        "--model",
        run_folder / "generator.keras",
        "--inputs",
        folder,
        "--phase",
        "input",
        "--output",
        tmp_path,
    ]
    assert evaluate.main([*map(str, flags), "--gpu", "cpu"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[2:]] == ["identity", "model, input"]
    assert "MAE" not in table[0] and "re-analysis" in table[0]


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
def test_mistakes_are_one_line_and_exit_code_2(run_folder, tmp_path, capsys, flags):
    try:
        code = evaluate.main(
            ["--model", str(run_folder), "--output", str(tmp_path / "out"), "--gpu", "cpu", *flags]
        )
    except SystemExit as refused:
        code = refused.code
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert code == 2 and len(error) == 1 and not (tmp_path / "out").exists()
