"""Step 2: what the tiles hold, and that no tile out of date passes as done."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import HANG, ORIGIN, ROOT, TARGET
from sounds import tone

import compute_features
import data
from sound.recordings import read_audio, write_audio

SECONDS = 0.3  # of a recording: a tile's worth of work and no more


class Folders:
    """A small audio folder, the features of it, and step 2 on them."""

    def __init__(self, root, capsys):
        self.audios = root / "audios"
        self.features = root / "features"
        self._capsys = capsys
        for frequency, name in ((220, f"{ORIGIN}/sub/a"), (330, f"{TARGET}/sub/a")):
            write_audio(self.audios / f"{name}.wav", tone(frequency, SECONDS))

    def run(self, *flags, audios=None):
        """Exit code, what was printed on stdout and on stderr."""
        audios = audios or self.audios
        paths = ["--audios", str(audios), "--features", str(self.features), "--workers", "1"]
        code = compute_features.main([*paths, *flags])
        out, err = self._capsys.readouterr()
        return code, out, err

    def tiles(self):
        return sorted(
            path.relative_to(self.features).as_posix() for path in self.features.rglob("*.npy")
        )

    def description(self):
        return json.loads((self.features / "features.json").read_text())


@pytest.fixture
def folders(tmp_path, capsys):
    """`Folders` on which step 2 was run once."""
    folders = Folders(tmp_path, capsys)
    code, out, _ = folders.run()
    assert code == 0
    assert "2 files computed, 0 up to date, 0 left out" in out
    return folders


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


def test_running_again_does_nothing(folders):
    stamps = [os.stat(folders.features / name).st_mtime_ns for name in folders.tiles()]
    before = folders.description()
    code, out, _ = folders.run()
    assert code == 0
    assert "0 files computed, 2 up to date" in out
    assert [os.stat(folders.features / name).st_mtime_ns for name in folders.tiles()] == stamps
    assert folders.description() == before


def test_what_is_missing_is_made_again(folders):
    path = folders.features / TARGET / "sub/a.npy"
    before = path.read_bytes()
    path.unlink()
    assert "1 files computed, 1 up to date" in folders.run()[1]
    assert path.read_bytes() == before


@pytest.mark.parametrize("age", [-1e6, 1e6])
def test_a_recording_replaced_by_an_older_or_newer_one_is_done_again(folders, age):
    path = folders.audios / ORIGIN / "sub/a.wav"
    write_audio(path, tone(880, SECONDS))
    os.utime(path, (time.time() + age, time.time() + age))
    before = folders.description()["fingerprint"]
    code, out, _ = folders.run()
    assert code == 0
    assert "1 files computed, 1 up to date" in out
    picture = np.load(folders.features / ORIGIN / "sub/a.npy")[0, ..., 0]
    assert np.argmax(picture[:, 10]) == round(880 / data.SAMPLE_RATE * data.N_FFT)
    assert folders.description()["fingerprint"] != before


def test_a_deleted_piece_leaves_the_training_set(folders):
    write_audio(folders.audios / ORIGIN / "b.wav", tone(440, SECONDS))
    folders.run()
    assert f"{ORIGIN}/b.npy" in folders.tiles()
    (folders.audios / ORIGIN / "b.wav").unlink()
    code, out, _ = folders.run()
    assert code == 0
    assert "1 files of missing recordings removed, such as b.npy" in out
    assert folders.tiles() == [f"{TARGET}/sub/a.npy", f"{ORIGIN}/sub/a.npy"]


def test_tiles_of_a_recording_that_became_damaged_are_not_used(folders):
    (folders.audios / ORIGIN / "sub/a.wav").write_bytes(b"x")
    code, _, err = folders.run()
    assert code == 2
    assert "sub/a.wav" in err
    assert folders.tiles() == [f"{TARGET}/sub/a.npy"]


def test_features_of_another_audio_folder_are_neither_kept_nor_deleted(folders, tmp_path):
    write_audio(tmp_path / "others" / ORIGIN / "sub/a.wav", tone(990, SECONDS))
    before = folders.description()
    contents = [(folders.features / name).read_bytes() for name in folders.tiles()]
    code, _, err = folders.run(audios=tmp_path / "others")
    assert code == 2
    assert str(folders.audios) in err
    assert "give another --features" in err and "--fresh" not in err
    assert folders.description() == before
    assert [(folders.features / name).read_bytes() for name in folders.tiles()] == contents
    code, out, _ = folders.run("--fresh", audios=tmp_path / "others")
    assert code == 0
    assert "1 files computed" in out
    assert folders.tiles() == [f"{ORIGIN}/sub/a.npy"]


@pytest.mark.parametrize("where", ["audios", ".", f"audios/{ORIGIN}", f"audios/{ORIGIN}/sub"])
def test_features_among_recordings_are_refused_and_none_is_deleted(tmp_path, capsys, where):
    folders = Folders(tmp_path, capsys)
    folders.features = tmp_path / where
    (folders.features / "features.json").write_text('{"parameters": {}}')
    for flags in ([], ["--fresh"]):
        code, _, err = folders.run(*flags)
        assert code == 2
        assert f"--features {folders.features}: also has recordings" in err
    assert len(list(folders.audios.rglob("*.wav"))) == 2


def test_features_in_a_folder_of_their_own_below_the_audio(tmp_path, capsys):
    folders = Folders(tmp_path, capsys)
    folders.features = folders.audios / "features"
    for flags in ([], ["--fresh"]):
        code, out, _ = folders.run(*flags)
        assert code == 0
        assert "2 files computed" in out
    assert len(list(folders.audios.rglob("*.wav"))) == 2


def test_an_audio_folder_may_be_moved(folders, tmp_path):
    before = folders.description()
    folders.audios.rename(tmp_path / "moved")
    code, out, _ = folders.run(audios=tmp_path / "moved")
    assert code == 0
    assert "0 files computed, 2 up to date" in out
    assert folders.description() == before | {"audios": str(tmp_path / "moved")}


def test_tiles_that_this_script_did_not_make_are_never_overwritten(folders):
    path = folders.features / ORIGIN / "sub/a.npy"
    path.write_bytes(b"the user's own")
    code, _, err = folders.run()
    assert code == 2
    assert str(path) in err
    assert path.read_bytes() == b"the user's own"


def test_tiles_without_a_recording_that_were_not_made_here_are_kept_and_told(folders):
    path = folders.features / ORIGIN / "own.npy"
    np.save(path, np.zeros((1, 256, 256, 1), np.float16))
    code, _, err = folders.run()
    assert code == 0
    assert f"{path}: was not made here" in err
    assert path.is_file()


def test_a_recording_that_changes_during_the_work_changes_the_fingerprint(folders, monkeypatch):
    """The tiles are of what it was before; the next run, which makes them anew, must differ."""
    shutil.rmtree(folders.features)
    write = compute_features.write_tiles

    def change_then(audio, tiles, *settings):
        made = write(audio, tiles, *settings)
        if ORIGIN in str(tiles):
            os.utime(audio, (1, 1))
        return made

    monkeypatch.setattr(compute_features, "write_tiles", change_then)
    assert folders.run()[0] == 0
    before = folders.description()["fingerprint"]
    monkeypatch.setattr(compute_features, "write_tiles", write)
    assert "1 files computed, 1 up to date" in folders.run()[1]
    assert folders.description()["fingerprint"] != before


@pytest.mark.parametrize("bins", [300, "all", None])
def test_another_height_in_features_json_is_refused(folders, bins):
    description = folders.description()
    description["parameters"]["bins"] = bins
    (folders.features / "features.json").write_text(json.dumps(description))
    code, _, err = folders.run()
    assert code == 2
    assert f"features.json: made with {bins} bins; give another --features" in err


def test_a_run_that_is_stopped_keeps_what_it_made(folders, monkeypatch):
    shutil.rmtree(folders.features)
    write = compute_features.write_tiles

    def stop_at_the_second(audio, tiles, *settings):
        if ORIGIN in str(tiles):
            raise KeyboardInterrupt
        return write(audio, tiles, *settings)

    monkeypatch.setattr(compute_features, "write_tiles", stop_at_the_second)
    assert folders.run()[0] == 130
    assert "fingerprint" not in folders.description()
    monkeypatch.setattr(compute_features, "write_tiles", write)
    assert "1 files computed, 1 up to date" in folders.run()[1]
    assert len(folders.description()["fingerprint"]) == 64


def test_a_file_that_appears_meanwhile_is_kept(folders, monkeypatch):
    shutil.rmtree(folders.features)
    write = compute_features.write_tiles

    def meanwhile(audio, tiles, *settings):
        tiles.parent.mkdir(parents=True, exist_ok=True)
        tiles.write_text("the user's")
        return write(audio, tiles, *settings)

    monkeypatch.setattr(compute_features, "write_tiles", meanwhile)
    code, _, err = folders.run()
    assert code == 2
    assert "appeared meanwhile" in err
    monkeypatch.setattr(compute_features, "write_tiles", write)
    code, _, err = folders.run()  # they are no less the user's now
    assert (code, "exists, but is not recorded as made" in err) == (2, True)
    for path in folders.features.rglob("*.npy"):
        assert path.read_text() == "the user's"


def test_the_fingerprint_tells_sets_apart(folders):
    seen = [folders.description()["fingerprint"]]

    def changed():
        folders.run()
        seen.append(folders.description()["fingerprint"])
        return len(set(seen)) == len(seen)

    write_audio(folders.audios / ORIGIN / "b.wav", tone(440, SECONDS))
    assert changed()
    (folders.audios / ORIGIN / "b.wav").rename(folders.audios / ORIGIN / "c.wav")
    assert changed()
    folders.run("--fresh", "--phase")
    assert folders.description()["fingerprint"] not in seen


def test_other_parameters_are_refused(folders):
    code, _, err = folders.run("--phase")
    assert code == 2
    assert "other parameters (phase)" in err


def test_opposite_polarity_is_told_and_does_not_become_silence(folders):
    path = folders.audios / ORIGIN / "sub/a.wav"
    sound = tone(220, SECONDS)
    soundfile.write(path, np.stack([sound, -sound], 1), data.SAMPLE_RATE)
    code, _, err = folders.run()
    assert code == 0
    assert f"note: {path}: its channels have opposite polarity" in err
    picture = np.load(folders.features / ORIGIN / "sub/a.npy")
    assert picture.max() > 0.8


def test_the_sound_of_any_format_becomes_tiles(folders):
    (folders.audios / ORIGIN / "sub/a.wav").unlink()
    write_audio(folders.audios / ORIGIN / "sub/a.mp3", tone(220, SECONDS))
    code, out, _ = folders.run()
    assert code == 0
    assert "1 files computed, 1 up to date" in out


def test_a_damaged_file_is_named_and_passed_over(folders):
    (folders.audios / ORIGIN / "bad.wav").write_bytes(b"x")
    (folders.audios / ORIGIN / "good.wav").write_bytes(
        (folders.audios / ORIGIN / "sub/a.wav").read_bytes()
    )
    code, out, err = folders.run("--workers", "2")
    assert code == 2
    assert "bad.wav" in err
    assert "1 files computed, 2 up to date, 1 left out" in out
    assert f"{ORIGIN}/good.npy" in folders.tiles()
    assert f"{ORIGIN}/bad.npy" not in folders.tiles()


@pytest.mark.skipif(os.name == "nt", reason="links, permissions")
def test_of_what_cannot_be_looked_at_today_the_tiles_stay(folders, powerless):
    extra = folders.audios / ORIGIN / "locked/five.wav"
    extra.parent.mkdir()
    shutil.copy(folders.audios / ORIGIN / "sub/a.wav", extra)
    shutil.copy(extra, folders.audios / ORIGIN / "six.wav")
    folders.run()
    kept = [folders.features / ORIGIN / name for name in ("locked/five.npy", "six.npy")]
    extra.parent.chmod(0)
    (folders.audios / ORIGIN / "six.wav").unlink()
    (folders.audios / ORIGIN / "six.wav").symlink_to("six.wav")
    os.utime(folders.audios / ORIGIN / "sub/a.wav", (1, 1))  # it has changed since
    (folders.audios / ORIGIN / "sub/a.wav").chmod(0)
    code, out, err = folders.run()
    extra.parent.chmod(0o755)
    assert code == 2 and "0 files computed, 1 up to date, 1 left out" in out
    assert all(path.is_file() for path in kept)
    for name in ("locked: Permission denied", "six.wav: Too many levels", "a.wav: Permission"):
        assert name in err
    extra.unlink()  # this recording is gone, not unreadable
    folders.run()
    assert [path.is_file() for path in kept] == [False, True]


def test_mistakes(audios, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none", audios / ORIGIN):
        flags = ["--audios", str(folder), "--features", str(tmp_path / "f")]
        assert compute_features.main(flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "has no audio" in lines[0]
    assert "no such folder" in lines[1]
    assert "is not in an instrument's folder" in lines[2]


@pytest.mark.parametrize("script", ["synthesize_audios.py", "compute_features.py"])
def test_first_steps_never_load_keras(script):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=HANG)


def test_help_does_not_load_what_only_the_choice_of_bins_needs():
    code = (
        "import sys, compute_features\n"
        "try: compute_features.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'pyloudnorm', 'scipy.signal', 'scipy.stats'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=HANG)
