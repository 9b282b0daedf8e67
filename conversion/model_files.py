"""Save and load generators; only weights are ever read from a file."""

import collections
import contextlib
import errno
import hashlib
import itertools
import json
import tempfile
import warnings
import zipfile
from pathlib import Path

import h5py
import keras

from common import devices, kinds
from common.cli import UserError
from conversion import packed_weights
from conversion.known_models import find_model, find_weights
from data import BINS, FULL_BINS, HEIGHTS
from models import build_generator, fold_norms
from research import registry

_OF_THE_SYSTEM = (  # errors that no other file would mend
    *(errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENOMEM),
)


def save_generator(generator, path):
    """Save a generator with its kind and height: ``.keras``, or weights alone (``.h5``)."""
    entry = json.dumps({**generator.kind.to_entry(), "bins": generator.bins})
    if path.suffix == ".h5":
        generator.save_weights(path)
        with h5py.File(path, "a") as file:
            file.attrs[kinds.ENTRY] = entry
        return
    # without what it was compiled with, which plain Keras would not know
    keras.Model(generator.inputs, generator.outputs, name=generator.name).save(path)
    with zipfile.ZipFile(path, "a") as archive:  # Keras reads by name, and passes ours over
        archive.writestr(kinds.ENTRY, entry)


def load_generator(path, precision=None):
    """Load a trained generator as a Keras model, with its ``kind`` and ``bins``.

    Only the weights are read, into a network built here. The configuration in a model file, and any
    code in it, never runs. The width follows from the shapes of the weights; so does the kind in
    older files. For the height see `_find_bins`.

    Args:
        path: run folder, our ``.keras`` file, ``.h5`` weights (older Keras code's, too), or a
            name for `known_models.find_model`. A shipped model's file is compared with its stored
            hash.
        precision: number format, see `devices.inference_precision`.

    Raises:
        UserError: the file is missing, is not a model file, or has weights of another layout.
        OSError, MemoryError: the system cannot read it.
    """
    file = find_generator(path)
    with tempfile.TemporaryDirectory() as folder:
        try:
            generator = _read_generator(file, precision, Path(folder))
        except UserError:
            raise
        # for a damaged file zipfile, zlib, h5py and Keras raise nearly every kind of error
        except Exception as error:
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in _OF_THE_SYSTEM:
                raise
            reason = str(error)[:100]
            raise UserError(
                f"{file}: has no generator of this layout ({reason}); train one with train.py"
            ) from None
    if precision is not None and generator.compute_dtype == "bfloat16":
        generator = fold_norms(generator)
    if keras.backend.backend() == "openvino":
        generator.predict_on_batch = devices.compile_openvino(generator)
    return generator


def _read_generator(file, precision, folder):
    """Read a file's generator through a temporary folder. Raises many kinds of errors."""
    weights = file
    if file.suffix == ".keras":  # a zip archive, in which HDF5 would seek for seconds
        with zipfile.ZipFile(file) as archive:
            weights = Path(archive.extract("model.weights.h5", folder))
    entry = _read_entry(file)
    layout = _layout(weights, None if entry is None else registry.from_entry(entry, file))
    bins = _find_bins(file, entry)
    with devices.inference_precision(precision, bins == FULL_BINS):
        generator = build_generator(**layout, bins=bins)
    if packed_weights.is_packed(weights):
        unpacked = folder / "unpacked.weights.h5"
        packed_weights.unpack(weights, unpacked)
        weights = unpacked
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras only warns about missing weights
        generator.load_weights(weights)
    return generator


def find_generator(path):
    """Find a generator's file; argument as for `load_generator`. Raises UserError."""
    file = find_weights(find_model(path))
    if file is None:
        raise UserError(
            f"{path}: has no model; give a run folder, a .keras file or HDF5 weights (.h5)"
        )
    sums = file.with_name("SHA256SUMS")
    if sums.is_file():
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found not in sums.read_text(errors="replace").split():
            raise UserError(
                f"{file}: differs from the hash in {sums.name}; "
                f"move it away, then get it back: git checkout {file}"
            )
    return file


def _read_entry(file):
    """Read the entry that `save_generator` stored, a dict, or None. Raises many kinds of errors."""
    if file.suffix == ".keras":
        with zipfile.ZipFile(file) as archive:
            if kinds.ENTRY not in archive.namelist():
                return None
            return json.loads(archive.read(kinds.ENTRY))
    with h5py.File(file) as weights:
        entry = weights.attrs.get(kinds.ENTRY)
    return None if entry is None else json.loads(entry)


def _find_bins(file, entry):
    """Find the height of a generator's tiles, which does not follow from its weights.

    It is in the stored ``entry``, or in the input of a plain .keras file. Older files have neither;
    their height is `data.BINS`. Raises ValueError.
    """
    bins = BINS
    if entry and "bins" in entry:
        bins = entry["bins"]
    elif file.suffix == ".keras":
        with zipfile.ZipFile(file) as archive, contextlib.suppress(LookupError, TypeError):
            network = json.loads(archive.read("config.json"))
            bins = network["config"]["layers"][0]["config"]["batch_shape"][1]
    if bins not in HEIGHTS:
        raise ValueError(f"{bins} bins")
    return bins


def _layout(file, stored):
    """Infer `build_generator`'s arguments for the U-Net saved in HDF5 ``file``.

    The first kernel has the fewest outputs. The last layer is the only convolution with a
    bias. ``stored`` is its `Kind`, or None: then the kind follows from the shapes.
    """
    groups = collections.defaultdict(list)  # shapes by layer

    def collect(_, item):
        if isinstance(item, h5py.Dataset):
            groups[item.parent.name].append(item.shape)

    with h5py.File(file, "r") as h5:
        h5.visititems(collect)
    shapes = list(itertools.chain.from_iterable(groups.values()))
    kernel_shapes = [shape for shape in shapes if len(shape) == 4]
    filters = min(shape[3] for shape in kernel_shapes)
    inputs = next(shape[2] for shape in kernel_shapes if shape[3] == filters)
    if not (1 <= inputs <= 16 and 1 <= filters <= 512):
        raise ValueError(f"{inputs} channels, width {filters}")
    if stored is None:
        last = next(layer for layer in groups.values() if sorted(map(len, layer)) == [1, 4])
        outputs = min(last, key=len)[0]
        stored = registry.infer_kind(inputs, outputs)
    return {"filters": filters, "kind": stored}
