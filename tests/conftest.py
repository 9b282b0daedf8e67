"""A small aligned data set that the tests make: four pieces on two made-up instruments."""

import ctypes
import os
import sys

from common import devices

os.environ.setdefault("KERAS_BACKEND", devices.find_backend())
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", devices.ONEDNN_LIMIT)

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import compute_features
import data
from sound.recordings import write_audio

# No test may need an idle machine: an example may take any time
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# A failure there must come from the change, not from the draw
settings.register_profile("ci", settings.get_profile("any machine"), derandomize=True)
settings.load_profile("ci" if "CI" in os.environ else "any machine")
HANG = 1800  # s after which a process is taken to hang: no bound on how long it may take

ROOT = Path(__file__).parent.parent
ORIGIN, TARGET = "keyboard_acoustic", "guitar_acoustic"


def take_interrupts():
    """Let Ctrl-C reach a new process: what a shell starts in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def melody(seed, partials, seconds=7.0):
    """Random notes of 0.25 s, each a decaying sum of partials, float32 (n,).

    The same seed gives the same tune.
    """
    rng = np.random.default_rng(seed)
    step = data.SAMPLE_RATE // 4
    t = np.arange(step) / data.SAMPLE_RATE
    notes = []
    for _ in range(int(seconds * 4)):
        f0 = 110 * 2 ** (rng.integers(36) / 12)
        notes.append(
            np.exp(-6 * t)
            * sum(a * np.sin(2 * np.pi * f0 * k * t) for k, a in enumerate(partials, 1))
        )
    return np.concatenate(notes).astype(np.float32) * np.float32(0.3)


@pytest.fixture(scope="session")
def audios(tmp_path_factory):
    """<audios>/<instrument>/{bach/one,bach/two,three,four}.wav, 7 s each."""
    folder = tmp_path_factory.mktemp("audios")
    for instrument, partials in ((ORIGIN, (1, 0.2)), (TARGET, (0.5, 0.4, 0.3, 0.2))):
        for seed, name in enumerate(("bach/one", "bach/two", "three", "four")):
            write_audio(folder / instrument / f"{name}.wav", melody(seed, partials))
    return folder


@pytest.fixture(scope="session")
def features(audios, tmp_path_factory):
    """The features folder of `audios`: three tiles a piece."""
    folder = tmp_path_factory.mktemp("features")
    assert (
        compute_features.main(
            ["--audios", str(audios), "--features", str(folder), "--workers", "1"]
        )
        == 0
    )
    return folder


@pytest.fixture
def powerless():
    """Root, too, obeys permissions: without two capabilities of Linux."""
    if os.name == "nt" or (os.geteuid() == 0 and sys.platform != "linux"):
        pytest.skip("POSIX permissions")
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    capabilities = (ctypes.c_uint32 * 6)()
    libc.capget(header, capabilities)
    before = capabilities[0]  # the effective ones
    capabilities[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.capset(header, capabilities)
    yield
    capabilities[0] = before
    libc.capset(header, capabilities)


@pytest.fixture
def run_script():
    """Run a script as a user would: run_script("train.py", "--flag", ...) -> CompletedProcess."""

    def run(name, *flags, timeout=HANG, **environment):
        command = [sys.executable, str(ROOT / name), *map(str, flags)]
        env = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)

    return run
