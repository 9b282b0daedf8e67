"""Command line: flag types, errors in one line, late imports.

This module imports nothing heavy, so that ``--help`` is fast. Scripts import it first: it turns
errors during later imports (Ctrl-C, a missing package) into one line.
"""

import argparse
import contextlib
import errno
import functools
import gc
import importlib
import os
import signal
import sys
import threading
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
INTERRUPTED = "interrupted; run the same command again to continue"


class UserError(Exception):
    """An error the user can fix. The text names the file or flag, its value and the fix."""


class Parser(argparse.ArgumentParser):
    """ArgumentParser that shows defaults, keeps line breaks, and reports an error in one line."""

    class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action):
            if action.default is None or action.default is False:  # not worth showing
                return action.help
            if isinstance(action.default, (list, tuple)):
                default = " ".join(str(value) for value in action.default)
                return f"{action.help} (default: {default})"
            return super()._get_help_string(action)

    def __init__(self, description, **kwargs):
        super().__init__(
            description=description, formatter_class=self._Formatter, allow_abbrev=False, **kwargs
        )

    def error(self, message):
        """Print one line on stderr and exit with code 2."""
        if message.startswith("unrecognized") and "--input" in self._option_string_actions:
            message += "; give recordings with --input and models with --model"
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see --help)\n")


def number(kind, low=None, high=None, low_open=False):
    """Make an argparse ``type=``: a finite ``kind`` (int or float) in [low, high].

    With ``low_open`` the range is (low, high].
    """

    def parse(text):
        value = kind(text)
        if value != value or value in (float("inf"), float("-inf")):
            raise argparse.ArgumentTypeError(f"'{text}' is not a finite number")
        if low is not None and low_open and value <= low:
            raise argparse.ArgumentTypeError(f"{text} is too small; give a number above {low}")
        if low is not None and value < low:
            raise argparse.ArgumentTypeError(f"{text} is too small; give at least {low}")
        if high is not None and value > high:
            raise argparse.ArgumentTypeError(f"{text} is too large; give at most {high}")
        return value

    parse.__name__ = "number"  # argparse says "invalid number value: 'x'"
    if kind is int:
        parse.__name__ = "whole number"
    return parse


def seconds(low_open=False):
    """Make an argparse ``type=``: a time such as "80", "1:20" or "1:02:03.5", in seconds, >= 0.

    With ``low_open`` > 0.
    """
    above = number(float, 0, low_open=low_open)

    def parse(text):
        total = 0.0
        for part in text.split(":"):
            total = 60 * total + number(float, 0)(part)
        return above(total)

    parse.__name__ = "time"  # argparse says "invalid time value: 'x'"
    return parse


def boolean(text):
    """An argparse ``type=`` for ``--flag True|False``. (``bool`` reads any text as True.)"""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return words[text.lower()]


class _LateModule:
    """A module that is imported when an attribute is first read or set."""

    __slots__ = ("_name",)

    def __init__(self, name):
        object.__setattr__(self, "_name", name)

    @property
    def __dict__(self):
        return vars(importlib.import_module(self._name))

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self._name), attribute)

    def __setattr__(self, attribute, value):
        setattr(importlib.import_module(self._name), attribute, value)

    def __delattr__(self, attribute):
        delattr(importlib.import_module(self._name), attribute)


def load_later(name):
    """Import a module when its first attribute is read; for the import section of scripts.

    Keras chooses backend and device on import, so the import must follow the flags. It would also
    slow down --help. `importlib.util.LazyLoader` does not serve here: its modules stand in
    `sys.modules`, where PyTorch's own import reads an attribute of each and so loads them too soon.
    """
    return sys.modules.get(name) or _LateModule(name)


