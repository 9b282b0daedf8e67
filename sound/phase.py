"""Phase estimators: each gives a converted magnitude a phase. One function each.

Every estimator is called as

    estimate(mag, spectrum, iterations=32, seed=0, start=0, hop_length=512, pull=0.1)

    mag          float32 (bins, t), linear magnitude asked for, on the scale of `data.magnitude`
    spectrum     complex64 (bins, t), the input's, on the same scale
    iterations   how often an iterative estimator refines; the others ignore it
    seed, start  of random phases; ``start`` is the index of the first frame within its piece
    hop_length   samples from frame to frame: data.HOP_LENGTH, or that divided by 2, 4, ...
    pull         of `griffinlim_anchored`: how much of the input's spectrum counts

and returns complex64 (bins, t), unit phasors. An estimator names the arguments that it uses and
takes the others as ``**_``. Frame k of the result depends on nothing beyond frames k - reach ...
k + reach, see `reach`: a stream that is cut into blocks with that margin gives what the whole
would give.

To add one: write the function and put its name into `ESTIMATORS`; CONTRIBUTING.md says what else.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import data

MOMENTUM = 0.99  # of fast Griffin-Lim: the best value of Perraudin et al. 2013
PULL = 0.1  # the usual one; a model may have its own, see docs/phase.md
_BLOCK_FRAMES = 512  # that one thread refines at a time: they stay in the processor's cache
_TINY = np.float32(1e-20)  # far below any magnitude; one divided by it does not overflow


def keep_input(mag, spectrum, **_):
    """The input's phase, unchanged: the method's choice.

    Onsets stay where they were; overtones keep the input's.
    """
    return data.phasor(spectrum)


def set_flat(mag, spectrum, **_):
    """Phase zero everywhere: the lower bound."""
    return np.ones_like(spectrum)


def draw_random(mag, spectrum, seed=0, start=0, **_):
    """Independent uniform phases.

    They depend on ``seed`` and the frame's index only, so that blocks can be drawn apart.
    """
    bins, frames = mag.shape
    draws_per_frame = bins // 8  # Philox counts steps of 256 bits: eight float32
    bits = np.random.Philox(key=seed, counter=start * draws_per_frame)
    generator = np.random.Generator(bits)
    angles = generator.random((frames, bins), dtype=np.float32).T
    return np.exp(angles * np.complex64(2j * np.pi))


def griffinlim(mag, spectrum, iterations=32, hop_length=data.HOP_LENGTH, **_):
    """Fast Griffin-Lim, started from the input's phase: see `refine`."""
    return refine(mag, data.phasor(spectrum), iterations, hop_length=hop_length)


def griffinlim_anchored(mag, spectrum, iterations=32, hop_length=data.HOP_LENGTH, pull=PULL, **_):
    """Fast Griffin-Lim that starts from the input's phase and stays near it: see `refine`.

    Where the input is loud it knows when things happen, and its phase is worth keeping; where the
    magnitude asked for is louder than the input, as in overtones that the input lacks, phases
    settle freely. The more of the input's spectrum, ``pull``, the clearer its onsets.
    """
    anchor = np.float32(pull) * spectrum
    return refine(mag, data.phasor(spectrum), iterations, hop_length=hop_length, anchor=anchor)


def griffinlim_random(
    mag, spectrum, iterations=32, seed=0, start=0, hop_length=data.HOP_LENGTH, **_
):
    """Fast Griffin-Lim, started from `draw_random`'s phases: see `refine`."""
    phase = draw_random(mag, spectrum, seed=seed, start=start)
    return refine(mag, phase, iterations, hop_length=hop_length)


ESTIMATORS = {
    "input": keep_input,
    "griffinlim": griffinlim,
    "griffinlim_anchored": griffinlim_anchored,
    "griffinlim_random": griffinlim_random,
    "random": draw_random,
    "flat": set_flat,
}
LEARNED = {  # these are given the input's spectrum as a network has turned it
    "learned": keep_input,
    "learned_griffinlim": griffinlim,
}
ALL = ESTIMATORS | LEARNED


