"""Record what each output of a folder was made from, to find outputs that are out of date.

    record = Record(folder)
    if record.plan(output, [source], settings) == FOREIGN:
        ...  # the user's own file: say so, or refuse, but never overwrite it
    if record.plan(output, [source], settings) == DUE:
        place = record.plan_place(output)
        record.begin([output])  # before the work, of all outputs at once
        make(output, place)  # by `files.complete`, here or in another process
        record.add(output, [source], settings)  # right after, in the parent process
        # or, if that failed: record.give_up(output, place)

The record is <folder>/.made.jsonl: one line for each output begun or made, the last one counts.
Lines are only ever appended, each by one write, so that two processes may share a folder and a
run that was killed costs one line at most. Names in it are relative: a folder can be moved.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from common.cli import UserError
from common.files import place_new

NAME = ".made.jsonl"
CURRENT, DUE, FOREIGN = "current", "due", "foreign"  # see `Record.plan`


class Record:
    """What this project made in ``folder``. Neither the folder nor the record needs to be there."""

    def __init__(self, folder):
        self._folder = Path(os.path.abspath(folder))
        self._path = self._folder / NAME
        self._states = {}  # {source: [name, size, mtime_ns] when it was first looked at}
        self._forget()

    def is_current(self, output, sources, settings):
        """Whether ``output`` is there as it was made, from these source files and settings.

        Args:
            output: path below the folder.
            sources: paths of files. One is the same if name, size and modification time are.
            settings: what else decides about the content, a dict that JSON can hold.
        """
        states = self._states_of(sources)  # first, for `add` relies on it
        entry = self._entry(output)
        if None in states or entry is None or not self._is_as_made(output, entry):
            return False
        return entry["sources"] == states and entry["settings"] == _as_json(settings)

    def plan(self, output, sources, settings):
        """What is to be done with an output: the one rule for all scripts. Arguments as above.

        Returns:
            `CURRENT`: it is there, made from these; `DUE`: it is missing, or ours and out of date;
            `FOREIGN`: something is there that is not ours, and must stay.
        """
        if self.is_current(output, sources, settings):
            return CURRENT
        if os.path.lexists(output) and not self.knows(output):
            return FOREIGN
        return DUE

    def knows(self, output):
        """Whether ``output`` is ours: made here and not changed since, or begun by a run that died.

        What is not ours is the user's, and is never to be overwritten or deleted silently.
        """
        entry = self._entry(output)
        if entry is None:
            return False
        return "begun" in entry or self._is_as_made(output, entry)

    def has_made(self, output):
        """Whether ``output`` is as it was made here: `knows`, without what was only begun."""
        entry = self._entry(output)
        return entry is not None and self._is_as_made(output, entry)

    def plan_place(self, output):
        """How ``output`` gets its name once it is complete: a `Place`. Call it before `begin`."""
        before = look_at(output) if self.knows(output) else None
        return Place(self._folder, before)

    def begin(self, outputs):
        """Note that ``outputs`` are about to be made: if this run is killed, the next knows them.

        Give only outputs that are not there, or that are ours.
        """
        self._append([{"output": self._name(output), "begun": True} for output in outputs])

    def give_up(self, output, place):
        """Note, after `begin` and a failure, that a file that is there by now is not ours.

        ``place`` is of `plan_place`. Else the next run would take the file for one of ours.
        """
        if os.path.lexists(output) and not place.may_replace(output):
            foreign = {"size": None, "sources": [], "settings": {}}
            self._append([{"output": self._name(output), **foreign}])

    def add(self, output, sources, settings):
        """Note what ``output``, which is complete, was made from; arguments as of `is_current`.

        A source counts as it was when this record first looked at it: one that changed while the
        output was being made counts as changed.
        """
        entry = {
            "output": self._name(output),
            "size": os.stat(output).st_size,
            "sources": self._states_of(sources),
            "settings": settings,
        }
        self._append([entry])

    def _name(self, output):
        """``output``'s name in the record: relative to the folder, with slashes."""
        return Path(os.path.abspath(output)).relative_to(self._folder).as_posix()

    def _is_as_made(self, output, entry):
        try:
            return os.stat(output).st_size == entry.get("size")
        except OSError:
            return False

    def _states_of(self, sources):
        """[name, size, modification time] of each source, or None if it cannot be looked at."""
        states = []
        for source in sources:
            path = os.path.abspath(source)
            if path not in self._states:
                self._states[path] = look_at(path)
            states.append(self._states[path])
        return states

    def _append(self, entries):
        if not entries:
            return
        lines = [json.dumps(entry) + "\n" for entry in entries]  # ASCII, names in bad UTF-8 too
        text = "".join(lines).encode()
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(self._path, "a+b", buffering=max(len(text) + 1, 2)) as file:
                if _is_torn(file):
                    text = b"\n" + text
                file.write(text)
        except OSError as error:  # of a full disk, Python does not say where
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def _entry(self, output):
        """The last entry of ``output``, or None."""
        self._read_on()
        return self._entries.get(self._name(output))

    def _read_on(self):
        """Take in the lines that were appended since the last look, by whichever process."""
        try:
            size = os.stat(self._path).st_size
        except FileNotFoundError:
            size = 0
        if size < self._offset:  # deleted, or begun anew
            self._forget()
        if size == self._offset:
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # a line without its end may still be growing
        self._offset += len(whole)
        for line in whole.splitlines():
            entry = _parse(line)
            if entry is not None:
                self._entries[entry["output"]] = entry

    def _forget(self):
        self._entries = {}  # {name: last entry}
        self._offset = 0  # bytes of the file that are in `_entries`


class Place(NamedTuple):
    """Gives complete files their names, for `files.complete`: what is not ours is kept."""

    folder: Path  # of the record
    before: list | None  # `look_at` of the output that is to be made again; None: there was none

    def may_replace(self, path):
        """Whether what is there is ours: as it was before, or made by another run meanwhile."""
        now = look_at(path)
        if now is None:
            return False
        return now == self.before or Record(self.folder).has_made(path)

    def __call__(self, part, path):
        """Rename ``part`` to ``path``. Raises UserError if a file that is not ours is there."""
        if self.may_replace(path):
            os.replace(part, path)
        elif not place_new(part, path):
            raise UserError(
                f"{path}: appeared meanwhile and was not made by this command, so it is kept; "
                "move it away and run again"
            )


def look_at(path):
    """[name, size, modification time in ns] of a file, or None if it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [os.path.basename(path), found.st_size, found.st_mtime_ns]


def _as_json(settings):
    """``settings`` as they come back from a file: tuples as lists, keys as strings."""
    return json.loads(json.dumps(settings))


def _is_torn(file):
    """Whether the file's last line lacks its end, as a killed run may leave it."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _parse(line):
    """The entry of a line, or None if it is torn or not ours."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("output"), str):
        return None
    if "begun" in entry:
        return entry
    return entry if {"size", "sources", "settings"} <= entry.keys() else None
