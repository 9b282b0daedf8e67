"""Each exported network gives on its own runtime what Keras gives."""

import importlib.util
import json
import re

import keras
import numpy as np
import pytest
import soundfile
from conftest import ROOT, melody
from sounds import noise

import models
from conversion import export_generator, model_files
from conversion.convert import Options, convert_audio
from research import learned_phase

TILES = np.random.default_rng(0).uniform(-1, 1, (3, 512, 256, 1)).astype(np.float32)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exporting takes TensorFlow"
)


@pytest.fixture(scope="module")
def generator():
    """A small network whose layers all do something, as those of a trained one."""
    rng = np.random.default_rng(0)
    network = models.build_generator(2, bins=512)
    for weight in network.weights:
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, 1 / np.sqrt(np.prod(weight.shape[:3])), weight.shape))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        elif weight.path.endswith(("beta", "moving_mean", "bias")):
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return network


@pytest.fixture(scope="module")
def exported(generator, tmp_path_factory):
    """The folder that the command makes, in all formats whose packages are installed."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "piano_2_guitar").mkdir()
    model_files.save_generator(generator, folder / "piano_2_guitar" / "generator.keras")
    formats = []
    for name, (_, packages) in export_generator.FORMATS.items():
        if all(importlib.util.find_spec(package) for package in packages):
            formats.append(name)
    output = folder / "out" / "guitar_network"
    flags = ["--model", str(folder / "piano_2_guitar"), "--output", str(output)]
    assert export_generator.main([*flags, "--format", *formats]) == 0
    assert [path.name for path in output.parent.iterdir()] == ["guitar_network"]
    return output


def run_onnx(folder, tiles):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    session = runtime.InferenceSession(folder / "network.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: tiles})[0]


def run_litert(folder, tiles):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(folder / "network.tflite"))
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, tiles.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, tiles)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_openvino(folder, tiles):
    openvino = pytest.importorskip("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.compile_model(folder / "network.xml", "CPU", exact)(tiles)[0]


def run_saved_model(folder, tiles):
    import tensorflow as tf

    network = tf.saved_model.load(str(folder / "saved_model"))  # its weights go with it
    return network.serve(tiles).numpy()


@pytest.mark.parametrize("run", [run_onnx, run_litert, run_openvino, run_saved_model])
def test_each_runtime_gives_what_keras_gives(exported, generator, run):
    expected = generator.predict_on_batch(TILES)
    assert expected.std() > 0.1
    for count in (1, 3):
        np.testing.assert_allclose(run(exported, TILES[:count]), expected[:count], atol=1e-4)


def test_the_documented_program_gives_what_predict_gives(
    exported, generator, tmp_path, monkeypatch
):
    """All that it knows stands in tiles.json."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guitar_network").symlink_to(exported)
    for samples in (50_001, 400_000):
        audio = melody(0, (1, 0.5), 10)[:samples] + 0.1 * noise(samples)  # whose phase is certain
        audio = np.append(audio - audio.mean(), np.zeros(5000, np.float32))
        soundfile.write("piano.wav", audio, 44100, "FLOAT")
        exec(lines, {})
        expected = convert_audio(generator, audio, 44100, Options("input"))
        error = soundfile.read("guitar.wav")[0] - expected
        assert np.abs(error).max() < 1e-3 * np.abs(expected).max()


def test_each_frame_depends_on_each_other(generator):
    """docs/export.md says so: there is no latency below a tile's length without a loss."""
    tile = TILES[:1].copy()
    before = generator.predict_on_batch(tile)
    tile[:, :, -1] += 0.5
    assert (generator.predict_on_batch(tile)[:, :, 0] != before[:, :, 0]).any()


def test_tiles_json_has_the_networks_height(exported):
    about = json.loads((exported / "tiles.json").read_text())
    assert about["network"]["input"] == [None, 512, 256, 1]
    assert about["spectrum"]["bins"] == 512


def refuse(capsys, *flags):
    """The one line that the command says."""
    assert export_generator.main([*map(str, flags)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_exported_is_refused(exported, tmp_path, monkeypatch, capsys):
    there = refuse(capsys, "--model", "guitar", "--output", exported)
    assert f"--output {exported}: already exists" in there
    model_files.save_generator(
        models.build_generator(1, kind=learned_phase.PHASE), tmp_path / "generator.keras"
    )
    output = tmp_path / "new"
    turning = refuse(capsys, "--model", tmp_path, "--format", "tf_saved_model", "--output", output)
    assert "has more than one input or output picture" in turning
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = refuse(capsys, "--model", "guitar", "--format", "onnx", "--output", output)
    assert "--format onnx: package onnx is not installed" in missing
    assert "requirements-export.txt" in missing and not output.exists()
