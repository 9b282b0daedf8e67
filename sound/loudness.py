"""How loud a sound is to people: ITU-R BS.1770-4, of a stream, at flat memory."""

import numpy as np
import pyloudnorm
import scipy.signal

import data

STEP = data.SAMPLE_RATE // 10  # samples: gating blocks of 400 ms begin every 100 ms
STEPS = 4  # of a gating block
SILENCE = -70.0  # LUFS: blocks below do not count
RELATIVE_GATE = -10.0  # LU: nor those so far below the mean of the others


class Meter:
    """Measures the integrated loudness of a stream of audio at `data.SAMPLE_RATE`.

    All channels weigh the same, for a recording seldom says which are surround channels.
    """

    def __init__(self):
        shelf = pyloudnorm.IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, data.SAMPLE_RATE, "high_shelf")
        high_pass = pyloudnorm.IIRfilter(0.0, 0.5, 38.0, data.SAMPLE_RATE, "high_pass")
        self._sections = np.array([[*shelf.b, *shelf.a], [*high_pass.b, *high_pass.a]])
        self._state = None
        self._rest = np.zeros(0)  # power of the samples that do not fill a step yet
        self._steps = []  # mean power of each 100 ms, summed over channels

    def watch(self, blocks):
        """Hand a stream of blocks (channels, any) through and measure it on the way."""
        for block in blocks:
            self.add(block)
            yield block

    def add(self, block):
        """Take in the next block of audio, float32 (channels, any), full scale = 1."""
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
        """Loudness so far in LUFS, -inf for silence (below -70 LUFS).

        A sound shorter than one gating block counts as one.
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
    """Mean power of K-weighted audio -> LUFS, BS.1770's equation 2; nothing gives -inf."""
    with np.errstate(divide="ignore"):
        return -0.691 + 10 * np.log10(power)
