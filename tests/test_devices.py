"""Two virtual CPU devices against one, at the same global batch."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

STEP = """
import sys, os
devices, out = int(sys.argv[1]), sys.argv[2]
import keras
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
import numpy as np
import losses, models, training
x, y = np.random.default_rng(0).uniform(-1, 1, (2, 4, 256, 256, 1)).astype("float32")
keras.utils.set_random_seed(0)
with devices.device_scope(devices):
    model = models.Pix2Pix(models.build_generator(2), models.build_discriminator(2))
    for layer in model._flatten_layers():  # what depends on the share of the batch that a device sees, or on its own chance
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        if hasattr(layer, "kernel"):
            layer.kernel.assign(layer.kernel * 10)  # without batch norm, N(0, 0.02) would let the gradient vanish
    # a large epsilon makes Adam's first step 0.03 gradients, so that weights show gradients
    split = len(model.generator.trainable_variables)
    model.compile(models.TwoRateAdam(30.0, split=split, epsilon=1.0), metrics=[losses.mae_db])
before = model.get_weights()
logs = model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0).history
steps = [b - a for a, b in zip(before, model.get_weights())]
np.savez(out, *steps, **{k: v[0] for k, v in logs.items()})
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_take_the_step_of_one(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    results = []
    for devices in (1, 2):
        env = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        env |= {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
        }
        out = tmp_path / f"{devices}.npz"
        command = [sys.executable, "-c", STEP, str(devices), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(np.load(out))
    one, two = results
    for name in ("loss", "gan_loss", "disc_loss", "mae_db"):
        assert two[name] == pytest.approx(float(one[name]), rel=1e-5), name
    arrays = [k for k in one.files if k.startswith("arr_")]
    moved = [k for k in arrays if np.abs(one[k]).max() > 1e-4]
    assert len(moved) >= 16  # all 21 kernels but the deepest, whose gradients are tiny
    for k in moved:
        np.testing.assert_allclose(two[k], one[k], rtol=1e-3, atol=1e-3 * np.abs(one[k]).max())
