"""Recordings in and out: open, stream, resample, read, write.

Everything here is float32 with full scale = 1; streams are arrays (channels, samples).
"""

import contextlib
import glob
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr

from cli import UserError, complete, quiet_stderr
from data import SAMPLE_RATE

RATES = (1000, 400_000)  # Hz: sampling rates of real recordings, with room on both sides
MAX_CHANNELS = 32  # they stream side by side, so memory grows with them
MAX_SAMPLE = 2.0**32  # of a float file, full scale = 1: its power is still far from float32's end
AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")


def resample_stream(blocks, rate, new_rate):
    """Resample a stream of float32 (channels, any) by soxr at high quality, as `read_audio` does. Equal rates: unchanged.

    Some silence follows the end, so that at least round(n * new_rate / rate) samples of n come out.
    """
    if rate == new_rate:
        yield from blocks
        return
    stream = None
    for block in blocks:
        stream = stream or soxr.ResampleStream(
            rate, new_rate, len(block), dtype="float32", quality="HQ"
        )
        yield stream.resample_chunk(block.T).T
    silence = np.zeros((rate // 100 + rate // new_rate + 2, len(block)), np.float32)
    yield stream.resample_chunk(silence, last=True).T


def find_audio(folder, name):
    """The recording ``name`` (a path below ``folder``, without extension) as whichever format is there, or None."""
    path = Path(folder) / name
    found = sorted(path.parent.glob(f"{glob.escape(path.name)}.*"))
    return next(
        (
            p
            for p in found
            if p.stem == path.name and p.suffix.lower() in AUDIO_EXTENSIONS and p.is_file()
        ),
        None,
    )


def read_blocks(sound, size=2**18):
    """An open soundfile.SoundFile -> stream of float32 (channels, any), at least one block. Raises UserError."""
    before = os.stat(sound.name)
    while True:
        try:
            with quiet_stderr():  # libmpg123 has its own words for a damaged mp3
                block = sound.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{sound.name}: is damaged ({error}); export it again") from None
        if not np.abs(block).max(initial=0) <= MAX_SAMPLE:
            raise UserError(
                f"{sound.name}: holds samples that are NaN, infinite or absurdly large; export it again"
            )
        after = os.stat(sound.name)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise UserError(
                f"{sound.name}: changed while it was being read; run again once it is complete"
            )
        yield block.T
        if len(block) < size:
            return


def open_sound(path):
    """Open a recording for reading. Raises UserError if it is missing, no audio, or of an odd rate or layout."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        with quiet_stderr():
            sound = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read as audio ({error}); give a wav, flac, ogg or mp3 file"
        ) from None
    if not sound.seekable():
        sound.close()
        raise UserError(f"{path}: is damaged (its length is not known); export it again")
    if not RATES[0] <= sound.samplerate <= RATES[1] or sound.channels > MAX_CHANNELS:
        sound.close()
        limits = f"at most {MAX_CHANNELS} and {RATES[0]} ... {RATES[1]} Hz are taken"
        raise UserError(
            f"{path}: {sound.channels} channels at {sound.samplerate} Hz; {limits}: mix it down or resample it"
        )
    return sound


def read_audio(path, sample_rate=SAMPLE_RATE):
    """Read wav, flac, ogg or mp3 as mono: channels averaged, resampled to ``sample_rate`` (soxr, high quality).

    Returns:
        float32 (n,), full scale = 1.

    Raises:
        UserError: the file is missing, is no audio that libsndfile reads, or holds NaN, infinite or absurdly large samples.
    """
    with open_sound(path) as sound:
        rate = sound.samplerate
        audio = np.concatenate([block.mean(axis=0) for block in read_blocks(sound)])
    return audio if rate == sample_rate else soxr.resample(audio, rate, sample_rate, quality="HQ")


def write_audio(path, audio, sample_rate=SAMPLE_RATE):
    """Write audio (n,) or (n, channels); the extension chooses the format, 16-bit PCM where it has one.

    Samples beyond full scale would wrap or be cut: the caller scales, this raises ValueError.
    """
    peak = np.abs(audio).max(initial=0)
    if not peak <= 1:
        raise ValueError(f"peak {peak} exceeds full scale")
    with complete(path) as part:
        try:
            soundfile.write(part, audio, sample_rate)
        except soundfile.LibsndfileError as error:  # it does not say so if the disk is full
            raise UserError(
                f"{path}: cannot be written ({error}); free some space, or check the permissions"
            ) from None


@contextlib.contextmanager
def named_errors(target):
    """Name ``target`` in libsndfile's errors of writing it, which come without (a disk that is full, for one)."""
    try:
        yield
    except (soundfile.LibsndfileError, AssertionError) as error:
        raise UserError(
            f"{target}: cannot be written ({str(error) or 'cut short'}); is the disk full?"
        ) from None


def create_sound(target, part, channels, rate):
    """Open ``part`` for writing what ``target``'s extension says: 16-bit PCM, Vorbis or MP3. Raises UserError."""
    try:
        return soundfile.SoundFile(part, "w", rate, channels)
    except (soundfile.LibsndfileError, ValueError, TypeError):
        remedy = "give another extension or --sr"
        raise UserError(
            f"{target}: this format does not take {channels} channels at {rate} Hz; {remedy}"
        ) from None


def write_spool(spool, output, length, gain):
    """Write the first ``length`` frames of raw float32 in ``spool``, times ``gain``."""
    spool.seek(0)
    for start in range(0, length, 2**16):  # libvorbis overflows its stack on much longer blocks
        raw = spool.read(min(2**16, length - start) * output.channels * 4)
        output.write(np.frombuffer(raw, np.float32).reshape(-1, output.channels) * np.float32(gain))
