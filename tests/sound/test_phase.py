import librosa
import numpy as np
import pytest
from files import MIXES
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import combine, istft

import data
from sound import phase
from sound.recordings import read_audio


def chord(seconds=1.5, harmonics=8, pluck=4.0):
    """Decaying harmonic tones with two onsets."""
    time = np.arange(int(seconds * data.SAMPLE_RATE)) / data.SAMPLE_RATE
    audio = np.zeros_like(time)
    for onset, pitch in ((0.1, 220.0), (0.1, 277.2), (0.6, 329.6)):
        since = np.maximum(time - onset, 0)
        for h in range(1, harmonics + 1):
            audio += (
                np.sin(2 * np.pi * pitch * h * since) / h * np.exp(-pluck * since) * (time > onset)
            )
    return (0.1 * audio).astype(np.float32)


@pytest.fixture(scope="module")
def task():
    """(magnitude asked for, input's spectrum): the same notes with other overtones and decay."""
    return data.magnitude(data.stft(chord(harmonics=20, pluck=1.0))), scaled_stft(chord())


def scaled_stft(audio):
    """`data.stft` of the kept bins on the scale of `data.magnitude`, complex64 (256, t)."""
    return data.stft(audio)[: data.BINS] * np.float32(2 / data.WINDOW.sum())


def convergence(mag, unit):
    """Spectral convergence of the sound that a magnitude and a phase give."""
    audio = istft(combine(mag, unit), (mag.shape[1] - 1) * data.HOP_LENGTH)
    return np.linalg.norm(data.magnitude(data.stft(audio)) - mag) / np.linalg.norm(mag)


@pytest.mark.parametrize("name", phase.ESTIMATORS)
@pytest.mark.parametrize("frames", [1, 2, 130])
def test_every_estimator_gives_unit_phasors_and_leaves_its_input_alone(name, frames, task):
    mag, spectrum = task[0][:, :frames], task[1][:, :frames]
    mag_before, spectrum_before = mag.copy(), spectrum.copy()
    result = phase.ESTIMATORS[name](mag, spectrum, iterations=3, seed=1)
    assert result.shape == (256, frames)
    assert result.dtype == np.complex64
    np.testing.assert_allclose(np.abs(result), 1, atol=1e-5)
    np.testing.assert_array_equal(mag, mag_before)
    np.testing.assert_array_equal(spectrum, spectrum_before)


@pytest.mark.parametrize("name", phase.ESTIMATORS)
def test_silence_gives_finite_phases(name):
    result = phase.ESTIMATORS[name](
        np.zeros((256, 20), np.float32), np.zeros((256, 20), np.complex64), iterations=4
    )
    np.testing.assert_allclose(np.abs(result), 1, atol=1e-5)


def test_input_and_flat_are_what_they_say(task):
    np.testing.assert_array_equal(phase.keep_input(*task), data.phasor(task[1]))
    assert (phase.set_flat(*task) == 1).all()


def test_random_phases_are_uniform_and_depend_on_seed_and_frame_only(task):
    whole = phase.draw_random(*task, seed=5)
    moments = [abs((whole**k).mean()) for k in (1, 2, 3)]
    assert max(moments) < 4 / np.sqrt(whole.size)  # of order 1 / sqrt(size) for a uniform angle
    np.testing.assert_array_equal(
        whole[:, 37:60], phase.draw_random(task[0][:, 37:60], None, seed=5, start=37)
    )
    assert np.abs(whole - phase.draw_random(*task, seed=6)).mean() > 1


def test_griffinlim_equals_the_slow_textbook_loop(task):
    mag, spectrum = task
    unit = data.phasor(spectrum)
    full = np.zeros((513, mag.shape[1]), np.float32)
    full[:256] = mag
    angles, previous = np.concatenate([unit, np.ones((257, mag.shape[1]), np.complex64)]), 0
    transform = {"n_fft": data.N_FFT, "hop_length": data.HOP_LENGTH, "window": data.WINDOW}
    for _ in range(8):
        audio = librosa.istft(full * angles, **transform)
        rebuilt = librosa.stft(audio, pad_mode="constant", **transform)
        extrapolated = rebuilt + phase.MOMENTUM * (rebuilt - previous)
        angles, previous = extrapolated / np.maximum(np.abs(extrapolated), 1e-30), rebuilt
    ours = phase.griffinlim(mag, spectrum, iterations=8)
    assert np.linalg.norm(mag * (ours - angles[:256])) < 1e-3 * np.linalg.norm(mag)


@settings(max_examples=25)
@given(st.integers(1, 90), st.integers(0, 12), st.integers(1, 40), st.sampled_from([1, 2, 4]))
def test_griffinlim_in_blocks_equals_the_whole(frames, iterations, size, hops):
    hop_length = data.HOP_LENGTH // hops
    random = np.random.default_rng(frames)
    mag = random.exponential(size=(frames, 256)).astype(np.float32)
    unit = np.exp(2j * np.pi * random.random((frames, 256))).astype(np.complex64)

    anchor = 0.3 * mag[::-1] * unit[::-1]

    def block(span):
        inertia = np.float32(0.5)
        return phase._refine(mag[span], unit[span], anchor[span], iterations, inertia, hop_length)

    margin = phase.reach(iterations, hop_length)
    joined = phase.in_blocks(block, frames, size, margin)
    assert joined.shape == mag.shape
    assert np.linalg.norm(mag * (joined - block(slice(None)))) < 1e-4 * np.linalg.norm(mag)


