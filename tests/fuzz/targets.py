"""What is fuzzed: each target takes the bytes of a file and must return, or raise the documented `UserError`.

`seeds` has good files for each, to be damaged. What is tested is imported late, so that run.py can have it instrumented.
"""

import functools
import io
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import soundfile

from cli import UserError

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
    import midi

    score = midi.read_score(_file(content, ".mid"))
    for varied in (score, midi.change_score(score, speed=0.5, duration_rate=3, transpose=-2)):
        assert (
            len(varied) and np.isfinite(varied["onset"]).all() and (varied["duration"] >= 0).all()
        )


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
    import dataset

    for cache in (False, True):
        tiles = dataset.load_tiles(_file(content, ".npy"), cache)
        assert tiles[0].shape == tiles[-1].shape == (256, 256, 1)


def fuzz_model(content):
    """Load as predict.py does: a zip archive, or else HDF5."""
    import models

    models.load_generator(_file(content, ".keras" if content[:2] == b"PK" else ".weights.h5"))


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
    """Good files."""
    if target == "midi":
        body = b"\0\xff\x51\3\7\xa1\x20\0\xb0\x40\x7f\0\x90\x3c\x64\x30\x3c\0\x10\x91\x40\x50\x83\x60\x81\x40\0\0\xff\x2f\0"
        made = struct.pack(">4sIHHh4sI", b"MThd", 6, 1, 1, 480, b"MTrk", len(body)) + body
        return [made, (ROOT / "demo/midi/bach_invention_1.mid").read_bytes()]
    noise = np.random.default_rng(0).normal(0, 0.1, (600, 2))
    if target == "audio":
        made = []
        for kind, subtype in (
            ("WAV", "PCM_16"),
            ("WAV", "FLOAT"),
            ("FLAC", "PCM_16"),
            ("OGG", "VORBIS"),
            ("MP3", None),
        ):
            soundfile.write(file := io.BytesIO(), noise, 44100, subtype, format=kind)
            made.append(file.getvalue())
        return made
    if target == "tiles":
        np.save(file := io.BytesIO(), np.zeros((1, 256, 256, 1), np.float16))
        return [file.getvalue()]
    import models

    generator = models.build_generator(1)
    generator.save(path := Path(_folder().name, "seed.keras"))
    generator.save_weights(weights := Path(_folder().name, "seed.weights.h5"))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()
    return [path.read_bytes(), weights.read_bytes()]


def damage(content, rng):
    """A few random changes: bits, bytes, cuts, repeats, numbers at their limits; mostly near the beginning."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):  # many changes are seen at once, few come deep
        size = len(content) or 1
        at = min(int(size ** rng.random()), size) - 1 if rng.random() < 0.7 else rng.randrange(size)
        kind = rng.randrange(6)
        if kind == 0 and content:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            del content[at:]
        elif kind == 3:
            content[at:at] = content[at : at + rng.randint(1, 64)]
        elif kind == 4:
            content[at : at + 4] = rng.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
            )
        else:
            del content[at : at + rng.randint(1, 16)]
    return bytes(content)
