"""Choose backend, GPU and precision: the code that differs between TensorFlow, JAX and PyTorch.

OpenVINO is a fourth backend, for conversion only. Import this module before Keras and call
`setup_device`, which loads Keras.
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

BACKENDS = ("tensorflow", "torch", "jax")  # the first that is installed is used
# Of oneDNN's instructions. In bfloat16 its convolution for AMX, the matrix units of newer Xeons, is
# wrong for 4 x 2 pixels of 256 channels: the innermost block of 512 bins at width 32 (TensorFlow
# 2.21). oneDNN reads the limit at its first operation.
ONEDNN_LIMIT = "AVX512_CORE_BF16"
CPU_FACTS = Path("/proc/cpuinfo")
INFERENCE = ("auto", "float32", "bfloat16")  # --precision of the converting scripts
CONVERTERS = (*BACKENDS, "openvino")  # backends of the converting scripts


def setup_device(gpu=None, trains=False):
    """Choose backend and device; call it before Keras is imported.

    Args:
        gpu: "0", "0,1", "cpu" or None: GPU 0 if there is one, or those of CUDA_VISIBLE_DEVICES.
        trains: whether networks will be trained, which OpenVINO cannot do.

    Returns:
        Number of GPUs in use, 0 for the CPU.

    Raises:
        UserError: no backend is installed; the backend of KERAS_BACKEND cannot be loaded; it
            cannot train; a given GPU does not exist.
    """
    backend = os.environ.get("KERAS_BACKEND") or find_backend()
    if trains and backend == "openvino":
        raise UserError(
            "OpenVINO converts only; training needs another backend: "
            "pip install -r requirements.txt"
        )
    if not trains:
        share_memory()
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", ONEDNN_LIMIT)
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
            f"--gpu {gpu}: {backend} sees {count} of these GPUs; see nvidia-smi, or give --gpu cpu"
        )
    if not count and gpu != "cpu" and backend != "openvino":  # openvino uses no GPU
        print(f"Running on the CPU: {backend} sees no GPU.", file=sys.stderr)
    return count


def find_backend():
    """Find the first of `CONVERTERS` that is installed. Raises UserError if none is."""
    for name in CONVERTERS:
        if importlib.util.find_spec(name):
            return name
    raise UserError(
        "no backend for Keras is installed: pip install tensorflow, or pip install torch if "
        f"tensorflow has no wheel for this Python ({platform.python_version()})"
    )


def _load_backend(backend, on_cpu):
    """Load backend and Keras; returns the number of GPUs. Raises UserError."""
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
    sys.modules.setdefault("openvino_telemetry", None)  # otherwise the import reports to Intel
    import openvino  # noqa: F401

    return 0  # OpenVINO's GPUs are Intel's, which are not used here


def _count_torch(on_cpu):
    import torch

    if on_cpu:
        return 0
    if torch.backends.mps.is_available():  # a Mac's GPU, which Keras prefers
        return 1
    return torch.cuda.device_count()


GPU_COUNTERS = {
    "tensorflow": _count_tensorflow,
    "jax": _count_jax,
    "torch": _count_torch,
    "openvino": _count_openvino,
}


def compile_openvino(network):
    """Compile a Keras model with OpenVINO: a function, float32 array -> float32 array.

    It computes in float32. Keras's own OpenVINO backend computes in bfloat16 where the processor
    can, with errors up to 0.009 in the networks' range of 2.
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
    """Set Keras's precision for networks built in the block: one of `INFERENCE`.

    "auto" is bfloat16 for the full band if that is faster on the processor, up to 1.7 times. The
    error against the target grows by at most 0.006 dB (a guitar, seven pieces). Models of 256 bins
    compute in float32, so that their output stays the same.

    Args:
        precision: "auto", "float32" or "bfloat16"; None: Keras's setting.
        full_band: whether the networks' pictures have 512 bins.
    """
    import keras

    before = keras.config.dtype_policy()
    if precision == "auto":
        fast = full_band and keras.backend.backend() == "tensorflow" and _bfloat16_is_faster()
        precision = "bfloat16" if fast else None
    if precision is not None:
        keras.config.set_dtype_policy(_policy_of(precision))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _bfloat16_is_faster():
    """Whether bfloat16 is faster than float32 here: on a CPU with AVX-512's bfloat16 but no AMX.

    With AMX it would be, but for `ONEDNN_LIMIT`; within the limit it takes 1.3 times as long as
    float32 (a Xeon with AMX, guitar, four tiles). False if not known (not Linux).
    """
    import tensorflow as tf

    if tf.config.get_visible_devices("GPU"):
        return False
    try:
        features = CPU_FACTS.read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in features and "amx_bf16" not in features


def set_precision(precision, gpus):
    """Set Keras's dtype policy; returns its name.

    "auto" is bfloat16 on GPUs that support it, otherwise float32.
    """
    import keras

    if precision == "auto":
        precision = "bfloat16" if gpus and _has_bfloat16() else "float32"
    policy = _policy_of(precision)
    keras.config.set_dtype_policy(policy)
    return policy


def _policy_of(precision):
    """Name of Keras's dtype policy for float32, bfloat16 or float16; the weights stay float32."""
    return precision if precision == "float32" else f"mixed_{precision}"


def _has_bfloat16():
    """Whether the GPU supports bfloat16 in hardware: NVIDIA's do from Ampere on."""
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
    """Make glibc keep freed memory instead of returning it to the system.

    A step allocates and frees large tensors; requesting the pages again costs 5 % of a step on a
    CPU (width 64, 2 cores).
    """
    trim_threshold, mmap_max = -1, -4  # mallopt's numbers in malloc.h
    _set_malloc({mmap_max: 0, trim_threshold: -1})


def share_memory():
    """Make glibc keep freed memory in two pools for all threads, not in one for each thread.

    A conversion starts many threads, and takes 80 MB less this way, in the same time. The setting
    applies to threads that start later.
    """
    arena_max = -8  # mallopt's number in malloc.h
    _set_malloc({arena_max: 2})


def _set_malloc(values):
    """Call glibc's mallopt for each {parameter's number in malloc.h: value}."""
    with contextlib.suppress(AttributeError, TypeError, OSError):  # not glibc: no mallopt
        libc = ctypes.CDLL(None)
        for parameter, value in values.items():
            libc.mallopt(parameter, value)


def device_scope(gpus):
    """Context in which to build the model, for data parallel training on several GPUs.

    Batch norm uses each device's share of the batch. Gradients are averaged over the whole batch.
    """
    import keras

    if gpus > 1 and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy().scope()
    if gpus > 1 and keras.backend.backend() == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    elif gpus > 1:
        raise UserError(
            "--gpu: with PyTorch, training uses one GPU; give one, or set KERAS_BACKEND=tensorflow "
            "or jax"
        )
    return contextlib.nullcontext()
