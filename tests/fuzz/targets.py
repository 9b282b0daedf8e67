"""What is fuzzed: each target takes the bytes of a file and must return, or raise `UserError`.

`seeds` has good files for each, to be damaged. What is tested is imported late, so that run.py can
have it instrumented.
"""

import functools
import io
import json
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import soundfile

from common.cli import UserError

ROOT = Path(__file__).parents[2]


@functools.lru_cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def _file(content, suffix):
    path = Path(_folder().name, f"input{suffix}")
    path.write_bytes(content)
    return path


def fuzz_midi(content):
    """Parse, and vary."""
    from synthesis import scores

    score = scores.read_score(_file(content, ".mid"))
    changed = scores.change_score(score, speed=0.5, duration_rate=3, transpose=-2)
    for notes in (score, changed):
        assert len(notes)
        assert np.isfinite(notes["onset"]).all()
        assert (notes["duration"] >= 0).all()


def fuzz_audio(content):
    """Read, and make tiles."""
    import compute_features

    path = _file(content, ".wav")
    tiles = path.with_suffix(".npy")
    compute_features.write_tiles(path, tiles)
    array = np.load(tiles, mmap_mode="r")
    assert array.min() >= 0 and array.max() <= 1


def fuzz_tiles(content):
    """Open as training does, and touch the ends."""
    from common import dataset

    for cache in (False, True):
        tiles = dataset.Tiles(_file(content, ".npy"), cache)
        assert tiles[0].shape == tiles[len(tiles) - 1].shape == tiles.shape[1:]


def fuzz_model(content):
    """Load as predict.py does: a zip archive, or else HDF5."""
    from conversion import model_files

    model_files.load_generator(_file(content, ".keras" if content[:2] == b"PK" else ".weights.h5"))


def fuzz_config(content):
    """Read a run's config.json as every script does."""
    _use_run("config.json", content)


def fuzz_state(content):
    """Continue a run with this state.json."""
    _use_run("last/state.json", content)


def fuzz_features(content):
    """Begin to train on tiles with this features.json."""
    from common import dataset
    from sound.recordings import find_audio

    folder = Path(_folder().name, "features")
    folder.mkdir(exist_ok=True)
    (folder / "features.json").write_bytes(content)
    description = dataset.read_features_json(folder)
    if description.get("audios") is not None:
        find_audio(Path(description["audios"]) / "guitar_acoustic", "piece")


def _use_run(name, content):
    """Use a run folder in which one file has this content; raises the last `UserError`."""
    folder = _make_run()
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    refused = None
    try:
        for use in (_read_facts, _write_page, _parse_flags, _resume):
            if use is _resume and refused is not None:  # then it is not reached
                break
            try:
                use(folder)
            except UserError as error:
                refused = error
                assert "; " in str(error)
    finally:
        (folder / name).write_bytes(before)
    if refused is not None:
        raise refused


@functools.lru_cache
def _make_run():
    """A run folder of three epochs, without networks."""
    folder = Path(_folder().name, "runs", "keyboard_acoustic_2_guitar_acoustic")
    (folder / "last").mkdir(parents=True)
    (folder / "config.json").write_bytes(_good_config()[0])
    (folder / "last" / "state.json").write_bytes(_good_state()[0])
    table = "epoch,seconds,mae_db,val_mae_db\n1,2.5,6.5,7.5\n2,2.5,6,7\n"
    (folder / "history.csv").write_text(table)
    return folder


def _read_facts(folder):
    from common.run_facts import RunFacts
    from conversion import known_models
    from research import registry

    run = RunFacts(folder)
    for name in ("flags", "baselines", "split", "origins", "unheard", "targets", "pull", "error"):
        getattr(run, name)
    known_models.describe_model(folder)
    registry.read_from_run(run)


def _write_page(folder):
    from report import run_page

    run_page.write_run_page(folder)
    run_page.write_overview(folder.parent)


def _parse_flags(folder):
    import train
    from training import flags

    try:
        flags.parse(train.build_parser(), ["--resume", str(folder)], "train")
    except SystemExit as error:  # argparse's: a flag is missing now
        raise UserError("the parser; it said what is missing") from error


def _resume(folder):
    from training import run_folder

    run = run_folder.Run(folder)
    run.known_split(["a", "b"])
    run.check({"filters": 2, "gen_lr": 5e-4, "disc_lr": 5e-5, "epochs": 9}, "float32")
    run.seconds_trained()
    if run.history:
        run.summarise()


TARGETS = {
    "midi": fuzz_midi,
    "audio": fuzz_audio,
    "tiles": fuzz_tiles,
    "model": fuzz_model,
    "config": fuzz_config,
    "state": fuzz_state,
    "features": fuzz_features,
}
JSON = ("config", "state", "features")  # targets that are JSON: most damage is to their values


def run_one(target, content):
    """Whether the input was taken; False: refused as documented. Anything else passes through."""
    try:
        TARGETS[target](content)
        return True
    except UserError as error:
        assert "; " in str(error)
        return False


@functools.lru_cache
def seeds(target):
    """Good files of a target, a list of bytes."""
    makers = {
        "midi": _good_midi,
        "audio": _good_audio,
        "tiles": _good_tiles,
        "model": _good_models,
        "config": _good_config,
        "state": _good_state,
        "features": _good_features,
    }
    return makers[target]()


