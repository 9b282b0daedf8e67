"""Compare the length in a recording's header with the size of its file.

Most decoders read a truncated file without an error. The size that the header declares shows that
the end is missing. Nothing is decoded here.
"""

import os
from typing import NamedTuple

CUT = "the file is shorter than its header says, as after a broken copy: its end is missing"
STALE = "the file is longer than its header says, as after a crash: read to the file's end"

_EMPTY_WAV_BYTES = 4096  # a WAV file without samples is smaller, whatever chunks it has
_PIPED_WAV_BYTES = 0x7FF00000  # larger lengths are placeholders of programs that write to a pipe
_SLACK = 64  # bytes: tolerance for inexact programs
_SEARCHED = 2**16  # bytes at the beginning of a file that may hold the header

_XING_ENDS = 4 + 32 + 16  # bytes of an mp3 frame up to the end of the Xing fields that are read

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_EBML = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT = b"\x18\x53\x80\x67"
_ASF_HEADER = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_ASF_FILE_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"


def is_stale(path, frames):
    """Whether a WAV file's header, which declares ``frames``, was never completed.

    True if it declares less than half of the file, or no samples although the file is too large to
    be empty.
    """
    with open(path, "rb") as file:
        head = file.read(8)
    if not head.startswith(b"RIFF"):
        return False
    size = os.path.getsize(path)
    declared = 8 + int.from_bytes(head[4:], "little")
    return size > 2 * declared or (frames == 0 and size > _EMPTY_WAV_BYTES)


def is_cut(path):
    """Whether a file is shorter than its header says.

    Reads WAV, AVI, RF64, W64, AIFF, au, caf, mp3 with a Xing header, Matroska and WebM, ASF (wma,
    wmv). For ogg see `read_ogg`. Other headers hold a duration at most.
    """
    with open(path, "rb") as file:
        head = file.read(_SEARCHED)
        start = _id3_size(head)
        file.seek(start)
        frame = file.read(_XING_ENDS)
    declared = _declared_size(head)
    if declared is None:
        declared = _read_xing(frame, start)
    if declared is None:
        return False
    return os.path.getsize(path) + _SLACK < declared


def _declared_size(head):
    """Read a container's size in bytes from its first 64 KiB, ``head``; None if it has none."""
    if head.startswith((b"RIFF", b"FORM")):
        return _read_iff(head)
    if head.startswith(b"RF64"):
        return 8 + int.from_bytes(head[20:28], "little")  # EBU Tech 3306: the chunk ds64 is first
    if head.startswith(_W64_RIFF):
        return int.from_bytes(head[16:24], "little")
    if head.startswith(b".snd"):
        return _read_au(head)
    if head.startswith(b"caff"):
        return _read_caf(head)
    if head.startswith(_EBML):
        return _read_matroska(head)
    if head.startswith(_ASF_HEADER):
        return _read_asf(head)
    return None


def _read_iff(head):
    """Read WAV, AVI (little endian) and AIFF (big endian).

    A program that writes to a pipe declares about 2 or 4 GiB; that is ignored.
    """
    order = "little" if head.startswith(b"RIFF") else "big"
    size = int.from_bytes(head[4:8], order)
    if size >= _PIPED_WAV_BYTES:
        return None
    return 8 + size


def _read_au(head):
    """Read Sun's au: start of the data, and its size, which may be unknown (all ones)."""
    size = int.from_bytes(head[8:12], "big")
    if size == 0xFFFFFFFF:
        return None
    return int.from_bytes(head[4:8], "big") + size


def _read_caf(head):
    """Read Apple's Core Audio Format: chunks of a type, a size of 64 bits, and the content.

    Chunks before the data are skipped. A data chunk of size -1 extends to the end of the file.
    """
    position = 8
    while position + 12 <= len(head):
        size = int.from_bytes(head[position + 4 : position + 12], "big", signed=True)
        if size < 0:
            return None
        end = position + 12 + size
        if head[position : position + 4] == b"data":
            return end
        position = end
    return None


def _read_matroska(head):
    """Read Matroska and WebM: the segment's size (RFC 8794, section 6), which may be unknown."""
    start = head.find(_EBML_SEGMENT)
    if start < 0 or start + 12 > len(head):
        return None
    first = start + len(_EBML_SEGMENT)
    length = 9 - head[first].bit_length()  # the leading zero bits give the number of bytes
    if not 1 <= length <= 8:
        return None
    bits = 7 * length
    size = int.from_bytes(head[first : first + length], "big") & ((1 << bits) - 1)
    if size == (1 << bits) - 1:
        return None
    return first + length + size


def _read_asf(head):
    """Read Windows Media: the size in the file properties object; it is 0 during writing."""
    start = head.find(_ASF_FILE_PROPERTIES)
    if start < 0:
        return None
    return int.from_bytes(head[start + 40 : start + 48], "little") or None


def _id3_size(head):
    """Bytes of the tags before an mp3's first frame (ID3v2: a size of 28 bits, seven a byte)."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    size = head[6:10]
    return 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])


def _read_xing(frame, start):
    """Read mp3: the size of the file without tags at its end, from Xing or Info; or None.

    Args:
        frame: the beginning of the first frame.
        start: its position in the file.
    """
    is_layer_3 = len(frame) == _XING_ENDS and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2
    if not is_layer_3:
        return None
    is_mpeg1 = frame[1] & 0x18 == 0x18
    is_mono = frame[3] & 0xC0 == 0xC0
    side_info = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}
    tag = 4 + side_info[is_mpeg1, is_mono]
    if frame[tag : tag + 4] not in (b"Xing", b"Info"):
        return None
    flags = frame[tag + 7]
    if not flags & 2:  # no number of bytes
        return None
    place = tag + 8 + (4 if flags & 1 else 0)  # the number of frames comes before it
    return start + int.from_bytes(frame[place : place + 4], "big")


class Ogg(NamedTuple):
    """Findings in the pages of an ogg file; the defaults for other files."""

    chained: bool = False  # more data follows the first stream
    cut: bool = False  # the file ends within a page, or without an end-of-stream page


def read_ogg(path):
    """Read the page headers of an ogg file (RFC 3533, section 6): `Ogg`."""
    size = os.path.getsize(path)
    data_seen = False
    ended = False
    with open(path, "rb") as file:
        if file.read(4) != b"OggS":
            return Ogg()
        file.seek(0)
        while True:
            head = file.read(27)
            if not head:
                return Ogg(cut=not ended)
            if len(head) < 27 or not head.startswith(b"OggS"):
                return Ogg(len(head) == 27, not ended)
            begins_stream = head[5] & 2
            if begins_stream and data_seen:
                return Ogg(chained=True)
            if not begins_stream:
                data_seen = True
            ended = bool(head[5] & 4)
            segments = file.read(head[26])
            file.seek(sum(segments), os.SEEK_CUR)
            if file.tell() > size or len(segments) < head[26]:
                return Ogg(cut=True)
