import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
from music import note_sound
from scripts import error_lines

import render_notes
from common.cli import UserError
from NoteSynthesizer import NoteBank
from synthesis import recorded_notes

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


class Font:
    """Stands in for a SoundFont, where FluidSynth need not be installed: a note is a constant."""

    def __init__(self, path):
        render_notes.check_font(path)
        self.level = float(Path(path).read_bytes()[12:])
        self.programs = {(0, 0): "Loud", (0, 1): "Soft", (8, 1): "Other"}

    def note(self, bank, program, pitch, velocity, rate):
        value = self.level * (pitch == 60 or program == 0)  # the others are silent at low pitches
        return np.full(4, value * velocity / 127 / (1 + program + bank), np.float32)


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """a.sf2 and b.sf3 in a folder where systems keep fonts; four notes an instrument."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    (folder / "a.sf2").write_bytes(b"RIFF1234sfbk0.5")
    (folder / "b.sf3").write_bytes(b"RIFF1234sfbk0.7")
    monkeypatch.setattr(render_notes, "FONT_FOLDERS", (str(folder),))
    monkeypatch.setattr(render_notes, "SoundFont", Font)
    monkeypatch.setattr(render_notes, "PITCHES", (21, 60))
    monkeypatch.setattr(render_notes, "VELOCITIES", (25, 127))
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "audio").iterdir())}


def run(capsys, *flags):
    capsys.readouterr()
    code = render_notes.main(list(map(str, flags)))
    out, err = capsys.readouterr()
    return code, out, error_lines(err)


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
    assert out.count("0 notes already there, 4 written, 0 silent notes left out") == 2
    paths = sorted((tmp_path / "audio").iterdir())
    notes = ("021-025", "021-127", "060-025", "060-127")
    instruments = ("keyboard_acoustic_000", "organ_electronic_001")
    names = ["-".join(pair) for pair in itertools.product(instruments, notes)]
    assert [path.stem for path in paths] == names
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


def test_several_programs_and_fonts_in_one_call(fonts, tmp_path, capsys):
    instruments = ("organ_acoustic=0", "organ_acoustic_001=b.sf3:0", "organ_acoustic_002=b:8:1")
    flags = ("--soundfont", "a.sf2", "--nsynth_path", tmp_path, "--instruments", *instruments)
    code, out, _ = run(capsys, *flags)
    assert code == 0
    assert out.splitlines() == [
        "organ_acoustic: Loud: 0 notes already there, 4 written, 0 silent notes left out",
        "organ_acoustic_001: Loud: 0 notes already there, 4 written, 0 silent notes left out",
        "organ_acoustic_002: Other: 0 notes already there, 2 written, 2 silent notes left out",
    ]
    again = run(capsys, *flags)[1].splitlines()
    assert again == [f"{flag.split('=')[0]}: all notes already there" for flag in instruments]


def test_notes_of_another_font_or_program_are_made_again(fonts, tmp_path, capsys):
    flags = ("--nsynth_path", tmp_path, "--instruments")
    run(capsys, *flags, "organ_acoustic=a:0")
    of_a = contents(tmp_path)
    assert "4 written" in run(capsys, *flags, "organ_acoustic=b:0")[1]
    assert run(capsys, *flags, "organ_acoustic=a:1")[0] == 0
    of_the_other_program = contents(tmp_path)
    assert len(of_the_other_program) == 2  # the silent ones of before are not left behind
    os.utime(fonts / "a.sf2", (0, 0))  # an older file in its place
    assert "0 notes already there, 2 written" in run(capsys, *flags, "organ_acoustic=a:1")[1]
    run(capsys, *flags, "organ_acoustic=a:0")
    assert contents(tmp_path) == of_a


def test_a_run_that_was_stopped_is_done_to_its_end(fonts, tmp_path, capsys, monkeypatch):
    flags = ("--nsynth_path", tmp_path, "--instruments", "organ_acoustic=a:0")
    write_audio, written = render_notes.write_audio, []

    def stop(path, *args, **place):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_audio(path, *args, **place)

    monkeypatch.setattr(render_notes, "write_audio", stop)
    assert run(capsys, *flags)[0] == 130
    assert len(contents(tmp_path)) == 2
    monkeypatch.setattr(render_notes, "write_audio", write_audio)
    assert "2 notes already there, 2 written" in run(capsys, *flags)[1]


def test_a_note_of_the_users_that_appears_meanwhile_is_kept(fonts, tmp_path, capsys, monkeypatch):
    flags = ("--nsynth_path", tmp_path, "--instruments", "organ_acoustic=a:0")
    write_audio = render_notes.write_audio

    def meanwhile(path, *args, **place):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        write_audio(path, *args, **place)

    monkeypatch.setattr(render_notes, "write_audio", meanwhile)
    assert "appeared meanwhile" in run(capsys, *flags)[2][0]
    (own,) = tmp_path.glob("audio/*.wav")
    assert own.read_text() == "mine"
    monkeypatch.setattr(render_notes, "write_audio", write_audio)
    assert f"{own.name}: was not made by this script" in run(capsys, *flags)[2][0]
    assert own.read_text() == "mine"


def test_notes_of_the_users_are_never_overwritten(fonts, tmp_path, capsys):
    own = tmp_path / "audio" / "organ_acoustic_000-060-127.wav"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    flags = ("--nsynth_path", tmp_path, "--instruments", "organ_acoustic=a:0")
    code, out, err = run(capsys, *flags)
    assert (code, out) == (2, "")
    assert "organ_acoustic_000-060-127.wav: was not made by this script" in err[0]
    assert contents(tmp_path) == {own.name: b"mine"}
    for name in ("021-025", "021-127", "060-025"):  # a bank of the user's that is whole is used
        shutil.copy(own, own.with_name(f"organ_acoustic_000-{name}.wav"))
    code, out, _ = run(capsys, *flags)
    assert code == 0
    assert "4 notes already there, not made by this script" in out


def test_fonts_are_looked_for_where_systems_keep_them(fonts, tmp_path, monkeypatch):
    assert render_notes.find_font("a.sf2") == render_notes.find_font("a") == fonts / "a.sf2"
    assert render_notes.find_font("b") == fonts / "b.sf3"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.sf2").touch()
    assert render_notes.find_font("a.sf2") == Path("a.sf2")  # what is here comes first


def test_the_fonts_that_are_there_are_named(fonts, monkeypatch):
    (fonts / "readme.txt").touch()
    with pytest.raises(UserError, match=r"^c\.sf2: no such SoundFont, here .*: a\.sf2, b\.sf3$"):
        render_notes.find_font("c.sf2")
    for number in range(20):
        (fonts / f"c{number:02d}.SF2").touch()
    with pytest.raises(UserError, match=r": a\.sf2, b\.sf3, c00\.SF2, .*, c05\.SF2, \.\.\.$"):
        render_notes.find_font("d")
    monkeypatch.setattr(render_notes, "FONT_FOLDERS", (str(fonts / "none"),))
    with pytest.raises(UserError, match=r"^c\.sf2: .* none in the .*; give its path, or install"):
        render_notes.find_font("c.sf2")


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("HOME", ".local/share/sounds/sf2"),
        ("HOME", "Library/Audio/Sounds/Banks"),
        ("HOME", "Documents/MuseScore4/SoundFonts"),
        ("HOMEBREW_PREFIX", "share/soundfonts"),
        ("ProgramData", "soundfonts"),
        ("ProgramFiles", "MuseScore 4/sound"),
    ],
)
def test_a_font_in_each_systems_own_place(variable, folder, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path))
    if variable == "HOME":
        monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows's
    font = tmp_path / folder / "our own.sf3"
    font.parent.mkdir(parents=True)
    font.touch()
    assert render_notes.find_font("our own") == font
    monkeypatch.delenv(variable)
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "other"))
    monkeypatch.chdir(font.parent.parent)
    with pytest.raises(UserError, match="our own: no such SoundFont"):
        render_notes.find_font("our own")


def test_the_places_of_linux_and_macos_are_known():
    assert {
        "/usr/share/sounds/sf2",
        "/usr/share/sounds/sf3",
        "/usr/share/soundfonts",
        "/Library/Audio/Sounds/Banks",
        "/opt/homebrew/share/soundfonts",
        "/usr/local/share/soundfonts",
    } <= set(render_notes.FONT_FOLDERS)


@pytest.mark.parametrize(
    ("stem", "parsed"),
    [
        ("C4v8", (60, 8)),
        ("D#4v8", (63, 8)),
        ("A0-05", (21, 0)),
        ("A0_vel3", (21, 3)),
        ("C-1", (0, 0)),
        ("Piano.ff.Bb3", (58, 6)),
        ("grand pp Gs2", (44, 1)),
        ("F♯5", (78, 0)),
        ("060", (60, 0)),
        ("60-100", (60, 100)),
        ("m060v2", (60, 2)),
        ("organ_electronic_001-060-100", (60, 100)),
        ("take 200", None),
        ("harmLA0", None),
        ("rel12", None),
        ("noise", None),
    ],
)
def test_what_a_recordings_name_says(stem, parsed):
    assert recorded_notes.parse_recorded_name(stem) == parsed


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([0], {100: 0}),
        ([1, 2], {50: 1, 100: 2}),
        ([1, 5, 9], {25: 1, 75: 5, 127: 9}),
        ([4, 7, 10, 13, 16], {25: 4, 50: 7, 75: 10, 100: 13, 127: 16}),
        (range(1, 17), {25: 1, 50: 5, 75: 9, 100: 12, 127: 16}),
        ([50, 127], {50: 50, 127: 127}),
    ],
)
def test_layers_in_the_order_of_their_loudness(layers, expected):
    recordings = [recorded_notes.Recording(Path("x"), 60, layer) for layer in layers]
    chosen = recorded_notes.choose_layers(recordings)
    assert list(chosen) == sorted(chosen)
    assert chosen == expected


@pytest.fixture
def piano(tmp_path):
    """Two folders: pitches 57 and 63 in two layers, after 0.1 s of silence, at two rates."""
    for layer, rate in ((1, 44100), (2, 22050)):
        folder = tmp_path / f"piano v{layer}"
        folder.mkdir()
        for name, pitch in (("A3", 57), ("D#4", 63)):
            sound = note_sound(pitch, seconds=6, rate=rate, amplitude=0.1 * layer, decay=0.3)
            sound = np.concatenate([np.zeros(rate // 10), sound])
            stereo = np.stack([sound, sound], axis=1)
            soundfile.write(folder / f"{name}v{layer}.flac", stereo, rate)
    (tmp_path / "piano v1" / "pedal noise.wav").write_bytes(b"")
    return tmp_path


def test_recorded_notes_become_an_instrument(piano, capsys):
    flags = ["--nsynth_path", piano / "notes"]
    for layer in (1, 2):
        flags += ["--recorded_notes", piano / f"piano v{layer}", "keyboard_acoustic_007"]
    code, out, _ = run(capsys, *flags)
    assert code == 0
    assert "skipped files without a pitch in their name: 1" in out
    pitches = range(57 - 12, 63 + 12 + 1)
    count = 2 * len(pitches)
    assert f"4 recordings of 2 pitches: 0 notes already there, {count} written" in out
    bank = NoteBank(piano / "notes", "keyboard_acoustic_007")
    assert set(bank.paths) == set(itertools.product(pitches, (50, 100)))
    for pitch, velocity in ((57, 100), (60, 50), (61, 100), (70, 50), (46, 100)):
        check_note(bank.paths[pitch, velocity], pitch, 0.9 * velocity / 100)
    assert run(capsys, *flags)[1].splitlines()[-1].endswith("all notes already there")
    recording = piano / "piano v1" / "A3v1.flac"
    shutil.copy(piano / "piano v1" / "D#4v1.flac", recording)  # other content, other size or date
    assert f"{count} written" in run(capsys, *flags)[1]


def test_recorded_notes_in_the_full_band(tmp_path, capsys):
    sound = note_sound(57, seconds=6, rate=96000) + note_sound(126, seconds=6, rate=96000) / 4
    (tmp_path / "piano").mkdir()
    soundfile.write(tmp_path / "piano" / "A3.wav", sound, 96000)
    flags = ["--recorded_notes", tmp_path / "piano", "a_b", "--nsynth_path", tmp_path / "notes"]
    assert run(capsys, *flags)[0] == 0
    path = NoteBank(tmp_path / "notes", "a_b").paths[58, 100]
    assert soundfile.info(path).samplerate == 16000
    assert "25 written" in run(capsys, *flags, "--sample_rate", 44100)[1]  # made again
    note, rate = soundfile.read(path)
    assert (rate, note.shape) == (44100, (4 * 44100,))
    spectrum = np.abs(np.fft.rfft(note[:44100] * np.hanning(44100)))
    assert np.argmax(spectrum) == pytest.approx(440 * 2 ** (-11 / 12), abs=1)
    treble = 440 * 2 ** (58 / 12)  # 12.5 kHz
    assert np.argmax(spectrum[8000:]) + 8000 == pytest.approx(treble, abs=3)
    assert spectrum[15000:].max() < 1e-3 * spectrum.max()
    assert run(capsys, *flags, "--sample_rate", 44100)[1].endswith("all notes already there\n")


def test_a_note_recorded_twice_is_taken_once_and_told(piano, capsys):
    (piano / "piano v2").rename(piano / "loud")  # a folder's name tells no loudness
    for path in (piano / "loud").iterdir():
        path.rename(path.with_name(path.name.replace("v2", "v1")))
    flags = ["--nsynth_path", piano / "notes"]
    for folder in ("piano v1", "loud"):
        flags += ["--recorded_notes", piano / folder, "keyboard_acoustic_007"]
    code, out, _ = run(capsys, *flags)
    assert code == 0
    assert "skipped 2 recordings with the same note and loudness as another" in out
    assert str(piano / "loud" / "A3v1.flac") in out
    notes = NoteBank(piano / "notes", "keyboard_acoustic_007").paths
    assert {velocity for _, velocity in notes} == {100}


def check_note(path, pitch, peak):
    """NSynth's shape, in tune, from its beginning on, held for 3 s and then damped."""
    note, rate = soundfile.read(path)
    assert (rate, note.shape) == (16000, (64000,))
    spectrum = np.abs(np.fft.rfft(note[:48000] * np.hanning(48000)))
    assert np.argmax(spectrum) / 3 == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=0.003)
    assert np.abs(note).max() == pytest.approx(peak, rel=0.05)
    assert np.flatnonzero(np.abs(note) > 0.01 * peak)[0] < 0.005 * rate
    assert np.abs(note[47000:48000]).max() > 0.1 * peak
    assert np.abs(note[56000:]).max() < 0.01 * peak


