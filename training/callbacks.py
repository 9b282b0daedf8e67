"""Keras callbacks: progress, checkpoints, schedules, the time limit.

`Session` shows the progress and saves checkpoints. The others set the learning rate, obey the time
limit, and write to TensorBoard.
"""

import contextlib
import math
import time

import keras
import numpy as np
from tqdm import tqdm

import models
from common.cli import UserError
from report import pictures, run_page
from training.feeding import feed
from training.preview import Preview
from training.run_folder import networks_of
from training.tensorboard_log import TensorBoard

COMPILING = "compiling the first step, up to half a minute"
SUMS = ("loss", "val_loss")  # sums of losses that are logged separately
STEPS_BETWEEN_ESTIMATES = 20  # of the remaining time, on the bar


def make_callbacks(model, training):
    """Make the Keras callbacks for the flags.

    `TimeLimit` and `TensorBoard` come after `Session`, because they read the epoch that it saved.
    """

    args, run, sets = training.args, training.run, training.sets

    def begin_epoch(epoch, logs):
        reseed(model, sets.train, args.seed, epoch)

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_begin=begin_epoch), Averaged()]
    if args.decay_epochs:
        rate = float(model.optimizer.learning_rate)
        callbacks.append(make_decay(rate, args.epochs, args.decay_epochs))
    generator = networks_of(model)["generator"]
    preview = Preview(training, generator)
    unheard = feed(sets.unheard, args.workers) if sets.unheard else None
    session = Session(run, sets.train, preview, unheard, args.keep_every, args.minutes)
    callbacks.append(session)
    if args.minutes:
        callbacks.append(TimeLimit(args.minutes, run.seconds_trained))
    if args.tensorboard:
        callbacks.append(TensorBoard(run))
    return callbacks


def rates_of(model):
    """Learning rates in use, by flag: {"gen_lr": ..., "disc_lr": ...} or {"lr": ...}."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # for float16
    rate = float(optimizer.learning_rate)
    if hasattr(model, "discriminator"):
        generator, discriminator = optimizer.factors
        rates = {"gen_lr": rate * generator, "disc_lr": rate * discriminator}
    else:
        rates = {"lr": rate}
    return {flag: float(f"{value:.6g}") for flag, value in rates.items()}  # as given by the flags


def reseed(model, pairs, seed, epoch):
    """Seed shuffling and dropout with (seed, epoch), so that resuming is exact."""
    pairs.set_epoch(epoch)
    layers = model._flatten_layers()
    dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    for number, layer in enumerate(dropouts):
        state = np.random.SeedSequence((seed, epoch, number)).generate_state(2)
        layer.seed_generator.state.assign(state.astype(layer.seed_generator.state.dtype))


def make_decay(rate, epochs, decaying):
    """Make a callback that lowers ``rate`` linearly towards 0 over the last ``decaying`` epochs."""

    def schedule(epoch, _):
        return rate * min(1, (epochs - epoch) / (decaying + 1))

    return keras.callbacks.LearningRateScheduler(schedule)


class Averaged(keras.callbacks.Callback):
    """Validates the averaged generator of --ema, if there is one."""

    def on_test_begin(self, logs=None):
        """Replace the weights by their averages."""
        self.averaged = contextlib.ExitStack()
        self.averaged.enter_context(models.averaged(self.model))

    def on_test_end(self, logs=None):
        """Restore the weights."""
        self.averaged.close()


class TimeLimit(keras.callbacks.Callback):
    """Ends the training after some time; the learning rate falls towards 0 in the second half.

    Args:
        minutes: the limit.
        trained: function that returns the seconds of all complete epochs. A later start uses the
            same function, so it stops at the same limit.
    """

    def __init__(self, minutes, trained):
        super().__init__()
        self.limit = 60 * minutes  # s
        self.trained = trained

    def on_train_begin(self, logs=None):
        """Store the rate."""
        self.rate = float(self.model.optimizer.learning_rate)

    def on_epoch_begin(self, epoch, logs=None):
        """Set the rate of the epoch. (JAX ignores a change within an epoch.)"""
        self.before = self.trained()
        self.start = time.time()
        left = max(0.0, 1 - self.before / self.limit)
        self.model.optimizer.learning_rate = self.rate * min(1.0, 2 * left)

    def on_train_batch_end(self, batch, logs=None):
        """End the epoch when the time is over; it is then validated and saved."""
        if self.before + time.time() - self.start >= self.limit:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Start no other epoch if the time is over; this epoch is already saved."""
        if self.trained() >= self.limit:
            print(f"--minutes {self.limit / 60:g} are over")
            self.model.stop_training = True


