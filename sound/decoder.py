"""Decode one recording with FFmpeg in a separate process, so that a crash affects one file only.

recordings.py starts `main` and reads its stdout. A message has a kind (one byte), a size (32 bits,
little endian) and its content. The first is JSON {samplerate, channels, bits}. SAMPLES follow,
interleaved float32. The last is JSON {remarks}. JSON {error} may replace any message.

Each frame is placed at its time stamp, as in a player. A gap becomes silence; sound that starts
later than the video starts with silence. The rest of the file must support a long gap: see
`Track.find_room`. Nothing here imports numpy, which would double the start-up time (0.2 s).
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

from sound.headers import CUT, STALE

DEMUXERS = (  # formats that FFmpeg may detect; no playlists, because they open other files
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,wv"
)
JSON, SAMPLES = b"J", b"S"  # kinds of messages
HEAD = struct.Struct("<cI")  # of a message
CHUNK_BYTES = 2**20

JITTER = 0.01  # s: inaccuracy of the time stamps that browsers write
RESTARTING = {"mpegts", "mpeg", "ogg"}  # formats whose parts may have separate clocks
RESTART = 10  # s: a longer jump starts another part in these formats, as in FFmpeg's programs
UNASKED = 10  # s of silence in total that are accepted without checking the whole file
LONGEST = 3600  # s of silence in total that are accepted at most

# Formats with a length in the header; for others FFmpeg guesses it from the file's size.
TIMED_TRACK = {"mov", "flac", "wv", "ape", "caf"}
TIMED_FILE = {"flv"}
SLACK = 0.5  # s: tolerance of these lengths, which may or may not include an encoder's padding

UNKNOWN = (
    "cannot be read as audio ({}): not a recording, or incomplete; give a wav, flac, mp3, "
    "m4a, ..., or a video with sound"
)

# By default PyAV before 19 rejects a file whose title is not UTF-8.
TAGS_OF_ANY_BYTES = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


class Unreadable(Exception):
    """The file cannot be decoded. Text: reason and remedy; the caller adds the file's name."""


