"""Measure a recording before its conversion: length, loudness, and whether it is music."""

from typing import NamedTuple

import numpy as np
import scipy  # whose parts load when they are first used

import data
from common.cli import UserError
from sound.loudness import Meter
from sound.recordings import MonoMix, mix_down, open_sound, read_blocks, resample_stream

SILENT = 0.8  # share of inaudible frames from which on a recording counts as mostly silent
# The spectrum of notes, which the models know, is steady for a while; that of speech, percussion
# and noise is not. Thresholds chosen on 60 recordings of twelve kinds, right on 60 others of the
# same kinds: notes by a SoundFont of ten instruments, drums with a bass, synthetic speech.
STEADY = 0.55  # median likeness of spectra 46 ms apart: speech <= 0.25, drums 0.49, notes >= 0.28
JUMPING = 1.67  # mean change between frames, dB: speech >= 2.6, drums 1.75, unsteady notes 1.42
NOISY = 0.2  # median flatness, for steady noise: white noise has 0.56
FEW = 40  # sounding frames with another one 46 ms earlier, half a second: no judgement below
OFFSET = 1e-3  # fraction of full scale: a click of -60 dB is inaudible
_LAG = 4  # frames
_LOUD = 1e-3  # power of a sounding frame relative to the loudest: -30 dB
_QUIET = 1e-5  # power of an inaudible frame relative to the loudest: -50 dB
_AUDIBLE = 1e-9  # power below which any frame is inaudible
_BAND = slice(5, 186)  # bins of 0.2 - 8 kHz
_PARTIALS = slice(2, 120)  # bins of 0.1 - 5 kHz
_AROUND = 9  # bins around a partial that it is compared with
_FLOOR = 1e-6  # fraction of a frame's power, -60 dB: lower values are ignored
_LOWEST = 2  # bin: lower bins hold the hum of a room
# Share of a recording's energy above 11 kHz from which on the treble counts: -50 dB. Pieces on
# notes at 44.1 kHz: guitar, synth lead -38 ... -26 dB, strings -65 ... -46, pianos -68 ... -37. On
# notes at 16 kHz, where only the onsets click: -88 ... -60 dB.
_TREBLE = 1e-5
_TINY = 1e-14  # far below one step of 16 bits


class Survey(NamedTuple):
    """Result of `listen` for a part of a recording."""

    start: float  # s, start of the part
    seconds: float  # length of the part
    loudness: float  # LUFS, -inf for silence
    remark: str  # why no model suits it, or ""
    mono_loudness: float  # LUFS of the mean of the channels
    offset: tuple = ()  # mean of each channel where it sounds, full scale = 1


class Excerpt:
    """A part of a stream: ``seconds`` from ``start`` on; by default the whole stream."""

    def __init__(self, rate, start=0.0, seconds=None):
        self.samples = 0  # given so far
        self._skip = round(start * rate)
        self._limit = None if seconds is None else round(seconds * rate)

    def cut(self, blocks):
        """Cut the part out of a stream of blocks (channels, any); yields at least one block."""
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
    """`listen_open` for a path, ``source``."""
    with open_sound(source) as sound:
        return listen_open(sound, start, seconds)


def listen_open(sound, start=0.0, seconds=None):
    """Read an open recording once, as a stream, and measure it.

    Args:
        sound: `recordings.Sound`, at its beginning.
        start, seconds: the part to measure, s; by default the whole recording.

    Returns:
        `Survey`.

    Raises:
        UserError: the recording cannot be read, ends before ``start``, or ``seconds`` are less than
            one sample.
    """
    if seconds is not None and round(seconds * sound.samplerate) < 1:
        raise UserError(f"--seconds {seconds:g}: is less than a sample of {sound.name}; give more")
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
        """Measure a stream of blocks (channels, any) and pass it on unchanged."""
        for block in blocks:
            self._channels = len(block)
            if self._channels > 1:
                self._meter.add(self._mix.average(block))
            yield block

    def integrated(self, loudness):
        """Loudness of the mean in LUFS; ``loudness`` is that of all channels together.

        If the channels cancel each other, it is the mean of their single powers instead.
        """
        if self._channels == 1:
            return loudness
        if self._mix.channel_instead() is None:
            return self._meter.integrated()
        return loudness - 10 * np.log10(self._channels)


