"""Files and folders: write complete files, lock a folder, read JSON and CSV, find files."""

import contextlib
import csv
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import secrets
import socket
import stat
import time
from pathlib import Path
from typing import NamedTuple

from common.cli import UserError, attempt, pass_over

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PART = ".part-"  # prefix of hidden files that are being written
ABANDONED = 24 * 3600  # s after which such a file of another machine counts as abandoned


@contextlib.contextmanager
def complete(path, place=None):
    """Yield a hidden path beside ``path`` to write to; it is renamed if the block succeeds.

    Every call uses a new hidden name with the ending of ``path``, so parallel writers of one file
    do not conflict; the last to finish wins. The first write to a folder removes the leftovers of
    killed runs.

    Args:
        path: the file to write.
        place: called with the hidden path and ``path`` to rename the complete file. None:
            `os.replace`.

    Raises:
        UserError: the name is too long for the disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_length(path)
    folder = os.path.abspath(path.parent)
    if folder not in _tidied:
        _tidied.add(folder)
        remove_leftovers(folder)
    token = secrets.token_hex(4)
    part = path.with_name(f"{PART}{_machine()}-{os.getpid()}-{token}{_ending(path)}")
    try:
        yield part
        (place or os.replace)(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:
            # a write error does not name the file, and numpy's does not give the reason either
            reason = error.strerror or f"{error} (is the disk full?)"
            raise OSError(error.errno or 0, reason, str(path)) from None
        raise


def place_beside(part, path):
    """Rename ``part`` to ``path`` or, if that exists, to the first free numbered name.

    No file is ever replaced: checking and taking the name is one atomic step.

    Returns:
        The new path: song.wav, song_2.wav, ...
    """
    path = Path(path)
    return next(free for free in _numbered(path) if place_new(part, free))


def place_new(part, path):
    """Rename ``part`` to ``path`` in one atomic step. Returns False if ``path`` exists."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links, such as most USB sticks
        if not _reserve(path):
            return False
        try:
            os.replace(part, path)
        except BaseException:
            os.unlink(path)  # empty; it would keep the name from the next run
            raise
    else:
        os.unlink(part)
    return True


def _numbered(path):
    """Yield song.wav, song_2.wav, song_3.wav, ..."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}_{number}{path.suffix}")


def _reserve(path):
    """Create an empty file. Returns False if the name is taken."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    return True


def find_free(path, taken=()):
    """Return ``path``, or its first numbered name that does not exist and is not in ``taken``."""
    return next(free for free in _numbered(path) if free not in taken and not os.path.lexists(free))


def _ending(path):
    """The ending that tells the format, such as .wav or .weights.h5; "" for long ones ("Op. 9")."""
    for ending in ("".join(path.suffixes[-2:]), path.suffix):
        if len(ending) <= 16:
            return ending
    return ""


_tidied = set()  # folders in which this process has looked for leftovers


def remove_leftovers(folder):
    """Delete hidden files of `complete` whose process was killed.

    Returns:
        Whether other processes of this machine are writing to the folder.
    """
    is_busy = False
    for part in Path(folder).glob(f"{PART}*"):
        machine, _, rest = part.name.removeprefix(PART).partition("-")
        process = rest.partition("-")[0]
        with contextlib.suppress(OSError):  # another process may delete it first
            if machine == _machine() and process.isdigit():
                left = not _is_running(int(process))
                if not left and int(process) != os.getpid():
                    is_busy = True
            else:
                left = time.time() - part.stat().st_mtime > ABANDONED
            if left:
                part.unlink()
    return is_busy


def _check_length(path):
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{path}: this name is too long for the disk; shorten it") from None


@functools.cache
def _machine():
    """Eight hex digits that identify this machine and its process-id namespace."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        name += os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _is_running(process):
    """Whether a process with this id runs on this machine."""
    if os.name == "nt":  # os.kill(process, 0) would end it there
        import ctypes

        synchronize, timeout = 0x00100000, 0x00000102
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(synchronize, False, process)
        if not handle:
            return False
        running = kernel.WaitForSingleObject(handle, 0) == timeout
        kernel.CloseHandle(handle)
        return running
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return not _is_zombie(process)


def _is_zombie(process):
    """Whether a process has ended but its parent has not yet waited for it. False if unknown."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:  # not Linux
        return False
    return status.rpartition(")")[2].split()[0] == "Z"  # after the name, which may contain anything


@contextlib.contextmanager
def lock(folder):
    """Hold an exclusive lock on a folder, which may not exist yet.

    The lock is the file .<folder>.lock beside it, so the folder itself can be deleted. The lock
    ends with its process, even if that is killed.

    Raises:
        UserError: another process holds it; the text names its id and machine.
    """
    folder = Path(os.path.abspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    try:
        descriptor = _take(path)
    except (BlockingIOError, FileExistsError):
        raise UserError(
            f"{folder}: is being written by {_holder(path)}; wait until it ends, or stop it first"
        ) from None
    try:
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        if fcntl:  # on Windows the system deletes it
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path):
    """Take a lock file: its descriptor. Raises BlockingIOError or FileExistsError."""
    if not fcntl:  # Windows deletes a temporary file when its process ends
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_TEMPORARY)
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.ftruncate(descriptor, 0)
                return descriptor
        except FileNotFoundError:  # its holder has just ended and deleted it
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:  # a network disk without locks
            return descriptor
        os.close(descriptor)


def _holder(path):
    try:
        return path.read_text() or "another process"
    except OSError:
        return "another process"


