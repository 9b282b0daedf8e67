"""Browser tabs: each has its own uploads and results and cannot see those of others.

A page sends a word that names its tab. A client may choose any word, so it is only looked up and is
never part of a path. Files get random names.
"""

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sound.recordings import AUDIO_EXTENSIONS

TABS = 100  # beyond this number the tab unused for the longest time ends, without files first
KEPT_BATCHES = 8  # of a tab; older ones are deleted
KEPT_UPLOADS = 8  # of a tab; older ones are deleted
DISK = 10e9  # bytes of all tabs together
SPARE = 1e9  # bytes that stay free on the disk
UNCLAIMED = 600  # s after which an upload that no page asked about is deleted
SOUND = "/sound/"  # where results are served
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Full(Exception):
    """There is no space for more files."""


class File(NamedTuple):
    """A file that may be served."""

    path: Path
    name: str  # for display, never part of a path
    began: float  # s, `time.monotonic`


class Result(NamedTuple):
    """One sound of a `Batch`."""

    title: str
    name: str  # of the file that is downloaded
    sound: str  # addresses
    picture: str
    seconds: float
    loudness: float  # LUFS


class Batch:
    """The results of one recording from one click.

    Attributes:
        name: name of the recording.
        how: description of the conversion.
        folder: folder of its files.
        results: list of `Result`.
    """

    def __init__(self, name, folder):
        self.name = name
        self.how = ""
        self.folder = folder
        self.results = []


