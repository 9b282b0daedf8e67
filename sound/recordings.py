"""Recordings in and out: open, stream, resample, read, write.

Everything here is float32 with full scale = 1; streams are arrays (channels, samples).

Two libraries read. libsndfile takes what it reads fast and exactly: wav, flac, aiff, ogg and their
like. FFmpeg, through PyAV, takes all the rest: what phones and browsers record, videos, and what
libsndfile would cut short, which is every mp3 (it stops where the header, or its guess, says) and
files whose length is not what their header says, or of several parts.
"""

import contextlib
import glob
import io
import os
import sys
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from common.cli import UserError, one_line, quiet_stderr
from common.files import complete
from data import SAMPLE_RATE
from sound import headers

RATES = (1000, 400_000)  # Hz: sampling rates of real recordings, with room on both sides
MAX_CHANNELS = 32  # they stream side by side, so memory grows with them
MAX_SAMPLE = 2.0**32  # of a float file, full scale = 1: its power is still far from float32's end
READ_SIZE = 2**18  # samples of a block

DEPTHS = (16, 24, "float")  # bits of a sample that are written; "float" has 32
WRITTEN_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
AUDIO_EXTENSIONS = (  # one that FFmpeg is to read also needs its container in _DEMUXERS
    *WRITTEN_EXTENSIONS,
    *(".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),  # sample by sample
    *(".m4a", ".m4b", ".aac", ".oga", ".opus", ".wma", ".mp2", ".ac3", ".amr", ".ape", ".wv"),
    *(".mp4", ".m4v", ".mov", ".mkv", ".mka", ".webm", ".avi", ".wmv", ".flv", ".3gp", ".ogv"),
    *(".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
)

_DEMUXERS = (  # what FFmpeg may take a file for: no playlists, which would open other files
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,wv"
)
_WRITTEN_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
_WRITTEN_DEPTHS = {  # libsndfile's names; ogg and mp3 have no depth
    ".wav": {16: "PCM_16", 24: "PCM_24", "float": "FLOAT"},
    ".flac": {16: "PCM_16", 24: "PCM_24"},
}
_SNDFILE_DEPTHS = {  # of what libsndfile reads; 32-bit integers need a float to keep their level
    **{"PCM_24": 24, "ALAC_20": 24, "ALAC_24": 24},
    **{"PCM_32": "float", "ALAC_32": "float", "FLOAT": "float", "DOUBLE": "float"},
}
_MAX_OGG_RATE = 200_000  # Hz: above it libvorbis ends the process
_MAX_WAV_BYTES = 2**32 - 2**20  # its sizes have 32 bits; a mebibyte is more than any header
_WRITE_SIZE = 2**16  # frames: libvorbis overflows its stack on much longer blocks
_UNKNOWN_LENGTH = 2**62  # frames: libsndfile gives 2^63 - 1 for a FLAC file from a pipe
_CANCELLED = 0.2  # see `MonoMix`
_TIMED_FORMATS = {"mov", "flv", "wv", "ape"}  # FFmpeg's names; their header tells of a duration
_CUT = "its header tells of more sound than there is, as after a broken copy: its end is missing"


class Sound:
    """An open recording, which is read from its beginning to its end.

    Attributes:
        name: the path as it was given, text.
        samplerate: Hz.
        channels: their number.
        frames: samples a channel: exact, an estimate, or None, as the file and its format allow.
        bits: depth of its samples, one of `DEPTHS`; 16 for lossy formats, which have none.
        remarks: list of sentences on what had to be done to read it; complete once it is read.
    """

    def __init__(self, name, samplerate, channels, frames, bits):
        self.name = str(name)
        self.samplerate = samplerate
        self.channels = channels
        self.frames = frames
        self.bits = bits
        self.remarks = []
        self._position = 0

    def read(self, size):
        """The next ``size`` samples of all channels, fewer at the end: float32 (channels, any).

        Raises:
            UserError: the file is damaged.
        """
        block = self._read(size)
        self._position += block.shape[1]
        return block

    def tell(self):
        """Samples a channel that were read so far."""
        return self._position

    def __enter__(self):
        """Itself, for ``with``."""
        return self

    def __exit__(self, *_):
        """Close it."""
        self.close()


class _SndfileSound(Sound):
    """What libsndfile reads."""

    def __init__(self, path, file):
        bits = _SNDFILE_DEPTHS.get(file.subtype, 16)
        super().__init__(path, file.samplerate, file.channels, file.frames, bits)
        self._file = file

    def _read(self, size):
        try:
            with quiet_stderr():
                block = self._file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{self.name}: is damaged ({error}); export it again") from None
        return block.T

    def close(self):
        """Close the file."""
        self._file.close()


# PyAV before 19 refuses a file for a title that is no UTF-8, unless it is told not to.
_TAGS_OF_ANY_BYTES = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


class _FFmpegSound(Sound):
    """What FFmpeg decodes: the best audio stream of a file.

    Rate and channels are those of the first frame, and what follows is brought to them. Packets
    that cannot be decoded are passed over, as players do, and counted.
    """

    def __init__(self, path, options):
        self.name = str(path)
        self._packets = 0
        self._damaged = 0
        self._decoded = 0  # samples a channel
        self._declared = None  # samples a channel by the header, where it tells of them
        self._form = None  # of the frames that `_resampler` takes
        self._resampler = None
        with contextlib.ExitStack() as opened:
            location = os.path.abspath(path)  # which FFmpeg never takes for an address
            container = av.open(location, options=options, **_TAGS_OF_ANY_BYTES)
            opened.enter_context(container)
            stream = container.streams.best("audio")
            if stream is None:
                raise UserError(f"{path}: holds no sound; give another file")
            frames = self._decode(container, stream)
            first = next(frames, None)
            if first is None:
                raise UserError(f"{path}: holds no sound that can be decoded; export it again")
            bits = _depth_of(stream.codec_context, first.format)
            super().__init__(path, first.sample_rate, first.layout.nb_channels, None, bits)
            self.frames = self._estimate_frames(container, stream)
            if stream.duration and _TIMED_FORMATS & set(container.format.name.split(",")):
                self._declared = self.frames
            self._layout = first.layout
            self._blocks = self._make_blocks(first, frames)
            self._held = np.zeros((self.channels, 0), np.float32)  # decoded, not yet asked for
            self._opened = opened.pop_all()

    def _decode(self, container, stream):
        """All frames of the stream, up to what is damaged beyond reading on."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.PatchWelcomeError:
                raise UserError(
                    f"{self.name}: changes its rate or channels midway; export its parts anew"
                ) from None
            except av.FFmpegError:
                self._damaged += 1
                return
            if packet is None:
                return
            self._packets += 1
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self._damaged += 1
                continue
            yield from frames

    def _estimate_frames(self, container, stream):
        """Samples a channel by what the header says or FFmpeg guesses, or None."""
        if stream.duration:
            return round(stream.duration * stream.time_base * self.samplerate)
        if container.duration:
            return round(container.duration / av.time_base * self.samplerate)
        return None

    def _make_blocks(self, first, frames):
        """Frames -> float32 (channels, any) at one rate."""
        yield from self._convert(first)
        for frame in frames:
            yield from self._convert(frame)
        yield from self._drain()
        if self._damaged > self._packets // 2:
            raise UserError(f"{self.name}: is damaged (most of it); export it again")
        if self._damaged:
            self.remarks.append(
                f"{self._damaged} of {self._packets} packets are damaged and were passed over"
            )
        self._tell_missing_end()

    def _tell_missing_end(self):
        """Add a remark if the header tells of clearly more than was decoded."""
        if self._declared is None or _CUT in self.remarks:
            return
        # Players' lengths differ by the encoder's padding; half a second is more than any.
        if self._decoded < 0.98 * self._declared - 0.5 * self.samplerate:
            self.remarks.append(_CUT)

    def _convert(self, frame):
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            yield from self._drain()
            self._form = form
            self._resampler = av.AudioResampler("flt", self._layout, self.samplerate)
        for converted in self._resampler.resample(frame):
            yield self._to_array(converted)

    def _drain(self):
        """What the resampler still holds."""
        if self._resampler is not None:
            for converted in self._resampler.resample(None):
                yield self._to_array(converted)

    def _to_array(self, frame):
        """Interleaved frame -> float32 (channels, any). Planar ones crash PyAV above 8 channels."""
        samples = frame.to_ndarray().reshape(-1, self.channels).T
        self._decoded += samples.shape[1]
        return samples

    def _read(self, size):
        blocks = [self._held]
        count = self._held.shape[1]
        while count < size:
            block = next(self._blocks, None)
            if block is None:
                break
            blocks.append(block)
            count += block.shape[1]
        joined = np.concatenate(blocks, axis=1)
        self._held = joined[:, size:]
        return joined[:, :size]

    def close(self):
        """Close the file."""
        self._opened.close()


def _depth_of(codec, form):
    """Depth of what FFmpeg decodes, one of `DEPTHS`: av.CodecContext and av.AudioFormat.

    Lossy decoders give floats, too, or 32 bits, but hold nothing below 16 bits worth keeping.
    """
    if not codec.codec.lossless:
        return 16
    if form.name.startswith(("flt", "dbl")) or codec.name.startswith("pcm_s32"):
        return "float"
    return 24 if form.bits > 16 else 16


def open_sound(path):
    """Open a recording, or the sound of a video, for reading.

    Returns:
        `Sound`.

    Raises:
        UserError: it is missing, holds no sound, or is of an odd rate or layout.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; check the path")
    file = _open_by_libsndfile(path)
    stale = file is not None and headers.is_stale(path, file.frames)
    ogg = headers.read_ogg(path)
    if file is not None and not stale and not ogg.chained and _is_read_whole(file):
        sound = _SndfileSound(path, file)
    else:
        if file is not None:
            file.close()
        sound = _open_by_ffmpeg(path, stale)
    if ogg.cut or headers.is_cut(path):
        sound.remarks.append(_CUT)
    if RATES[0] <= sound.samplerate <= RATES[1] and sound.channels <= MAX_CHANNELS:
        return sound
    sound.close()
    raise UserError(
        f"{path}: {sound.channels} channels at {sound.samplerate} Hz; at most {MAX_CHANNELS} and "
        f"{RATES[0]} ... {RATES[1]} Hz are taken: mix it down or resample it"
    )


def _open_by_libsndfile(path):
    """soundfile.SoundFile, or None if libsndfile does not know the format."""
    name = os.fsencode(path) if os.name == "posix" else str(path)  # names that are not UTF-8
    try:
        with quiet_stderr():  # libmpg123 has its own words for a damaged mp3
            return soundfile.SoundFile(name)
    except (soundfile.LibsndfileError, TypeError):
        return None


def _is_read_whole(file):
    """Whether libsndfile gives all that is in one stream, open as soundfile.SoundFile."""
    return file.format != "MP3" and file.seekable() and file.frames < _UNKNOWN_LENGTH


def _open_by_ffmpeg(path, stale):
    """The recording as `_FFmpegSound`; ``stale``: its header is wrong. Raises UserError."""
    options = {"format_whitelist": _DEMUXERS}
    if stale:
        options["ignore_length"] = "1"
    try:
        sound = _FFmpegSound(path, options)
    except av.FFmpegError as error:
        raise UserError(
            f"{path}: cannot be read as audio ({error.strerror}): no recording, or half a copy of "
            "one; give a wav, flac, mp3, m4a, ..., or a video with sound"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check its permissions") from None
    if stale:
        sound.remarks.append(
            "its header tells of less sound than there is, as after a crash: read to the file's end"
        )
    return sound


def print_remarks(sound):
    """Tell the user on stderr what had to be done to read a `Sound`: one line for each remark."""
    for remark in sound.remarks:
        print(f"note: {one_line(sound.name)}: {remark}", file=sys.stderr)


def read_blocks(sound, size=READ_SIZE):
    """An open `Sound` -> stream of float32 (channels, any), at least one block.

    Raises:
        UserError: it is damaged, holds samples that no recording has, or changes meanwhile.
    """
    before = os.stat(sound.name)
    while True:
        block = sound.read(size)
        if not np.abs(block).max(initial=0) <= MAX_SAMPLE:
            raise UserError(
                f"{sound.name}: holds samples that are NaN, infinite or absurdly large; "
                "export it again"
            )
        after = os.stat(sound.name)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise UserError(
                f"{sound.name}: changed while it was being read; run again once it is complete"
            )
        yield block
        if block.shape[1] < size:
            return


class MonoMix:
    """Averages the channels of a stream, and knows afterwards whether they cancelled each other.

    Two channels of opposite polarity, as of a cable wired wrongly, average to silence. Then one
    channel alone is the better mono. Channels that have nothing in common average to a power of
    sum(powers) / channels**2, equal ones to more; below 0.2 of it, two equally loud channels
    correlate by less than -0.8, and that is no stereo picture any more.
    """

    def __init__(self):
        self._mean_power = 0.0
        self._powers = 0.0

    def average(self, block):
        """Float32 (channels, n) -> (1, n)."""
        mono = block.mean(axis=0, keepdims=True)
        self._mean_power += np.square(mono, dtype=np.float64).sum()
        self._powers += np.square(block, dtype=np.float64).sum(axis=1)
        return mono

    def channel_instead(self):
        """Index of the channel to take instead, the loudest, or None if the average is right."""
        unrelated = np.sum(self._powers) / np.size(self._powers) ** 2
        if self._mean_power >= _CANCELLED * unrelated:
            return None
        return int(np.argmax(self._powers))


def mix_down(block):
    """Float32 (channels, n) -> (1, n): the average, or the loudest channel where they cancel."""
    mix = MonoMix()
    mono = mix.average(block)
    channel = mix.channel_instead()
    if channel is None:
        return mono
    return block[channel : channel + 1]


def read_mono(path, process):
    """Stream a recording as mono through ``process``: the average of its channels, as a rule.

    If the channels cancel each other, which shows at the end only, it is read again, and the
    loudest channel taken alone.

    Args:
        process: called with a stream of float32 (1, any) and the sampling rate.

    Returns:
        (what ``process`` returns, the `Sound`, which is closed: its length and remarks).

    Raises:
        UserError: see `open_sound` and `read_blocks`.
    """
    mix = MonoMix()
    with open_sound(path) as sound:
        result = process(map(mix.average, read_blocks(sound)), sound.samplerate)
    channel = mix.channel_instead()
    if channel is None:
        return result, sound
    with open_sound(path) as sound:
        blocks = (block[channel : channel + 1] for block in read_blocks(sound))
        result = process(blocks, sound.samplerate)
    sound.remarks.append(
        f"its channels are of opposite polarity and would cancel: channel {channel + 1} is taken"
    )
    return result, sound


def _join(blocks, rate):
    """A stream of mono as one array, and its rate."""
    return np.concatenate(list(blocks), axis=1)[0], rate


def read_audio(path, sample_rate=SAMPLE_RATE):
    """Read a recording as mono, by `read_mono`, resampled by soxr at high quality.

    Returns:
        float32 (n,) at ``sample_rate``, full scale = 1.

    Raises:
        UserError: the file is missing, is no audio, or holds NaN, infinite or absurdly large
            samples.
    """
    (audio, rate), sound = read_mono(path, _join)
    print_remarks(sound)
    if rate == sample_rate:
        return audio
    return soxr.resample(audio, rate, sample_rate, quality="HQ")


def resample_stream(blocks, rate, new_rate):
    """Resample a stream of float32 (channels, any) by soxr at high quality, as `read_audio` does.

    Some silence follows the end, so that at least round(n * new_rate / rate) samples of n come
    out. Equal rates: unchanged.
    """
    if rate == new_rate:
        yield from blocks
        return
    stream = None
    for block in blocks:
        if stream is None:
            channels = len(block)
            stream = soxr.ResampleStream(rate, new_rate, channels, dtype="float32", quality="HQ")
        yield stream.resample_chunk(block.T).T
    silence = np.zeros((rate // 100 + rate // new_rate + 2, channels), np.float32)
    yield stream.resample_chunk(silence, last=True).T


def find_audio(folder, name):
    """The recording ``name`` in whichever format is there, or None.

    ``name`` is a path below ``folder``, without extension.
    """
    path = Path(folder) / name
    for found in sorted(path.parent.glob(f"{glob.escape(path.name)}.*")):
        known = found.stem == path.name and found.suffix.lower() in AUDIO_EXTENSIONS
        if known and found.is_file():
            return found
    return None


def check_writable(target, channels, rate, bits=None):
    """Check, before any work, that ``target``'s format takes these channels and this rate.

    Args:
        target: path; its extension chooses the format, one of `WRITTEN_EXTENSIONS`.
        channels: their number.
        rate: Hz.
        bits: depth that was asked for, one of `DEPTHS`, or None: whatever the format has.

    Raises:
        UserError: it does not.
    """
    extension = Path(target).suffix.lower()
    if extension not in WRITTEN_EXTENSIONS:
        raise UserError(
            f"{target}: '{extension}' cannot be written; give {', '.join(WRITTEN_EXTENSIONS)}"
        )
    if bits is not None:
        _check_depth(target, extension, bits)
    taken = extension != ".ogg" or rate <= _MAX_OGG_RATE
    if taken:
        taken = _can_encode(_WRITTEN_FORMATS[extension], channels, rate)
    if not taken:
        raise UserError(
            f"{target}: this format does not take {channels} channels at {rate} Hz; "
            "give another extension or --sr"
        )


def _check_depth(target, extension, bits):
    """Raise UserError if a format has no samples of a depth."""
    depths = _WRITTEN_DEPTHS.get(extension)
    if depths is None:
        raise UserError(
            f"--bits {bits}: {target} would be compressed, and have no bit depth; leave --bits "
            "out, or give a .wav or .flac"
        )
    if bits not in depths:
        raise UserError(
            f"--bits {bits}: flac holds whole numbers only; give --bits 24, or a .wav instead of "
            f"{target}"
        )


def choose_depth(target, bits):
    """Depth that ``target``'s format writes for sound of a depth: (one of `DEPTHS` or None).

    FLAC gets 24 bits of a float, the most it takes; ogg and mp3 have none.
    """
    depths = _WRITTEN_DEPTHS.get(Path(target).suffix.lower())
    if depths is None:
        return None
    return bits if bits in depths else 24


def _can_encode(kind, channels, rate):
    """Whether libsndfile encodes a sample so. FLAC refuses a rate as late as at the first."""
    try:
        with soundfile.SoundFile(io.BytesIO(), "w", rate, channels, format=kind) as file:
            file.write(np.zeros((1, channels), np.float32))
    except (soundfile.LibsndfileError, ValueError, TypeError):
        return False
    return True


def create_sound(target, part, channels, rate, seconds=0.0, bits=16):
    """Open ``part`` for writing what ``target``'s extension says: PCM, Vorbis or MP3.

    Args:
        target, channels, rate: see `check_writable`.
        part: path that is written to.
        seconds: length that is going to be written. A WAV file of more than 4 GiB becomes RF64,
            which has the same extension and is read by what reads such files at all.
        bits: depth, one of `DEPTHS`, where the format has one: see `choose_depth`.

    Returns:
        soundfile.SoundFile.

    Raises:
        UserError: the format does not take it, or the file cannot be created.
    """
    check_writable(target, channels, rate)
    extension = Path(target).suffix.lower()
    kind = _WRITTEN_FORMATS[extension]
    subtype = None  # ogg's and mp3's own
    if extension in _WRITTEN_DEPTHS:
        subtype = _WRITTEN_DEPTHS[extension][choose_depth(target, bits)]
    sample_bytes = 4 if bits == "float" else bits // 8
    if kind == "WAV" and sample_bytes * channels * rate * seconds > _MAX_WAV_BYTES:
        kind = "RF64"
    name = os.fsencode(part) if os.name == "posix" else str(part)
    try:
        return soundfile.SoundFile(name, "w", rate, channels, subtype, format=kind)
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"{target}: cannot be written ({error}); check the path and its permissions"
        ) from None


@contextlib.contextmanager
def named_errors(target):
    """Name ``target`` in libsndfile's errors of writing it, which come without: a full disk's."""
    try:
        yield
    except (soundfile.LibsndfileError, AssertionError) as error:
        raise UserError(
            f"{target}: cannot be written ({str(error) or 'cut short'}); is the disk full?"
        ) from None


def write_audio(path, audio, sample_rate=SAMPLE_RATE):
    """Write audio (n,) or (n, channels); the extension chooses the format.

    16-bit PCM where it has one.

    Raises:
        ValueError: a sample is beyond full scale, and would wrap or be cut: the caller scales.
        UserError: the format does not take it, or it cannot be written.
    """
    peak = np.abs(audio).max(initial=0)
    if not peak <= 1:
        raise ValueError(f"peak {peak} exceeds full scale")
    channels = 1 if audio.ndim == 1 else audio.shape[1]
    seconds = len(audio) / sample_rate
    with (
        complete(path) as part,
        named_errors(path),
        create_sound(path, part, channels, sample_rate, seconds) as output,
    ):
        for start in range(0, len(audio), _WRITE_SIZE):
            output.write(audio[start : start + _WRITE_SIZE])


def read_spool(spool, channels, length):
    """The first ``length`` frames of raw float32 in ``spool``: stream of (channels, any).

    At least one block comes.
    """
    spool.seek(0)
    for start in range(0, max(1, length), _WRITE_SIZE):
        count = min(_WRITE_SIZE, length - start)
        raw = spool.read(count * channels * 4)
        yield np.frombuffer(raw, np.float32).reshape(-1, channels).T


def write_blocks(output, blocks):
    """Write a stream of float32 (channels, any) to an open file; returns its peak."""
    peak = 0.0
    for block in blocks:
        peak = max(peak, float(np.abs(block).max(initial=0)))
        output.write(block.T)
    return peak
