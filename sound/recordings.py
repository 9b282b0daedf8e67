"""Read and write recordings of every format, as streams; resample them.

Everything here is float32 with full scale = 1; streams are arrays (channels, samples).

FFmpeg reads every format, in its own process, and obeys time stamps: see decoder.py. libsndfile
reads two kinds of files without time stamps. It reads uncompressed sound (wav, aiff, au, caf, w64)
four times as fast. It also reads ogg with one stream, where FFmpeg shifts the shortest files by 128
samples. It does not read FLAC and mp3 here: it stops at the length in the header, or at a guess.
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
from sound.headers import CUT, STALE

RATES = (1000, 400_000)  # Hz: accepted sampling rates, wider than those of real recordings
MAX_CHANNELS = 32  # memory grows with the number of channels
MAX_SAMPLE = 2.0**32  # in a float file, full scale = 1: its power is far below float32's limit
READ_SIZE = 2**18  # samples per block

DEPTHS = (16, 24, "float")  # bits of a written sample; "float" has 32
WRITTEN_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
AUDIO_EXTENSIONS = (  # a format read by FFmpeg also needs its container in decoder.py
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
_SNDFILE_DEPTHS = {  # libsndfile's subtypes; 32-bit integers need a float to keep their precision
    **{"PCM_24": 24, "ALAC_20": 24, "ALAC_24": 24},
    **{"PCM_32": "float", "ALAC_32": "float", "FLOAT": "float", "DOUBLE": "float"},
}
_MAX_OGG_RATE = 200_000  # Hz: above this rate libvorbis ends the process
_MAX_WAV_BYTES = 2**32 - 2**20  # sizes in a wav have 32 bits; no header has more than 1 MiB
_WRITE_SIZE = 2**16  # frames: libvorbis overflows its stack on much longer blocks
_CANCELLED = 0.2  # see `MonoMix`
_DECODER = (  # a program; its first argument is the project's path, which may be a zip file
    "import sys; sys.path[0] = sys.argv.pop(1); "
    "from sound import decoder; decoder.main(*sys.argv[1:])"
)
_MESSAGE_HEAD = struct.Struct("<cI")  # see decoder.py
PATIENCE = 300  # s without output after which the decoder counts as hanging; network disks take 60
_BY_ANOTHER = "save it as wav with another program"
_HANGS = f"the decoder gave nothing for {{:g}} s and was stopped; {_BY_ANOTHER}"


class Sound:
    """An open recording, read once from beginning to end.

    It may be closed while another thread reads it: the reading then ends with an error.

    Attributes:
        name: the path as given, text.
        samplerate: Hz.
        channels: number of channels.
        frames: exact samples per channel, or None if unknown before the end.
        bits: depth of the samples, one of `DEPTHS`; 16 for lossy formats.
        remarks: list of sentences about repairs; complete at the end of the recording.
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
        """Read the next ``size`` samples, fewer at the end: float32 (channels, any).

        Raises:
            UserError: the file is damaged.
        """
        block = self._read(size)
        self._position += block.shape[1]
        return block

    def tell(self):
        """Samples per channel read so far."""
        return self._position

    def __enter__(self):
        """Return itself, for ``with``."""
        return self

    def __exit__(self, *_):
        """Close it."""
        self.close()


class _SndfileSound(Sound):
    """A recording read by libsndfile."""

    def __init__(self, path, file):
        bits = _SNDFILE_DEPTHS.get(file.subtype, 16)
        super().__init__(path, file.samplerate, file.channels, file.frames, bits)
        self._file = file
        self._busy = threading.Lock()  # libsndfile crashes if it reads a file that is closed

    def _read(self, size):
        try:
            with self._busy, quiet_stderr():
                block = self._file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{self.name}: is damaged ({error}); export it again") from None
        return block.T

    def close(self):
        """Close the file, after the block under way."""
        with self._busy:
            self._file.close()


class _DecodedSound(Sound):
    """A recording decoded by FFmpeg in another process, see decoder.py. ``frames`` is None."""

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
        self._held = np.zeros((self.channels, 0), np.float32)  # decoded, not yet returned
        self._ended = False

    def _receive(self):
        """Receive the decoder's next message: a dict, or interleaved samples, float32 (n,).

        Raises:
            UserError: the file cannot be decoded, or not to its end.
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
        """End the decoder. It may hang: a `read` of another thread ends with it."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()  # waits for that thread


def _explain_end(code):
    """Explain why the decoder ended early, from its exit code: text for the user."""
    if code == -getattr(signal, "SIGKILL", 9):
        return "its decoder was killed, probably out of memory; free some memory and run again"
    if code == 1:
        import av  # noqa: F401  # raises the decoder's own error if a package is missing
    reason = f"exit code {code}"
    if code < 0:
        reason = signal.Signals(-code).name
    return f"the decoder crashed on it ({reason}); {_BY_ANOTHER}"


