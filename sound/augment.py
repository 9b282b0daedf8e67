"""Augmentation: simulate rooms, microphones, noise and levels on the tiles of an origin.

A generator trained on one clean piano only works for that piano. Each function here simulates one
part of a real recording, such as the room, on a spectrogram, with random strength. So every tile of
the training has a new room, microphone and noise.

    conditions = Conditions()
    origin, target = conditions(origin, target, rng)    # dB scale, (bins, 256) each

With several origins, `blend` also makes new instruments between two of them, and slightly beyond,
and `duet` makes two of them play together.

Pictures have no phase, so all functions work on linear magnitudes, (bins, frames); a full-scale
sine reads 1.0. The powers of two sounds in a bin add, which is correct on average over phases.
"""

import functools

import numpy as np

from data import BINS, HOP_LENGTH, N_FFT, SAMPLE_RATE, amplitude_to_db, db_to_amplitude

FRAME_SECONDS = HOP_LENGTH / SAMPLE_RATE
PROBABILITY = 0.5  # of each condition, for each tile
LOUDEST = 1.0  # largest magnitude; the networks' range is clipped there


@functools.cache
def frequencies(bins):
    """Centre frequencies of the bins, Hz, (bins,)."""
    return np.arange(bins) * SAMPLE_RATE / N_FFT


@functools.cache
def octaves(bins):
    """Distance of the bins from 1 kHz in octaves, (bins,)."""
    centres = frequencies(bins)
    return np.log2(np.maximum(centres, centres[1]) / 1000)


def db_to_gain(decibels):
    """Convert decibels to a factor of magnitude."""
    return 10 ** (np.asarray(decibels) / 20)


def add_room(mag, rng):
    """Add late reverberation: energy that decays from frame to frame, faster in the treble.

    Polack's model (1988; Lebart, Boucher & Denbigh 2001, eq. 3) is noise with an exponential
    envelope. So in each bin the power R of the reverberation follows R[t] = a (R[t-1] + E[t-1])
    with a = 10^(-6 frame / RT60). Many echoes add at random phases, so the power in a bin is
    exponentially distributed. RT60 is 0.2 - 2.5 s at low frequencies and shorter above. The
    reverberation is between 20 dB below and 6 dB above the direct sound.
    """
    bass_rt60 = np.exp(rng.uniform(np.log(0.2), np.log(2.5)))  # s
    treble_share = rng.uniform(0.3, 0.9)  # RT60 at 11 kHz and above, relative to the bass
    shares = np.linspace(1, treble_share, BINS)
    rt60 = bass_rt60 * np.pad(shares, (0, len(mag) - BINS), "edge")
    decay = 10 ** (-6 * FRAME_SECONDS / rt60)

    power = mag**2
    reverberation = np.zeros_like(power)
    for t in range(1, power.shape[1]):
        reverberation[:, t] = decay * (reverberation[:, t - 1] + power[:, t - 1])
    reverberation *= (1 - decay)[:, np.newaxis]  # as loud as the sound, if that is steady
    reverberation *= rng.exponential(size=power.shape)
    share = db_to_gain(rng.uniform(-20, 6)) ** 2
    return np.sqrt(power + share * reverberation)


def add_reflections(mag, rng):
    """Add early reflections from walls and lid: comb filter |1 + sum of g exp(-i 2 pi f delay)|.

    Delays of 0.5 - 15 ms are shorter than a frame, so they change its spectrum but not its time
    (Kuttruff 2016, chapter 7).
    """
    count = rng.integers(1, 5)
    delays = rng.uniform(0.0005, 0.015, count)  # s
    gains = rng.uniform(-0.5, 0.5, count)
    turns = np.exp(-2j * np.pi * frequencies(len(mag))[:, np.newaxis] * delays)
    response = np.abs(1 + turns @ gains)
    return mag * response[:, np.newaxis]


