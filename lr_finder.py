"""Learning-rate range test: raise the rate exponentially, look where the loss falls fastest.

Smith 2015, "Cyclical learning rates for training neural networks", section 3.3. The suggested rate
is that of the steepest descent, as in S. Gugger's article "How do you find a good learning rate".
At the minimum of the loss, training is about to diverge.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from common.cli import UserError
from common.files import complete, write_csv

LOW, HIGH = 1e-9, 1.0
USUAL_STEPS = 400  # smallest default number of steps in a sweep
FEW_STEPS = 200  # below this number each decade of rates has too few steps for a reliable result
DIVERGENCE = 4  # stop if the loss exceeds its best value by this factor
DIVERGENCE_STEPS = 5  # number of steps in the medians of current and best loss
SMOOTHING = 0.15  # decades: standard deviation of the Gaussian; symmetric, so it moves no mark


class Sweep(NamedTuple):
    """One range test."""

    flag: str | None  # flag whose value it finds
    loss: str  # name of the logged loss
    build: Callable  # rate -> compiled model


class Curve(NamedTuple):
    """Result of a sweep, arrays (n,)."""

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray


class LRFinder(keras.callbacks.Callback):
    """Record each step's loss; stop at the last step, or earlier if the loss diverges.

    The rate is a schedule of the optimiser (`make_schedule`), because every backend applies that
    inside its compiled step.

    Attributes:
        losses: list of float, one a step.
    """

    def __init__(self, steps, loss="loss"):
        super().__init__()
        self.steps = steps
        self.loss = loss
        self.losses = []
        self.mean = 0.0
        self.bar = tqdm(total=steps, unit="step", leave=False)

    def on_train_batch_end(self, batch, logs=None):
        """Record this step's loss, computed from the mean over the epoch that Keras logs."""
        mean = float(logs[self.loss])
        loss = mean * (batch + 1) - self.mean * batch
        self.mean = mean
        self.bar.update()
        if not math.isfinite(loss):
            self.model.stop_training = True
            return
        self.losses.append(loss)
        if len(self.losses) == self.steps or self.diverged():
            self.model.stop_training = True

    def diverged(self):
        """Whether the last losses are much larger than the best ones."""
        if len(self.losses) <= 2 * DIVERGENCE_STEPS:
            return False
        recent = np.median(self.losses[-DIVERGENCE_STEPS:])
        best = np.median(np.sort(self.losses)[:DIVERGENCE_STEPS])
        return recent > DIVERGENCE * best

    def on_train_end(self, logs=None):
        """Close the bar."""
        self.bar.close()


def make_schedule(steps):
    """Learning-rate schedule from LOW at step 0 to HIGH at step ``steps - 1``, exponentially."""
    return keras.optimizers.schedules.ExponentialDecay(LOW, steps - 1, HIGH / LOW)


def smooth(losses, steps):
    """Losses (n,) of a sweep of ``steps`` steps, smoothed over SMOOTHING decades."""
    per_decade = (steps - 1) / math.log10(HIGH / LOW)
    return gaussian_filter1d(np.asarray(losses, float), SMOOTHING * per_decade, mode="nearest")


def suggest(rates, smoothed):
    """Find the rate of the steepest descent of the smoothed loss over log(rate), up to its minimum.

    Raises:
        UserError: there is no loss, or it never falls.
    """
    if not len(rates):
        raise UserError(
            "--findlr: the first loss is not finite; give --precision float32, or check the tiles"
        )
    end = int(np.argmin(smoothed)) + 1
    if end < 3:
        raise UserError(
            "--findlr: the loss never fell; give more --findlr_steps or a larger --batch_size"
        )
    slope = np.gradient(smoothed[:end], np.log(rates[:end]))
    return float(rates[np.argmin(slope)])


def run_sweep(sweep, batches, steps):
    """Train a new model over the whole range of rates: its `Curve`."""
    finder = LRFinder(steps, sweep.loss)
    model = sweep.build(make_schedule(steps))
    epochs = math.ceil(steps / len(batches))
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[finder])
    keras.utils.clear_session()
    rates = np.geomspace(LOW, HIGH, steps)[: len(finder.losses)]
    return Curve(rates, np.array(finder.losses), smooth(finder.losses, steps))


def search(sweeps, batches, steps, seed, folder):
    """Run each sweep with new weights, write curves and figure, print the rates as flags.

    Writes ``folder``/{name}.csv and lr_finder.png.

    Args:
        sweeps: dict name -> `Sweep`.
        batches: `feeding.feed` of the training pairs.
        steps: steps per sweep, may span several epochs; None: one epoch, but at least 400.
        seed: seed of the weights, the same for each sweep.
        folder: output folder.

    Returns:
        dict name -> suggested rate.
    """
    steps = steps or max(USUAL_STEPS, len(batches))
    curves = {}
    rates = {}
    for name, sweep in sweeps.items():
        keras.utils.set_random_seed(seed)
        print(f"{name}: {steps} steps from {LOW:g} to {HIGH:g}", flush=True)
        curve = run_sweep(sweep, batches, steps)
        curves[name] = curve
        write_csv(folder / f"{name}.csv", [("learning_rate", "loss", "smoothed"), *zip(*curve)])
        rates[name] = suggest(curve.rates, curve.smoothed)
    figure = Figure(figsize=(6.8, 2.2 * len(curves)), layout="constrained")
    draw_curves(figure, curves, rates)
    with complete(folder / "lr_finder.png") as part:
        figure.savefig(part, dpi=150)
    print_rates(sweeps, rates, steps, folder)
    return rates


def print_rates(sweeps, rates, steps, folder):
    """Print the rates and the flags to use."""
    flags = []
    for name, sweep in sweeps.items():
        print(f"{name}: steepest descent at {rates[name]:.1e}")
        if sweep.flag:
            flags.append(f"--{sweep.flag} {rates[name]:.1e}")
    if steps < FEW_STEPS:
        print(
            f"{steps} steps per sweep are too few for a reliable rate; give --findlr_steps "
            f"{2 * FEW_STEPS}   ({folder}/lr_finder.png)"
        )
        return
    print(f"use: {' '.join(flags)}   ({folder}/lr_finder.png)")


def draw_curves(figure, curves, rates):
    """Draw the curves below each other, {name: `Curve`}, with the suggested rates."""
    axes = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, curve) in zip(axes, curves.items()):
        rate = rates[name]
        axis.semilogx(curve.rates, curve.losses, color="0.7", linewidth=0.8, label="each step")
        axis.semilogx(curve.rates, curve.smoothed, color="C0", label="smoothed")
        label = f"steepest descent {rate:.1e}"
        axis.axvline(rate, color="C1", linestyle="--", label=label)
        axis.set(title=name, ylabel="loss")
        axis.set_ylim(None, np.quantile(curve.losses, 0.98) * 1.05)
        axis.legend()
    axes[-1].set_xlabel("learning rate")