def open_sound(path):
    """Open a recording, or the sound of a video, for reading.

    Returns:
        `Sound`.

    Raises:
        UserError: the file is missing, has no sound, too many channels, or a rate outside `RATES`.
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
        f"{path}: {sound.channels} channels at {sound.samplerate} Hz; the limits are "
        f"{MAX_CHANNELS} channels and {RATES[0]} ... {RATES[1]} Hz: mix it down or resample it"
    )


def _check_is_file(path):
    """Raise UserError if the path is missing or cannot be read more than once."""
    path = Path(path)
    if path.is_file():
        return
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a recording")
    if path.exists():
        raise UserError(
            f"{path}: is a pipe or a device, but a recording is read more than once; "
            "write it to a file (... > song.wav)"
        )
    raise UserError(f"{path}: no such file; check the path")


def _open_file(path):
    """Open a file as `Sound`; the remarks hold the findings so far."""
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
    """Open a soundfile.SoundFile; None for formats that it cannot read or would cut short."""
    name = os.fsencode(path) if os.name == "posix" else str(path)  # names that are not UTF-8
    try:
        with quiet_stderr():  # libmpg123 prints about a damaged mp3
            file = soundfile.SoundFile(name)
    except (soundfile.LibsndfileError, TypeError):
        return None
    if file.format in ("FLAC", "MP3") or not file.seekable():
        file.close()
        return None
    return file


def print_remarks(sound):
    """Print the remarks of a `Sound` on stderr, one line each."""
    for remark in sound.remarks:
        print(f"note: {one_line(sound.name)}: {remark}", file=sys.stderr)


def read_blocks(sound, size=READ_SIZE):
    """Read an open `Sound` as a stream of float32 (channels, any), at least one block.

    Raises:
        UserError: the file is damaged or empty, has samples that are not finite or above
            `MAX_SAMPLE`, or changes while it is read.
    """
    before = os.stat(sound.name)
    while True:
        block = sound.read(size)
        if not np.abs(block).max(initial=0) <= MAX_SAMPLE:
            raise UserError(
                f"{sound.name}: has samples that are NaN, infinite or far too large; "
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
    """Averages the channels of a stream and detects channels that cancel each other.

    Two channels of opposite polarity (a wrongly wired cable) average to silence. Then one channel
    alone is the better mono. Unrelated channels average to a power of sum(powers) / channels**2,
    similar channels to more. Below 0.2 of that power, two equally loud channels have a correlation
    below -0.8, which no stereo recording has.
    """

    def __init__(self):
        self._mean_power = 0.0
        self._powers = 0.0

    def average(self, block):
        """Average the channels: float32 (channels, n) -> (1, n)."""
        mono = block.mean(axis=0, keepdims=True)
        self._mean_power += np.square(mono, dtype=np.float64).sum()
        self._powers += np.square(block, dtype=np.float64).sum(axis=1)
        return mono

    def channel_instead(self):
        """Index of the loudest channel if the channels cancel, otherwise None."""
        unrelated = np.sum(self._powers) / np.size(self._powers) ** 2
        if self._mean_power >= _CANCELLED * unrelated:
            return None
        return int(np.argmax(self._powers))


def mix_down(block):
    """Mix to mono, float32 (channels, n) -> (1, n): the average, or see `MonoMix`."""
    mix = MonoMix()
    mono = mix.average(block)
    channel = mix.channel_instead()
    if channel is None:
        return mono
    return block[channel : channel + 1]


def read_mono(path, process):
    """Stream a recording as mono through ``process``.

    Mono is the average of the channels. If they turn out to cancel each other, the recording is
    read a second time and the loudest channel is used alone.

    Args:
        process: called with a stream of float32 (1, any) and the sampling rate.

    Returns:
        (result of ``process``, the closed `Sound`, for its length and remarks).

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
        f"its channels have opposite polarity and would cancel: only channel {channel + 1} is used"
    )
    return result, sound


def _join(blocks, rate):
    """Join a mono stream: (float32 (n,), rate)."""
    return np.concatenate(list(blocks), axis=1)[0], rate


def read_audio(path, sample_rate=SAMPLE_RATE):
    """Read a recording as mono, see `read_mono`, resampled by soxr at high quality.

    Returns:
        float32 (n,) at ``sample_rate``, full scale = 1.

    Raises:
        UserError: see `open_sound` and `read_blocks`.
    """
    (audio, rate), sound = read_mono(path, _join)
    print_remarks(sound)
    if rate == sample_rate:
        return audio
    return soxr.resample(audio, rate, sample_rate, quality="HQ")


