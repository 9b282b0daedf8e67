"""Parse standard MIDI files, damaged ones too: bytes -> tracks, and a list of repairs.

The format is *Standard MIDI Files 1.0* (MIDI Manufacturers Association, RP-001): a header chunk
`MThd`, then chunks of which those named `MTrk` are tracks; a track is a row of events, each with
the ticks since the event before it.

A reader of our own, because what other programs play has to be read: mido and symusic refuse many
damaged files whole, and neither says what it put right. Nothing here raises on damage: what cannot
be understood is passed over and counted.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

# Kinds of channel messages: the upper four bits of the status byte
NOTE_OFF, NOTE_ON, KEY_PRESSURE, CONTROL = 0x80, 0x90, 0xA0, 0xB0
PROGRAM, CHANNEL_PRESSURE, PITCH_BEND = 0xC0, 0xD0, 0xE0
_ONE_DATA_BYTE = (PROGRAM, CHANNEL_PRESSURE)  # the others have two

_META, _SYSEX, _SYSEX_MORE = 0xFF, 0xF0, 0xF7
_PORT, _END_OF_TRACK, _TEMPO, _KEY_SIGNATURE = 0x21, 0x2F, 0x51, 0x59
# Bytes that a meta event of a kind must have; kinds that are not named here may have any number
_META_SIZES = {
    0x00: (0, 2),  # sequence number
    0x20: (1,),  # channel prefix
    _PORT: (1,),
    _END_OF_TRACK: (0,),
    _TEMPO: (3,),
    0x54: (5,),  # SMPTE offset
    0x58: (4,),  # time signature
    _KEY_SIGNATURE: (2,),
}
# Data bytes of system messages, which belong on a cable and not into a file
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}

CHANNELS = 16  # of a port
DEFAULT_TICKS_PER_BEAT = 480  # where the header says 0: the commonest


class Message(NamedTuple):
    """A channel message."""

    tick: int  # from the track's beginning
    kind: int  # one of those above
    channel: int  # 0 - 15
    first: int  # data byte, 0 - 127; more only in a damaged file
    second: int  # data byte, 0 - 127; 0 where the kind has one byte only
    port: int = 0  # of the instrument, 0 - 255: each has 16 channels of its own

    @property
    def part(self):
        """Number of this channel of this port."""
        return CHANNELS * self.port + self.channel


class Sysex(NamedTuple):
    """A system exclusive message: a maker's own, or a universal one."""

    tick: int  # from the track's beginning
    port: int  # 0 - 255
    content: bytes  # without the first byte, 0xF0, and the last, 0xF7


@dataclass
class Track:
    """What one track says that matters to a score."""

    messages: list = field(default_factory=list)  # of Message, in their order
    sysex: list = field(default_factory=list)  # of Sysex, in their order
    tempos: list = field(default_factory=list)  # of (tick, microseconds a quarter note)
    end: int = 0  # tick of the last event of any kind


@dataclass
class File:
    """A file taken apart."""

    form: int  # 0: one track; 1: tracks that play together; 2: patterns, each for itself
    ticks_per_beat: int | None  # None where the file counts in video frames ...
    ticks_per_second: float | None  # ... and then this is a number, and tempos do not matter
    tracks: list  # of Track
    repairs: Counter  # what was repaired, in words -> how often


class _Unreadable(Exception):
    """The rest of a track makes no sense."""


class _CutShort(Exception):
    """A track's bytes end within an event."""


def parse(data):
    """Take a file apart: bytes -> `File`.

    Raises:
        ValueError: there is no MIDI header in it.
    """
    start = data.find(b"MThd")
    if start < 0:
        raise ValueError("is no MIDI file")
    repairs = Counter()
    # A RIFF wrapper (.rmi) is allowed; anything else before the header is not
    if start > 0 and data[:4] != b"RIFF":
        repairs["bytes before the header passed over"] += start
    size = int.from_bytes(data[start + 4 : start + 8], "big")
    header = data[start + 8 : start + 14].ljust(6, b"\0")
    if size < 6:
        repairs["header too short"] += 1
    form = int.from_bytes(header[:2], "big")
    if form > 2:
        repairs["unknown format taken as 1"] += 1
        form = 1
    per_beat, per_second = _read_division(header[4:6], repairs)
    tracks = _read_tracks(data, start + 8 + max(size, 6), repairs)
    promised = int.from_bytes(header[2:4], "big")
    if len(tracks) != promised:
        repairs[f"header promises {promised} tracks, there are"] = len(tracks)
    return File(form, per_beat, per_second, tracks, repairs)


def describe_repairs(repairs):
    """What was repaired, in words; an empty string if nothing was.

    ``"note never switched off: 3; missing end of a track: 1"``
    """
    return "; ".join(f"{what}: {count:,}" for what, count in repairs.items())


def _read_division(division, repairs):
    """The header's last two bytes -> (ticks a beat or None, ticks a second or None)."""
    if division[0] < 0x80:
        ticks = int.from_bytes(division, "big")
        if ticks == 0:
            repairs[f"header without ticks in a beat, taken as {DEFAULT_TICKS_PER_BEAT}"] += 1
            ticks = DEFAULT_TICKS_PER_BEAT
        return ticks, None
    frames = 256 - division[0]  # a second: minus 24, 25, 29 or 30 as a signed byte
    if frames == 29:
        frames = 30_000 / 1001  # "30 drop frame", that is 29.97
    if division[1] == 0:
        repairs["header without ticks in a video frame, taken as 1"] += 1
    return None, frames * max(division[1], 1)