def change_tone(mag, rng):
    """Apply a smooth random curve: microphone, equaliser, another instrument's soundboard.

    The curve is a tilt of 1.5 dB per octave plus knots of 4 dB at each octave (standard
    deviations), linear in between. Averaged spectra of pianos differ by as much.
    """
    knots = np.arange(-5, 5)  # octaves from 1 kHz: 31 Hz ... 16 kHz
    curve = np.interp(octaves(len(mag)), knots, rng.normal(0, 4, len(knots)))
    curve += rng.normal(0, 1.5) * octaves(len(mag))
    curve -= curve[: BINS // 4].mean()  # the level is another condition
    return mag * db_to_gain(curve)[:, np.newaxis]


def add_noise(mag, rng):
    """Add a noise floor, white to brown, and sometimes mains hum.

    The noise's power in a bin is exponentially distributed, as for any Gaussian noise. Magnitudes
    at 1 kHz are between -100 dBFS (a studio) and -50 dBFS (a cassette).
    """
    slope = rng.uniform(-6, 0)  # dB per octave
    floor = db_to_gain(rng.uniform(-100, -50) + slope * octaves(len(mag)))
    noise = floor[:, np.newaxis] ** 2 * rng.exponential(size=mag.shape)
    if rng.random() < 0.3:
        noise += hum_power(len(mag), rng)[:, np.newaxis]
    return np.sqrt(mag**2 + noise)


def hum_power(bins, rng):
    """Power (bins,) of mains hum: harmonics of 50 or 60 Hz, the first -80 to -45 dB."""
    mains = rng.choice([50.0, 60.0])
    harmonics = np.arange(1, 11)
    levels = rng.uniform(-80, -45) - rng.uniform(2, 6) * (harmonics - 1)
    nearest = np.round(harmonics * mains * N_FFT / SAMPLE_RATE).astype(int)
    power = np.zeros(bins)
    np.add.at(power, nearest, db_to_gain(levels) ** 2)
    return power


def limit_band(mag, rng):
    """Limit the band, as in old recordings, telephones and lossy codecs.

    The upper edge is between 3 and 10 kHz, the lower edge between 30 and 200 Hz. Above the band the
    level falls by 12 - 48 dB per octave, below it by half as much.
    """
    upper = np.log2(rng.uniform(3000, 10_000) / 1000)
    lower = np.log2(rng.uniform(30, 200) / 1000)
    slope = rng.uniform(12, 48)
    above = np.maximum(octaves(len(mag)) - upper, 0)
    below = np.maximum(lower - octaves(len(mag)), 0)
    return mag * db_to_gain(-slope * (above + below / 2))[:, np.newaxis]


def change_dynamics(mag, rng):
    """Compress or expand the dynamics: a compressor, another player, another piano.

    A feed-forward gain computer with smoothing (Giannoulis, Massberg & Reiss 2012): the frame's
    level is smoothed over 50 - 400 ms, and its distance from the tile's mean level is divided by a
    ratio of 0.7 (an expander) to 2.5.
    """
    level = 10 * np.log10((mag**2).sum(axis=0) + 1e-8)  # dB, of each frame
    smoothing = np.exp(-FRAME_SECONDS / rng.uniform(0.05, 0.4))
    smooth = level.copy()
    for t in range(1, len(level)):
        smooth[t] = smoothing * smooth[t - 1] + (1 - smoothing) * level[t]
    sounding = level > level.max() - 50
    distance = np.clip(smooth - smooth[sounding].mean(), -25, 25)
    ratio = rng.uniform(0.7, 2.5)
    return mag * db_to_gain((1 / ratio - 1) * distance)


def change_level(origin, target, rng):
    """Apply one gain to both, -14 ... 8 dB, so that the network learns to keep the level.

    The gain is limited so that neither leaves the networks' range.
    """
    gain = db_to_gain(rng.uniform(-14, 8))
    peak = max(origin.max(), target.max())
    if peak > 0:
        gain = min(gain, max(1, LOUDEST / peak))
    return origin * gain, target * gain


def detune(origin, target, rng):
    """Detune both by up to 30 cents: stretch the frequency axis.

    The output uses the input's phase, so it must keep the input's tuning.
    """
    ratio = 2 ** (rng.uniform(-30, 30) / 1200)
    top = len(origin) - 1
    position = np.minimum(np.arange(len(origin)) / ratio, top)
    below = np.floor(position).astype(int)
    above = np.minimum(below + 1, top)
    share = (position - below)[:, np.newaxis]

    def stretch(mag):
        return (1 - share) * mag[below] + share * mag[above]

    return stretch(origin), stretch(target)


def blend(first, second, rng):
    """Blend two instruments: a weighted mean of their levels in dB.

    Both play the same piece, aligned, so a mean is the piece on a third instrument. This is mixup
    (Zhang et al. 2018) of the inputs alone, since both have the same target. The weight of the
    second is a smooth random curve over frequency with a knot at each octave, -0.3 ... 1.3. So
    each register has a different instrument, some slightly beyond the two.

    Args:
        first, second: dB scale [0, 1], (bins, 256).

    Returns:
        dB scale [0, 1], (bins, 256).
    """
    knots = np.arange(-5, 5)  # octaves from 1 kHz
    weight = np.interp(octaves(len(first)), knots, rng.uniform(-0.3, 1.3, len(knots)))
    mixed = first + weight[:, np.newaxis] * (second - first)
    return np.clip(mixed, 0, 1)


def duet(first, second, rng):
    """Two instruments play the piece together: in unison, or one takes over from the other.

    Both play the notes of the target, aligned with it. The sum of their powers is weighted: the
    second's share follows a random curve over time, knots half a second apart, from 0 (the first
    alone) to 1 (the second alone). The shares sum to 1, so two instruments are as loud as one.

    Args:
        first, second: magnitudes (bins, 256).

    Returns:
        The same of the duet.
    """
    times = np.arange(first.shape[1]) * FRAME_SECONDS
    knots = np.arange(0, times[-1] + 0.5, 0.5)  # s
    share = np.interp(times, knots, np.clip(rng.uniform(-0.5, 1.5, len(knots)), 0, 1))
    return np.sqrt((1 - share) * first**2 + share * second**2)


# In the order of a recording's signal path: the instrument, the room, the microphone.
ORIGIN_ONLY = {
    "dynamics": change_dynamics,
    "reflections": add_reflections,
    "room": add_room,
    "tone": change_tone,
    "band": limit_band,
    "noise": add_noise,
}
BOTH = {"detune": detune, "level": change_level}
BLEND, DUET = "blend", "duet"  # need a second origin: of the same family, of any family
ALL = (BLEND, DUET, *ORIGIN_ONLY, *BOTH)
# Without detune, whose interpolation between bins also blurs the target, and without duet: most
# recordings are of one instrument.
DEFAULT = tuple(name for name in ALL if name not in (DUET, "detune"))


class Conditions:
    """Random recording conditions for pairs of tiles.

    Args:
        names: the conditions to draw from, of `ALL`.
        probability: of each condition, for each pair.

    Raises:
        ValueError: unknown name.
    """

    def __init__(self, names=DEFAULT, probability=PROBABILITY):
        for name in names:
            if name not in ALL:
                raise ValueError(f"{name}: no such condition; choose from {', '.join(ALL)}")
        self.names = tuple(name for name in ALL if name in names)
        self.probability = probability

    @property
    def blends(self):
        """Whether each pair needs a second origin of the same family."""
        return BLEND in self.names

    @property
    def duets(self):
        """Whether each pair needs a second origin of any family."""
        return DUET in self.names

    def __call__(self, origin, target, rng, other=None, partner=None):
        """Apply conditions drawn from ``rng`` to one pair.

        Args:
            origin, target: dB scale [0, 1], (bins, 256), any float type.
            rng: numpy Generator.
            other: the same tile of another origin, for `blend`; None: no blend.
            partner: the same tile of another origin, for `duet`; None: no duet.

        Returns:
            (origin, target): dB scale, float32 (bins, 256), at least 0; may slightly exceed 1.
        """
        drawn = rng.random(len(self.names)) < self.probability
        chosen = [name for name, wanted in zip(self.names, drawn) if wanted]
        if BLEND in chosen and other is not None:
            origin = blend(origin, other, rng)
        origin = db_to_amplitude(origin)
        target = db_to_amplitude(target)
        if DUET in chosen and partner is not None:
            origin = duet(origin, db_to_amplitude(partner), rng)
        for name in chosen:  # conditions of both come first, so the noise floor keeps its level
            if name in BOTH:
                origin, target = BOTH[name](origin, target, rng)
        for name in chosen:
            if name in ORIGIN_ONLY:
                origin = ORIGIN_ONLY[name](origin, rng)
        return amplitude_to_db(origin), amplitude_to_db(target)
