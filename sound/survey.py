"""Measure a recording before its conversion: length, loudness, and whether it is music."""

from typing import NamedTuple

import numpy as np
import scipy  # whose parts load when they are first used

import data
from common.cli import UserError
from sound.loudness import Meter
from sound.recordings import MonoMix, mix_down, open_sound, read_blocks, resample_stream

SILENT = 0.8  # share of frames with nothing to hear
# What the models know are notes, whose spectrum stays what it is for a while. That of speech,
# percussion and noise does not. Chosen on 60 recordings of twelve kinds, right on 60 others of the
# same kinds: notes by a SoundFont of ten instruments, drums with a bass, synthetic speech.
STEADY = (
    0.55  # median likeness of spectra 46 ms apart: speech up to 0.25, drums 0.49, notes 0.28 on
)
JUMPING = 1.67  # mean dB from frame to frame: speech from 2.6 on, drums 1.75, unsteady notes 1.42
NOISY = 0.2  # median flatness, of noise that does not jump: white noise 0.56
FEW = 40  # sounding frames with another 46 ms before, half a second: of fewer nothing is said
OFFSET = 1e-3  # of full scale: a click of -60 dB is not heard
_LAG = 4  # frames
_LOUD = 1e-3  # power of a sounding frame, as a part of the loudest: -30 dB
_QUIET = 1e-5  # the same of one with nothing to hear: -50 dB
_AUDIBLE = 1e-9  # power below which nothing is heard, whatever the rest
_BAND = slice(5, 186)  # bins of 0.2 - 8 kHz
_PARTIALS = slice(2, 120)  # bins of 0.1 - 5 kHz
_AROUND = 9  # bins that a partial stands out from
_FLOOR = 1e-6  # of a frame's power: what is 60 dB below it counts as nothing
_LOWEST = 2  # bin: below is what a room hums
# Share of a recording's energy above 11 kHz from which on there is something to hear: -50 dB.
# Pieces on notes at 44.1 kHz have there: guitar, synth lead -38 ... -26 dB, strings -65 ... -46,
# pianos -68 ... -37; on notes at 16 kHz, where only their beginnings click, -88 ... -60 dB.
_TREBLE = 1e-5
_TINY = 1e-14  # far below one step of 16 bits


class Survey(NamedTuple):
    """A part of a recording, and what `listen` finds in it."""

    start: float  # s, where the part begins
    seconds: float  # its length
    loudness: float  # LUFS, -inf for silence
    remark: str  # what no model can make much of, or ""
    mono_loudness: float  # LUFS of the mean of its channels
    offset: tuple = ()  # of each channel: its mean, where it sounds; full scale = 1


class Excerpt:
    """A part of a stream: ``seconds`` from ``start`` on; all of it by default."""

    def __init__(self, rate, start=0.0, seconds=None):
        self.samples = 0  # that came out so far
        self._skip = round(start * rate)
        self._limit = None if seconds is None else round(seconds * rate)

    def cut(self, blocks):
        """Stream of blocks (channels, any) -> the part of it, at least one block."""
        skip = self._skip
        came = False
        for block in blocks:
            part = block[:, skip:]
            skip = max(0, skip - block.shape[1])
            if self._limit is not None:
                part = part[:, : self._limit - self.samples]
            if not part.shape[1] and came:
                continue
            came = True
            self.samples += part.shape[1]
            yield part
            if self.samples == self._limit:
                return


def listen(source, start=0.0, seconds=None):
    """`listen_open` to the recording whose path is ``source``. Raises the same."""
    with open_sound(source) as sound:
        return listen_open(sound, start, seconds)


def listen_open(sound, start=0.0, seconds=None):
    """Read an open recording once, whatever its length, and say what it is like.

    Args:
        sound: `recordings.Sound`, of which nothing is read yet.
        start, seconds: the part that counts, s; by default all of it.

    Returns:
        `Survey`.

    Raises:
        UserError: it cannot be read, or ends before ``start``.
    """
    meter = Meter()
    mono = _MonoMeter()
    offset = _Offset()
    character = _Character()
    rate = sound.samplerate
    excerpt = Excerpt(rate, start, seconds)
    blocks = offset.watch(excerpt.cut(read_blocks(sound)))
    blocks = resample_stream(blocks, rate, data.SAMPLE_RATE)
    for spectra in data.stft_stream(mono.watch(meter.watch(blocks))):
        character.add(spectra)
    if start and not excerpt.samples:
        whole = sound.tell() / rate
        raise UserError(f"--start {start:g}: {sound.name} is {whole:.1f} s long; give less")
    length = excerpt.samples / rate
    loudness = meter.integrated()
    mono_loudness = mono.integrated(loudness)
    return Survey(start, length, loudness, character.judge(), mono_loudness, offset.mean())


class _MonoMeter:
    """Loudness of the mean of the channels."""

    def __init__(self):
        self._mix = MonoMix()
        self._meter = Meter()
        self._channels = 1

    def watch(self, blocks):
        """Hand a stream of blocks (channels, any) through and measure it on the way."""
        for block in blocks:
            self._channels = len(block)
            if self._channels > 1:
                self._meter.add(self._mix.average(block))
            yield block

    def integrated(self, loudness):
        """In LUFS; ``loudness`` is that of all channels together.

        If they cancel each other it is the mean of what each is alone.
        """
        if self._channels == 1:
            return loudness
        if self._mix.channel_instead() is None:
            return self._meter.integrated()
        return loudness - 10 * np.log10(self._channels)