def read_json(path, remedy, **kinds):
    """Read the object in a JSON file; None if the file does not exist.

    Accepts the encodings of editors: UTF-8 or UTF-16, with or without a byte-order mark.

    Args:
        path: the file.
        remedy: what the user can do about a damaged file, without losing data.
        kinds: required keys and the types of their values.

    Raises:
        UserError: the file is damaged.
    """
    with undamaged(path, remedy):
        try:
            content = json.loads(Path(path).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not isinstance(content, dict):
            raise TypeError
        for key, kind in kinds.items():
            if not isinstance(content[key], kind):
                raise ValueError
    return content


MEND = "repair it, or restore it from a copy"  # a remedy that loses no data


@contextlib.contextmanager
def undamaged(path, remedy):
    """Turn errors from malformed contents in the block into a `UserError` with ``remedy``."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: damaged; {remedy}") from None


def write_json(path, content, indent=1, place=None):
    """Write a JSON file by `complete`."""
    with complete(path, place) as part:
        part.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def write_csv(path, rows):
    """Write a CSV file by `complete`. Bytes of file names that are not UTF-8 are escaped."""
    utf8 = {"encoding": "utf-8", "errors": "backslashreplace"}
    with complete(path) as part, open(part, "w", newline="", **utf8) as file:
        csv.writer(file).writerows(rows)


def read_csv(path):
    """Read the rows of a table, lists of strings, without empty lines.

    Accepts the formats of spreadsheets: commas, semicolons or tabs; UTF-8 or UTF-16, with or
    without a byte-order mark. Bytes that are not UTF-8 are decoded as in Python's file names.

    Raises:
        UserError: the file does not exist or is not text.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a CSV file") from None
    encoding = "utf-8-sig"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    try:
        text = content.decode(encoding, errors="surrogateescape")
        if "\0" in text:
            raise ValueError
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=_find_delimiter(text)))
    except (ValueError, csv.Error):
        raise UserError(f"{path}: is not text; give a CSV file") from None
    return [row for row in rows if row]


def _find_delimiter(text):
    """Find the delimiter that splits the first line into most columns; by default a comma."""
    first = text.lstrip().partition("\n")[0]
    best, most = ",", 1
    for delimiter in (",", ";", "\t"):
        columns = len(next(csv.reader([first], delimiter=delimiter), []))
        if columns > most:
            best, most = delimiter, columns
    return best


class FoundFiles(NamedTuple):
    """Result of `look_for_files`."""

    files: list  # paths, sorted
    unreadable: list  # paths of folders and links that could not be accessed


def find_files(folder, extensions):
    """List files below ``folder`` with one of ``extensions``, in any case, sorted.

    See `look_for_files`.
    """
    return look_for_files(folder, extensions).files


def look_for_files(folder, extensions):
    """Find files by extension, in any case. Reports and skips entries that cannot be accessed.

    It follows links and leaves out hidden files and folders (.ipynb_checkpoints, .Trash-1000).
    A caller that deletes outputs of missing files must keep outputs of ``unreadable`` ones.

    Returns:
        `FoundFiles`.

    Raises:
        UserError: ``folder`` is not a folder.
        OSError: ``folder`` itself cannot be accessed.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; check the path")
    found = FoundFiles([], [])
    _walk(list_folder(folder), extensions, (os.path.realpath(folder),), found)
    found.files.sort()
    return found


def _walk(entries, extensions, above, found):
    """Add to `FoundFiles`. ``above``: real paths of the parent folders, to stop at cyclic links."""
    for entry in entries:
        path = Path(entry.path)
        try:
            if entry.is_dir():
                real = os.path.realpath(path)
                if real not in above:
                    _walk(list_folder(path), extensions, (*above, real), found)
            elif path.suffix.lower() in extensions:
                if not os.path.lexists(path):  # deleted meanwhile
                    continue
                if stat.S_ISREG(entry.stat().st_mode):
                    found.files.append(path)
        except OSError as error:
            found.unreadable.append(path)
            pass_over(f"{path}: {error.strerror}")


def is_spared(path, unreadable):
    """Whether the source of ``path`` may be among entries that could not be accessed.

    Args:
        path: an output with the name of its source, except for the extension.
        unreadable: as in `FoundFiles`, relative to the same folder as ``path``.
    """
    for entry in unreadable:
        if entry in path.parents or entry.with_suffix("") == path.with_suffix(""):
            return True
    return False


def list_folder(folder):
    """List the entries of a folder that are not hidden, from os.scandir.

    Raises:
        OSError: the folder cannot be listed or entered.
    """
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    os.stat(os.path.join(folder, "."))  # a folder that can be listed may still forbid entering
    return shown


def list_folders(folder):
    """List the folders in a folder that are not hidden, sorted.

    Returns:
        list of paths; None if the folder does not exist or, after a message, cannot be accessed.
    """
    entries = attempt(list_folder, folder)
    if isinstance(entries, UserError):
        if os.path.isdir(folder):
            pass_over(entries)
        return None
    return sorted(Path(folder) / entry.name for entry in entries if _is_folder(entry))


def _is_folder(entry):
    """Whether an entry of os.scandir is a folder; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def check_folder(folder, flag):
    """Check, before any work, that files can be written below ``folder``, which may not exist yet.

    Raises:
        UserError: it or a parent is a file or is not writable; the text names ``flag``.
    """
    folder = Path(folder)
    for path in (folder, *folder.absolute().parents):
        if path.is_dir():
            if not os.access(path, os.W_OK):
                raise UserError(f"{path}: is not writable; give {flag} a writable folder")
            return
        if os.path.lexists(path):
            raise UserError(f"{flag} {folder}: {path} is a file; give a folder")


def find_named(folder, extensions):
    """`find_files` by name: {path below ``folder``, without extension: path}."""
    named = {}
    for path in find_files(folder, extensions):
        named[path.relative_to(folder).with_suffix("").as_posix()] = path
    return named
