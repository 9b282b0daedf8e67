"""Record what each output of a folder was made from, to find outputs that are out of date.

    record = Record(folder)
    if record.plan(output, [source], settings) == FOREIGN:
        ...  # the user's own file: report it or stop, but never overwrite it
    if record.plan(output, [source], settings) == DUE:
        place = record.plan_place(output)
        record.begin([output])  # before the work, for all outputs at once
        make(output, place)  # by `files.complete`, here or in another process
        record.add(output, [source], settings)  # right after, in the parent process
        # or, if that failed: record.give_up(output, place)

The record is <folder>/.made.jsonl, with a line for each output started or made; the last line of an
output counts. Lines are only appended, each with one write. So two processes can share a folder,
and a killed run damages one line at most. Names are relative, so the folder can be moved.
"""

import filecmp
import json
import os
from pathlib import Path
from typing import NamedTuple

from common.cli import UserError
from common.files import place_new

NAME = ".made.jsonl"
CURRENT, DUE, FOREIGN = "current", "due", "foreign"  # see `Record.plan`


class Record:
    """Record of the outputs that this project made in ``folder``; both may not exist yet."""

    def __init__(self, folder):
        self._folder = Path(os.path.abspath(folder))
        self._path = self._folder / NAME
        self._states = {}  # {source: `look_at` at the first check}
        self._forget()

    def is_current(self, output, sources, settings):
        """Whether ``output`` exists unchanged and was made from these sources and settings.

        Args:
            output: path below the folder.
            sources: paths of files, compared by name, size and modification time.
            settings: JSON-compatible dict of everything else that determines the content.
        """
        states = self._states_of(sources)  # first, because `add` relies on it
        entry = self._entry(output)
        if None in states or entry is None or not self._is_as_made(output, entry):
            return False
        return entry["sources"] == states and entry["settings"] == _as_json(settings)

    def plan(self, output, sources, settings):
        """Decide what to do with an output; all scripts use this rule. Arguments: `is_current`.

        Returns:
            `CURRENT`: up to date; `DUE`: missing, or ours and out of date; `FOREIGN`: a file that
            is not ours and must stay.
        """
        if self.is_current(output, sources, settings):
            return CURRENT
        if os.path.lexists(output) and not self.knows(output):
            return FOREIGN
        return DUE

    def knows(self, output):
        """Whether ``output`` is ours: made here and unchanged, or started by an interrupted run.

        Other files are the user's and must not be overwritten or deleted silently.
        """
        entry = self._entry(output)
        if entry is None:
            return False
        return "begun" in entry or self._is_as_made(output, entry)

    def has_made(self, output):
        """Whether ``output`` was made here and is unchanged: `knows` without started outputs."""
        entry = self._entry(output)
        return entry is not None and self._is_as_made(output, entry)

    def plan_place(self, output):
        """Make the `Place` that renames the complete ``output``. Call it before `begin`."""
        before = look_at(output) if self.knows(output) else None
        return Place(self._folder, before)

    def begin(self, outputs):
        """Record that work on ``outputs`` starts, so that they stay ours if this run is killed.

        Give only outputs that do not exist or are ours.
        """
        self._append([{"output": self._name(output), "begun": True} for output in outputs])

    def give_up(self, output, place):
        """Record, after `begin` and a failure, that a file that appeared meanwhile is not ours.

        Otherwise the next run would count it as ours. ``place``: from `plan_place`.
        """
        if os.path.lexists(output) and not place.may_replace(output):
            foreign = {"size": None, "sources": [], "settings": {}}
            self._append([{"output": self._name(output), **foreign}])

    def add(self, output, sources, settings):
        """Record the sources and settings of a complete ``output``. Arguments: `is_current`.

        The recorded state of a source is that of its first check, so a source that changed during
        the work counts as changed.
        """
        entry = {
            "output": self._name(output),
            "size": os.stat(output).st_size,
            "sources": self._states_of(sources),
            "settings": settings,
        }
        self._append([entry])

    def state_of(self, source):
        """`look_at` of a source at its first check: what the outputs of this run are made from."""
        path = os.path.abspath(source)
        if path not in self._states:
            self._states[path] = look_at(path)
        return self._states[path]

    def _name(self, output):
        """Name of ``output`` in the record: relative to the folder, with slashes."""
        return Path(os.path.abspath(output)).relative_to(self._folder).as_posix()

    def _is_as_made(self, output, entry):
        try:
            return os.stat(output).st_size == entry.get("size")
        except OSError:
            return False

    def _states_of(self, sources):
        return [self.state_of(source) for source in sources]

    def _append(self, entries):
        if not entries:
            return
        lines = [json.dumps(entry) + "\n" for entry in entries]  # ASCII, even for invalid UTF-8
        text = "".join(lines).encode()
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(self._path, "a+b", buffering=max(len(text) + 1, 2)) as file:
                if _is_torn(file):
                    text = b"\n" + text
                file.write(text)
        except OSError as error:  # for a full disk, Python does not name the file
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def _entry(self, output):
        """The last entry of ``output``, or None."""
        self._read_on()
        return self._entries.get(self._name(output))

    def _read_on(self):
        """Read the lines appended since the last call, by any process."""
        try:
            size = os.stat(self._path).st_size
        except FileNotFoundError:
            size = 0
        if size < self._offset:  # deleted, or started again
            self._forget()
        if size == self._offset:
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # a line without its end is not complete yet
        self._offset += len(whole)
        for line in whole.splitlines():
            entry = _parse(line)
            if entry is not None:
                self._entries[entry["output"]] = entry

    def _forget(self):
        self._entries = {}  # {name: last entry}
        self._offset = 0  # bytes of the file that were read


class Place(NamedTuple):
    """Renames complete files, for `files.complete`, and keeps files that are not ours."""

    folder: Path  # of the record
    before: list | None  # `look_at` of the output to be replaced; None: it did not exist

    def may_replace(self, path):
        """Whether the existing file is ours: unchanged, or made by another run meanwhile."""
        now = look_at(path)
        if now is None:
            return False
        return now == self.before or Record(self.folder).has_made(path)

    def __call__(self, part, path):
        """Rename ``part`` to ``path``. Raises UserError if a file exists that is not ours.

        A file with the same content is left: a worker that was killed before it reported made it.
        """
        if self.may_replace(path):
            os.replace(part, path)
        elif not place_new(part, path):
            if not _is_same(part, path):
                raise UserError(
                    f"{path}: appeared meanwhile and was not made by this command, so it is kept; "
                    "move it away and run again"
                )
            os.unlink(part)


def _is_same(one, other):
    """Whether two files have the same content; False if one cannot be read."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def look_at(path):
    """[name, size, modification time in ns] of a file, or None if it cannot be accessed."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [os.path.basename(path), found.st_size, found.st_mtime_ns]


def _as_json(settings):
    """Convert ``settings`` as JSON does: tuples become lists, keys become strings."""
    return json.loads(json.dumps(settings))


def _is_torn(file):
    """Whether the file's last line is incomplete, as after a killed run."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _parse(line):
    """Parse a line: its entry, or None if it is incomplete or not ours."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("output"), str):
        return None
    if "begun" in entry:
        return entry
    return entry if {"size", "sources", "settings"} <= entry.keys() else None
