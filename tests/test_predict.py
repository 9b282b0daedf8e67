import os
import subprocess
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from music import istft

import convert
import data
import devices
import phase
import predict

ROOT = Path(__file__).parents[1]
TILE = data.TILE_FRAMES * data.HOP_LENGTH  # samples
SHIFT_TOLERANCE = (
    0.1  # change of the output, as a part of it, when a recording is shifted against the tiles
)
LENGTHS = [0, 1, 511, 512, 513, 40000, TILE, TILE + 1, 3 * TILE - 512, 3 * TILE, 3 * TILE + 1]


def identity(tiles):
    """A network that changes nothing."""
    return tiles


def louder(tiles):
    """A network that adds 9.6 dB, and noise where there was silence."""
    return np.minimum(tiles + 0.2, 1)


def smear(tiles, reach=12):
    """A network whose tiles are worst at their edges: a blur over time that knows nothing beyond the tile."""
    padded = np.pad(tiles, ((0, 0), (0, 0), (reach, reach), (0, 0)), constant_values=-1)
    return np.mean([padded[:, :, k : k + data.TILE_FRAMES] for k in range(2 * reach + 1)], axis=0)


def uneven(tiles):
    """A network whose output depends on the place in the tile."""
    ramp = np.linspace(0, 0.5, data.TILE_FRAMES, dtype=np.float32)[:, np.newaxis]
    return np.clip(tiles + ramp - 0.3, -1, 1)


def music(samples, rate=data.SAMPLE_RATE, level=0.1, seed=0):
    """Chords of soft-edged tones below 4 kHz with pauses, (n,)."""
    random, time = np.random.default_rng(seed), np.arange(samples) / rate
    audio = np.zeros(samples)
    for onset in np.arange(0, samples / rate, 0.4):
        since = np.clip(time - onset, 0, None)
        for frequency in random.uniform(150, 1500, 3):
            envelope = since * np.exp(-12 * since) * 12 * np.e
            audio += envelope * np.sin(2 * np.pi * frequency * since) / 3
    return (level * audio).astype(np.float32)


def slow_reference(audio):
    """What an identity network gives: the lower half of the STFT's bins, every sample covered by two frames."""
    spectrum = data.stft(np.pad(audio, (0, 2 * data.N_FFT)))
    spectrum[data.BINS :] = 0
    return istft(spectrum, len(audio) + data.N_FFT)[: len(audio)]


def noise(*shape):
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("overlap", [0, 0.5])
def test_an_identity_network_gives_the_input_back(length, overlap):
    audio = noise(length)
    converted = convert.convert_audio(identity, audio, data.SAMPLE_RATE, overlap=overlap)
    assert converted.shape == audio.shape
    assert converted.dtype == np.float32
    np.testing.assert_allclose(converted, slow_reference(audio), atol=2e-5)


@pytest.mark.parametrize(
    "rate", [1000, 8000, 16000, 22050, 32000, 44100, 48000, 96000, 192000, 11111]
)
def test_any_rate_comes_back_at_full_length(rate):
    for length in (0, 1, 2, 777, rate + 1):
        assert convert.convert_audio(identity, noise(length, 2), rate).shape == (length, 2)
    audio = (
        music(2 * rate, rate)
        if rate > 4000
        else np.sin(np.arange(2 * rate) * 0.3).astype(np.float32) * 0.1
    )
    converted = convert.convert_audio(identity, audio, rate)
    middle = slice(rate // 4, -rate // 4)
    assert np.abs(converted - audio)[middle].max() < 2e-3 * np.abs(audio).max()


@pytest.mark.parametrize("name", phase.ESTIMATORS)
@pytest.mark.parametrize("length", [0, 1, 5000, TILE + 1])
def test_every_phase_keeps_length_and_channels(name, length):
    converted = convert.convert_audio(
        identity, noise(length, 3), data.SAMPLE_RATE, phase=name, phase_iterations=2
    )
    assert converted.shape == (length, 3)
    assert np.isfinite(converted).all()


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 900),
    st.integers(1, 5),
    st.floats(0, 0.95),
    st.sampled_from([identity, uneven, smear]),
)
def test_blending_equals_the_slow_sum_over_tiles(frames, batch_size, overlap, network):
    picture = np.random.default_rng(frames).random((256, frames), dtype=np.float32)
    stride = max(1, round(256 * (1 - overlap)))
    total, weight = np.zeros((256, frames + 512)), np.zeros(frames + 512)
    for start in range(0, max(1, frames - 256 + stride), stride):
        tile = np.zeros((256, 256), np.float32)
        tile[:, : max(0, frames - start)] = picture[:, start : start + 256]
        output = data.from_network(network(data.to_network(tile)[np.newaxis, ..., np.newaxis]))[
            0, ..., 0
        ]
        total[:, start : start + 256] += output * convert.tile_weights()
        weight[start : start + 256] += convert.tile_weights()
    converted = convert.convert_picture(network, picture, overlap, batch_size)[..., 0]
    assert converted.shape == picture.shape
    np.testing.assert_allclose(converted, (total / np.maximum(weight, 1e-9))[:, :frames], atol=1e-5)


