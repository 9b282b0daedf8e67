"""What train.py and train_generator.py share: the data that the flags ask for, callbacks, previews.

The run folder is run_folder.py's.
"""

import hashlib
import importlib.metadata
import importlib.util
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from tqdm import tqdm

import augment
import data
import dataset
import devices
import kinds
import models
import report
import run_page
from audio import read_audio
from cli import (
    UserError,
    complete,
    find_model,
    quiet_stderr,
    read_json,
    undamaged,
)
from flags import format_flag
from midi import piece_of
from preview import Preview, choose_piece
from run_folder import HISTORY_COLUMNS, format_errors, networks_of

COMPILING = "compiling the first step, up to half a minute"
STEPS_BETWEEN_ESTIMATES = 20  # of the time that is left, on the bar


# Before the run: what the flags ask for


def prepare(args, gpus):
    """Check flags that depend on each other, seed all chance, set the precision.

    Returns:
        Name of Keras's dtype policy.

    Raises:
        UserError: flags that do not go together.
    """
    if args.decay_epochs > args.epochs:
        raise UserError(
            f"--decay_epochs {args.decay_epochs}: more than --epochs {args.epochs}; "
            "give a smaller number"
        )
    if gpus > 1 and args.batch_size % gpus:
        raise UserError(
            f"--batch_size {args.batch_size}: cannot be shared out to {gpus} GPUs; "
            f"give a multiple of {gpus}"
        )
    if args.minutes and args.decay_epochs:
        raise UserError("--decay_epochs: --minutes has its own; leave one of them out")
    if args.maestro_split and args.split_of:
        raise UserError(f"--split_of {args.split_of}: goes without --maestro_split; give one")
    if args.test_split and (args.maestro_split or args.split_of):
        other = "--maestro_split" if args.maestro_split else "--split_of"
        raise UserError(f"--test_split: {other} says what is kept for the test; leave one out")
    if args.tensorboard:
        check_tensorboard()
    devices.keep_memory()
    with quiet_stderr():  # with another backend, Keras loads TensorFlow here if it is installed
        keras.utils.set_random_seed(args.seed)
    return devices.set_precision(args.precision, gpus)


def choose_kind(args):
    """The `kinds.Kind` of network that the flags ask for."""
    return kinds.from_flags(args.learn, args.target, args.conditioning)


class Sets(NamedTuple):
    """What a run is trained and validated on."""

    train: dataset.TilePairs
    held_out: dataset.TilePairs  # held-out pieces, origins of the training
    unheard: dataset.TilePairs | None  # held-out pieces, held-out origins
    split: dict  # {"train": names, "validation": names}, and maybe "test"
    description: dict  # features.json


def load_sets(args, run, gpus):
    """The `Sets` that the flags ask for; says what it found.

    Args:
        args: flags.
        run: the `Run`; one that goes on keeps its split.
        gpus: number of GPUs, which share each batch.

    Raises:
        UserError: as `dataset`'s functions do, or a piece of the run is gone.
    """
    description = dataset.read_features_json(args.dataset_path)
    strangers = args.hold_out_origin or []
    instruments = dict.fromkeys(args.origin + args.target + strangers)
    names, unpaired = dataset.pair_pieces(args.dataset_path, instruments)
    for name in unpaired:
        print(f"left out, no partner: {name}", file=sys.stderr)
    split = run.known_split(names) or choose_split(args, names)
    # Wrong names are told before a file changes, or --fresh deletes any.
    choose_piece(args.preview_piece, split["validation"])
    if args.weights and not run.history:
        load_start(args.weights, args.filters, choose_kind(args))

    batches = {"batch_size": args.batch_size, "cache": args.cache}
    in_order = {**batches, "multiple": max(1, gpus)}
    train = make_pairs(
        args,
        args.origin,
        split["train"],
        seed=args.seed,
        epoch_tiles=args.epoch_tiles,
        conditions=make_conditions(args),
        **batches,
    )
    held_out = make_pairs(args, args.origin, split["validation"], **in_order)
    unheard = None
    if strangers:
        unheard = make_pairs(args, strangers, split["validation"], **in_order)
    print(f"training: {format_size(train)}")
    print(f"held out: {format_size(held_out)}")
    if len({piece_of(name) for name in split["validation"]}) == 1:
        print(
            "only one piece is held out: the error on it says little of others; raise "
            "--validation_split"
        )
    return Sets(train, held_out, unheard, split, description)


