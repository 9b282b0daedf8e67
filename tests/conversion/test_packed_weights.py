"""packed_weights.py: a byte a weight, near the weights, and read back by names that Keras knows."""

import h5py
import keras
import numpy as np
import pytest

import models
from conversion import model_files, packed_weights


@pytest.mark.parametrize("axis", [2, 3])
def test_a_kernel_is_within_half_a_step_of_its_channel(axis):
    rng = np.random.default_rng(0)
    loudness = np.geomspace(1e-3, 10, 8)  # of eight channels, far apart
    shape = [1, 1, 1, 1]
    shape[axis] = 8
    kernel = rng.uniform(-1, 1, (4, 4, 8, 8)) * loudness.reshape(shape)
    levels, scale = packed_weights.quantise(kernel.astype(np.float32))
    assert levels.dtype == np.int8
    assert scale.shape == tuple(shape)
    assert (np.abs(levels * scale - kernel) <= scale * 0.5001).all()


def test_few_large_weights_are_clipped_where_that_makes_the_others_finer():
    kernel = np.random.default_rng(0).normal(0, 1, (4, 4, 512, 1)).astype(np.float32)
    kernel[0, 0, 0] = 8
    levels, scale = packed_weights.quantise(kernel)
    assert np.sqrt(np.mean((levels * scale - kernel) ** 2)) < 8 / 127 / np.sqrt(12)


def test_a_channel_of_zeros_stays_zero():
    kernel = np.zeros((4, 4, 2, 2), np.float32)
    levels, scale = packed_weights.quantise(kernel)
    assert np.isfinite(scale).all()
    assert not (levels * scale).any()


def test_there_and_back(tmp_path):
    keras.utils.set_random_seed(0)
    generator = models.build_generator(8)
    whole = tmp_path / "whole.weights.h5"
    packed = tmp_path / "packed.weights.h5"
    again = tmp_path / "again.weights.h5"
    model_files.save_generator(generator, whole)
    packed_weights.pack(whole, packed)
    assert packed.stat().st_size < 0.3 * whole.stat().st_size
    assert packed_weights.is_packed(packed)
    assert not packed_weights.is_packed(whole)

    packed_weights.unpack(packed, again)
    assert not packed_weights.is_packed(again)
    with h5py.File(whole) as before, h5py.File(again) as after:
        names = []
        before.visit(names.append)
        assert all(name in after for name in names)
        assert dict(before.attrs) == dict(after.attrs)
    read = model_files.load_generator(packed)
    for weight, wanted in zip(read.get_weights(), generator.get_weights()):
        np.testing.assert_allclose(weight, wanted, atol=np.abs(wanted).max() / 127)


def test_a_scale_of_another_shape_is_refused(tmp_path):
    packed = tmp_path / "packed.weights.h5"
    with h5py.File(packed, "w") as file:
        file.create_dataset("kernel", data=np.ones((4, 4, 1, 1), np.int8))
        file["kernel"].attrs["scale"] = np.ones((1, 1, 1, 9), np.float32)
    with pytest.raises(ValueError, match="scale"):
        packed_weights.unpack(packed, tmp_path / "again.weights.h5")
