"""Stereo: convert the mean of the channels once, and place the result as in the input.

    audio (channels, n)  --split-->  the mean (1, n), and each channel minus the mean
    spectra of these  --Placement.mix-->  one spectrum, for the network  --...-->  converted
    converted spectrum  --Placement.place-->  spectra of the channels

A channel is the mean R times a gain, X = (1 + G) R, with a complex G for every frame and bin. <> is
a mean over the recent past and the neighbouring bins, weighted by energy:

    G = <(X - R) R*> / <R R*>

The real part of G, the level difference, is the position of a note. The imaginary part and the
residual X - (1 + G) R, from rooms and choruses, make the image wide; the residual is added to G.
The target has overtones where the input has none; there G comes from louder neighbouring bins.

The converted spectrum distributes its energy differently over bins and time than the input. So
all bins get two corrections. A factor of G keeps the energy of the channels minus their mean,
relative to the mean. A factor of each channel keeps its level relative to the others.

The gains of all channels average to 1, so the mean of the output's channels is the conversion of
the mean of the input's, sample by sample. Where channels of opposite polarity would cancel, the
loudest channel replaces the mean; the first one, if no other is clearly louder.
"""

from collections import deque

import numpy as np
import scipy  # whose parts load when they are first used

import data

ATTACK = 0.01  # s, time constant of <> for rising power: a new note's position counts at once
RELEASE = 0.1  # s, for falling power: a decaying note stays where it was struck
NEAR = (0.25, 0.5, 0.25)  # weights of neighbouring bins: the window's main lobe
WIDE = 25  # bins, 1.1 kHz: these give the position of a bin without energy
WIDE_WEIGHT = 0.03  # their weight: a bin 15 dB below them starts to follow them
ALL_WEIGHT = 1e-4  # weight of the mean over all bins
SLOW = 1.0  # s, time constant of these two means
WIDTH = 1.0  # s, time constant of the width: notes of the target are longer or shorter
WIDEST = 2.0  # largest factor of G in a round
BALANCE = 0.03  # s, time constant of the balance
LARGEST_SHIFT = 6.0  # dB, largest correction of the balance in a round
ROUNDS = 2  # of correcting width and balance, for each changes the other
FAINT = 1e-3  # fraction of the power below which width and a channel's balance are not kept
# Power of the mean relative to that of unrelated channels, see `recordings.MonoMix`: above the
# second value channels do not cancel, below the first they do.
CANCELLED = (0.1, 0.3)
# Power by which a channel must exceed the first to replace the mean, 3 dB. Among equally loud
# channels noise would decide, differently in each frame, and each change inverts the polarity.
LOUDER = 2.0
_PART_FRAMES = 256  # frames that are mixed at a time: what is made of them stays in the cache
_TINY = 1e-20


def split(blocks):
    """Split a stream, (channels, any) -> (1 + channels, any): the mean, each channel minus it.

    Mono is unchanged.
    """
    for block in blocks:
        if len(block) > 1:
            mean = block.mean(axis=0, keepdims=True)
            block = np.concatenate([mean, block - mean])
        yield block


