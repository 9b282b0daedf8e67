import keras
import numpy as np
import pytest

import lr_finder
from common.cli import UserError


class Quadratic(keras.Model):
    """Loss w^2 from w = 1 under plain SGD: w <- w (1 - 2 rate). Diverges where rate > 1."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.w = self.add_weight(shape=(), initializer="ones")
        self.scale = scale

    def call(self, x):
        return self.w * keras.ops.ones_like(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y_pred)) * self.scale


class Ones(keras.utils.PyDataset):
    def __len__(self):
        return 7

    def __getitem__(self, i):
        return np.ones((2, 1), np.float32), np.ones((2, 1), np.float32)


def sweep(steps, scale=1.0):
    model, finder = Quadratic(scale), lr_finder.LRFinder(steps)
    model.compile(keras.optimizers.SGD(lr_finder.make_schedule(steps)))
    model.fit(Ones(), epochs=-(-steps // 7), verbose=0, shuffle=False, callbacks=[finder])
    return np.array(finder.losses)


def test_each_step_has_its_rate_and_its_own_loss():
    """Across epochs' borders too: Keras logs running means, the finder takes them apart."""
    losses = sweep(100, scale=0.5)
    rates = np.geomspace(lr_finder.LOW, lr_finder.HIGH, 100)
    assert rates[0] == 1e-9
    assert rates[-1] == pytest.approx(1)
    w = np.cumprod(np.concatenate([[1], 1 - rates[:-1]]))  # gradient of w^2 / 2 is w
    np.testing.assert_allclose(losses, 0.5 * w**2, rtol=1e-3, atol=1e-5)


def test_stops_where_the_loss_diverges():
    assert 10 < len(sweep(100, scale=1000.0)) < 100


def test_suggestion_is_the_steepest_descent_before_the_minimum():
    rates = np.geomspace(lr_finder.LOW, lr_finder.HIGH, 400)
    log = np.log10(rates)
    losses = (
        1 - 0.8 / (1 + np.exp(-4 * (log + 4))) + 100 * np.clip(log + 1.5, 0, None) ** 2
    )  # falls around 1e-4, diverges
    noise = np.random.default_rng(0).normal(0, 0.005, 400)
    smoothed = lr_finder.smooth(losses + noise, 400)
    assert np.log10(lr_finder.suggest(rates, smoothed)) == pytest.approx(-4, abs=0.2)
    assert lr_finder.suggest(rates, smoothed) < rates[np.argmin(smoothed)] / 5


def test_a_loss_that_never_falls_is_refused():
    with pytest.raises(UserError, match="never fell"):
        lr_finder.suggest(np.geomspace(1e-9, 1, 50), np.linspace(1, 2, 50))


@pytest.mark.parametrize("steps", [19, 20])
def test_a_short_search_says_so(steps, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lr_finder, "FEW_STEPS", 20)

    def build(rate):
        model = Quadratic(0.5)
        model.compile(keras.optimizers.SGD(rate))
        return model

    rates = lr_finder.search(
        {"both": lr_finder.Sweep("lr", "loss", build)}, Ones(), steps, 0, tmp_path
    )
    lines = capsys.readouterr().out.splitlines()
    is_told = f"use: --lr {rates['both']:.1e}" in "".join(lines)
    assert is_told == (steps >= 20)  # there is nothing to copy from a search that says little
    assert ("--findlr_steps 40" in lines[-1]) == (steps < 20)


def test_a_loss_that_is_never_finite_is_refused(tmp_path):
    def build(rate):
        model = Quadratic(np.inf)
        model.compile(keras.optimizers.SGD(rate))
        return model

    sweeps = {"both": lr_finder.Sweep("lr", "loss", build)}
    with pytest.raises(UserError, match="first loss is not finite; give --precision float32"):
        lr_finder.search(sweeps, Ones(), 20, 0, tmp_path)


def test_a_search_without_a_result_leaves_its_curve(tmp_path):
    def build(rate):
        model = Quadratic()
        model.compile(keras.optimizers.SGD(0.0))  # the loss stays
        return model

    sweeps = {"both": lr_finder.Sweep("lr", "loss", build)}
    with pytest.raises(UserError, match="never fell"):
        lr_finder.search(sweeps, Ones(), 20, 0, tmp_path)
    assert len((tmp_path / "both.csv").read_text().splitlines()) == 21
