"""Every long step killed at random moments and run again; interrupted; on a full disk.

KILLS=20 pytest tests/test_kill.py -s
"""

import contextlib
import csv
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

import numpy as np
import pytest
import soundfile
from conftest import HANG, ORIGIN, ROOT, TARGET, take_interrupts
from files import arrays_in
from music import make_bank, midi_bytes, note
from scripts import error_lines
from sounds import tone

from common import files
from common.cli import UserError
from common.record import NAME
from conversion import convert
from sound.recordings import write_audio

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
NOTES = [note(48 * k, 48 * k + 240, 56 + 7 * k % 15, 30 + k % 90) for k in range(400)]
MUSIC = midi_bytes(*NOTES)  # 20 s
KILLS = int(os.environ.get("KILLS", 1))  # of each step
STEPS = {
    "synthesize_audios": "--nsynth_path notes --midi_path midi --audios_path out "
    f"--instruments {ORIGIN} {TARGET} --workers 2",
    "compute_features": "--audios audios --features out --workers 2",
    "train": f"--dataset_path features --origin {ORIGIN} --target {TARGET} --runs_path out "
    "--gpu cpu --filters 2 --batch_size 3 --epochs 2 --preview_every 2 --workers 1",
    "predict": "--model model.keras --input recordings --output out --hops 1 --phase griffinlim "
    "--gpu cpu",
}
# These load Keras, which takes seconds of each start: the test's own process has loaded it
HERE = ("train", "predict")


@pytest.fixture(scope="module")
def place(tmp_path_factory, features):
    """A folder in which every step works and takes some seconds."""
    import keras

    import models

    folder = tmp_path_factory.mktemp("place")
    for instrument in (ORIGIN, TARGET):
        make_bank(
            folder / "notes",
            f"{instrument}_000",
            pitches=(60, 67),
            velocities=(50, 100),
            seconds=0.5,
        )
    (folder / "midi").mkdir()
    for number in range(24):
        (folder / f"midi/{number}.mid").write_bytes(MUSIC)
    shutil.copytree(features, folder / "features")
    sound = tone(350, 20, level=0.3)
    for instrument in (ORIGIN, TARGET):
        for number in range(10):
            write_audio(folder / f"audios/{instrument}/sub/{number}.wav", sound)
    for number, ending in enumerate(("wav", "ogg", "flac", "mp3", "wav")):
        write_audio(folder / f"recordings/sub/{number}.{ending}", sound[: 4 * 44100 + 1])
    keras.utils.set_random_seed(0)
    models.build_generator(2).save(folder / "model.keras")
    return folder


def start(step, folder, **options):
    """Start a step as a process of its own, in ``folder``, with temporary files in its tmp."""
    command = [sys.executable, str(ROOT / f"{step}.py"), *STEPS[step].split()]
    (folder / "tmp").mkdir(exist_ok=True)
    env = {**os.environ, "TMPDIR": str(folder / "tmp")}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    options |= {"start_new_session": True, "preexec_fn": take_interrupts}
    return subprocess.Popen(command, cwd=folder, env=env, **options)


def run(step, folder):
    """Run a step to its end, in this process if it is one of `HERE`: (exit code, stderr)."""
    if step not in HERE:
        process = start(step, folder)
        err = process.communicate(timeout=HANG)[1]
        return process.returncode, err
    main = importlib.import_module(step).main
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        patch.setattr(files, "_tidied", set())  # as in a new process
        (folder / "tmp").mkdir(exist_ok=True)
        err = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            code = main(STEPS[step].split())
    return code, err.getvalue()


def finish(step, folder):
    """Run a step to its end: what it made."""
    code, err = run(step, folder)
    assert code == 0, err
    assert not list((folder / "tmp").iterdir())
    return made(folder / "out")


def made(folder):
    """{path: what must be equal} of every file but the records of what was made, and their order.

    That is bytes, decoded samples, arrays, or rows without the seconds that an epoch took.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != NAME:
            found[str(path.relative_to(folder))] = _essence(path)
    return found


def _essence(path):
    if path.suffix in (".ogg", ".mp3"):
        return soundfile.read(path)[0].tobytes()
    if path.suffix == ".png":
        return "a picture"
    if path.name in ("log.txt", "index.html"):  # which tell the time
        return "a text"
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return _bytes_of(io.BytesIO(archive.read("model.weights.h5")))
    if path.suffix == ".h5":
        return _bytes_of(path)
    if path.name == "history.csv":
        with open(path, newline="") as file:
            return [_lasting(row) for row in csv.DictReader(file)]
    if path.name == "config.json":
        config = json.loads(path.read_text())
        return {key: value for key, value in config.items() if key != "starts"}  # one a start
    if path.name == "state.json":
        state = json.loads(path.read_text())
        return state | {"history": [_lasting(row) for row in state["history"]]}
    return path.read_bytes()


def _bytes_of(file):
    """{name: bytes} of an HDF5 file's arrays."""
    return {name: array.tobytes() for name, array in arrays_in(file).items()}


