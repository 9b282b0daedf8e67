"""Transposing keeps the length and moves every pitch alike."""

import numpy as np
import pytest
from sounds import music, tone

import data
from common.cli import UserError
from sound.transpose import transpose

RATE = 44100


def join(blocks):
    return np.concatenate(list(blocks), axis=1)


@pytest.mark.parametrize("semitones", [-12, -5, 0, 7, 12])
@pytest.mark.parametrize("samples", [0, 1, 700, 66150])
def test_as_many_samples_come_out_as_went_in(semitones, samples):
    audio = np.stack([music(samples), music(samples, seed=1)])
    moved = join(transpose(data.rechunk([audio], 10_000), RATE, semitones))
    assert moved.shape == audio.shape
    assert moved.dtype == np.float32


@pytest.mark.parametrize("semitones", [-12, -5, 7, 12])
def test_a_tone_moves_by_so_many_semitones(semitones):
    moved = join(transpose([tone(440, 3)[np.newaxis]], RATE, semitones))[0]
    middle = moved[RATE : 2 * RATE] * np.hanning(RATE)
    peak = np.abs(np.fft.rfft(middle)).argmax()  # Hz
    assert peak == pytest.approx(440 * 2 ** (semitones / 12), abs=2)


def test_channels_stay_together():
    audio = np.stack([music(2 * RATE), 0.5 * music(2 * RATE)])
    left, right = join(transpose([audio], RATE, 12))
    np.testing.assert_allclose(right, 0.5 * left, atol=1e-6)


def test_notes_stay_in_time():
    clicks = np.zeros((1, 4 * RATE), np.float32)
    onsets = np.arange(0.5, 3.5, 0.5)
    for onset in onsets:
        start = round(onset * RATE)
        clicks[0, start : start + 2000] = tone(300, 2000 / RATE) * np.linspace(1, 0, 2000)
    moved = np.abs(join(transpose([clicks], RATE, 12))[0])
    for onset in onsets:
        begin, end = round((onset - 0.2) * RATE), round((onset + 0.2) * RATE)
        energy = moved[begin:end] ** 2
        middle = (energy * np.arange(begin, end)).sum() / energy.sum() / RATE
        assert middle == pytest.approx(onset + 0.01, abs=0.05)


def test_more_channels_than_ffmpeg_names_are_refused():
    with pytest.raises(UserError, match="--transpose: the recording has 25 channels"):
        join(transpose([np.zeros((25, 100), np.float32)], RATE, 12))
