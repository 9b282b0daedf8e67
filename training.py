"""What train.py and train_generator.py share: data, run folder, exact resume, what one sees while it trains.

<run>/config.json      every flag's value, library versions, the pieces of each split, baselines
<run>/generator.keras  best on validation (discriminator.keras beside it)
<run>/last/            state.json and the weights it names: all that resuming needs
<run>/history.csv, plots/history.png, previews/epoch_001/{audio.wav,spectrogram.png}
"""

import importlib.metadata
import importlib.util
import math
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

import convert
import data
import dataset
import devices
import lr_finder
import models
import report
import styles
from audio import find_audio, read_audio, write_audio
from cli import UserError, complete, quiet_stderr, read_json, undamaged, write_csv, write_json

PREVIEW_SECONDS = 12
# a run's identity
FIXED_FLAGS = (
    "script",
    "origin",
    "target",
    "conditioning",
    "learn",
    "filters",
    "seed",
    "validation_split",
    "l1_weight",
)
HISTORY_COLUMNS = (
    "epoch",
    "seconds",
    "tiles_per_s",
    "mae_db",
    "val_mae_db",
    "gan_loss",
    "val_gan_loss",
    "disc_loss",
    "val_disc_loss",
)


class Run:
    """A run folder and its state: the history so far, the best validation error, the last complete epoch's weights."""

    def __init__(self, folder, epoch_offset=0):
        self.folder, self.epoch_offset = folder, epoch_offset
        self.state_file = folder / "last" / "state.json"
        state = read_json(self.state_file, "give --fresh to start over", history=list)
        self.history = state["history"] if state else []  # one row a complete epoch

    @property
    def best(self):
        """Lowest validation error so far, dB."""
        return min((row["val_mae_db"] for row in self.history), default=math.inf)

    @property
    def weights(self):
        """The last complete epoch's weights and optimiser state."""
        return self.state_file.with_name(f"epoch_{self.history[-1]['epoch']:04d}.weights.h5")

    def check_config(self, config):
        """Write config.json, or check that it describes the same run. Raises UserError with both values if not."""
        path = self.folder / "config.json"
        old = read_json(path, "give --fresh to start over", flags=dict, split=dict)
        if old and self.history:  # before the first there is nothing to lose
            for key in FIXED_FLAGS:
                before, now = old["flags"].get(key), config["flags"].get(key)
                if key in old["flags"] and before != now:
                    raise UserError(
                        f"{self.folder}: was trained with --{key} {before}, now {now}; give --fresh to start over"
                    )
            with undamaged(path, "give --fresh to start over"):
                sides = config["split"].items()
                moved = {
                    name
                    for side, names in sides
                    for name in set(names) ^ set(old["split"].get(side, ()))
                }
            if moved:
                reason = (
                    f"was trained with other pieces ({len(moved)} differ, {min(moved)} for one)"
                )
                raise UserError(f"{self.folder}: {reason}; give --fresh to start over")
        write_json(path, config)

    def restore(self, model):
        """Load the last complete epoch's weights and optimiser state into a compiled model."""
        if self.history:
            rate = float(model.optimizer.learning_rate)
            model.optimizer.build(model.trainable_variables)
            try:
                model.load_weights(self.weights)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{self.weights}: cannot be loaded ({str(error)[:80]}); give --fresh to start over"
                ) from None
            model.optimizer.learning_rate = rate  # the flag's, not the stored one
        self.settle()

    def commit(self, model, row):
        """Keep an epoch: the best model, everything that resuming needs, history. Returns whether it is the best so far.

        state.json is replaced last of what matters: a run killed before that line does the epoch again, with equal result.
        """
        self._check_space(model)
        best = row["val_mae_db"] < self.best
        if best:
            for name, network in networks_of(model).items():
                with complete(self.folder / f"{name}.keras") as part:
                    network.save(part)
        self.history.append(row)
        with complete(self.weights) as part:
            model.save_weights(part)
        write_json(self.state_file, {"history": self.history}, indent=None)
        self.settle()
        return best

    def _check_space(self, model):
        """Raise UserError if an epoch's files may not fit on the disk: HDF5 crashes the process where it fills up."""
        variables = model.variables + model.optimizer.variables + model.trainable_variables
        needed = 8 * 2**20 + int(1.1 * sum(math.prod(v.shape) * 4 for v in variables))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            remedy = f"free some space, an epoch takes {needed >> 20} MB while it is saved, and run again"
            raise UserError(f"{self.folder}: the disk is full but for {free >> 20} MB; {remedy}")

    def settle(self):
        """Bring the folder in line with state.json: history.csv, one row an epoch, and no older weights."""
        if self.history:
            for old in self.state_file.parent.glob("*.weights.h5"):
                if old != self.weights:
                    old.unlink()
            columns = [c for c in HISTORY_COLUMNS if c in self.history[0]]
            write_csv(
                self.folder / "history.csv",
                [columns, *([row[c] for c in columns] for row in self.history)],
            )


