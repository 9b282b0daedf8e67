"""Every mistake that we could think of, over all scripts: exit code 2, one line, nothing overwritten, nothing left behind."""

import csv
import ctypes
import importlib
import io
import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from music import TUNE, make_bank, midi_bytes, note, tempo

import data
from audio import write_audio

A, B = "keyboard_acoustic", "guitar_acoustic"
TRAINING = f"--dataset_path features --origin {A} --target {B} --runs_path made --gpu cpu --filters 1 --batch_size 1 --epochs 1"
COMMANDS = {
    "synthesize_audios": f"--nsynth_path notes --midi_path midi --audios_path made --instruments {A} --workers 1",
    "compute_features": "--audios audios --features made --workers 1",
    "train": TRAINING,
    "train_generator": TRAINING,
    "predict": "--model run --input in.wav --output made/out.wav --gpu cpu",
    "evaluate": "--model run --output made --gpu cpu --phase input",
    "render_notes": "--nsynth_path made",
}
DESCRIPTIONS = {
    "made/audios.json",
    "made/features.json",
}  # written before the first file is found to be bad
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
    paths = (
        "--audios",
        str(folder / "audios"),
        "--features",
        str(folder / "features"),
        "--workers",
        "1",
    )
    assert compute_features.main(paths) == 0
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


def contents(folder="."):
    """{path: bytes} of every file below, hidden ones too; None for a folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in Path(folder).rglob("*")
    }


def run(script, flags, capfd):
    """Run a command in this process: (exit code, stdout, lines on stderr that are no progress bar)."""
    capfd.readouterr()
    try:
        code = importlib.import_module(script).main(flags)
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capfd.readouterr()
    bar = re.compile(
        r"\d/(\d+|\?) \[|\dit \[|\d%\|"
    )  # tqdm's; it goes back to the line's start, where splitlines cuts too
    return code, out, [line for line in err.splitlines() if line.strip() and not bar.search(line)]


# What spoils the good folder


def put(path, content=b""):
    """Replace a file."""

    def spoil():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)

    return spoil


def cut(path, size):
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:size])


def patch(path, at, content):
    """Overwrite bytes within a file."""

    def spoil():
        raw = bytearray(Path(path).read_bytes())
        raw[at : at + len(content)] = content
        Path(path).write_bytes(raw)

    return spoil


def remove(path):
    return lambda: Path(path).unlink() if Path(path).is_file() else shutil.rmtree(path)


def folder_at(path):
    """A directory where a file belongs."""

    def spoil():
        if Path(path).is_file():
            Path(path).unlink()
        Path(path).mkdir(parents=True)

    return spoil


def all_of(*spoils):
    return lambda: [spoil() for spoil in spoils]


def sound(path, samples, rate=44100, subtype="FLOAT"):
    def spoil():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype)

    return spoil


def array(path, value):
    """A .npy file of an array, or of pickled objects."""
    return lambda: np.save(path, value, allow_pickle=True)


def midi(*events, **header):
    return put("midi/one.mid", midi_bytes(list(events), **header))


def raw_midi(body):
    """A MIDI file whose only track is of these bytes."""
    return put("midi/one.mid", midi_bytes()[:14] + b"MTrk" + len(body).to_bytes(4, "big") + body)


def model(layers, path="model.keras"):
    """Another Keras model."""

    def spoil():
        import keras

        keras.Sequential([keras.layers.Input((256, 256, 1)), *layers(keras.layers)]).save(path)

    return spoil


def archive(path, **files):
    def spoil():
        with zipfile.ZipFile(path, "w") as file:
            for name, content in files.items():
                file.writestr(name.replace("__", "."), content)

    return spoil


def weights(change):
    """Change every array in the model's weights."""

    def spoil():
        import models

        generator = models.build_generator(1)
        generator.set_weights([change(w) for w in generator.get_weights()])
        generator.save("run/generator.keras")

    return spoil


RANDOM = np.random.default_rng(0).bytes(5000)
NOISE = np.random.default_rng(0).normal(0, 0.1, 30000).astype(np.float32)
ONE, NOTE, IN = f"audios/{A}/one.wav", "notes/audio/keyboard_acoustic_000-060-100.wav", "in.wav"
TILES = f"features/{A}/one.npy"
PARAMETERS = {**data.FEATURE_PARAMETERS, "hop_length": 256}


def bad_number(value):
    samples = NOISE.copy()
    samples[20000] = value
    return samples