class Session(keras.callbacks.Callback):
    """Shows progress, prints a line per epoch, saves, and stops at a loss that is not finite.

    Args:
        run: `Run`.
        pairs: `dataset.TilePairs` of the training set.
        preview: function of the epoch's number.
        unheard: `feeding.feed` of unheard origins, or None.
        keep_every: epochs between kept generators; 0: none.
        minutes: time limit of the run, or None.
    """

    async_safe = True  # on_train_batch_end may run late, so the device does not wait for it

    def __init__(self, run, pairs, preview, unheard=None, keep_every=0, minutes=None):
        super().__init__()
        self.run = run
        self.preview = preview
        self.unheard = unheard
        self.keep_every = keep_every
        self.minutes = minutes
        self.batch_size = pairs.batch_size
        self.tiles = len(pairs) * pairs.batch_size
        self.compile_seconds = 0.0  # time of the epoch's first step
        run.bar = tqdm(disable=True)

    def on_train_begin(self, logs=None):
        """Show the last complete epoch again, in case a run was killed after saving it."""
        self.compiled = False
        if self.run.history:
            self.show()

    def show(self):
        """Plot the history, write the preview and the run's page."""
        plot = self.run.folder / "plots" / "history.png"
        pictures.write_history(self.run.folder / "history.csv", plot, self.run.baselines)
        with models.averaged(self.model):
            self.preview(self.run.history[-1]["epoch"])
        run_page.write_run_page(self.run.folder)

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock and the bar."""
        self.start = time.time()
        self.seen = 0  # tiles
        self.compile_seconds = 0.0
        self.run.bar = tqdm(
            total=self.tiles,
            unit="tile",
            desc=f"epoch {self._number(epoch)}",
            leave=False,
            mininterval=0.5,
        )
        if not self.compiled:
            self.run.bar.set_postfix_str(COMPILING)

    def _number(self, epoch):
        return epoch + 1 + self.run.epoch_offset

    def on_train_batch_end(self, batch, logs=None):
        """Advance the bar; stop if the loss is not finite."""
        self.seen += self.batch_size
        if not self.compiled:
            self.compiled = True
            self.compile_seconds = time.time() - self.start
            self.run.bar.set_postfix_str("")
        elif batch % STEPS_BETWEEN_ESTIMATES == 0:
            self.run.bar.set_postfix_str(self._format_run(), refresh=False)
        self.run.bar.update(self.batch_size)
        self._check_loss(f"step {batch + 1}", logs)

    def _format_run(self):
        """Estimate the remaining time of the run from this epoch's speed, for the bar."""
        elapsed = time.time() - self.start - self.compile_seconds
        done = self.seen / self.tiles
        epochs = self.params["epochs"] - len(self.run.history) - done
        seconds = self._within_limit(epochs * elapsed / done, time.time() - self.start)
        return f"whole run {run_page.format_time(max(0, seconds))} left"

    def _within_limit(self, seconds, since=0.0):
        """Limit ``seconds`` to the rest of --minutes; ``since``: s since the last epoch's end."""
        if not self.minutes:
            return seconds
        return min(seconds, 60 * self.minutes - self.run.seconds_trained() - since)

    def _check_loss(self, when, logs):
        """Raise UserError if the loss, a mean over the epoch so far, is not finite."""
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"{when}: the loss is {logs['loss']}; lower the learning rates, or give "
                f"--precision float32. {self.run.folder}/last keeps the last complete epoch"
            )

    def on_test_begin(self, logs=None):
        """Stop the training clock; validation follows."""
        self.training_ended = time.time()
        self.run.bar.close()

    def on_epoch_end(self, epoch, logs=None):
        """Save the epoch and print its line."""
        number = self._number(epoch)
        self._check_loss(f"epoch {number}", logs)  # the check of the last steps may be late
        seconds = self.training_ended - self.start
        row = {"epoch": number, "tiles_per_s": round(self.seen / seconds, 1)}
        row |= rates_of(self.model)
        row |= {key: value for key, value in logs.items() if key not in SUMS}
        if self.unheard:
            with models.averaged(self.model):
                found = self.model.evaluate(self.unheard, verbose=0, return_dict=True)
            row["unheard_mae_db"] = found["mae_db"]
        if not math.isfinite(row["val_mae_db"]):
            raise UserError(
                f"epoch {number}: the validation error is not finite; lower the learning rates"
            )
        # Rounded up, so that the sum reaches the limit when the clock does. Otherwise a later start
        # would train again.
        row["seconds"] = math.ceil(10 * (time.time() - self.start)) / 10
        best = self.run.commit(self.model, row)
        if self.keep_every and number % self.keep_every == 0:
            self.run.keep(self.model, number)
        line = format_epoch(row, self.params["epochs"] + self.run.epoch_offset, best)
        print(f"{line}  {self._format_rest(epoch)}".rstrip(), flush=True)
        self.show()

    def _format_rest(self, epoch):
        """Estimate the rest of the run from its last epoch: "3 h 05 min left"."""
        an_epoch = self.run.history[-1]["seconds"] - self.compile_seconds
        seconds = self._within_limit((self.params["epochs"] - epoch - 1) * an_epoch)
        if seconds <= 0:
            return ""
        return f"{run_page.format_time(seconds)} left"


def format_epoch(row, last, best):
    """Format the line of an epoch, with a hint if the discriminator is at chance or too strong."""
    parts = [
        f"epoch {row['epoch']:>3}/{last}",
        f"{row['seconds']:6.1f} s",
        f"{row['tiles_per_s']:7.1f} tiles/s",
        f"train {row['mae_db']:5.2f} dB",
        f"val {row['val_mae_db']:5.2f} dB{'*' if best else ' '}",
    ]
    if "unheard_mae_db" in row:
        parts.append(f"unheard origin {row['unheard_mae_db']:5.2f} dB")
    losses = [key for key in row if key.endswith("_loss") and not key.startswith("val_")]
    for key in losses:
        parts.append(f"{key} {row[key]:.3f}")
    if "disc_loss" in row:
        if abs(row["disc_loss"] - 2 * math.log(2)) < 0.02:
            parts.append("(at chance, 2 ln 2: raise --disc_lr if it stays there)")
        elif row["disc_loss"] < 0.1:
            parts.append("(discriminator too strong: lower --disc_lr)")
    return "  ".join(parts)
