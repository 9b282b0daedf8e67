"""Two virtual CPU devices against one, at the same global batch; what differs between backends."""

import importlib.util
import os
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import two_devices
from conftest import HANG, ROOT

from common import devices

LOSSES = ("loss", "gan_loss", "disc_loss", "mae_db")


@pytest.fixture(scope="module")
def one_device():
    """(weights, {backend: what one device makes of them}); only the validation differs."""
    model = two_devices.build_model()
    weights = two_devices.make_weights(model)
    step = two_devices.take_step(model, weights)
    normed = two_devices.build_model(freeze=False)
    two_devices.take_step(normed, weights)
    step |= two_devices.read_norms(normed)
    results = {}
    for backend, samples in two_devices.SAMPLES.items():
        results[backend] = step | two_devices.validate(model, samples, "val_")
        results[backend] |= two_devices.validate(normed, samples, "norm_val_")
    return weights, results


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_take_the_step_of_one(tmp_path, one_device, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    weights, results = one_device
    one = results[backend]
    np.savez(tmp_path / "weights.npz", *weights)
    env = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        # Compiled without optimisation: that takes longer than two steps can gain
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
        "TF_ENABLE_ONEDNN_OPTS": "0",  # as on GPUs; its convolution of no samples keeps their shape
    }
    command = [sys.executable, two_devices.__file__, "2", "weights.npz", "two.npz"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two = np.load(tmp_path / "two.npz")
    for name in (*LOSSES, *(f"val_{name}" for name in LOSSES)):
        assert np.isfinite(one[name])
        assert two[name] == pytest.approx(float(one[name]), rel=1e-4), name
    steps = [name for name in two.files if name.startswith("step_")]
    moved = [name for name in steps if np.abs(one[name]).max() > 1e-4]
    assert len(moved) >= 10  # all kernels
    for name in moved:
        largest = np.abs(one[name]).max()
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-3 * largest)
    check_batch_norm(one, two)
    np.testing.assert_array_equal(two["epochs_read"], [2, 3, 4])


def check_batch_norm(one, two):
    """Each device normalises its own share, and the statistics kept are those of all.

    So the first layer's mean is that of one device; of the others all that is sure is near.
    """
    np.testing.assert_allclose(two["norm_mean_0"], one["norm_mean_0"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(two["norm_variance_0"], one["norm_variance_0"], rtol=0.02)
    kept = [name for name in two.files if name.startswith("norm_")]
    assert len(kept) == 2 * 4 + len(LOSSES)
    for name in kept:
        assert np.isfinite(two[name]).all(), name
    for name in LOSSES:
        assert two[f"norm_val_{name}"] == pytest.approx(one[f"norm_val_{name}"], rel=0.05), name


def test_a_short_last_batch_counts_by_its_samples():
    model = two_devices.build_model()
    model.set_weights(two_devices.make_weights(model))
    x = two_devices.tiles(3, 2)
    y = two_devices.tiles(3, 3)
    y[2] = x[2] = 1  # another error than the others'
    single = [
        model.evaluate(x[k : k + 1], y[k : k + 1], verbose=0, return_dict=True) for k in range(3)
    ]
    logs = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    for name in LOSSES:
        values = [each[name] for each in single]
        assert logs[name] == pytest.approx(np.mean(values), rel=1e-4), name
        by_batch = (values[0] + values[1]) / 4 + values[2] / 2
        assert by_batch != pytest.approx(np.mean(values), rel=1e-3), name  # else it tells nothing


def pretend_torch(monkeypatch, cuda, native, mps):
    """A PyTorch with a card or without."""

    def is_bf16_supported(including_emulation=True):
        return native or including_emulation

    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(
        is_available=lambda: cuda,
        device_count=lambda: int(cuda),
        is_bf16_supported=is_bf16_supported,
    )
    torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: mps))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")


@pytest.mark.parametrize(
    ("cuda", "native", "mps", "precision"),
    [
        (True, True, False, "mixed_bfloat16"),
        (True, False, False, "float32"),  # which would emulate it
        (False, False, True, "float32"),
    ],
)
def test_bfloat16_only_where_the_card_has_it(monkeypatch, cuda, native, mps, precision):
    pretend_torch(monkeypatch, cuda, native, mps)
    chosen = []
    monkeypatch.setattr(keras.config, "set_dtype_policy", chosen.append)
    gpus = devices.GPU_COUNTERS["torch"](on_cpu=False)
    assert gpus == 1
    assert devices.set_precision("auto", gpus) == precision
    assert chosen == [precision]


