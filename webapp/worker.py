"""A worker process: if a decoder crashes there, the page keeps running.

A worker does one job after the other. One that crashes or is stopped is replaced.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback

from common.cli import UserError

_STEP = 0.1  # s between two checks for a stopped job
_PATIENCE = 5  # s to wait for the end of a process whose connection is lost


class Job:
    """A job that waits, runs or is done.

    Attributes:
        part: completed fraction, 0 ... 1.
        is_running: whether it is running.
        took: s from start to end; valid when it is done.
        cost: expected seconds.
        result: result of its function; valid after `wait`.
    """

    def __init__(self, function, args, cost=0.0):
        self.part = 0.0
        self.cost = cost
        self.result = None
        self.is_running = False
        self.took = 0.0
        self._began = None  # s, of a clock
        self._expected = cost  # expected total, s, updated with the progress
        self._call = function, args
        self._error = None
        self._stop = threading.Event()
        self._done = threading.Event()

    def left(self):
        """Estimated seconds until it is done."""
        if self._began is None:
            return self.cost
        return max(0.0, self._began + self._expected - time.monotonic())

    def stop(self):
        """Stop the job soon, or before it starts; `wait` then raises `Stopped`."""
        self._stop.set()

    @property
    def is_stopped(self):
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def is_done(self):
        """Whether `wait` returns at once."""
        return self._done.is_set()

    def wait(self):
        """Wait for the result.

        Raises:
            UserError: raised by the function.
            Stopped: it was stopped.
            Died: the process died during the job.
            RuntimeError: another error of the function, whose traceback was printed.
        """
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self.result

    def _end(self, result=None, error=None):
        self.result = result
        self._error = error
        self.is_running = False
        if self._began is not None:
            self.took = time.monotonic() - self._began
        self._done.set()

    def _tell(self, part):
        self.part = part
        if part >= 0.05:  # a smaller part is too inexact
            self._expected = (time.monotonic() - self._began) / part

    def _begin(self):
        self._began = time.monotonic()
        self.is_running = True


class Stopped(Exception):
    """The job was stopped."""


class Died(Exception):
    """The process died: out of memory (SIGKILL), or in a decoder."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __str__(self):
        """Explain the crash, as text after the file's name."""
        if os.name != "nt" and self.code == -signal.SIGKILL:  # nothing else kills it
            return "was probably too much for this computer's memory"
        return "crashed the program that reads it"


class Busy(Exception):
    """Too many jobs are waiting."""