class Tab:
    """One browser tab: uploads, results and running work."""

    def __init__(self, folder):
        self.folder = folder
        self.uploads = {}  # `File` by its path as text
        self.results = {}  # `File` by the random part of its address
        self.batches = []  # oldest first
        self.jobs = {}  # `worker.Job` by what it is for
        self.source = None  # path of the newest upload, as text
        self.lengths = {}  # s, by upload
        self.sizes = {}  # bytes of 1 s of sound, by upload
        self._seen = []  # uploads, in order of arrival
        self._recorded = []
        self.is_open = True
        self.used = time.monotonic()

    def begin(self, kind, job):
        """Store a job, so that it ends with the tab; an earlier job of the same kind is stopped."""
        before = self.jobs.get(kind)
        if before is not None:
            before.stop()
        self.jobs[kind] = job
        if not self.is_open:  # closed meanwhile
            job.stop()

    def stop(self, kind):
        """Stop the job of a kind, if there is one."""
        if kind in self.jobs:
            self.jobs[kind].stop()

    def choose(self, uploads, recording):
        """Of files that were dropped and a recording, paths or None, what came last.

        Returns:
            list of `File` with names for people, all of ``uploads`` or the recording alone. None
            stands for one that is not known. Empty if there are neither.
        """
        dropped = [str(path) for path in uploads or ()]
        sources = dropped if recording is None else [*dropped, str(recording)]
        for path in sources:
            if path not in self._seen:
                self._seen.append(path)
                self.source = path
        if self.source not in sources:
            self.source = sources[0] if sources else None
        if self.source is None or self.source != str(recording):
            return [self.uploads.get(path) for path in dropped]
        if self.source not in self._recorded:
            self._recorded.append(self.source)
        file = self.uploads.get(self.source)
        name = f"recording {1 + self._recorded.index(self.source)}"
        return [file and file._replace(name=name)]

    def new_copies(self, count):
        """Paths for copies of the recordings that came last, in place of those before."""
        folder = self.folder / "heard"
        for token, file in list(self.results.items()):
            if file.path.parent == folder:
                del self.results[token]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return [folder / f"{secrets.token_hex(8)}.wav" for _ in range(count)]

    def new_batch(self, name):
        """Add a `Batch` for a recording called ``name``; the oldest one may be deleted."""
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        self.batches.append(Batch(name, folder))
        if len(self.batches) > KEPT_BATCHES:
            self.drop(self.batches[0])
        return self.batches[-1]

    def drop(self, batch):
        """Delete a batch."""
        if batch in self.batches:
            self.batches.remove(batch)
        for token, file in list(self.results.items()):
            if file.path.parent == batch.folder:
                del self.results[token]
        shutil.rmtree(batch.folder, ignore_errors=True)

    def publish(self, path, name):
        """Serve a file of this tab under a random address; returns the address."""
        token = secrets.token_urlsafe(16)
        self.results[token] = File(Path(path), name, time.monotonic())
        return f"{SOUND}{token}/{quote(name)}"

    def delete(self):
        """Stop the tab's work and delete its files."""
        self.is_open = False
        for job in self.jobs.values():
            job.stop()
        for upload in self.uploads.values():
            shutil.rmtree(upload.path.parent, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Tabs:
    """All open tabs.

    Args:
        root: folder for all files; uploads are in its ``uploads``.
    """

    def __init__(self, root):
        self.root = Path(root)
        self._tabs = {}  # by session
        self._unclaimed = {}  # `File` by its path as text
        self._reserved = 0  # bytes of uploads under way
        self._lock = threading.Lock()

    def of(self, session):
        """Return the `Tab` of a session, a new one if needed. Raises ValueError for a bad name."""
        if not is_session(session):
            raise ValueError(f"session {session!r}: not one that a page sends")
        ended = []
        with self._lock:
            tab = self._tabs.get(session)
            if tab is None:
                while len(self._tabs) >= TABS:
                    longest = min(self._tabs.values(), key=_worth)
                    ended.append(longest)
                    self._tabs = {
                        name: tab for name, tab in self._tabs.items() if tab is not longest
                    }
                tab = self._tabs[session] = Tab(self.root / secrets.token_hex(16))
            tab.used = time.monotonic()
        for old in ended:
            old.delete()
        return tab

    def end(self, session):
        """Delete the data of a closed tab."""
        with self._lock:
            tab = self._tabs.pop(session, None)
        if tab is not None:
            tab.delete()

    def reserve(self, size):
        """Reserve space for files of ``size`` bytes, until `release`. Raises Full."""
        self._delete_unclaimed()
        used = _measure(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        with self._lock:
            total = self._reserved + size
            if used + total > DISK or free - total < SPARE:
                raise Full
            self._reserved = total

    def release(self, size):
        """Release the space of `reserve`, after the files are written or given up."""
        with self._lock:
            self._reserved -= size

    @contextlib.contextmanager
    def reserved(self, size):
        """Reserve space for files of ``size`` bytes in the block. Raises Full."""
        self.reserve(size)
        try:
            yield
        finally:
            self.release(size)

    def new_upload(self, name):
        """Path for an upload called ``name``; only a known extension of the name is used."""
        folder = self.root / "uploads" / secrets.token_hex(16)
        folder.mkdir(parents=True)
        ending = os.path.splitext(name)[1].lower()
        return folder / f"recording{ending if ending in AUDIO_EXTENSIONS else ''}"

    def add_upload(self, path, name):
        """Add a complete upload. The first tab that names it owns it."""
        with self._lock:
            self._unclaimed[str(path)] = File(path, name, time.monotonic())

    def claim(self, session, path):
        """Whether ``path``, text, is an upload that this session may use."""
        tab = self.of(session)
        old = []
        with self._lock:
            if path in self._unclaimed:
                tab.uploads[path] = self._unclaimed.pop(path)
            while len(tab.uploads) > KEPT_UPLOADS:
                old.append(tab.uploads.pop(next(iter(tab.uploads))))
        for file in old:
            shutil.rmtree(file.path.parent, ignore_errors=True)
        return path in tab.uploads

    def find_upload(self, path):
        """`File` of an upload by its path as text, or None."""
        with self._lock:
            if path in self._unclaimed:
                return self._unclaimed[path]
            return _find(path, [tab.uploads for tab in self._tabs.values()])

    def find_result(self, token):
        """`File` of a result by the random part of its address, or None."""
        with self._lock:
            return _find(token, [tab.results for tab in self._tabs.values()])

    def _delete_unclaimed(self):
        oldest = time.monotonic() - UNCLAIMED
        with self._lock:
            old = [path for path, file in self._unclaimed.items() if file.began < oldest]
            files = [self._unclaimed.pop(path) for path in old]
        for file in files:
            shutil.rmtree(file.path.parent, ignore_errors=True)


def is_session(text):
    """Whether a word is a valid session name."""
    return isinstance(text, str) and _SESSION.fullmatch(text) is not None


def _worth(tab):
    """Key for `min`: tabs without files first, then those unused for the longest time."""
    return bool(tab.uploads or tab.results), tab.used


def _measure(folder):
    """Bytes of all files below a folder; other threads may delete some meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(place, name).lstat().st_size
    return size


def _find(key, books):
    """Look up ``key`` in several dicts: the first value found, or None."""
    for book in books:
        if key in book:
            return book[key]
    return None
