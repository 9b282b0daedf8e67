"""Choose backend, GPU and precision: all that differs between TensorFlow, JAX and PyTorch.

OpenVINO is a fourth backend; it only converts. Import this module before Keras and call
`setup_device` first, which loads Keras.
"""

import contextlib
import ctypes
import importlib.util
import os
import platform
import re
import sys
import tempfile
from pathlib import Path

from common.cli import UserError, quiet_stderr

BACKENDS = ("tensorflow", "torch", "jax")  # the first that is installed is taken
INFERENCE = ("auto", "float32", "bfloat16")  # --precision of what converts
CONVERTERS = (*BACKENDS, "openvino")  # likewise, by what converts only


def setup_device(gpu=None, trains=False):
    """Choose backend and device; call it before Keras is imported.

    Args:
        gpu: "0", "0,1", "cpu" or None, which means 0 if there is one. CUDA_VISIBLE_DEVICES wins
            over None.
        trains: whether networks will be trained, which OpenVINO cannot.

    Returns:
        Number of GPUs in use, 0 for the CPU.

    Raises:
        UserError: no backend is installed, or not the one that KERAS_BACKEND names; it cannot
            train; a GPU was asked for and is not there.
    """
    backend = os.environ.get("KERAS_BACKEND") or find_backend()
    if trains and backend == "openvino":
        raise UserError(
            "OpenVINO converts only, and training takes another backend: "
            "pip install -r requirements.txt"
        )
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if gpu == "cpu":
        os.environ.update(CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu", KERAS_TORCH_DEVICE="cpu")
    elif gpu is not None:
        if not re.fullmatch(r"\d+(,\d+)*", gpu):
            raise UserError(f"--gpu {gpu}: give a number (0), several (0,1), or cpu")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    else:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    count = _load_backend(backend, on_cpu=gpu == "cpu")
    wanted = 0 if gpu in (None, "cpu") else len(gpu.split(","))
    if count < wanted:
        raise UserError(
            f"--gpu {gpu}: {backend} sees {count} of these; see nvidia-smi, or give --gpu cpu"
        )
    if not count and gpu != "cpu" and backend != "openvino":  # which uses none
        print(f"Running on the CPU: {backend} sees no GPU.", file=sys.stderr)
    return count


def find_backend():
    """The first of `CONVERTERS` that is installed. Raises UserError if none is."""
    for name in CONVERTERS:
        if importlib.util.find_spec(name):
            return name
    raise UserError(
        "no backend for Keras is installed: pip install tensorflow or, where that has no wheel for "
        f"this Python ({platform.python_version()}), pip install torch"
    )


def _load_backend(backend, on_cpu):
    """Load all that is slow to load; returns the number of GPUs. Raises UserError."""
    if backend not in GPU_COUNTERS:
        raise UserError(f"KERAS_BACKEND={backend}: give {', '.join(GPU_COUNTERS)}")
    try:
        with quiet_stderr():
            count = GPU_COUNTERS[backend](on_cpu)
            import keras  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"KERAS_BACKEND={backend}: cannot be loaded ({error}); install what is missing, or "
            "choose another backend"
        ) from None
    return count


def _count_tensorflow(on_cpu):
    import tensorflow as tf

    if on_cpu:  # CUDA_VISIBLE_DEVICES does not hide a Mac's GPU
        tf.config.set_visible_devices([], "GPU")
    gpus = tf.config.get_visible_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return len(gpus)


def _count_jax(on_cpu):
    import jax

    if on_cpu:
        return 0
    return len([device for device in jax.devices() if device.platform == "gpu"])


def _count_openvino(on_cpu):
    sys.modules.setdefault("openvino_telemetry", None)  # or importing it reports that to Intel
    import openvino  # noqa: F401

    return 0  # its GPUs are Intel's, and not used here


def _count_torch(on_cpu):
    import torch

    if on_cpu:
        return 0
    if torch.backends.mps.is_available():  # a Mac's, which Keras prefers
        return 1
    return torch.cuda.device_count()


GPU_COUNTERS = {
    "tensorflow": _count_tensorflow,
    "jax": _count_jax,
    "torch": _count_torch,
    "openvino": _count_openvino,
}


def compile_openvino(network):
    """A Keras model as OpenVINO's function: float32 array -> float32 array.

    Keras's own way through OpenVINO computes in bfloat16 where the processor can, which is up to
    0.009 off in the networks' range of 2; this one in float32.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "network.xml")
        network.export(file, format="openvino", verbose=False)
        compiled = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(tiles):
        return compiled(tiles)[0]

    return run


@contextlib.contextmanager
def inference_precision(precision, full_band):
    """Within, Keras builds networks that convert in a precision: one of `INFERENCE`.

    "auto" is bfloat16 for the full band, where the processor multiplies in it: 1.7 times as fast,
    and the error against true pictures grows by 0.006 dB at most (a guitar, seven pieces). Models
    of 256 bins compute in float32, so that they give what they always gave.

    Args:
        precision: "auto", "float32" or "bfloat16"; None: as Keras is set.
        full_band: whether their pictures have 512 bins.
    """
    import keras

    before = keras.config.dtype_policy()
    if precision == "auto":
        fast = full_band and keras.backend.backend() == "tensorflow" and _cpu_has_bfloat16()
        precision = "bfloat16" if fast else None
    if precision is not None:
        policy = precision if precision == "float32" else f"mixed_{precision}"
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _cpu_has_bfloat16():
    """Whether it is the CPU that computes, and multiplies in bfloat16; Linux only tells."""
    import tensorflow as tf

    if tf.config.get_visible_devices("GPU"):
        return False
    try:
        features = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in features or "amx_bf16" in features


def set_precision(precision, gpus):
    """Set Keras's dtype policy; returns its name.

    "auto" is bfloat16 on GPUs that have it, float32 elsewhere.
    """
    import keras

    if precision == "auto":
        precision = "bfloat16" if gpus and _has_bfloat16() else "float32"
    policy = precision if precision == "float32" else f"mixed_{precision}"
    keras.config.set_dtype_policy(policy)
    return policy


def _has_bfloat16():
    """Whether the GPU computes in bfloat16 itself: NVIDIA's from Ampere on."""
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        if not torch.cuda.is_available():
            return False
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if backend == "jax":
        import jax

        return float(jax.devices()[0].compute_capability) >= 8
    import tensorflow as tf

    gpu = tf.config.get_visible_devices("GPU")[0]
    details = tf.config.experimental.get_device_details(gpu)
    return details.get("compute_capability", (0, 0)) >= (8, 0)


def keep_memory():
    """Have the C library, if it is glibc, keep what is freed instead of giving it back.

    A step's large tensors come and go; on a CPU, fetching each page anew costs 5 % of a step (width
    64, 2 cores).
    """
    trim_threshold, mmap_max = -1, -4  # mallopt's numbers in malloc.h
    with contextlib.suppress(AttributeError, TypeError, OSError):  # another library has no mallopt
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)


def device_scope(gpus):
    """Context to build the model in: data parallel over several GPUs.

    Batch norm uses each device's own share of the batch; gradients are averaged over all of it.
    """
    import keras

    if gpus > 1 and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy().scope()
    if gpus > 1 and keras.backend.backend() == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    elif gpus > 1:
        raise UserError(
            "--gpu: PyTorch trains on one GPU here; give one, or set KERAS_BACKEND=tensorflow or "
            "jax"
        )
    return contextlib.nullcontext()