class _Offset:
    """Mean of each channel, without digital silence."""

    def __init__(self):
        self._sum = 0.0
        self._count = 0

    def watch(self, blocks):
        """Measure a stream of blocks (channels, any) and pass it on unchanged."""
        for block in blocks:
            self._sum = self._sum + block.sum(axis=1, dtype=np.float64)
            self._count = self._count + np.count_nonzero(block, axis=1)
            yield block

    def mean(self):
        """The mean of each channel: tuple of floats."""
        return tuple(self._sum / np.maximum(1, self._count))


def find_offset(audio):
    """The mean of each channel of float32 (channels, n), as of `Survey`."""
    offset = _Offset()
    for _ in offset.watch([audio]):
        pass
    return offset.mean()


def remove_offset(blocks, offset):
    """Subtract each channel's mean, ``offset``, from a stream of blocks (channels, any).

    An offset (a cheap sound card's) starts and ends with a step, which clicks. Digital silence of
    three samples or more is not changed, nor are channels with an offset below `OFFSET`.
    """
    offset = np.where(np.abs(offset) < OFFSET, 0, offset).astype(np.float32)[:, np.newaxis]
    if not offset.any():
        yield from blocks
        return
    for block in blocks:
        silent = scipy.ndimage.binary_opening(block == 0, np.ones((1, 3)))
        yield np.where(silent, 0, block - offset)


def has_treble(picture):
    """Whether a full-band picture has audible content above `data.BINS`, 11 kHz.

    The ends do not count, because a cut sound clicks there.

    Args:
        picture: float (512, t) on the dB scale.
    """
    energy = data.db_to_amplitude(picture[:, 2:-2]) ** 2
    treble = energy[data.BINS :].sum(dtype=float)
    return bool(treble > _TREBLE * energy.sum(dtype=float))


def read_part(path, start, seconds, mono=True):
    """Read a part of a recording at 44.1 kHz: float32 (n,), or (n, channels) if not ``mono``.

    Raises UserError if it cannot be read.
    """
    with open_sound(path) as sound:
        excerpt = Excerpt(sound.samplerate, start, seconds)
        blocks = list(excerpt.cut(read_blocks(sound)))
        length = round(excerpt.samples * data.SAMPLE_RATE / sound.samplerate)
        audio = np.concatenate(blocks, axis=1)
        if mono:
            audio = mix_down(audio)
        resampled = list(resample_stream([audio], sound.samplerate, data.SAMPLE_RATE))
    part = np.concatenate(resampled, axis=1)[:, :length]
    return part[0] if mono else part.T


class _Character:
    """Power, flatness and likeness of each frame: twelve bytes per frame, 4 MB per hour."""

    def __init__(self):
        self._power = []
        self._flatness = []
        self._likeness = []  # similarity of each frame to the one `_LAG` before
        self._shapes = np.zeros((_LAG, _PARTIALS.stop - _PARTIALS.start))  # of the last frames

    def add(self, spectra):
        """Add spectra (channels, t, 256) on the scale of `data.magnitude`."""
        power = (np.abs(spectra) ** 2).sum(axis=0)  # (t, 256)
        band = power[:, _BAND] + _TINY
        flatness = np.exp(np.log(band).mean(axis=1)) / band.mean(axis=1)
        self._power.append(power[:, _LOWEST:].sum(axis=1))
        self._flatness.append(flatness.astype(np.float32))
        shapes = np.concatenate([self._shapes, find_shapes(power)])
        self._likeness.append((shapes[_LAG:] * shapes[:-_LAG]).sum(axis=1).astype(np.float32))
        self._shapes = shapes[-_LAG:]

    def judge(self):
        """Decide the ``remark`` of `Survey`."""
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
            return "it sounds like speech, percussion or noise, which no model was trained on"
        return ""


def find_shapes(power):
    """Compute the shape of each frame's spectrum: its partials, as a vector of length 1.

    Args:
        power: (t, 256).

    Returns:
        float (t, bins): dB above the neighbouring bins, scaled so that the dot product of two
        shapes is their similarity.
    """
    total = power.sum(axis=1, keepdims=True)
    decibels = 10 * np.log10(power[:, _PARTIALS] + _FLOOR * total + _TINY)
    padded = np.pad(decibels, ((0, 0), (_AROUND // 2, _AROUND // 2)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, _AROUND, axis=1).mean(axis=-1)
    shapes = decibels - around
    return shapes / np.sqrt((shapes**2).sum(axis=1, keepdims=True) + _TINY)
