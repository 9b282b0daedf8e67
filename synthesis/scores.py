"""Read a MIDI file as an array of notes; change its tempo, note lengths and pitch.

`smf` takes the file apart; here its messages become notes, without drums (`drums`). Of a whole file
they must be the same notes as pretty_midi's, with ``pedal=False``, but for three kinds:

- Notes of one pitch that overlap each keep their own end. pretty_midi ends them all at the first.
- Notes of no length are kept. pretty_midi leaves them out.
- Drums that are not on channel 10 are left out. pretty_midi takes them for a melody.

Why a reader of our own: pretty_midi refuses many damaged files, and does not apply the pedal.

Rules where files are unclear. A channel is one of a port's 16.

- Of one pitch struck twice, what was struck first is released first.
- A note that is never switched off lasts until its pitch is struck again or released on its
  channel, in any track, or else to the end of the file. So does FluidSynth. A lost note-off harms
  one note, not all later ones of that pitch.
- "All notes off" lifts every key of its channel, in all tracks; "all sound off" lifts the pedal's
  notes, too.
- The patterns of a type 2 file are played one after the other, each with its own tempo and pedal.
"""

import bisect
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from common.cli import UserError
from synthesis import smf
from synthesis.drums import DrumParts

# One row a note: onset and duration in seconds, MIDI pitch and velocity (1 - 127)
NOTE = np.dtype(
    [("onset", np.float64), ("duration", np.float64), ("pitch", np.int32), ("velocity", np.int32)]
)
MAX_BYTES = 4 << 20  # of a file: half a million notes
MAX_SECONDS = 4 * 3600  # of a piece: a stray tick of a broken file must not become a gap of days
DEFAULT_TEMPO = 500_000  # microseconds a quarter note, until a file says otherwise: 120 a minute

# Controllers
_SUSTAIN, _ALL_SOUND_OFF, _RESET_CONTROLLERS = 64, 120, 121
_ALL_NOTES_OFF = range(123, 128)  # 124 - 127 change a channel's mode, which lifts its keys, too
_PEDAL_DOWN = 64  # the sustain pedal's value, from which on it is down

_TICK_BITS = 52  # a file of MAX_BYTES cannot count further
_NEVER = np.iinfo(np.int64).max


def read_score(path, pedal=True):
    """Read a standard MIDI file: all tracks and tempo changes, drums left out.

    Args:
        path: a .mid file.
        pedal: apply the sustain pedal (controller 64, down from 64 on): a note whose key comes up
            while its channel's pedal is down rings on until the pedal comes up or the same pitch
            is struck again.

    Returns:
        array (notes,) of `NOTE`, sorted by onset.

    Raises:
        UserError: no MIDI file, one without notes, or beyond `MAX_BYTES` or `MAX_SECONDS`.
    """
    score, _ = read_repaired(path, pedal)
    return score


def read_repaired(path, pedal=True):
    """`read_score`, and what had to be repaired to read it.

    Returns:
        (score, repairs): ``repairs`` in words, such as ``"note never switched off: 2"``; an empty
        string for a file in order.

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
    """A file's bytes -> (score, repairs in words). Raises ValueError if it holds no notes."""
    file = smf.parse(content)
    parts = [file.tracks]  # what plays together
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
    """A variation of a score, as a new array.

    Args:
        score: array (notes,) of `NOTE`.
        speed: 2 plays everything twice as fast.
        duration_rate: 0.5 halves each note's duration and leaves its onset.
        transpose: semitones added to every pitch.

    Raises:
        UserError: it would last longer than `MAX_SECONDS`.
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
    """The score, sorted. Raises ValueError if it is too long."""
    seconds = (score["onset"] + score["duration"]).max()
    if not seconds <= MAX_SECONDS:
        raise ValueError(
            f"lasts {seconds / 3600:,.1f} h, and the longest allowed is {MAX_SECONDS / 3600:g} h"
        )
    return np.sort(score, order=("onset", "pitch", "velocity", "duration"))


# Messages -> notes in ticks


class _Controls:
    """What the controllers of one channel do to its notes, from all tracks."""

    def __init__(self):
        self.pedal = []  # (tick, whether the sustain pedal is down from there on)
        self.notes_off = []  # ticks at which all keys come up
        self.sound_off = []  # ticks at which everything falls silent

    def add(self, message):
        """Take a control change. Returns whether it lifts all keys."""
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

    They are put together only when it falls silent again, or its track ends: not before is it
    known whether a release is missing.
    """

    def __init__(self):
        self.strikes = []  # (tick, velocity)
        self.releases = []  # ticks
        self._held = []  # indices of strikes, as on a stack: a release takes off the last one

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
        """[(on tick, off tick, velocity)]: what was struck first was released first."""
        held = set(self._held)
        ended = [strike for i, strike in enumerate(self.strikes) if i not in held]
        return [(on, off, velocity) for (on, velocity), off in zip(ended, self.releases)]

    def list_endless(self):
        """[(on tick, velocity)] of strikes whose release is missing.

        They are those at which the number of held strikes rose for good, and so the fewest notes
        get another end than they had: of on, on, off, on, off the first.
        """
        return [self.strikes[i] for i in self._held]


