"""pretrained/make_data.py: SoundFonts and MIDI files -> tiles of many instruments."""

import json
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
from files import contents
from music import midi_bytes, note
from scripts import error_lines, load_script

import data
import render_notes
from common import dataset
from common.cli import UserError
from training import splits

REAL_FONT = render_notes.SoundFont
TABLE = """instrument,font,program
guitar_acoustic,a.sf2,25
keyboard_acoustic,a.sf2,0
keyboard_acoustic_001,a.sf2,1
keyboard_acoustic_002,a.sf2,2
flute_acoustic_001,a.sf2,73
flute_acoustic_002,a.sf2,74
flute_acoustic_003,a.sf2,75
organ_electronic_001,a.sf2,16
reed_acoustic_001,a.sf2,66
"""
DUETS = """duet_acoustic_001,flute_acoustic_001,keyboard_acoustic_001
duet_acoustic_002,reed_acoustic_001,keyboard_acoustic_002
duet_acoustic_003,flute_acoustic_003,organ_electronic_001
"""


class Font:
    """Stands in for a SoundFont: a decaying sine; pitches above 72 are silent, and program 99."""

    programs = dict.fromkeys(((0, number) for number in range(100)), "sine")

    def __init__(self, path):
        render_notes.check_font(path)

    def note(self, bank, program, pitch, velocity, rate):
        t = np.arange(4 * rate, dtype=np.float32) / rate
        level = 0.1 * velocity / 127 * (pitch <= 72 and program < 99)
        sine = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t)
        return (level * np.exp(-t * (1 + program / 20)) * sine).astype(np.float32)