@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.9])
def test_edges_count_fully(overlap):
    picture = np.full((256, 700), 0.25, np.float32)
    converted = convert.convert_picture(lambda tiles: np.full_like(tiles, 0.5), picture, overlap)[
        ..., 0
    ]
    np.testing.assert_allclose(converted, 0.75, atol=1e-6)


def test_weights_favour_the_middle():
    weights = convert.tile_weights()
    assert weights.shape == (256,)
    np.testing.assert_array_equal(weights, weights[::-1])
    assert (np.diff(weights[:128]) > 0).all()
    assert weights.min() > 0


def shift_error(shift, overlap):
    """RMS of the change, relative to the output's, that ``shift`` samples of silence in front make to the rest."""
    audio = music(3 * TILE)
    plain = convert.convert_audio(smear, audio, data.SAMPLE_RATE, overlap=overlap)
    moved = convert.convert_audio(
        smear,
        np.concatenate([np.zeros(shift, np.float32), audio]),
        data.SAMPLE_RATE,
        overlap=overlap,
    )
    inner = slice(
        TILE // 2, -TILE // 2
    )  # the first and last half tile have no second tile to blend with
    return np.linalg.norm((moved[shift:] - plain)[inner]) / np.linalg.norm(plain[inner])


@pytest.mark.parametrize("shift", [TILE // 2, TILE // 4, 77 * data.HOP_LENGTH])
def test_shifting_the_recording_hardly_changes_the_output(shift):
    assert shift_error(shift, convert.OVERLAP) < SHIFT_TOLERANCE < shift_error(shift, overlap=0)


def test_the_network_always_gets_one_batch_size():
    shapes = set()

    def network(tiles):
        shapes.add((tiles.shape, tiles.dtype.name, tiles.min() >= -1 and tiles.max() <= 1))
        return tiles

    convert.convert_audio(network, 30 * noise(3 * TILE, 2), data.SAMPLE_RATE, batch_size=4)
    assert shapes == {((4, 256, 256, 1), "float32", True)}


def test_silence_stays_silence():
    assert not convert.convert_audio(
        louder, np.zeros((TILE, 2)), data.SAMPLE_RATE, phase="griffinlim_random"
    ).any()
    audio = np.concatenate([np.zeros(TILE), music(TILE), np.zeros(TILE)])
    converted = convert.convert_audio(louder, audio, data.SAMPLE_RATE)
    assert np.abs(converted[TILE : 2 * TILE]).max() > 0.1
    assert not converted[: TILE - data.N_FFT].any()
    assert not converted[2 * TILE + data.N_FFT :].any()


def test_channels_are_converted_apart():
    audio = np.stack([music(50000), music(50000, seed=1)], axis=1)
    both = convert.convert_audio(
        uneven, audio, data.SAMPLE_RATE, phase="griffinlim", phase_iterations=3
    )
    for channel in (0, 1):
        one = convert.convert_audio(
            uneven, audio[:, channel], data.SAMPLE_RATE, phase="griffinlim", phase_iterations=3
        )
        np.testing.assert_allclose(both[:, channel], one, atol=1e-6)


@pytest.mark.parametrize("name", phase.ESTIMATORS)
def test_the_streams_blocks_do_not_show(name, monkeypatch):
    audio = music(2 * TILE + 99)[np.newaxis]
    options = {"phase": name, "phase_iterations": 5, "overlap": 0.4}
    whole = np.concatenate(list(convert.convert_stream(uneven, [audio], 48000, **options)), axis=1)
    monkeypatch.setattr(data, "BLOCK_FRAMES", 50)
    blocks = [audio[:, start : start + 7001] for start in range(0, audio.shape[1], 7001)]
    streamed = list(convert.convert_stream(uneven, blocks, 48000, batch_size=1, **options))
    assert len(streamed) > 8
    np.testing.assert_allclose(np.concatenate(streamed, axis=1), whole, atol=1e-4)


def test_memory_does_not_grow_with_length(monkeypatch):
    monkeypatch.setattr(data, "BLOCK_FRAMES", 64)

    def peak(tiles):
        blocks = (noise(2, TILE) for _ in range(tiles))
        tracemalloc.start()
        for _ in convert.convert_stream(
            identity, blocks, 48000, phase="griffinlim", phase_iterations=1, batch_size=2
        ):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1)  # what is allocated once
    assert peak(40) < 1.15 * peak(10)


def test_phase_estimators_see_the_networks_magnitude():
    audio = music(TILE)
    converted = convert.convert_audio(uneven, audio, data.SAMPLE_RATE, phase="griffinlim")
    wanted = convert.convert_picture(uneven, data.spectrogram(audio))[..., 0]
    error = {
        name: np.abs(data.spectrogram(sound) - wanted)[:, 1:-1].mean()
        for name, sound in (("converted", converted), ("untouched", audio))
    }
    assert error["converted"] < error["untouched"] / 3


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        convert.convert_audio(identity, np.array([0, np.nan]), data.SAMPLE_RATE)
    with pytest.raises(KeyError):
        convert.convert_audio(identity, np.zeros(9), data.SAMPLE_RATE, phase="none")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command with a network in place of a model file: run(network, *flags) -> (exit code, stdout, stderr)."""

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


def write(path, audio, rate=44100):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate)
    return path


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
    program = "import cli; devices.setup_device('cpu'); import models; models.build_generator(1).save('{}')"
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
