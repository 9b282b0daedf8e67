import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import identity, louder, music, noise, write

import convert
import devices
import predict

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command with a network in place of a model file.

    run(network, *flags) -> (exit code, stdout, stderr)
    """

    def call(network, *flags):
        monkeypatch.setattr(devices, "setup_device", lambda gpu: 0)
        loads = []
        network.input_shape = network.output_shape = None, 256, 256, 1
        fake = types.SimpleNamespace(load_generator=lambda path: loads.append(path) or network)
        monkeypatch.setitem(sys.modules, "models", fake)
        code = predict.main(["--model", __file__, *map(str, flags)])
        out, err = capsys.readouterr()
        assert len(loads) <= 1
        return code, out, err

    return call


@pytest.mark.parametrize("source", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("target", ["b.wav", "b.flac", "b.ogg", "B.MP3"])
def test_formats_in_and_out_keep_the_length(tmp_path, run, source, target):
    write(tmp_path / source, np.stack([music(30001), music(30001, seed=1)], axis=1), 48000)
    code, out, err = run(identity, "--input", tmp_path / source, "--output", tmp_path / target)
    assert (code, err) == (0, "")
    info, original = soundfile.info(tmp_path / target), soundfile.info(tmp_path / source)
    assert (info.frames, info.channels, info.samplerate) == (original.frames, 2, 48000)
    assert target in out and "x real time" in out
    audio, _ = soundfile.read(tmp_path / target)
    assert np.abs(audio - soundfile.read(tmp_path / source)[0]).max() < 0.03
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])


@pytest.mark.parametrize("new_rate", [8000, 22050, 96000])
def test_sr_sets_the_outputs_rate(tmp_path, run, new_rate):
    write(tmp_path / "a.wav", music(44100), 44100)
    assert (
        run(
            identity,
            "--input",
            tmp_path / "a.wav",
            "--output",
            tmp_path / "b.wav",
            "--sr",
            new_rate,
        )[0]
        == 0
    )
    audio, rate = soundfile.read(tmp_path / "b.wav")
    assert (rate, len(audio)) == (new_rate, new_rate)


def test_level_is_kept_and_a_peak_beyond_full_scale_is_turned_down(tmp_path, run):
    write(tmp_path / "soft.wav", music(50000, level=0.05))
    write(tmp_path / "loud.wav", 0.8 * np.sin(np.arange(50000) * 0.05))
    _, out, _ = run(identity, "--input", tmp_path / "soft.wav", "--output", tmp_path / "out.wav")
    assert "scaled" not in out
    assert (
        np.abs(
            soundfile.read(tmp_path / "out.wav")[0] - soundfile.read(tmp_path / "soft.wav")[0]
        ).max()
        < 1e-3
    )
    _, out, _ = run(louder, "--input", tmp_path / "loud.wav", "--output", tmp_path / "out.wav")
    audio, _ = soundfile.read(tmp_path / "out.wav")
    assert "scaled by -" in out
    assert 0.999 < np.abs(audio).max() <= 1
    assert (np.abs(audio) > 0.999).sum() < 10  # not clipped


@pytest.mark.parametrize(
    ("flags", "peak"),
    [(["--normalize"], -1), (["--normalize", "-6"], -6), (["--normalize", "0"], 0)],
)
def test_normalize_sets_the_peak(tmp_path, run, flags, peak):
    write(tmp_path / "a.wav", music(50000, level=0.05))
    assert (
        run(identity, "--input", tmp_path / "a.wav", "--output", tmp_path / "b.flac", *flags)[0]
        == 0
    )
    audio, _ = soundfile.read(tmp_path / "b.flac")
    assert 20 * np.log10(np.abs(audio).max()) == pytest.approx(peak, abs=0.01)


def test_silence_cannot_be_normalized_and_stays(tmp_path, run):
    write(tmp_path / "a.wav", np.zeros(1000))
    assert (
        run(louder, "--input", tmp_path / "a.wav", "--output", tmp_path / "b.wav", "--normalize")[0]
        == 0
    )
    assert not soundfile.read(tmp_path / "b.wav")[0].any()


def test_a_folder_is_mirrored_and_finished_files_are_kept(tmp_path, run):
    names = ["a.wav", "sub/b.flac", "sub/deeper/тон 'é\n.ogg"]
    for name in names:
        write(tmp_path / "in" / name, music(20000))
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    output = tmp_path / "in" / "converted"  # below the input: must not be converted again
    code, out, _ = run(identity, "--input", tmp_path / "in", "--output", output)
    assert code == 0 and "3 of 3" in out
    found = {
        str(path.relative_to(output)): path.stat().st_mtime_ns
        for path in output.rglob("*")
        if path.is_file()
    }
    assert set(found) == set(names)

    (output / "a.wav").unlink()
    code, out, _ = run(identity, "--input", tmp_path / "in", "--output", output)
    assert code == 0 and "2 of 3" in out and "1 of 1" in out
    again = {
        str(path.relative_to(output)): path.stat().st_mtime_ns
        for path in output.rglob("*")
        if path.is_file()
    }
    assert all(again[name] == found[name] for name in names[1:]) and set(again) == set(names)
    code, out, _ = run(identity, "--input", tmp_path / "in", "--output", output)
    assert code == 0 and "3 of 3" in out


def test_a_damaged_file_in_a_folder_is_named_and_passed_over(tmp_path, run):
    write(tmp_path / "in" / "good.wav", music(20000))
    write(tmp_path / "in" / "nan.wav", np.zeros(10))
    soundfile.write(tmp_path / "in" / "nan.wav", np.full(100, np.nan), 44100, subtype="FLOAT")
    (tmp_path / "in" / "bad.flac").write_bytes(b"fLaC and nothing more")
    code, out, err = run(identity, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 2 and "1 of 3" in out
    assert len(err.splitlines()) == 2 and "bad.flac" in err and "nan.wav" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.wav"]


def test_mistakes_are_one_line_and_write_nothing(tmp_path, run):
    good = write(tmp_path / "good.wav", music(2000))
    write(tmp_path / "other" / "good.wav", music(2000))
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "none").mkdir()
    soundfile.write(tmp_path / "fast.wav", music(2000), 1_000_000)
    write(tmp_path / "crowd.wav", noise(50, 33))
    wide = write(tmp_path / "wide.wav", noise(2000, 24))
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out.wav"
    cases = {
        "missing.wav": ["--input", tmp_path / "missing.wav", "--output", out],
        "empty.wav": ["--input", tmp_path / "empty.wav", "--output", out],
        "1000000 Hz": ["--input", tmp_path / "fast.wav", "--output", out],
        "33 channels": ["--input", tmp_path / "crowd.wav", "--output", out],
        "overwrite": ["--input", good, "--output", tmp_path / "none" / ".." / "good.wav"],
        "give a folder": ["--input", good, wide, "--output", out],
        "another input": [
            "--input",
            good,
            tmp_path / "other" / "good.wav",
            "--output",
            tmp_path / "none",
        ],
        "neither a folder": ["--input", good, "--output", tmp_path / "out.xyz"],
        "none: holds no": ["--input", tmp_path / "none", "--output", tmp_path / "out"],
        "24 channels": ["--input", wide, "--output", tmp_path / "out.mp3"],
        "--sr": ["--input", good, "--output", out, "--sr", "0"],
        "--overlap": ["--input", good, "--output", out, "--overlap", "1"],
        "--phase_iterations": ["--input", good, "--output", out, "--phase_iterations", "-1"],
        "--normalize": ["--input", good, "--output", out, "--normalize", "6"],
        "--batch_size": ["--input", good, "--output", out, "--batch_size", "0"],
    }
    for text, flags in cases.items():
        try:
            code, _, err = run(identity, *flags)
        except SystemExit as stop:
            code, err = stop.code, text  # argparse's own, whose text the next test sees
        assert code == 2, text
        assert text in err and len(err.splitlines()) == 1, (text, err)
        assert sorted(tmp_path.rglob("*")) == before, text


def test_24_channels_are_converted(tmp_path, run):
    write(tmp_path / "wide.wav", noise(3000, 24))
    assert (
        run(identity, "--input", tmp_path / "wide.wav", "--output", tmp_path / "out.flac")[0] == 2
    )  # FLAC takes 8
    assert run(identity, "--input", tmp_path / "wide.wav", "--output", tmp_path / "out.wav")[0] == 0
    assert soundfile.info(tmp_path / "out.wav").channels == 24


def test_help_is_quick_to_import_and_says_units():
    program = "import sys, predict\ntry: predict.main(['--help'])\nexcept SystemExit: pass\n"
    program += "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(word in result.stdout for word in ("Hz", "dBFS", "griffinlim", "default: 32"))


def test_a_flag_out_of_range_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        predict.main(["--model", "m", "--input", "a.wav", "--output", "b.wav", "--overlap", "1"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1 and "--overlap" in error


def test_a_real_model_as_a_user_runs_it(tmp_path):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    program = "import devices; devices.setup_device('cpu'); import models; models.build_generator(1).save('{}')"
    (tmp_path / "run").mkdir()
    model = tmp_path / "run" / "generator.keras"
    subprocess.run(
        [sys.executable, "-c", program.format(model)], cwd=ROOT, env=environment, check=True
    )
    write(tmp_path / "a.wav", music(30000), 22050)
    command = [
        sys.executable,
        "predict.py",
        "--model",
        model.parent,
        "--input",
        tmp_path / "a.wav",
        "--gpu",
        "cpu",
    ]
    result = subprocess.run(
        [*command, "--output", tmp_path / "b.wav"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert soundfile.info(tmp_path / "b.wav").frames == 30000
    command[command.index("--model") + 1] = tmp_path / "nothing"
    result = subprocess.run(
        [*command, "--output", tmp_path / "c.wav"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (
        result.returncode == 2
        and len(result.stderr.splitlines()) == 1
        and "nothing" in result.stderr
    )


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), soundfile.LibsndfileError(2), AssertionError()],
)
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, run, monkeypatch, error):
    write(tmp_path / "a.wav", music(2000))

    def fail(*_):
        raise error

    monkeypatch.setattr(convert, "write_spool", fail)
    code, _, err = run(identity, "--input", tmp_path / "a.wav", "--output", tmp_path / "b.wav")
    assert (
        code == 2
        and len(err.splitlines()) == 1
        and "b.wav" in err
        and ("full" in err or "space" in err)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_ctrl_c_leaves_nothing_half_written(tmp_path, run):
    def interrupted(tiles):
        raise KeyboardInterrupt

    write(tmp_path / "in" / "a.wav", music(2000))
    code, _, err = run(interrupted, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 130 and len(err.splitlines()) == 1
    assert not list((tmp_path / "out").iterdir())