class _Notes:
    """The notes of tracks that play together, in ticks."""

    def __init__(self, tracks, repairs):
        self.rows = []  # (on, off, part, pitch, velocity)
        self.drums = 0
        self.controls = defaultdict(_Controls)  # by part
        self.end = max((track.end for track in tracks), default=0)
        self._drum_parts = DrumParts(tracks)
        # By (part, pitch), of all tracks: ticks of strikes and of releases
        self._strikes = defaultdict(list)
        self._releases = defaultdict(list)
        # By (part, pitch): (on, velocity) of notes that their own track never ends, and how many
        # releases at a tick find nothing held in their own track
        self._endless = defaultdict(list)
        self._stray = defaultdict(Counter)
        for track in tracks:
            self._add_track(track)
        for key, notes in self._endless.items():
            self._end_notes(key, sorted(notes), repairs)

    def _add_track(self, track):
        keys = {}  # those that sound: {(part, pitch): _Key}
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
        elif message.first < 128:  # a damaged pitch is none
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
        """End notes that their own tracks leave sounding: [(on, velocity)], sorted."""
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
                stray[off] -= 1  # it was meant for this note
            elif off != lifted:
                repairs["note never switched off"] += 1
            self.rows.append((on, off, *key, velocity))


def _first_after(tick, ticks):
    """The first of the sorted ``ticks`` that is later than ``tick``, or None."""
    index = bisect.bisect_right(ticks, tick)
    return ticks[index] if index < len(ticks) else None


# Notes in ticks -> a score in seconds


def _make_score(notes, tempos, file, pedal):
    """`_Notes` of tracks that play together -> array (n,) of `NOTE`, not sorted."""
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
    """Off ticks (n,) by what all parts' controllers do: {part: `_Controls`}."""
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
    """Of a change of pedal or tempo, which begins with its tick."""
    return change[0]


def _cut(on, off, ticks):
    """Off ticks, none later than the first of ``ticks`` after the note's on tick."""
    ends = np.append(np.sort(np.array(ticks, np.int64)), _NEVER)
    return np.minimum(off, ends[np.searchsorted(ends, on, side="right")])


def _apply_pedal(on, off, pitch, presses, last):
    """Off ticks of one channel's notes with the pedal.

    An off tick under the pedal moves to the pedal's next coming up, but not past the pitch's next
    strike. Where a key is still held when its pitch is struck again, the key decides.

    Args:
        on, off, pitch: int64 (n,).
        presses: [(tick, whether the pedal is down from there on)], sorted, not empty.
        last: tick at which a pedal comes up that never does.
    """
    ticks = np.array([tick for tick, _ in presses])
    down = np.array([is_down for _, is_down in presses])
    up = np.append(np.where(down, _NEVER, ticks), max(last, ticks[-1]))
    next_up = np.minimum.accumulate(up[::-1])[::-1]
    press = np.searchsorted(ticks, off, side="right") - 1  # the last one at or before the off tick
    pedalled = np.where((press >= 0) & down[press], next_up[press], off)
    # Pitch and tick in one number, so that the next strike of a pitch is found by one search
    key = (pitch << _TICK_BITS) + on
    strikes = np.append(np.unique(key), np.int64(128) << _TICK_BITS)
    following = strikes[np.searchsorted(strikes, key, side="right")]  # may be of a higher pitch
    same_pitch = following >> _TICK_BITS == pitch
    next_strike = np.where(same_pitch, following - (pitch << _TICK_BITS), pedalled)
    return np.maximum(off, np.minimum(pedalled, next_strike))


def _list_tempos(tracks):
    """[(tick, microseconds a quarter note)] of tracks that play together, sorted."""
    tempos = [(0, DEFAULT_TEMPO)]
    for track in tracks:
        tempos += track.tempos
    return sorted(tempos, key=_tick_of)


def _to_seconds(tick, tempos, file):
    """Ticks, int64 of any shape -> seconds, float64.

    Args:
        tick: from the beginning of the tracks.
        tempos: as of `_list_tempos`; of several at one tick the last counts.
        file: `smf.File`, which says how it counts.
    """
    if file.ticks_per_beat is None:
        return tick / file.ticks_per_second
    changes = dict(tempos)
    ticks = np.array(list(changes), float)
    rates = np.array(list(changes.values())) / (1e6 * file.ticks_per_beat)  # s a tick
    starts = np.append(0, np.cumsum(np.diff(ticks) * rates[:-1]))  # s at each change
    index = np.searchsorted(ticks, tick, side="right") - 1
    return starts[index] + (tick - ticks[index]) * rates[index]
