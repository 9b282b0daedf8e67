"""Converting from Python gives what predict.py writes."""

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT, melody
from sounds import encode, music, write

import models
import predict
from common.cli import UserError
from conversion import model_files, simple
from conversion.simple import convert, convert_array
from research import learned_phase
from sound.survey import listen


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run folder of a small network that has a pull of its own."""
    folder = tmp_path_factory.mktemp("runs") / "piano_2_flute"
    folder.mkdir()
    (folder / "config.json").write_text('{"pull": 0.03}')
    model_files.save_generator(models.build_generator(1, bins=512), folder / "generator.keras")
    return folder


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("mix", 2),
        ("mix", float("nan")),
        ("transpose", 13),
        ("start", -1),
        ("seconds", -1),
        ("normalize", 3),
        ("sr", 10),
    ],
)
def test_an_argument_out_of_range_is_refused(tmp_path, model, keyword, value):
    source = write(tmp_path / "song.wav", music(2000))
    with pytest.raises(UserError, match=f"{keyword}=.*: is out of range; give "):
        convert(source, model, **{keyword: value})
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"seconds": 0}, "--seconds 0: is less than a sample"),
        ({"seconds": 1e-9}, "--seconds 1e-09: is less than a sample"),
        ({"sr": 8000.5}, "sr=8000.5: is not whole"),
        ({"model": ""}, "model '': is empty"),
    ],
)
def test_what_gives_no_sound_or_names_no_model_is_refused(tmp_path, model, keywords, text):
    source = write(tmp_path / "song.wav", music(2000))
    with pytest.raises(UserError, match=text):
        convert(source, **{"model": model, **keywords})
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


def test_a_single_sample_at_a_lower_rate_is_still_a_file_with_sound(tmp_path, model):
    source = write(tmp_path / "one.wav", music(2000)[:1])
    made = convert(source, model, sr=11025, quality="draft")
    assert soundfile.info(made).frames == 1


def stereo(samples, rate):
    return np.stack([music(samples, rate), music(samples, rate, seed=1)], axis=1)


@pytest.mark.parametrize(
    ("flags", "keywords"),
    [
        ([], {}),
        (
            ["--quality", "draft", "--level", "network", "--start", "0.5", "--seconds", "1"],
            {"quality": "draft", "level": "network", "start": 0.5, "seconds": 1},
        ),
        (
            ["--sr", "22050", "--bits", "24", "--normalize", "-3", "--precision", "float32"],
            {"sr": 22050, "bits": 24, "normalize": -3, "precision": "float32"},
        ),
        (["--transpose", "-12", "--mix", "0.6"], {"transpose": -12, "mix": 0.6}),
    ],
)
def test_a_file_has_the_commands_samples(tmp_path, model, flags, keywords):
    source = write(tmp_path / "song.wav", stereo(96000, 48000), 48000)
    command = ["--input", str(source), "--model", str(model), "--output", str(tmp_path / "a.wav")]
    assert predict.main([*command, *flags]) == 0
    made = convert(source, model, output=tmp_path / "b.wav", **keywords)
    assert made == tmp_path / "b.wav"
    assert made.read_bytes() == (tmp_path / "a.wav").read_bytes()
    assert np.abs(soundfile.read(made)[0]).max() > 0.01


def test_an_array_has_the_samples_of_a_float_file(tmp_path, model):
    audio = stereo(66150, 44100)
    source = tmp_path / "song.wav"
    soundfile.write(source, audio, 44100, "FLOAT")
    expected, _ = soundfile.read(convert(source, model), dtype="float32")
    converted = convert_array(audio.astype(np.float64), 44100, model)
    assert converted.dtype == np.float32
    np.testing.assert_array_equal(converted, expected)
    for shape in ((66150,), (66150, 1)):
        assert convert_array(audio[:, 0].reshape(shape), 44100, model).shape == shape


def test_the_output_is_as_loud_as_the_input_and_replaces_nothing(tmp_path, model):
    source = encode(tmp_path / "song.m4a", 0.1 * melody(0, (1, 0.5), 3), "aac")
    first = convert(source, model)
    before = first.read_bytes()
    second = convert(source, model, quality="draft")
    assert [path.name for path in (first, second)] == ["song_flute.wav", "song_flute_2.wav"]
    assert first.read_bytes() == before
    for path in (first, second):
        assert listen(path).loudness == pytest.approx(listen(source).loudness, abs=0.15)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"quality": "fine"}, "quality='fine': give one of 'draft', 'normal', 'best'"),
        ({"level": "loud"}, "level='loud': give one of 'match', "),
        ({"bits": 32}, "bits=32: give one of None, 16, 24, 'float'"),
        ({"precision": "double"}, "precision='double': give one of"),
        ({"model": "xylophone"}, "xylophone: no such model"),
        ({"recording": "no.wav"}, "no.wav: no such file"),
        ({"output": "a.aiff"}, "'.aiff' cannot be written"),
    ],
)
def test_mistakes_are_explained(tmp_path, model, keywords, text):
    source = write(tmp_path / "song.wav", music(5000))
    with pytest.raises(UserError, match=re.escape(text)):
        convert(**{"recording": source, "model": model, **keywords})
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


@pytest.mark.parametrize(
    "audio",
    [
        *([], 0.5, np.zeros((2, 500)), np.zeros((9, 2, 1)), [0, np.nan]),
        np.full(500, 9000, np.int16),  # as scipy.io.wavfile reads: it was taken for a float
    ],
)
def test_an_array_of_another_form_is_refused(audio, model):
    with pytest.raises(ValueError, match="audio"):
        convert_array(audio, 44100, model)


def test_rates_of_arrays_are_whole_and_named_by_their_argument(model):
    audio = music(2000)
    for rate, reason in ((44100.5, "is not whole"), (5, "is out of range")):
        with pytest.raises(UserError, match=f"sample_rate={rate}: {reason}"):
            convert_array(audio, rate, model)
    assert convert_array(audio, 44100.0, model, quality="draft").shape == (2000,)


def test_a_model_that_needs_more_than_a_recording_is_refused(tmp_path):
    network = models.build_generator(1, kind=learned_phase.PHASE)
    model_files.save_generator(network, tmp_path / "generator.keras")
    with pytest.raises(UserError, match="needs more than a recording"):
        convert_array(music(5000), 44100, tmp_path)


def test_a_model_is_loaded_once_until_it_changes(tmp_path):
    file = tmp_path / "generator.keras"
    model_files.save_generator(models.build_generator(1), file)
    first = simple.load_network(tmp_path, "auto")
    assert simple.load_network(tmp_path, "auto") is first
    file.unlink()
    model_files.save_generator(models.build_generator(2), file)
    assert models.width_of(simple.load_network(tmp_path, "auto")) == 2


def test_the_documented_lines_run(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    encode(tmp_path / "song.m4a", melody(0, (1, 0.5), 4), "aac")
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    assert soundfile.info("again.wav").frames == soundfile.info("song_guitar.wav").frames
    assert soundfile.info("part.flac").frames == 2 * 44100


def test_importing_it_does_not_choose_a_backend():
    code = "import sys, conversion.simple; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