class Placement:
    """Mixes the channels of a stream to one spectrum, and places its conversion in the channels.

    `mix` and `place` work on the same stream. `mix` stores the data that `place` needs later.
    """

    def __init__(self, hop_length):
        """``hop_length``: samples from frame to frame."""
        self._powers = _Follower(ATTACK, RELEASE, hop_length)
        self._products = _Follower(ATTACK, RELEASE, hop_length)
        self._slow = _Follower(SLOW, SLOW, hop_length)
        rounds = range(1 + ROUNDS)  # the first is for the input
        self._widths = [_Smoother(WIDTH, hop_length) for _ in rounds]
        self._balances = [_Smoother(BALANCE, hop_length) for _ in rounds]
        self._channels = 1
        self._waiting = deque()  # per frame: arguments of `_place`

    def mix(self, frames):
        """Mix a stream of spectra of `split`'s output, complex64 (1 + channels, any, bins).

        Yields:
            complex64 (1, any, bins), for the network.
        """
        for block in frames:
            if len(block) > 1:
                self._channels = len(block) - 1
                starts = range(0, max(1, block.shape[1]), _PART_FRAMES)
                parts = [block[:, start : start + _PART_FRAMES] for start in starts]
                block = np.concatenate([self._mix(part[0], part[1:]) for part in parts], axis=1)
            yield block

    def place(self, spectra):
        """Place a stream of converted spectra, complex64 (1, any, bins): (channels, any, bins)."""
        for block in spectra:
            if self._channels > 1 and block.shape[1]:
                columns = zip(*[self._waiting.popleft() for _ in range(block.shape[1])])
                block = self._place(block[0], *[np.stack(column, axis=1) for column in columns])
            yield np.broadcast_to(block, (self._channels, *block.shape[1:]))

    def _mix(self, mean, besides):
        """Mix a block: mean (t, bins), channels minus mean (channels, t, bins) -> (1, t, bins)."""
        channels = mean + besides
        energies = np.stack(
            [_sum_bins(mean), _sum_bins(besides).mean(axis=0), *_sum_bins(channels)]
        )
        cancelled, instead = self._find_cancelled(mean, channels, besides)
        reference = mean + cancelled * instead
        besides = besides - cancelled * instead

        products = np.concatenate([besides, reference[np.newaxis]]) * reference.conj()
        gains, power = self._find_gains(products)
        rest = besides - gains * reference
        unit = reference.conj() / (np.abs(reference) * np.sqrt(power) + _TINY)
        gains += rest * unit
        for t in range(len(mean)):
            self._waiting.append((gains[:, t], energies[:, t]))
        return reference[np.newaxis]

    def _find_cancelled(self, mean, channels, besides):
        """Find (cancelling, float32 (t, bins) in [0, 1]; loudest channel minus mean, (t, bins))."""
        powers = _power(np.concatenate([mean[np.newaxis], channels]))
        powers = np.concatenate([powers, powers[1:].sum(axis=0, keepdims=True)])
        powers = self._powers.follow(_near(powers))
        unrelated = powers[-1] / len(channels) ** 2
        ratio = powers[0] / (unrelated + _TINY)
        low, high = CANCELLED
        cancelled = np.clip((high - ratio) / (high - low), 0, 1).astype(np.float32)
        powers[1] *= LOUDER
        loudest = powers[1:-1].argmax(axis=0)[np.newaxis]
        return cancelled, np.take_along_axis(besides, loudest, axis=0)[0]

    def _find_gains(self, products):
        """Compute (G, complex64 (channels, t, bins); power of the reference (t, bins)).

        ``products``: complex (channels + 1, t, bins), channels and reference times reference*.
        """
        slow = self._slow.follow(products)
        around = scipy.ndimage.uniform_filter1d(slow, WIDE, mode="nearest")
        everything = slow.mean(axis=-1, keepdims=True)
        own = self._products.follow(_near(products))
        sums = own + WIDE_WEIGHT * around + ALL_WEIGHT * everything
        power = sums[-1].real
        gains = sums[:-1] / (power + _TINY)
        return gains.astype(np.complex64), power.astype(np.float32)

    def _place(self, converted, gains, energies):
        """Place a spectrum, (t, bins) -> (channels, t, bins); other arguments: stored by `_mix`."""
        gains = 1 + gains
        power = _power(converted)
        width = _odds(self._widths[0].smooth(energies[:2]))
        levels = _to_decibels(self._balances[0].smooth(energies[2:]))
        for k in range(1, 1 + ROUNDS):
            gains = _keep_width(gains, power, width, self._widths[k])
            gains = _keep_balance(gains, power, levels, self._balances[k])
        sounds = energies[2:, :, np.newaxis] > 0  # a silent channel stays silent
        return (gains * sounds * converted).astype(np.complex64)