def test_a_recording_that_cannot_be_read_is_passed_over_for_its_neighbour(piano, capsys):
    recordings, _ = recorded_notes.find_recorded_notes([piano])
    bad = recordings[0]
    bad.path.write_bytes(b"no sound")
    notes = recorded_notes.render_recordings(recordings, "piano")
    again = recorded_notes.render_recordings(recordings[1:], "piano")
    layers = recorded_notes.choose_layers(recordings)
    assert layers == recorded_notes.choose_layers(recordings[1:])
    assert notes.keys() == again.keys()
    for key, note in notes.items():
        np.testing.assert_array_equal(note, again[key])
    assert f"skipped: {bad.path}: " in capsys.readouterr().err
    for recording in recordings:
        recording.path.write_bytes(b"no sound")
    with pytest.raises(UserError, match="piano: none of its recordings can be read"):
        recorded_notes.render_recordings(recordings, "piano")


def test_recordings_numbered_one_to_three_have_no_pitch_in_reach(tmp_path):
    recordings = [recorded_notes.Recording(tmp_path / f"0{n}.wav", n, 0) for n in (1, 2, 3)]
    for recording in recordings:
        soundfile.write(recording.path, np.ones(1000, np.float32), 16000)
    with pytest.raises(UserError, match=r"01.wav: its name says MIDI pitch 1, .*name the files"):
        recorded_notes.render_recordings(recordings, "piano")