def as_list(value):
    """Return a flag's value as a list; older config.json files have a single name as text."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def one_line(text):
    """Escape control characters in a text, such as a newline in a file name."""
    characters = []
    for character in str(text).strip():
        if not character.isprintable():
            character = character.encode("unicode_escape").decode()
        characters.append(character)
    return "".join(characters)


def command(main):
    """Turn ``main(argv=None) -> int or None`` into a command that reports errors in one line.

    Exit codes: 0 success; 2 a `UserError`, an error of the operating system (no permission, disk
    full), a missing package, or too little memory; 130 Ctrl-C.
    """

    @functools.wraps(main)
    def wrapped(argv=None):
        name = _name_program(sys.modules[main.__module__].__file__)
        print_anything()
        _told.clear()
        try:
            code = main(argv) or 0
            if main.__module__ == "__main__":  # Ctrl-C from here on would change the exit code
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            return code
        except KeyboardInterrupt:
            if _hidden:  # Ctrl-C came before `quiet_stderr` could restore it
                os.dup2(_hidden[0], 2)
            print(f"{name}: {INTERRUPTED}", file=sys.stderr)
            if main.__module__ == "__main__":  # another Ctrl-C waits for no thread, and is silent
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                gc.freeze()  # Python would search TensorFlow's objects for garbage, for seconds
            return 130
        except BrokenPipeError:  # the reader of a pipe has ended: `... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        except Exception as error:
            line = _explain(error)
            if line is None:
                raise
            print(f"{name}: error: {one_line(line)}", file=sys.stderr)
            return 2

    return wrapped


def _name_program(path):
    """Name a script in messages: "predict.py"; what `python -m report` runs is "report"."""
    package = Path(sys.argv[0]).resolve().parent
    if Path(sys.argv[0]).name == "__main__.py" and Path(path).resolve().parent == package:
        return package.name
    return Path(path).name


def print_anything():
    """Make print escape characters that the terminal or pipe cannot show, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _explain(error):
    """Explain an error in one line; None for a bug in this code."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return _explain_missing(error)
    if _is_of_device_memory(error):
        remedy = "" if "device:CPU" in str(error) else ", or --gpu cpu"
        return f"the device is out of memory; give a smaller --batch_size{remedy}"
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); use shorter pieces or fewer workers"
    if isinstance(error, OSError):
        return _explain_system(error)
    return None


def _explain_missing(error):
    activate = ".venv\\Scripts\\activate" if os.name == "nt" else ". .venv/bin/activate"
    file = "requirements-app.txt" if error.name == "gradio" else "requirements.txt"
    return (
        f"package {error.name} is not installed here; activate the environment ({activate}), "
        f"or install it: pip install -r {PROJECT / file}"
    )


def _is_of_device_memory(error):
    """Whether this is the out-of-memory error of TensorFlow, PyTorch or JAX, without importing."""
    names = ("ResourceExhaustedError", "OutOfMemoryError")
    return type(error).__name__ in names or "RESOURCE_EXHAUSTED" in str(error)


def _explain_system(error):
    remedies = {
        errno.ENOSPC: "free some space",
        errno.ENAMETOOLONG: "shorten the name",
        errno.EMFILE: "allow more open files (ulimit -n 4096)",
    }
    remedy = remedies.get(error.errno, "check the path and its permissions")
    path = error.filename2 or error.filename  # if there are two, the first is temporary
    text = error.strerror or str(error)
    if path:
        text = f"{os.fsdecode(path)}: {text}"
    return f"{text}; {remedy} and run again"


_OF_ALL_FILES = (  # errors that affect every following file, too
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    errno.EPIPE,
)


def attempt(function, *args):
    """Return ``function(*args)``, or the `UserError` of a file that can be skipped.

    One bad file must not stop the others, so an `OSError` of a single file, such as a missing
    permission, is also returned as `UserError`. Errors that affect all files, such as a full disk,
    are raised.
    """
    try:
        return function(*args)
    except UserError as error:
        return error
    except OSError as error:
        if not error.errno or error.errno in _OF_ALL_FILES:
            raise
        return UserError(_explain_system(error))


_told = set()  # lines that `pass_over` has printed


def pass_over(what):
    """Print one line on stderr about a skipped file, a `UserError` or text; each line once."""
    line = f"skipped: {one_line(what)}"
    if line not in _told:
        _told.add(line)
        bars = sys.modules.get("tqdm")  # if loaded, its write keeps the progress bars intact
        write = bars.tqdm.write if bars else print
        write(line, file=sys.stderr)


def _on_error_while_loading(kind, error, trace):
    """`sys.excepthook` until the `command` starts: Ctrl-C and missing packages become one line."""
    name = _name_program(sys.argv[0])
    if issubclass(kind, KeyboardInterrupt):
        print(f"{name}: {INTERRUPTED}", file=sys.stderr, flush=True)
        os._exit(130)
    if issubclass(kind, ModuleNotFoundError):
        print(f"{name}: error: {_explain_missing(error)}", file=sys.stderr, flush=True)
        os._exit(2)  # Python itself would exit with 1
    sys.__excepthook__(kind, error, trace)


if Path(sys.argv[0]).resolve().is_relative_to(PROJECT):  # one of our scripts
    sys.excepthook = _on_error_while_loading
    # Processes started by a notebook inherit its backend, which may not be installed here. No
    # script opens a window, so none needs a backend.
    os.environ.pop("MPLBACKEND", None)


_redirecting = threading.RLock()
_hidden = []  # descriptors of stderr that `quiet_stderr` will restore


@contextlib.contextmanager
def quiet_stderr():
    """Discard output of native libraries to the process's stderr.

    One thread at a time, because a second one would save the replacement as the original.
    """
    with _redirecting:
        sys.stderr.flush()
        saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        _hidden.append(saved)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            _hidden.remove(saved)
            os.close(saved)
            os.close(null)
