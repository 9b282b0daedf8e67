"""Scores: a MIDI file -> an array of notes, and its variations in time and pitch.

mido, pretty_midi's own reader, takes the file apart; notes are put together here, for pretty_midi drops those of zero
length, those that are never switched off, and tempo changes outside the first track.
"""

import io
import re
from collections import defaultdict, deque
from pathlib import Path

import mido
import numpy as np

from cli import UserError

# One row a note: onset and duration in seconds, MIDI pitch and velocity (1 - 127)
NOTE = np.dtype(
    [("onset", np.float64), ("duration", np.float64), ("pitch", np.int32), ("velocity", np.int32)]
)
MAX_BYTES = 4 << 20  # of a file: half a million notes, a gigabyte in mido's hands
MAX_SECONDS = 4 * 3600  # of a piece: a stray tick of a broken file must not become a gap of days
DRUMS = 9  # General MIDI's drum channel, counted from 0
_SUSTAIN, _RESET_CONTROLLERS = 64, 121
_TICK_BITS = 52


def read_score(path, pedal=True):
    """Read a standard MIDI file: all tracks and tempo changes, drums left out.

    Args:
        path: a .mid file.
        pedal: apply the sustain pedal (controller 64, down from 64 on): a note whose key comes up while its channel's pedal
            is down rings on until the pedal comes up or the same pitch is struck again.

    Returns:
        array (notes,) of `NOTE`, sorted by onset. A note that is never switched off lasts to the end of its file.

    Raises:
        UserError: no MIDI file, a damaged one, one without notes, or beyond `MAX_BYTES` or `MAX_SECONDS`.
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise ValueError(f"is larger than {MAX_BYTES >> 20} MB")
        notes, pedals, tempos, drums, division = _events(_parse(path))
        if not notes:
            raise ValueError("has drums only" if drums else "has no notes")
        return _checked(
            _timed(np.array(notes, np.int64), pedals if pedal else {}, tempos, division)
        )
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: {error}; leave this file out or export it again as MIDI"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from None


def change_score(score, speed=1.0, duration_rate=1.0, transpose=0):
    """A variation of a score, as a new array.

    Args:
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
        return _checked(changed)
    except ValueError as error:
        raise UserError(
            f"at speed {speed:g} and duration rate {duration_rate:g} it {error}; change the flags"
        ) from None


def _checked(score):
    seconds = (score["onset"] + score["duration"]).max()
    if not seconds <= MAX_SECONDS:
        raise ValueError(
            f"lasts {seconds / 3600:,.1f} h, and the longest allowed is {MAX_SECONDS / 3600:g} h"
        )
    return np.sort(score, order=("onset", "pitch", "velocity", "duration"))


def _parse(path):
    """The file as mido reads it. Raises ValueError if it is damaged, whatever mido makes of the damage."""
    data = Path(path).read_bytes()
    if re.search(
        rb"[\x80-\xff]{4096}", data
    ):  # mido would read it as one number, and take minutes for a megabyte
        raise ValueError("is no MIDI file, or damaged")
    try:
        return mido.MidiFile(file=io.BytesIO(data))
    except EOFError:
        raise ValueError("ends in the middle") from None
    except Exception as error:  # mido lets through what its parts raise: OSError, KeyError, IndexError, struct.error ...
        raise ValueError(f"is no MIDI file, or damaged ({error})") from None