# Each: name, command, what spoils the folder (or None), more flags, what the line must name
CASES = [
    ("no flags", "synthesize_audios", None, "--unknown 1", "--unknown"),
    ("abbreviation", "synthesize_audios", None, "--trans 1", "--trans"),
    ("no folder", "synthesize_audios", None, "--midi_path nowhere", "nowhere"),
    ("file for folder", "synthesize_audios", None, "--midi_path text.txt", "text.txt"),
    (
        "empty folder",
        "synthesize_audios",
        all_of(remove("midi"), folder_at("midi")),
        "",
        "midi: holds no",
    ),
    (
        "folder named as a file",
        "synthesize_audios",
        folder_at("midi/one.mid"),
        "",
        "midi: holds no",
    ),
    (
        "dangling link",
        "synthesize_audios",
        lambda: (remove("midi/one.mid")(), os.symlink("no", "midi/one.mid")),
        "",
        "midi: ",
    ),
    ("no notes", "synthesize_audios", None, "--nsynth_path nowhere", "nowhere"),
    ("notes are a file", "synthesize_audios", None, "--nsynth_path text.txt", "text.txt"),
    ("notes of nothing", "synthesize_audios", None, "--nsynth_path audios", "audios"),
    (
        "unknown instrument",
        "synthesize_audios",
        None,
        "--instruments flute_acoustic",
        "flute_acoustic",
    ),
    ("unknown preset", "synthesize_audios", None, f"--instruments {A}_001", f"{A}_001"),
    ("instrument with a path", "synthesize_audios", None, "--instruments ../x", "../x"),
    ("instrument in capitals", "synthesize_audios", None, "--instruments Piano", "Piano"),
    ("output is a file", "synthesize_audios", None, "--audios_path text.txt", "text.txt"),
    ("output below a file", "synthesize_audios", None, "--audios_path text.txt/x", "text.txt"),
    (
        "a folder has the wav's name",
        "synthesize_audios",
        folder_at(f"made/{A}/one.wav"),
        "",
        "one.wav",
    ),
    ("settings damaged", "synthesize_audios", put("made/audios.json", b"{"), "", "audios.json"),
    (
        "settings are a list",
        "synthesize_audios",
        put("made/audios.json", b"[1]"),
        "",
        "audios.json",
    ),
    (
        "settings are binary",
        "synthesize_audios",
        put("made/audios.json", RANDOM),
        "",
        "audios.json",
    ),
    (
        "settings are a folder",
        "synthesize_audios",
        folder_at("made/audios.json"),
        "",
        "audios.json",
    ),
    (
        "other settings",
        "synthesize_audios",
        put("made/audios.json", b'{"notes": {}, "format": 0}'),
        "",
        "format 0",
    ),
    ("same name twice", "synthesize_audios", put("midi/one.midi", TUNE), "", "one.mid"),
    ("note empty", "synthesize_audios", put(NOTE), "", NOTE),
    ("note truncated", "synthesize_audios", cut(NOTE, 30), "", NOTE),
    ("note of random bytes", "synthesize_audios", put(NOTE, RANDOM), "", NOTE),
    ("note without samples", "synthesize_audios", sound(NOTE, NOISE[:0]), "", NOTE),
    ("note with NaN", "synthesize_audios", sound(NOTE, bad_number(np.nan)), "", NOTE),
    ("note is a folder", "synthesize_audios", folder_at(NOTE), "", NOTE),
    ("MIDI empty", "synthesize_audios", put("midi/one.mid"), "", "one.mid"),
    ("MIDI truncated", "synthesize_audios", cut("midi/one.mid", 40), "", "one.mid"),
    ("MIDI header only", "synthesize_audios", cut("midi/one.mid", 14), "", "one.mid"),
    ("MIDI of random bytes", "synthesize_audios", put("midi/one.mid", RANDOM), "", "one.mid"),
    ("MIDI is a wav", "synthesize_audios", lambda: shutil.copy(IN, "midi/one.mid"), "", "one.mid"),
    ("MIDI without notes", "synthesize_audios", midi(), "", "has no notes"),
    (
        "MIDI without tracks",
        "synthesize_audios",
        put("midi/one.mid", midi_bytes()),
        "",
        "has no notes",
    ),
    ("MIDI with drums only", "synthesize_audios", midi(*note(0, 9, channel=9)), "", "drums only"),
    (
        "MIDI with a 10 h gap",
        "synthesize_audios",
        midi(*note(0, 9), *note(35_000_000, 35_000_009)),
        "",
        "10.1 h",
    ),
    (
        "MIDI with absurd ticks",
        "synthesize_audios",
        raw_midi(b"\xff" * 30 + b"\x7f\x90\x3c\x64"),
        "",
        "one.mid",
    ),
    (
        "MIDI with an absurd tempo",
        "synthesize_audios",
        midi(*tempo(0, 0xFFFFFF), *note(9, 1_000_000)),
        "",
        "9.7 h",
    ),
    ("MIDI without status", "synthesize_audios", raw_midi(b"\0\x3c\x64"), "", "one.mid"),
    (
        "MIDI of a million notes",
        "synthesize_audios",
        raw_midi(b"\0\x90\x3c\x64" + b"\0\x3c\0\1\x3c\x64" * 10**6),
        "",
        "4 MB",
    ),
    ("speed 0", "synthesize_audios", None, "--playback_speed 0", "--playback_speed"),
    ("speed not finite", "synthesize_audios", None, "--playback_speed nan", "nan"),
    ("speed negative", "synthesize_audios", None, "--playback_speed -1", "-1"),
    ("speed no number", "synthesize_audios", None, "--playback_speed fast", "fast"),
    ("durations of 0", "synthesize_audios", None, "--duration_rate 0", "--duration_rate"),
    ("durations infinite", "synthesize_audios", None, "--duration_rate inf", "inf"),
    (
        "durations too long",
        "synthesize_audios",
        midi(*note(0, 480_000)),
        "--duration_rate 100",
        "one.mid: at speed 1",
    ),
    ("part of a semitone", "synthesize_audios", None, "--transpose 0.5", "0.5"),
    ("transposed too far", "synthesize_audios", None, "--transpose 99", "99"),
    ("no workers", "synthesize_audios", None, "--workers 0", "--workers"),
    ("no cluster", "synthesize_audios", None, "--dask tcp://127.0.0.1:1", "tcp://127.0.0.1:1"),
    ("no test pieces", "evaluate", None, "--audios_path audios --pieces test", "--pieces test"),
    ("cluster without a port", "compute_features", None, "--dask here", "--dask here"),
    ("no folder", "compute_features", None, "--audios nowhere", "nowhere"),
    ("file for folder", "compute_features", None, "--audios in.wav", "in.wav"),
    ("no audio", "compute_features", None, "--audios midi", "midi: holds no audio"),
    ("no instrument's folder", "compute_features", None, "--audios .", "in.wav: lies in no"),
    (
        "same name twice",
        "compute_features",
        sound(f"audios/{A}/one.flac", NOISE, subtype="PCM_16"),
        "",
        "same name",
    ),
    ("audio empty", "compute_features", put(ONE), "", ONE),
    ("audio truncated", "compute_features", cut(ONE, 30), "", ONE),
    ("audio of random bytes", "compute_features", put(ONE, RANDOM), "", ONE),
    ("mp3 of random bytes", "compute_features", put(f"audios/{A}/x.mp3", RANDOM), "", "x.mp3"),
    (
        "ogg of random bytes",
        "compute_features",
        put(f"audios/{A}/x.ogg", b"OggS" + RANDOM),
        "",
        "x.ogg",
    ),
    ("text for audio", "compute_features", put(ONE, b"hello\n" * 99), "", ONE),
    ("NaN", "compute_features", sound(ONE, bad_number(np.nan)), "", ONE),
    ("infinite", "compute_features", sound(ONE, bad_number(-np.inf)), "", ONE),
    ("huge samples", "compute_features", sound(ONE, bad_number(1e38)), "", ONE),
    ("0 Hz", "compute_features", patch(ONE, 24, bytes(4)), "", ONE),
    ("1 MHz", "compute_features", sound(ONE, NOISE, 1_000_000), "", "1000000 Hz"),
    ("33 channels", "compute_features", sound(ONE, np.zeros((100, 33))), "", "33 channels"),
    (
        "flac cut off",
        "compute_features",
        all_of(
            sound(f"audios/{A}/x.flac", NOISE, subtype="PCM_16"), cut(f"audios/{A}/x.flac", 20000)
        ),
        "",
        "x.flac",
    ),
    ("output is a file", "compute_features", None, "--features text.txt", "text.txt"),
    ("output = input", "compute_features", None, "--features audios --fresh", "--features audios"),
    (
        "output holds the input",
        "compute_features",
        put("features.json", b"{}"),
        "--features . --fresh",
        "--features .",
    ),
    (
        "a folder has the tiles' name",
        "compute_features",
        folder_at(f"made/{A}/one.npy"),
        "",
        "one.npy",
    ),
    (
        "description damaged",
        "compute_features",
        put("made/features.json", b"[]"),
        "",
        "features.json",
    ),
    (
        "description binary",
        "compute_features",
        put("made/features.json", RANDOM),
        "",
        "features.json",
    ),
    (
        "other parameters",
        "compute_features",
        put("made/features.json", json.dumps({"parameters": PARAMETERS}).encode()),
        "",
        "hop_length",
    ),
    ("no folder", "train", None, "--dataset_path nowhere", "nowhere"),
    ("file for folder", "train", None, "--dataset_path text.txt", "text.txt"),
    ("no description", "train", remove("features/features.json"), "", "features.json: not found"),
    (
        "description damaged",
        "train",
        put("features/features.json", b'{"parameters": 3}'),
        "",
        "features.json: damaged",
    ),
    ("description is a folder", "train", folder_at("features/features.json"), "", "features.json"),
    (
        "other parameters",
        "train",
        put("features/features.json", json.dumps({"parameters": PARAMETERS}).encode()),
        "",
        "hop_length is 256",
    ),
    ("origin = target", "train", None, f"--target {A}", A),
    ("unknown origin", "train", None, "--origin flute_acoustic", "flute_acoustic"),
    ("unknown target", "train_generator", None, "--target flute_acoustic", "flute_acoustic"),
    (
        "no common piece",
        "train",
        lambda: [p.rename(p.with_name(f"other {p.name}")) for p in Path(f"features/{A}").iterdir()],
        "",
        "no piece in common",
    ),
    (
        "one piece",
        "train",
        lambda: [Path(f"features/{i}/one.npy").unlink() for i in (A, B)],
        "",
        "two: is the only piece",
    ),
    (
        "tile counts differ",
        "train",
        array(TILES, np.zeros((7, 256, 256, 1), np.float16)),
        "",
        "one: 7 tiles",
    ),
    ("tiles empty", "train", put(TILES), "", TILES),
    ("tiles truncated", "train", cut(TILES, 5000), "", TILES),
    ("tiles of random bytes", "train", put(TILES, RANDOM), "", TILES),
    ("tiles pickled", "train", array(TILES, np.array([{}, []], object)), "", TILES),
    ("a bare pickle", "train", put(TILES, pickle.dumps(np.zeros(3))), "", TILES),
    (
        "tiles an archive",
        "train",
        lambda: (np.savez("x.npz", a=NOISE), os.replace("x.npz", TILES)),
        "",
        TILES,
    ),
    (
        "tiles in float32",
        "train",
        array(TILES, np.zeros((1, 256, 256, 1), np.float32)),
        "",
        "float32",
    ),
    (
        "tiles of other shape",
        "train",
        array(TILES, np.zeros((1, 128, 256, 1), np.float16)),
        "",
        "(1, 128, 256, 1)",
    ),
    ("tiles a number", "train", array(TILES, np.float16(1)), "", TILES),
    ("no tiles", "train", array(TILES, np.zeros((0, 256, 256, 1), np.float16)), "", TILES),
    (
        "absurd tile count",
        "train",
        lambda: Path(TILES).write_bytes(header_only((10**12, 256, 256, 1))),
        "",
        TILES,
    ),
    ("batch larger than the data", "train", None, "--batch_size 99", "--batch_size 99"),
    ("epochs 0", "train", None, "--epochs 0", "--epochs"),
    ("epochs no number", "train_generator", None, "--epochs many", "many"),
    ("part of a batch", "train", None, "--batch_size 1.5", "1.5"),
    ("all held out", "train", None, "--validation_split 1", "--validation_split"),
    ("nothing held out", "train", None, "--validation_split 0", "--validation_split"),
    ("rate 0", "train", None, "--gen_lr 0", "--gen_lr"),
    ("rate negative", "train_generator", None, "--lr -1", "-1"),
    ("rate not finite", "train", None, "--disc_lr nan", "nan"),
    ("no weights there", "train", None, "--weights nowhere", "nowhere"),
    (
        "weights unnamed",
        "train_generator",
        None,
        f"--weights {A}_2_flute_acoustic",
        f"{A}_2_flute_acoustic: no model there",
    ),
    ("weights are text", "train", None, "--weights text.txt", "text.txt"),
    (
        "weights truncated",
        "train_generator",
        cut("run/generator.keras", 20000),
        "--weights run",
        "generator.keras",
    ),
    (
        "weights of another layout",
        "train",
        model(lambda L: [L.Conv2D(2, 4, padding="same")]),
        "--weights model.keras",
        "model.keras",
    ),
    (
        "weights not those of the sum",
        "train",
        put("run/SHA256SUMS", b"0" * 64),
        "--weights run",
        "SHA256SUMS",
    ),
    ("epochs of no tiles", "train", None, "--epoch_tiles 0", "--epoch_tiles"),
    ("epochs of half a tile", "train_generator", None, "--epoch_tiles 0.5", "0.5"),
    (
        "batch larger than an epoch",
        "train",
        None,
        "--batch_size 2 --epoch_tiles 1",
        "--batch_size 2",
    ),
    ("decay negative", "train", None, "--decay_epochs -1", "--decay_epochs"),
    ("decay no number", "train_generator", None, "--decay_epochs late", "late"),
    ("decay longer than training", "train", None, "--decay_epochs 2", "--decay_epochs 2"),
    ("one of two targets unknown", "train", None, f"--target {B} flute_acoustic", "flute_acoustic"),
    ("one of two targets the origin", "train", None, f"--target {B} {A}", A),
    ("same target twice", "train", None, f"--target {B} {B}", B),
    ("no such conditioning", "train", None, "--conditioning magic", "magic"),
    ("neither true nor false", "train", None, "--findlr perhaps", "perhaps"),
    ("no such GPU", "train", None, "--gpu 99", "--gpu 99"),
    ("GPU by name", "train", None, "--gpu first", "--gpu first"),
    ("no such precision", "train", None, "--precision float8", "float8"),
    ("no MAESTRO table", "train", None, "--maestro_split nowhere.csv", "nowhere.csv"),
    (
        "MAESTRO table of others",
        "train",
        put("m.csv", b"midi_filename,split\nx.midi,train"),
        "--maestro_split m.csv",
        "m.csv",
    ),
    ("MAESTRO table a folder", "train", None, "--maestro_split midi", "midi"),
    ("runs are a file", "train", None, "--runs_path text.txt", "text.txt"),
    (
        "configuration damaged",
        "train_generator",
        put(f"{RUN}_generator/config.json", b"[]"),
        "",
        "config.json",
    ),
    ("state damaged", "train", put(f"{RUN}/last/state.json", b"{"), "", "state.json"),
    ("state of another kind", "train", put(f"{RUN}/last/state.json", b"[1]"), "", "state.json"),
    (
        "state half there",
        "train",
        put(f"{RUN}/last/state.json", b'{"history": 3}'),
        "",
        "state.json",
    ),
    ("no model", "predict", None, "--model nowhere", "nowhere"),
    (
        "no pretrained model of this name",
        "predict",
        None,
        f"--model {A}_2_flute",
        f"{A}_2_flute: no model there",
    ),
    ("model not that of the sum", "predict", put("run/SHA256SUMS", b"0" * 64), "", "SHA256SUMS"),
    ("sums are binary", "predict", put("run/SHA256SUMS", RANDOM), "", "SHA256SUMS"),
    ("style for a model of one target", "predict", None, "--style in.wav", "--style"),
    ("seed too large", "predict", None, f"--seed {2**128}", "--seed"),
    ("no style there", "predict", None, "--style nowhere.wav", "--style"),
    ("model folder empty", "predict", None, "--model midi", "midi: no model"),
    ("model empty", "predict", put("model.keras"), "--model model.keras", "model.keras"),
    ("model of random bytes", "predict", put("model.h5", RANDOM), "--model model.h5", "model.h5"),
    ("model truncated", "predict", cut("run/generator.keras", 20000), "", "generator.keras"),
    ("model is text", "predict", None, "--model text.txt", "text.txt"),
    ("model is audio", "predict", None, "--model in.wav", "in.wav"),
    (
        "model archive of text",
        "predict",
        archive("m.keras", model__weights__h5="x"),
        "--model m.keras",
        "m.keras",
    ),
    (
        "model archive without weights",
        "predict",
        archive("m.keras", x="x"),
        "--model m.keras",
        "m.keras",
    ),
    (
        "model with code in it",
        "predict",
        model(lambda L: [L.Lambda(lambda x: x + 1)]),
        "--model model.keras",
        "model.keras",
    ),
    (
        "model of another layout",
        "predict",
        model(lambda L: [L.Conv2D(2, 4, padding="same")]),
        "--model model.keras",
        "model.keras",
    ),
    (
        "model too narrow",
        "predict",
        model(lambda L: [L.Dense(3)]),
        "--model model.keras",
        "model.keras",
    ),
    ("model of NaN", "predict", weights(lambda w: w * np.nan), "", "NaN"),
    ("no input", "predict", None, "--input nowhere.wav", "nowhere.wav"),
    ("input folder without audio", "predict", None, "--input midi --output made", "midi"),
    ("input empty", "predict", put(IN), "", IN),
    ("input truncated", "predict", cut(IN, 30), "", IN),
    ("input of random bytes", "predict", put(IN, RANDOM), "", IN),
    ("input a MIDI file", "predict", None, "--input midi/one.mid", "one.mid"),
    ("input with NaN", "predict", sound(IN, bad_number(np.nan)), "", IN),
    ("input infinite", "predict", sound(IN, bad_number(np.inf)), "", IN),
    ("input of 0 Hz", "predict", patch(IN, 24, bytes(4)), "", IN),
    ("input of 1 MHz", "predict", sound(IN, NOISE, 1_000_000), "", "1000000 Hz"),
    ("input of 33 channels", "predict", sound(IN, np.zeros((100, 33))), "", "33 channels"),
    ("output = input", "predict", None, "--output in.wav", "in.wav"),
    (
        "output = input by a link",
        "predict",
        lambda: os.symlink(IN, "out.wav"),
        "--output out.wav",
        "in.wav",
    ),
    ("output folder = input's", "predict", None, "--output .", "in.wav"),
    ("format unknown", "predict", None, "--output out.xyz", "out.xyz"),
    ("several to one file", "predict", None, f"--input in.wav {ONE} --output out.wav", "out.wav"),
    ("folder to one file", "predict", None, "--input audios --output out.wav", "out.wav"),
    (
        "two of one name",
        "predict",
        None,
        f"--input {ONE} audios/{B}/one.wav --output made",
        "one.wav",
    ),
    ("output below a file", "predict", None, "--output text.txt/out.wav", "text.txt"),
    (
        "mp3 of 24 channels",
        "predict",
        sound(IN, np.zeros((100, 24))),
        "--output out.mp3",
        "out.mp3",
    ),
    ("mp3 at an odd rate", "predict", None, "--output out.mp3 --sr 12345", "out.mp3"),
    ("rate 0 Hz", "predict", None, "--sr 0", "--sr"),
    ("rate 1 MHz", "predict", None, "--sr 1000000", "--sr"),
    ("overlap 1", "predict", None, "--overlap 1", "--overlap"),
    ("level above full scale", "predict", None, "--normalize 3", "--normalize"),
    ("no such phase", "predict", None, "--phase magic", "magic"),
    ("seed negative", "predict", None, "--seed -1", "--seed"),
    ("no model", "evaluate", None, "--model nowhere --audios audios", "nowhere"),
    ("no pieces named", "evaluate", None, "", "--audios"),
    ("no folder", "evaluate", None, "--audios nowhere", "nowhere"),
    (
        "configuration damaged",
        "evaluate",
        put("run/config.json", b"[]"),
        "--audios audios",
        "config.json",
    ),
    ("no list of pairs", "evaluate", None, "--pairs nowhere.csv", "nowhere.csv"),
    ("pairs of random bytes", "evaluate", put("p.csv", RANDOM), "--pairs p.csv", "p.csv"),
    ("pairs of three", "evaluate", put("p.csv", b"a,b,c\n"), "--pairs p.csv", "line 1"),
    ("pair not there", "evaluate", put("p.csv", b"in.wav,no.wav\n"), "--pairs p.csv", "no.wav"),
    ("input not there", "evaluate", None, "--inputs no.wav", "no.wav"),
    ("input without sound", "evaluate", sound(IN, NOISE[:0]), "--inputs in.wav", IN),
    ("no pieces wanted", "evaluate", None, "--inputs in.wav --limit 0", "--limit"),
    (
        "no pretrained model of this name",
        "evaluate",
        None,
        "--model flute --inputs in.wav",
        "flute: no model there",
    ),
    (
        "model not that of the sum",
        "evaluate",
        put("run/SHA256SUMS", b"0" * 64),
        "--inputs in.wav",
        "SHA256SUMS",
    ),
    ("input with NaN", "evaluate", sound(IN, bad_number(np.nan)), "--inputs in.wav", IN),
    ("piece truncated", "evaluate", cut(f"audios/{A}/two.wav", 30), "--audios audios", "two.wav"),
    (
        "piece not there",
        "evaluate",
        remove(f"audios/{B}/two.wav"),
        "--audios audios",
        "audios: holds none",
    ),
    ("report is a file", "evaluate", None, "--inputs in.wav --report text.txt", "text.txt"),
    ("output is a file", "evaluate", None, "--inputs in.wav --output text.txt", "text.txt"),
    ("no scores", "evaluate", None, "--audios audios --midi_path nowhere", "nowhere"),
    ("model of NaN", "evaluate", weights(lambda w: w * np.nan), "--inputs in.wav", "NaN"),
    ("no font", "render_notes", None, "--soundfont nowhere.sf2", "nowhere.sf2"),
    ("font is text", "render_notes", None, "--soundfont text.txt", "text.txt"),
    ("font is a folder", "render_notes", None, "--soundfont midi", "midi"),
    (
        "font truncated",
        "render_notes",
        put("x.sf2", b"RIFF\xff\0\0\0sfbkLIST"),
        "--soundfont x.sf2",
        "FluidSynth",
    ),
    (
        "program too high",
        "render_notes",
        None,
        "--soundfont x --instruments organ_acoustic=128",
        "organ_acoustic=128",
    ),
    (
        "no program",
        "render_notes",
        None,
        "--soundfont x --instruments organ_acoustic",
        "organ_acoustic",
    ),
    ("instrument with a path", "render_notes", None, "--soundfont x --instruments ../x=1", "../x"),
]


