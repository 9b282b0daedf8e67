import io
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from sounds import encode, identity, louder, music, noise, shifted, tone, uneven, write

import predict
from common import cli, devices
from common.record import NAME
from conversion import convert, known_models
from sound import recordings, survey

ROOT = Path(__file__).parents[1]


def list_names(folder):
    """Names in a folder, without the record of what was made there."""
    return sorted(path.name for path in folder.iterdir() if path.name != NAME)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command with a network in place of a model file.

    run(network, *flags) -> (exit code, stdout, stderr)
    """

    def call(network, *flags, model=__file__):
        monkeypatch.setattr(devices, "setup_device", lambda gpu: 0)
        loads = []
        network.input_shape = network.output_shape = None, 256, 256, 1
        models = [model] if isinstance(model, (str, Path)) else model
        fake = types.SimpleNamespace(load_generator=lambda path, *_: loads.append(path) or network)
        monkeypatch.setitem(sys.modules, "conversion.model_files", fake)
        code = predict.main(["--model", *map(str, models), *map(str, flags)])
        out, err = capsys.readouterr()
        assert len(loads) <= len(models)
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
    assert list_names(tmp_path) == sorted([source, target])


def test_beside_a_recording_that_is_read_only_output_is_asked_for(tmp_path, run, monkeypatch):
    write(tmp_path / "a.wav", music(30001), 44100)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    code, _, err = run(identity, "--input", tmp_path / "a.wav")
    assert code == 2
    assert err.endswith(f"{tmp_path}: is not writable; give --output a writable folder\n")
    (tmp_path / "elsewhere").mkdir()
    code, _, err = run(
        identity, "--input", tmp_path / "a.wav", "--output", tmp_path / "elsewhere" / "b.wav"
    )
    assert (code, err) == (0, "")


@pytest.mark.parametrize("rate", [48000, 88200, 96000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
def test_rates_of_studios_are_kept(tmp_path, run, name, rate):
    if name == "a.m4a":
        encode(tmp_path / name, music(rate // 2, rate), "aac", rate)
    else:
        soundfile.write(tmp_path / name, music(rate // 2, rate), rate, "PCM_24")
    with recordings.open_sound(tmp_path / name) as sound:
        samples = sum(block.shape[1] for block in recordings.read_blocks(sound))
    code, _, err = run(identity, "--input", tmp_path / name)
    assert (code, err) == (0, "")
    info = soundfile.info(tmp_path / f"a_{known_models.make_label(__file__)}.wav")
    assert (info.samplerate, info.frames) == (rate, samples)
    assert info.subtype == ("PCM_16" if name == "a.m4a" else "PCM_24")


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


def write_loud(path, rate=44100, **options):
    """Three seconds of loud chords with a burst that the network makes a peak of; gives path."""
    audio = music(3 * rate, rate, level=0.8)
    audio[rate : rate + 40] += 2 * np.sin(np.arange(40) * 0.9)
    audio = np.clip(audio, -1, 1)
    soundfile.write(path, audio, rate, **options)
    return path


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_one_peak_does_not_make_a_loud_recording_softer(tmp_path, run, rate):
    source, target = write_loud(tmp_path / "loud.wav", rate), tmp_path / "out.wav"
    code, out, err = run(shifted, "--input", source, "--output", target)
    assert (code, err) == (0, "")
    assert "peaks limited" in out and "+0.0 dBFS" not in out
    heard = [survey.listen(path).loudness for path in (source, target)]
    assert heard[1] == pytest.approx(heard[0], abs=0.15)
    audio, _ = soundfile.read(target)
    assert 20 * np.log10(np.abs(audio).max()) <= -0.98
    assert 20 * np.log10(np.abs(audio).max()) > -2


def test_a_sine_beyond_full_scale_is_limited(tmp_path, run):
    write(tmp_path / "loud.wav", 0.8 * np.sin(np.arange(50000) * 0.05))
    flags = "--input", tmp_path / "loud.wav", "--output", tmp_path / "out.wav", "--level", "off"
    _, out, _ = run(louder, *flags)
    audio, _ = soundfile.read(tmp_path / "out.wav")
    assert "peaks limited), peak -1.0 dBFS" in out
    top = np.abs(audio[10_000:40_000]).reshape(-1, 1000).max(axis=1)
    assert 20 * np.log10(top) == pytest.approx(-1, abs=0.1)  # not clipped: it stays a sine
    assert 0.6 < np.sqrt((audio[10_000:40_000] ** 2).mean()) / top.max() < 0.72


def test_floating_point_keeps_peaks_above_full_scale(tmp_path, run):
    source, target = write_loud(tmp_path / "a.wav", subtype="FLOAT"), tmp_path / "b.wav"
    code, out, _ = run(shifted, "--input", source, "--output", target)
    assert code == 0 and "kept, for the output is floating-point" in out
    assert soundfile.info(target).subtype == "FLOAT"
    assert np.abs(soundfile.read(target)[0]).max() > 1.05
    heard = [survey.listen(path).loudness for path in (source, target)]
    assert heard[1] == pytest.approx(heard[0], abs=0.05)


@pytest.mark.parametrize(
    ("source", "subtype", "target", "flag", "expected"),
    [
        ("a.wav", "PCM_U8", "b.wav", None, "PCM_16"),
        ("a.wav", "PCM_16", "b.wav", None, "PCM_16"),
        ("a.wav", "PCM_24", "b.wav", None, "PCM_24"),
        ("a.wav", "PCM_32", "b.wav", None, "FLOAT"),
        ("a.wav", "DOUBLE", "b.wav", None, "FLOAT"),
        ("a.wav", "ULAW", "b.wav", None, "PCM_16"),
        ("a.flac", "PCM_24", "b.wav", None, "PCM_24"),
        ("a.flac", "PCM_24", "b.flac", None, "PCM_24"),
        ("a.wav", "FLOAT", "b.flac", None, "PCM_24"),
        ("a.ogg", None, "b.wav", None, "PCM_16"),
        ("a.mp3", None, "b.flac", None, "PCM_16"),
        ("a.wav", "PCM_24", "b.mp3", None, "MPEG_LAYER_III"),
        ("a.wav", "FLOAT", "b.ogg", None, "VORBIS"),
        ("a.wav", "PCM_24", "b.wav", "16", "PCM_16"),
        ("a.wav", "PCM_16", "b.wav", "24", "PCM_24"),
        ("a.wav", "PCM_16", "b.wav", "float", "FLOAT"),
        ("a.mp3", None, "b.flac", "24", "PCM_24"),
    ],
)
def test_the_output_has_the_inputs_depth_or_the_one_asked_for(
    tmp_path, run, source, subtype, target, flag, expected
):
    soundfile.write(tmp_path / source, music(20_000), 44100, subtype)
    flags = [] if flag is None else ["--bits", flag]
    flags += ["--input", tmp_path / source, "--output", tmp_path / target]
    code, _, err = run(identity, *flags)
    assert (code, err) == (0, "")
    assert soundfile.info(tmp_path / target).subtype == expected
    if expected in ("PCM_24", "FLOAT"):
        fine = soundfile.read(tmp_path / target)[0] * 2**15
        assert np.abs(fine - np.round(fine)).max() > 0.1  # more than 16 bits are used


@pytest.mark.parametrize(
    ("codec", "depth"), [("alac", "s16p"), ("alac", "s32p"), ("wavpack", "fltp"), ("aac", "fltp")]
)
def test_depth_of_what_ffmpeg_reads(tmp_path, codec, depth):
    path = tmp_path / ("a.wv" if codec == "wavpack" else "a.m4a")
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=44100, layout="mono", format=depth)
        resampler = av.AudioResampler(depth, "mono", 44100)
        frame = av.AudioFrame.from_ndarray(music(20_000)[np.newaxis], "fltp", "mono")
        frame.sample_rate = 44100
        for part in resampler.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    with recordings.open_sound(path) as sound:
        assert sound.bits == {"s16p": 16, "s32p": 24, "fltp": "float"}[depth] or codec == "aac"
        assert sound.bits == 16 or codec != "aac"


@pytest.mark.parametrize(
    ("target", "bits", "remedy"),
    [
        ("b.flac", "float", "--bits 24, or a .wav"),
        ("b.mp3", "24", "leave --bits out, or give a .wav or .flac"),
        ("b.ogg", "float", "leave --bits out, or give a .wav or .flac"),
    ],
)
def test_a_depth_that_a_format_lacks_is_refused(tmp_path, run, target, bits, remedy):
    write(tmp_path / "a.wav", music(2000))
    flags = "--input", tmp_path / "a.wav", "--output", tmp_path / target, "--bits", bits
    code, _, err = run(identity, *flags)
    assert code == 2 and len(err.splitlines()) == 1
    assert f"--bits {bits}: " in err and remedy in err and target in err
    assert list_names(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(("peak", "text"), [(1, "0 dBFS"), (0.998, "0 dBFS"), (2, "+6.0 dBFS")])
def test_peaks_in_words(peak, text):
    assert predict.in_decibels(peak) == text


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
        if path.is_file() and path.name != NAME
    }
    assert set(found) == set(names)

    (output / "a.wav").unlink()
    code, out, _ = run(identity, "--input", tmp_path / "in", "--output", output)
    assert code == 0 and "2 of 3" in out and "1 of 1" in out
    again = {
        str(path.relative_to(output)): path.stat().st_mtime_ns
        for path in output.rglob("*")
        if path.is_file() and path.name != NAME
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
    assert list_names(tmp_path / "out") == ["good.wav"]


def test_a_decoder_that_hangs_costs_one_file_of_a_folder(tmp_path, run, monkeypatch):
    for name in ("bad.mp3", "good.wav"):
        write(tmp_path / "in" / name, tone(seconds=1))
    monkeypatch.setattr(recordings, "_DECODER", "import time; time.sleep(1000)")
    monkeypatch.setattr(recordings, "PATIENCE", 1)
    flags = "--input", tmp_path / "in", "--output", tmp_path / "out"
    code, output, mistakes = run(identity, *flags)
    assert code == 2
    assert list_names(tmp_path / "out") == ["good.wav"]
    (line,) = mistakes.splitlines()
    assert line.startswith("skipped: ") and "bad.mp3: the decoder gave nothing" in line
    assert "1 of 2 converted" in output


def test_mistakes_are_one_line_and_write_nothing(tmp_path, run, capsys):
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
        "none: has no": ["--input", tmp_path / "none", "--output", tmp_path / "out"],
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
            code, err = stop.code, capsys.readouterr().err  # argparse's own
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


def test_help_says_units(capsys):
    with pytest.raises(SystemExit):
        predict.main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("Hz", "dBFS", "griffinlim", "default: 0.25"))


def test_a_flag_out_of_range_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        predict.main(["--model", "m", "--input", "a.wav", "--output", "b.wav", "--overlap", "1"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1 and "--overlap" in error


def test_a_real_model_as_a_user_runs_it(tmp_path):
    import models

    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    (tmp_path / "run").mkdir()
    model = tmp_path / "run" / "generator.keras"
    models.build_generator(1).save(model)
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

    monkeypatch.setattr(convert, "write_blocks", fail)
    code, _, err = run(identity, "--input", tmp_path / "a.wav", "--output", tmp_path / "b.wav")
    assert (
        code == 2
        and len(err.splitlines()) == 1
        and "b.wav" in err
        and ("full" in err or "space" in err)
    )
    assert list_names(tmp_path) == ["a.wav"]


def test_ctrl_c_leaves_nothing_half_written(tmp_path, run):
    def interrupted(tiles):
        raise KeyboardInterrupt

    write(tmp_path / "in" / "a.wav", music(2000))
    code, _, err = run(interrupted, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 130 and len(err.splitlines()) == 1
    assert not list_names(tmp_path / "out")


@pytest.mark.parametrize(
    ("platform", "command"),
    [
        ("linux", "xdg-open '/a b/it'\"'\"'s.wav'"),
        ("darwin", "open '/a b/it'\"'\"'s.wav'"),
        ("win32", 'explorer "/a b/it\'s.wav"'),
    ],
)
def test_what_opens_a_file_is_quoted_as_the_system_has_it(platform, command):
    assert predict.write_open_command("/a b/it's.wav", platform) == command


def test_a_terminal_that_knows_no_escape_sequences_gets_none(monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", shown)
    with predict.say_loading():
        text = shown.getvalue()
        assert "loading" in text
    assert "\033" not in shown.getvalue()
    assert shown.getvalue() == f"{text}{' ' * (len(text) - 1)}\r"


@pytest.mark.parametrize(("platform", "opener"), [("linux", "xdg-open"), ("darwin", "open")])
def test_a_name_that_begins_with_a_dash_is_no_option_to_what_opens_it(platform, opener):
    assert predict.write_open_command("-a.wav", platform) == f"{opener} ./-a.wav"
    assert predict.write_open_command(Path("-b/a.wav"), platform) == f"{opener} ./-b/a.wav"


def test_a_conversion_lies_beside_its_input_and_never_replaces(tmp_path, run):
    source = write(tmp_path / "song.flac", music(20000))
    code, out, _ = run(identity, "--input", source)
    assert code == 0
    label = known_models.make_label(__file__)
    first = tmp_path / f"song_{label}.wav"
    assert str(first) in out and "listen:" in out and soundfile.info(first).frames == 20000
    before = first.read_bytes()
    assert run(louder, "--input", source)[0] == 0
    assert first.read_bytes() == before
    names = {"song.flac", first.name, f"song_{label}_2.wav"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_two_conversions_of_one_song_at_once_are_two_files(tmp_path, run):
    write(tmp_path / "song.flac", music(30001), 44100)
    flags = "--input", tmp_path / "song.flac"
    results = []

    def slow(tiles):
        if not results:
            results.append(())
            results[0] = run(identity, *flags)
        return tiles

    code, out, err = run(slow, *flags)
    label = known_models.make_label(__file__)
    first, second = tmp_path / f"song_{label}.wav", tmp_path / f"song_{label}_2.wav"
    assert (results[0][0], code, err) == (0, 0, "")
    assert f"{first}: " in results[0][1] and f"{second}: " in out
    assert f"xdg-open {second}" in out or sys.platform != "linux"
    assert first.is_file() and second.is_file()


@pytest.mark.parametrize("output", [["--output", "b.wav"], ["--output", "out"], []])
def test_a_file_that_appears_meanwhile_is_kept(tmp_path, run, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    write(Path("a.wav"), music(30001), 44100)
    label = known_models.make_label(__file__)
    target = {"b.wav": Path("b.wav"), "out": Path("out/a.wav")}.get(
        "".join(output[1:]), Path(f"a_{label}.wav")
    )
    Path("out").mkdir()

    def slow(tiles):
        target.write_text("the user's")
        return tiles

    code, out, err = run(slow, "--input", "a.wav", *output)
    numbered = target.with_name(f"{target.stem}_2.wav")
    assert (code, target.read_text()) == (0, "the user's")
    assert soundfile.info(numbered).frames == 30001
    assert f"{numbered}: " in out
    assert (numbered.name in err) == bool(output)
    code, out, err = run(identity, "--input", "a.wav", *output)
    assert target.read_text() == "the user's"
    if output == ["--output", "out"]:  # ours are made again, as before
        target.unlink()
        assert run(identity, "--input", "a.wav", *output)[0] == 0
        again = run(identity, "--input", "a.wav", *output, "--seconds", "0.3")
        assert (again[0], again[2]) == (0, "")
        assert soundfile.info(target).frames == round(0.3 * 44100)


@pytest.mark.skipif(os.name == "nt", reason="links, permissions")
@pytest.mark.parametrize("single", [False, True], ids=["folder", "as *"])
def test_one_bad_entry_of_a_folder_stops_no_other(tmp_path, run, powerless, single):
    for name in ("0.wav", "a.wav", "lost+found/b.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "in" / name, music(30001), 44100)
    (tmp_path / "in/self").symlink_to("self")
    (tmp_path / "in/0.wav").chmod(0)
    (tmp_path / "in/lost+found").chmod(0)
    inputs = sorted((tmp_path / "in").iterdir()) if single else [tmp_path / "in"]
    for _ in range(2):  # again, when all else is there already
        code, out, err = run(identity, "--input", *inputs, "--output", tmp_path / "out")
        assert code == 2  # 0.wav is not converted
        assert list_names(tmp_path / "out") == ["a.wav"]
        assert "listen: " in out
        lines = err.splitlines()
        assert len(lines) == 3
        for name in ("self", "lost+found", "0.wav"):
            named = [line for line in lines if f"{tmp_path / 'in' / name}: " in line]
            assert named[0].startswith("skipped: ")
    (tmp_path / "in/lost+found").chmod(0o755)


def test_a_folder_without_output_is_converted_into_one_beside_it(tmp_path, run):
    write(tmp_path / "in" / "sub" / "a.wav", music(20000))
    assert run(identity, "--input", tmp_path / "in")[0] == 0
    label = known_models.make_label(__file__)
    assert (tmp_path / f"in_{label}" / "sub" / "a.wav").exists()
    assert [path.name for path in (tmp_path / "in" / "sub").iterdir()] == ["a.wav"]


def test_what_was_made_otherwise_is_made_again(tmp_path, run):
    """Another phase, another level, an older recording in the place of a newer one."""
    source = write(tmp_path / "in" / "a.wav", music(20000))
    flags = "--input", tmp_path / "in", "--output", tmp_path / "out"
    assert run(identity, *flags)[0] == 0
    target = tmp_path / "out" / "a.wav"
    first = target.read_bytes()
    assert "there already" in run(identity, *flags)[1]
    assert target.read_bytes() == first
    assert "1 of 1 converted" in run(identity, *flags, "--phase", "random")[1]
    second = target.read_bytes()
    assert second != first
    write(source, music(20000, seed=3))
    os.utime(source, (1e9, 1e9))
    assert "1 of 1 converted" in run(identity, *flags, "--phase", "random")[1]
    assert target.read_bytes() != second


def test_another_model_into_the_same_folder_makes_its_own(tmp_path, run):
    write(tmp_path / "in" / "a.wav", music(20000))
    flags = "--input", tmp_path / "in", "--output", tmp_path / "out"
    (tmp_path / "one.keras").write_bytes(b"1")
    (tmp_path / "two.keras").write_bytes(b"22")
    assert run(identity, *flags, model=tmp_path / "one.keras")[0] == 0
    first = (tmp_path / "out" / "a.wav").read_bytes()
    assert run(uneven, *flags, model=tmp_path / "two.keras")[0] == 0
    assert (tmp_path / "out" / "a.wav").read_bytes() != first


def test_a_users_own_file_is_kept(tmp_path, run):
    write(tmp_path / "in" / "a.wav", music(20000))
    write(tmp_path / "in" / "b.wav", music(20000))
    own = write(tmp_path / "out" / "a.wav", music(999))
    before = own.read_bytes()
    code, out, _ = run(identity, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0 and "kept" in out
    assert own.read_bytes() == before and (tmp_path / "out" / "b.wav").exists()
    code, _, err = run(identity, "--input", tmp_path / "in" / "a.wav", "--output", own)
    assert code == 2 and "--output" in err and own.read_bytes() == before


@pytest.mark.parametrize("rate", [8000, 44100])
def test_the_output_is_as_loud_as_the_input(tmp_path, run, rate):
    write(tmp_path / "a.wav", music(2 * rate, rate, level=0.05), rate)
    out = tmp_path / "b.wav"
    assert run(louder, "--input", tmp_path / "a.wav", "--output", out)[0] == 0
    heard = [survey.listen(path).loudness for path in (tmp_path / "a.wav", out)]
    assert heard[1] == pytest.approx(heard[0], abs=0.15)


def test_the_network_gets_every_recording_at_the_training_level(tmp_path):
    peaks = []

    def network(tiles):
        peaks.append(tiles.max())
        return tiles

    for level in (0.003, 0.1, 0.9):
        write(tmp_path / "a.wav", music(100_000, level=level))
        convert.convert_file(network, tmp_path / "a.wav", tmp_path / "b.wav")
    assert np.ptp(peaks) < 0.01
    convert.convert_file(
        network, tmp_path / "a.wav", tmp_path / "b.wav", output=convert.Output(level="off")
    )
    assert peaks[-1] > peaks[0] + 0.1


def test_the_networks_own_level_can_be_kept(tmp_path):
    write(tmp_path / "a.wav", music(100_000, level=0.01))
    output = convert.Output(level="network")
    convert.convert_file(identity, tmp_path / "a.wav", tmp_path / "b.wav", output=output)
    audio = [soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav")]
    assert np.abs(audio[1] - audio[0]).max() < 1e-3
    heard = survey.listen(tmp_path / "a.wav").loudness
    done = convert.convert_file(louder, tmp_path / "a.wav", tmp_path / "c.wav", output=output)
    assert done.loudness - heard == pytest.approx(9.6, abs=1)  # what `louder` adds


def test_a_part_can_be_converted(tmp_path, run):
    audio = music(3 * 44100)
    write(tmp_path / "a.wav", audio)
    flags = "--start", 1, "--seconds", 0.5, "--level", "off", "--quality", "draft"
    code, _, _ = run(
        identity, "--input", tmp_path / "a.wav", "--output", tmp_path / "b.wav", *flags
    )
    assert code == 0
    part, _ = soundfile.read(tmp_path / "b.wav")
    assert len(part) == 22050
    assert np.abs(part - audio[44100 : 44100 + 22050])[600:-600].max() < 1e-3
    code, _, err = run(identity, "--input", tmp_path / "a.wav", "--start", 9)
    assert code == 2 and "--start 9" in err and "3.0 s" in err


def test_a_recording_without_its_flag_is_told_of_it(capsys):
    with pytest.raises(SystemExit) as stopped:
        predict.main(["song.m4a", "--model", "guitar"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "song.m4a; give recordings with --input and models with --model" in line


def test_a_start_beyond_the_end_is_told_before_the_networks_load(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "setup_device", lambda gpu: pytest.fail("the backend loads"))
    write(tmp_path / "a.wav", music(44100))
    (tmp_path / "other.keras").touch()
    models = ["--model", __file__, str(tmp_path / "other.keras")]
    for given in (models[:2], models):
        code = predict.main([*given, "--input", str(tmp_path / "a.wav"), "--start", "0:09"])
        assert code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "--start 9" in line and "1.0 s" in line


def test_each_recording_is_heard_and_complained_of_once_for_all_models(tmp_path, run, monkeypatch):
    source, output = tmp_path / "in", tmp_path / "out"
    for name, seconds in {"long.wav": 2, "short.wav": 0.5}.items():
        write(source / name, music(round(44100 * seconds)))
    models = [tmp_path / "one.keras", tmp_path / "two.keras"]
    for model in models:
        model.touch()
    opened = []

    def open_and_count(path):
        opened.append(path.name)
        return recordings.open_sound(path)

    monkeypatch.setattr(predict, "open_sound", open_and_count)
    monkeypatch.setattr(convert, "open_sound", open_and_count)
    flags = "--input", source, "--output", output, "--start", 1, "--quality", "draft"
    code, out, err = run(identity, *flags, model=models)
    assert code == 2 and "2 of 4 converted" in out
    (line,) = err.splitlines()
    assert line.startswith("skipped: ") and "short.wav" in line
    assert opened.count("long.wav") == 3  # once to check it and listen, once for each model


def test_quality_gives_way_to_what_is_said():
    def parse(*flags):
        args = predict.build_parser().parse_args(flags)
        predict.apply_quality(args)
        return args.hops, args.phase, args.phase_iterations

    assert parse() == (2, "griffinlim_anchored", 8)
    assert parse("--quality", "draft") == (1, "input", 0)
    assert parse("--quality", "draft", "--hops", "4") == (4, "input", 0)
    assert parse("--phase", "griffinlim") == (2, "griffinlim", 32)
    assert parse("--phase_iterations", "9") == (2, "griffinlim_anchored", 9)


def test_a_name_with_spaces_that_was_not_quoted(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a song.wav", music(5000))
    code, _, err = run(identity, "--input", "a", "song.wav")
    assert code == 2
    assert err.endswith("a: no such file; write a name with spaces in quotes: 'a song.wav'\n")


def test_a_part_can_be_told_in_minutes(tmp_path, run):
    write(tmp_path / "a.wav", music(44100 * 3))
    flags = "--input", tmp_path / "a.wav", "--output", tmp_path / "b.wav"
    assert run(identity, *flags, "--start", "0:01", "--seconds", "0:01.5")[0] == 0
    assert soundfile.info(tmp_path / "b.wav").frames == 66150


@pytest.fixture
def soft_model(tmp_path):
    """The folder of a model that has a pull of its own."""
    folder = tmp_path / "soft"
    folder.mkdir()
    (folder / "config.json").write_text('{"pull": 0.03}')
    (folder / "generator.keras").touch()
    return folder


def test_the_phase_is_anchored_as_the_model_says_or_the_flag(tmp_path, run, soft_model):
    write(tmp_path / "a.wav", music(66150))
    flags = ["--input", tmp_path / "a.wav", "--phase_iterations", 4]
    sounds = {}
    for name, model, *more in (
        ("usual", __file__),
        ("own", soft_model),
        ("asked", __file__, "--pull", 0.03),
        ("overruled", soft_model, "--pull", 0.1),
    ):
        target = tmp_path / f"{name}.wav"
        code, _, err = run(shifted, *flags, *more, "--output", target, model=model)
        assert (code, err) == (0, "")
        sounds[name] = soundfile.read(target)[0]
    np.testing.assert_array_equal(sounds["own"], sounds["asked"])
    np.testing.assert_array_equal(sounds["usual"], sounds["overruled"])
    assert np.abs(sounds["own"] - sounds["usual"]).max() > 0.001


@pytest.mark.parametrize("flags", [["--quality", "draft"], ["--phase", "griffinlim"]])
def test_a_pull_that_would_change_nothing_is_refused(tmp_path, run, flags):
    write(tmp_path / "a.wav", music(5000))
    code, _, err = run(identity, "--input", tmp_path / "a.wav", "--pull", 0.2, *flags)
    assert code == 2
    (line,) = err.splitlines()
    assert "--pull 0.2: needs --phase griffinlim_anchored, not" in line


def test_another_pull_is_another_output(tmp_path, run, soft_model):
    write(tmp_path / "a.wav", music(30000))
    flags = ["--input", tmp_path / "a.wav", "--output", tmp_path / "b.wav"]
    assert "1 of 1 converted" in run(shifted, *flags, model=soft_model)[1]
    assert "there already" in run(shifted, *flags, model=soft_model)[1]
    assert "1 of 1 converted" in run(shifted, *flags, "--pull", 0.1, model=soft_model)[1]
    (soft_model / "config.json").write_text('{"pull": 0.05}')
    assert "1 of 1 converted" in run(shifted, *flags, model=soft_model)[1]
    (soft_model / "config.json").write_text('{"pull": "much"}')
    code, _, err = run(shifted, *flags, model=soft_model)
    assert code == 2 and f"{soft_model / 'config.json'}: damaged" in err


def test_a_model_named_twice_is_one(tmp_path, run, soft_model, monkeypatch):
    source = write(tmp_path / "in" / "a.wav", music(2000))
    monkeypatch.chdir(tmp_path)
    twice = [soft_model, os.path.relpath(soft_model)]
    flags = "--input", source.parent, "--output", tmp_path / "out"
    assert run(identity, *flags, model=twice)[0] == 0
    assert list_names(tmp_path / "out") == ["a.wav"]


def test_outputs_on_several_drives_are_told(tmp_path, monkeypatch, capsys):
    def fail(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", fail)
    jobs = [types.SimpleNamespace(target=tmp_path / name / "a.wav") for name in ("one", "two")]
    predict.say_how_to_hear(jobs, None)
    assert str(tmp_path / "one") in capsys.readouterr().out


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Models in runs/ and pretrained/, by name."""
    monkeypatch.setattr(known_models, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setattr(known_models, "RUNS", tmp_path / "runs")
    for name in (
        "pretrained/keyboard_acoustic_2_guitar_acoustic",
        "pretrained/keyboard_acoustic_2_string_acoustic",
        "runs/guitar_acoustic_2_flute_acoustic",
        "runs/demo/organ_electronic_2_bass_electronic",
        "runs/two_2_bass_synthetic",
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "generator.keras").write_bytes(b"")
    (tmp_path / "pretrained" / "README.md").write_text("no model")
    return tmp_path


def test_any_part_of_a_name_that_fits_one_model_will_do(shelf):
    names = {
        "guitar": "pretrained/keyboard_acoustic_2_guitar_acoustic",
        "strings": "pretrained/keyboard_acoustic_2_string_acoustic",
        "FLUTE": "runs/guitar_acoustic_2_flute_acoustic",
        "organ": "runs/demo/organ_electronic_2_bass_electronic",
        str(shelf / "runs" / "two_2_bass_synthetic"): "runs/two_2_bass_synthetic",
    }
    for text, name in names.items():
        assert known_models.find_model(text) == shelf / name
    for text in ("bass", "xylophone", "keyboard"):
        with pytest.raises(cli.UserError, match=text):
            known_models.find_model(text)


def test_models_of_many_origins_are_called_by_what_they_make(shelf):
    """The older model of the target is not listed any more, but has its full name."""
    for name, old in (("guitar", "guitar_acoustic"), ("strings", "string_acoustic")):
        folder = shelf / "pretrained" / f"many_2_{name}"
        folder.mkdir()
        (folder / "generator.keras").write_bytes(b"")
        older = shelf / "pretrained" / f"keyboard_acoustic_2_{old}"
        assert known_models.find_model(name) == folder
        assert known_models.make_label(folder) == name
        assert known_models.find_model(older.name) == older
        listed = known_models.find_models()
        assert folder in listed and older not in listed


def test_a_shipped_models_label_stays_its_own(shelf):
    trained = shelf / "runs" / "demo" / "keyboard_acoustic_2_guitar_acoustic"
    trained.mkdir()
    (trained / "generator.keras").write_bytes(b"")
    shipped = shelf / "pretrained" / "keyboard_acoustic_2_guitar_acoustic"
    for text in ("guitar", shipped.name):
        assert known_models.find_model(text) == shipped
    assert known_models.find_model(str(trained)) == trained


def test_no_two_models_share_a_label():
    labels = {
        "pretrained/piano_2_guitar_acoustic": "pretrained_guitar",
        "runs/piano_2_guitar_acoustic": "runs_guitar",
        "runs/organ_2_guitar_acoustic": "organ_2_guitar_acoustic",
        "runs/piano_2_flute": "flute",
    }
    paths = [Path(path) for path in labels]
    assert known_models.make_labels(paths[2:]) == ["guitar", "flute"]
    assert known_models.make_labels([*paths, paths[3]])[:3] == list(labels.values())[:3]
    assert known_models.make_labels(paths) == list(labels.values())


def test_an_output_is_called_as_readme_calls_its_model():
    names = {
        "keyboard_acoustic_2_string_acoustic": "strings",
        "keyboard_acoustic_2_synth_lead_synthetic": "synth",
        "many_2_synth": "synth",
        "guitar_acoustic_2_keyboard_acoustic": "piano",
        "piano_2_flute_acoustic": "flute",
    }
    assert {name: known_models.make_label(name) for name in names} == names


def test_list_fits_a_terminal_and_has_paths_from_here(shelf, monkeypatch, capsys):
    folder = shelf / "runs" / "two_2_bass_synthetic"
    config = {"flags": {"origin": "two", "target": "bass_synthetic", "filters": 8}}
    config["flags"]["conditions"] = True
    config["baselines_db"] = {"identity": 9.5}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "history.csv").write_text("epoch,val_mae_db\n1,5\n2,3.21\n")
    monkeypatch.chdir(shelf / "pretrained")
    assert predict.main(["--list"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    paths = [line.split()[1] for line in lines if not line.startswith(" ")]
    assert len(paths) == 5 and all(Path(path).is_dir() for path in paths)
    assert "keyboard_acoustic_2_guitar_acoustic" in paths
    words = " ".join(out.split())
    assert "bass ../runs/two_2_bass_synthetic two -> bass_synthetic, in rooms and noise" in words
    assert "3.21 dB off on pieces it has not seen (input unchanged 9.50)" in words


def test_list_for_scripts(shelf, monkeypatch, capsys):
    monkeypatch.chdir(shelf)
    assert predict.main(["--list", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert len(models) == 5 and all(Path(model["path"]).is_dir() for model in models)
    assert models[0] == {
        "name": "guitar",
        "path": os.path.join("pretrained", "keyboard_acoustic_2_guitar_acoustic"),
        "description": "nothing is written down about it",
    }


def test_results_for_scripts(tmp_path, run):
    folder = tmp_path / "in"
    write(folder / "good.wav", music(44100))
    (folder / "bad.wav").write_text("no sound")
    write(folder / "still.wav", np.zeros(22050))
    write(folder / "own.wav", music(5000))
    own = write(tmp_path / "out" / "own.wav", music(3000))
    flags = "--input", folder, "--output", tmp_path / "out", "--json"
    for seconds in (1.0, None):  # the second time nothing is converted again
        code, out, err = run(identity, *flags)
        results = {Path(result["input"]).name: result for result in json.loads(out)}
        assert code == 2 and list(results) == ["bad.wav", "good.wav", "own.wav", "still.wav"]
        good = results["good.wav"]
        assert good["output"] == str(tmp_path / "out" / "good.wav")
        assert Path(good["model"]).resolve() == Path(__file__)
        assert good["seconds"] == seconds
        remarks = [] if seconds else ["there already, made in the same way"]
        assert good["remarks"] == remarks
        assert results["bad.wav"]["output"] is None and results["bad.wav"]["seconds"] is None
        assert str(folder / "bad.wav") in results["bad.wav"]["remarks"][0]
        assert results["own.wav"]["output"] == str(own)
        assert results["own.wav"]["remarks"] == ["kept, for this command did not make it"]
        assert "skipped" in err and "converted" in err and "listen:" in err
        assert (results["still.wav"]["remarks"] == ["it is silent"]) == bool(seconds)


def test_a_mistake_leaves_scripts_without_a_list(tmp_path, run):
    code, out, err = run(identity, "--input", tmp_path / "no.wav", "--json")
    assert (code, out) == (2, "") and "no.wav" in err


def test_several_models_make_several_files_and_a_page(tmp_path, run):
    source = write(tmp_path / "in" / "a.wav", music(20000))
    models = [tmp_path / "x_2_guitar_acoustic.keras", tmp_path / "x_2_flute_acoustic.keras"]
    for model in models:
        model.write_bytes(b"")
    page = tmp_path / "page"
    code, out, _ = run(identity, "--input", source, "--page", page, model=models)
    assert code == 0 and "index.html" in out
    assert {path.name for path in source.parent.iterdir()} == {
        "a.wav",
        "a_guitar.wav",
        "a_flute.wav",
    }
    text = (page / "index.html").read_text()
    assert "guitar" in text and "flute" in text


def test_the_page_has_sound_of_channels_of_opposite_polarity(tmp_path):
    sound = music(20000)
    source = write(tmp_path / "a.wav", np.stack([sound, -sound], axis=1))
    np.testing.assert_allclose(survey.read_part(source, 0.0, None), sound, atol=1e-4)


def test_the_page_is_stereo_and_says_what_it_cuts(tmp_path, run, monkeypatch):
    monkeypatch.setattr(predict, "PAGE_SECONDS", 1)
    for name, seconds in (("long", 2), ("short", 0.5)):
        left = music(round(seconds * 44100))
        write(tmp_path / "in" / f"{name}.wav", np.stack([left, 0.5 * left], axis=1))
    page = tmp_path / "page"
    assert run(identity, "--input", tmp_path / "in", "--page", page)[0] == 0
    text = (page / "index.html").read_text()
    assert text.count("The first 1 s are here") == 1
    assert "at normal quality" in text
    for k in (1, 2):
        sound, _ = soundfile.read(page / f"piece01_{k}.flac")
        assert sound.shape == (44100, 2)
        assert np.abs(sound[:, 0]).max() > 1.5 * np.abs(sound[:, 1]).max()


def test_a_file_where_the_page_goes_is_refused_before_the_work(tmp_path, run):
    source = write(tmp_path / "a.wav", music(2000))
    (tmp_path / "page").write_text("the user's")
    code, _, err = run(identity, "--input", source, "--page", tmp_path / "page")
    assert code == 2 and "--page" in err
    assert list_names(tmp_path) == ["a.wav", "page"]


def test_a_page_of_the_users_is_refused_before_the_work_and_ours_is_written_anew(tmp_path, run):
    source = write(tmp_path / "in" / "a.wav", music(2000))
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<h1>my site</h1>")
    code, _, err = run(identity, "--input", source, "--page", page)
    assert code == 2 and "give another --page" in err
    assert (page / "index.html").read_text() == "<h1>my site</h1>"
    assert list_names(tmp_path / "in") == ["a.wav"]
    (page / "index.html").unlink()
    for _ in range(2):
        assert run(identity, "--input", source, "--page", page)[0] == 0


def test_output_folders_equal_above_and_below(tmp_path, run):
    inside = tmp_path / "all" / "in"
    write(inside / "a.wav", music(2000))
    code, _, err = run(identity, "--input", inside, "--output", inside)
    assert code == 2 and "itself" in err
    code, _, err = run(identity, "--input", inside, "--output", tmp_path / "all")
    assert code == 0 and (tmp_path / "all" / "a.wav").exists()
    below = inside / "a.wav"
    below.rename(tmp_path / "moved.wav")
    write(inside / "out" / "a.wav", music(2000))
    code, _, err = run(identity, "--input", inside, "--output", inside / "out")
    assert code == 2 and "all its recordings lie in --output" in err


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_not_utf8_and_long_ones(tmp_path, run):
    strange = tmp_path / "in" / os.fsdecode(b"caf\xe9.wav")
    long = tmp_path / "in" / ("ä" * 120 + ".wav")
    write(tmp_path / "in" / "a.wav", music(2000))
    for path in (strange, long):
        path.write_bytes((tmp_path / "in" / "a.wav").read_bytes())
    code, out, err = run(identity, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert (code, err) == (0, "") and "3 of 3" in out
    assert run(identity, "--input", long)[0] == 0
    assert run(identity, "--input", strange)[0] == 0


def test_two_inputs_of_one_stem_do_not_meet(tmp_path, run):
    write(tmp_path / "in" / "a.wav", music(2000))
    write(tmp_path / "in" / "a.aiff", music(2000))
    assert run(identity, "--input", tmp_path / "in", "--output", tmp_path / "out")[0] == 0
    assert {path.name for path in (tmp_path / "out").glob("a*")} == {"a.wav", "a.aiff.wav"}


def test_writing_what_a_format_cannot_hold_is_refused_before_the_work(tmp_path, run):
    write(tmp_path / "a.wav", music(2000))
    for name, rate in (("b.ogg", 250_000), ("b.flac", 384_001)):
        flags = "--input", tmp_path / "a.wav", "--output", tmp_path / name, "--sr", rate
        code, _, err = run(fail_at_once, *flags)
        assert code == 2 and name in err and len(err.splitlines()) == 1


def fail_at_once(tiles):
    """A network that must not be reached."""
    raise AssertionError("the work began")


TIME = np.arange(8 * 44100) / 44100


def buzz(pitch, partials=20):
    """A tone of many partials, its pitch in Hz that of each sample: float (n,)."""
    phase = 2 * np.pi * np.cumsum(pitch) / 44100
    return sum(np.sin(k * phase) / k for k in range(1, partials + 1)) / 5


def talk():
    """Like speech: syllables whose pitch glides all the time."""
    syllables = np.sin(np.pi * (4.3 * TIME % 1)) ** 2 * (np.sin(2 * np.pi * 0.7 * TIME) > -0.7)
    return 0.3 * syllables * buzz(130 + 40 * np.sin(2 * np.pi * 2.3 * TIME))


def drum():
    """Like a drum kit and a bass: noise that dies away, four times a second."""
    strokes = np.exp(-30 * (TIME % 0.25))
    return 3 * strokes * noise(len(TIME)) + 0.05 * np.sin(2 * np.pi * 55 * TIME)


SOUNDS = {  # what it is like: (sound, a word of what is remarked)
    "music": (music(8 * 44100), ""),
    "one note": (np.exp(-TIME) * buzz(np.full(len(TIME), 220)), ""),
    "held notes": (0.3 * buzz(np.repeat([220, 247, 262, 294], len(TIME) // 4)), ""),
    "half a second": (music(22050), ""),
    "speech": (talk(), "speech"),
    "drums": (drum(), "percussion"),
    "noise": (noise(5 * 44100), "noise"),
    "silence": (np.zeros(44100, np.float32), "silen"),
    "mostly silence": (np.append(tone(seconds=0.2), np.zeros(3 * 44100)), "mostly silence"),
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_what_no_model_knows_is_told_and_nothing_else(tmp_path, kind):
    sound, word = SOUNDS[kind]
    write(tmp_path / "a.wav", sound.astype(np.float32) / max(1, np.abs(sound).max()))
    remark = survey.listen(tmp_path / "a.wav").remark
    assert word in remark and bool(word) == bool(remark)


@pytest.mark.parametrize("name", ["cello", "recorded_piano", "saxophone", "trumpet"])
def test_of_real_instruments_nothing_is_remarked(name):
    assert survey.listen(ROOT / "docs" / "audio" / f"{name}.ogg").remark == ""


@pytest.mark.parametrize("kind", ["one note", "held notes", "speech"])
def test_notes_that_are_held_are_no_reason_to_expect_little(tmp_path, run, kind):
    sound, word = SOUNDS[kind]
    write(tmp_path / "a.wav", sound.astype(np.float32) / max(1, np.abs(sound).max()))
    piano = tmp_path / "keyboard_acoustic_2_guitar_acoustic"
    piano.mkdir()
    (piano / "generator.keras").touch()
    code, _, err = run(identity, "--input", tmp_path / "a.wav", model=piano)
    assert code == 0
    assert bool(err) == bool(word)