def _events(file):
    """([(on tick, off tick, channel, pitch, velocity)], pedals {channel: [(tick, down)]}, tempos, drum notes, ticks a beat)."""
    if file.ticks_per_beat <= 0:
        raise ValueError(
            "counts time in video frames, not in beats"
            if file.ticks_per_beat
            else "has no ticks in a beat"
        )
    notes, pedals, tempos, drums, last = [], {}, [(0, 500_000)], 0, 0
    for track in file.tracks:
        tick, sounding = (
            0,
            defaultdict(deque),
        )  # (channel, pitch) -> [(on tick, velocity)]: first struck, first released
        for message in track:
            tick += message.time
            kind = message.type
            last = max(last, tick)
            if kind == "set_tempo":
                tempos.append((tick, message.tempo))
            elif kind == "note_on" and message.velocity:
                drums += message.channel == DRUMS
                if message.channel != DRUMS:
                    sounding[message.channel, message.note].append((tick, message.velocity))
            elif kind in ("note_on", "note_off") and sounding[message.channel, message.note]:
                on, velocity = sounding[message.channel, message.note].popleft()
                notes.append((on, tick, message.channel, message.note, velocity))
            elif kind == "control_change" and message.control in (_SUSTAIN, _RESET_CONTROLLERS):
                down = message.control == _SUSTAIN and message.value >= 64
                pedals.setdefault(message.channel, []).append((tick, down))
        notes += [
            (on, None, *key, velocity) for key, left in sounding.items() for on, velocity in left
        ]
        if last >> _TICK_BITS:
            raise ValueError("is damaged: counts more ticks than any music has")
    notes = [(on, last if off is None else off, *rest) for on, off, *rest in notes]
    return notes, pedals, tempos, drums, file.ticks_per_beat


def _timed(notes, pedals, tempos, division):
    """Apply the pedal, and turn ticks into seconds: integers (n, 5) -> array (n,) of `NOTE`."""
    on, off, channel, pitch, velocity = notes.T
    last = off.max()
    for number, presses in pedals.items():
        mine = np.flatnonzero(channel == number)
        off[mine] = _pedalled(
            on[mine], off[mine], pitch[mine], sorted(presses, key=lambda press: press[0]), last
        )
    seconds = _clock(tempos, division)
    score = np.empty(len(on), NOTE)
    score["onset"] = seconds(on)
    score["duration"] = seconds(off) - score["onset"]
    score["pitch"], score["velocity"] = pitch, velocity
    return score


def _pedalled(on, off, pitch, presses, last):
    """Off ticks of one channel's notes with the pedal: each off tick under the pedal moves to the pedal's next coming up,
    but not past the pitch's next strike. Where a key is still held when its pitch is struck again, the key decides.
    """
    ticks, down = np.array([tick for tick, _ in presses]), np.array([down for _, down in presses])
    up = np.append(np.where(down, np.iinfo(np.int64).max, ticks), max(last, ticks[-1]))
    next_up = np.minimum.accumulate(up[::-1])[::-1]
    index = (
        np.searchsorted(ticks, off, side="right") - 1
    )  # the last pedal event at or before the off tick
    pedalled = np.where((index >= 0) & down[index], next_up[index], off)
    key = (pitch << _TICK_BITS) + on
    strikes = np.append(np.unique(key), np.int64(128) << _TICK_BITS)
    following = strikes[
        np.searchsorted(strikes, key, side="right")
    ]  # the next later strike, of this pitch or a higher one
    strike = np.where(following >> _TICK_BITS == pitch, following - (pitch << _TICK_BITS), pedalled)
    return np.maximum(off, np.minimum(pedalled, strike))


def _clock(tempos, division):
    """A function from ticks to seconds, from [(tick, microseconds a quarter note)]; of changes at one tick the last counts."""
    tempos = dict(sorted(tempos, key=lambda change: change[0]))
    ticks, rates = np.array(list(tempos), float), np.array(list(tempos.values())) / (1e6 * division)
    starts = np.append(0, np.cumsum(np.diff(ticks) * rates[:-1]))

    def seconds(tick):
        index = np.searchsorted(ticks, tick, side="right") - 1
        return starts[index] + (tick - ticks[index]) * rates[index]

    return seconds


def version_name(piece, transpose=0, speed=1.0):
    """Name of one version of a piece: ``version_name("bach/p1", -2, 1.1) == "bach/p1~t-2~s1.1"``; unchanged for 0 and 1."""
    return (
        piece + (f"~t{transpose:+g}" if transpose else "") + (f"~s{speed:g}" if speed != 1 else "")
    )


def piece_of(name):
    """The piece that a version is of, inverse of `version_name`: all versions of it belong on one side of a split."""
    return re.sub(r"(~t[+-][\d.]+)?(~s[\d.]+)?$", "", name)
