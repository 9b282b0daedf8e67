"""Read and write recordings of every format, as streams; resample them.

Everything here is float32 with full scale = 1; streams are arrays (channels, samples).

Two libraries read. FFmpeg reads every format, in a process of its own, with time stamps: see
decoder.py. libsndfile reads two kinds of files, which have none: uncompressed sound (wav, aiff, au,
caf, w64), four times as fast; and ogg of one stream, of which FFmpeg shifts the shortest by 128
samples. Not FLAC and mp3: libsndfile stops where their header, or its guess, says.
"""

import contextlib
import glob
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

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
AUDIO_EXTENSIONS = (  # one that FFmpeg is to read also needs its container in decoder.py
    *WRITTEN_EXTENSIONS,
    *(".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),  # sample by sample
    *(".m4a", ".m4b", ".aac", ".oga", ".opus", ".wma", ".mp2", ".ac3", ".amr", ".ape", ".wv"),
    *(".mp4", ".m4v", ".mov", ".mkv", ".mka", ".webm", ".avi", ".wmv", ".flv", ".3gp", ".ogv"),
    *(".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
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
_CANCELLED = 0.2  # see `MonoMix`
_DECODER = (  # a program; its first argument is where the project lies, maybe a zip file
    "import sys; sys.path[0] = sys.argv.pop(1); "
    "from sound import decoder; decoder.main(*sys.argv[1:])"
)
_MESSAGE_HEAD = struct.Struct("<cI")  # see decoder.py
PATIENCE = 300  # s: a decoder that gives nothing for so long hangs; slow network disks take 60
_BY_ANOTHER = "save it as wav by another program, and give that"
_HANGS = f"the decoder gave nothing for {{:g}} s and was stopped; {_BY_ANOTHER}"
CUT = "its header tells of more sound than there is, as after a broken copy: its end is missing"
STALE = "its header tells of less sound than there is, as after a crash: read to the file's end"


class Sound:
    """An open recording, which is read from its beginning to its end.

    Attributes:
        name: the path as it was given, text.
        samplerate: Hz.
        channels: their number.
        frames: samples a channel, exactly, or None where only reading it to its end tells.
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


class _DecodedSound(Sound):
    """What FFmpeg decodes, in a process of its own: see decoder.py. Its length shows at its end."""

    def __init__(self, path, stale):
        project = str(Path(__file__).absolute().parents[1])
        command = [sys.executable, "-c", _DECODER, project, os.path.abspath(path)]
        if stale:
            command.append("--ignore_length")
        self.name = str(path)
        self._hangs = False
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null)
        try:
            header = self._receive()
        except BaseException:
            self.close()
            raise
        super().__init__(path, header["samplerate"], header["channels"], None, header["bits"])
        self._held = np.zeros((self.channels, 0), np.float32)  # decoded, not yet asked for
        self._ended = False

    def _receive(self):
        """The decoder's next message: a dict, or interleaved samples, float32 (n,).

        Raises:
            UserError: the file cannot be decoded (further).
        """
        watch = threading.Timer(PATIENCE, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            kind, size = _MESSAGE_HEAD.unpack(self._read_pipe(_MESSAGE_HEAD.size))
            content = self._read_pipe(size)
        finally:
            watch.cancel()
        if kind == b"S":
            return np.frombuffer(content, np.float32)
        message = json.loads(content)
        if "error" in message:
            raise UserError(f"{self.name}: {message['error']}")
        return message

    def _read_pipe(self, size):
        content = self._process.stdout.read(size)
        if len(content) < size:
            code = self._process.wait()
            reason = _HANGS.format(PATIENCE) if self._hangs else _explain_end(code)
            raise UserError(f"{self.name}: {reason}")
        return content

    def _give_up(self):
        self._hangs = True
        self._process.kill()

    def _read(self, size):
        blocks = [self._held]
        count = self._held.shape[1]
        while count < size and not self._ended:
            message = self._receive()
            if isinstance(message, dict):
                self.remarks += message["remarks"]
                self._ended = True
                break
            block = message.reshape(-1, self.channels).T
            blocks.append(block)
            count += block.shape[1]
        joined = np.concatenate(blocks, axis=1)
        self._held = joined[:, size:]
        return joined[:, :size]

    def close(self):
        """End the decoder."""
        self._process.kill()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _explain_end(code):
    """What to tell the user of a decoder that ended midway, by its process's exit code."""
    if code == -getattr(signal, "SIGKILL", 9):
        return "its decoder was killed, maybe for want of memory; free some and run again"
    if code == 1:
        import av  # noqa: F401  # raises what was missing there
    reason = f"exit code {code}"
    if code < 0:
        reason = signal.Signals(-code).name
    return f"the decoder crashed on it ({reason}); {_BY_ANOTHER}"


def open_sound(path):
    """Open a recording, or the sound of a video, for reading.

    Returns:
        `Sound`.

    Raises:
        UserError: it is missing, holds no sound, or is of an odd rate or layout.
    """
    _check_is_file(path)
    try:
        sound = _open_file(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path and its permissions") from None
    if RATES[0] <= sound.samplerate <= RATES[1] and sound.channels <= MAX_CHANNELS:
        return sound
    sound.close()
    raise UserError(
        f"{path}: {sound.channels} channels at {sound.samplerate} Hz; at most {MAX_CHANNELS} and "
        f"{RATES[0]} ... {RATES[1]} Hz are taken: mix it down or resample it"
    )


def _check_is_file(path):
    """Raise UserError if it is missing, or nothing that can be read more than once."""
    path = Path(path)
    if path.is_file():
        return
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a recording")
    if path.exists():
        raise UserError(
            f"{path}: is a pipe or a device, and a recording is read more than once; "
            "write it to a file (... > song.wav) and give that"
        )
    raise UserError(f"{path}: no such file; check the path")


def _open_file(path):
    """A file as `Sound`, with what is known of it so far in its remarks."""
    file = _open_by_libsndfile(path)
    stale = file is not None and headers.is_stale(path, file.frames)
    ogg = headers.read_ogg(path)
    if file is None or stale or ogg.chained or ogg.cut:
        if file is not None:
            file.close()
        sound = _DecodedSound(path, stale)
    else:
        sound = _SndfileSound(path, file)
    if stale:
        sound.remarks.append(STALE)
    if ogg.cut or headers.is_cut(path):
        sound.remarks.append(CUT)
    return sound


def _open_by_libsndfile(path):
    """soundfile.SoundFile, or None for what it does not know, or cuts short (see the head)."""
    name = os.fsencode(path) if os.name == "posix" else str(path)  # names that are not UTF-8
    try:
        with quiet_stderr():  # libmpg123 has its own words for a damaged mp3
            file = soundfile.SoundFile(name)
    except (soundfile.LibsndfileError, TypeError):
        return None
    if file.format in ("FLAC", "MP3") or not file.seekable():
        file.close()
        return None
    return file


def print_remarks(sound):
    """Tell the user on stderr what had to be done to read a `Sound`: one line for each remark."""
    for remark in sound.remarks:
        print(f"note: {one_line(sound.name)}: {remark}", file=sys.stderr)


def read_blocks(sound, size=READ_SIZE):
    """An open `Sound` -> stream of float32 (channels, any), at least one block.

    Raises:
        UserError: it is damaged or empty, holds samples that no recording has, or changes
            meanwhile.
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
        if not sound.tell():
            raise UserError(f"{sound.name}: has no samples; record or export it again")
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
        soundfile.SoundFile, whose ``close`` raises OSError if the disk was full.

    Raises:
        UserError, OSError: the format does not take it, or the file cannot be created.
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
    try:
        return _Output(target, part, rate, channels, subtype, kind)
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"{target}: cannot be written ({error}); check the path and its permissions"
        ) from None


class _Output(soundfile.SoundFile):
    """A file that is written. Closing it raises OSError if any part of it could not be."""

    def __init__(self, target, part, rate, channels, subtype, kind):
        self._target = str(target)
        self._disk = _WatchedFile(part)
        try:
            super().__init__(self._disk, "w", rate, channels, subtype, format=kind)
        except BaseException:
            self._disk.close()
            raise

    def close(self):
        """Close it."""
        try:
            super().close()
        finally:
            error = self._disk.close()
        if error is not None:
            raise OSError(error.errno, error.strerror, self._target)


class _WatchedFile:
    """A new file that remembers an error: libsndfile forgets those of the last block of ogg or mp3.

    Has what soundfile asks of a file object to write to.
    """

    def __init__(self, path):
        self._file = open(path, "wb")  # noqa: SIM115  # `close` closes it
        self._error = None

    def write(self, content):
        """Write bytes; returns how many were."""
        with self._watch():
            return self._file.write(content)
        return 0

    def seek(self, offset, whence=os.SEEK_SET):
        """Move to a place."""
        with self._watch():
            self._file.seek(offset, whence)

    def tell(self):
        """The place."""
        return self._file.tell()

    def close(self):
        """Close it; returns the first error that there was, once, or None."""
        with self._watch():
            self._file.close()
        error, self._error = self._error, None
        return error

    @contextlib.contextmanager
    def _watch(self):
        try:
            yield
        except OSError as error:
            self._error = self._error or error


@contextlib.contextmanager
def named_errors(target):
    """Name ``target`` in libsndfile's errors of writing it, which come without: a full disk's."""
    try:
        yield
    except (soundfile.LibsndfileError, AssertionError) as error:
        raise UserError(
            f"{target}: cannot be written ({str(error) or 'cut short'}); is the disk full?"
        ) from None


def write_audio(path, audio, sample_rate=SAMPLE_RATE, place=None):
    """Write audio (n,) or (n, channels); the extension chooses the format.

    16-bit PCM where it has one. ``place`` as of `files.complete`.

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
        complete(path, place) as part,
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