def networks_of(model):
    """What is inside the trained model, by name: both networks of a `models.Pix2Pix`, or the generator alone."""
    if hasattr(model, "discriminator"):
        return {"generator": model.generator, "discriminator": model.discriminator}
    return {"generator": model}


def reseed(model, pairs, seed, epoch):
    """Make shuffling and dropout of an epoch follow from (seed, epoch) alone: what makes resuming exact."""
    pairs.set_epoch(epoch)
    dropouts = [
        layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout)
    ]
    for i, layer in enumerate(dropouts):
        state = np.random.SeedSequence((seed, epoch, i)).generate_state(2)
        layer.seed_generator.state.assign(state.astype(layer.seed_generator.state.dtype))


class Session(keras.callbacks.Callback):
    """The progress bar, one line an epoch, saving, and the stop at a loss that is not finite."""

    async_safe = True  # on_train_batch_end may run late: the device need not wait for it

    def __init__(self, run, pairs, baselines, preview):
        super().__init__()
        self.run, self.pairs, self.baselines, self.preview = run, pairs, baselines, preview
        self.tiles = len(pairs) * pairs.batch_size
        self.bar = tqdm(disable=True)

    def on_train_begin(self, logs=None):
        """Show the last complete epoch again: a kill may have come between saving and showing it."""
        if self.run.history:
            self.show()

    def show(self):
        """Plot the history, write the preview."""
        plot = self.run.folder / "plots" / "history.png"
        report.history_figure(self.run.folder / "history.csv", plot, self.baselines)
        self.preview(self.run.history[-1]["epoch"])

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock and the bar."""
        self.start = time.time()
        self.bar = tqdm(
            total=self.tiles,
            unit="tile",
            desc=f"epoch {self._number(epoch)}",
            leave=False,
            mininterval=0.5,
        )

    def _number(self, epoch):
        return epoch + 1 + self.run.epoch_offset

    def on_train_batch_end(self, batch, logs=None):
        """Advance the bar; stop if training has blown up."""
        self.bar.update(self.pairs.batch_size)
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"step {batch + 1}: the loss is {logs['loss']}; lower the learning rates, or give --precision float32. "
                f"{self.run.folder}/last keeps the last complete epoch"
            )

    def on_test_begin(self, logs=None):
        """Training of this epoch is over; what follows is validation."""
        self.trained = time.time()
        self.bar.close()

    def on_epoch_end(self, epoch, logs=None):
        """Save and tell."""
        row = {"epoch": self._number(epoch), "seconds": round(time.time() - self.start, 1)}
        row["tiles_per_s"] = round(self.tiles / (self.trained - self.start), 1)
        row |= {key: logs[key] for key in HISTORY_COLUMNS if key in logs}
        if not math.isfinite(row["val_mae_db"]):
            raise UserError(
                f"epoch {row['epoch']}: the validation error is not finite; lower the learning rates"
            )
        best = self.run.commit(self.model, row)
        print(epoch_line(row, self.params["epochs"] + self.run.epoch_offset, best), flush=True)
        self.show()


def epoch_line(row, last, best):
    """One line about an epoch, with a hint when the discriminator is at chance or has won."""
    line = f"epoch {row['epoch']:>3}/{last}  {row['seconds']:6.1f} s  {row['tiles_per_s']:7.1f} tiles/s"
    line += (
        f"  train {row['mae_db']:5.2f} dB  val {row['val_mae_db']:5.2f} dB{'*' if best else ' '}"
    )
    if "disc_loss" in row:
        line += f"  gan {row['gan_loss']:.3f}  disc {row['disc_loss']:.3f}"
        if abs(row["disc_loss"] - 2 * math.log(2)) < 0.02:
            line += "  (at chance, 2 ln 2: raise --disc_lr if it stays)"
        elif row["disc_loss"] < 0.1:
            line += "  (has won: lower --disc_lr)"
    return line


def make_preview(run, generator, features, audios, origin, target, split, every):
    """A function of the epoch's number that converts the start of one held-out piece: a picture, and audio if there is any.

    Of several instruments it shows the first pair.
    """
    count = -(-PREVIEW_SECONDS * data.SAMPLE_RATE // (data.TILE_FRAMES * data.HOP_LENGTH))
    name = split["validation"][0]
    if dataset.several(origin, target):
        origin, target = next(
            (a, b) for a in dataset.listed(origin) for b in dataset.listed(target) if a != b
        )
        style = dataset.load_tiles(features / target / f"{split['train'][0]}.npy")
        generator = styles.with_style(generator, data.join_tiles(style))
    tiles = (
        dataset.load_tiles(features / i / f"{name}.npy")[:count, ..., :1] for i in (origin, target)
    )
    x, y = map(data.join_tiles, tiles)
    sound = find_audio(audios / origin, name)

    def preview(epoch):
        if not every or epoch % every:
            return
        folder = run.folder / "previews" / f"epoch_{epoch:03d}"
        output = convert.convert_picture(generator, x.astype(np.float32))[..., 0]
        pictures = {
            f"{origin} (input)": x,
            f"epoch {epoch} (output)": output,
            f"{target} (true)": y,
        }
        report.spectrogram_figure(pictures, folder / "spectrogram.png", title=name)
        if sound:
            audio = read_audio(sound)[: PREVIEW_SECONDS * data.SAMPLE_RATE]
            converted = convert.convert_audio(generator, audio, data.SAMPLE_RATE)
            write_audio(folder / "audio.wav", converted / max(1, np.abs(converted).max(initial=0)))

    return preview


def decay(rate, epochs, decaying):
    """Keras callback: the learning rate ``rate``, falling in equal steps towards 0 over the last ``decaying`` of ``epochs``."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch, _: rate * min(1, (epochs - epoch) / (decaying + 1))
    )


