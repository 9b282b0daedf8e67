"""Functions that tests of `webapp.worker.Worker` have done in another process."""

import os
import signal
import time

from sounds import load_identity


def load_or_crash(path):
    """A model of which one kind ends the process, as a decoder may."""
    if "crash" in path:
        os.abort()
    return load_identity(path)


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
