"""docs/make_tables.py: the same pieces for all, made once, and tables of them."""

import json
import re

import numpy as np
import pytest
from conftest import TARGET
from music import midi_bytes, note
from scripts import load_script

import data
from sound.recordings import read_audio, write_audio

PIECES = ("a", "b")


@pytest.fixture
def make_tables(monkeypatch):
    """The script, whose programs are sines instead of a font's notes."""
    script = load_script("docs/make_tables.py", monkeypatch)

    class Sines:
        def note(self, pitch, velocity):
            time = np.arange(4 * data.SAMPLE_RATE) / data.SAMPLE_RATE
            wave = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time)
            return (velocity / 127 * wave).astype(np.float32)

    def play_program(font, number, title):
        level = 0.1 + 0.001 * number
        return script.Instrument(
            f"p{number}", title, lambda: (Sines(), level), (), {"program": number}
        )

    known = {}
    for number, name in enumerate(("keyboard_acoustic", TARGET)):
        known[name] = (script.font_bank.Source("font", number),)
    monkeypatch.setattr(script, "play_program", play_program)
    monkeypatch.setattr(script.make_data, "read_instruments", lambda path: known)
    return script


@pytest.fixture
def midi(tmp_path):
    folder = tmp_path / "midi"
    folder.mkdir()
    tune = []
    for k in range(12):
        tune += note(480 * k, 480 * k + 400, 55 + k)
    for name in PIECES:
        (folder / f"{name}.mid").write_bytes(midi_bytes(tune))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run with an untrained generator of width 1."""
    import models

    folder = tmp_path_factory.mktemp("runs") / f"many_2_{TARGET}"
    folder.mkdir()
    flags = {"origin": ["keyboard_acoustic"], "target": [TARGET]}
    split = {"train": ["x"], "validation": ["y"]}
    (folder / "config.json").write_text(json.dumps({"flags": flags, "split": split}))
    models.build_generator(1).save(folder / "generator.keras")
    return folder


def test_a_score_begins_with_its_first_note_and_is_cut(make_tables, midi):
    score = make_tables.cut_score(midi / "a.mid", 3)
    whole = make_tables.read_score(midi / "a.mid")
    assert score["onset"][0] <= make_tables.LEAD
    assert 0 < len(score) < len(whole) and score["onset"].max() < 3
    audio = make_tables.play(score, *make_tables.play_program("", 0, "x").open(), 3)
    assert len(audio) == 3 * data.SAMPLE_RATE and 0 < np.abs(audio).max() <= 1


def test_errors_of_the_target_are_none_and_of_silence_are_its_level(make_tables, tmp_path):
    for name in PIECES:
        tone = 0.3 * np.sin(np.arange(data.SAMPLE_RATE) * 0.05)
        write_audio(tmp_path / f"{name}.wav", tone.astype(np.float32))
    found = make_tables.measure_errors(tmp_path, tmp_path)["results"]
    assert [piece for piece, _ in found] == list(PIECES)
    assert found[0][1]["written_mae_db"] == 0 and found[0][1]["band_0_8_db"] == 0
    silent = make_tables.measure_errors(None, tmp_path)["results"]
    assert silent[0][1]["band_0_8_db"] > 1


def test_the_ceiling_takes_recordings_of_other_lengths(make_tables):
    """FluidSynth's releases differ in length."""
    tone = (0.3 * np.sin(np.arange(20000) * 0.05)).astype(np.float32)
    options = make_tables.convert.QUALITIES["draft"]
    made = make_tables.make_true(tone, tone[:15000], options)
    assert len(made) == 15000
    np.testing.assert_allclose(made[2000:13000], tone[2000:13000], atol=0.01)


