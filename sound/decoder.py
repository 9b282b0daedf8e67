"""Decode one recording by FFmpeg, in a process of its own: a decoder that dies costs one file.

recordings.py has it run `main` and reads its stdout: messages of a kind (one byte), a size (32
bits, little endian) and that many bytes. The first one is JSON {samplerate, channels, bits},
then come SAMPLES, interleaved float32, at last JSON {remarks}. JSON {error} may come instead of
any.

Every frame goes where its time stamp puts it, as a player plays it: a gap becomes silence, and
sound that begins later than the picture begins with silence. What a time stamp says is believed
as far as the file bears it out: see `Track.find_room`. It imports no numpy, which would
double the time of a start (0.2 s).
"""

import contextlib
import functools
import itertools
import json
import os
import signal
import statistics
import struct
import sys
import threading

import av

DEMUXERS = (  # formats that FFmpeg may detect: no playlists, which would open other files
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,wv"
)
JSON, SAMPLES = b"J", b"S"  # kinds of messages
HEAD = struct.Struct("<cI")  # of a message
CHUNK_BYTES = 2**20

JITTER = 0.01  # s by which browsers' time stamps waver
RESTARTING = {"mpegts", "mpeg", "ogg"}  # formats whose parts may have a clock each
RESTART = 10  # s: a longer jump in these begins another part, as FFmpeg's own programs take it
UNASKED = 10  # s of silence in all that time stamps are believed without a look at the whole file
LONGEST = 3600  # s of silence in all, whatever the file says

# Formats whose header tells of a length; what FFmpeg says of others is a guess by the file's size.
TIMED_TRACK = {"mov", "flac", "wv", "ape", "caf"}
TIMED_FILE = {"flv"}
SLACK = 0.5  # s by which they are wrong: an encoder's padding counts or not
CUT = "its header tells of more sound than there is, as after a broken copy: its end is missing"
STALE = "its header tells of less sound than there is, as after a crash: read to the file's end"

UNKNOWN = (
    "cannot be read as audio ({}): no recording, or half a copy of one; give a wav, flac, mp3, "
    "m4a, ..., or a video with sound"
)

# PyAV before 19 refuses a file for a title that is no UTF-8, unless it is told not to.
TAGS_OF_ANY_BYTES = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


class Unreadable(Exception):
    """Why a file cannot be decoded, and the remedy; the caller adds the file's name."""


class Track:
    """One audio stream of an open file.

    Attributes:
        formats: set of FFmpeg's names of the file's format.
        tick: s, the unit of its time stamps.
        origin: s, the time at which the file begins.
        declared: s, the length that the header tells of, or None.
        last: s, the end of the last packet so far, of any stream of the file.
        packets, damaged: their numbers so far; damaged ones are passed over, as players do.
        disbelieved: s of silence, by time stamps that were not believed so far.
    """

    def __init__(self, container, stream, open_again):
        """``open_again`` gives the same file as another av.container."""
        self.formats = set(container.format.name.split(","))
        self.tick = float(stream.time_base)
        start = (container.start_time or 0) / av.time_base
        self.origin = max(start, 0.0)  # what comes before 0 is an encoder's run-up
        self.declared = None
        self.last = 0.0
        self.packets = 0
        self.damaged = 0
        self.disbelieved = 0.0
        self._open_again = open_again
        self._container = container
        self._stream = stream
        _forget_order(stream.codec_context)
        if stream.duration and TIMED_TRACK & self.formats:
            end = (stream.start_time or 0) + stream.duration
            self.declared = end * self.tick - self.origin
        if container.duration and TIMED_FILE & self.formats:
            self.declared = container.duration / av.time_base

    def read_frames(self):
        """All its frames, up to what is damaged beyond reading on."""
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.error.PatchWelcomeError:
                raise Unreadable(
                    "changes its rate or channels midway; export its parts anew"
                ) from None
            except av.FFmpegError:
                self.damaged += 1
                return
            if packet is None:
                return
            self._note_time(packet)
            if packet.stream.index != self._stream.index:
                continue
            self.packets += 1
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                continue
            yield from frames

    def find_room(self):
        """Seconds of silence that the file bears out: what its length leaves beside its sound.

        Its length is where its picture ends, but no more than its header says. Of sound alone no
        picture tells of a pause, and at most half of it is taken for silence. A header that says
        less than there is of sound, as of a file that was sent while it grew, says nothing.

        A player that meets a longer jump waits for the picture; without one it does not wait.
        """
        lengths = []  # s, of the packets of sound
        picture = 0.0  # s, the end of its last packet, which one damaged block does not change
        with self._open_again() as container, contextlib.suppress(av.FFmpegError):
            declared = (container.duration or 0) / av.time_base
            for packet in container.demux():
                length = float((packet.duration or 0) * packet.time_base)
                if packet.stream.index == self._stream.index:
                    lengths.append(length)
                elif packet.pts is not None:
                    picture = float(packet.pts * packet.time_base) + length - self.origin
        usual = statistics.median(lengths) if lengths else 0.0
        sound = sum(min(length, 8 * usual) for length in lengths)  # mp4's tell of a pause, too
        if declared < sound:
            declared = LONGEST + sound
        alone = min(declared - sound, sound)
        return min(max(alone, min(declared, picture) - sound) + SLACK, LONGEST)

    def _note_time(self, packet):
        if packet.pts is not None and TIMED_FILE & self.formats:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self.last = max(self.last, float(end) - self.origin)