class Worker:
    """Runs functions in another process, one after the other.

    Args:
        setup: called once in each new process; a function that can be pickled, or None.
        longest: largest number of waiting jobs.
    """

    def __init__(self, setup=None, longest=20):
        self._setup = setup
        self._longest = longest
        self._jobs = []  # the running job first, then the waiting ones
        self._changed = threading.Condition()
        self._life = threading.Lock()  # of the process
        self._closed = False
        self._process = None
        self._connection = None
        self._start(is_first=True)
        threading.Thread(target=self._work, daemon=True).start()
        atexit.register(self.close)

    def wait_until_ready(self):
        """Wait for the process's setup. Raises UserError as the setup does."""
        self.submit(_do_nothing).wait()

    def submit(self, function, *args, cost=0.0):
        """Submit a call ``function(*args, tell)``; ``tell`` takes the completed fraction, 0 ... 1.

        Function, arguments and result must support pickle.

        Returns:
            `Job`.

        Raises:
            Busy: too many jobs wait already.
        """
        job = Job(function, args, cost)
        with self._changed:
            self._jobs = [waiting for waiting in self._jobs if not waiting.is_done]
            if len(self._jobs) > self._longest:
                raise Busy
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def count_jobs(self):
        """Number of jobs that wait or run."""
        with self._changed:
            return sum(not job.is_done for job in self._jobs)

    def jobs_before(self, job):
        """The jobs that are done before this one."""
        with self._changed:
            jobs = list(self._jobs)
        if job not in jobs:
            return []
        return [other for other in jobs[: jobs.index(job)] if not other.is_stopped]

    def close(self):
        """End the process and all waiting jobs."""
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.stop()
            self._changed.notify_all()
        with self._life:
            self._kill()

    def _work(self):
        """Do the jobs, in a separate thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                job = self._jobs[0]
            try:
                job._end(result=self._do(job))
            except Exception as error:  # passed to the waiting caller; the thread continues
                job._end(error=error)
            with self._changed:
                self._jobs.remove(job)

    def _do(self, job):
        """Result of a job. Raises as `Job.wait`."""
        if job.is_stopped:
            raise Stopped
        job._begin()
        try:
            if not self._process.is_alive():
                self._restart()
            self._connection.send(job._call)
            return self._receive(job)
        except (EOFError, OSError):
            self._process.join(_PATIENCE)
            code = self._process.exitcode
            self._restart()
            if job.is_stopped:
                raise Stopped from None
            raise Died(code) from None

    def _receive(self, job):
        """Wait for a job's result. Raises EOFError if the process dies meanwhile."""
        while True:
            if job.is_stopped:
                self._restart()
                raise Stopped
            if not self._connection.poll(_STEP):
                continue
            kind, content = self._connection.recv()
            if kind == "part":
                job._tell(content)
            elif kind == "mistake":
                raise UserError(content)
            elif kind == "error":
                raise RuntimeError(content)
            else:
                return content

    def _restart(self):
        with self._life:
            self._kill()
            if not self._closed:
                self._start()

    def _start(self, is_first=False):
        context = multiprocessing.get_context("spawn")  # a fork may hang if there are threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._setup, is_first))
        self._process.start()
        theirs.close()

    def _kill(self):
        self._process.kill()
        self._process.join()
        self._connection.close()


class Pool:
    """Several workers, so that a job that hangs does not hold up those of others.

    A job goes to the worker with the fewest jobs; a worker starts when all others are busy.

    Args:
        setup: see `Worker`.
        most: largest number of workers.
    """

    def __init__(self, setup=None, most=4):
        self._setup = setup
        self._most = most
        self._workers = [Worker(setup)]
        self._growing = threading.Lock()

    def submit(self, function, *args):
        """`Worker.submit` of one of the workers."""
        with self._growing:
            chosen = min(self._workers, key=Worker.count_jobs)
            if chosen.count_jobs() and len(self._workers) < self._most:
                chosen = Worker(self._setup)
                self._workers.append(chosen)
            return chosen.submit(function, *args)

    def close(self):
        """End all processes and waiting jobs."""
        for worker in self._workers:
            worker.close()


def _do_nothing(tell):
    """The job that `Worker.wait_until_ready` waits for."""


def _serve(connection, setup, is_first):
    """Do jobs in the process until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    mistake = None
    try:
        if setup is not None and is_first:
            setup()
        elif setup is not None:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                setup()  # its news are known
    except UserError as error:
        mistake = str(error)

    def tell(part):
        connection.send(("part", part))

    while True:
        try:
            function, args = connection.recv()
            if mistake is not None:
                connection.send(("mistake", mistake))
            else:
                connection.send(_answer(function, args, tell))
        except (EOFError, OSError):  # the parent has ended
            return


def _answer(function, args, tell):
    """Run a job: (kind, content) of the answer."""
    try:
        return "result", function(*args, tell)
    except UserError as error:
        return "mistake", str(error)
    except BrokenPipeError:  # the parent has ended
        raise
    except OSError as error:
        return "mistake", f"the computer says: {error.strerror or error}"
    except MemoryError:
        return "mistake", "it is too much for this computer's memory; choose a shorter part"
    except Exception as error:
        traceback.print_exc()
        return "error", f"{type(error).__name__}: {error}"