def _good_midi():
    events = (
        b"\0\xff\x51\3\7\xa1\x20"  # tempo
        b"\0\xb0\x40\x7f"  # pedal down
        b"\0\x90\x3c\x64\x30\x3c\0"  # a note, whose end has no status byte
        b"\x10\x91\x40\x50\x83\x60\x81\x40\0"  # a note of another channel, with a long delay
        b"\0\xff\x2f\0"  # end
    )
    header = struct.pack(">4sIHHh", b"MThd", 6, 1, 1, 480)
    made = header + struct.pack(">4sI", b"MTrk", len(events)) + events
    return [made, (ROOT / "demo/midi/bach_invention_1.mid").read_bytes()]


def _good_audio():
    noise = np.random.default_rng(0).normal(0, 0.1, (600, 2))
    formats = [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", None),
    ]
    made = []
    for kind, subtype in formats:
        file = io.BytesIO()
        soundfile.write(file, noise, 44100, subtype, format=kind)
        made.append(file.getvalue())
    return made


def _good_tiles():
    file = io.BytesIO()
    np.save(file, np.zeros((1, 256, 256, 1), np.float16))
    return [file.getvalue()]


def _good_models():
    import models
    from conversion import packed_weights

    generator = models.build_generator(1)
    archive = Path(_folder().name, "seed.keras")
    generator.save(archive)
    assert zipfile.is_zipfile(archive)
    weights = Path(_folder().name, "seed.weights.h5")
    generator.save_weights(weights)
    packed = Path(_folder().name, "packed.weights.h5")
    packed_weights.pack(weights, packed)
    return [archive.read_bytes(), weights.read_bytes(), packed.read_bytes()]


def _good_config():
    flags = {
        "script": "train",
        "dataset_path": "features",
        "origin": ["keyboard_acoustic"],
        "target": ["guitar_acoustic"],
        "hold_out_origin": None,
        "filters": 2,
        "gen_lr": 5e-4,
        "disc_lr": 5e-5,
        "epochs": 2,
        "choose": "last",
        "learn": "magnitude",
        "conditions": ["room"],
    }
    start = {"flags": flags, "policy": "float32", "versions": {"keras": "3.0"}}
    config = {
        **start,
        "split": {"train": ["a"], "validation": ["b"]},
        "bins": 256,
        "pull": 0.1,
        "kind": "magnitude",
        "style": "none",
        "baselines_db": {"identity": 8.0, "median": 12.0},
        "fingerprint": "0",
        "starts": [{"first_epoch": 1, "time": "2020-01-01", **start}],
    }
    return [json.dumps(config).encode()]


def _good_state():
    rows = []
    for epoch in (1, 2):
        row = {"epoch": epoch, "seconds": 2.5, "tiles_per_s": 9.0, "gen_lr": 5e-4, "disc_lr": 5e-5}
        rows.append({**row, "mae_db": 6.0, "val_mae_db": 7.0})
    return [json.dumps({"history": rows}).encode()]


def _good_features():
    import data

    description = {"parameters": data.FEATURE_PARAMETERS, "audios": "/nowhere", "fingerprint": "0"}
    return [json.dumps(description).encode()]


def damage_target(target, content, rng):
    """Damage a good file of a target; JSON mostly in its values."""
    if target in JSON and rng.random() < 0.8:
        return damage_json(content, rng)
    return damage(content, rng)


ODD = (None, True, -1, 0, 1e308, 2**70, float("nan"), float("inf"), "", "x", "\0", "../..", [], {})


def damage_json(content, rng):
    """Replace, remove or wrap one to three values of a JSON text."""
    tree = {"": json.loads(content)}
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = tree
        key = ""
        while isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.85:
            place = place[key]
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        kind = rng.choice(("odd", "odd", "gone", "list", "dict", "text"))
        if kind == "gone" and place is not tree:
            del place[key]
            continue
        odd = rng.choice(ODD)
        if isinstance(odd, (list, dict)):
            odd = type(odd)()  # a new one, because a later change may fill it
        new = {"list": [place[key]], "dict": {"x": place[key]}, "text": str(place[key])}
        place[key] = new.get(kind, odd)
    return json.dumps(tree[""]).encode()


LIMITS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")


def damage(content, rng):
    """A few random changes: bits, bytes, cuts, repeats, numbers at their limits."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):  # many changes are seen at once, few come deep
        _change(content, _choose_place(content, rng), rng)
    return bytes(content)


def _choose_place(content, rng):
    """An index, mostly near the beginning, where headers are."""
    size = len(content) or 1
    if rng.random() < 0.7:
        return min(int(size ** rng.random()), size) - 1
    return rng.randrange(size)


def _change(content, at, rng):
    """One change in place."""
    kind = rng.choice(("bit", "byte", "cut", "repeat", "limit", "hole"))
    if kind == "bit" and content:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        content[at : at + 1] = bytes([rng.randrange(256)])
    elif kind == "cut":
        del content[at:]
    elif kind == "repeat":
        content[at:at] = content[at : at + rng.randint(1, 64)]
    elif kind == "limit":
        content[at : at + 4] = rng.choice(LIMITS)
    else:
        del content[at : at + rng.randint(1, 16)]
