"""What is fuzzed: each target takes the bytes of a file and must return, or raise `UserError`.

`seeds` has good files for each, to be damaged. What is tested is imported late, so that run.py can
have it instrumented.
"""

import functools
import io
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


TARGETS = {"midi": fuzz_midi, "audio": fuzz_audio, "tiles": fuzz_tiles, "model": fuzz_model}


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
    makers = {"midi": _good_midi, "audio": _good_audio, "tiles": _good_tiles, "model": _good_models}
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
