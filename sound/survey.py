"""What a recording is like before it is converted: length, loudness, and what is unusual in it."""

from typing import NamedTuple

import numpy as np

import data
from common.cli import UserError
from sound.loudness import Meter
from sound.recordings import open_sound, read_blocks, resample_stream

# Thresholds, from nine pieces of piano, guitar, strings and synth lead each, real recordings of
# piano, cello, saxophone and trumpet, and a drum kit, an organ, a flute and others by a SoundFont.
NOISY = 0.2  # median flatness: pianos at most 0.03, drums 0.29, white noise 0.56
HELD = 0.02  # share of frames that begin something: pianos at least 0.045, organ 0.004, cello 0.015
SILENT = 0.8  # share of frames with nothing to hear
# In a short part a piano may strike too seldom to be told by it: ten pieces on two pianos have
# fewer onsets than HELD in 5 - 8 % of all windows of 1 s, 2 - 3 % of those of 3 s, 1 % of those of
# 4 s. A tongued trumpet or saxophone begins its notes as clearly as a piano (0.09 and 0.07), so
# that it gets no remark, however long it is.
FEW = 300  # sounding frames, 3.5 s: of fewer nothing is said
_LOUD = 1e-3  # power of a sounding frame, as a part of the loudest: -30 dB
_QUIET = 1e-5  # the same of one with nothing to hear: -50 dB
_AUDIBLE = 1e-9  # power below which nothing is heard, whatever the rest
_RISE = 10**0.3  # from frame to frame, 12 ms: 3 dB is an onset
_BAND = slice(5, 186)  # bins of 0.2 - 8 kHz
_LOWEST = 2  # bin: below is what a room hums
_TINY = 1e-14  # far below one step of 16 bits


class Survey(NamedTuple):
    """A part of a recording, and what `listen` finds in it."""

    start: float  # s, where the part begins
    seconds: float  # its length
    loudness: float  # LUFS, -inf for silence
    remark: str  # what no model can make much of, or ""
    held: bool  # whether its notes seem held, not struck or plucked


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
    """Read a recording once, whatever its length, and say what it is like.

    Args:
        source: path of a recording.
        start, seconds: the part that counts, s; by default all of it.

    Returns:
        `Survey`.

    Raises:
        UserError: it cannot be read, or ends before ``start``.
    """
    meter = Meter()
    character = _Character()
    with open_sound(source) as sound:
        rate = sound.samplerate
        excerpt = Excerpt(rate, start, seconds)
        blocks = resample_stream(excerpt.cut(read_blocks(sound)), rate, data.SAMPLE_RATE)
        for spectra in data.stft_stream(meter.watch(blocks)):
            character.add(spectra)
        length = sound.tell() / rate
    if start and not excerpt.samples:
        raise UserError(f"--start {start:g}: {source} is {length:.1f} s long; give less")
    return Survey(start, excerpt.samples / rate, meter.integrated(), *character.judge())


class _Character:
    """Power and flatness of each frame: eight bytes each, 2.5 MB an hour."""

    def __init__(self):
        self._power = []
        self._flatness = []

    def add(self, spectra):
        """Take in spectra (channels, t, 256) on the scale of `data.magnitude`."""
        power = (np.abs(spectra) ** 2).sum(axis=0)  # (t, 256)
        band = power[:, _BAND] + _TINY
        flatness = np.exp(np.log(band).mean(axis=1)) / band.mean(axis=1)
        self._power.append(power[:, _LOWEST:].sum(axis=1))
        self._flatness.append(flatness)

    def judge(self):
        """(remark, whether notes are held) of `Survey`."""
        power = np.concatenate(self._power)
        flatness = np.concatenate(self._flatness)
        if power.max() < _AUDIBLE:
            return "it is silent", False
        top = np.percentile(power, 95)
        if (power < max(top * _QUIET, _AUDIBLE)).mean() > SILENT:
            return "it is mostly silence", False
        sounding = power > top * _LOUD
        if np.median(flatness[sounding]) > NOISY:
            return "it sounds like noise or percussion, of which the models know nothing", False
        rises = power[1:] > _RISE * power[:-1]
        begins = rises[sounding[1:]]
        return "", bool(len(begins) > FEW and begins.mean() < HELD)
