import numpy as np
import pytest
from sounds import tone

from data import SAMPLE_RATE
from sound import conditions
from sound.conditions import CONDITIONS


def level(audio):
    """Root mean square, dB of full scale."""
    return 10 * np.log10(np.mean(np.square(audio, dtype=np.float64)))


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_the_same_each_time_and_keeps_length_and_input(name):
    audio = tone(440, level=0.3)
    before = audio.copy()
    first = CONDITIONS[name].apply(audio)
    np.testing.assert_array_equal(audio, before)
    np.testing.assert_array_equal(first, CONDITIONS[name].apply(audio))
    assert first.dtype == np.float32
    assert first.shape == audio.shape
    assert np.abs(first - audio).max() > 1e-3


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("samples", [1, 700])
def test_the_shortest_sounds(name, samples):
    assert np.isfinite(CONDITIONS[name].apply(np.zeros(samples, np.float32))).all()


def test_a_room_goes_on_by_60_db_in_its_time():
    click = np.zeros(2 * SAMPLE_RATE, np.float32)
    click[0] = 1
    echoes = conditions.add_room(click)
    assert level(echoes[1:]) - level(click) == pytest.approx(0, abs=0.2)  # as loud as the sound
    step = int(0.1 * SAMPLE_RATE)
    early = level(echoes[step : 2 * step])
    late = level(echoes[4 * step : 5 * step])
    assert early - late == pytest.approx(60 * 0.3 / conditions.RT60, abs=1)


def test_noise_is_pink_and_as_loud_as_said():
    noise = conditions.add_noise(np.zeros(8 * SAMPLE_RATE, np.float32))
    assert level(noise) == pytest.approx(conditions.NOISE_LEVEL, abs=0.1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    octaves = []
    for low in (100, 200, 400, 800, 1600, 3200):
        inside = (frequencies >= low) & (frequencies < 2 * low)
        octaves.append(10 * np.log10(power[inside].sum()))
    assert np.ptp(octaves) < 1  # each octave has the same power


@pytest.mark.parametrize(("frequency", "loss"), [(50, 40), (900, 0), (8500, 20)])
def test_the_band(frequency, loss):
    audio = tone(frequency)
    change = level(audio) - level(conditions.limit_band(audio))
    if loss:
        assert change > loss
    else:
        assert change == pytest.approx(0, abs=0.2)
