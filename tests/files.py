"""What tests find in folders, HDF5 files and data sets, and where real recordings may lie."""

import os
from pathlib import Path

import h5py
import numpy as np

from common.record import NAME

_SHARED = Path(__file__).parents[2] / "shared" / "data"
# Aligned mixes of real NSynth notes, mono, 44.1 kHz: <instrument>.wav; not everyone has them
MIXES = Path(os.environ.get("TIMBRE_SHARED_DATA", _SHARED)) / "mixes"


def contents(folder):
    """{name: bytes} of all files below, but the record, whose lines stand in the work's order."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != NAME:
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def arrays_in(file):
    """{name: array} of all data sets of an HDF5 file: a path, or a file object."""
    arrays = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[...]

    with h5py.File(file) as h5:
        h5.visititems(collect)
    return arrays


def all_batches(pairs):
    """[x, y] of a whole epoch, each (n, 256, 256, channels)."""
    batches = [pairs[i] for i in range(len(pairs))]
    return [np.concatenate(side) for side in zip(*batches)]
