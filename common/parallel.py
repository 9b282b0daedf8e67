"""Process files in parallel, in processes of this machine (joblib) or on a Dask cluster."""

import concurrent.futures
import contextlib
import functools
import os
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from multiprocessing import resource_tracker
from pathlib import Path

import joblib
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from tqdm import tqdm

from common.cli import PROJECT, UserError, number
from common.files import remove_leftovers

DASK_TIMEOUT = 10  # s to wait for the scheduler
TASK_MODULES = (  # modules sent to the workers of a cluster
    "data.py",
    "compute_features.py",
    "NoteSynthesizer.py",
    "common/*.py",
    "sound/*.py",
    "synthesis/*.py",
)

# These warnings report no problem: loky restarts a worker whose memory grew by 300 MB, as with the
# notes of a second instrument, without losing a job; joblib counts the jobs that Ctrl-C interrupted
# and those that were done but not yet collected.
for warning in (
    "A worker stopped while some jobs were given to the executor",
    r"\d+ tasks which were still being processed by the workers",
    r"\d+ tasks have been successfully executed",
):
    warnings.filterwarnings("ignore", warning, UserWarning)


def worker_flags(parser):
    """Add the flags of scripts that work in parallel."""
    parser.add_argument(
        "--workers", type=number(int, 1), help="number of processes; default: one per core"
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="use the workers of this Dask scheduler, such as tcp://host:8786; they must see the "
        "same paths",
    )


@contextlib.contextmanager
def engine(workers=None, dask=None):
    """Yield ``run``, which runs tasks in processes of this machine or on a Dask cluster.

    ``run(function, tasks, writes=(), done=None, **bar)`` returns the list of ``function(*task)``.
    ``writes`` are the paths that the tasks write by `files.complete`; if a task fails or a worker
    is lost, no partial file stays. ``done(task, result)`` is called in this process as each task
    ends, in the order of the tasks. ``bar`` are tqdm's arguments.

    Args:
        workers: number of processes; default: one per core.
        dask: address of a scheduler whose workers are used instead.

    Raises:
        UserError: the cluster cannot be used, or a worker process was killed.
    """
    workers = workers or joblib.cpu_count()
    backend = contextlib.nullcontext()
    options = {}
    if dask:
        workers = -1  # all workers of the cluster
        backend = _dask_backend(dask)
    elif workers > 1:
        _start_trackers()
        options = {"initializer": _end_with_parent, "initargs": (os.getpid(),)}

    try:
        with backend:
            parallel = joblib.Parallel(
                workers, return_as="generator", batch_size=1, max_nbytes=None, **options
            )
            yield functools.partial(_run, parallel, is_local=not dask)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(f"--workers {workers}: {_explain_loss(error)}") from None


def _explain_loss(error):
    """Explain why a worker ended, from the signals in joblib's error, with the remedy."""
    signals = sorted(set(re.findall(r"SIG[A-Z0-9]+", str(error))))
    crashes = set(signals) - {"SIGKILL", "SIGTERM"}
    if signals and not crashes:
        if "SIGKILL" in signals:
            return "a worker was killed, probably out of memory; run again with fewer workers"
        return "a worker was ended from outside; run again, finished files are kept"
    how = ", ".join(sorted(crashes)) or "no signal"
    return f"a worker crashed ({how}); run again on parts of the files to find the cause"


def _run(parallel, function, tasks, writes=(), done=None, is_local=True, **bar):
    """Run tasks, see `engine`; ``is_local``: in processes of this machine, which can be ended."""
    jobs = [joblib.delayed(function)(*task) for task in tasks]
    results = None
    finished = []
    try:
        with _sigint_afterwards():  # the processes inherit the blocked signal
            results = parallel(jobs)
        for result in tqdm(results, total=len(tasks), disable=not tasks, **bar):
            if done is not None:
                done(tasks[len(finished)], result)
            finished.append(result)
    except BaseException:
        if is_local and results is not None:  # a cluster's workers finish their tasks
            with _sigint_afterwards():
                results.close()  # ends the processes at once, so their files are removed below
        raise
    finally:  # also after success: a cluster may have lost workers
        for folder in {path.parent for path in writes}:
            remove_leftovers(folder)
    return finished


def _start_trackers():
    """Start the resource trackers of joblib and Python.

    Starting them unblocks Ctrl-C, so it must happen before `_sigint_afterwards`. They clean up
    after a stopped run and print a warning about it, which is suppressed here.
    """
    if hasattr(signal, "pthread_sigmask"):
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")  # passed on to them
        try:
            loky_tracker.ensure_running()
            resource_tracker.ensure_running()
        finally:
            sys.warnoptions.pop()


@contextlib.contextmanager
def _sigint_afterwards():
    """Delay Ctrl-C to the end of the block; processes started in it never receive it.

    Otherwise each of them would print a traceback. They inherit the signal mask. The mask alone
    does not delay Ctrl-C: the system delivers the signal to another thread, such as numpy's, and
    Python raises KeyboardInterrupt in the main thread. So a handler records it, and it is raised
    at the end.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    noted = []
    with _sigint_handler(lambda *_: noted.append(True)):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if noted:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _sigint_handler(handler):
    """Handle Ctrl-C of the main thread with ``handler`` in the block, unless it is ignored."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent(parent):
    """End this worker process soon after its parent was killed.

    Otherwise it would continue, and the next run would do the same work at the same time.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _pack_modules(path):
    """Write all modules that the tasks import to a zip file for Python's import."""
    with zipfile.ZipFile(path, "w") as archive:
        for pattern in TASK_MODULES:
            for module in PROJECT.glob(pattern):
                archive.write(module, module.relative_to(PROJECT))
    return str(path)


@contextlib.contextmanager
def _dask_backend(address):
    try:
        import distributed
    except ImportError:
        raise UserError(
            f"--dask {address}: Dask is not installed; pip install distributed"
        ) from None
    try:
        client = distributed.Client(address, timeout=DASK_TIMEOUT)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--dask {address}: no Dask scheduler answers there ({error}); "
            "start one or correct the address"
        ) from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise UserError(
                f"--dask {address}: the scheduler has no workers; "
                f"start some with 'dask worker {address}'"
            )
        with tempfile.TemporaryDirectory() as folder:  # workers need not have the project
            client.upload_file(_pack_modules(Path(folder) / "timbre.zip"))
        try:
            with joblib.parallel_config("dask"):
                yield
        except (distributed.KilledWorker, concurrent.futures.CancelledError) as error:
            raise UserError(
                f"--dask {address}: workers were lost ({error}); run the same command again"
            ) from None
