"""What every script shares at its edge: flag types, one-line errors, files that appear only when complete.

Imports nothing heavy, so that ``--help`` answers at once.
"""

import argparse
import contextlib
import functools
import os
import sys
from pathlib import Path

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")


class UserError(Exception):
    """A mistake that the user can mend. Its text names the file or flag, the value and the remedy."""


class Parser(argparse.ArgumentParser):
    """ArgumentParser that shows defaults, keeps the docstring's line breaks and answers an error in one line."""

    class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    def __init__(self, description, **kwargs):
        super().__init__(description=description, formatter_class=self._Formatter, allow_abbrev=False, **kwargs)

    def error(self, message):
        """Exit with 2 after one line on stderr."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see --help)\n")


def number(kind, low=None, high=None, low_open=False):
    """An argparse ``type=``: a finite ``kind`` (int or float) in [low, high], or in (low, high] if ``low_open``."""

    def parse(text):
        value = kind(text)
        if value != value or value in (float("inf"), float("-inf")):
            raise argparse.ArgumentTypeError(f"'{text}' is not a finite number")
        if low is not None and (value <= low if low_open else value < low):
            bound = "above" if low_open else "of at least"
            raise argparse.ArgumentTypeError(f"{text} is too small; give a number {bound} {low}")
        if high is not None and value > high:
            raise argparse.ArgumentTypeError(f"{text} is too large; give a number of at most {high}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"  # argparse: "invalid number value: 'x'"
    return parse


def boolean(text):
    """An argparse ``type=`` for ``--flag True|False``, which ``bool`` would read as always true."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return words[text.lower()]


def one_line(text):
    """``text`` with control characters (a newline in a file name, say) escaped, so that it stays on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text).strip())


def command(main):
    """Turn ``main(argv=None) -> int or None`` into a command: exit codes 0 (done), 2 (a user's mistake), 130 (Ctrl-C).

    `UserError` and the operating system's refusals (no permission, disk full) become one line on stderr.
    """

    @functools.wraps(main)
    def wrapped(argv=None):
        name = Path(sys.modules[main.__module__].__file__).name
        try:
            return main(argv) or 0
        except UserError as error:
            print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            remedy = "free some space" if error.errno == 28 else "check the path and its permissions"
            print(f"{name}: error: {one_line(where + (error.strerror or str(error)))}; {remedy} and run again", file=sys.stderr)
        except MemoryError as error:
            print(f"{name}: error: out of memory ({one_line(error)}); use shorter pieces or fewer workers", file=sys.stderr)
        except KeyboardInterrupt:
            print(f"{name}: interrupted; run the same command again to continue", file=sys.stderr)
            return 130
        return 2

    return wrapped


@contextlib.contextmanager
def complete(path):
    """Yield a hidden path beside ``path`` to write to; it gets its final name only if the block succeeds.

    The hidden name is always the same for one ``path``: what a killed run leaves behind, the next run overwrites.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def find_files(folder, extensions):
    """Files below ``folder`` whose extension is one of ``extensions`` in any case, hidden ones left out, sorted.

    Raises `UserError` if ``folder`` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check the path")
    return sorted(
        path for path in folder.rglob("*")
        if path.suffix.lower() in extensions and not path.name.startswith(".") and path.is_file()
    )  # fmt: skip
