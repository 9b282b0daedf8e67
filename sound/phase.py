"""Phase estimators: each estimates a phase for a converted magnitude. One function each.

Every estimator is called as

    estimate(mag, spectrum, iterations=32, seed=0, start=0, hop_length=512, pull=0.1)

    mag          float32 (bins, t), converted linear magnitude, on the scale of `data.magnitude`
    spectrum     complex64 (bins, t), the input's spectrum, on the same scale
    iterations   number of iterations of an iterative estimator
    seed, start  seed of random phases; index of the first frame within its piece
    hop_length   samples from frame to frame: data.HOP_LENGTH, or that divided by 2, 4, ...
    pull         weight of the input's spectrum in `griffinlim_anchored`

and returns complex64 (bins, t), unit phasors. An estimator names the arguments that it uses and
takes the others as ``**_``. Frame k of the result depends on frames k - reach ... k + reach only,
see `reach`. So blocks with that margin give the same result as the whole stream.

To add one, write the function and add its name to `ESTIMATORS`. CONTRIBUTING.md has the rest.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import data

MOMENTUM = 0.99  # of fast Griffin-Lim: the best value of Perraudin et al. 2013
PULL = 0.1  # default; a model may have its own value, see docs/phase.md
_BLOCK_FRAMES = 512  # frames that a thread refines at a time; they fit into the cache
_TINY = np.float32(1e-20)  # far below any magnitude; a magnitude divided by it does not overflow


def keep_input(mag, spectrum, **_):
    """Return the input's phase, the method's choice.

    Onsets stay exact. Overtones have the input's phases, which do not fit the target.
    """
    return data.phasor(spectrum)


def set_flat(mag, spectrum, **_):
    """Return phase zero everywhere, as a lower bound."""
    return np.ones_like(spectrum)


def draw_random(mag, spectrum, seed=0, start=0, **_):
    """Draw independent uniform phases.

    They depend on ``seed`` and the frame's index only, so blocks can be drawn separately.
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

    Where the input is loud, its phase has the exact onsets and is kept. Where the new magnitude is
    louder, as in overtones that the input lacks, the phase is free. A larger ``pull`` makes onsets
    clearer.
    """
    anchor = np.float32(pull) * spectrum
    return refine(mag, data.phasor(spectrum), iterations, hop_length=hop_length, anchor=anchor)


def griffinlim_random(
    mag, spectrum, iterations=32, seed=0, start=0, hop_length=data.HOP_LENGTH, **_
):
    """Fast Griffin-Lim, started from random phases: see `refine`."""
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
LEARNED = {  # these get the input's spectrum with phases turned by a network
    "learned": keep_input,
    "learned_griffinlim": griffinlim,
}
ALL = ESTIMATORS | LEARNED


def reach(iterations, hop_length=data.HOP_LENGTH):
    """Largest distance, in frames, over which an estimator uses its input.

    A frame shares samples with N_FFT / hop_length - 1 neighbours on each side. One iteration
    extends the reach by that number.
    """
    return iterations * (data.N_FFT // hop_length - 1)


def refine(mag, phase, iterations, momentum=MOMENTUM, hop_length=data.HOP_LENGTH, anchor=None):
    """Fast Griffin-Lim: make ``phase`` (bins, t) consistent with a fixed ``mag`` (bins, t).

    Griffin & Lim 1984 alternate two projections: on the spectrograms of real sounds,
    c = STFT(ISTFT(mag * phase)), and on spectrograms of magnitude ``mag``. Perraudin, Balazs &
    Sondergaard 2013 (eq. 10) extrapolate in between, c + momentum * (c - previous c), which
    converges faster and further. Momentum 0 gives the original.

    These minimise the distance |s - c|^2 of s = mag * phase to a real sound. ``anchor`` = w x,
    complex (bins, t), with a weight w and a spectrum x, changes the objective to
    |s - c|^2 + w |s - x|^2. For a fixed c the best s has the phase of c + w x, so an anchor costs
    one addition. (Own derivation.)

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
        frames: number of frames.
        size: frames of a block without its margins.
        margin: extra frames of a block on each side.
        map_blocks: like the built-in ``map``; a thread pool's ``map`` runs blocks in parallel.
    """
    starts = range(0, frames, size)
    spans = [slice(max(0, start - margin), start + size + margin) for start in starts]
    inner = []
    for start, result in zip(starts, map_blocks(function, spans)):
        before = min(start, margin)
        inner.append(result[before : before + size])
    return np.concatenate(inner)


def _refine(mag, phase, anchor, iterations, inertia, hop_length):
    """`refine` for one block, frames first: float32 and complex64 (t, bins) -> complex64."""
    if len(mag) < data.N_FFT // hop_length:  # too short: no sample has all its frames
        return phase
    margin = data.N_FFT - hop_length  # samples at each end that lack some frames
    spectrum = mag * phase
    estimate = phase
    previous = np.float32(0)
    scale = np.float32(1)  # scale of ``estimate``; only its phase matters
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