def header_only(shape):
    """The beginning of a .npy file that promises more than there is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f2", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


@pytest.mark.parametrize(
    ("script", "spoil", "flags", "names"),
    [pytest.param(*c[1:], id=f"{c[1]}: {c[0]}") for c in CASES],
)
def test_a_mistake_is_told_in_one_line(folder, capfd, script, spoil, flags, names):
    if spoil:
        spoil()
    before = contents()
    code, _, lines = run(script, [*COMMANDS[script].split(), *flags.split()], capfd)
    assert code == 2
    assert len(lines) == 1, lines
    assert names in lines[0]
    assert re.search(r"; \w|: give|see --help", lines[0]), f"no remedy: {lines[0]}"
    after = contents()
    assert {path: after.get(path) for path in before} == before


def test_training_on_values_that_are_no_numbers(folder, capfd):
    np.save(TILES, np.full((1, 256, 256, 1), np.nan, np.float16))
    np.save(f"features/{A}/two.npy", np.full((1, 256, 256, 1), np.nan, np.float16))
    code, _, lines = run("train_generator", COMMANDS["train_generator"].split(), capfd)
    assert code == 2
    assert len(lines) == 1
    assert "lower the learning rate" in lines[0]
    assert not list(Path("made").rglob("*.keras"))


STRANGE = 'it\'s a "test"\n\t– музыка 音楽 🎹 %s {x} [1]* $HOME; -x #~t+'


@pytest.mark.filterwarnings("ignore:Glyph")  # the previews' titles
def test_strange_paths_work(folder, capfd):
    """All steps in a row below a folder with quotes, line breaks, other scripts and signs that mean something to others."""
    for name in ("notes", "midi", "in.wav"):
        (folder / STRANGE).mkdir(exist_ok=True)
        os.rename(name, f"{STRANGE}/{name}")
    os.chdir(STRANGE)
    os.rename("midi/one.mid", f"midi/{STRANGE}.mid")
    shutil.copytree("midi", f"midi/{STRANGE}")
    make_bank(
        Path("notes"), "guitar_acoustic_000", pitches=(60,), velocities=(100,), seconds=0.3, decay=5
    )
    with open(f"{STRANGE}.csv", "w", newline="", encoding="utf-8") as file:
        rows = (f"{STRANGE}.mid", "train"), (f"{STRANGE}/{STRANGE}.mid", "validation")
        csv.writer(file).writerows([("midi_filename", "split"), *rows])
    here = os.getcwd()

    def works(script, *flags):
        base = COMMANDS[script].split()
        code, out, lines = run(script, [*base, *flags], capfd)
        assert (code, lines) == (0, []), out
        assert os.getcwd() == here

    works("synthesize_audios", "--audios_path", f"{here}/a udio", "--instruments", A, B)
    works("compute_features", "--audios", "a udio", "--features", f"{STRANGE}/features")
    training = (
        "--dataset_path",
        f"{STRANGE}/features",
        "--runs_path",
        STRANGE,
        "--maestro_split",
        f"{STRANGE}.csv",
    )
    works("train_generator", *training)
    model = f"{STRANGE}/{A}_2_{B}_generator"
    assert Path(model, "previews/epoch_001/audio.wav").is_file()
    works("predict", "--model", model, "--input", "a udio", "--output", f"{STRANGE}/converted")
    works(
        "predict",
        "--model",
        f"{model}/generator.keras",
        "--input",
        "in.wav",
        "--output",
        f"{STRANGE}/{STRANGE}.ogg",
    )
    works(
        "evaluate",
        "--model",
        model,
        "--audios",
        "a udio",
        "--midi_path",
        "midi",
        "--report",
        f"{STRANGE}/page",
    )
    assert soundfile.info(f"{STRANGE}/{STRANGE}.ogg").frames == 30000
    assert soundfile.info(f"{STRANGE}/converted/{B}/{STRANGE}/{STRANGE}.wav").frames > 0
    assert not [path for path in contents() if ".part-" in path]


GOOD_CASES = [
    (
        "pitches 0 and 127",
        "synthesize_audios",
        midi(*note(0, 9, 0), *note(0, 9, 60), *note(9, 18, 127)),
        "2 lost",
    ),
    (
        "note of no length",
        "synthesize_audios",
        midi(*note(480, 480), *note(0, 480)),
        "1 pieces rendered",
    ),
    (
        "note never switched off",
        "synthesize_audios",
        midi((0, 0x90, 60, 100), (480, 0xB0, 1, 1)),
        "1 notes",
    ),
    (
        "MIDI counting frames",
        "synthesize_audios",
        midi(*note(0, 9), division=-6360),
        "1 pieces rendered",
    ),
    (
        "MIDI of no ticks",
        "synthesize_audios",
        midi(*note(0, 9), division=0),
        "1 pieces rendered",
    ),
    (
        "an hour of silence",
        "synthesize_audios",
        midi(*note(0, 9), *note(3_456_000, 3_456_009)),
        "1.00 h",
    ),
    ("a wav without samples", "compute_features", sound(ONE, NOISE[:0]), "0 left out"),
    ("one sample", "compute_features", sound(ONE, NOISE[:1]), "0 left out"),
    ("loud samples", "compute_features", sound(ONE, NOISE * np.float32(1e9)), "0 left out"),
    ("24 channels", "compute_features", sound(ONE, np.zeros((1000, 24))), "0 left out"),
    ("24 channels", "predict", sound(IN, np.full((1000, 24), 0.1)), "1 of 1"),
    ("1 kHz", "predict", sound(IN, NOISE[:500], 1000), "1 of 1"),
    ("a wav without samples", "predict", sound(IN, NOISE[:0]), "1 of 1"),
    ("loud samples", "predict", sound(IN, NOISE * np.float32(1e9)), "1 of 1"),
]


@pytest.mark.parametrize(
    ("script", "spoil", "says"), [pytest.param(*c[1:], id=f"{c[1]}: {c[0]}") for c in GOOD_CASES]
)
@pytest.mark.filterwarnings("error")
def test_odd_input_that_works(folder, capfd, script, spoil, says):
    spoil()
    code, out, lines = run(script, COMMANDS[script].split(), capfd)
    assert (code, lines) == (0, [])
    assert says in out


@pytest.fixture
def powerless(folder):
    """Root, too, obeys permissions: without these two capabilities of Linux."""
    if os.name == "nt" or (os.geteuid() == 0 and sys.platform != "linux"):
        pytest.skip("POSIX permissions")
    libc, header, capabilities = (
        ctypes.CDLL(None),
        (ctypes.c_uint32 * 2)(0x20080522, 0),
        (ctypes.c_uint32 * 6)(),
    )
    libc.capget(header, capabilities)
    before = capabilities[0]  # the effective ones
    capabilities[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.capset(header, capabilities)
    yield
    capabilities[0] = before
    libc.capset(header, capabilities)


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
def test_without_permission(powerless, capfd, script, path, mode, flags):
    os.chmod(path, mode)
    code, _, lines = run(script, [*COMMANDS[script].split(), *flags.split()], capfd)
    os.chmod(path, 0o755)
    assert code == 2
    assert len(lines) == 1, lines
    assert (path if path != "." else "made") in lines[0]
    assert re.search(r"; \w", lines[0])
    assert not list(Path("made").rglob(f"{A}/one.*")) + list(Path("made").rglob(".*"))
