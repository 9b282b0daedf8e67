"""The scripts where TensorFlow is not installed: on JAX, PyTorch or OpenVINO, whichever is there.

The other backends are hidden from the process, as if they were not installed, so that the scripts
have to find this one by themselves.
"""

import csv
import importlib.util
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ORIGIN, ROOT, TARGET, melody

from common.devices import CONVERTERS
from data import SAMPLE_RATE
from sound.recordings import read_audio, write_audio

OTHERS = [name for name in CONVERTERS if name != "tensorflow"]
HIDE = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


def hide_others(backend, folder):
    """The environment of a process that sees no backend but this one."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    hidden = [name for name in CONVERTERS if name != backend]
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    quick = "--xla_backend_optimization_level=0"  # JAX: to compile takes longer than to compute
    return {
        "PYTHONPATH": str(folder),
        "KERAS_BACKEND": "",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": quick,
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A recording of 4 s, and what the backend of these tests makes of it."""
    from conversion import convert, model_files

    folder = tmp_path_factory.mktemp("reference")
    audio = melody(0, (1, 0.5, 0.2), seconds=4)
    write_audio(folder / "in.wav", audio)
    model = model_files.load_generator(ROOT / "pretrained/keyboard_acoustic_2_string_acoustic")
    read = read_audio(folder / "in.wav")
    return folder / "in.wav", convert.convert_audio(model, read, SAMPLE_RATE)


@pytest.mark.parametrize("backend", OTHERS)
def test_a_conversion_is_the_same_on_every_backend(tmp_path, run_script, reference, backend):
    source, expected = reference
    alone = hide_others(backend, tmp_path)
    name = "keyboard_acoustic_2_string_acoustic"
    flags = ["--input", source, "--model", name, "--output", tmp_path / "out.wav"]
    flags += ["--quality", "draft", "--level", "off", "--gpu", "cpu"]
    done = run_script("predict.py", *flags, **alone)
    assert done.returncode == 0, done.stderr[-2000:]
    found = read_audio(tmp_path / "out.wav")
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_training_goes_from_tiles_to_a_model(tmp_path, run_script, features, backend):
    alone = hide_others(backend, tmp_path)
    flags = ["--dataset_path", features, "--runs_path", tmp_path / "runs", "--gpu", "cpu"]
    flags += ["--origin", ORIGIN, "--target", TARGET, "--validation_split", "0.3"]
    flags += ["--filters", "2", "--batch_size", "2", "--epochs", "1", "--preview_every", "0"]
    done = run_script("train.py", *flags, **alone)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"; {backend}, no GPU" in done.stdout
    run = tmp_path / "runs" / f"{ORIGIN}_2_{TARGET}"
    assert (run / "generator.keras").exists()
    with open(run / "history.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert math.isfinite(float(row["val_mae_db"]))


@pytest.mark.parametrize("script", ["train.py", "train_generator.py"])
def test_openvino_says_that_it_does_not_train(tmp_path, run_script, features, script):
    alone = hide_others("openvino", tmp_path)
    flags = ["--dataset_path", features, "--runs_path", tmp_path / "runs"]
    done = run_script(script, *flags, "--origin", ORIGIN, "--target", TARGET, **alone)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install -r requirements.txt" in line
    assert not (tmp_path / "runs").exists()


ALONE = """
import os
from common import devices
devices.setup_device()
print(os.environ['KERAS_BACKEND'])
"""


def test_openvino_reports_to_nobody_and_does_not_miss_a_gpu(tmp_path):
    alone = hide_others("openvino", tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    env = {**os.environ, **alone, "HOME": str(home), "LOCALAPPDATA": str(home), "CI": ""}
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "openvino\n", "")
    assert not list(home.glob("[iI]ntel*"))  # where it keeps the number that it reports with