def start_from(generator, path):
    """Give a generator the weights of the model at ``path``, widened if it is narrower.

    Raises UserError if the width is not a multiple of that model's, or its kind is another.
    """
    trained = models.load_generator(path)
    filters, wanted = (models.width_of(network) for network in (trained, generator))
    if wanted % filters:
        raise UserError(
            f"--weights {path}: is of width {filters}; give --filters {filters} or a multiple, or other weights"
        )
    kinds = [
        (network.input_shape, network.output_shape, len(network.weights))
        for network in (trained, generator)
    ]
    if kinds[0] != kinds[1]:
        remedy = "give one of the same --learn and --conditioning, of one target or several"
        raise UserError(f"--weights {path}: is a model of another kind; {remedy}")
    models.widen(trained, generator)


def tensorboard(folder):
    """Keras's TensorBoard callback. Raises UserError if the packages it needs are not installed."""
    missing = [
        name for name in ("tensorflow", "tensorboard") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UserError(
            f"--tensorboard: needs {' and '.join(missing)}; pip install {' '.join(missing)}"
        )
    return keras.callbacks.TensorBoard(folder)


def settings(parser, args):
    """The flags' values, one a line, those that are not the default marked with a star."""
    lines = []
    for key, value in sorted(vars(args).items()):
        default = parser.get_default(key)
        star, note = (
            ("*", "" if default is None else f"   (default {default})")
            if value != default
            else (" ", "")
        )
        lines.append(f"  {star} {key:17} {value}{note}")
    return "\n".join(lines)


def generator_kind(args):
    """`models.build_generator`'s arguments that the flags ask for, besides the width; one target needs no style."""
    several = dataset.several(args.origin, args.target)
    if several and args.learn != "magnitude":
        raise UserError(
            f"--learn {args.learn}: goes with one --target and one --origin; give one of each"
        )
    channels = 2 if several or args.learn == "phase" else 1
    film = several and args.conditioning == "film"
    return {
        "channels": channels,
        "film": film,
        "outputs": 1 + dataset.LEARN.index(args.learn),
        "dropout": args.dropout,
    }


def load_pairs(args):
    """Training and validation `dataset.TilePairs`, the pieces of each, features.json, from the flags; says what it found."""
    description = dataset.read_features_json(args.dataset_path)
    names, unpaired = dataset.pair_pieces(args.dataset_path, args.origin, args.target)
    for name in unpaired:
        print(f"left out, no partner: {name}", file=sys.stderr)
    if args.maestro_split:
        split = dataset.maestro_split(args.maestro_split, names)
        unlisted = len(names) - sum(map(len, split.values()))
        print(f"for the test: {len(split['test'])} pieces; not in the table, left out: {unlisted}")
    else:
        split = dict(
            zip(
                ("train", "validation"),
                dataset.split_pieces(names, args.validation_split, args.seed),
            )
        )
    common = (args.dataset_path, args.origin, args.target)
    options = {
        "batch_size": args.batch_size,
        "cache": args.cache,
        "workers": args.workers,
        "learn": args.learn,
    }
    train = dataset.TilePairs(
        *common, split["train"], seed=args.seed, epoch_tiles=args.epoch_tiles, **options
    )
    validation = dataset.TilePairs(*common, split["validation"], **options)
    for word, pairs in (("training", train), ("held out", validation)):
        hours = len(pairs.index) * data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE / 3600
        pieces = f"{len(pairs.pieces)} piece" + "s" * (len(pairs.pieces) != 1)
        print(f"{word}: {pieces}, {len(pairs.index):,} tiles, {hours:.2f} h")
    return train, validation, split, description


def run_folder(args, script):
    """<runs_path>/<origin>_2_<target>, of several "any", with what is not the default at its end."""
    origin, target = (
        name if isinstance(name, str) else "any" for name in (args.origin, args.target)
    )
    suffix = ("" if script == "train" else "_generator") + (
        "" if args.learn == "magnitude" else f"_{args.learn}"
    )
    return Path(args.runs_path) / f"{origin}_2_{target}{suffix}"


def open_run(folder, args, config, pairs, validation):
    """A new or existing `Run` in ``folder`` with config.json and median.npy, and the baselines of the held-out pieces.

    Raises:
        UserError: the folder holds a run of other settings.
    """
    if (
        args.fresh and (folder / "config.json").is_file()
    ):  # only ever delete a folder that this function made
        shutil.rmtree(folder)
    run = Run(folder, args.epoch_offset)
    median = dataset.target_median(pairs)
    baselines = dataset.baselines_db(validation, median)
    run.check_config(config | {"baselines_db": baselines})
    with complete(folder / "median.npy") as part, open(part, "wb") as file:
        np.save(file, median)
    return run, baselines


def train(args, parser, gpus, build, sweeps, script):
    """Train, resume or search rates, as the flags say.

    Args:
        args, parser: parsed flags and their parser (for the defaults).
        gpus: number of GPUs in use.
        build: function of nothing that returns a compiled model; it is the generator or has ``.generator``.
        sweeps: for --findlr, dict name -> `lr_finder.Sweep`.
        script: the script's name without ".py": decides the run folder's name.
    """
    if args.decay_epochs > args.epochs:
        raise UserError(
            f"--decay_epochs {args.decay_epochs}: more than --epochs {args.epochs}; give a smaller number"
        )
    devices.keep_memory()
    with (
        quiet_stderr()
    ):  # with another backend, this is where Keras loads TensorFlow, if it is installed
        keras.utils.set_random_seed(args.seed)
    policy = devices.set_precision(args.precision, gpus)
    pairs, validation, split, description = load_pairs(args)
    folder = run_folder(args, script)
    if args.findlr:
        return lr_finder.search(
            sweeps, pairs, args.findlr_steps or max(10, len(pairs)), args.seed, folder / "lr_finder"
        )
    versions = {
        p: importlib.metadata.version(p)
        for p in ("keras", keras.backend.backend(), "numpy", "librosa")
    }
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()} | {
        "script": script
    }
    config = {
        "flags": flags,
        "policy": policy,
        "versions": versions,
        "split": split,
        "tiles": len(pairs) * args.batch_size,
    }
    run, baselines = open_run(folder, args, config, pairs, validation)
    with devices.device_scope(gpus):
        model = build()
        networks = networks_of(model)
        if args.weights and not run.history:
            start_from(networks["generator"], args.weights)
        run.restore(model)

    print(f"settings, * = not the default\n{settings(parser, args)}")
    sizes = ", ".join(f"{name} {network.count_params():,}" for name, network in networks.items())
    print(f"parameters: {sizes}; {policy}; {keras.backend.backend()}, {gpus or 'no'} GPU")
    trivial = ", ".join(f"{name} {value:.2f} dB" for name, value in baselines.items())
    print(f"held-out MAE to beat: {trivial}")
    if run.history:
        print(f"continuing after {len(run.history)} of {args.epochs} epochs")
    audios, every = (
        Path(description.get("audios", "")),
        args.preview_every if args.learn != "phase" else 0,
    )
    preview = make_preview(
        run,
        networks["generator"],
        Path(args.dataset_path),
        audios,
        args.origin,
        args.target,
        split,
        every,
    )
    fit(model, args, run, pairs, validation, Session(run, pairs, baselines, preview))
    print(f"best held-out MAE {run.best:.2f} dB ({trivial}) -> {folder}/generator.keras")


def fit(model, args, run, pairs, validation, session):
    """Keras's loop over the epochs that are still to do, with the callbacks that the flags ask for."""
    seeding = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: reseed(model, pairs, args.seed, epoch)
    )
    callbacks = [seeding, session]
    if args.decay_epochs:
        callbacks.append(
            decay(float(model.optimizer.learning_rate), args.epochs, args.decay_epochs)
        )
    if args.tensorboard:
        callbacks.append(tensorboard(run.folder / "tensorboard"))
    try:
        model.fit(
            pairs,
            validation_data=validation,
            epochs=args.epochs,
            initial_epoch=min(len(run.history), args.epochs),
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    finally:
        session.bar.close()  # so that an error does not share its line
