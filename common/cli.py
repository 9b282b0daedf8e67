"""Command line: flag types, errors in one line, late imports.

This module imports nothing heavy, so that ``--help`` answers at once. Scripts import it first: an
error while the rest loads (Ctrl-C, a missing package) is then one line, too.
"""

import argparse
import contextlib
import errno
import functools
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
INTERRUPTED = "interrupted; run the same command again to continue"


class UserError(Exception):
    """A mistake that the user can mend. Its text names the file or flag, the value, the remedy."""


class Parser(argparse.ArgumentParser):
    """ArgumentParser that shows defaults and line breaks, and answers an error in one line."""

    class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action):
            if action.default is None or action.default is False:  # which would tell nothing
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
        """Exit with 2 after one line on stderr."""
        if message.startswith("unrecognized") and "--input" in self._option_string_actions:
            message += "; a recording is named by --input, a model by --model"
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see --help)\n")


def number(kind, low=None, high=None, low_open=False):
    """An argparse ``type=``: a finite ``kind`` (int or float) in [low, high].

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
    """An argparse ``type=``: a time, "80", "1:20" or "1:02:03.5", as seconds, at least 0.

    With ``low_open`` above 0.
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
    """An argparse ``type=`` for ``--flag True|False``, which ``bool`` would read as always true."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return words[text.lower()]


def load_later(name):
    """Import a module when its first attribute is read; for the heads of scripts.

    Keras chooses its backend and device when it is imported, so that must wait until the flags are
    known; and --help must not wait for Keras.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def as_list(value):
    """A flag's value as a list: one instrument stood by itself in older config.json files."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def one_line(text):
    """``text`` with its control characters escaped: a newline in a file name, for one."""
    characters = []
    for character in str(text).strip():
        if not character.isprintable():
            character = character.encode("unicode_escape").decode()
        characters.append(character)
    return "".join(characters)


def command(main):
    """Turn ``main(argv=None) -> int or None`` into a command, which answers mistakes in one line.

    Exit codes: 0 done; 2 a user's mistake, a refusal of the operating system (no permission, disk
    full), a package that is missing, or too little memory; 130 Ctrl-C.
    """

    @functools.wraps(main)
    def wrapped(argv=None):
        name = Path(sys.modules[main.__module__].__file__).name
        print_anything()
        _told.clear()
        try:
            code = main(argv) or 0
            if main.__module__ == "__main__":  # all is done: Ctrl-C would only spoil the exit code
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            return code
        except KeyboardInterrupt:
            print(f"{name}: {INTERRUPTED}", file=sys.stderr)
            return 130
        except BrokenPipeError:  # `... | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        except Exception as error:
            line = _explain(error)
            if line is None:
                raise
            print(f"{name}: error: {one_line(line)}", file=sys.stderr)
            return 2

    return wrapped


def print_anything():
    """Have print escape what the terminal or pipe cannot show, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _explain(error):
    """One line for the user, or None for an error that is our own mistake."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return _explain_missing(error)
    if _is_of_device_memory(error):
        remedy = "" if "device:CPU" in str(error) else ", or --gpu cpu"
        return f"out of the device's memory; give a smaller --batch_size{remedy}"
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
        f"or add to it: pip install -r {PROJECT / file}"
    )


def _is_of_device_memory(error):
    """Whether this is TensorFlow's, PyTorch's or JAX's error for it; none of them is imported."""
    names = ("ResourceExhaustedError", "OutOfMemoryError")
    return type(error).__name__ in names or "RESOURCE_EXHAUSTED" in str(error)


def _explain_system(error):
    remedies = {
        errno.ENOSPC: "free some space",
        errno.ENAMETOOLONG: "shorten the name",
        errno.EMFILE: "allow more open files (ulimit -n 4096)",
    }
    remedy = remedies.get(error.errno, "check the path and its permissions")
    path = error.filename2 or error.filename  # of two, the first is a temporary one
    text = error.strerror or str(error)
    if path:
        text = f"{os.fsdecode(path)}: {text}"
    return f"{text}; {remedy} and run again"


_OF_ALL_FILES = (  # errors of the system that the next file would meet, too
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    errno.EPIPE,
)


def attempt(function, *args):
    """Return ``function(*args)``, or the `UserError` of a file that can be passed over.

    One bad file must not stop the others, so an `OSError`, say of a file without read permission,
    is returned as `UserError`, too. Errors that every file would meet, such as a full disk, pass.
    """
    try:
        return function(*args)
    except UserError as error:
        return error
    except OSError as error:
        if not error.errno or error.errno in _OF_ALL_FILES:
            raise
        return UserError(_explain_system(error))


_told = set()  # what `pass_over` has said


def pass_over(what):
    """Print one line on stderr about a file that is passed over: a `UserError` or text; once."""
    line = f"passed over: {one_line(what)}"
    if line not in _told:
        _told.add(line)
        bars = sys.modules.get("tqdm")  # which need not be loaded; its bars are drawn anew below
        write = bars.tqdm.write if bars else print
        write(line, file=sys.stderr)


def _on_error_while_loading(kind, error, trace):
    """`sys.excepthook` of a script before its `command` begins: two errors become one line."""
    name = Path(sys.argv[0]).name
    if issubclass(kind, KeyboardInterrupt):
        print(f"{name}: {INTERRUPTED}", file=sys.stderr, flush=True)
        os._exit(130)
    if issubclass(kind, ModuleNotFoundError):
        print(f"{name}: error: {_explain_missing(error)}", file=sys.stderr, flush=True)
        os._exit(2)  # Python itself would exit with 1
    sys.__excepthook__(kind, error, trace)


if Path(sys.argv[0]).resolve().is_relative_to(PROJECT):  # a script of ours, not another's program
    sys.excepthook = _on_error_while_loading
    # A notebook leaves its own backend to what it starts, and matplotlib refuses one that is not
    # installed. No script opens a window, so none needs a backend.
    os.environ.pop("MPLBACKEND", None)


_redirecting = threading.RLock()


@contextlib.contextmanager
def quiet_stderr():
    """Drop what native libraries print to the process's stderr, past Python's.

    One thread at a time: another would save what this one has put in its place.
    """
    with _redirecting:
        sys.stderr.flush()
        saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)
