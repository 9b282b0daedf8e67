"""Ctrl-C at the moments at which it is easily lost; test_kill.py sends it to whole steps."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import HANG, ROOT, take_interrupts

from common import cli, parallel
from common.cli import UserError
from common.files import PART, _machine

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

START = """
import os, signal, sys, threading, time
from pathlib import Path
from common import cli, files, parallel

# Ctrl-C goes to any thread that does not block it, as numpy's do
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

def write_half(path):
    with files.complete(path) as part:
        part.write_text("half")
        time.sleep(600)
"""

WHILE_A_RESULT_IS_NOTED = """
def note(task, result):
    time.sleep(1)  # by now the other results are there
    interrupt()

@cli.command
def main(argv):
    with parallel.engine(2) as run:
        run(divmod, [(number, 2) for number in range(20)], done=note)
"""

WHILE_WORKERS_START = """
start = parallel.joblib.Parallel.__call__

def start_slowly(self, jobs):
    results = start(self, jobs)
    while len(list(folder.glob(".part-*"))) < 2:
        time.sleep(0.01)
    interrupt()
    time.sleep(0.2)  # the other thread takes it
    return results

parallel.joblib.Parallel.__call__ = start_slowly
folder = Path(sys.argv[1])

@cli.command
def main(argv):
    outputs = [folder / str(number) for number in range(4)]
    with parallel.engine(2) as run:
        run(write_half, [(path,) for path in outputs], outputs)
"""


@pytest.mark.parametrize("moment", [WHILE_A_RESULT_IS_NOTED, WHILE_WORKERS_START])
def test_interrupted_it_says_so_in_one_line_and_leaves_nothing(tmp_path, moment):
    script = tmp_path / "step.py"
    script.write_text(f"{START}{moment}\nif __name__ == '__main__':\n    sys.exit(main())\n")
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG,
        preexec_fn=take_interrupts,
    )
    lines = done.stderr.replace("\r", "\n").splitlines()
    told = [line for line in lines if line.strip() and "it/s]" not in line]
    assert told == [f"step.py: {cli.INTERRUPTED}"]
    assert done.returncode == 130
    assert list(out.iterdir()) == []


def test_success_leaves_alone_what_another_run_writes_beside(tmp_path):
    other = subprocess.Popen(["sleep", "600"])
    part = tmp_path / f"{PART}{_machine()}-{other.pid}-0.wav"
    part.touch()
    try:
        with parallel.engine(1) as run:
            assert run(divmod, [(7, 2)], [tmp_path / "x.wav"]) == [(3, 1)]
        assert part.exists()
    finally:
        other.kill()
        other.wait()


def test_a_worker_that_crashes_is_not_told_to_be_short_of_memory():
    with (
        pytest.raises(UserError, match=r"--workers 2: a worker crashed .SIGABRT.; run again"),
        parallel.engine(2) as run,
    ):
        run(signal.raise_signal, [(signal.SIGABRT,)])


LEFT_BEHIND = """
from common import parallel
from joblib.externals.loky.backend import resource_tracker

parallel._start_trackers()
resource_tracker.register("/loky-left-behind", "semlock")
"""


def test_what_a_stopped_run_leaves_to_joblibs_watcher_is_no_news():
    """It warned, after the script had said its one line, of locks that Ctrl-C had cut short."""
    command = [sys.executable, "-c", LEFT_BEHIND]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=HANG)
    assert done.returncode == 0
    assert done.stderr == ""