@pytest.fixture
def make_data(tmp_path, monkeypatch):
    """The script as a module; a font, three pieces in midi/ and table.csv lie in tmp_path."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    (folder / "a.sf2").write_bytes(b"RIFF1234sfbk")
    monkeypatch.setattr(render_notes, "FONT_FOLDERS", (str(folder),))
    monkeypatch.setattr(render_notes, "SoundFont", Font)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "midi" / "bach").mkdir(parents=True)
    for number, name in enumerate(("bach/one", "bach/two", "three")):
        notes = []
        for step in range(60):
            notes += note(step * 400, step * 400 + 300, 50 + (7 * step + number) % 30)
            notes += note(step * 400, step * 400 + 300, 40 + step % 5)
        (tmp_path / "midi" / f"{name}.mid").write_bytes(midi_bytes(notes))
    (tmp_path / "table.csv").write_text(TABLE)
    return load_script("pretrained/make_data.py", monkeypatch)


FLAGS = ["--midi_path", "midi", "--features", "features"]
FLAGS += ["--instruments", "table.csv", "--workers", "1"]


def test_excerpts_on_the_targets_and_some_of_the_others(make_data, tmp_path, capsys):
    assert make_data.main([*FLAGS, "--excerpts", "3", "--bins", "256"]) == 0
    features = tmp_path / "features"
    assert "3 excerpts, 0.0 h of music, on 9 instruments, 256 bins" in capsys.readouterr().out
    names = {}
    for folder in features.iterdir():
        if folder.is_dir():
            paths = folder.rglob("*.npy")
            names[folder.name] = {str(path.relative_to(folder)) for path in paths}
    assert names["guitar_acoustic"] == names["keyboard_acoustic"]
    assert len(names["guitar_acoustic"]) == 3
    assert names["keyboard_acoustic_001"] == names["keyboard_acoustic_002"]
    others = [name for name in names if name.startswith(("flute", "organ", "reed"))]
    assert 2 <= sum(len(names[name]) for name in others) <= 3 * 3

    assert dataset.read_features_json(features)["parameters"]["bins"] == 256
    origins = [name for name in names if name != "guitar_acoustic"]
    pieces, unpaired = splits.pair_pieces(features, ["guitar_acoustic"], origins)
    assert len(pieces) == 3 and not unpaired
    pairs = dataset.TilePairs(
        features, origins, "guitar_acoustic", pieces, dataset.Batching(4, seed=0)
    )
    x, y = pairs[0]
    assert x.shape == (4, 256, 256, 1)
    assert y.max() > 0.2


def test_two_workers_of_the_script_itself(make_data, run_script, tmp_path):
    """Workers cannot import what the script defines: once no command went on with two of them."""
    font = Path(pretty_midi.__file__).parent / "TimGM6mb.sf2"
    try:
        REAL_FONT(font)
    except UserError as error:
        pytest.skip(str(error))
    table = f"instrument,font,program\nguitar_acoustic,{font},25\nstring_acoustic,{font},48\n"
    (tmp_path / "table.csv").write_text(table)
    flags = ["--excerpts", "2", "--bins", "256", "--workers", "2"]
    done = run_script("pretrained/make_data.py", *FLAGS[:-2], *flags)
    assert done.returncode == 0, done.stderr
    paths = list((tmp_path / "features").rglob("*.npy"))
    assert len(paths) == 4
    assert all(np.load(path).max() > 0.2 for path in paths)


def test_what_is_there_is_kept_and_more_is_added(make_data, tmp_path, capsys):
    assert make_data.main([*FLAGS, "--excerpts", "2", "--bins", "256"]) == 0
    before = contents(tmp_path / "features")
    some = next((tmp_path / "features" / "guitar_acoustic").rglob("*.npy"))
    some.unlink()
    assert make_data.main([*FLAGS, "--excerpts", "3", "--bins", "256"]) == 0
    after = contents(tmp_path / "features")
    assert len(after) > len(before)
    for name, content in before.items():
        if name != "features.json":
            assert after[name] == content, name
    fingerprint = json.loads(before["features.json"])["fingerprint"]
    assert json.loads(after["features.json"])["fingerprint"] != fingerprint
    capsys.readouterr()
    assert make_data.main([*FLAGS, "--excerpts", "3", "--bins", "256"]) == 0
    assert "0 files to make" in capsys.readouterr().out


def test_tiles_of_another_height_are_kept(make_data, tmp_path, capsys):
    """They were made anew: half an hour of work, or a mixture if there were fewer excerpts."""
    assert make_data.main([*FLAGS, "--excerpts", "2", "--bins", "256"]) == 0
    before = contents(tmp_path / "features")
    assert make_data.main([*FLAGS, "--excerpts", "2"]) == 2
    (line,) = error_lines(capsys.readouterr().err)
    assert "--bins 512: features has tiles of 256 bins; give --bins 256" in line
    assert contents(tmp_path / "features") == before


def test_tiles_of_someone_else_are_kept(make_data, tmp_path, capsys):
    assert make_data.main([*FLAGS, "--excerpts", "2", "--bins", "256"]) == 0
    some = next((tmp_path / "features" / "guitar_acoustic").rglob("*.npy"))
    some.write_bytes(b"mine")
    assert make_data.main([*FLAGS, "--excerpts", "2", "--bins", "256"]) == 2
    assert f"{some.name}: was not made by this script" in error_lines(capsys.readouterr().err)[0]
    assert some.read_bytes() == b"mine"


def test_the_full_band_reaches_to_22_khz(make_data):
    sources = make_data.read_instruments("table.csv")
    bank = make_data.font_bank.FontBank(*sources["guitar_acoustic"])
    pieces = make_data.find_pieces(make_data.Path("midi"), ())
    excerpt = make_data.make_excerpt(0, pieces, list(sources), 7)
    tiles = make_data.font_bank.make_picture([(excerpt.score, bank)], data.FULL_BINS)
    assert tiles.shape == (make_data.font_bank.TILES, 512, 256, 1)
    assert tiles.dtype == np.float16 and 0.3 < tiles.max() <= 1


def test_the_highest_voice_is_one_note_at_a_time(make_data):
    pieces = make_data.find_pieces(make_data.Path("midi"), ())
    score = make_data.read_score(pieces["three"])
    voice = make_data.keep_highest(score)
    ends = voice["onset"] + voice["duration"]
    assert (ends[:-1] <= voice["onset"][1:] + 0.06).all()
    assert len(voice) < len(score)
    chord = score[score["onset"] == voice["onset"][0]]
    assert voice["pitch"][0] == chord["pitch"].max()


def test_notes_that_a_font_lacks_are_shifted(make_data):
    sources = make_data.read_instruments("table.csv")
    bank = make_data.font_bank.FontBank(*sources["flute_acoustic_001"])
    low, high = bank.note(72, 100), bank.note(74, 100)
    assert len(high) < len(low)
    crossings = [(np.diff(np.sign(each[:40_000])) != 0).sum() for each in (low, high)]
    assert crossings[1] / crossings[0] == pytest.approx(2 ** (2 / 12), rel=0.01)
    assert len(bank.note(72 + 13, 100)) == 0


def test_a_duet_plays_each_note_once_the_highest_voice_on_its_first_instrument(make_data):
    score = make_data.read_score(make_data.find_pieces(make_data.Path("midi"), ())["three"])
    highest, rest = make_data.split_voices(score)
    together = np.sort(np.concatenate([highest, rest]), order=list(score.dtype.names))
    assert (together == np.sort(score, order=list(score.dtype.names))).all()
    for each in highest:
        assert each["pitch"] == score["pitch"][score["onset"] == each["onset"]].max()
    assert make_data.split_voices(highest) == ()  # one voice is no duet


def test_tiles_of_a_duet_sound_like_both_voices_together(make_data, tmp_path):
    (tmp_path / "table.csv").write_text(TABLE + DUETS)
    sources = make_data.read_instruments("table.csv")
    pieces = make_data.find_pieces(make_data.Path("midi"), ())
    excerpts = [make_data.make_excerpt(n, pieces, list(sources), 7) for n in range(12)]
    with_duets = [each for each in excerpts if each.voices]
    assert 0 < len(with_duets) < 12
    for excerpt in excerpts:
        duets = [name for name in excerpt.instruments if name.startswith("duet_")]
        assert len(set(duets)) == (2 if excerpt.voices else 0)
    excerpt = with_duets[0]
    name = excerpt.instruments[-1]
    banks = [make_data.font_bank.FontBank(source) for source in sources[name]]
    parts = list(zip(excerpt.list_scores(name), banks))
    pictures = [
        make_data.font_bank.make_picture(some, 256) for some in (parts, parts[:1], parts[1:])
    ]
    both, first, second = np.array(pictures, float)
    apart = np.maximum(first, second)  # dB scale: the louder one decides
    errors = [np.abs(both - picture).mean() for picture in (apart, first, second)]
    assert errors[0] < min(errors[1:]) / 3


def test_duets_are_added_to_data_that_had_none(make_data, tmp_path, capsys):
    flags = [*FLAGS, "--excerpts", "8", "--bins", "256"]
    assert make_data.main(flags) == 0
    before = contents(tmp_path / "features")
    (tmp_path / "table.csv").write_text(TABLE + DUETS)
    assert make_data.main(flags) == 0
    after = contents(tmp_path / "features")
    added = [name for name in after if name not in before]
    assert added and all(name.startswith("duet_acoustic_00") for name in added)
    for name, content in before.items():
        if name.endswith(".npy"):
            assert after[name] == content, name
    capsys.readouterr()
    assert make_data.main(flags) == 0
    assert "0 files to make" in capsys.readouterr().out
    duets = sorted({name.split("/")[0] for name in added})
    training, _ = splits.pair_pieces(tmp_path / "features", ["guitar_acoustic"], duets)
    assert training


@pytest.mark.parametrize(("program", "reason"), [(99, "is silent"), (120, "has no program 120")])
def test_a_program_without_sound_is_refused(make_data, tmp_path, capsys, program, reason):
    """Its median peak was not a number, and so were all its tiles."""
    (tmp_path / "table.csv").write_text(TABLE.replace("a.sf2,25", f"a.sf2,{program}"))
    assert make_data.main([*FLAGS, "--excerpts", "2", "--bins", "256"]) == 2
    (line,) = error_lines(capsys.readouterr().err)
    assert reason in line and "--instruments" in line
    assert not list((tmp_path / "features" / "guitar_acoustic").rglob("*.npy"))


def test_a_link_to_a_missing_file_is_kept(make_data, tmp_path, capsys):
    assert make_data.main([*FLAGS, "--excerpts", "2", "--bins", "256"]) == 0
    some = next((tmp_path / "features" / "guitar_acoustic").rglob("*.npy"))
    some.unlink()
    (tmp_path / "features" / ".made.jsonl").unlink()
    for other in (tmp_path / "features").rglob("*.npy"):
        other.unlink()
    some.symlink_to(tmp_path / "unmounted.npy")
    assert make_data.main([*FLAGS, "--excerpts", "2", "--bins", "256"]) == 2
    assert f"{some.name}: was not made by this script" in error_lines(capsys.readouterr().err)[0]
    assert some.is_symlink()


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("name,font\n", "the first line must be 'instrument,font,program'"),
        ("instrument,font,program\nguitar_acoustic,a.sf2,x\n", "is not an instrument"),
        ("instrument,font,program\nguitar_acoustic,a.sf2,128\n", "no such program: 128"),
        ("instrument,font,program\nguitar_acoustic_001,a.sf2,1\n", "has no target"),
        ("instrument,font,program\nguitar,a.sf2,1\n", "no such name"),
        (f"{TABLE}guitar_acoustic,a.sf2,1\n", "guitar_acoustic: is named twice"),
        (f"{TABLE}duet_acoustic_001,a.sf2,3\n", "'a.sf2' is not an instrument of a row above"),
        (f"{TABLE}{DUETS}duet_acoustic_004,duet_acoustic_001,reed_acoustic_001\n", "not an instr"),
        ("instrument,font,program\nguitar_acoustic,b.sf2,1\n", "b.sf2: no such SoundFont"),
    ],
)
def test_tables_that_are_none(make_data, tmp_path, capsys, table, reason):
    (tmp_path / "table.csv").write_text(table)
    assert make_data.main(FLAGS) == 2
    assert reason in error_lines(capsys.readouterr().err)[0]


def test_pieces_that_are_reported_elsewhere_are_left_out(make_data, capsys):
    pieces = make_data.find_pieces(make_data.Path("midi"), ("bach/one",))
    assert list(pieces) == ["bach/two", "three"]
    assert make_data.main([*FLAGS, "--leave_out", "bach/one", "bach/two", "three"]) == 2
    assert "holds no MIDI file" in error_lines(capsys.readouterr().err)[0]
