"""Measure loudness and true peaks of a stream (ITU-R BS.1770-4), and limit it."""

import functools

import numpy as np
import scipy  # whose parts load when they are first used: scipy.signal takes half a second

import data

STEP = data.SAMPLE_RATE // 10  # samples: gating blocks of 400 ms begin every 100 ms
STEPS = 4  # of a gating block
SILENCE = -70.0  # LUFS: blocks below do not count
RELATIVE_GATE = -10.0  # LU: blocks this far below the mean of the others do not count either

CEILING = -1.0  # dBTP: EBU R 128's highest true peak; lossy codecs add less than that
LOOKAHEAD = 0.005  # s; the gain falls within twice that; faster would click
RELEASE = 100.0  # dB/s; does not start between the peaks of a tone of 50 Hz or more
OVERSAMPLING = 4  # as in BS.1770-4, annex 2
_TAPS = 16  # samples used to interpolate a point between two samples
_OVERSHOOT = 2.1  # bound of true peak / largest sample: L1 norm of the interpolation filters
SAFE_PEAK = 10 ** (CEILING / 20) / _OVERSHOOT  # sample peak that guarantees the ceiling
_CHUNK = 2**16  # samples


class Meter:
    """Measures the integrated loudness of a stream of audio at `data.SAMPLE_RATE`.

    All channels have the same weight, because recordings seldom mark their surround channels.
    """

    def __init__(self):
        import pyloudnorm  # it loads scipy.signal

        shelf = pyloudnorm.IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, data.SAMPLE_RATE, "high_shelf")
        high_pass = pyloudnorm.IIRfilter(0.0, 0.5, 38.0, data.SAMPLE_RATE, "high_pass")
        self._sections = np.array([[*shelf.b, *shelf.a], [*high_pass.b, *high_pass.a]])
        self._state = None
        self._rest = np.zeros(0)  # power of the samples that do not fill a step yet
        self._steps = []  # mean power of each 100 ms, summed over channels

    def watch(self, blocks):
        """Measure a stream of blocks (channels, any) and pass it on unchanged."""
        for block in blocks:
            self.add(block)
            yield block

    def add(self, block):
        """Measure the next block of audio, float32 (channels, any), full scale = 1."""
        if not block.shape[1]:
            return
        if self._state is None:
            self._state = np.zeros((len(self._sections), len(block), 2))
        weighted, self._state = scipy.signal.sosfilt(
            self._sections, block.astype(np.float64), zi=self._state
        )
        power = np.concatenate([self._rest, (weighted**2).sum(axis=0)])
        whole = len(power) // STEP * STEP
        self._steps.extend(power[:whole].reshape(-1, STEP).mean(axis=1))
        self._rest = power[whole:]

    def integrated(self):
        """Integrated loudness so far in LUFS; -inf for silence (below -70 LUFS).

        A sound shorter than one gating block counts as one block.
        """
        steps = np.array(self._steps)
        if len(steps) < STEPS:
            return self._short()
        blocks = np.convolve(steps, np.full(STEPS, 1 / STEPS), mode="valid")
        blocks = blocks[_to_lufs(blocks) > SILENCE]
        if not len(blocks):
            return -np.inf
        gate = _to_lufs(blocks.mean()) + RELATIVE_GATE
        return float(_to_lufs(blocks[_to_lufs(blocks) > gate].mean()))

    def _short(self):
        count = len(self._steps) * STEP + len(self._rest)
        if not count:
            return -np.inf
        power = (np.sum(self._steps) * STEP + self._rest.sum()) / count
        loudness = float(_to_lufs(power))
        return loudness if loudness > SILENCE else -np.inf


def _to_lufs(power):
    """Mean power of K-weighted audio -> LUFS (BS.1770, equation 2); power 0 gives -inf."""
    with np.errstate(divide="ignore"):
        return -0.691 + 10 * np.log10(power)


class Limiter:
    """Reduces the gain of a stream where its true peaks would exceed a ceiling.

    The gain falls within 2 x `LOOKAHEAD` before a peak and recovers at `RELEASE`. All channels have
    one gain, which keeps the stereo image. Samples far from a peak are unchanged, bit by bit.

    Attributes:
        is_used: whether the gain has been reduced so far.
    """

    def __init__(self, rate, ceiling=CEILING):
        """``rate`` in Hz; ``ceiling`` in dBTP, with 4 x oversampling as in BS.1770-4, annex 2."""
        self.is_used = False
        self._ceiling = 10 ** (ceiling / 20)
        self._reach = round(LOOKAHEAD * rate)
        self._margin = 2 * self._reach + _TAPS  # samples on each side that affect the gain
        window = np.hanning(2 * self._reach + 3)[1:-1]
        self._window = window / window.sum()
        self._slope = RELEASE / rate * np.log(10) / 20  # nepers per sample
        self._held = 0.0  # attenuation carried over from the last chunk, nepers

    def limit(self, blocks):
        """Limit a stream of float32 (channels, any), full scale = 1; the length stays."""
        margin = self._margin
        for chunk in data.rechunk(_pad(blocks, margin), _CHUNK, keep=2 * margin):
            inner = chunk[:, margin : chunk.shape[1] - margin]
            excess = _find_excess(chunk, self._ceiling)
            if self._held or excess.any():
                self.is_used = True
                inner = inner * np.exp(-self._attenuate(excess)).astype(np.float32)
            yield inner

    def _attenuate(self, excess):
        """Attenuation of a chunk's inner samples, from the excess of all its samples; nepers.

        Each averaged value is the maximum over the reach of the average. So the average is at
        least what the sample needs.
        """
        needed = scipy.ndimage.maximum_filter1d(excess, 2 * self._reach + 1, mode="constant")
        fallen = self._slope * np.arange(1, len(needed) + 1)
        held = np.maximum.accumulate(np.maximum(needed + fallen, self._held)) - fallen
        held = np.maximum(held, 0)
        self._held = held[min(_CHUNK, len(held)) - 1]  # at the start of the next chunk
        return np.convolve(held, self._window, mode="same")[self._margin : -self._margin]


def _pad(blocks, margin):
    """Add zeros before and after a stream of (channels, any)."""
    for i, block in enumerate(blocks):
        if i == 0:
            yield np.zeros((len(block), margin), np.float32)
        yield block
    yield np.zeros((len(block), margin), np.float32)


@functools.cache
def _interpolation():
    """The filter that finds the points between two samples."""
    taps = OVERSAMPLING * _TAPS + 1
    return OVERSAMPLING * scipy.signal.firwin(taps, 1 / OVERSAMPLING, window=("kaiser", 6))


def _find_excess(audio, ceiling):
    """Excess of the true peak over an amplitude at each sample: (channels, n) -> nepers (n,).

    The true peak of sample k is the maximum over channels at k, k + 1/4, k + 1/2 and k + 3/4.
    """
    peak = np.abs(audio).max(axis=0, initial=0)
    if peak.max() * _OVERSHOOT <= ceiling:
        return np.zeros(audio.shape[1])
    fine = scipy.signal.upfirdn(_interpolation(), audio, up=OVERSAMPLING)
    delay = OVERSAMPLING * _TAPS // 2
    fine = np.abs(fine[:, delay : delay + OVERSAMPLING * audio.shape[1]]).max(axis=0)
    peak = np.maximum(peak, fine.reshape(-1, OVERSAMPLING).max(axis=1))
    return np.log(np.maximum(peak / ceiling, 1))
