"""Learning-rate range test: raise the rate exponentially over some steps, look where the loss falls fastest.

Smith 2015, "Cyclical learning rates for training neural networks", section 3.3; the choice of the steepest descent, and
not of the minimum, where training is about to diverge, follows S. Gugger's article "How do you find a good learning rate".
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from cli import UserError, complete, write_csv

LOW, HIGH = 1e-9, 1.0
FEW_STEPS = 200  # of a sweep: below it a decade of rates gets so few that the suggestion is a matter of luck
DIVERGENCE = 4  # stop where the loss exceeds its best so far by this factor
SMOOTHING = 0.15  # decades: standard deviation of the Gaussian; symmetric, so that it moves no mark


class Sweep(NamedTuple):
    """One range test: the flag it finds a value for (or None), the logged loss to watch, rate -> compiled model."""

    flag: str | None
    loss: str
    build: Callable


class LRFinder(keras.callbacks.Callback):
    """Record the loss of each step and stop at the last step, or earlier if the loss diverges.

    The rate itself is a schedule of the optimiser (`schedule`), which every backend applies inside its compiled step.

    Attributes:
        losses: list of float, one a step.
    """

    def __init__(self, steps, loss="loss"):
        super().__init__()
        self.steps, self.loss, self.losses, self.mean = steps, loss, [], 0.0
        self.bar = tqdm(total=steps, unit="step", leave=False)

    def on_train_batch_end(self, batch, logs=None):
        """Take this step's loss out of the mean over the epoch so far, which is what Keras logs; stop when done or diverged."""
        mean = float(logs[self.loss])
        loss = mean * (batch + 1) - self.mean * batch
        self.mean = mean
        self.bar.update()
        if math.isfinite(loss):
            self.losses.append(loss)
        recent = np.median(self.losses[-5:]) if self.losses else np.inf
        diverged = len(self.losses) > 10 and recent > DIVERGENCE * np.median(
            np.sort(self.losses)[:5]
        )
        if diverged or not math.isfinite(loss) or len(self.losses) == self.steps:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        """Close the bar."""
        self.bar.close()


def schedule(steps):
    """Learning-rate schedule from LOW at step 0 to HIGH at step ``steps - 1``, exponentially."""
    return keras.optimizers.schedules.ExponentialDecay(LOW, steps - 1, HIGH / LOW)


def smooth(losses, steps):
    """Losses (n,) of a sweep of ``steps`` steps, smoothed over SMOOTHING decades."""
    per_decade = (steps - 1) / math.log10(HIGH / LOW)
    return gaussian_filter1d(np.asarray(losses, float), SMOOTHING * per_decade, mode="nearest")


def suggest(rates, smoothed):
    """The rate of the steepest descent of the smoothed loss over log(rate), looked for up to its minimum.

    Raises:
        UserError: the loss never falls.
    """
    end = int(np.argmin(smoothed)) + 1
    if end < 3:
        raise UserError(
            "--findlr: the loss never fell; give more --findlr_steps or a larger --batch_size"
        )
    return float(rates[np.argmin(np.gradient(smoothed[:end], np.log(rates[:end])))])


def search(sweeps, pairs, steps, seed, folder):
    """Run each sweep from fresh weights, write ``folder``/{name}.csv and lr_finder.png, print the rates as flags.

    Args:
        sweeps: dict name -> `Sweep`.
        pairs: `dataset.TilePairs` to train on.
        steps: steps a sweep; several epochs if there are more than one epoch's.
        seed: of the weights; the same for each sweep.
        folder: output folder.

    Returns:
        dict name -> suggested rate.
    """
    curves, rates = {}, {}
    for name, sweep in sweeps.items():
        keras.utils.set_random_seed(seed)
        print(f"{name}: {steps} steps from {LOW:g} to {HIGH:g}", flush=True)
        finder = LRFinder(steps, sweep.loss)
        epochs = math.ceil(steps / len(pairs))
        sweep.build(schedule(steps)).fit(
            pairs, epochs=epochs, shuffle=False, verbose=0, callbacks=[finder]
        )
        keras.utils.clear_session()
        tried = np.geomspace(LOW, HIGH, steps)[: len(finder.losses)]
        smoothed = smooth(finder.losses, steps)
        curves[name] = tried, np.array(finder.losses), smoothed
        rates[name] = suggest(tried, smoothed)
        write_csv(
            folder / f"{name}.csv", [("learning_rate", "loss", "smoothed"), *zip(*curves[name])]
        )
    figure = Figure(figsize=(4.5 * len(curves), 3.4), layout="constrained")
    draw(figure, curves, rates)
    with complete(folder / "lr_finder.png") as part:
        figure.savefig(part, dpi=150)
    for name in sweeps:
        print(f"{name}: steepest descent at {rates[name]:.1e}")
    flags = " ".join(
        f"--{sweep.flag} {rates[name]:.1e}" for name, sweep in sweeps.items() if sweep.flag
    )
    print(f"use: {flags}   ({folder}/lr_finder.png)")
    if steps < FEW_STEPS:
        print(
            f"{steps} steps a sweep are few: --findlr_steps {2 * FEW_STEPS} gives rates to rely on"
        )
    return rates


def draw(figure, curves, rates):
    """Draw the curves: dict name -> (rates, losses, smoothed), the suggestion of each marked."""
    for axis, (name, (tried, raw, smoothed)) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items()
    ):
        axis.semilogx(tried, raw, color="0.7", linewidth=0.8, label="each step")
        axis.semilogx(tried, smoothed, color="C0", label="smoothed")
        axis.axvline(
            rates[name], color="C1", linestyle="--", label=f"steepest descent {rates[name]:.1e}"
        )
        axis.set(
            title=name,
            xlabel="learning rate",
            ylabel="loss",
            ylim=(None, np.quantile(raw, 0.98) * 1.05),
        )
        axis.legend(fontsize=8)