def reach(iterations, hop_length=data.HOP_LENGTH):
    """How many frames away the result of any estimator may look, on either side.

    A frame shares samples with N_FFT / hop_length - 1 neighbours on each side, and one iteration
    carries news that far.
    """
    return iterations * (data.N_FFT // hop_length - 1)


def refine(mag, phase, iterations, momentum=MOMENTUM, hop_length=data.HOP_LENGTH, anchor=None):
    """Fast Griffin-Lim: make ``phase`` (bins, t) consistent with ``mag`` (bins, t), which is kept.

    Griffin & Lim 1984 project in turn on the spectrograms that some sound has,
    c = STFT(ISTFT(mag * phase)), and on those with the magnitude asked for. Perraudin, Balazs &
    Sondergaard 2013 (eq. 10) extrapolate in between, c + momentum * (c - previous c), which
    converges faster and further. Momentum 0 gives the original.

    They lessen the distance |s - c|^2 of s = mag * phase from any sound. With an ``anchor``,
    complex (bins, t), that is w times some spectrum x, it is |s - c|^2 + w |s - x|^2 that falls:
    for a fixed c, s is best with the phase of c + w x. So an anchor costs one addition. (Ours.)

    Frames before the first and after the last count as silence. Blocks with a margin of `reach`
    give exactly the result of the whole, so they are refined in threads.
    """
    mag = np.ascontiguousarray(mag.T, np.float32)  # (t, bins): frames first
    phase = np.ascontiguousarray(phase.T, np.complex64)
    if anchor is not None:
        anchor = np.ascontiguousarray(anchor.T)
    inertia = np.float32(momentum / (1 + momentum))

    def refine_block(span):
        pull = None if anchor is None else anchor[span]
        return _refine(mag[span], phase[span], pull, iterations, inertia, hop_length)

    margin = reach(iterations, hop_length)
    blocks = max(1, round(len(mag) / max(_BLOCK_FRAMES, 4 * margin)))
    size = -(-len(mag) // blocks)  # evenly long
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        refined = in_blocks(refine_block, len(mag), size, margin, threads.map)
    return refined.T


def in_blocks(function, frames, size, margin, map_blocks=map):
    """Apply ``function`` block by block, with a margin on both sides, and join the results.

    Args:
        function: slice of frames -> array (frames of the slice, ...).
        frames: how many there are.
        size: frames of a block without its margins.
        margin: frames that a block sees on either side.
        map_blocks: as the built-in ``map``; that of a thread pool runs blocks side by side.
    """
    starts = range(0, frames, size)
    spans = [slice(max(0, start - margin), start + size + margin) for start in starts]
    inner = []
    for start, result in zip(starts, map_blocks(function, spans)):
        before = min(start, margin)
        inner.append(result[before : before + size])
    return np.concatenate(inner)


def _refine(mag, phase, anchor, iterations, inertia, hop_length):
    """`refine` for one block, frames first: float32 and complex64 (t, bins) -> the latter."""
    if len(mag) < data.N_FFT // hop_length:  # no sample is covered by all frames
        return phase
    margin = data.N_FFT - hop_length  # samples at either end that not all frames cover
    spectrum = mag * phase
    estimate = phase
    previous = np.float32(0)
    scale = np.float32(1)  # of the extrapolation, which the magnitude takes out again
    for _ in range(iterations):
        audio = data.istft_frames(spectrum, hop_length)
        consistent = data.stft_frames(np.pad(audio, margin), hop_length, mag.shape[1])
        # (c + momentum * (c - previous c) + anchor) / (1 + momentum); the first has no previous.
        estimate = consistent - inertia * previous
        if anchor is not None:
            estimate += scale * anchor
        spectrum = estimate * (mag / np.maximum(np.abs(estimate), _TINY))
        previous = consistent
        scale = 1 - inertia
    return data.phasor(estimate)
