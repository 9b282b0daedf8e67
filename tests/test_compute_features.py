import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ORIGIN, ROOT, TARGET

import compute_features
import data
from audio import read_audio


def test_tiles_hold_the_spectrogram(audios, features):
    tiles = np.load(features / ORIGIN / "bach/one.npy")
    assert (tiles.dtype, tiles.shape) == (np.float16, (3, 256, 256, 1))
    picture = data.spectrogram(read_audio(audios / ORIGIN / "bach/one.wav"))
    np.testing.assert_allclose(data.join_tiles(tiles, picture.shape[1]), picture, atol=5e-4)
    assert tiles.min() >= 0
    assert tiles.max() <= 1
    description = json.loads((features / "features.json").read_text())
    assert description["parameters"] == data.FEATURE_PARAMETERS
    assert description["audios"] == str(audios)


def test_running_again_does_only_what_is_missing_or_older(audios, features, capsys):
    flags = ["--audios", str(audios), "--features", str(features), "--workers", "1"]
    path = features / TARGET / "three.npy"
    before = path.read_bytes()
    stamp = path.stat().st_mtime_ns
    assert compute_features.main(flags) == 0
    assert "0 files computed, 8 were there" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == stamp
    path.unlink()
    (features / ORIGIN / "three.npy").touch()
    os.utime(features / ORIGIN / "four.npy", (0, 0))  # as if the audio had changed since
    assert compute_features.main(flags) == 0
    assert "2 files computed, 6 were there" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_a_damaged_file_is_named_and_passed_over(audios, tmp_path, capsys):
    for name in ("good.wav", "bad.wav"):
        (tmp_path / "a" / ORIGIN).mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / ORIGIN / name).write_bytes(
            (audios / ORIGIN / "three.wav").read_bytes() if name[0] == "g" else b"x"
        )
    flags = ["--audios", str(tmp_path / "a"), "--features", str(tmp_path / "f"), "--workers", "2"]
    assert compute_features.main(flags) == 2
    output = capsys.readouterr()
    assert "bad.wav" in output.err
    assert "1 files computed, 0 were there, 1 left out" in output.out
    assert [p.name for p in (tmp_path / "f" / ORIGIN).iterdir()] == ["good.npy"]


def test_mistakes(audios, features, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for flags in (
        ["--audios", tmp_path / "empty"],
        ["--audios", tmp_path / "none"],
        ["--audios", audios / ORIGIN],
    ):
        assert compute_features.main([*map(str, flags), "--features", str(tmp_path / "f")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "holds no audio" in lines[0]
    assert "no such folder" in lines[1]
    assert "lies in no instrument's folder" in lines[2]


@pytest.mark.parametrize("script", ["synthesize_audios.py", "compute_features.py"])
def test_first_steps_never_load_keras(script):
    code = f"import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
    code += "except SystemExit: pass\nassert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    start = time.time()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    assert time.time() - start < 20  # a hang, not a benchmark