def format_size(pairs):
    """How much music there is: "2 pieces, 1,024 tiles, 0.85 h"."""
    hours = len(pairs.index) * data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE / 3600
    plural = "s" if len(pairs.names) > 1 else ""
    return f"{len(pairs.names)} piece{plural}, {len(pairs.index):,} tiles, {hours:.2f} h"


def make_pairs(args, origins, names, **options):
    """The pairs of tiles that the flags ask for; ``options`` are `dataset.TilePairs`'s."""
    return choose_kind(args).make_pairs(args.dataset_path, origins, args.target, names, **options)


def make_conditions(args):
    """The recording conditions of --conditions, or None. Raises UserError."""
    if args.conditions is None:
        return None
    if choose_kind(args) is not kinds.PLAIN:
        raise UserError(
            "--conditions: goes with one --target and --learn magnitude; leave it out otherwise"
        )
    try:
        return augment.Conditions(args.conditions or augment.DEFAULT)
    except ValueError as error:
        raise UserError(
            f"--conditions {error}; give some of these, or none for the usual ones"
        ) from None


def choose_split(args, names):
    """Split the pieces ``names`` as the flags say.

    Returns:
        {"train": names, "validation": names}, and maybe "test".
    """
    if args.maestro_split:
        split = dataset.maestro_split(args.maestro_split, names)
        unlisted = len(names) - sum(len(side) for side in split.values())
        print(f"for the test: {len(split['test'])} pieces; not in the table, left out: {unlisted}")
        return split
    if args.split_of:
        other = read_split(args.split_of)
        if other is None:
            raise UserError(f"--split_of {args.split_of}: has no config.json; give a run folder")
        return dataset.split_like(other, names, args.validation_split, args.seed)
    training, validation = dataset.split_pieces(names, args.validation_split, args.seed)
    if not args.test_split:
        return {"train": training, "validation": validation}
    training, test = dataset.keep_for_test(training, args.test_split, args.seed)
    print(f"for the test: {len(test)} pieces")
    return {"train": training, "validation": validation, "test": test}


def read_split(model):
    """The split in the config.json beside a model, or None if there is none. Raises UserError."""
    path = find_model(model)
    folder = path if path.is_dir() else path.parent
    config = read_json(folder / "config.json", "give another model", split=dict)
    return config and config["split"]


def load_start(path, filters, kind):
    """The generator of --weights, if one of width ``filters`` and this `kinds.Kind` can begin so.

    Raises:
        UserError: the width is no multiple of that model's, or its kind is another.
    """
    trained = models.load_generator(path)
    known = models.width_of(trained)
    if filters % known:
        raise UserError(
            f"--weights {path}: is of width {known}; give --filters {known} or a multiple, "
            "or other weights"
        )
    if trained.kind is not kind:
        raise UserError(
            f"--weights {path}: is a model of another kind; give one of the same --learn and "
            "--conditioning, of one target or several"
        )
    return trained


def start_from(generator, path):
    """Give a generator the weights of the model at ``path``, widened if it is narrower.

    Raises UserError as `load_start` does.
    """
    trained = load_start(path, models.width_of(generator), generator.kind)
    models.widen(trained, generator)


def tell_overlap(path, split):
    """Say how many of today's held-out pieces the model at ``path`` was trained on."""
    other = read_split(path)
    if other is None:
        print(f"--weights {path}: what it was trained on is not known here", file=sys.stderr)
        return
    with undamaged(f"{path}: its config.json", "give another model"):
        learned = {piece_of(name) for name in other["train"]}
    held_out = {piece_of(name) for name in split["validation"]}
    both = len(learned & held_out)
    if both:
        print(
            f"--weights {path}: was trained on {both} of the {len(held_out)} pieces that are held "
            f"out here, so the error on them comes out too low; to avoid it: --split_of {path}",
            file=sys.stderr,
        )


def hash_model(path):
    """SHA-256 of a model's file, in hexadecimal digits."""
    return hashlib.sha256(models.find_generator(path).read_bytes()).hexdigest()


