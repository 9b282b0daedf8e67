"""Mistakes over all scripts: exit code 2, one line that names the file or flag, nothing spoilt.

One case of each kind; what a line says is checked where its error is raised, if at all.
"""

import csv
import importlib
import io
import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from music import TUNE, make_bank, midi_bytes, note
from scripts import error_lines

import data
from sound.recordings import write_audio

A, B = "keyboard_acoustic", "guitar_acoustic"
TRAINING = (
    f"--dataset_path features --origin {A} --target {B} --runs_path made --gpu cpu --filters 1 "
    "--batch_size 1 --epochs 1"
)
STEP1 = f"--nsynth_path notes --midi_path midi --audios_path made --instruments {A} --workers 1"
COMMANDS = {
    "synthesize_audios": STEP1,
    "compute_features": "--audios audios --features made --workers 1",
    "train": TRAINING,
    "train_generator": TRAINING,
    "predict": "--model run --input in.wav --output made/out.wav --gpu cpu",
    "evaluate": "--model run --output made --gpu cpu --phase input",
    "render_notes": "--nsynth_path made",
}
RUN = f"made/{A}_2_{B}"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder in which every command works: notes, midi, audios, features, a model."""
    import keras

    import compute_features
    import models

    folder = tmp_path_factory.mktemp("good")
    make_bank(folder / "notes", pitches=(48, 60), velocities=(100,), seconds=0.5)
    (folder / "midi").mkdir()
    (folder / "midi/one.mid").write_bytes(TUNE)
    rng = np.random.default_rng(0)
    for instrument in (A, B):
        for name in ("one", "two"):
            write_audio(folder / f"audios/{instrument}/{name}.wav", rng.normal(0, 0.05, 30000))
    paths = ["--audios", str(folder / "audios"), "--features", str(folder / "features")]
    assert compute_features.main([*paths, "--workers", "1"]) == 0
    keras.utils.set_random_seed(0)
    generator = models.build_generator(1)
    (folder / "run").mkdir()
    generator.save(folder / "run/generator.keras")
    flags, split = {"origin": A, "target": B}, {"train": ["one"], "validation": ["two"]}
    (folder / "run/config.json").write_text(json.dumps({"flags": flags, "split": split}))
    np.save(folder / "run/median.npy", np.zeros(256, np.float32))
    shutil.copy(folder / f"audios/{A}/one.wav", folder / "in.wav")
    (folder / "text.txt").write_text("not what is wanted here\n")
    return folder


@pytest.fixture
def folder(good, tmp_path, monkeypatch):
    """A copy of `good`, to spoil; the current folder."""
    copy = shutil.copytree(good, tmp_path / "x")
    monkeypatch.chdir(copy)
    return copy


def contents():
    """{path: bytes} of every file below the current folder, hidden ones too; None for a folder."""
    found = {}
    for path in Path().rglob("*"):
        found[str(path)] = path.read_bytes() if path.is_file() else None
    return found


def run(script, flags, capfd):
    """Run a command in this process: (exit code, stdout, lines on stderr).

    Left out are progress bars, and what predict.py thinks of noise as music.
    """
    capfd.readouterr()
    try:
        code = importlib.import_module(script).main(flags)
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capfd.readouterr()
    return code, out, [line for line in error_lines(err) if "expect little" not in line]


# What spoils the good folder: each function returns one that does it


def put(path, content=b""):
    """Replace a file."""

    def spoil():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)

    return spoil


def cut(path, size):
    """Keep the first bytes."""

    def spoil():
        Path(path).write_bytes(Path(path).read_bytes()[:size])

    return spoil


def remove(*paths):
    def spoil():
        for path in paths:
            Path(path).unlink()

    return spoil


def folder_at(path):
    """A directory where a file belongs."""

    def spoil():
        Path(path).unlink(missing_ok=True)
        Path(path).mkdir(parents=True)

    return spoil


def sound(path, samples, rate=44100, subtype="FLOAT"):
    def spoil():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype)

    return spoil


def array(path, value):
    """A .npy file of an array, or of pickled objects."""

    def spoil():
        np.save(path, value, allow_pickle=True)

    return spoil


def tiles(count=1, bins=256, dtype=np.float16):
    return array(TILES, np.zeros((count, bins, 256, 1), dtype))


def midi(*events, **header):
    return put("midi/one.mid", midi_bytes(list(events), **header))


def link(path, to):
    def spoil():
        os.symlink(to, path)

    return spoil


def rename_origins():
    for path in Path(f"features/{A}").iterdir():
        path.rename(path.with_name(f"other {path.name}"))


def model(layer, *sizes, **options):
    """Another Keras model, of one layer."""

    def spoil():
        import keras

        made = getattr(keras.layers, layer)(*sizes, **options)
        keras.Sequential([keras.layers.Input((256, 256, 1)), made]).save("model.keras")

    return spoil


def lambda_model():
    import keras

    layer = keras.layers.Lambda(lambda x: x + 1)
    keras.Sequential([keras.layers.Input((256, 256, 1)), layer]).save("model.keras")


def nan_model():
    import models

    generator = models.build_generator(1)
    generator.set_weights([w * np.nan for w in generator.get_weights()])
    generator.save("run/generator.keras")


def header_only(shape):
    """The beginning of a .npy file that promises more than there is."""
    file = io.BytesIO()
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def noise_with(value):
    samples = NOISE.copy()
    samples[20000] = value
    return samples


RANDOM = np.random.default_rng(0).bytes(5000)
NOISE = np.random.default_rng(0).normal(0, 0.1, 30000).astype(np.float32)
ONE, NOTE, IN = f"audios/{A}/one.wav", "notes/audio/keyboard_acoustic_000-060-100.wav", "in.wav"
TILES = f"features/{A}/one.npy"
OTHER_HOP = json.dumps({"parameters": {**data.FEATURE_PARAMETERS, "hop_length": 256}}).encode()

CASES = {  # script: [(what, what spoils the folder or None, more flags, what the line must name)]
    "synthesize_audios": [
        ("unknown flag", None, "--unknown 1", "--unknown"),
        ("abbreviated flag", None, "--trans 1", "--trans"),
        ("number not finite", None, "--playback_speed nan", "nan"),
        ("number too large", None, "--transpose 99", "99"),
        ("no folder", None, "--midi_path nowhere", "nowhere"),
        ("folder without scores", remove("midi/one.mid"), "", "midi: has no"),
        ("dead link", link("scores", "nowhere"), "--midi_path scores", "scores"),
        ("no notes", None, "--nsynth_path audios", "audios"),
        ("unknown instrument", None, "--instruments flute_acoustic", "flute_acoustic"),
        ("instrument with a path", None, "--instruments ../x", "../x"),
        ("output is a file", None, "--audios_path text.txt", "text.txt"),
        ("output below a file", None, "--audios_path text.txt/x", "text.txt"),
        ("settings damaged", put("made/audios.json", b"{"), "", "audios.json"),
        ("settings binary", put("made/audios.json", RANDOM), "", "audios.json"),
        ("settings a folder", folder_at("made/audios.json"), "", "audios.json"),
        ("same name twice", put("midi/one.midi", TUNE), "", "one.mid"),
        ("note of random bytes", put(NOTE, RANDOM), "", NOTE),
        ("note without samples", sound(NOTE, NOISE[:0]), "", NOTE),
        ("note with NaN", sound(NOTE, noise_with(np.nan)), "", NOTE),
        ("score empty", put("midi/one.mid"), "", "one.mid"),
        ("score of random bytes", put("midi/one.mid", RANDOM), "", "one.mid"),
        ("score without notes", midi(), "", "one.mid"),
        ("score of 10 h", midi(*note(0, 9), *note(35_000_000, 35_000_009)), "", "one.mid"),
        ("no cluster", None, "--dask here", "--dask here"),
    ],
    "compute_features": [
        ("no audio", None, "--audios midi", "midi"),
        ("no instrument's folder", None, "--audios .", "in.wav"),
        ("same name twice", sound(f"audios/{A}/one.flac", NOISE, 44100, "PCM_16"), "", "one.flac"),
        ("audio empty", put(ONE), "", ONE),
        ("audio without samples", sound(ONE, NOISE[:0]), "", ONE),
        ("audio of random bytes", put(ONE, RANDOM), "", ONE),
        ("mp3 of random bytes", put(f"audios/{A}/x.mp3", RANDOM), "", "x.mp3"),
        ("NaN", sound(ONE, noise_with(np.nan)), "", ONE),
        ("infinite", sound(ONE, noise_with(-np.inf)), "", ONE),
        ("1 MHz", sound(ONE, NOISE, 1_000_000), "", ONE),
        ("33 channels", sound(ONE, np.zeros((100, 33))), "", ONE),
        ("output = input", None, "--features audios --fresh", "audios"),
        ("output holds input", put("features.json", b"{}"), "--features . --fresh", "--features ."),
        ("description damaged", put("made/features.json", b"[]"), "", "features.json"),
        ("other parameters", put("made/features.json", OTHER_HOP), "", "features.json"),
    ],
    "train": [
        ("no description", remove("features/features.json"), "", "features.json"),
        ("other parameters", put("features/features.json", OTHER_HOP), "", "hop_length"),
        ("origin = target", None, f"--target {A}", A),
        ("unknown origin", None, "--origin flute_acoustic", "flute_acoustic"),
        ("no common piece", rename_origins, "", A),
        ("one piece", remove(TILES, f"features/{B}/one.npy"), "", "two"),
        ("tile counts differ", tiles(7), "", "one"),
        ("tiles of random bytes", put(TILES, RANDOM), "", TILES),
        ("tiles cut off", cut(TILES, 5000), "", TILES),
        ("tiles pickled", array(TILES, np.array([{}, []], object)), "", TILES),
        ("tiles a bare pickle", put(TILES, pickle.dumps(np.zeros(3))), "", TILES),
        ("tiles of float32", tiles(dtype=np.float32), "", TILES),
        ("tiles of 128 bins", tiles(bins=128), "", TILES),
        ("no tiles", tiles(0), "", TILES),
        ("absurd tile count", put(TILES, header_only((10**12, 256, 256, 1))), "", TILES),
        ("batch larger than the data", None, "--batch_size 99", "--batch_size"),
        ("number with a fraction", None, "--batch_size 1.5", "1.5"),
        ("no such choice", None, "--precision float8", "float8"),
        ("no weights there", None, "--weights nowhere", "nowhere"),
        ("weights cut off", cut("run/generator.keras", 20000), "--weights run", "generator.keras"),
        ("no such GPU", None, "--gpu 99", "--gpu 99"),
        ("no MAESTRO table", None, "--maestro_split nowhere.csv", "nowhere.csv"),
        ("another table", put("m.csv", b"a,b\n1,2"), "--maestro_split m.csv", "m.csv"),
        ("runs are a file", None, "--runs_path text.txt", "text.txt"),
        ("state damaged", put(f"{RUN}/last/state.json", b"{"), "", "state.json"),
        ("state of another kind", put(f"{RUN}/last/state.json", b"[1]"), "", "state.json"),
    ],
    "train_generator": [
        ("unknown target", None, "--target flute_acoustic", "flute_acoustic"),
        ("configuration damaged", put(f"{RUN}_generator/config.json", b"[]"), "", "config.json"),
        ("rate negative", None, "--lr -1", "--lr"),
    ],
    "predict": [
        ("no model", None, "--model nowhere", "nowhere"),
        ("model folder empty", None, "--model midi", "midi"),
        ("model not that of the sum", put("run/SHA256SUMS", b"0" * 64), "", "SHA256SUMS"),
        ("sums are binary", put("run/SHA256SUMS", RANDOM), "", "SHA256SUMS"),
        ("model of random bytes", put("model.h5", RANDOM), "--model model.h5", "model.h5"),
        ("model is text", None, "--model text.txt", "text.txt"),
        ("model with code in it", lambda_model, "--model model.keras", "model.keras"),
        ("model of another layout", model("Dense", 3), "--model model.keras", "model.keras"),
        ("model of NaN", nan_model, "", "NaN"),
        ("no input", None, "--input nowhere.wav", "nowhere.wav"),
        ("input folder without audio", None, "--input midi --output made", "midi"),
        ("input empty", put(IN), "", IN),
        ("input without samples", sound(IN, NOISE[:0]), "", IN),
        ("input of random bytes", put(IN, RANDOM), "", IN),
        ("input with NaN", sound(IN, noise_with(np.nan)), "", IN),
        ("input of 33 channels", sound(IN, np.zeros((100, 33))), "", IN),
        ("output = input", None, "--output in.wav", "in.wav"),
        ("output = input by a link", link("out.wav", IN), "--output out.wav", "in.wav"),
        ("format unknown", None, "--output out.xyz", "out.xyz"),
        ("several to one file", None, f"--input in.wav {ONE} --output out.wav", "out.wav"),
        ("two of one name", None, f"--input {ONE} audios/{B}/one.wav --output made", "one.wav"),
        ("mp3 of 24 channels", sound(IN, np.zeros((100, 24))), "--output out.mp3", "out.mp3"),
        ("mp3 at an odd rate", None, "--output out.mp3 --sr 12345", "out.mp3"),
    ],
    "evaluate": [
        ("no pieces named", None, "", "--audios"),
        ("configuration damaged", put("run/config.json", b"[]"), "--audios audios", "config.json"),
        ("no test pieces", None, "--audios_path audios --pieces test", "--pieces test"),
        ("no list of pairs", None, "--pairs nowhere.csv", "nowhere.csv"),
        ("pairs of random bytes", put("p.csv", RANDOM), "--pairs p.csv", "p.csv"),
        ("pairs of three", put("p.csv", b"a,b,c\n"), "--pairs p.csv", "p.csv"),
        ("pair not there", put("p.csv", b"in.wav,no.wav\n"), "--pairs p.csv", "no.wav"),
        ("input without sound", sound(IN, NOISE[:0]), "--inputs in.wav", IN),
        ("piece cut off", cut(f"audios/{A}/two.wav", 30), "--audios audios", "two.wav"),
        ("piece not there", remove(f"audios/{B}/two.wav"), "--audios audios", "audios"),
        ("no scores", None, "--audios audios --midi_path nowhere", "nowhere"),
    ],
    "render_notes": [
        ("no font", None, "--soundfont nowhere.sf2", "nowhere.sf2"),
        ("font is text", None, "--soundfont text.txt", "text.txt"),
        ("program too high", None, "--soundfont x --instruments organ_acoustic=128", "=128"),
        ("no program", None, "--soundfont x --instruments organ_acoustic", "organ_acoustic"),
    ],
}
PARAMETERS = []
for script, cases in CASES.items():
    for what, *case in cases:
        PARAMETERS.append(pytest.param(script, *case, id=f"{script}: {what}"))


@pytest.mark.parametrize(("script", "spoil", "flags", "names"), PARAMETERS)
def test_a_mistake_is_told_in_one_line(folder, capfd, script, spoil, flags, names):
    if spoil:
        spoil()
    before = contents()
    code, _, lines = run(script, [*COMMANDS[script].split(), *flags.split()], capfd)
    assert code == 2
    assert len(lines) == 1, lines
    assert names in lines[0]
    assert re.search(r"; \w|see --help", lines[0]), f"no remedy: {lines[0]}"
    after = contents()
    assert {path: after.get(path) for path in before} == before


def test_training_on_values_that_are_no_numbers(folder, capfd):
    for name in ("one", "two"):
        np.save(f"features/{A}/{name}.npy", np.full((1, 256, 256, 1), np.nan, np.float16))
    code, _, lines = run("train_generator", COMMANDS["train_generator"].split(), capfd)
    assert code == 2
    assert len(lines) == 1
    assert not list(Path("made").rglob("*.keras"))


STRANGE = 'it\'s a "test"\n\t– музыка 音楽 🎹 %s {x} [1]* $HOME; -x #~t+'
BYTES = os.fsdecode(b"caf\xe9 \xff")  # no UTF-8, as from an old archive
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")


@pytest.mark.filterwarnings("ignore:Glyph")  # the previews' titles
@pytest.mark.parametrize("strange", [STRANGE, pytest.param(BYTES, marks=on_linux)], ids=ascii)
def test_strange_names_work(folder, capfd, strange):
    """All steps in a row, below and with such names: what means something to others, or nothing."""
    for name in ("notes", "midi", "in.wav"):
        (folder / strange).mkdir(exist_ok=True)
        os.rename(name, f"{strange}/{name}")
    os.chdir(strange)
    os.rename("midi/one.mid", f"midi/{strange}.mid")
    shutil.copytree("midi", f"midi/{strange}")
    make_bank(
        Path("notes"), "guitar_acoustic_000", pitches=(60,), velocities=(100,), seconds=0.3, decay=5
    )
    names = {"encoding": "utf-8", "errors": "surrogateescape"}
    with open(f"{strange}.csv", "w", newline="", **names) as file:
        rows = (f"{strange}.mid", "train"), (f"{strange}/{strange}.mid", "validation")
        csv.writer(file).writerows([("midi_filename", "split"), *rows])
    here = os.getcwd()

    def works(script, *flags):
        base = COMMANDS[script].split()
        code, out, lines = run(script, [*base, *flags], capfd)
        told = [line for line in lines if "note F1 is left out" not in line]  # needs packages
        assert (code, told) == (0, []), out
        assert os.getcwd() == here

    works("synthesize_audios", "--audios_path", f"{here}/a udio", "--instruments", A, B)
    works("compute_features", "--audios", "a udio", "--features", f"{strange}/features")
    training = ["--dataset_path", f"{strange}/features", "--runs_path", strange]
    works("train_generator", *training, "--maestro_split", f"{strange}.csv")
    run_folder = f"{strange}/{A}_2_{B}_generator"
    assert Path(run_folder, "previews/epoch_001/output.flac").is_file()
    converted, single = f"{strange}/converted", f"{strange}/{strange}.ogg"
    works("predict", "--model", run_folder, "--input", "a udio", "--output", converted)
    weights = f"{run_folder}/generator.keras"
    works("predict", "--model", weights, "--input", "in.wav", "--output", single)
    where = ["--audios", "a udio", "--midi_path", "midi", "--report", f"{strange}/page"]
    works("evaluate", "--model", run_folder, *where)
    assert soundfile.info(os.fsencode(single)).frames == 30000
    assert soundfile.info(os.fsencode(f"{converted}/{B}/{strange}/{strange}.wav")).frames > 0
    assert not [path for path in contents() if ".part-" in path]


MADE = {
    "synthesize_audios": f"made/{A}/one.wav",
    "compute_features": f"made/{A}/one.npy",
    "predict": "made/out.wav",
}
FAR = midi(*note(0, 9), *note(3_456_000, 3_456_009))
LOUD = NOISE * np.float32(1e9)
ODD = [
    ("synthesize_audios", "pitches 0 and 127", midi(*note(0, 9, 0), *note(0, 9, 60))),
    ("synthesize_audios", "note of no length", midi(*note(480, 480), *note(0, 480))),
    ("synthesize_audios", "an hour of silence", FAR),
    ("compute_features", "one sample", sound(ONE, NOISE[:1])),
    ("compute_features", "loud samples", sound(ONE, LOUD)),
    ("compute_features", "24 channels", sound(ONE, np.zeros((1000, 24)))),
    ("predict", "1 kHz", sound(IN, NOISE[:500], 1000)),
    ("predict", "loud samples", sound(IN, LOUD)),
    ("predict", "24 channels", sound(IN, np.full((1000, 24), 0.1))),
]


@pytest.mark.parametrize(("script", "what", "spoil"), ODD)
# The second, which goes before the first, is for a warning of Keras's own on PyTorch.
@pytest.mark.filterwarnings("error", "ignore:__array__ implementation")
def test_odd_input_that_works(folder, capfd, script, what, spoil):
    spoil()
    code, _, lines = run(script, COMMANDS[script].split(), capfd)
    assert (code, lines) == (0, [])
    assert Path(MADE[script]).is_file()


DENIED = [  # command, path without permission, its mode, more flags
    ("synthesize_audios", "midi/one.mid", 0, ""),
    ("synthesize_audios", "midi", 0, ""),
    ("synthesize_audios", NOTE, 0, ""),
    ("synthesize_audios", ".", 0o555, ""),
    ("compute_features", ONE, 0, ""),
    ("compute_features", "audios", 0, ""),
    ("compute_features", ".", 0o555, ""),
    ("train_generator", TILES, 0, ""),
    ("train_generator", "features/features.json", 0, ""),
    ("train_generator", ".", 0o555, ""),
    ("predict", IN, 0, ""),
    ("predict", "run/generator.keras", 0, ""),
    ("predict", ".", 0o555, ""),
    ("evaluate", IN, 0, "--inputs in.wav"),
    ("evaluate", ".", 0o555, "--inputs in.wav"),
    ("render_notes", "text.txt", 0, "--soundfont text.txt"),
]


@pytest.mark.parametrize(("script", "path", "mode", "flags"), DENIED)
def test_without_permission(folder, powerless, capfd, script, path, mode, flags):
    os.chmod(path, mode)
    code, _, lines = run(script, [*COMMANDS[script].split(), *flags.split()], capfd)
    os.chmod(path, 0o755)
    assert code == 2
    assert len(lines) == 1, lines
    assert (path if path != "." else "made") in lines[0]
    assert not list(Path("made").rglob(f"{A}/one.*"))
    assert not list(Path("made").rglob(".part-*"))
