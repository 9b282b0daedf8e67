"""Read a MIDI file as an array of notes; change its tempo, note lengths and pitch.

`smf` parses the file. This module turns its messages into notes and leaves out drums (`drums`).
pretty_midi rejects many damaged files and does not apply the pedal. For an undamaged file the notes
are those of pretty_midi (with ``pedal=False``), with three exceptions:

- Overlapping notes of one pitch keep their own ends. pretty_midi ends them all at the first.
- Notes of zero length are kept. pretty_midi leaves them out.
- Drums on channels other than 10 are left out. pretty_midi reads them as a melody.

Rules for unclear files. A channel is one of a port's 16.

- If a pitch is struck twice, the first strike is released first.
- A note without a note-off lasts until its pitch is struck again or released on its channel, in
  any track, otherwise to the end of the file, as in FluidSynth. A lost note-off affects one note
  only.
- "All notes off" releases every key of its channel, in all tracks. "All sound off" also ends notes
  held by the pedal.
- The patterns of a type 2 file play one after the other, each with its own tempo and pedal.
"""

import bisect
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from common.cli import UserError
from synthesis import smf
from synthesis.drums import DrumParts

# One row per note: onset and duration in seconds, MIDI pitch and velocity (1 - 127)
NOTE = np.dtype(
    [("onset", np.float64), ("duration", np.float64), ("pitch", np.int32), ("velocity", np.int32)]
)
MAX_BYTES = 4 << 20  # of a file: half a million notes
MAX_SECONDS = 4 * 3600  # of a piece: a wrong tick in a damaged file could mean a gap of days
DEFAULT_TEMPO = 500_000  # microseconds per quarter note until the first tempo event: 120 bpm

# Controllers
_SUSTAIN, _ALL_SOUND_OFF, _RESET_CONTROLLERS = 64, 120, 121
_ALL_NOTES_OFF = range(123, 128)  # 124 - 127 change a channel's mode and also release its keys
_PEDAL_DOWN = 64  # smallest value of the sustain pedal that counts as down

_TICK_BITS = 52  # enough for the largest tick in a file of MAX_BYTES
_NEVER = np.iinfo(np.int64).max


def read_score(path, pedal=True):
    """Read a standard MIDI file: all tracks and tempo changes, without drums.

    Args:
        path: a .mid file.
        pedal: apply the sustain pedal (controller 64, down from value 64 on). A note released
            while the pedal of its channel is down sounds until the pedal comes up or the same
            pitch is struck again.

    Returns:
        array (notes,) of `NOTE`, sorted by onset.

    Raises:
        UserError: not a MIDI file, no notes, or beyond `MAX_BYTES` or `MAX_SECONDS`.
    """
    score, _ = read_repaired(path, pedal)
    return score


def read_repaired(path, pedal=True):
    """`read_score` with a report of repairs.

    Returns:
        (score, repairs): ``repairs`` is text such as ``"note never switched off: 2"``, or "" for a
        valid file.

    Raises:
        UserError: as `read_score`.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"is larger than {MAX_BYTES >> 20} MB")
        return _parse_score(path.read_bytes(), pedal)
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; leave this file out or export it again as MIDI"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from None


def _parse_score(content, pedal):
    """Parse a file's bytes: (score, repairs as text). Raises ValueError if it has no notes."""
    file = smf.parse(content)
    parts = [file.tracks]  # lists of simultaneous tracks
    if file.form == 2 and len(file.tracks) > 1:
        parts = [[track] for track in file.tracks]
        file.repairs["patterns of a type 2 file played one after the other"] = len(parts)
    scores = [np.empty(0, NOTE)]
    drums = 0
    begin = 0.0  # s
    for tracks in parts:
        notes = _Notes(tracks, file.repairs)
        tempos = _list_tempos(tracks)
        score = _make_score(notes, tempos, file, pedal)
        score["onset"] += begin
        scores.append(score)
        drums += notes.drums
        begin += float(_to_seconds(np.int64(notes.end), tempos, file))
    score = np.concatenate(scores)
    repairs = smf.describe_repairs(file.repairs)
    if len(score) == 0:
        reason = "has drums only" if drums else "has no notes"
        if repairs:
            reason += f" ({repairs})"
        raise ValueError(reason)
    return _sort_checked(score), repairs


def change_score(score, speed=1.0, duration_rate=1.0, transpose=0):
    """Change tempo, note durations and pitch of a score; returns a new array.

    Args:
        score: array (notes,) of `NOTE`.
        speed: 2 plays everything twice as fast.
        duration_rate: 0.5 halves each note's duration; onsets do not change.
        transpose: semitones added to every pitch.

    Raises:
        UserError: the result would be longer than `MAX_SECONDS`.
    """
    changed = score.copy()
    changed["onset"] /= speed
    changed["duration"] *= duration_rate / speed
    changed["pitch"] += transpose
    try:
        return _sort_checked(changed)
    except ValueError as error:
        raise UserError(
            f"at speed {speed:g} and duration rate {duration_rate:g} it {error}; change the flags"
        ) from None


