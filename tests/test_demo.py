"""The embedded data: notes that load, pieces that render whole, practice that covers the range."""

import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "demo"))

import encode
import make_notes
import next_steps
import practice

import train
from common import cli
from NoteSynthesizer import DEFAULT_INSTRUMENTS, PITCHES, VELOCITIES, NoteBank, render
from synthesis import scores
from training import splits

DEMO = Path(__file__).parent.parent / "demo"
PIECES = sorted((DEMO / "midi").glob("*.mid"))


@pytest.fixture(scope="module")
def banks():
    return {instrument: NoteBank(DEMO / "notes", instrument) for instrument in DEFAULT_INSTRUMENTS}


def test_demo_is_small():
    sizes = [
        path.stat().st_size
        for path in DEMO.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sum(sizes) <= 12e6


def is_fit_for_the_demo(seed, fraction, names):
    """Whether it holds out three pieces of music or more, Greensleeves too, and less practice."""
    _, held_out = splits.split_pieces(names, fraction, seed)
    music = [name for name in held_out if name.startswith("pieces/")]
    enough = len(music) >= 3 and 2 * len(music) > len(held_out)
    return enough and "pieces/greensleeves" in music


def test_the_demos_seed_is_the_first_that_is_fit():
    recipe = (DEMO.parent / "Makefile").read_text()
    seed = int(re.search(r"--seed (\d+)", recipe)[1])
    fraction = float(re.search(r"--validation_split (\S+)", recipe)[1])
    count = int(re.search(r"practice.py .*--pieces (\d+)", recipe)[1])
    names = [f"pieces/{path.stem}" for path in PIECES]
    names += [f"practice/practice_{number:03d}" for number in range(count)]
    fit = [number for number in range(seed + 1) if is_fit_for_the_demo(number, fraction, names)]
    assert fit == [seed]


def test_bank_holds_what_its_maker_keeps(banks):
    for instrument, bank in banks.items():
        pitches = sorted({pitch for pitch, _ in bank.paths})
        assert set(pitches[:-1]) == {
            p for p in make_notes.KEPT_PITCHES[instrument] if p < pitches[-1]
        }
        wanted = itertools.product(pitches, make_notes.KEPT_VELOCITIES)
        assert set(bank.paths) == set(wanted)


def test_no_note_of_the_range_is_lost_or_silent(banks):
    for bank in banks.values():
        for pitch, velocity in itertools.product(PITCHES, VELOCITIES):
            assert bank.place(pitch, velocity)[2] != "lost"
        for pitch, velocity in list(bank.paths)[::9]:
            assert 0.001 < np.abs(bank.note(pitch, velocity)).max() <= 1


def test_louder_velocities_are_louder(banks):
    for bank in banks.values():
        levels = [
            np.sqrt(np.mean(bank.note(60, velocity) ** 2))
            for velocity in make_notes.KEPT_VELOCITIES
        ]
        assert levels == sorted(levels)


@pytest.mark.parametrize("path", PIECES, ids=lambda path: path.stem)
def test_piece_renders_complete_and_unclipped(path, banks):
    score = scores.read_score(path)
    assert len(score) > 80 and 20 < (score["onset"] + score["duration"]).max() < 110
    assert PITCHES[0] <= score["pitch"].min() and score["pitch"].max() <= PITCHES[-1]
    assert score["velocity"].std() > 3
    for bank in banks.values():
        assert bank.count(score)["lost"] == 0
    bank = banks["keyboard_acoustic"]
    assert 0.1 < max(np.abs(block).max() for block in render(score, bank, bank.gain)) < 1


def test_pieces_on_disk_are_what_the_scores_say(tmp_path):
    assert encode.main(["--midi_path", str(tmp_path)]) == 0
    assert [path.name for path in PIECES] == sorted(path.name for path in tmp_path.iterdir())
    assert len(PIECES) >= 8
    for path in PIECES:
        ours, theirs = scores.read_score(path), scores.read_score(tmp_path / path.name)
        assert len(ours) == len(theirs)
        for field in scores.NOTE.names:
            np.testing.assert_allclose(
                ours[field], theirs[field], atol=2e-3, err_msg=f"{path.name}: {field}"
            )


def test_prelude_begins_and_ends_as_bach_wrote_it():
    score = scores.read_score(DEMO / "midi" / "bach_prelude_c.mid")
    assert len(score) == 549  # 34 bars of 16 sixteenths, a chord of five
    beat = np.rint(score["onset"] / (60 / 84 / 4)).astype(int)
    first = [score["pitch"][beat == i].tolist() for i in range(16)]
    assert first == [[p] for p in (60, 64, 67, 72, 76, 67, 72, 76) * 2]
    assert sorted(score["pitch"][beat == 34 * 16]) == [36, 48, 64, 67, 72]


@pytest.mark.parametrize(
    ("text", "notes", "end"),
    [
        ("c4 d4", [(0, 1, 60), (1, 1, 62)], 2),
        ("c4:2 r d4 |", [(0, 2, 60), (4, 2, 62)], 6),
        ("c#4+eb4:3 r:3|", [(0, 3, 61), (0, 3, 63)], 6),
        ("[a4:1 r:2]*2 |", [(0, 1, 69), (3, 1, 69)], 6),
        ("[c4]*1 [c4]*11 |", [(k, 1, 60) for k in range(12)], 12),
        (
            "[[c4]*2 d4]*2 |",
            [(0, 1, 60), (1, 1, 60), (2, 1, 62), (3, 1, 60), (4, 1, 60), (5, 1, 62)],
            6,
        ),
    ],
)
def test_notation(text, notes, end):
    assert encode.read_voice(text, 6) == (notes, end)


@pytest.mark.parametrize("text", ["c4:5 |", "h4:6 |", "[c4:6 |", "c4:x", "c4 ] d4"])
def test_wrong_notation_is_refused(text):
    with pytest.raises(ValueError, match=r"not full|note|could not convert"):
        encode.read_voice(text, 6)


@pytest.mark.parametrize("body", ["left: c4:6 | ; right: c4:3", "left c4", "left: c4:5 |"])
def test_wrong_score_is_one_line(tmp_path, body):
    path = tmp_path / "piece.txt"
    path.write_text(f"tempo: 60\nbeat: 2\nbar: 6\ndynamic: 70\n\n{body}\n")
    with pytest.raises(cli.UserError, match=r"piece\.txt: "):
        encode.read_score(path)


@pytest.fixture(scope="module")
def practised(tmp_path_factory):
    folder = tmp_path_factory.mktemp("practice")
    assert practice.main(["--midi_path", str(folder), "--pieces", "40", "--seconds", "60"]) == 0
    return folder


def test_practice_covers_pitches_and_velocities(practised):
    score = np.concatenate([scores.read_score(path) for path in practised.glob("*.mid")])
    assert set(score["pitch"]) == set(PITCHES)
    layer = np.abs(score["velocity"][:, np.newaxis] - np.array(VELOCITIES)).argmin(axis=1)
    assert min(np.bincount(layer, minlength=5)) > 50
    assert len(set(zip(score["pitch"].tolist(), layer.tolist()))) > 0.85 * len(PITCHES) * len(
        VELOCITIES
    )


def test_practice_lasts_as_long_as_asked_and_does_not_clip(practised, banks):
    bank = banks["keyboard_acoustic"]
    for path in sorted(practised.glob("*.mid"))[:4]:
        score = scores.read_score(path)
        assert 50 < (score["onset"] + score["duration"]).max() <= 60.01
        assert max(np.abs(block).max() for block in render(score, bank, bank.gain)) < 1


def test_practice_is_the_same_for_the_same_seed_however_many(practised, tmp_path):
    before = (practised / "practice_001.mid").stat().st_mtime_ns
    for folder, seed in ((tmp_path / "again", 0), (tmp_path / "other", 1)):
        practice.main(
            ["--midi_path", str(folder), "--pieces", "2", "--seconds", "60", "--seed", str(seed)]
        )
    piece = "practice_001.mid"
    assert (tmp_path / "again" / piece).read_bytes() == (practised / piece).read_bytes()
    assert (tmp_path / "other" / piece).read_bytes() != (practised / piece).read_bytes()
    practice.main(["--midi_path", str(practised), "--pieces", "2", "--seconds", "60"])
    assert (practised / piece).stat().st_mtime_ns == before  # step 1 need not render it again


def test_practice_refuses_nonsense_in_one_line(tmp_path, run_script):
    result = run_script("demo/practice.py", "--midi_path", tmp_path, "--pieces", "0")
    assert (
        result.returncode == 2
        and "--pieces" in result.stderr
        and len(result.stderr.strip().splitlines()) == 1
    )


def test_next_steps_go_on_with_the_run_as_it_was_trained(tmp_path, capsys):
    run = tmp_path / "run"
    (run / "evaluation").mkdir(parents=True)
    rows = {
        "model (phase: input)": {"mae_db": {"mean": 3.0}},
        "identity": {"mae_db": {"mean": 6.0}},
    }
    (run / "evaluation" / "results.json").write_text(json.dumps({"rows": rows}))
    flags = {"filters": 24, "batch_size": 6, "validation_split": 0.25, "seed": 7}
    flags |= {"gen_lr": 2e-3, "disc_lr": 3e-4}
    (run / "config.json").write_text(json.dumps({"flags": flags}))

    assert next_steps.main(["--run", str(run), "--page", str(tmp_path / "page")]) == 0
    printed = capsys.readouterr().out
    assert "held-out MAE 3.00 dB, 50% below" in printed
    command = printed.split("train.py")[1].split("larger models")[0].replace("\\\n", " ")
    args = train.build_parser().parse_args(shlex.split(command))
    assert {flag: getattr(args, flag) for flag in flags} == flags
    assert args.minutes > 5

    (run / "config.json").unlink()  # whose weights may still be there: a new training loses them
    assert next_steps.main(["--run", str(run), "--page", str(tmp_path / "page")]) == 2
    assert "config.json: not found; restore it from a copy" in capsys.readouterr().err
