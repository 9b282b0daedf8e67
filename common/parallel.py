"""Spread files over processes of this machine (joblib) or over a Dask cluster."""

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

DASK_TIMEOUT = 10  # s for a scheduler to answer
TASK_MODULES = (  # what workers of a cluster are sent
    "data.py",
    "compute_features.py",
    "NoteSynthesizer.py",
    "common/*.py",
    "sound/*.py",
    "synthesis/*.py",
)

# These warnings would break into the user's output and tell of nothing wrong: loky restarts a
# worker whose memory grew by 300 MB, as it does with a second instrument's notes, and no job is
# lost; joblib counts what Ctrl-C has cut short, and what was done by then and not yet noted.
for warning in (
    "A worker stopped while some jobs were given to the executor",
    r"\d+ tasks which were still being processed by the workers",
    r"\d+ tasks have been successfully executed",
):
    warnings.filterwarnings("ignore", warning, UserWarning)


def worker_flags(parser):
    """Add the flags of the scripts that spread files over processes."""
    parser.add_argument(
        "--workers", type=number(int, 1), help="processes; default: one for each core"
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="use the workers of this Dask scheduler instead, say tcp://host:8786; "
        "they must see the same paths",
    )


@contextlib.contextmanager
def engine(workers=None, dask=None):
    """Yield ``run``, which spreads tasks over processes of this machine, or over a Dask cluster.

    ``run(function, tasks, writes=(), done=None, **bar)`` is the list of ``function(*task)``.
    ``writes`` are the paths that the tasks write by `files.complete`: nothing half-written stays of
    them, if one fails or a worker is lost. ``done(task, result)`` is called here, in the parent
    process, as each task ends, in the tasks' order. ``bar`` are tqdm's arguments.

    Args:
        workers: number of processes; one for each core by default.
        dask: address of a scheduler, whose workers are used instead.

    Raises:
        UserError: the cluster cannot be used, or a worker process was killed.
    """
    workers = workers or joblib.cpu_count()
    backend = contextlib.nullcontext()
    options = {}
    if dask:
        workers = -1  # all that the cluster has
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
    """Why a worker ended, and the remedy: by the signals that joblib's error names."""
    signals = sorted(set(re.findall(r"SIG[A-Z0-9]+", str(error))))
    crashes = set(signals) - {"SIGKILL", "SIGTERM"}
    if signals and not crashes:
        if "SIGKILL" in signals:
            return "a worker was killed, probably out of memory; run again with fewer"
        return "a worker was ended from outside; run again, what is done is kept"
    how = ", ".join(sorted(crashes)) or "no signal"
    return (
        f"a worker crashed ({how}); run again on parts of the files, to find the one that does it"
    )


def _run(parallel, function, tasks, writes=(), done=None, is_local=True, **bar):
    """What `engine` yields; ``is_local``: by processes of this machine, which can be ended."""
    jobs = [joblib.delayed(function)(*task) for task in tasks]
    results = None
    finished = []
    try:
        with _sigint_afterwards():  # the processes inherit that Ctrl-C is not for them
            results = parallel(jobs)
        for result in tqdm(results, total=len(tasks), disable=not tasks, **bar):
            if done is not None:
                done(tasks[len(finished)], result)
            finished.append(result)
    except BaseException:
        if is_local and results is not None:  # a cluster's workers go on with what they have
            with _sigint_afterwards():
                results.close()  # ends the processes, which have no time to remove anything
        raise
    finally:  # a cluster may have lost workers on the way to success
        for folder in {path.parent for path in writes}:
            remove_leftovers(folder)
    return finished


def _start_trackers():
    """Start joblib's and Python's own watchers of processes.

    They let Ctrl-C through as they start, which would undo what `_sigint_afterwards` does. What a
    run that was stopped leaves to them they tidy up, with a warning that is no news for the user.
    """
    if hasattr(signal, "pthread_sigmask"):
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")  # they start with these
        try:
            loky_tracker.ensure_running()
            resource_tracker.ensure_running()
        finally:
            sys.warnoptions.pop()


@contextlib.contextmanager
def _sigint_afterwards():
    """Within, Ctrl-C waits for the end; processes that are started never see it.

    Else each of them would print a traceback. They inherit the mask. It does not make Ctrl-C wait:
    the system gives the signal to another thread then, numpy's for one, and Python raises
    KeyboardInterrupt in the main thread all the same. So it is noted, and raised at the end.
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
    """Within, ``handler`` takes the main thread's Ctrl-C, unless it is ignored."""
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
    """Have this worker process end soon after its parent was killed.

    Its work is wanted no more, and the next run would do the same beside it.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _pack_modules(path):
    """Write all modules that the tasks import to a zip file, which Python can import from."""
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
            "start one or mend the address"
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