def test_gpu_cpu_means_the_cpu_on_a_mac_too(monkeypatch):
    pretend_torch(monkeypatch, cuda=False, native=False, mps=True)
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "KERAS_TORCH_DEVICE"):
        monkeypatch.setenv(name, "")  # so that they are restored
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert devices.setup_device("cpu") == 0
    assert os.environ["KERAS_TORCH_DEVICE"] == "cpu"


def test_a_backend_of_another_name_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    with pytest.raises(devices.UserError, match="theano: give tensorflow, jax, torch, openvino"):
        devices.setup_device("cpu")


@pytest.mark.parametrize(
    ("installed", "taken"),
    [
        (("tensorflow", "torch", "jax"), "tensorflow"),
        (("torch", "jax"), "torch"),
        (("jax", "openvino"), "jax"),
        (("openvino",), "openvino"),
    ],
)
def test_the_first_backend_that_is_installed_is_taken(monkeypatch, installed, taken):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name in installed)
    assert devices.find_backend() == taken


def test_where_no_backend_is_installed_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(devices.UserError, match=r"pip install tensorflow, or pip install torch"):
        devices.find_backend()


@pytest.mark.parametrize(
    ("file", "python", "backend"),
    [
        ("requirements.txt", "3.10", "tensorflow"),
        ("requirements.txt", "3.13", "tensorflow"),
        ("requirements.txt", "3.14", "torch"),
        ("requirements-predict.txt", "3.10", "tensorflow"),  # its Keras knows no OpenVINO
        ("requirements-predict.txt", "3.11", "openvino"),
        ("requirements-predict.txt", "3.14", "openvino"),
    ],
)
def test_every_python_gets_a_backend_that_has_wheels_for_it(file, python, backend):
    requirements = pytest.importorskip("packaging.requirements")
    found = []
    for line in (ROOT / file).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        wanted = requirements.Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"python_version": python}):
            found.append(wanted.name)
    assert found.count("keras") == 1
    assert [name for name in found if name in devices.CONVERTERS] == [backend]


CHANNELS_FIRST = """
import keras, models
assert keras.config.image_data_format() == "channels_last"
assert models.build_generator(1).output_shape == (None, 256, 256, 1)
"""


def test_a_users_keras_json_breaks_nothing(tmp_path):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first"}')
    env = {**os.environ, "KERAS_HOME": str(tmp_path)}
    command = [sys.executable, "-c", CHANNELS_FIRST]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_converts_shares_freed_memory_between_threads(monkeypatch):
    calls = []
    monkeypatch.setattr(devices, "_set_malloc", calls.append)
    monkeypatch.setattr(devices, "_load_backend", lambda *_, **__: 0)
    devices.setup_device("cpu", trains=True)
    assert not calls  # which keeps its memory by other means
    devices.setup_device("cpu")
    assert calls == [{-8: 2}]  # M_ARENA_MAX


CONVOLVE = """
import sys
from common import devices
devices.setup_device("cpu")
import tensorflow as tf
tile = tf.ones((1, 4, 2, 256), tf.bfloat16)
kernel = tf.ones((4, 4, 256, 256), tf.bfloat16)
sums = tf.nn.conv2d(tile, kernel, 2, "SAME").numpy()
sys.exit(bool((sums != 3 * 2 * 256).any()))  # the kernel's other positions are padding
"""


def test_the_innermost_block_is_right_in_bfloat16():
    """It is not, without a limit for oneDNN, on processors with AMX."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("is about TensorFlow's convolutions")
    environment = {k: v for k, v in os.environ.items() if k != "ONEDNN_MAX_CPU_ISA"}
    done = subprocess.run([sys.executable, "-c", CONVOLVE], cwd=ROOT, env=environment)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("flags", "faster"),
    [
        ("avx512f avx512_bf16", True),
        ("avx512f avx512_bf16 amx_bf16", False),  # within oneDNN's limit it is slower there
        ("avx2", False),
    ],
)
def test_bfloat16_only_where_it_is_faster(tmp_path, monkeypatch, flags, faster):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends compute in float32")
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags}\n")
    monkeypatch.setattr(devices, "CPU_FACTS", tmp_path / "cpuinfo")
    assert devices._bfloat16_is_faster() is faster
