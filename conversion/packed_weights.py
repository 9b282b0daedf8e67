"""Store weights in one byte each, a quarter of float32's size, as the shipped models do.

A kernel is stored as int8. Its attribute ``scale`` has one float32 per channel; the weights are
``kernel * scale``. All other weights are few and stored as float16. Errors are at most half a step
of 1/127 of a channel's largest weight, or slightly more where the largest weights are clipped.
"""

import h5py
import numpy as np

SCALE = "scale"  # a packed kernel's attribute
LARGEST = 127  # largest level of int8; -128 is not used
CLIPS = (1.0, 0.8, 0.65, 0.5)  # fractions of a channel's largest weight that map to LARGEST


def pack(source, target):
    """Pack a Keras HDF5 weights file ``source``, float32, to ``target``."""

    def write(file, name, item):
        content = item[()]
        if content.dtype != np.float32:
            file[name] = content
        elif content.ndim == 4:
            levels, scale = quantise(content)
            file.create_dataset(
                name, data=levels, compression="gzip", compression_opts=9, chunks=levels.shape
            )
            file[name].attrs[SCALE] = scale
        else:
            file[name] = content.astype(np.float16)

    _rewrite(source, target, write)


def is_packed(path):
    """Whether an HDF5 weights file was written by `pack`."""

    def find_scale(_, item):
        return SCALE in item.attrs or None  # None: look further

    with h5py.File(path) as file:
        return file.visititems(find_scale) is not None


def unpack(source, target):
    """Unpack the file ``source`` to a Keras weights file ``target``.

    Raises ValueError or other errors if the file is damaged.
    """

    def write(file, name, item):
        if SCALE not in item.attrs:
            file[name] = item[()]
            return
        scale = item.attrs[SCALE]
        if np.broadcast_shapes(item.shape, scale.shape) != item.shape:
            raise ValueError(f"{name}: scale {scale.shape} of a kernel {item.shape}")
        file[name] = item[()] * scale

    _rewrite(source, target, write)


def _rewrite(source, target, write):
    """Copy an HDF5 file's groups and attributes; ``write(file, name, item)`` writes each array."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                new.require_group(name)
            else:
                write(new, name, item)
            for key, value in item.attrs.items():
                if key != SCALE:  # `write` handles it
                    new[name].attrs[key] = value

        old.visititems(copy)
        new.attrs.update(old.attrs)  # what kind of network it is


def quantise(kernel):
    """Quantise a kernel: integers and scales.

    There is one scale per channel of the last axis or of the one before it, whichever has the
    smaller error. These axes are the outputs of convolutions and of transposed convolutions.

    Args:
        kernel: float32 (height, width, channels, channels).

    Returns:
        int8 of the kernel's shape, and its float32 scale along one channel axis.
    """
    best = None
    for axis in (2, 3):
        others = tuple(other for other in range(4) if other != axis)
        levels, scale, error = _quantise_along(kernel, others)
        if best is None or error < best[2]:
            best = levels, scale, error
    return best[:2]


def _quantise_along(kernel, others):
    """`quantise` with scales shared over the axes ``others``; also returns the squared error."""
    largest = np.abs(kernel).max(others, keepdims=True)
    largest = np.maximum(largest, np.float32(1e-20))  # a channel of zeros
    best_error = np.full_like(largest, np.inf)
    best_scale = largest
    for clip in CLIPS:
        scale = largest * np.float32(clip / LARGEST)
        levels = np.clip(np.round(kernel / scale), -LARGEST, LARGEST)
        error = np.square(levels * scale - kernel).sum(others, keepdims=True)
        best_scale = np.where(error < best_error, scale, best_scale)
        best_error = np.minimum(error, best_error)
    levels = np.clip(np.round(kernel / best_scale), -LARGEST, LARGEST)
    return levels.astype(np.int8), best_scale, best_error.sum()
