"""Find the drum parts of a MIDI file: channel 10, and parts that XG, GS or GM2 messages declare.

A part is a channel of a port (`smf.Message.part`). In General MIDI only channel 10 is drums. Its
extensions let a file choose:

- GM2 by bank select (controller 0): 120 is drums, 121 a melody (MMA, RP-024).
- XG by bank select, 126 and 127, and by "part mode" (Yamaha, XG Specifications).
- GS by "use for rhythm part" (Roland, SC-88 owner's manual). There, banks 126 and 127 are melodies.

A reset message selects one of these and resets all parts of its port.
"""

import bisect
from collections import defaultdict
from enum import Enum

from synthesis import smf

DRUM_CHANNEL = 9  # counted from 0

_BANK_SELECT = 0
_DRUM_BANKS = (120, 126, 127)
_GM2_MELODY_BANK = 121

_UNIVERSAL, _ROLAND, _YAMAHA = 0x7E, 0x41, 0x43
_GS_RESETS = (b"\x40\x00\x7f", b"\x00\x00\x7f")  # GS reset; system mode set of an SC-88
_GS_EXIT = b"\x40\x00\x7f\x7f"  # back to General MIDI
_XG_RESETS = (b"\x00\x00\x7e", b"\x00\x00\x7f")  # XG system on; all parameters


class _Mode(Enum):
    GM, GM2, GS, XG = range(4)


class DrumParts:
    """Knows at each tick which parts of simultaneous tracks are drums."""

    def __init__(self, tracks):
        self._modes = defaultdict(lambda: _Mode.GM)  # by port
        self._switches = {}  # by part: setting of a system exclusive message, True: drums
        self._ticks = defaultdict(list)  # by part: ticks of its changes ...
        self._states = defaultdict(list)  # ... and whether it is drums from that tick on
        for event in _list_events(tracks):
            if isinstance(event, smf.Sysex):
                self._take_sysex(event)
            else:
                self._take_bank(event)

    def has(self, part, tick):
        """Whether a part is drums at a tick, after all events of that tick."""
        if part in self._ticks:
            index = bisect.bisect_right(self._ticks[part], tick)
            if index > 0:
                return self._states[part][index - 1]
        return _is_drum_channel(part)

    def _set(self, part, tick, is_drums):
        self._ticks[part].append(tick)
        self._states[part].append(is_drums)

    def _take_bank(self, message):
        """Apply a bank select at once, because not every file sends a program change after it."""
        mode = self._modes[message.port]
        if mode is _Mode.GS:
            return
        bank = message.second
        part = message.part
        # Channel 10 stays drums with bank 0, which many XG files send to all channels
        is_drums = self._switches.get(part, _is_drum_channel(part))
        if bank in _DRUM_BANKS:
            is_drums = True
        elif bank == _GM2_MELODY_BANK and mode is _Mode.GM2:
            is_drums = False
        self._set(part, message.tick, is_drums)

    def _take_sysex(self, event):
        maker = event.content[:1]
        if maker == bytes([_UNIVERSAL]):
            self._take_universal(event)
        elif maker == bytes([_ROLAND]):
            self._take_roland(event)
        elif maker == bytes([_YAMAHA]):
            self._take_yamaha(event)

    def _take_universal(self, event):
        """7E device 09 mode: General MIDI on, off, or level 2."""
        modes = {b"\x09\x01": _Mode.GM, b"\x09\x02": _Mode.GM, b"\x09\x03": _Mode.GM2}
        said = event.content[2:4]
        if said in modes:
            self._reset(event, modes[said])

    def _take_roland(self, event):
        """41 device 42 12 address (3 bytes) value, checksum."""
        if event.content[2:4] != b"\x42\x12" or len(event.content) < 8:
            return
        address = event.content[4:7]
        value = event.content[7]
        if event.content[4:8] == _GS_EXIT:
            self._reset(event, _Mode.GM)
        elif address in _GS_RESETS:
            self._reset(event, _Mode.GS)
        elif address[0] == 0x40 and address[1] >> 4 == 1 and address[2] == 0x15:
            channel = _gs_channel(address[1] & 0x0F)
            self._switch(event, channel, value > 0)

    def _take_yamaha(self, event):
        """43 1n 4C address (3 bytes) value."""
        if event.content[2:3] != b"\x4c" or len(event.content) < 7:
            return
        address = event.content[3:6]
        value = event.content[6]
        if address in _XG_RESETS:
            self._reset(event, _Mode.XG)
        elif address[0] == 0x08 and address[2] == 0x07:
            self._switch(event, address[1], value > 0)

    def _switch(self, event, channel, is_drums):
        part = smf.CHANNELS * event.port + channel
        self._switches[part] = is_drums
        self._set(part, event.tick, is_drums)

    def _reset(self, event, mode):
        self._modes[event.port] = mode
        for part in list(self._ticks):
            if part // smf.CHANNELS == event.port:
                self._switches.pop(part, None)
                self._set(part, event.tick, _is_drum_channel(part))


def _list_events(tracks):
    """List the events that can change a part, by tick; bank selects are last within a tick."""
    sysex, banks = [], []
    for track in tracks:
        sysex += track.sysex
        for message in track.messages:
            if message.kind == smf.CONTROL and message.first == _BANK_SELECT:
                banks.append(message)
    return sorted(sysex + banks, key=lambda event: event.tick)


def _gs_channel(block):
    """Channel of a GS part, from 0. Part 0 is channel 10 (index 9), parts 1 - 9 are 1 - 9."""
    if block == 0:
        return DRUM_CHANNEL
    if block <= DRUM_CHANNEL:
        return block - 1
    return block


def _is_drum_channel(part):
    return part % smf.CHANNELS == DRUM_CHANNEL
