"""Phase estimators: what to combine a converted magnitude with, so that it becomes sound. One function each, one registry.

Every estimator is called as ``estimate(mag, input_phase, iterations=32, seed=0, start=0)``:

    mag          float32 (256, t), linear magnitude asked for, on the scale of `data.magnitude`
    input_phase  complex64 (256, t), unit phasors of the input, as `data.phasor` gives them
    iterations   how often an iterative estimator refines; the others ignore it
    seed, start  of random phases; ``start`` is the index of the first frame within its piece

and returns complex64 (256, t), unit phasors. Frame k of the result depends on nothing beyond frames k - iterations
... k + iterations: a stream that is cut into blocks with that margin gives the result of the whole (see `in_blocks`).
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import data

MOMENTUM = 0.99  # of fast Griffin-Lim: the best value of Perraudin et al. 2013
_BLOCK_FRAMES = (
    512  # frames that one thread refines at a time: its arrays stay in the processor's cache
)
_TINY = np.float32(
    1e-20
)  # far below any magnitude, and a magnitude divided by it does not overflow


def input(mag, input_phase, iterations=32, seed=0, start=0):
    """The input's phase, unchanged: the method's choice. Onsets stay where they were; overtones keep the input's."""
    return input_phase


def flat(mag, input_phase, iterations=32, seed=0, start=0):
    """Phase zero everywhere: the lower bound."""
    return np.ones_like(input_phase)


def random(mag, input_phase, iterations=32, seed=0, start=0):
    """Independent uniform phases. They depend on ``seed`` and the frame's index only, so blocks can be drawn apart."""
    draws_per_frame = data.BINS // 8  # Philox counts steps of 256 bits: eight float32
    generator = np.random.Generator(np.random.Philox(key=seed, counter=start * draws_per_frame))
    angles = generator.random((mag.shape[1], data.BINS), dtype=np.float32).T
    return np.exp(angles * np.complex64(2j * np.pi))


def griffinlim(mag, input_phase, iterations=32, seed=0, start=0):
    """Fast Griffin-Lim, started from the input's phase: see `refine`."""
    return refine(mag, input_phase, iterations)


def griffinlim_random(mag, input_phase, iterations=32, seed=0, start=0):
    """Fast Griffin-Lim, started from `random` phases: see `refine`."""
    return refine(mag, random(mag, input_phase, seed=seed, start=start), iterations)


ESTIMATORS = {
    function.__name__: function for function in (input, griffinlim, griffinlim_random, random, flat)
}
LEARNED = {
    "learned": input,
    "learned_griffinlim": griffinlim,
}  # given the input's phase as a network has turned it
ALL = ESTIMATORS | LEARNED


def refine(mag, phase, iterations, momentum=MOMENTUM):
    """Fast Griffin-Lim: make ``phase`` (256, t) consistent with ``mag`` (256, t), which is kept.

    Griffin & Lim 1984 project in turn on the spectrograms that some sound has, c = STFT(ISTFT(mag * phase)), and on
    those with the magnitude asked for. Perraudin, Balazs & Sondergaard 2013 (eq. 10) extrapolate in between,
    c + momentum * (c - previous c), which converges faster and further. Momentum 0 gives the original.

    Frames before the first and after the last count as silence. Frames overlap by half, so one iteration carries
    news to the next frame only: blocks with a margin of ``iterations`` frames give exactly the result of the whole.
    """
    mag, phase = (
        np.ascontiguousarray(mag.T, np.float32),
        np.ascontiguousarray(phase.T, np.complex64),
    )  # frames first

    def block(span):
        return _refine(mag[span], phase[span], iterations, np.float32(momentum / (1 + momentum)))

    count = max(1, round(len(mag) / max(_BLOCK_FRAMES, 4 * iterations)))  # of blocks, evenly long
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return in_blocks(block, len(mag), -(-len(mag) // count), iterations, threads.map).T


def in_blocks(function, frames, size, margin, map=map):
    """Apply ``function(slice) -> (frames of the slice, ...)`` block by block with a margin on both sides, and join."""
    starts = range(0, frames, size)
    results = map(
        function, [slice(max(0, start - margin), start + size + margin) for start in starts]
    )
    return np.concatenate(
        [result[min(start, margin) :][:size] for start, result in zip(starts, results)]
    )


def _refine(mag, phase, iterations, inertia):
    """`refine` for one block, frames first: float32 (t, 256), complex64 (t, 256) -> complex64 (t, 256)."""
    silence = ((data.HOP_LENGTH, data.HOP_LENGTH),)
    spectrum, previous, estimate = mag * phase, np.float32(0), phase
    for _ in range(iterations):
        consistent = data.stft_frames(np.pad(data.istft_frames(spectrum), silence))
        estimate = (
            consistent - inertia * previous
        )  # the extrapolation up to a factor, which the next line removes
        spectrum = estimate * (mag / np.maximum(np.abs(estimate), _TINY))
        previous = consistent
    return data.phasor(estimate)