def begin(run, model, sets, args, policy, script):
    """Check that the run can go on so, give the model its weights, write config.json.

    Raises:
        UserError: the folder holds a run of other settings, or --weights are of another kind.
    """
    flags = {key: to_json(value) for key, value in vars(args).items() if key != "resume"}
    flags["script"] = script
    if sets.train.conditions:
        flags["conditions"] = list(sets.train.conditions.names)
    run.check(flags, policy)
    fingerprint = sets.description.get("fingerprint")
    if run.config.get("fingerprint", fingerprint) != fingerprint:
        check_tiles(run, sets)
    start = {"flags": flags, "policy": policy, "versions": list_versions()}
    if args.weights and not run.history:
        tell_overlap(args.weights, sets.split)
        start_from(networks_of(model)["generator"], args.weights)
        start["weights_sha256"] = hash_model(args.weights)
    run.restore(model)
    if run.config and epochs_done(args, run) >= args.epochs:
        return  # nothing to train, so nothing to write
    if run.config.get("baselines_db"):
        run.record_start(start, {"fingerprint": fingerprint})
        return
    median = dataset.find_target_median(sets.train)
    facts = {
        "split": sets.split,
        "tiles": len(sets.train) * args.batch_size,
        "fingerprint": fingerprint,
        **choose_kind(args).to_entry(),
        "baselines_db": dataset.measure_baselines(sets.held_out, median),
    }
    if sets.unheard:
        facts["heldout_baselines_db"] = dataset.measure_baselines(sets.unheard, median)
    with complete(run.folder / "median.npy") as part, open(part, "wb") as file:
        np.save(file, median)
    run.record_start(start, facts)


def check_tiles(run, sets):
    """Check that the run's own tiles are still those that it was trained on.

    The features' fingerprint also changes where other pieces or instruments came or went. So what
    the run has noted of its own is computed again: the median of the targets that it trains on,
    and the errors of trivial systems on the held-out pairs.

    Raises:
        UserError: they are others.
    """
    median = dataset.find_target_median(sets.train)
    found = dataset.measure_baselines(sets.held_out, median)
    known = run.config["baselines_db"]
    if any(abs(found[name] - known[name]) > 1e-4 for name in known):
        raise UserError(
            f"{run.folder}: its pieces have changed since it was trained on them; compute them as "
            "they were, or give --name for another run"
        )
    print("the features have changed, but not the pieces of this run", file=sys.stderr)


def list_versions():
    """Versions of the packages that decide what is computed."""
    packages = ("keras", keras.backend.backend(), "numpy")
    return {name: importlib.metadata.version(name) for name in packages}


def to_json(value):
    """A flag's value as JSON has it."""
    return str(value) if isinstance(value, Path) else value


# The model and its data, as Keras's loop sees them


class Batches(keras.utils.PyDataset):
    """`dataset.TilePairs` as a Keras data set, read by ``workers`` threads."""

    def __init__(self, pairs, workers=1):
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=2 * workers + 2)
        self.pairs = pairs

    def __len__(self):
        """Batches an epoch."""
        return len(self.pairs)

    def __getitem__(self, batch):
        """Batch number ``batch`` of the epoch."""
        return self.pairs[batch]


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


def make_callbacks(model, args, run, sets):
    """Keras's callbacks for what the flags ask for.

    `Session` saves an epoch and notes its seconds; `TimeLimit` and `TensorBoard`, which come after
    it, read what it has noted.
    """

    def begin_epoch(epoch, logs):
        reseed(model, sets.train, args.seed, epoch)

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_begin=begin_epoch)]
    if args.decay_epochs:
        rate = float(model.optimizer.learning_rate)
        callbacks.append(make_decay(rate, args.epochs, args.decay_epochs))
    generator = networks_of(model)["generator"]
    preview = Preview(run.folder, generator, args, sets, choose_kind(args))
    unheard = Batches(sets.unheard, args.workers) if sets.unheard else None
    session = Session(run, sets.train, preview, unheard, args.keep_every, args.minutes)
    callbacks.append(session)
    if args.minutes:
        callbacks.append(TimeLimit(args.minutes, run.seconds_trained))
    if args.tensorboard:
        callbacks.append(TensorBoard(run))
    return callbacks


def make_decay(rate, epochs, decaying):
    """Keras callback: ``rate``, falling linearly towards 0 over the last ``decaying`` epochs."""

    def schedule(epoch, _):
        return rate * min(1, (epochs - epoch) / (decaying + 1))

    return keras.callbacks.LearningRateScheduler(schedule)


def epochs_done(args, run):
    """How many epochs need no training: those of the run, or all if its --minutes are over."""
    if args.minutes and run.seconds_trained() >= 60 * args.minutes:
        return args.epochs
    return min(len(run.history), args.epochs)


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


