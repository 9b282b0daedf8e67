"""Keras callbacks: progress, checkpoints, schedules, the time limit.

`Session` shows the progress and saves; the others set the learning rate, end the training when its
time is up, and write to TensorBoard.
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
SUMS = ("loss", "val_loss")  # of what is logged by itself
STEPS_BETWEEN_ESTIMATES = 20  # of the time that is left, on the bar


def make_callbacks(model, training):
    """Keras's callbacks for what the flags ask for.

    `Session` saves an epoch and notes its seconds; `TimeLimit` and `TensorBoard`, which come after
    it, read what it has noted.
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
    """The learning rates in use, by flag: {"gen_lr": ..., "disc_lr": ...} or {"lr": ...}."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # in float16
    rate = float(optimizer.learning_rate)
    if hasattr(model, "discriminator"):
        generator, discriminator = optimizer.factors
        rates = {"gen_lr": rate * generator, "disc_lr": rate * discriminator}
    else:
        rates = {"lr": rate}
    return {flag: float(f"{value:.6g}") for flag, value in rates.items()}  # as they were given


def reseed(model, pairs, seed, epoch):
    """Let shuffling and dropout of an epoch follow from (seed, epoch) alone: resume is exact."""
    pairs.set_epoch(epoch)
    layers = model._flatten_layers()
    dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    for number, layer in enumerate(dropouts):
        state = np.random.SeedSequence((seed, epoch, number)).generate_state(2)
        layer.seed_generator.state.assign(state.astype(layer.seed_generator.state.dtype))


def make_decay(rate, epochs, decaying):
    """Keras callback: ``rate``, falling linearly towards 0 over the last ``decaying`` epochs."""

    def schedule(epoch, _):
        return rate * min(1, (epochs - epoch) / (decaying + 1))

    return keras.callbacks.LearningRateScheduler(schedule)


class Averaged(keras.callbacks.Callback):
    """Have the averaged generator validated, where --ema keeps one."""

    def on_test_begin(self, logs=None):
        """Put the averages in the weights' place."""
        self.averaged = contextlib.ExitStack()
        self.averaged.enter_context(models.averaged(self.model))

    def on_test_end(self, logs=None):
        """Put the weights back."""
        self.averaged.close()


class TimeLimit(keras.callbacks.Callback):
    """End training after a time, the learning rate falling towards 0 in its second half.

    Args:
        minutes: how long.
        trained: function that says how many seconds of it the complete epochs took; by the same
            count a later start knows whether the time is over.
    """

    def __init__(self, minutes, trained):
        super().__init__()
        self.limit = 60 * minutes  # s
        self.trained = trained

    def on_train_begin(self, logs=None):
        """Remember the rate."""
        self.rate = float(self.model.optimizer.learning_rate)

    def on_epoch_begin(self, epoch, logs=None):
        """Set the epoch's rate: within an epoch JAX would not see it change."""
        self.before = self.trained()
        self.start = time.time()
        left = max(0.0, 1 - self.before / self.limit)
        self.model.optimizer.learning_rate = self.rate * min(1.0, 2 * left)

    def on_train_batch_end(self, batch, logs=None):
        """End the epoch, which is validated and saved, when the time is up."""
        if self.before + time.time() - self.start >= self.limit:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Begin no other epoch if this one, which is saved by now, has used up the time."""
        if self.trained() >= self.limit:
            print(f"--minutes {self.limit / 60:g} are over")
            self.model.stop_training = True


class Session(keras.callbacks.Callback):
    """Progress bar, one line an epoch, saving, and the stop at a loss that is not finite.

    Args:
        run: `Run`.
        pairs: `dataset.TilePairs` that are trained on.
        preview: function of the epoch's number.
        unheard: `feeding.feed` of unheard origins, or None.
        keep_every: epochs between generators that are kept; 0: none.
        minutes: that the run may take, or None.
    """

    async_safe = True  # on_train_batch_end may run late: the device need not wait for it

    def __init__(self, run, pairs, preview, unheard=None, keep_every=0, minutes=None):
        super().__init__()
        self.run = run
        self.preview = preview
        self.unheard = unheard
        self.keep_every = keep_every
        self.minutes = minutes
        self.batch_size = pairs.batch_size
        self.tiles = len(pairs) * pairs.batch_size
        self.compile_seconds = 0.0  # of the epoch's time, what its first step took
        run.bar = tqdm(disable=True)

    def on_train_begin(self, logs=None):
        """Show the last complete epoch again: a kill may have come between saving and showing."""
        self.compiled = False
        if self.run.history:
            self.show()

    def show(self):
        """Plot the history, write the preview and the run's page."""
        plot = self.run.folder / "plots" / "history.png"
        baselines = self.run.config["baselines_db"]
        pictures.write_history(self.run.folder / "history.csv", plot, baselines)
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
        """Advance the bar; stop if training has blown up."""
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
        """For the bar: how long the whole run still takes, by this epoch's speed so far."""
        elapsed = time.time() - self.start - self.compile_seconds
        done = self.seen / self.tiles
        epochs = self.params["epochs"] - len(self.run.history) - done
        seconds = self._within_limit(epochs * elapsed / done, time.time() - self.start)
        return f"whole run {run_page.format_time(max(0, seconds))} left"

    def _within_limit(self, seconds, since=0.0):
        """``seconds``, or what --minutes leaves; ``since``: seconds since the last epoch's end."""
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
        """Training of this epoch is over; what follows is validation."""
        self.training_ended = time.time()
        self.run.bar.close()

    def on_epoch_end(self, epoch, logs=None):
        """Save and tell."""
        number = self._number(epoch)
        self._check_loss(f"epoch {number}", logs)  # the steps' own check may not have come yet
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
        # Rounded up: when `TimeLimit` finds by the clock that the time is over, it must be over by
        # the sum of these, too, or a later start would train on.
        row["seconds"] = math.ceil(10 * (time.time() - self.start)) / 10
        best = self.run.commit(self.model, row)
        if self.keep_every and number % self.keep_every == 0:
            self.run.keep(self.model, number)
        line = format_epoch(row, self.params["epochs"] + self.run.epoch_offset, best)
        print(f"{line}  {self._format_rest(epoch)}".rstrip(), flush=True)
        self.show()

    def _format_rest(self, epoch):
        """How long the rest of the run will take, by its last epoch: "3 h 05 min left"."""
        an_epoch = self.run.history[-1]["seconds"] - self.compile_seconds
        seconds = self._within_limit((self.params["epochs"] - epoch - 1) * an_epoch)
        if seconds <= 0:
            return ""
        return f"{run_page.format_time(seconds)} left"


def format_epoch(row, last, best):
    """One line about an epoch, with a hint when the discriminator is at chance or has won."""
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
            parts.append("(at chance, 2 ln 2: raise --disc_lr if it stays)")
        elif row["disc_loss"] < 0.1:
            parts.append("(has won: lower --disc_lr)")
    return "  ".join(parts)
