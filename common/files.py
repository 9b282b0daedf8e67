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

PART = ".part-"  # how the hidden names of files that are being written begin
ABANDONED = 24 * 3600  # s after which such a file of another machine counts as left behind


@contextlib.contextmanager
def complete(path, place=None):
    """Yield a hidden path beside ``path`` to write to; it is renamed if the block succeeds.

    Every call has a hidden name of its own, with the ending of ``path``: two who write the same
    file do not meet, and the last one to finish wins. What a killed run left behind is removed
    when its folder is next written to.

    Args:
        path: of the file.
        place: called with the hidden path and ``path``; gives the complete file its name. None:
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
            # a write does not say where it failed, and numpy's not even why
            reason = error.strerror or f"{error} (is the disk full?)"
            raise OSError(error.errno or 0, reason, str(path)) from None
        raise


def place_beside(part, path):
    """Rename ``part`` to ``path`` or, where that is taken, to the first free numbered name.

    Nothing is ever replaced: the name is taken in one step with the check that it is free.

    Returns:
        The name that it got: song.wav, song_2.wav, ...
    """
    path = Path(path)
    return next(free for free in _numbered(path) if place_new(part, free))


def place_new(part, path):
    """Rename ``part`` to ``path`` if nothing is there, in one step; return whether it did."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links, as most USB sticks
        if not _reserve(path):
            return False
        os.replace(part, path)
    else:
        os.unlink(part)
    return True


def _numbered(path):
    """Yield song.wav, song_2.wav, song_3.wav, ..."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}_{number}{path.suffix}")


def _reserve(path):
    """Make an empty file; return whether there was none of this name."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    return True


def find_free(path, taken=()):
    """``path``, or the first numbered name of it that is neither there nor ``taken``."""
    return next(free for free in _numbered(path) if free not in taken and not os.path.lexists(free))


def _ending(path):
    """What tells a writer the format, such as .wav or .weights.h5; nothing of a long "Op. 9"."""
    for ending in ("".join(path.suffixes[-2:]), path.suffix):
        if len(ending) <= 16:
            return ending
    return ""


_tidied = set()  # folders in which this process has looked for leftovers


def remove_leftovers(folder):
    """Delete the hidden files that `complete` could not, because its process was killed.

    Returns:
        Whether other processes of this machine are writing there.
    """
    is_busy = False
    for part in Path(folder).glob(f"{PART}*"):
        machine, _, rest = part.name.removeprefix(PART).partition("-")
        process = rest.partition("-")[0]
        with contextlib.suppress(OSError):  # another process may be as quick
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
    """Eight letters for this machine, and this container's numbering of processes."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        name += os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _is_running(process):
    """Whether a process of this number runs on this machine."""
    if os.name == "nt":  # where os.kill(process, 0) would end it
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
    """Whether a process has ended, and only waits for its parent to notice. False if unknown."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:  # no Linux
        return False
    return status.rpartition(")")[2].split()[0] == "Z"  # behind the name, which may be anything


@contextlib.contextmanager
def lock(folder):
    """Within, no other process can be in `lock` of this folder, which need not be there yet.

    The lock is the file .<folder>.lock beside it, so that the folder itself can be deleted. It ends
    with its process, however that ends.

    Raises:
        UserError: another process holds it; its number and machine are named.
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
        if fcntl:  # elsewhere the system deletes it
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path):
    """Descriptor of a lock file that is ours. Raises BlockingIOError or FileExistsError."""
    if not fcntl:  # Windows deletes such a file when its process ends
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
        except OSError:  # a network disk that knows no locks
            return descriptor
        os.close(descriptor)


def _holder(path):
    try:
        return path.read_text() or "another process"
    except OSError:
        return "another process"


def read_json(path, remedy, **kinds):
    """The object in a JSON file, or None if there is no file.

    Takes what editors write: UTF-8 or UTF-16, with or without a byte-order mark.

    Args:
        path: the file.
        remedy: what the user can do if it is damaged. It must not lose data.
        kinds: keys that it must have, and the types of their values.

    Raises:
        UserError: it is damaged.
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


MEND = "mend it, or restore it from a copy"  # a remedy that loses nothing