def test_a_margin_of_one_frame_too_few_would_show():
    mag = np.random.default_rng(0).exponential(size=(60, 256)).astype(np.float32)
    unit = np.ones((60, 256), np.complex64)

    def block(span):
        return phase._refine(mag[span], unit[span], 0 * unit[span], 4, np.float32(0.5), 512)

    joined = phase.in_blocks(block, 60, 20, 3)
    assert np.linalg.norm(mag * (joined - block(slice(None)))) > 1e-3 * np.linalg.norm(mag)


def test_griffinlim_mends_what_the_inputs_phase_breaks(task):
    mag, spectrum = task
    unit = data.phasor(spectrum)
    before, after = convergence(mag, unit), convergence(mag, phase.griffinlim(mag, unit))
    plain = convergence(mag, phase.refine(mag, unit, 32, momentum=0))
    assert after < plain < before
    assert after < before / 2
    cold = convergence(mag, phase.griffinlim_random(mag, unit))
    assert after < cold < convergence(mag, phase.draw_random(mag, unit)) / 2
    assert convergence(mag, phase.griffinlim(mag, unit, iterations=0)) == pytest.approx(
        before, rel=1e-5
    )


def whole_distance(mag, unit, spectrum, weight):
    """What `refine` lessens: |s - STFT(ISTFT(s))|^2 + weight * |s - x|^2, at the usual hop."""
    frames = (mag * unit).T
    margin = data.N_FFT - data.HOP_LENGTH
    consistent = data.stft_frames(np.pad(data.istft_frames(frames), margin))
    inconsistent = np.linalg.norm(frames - consistent) ** 2
    return inconsistent + weight * np.linalg.norm(frames - spectrum.T) ** 2


def test_an_anchored_iteration_never_makes_the_sum_of_distances_worse(task):
    mag, spectrum = task
    weight = np.float32(0.5)
    start = unit = phase.draw_random(mag, spectrum)
    found = [whole_distance(mag, unit, spectrum, weight)]
    for _ in range(20):
        unit = phase.refine(mag, unit, 1, momentum=0, anchor=weight * spectrum)
        found.append(whole_distance(mag, unit, spectrum, weight))
    assert (np.diff(found) < 1e-5 * found[0]).all()
    free = phase.refine(mag, start, 20, momentum=0)
    assert found[-1] < 0.9 * whole_distance(mag, free, spectrum, weight)


def nearness(mag, unit, other):
    """Mean cosine between two phases, weighted by magnitude: 1 where equal, 0 by chance."""
    return (mag * (unit * other.conj()).real).sum() / mag.sum()


def test_the_anchor_keeps_the_inputs_phase_where_the_input_is_loud_and_mends_the_rest(task):
    mag, spectrum = task
    unit = data.phasor(spectrum)
    free, anchored = phase.griffinlim(mag, spectrum), phase.griffinlim_anchored(mag, spectrum)
    loud = np.where(np.abs(spectrum) > mag, mag, 0)
    assert nearness(loud, anchored, unit) > nearness(loud, free, unit)
    assert convergence(mag, free) < convergence(mag, anchored) < convergence(mag, unit) / 2


def test_more_pull_keeps_more_of_the_inputs_phase(task):
    mag, spectrum = task
    unit = data.phasor(spectrum)
    kept = []
    for pull in (0, 0.03, phase.PULL, 1):
        anchored = phase.griffinlim_anchored(mag, spectrum, pull=pull)
        kept.append(nearness(mag, anchored, unit))
    assert kept == sorted(kept) and kept[-1] > kept[0] + 0.02
    free = phase.griffinlim(mag, spectrum)
    np.testing.assert_array_equal(phase.griffinlim_anchored(mag, spectrum, pull=0), free)


def test_of_a_silent_input_nothing_pulls(task):
    mag, nothing = task[0], np.zeros_like(task[1])
    np.testing.assert_array_equal(
        phase.griffinlim_anchored(mag, nothing), phase.griffinlim(mag, nothing)
    )


def test_a_consistent_phase_stays():
    spectrum = data.stft(chord())
    mag, unit = data.magnitude(spectrum), data.phasor(spectrum)[: data.BINS]
    refined = phase.griffinlim(mag, unit)
    assert np.linalg.norm(mag * (refined - unit)) < 1e-2 * np.linalg.norm(mag)


@pytest.mark.skipif(not MIXES.is_dir(), reason="the mixes are not here")
@pytest.mark.parametrize(
    ("target", "kept", "refined"),
    [
        ("guitar_acoustic", (2.69, 0.275), (0.68, 0.043)),
        ("string_acoustic", (2.45, 0.275), (0.43, 0.040)),
        ("synth_lead_synthetic", (3.35, 0.282), (0.94, 0.043)),
    ],
)
def test_known_values_on_the_mixes(target, kept, refined):
    origin, audio = (
        read_audio(MIXES / "keyboard_acoustic.wav"),
        read_audio(MIXES / f"{target}.wav"),
    )
    mag, unit = data.magnitude(data.stft(audio)), data.phasor(data.stft(origin))[: data.BINS]
    for name, (error, distance) in (("input", kept), ("griffinlim", refined)):
        estimate = phase.ESTIMATORS[name](mag, unit)
        rebuilt = data.spectrogram(istft(combine(mag, estimate), len(audio)))
        assert np.abs(rebuilt - data.amplitude_to_db(mag)).mean() * data.DB_RANGE == pytest.approx(
            error, abs=0.01
        )
        assert convergence(mag, estimate) == pytest.approx(distance, abs=0.002)