def _sort_checked(score):
    """Sort a score. Raises ValueError if it is too long."""
    seconds = (score["onset"] + score["duration"]).max()
    if not seconds <= MAX_SECONDS:
        raise ValueError(f"lasts {seconds / 3600:,.1f} h; the limit is {MAX_SECONDS / 3600:g} h")
    return np.sort(score, order=("onset", "pitch", "velocity", "duration"))


# Messages -> notes in ticks


class _Controls:
    """Controller events of one channel, from all tracks, that affect its notes."""

    def __init__(self):
        self.pedal = []  # (tick, whether the sustain pedal is down from that tick on)
        self.notes_off = []  # ticks at which all keys are released
        self.sound_off = []  # ticks at which all sound ends

    def add(self, message):
        """Add a control change. Returns whether it releases all keys."""
        controller = message.first
        if controller == _SUSTAIN:
            self.pedal.append((message.tick, message.second >= _PEDAL_DOWN))
        elif controller == _RESET_CONTROLLERS:
            self.pedal.append((message.tick, False))
        elif controller == _ALL_SOUND_OFF:
            self.sound_off.append(message.tick)
        lifts_keys = controller == _ALL_SOUND_OFF or controller in _ALL_NOTES_OFF
        if lifts_keys:
            self.notes_off.append(message.tick)
        return lifts_keys


class _Key:
    """A pitch of a channel in one track: strikes and releases since it was last silent.

    They are paired when the pitch is silent again or the track ends: only then it is known whether
    a release is missing.
    """

    def __init__(self):
        self.strikes = []  # (tick, velocity)
        self.releases = []  # ticks
        self._held = []  # stack of indices of strikes; a release removes the last one

    def strike(self, tick, velocity):
        self._held.append(len(self.strikes))
        self.strikes.append((tick, velocity))

    def release(self, tick):
        """Returns whether the key is silent now."""
        self._held.pop()
        self.releases.append(tick)
        return not self._held

    def release_all(self, tick):
        is_silent = False
        while not is_silent:
            is_silent = self.release(tick)

    def pair_notes(self):
        """Pair strikes and releases, first in, first out: [(on tick, off tick, velocity)]."""
        held = set(self._held)
        ended = [strike for i, strike in enumerate(self.strikes) if i not in held]
        return [(on, off, velocity) for (on, velocity), off in zip(ended, self.releases)]

    def list_endless(self):
        """List strikes whose release is missing: [(on tick, velocity)].

        These are the strikes after which the number of held strikes never fell back: the first of
        on, on, off, on, off. This choice changes the ends of the fewest notes.
        """
        return [self.strikes[i] for i in self._held]


class _Notes:
    """The notes of simultaneous tracks, in ticks."""

    def __init__(self, tracks, repairs):
        self.rows = []  # (on, off, part, pitch, velocity)
        self.drums = 0
        self.controls = defaultdict(_Controls)  # by part
        self.end = max((track.end for track in tracks), default=0)
        self._drum_parts = DrumParts(tracks)
        # By (part, pitch), of all tracks: ticks of strikes and of releases
        self._strikes = defaultdict(list)
        self._releases = defaultdict(list)
        # By (part, pitch): (on, velocity) of notes without an end in their own track, and the
        # number of releases at a tick without a held note in their own track
        self._endless = defaultdict(list)
        self._stray = defaultdict(Counter)
        for track in tracks:
            self._add_track(track)
        for key, notes in self._endless.items():
            self._end_notes(key, sorted(notes), repairs)

    def _add_track(self, track):
        keys = {}  # sounding pitches: {(part, pitch): _Key}
        for message in track.messages:
            if message.kind == smf.CONTROL:
                if self.controls[message.part].add(message):
                    self._lift_all(keys, message)
            elif message.kind == smf.NOTE_ON and message.second > 0:
                self._strike(keys, message)
            elif message.kind in (smf.NOTE_ON, smf.NOTE_OFF):  # a strike of velocity 0 is a release
                self._release(keys, message)
        for key, sounding in keys.items():
            self._keep(key, sounding)

    def _strike(self, keys, message):
        if self._drum_parts.has(message.part, message.tick):
            self.drums += 1
        elif message.first < 128:  # larger pitches are damage
            key = message.part, message.first
            self._strikes[key].append(message.tick)
            if key not in keys:
                keys[key] = _Key()
            keys[key].strike(message.tick, message.second)

    def _release(self, keys, message):
        key = message.part, message.first
        self._releases[key].append(message.tick)
        if key not in keys:
            self._stray[key][message.tick] += 1
            return
        is_silent = keys[key].release(message.tick)
        if is_silent:
            self._keep(key, keys.pop(key))

    def _lift_all(self, keys, message):
        for key in list(keys):
            part, _ = key
            if part == message.part:
                sounding = keys.pop(key)
                sounding.release_all(message.tick)
                self._keep(key, sounding)

    def _keep(self, key, sounding):
        for on, off, velocity in sounding.pair_notes():
            self.rows.append((on, off, *key, velocity))
        self._endless[key] += sounding.list_endless()

    def _end_notes(self, key, notes, repairs):
        """Find an end for notes without one in their own track: sorted [(on, velocity)]."""
        part, _ = key
        stray = self._stray[key]
        releases = sorted(self._releases[key])
        strikes = sorted(self._strikes[key])
        lifts = sorted(self.controls[part].notes_off)
        for on, velocity in notes:
            released = _first_after(on, releases)
            lifted = _first_after(on, lifts)
            struck = _first_after(on, strikes)
            ends = [tick for tick in (released, lifted, struck) if tick is not None]
            off = min(ends, default=self.end)
            if stray[off] > 0:
                stray[off] -= 1  # this release belongs to the note
            elif off != lifted:
                repairs["note never switched off"] += 1
            self.rows.append((on, off, *key, velocity))


