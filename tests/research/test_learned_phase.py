"""What a network that learns phase sees, and what its answer is worth."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ORIGIN, TARGET

import compute_features
import data
import models
import train
import train_generator
from common import dataset
from common.cli import UserError
from conversion import convert, model_files
from research import learned_phase
from research.learned_phase import BOTH, PHASE
from sound.recordings import read_audio


@pytest.fixture(scope="module")
def with_phases(audios, tmp_path_factory):
    """Features of `audios` that hold the phase."""
    folder = tmp_path_factory.mktemp("phases")
    flags = ["--audios", str(audios), "--features", str(folder), "--phase", "--workers", "1"]
    assert compute_features.main(flags) == 0
    return folder


def batch(pairs_class, *kind, features):
    return pairs_class(*kind, features, [ORIGIN], TARGET, ["three"], dataset.Batching(3))[0]


def test_magnitudes_are_those_of_plain_pairs(with_phases):
    plain_x, plain_y = batch(dataset.TilePairs, features=with_phases)
    phase_x, phase_y = batch(learned_phase.PhasePairs, PHASE, features=with_phases)
    both_x, both_y = batch(learned_phase.PhasePairs, BOTH, features=with_phases)
    np.testing.assert_array_equal(both_x, plain_x)
    np.testing.assert_array_equal(both_y[..., :1], plain_y)
    np.testing.assert_array_equal(both_y[..., 1:], phase_y)
    np.testing.assert_array_equal(phase_x, np.concatenate([plain_x, plain_y], axis=-1))


def test_rotation_takes_the_origins_phase_to_the_targets(audios, with_phases):
    _, y = batch(learned_phase.PhasePairs, PHASE, features=with_phases)
    origin, target = (
        data.stft(read_audio(audios / i / "three.wav"))[:256, :256] for i in (ORIGIN, TARGET)
    )
    turned = learned_phase.turn(data.phasor(origin), y[0])
    loud = data.magnitude(target) > 1e-4
    assert loud.sum() > 5000
    error = np.abs(turned - data.phasor(target))[loud]
    assert error.max() < 0.02  # radians; float16 keeps half turns to 5e-4
    weight = np.hypot(y[0, ..., 0], y[0, ..., 1])
    np.testing.assert_allclose(weight, data.amplitude_to_db(data.magnitude(target)), atol=2e-3)


def test_baselines_of_a_phase_network(with_phases):
    pairs = learned_phase.PhasePairs(
        PHASE, with_phases, [ORIGIN], TARGET, ["three"], dataset.Batching(3)
    )
    y = pairs[0][1]
    found = dataset.measure_baselines(pairs, np.zeros(256, np.float32))
    half = 96.3297 / 2
    assert found["median"] == pytest.approx(np.abs(y).mean() * half, rel=1e-4)  # 0 everywhere
    still = np.hypot(y[..., 0], y[..., 1])[..., np.newaxis] * np.float32([1, 0])
    assert found["identity"] == pytest.approx(np.abs(y - still).mean() * half, rel=1e-3)


def test_features_without_phase_are_refused(features):
    with pytest.raises(UserError, match=r"--learn both: .* has no phase"):
        batch(learned_phase.PhasePairs, BOTH, features=features)


def test_several_instruments_are_refused(features):
    with pytest.raises(UserError, match="--learn phase: needs a single --origin"):
        learned_phase.PhasePairs(
            PHASE, features, [ORIGIN, "x"], TARGET, ["three"], dataset.Batching(3)
        )


def half_a_turn(x):
    """What a phase network would give that turns all phases by 180 degrees."""
    return np.broadcast_to(np.float32([-1, 0]), (*x.shape[:-1], 2))


def magnitude_and_half_a_turn(x):
    return np.concatenate([x, half_a_turn(x)], axis=-1)


magnitude_and_half_a_turn.kind = BOTH
apart = learned_phase.with_phase(lambda x: x, SimpleNamespace(predict_on_batch=half_a_turn))


@pytest.mark.parametrize("model", [magnitude_and_half_a_turn, apart], ids=["both", "apart"])
def test_a_conversion_turns_the_inputs_phase_as_the_network_says(model):
    audio = np.random.default_rng(0).normal(0, 0.1, 30000).astype(np.float32)
    kept = convert.convert_audio(model, audio, 44100, convert.Options("input"))
    turned = convert.convert_audio(model, audio, 44100, convert.Options("learned"))
    assert np.abs(kept).max() > 0.1
    np.testing.assert_allclose(turned, -kept, atol=1e-6)


@pytest.mark.parametrize(("script", "kind"), [(train_generator, PHASE), (train, BOTH)])
def test_networks_that_give_phase_are_trained(with_phases, tmp_path, script, kind):
    flags = ["--dataset_path", with_phases, "--origin", ORIGIN, "--target", TARGET]
    flags += ["--learn", kind.learn, "--runs_path", tmp_path, "--epochs", 1, "--filters", 1]
    flags += ["--batch_size", 3, "--epoch_tiles", 3, "--gpu", "cpu"]
    assert script.main([str(flag) for flag in flags]) == 0
    (run,) = tmp_path.iterdir()
    assert run.name.endswith(f"_{kind.learn}")
    model = model_files.load_generator(run)
    assert model.kind is kind
    assert bool(list(run.rglob("spectrogram.png"))) == (kind is BOTH)
    if kind is PHASE:
        tiles = np.zeros((1, 256, 256, 1), np.float32)
        both = learned_phase.with_phase(lambda x: x, model)(tiles)
        assert both.shape == (1, 256, 256, 3)
        learned_phase.check_phases(["learned"], models.build_generator(1), model)
        with pytest.raises(UserError, match="predicts phase, not magnitude"):
            learned_phase.check_phases(["learned"], model)
