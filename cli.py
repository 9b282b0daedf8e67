"""What every script shares at its edge: flag types, one-line errors, files that appear only when complete.

Imports nothing heavy, so that ``--help`` answers at once.
"""

import argparse
import contextlib
import csv
import functools
import json
import os
import signal
import sys
import threading
from pathlib import Path

PRETRAINED = Path(__file__).parent / "pretrained"
INTERRUPTED = "interrupted; run the same command again to continue"


class UserError(Exception):
    """A mistake that the user can mend. Its text names the file or flag, the value and the remedy."""


_redirecting = threading.RLock()
_stderr = 2  # descriptor of what the user sees, also within `quiet_stderr`


def _end_at_once(*_):
    os.write(_stderr, f"{Path(sys.argv[0]).name}: {INTERRUPTED}\n".encode())
    os._exit(130)


def _on_interrupt(before, after):
    """Change what Ctrl-C does, unless something else was chosen for it: to ignore it, in a shell's background, for one."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is before
    ):
        signal.signal(signal.SIGINT, after)


@contextlib.contextmanager
def loading():
    """Within, Ctrl-C ends the process at once, in one line: C++ extensions crash if they are interrupted while they load."""
    _on_interrupt(signal.default_int_handler, _end_at_once)
    try:
        yield
    finally:
        _on_interrupt(_end_at_once, signal.default_int_handler)


if (
    Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent
):  # one of our scripts, which import this first
    _on_interrupt(signal.default_int_handler, _end_at_once)  # until its `command` begins


class Parser(argparse.ArgumentParser):
    """ArgumentParser that shows defaults, keeps the docstring's line breaks and answers an error in one line."""

    class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action):
            if action.default is None or action.default is False:  # which would tell nothing
                return action.help
            if isinstance(action.default, (list, tuple)):
                return f"{action.help} (default: {' '.join(map(str, action.default))})"
            return super()._get_help_string(action)

    def __init__(self, description, **kwargs):
        super().__init__(
            description=description, formatter_class=self._Formatter, allow_abbrev=False, **kwargs
        )

    def error(self, message):
        """Exit with 2 after one line on stderr."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see --help)\n")


class OneOrSeveral(argparse.Action):
    """With ``nargs="+"``: stores a single value as itself, several as a list."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Store."""
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


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
            raise argparse.ArgumentTypeError(
                f"{text} is too large; give a number of at most {high}"
            )
        return value

    parse.__name__ = (
        "whole number" if kind is int else "number"
    )  # argparse: "invalid number value: 'x'"
    return parse


def boolean(text):
    """An argparse ``type=`` for ``--flag True|False``, which ``bool`` would read as always true."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return words[text.lower()]


def one_line(text):
    """``text`` with control characters (a newline in a file name, say) escaped, so that it stays on one line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text).strip()
    )


def command(main):
    """Turn ``main(argv=None) -> int or None`` into a command: exit codes 0 (done), 2 (a user's mistake), 130 (Ctrl-C).

    `UserError` and the operating system's refusals (no permission, disk full) become one line on stderr.
    """

    @functools.wraps(main)
    def wrapped(argv=None):
        name = Path(sys.modules[main.__module__].__file__).name
        _on_interrupt(_end_at_once, signal.default_int_handler)
        try:
            return main(argv) or 0
        except UserError as error:
            print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        except BrokenPipeError:  # `... | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        except OSError as error:
            path = error.filename2 or error.filename  # of two, the first is a temporary one
            where = f"{path}: " if path else ""
            remedy = (
                "free some space" if error.errno == 28 else "check the path and its permissions"
            )
            print(
                f"{name}: error: {one_line(where + (error.strerror or str(error)))}; {remedy} and run again",
                file=sys.stderr,
            )
        except MemoryError as error:
            print(
                f"{name}: error: out of memory ({one_line(error)}); use shorter pieces or fewer workers",
                file=sys.stderr,
            )
        except KeyboardInterrupt:
            print(f"{name}: {INTERRUPTED}", file=sys.stderr)
            return 130
        return 2

    return wrapped


@contextlib.contextmanager
def complete(path):
    """Yield a hidden path beside ``path`` to write to; it gets its final name only if the block succeeds.

    The hidden name is always the same for one ``path``: what a killed run leaves behind, the next run overwrites.
    """
    path, part = Path(path), part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if (
            isinstance(error, OSError) and not error.filename
        ):  # a write does not say where, numpy's not even why
            raise OSError(
                error.errno or 0, error.strerror or f"{error} (is the disk full?)", str(path)
            ) from None
        raise


def part_of(path):
    """The hidden path that `complete` writes to."""
    return Path(path).with_name(f".part-{Path(path).name}")


def read_json(path, remedy, **kinds):
    """The object in a JSON file, or None if there is no file; ``kinds`` are keys that it must have, and their types.

    Raises `UserError` with the ``remedy`` if it is damaged.
    """
    with undamaged(path, remedy):
        try:
            content = json.loads(Path(path).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not all(isinstance(content[key], kind) for key, kind in kinds.items()):
            raise ValueError
    return content


@contextlib.contextmanager
def undamaged(path, remedy):
    """Within, what a file's contents of another form raise becomes a `UserError` with the ``remedy``."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: damaged; {remedy}") from None


def write_json(path, content, indent=1):
    """Write a JSON file by `complete`."""
    with complete(path) as part:
        part.write_text(json.dumps(content, indent=indent) + "\n")


def write_csv(path, rows):
    """Write a CSV file by `complete`."""
    with complete(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def find_files(folder, extensions):
    """Files below ``folder`` whose extension is one of ``extensions`` in any case, hidden ones left out, sorted.

    Raises `UserError` if ``folder`` is not a folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check the path")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in extensions and not path.name.startswith(".") and path.is_file()
    )