def _first_after(tick, ticks):
    """Find the first of the sorted ``ticks`` after ``tick``, or None."""
    index = bisect.bisect_right(ticks, tick)
    return ticks[index] if index < len(ticks) else None


# Notes in ticks -> a score in seconds


def _make_score(notes, tempos, file, pedal):
    """Convert `_Notes` of simultaneous tracks to an array (n,) of `NOTE`, not sorted."""
    rows = np.array(notes.rows, np.int64).reshape(-1, 5)
    on, off, part, pitch, velocity = rows.T
    off = _apply_controls(on, off, part, pitch, notes.controls, pedal)
    score = np.empty(len(rows), NOTE)
    score["onset"] = _to_seconds(on, tempos, file)
    score["duration"] = _to_seconds(off, tempos, file) - score["onset"]
    score["pitch"] = pitch
    score["velocity"] = velocity
    return score


def _apply_controls(on, off, part, pitch, controls, pedal):
    """Apply the controllers of all parts, {part: `_Controls`}: new off ticks (n,)."""
    off = off.copy()
    last = off.max(initial=0)
    for number, control in controls.items():
        mine = np.flatnonzero(part == number)
        ends = _cut(on[mine], off[mine], control.notes_off)
        if pedal and control.pedal:
            presses = sorted(control.pedal, key=_tick_of)
            ends = _apply_pedal(on[mine], ends, pitch[mine], presses, last)
        off[mine] = _cut(on[mine], ends, control.sound_off)
    return off


def _tick_of(change):
    """Sorting key of a pedal or tempo change: its tick."""
    return change[0]


def _cut(on, off, ticks):
    """Limit off ticks to the first of ``ticks`` after the note's on tick."""
    ends = np.append(np.sort(np.array(ticks, np.int64)), _NEVER)
    return np.minimum(off, ends[np.searchsorted(ends, on, side="right")])


def _apply_pedal(on, off, pitch, presses, last):
    """Apply the pedal to the notes of one channel: new off ticks.

    An off tick while the pedal is down moves to the pedal's next release, but not past the next
    strike of the pitch. If the key is still held at that strike, the off tick does not change.

    Args:
        on, off, pitch: int64 (n,).
        presses: [(tick, whether the pedal is down from that tick on)], sorted, not empty.
        last: tick of the release if the pedal is never released.
    """
    ticks = np.array([tick for tick, _ in presses])
    down = np.array([is_down for _, is_down in presses])
    up = np.append(np.where(down, _NEVER, ticks), max(last, ticks[-1]))
    next_up = np.minimum.accumulate(up[::-1])[::-1]
    press = np.searchsorted(ticks, off, side="right") - 1  # last change at or before the off tick
    pedalled = np.where((press >= 0) & down[press], next_up[press], off)
    # Pitch and tick in one number, so one search finds the next strike of a pitch
    key = (pitch << _TICK_BITS) + on
    strikes = np.append(np.unique(key), np.int64(128) << _TICK_BITS)
    following = strikes[np.searchsorted(strikes, key, side="right")]  # may have a higher pitch
    same_pitch = following >> _TICK_BITS == pitch
    next_strike = np.where(same_pitch, following - (pitch << _TICK_BITS), pedalled)
    return np.maximum(off, np.minimum(pedalled, next_strike))


def _list_tempos(tracks):
    """List the tempos of simultaneous tracks, sorted: [(tick, microseconds per quarter note)]."""
    tempos = [(0, DEFAULT_TEMPO)]
    for track in tracks:
        tempos += track.tempos
    return sorted(tempos, key=_tick_of)


def _to_seconds(tick, tempos, file):
    """Convert ticks, int64 of any shape, to seconds, float64.

    Args:
        tick: since the start of the tracks.
        tempos: from `_list_tempos`; the last one at a tick counts.
        file: `smf.File`, for its time division.
    """
    if file.ticks_per_beat is None:
        return tick / file.ticks_per_second
    changes = dict(tempos)
    ticks = np.array(list(changes), float)
    rates = np.array(list(changes.values())) / (1e6 * file.ticks_per_beat)  # s per tick
    starts = np.append(0, np.cumsum(np.diff(ticks) * rates[:-1]))  # s at each change
    index = np.searchsorted(ticks, tick, side="right") - 1
    return starts[index] + (tick - ticks[index]) * rates[index]