def _read_tracks(data, position, repairs):
    """The tracks from ``position`` on: list of `Track`. Other programs' chunks are passed over."""
    tracks = []
    while position + 8 <= len(data):
        if not _is_chunk(data, position):
            position = data.find(b"MTrk", position)
            if position < 0:
                break
            repairs["bytes between chunks passed over"] += 1
        name = data[position : position + 4]
        start = position + 8
        position = start + int.from_bytes(data[position + 4 : start], "big")
        if name == b"MTrk":
            position = _end_of_chunk(data, start, position, repairs)
            track, stop = _read_track(data, start, position, repairs)
            tracks.append(track)
            if data[stop : stop + 4] == b"MTrk" and stop < position:
                repairs["wrong length of a track"] += 1
                position = stop
    return tracks


def _is_chunk(data, position):
    """Whether a track begins at ``position``, or another chunk that the file has room for."""
    name = data[position : position + 4]
    if name == b"MTrk":
        return True
    size = int.from_bytes(data[position + 4 : position + 8], "big")
    is_name = len(name) == 4 and name.isascii() and name.decode().isprintable()
    return is_name and position + 8 + size <= len(data)


def _end_of_chunk(data, start, end, repairs):
    """Where a track ends: where its length says, if that makes sense, or else at the next track."""
    if end == len(data) or _is_chunk(data, end):
        return end
    following = data.find(b"MTrk", start)
    if following >= 0:
        repairs["wrong length of a track"] += 1
        return following
    if end > len(data):
        repairs["track longer than the file"] += 1
    # Bytes after a last track of the right length do no harm: reading stops at its end event
    return len(data)


def _read_track(data, start, stop, repairs):
    """The events in ``data[start:stop]``: (`Track`, the position after the last one read)."""
    reader = _TrackReader(data, start, stop, repairs)
    try:
        while not reader.ended:
            reader.read_event()
    except _CutShort:
        repairs["missing end of a track"] += 1
    except _Unreadable:
        repairs["unreadable rest of a track left out"] += 1
    return reader.track, reader.position


class _TrackReader:
    """Reads one track, event by event, until its end-of-track event."""

    def __init__(self, data, start, stop, repairs):
        self.data = data
        self.position = start
        self.stop = stop
        self.repairs = repairs
        self.track = Track()
        self.ended = False
        self._tick = 0
        self._port = 0  # until a meta event names another
        self._running_status = None  # of the last channel message: a message may leave it out

    def read_event(self):
        """Read the next event into the track. Raises `_CutShort`, `_Unreadable`."""
        tick = self._tick + self._read_number()
        status = self._read_byte()
        if status < 0x80:
            if self._running_status is None:
                raise _Unreadable
            self.position -= 1  # it was the first data byte already
            status = self._running_status
        if status < 0xF0:
            self._running_status = status
            self._read_channel_message(tick, status)
        elif status == _META:
            self._read_meta(tick)
        elif status in (_SYSEX, _SYSEX_MORE):
            content = self._take(self._read_number())
            content = content.removeprefix(b"\xf0").removesuffix(b"\xf7")
            self.track.sysex.append(Sysex(tick, self._port, content))
        else:
            self._take(_SYSTEM_DATA_BYTES.get(status, 0))
        self._tick = tick
        self.track.end = tick

    def _read_channel_message(self, tick, status):
        kind = status & 0xF0
        values = self._take(1 if kind in _ONE_DATA_BYTE else 2)
        first = values[0]
        second = values[1] if len(values) == 2 else 0
        if first > 127 or second > 127:
            self.repairs["data byte above 127"] += 1
            second = min(second, 127)
        channel = status & 0x0F
        self.track.messages.append(Message(tick, kind, channel, first, second, self._port))

    def _read_meta(self, tick):
        kind = self._read_byte()
        content = self._take(self._read_number())
        if kind == _END_OF_TRACK:
            self.ended = True
        if not _is_well_formed(kind, content):
            self.repairs["malformed meta event passed over"] += 1
        elif kind == _PORT:
            self._port = content[0]
        elif kind == _TEMPO:
            tempo = int.from_bytes(content, "big")
            if tempo > 0:
                self.track.tempos.append((tick, tempo))
            else:
                self.repairs["tempo of 0 passed over"] += 1

    def _read_number(self):
        """A number of variable length: seven bits a byte, at most four, the last one below 128."""
        number = 0
        for _ in range(4):
            byte = self._read_byte()
            number = number << 7 | byte & 0x7F
            if byte < 0x80:
                return number
        raise _Unreadable

    def _read_byte(self):
        if self.position >= self.stop:
            raise _CutShort
        self.position += 1
        return self.data[self.position - 1]

    def _take(self, count):
        if self.position + count > self.stop:
            raise _CutShort
        self.position += count
        return self.data[self.position - count : self.position]


def _is_well_formed(kind, content):
    """Whether a meta event's content is as its kind demands."""
    if kind in _META_SIZES and len(content) not in _META_SIZES[kind]:
        return False
    if kind == _KEY_SIGNATURE:
        sharps = int.from_bytes(content[:1], "big", signed=True)
        return abs(sharps) <= 7 and content[1] <= 1
    return True