def resample_stream(blocks, rate, new_rate):
    """Resample a stream of float32 (channels, any) by soxr at high quality, as `read_audio` does.

    Silence is added at the end, so that n samples give at least round(n * new_rate / rate). Equal
    rates leave the stream unchanged.
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
    """Find a recording in any known format: its path, or None.

    ``name`` is a path below ``folder``, without extension.
    """
    path = Path(folder) / name
    for found in sorted(path.parent.glob(f"{glob.escape(path.name)}.*")):
        known = found.stem == path.name and found.suffix.lower() in AUDIO_EXTENSIONS
        if known and found.is_file():
            return found
    return None


def check_writable(target, channels, rate, bits=None):
    """Check, before any work, that the output format supports these channels and this rate.

    Args:
        target: path; its extension is the format, one of `WRITTEN_EXTENSIONS`.
        channels: number of channels.
        rate: Hz.
        bits: depth given by the user, one of `DEPTHS`; None: any.

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
            f"{target}: this format does not support {channels} channels at {rate} Hz; "
            "give another extension or --sr"
        )


def _check_depth(target, extension, bits):
    """Raise UserError if the format does not have this depth."""
    depths = _WRITTEN_DEPTHS.get(extension)
    if depths is None:
        raise UserError(
            f"--bits {bits}: {target} is a compressed format without a bit depth; leave --bits "
            "out, or give a .wav or .flac"
        )
    if bits not in depths:
        raise UserError(
            f"--bits {bits}: flac stores integers only; give --bits 24, or a .wav instead of "
            f"{target}"
        )


def choose_depth(target, bits):
    """Choose the depth that ``target``'s format writes for sound of ``bits``: of `DEPTHS` or None.

    FLAC stores a float as 24 bits, its maximum. ogg and mp3 have no depth: None.
    """
    depths = _WRITTEN_DEPTHS.get(Path(target).suffix.lower())
    if depths is None:
        return None
    return bits if bits in depths else 24


def _can_encode(kind, channels, rate):
    """Whether libsndfile encodes this format. FLAC rejects a rate only at the first sample."""
    try:
        with soundfile.SoundFile(io.BytesIO(), "w", rate, channels, format=kind) as file:
            file.write(np.zeros((1, channels), np.float32))
    except (soundfile.LibsndfileError, ValueError, TypeError):
        return False
    return True


def create_sound(target, part, channels, rate, seconds=0.0, bits=16):
    """Open ``part`` for writing in the format of ``target``'s extension: PCM, Vorbis or MP3.

    Args:
        target, channels, rate: see `check_writable`.
        part: path to write to.
        seconds: expected length. A WAV file of more than 4 GiB becomes RF64, with the same
            extension; programs that read files of this size read RF64.
        bits: depth, one of `DEPTHS`, if the format has one: see `choose_depth`.

    Returns:
        soundfile.SoundFile, whose ``close`` raises OSError if the disk was full.

    Raises:
        UserError, OSError: the format does not support it, or the file cannot be created.
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
    """A file open for writing. ``close`` raises OSError if any part could not be written."""

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
    """A new file that remembers write errors: libsndfile loses those of ogg's and mp3's last block.

    It has the methods that soundfile needs of a writable file object.
    """

    def __init__(self, path):
        self._file = open(path, "wb")  # noqa: SIM115  # `close` closes it
        self._error = None

    def write(self, content):
        """Write bytes; returns the number written."""
        with self._watch():
            return self._file.write(content)
        return 0

    def seek(self, offset, whence=os.SEEK_SET):
        """Move to a position."""
        with self._watch():
            self._file.seek(offset, whence)

    def tell(self):
        """The position."""
        return self._file.tell()

    def close(self):
        """Close the file; returns the first error, or None. A second call returns None."""
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
    """Add the name ``target`` to libsndfile's write errors, such as those of a full disk."""
    try:
        yield
    except (soundfile.LibsndfileError, AssertionError) as error:
        raise UserError(
            f"{target}: cannot be written ({str(error) or 'cut short'}); is the disk full?"
        ) from None


def write_audio(path, audio, sample_rate=SAMPLE_RATE, place=None):
    """Write audio (n,) or (n, channels); the extension chooses the format, PCM has 16 bits.

    ``place``: see `files.complete`.

    Raises:
        ValueError: a sample exceeds full scale; the caller must scale the audio.
        UserError: the format does not support the audio, or the file cannot be written.
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
    """Read the first ``length`` frames of raw float32 from ``spool``.

    Yields at least one block, float32 (channels, any).
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