class Track:
    """One audio stream of an open file.

    Attributes:
        formats: set of FFmpeg's names of the file's format.
        tick: s, the unit of the time stamps.
        origin: s, start time of the file.
        declared: s, the length in the header, or None.
        last: s, the end of the last packet so far, of any stream of the file.
        packets, damaged: number of packets so far; damaged packets are skipped, as in players.
        disbelieved: s of silence rejected so far.
    """

    def __init__(self, container, stream, open_again):
        """``open_again()`` opens the same file as another av.container."""
        self.formats = set(container.format.name.split(","))
        self.tick = float(stream.time_base)
        start = (container.start_time or 0) / av.time_base
        self.origin = max(start, 0.0)  # sound before time 0 is an encoder's priming
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
        """Yield all frames, up to damage that stops the demuxer."""
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.error.PatchWelcomeError:
                raise Unreadable(
                    "changes its rate or channels in the middle; export it again"
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
        """Find the seconds of silence that the file can contain: its length minus its sound.

        The length is the end of the video, at most the length in the header. Without video, silence
        may be at most as long as the sound. A header that declares less than the sound (a file sent
        while it was recorded) is ignored.

        A player that meets a longer jump waits for the video; without one it does not wait.
        """
        lengths = []  # s, of the packets of sound
        picture = 0.0  # s, end of the last video packet; one damaged block does not change it
        with self._open_again() as container, contextlib.suppress(av.FFmpegError):
            declared = (container.duration or 0) / av.time_base
            for packet in container.demux():
                length = float((packet.duration or 0) * packet.time_base)
                if packet.stream.index == self._stream.index:
                    lengths.append(length)
                elif packet.pts is not None:
                    picture = float(packet.pts * packet.time_base) + length - self.origin
        usual = statistics.median(lengths) if lengths else 0.0
        sound = sum(min(length, 8 * usual) for length in lengths)  # an mp4 packet may span a pause
        if declared < sound:
            declared = LONGEST + sound
        alone = min(declared - sound, sound)
        return min(max(alone, min(declared, picture) - sound) + SLACK, LONGEST)

    def _note_time(self, packet):
        if packet.pts is not None and TIMED_FILE & self.formats:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self.last = max(self.last, float(end) - self.origin)


def _forget_order(context):
    """Replace the order of the channels by their number, before the first frame.

    PyAV 17.1 - 18.1 frees the memory of an unusual order (QuickTime's 5.1) several times, once for
    each object that uses it, frames included, and the process crashes. Here it is freed once.
    Decoders that need the order read it from the stream. Channels keep the order of the file.
    """
    layout = context.layout
    if layout.nb_channels:
        context.layout = f"{layout.nb_channels}C"


class Placer:
    """Converts frames to interleaved float32, as bytes, each placed at its time stamp.

    The first frame determines rate and channels; later frames are converted to them.

    Attributes:
        rate: Hz.
        channels: number of channels.
        position: samples per channel given so far.
    """

    def __init__(self, track, first):
        self.rate = first.sample_rate
        self.channels = first.layout.nb_channels
        self.position = 0
        self._track = track
        self._layout = first.layout
        self._form = None  # format of the frames for which `_resampler` was made
        self._resampler = None
        self._shift = 0  # samples between the clock of the current part and that of the first
        self._room = UNASKED * self.rate  # samples of silence that are still accepted
        self._asked = False  # whether `find_room` was called

    def place(self, first, frames):
        """Yield the bytes of all frames and of the silence between them."""
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
        """Samples from ``position + ahead`` to a frame's time stamp; may be negative."""
        if frame.pts is None:
            return 0
        time = frame.pts * self._track.tick - self._track.origin
        return round(time * self.rate) + self._shift - self.position - ahead

    def _find_run_up(self, frame, samples):
        """How many of the first frame's ``samples`` before time 0 to leave out."""
        tick = self._track.tick * frame.sample_rate  # time stamps are rounded to it
        if samples and frame.samples - samples < tick / 2:
            return frame.samples  # the next frame has a more exact start
        return samples

    def _find_pause(self, frame, following):
        """Samples of silence before a frame that is not the first; ``following`` may be None.

        A pause counts if the next frame's time stamp confirms it: a single time stamp may be wrong,
        for example in Vorbis where the block length changes.
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
        self._shift -= gap  # another part with its own clock, or damage
        return 0

    def _believe(self, gap):
        """Accept a gap: the samples of it that become silence, all or none."""
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
        """Samples of the last frame before the end that players obey; None: all."""
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
        """Yield the bytes of a frame's samples from ``start`` to ``end``."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            yield from self._drain()
            self._form = form
            self._resampler = av.AudioResampler("flt", self._layout, self.rate)
        for converted in self._resampler.resample(frame):
            yield self._cut(converted, start, end)

    def _drain(self):
        """Yield the samples that remain in the resampler."""
        if self._resampler is not None:
            for converted in self._resampler.resample(None):
                yield self._cut(converted)

    def _cut(self, frame, start=0, end=None):
        """Bytes of a packed frame. (Planar frames crash PyAV above 8 channels.)"""
        if end is None:
            end = frame.samples
        self.position += max(0, end - start)
        sample_bytes = 4 * self.channels
        return memoryview(frame.planes[0])[start * sample_bytes : end * sample_bytes]


def open_file(path, options):
    """Open a file as av.container.

    PyAV before 17.1 crashes if the streams get ``options``, too: FLV and MPEG add streams later.
    """
    location = os.path.abspath(path)  # FFmpeg never takes an absolute path for a URL
    return av.open(location, container_options=options, **TAGS_OF_ANY_BYTES)


def list_tracks(path, options):
    """List the indices of audio streams with a known codec, FFmpeg's best choice first."""
    with open_file(path, options) as container:
        if not container.streams.audio:
            raise Unreadable("has no sound; give another file")
        best = container.streams.best("audio")
        tracks = []
        for stream in container.streams.audio:
            if stream.codec_context is not None:
                tracks.append(stream.index)
        if best is not None:
            tracks.sort(key=lambda index: index != best.index)
        return tracks


def decode(path, options):
    """Yield the messages described at the top: dicts, and bytes of samples.

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
    raise Unreadable("has no sound that can be decoded; export it again")


def list_remarks(track, length):
    """List remarks about repairs of a track that gave ``length`` s of sound.

    Raises:
        Unreadable: most of it is damaged.
    """
    if track.damaged > track.packets // 2:
        raise Unreadable("is mostly damaged; export it again")
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
    """Depth of samples, one of `recordings.DEPTHS`, from an av.CodecContext and av.AudioFormat.

    It is 16 for lossy codecs: their decoders may give floats, but the extra bits hold no signal.
    """
    if not codec.codec.lossless:
        return 16
    if form.name.startswith(("flt", "dbl")) or codec.name.startswith("pcm_s32"):
        return "float"
    return 24 if form.bits > 16 else 16


class Output:
    """Writes messages to a binary file; samples are collected into chunks."""

    def __init__(self, file):
        self._file = file
        self._held = []
        self._size = 0

    def write(self, message):
        """Write a dict or bytes of samples."""
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
    """End the process when the reader closes stdin or ends."""
    sys.stdin.buffer.read()
    os._exit(0)


def main(path, *flags):
    """Decode one file to stdout and end the process. ``flags``: --ignore_length."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the reading process decides when to end
    threading.Thread(target=_end_with_reader, daemon=True).start()
    options = {"format_whitelist": DEMUXERS}
    if "--ignore_length" in flags:
        options["ignore_length"] = "1"
    output = Output(sys.stdout.buffer)
    with contextlib.suppress(BrokenPipeError):  # the reader closed the pipe
        try:
            for message in decode(path, options):
                output.write(message)
        except Unreadable as error:
            output.write({"error": str(error)})
        except av.FFmpegError as error:
            output.write({"error": UNKNOWN.format(error.strerror)})
    os._exit(0)  # immediately, without clean-up
