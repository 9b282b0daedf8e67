"""Helpers of the benchmarks: name of the machine, pieces, time, memory, processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import cli
from common.files import find_files
from common.names import MIDI_EXTENSIONS

try:
    import resource
except ImportError:  # Windows
    resource = None


def machine():
    """Describe the machine in one line: processor, cores, GPU if any, backend of Keras."""
    processor = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":")[1].strip()
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        gpu = "no GPU"
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return f"{processor}, {os.cpu_count()} cores, {gpu}, KERAS_BACKEND={backend}"


def find_midi(folder):
    """List the MIDI files below the folder of --midi_path, sorted.

    Raises:
        cli.UserError: no such folder, or no MIDI file in it.
    """
    files = find_files(folder, MIDI_EXTENSIONS)
    if not files:
        raise cli.UserError(f"--midi_path {folder}: holds no MIDI file; check the path")
    return files


def peak_memory():
    """Peak memory of this process so far, GiB; NaN on Windows."""
    if resource is None:
        return float("nan")
    return peak_bytes(resource.getrusage(resource.RUSAGE_SELF)) / 2**30


def peak_bytes(usage):
    """Peak memory of a process in bytes, from its resource ``usage``."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return usage.ru_maxrss * unit


def run_json(command, environment=None, timeout=None):
    """Run a command whose last line is JSON: (parsed result, or None; reason of the failure).

    Args:
        command: list of words.
        environment: of the process; None: this one's.
        timeout: s after which it counts as failed; None: never.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return None, f"not ready after {timeout} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, lines[-1][:80] if lines else "?"
    return json.loads(done.stdout.splitlines()[-1]), ""


def repeat_batch(batch, count):
    """Make an epoch of one batch, (x, y) in memory, repeated ``count`` times, for ``fit``."""
    import keras

    from training import feeding

    class Repeated(keras.utils.PyDataset):
        def __len__(self):
            return count

        def __getitem__(self, index):
            return batch

    return feeding.for_fit(Repeated())


def time_call(function, *args, **options):
    """Call ``function(*args, **options)``: (its result, seconds)."""
    began = time.perf_counter()
    result = function(*args, **options)
    return result, time.perf_counter() - began


def call_times(function, seconds, warm_up=1, clock=time.perf_counter):
    """Call a function repeatedly: list of the seconds of each call.

    Args:
        function: takes no argument; must wait until its work is done, also on a GPU.
        seconds: repeat until this much time has passed, at least once.
        warm_up: calls before the measurement.
        clock: ``time.process_time`` measures the processor time of all threads instead.
    """
    for _ in range(warm_up):
        function()
    times = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = clock()
        function()
        times.append(clock() - began)
    return times


class Stopwatch:
    """Measures and prints the processor time and peak memory of each stage."""

    def __init__(self):
        self.seconds = {}  # {stage: processor time, s}

    def run(self, stage, function, *args, music=0.0):
        """Call ``function(*args)``, print time and memory, return its result.

        ``music`` is the length of the music in seconds; with it the speed is printed, too.
        """
        began = time.process_time()
        result = function(*args)
        self.seconds[stage] = time.process_time() - began
        self._print(stage, self.seconds[stage], music, f"peak {peak_memory():5.2f} GiB")
        return result

    def add_up(self, name, stages, music):
        """Print and return the total time of several stages, s."""
        seconds = sum(self.seconds[stage] for stage in stages)
        self._print(name, seconds, music)
        return seconds

    def _print(self, name, seconds, music, memory=""):
        speed = f"{music / seconds:8,.0f} x real time" if music else ""
        print(f"{name:38s} {seconds:8.2f} s  {memory:14s} {speed}".rstrip(), flush=True)
