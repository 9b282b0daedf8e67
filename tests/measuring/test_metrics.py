import numpy as np
import pytest
from files import MIXES
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import combine, istft

import data
from measuring import metrics
from sound.recordings import read_audio

pytestmark = pytest.mark.filterwarnings(
    "ignore:n_fft="
)  # of librosa, on sounds shorter than one frame
SETTINGS = settings(max_examples=15)


def chord(pitches, seconds=1.0, rate=metrics.RATE, harmonics=6):
    """A chord of decaying harmonic tones, of which each peaks at 0.3 or so: float32 (n,)."""
    time = np.arange(int(seconds * rate)) / rate
    frequencies = 440 * 2 ** ((np.atleast_1d(pitches) - 69) / 12)
    audio = np.zeros(len(time))
    for frequency in frequencies:
        for number in range(1, harmonics + 1):
            audio += np.sin(2 * np.pi * frequency * number * time) / number**2
    return (0.3 * audio / len(frequencies) * np.exp(-time)).astype(np.float32)


@st.composite
def sounds(draw, count=1):
    """Noise, tones or silence of one common length."""
    length = draw(st.integers(1, 6000))
    made = []
    for _ in range(count):
        noise = np.random.default_rng(draw(st.integers(0, 99))).normal(0, 0.1, length)
        made.append(
            (draw(st.sampled_from([0, 0.001, 1])) * np.clip(noise, -1, 1)).astype(np.float32)
        )
    return made


def pairwise(a, b):
    """Every measure that compares two sounds and is a distance."""
    mel_a, mel_b = metrics.log_mel(a), metrics.log_mel(b)
    pictures = data.spectrogram(a), data.spectrogram(b)
    return {
        "picture_mae": metrics.picture_mae(*pictures),
        "multi_resolution_stft": metrics.multi_resolution_stft(a, b),
        "lsd_per_frame": metrics.lsd_per_frame(mel_a, mel_b),
        "lsd_time_first": metrics.lsd_time_first(mel_a, mel_b),
        "mfcc_distance": metrics.mfcc_distance(mel_a, mel_b),
    }


def test_registry_names_every_column_once():
    keys = [measure.key for measure in metrics.MEASURES]
    headings = [measure.heading for measure in metrics.MEASURES]
    assert len(set(keys)) == len(keys) and len(set(headings)) == len(headings)


@SETTINGS
@given(sounds(1))
def test_identity_gives_zero(sound):
    audio = sound[0]
    assert metrics.level_matched_mae(*[data.spectrogram(audio)] * 2) == pytest.approx(0, abs=1e-6)
    assert all(value == pytest.approx(0, abs=1e-6) for value in pairwise(audio, audio).values())
    assert metrics.snr(audio, audio) == np.inf
    assert metrics.spectral_convergence(*[data.magnitude(data.stft(audio))] * 2) == 0


@SETTINGS
@given(sounds(2))
def test_distances_are_finite_symmetric_and_not_negative(pair):
    forth, back = pairwise(*pair), pairwise(*pair[::-1])
    for name, value in forth.items():
        assert np.isfinite(value) and value >= 0, name
        assert value == pytest.approx(back[name], rel=1e-4, abs=1e-6), name


@SETTINGS
@given(st.floats(0.05, 20))
def test_mel_measures_and_pitches_are_blind_to_level(gain):
    audio = chord([60, 64, 67])
    found = pairwise(audio, (gain * audio).astype(np.float32))
    assert all(found[name] < 0.01 for name in ("lsd_per_frame", "lsd_time_first", "mfcc_distance"))


def test_every_measure_tells_silence_from_sound():
    found = pairwise(np.zeros(metrics.RATE, np.float32), chord(60))
    assert all(np.isfinite(value) and value > 0 for value in found.values())
    assert found["mfcc_distance"] == 1


def test_picture_mae_of_known_pictures():
    black, white = np.zeros((256, 3)), np.ones((256, 3))
    assert metrics.picture_mae(black, white) == pytest.approx(data.DB_RANGE)
    assert metrics.picture_mae(white, 1.5 * white) == 0  # both clip at full scale
    half = white.copy()
    half[:128] = 0.5
    assert metrics.picture_mae(half, white) == pytest.approx(data.DB_RANGE / 4)


def test_spectral_convergence_of_known_magnitudes():
    audio = chord(60)
    mag = data.magnitude(data.stft(audio))
    assert metrics.spectral_convergence(np.zeros_like(mag), mag) == pytest.approx(1)
    assert metrics.spectral_convergence(mag, 2 * mag) == pytest.approx(0.5)
    assert metrics.spectral_convergence(mag, 0 * mag) == np.inf
    assert metrics.spectral_convergence(0 * mag, 0 * mag) == 0


def test_log_spectral_distances_average_in_their_own_order():
    a, b = np.zeros((2, 2)), np.array([[3.0, 0.0], [4.0, 0.0]])
    assert metrics.lsd_per_frame(a, b) == pytest.approx((np.sqrt((9 + 16) / 2) + 0) / 2)
    assert metrics.lsd_time_first(a, b) == pytest.approx((np.sqrt(9 / 2) + np.sqrt(16 / 2)) / 2)