def test_a_short_recording_ends_without_a_click():
    sound = np.ones(recorded_notes.WORK_RATES[16000] // 2, np.float32)
    note = recorded_notes.shape_note(sound, 0)
    assert note.shape == (64000,)
    assert np.abs(np.diff(note[4000:])).max() < 0.02
    assert not note[8001:].any()


def test_a_silent_recording_gives_no_note():
    silent = recorded_notes.trim_onset(np.zeros(1000, np.float32), 48000)
    assert len(silent) == 0
    assert not recorded_notes.shape_note(silent, 3).any()


def test_a_folder_without_recorded_notes_is_refused(tmp_path, capsys):
    (tmp_path / "noise.wav").touch()
    flags = ("--recorded_notes", tmp_path, "a_b", "--nsynth_path", tmp_path / "notes")
    code, _, err = run(capsys, *flags)
    assert code == 2
    assert "has no recorded notes; name the files by pitch" in err[0]
    assert not (tmp_path / "notes").exists()


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


def test_a_fonts_note_in_the_full_band(font):
    low = font.note(0, 80, 69, 100)
    note = font.note(0, 80, 69, 100, 44100)
    assert (len(low), len(note)) == (4 * 16000, 4 * 44100)
    spectra = [
        np.abs(np.fft.rfft(sound[:rate])) / rate for sound, rate in ((low, 16000), (note, 44100))
    ]
    np.testing.assert_allclose(spectra[1][:7000], spectra[0][:7000], atol=2e-4)
    assert spectra[1][11000:].max() > 1e-5


def test_silent_notes_are_left_out_and_the_loudest_sets_the_level():
    class Partly:
        def note(self, bank, program, pitch, velocity, rate):
            return np.full(4, (pitch == 60) * velocity / 1000, np.float32)

    notes = render_notes.render_program(Partly(), 0, 0, "x")
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
        render_notes.parse_instrument(text, "font.sf2")


@pytest.mark.parametrize(
    ("text", "font", "bank", "program"),
    [
        ("a_b=19", "given.sf2", 0, 19),
        ("a_b=8:19", "given.sf2", 8, 19),
        ("a_b=my.sf2:19", "my.sf2", 0, 19),
        ("a_b=my=2.sf2:8:19", "my=2.sf2", 8, 19),
        (r"a_b=C:\fonts\my.sf3:8:19", r"C:\fonts\my.sf3", 8, 19),
    ],
)
def test_instruments_with_a_bank_or_a_font(text, font, bank, program):
    parsed = render_notes.parse_instrument(text, "given.sf2")
    assert parsed == ("a_b", font, bank, program)


def test_an_instrument_without_a_font():
    assert render_notes.parse_instrument("a_b=my.sf2:1").font == "my.sf2"
    with pytest.raises(UserError, match="a_b=1: names no font; give --soundfont"):
        render_notes.parse_instrument("a_b=1")


def test_mistakes_are_told_in_one_line(font, tmp_path, capsys):
    (tmp_path / "no.sf2").write_bytes(b"RIFF1234WAVEfmt ")
    (tmp_path / "cut.sf2").write_bytes(FONT.read_bytes()[:2000])
    for flags, reason in (
        (("--soundfont", tmp_path / "nowhere.sf2", "--list"), "nowhere.sf2: cannot be read"),
        (("--soundfont", tmp_path, "--list"), "cannot be read"),
        (("--soundfont", tmp_path / "no.sf2", "--list"), "no.sf2: is not a SoundFont"),
        (("--soundfont", tmp_path / "cut.sf2", "--list"), "cut.sf2: FluidSynth cannot load"),
        (("--soundfont", FONT), "--nsynth_path: is missing"),
        (("--nsynth_path", tmp_path), "--soundfont: is missing"),
        (("--list",), "--soundfont: is missing"),
        (("--soundfont", "nowhere.sf2", "--list"), "nowhere.sf2: no such SoundFont"),
        (
            ("--soundfont", FONT, "--nsynth_path", tmp_path, "--instruments", "a_b=0", "a_b_000=1"),
            "a_b_000: is given twice",
        ),
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
