"""Parse standard MIDI files, including damaged ones: bytes -> tracks and a list of repairs.

The format is *Standard MIDI Files 1.0* (MIDI Manufacturers Association, RP-001): a header chunk
`MThd`, then chunks; those named `MTrk` are tracks. A track is a sequence of events, each with the
ticks since the last one.

mido and symusic reject many damaged files that other programs play, and do not report repairs.
This parser does not raise on damage: it skips and counts what it cannot read.
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
# Allowed sizes of meta events, in bytes; kinds that are not listed may have any size
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
# Data bytes of system messages, which do not belong in a file
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}

CHANNELS = 16  # per port
DEFAULT_TICKS_PER_BEAT = 480  # the most common value, used if the header says 0


class Message(NamedTuple):
    """A channel message."""

    tick: int  # since the start of the track
    kind: int  # NOTE_OFF ... PITCH_BEND
    channel: int  # 0 - 15
    first: int  # data byte, 0 - 127; larger only in a damaged file
    second: int  # data byte, 0 - 127; 0 if the kind has one byte only
    port: int = 0  # 0 - 255; each port has 16 channels

    @property
    def part(self):
        """Number of the part: 16 * port + channel."""
        return CHANNELS * self.port + self.channel


class Sysex(NamedTuple):
    """A system exclusive message, of a manufacturer or universal."""

    tick: int  # since the start of the track
    port: int  # 0 - 255
    content: bytes  # without the first byte, 0xF0, and the last, 0xF7


@dataclass
class Track:
    """The events of one track that matter to a score."""

    messages: list = field(default_factory=list)  # Message, in file order
    sysex: list = field(default_factory=list)  # Sysex, in file order
    tempos: list = field(default_factory=list)  # (tick, microseconds per quarter note)
    end: int = 0  # tick of the last event of any kind


@dataclass
class File:
    """A parsed MIDI file."""

    form: int  # 0: one track; 1: simultaneous tracks; 2: separate patterns
    ticks_per_beat: int | None  # None if the file counts in video frames ...
    ticks_per_second: float | None  # ... then this is a number, and tempos do not apply
    tracks: list  # of Track
    repairs: Counter  # {description of a repair: how often}


class _Unreadable(Exception):
    """The rest of a track cannot be read."""


class _CutShort(Exception):
    """A track's bytes end within an event."""


def parse(data):
    """Parse a file: bytes -> `File`.

    Raises:
        ValueError: it has no MIDI header.
    """
    start = data.find(b"MThd")
    if start < 0:
        raise ValueError("is not a MIDI file")
    repairs = Counter()
    # A RIFF wrapper (.rmi) is allowed before the header; anything else is a repair
    if start > 0 and data[:4] != b"RIFF":
        repairs["skipped bytes before the header"] += start
    size = int.from_bytes(data[start + 4 : start + 8], "big")
    header = data[start + 8 : start + 14].ljust(6, b"\0")
    if size < 6:
        repairs["header too short"] += 1
    form = int.from_bytes(header[:2], "big")
    if form > 2:
        repairs["unknown format read as 1"] += 1
        form = 1
    per_beat, per_second = _read_division(header[4:6], repairs)
    tracks = _read_tracks(data, start + 8 + max(size, 6), repairs)
    promised = int.from_bytes(header[2:4], "big")
    if len(tracks) != promised:
        repairs[f"tracks found, not {promised} as in the header"] = len(tracks)
    return File(form, per_beat, per_second, tracks, repairs)


def describe_repairs(repairs):
    """Format the repairs; an empty string if there are none.

    ``"note never switched off: 3; missing end of a track: 1"``
    """
    return "; ".join(f"{what}: {count:,}" for what, count in repairs.items())


def _read_division(division, repairs):
    """Read the header's last two bytes: (ticks per beat or None, ticks per second or None)."""
    if division[0] < 0x80:
        ticks = int.from_bytes(division, "big")
        if ticks == 0:
            repairs[f"header without ticks per beat, read as {DEFAULT_TICKS_PER_BEAT}"] += 1
            ticks = DEFAULT_TICKS_PER_BEAT
        return ticks, None
    frames = 256 - division[0]  # per second; stored as -24, -25, -29 or -30 in a signed byte
    if frames == 29:
        frames = 30_000 / 1001  # "30 drop frame": 29.97
    if division[1] == 0:
        repairs["header without ticks per video frame, read as 1"] += 1
    return None, frames * max(division[1], 1)


def _read_tracks(data, position, repairs):
    """Read the tracks from ``position`` on: list of `Track`. Other chunks are skipped."""
    tracks = []
    while position + 8 <= len(data):
        if not _is_chunk(data, position):
            position = data.find(b"MTrk", position)
            if position < 0:
                break
            repairs["skipped bytes between chunks"] += 1
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
    """Whether a track starts at ``position``, or another chunk that fits into the file."""
    name = data[position : position + 4]
    if name == b"MTrk":
        return True
    size = int.from_bytes(data[position + 4 : position + 8], "big")
    is_name = len(name) == 4 and name.isascii() and name.decode().isprintable()
    return is_name and position + 8 + size <= len(data)


def _end_of_chunk(data, start, end, repairs):
    """Find the end of a track: at its declared length if plausible, otherwise at the next track."""
    if end == len(data) or _is_chunk(data, end):
        return end
    following = data.find(b"MTrk", start)
    if following >= 0:
        repairs["wrong length of a track"] += 1
        return following
    if end > len(data):
        repairs["track longer than the file"] += 1
    # Bytes after the last track are harmless: reading stops at its end event
    return len(data)


def _read_track(data, start, stop, repairs):
    """Read the events in ``data[start:stop]``: (`Track`, position after the last event)."""
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
        self._port = 0  # until a meta event changes it
        self._running_status = None  # status of the last channel message, which may be omitted

    def read_event(self):
        """Read the next event into the track. Raises `_CutShort`, `_Unreadable`."""
        tick = self._tick + self._read_number()
        status = self._read_byte()
        if status < 0x80:
            if self._running_status is None:
                raise _Unreadable
            self.position -= 1  # this byte is the first data byte
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
            self.repairs["skipped malformed meta event"] += 1
        elif kind == _PORT:
            self._port = content[0]
        elif kind == _TEMPO:
            tempo = int.from_bytes(content, "big")
            if tempo > 0:
                self.track.tempos.append((tick, tempo))
            else:
                self.repairs["skipped tempo of 0"] += 1

    def _read_number(self):
        """Read a number of variable length: seven bits per byte, up to four bytes, last < 128."""
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
    """Whether a meta event's content is valid for its kind."""
    if kind in _META_SIZES and len(content) not in _META_SIZES[kind]:
        return False
    if kind == _KEY_SIGNATURE:
        sharps = int.from_bytes(content[:1], "big", signed=True)
        return abs(sharps) <= 7 and content[1] <= 1
    return True