def test_command_makes_all_once_and_goes_on(make_tables, midi, model, tmp_path, capsys):
    flags = ["--model", model, "--midi_path", midi, "--side", "choose", "--seconds", 4]
    flags += ["--programs", 6, 24, "--parts", "errors", "bands", "--gpu", "cpu"]
    flags = [*map(str, flags), "--work", str(tmp_path / "work"), "--quality", "draft"]
    assert make_tables.main(flags) == 0
    printed = capsys.readouterr().out
    for row in (
        "heard piano: unchanged",
        "harpsichord (6): output",
        "mean of 2 programs: output",
        "nylon guitar (24): output − unchanged",
        "true magnitude",
        "target",
        "silence",
    ):
        assert f"| {row} " in printed
    assert "The pieces: a, b." in " ".join(printed.split())
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= 100
    side = tmp_path / "work" / "choose"
    output = side / "outputs" / model.name / "draft" / "p6" / "a.wav"
    assert len(read_audio(output)) == 4 * data.SAMPLE_RATE
    made = {path: path.stat().st_mtime_ns for path in side.rglob("*") if path.suffix != ".md"}
    output.unlink()
    assert make_tables.main(flags) == 0
    again = capsys.readouterr().out
    assert again.split("### ", 1)[1] == printed.split("### ", 1)[1]
    changed = {path for path, time in made.items() if path.stat().st_mtime_ns != time}
    files = {path.name for path in changed if path.is_file()}
    assert files == {"a.wav", ".made.jsonl", "harpsichord__6___output.json"}


def test_what_is_for_reports_is_refused_while_choosing(make_tables, midi, model, capsys):
    flags = ["--model", str(model), "--midi_path", str(midi), "--side", "choose"]
    assert make_tables.main([*flags, "--starnet", "x"]) == 2
    assert "--starnet: is for --side report" in capsys.readouterr().err


def test_starnets_table_has_the_unchanged_input_and_what_is_published(
    make_tables, model, tmp_path, monkeypatch
):
    """The tagger is replaced: it hears nothing, and the distance is the length of a name."""

    class Listener:
        def hear(self, row, audio):
            return {}

        def distance(self, row, target):
            return float(len(row.rpartition("/")[2]))

    monkeypatch.setattr(make_tables.tagger, "Listener", Listener)
    for name in ("clarinet", "strings"):
        tone = 0.3 * np.sin(np.arange(4 * 16000) * 0.2)
        write_audio(tmp_path / "starnet" / name / "001.flac", tone.astype(np.float32), 16000)
    flags = ["--model", str(model), "--midi_path", "x", "--side", "report", "--quality", "draft"]
    flags += ["--work", str(tmp_path / "work"), "--starnet", str(tmp_path / "starnet")]
    shop = make_tables.Workshop(make_tables.build_parser().parse_args(flags), {})
    strings = make_tables.play_program("", 48, "string_acoustic")
    candidate = make_tables.find_candidates([str(model)])[0]
    target = make_tables.Target(strings, {"output": candidate}, [])
    text = "\n".join(make_tables.make_starnet_table(shop, target))
    for row, cells in (
        ("clarinet, unchanged", "– | 8"),
        ("output", "– | 8"),
        ("target", "– | 7"),
        ("published: unchanged", "0.248 | –"),
        ("published: DiffTransfer", "0.178 | –"),
    ):
        assert f"| {row} | {cells} |" in " ".join(text.split())
    guitar = make_tables.Target(make_tables.play_program("", 25, TARGET), {}, [])
    assert make_tables.make_starnet_table(shop, guitar) == []


def test_real_recordings_are_compared_with_the_true_targets_tag(
    make_tables, midi, model, tmp_path, monkeypatch, capsys
):
    """The tagger is replaced: it is as sure as the sound is loud."""

    class Listener:
        def hear(self, row, audio):
            return {"tag_guitar": float(np.sqrt(np.mean(audio**2)))}

    monkeypatch.setattr(make_tables.tagger, "Listener", Listener)
    monkeypatch.setattr(make_tables.tagger, "check_installed", lambda flag: None)
    recording = tmp_path / "song.wav"
    tone = 0.3 * np.sin(np.arange(4 * data.SAMPLE_RATE) * 0.05)
    write_audio(recording, tone.astype(np.float32))
    flags = ["--model", model, "--midi_path", midi, "--side", "choose", "--seconds", 4]
    flags += ["--parts", "recordings", "--recordings", recording, "--quality", "draft"]
    flags = [*map(str, flags), "--work", str(tmp_path / "work"), "--gpu", "cpu"]
    assert make_tables.main(flags) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("| song ")]
    before, after, share = [float(cell) for cell in line.split("|")[2:5]]
    assert before == 0.21
    true = float(re.search(r"plays the pieces of this side: (\d\.\d\d)", printed)[1])
    assert share == pytest.approx(after / true, rel=0.1)  # of rounded values
