"""Steps 1 and 2 on a real cluster: a scheduler and two workers, of which one is killed midway."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import HANG, ROOT
from files import contents
from music import make_bank, midi_bytes, note

from common.files import PART, _machine
from sound.recordings import write_audio

pytest.importorskip("distributed")
STEPS = {
    "synthesize_audios": "--nsynth_path notes --midi_path midi --audios_path {} "
    "--instruments keyboard_acoustic",
    "compute_features": "--audios audios --features {}",
}
PIECES = 30  # of 20 s: some seconds of work
NOTES = [note(48 * k, 48 * k + 240, 60 + 7 * k % 15, 30 + k % 90) for k in range(400)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with notes, MIDI files and audio, where each step has `PIECES` files to make."""
    folder = tmp_path_factory.mktemp("dask")
    make_bank(folder / "notes", pitches=(60, 67), velocities=(50, 100), seconds=0.5)
    (folder / "midi").mkdir()
    rng = np.random.default_rng(0)
    for number in range(PIECES):
        (folder / f"midi/{number:02d}.mid").write_bytes(midi_bytes(*NOTES))
        write_audio(
            folder / f"audios/keyboard_acoustic/{number:02d}.wav",
            rng.uniform(-0.5, 0.5, 20 * 44100),
        )
    return folder


@pytest.fixture
def cluster(tmp_path):
    """(address, two worker processes), which run in a folder of their own, without the project."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    processes = []

    def dask(*flags):
        command = [sys.executable, "-m", "dask", *flags]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=env,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        return process

    scheduler = dask(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"
    )
    address = next(line.split()[-1] for line in scheduler.stderr if "tcp://" in line)
    workers = [
        dask("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in range(2)
    ]
    for worker in workers:
        assert any("Registered to" in line for line in worker.stderr)
    yield address, workers
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("step", STEPS)
def test_a_cluster_makes_the_same_files_though_a_worker_is_killed(place, cluster, step):
    address, workers = cluster

    def begin(folder, *flags):
        command = [
            sys.executable,
            str(ROOT / f"{step}.py"),
            *STEPS[step].format(folder).split(),
            *flags,
        ]
        return subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True)

    process = begin(f"{step}-here", "--workers", "1")
    assert process.wait(timeout=HANG) == 0
    process = begin(f"{step}-there", "--dask", address)
    made = place / f"{step}-there/keyboard_acoustic"
    while not made.is_dir() or len(list(made.iterdir())) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    workers[0].kill()
    workers[0].wait()
    left = f"{PART}{_machine()}-{workers[0].pid}-0.wav"  # as if it had been writing
    (made / left).touch()
    assert len(list(made.iterdir())) < PIECES
    err = process.communicate(timeout=HANG)[1]
    assert process.returncode == 0, err
    assert contents(place / f"{step}-there") == contents(place / f"{step}-here")