def _lasting(row):
    return {key: value for key, value in row.items() if key not in ("seconds", "tiles_per_s")}


def work_in(folder):
    """{(path, time of its last change)} of all below folders of ``folder``.

    The descriptions at the top are written before the work begins.
    """
    found = set()
    for path in folder.glob("*/**/*.*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            found.add((path, path.stat().st_mtime_ns))
    return found


def await_work(process, folder, before=frozenset(), count=1):
    """Wait until ``count`` signs of work beyond ``before`` were seen, or the process ended."""
    seen = set()
    has_ended = False
    while len(seen) < count and not has_ended:
        has_ended = process.poll() is not None  # first: what it did until then is seen below
        seen |= work_in(folder) - before
        time.sleep(0.005)


@pytest.fixture
def disk(place):
    """place/out, empty, on a small disk of its own; call it with a size to give it another.

    None where it cannot be had.
    """
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", out]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount).returncode:
        yield None
        return

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", out], check=True)

    yield resize
    subprocess.run(["umount", "-l", out], check=True)


@pytest.mark.parametrize("step", STEPS)
def test_stopped_in_any_way_a_step_continues_to_the_same_end(place, step, disk):
    """By a full disk, then interrupted, then killed. One test: each run of a step takes seconds."""
    if disk is not None:
        fill_disk(place, step)
        disk("200m")
    signs, whole = run_undisturbed(place, step)
    empty(place / "out")
    interrupt(place, step)
    killed = kill_somewhere(place, step, signs, whole)
    assert finish(step, place) == whole
    for process in killed:
        process.communicate(timeout=HANG)  # comes back once the workers have ended, too


def empty(folder):
    """Delete what is in a folder, which may be a disk."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def fill_disk(place, step):
    """Run a step until its disk is full: it says so in one line, and leaves nothing half-written.

    What it left is then the beginning of `run_undisturbed`.
    """
    code, err = run(step, place)
    assert code == 2, err
    assert "Traceback" not in err
    beginnings = (f"{step}.py: ", "skipped: ")
    lines = [line for line in err.splitlines() if line.startswith(beginnings)]
    assert lines
    assert step == "predict" or len(lines) == 1
    assert all("free some space" in line or "is the disk full?" in line for line in lines)
    assert all("out" in line for line in lines)
    assert not left_behind(place / "out")


def run_undisturbed(place, step):
    """Run a step to its end: (how many signs of work were seen, what it made)."""
    signs = set()
    ended = threading.Event()

    def watch():
        while not ended.wait(0.01):
            signs.update(work_in(place / "out"))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        whole = finish(step, place)
    finally:
        ended.set()
        watching.join()
    return len(signs), whole


def interrupt(place, step):
    """Interrupt a step at its first sign of work: it says so in one line and tidies up."""
    for _ in range(5):  # on a crowded machine a step may end before the signal comes
        before = work_in(place / "out")
        process = start(step, place)
        await_work(process, place / "out", before)
        os.killpg(process.pid, signal.SIGINT)
        err = process.communicate(timeout=HANG)[1]
        if process.returncode != 0:
            break
        empty(place / "out")
    assert process.returncode == 130, err
    told = f"{step}.py: interrupted; run the same command again to continue"
    assert error_lines(err) == [told]
    assert not left_behind(place / "out")
    assert not list((place / "tmp").iterdir())


def kill_somewhere(place, step, signs, whole):
    """Kill a step `KILLS` times, each anywhere in the first half of what it would do: processes."""
    rng = random.Random(KILLS)
    killed, stopped = [], []  # processes, and number of files at each kill
    parts = ends = 0
    while len(stopped) < KILLS:
        before = work_in(place / "out")
        process = start(step, place, stderr=subprocess.DEVNULL)
        await_work(process, place / "out", before, rng.randint(1, max(signs // 2, 1)))
        process.kill()  # itself alone: its workers have to notice
        process.wait()
        if process.returncode == 0:  # it had ended already
            assert made(place / "out") == whole
            empty(place / "out")
            ends += 1
        else:
            killed.append(process)
            names = [path.name for path in (place / "out").rglob("*") if path.is_file()]
            parts += any(name.startswith(".part-") for name in names)
            stopped.append(len(names))
    print(
        f"{step}: files at each kill {stopped} of {len(whole)}, "
        f"{parts} times one half-written; {ends} runs ended before their kill"
    )
    shutil.rmtree(place / "tmp")
    return killed


def left_behind(folder):
    """Hidden files that are no record of what was made."""
    hidden = [path for path in folder.rglob(".*") if path.is_file()]
    return [path for path in hidden if path.name != NAME]


def test_a_recording_that_changes_while_it_is_read(tmp_path):
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    write_audio(source, np.zeros(120 * 44100))

    def change(seconds):
        with open(source, "ab") as file:
            file.write(b"more")

    with pytest.raises(UserError, match=r"in\.wav: changed while it was being read; "):
        convert.convert_file(lambda tiles: tiles, source, target, progress=change)
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]
