import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import music, noise, tone

from sound.loudness import CEILING, SAFE_PEAK, Limiter


def limit(audio, rate=44100, size=30_011):
    """Audio (channels, n) through a `Limiter`, in blocks."""
    limiter = Limiter(rate)
    blocks = [audio[:, start : start + size] for start in range(0, audio.shape[1], size)]
    limited = np.concatenate(list(limiter.limit(blocks or [audio])), axis=1)
    assert limited.shape == audio.shape and limited.dtype == np.float32
    return limited, limiter.is_used


def true_peak(audio, oversampling=16):
    """In dBTP, by another interpolation than the limiter's."""
    fine = scipy.signal.resample_poly(audio, oversampling, 1, axis=1, window=("kaiser", 8))
    return 20 * np.log10(np.abs(fine).max())


@settings(max_examples=30)
@given(
    st.sampled_from(["noise", "clicks", "sines", "steps"]),
    st.sampled_from([8000, 44100, 96000]),
    st.floats(0.5, 12),
    st.integers(0, 1000),
    st.integers(1, 3),
)
def test_true_peaks_stay_below_the_ceiling(kind, rate, level, seed, channels):
    random = np.random.default_rng(seed)
    samples = rate // 2
    time = np.arange(samples) / rate
    if kind == "noise":
        audio = random.normal(0, 0.3, (channels, samples))
    elif kind == "clicks":
        audio = np.where(random.random((channels, samples)) < 0.001, 1.0, 0.0)
    elif kind == "sines":
        audio = np.sin(2 * np.pi * random.uniform(20, rate / 4, (channels, 1)) * time + 1)
    else:
        audio = np.sin(2 * np.pi * 300 * time) * (random.random((channels, 1)) < time * 2)
    audio = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 0.45, output="sos"), audio)
    limited, _ = limit((level * audio).astype(np.float32), rate)
    assert true_peak(limited, 4) < CEILING + 0.05
    assert true_peak(limited) < CEILING + 0.2  # 4 x reads up to 0.17 dB too little below fs / 4


def test_what_is_below_the_ceiling_is_not_touched():
    audio = np.stack([music(100_000, level=0.85), music(100_000, level=0.5, seed=1)])
    limited, is_used = limit(audio)
    assert not is_used
    np.testing.assert_array_equal(limited, audio)


def test_away_from_a_peak_samples_come_out_as_they_came():
    audio = np.stack([music(150_000, level=0.5), music(150_000, level=0.5, seed=1)])
    audio[0, 70_000:70_050] *= 4 / np.abs(audio[0, 70_000:70_050]).max()
    limited, is_used = limit(audio)
    assert is_used
    before, after = 70_000 - 500, 70_050 + 500 + 6615  # 15 dB at 100 dB/s
    np.testing.assert_array_equal(limited[:, :before], audio[:, :before])
    np.testing.assert_array_equal(limited[:, after:], audio[:, after:])
    assert np.abs(limited[1, 70_000:70_050]).max() < 0.3 * np.abs(audio[1, 70_000:70_050]).max()


def test_the_gain_moves_without_clicks():
    audio = np.full((2, 100_000), 0.5, np.float32)
    audio[0, 50_000] = 4
    limited, _ = limit(audio)
    gain = limited[1] / 0.5
    assert gain.min() < 0.25
    assert np.abs(np.diff(gain)).max() < 0.01
    assert np.diff(gain[51_000:]).max() < 3e-4  # the release


@pytest.mark.parametrize("size", [1, 99, 65_536, 200_000])
def test_blocks_do_not_show(size):
    audio = 4 * noise(2, 140_000 if size > 1 else 3000)
    np.testing.assert_array_equal(limit(audio, size=size)[0], limit(audio)[0])


def test_a_sine_keeps_its_form():
    limited, _ = limit(2 * tone(60, level=1)[np.newaxis])
    middle = limited[0, 22_050:66_150]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    overtones = np.delete(spectrum, range(55, 66))  # bins of 1 Hz
    assert overtones.max() < spectrum.max() / 100


def test_no_true_peak_exceeds_the_ceiling_at_a_safe_peak():
    worst = np.sign(np.sinc(np.arange(-500, 500) + 0.5))
    audio = (SAFE_PEAK * worst)[np.newaxis].astype(np.float32)
    assert not limit(audio)[1]
    assert not limit(0 * audio)[1]
    assert limit(audio[:, :0])[0].shape == (1, 0)