@contextlib.contextmanager
def undamaged(path, remedy):
    """Within, what contents of another form raise becomes a `UserError` with the ``remedy``."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: damaged; {remedy}") from None


def write_json(path, content, indent=1, place=None):
    """Write a JSON file by `complete`."""
    with complete(path, place) as part:
        part.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def write_csv(path, rows):
    """Write a CSV file by `complete`. Of a file name, bytes that are no UTF-8 are escaped."""
    utf8 = {"encoding": "utf-8", "errors": "backslashreplace"}
    with complete(path) as part, open(part, "w", newline="", **utf8) as file:
        csv.writer(file).writerows(rows)


def read_csv(path):
    """The rows of a table, lists of strings; empty lines are left out.

    Takes what spreadsheets write: commas, semicolons or tabs, UTF-8 or UTF-16, with or without a
    byte-order mark. Bytes that are no UTF-8 become what they are in a file name of Python's.

    Raises:
        UserError: there is no such file, or it is no text.
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
        raise UserError(f"{path}: is no text; give a CSV file") from None
    return [row for row in rows if row]


def _find_delimiter(text):
    """The sign that cuts the first line into most columns; a comma, if none does."""
    first = text.lstrip().partition("\n")[0]
    best, most = ",", 1
    for delimiter in (",", ";", "\t"):
        columns = len(next(csv.reader([first], delimiter=delimiter), []))
        if columns > most:
            best, most = delimiter, columns
    return best


class FoundFiles(NamedTuple):
    """What `look_for_files` finds."""

    files: list  # paths, sorted
    unreadable: list  # paths of folders and links that could not be looked at


def find_files(folder, extensions):
    """Files below ``folder`` whose extension is one of ``extensions`` in any case, sorted.

    See `look_for_files`.
    """
    return look_for_files(folder, extensions).files


def look_for_files(folder, extensions):
    """Find files by extension, in any case. What cannot be looked at is named and passed over.

    Links are followed; what is hidden, and what lies in hidden folders (.ipynb_checkpoints, a
    desktop's .Trash-1000), is left out. Whoever deletes what belongs to files that are gone must
    spare what belongs to ``unreadable`` ones.

    Returns:
        `FoundFiles`.

    Raises:
        UserError: ``folder`` is not a folder.
        OSError: ``folder`` itself cannot be looked at.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; check the path")
    found = FoundFiles([], [])
    _walk(list_folder(folder), extensions, (os.path.realpath(folder),), found)
    found.files.sort()
    return found


def _walk(entries, extensions, above, found):
    """Add to `FoundFiles`; ``above`` are the real paths of the folders so far, as links lead up."""
    for entry in entries:
        path = Path(entry.path)
        try:
            if entry.is_dir():
                real = os.path.realpath(path)
                if real not in above:
                    _walk(list_folder(path), extensions, (*above, real), found)
            elif path.suffix.lower() in extensions:
                if not os.path.lexists(path):  # deleted since
                    continue
                if stat.S_ISREG(entry.stat().st_mode):
                    found.files.append(path)
        except OSError as error:
            found.unreadable.append(path)
            pass_over(f"{path}: {error.strerror}")


def is_spared(path, unreadable):
    """Whether what ``path`` was made from may lie among what could not be looked at.

    Args:
        path: of a file that is named as what it was made from, but for the extension.
        unreadable: as of `FoundFiles`, relative to the same folder as ``path``.
    """
    for entry in unreadable:
        if entry in path.parents or entry.with_suffix("") == path.with_suffix(""):
            return True
    return False


def list_folder(folder):
    """The entries of a folder that are not hidden, as of os.scandir.

    Raises:
        OSError: it cannot be listed, or what is in it not be opened.
    """
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    os.stat(os.path.join(folder, "."))  # who may list a folder need not be allowed to enter it
    return shown


def list_folders(folder):
    """The folders in a folder that are not hidden, sorted.

    Returns:
        list of paths; None if the folder is not there, or cannot be looked at, which is told.
    """
    entries = attempt(list_folder, folder)
    if isinstance(entries, UserError):
        if os.path.isdir(folder):
            pass_over(entries)
        return None
    return sorted(Path(folder) / entry.name for entry in entries if _is_folder(entry))


def _is_folder(entry):
    """Whether an entry of os.scandir is a folder; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def check_folder(folder, flag):
    """Check, before any work, that files can be written below ``folder``, which need not be there.

    Raises:
        UserError: it, or what it lies in, is a file or cannot be written to; ``flag`` is named.
    """
    folder = Path(folder)
    for path in (folder, *folder.absolute().parents):
        if path.is_dir():
            if not os.access(path, os.W_OK):
                raise UserError(f"{path}: cannot be written to; give {flag} a folder that can")
            return
        if os.path.lexists(path):
            raise UserError(f"{flag} {folder}: {path} is a file; give a folder")


def find_named(folder, extensions):
    """`find_files` by name: {path below ``folder``, without extension: path}."""
    named = {}
    for path in find_files(folder, extensions):
        named[path.relative_to(folder).with_suffix("").as_posix()] = path
    return named
