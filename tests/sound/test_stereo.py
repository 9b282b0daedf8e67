import numpy as np
import pytest
from scipy.ndimage import maximum_filter, maximum_filter1d
from scipy.signal import fftconvolve
from sounds import identity, louder, music, noise, shifted, uneven

import data
from conversion import convert
from sound import stereo

RATE = data.SAMPLE_RATE
HIGH = (12, 16, 19, 24, 9, 14, 17, 21, 5, 12, 16, 7)  # semitones, of notes one after the other
LOW = (0, 7, 2, 9, 5, 0, 4)
QUALITY = convert.Options("griffinlim_anchored", phase_iterations=3, hops=2)


def convert_channels(network, *channels, **options):
    """Convert channels, each (n,), at normal quality -> float32 (channels, n)."""
    audio = np.stack(channels, axis=1)
    return convert.convert_audio(network, audio, RATE, QUALITY._replace(**options)).T


def convert_mono(network, audio, **options):
    return convert.convert_audio(network, audio, RATE, QUALITY._replace(**options))


def decibels(power):
    return 10 * np.log10(power + 1e-20)


def level_differences(audio, size=RATE // 5):
    """Level of the first channel over that of the second, (2, n) -> dB of each 200 ms."""
    parts = audio[:2, : audio.shape[1] // size * size].reshape(2, -1, size)
    power = (parts**2).mean(axis=2)
    sounds = power.sum(axis=0) > 1e-3 * power.sum(axis=0).max()
    return (decibels(power[0]) - decibels(power[1]))[sounds]


def correlation(audio):
    return np.corrcoef(audio[:2])[0, 1]


def bell(frequency, onset, samples, partials=(1, 0.5, 0.3)):
    """A note that is struck at ``onset`` (s) and decays."""
    since = np.clip(np.arange(samples) / RATE - onset, 0, None)
    waves = [
        level * np.sin(2 * np.pi * frequency * (k + 1) * since) for k, level in enumerate(partials)
    ]
    return (0.1 * np.exp(-5 * since) * sum(waves)).astype(np.float32)


def room(audio, seed, wet=1.0):
    """A channel's own reverberation."""
    random = np.random.default_rng(seed)
    decay = np.exp(-np.arange(RATE // 3) / (0.08 * RATE))
    response = random.normal(size=len(decay)) * decay
    response *= wet / np.linalg.norm(response)
    response[0] += 1
    return fftconvolve(audio, response)[: len(audio)].astype(np.float32)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("options", [{}, {"phase": "input", "hops": 1}])
def test_identical_channels_come_out_as_mono_does(channels, options):
    audio = music(60_000)
    both = convert_channels(shifted, *[audio] * channels, **options)
    mono = convert_mono(shifted, audio, **options)
    for channel in both:
        np.testing.assert_array_equal(channel, mono)


def ringing(tiles):
    """A network whose notes ring on for 70 ms, and are brighter than what they are made of."""
    brighter = tiles + np.linspace(0, 0.3, data.BINS, dtype=np.float32)[:, np.newaxis, np.newaxis]
    return maximum_filter1d(np.minimum(brighter, 1), 6, axis=2, origin=2)


def flatten(tiles):
    """A network that makes soft notes as loud as others, nearly: it takes 0.75 of the decibels."""
    return 0.75 * (tiles + 1) - 1


@pytest.mark.parametrize("network", [identity, uneven, ringing, flatten])
def test_notes_stay_where_they_were_struck(network):
    """Six notes, 6.2 dB left, 6.2 dB right and in the middle in turn, alone and overlapping."""
    samples = 3 * RATE
    audio = np.zeros((2, samples), np.float32)
    for k, frequency in enumerate((220, 330, 262, 392, 294, 523)):
        note = bell(frequency, 0.1 + 0.45 * k, samples)
        place = 10 ** (np.array([3.1, -3.1, 0])[k % 3] / 20)
        audio += np.stack([note * place, note / place])
    converted = convert_channels(network, *audio)
    moved = np.abs(level_differences(converted) - level_differences(audio))
    assert np.median(moved) < 0.3
    assert np.percentile(moved, 90) < 1
    assert correlation(converted) == pytest.approx(correlation(audio), abs=0.05)


@pytest.mark.parametrize("wet", [0.3, 1, 3])
@pytest.mark.parametrize("network", [identity, shifted])
def test_a_wide_room_stays_as_wide(network, wet):
    audio = music(3 * RATE)
    wide = np.stack([room(audio, 1, wet), room(audio, 2, wet)])
    converted = convert_channels(network, *wide)
    assert correlation(converted) == pytest.approx(correlation(wide), abs=0.1)


def blur(tiles):
    """A network whose partials are wide, and begin and end softly."""
    return maximum_filter(tiles, size=(1, 7, 5, 1))


def hold(tiles):
    """A network whose notes stay as loud as they were for 0.28 s."""
    return maximum_filter1d(tiles, 24, axis=2, origin=11)


def add_octaves(tiles):
    """A network that puts a partial an octave above each."""
    higher = np.repeat(tiles[:, : data.BINS // 2], 2, axis=1)
    return np.maximum(tiles, higher - 0.05)


@pytest.mark.parametrize("place", [(0.7, 1.4), (1, -0.8)])
@pytest.mark.parametrize("network", [blur, hold, add_octaves])
def test_two_voices_stay_where_they_are_in_another_timbre(network, place):
    """One voice on the left, the other on the right, or of opposite polarity."""
    samples = 4 * RATE
    high = sum(bell(220 * 2 ** (k / 12), 0.1 + 0.3 * n, samples) for n, k in enumerate(HIGH))
    low = sum(bell(110 * 2 ** (k / 12), 0.2 + 0.5 * n, samples) for n, k in enumerate(LOW))
    audio = np.stack([1.4 * high + place[0] * low, 0.7 * high + place[1] * low])
    converted = convert_channels(network, *audio)
    moved = np.abs(level_differences(converted) - level_differences(audio))
    assert np.median(moved) < 0.25
    assert np.percentile(moved, 90) < 1
    assert correlation(converted) == pytest.approx(correlation(audio), abs=0.05)


@pytest.mark.parametrize("network", [identity, blur, hold])
def test_a_voice_of_opposite_polarity_and_equal_loudness_keeps_its_width(network):
    """Noise must not decide, frame by frame, which of its channels replaces their mean."""
    samples = 4 * RATE
    high = sum(bell(220 * 2 ** (k / 12), 0.1 + 0.3 * n, samples) for n, k in enumerate(HIGH))
    low = sum(bell(110 * 2 ** (k / 12), 0.2 + 0.5 * n, samples) for n, k in enumerate(LOW))
    audio = np.stack([high + low, high - low])
    converted = convert_channels(network, *audio)
    assert correlation(converted) == pytest.approx(correlation(audio), abs=0.05)


def test_the_mean_of_the_channels_is_the_conversion_of_their_mean():
    left, right = music(2 * RATE), 0.3 * music(2 * RATE, seed=1)
    channels = [left + right, room(left, 1), 0.7 * right]
    converted = convert_channels(shifted, *channels)
    mono = convert_mono(shifted, np.mean(channels, axis=0, dtype=np.float32))
    error = np.linalg.norm(converted.mean(axis=0) - mono) / np.linalg.norm(mono)
    assert error < 0.01


def test_an_identity_network_gives_the_channels_back():
    left, right = music(2 * RATE), music(2 * RATE, seed=1)
    channels = np.stack([left + 0.4 * right, right + 0.4 * left, room(left, 3)])
    converted = convert_channels(identity, *channels)
    error = np.linalg.norm(converted - channels, axis=1) / np.linalg.norm(channels, axis=1)
    assert error.max() < 0.2


@pytest.mark.parametrize("network", [identity, shifted, louder])
def test_opposite_polarity_is_not_lost(network):
    audio = music(2 * RATE)
    converted = convert_channels(network, audio, -audio)
    assert correlation(converted) < -0.999
    mono = convert_mono(network, audio)
    assert decibels((converted**2).mean()) == pytest.approx(decibels((mono**2).mean()), abs=0.2)


def test_a_silent_channel_stays_silent():
    audio = music(2 * RATE)
    converted = convert_channels(louder, audio, np.zeros_like(audio), 0.5 * audio)
    assert not converted[1].any()
    assert converted[0].any()
    later = np.where(np.arange(len(audio)) < RATE, 0, audio)
    converted = convert_channels(louder, audio, later)
    assert not converted[1, : RATE - data.N_FFT].any()


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("hops", convert.HOPS)
def test_the_streams_blocks_do_not_show(monkeypatch, channels, hops):
    audio = music(70_000)
    audio = np.stack([room(audio, seed, 0.5) for seed in range(channels)])
    options = QUALITY._replace(hops=hops)
    stream = convert.convert_stream(uneven, [audio], RATE, options=options)
    whole = np.concatenate(list(stream), axis=1)
    monkeypatch.setattr(data, "BLOCK_FRAMES", 50)
    blocks = [audio[:, start : start + 7001] for start in range(0, audio.shape[1], 7001)]
    options = options._replace(batch_size=1)
    streamed = list(convert.convert_stream(uneven, blocks, RATE, options=options))
    np.testing.assert_allclose(np.concatenate(streamed, axis=1), whole, atol=2e-4)


def test_the_network_runs_once_for_all_channels():
    tiles_seen = []

    def network(tiles):
        tiles_seen.append(len(tiles))
        return tiles

    convert_channels(network, music(RATE))
    mono = sum(tiles_seen)
    tiles_seen.clear()
    convert_channels(network, *noise(6, RATE))
    assert sum(tiles_seen) == mono


def test_nothing_waits_in_the_end():
    placement = stereo.Placement(data.HOP_LENGTH)
    frames = np.ones((3, 40, data.BINS), np.complex64)
    mixed = placement.mix([frames[:, :15], frames[:, 15:]])
    assert sum(block.shape[1] for block in mixed) == 40
    placed = list(placement.place([frames[:1, :33], frames[:1, :0], frames[:1, 33:]]))
    assert [block.shape for block in placed] == [(2, 33, 256), (2, 0, 256), (2, 7, 256)]
