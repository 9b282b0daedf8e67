"""signals.py: attacks, gaps and stereo of sounds whose attacks, gaps and stereo are known."""

import numpy as np
import pytest

import data
from measuring import signals

RATE = data.SAMPLE_RATE


def play(rise, after, count=49):
    """Test notes of a 3 kHz tone, whose level rises linearly: float64 (n,).

    rise: s from nothing to full level; after: level after a note, of full level.
    """
    audio = np.zeros(int((signals.FIRST + signals.EVERY * count) * RATE))
    for number in range(count):
        onset = int((signals.FIRST + signals.EVERY * number) * RATE)
        time = np.arange(int(signals.EVERY * RATE)) / RATE
        level = np.clip(time / rise, 0, 1)
        level[time >= signals.HELD] = after
        audio[onset : onset + len(time)] = level * np.sin(2 * np.pi * 3000 * time)
    return 0.3 * audio


def test_the_test_is_of_49_notes_that_do_not_overlap():
    score = signals.make_test_notes()
    assert len(score) == 49
    assert (np.diff(score["onset"]) > score["duration"][:-1]).all()


@pytest.mark.parametrize("rise", [0.02, 0.06])
def test_rise_is_from_a_fifth_to_four_fifths(rise):
    rises = signals.measure_attacks(play(rise, 0.1))
    assert len(rises) == 49
    assert np.median(rises) == pytest.approx(1000 * 0.6 * rise, abs=2)


@pytest.mark.parametrize("decibels", [6, 20])
def test_gaps_are_as_deep_as_the_level_falls(decibels):
    gaps = signals.measure_gaps(play(0.01, 10 ** (-decibels / 20)))
    assert len(gaps) == 49
    np.testing.assert_allclose(gaps, decibels, atol=0.1)


def test_of_a_shorter_recording_there_are_fewer_notes():
    audio = play(0.01, 0.1)[: 10 * RATE]
    assert 10 < len(signals.measure_gaps(audio)) < 20
    assert 10 < len(signals.measure_attacks(audio)) < 20


def test_stereo_that_is_moved_is_told():
    rng = np.random.default_rng(0)
    before = 0.1 * rng.normal(size=(3 * RATE, 2)) @ np.array([[1, 0.5], [0, 1]])
    same = signals.compare_stereo(before, 0.5 * before)
    assert np.abs(same.moved).max() < 1e-6
    assert same.before == pytest.approx(same.after) == pytest.approx(0.447, abs=0.02)
    panned = signals.compare_stereo(before, before * [1, 10 ** (-6 / 20)])
    assert len(panned.moved) == 15
    np.testing.assert_allclose(panned.moved, 6, atol=1e-6)


def test_windows_that_are_quiet_do_not_count():
    before = np.full((2 * RATE, 2), 0.1)
    before[RATE:] *= 1e-3
    after = before.copy()
    after[RATE:, 1] *= 0.1
    moved = signals.compare_stereo(before, after).moved
    assert len(moved) == 5 and moved.max() < 1e-6