def check_tensorboard():
    """Raise UserError where the packages that --tensorboard needs are missing."""
    needed = ("tensorflow", "tensorboard")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--tensorboard: needs {' and '.join(missing)}; pip install {' '.join(missing)}"
        )


class TensorBoard(keras.callbacks.Callback):
    """What the run folder has of each epoch, for TensorBoard: numbers, preview, its sound.

    The steps are the epochs' numbers. Goes after `Session`, which makes what this one reads.
    """

    def __init__(self, run):
        super().__init__()
        import tensorflow  # whatever the backend is

        self.run = run
        self.tf = tensorflow
        self.writer = None

    def on_epoch_end(self, epoch, logs=None):
        """Write the newest row of the history, and its preview if there is one."""
        if self.writer is None:  # now, so that a start that trains nothing leaves no file
            folder = self.run.folder / "tensorboard"
            self.writer = self.tf.summary.create_file_writer(str(folder))
        row = self.run.history[-1]
        step = row["epoch"]
        preview = self.run.folder / "previews" / f"epoch_{step:03d}"
        with self.writer.as_default(step=step):
            for name, value in row.items():
                if name != "epoch":
                    self.tf.summary.scalar(name, value)
            picture = preview / "spectrogram.png"
            if picture.is_file():
                pixels = self.tf.io.decode_png(picture.read_bytes(), channels=4)
                self.tf.summary.image("preview", pixels[self.tf.newaxis])
            for place in ("input", "target"):
                self._write_sound(place, self.run.folder / "previews" / place)
            self._write_sound("output", preview / "output")
        self.writer.flush()

    def _write_sound(self, name, stem):
        path = report.sound_path(stem)
        if path.is_file():
            audio = read_audio(path)[np.newaxis, :, np.newaxis]
            self.tf.summary.audio(name, audio, sample_rate=data.SAMPLE_RATE)


class Session(keras.callbacks.Callback):
    """Progress bar, one line an epoch, saving, and the stop at a loss that is not finite.

    Args:
        run: `Run`.
        pairs: `dataset.TilePairs` that are trained on.
        preview: function of the epoch's number.
        unheard: `Batches` of held-out origins, or None.
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
        report.history_figure(self.run.folder / "history.csv", plot, baselines)
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
        row |= {key: logs[key] for key in HISTORY_COLUMNS if key in logs}
        if self.unheard:
            found = self.model.evaluate(self.unheard, verbose=0, return_dict=True)
            row["heldout_mae_db"] = found["mae_db"]
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
    if "heldout_mae_db" in row:
        parts.append(f"held-out origin {row['heldout_mae_db']:5.2f} dB")
    if "disc_loss" in row:
        parts.append(f"gan {row['gan_loss']:.3f}")
        parts.append(f"disc {row['disc_loss']:.3f}")
        if abs(row["disc_loss"] - 2 * math.log(2)) < 0.02:
            parts.append("(at chance, 2 ln 2: raise --disc_lr if it stays)")
        elif row["disc_loss"] < 0.1:
            parts.append("(has won: lower --disc_lr)")
    return "  ".join(parts)


def introduce(parser, args, model, run, policy, gpus):
    """Print the flags, the networks, what there is to beat, and how far the run is."""
    print("settings, * = not the default")
    for key, value in sorted(vars(args).items()):
        print(format_setting(key, value, parser.get_default(key)))
    sizes = [f"{name} {net.count_params():,}" for name, net in networks_of(model).items()]
    backend = keras.backend.backend()
    print(f"parameters: {', '.join(sizes)}; {policy}; {backend}, {gpus or 'no'} GPU")
    print(f"held-out MAE to beat: {format_errors(run.config['baselines_db'])}")
    if "heldout_baselines_db" in run.config:
        print(f"of held-out origins: {format_errors(run.config['heldout_baselines_db'])}")
    done = epochs_done(args, run)
    if done >= args.epochs:
        goes_on = f"--epochs {2 * max(args.epochs, len(run.history))}"
        if len(run.history) < args.epochs:
            goes_on = f"--minutes {2 * args.minutes:g}"
        print(f"nothing to train: the run is complete; {goes_on} goes on")
    elif run.history:
        print(f"continuing after {len(run.history)} of {args.epochs} epochs")


def format_setting(flag, value, default):
    """A flag's value, and its default where that is another."""
    if value == default:
        return f"    {flag:17} {format_flag(value)}"
    if default in (None, []):
        return f"  * {flag:17} {format_flag(value)}"
    return f"  * {flag:17} {format_flag(value)}   (default {format_flag(default)})"