def _keep_width(gains, power, width, smoother):
    """Scale the gains (channels, t, bins) minus their mean to keep the input's width.

    Args:
        gains, power: of the converted spectrum; power (t, bins).
        width: of the input, (t,), see `_odds`.
        smoother: `_Smoother` of this round.
    """
    mean = gains.mean(axis=0)
    besides = gains - mean
    made = np.stack([_sum_bins(mean, power), _sum_bins(besides, power).mean(axis=0)])
    factor = np.sqrt(width / _odds(smoother.smooth(made)))
    factor = np.clip(factor, 1 / WIDEST, WIDEST).astype(np.float32)
    return mean + factor[:, np.newaxis] * besides


def _keep_balance(gains, power, levels, smoother):
    """Scale the gains (channels, t, bins) to keep the input's balance of the channels.

    Sound in one channel alone stays there. The mean of the gains does not change.

    Args:
        gains, power: of the converted spectrum; power (t, bins).
        levels: of the input's channels, (channels, t), dB, see `_to_decibels`.
        smoother: `_Smoother` of this round.
    """
    shift = levels - _to_decibels(smoother.smooth(_sum_bins(gains, power)))
    shift = np.clip(shift - shift.mean(axis=0), -LARGEST_SHIFT, LARGEST_SHIFT)
    balanced = gains * (10 ** (shift / 20)).astype(np.float32)[..., np.newaxis]
    before, after = gains.mean(axis=0), balanced.mean(axis=0)
    change = np.ones_like(after)
    present = (np.abs(before) > 0.5) & (np.abs(after) > 0.25)  # nothing cancels there
    np.divide(after, before, out=change, where=present)
    return balanced / change


class _Smoother:
    """Exponential moving averages over time."""

    def __init__(self, seconds, hop_length):
        self._keep = np.exp(-hop_length / data.SAMPLE_RATE / seconds)
        self._state = None

    def smooth(self, values):
        """Average the next frames, (rows, t, ...) -> same shape."""
        if self._state is None:
            self._state = np.zeros_like(values[:, :1])
        coefficients = [1 - self._keep], [1, -self._keep]
        smooth, self._state = scipy.signal.lfilter(*coefficients, values, axis=1, zi=self._state)
        return smooth


class _Follower:
    """Moving averages over time for each bin, with a shorter time constant for rising power."""

    def __init__(self, attack, release, hop_length):
        """``attack``, ``release``: time constants, s."""
        frame = hop_length / data.SAMPLE_RATE
        self._attack = np.float32(1 - np.exp(-frame / attack))  # share of a new frame
        self._release = np.float32(1 - np.exp(-frame / release))
        self._state = None

    def follow(self, values):
        """Average the next frames, (rows, t, bins) -> same shape; the last row is the power."""
        if self._state is None:
            self._state = np.zeros_like(values[:, 0])
        means = np.empty_like(values)
        share = self._attack
        for t in range(values.shape[1]):
            change = values[:, t] - self._state
            if self._attack != self._release:
                share = np.where(change[-1].real > 0, self._attack, self._release)
            change *= share
            self._state += change
            means[:, t] = self._state
        return means


def _power(spectrum):
    """The squared magnitude of a complex array."""
    return spectrum.real**2 + spectrum.imag**2


def _near(values):
    """Weighted mean over neighbouring bins, the last axis; the first and last count twice."""
    mean = NEAR[1] * values
    mean[..., 1:] += NEAR[0] * values[..., :-1]
    mean[..., :-1] += NEAR[2] * values[..., 1:]
    mean[..., 0] += NEAR[0] * values[..., 0]
    mean[..., -1] += NEAR[2] * values[..., -1]
    return mean


def _sum_bins(spectrum, weight=1):
    """Energy of each frame, (..., bins) -> (...), of bins times ``weight``."""
    return (_power(spectrum) * weight).sum(axis=-1)


def _odds(energies):
    """Energy of the channels minus their mean relative to the mean's; rows: mean's, the other."""
    share = energies[1] / (energies.sum(axis=0) + _TINY)
    share = np.clip(share, FAINT, 1 - FAINT)
    return share / (1 - share)


def _to_decibels(power):
    """Power of each channel relative to that of all, (channels, t) -> dB."""
    return 10 * np.log10(power / (power.sum(axis=0) + _TINY) + FAINT)