class _Offset:
    """The mean of each channel, but for digital silence."""

    def __init__(self):
        self._sum = 0.0
        self._count = 0

    def watch(self, blocks):
        """Hand a stream of blocks (channels, any) through and measure it on the way."""
        for block in blocks:
            self._sum = self._sum + block.sum(axis=1, dtype=np.float64)
            self._count = self._count + np.count_nonzero(block, axis=1)
            yield block

    def mean(self):
        """A number for each channel."""
        return tuple(self._sum / np.maximum(1, self._count))


def find_offset(audio):
    """The mean of each channel of float32 (channels, n), as of `Survey`."""
    offset = _Offset()
    for _ in offset.watch([audio]):
        pass
    return offset.mean()


def remove_offset(blocks, offset):
    """Subtract each channel's mean, ``offset``, from a stream of blocks (channels, any).

    An offset, as of a cheap sound card, begins and ends with a step, which is a click. Digital
    silence, of three samples or more, stays what it is. So do channels with hardly any offset.
    """
    offset = np.where(np.abs(offset) < OFFSET, 0, offset).astype(np.float32)[:, np.newaxis]
    if not offset.any():
        yield from blocks
        return
    for block in blocks:
        silent = scipy.ndimage.binary_opening(block == 0, np.ones((1, 3)))
        yield np.where(silent, 0, block - offset)


def has_treble(picture):
    """Whether there is anything to hear above `data.BINS`, 11 kHz, in a picture of the full band.

    The ends do not count: where a sound is cut off it clicks.

    Args:
        picture: float (512, t) on the dB scale.
    """
    energy = data.db_to_amplitude(picture[:, 2:-2]) ** 2
    treble = energy[data.BINS :].sum(dtype=float)
    return bool(treble > _TREBLE * energy.sum(dtype=float))


def read_part(path, start, seconds):
    """A part of a recording, mixed down: float32 (n,) at 44.1 kHz.

    Raises UserError if it cannot be read.
    """
    with open_sound(path) as sound:
        excerpt = Excerpt(sound.samplerate, start, seconds)
        blocks = list(excerpt.cut(read_blocks(sound)))
        length = round(excerpt.samples * data.SAMPLE_RATE / sound.samplerate)
        mono = mix_down(np.concatenate(blocks, axis=1))
        resampled = list(resample_stream([mono], sound.samplerate, data.SAMPLE_RATE))
    return np.concatenate(resampled, axis=1)[0, :length]


class _Character:
    """Power, flatness and likeness of each frame: twelve bytes each, 4 MB an hour."""

    def __init__(self):
        self._power = []
        self._flatness = []
        self._likeness = []  # of each frame and the one `_LAG` before
        self._shapes = np.zeros((_LAG, _PARTIALS.stop - _PARTIALS.start))  # of the last frames

    def add(self, spectra):
        """Take in spectra (channels, t, 256) on the scale of `data.magnitude`."""
        power = (np.abs(spectra) ** 2).sum(axis=0)  # (t, 256)
        band = power[:, _BAND] + _TINY
        flatness = np.exp(np.log(band).mean(axis=1)) / band.mean(axis=1)
        self._power.append(power[:, _LOWEST:].sum(axis=1))
        self._flatness.append(flatness.astype(np.float32))
        shapes = np.concatenate([self._shapes, find_shapes(power)])
        self._likeness.append((shapes[_LAG:] * shapes[:-_LAG]).sum(axis=1).astype(np.float32))
        self._shapes = shapes[-_LAG:]

    def judge(self):
        """The ``remark`` of `Survey`."""
        power = np.concatenate(self._power)
        if power.max() < _AUDIBLE:
            return "it is silent"
        top = np.percentile(power, 95)
        if (power < max(top * _QUIET, _AUDIBLE)).mean() > SILENT:
            return "it is mostly silence"
        sounding = power > top * _LOUD
        both_sound = sounding[_LAG:] & sounding[:-_LAG]
        if both_sound.sum() < FEW:
            return ""
        if np.median(np.concatenate(self._likeness)[_LAG:][both_sound]) > STEADY:
            return ""
        decibels = 10 * np.log10(power / top + 1e-7)
        jumps = np.abs(np.diff(decibels)).clip(0, 20)[sounding[1:]]
        flatness = np.concatenate(self._flatness)[sounding]
        if jumps.mean() > JUMPING or np.median(flatness) > NOISY:
            return "it sounds like speech, percussion or noise, of which the models know nothing"
        return ""


def find_shapes(power):
    """What stands out of each frame's spectrum, as vectors of length 1.

    Args:
        power: (t, 256).

    Returns:
        float (t, bins): dB above what is around, so that likeness is a product of two.
    """
    total = power.sum(axis=1, keepdims=True)
    decibels = 10 * np.log10(power[:, _PARTIALS] + _FLOOR * total + _TINY)
    padded = np.pad(decibels, ((0, 0), (_AROUND // 2, _AROUND // 2)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, _AROUND, axis=1).mean(axis=-1)
    shapes = decibels - around
    return shapes / np.sqrt((shapes**2).sum(axis=1, keepdims=True) + _TINY)