def test_multi_resolution_stft_is_the_obvious_sum():
    a, b = (np.random.default_rng(seed).normal(0, 0.1, 3000).astype(np.float32) for seed in (0, 1))
    expected = 0
    for size in (2048, 1024, 512, 256, 128, 64):
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        mags = []
        for x in (a, b):
            padded = np.concatenate([x, np.zeros(size)])
            frames = [
                padded[start : start + size] * window for start in range(0, len(x), size // 4)
            ]
            mags.append(np.abs(np.fft.rfft(frames)))
        logs = [np.log(np.maximum(mag, 1e-5)) for mag in mags]
        expected += np.abs(mags[0] - mags[1]).mean() + np.abs(logs[0] - logs[1]).mean()
    assert metrics.multi_resolution_stft(a, b) == pytest.approx(expected, rel=1e-4)


def test_snr_of_known_noise():
    signal = chord(60)
    assert metrics.snr(signal, signal * np.float32(1.1)) == pytest.approx(20, abs=0.01)
    assert metrics.snr(signal, np.zeros_like(signal)) == pytest.approx(0)
    assert metrics.snr(np.zeros(5), np.zeros(5)) == np.inf
    assert metrics.snr(np.zeros(5), np.ones(5)) == -np.inf


def test_level_matched_error_forgives_level_and_nothing_else():
    picture = data.spectrogram(np.repeat(chord([60, 64]), 3))
    mag = data.db_to_amplitude(picture)
    for gain in (-12, -4.5, 3, 12):
        copy = data.amplitude_to_db(mag * np.float32(10 ** (gain / 20)))
        assert metrics.picture_mae(copy, picture) > 0.5
        assert metrics.level_matched_mae(copy, picture) == pytest.approx(0, abs=1e-3)
    other = data.spectrogram(np.repeat(chord([61, 66]), 3))
    matched = metrics.level_matched_mae(other, picture)
    assert 1 < matched <= metrics.picture_mae(other, picture)


def test_level_matched_error_is_the_least_over_the_gains():
    rng = np.random.default_rng(0)
    picture, target = rng.uniform(0, 1, (2, 256, 7)).astype(np.float32)
    errors = []
    for half_steps in range(17):
        gain = 10 ** ((-12 + 1.5 * half_steps) / 20)
        louder = data.amplitude_to_db(data.db_to_amplitude(target) * gain)
        errors.append(np.abs(np.clip(picture, 0, 1) - np.clip(louder, 0, 1)).mean() * 96.33)
    assert metrics.level_matched_mae(picture, target) == pytest.approx(min(errors), rel=1e-4)
    silence = np.zeros((256, 5))
    assert metrics.level_matched_mae(silence, silence) == 0


def test_pieces_longer_than_a_block_are_measured_whole(monkeypatch):
    a, b = chord([60, 64], seconds=0.7), chord([55, 64], seconds=0.7)
    whole = pairwise(a, b)
    monkeypatch.setattr(metrics, "_BLOCK", 5)
    assert pairwise(a, b) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(
    "function",
    [
        metrics.picture_mae,
        metrics.level_matched_mae,
        metrics.multi_resolution_stft,
        metrics.lsd_per_frame,
        metrics.snr,
    ],
)
def test_different_or_empty_shapes_are_refused(function):
    with pytest.raises(ValueError, match="must be equal and not empty"):
        function(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="must be equal and not empty"):
        function(np.zeros(0), np.zeros(0))


@pytest.mark.skipif(not MIXES.is_dir(), reason="the aligned mixes are not here")
@pytest.mark.parametrize(
    ("target", "identity_db", "silence", "input_db", "input_convergence"),
    [
        ("guitar_acoustic", 7.45, 0.456, 2.69, 0.275),
        ("string_acoustic", 8.86, 0.647, 2.45, 0.275),
        ("synth_lead_synthetic", 8.01, 0.534, 3.35, 0.282),
    ],
)
def test_known_answers_on_real_mixes(target, identity_db, silence, input_db, input_convergence):
    origin, reference = (
        read_audio(MIXES / f"{name}.wav") for name in ("keyboard_acoustic", target)
    )
    picture, mag = data.spectrogram(reference), data.magnitude(data.stft(reference))
    assert metrics.picture_mae(data.spectrogram(origin), picture) == pytest.approx(
        identity_db, abs=0.006
    )
    assert metrics.picture_mae(0 * picture, picture) / data.DB_RANGE * 2 == pytest.approx(
        silence, abs=0.0006
    )
    written = istft(combine(mag, data.phasor(data.stft(origin))), len(origin))
    assert metrics.picture_mae(data.spectrogram(written), picture) == pytest.approx(
        input_db, abs=0.006
    )
    assert metrics.spectral_convergence(data.magnitude(data.stft(written)), mag) == pytest.approx(
        input_convergence, abs=0.0006
    )


def test_error_of_a_band_is_that_of_its_bins():
    """Against the obvious computation, bin by bin, at the bands' borders in Hz."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (2, 512, 7)).astype(np.float32)
    for low, high in metrics.BANDS:
        errors = []
        for k in range(512):
            width = data.SAMPLE_RATE / data.N_FFT  # Hz, of a bin
            if 1000 * low < (k + 1) * width and k * width <= 1000 * high:
                errors.append(np.abs(a[k] - b[k]).mean() * data.DB_RANGE)
        expected = np.mean(errors)
        found = metrics.band_error(a, b, 1000 * low, 1000 * high)
        assert found == pytest.approx(expected, rel=1e-5)


def test_bands_tell_where_an_error_is():
    picture = np.full((512, 3), 0.5, np.float32)
    wrong = picture.copy()
    wrong[300:350] += 0.1  # 12.9 - 15.1 kHz
    found = []
    for measure in metrics.BAND_MEASURES:
        found.append(measure.function(wrong, picture))
    assert found[0] == found[1] == found[3] == 0
    assert found[2] == pytest.approx(0.1 * data.DB_RANGE * 50 / 116, rel=1e-4)
