import re
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile

import render_notes
from cli import UserError
from NoteSynthesizer import NoteBank

FONT = Path(pretty_midi.__file__).parent / "TimGM6mb.sf2"


@pytest.fixture(scope="module")
def font():
    try:
        return render_notes.SoundFont(FONT)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def few(font, monkeypatch):
    """Two pitches, two velocities: four notes an instrument."""
    monkeypatch.setattr(render_notes, "PITCHES", (21, 60))
    monkeypatch.setattr(render_notes, "VELOCITIES", (25, 127))


def run(capsys, *flags):
    capsys.readouterr()
    code = render_notes.main(list(map(str, flags)))
    out, err = capsys.readouterr()
    return code, out, [line for line in err.splitlines() if "render_notes.py" in line]


def test_notes_are_nsynths(few, tmp_path, capsys):
    flags = (
        "--soundfont",
        FONT,
        "--nsynth_path",
        tmp_path,
        "--instruments",
        "keyboard_acoustic=0",
        "organ_electronic_001=19",
    )
    code, out, _ = run(capsys, *flags)
    assert code == 0
    assert out.count("0 notes already there, 4 written, 0 silent ones left out") == 2
    paths = sorted((tmp_path / "audio").iterdir())
    notes = ("021-025", "021-127", "060-025", "060-127")
    assert [path.stem for path in paths] == [
        f"{i}-{n}" for i in ("keyboard_acoustic_000", "organ_electronic_001") for n in notes
    ]
    infos = [soundfile.info(path) for path in paths]
    assert {(i.samplerate, i.channels, i.subtype, i.frames) for i in infos} == {
        (16000, 1, "PCM_16", 64000)
    }
    organ = np.stack([soundfile.read(path)[0] for path in paths[4:]])
    assert np.abs(organ).max() == pytest.approx(0.9, abs=0.001)
    rms = np.sqrt((organ[3].reshape(-1, 4000) ** 2).mean(axis=1))  # quarters of a second
    assert rms[4:12].min() > 10 * rms[15]  # held for 3 s, then released
    assert len(NoteBank(tmp_path, "organ_electronic_001").note(60, 100)) == 4 * 44100

    before = [path.read_bytes() for path in paths]
    paths[5].unlink()
    assert "3 notes already there, 1 written" in run(capsys, *flags)[1]
    assert [path.read_bytes() for path in paths] == before


def test_a_note_is_in_tune_and_does_not_depend_on_those_before(font):
    first = font.note(0, 80, 69, 100)
    font.note(0, 48, 30, 127)
    again = font.note(0, 80, 69, 100)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, render_notes.SoundFont(FONT).note(0, 80, 69, 100))
    spectrum = np.abs(np.fft.rfft(first[:48000] * np.hanning(48000)))
    strongest = np.argmax(spectrum) / 3
    assert strongest / 440 == pytest.approx(
        round(strongest / 440), abs=0.01
    )  # the tone or one of its partials


def test_silent_notes_are_left_out_and_the_loudest_sets_the_level(monkeypatch):
    class Font:
        def note(self, bank, program, pitch, velocity):
            return np.full(4, (pitch == 60) * velocity / 1000, np.float32)

    notes = render_notes.render_instrument(Font(), 0, 0, "x")
    assert list(notes) == [(60, velocity) for velocity in (25, 50, 75, 100, 127)]
    assert notes[60, 127].max() == pytest.approx(0.9)
    assert notes[60, 50].max() == pytest.approx(0.9 * 50 / 127)


def test_list_shows_the_programs(font, capsys):
    code, out, _ = run(capsys, "--soundfont", FONT, "--list")
    assert code == 0
    assert "0\tPiano 1" in out.splitlines()
    assert any(line.startswith("128:") for line in out.splitlines())


@pytest.mark.parametrize(
    "text", ["a_b", "a_b=", "a_b=128", "a_b=129:0", "a_b=-1", "a_b=x", "=3", "X=3"]
)
def test_malformed_instruments(text):
    with pytest.raises(UserError, match=r"no such (program|name); write"):
        render_notes.parse_instrument(text)


def test_instruments_with_a_bank():
    assert render_notes.parse_instrument("organ_electronic_001=8:19") == (
        "organ_electronic_001",
        8,
        19,
    )


def test_mistakes_are_told_in_one_line(font, tmp_path, capsys):
    (tmp_path / "no.sf2").write_bytes(b"RIFF1234WAVEfmt ")
    (tmp_path / "cut.sf2").write_bytes(FONT.read_bytes()[:2000])
    for flags, reason in (
        (("--soundfont", tmp_path / "nowhere.sf2", "--list"), "nowhere.sf2: cannot be read"),
        (("--soundfont", tmp_path, "--list"), "cannot be read"),
        (("--soundfont", tmp_path / "no.sf2", "--list"), "no.sf2: is no SoundFont"),
        (("--soundfont", tmp_path / "cut.sf2", "--list"), "cut.sf2: FluidSynth cannot load"),
        (("--soundfont", FONT), "--nsynth_path: is missing"),
        (
            ("--soundfont", FONT, "--nsynth_path", tmp_path, "--instruments", "a_b=7:0"),
            "a_b=7:0: .* has no such program",
        ),
    ):
        code, out, err = run(capsys, *flags)
        assert (code, out, len(err)) == (2, "", 1), reason
        assert re.search(reason, err[0])
    assert not (tmp_path / "audio").exists()


def test_without_fluidsynth_the_error_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    code, _, err = run(capsys, "--soundfont", FONT, "--list")
    assert code == 2
    assert "FluidSynth: not found" in err[0]
    assert "apt install fluidsynth" in err[0]
