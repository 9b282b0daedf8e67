"""Functions that tests of `webapp.worker.Worker` have done in another process."""

import os
import signal
import time

from sounds import load_identity

from sound import recordings


def load_or_crash(path):
    """A model of which one kind ends the process, as a decoder may."""
    if "crash" in path:
        os.abort()
    return load_identity(path)


def hang_at_mp3():
    """Set up a process in which the decoder of every mp3 hangs, until that process ends."""
    hang = "import sys\nif sys.argv[-1].endswith('.mp3'): sys.exit(sys.stdin.read())\n"
    recordings._DECODER = hang + recordings._DECODER


def add(one, other, tell):
    tell(0.5)
    return one + other


def abort(tell):
    os.abort()


def kill(tell):
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds, tell):
    time.sleep(seconds)


def exhaust_memory(tell):
    raise MemoryError


def raise_error(tell):
    raise OSError(28, "No space left on device", "/secret/place")
