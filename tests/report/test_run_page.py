import csv
import json
import os

import numpy as np
import pytest

import app
import predict
from common.cli import UserError
from common.files import read_csv
from conversion import known_models
from report import pictures, run_page
from sound.recordings import write_audio

BASELINES = {"identity": 8.0, "median": 6.0}


def make_run(folder, errors, split=True, **flags):
    """A run folder as the training leaves it, of these held-out errors."""
    folder.mkdir(parents=True)
    config = {"flags": {"origin": ["piano"], "target": ["guitar"], "filters": 4, **flags}}
    config |= {"baselines_db": BASELINES, "policy": "float32"}
    if split:
        config["split"] = {"train": ["a", "b"], "validation": ["c"]}
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "history.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", "seconds", "val_mae_db"])
        for epoch, error in enumerate(errors, 1):
            rows.writerow([epoch, 60, error])
    return folder


def add_preview(run, epoch, piece="c"):
    """A preview with its sound."""
    folder = run / f"previews/epoch_{epoch:03d}"
    for stem in (folder / "output", run / "previews/input", run / "previews/target"):
        stem.parent.mkdir(parents=True, exist_ok=True)
        pictures.write_card_picture(np.zeros((256, 40), np.float32), stem.with_suffix(".png"))
        write_audio(stem.with_suffix(".flac"), np.full(44100, 0.1, np.float32))
    about = {"piece": piece, "origin": "piano", "target": "guitar"}
    (folder / "about.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (9.0, "worse than the unchanged input (8.00 dB)"),
        (7.0, "worse than one constant spectrum (6.00 dB)"),
        (2.0, "75% below the error of the unchanged input (8.00 dB)"),
    ],
)
def test_a_run_is_judged_by_what_costs_nothing(error, words):
    assert run_page.describe_error(error, BASELINES).startswith(words)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (89, "89 s"), (600, "10 min"), (3600, "1 h 00 min"), (11_100, "3 h 05 min")],
)
def test_times_as_people_say_them(seconds, text):
    assert run_page.format_time(seconds) == text


def test_a_runs_page_has_its_previews_history_and_settings(tmp_path):
    run = make_run(tmp_path / "run", [7.5, 4.0], batch_size=3, note="<b>")
    for epoch in (1, 2):
        add_preview(run, epoch)
    run_page.write_run_page(run)
    page = (run / "index.html").read_text()
    assert "piano → guitar: 2 epochs in 2 min; held-out error 4.00 dB, 50% below" in page
    places = ["previews/input.flac", "previews/epoch_002/output.flac", "previews/target.flac"]
    places.append("previews/epoch_001/output.flac")  # folded: the newest stands beside the target
    found = [page.index(f'data-sound="{place}"') for place in places]
    assert found == sorted(found)
    assert "1 earlier epoch" in page
    assert "--batch_size" in page
    assert "&lt;b&gt;" in page and "<b>" not in page


def test_previews_of_another_piece_are_not_mixed_in(tmp_path):
    run = make_run(tmp_path / "run", [5.0])
    for epoch, piece in ((1, "a"), (2, "b"), (3, "b")):
        add_preview(run, epoch, piece)
    names = [folder.name for folder in run_page.find_previews(run)]
    assert names == ["epoch_003", "epoch_002"]


def test_of_many_previews_some_are_shown_the_newest_among_them(tmp_path):
    run = make_run(tmp_path / "run", [5.0])
    for epoch in range(941, 1001):
        folder = run / f"previews/epoch_{epoch:03d}"
        folder.mkdir(parents=True)
        about = {"piece": "a", "origin": "piano", "target": "guitar"}
        (folder / "about.json").write_text(json.dumps(about))
    shown = run_page.find_previews(run)
    assert len(shown) == 20
    assert [folder.name for folder in shown[:2]] == ["epoch_1000", "epoch_997"]


def test_all_runs_are_listed_the_best_first(tmp_path, capsys):
    make_run(tmp_path / "one", [7.5, 4.0], gen_lr=5e-4, disc_lr=5e-5, epochs=9)
    make_run(tmp_path / "group/two", [3.0], lr=1e-3, epochs=1)
    make_run(tmp_path / "begun", [])
    make_run(tmp_path / "no_run", [1.0], split=False)  # a model without its training
    assert run_page.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:4]] == ["group/two", "one", "begun"]
    assert printed[2].split()[:5] == ["one", "4.00", "2", "of", "9"]
    assert printed[2].endswith("50% below the unchanged input")
    assert max(map(len, printed[:4])) <= 100
    page = (tmp_path / "index.html").read_text()
    assert '<a href="group/two/index.html">group/two</a>' in page
    assert "0.0005 / 5e-05" in page
    for run in ("one", "group/two", "begun"):
        assert (tmp_path / run / "index.html").is_file()