def _forget_order(context):
    """Replace the channels' order, as of QuickTime's 5.1, by their number, before the first frame.

    PyAV 17.1 - 18.1 frees the memory of an unusual order with every object that is made of it,
    frames included, again and again, until the process ends. Here it is freed for the only time.
    Decoders that need an order find it in the sound itself; channels come as they lie there.
    """
    layout = context.layout
    if layout.nb_channels:
        context.layout = f"{layout.nb_channels}C"


class Placer:
    """Frames -> interleaved float32, as bytes, each where its time stamp puts it.

    Rate and channels are those of the first frame; what follows is brought to them.

    Attributes:
        rate: Hz.
        channels: their number.
        position: samples a channel that were given so far.
    """

    def __init__(self, track, first):
        self.rate = first.sample_rate
        self.channels = first.layout.nb_channels
        self.position = 0
        self._track = track
        self._layout = first.layout
        self._form = None  # of the frames that `_resampler` takes
        self._resampler = None
        self._shift = 0  # samples by which the clock of a later part differs from the first one's
        self._room = UNASKED * self.rate  # samples of silence that may still come
        self._asked = False  # whether the whole file was asked how many may

    def place(self, first, frames):
        """Yield the bytes of all frames, and of the silence between them."""
        gap = self._find_gap(first)
        if gap > 0:
            yield from self._make_silence(self._believe(gap))
        skip = self._find_run_up(first, max(0, -gap))
        all_frames = itertools.chain([first], frames, [None])
        for frame, following in itertools.pairwise(all_frames):
            if frame is not first:
                yield from self._make_silence(self._find_pause(frame, following))
            end = self._find_end(frame) if following is None else None
            yield from self._convert(frame, skip, end)
            skip = 0
        yield from self._drain()

    def _find_gap(self, frame, ahead=0):
        """Samples from the position, plus ``ahead``, to a frame's time stamp; may be negative."""
        if frame.pts is None:
            return 0
        time = frame.pts * self._track.tick - self._track.origin
        return round(time * self.rate) + self._shift - self.position - ahead

    def _find_run_up(self, frame, samples):
        """Of the first frame's ``samples`` before time 0, those to leave out."""
        tick = self._track.tick * frame.sample_rate  # time stamps are rounded to it
        if samples and frame.samples - samples < tick / 2:
            return frame.samples  # the next frame tells more exactly where the sound begins
        return samples

    def _find_pause(self, frame, following):
        """Samples of silence before a frame that is not the first; ``following`` may be None.

        A pause also shows in the next frame's time stamp: a single one may be wrong, as Vorbis's
        are where its blocks change their length.
        """
        gap = self._find_gap(frame)
        length = round(frame.samples * self.rate / frame.sample_rate)
        tolerance = max(length / 2, JITTER * self.rate, self._track.tick * self.rate)
        if abs(gap) <= tolerance:
            return 0
        is_timed = following is not None and following.pts is not None
        if is_timed and abs(self._find_gap(following, length)) <= tolerance:
            return 0
        begins_part = RESTARTING & self._track.formats and gap > RESTART * self.rate
        if gap > 0 and not begins_part:
            return self._believe(gap)
        self._shift -= gap  # another part with a clock of its own, or damage
        return 0

    def _believe(self, gap):
        """Of a gap's samples, those that become silence: all of them, or none."""
        if gap > self._room and not self._asked:
            self._asked = True
            room = round(self._track.find_room() * self.rate)
            self._room += max(0, room - UNASKED * self.rate)
        if gap > self._room:
            self._shift -= gap
            self._track.disbelieved += gap / self.rate
            return 0
        self._room -= gap
        return gap

    def _find_end(self, frame):
        """Samples of the last frame up to the end that a player keeps to; None: all."""
        if "mov" not in self._track.formats or self._track.declared is None:
            return None
        left = round(self._track.declared * self.rate) - self.position
        if 0 < left < frame.samples:
            return left
        return None

    def _make_silence(self, samples):
        sample_bytes = 4 * self.channels
        while samples > 0:
            count = min(samples, CHUNK_BYTES // sample_bytes)
            self.position += count
            samples -= count
            yield bytes(count * sample_bytes)

    def _convert(self, frame, start=0, end=None):
        """The bytes of a frame's samples from ``start`` to ``end``."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            yield from self._drain()
            self._form = form
            self._resampler = av.AudioResampler("flt", self._layout, self.rate)
        for converted in self._resampler.resample(frame):
            yield self._cut(converted, start, end)

    def _drain(self):
        """What the resampler still holds."""
        if self._resampler is not None:
            for converted in self._resampler.resample(None):
                yield self._cut(converted)

    def _cut(self, frame, start=0, end=None):
        """Packed frame -> its bytes. Planar ones crash PyAV above 8 channels."""
        if end is None:
            end = frame.samples
        self.position += max(0, end - start)
        sample_bytes = 4 * self.channels
        return memoryview(frame.planes[0])[start * sample_bytes : end * sample_bytes]


def open_file(path, options):
    """The file as av.container.

    PyAV before 17.1 crashes if ``options`` are given to the streams, too, which FLV and MPEG tell
    of later.
    """
    location = os.path.abspath(path)  # which FFmpeg never takes for an address
    return av.open(location, container_options=options, **TAGS_OF_ANY_BYTES)


def list_tracks(path, options):
    """Indices of the audio streams whose codec FFmpeg knows, its first choice first."""
    with open_file(path, options) as container:
        if not container.streams.audio:
            raise Unreadable("holds no sound; give another file")
        best = container.streams.best("audio")
        tracks = []
        for stream in container.streams.audio:
            if stream.codec_context is not None:
                tracks.append(stream.index)
        if best is not None:
            tracks.sort(key=lambda index: index != best.index)
        return tracks


def decode(path, options):
    """Yield the messages that the module's head tells of: dicts, and bytes of samples.

    Raises:
        Unreadable, av.FFmpegError, OSError: it cannot be read.
    """
    open_again = functools.partial(open_file, path, options)
    for index in list_tracks(path, options):
        with open_file(path, options) as container:
            track = Track(container, container.streams[index], open_again)
            frames = track.read_frames()
            first = next(frames, None)
            if first is None:
                continue
            placer = Placer(track, first)
            bits = depth_of(container.streams[index].codec_context, first.format)
            yield {"samplerate": placer.rate, "channels": placer.channels, "bits": bits}
            yield from placer.place(first, frames)
            yield {"remarks": list_remarks(track, placer.position / placer.rate)}
            return
    raise Unreadable("holds no sound that can be decoded; export it again")


def list_remarks(track, length):
    """Sentences on what had to be done to read a track, which gave ``length`` s.

    Raises:
        Unreadable: most of it is damaged.
    """
    if track.damaged > track.packets // 2:
        raise Unreadable("is damaged (most of it); export it again")
    remarks = []
    if track.damaged:
        remarks.append(
            f"{track.damaged} of {track.packets} packets are damaged and were passed over"
        )
    if track.disbelieved:
        remarks.append(
            f"its time stamps tell of {track.disbelieved:.0f} s more of silence than the file has "
            "room for: left out"
        )
    if track.declared is None:
        return remarks
    if TIMED_FILE & track.formats:
        length = track.last
    if length < track.declared - SLACK:
        remarks.append(CUT)
    if length > track.declared + SLACK and "flac" in track.formats:
        remarks.append(STALE)
    return remarks


def depth_of(codec, form):
    """Depth of samples, one of `recordings.DEPTHS`: of an av.CodecContext and av.AudioFormat.

    Lossy decoders give floats, too, or 32 bits, but hold nothing below 16 bits worth keeping.
    """
    if not codec.codec.lossless:
        return 16
    if form.name.startswith(("flt", "dbl")) or codec.name.startswith("pcm_s32"):
        return "float"
    return 24 if form.bits > 16 else 16


class Output:
    """Writes messages to a binary file, samples in chunks."""

    def __init__(self, file):
        self._file = file
        self._held = []
        self._size = 0

    def write(self, message):
        """Write a dict, or bytes of samples."""
        if isinstance(message, dict):
            self._flush()
            self._send(JSON, json.dumps(message).encode())
            self._file.flush()
            return
        self._held.append(message)
        self._size += len(message)
        if self._size >= CHUNK_BYTES:
            self._flush()

    def _flush(self):
        if self._size:
            self._send(SAMPLES, b"".join(self._held))
        self._held = []
        self._size = 0

    def _send(self, kind, content):
        self._file.write(HEAD.pack(kind, len(content)))
        self._file.write(content)


def _end_with_reader():
    """End the process once the other end of its stdin is closed: by the reader, or its death."""
    sys.stdin.buffer.read()
    os._exit(0)


def main(path, *flags):
    """Decode one file to stdout, and end the process. ``flags``: --ignore_length."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who reads it decides when it ends
    threading.Thread(target=_end_with_reader, daemon=True).start()
    options = {"format_whitelist": DEMUXERS}
    if "--ignore_length" in flags:
        options["ignore_length"] = "1"
    output = Output(sys.stdout.buffer)
    with contextlib.suppress(BrokenPipeError):  # the reader has seen enough
        try:
            for message in decode(path, options):
                output.write(message)
        except Unreadable as error:
            output.write({"error": str(error)})
        except av.FFmpegError as error:
            output.write({"error": UNKNOWN.format(error.strerror)})
    os._exit(0)  # at once: what is left to tidy up goes with the process
