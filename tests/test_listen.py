"""docs/listen: the page of sounds is made by one command, complete and small."""

import re
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT, melody

sys.path.insert(0, str(ROOT / "docs"))
import make_listen

LISTEN = ROOT / "docs" / "listen"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The folder as the command makes it, of two short sounds and two models that do nothing."""
    models = {"guitar": None, "synth lead": None}
    monkeypatch.setattr(make_listen, "LISTEN", tmp_path / "listen")
    monkeypatch.setattr(make_listen, "RECORDINGS", make_listen.RECORDINGS[2:4])
    monkeypatch.setattr(make_listen, "list_models", lambda: models)
    monkeypatch.setattr(make_listen, "draw_clips", lambda: None)

    def pretend(folder, models):
        for recording in make_listen.RECORDINGS:
            sound = melody(0, (1, 0.5), 2)
            yield recording, {"input": sound, **dict.fromkeys(models, 0.5 * sound)}

    monkeypatch.setattr(make_listen, "convert", pretend)
    (tmp_path / "listen").mkdir()
    (tmp_path / "listen" / "of_a_model_that_is_gone.mp3").write_bytes(b"")
    assert make_listen.main([]) == 0
    return tmp_path / "listen"


def find_files(text, extension):
    return set(re.findall(rf"""["(]([\w.]+\.{extension})[)"]""", text))


def test_page_and_links_lead_to_the_sounds(made):
    sounds = {path.name for path in made.glob("*.mp3")}
    assert len(sounds) == 6
    assert {"cello_input.mp3", "cello_synth_lead.mp3", "saxophone_guitar.mp3"} < sounds
    page = (made / "index.html").read_text(encoding="utf-8")
    readme = (made / "README.md").read_text(encoding="utf-8")
    assert find_files(page, "mp3") == find_files(readme, "mp3") == sounds
    pictures = {path.name for path in made.glob("*.png")}
    assert find_files(page, "png") == pictures
    assert len(pictures) == 6
    assert {path.suffix for path in made.iterdir()} == {".html", ".md", ".mp3", ".png"}
    audio, rate = soundfile.read(made / "cello_guitar.mp3")
    assert len(audio) / rate == pytest.approx(2, abs=0.1)
    assert np.abs(audio).max() > 0.05


def test_it_says_whose_the_recordings_are(made):
    for name in ("index.html", "README.md"):
        text = (made / name).read_text(encoding="utf-8")
        assert "sms-tools, Music Technology Group, UPF (CC BY 4.0)" in text
        assert make_listen.FREESOUND in text


def test_the_recordings_are_there():
    for recording in make_listen.RECORDINGS:
        assert soundfile.info(ROOT / "docs" / "audio" / f"{recording.stem}.ogg").duration > 3
    licences = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for name in ("sms-tools", "Mihai Sorohan", "Alexander Holm"):
        assert name in licences


def test_what_is_committed_has_every_shipped_model_and_is_small():
    names = set()
    for recording in make_listen.RECORDINGS:
        for label in ("input", *make_listen.list_models()):
            names.add(f"{make_listen.name_sound(recording, label)}.mp3")
    sounds = list(LISTEN.glob("*.mp3"))
    assert {path.name for path in sounds} == names, "run python docs/make_listen.py"
    assert sum(path.stat().st_size for path in sounds) < 3e6
    assert find_files((LISTEN / "README.md").read_text(encoding="utf-8"), "mp3") == names
    assert find_files((LISTEN / "index.html").read_text(encoding="utf-8"), "mp3") == names