def find_named(folder, extensions):
    """`find_files` by name: {path below ``folder``, without extension: path}."""
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in find_files(folder, extensions)
    }


def find_model(model):
    """Path of ``model``: a file or folder, or else the name of a model in pretrained/.

    Raises `UserError` if there is neither.
    """
    path = Path(model)
    if path.exists():
        return path
    if path.name == str(path) and (PRETRAINED / path).is_dir():
        return PRETRAINED / path
    there = ", ".join(sorted(path.name for path in PRETRAINED.glob("*") if path.is_dir())) or "none"
    raise UserError(
        f"{model}: no model there; give a run folder, a model file, or the name of a pretrained model ({there})"
    )


def training_flags(parser):
    """Add the flags that train.py and train_generator.py share."""
    add = parser.add_argument
    add(
        "--dataset_path",
        "--features",
        "--features_path",
        required=True,
        help="features folder of compute_features.py",
    )
    add(
        "--origin",
        required=True,
        nargs="+",
        action=OneOrSeveral,
        help="instrument to convert from, say keyboard_acoustic",
    )
    add(
        "--target",
        required=True,
        nargs="+",
        action=OneOrSeveral,
        help="instrument to convert to, say guitar_acoustic; of "
        "several (or several origins) one model learns all, and is shown a tile of the target, from another piece, as the "
        "style",
    )
    add(
        "--conditioning",
        choices=("film", "tile"),
        default="film",
        help="with several targets: the style modulates the decoder's channels, or is a picture beside the input",
    )
    add(
        "--learn",
        choices=("magnitude", "phase", "both"),
        default="magnitude",
        help="what the network gives: the target's magnitude; its phase, from both magnitudes; or both at once",
    )
    add("--runs_path", default="runs", help="where run folders go")
    add(
        "--gpu",
        help="GPU number (0), several for data parallel training (0,1), or cpu; default: 0 if there is one",
    )
    add(
        "--epochs",
        type=number(int, 1),
        default=100,
        help="total number of epochs, those already done included",
    )
    add(
        "--epoch_offset",
        type=number(int, 0),
        default=0,
        help="number given to the epoch before the first",
    )
    add(
        "--epoch_tiles",
        type=number(int, 1),
        help="tiles an epoch, drawn anew for each; default: all, which may be long",
    )
    add(
        "--decay_epochs",
        type=number(int, 0),
        default=0,
        help="learning rates fall linearly towards 0 over the last epochs",
    )
    add(
        "--weights",
        help="begin with this model, as wide or 1/k as wide: run folder, file, pretrained name",
    )
    add("--batch_size", type=number(int, 1), default=8, help="tiles a step")
    add(
        "--validation_split",
        type=number(float, 0, 0.9, low_open=True),
        default=0.1,
        help="fraction of pieces held out",
    )
    add(
        "--maestro_split",
        help="MAESTRO's table, maestro-v3.0.0.csv, to split by instead: train, validation, test kept aside",
    )
    add(
        "--filters",
        type=number(int, 1, 512),
        default=64,
        help="width of the networks: channels of the first layer",
    )
    add(
        "--dropout",
        type=number(float, 0, 0.9),
        default=0.5,
        help="dropout rate in the decoder's first three blocks",
    )
    add(
        "--seed",
        type=number(int, 0, 2**31),
        default=0,
        help="seed of split, weights, shuffling and dropout",
    )
    add(
        "--findlr",
        nargs="?",
        const=True,
        default=False,
        type=boolean,
        help="search the learning rates instead of training",
    )
    add("--findlr_steps", type=number(int, 10), help="steps of that search; default: one epoch's")
    add(
        "--precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the layers' arithmetic; auto: bfloat16 on a GPU that has it, float32 elsewhere",
    )
    add(
        "--jit",
        nargs="?",
        const="on",
        default="auto",
        choices=("auto", "on", "off"),
        help="compile with XLA; auto: on a GPU",
    )
    add("--cache", action="store_true", help="keep all tiles in memory (256 KiB a pair)")
    add("--workers", type=number(int, 1), default=2, help="threads that read tiles")
    add(
        "--preview_every",
        type=number(int, 0),
        default=1,
        help="epochs between previews of a held-out piece; 0: none",
    )
    add("--tensorboard", action="store_true", help="also write TensorBoard logs to the run folder")
    add("--fresh", action="store_true", help="delete this run's folder and start over")


@contextlib.contextmanager
def quiet_stderr():
    """Drop what native libraries print to the process's stderr, past Python's: TensorFlow while it loads, for one."""
    global _stderr
    with (
        _redirecting
    ):  # one thread at a time: another would save what this one has put in its place
        sys.stderr.flush()
        _stderr = saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            _stderr = 2
            os.close(saved)
            os.close(null)
