import csv
import json

import numpy as np
import pytest

from common.cli import UserError
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
    found = [page.index(f'src="{place}"') for place in places]
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
    assert "0.0005 / 5e-05" in printed[2]
    page = (tmp_path / "index.html").read_text()
    assert '<a href="group/two/index.html">group/two</a>' in page
    for run in ("one", "group/two", "begun"):
        assert (tmp_path / run / "index.html").is_file()


def test_one_damaged_config_costs_no_other_run_its_place(tmp_path, capsys):
    make_run(tmp_path / "one", [4.0])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text("{}")
    assert run_page.main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].split()[0] == "one"
    assert "left out:" in printed.err and "foreign/config.json: damaged" in printed.err


def test_a_link_to_a_run_of_any_name_leads_there(tmp_path):
    make_run(tmp_path / "a #1 50%", [4.0])
    run_page.write_overview(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert '<a href="a%20%231%2050%25/index.html">a #1 50%</a>' in page


def test_where_there_are_no_runs(tmp_path, capsys):
    assert run_page.main([str(tmp_path)]) == 2
    assert "no runs in it" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no run"):
        run_page.write_run_page(tmp_path)