DAMAGED = {  # content of a run's file, and what is said of it
    "config.json": {
        "half": '{"flags": {"orig',
        "of another program": "{}",
        "a list": "[1]",
        "null flags": '{"flags": null, "split": {"train": ["a"]}}',
        "no numbers": '{"flags": {"gen_lr": "x"}, "split": {"train": ["a"]}}',
        "a baseline of text": '{"split": {"a": []}, "baselines_db": {"identity": "x"}}',
        "nothing": "",
    },
    "history.csv": {"words": "epoch,val_mae_db\n1,05. Aug\n", "bytes": "a\0b"},
}


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, content) for name, contents in DAMAGED.items() for content in contents.values()],
)
def test_one_damaged_run_costs_no_other_its_place(tmp_path, monkeypatch, capsys, name, content):
    monkeypatch.chdir(tmp_path)
    for run in ("a_2_b", "one_2_two"):
        make_run(tmp_path / "runs" / run, [4.0])
        (tmp_path / "runs" / run / "generator.keras").touch()
    (tmp_path / "runs/a_2_b" / name).write_text(content)
    assert run_page.main([]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["one_2_two"]
    assert printed.err.startswith(f"skipped: runs/a_2_b/{name}: ")
    assert "delete" not in printed.err and "train it" not in printed.err
    assert predict.main(["--list"]) == 0
    printed = capsys.readouterr()
    assert "runs/one_2_two piano -> guitar" in " ".join(printed.out.split())
    assert f"{os.path.relpath(known_models.PRETRAINED)}/" in printed.out  # the shipped ones
    assert len(printed.err.splitlines()) <= 1
    assert "runs/one_2_two" in [path for _, path in app.list_choices()]


@pytest.mark.parametrize("country", ["germany", "libreoffice", "us", "unicode text"])
def test_a_history_that_a_spreadsheet_saved_is_read(tmp_path, monkeypatch, capsys, country):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs/one_2_two", [7.5, 4.0])
    (run / "generator.keras").touch()
    rows = read_csv(run / "history.csv")
    encoding = {"unicode text": "utf-16"}.get(country, "utf-8-sig")
    delimiter = {"germany": ";", "unicode text": "\t"}.get(country, ",")
    if country != "us":
        rows = [[cell.replace(".", ",") for cell in row] for row in rows]
    with open(run / "history.csv", "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert run_page.main([]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].split()[:5] == ["one_2_two", "4.00", "2", "of", "?"]
    assert predict.main(["--list"]) == 0
    printed = capsys.readouterr()
    assert "4.00 dB off on a piece" in " ".join(printed.out.split())
    assert printed.err == ""
    pictures.write_history(run / "history.csv", tmp_path / "history.png", BASELINES)


@pytest.mark.skipif(os.name == "nt", reason="permissions")
@pytest.mark.parametrize("name", ["", "config.json", "history.csv"])
def test_a_run_that_may_not_be_read_costs_no_other_its_place(
    tmp_path, monkeypatch, capsys, powerless, name
):
    monkeypatch.chdir(tmp_path)
    for run in ("a_2_b", "m_2_n", "one_2_two"):
        make_run(tmp_path / "runs" / run, [4.0])
        (tmp_path / "runs" / run / "generator.keras").touch()
    (tmp_path / "runs/loop").symlink_to("loop")
    (tmp_path / "runs/m_2_n" / name).chmod(0)
    for command in (run_page.main, lambda argv: predict.main(["--list"])):
        assert command([]) == 0
        printed = capsys.readouterr()
        assert "one_2_two" in printed.out and "a_2_b" in printed.out
        assert "m_2_n" not in printed.out
        assert printed.err.startswith("skipped: runs/m_2_n")
        assert "Permission denied" in printed.err and len(printed.err.splitlines()) == 1
    paths = [path for _, path in app.list_choices()]
    assert "runs/a_2_b" in paths and "runs/one_2_two" in paths
    assert capsys.readouterr().err.count("\n") <= 1  # history.csv is none of its business
    (tmp_path / "runs/m_2_n" / name).chmod(0o755)


def test_a_damaged_preview_costs_only_itself(tmp_path, capsys):
    run = make_run(tmp_path / "run", [4.0, 3.0])
    for epoch in (1, 2):
        add_preview(run, epoch)
    (run / "previews/epoch_002/about.json").write_text('{"piece"')
    (run / "previews/epoch_001 (copy)").mkdir()
    (run / "previews/epoch_001 (copy)/about.json").write_text("{}")
    run_page.write_run_page(run)
    assert [path.name for path in run_page.find_previews(run)] == ["epoch_001"]
    told = capsys.readouterr().err
    assert "epoch_002/about.json: damaged; repair it, or restore it from a copy" in told


def test_a_link_to_a_run_of_any_name_leads_there(tmp_path):
    make_run(tmp_path / "a #1 50%", [4.0])
    run_page.write_overview(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert '<a href="a%20%231%2050%25/index.html">a #1 50%</a>' in page


def test_a_page_of_the_users_is_kept(tmp_path, capsys):
    make_run(tmp_path / "one", [4.0])
    (tmp_path / "index.html").write_text("<h1>my site</h1>")
    assert run_page.main([str(tmp_path)]) == 2
    assert "so it is kept; give another folder" in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text() == "<h1>my site</h1>"


def test_where_there_are_no_runs(tmp_path, capsys):
    assert run_page.main([str(tmp_path)]) == 2
    assert "has no runs" in capsys.readouterr().err
    with pytest.raises(UserError, match="is not a run folder"):
        run_page.write_run_page(tmp_path)
