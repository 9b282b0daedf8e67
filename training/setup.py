"""Set up and run a training: shared code of train.py and train_generator.py.

`prepare` checks the flags, sets the seed and reads the data. `fit` trains the model that a script
builds. run_folder.py has the run folder, callbacks.py the Keras callbacks.
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import math
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

import data
import models
from common import dataset, devices, kinds
from common.cli import UserError, quiet_stderr
from common.files import complete, undamaged
from common.names import family_of, piece_of
from common.run_facts import RunFacts
from conversion import model_files
from conversion.known_models import find_model
from research import registry
from sound import augment
from training import splits, tensorboard_log
from training.callbacks import make_callbacks
from training.feeding import feed
from training.flags import format_flag
from training.preview import choose_piece
from training.run_folder import Run, format_errors, networks_of


class Initial(NamedTuple):
    """The model of --weights. It is read once, because --fresh may delete its folder."""

    generator: keras.Model
    sha256: str  # of its file, in hexadecimal digits


class Sets(NamedTuple):
    """The data sets of a run."""

    train: dataset.TilePairs
    validation: dataset.TilePairs  # held-out pieces, origins of the training
    unheard: dataset.TilePairs | None  # held-out pieces, origins kept out of the training
    split: dict  # {"train": names, "validation": names}, optionally "test"
    description: dict  # contents of features.json


@dataclasses.dataclass
class Training:
    """One start of a training run, with all shared objects."""

    args: argparse.Namespace  # flags
    script: str  # "train" or "train_generator"
    kind: kinds.Kind  # of the generator
    run: Run  # the run folder
    gpus: int  # that share each batch; 0: the CPU
    policy: str  # name of Keras's dtype policy
    sets: Sets | None = None
    initial: Initial | None = None  # of a new run with --weights

    def epochs_done(self):
        """Number of epochs that need no training; all of them if --minutes are over."""
        args, run = self.args, self.run
        if args.minutes and run.seconds_trained() >= 60 * args.minutes:
            return args.epochs
        return min(len(run.history), args.epochs)


def prepare(args, folder, script, gpus):
    """Check flags, set seed and precision, open the run folder and the data.

    Args:
        args: flags.
        folder: `Path` of the run folder.
        script: "train" or "train_generator".
        gpus: number of GPUs.

    Returns:
        `Training`.

    Raises:
        UserError: flags conflict, or the data or the run folder cannot be used.
    """
    check_flags(args, gpus)
    if args.tensorboard:
        tensorboard_log.check_packages()
    devices.keep_memory()
    with quiet_stderr():  # with another backend, Keras loads TensorFlow here if it is installed
        keras.utils.set_random_seed(args.seed)
    policy = devices.set_precision(args.precision, gpus)
    kind = registry.find_kind(args.learn)
    run = Run(folder, args.epoch_offset, args.fresh, args.choose)
    training = Training(args, script, kind, run, gpus, policy)
    training.sets = load_sets(training)
    return training


def fit(training, build, parser):
    """Train the model from ``build``, from the run's current state to its last epoch.

    Args:
        training: `Training`.
        build: function of the `Training` that returns a compiled model: a
            generator or `Pix2Pix`.
        parser: parser of the script, for the defaults in the list of flags.
    """
    args, run, sets = training.args, training.run, training.sets
    with run.locked():
        with devices.device_scope(training.gpus):
            model = build(training)
            begin(training, model)
        introduce(training, model, parser)
        model.fit(
            feed(sets.train, args.workers),
            validation_data=feed(sets.validation, args.workers),
            epochs=args.epochs,
            initial_epoch=training.epochs_done(),
            callbacks=make_callbacks(model, training),
            shuffle=False,  # the pairs come shuffled
            verbose=0,
        )
        print(run.summarise())


def check_flags(args, gpus):
    """Raise UserError for conflicting flags."""
    if args.decay_epochs > args.epochs:
        raise UserError(
            f"--decay_epochs {args.decay_epochs}: more than --epochs {args.epochs}; "
            "give a smaller number"
        )
    if gpus > 1 and args.batch_size % gpus:
        raise UserError(
            f"--batch_size {args.batch_size}: cannot be divided among {gpus} GPUs; "
            f"give a multiple of {gpus}"
        )
    if args.minutes and args.decay_epochs:
        raise UserError(
            f"--decay_epochs {args.decay_epochs}: conflicts with --minutes, which also lowers the "
            "rates; leave one out"
        )
    if args.maestro_split and args.split_of:
        raise UserError(f"--split_of {args.split_of}: conflicts with --maestro_split; give one")
    if args.test_split and (args.maestro_split or args.split_of):
        other = "--maestro_split" if args.maestro_split else "--split_of"
        raise UserError(f"--test_split: {other} already chooses the test pieces; leave one out")


def load_sets(training):
    """Read the `Sets` for the flags of a `Training`; print their sizes.

    A resumed run keeps its split.

    Raises:
        UserError: as `dataset`'s functions, or a piece of the run is missing.
    """
    args, run = training.args, training.run
    description = dataset.read_features_json(args.dataset_path)
    split = find_split(args, run)
    # Report wrong names before any file is changed, or deleted by --fresh.
    choose_piece(args.preview_piece, split["validation"])
    if args.weights and not run.history:
        generator = load_start(args.weights, args.filters, training.kind)
        training.initial = Initial(generator, hash_model(args.weights))
        tell_overlap(args.weights, split)

    shuffled = dataset.Batching(
        args.batch_size,
        args.seed,
        args.cache,
        epoch_tiles=args.epoch_tiles,
        conditions=make_conditions(training),
        shares=read_shares(args),
    )
    in_order = dataset.Batching(args.batch_size, cache=args.cache, multiple=max(1, training.gpus))
    train = make_pairs(training, args.origin, split["train"], shuffled)
    validation = make_pairs(training, args.origin, split["validation"], in_order)
    unheard = None
    if args.hold_out_origin:
        names = splits.keep_played(
            args.dataset_path, args.hold_out_origin, split["validation"], "--hold_out_origin"
        )
        unheard = make_pairs(training, args.hold_out_origin, names, in_order)
    print(f"training: {format_size(train)}")
    print(f"held out: {format_size(validation)}")
    warn_of_one_piece(args, split["validation"])
    return Sets(train, validation, unheard, split, description)


def warn_of_one_piece(args, validation):
    """Warn if ``validation`` has only one piece, perhaps in several versions."""
    if len({piece_of(name) for name in validation}) > 1:
        return
    given = args.maestro_split or args.split_of  # then no fraction is used
    advice = "give more music" if given else "raise --validation_split"
    print(f"only one piece is held out: its error says little about other pieces; {advice}")


def find_split(args, run):
    """Find the names of the pieces on each side: from the run, otherwise from the flags.

    Args:
        args: flags.
        run: the `Run`.

    Raises:
        UserError: as `load_sets`.
    """
    names, unpaired = splits.pair_pieces(args.dataset_path, [args.target], args.origin)
    for name in unpaired:
        print(f"left out, no partner: {name}", file=sys.stderr)
    return run.known_split(names) or choose_split(args, names)


def format_size(pairs):
    """Format the size of a data set: "2 pieces, 1,024 tiles, 0.85 h"."""
    hours = len(pairs.index) * data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE / 3600
    plural = "s" if len(pairs.names) > 1 else ""
    return f"{len(pairs.names)} piece{plural}, {len(pairs.index):,} tiles, {hours:.2f} h"


def make_pairs(training, origins, names, batching):
    """Make the pairs of tiles for the flags, in batches by `dataset.Batching`."""
    make = training.kind.make_pairs or dataset.TilePairs
    args = training.args
    return make(args.dataset_path, origins, args.target, names, batching)


def read_shares(args):
    """Parse --family_share: {family: fraction}. Raises UserError."""
    shares = {}
    families = {family_of(name) for name in args.origin}
    for text in args.family_share or []:
        family, _, number = text.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0
        if family not in families or not 0 < share < 1:
            raise UserError(
                f"--family_share {text}: is not a share of an origin's family; write "
                f"FAMILY=FRACTION, such as {min(families)}=0.3"
            )
        if family in shares:
            raise UserError(f"--family_share {text}: {family} is named twice; name it once")
        shares[family] = share
    if sum(shares.values()) > 1 + 1e-9:  # 0.33 + 0.56 + 0.11 exceeds 1
        raise UserError("--family_share: the shares add up to more than 1; give smaller ones")
    return shares


def make_conditions(training):
    """Make the recording conditions of --conditions, or None. Raises UserError."""
    args = training.args
    if args.conditions is None:
        return None
    if training.kind is not kinds.PLAIN:
        raise UserError("--conditions: needs --learn magnitude; leave it out")
    try:
        return augment.Conditions(args.conditions or augment.DEFAULT)
    except ValueError as error:
        raise UserError(
            f"--conditions {error}; give some of these, or no name for the default ones"
        ) from None


def choose_split(args, names):
    """Split the pieces ``names`` by the flags.

    Returns:
        {"train": names, "validation": names}, optionally "test".
    """
    if args.maestro_split:
        split = splits.maestro_split(args.maestro_split, names)
        unlisted = len(names) - sum(len(side) for side in split.values())
        print(f"test pieces: {len(split['test'])}; left out, not in the table: {unlisted}")
        return split
    if args.split_of:
        other = RunFacts(find_model(args.split_of, "--split_of")).split
        if not other:
            raise UserError(f"--split_of {args.split_of}: has no config.json; give a run folder")
        with undamaged(f"--split_of {args.split_of}: its config.json", "give another model"):
            return splits.split_like(other, names, args.validation_split, args.seed)
    training, validation = splits.split_pieces(names, args.validation_split, args.seed)
    if not args.test_split:
        return {"train": training, "validation": validation}
    training, test = splits.keep_for_test(training, args.test_split, args.seed)
    print(f"test pieces: {len(test)}")
    return {"train": training, "validation": validation, "test": test}


def load_start(path, filters, kind):
    """Load the generator of --weights as a start for width ``filters`` and this `kinds.Kind`.

    Raises:
        UserError: ``filters`` is less than the model's width, or its kind differs.
    """
    trained = model_files.load_generator(path)
    known = models.width_of(trained)
    if filters < known:
        raise UserError(
            f"--weights {path}: has width {known}; give --filters {known} or more, or other weights"
        )
    if trained.kind is not kind:
        raise UserError(
            f"--weights {path}: is a model of another kind; give one with the same --learn"
        )
    return trained


def tell_overlap(path, split):
    """Print how many of the held-out pieces the model at ``path`` was trained on."""
    other = RunFacts(find_model(path, "--weights")).split
    if not other:
        print(f"--weights {path}: its training set is not known", file=sys.stderr)
        return
    with undamaged(f"{path}: its config.json", "give another model"):
        learned = {piece_of(name) for name in other["train"]}
    validation = {piece_of(name) for name in split["validation"]}
    both = len(learned & validation)
    if both:
        print(
            f"--weights {path}: was trained on {both} of the {len(validation)} held-out pieces, "
            f"so their error is too low; to avoid this, give --split_of {path}",
            file=sys.stderr,
        )


def hash_model(path):
    """SHA-256 of a model's file, in hexadecimal digits."""
    return hashlib.sha256(model_files.find_generator(path).read_bytes()).hexdigest()


def begin(training, model):
    """Check that the run can continue, load the model's weights, write config.json.

    Raises:
        UserError: the folder has a run with other settings.
    """
    args, run, sets = training.args, training.run, training.sets
    flags = {key: to_json(value) for key, value in vars(args).items() if key != "resume"}
    flags["script"] = training.script
    if sets.train.conditions:
        flags["conditions"] = list(sets.train.conditions.names)
    run.check(flags, training.policy)
    check_bins(run, sets.train.bins)
    fingerprint = sets.description.get("fingerprint")
    if run.config.get("fingerprint", fingerprint) != fingerprint:
        check_tiles(run, sets)
    start = {"flags": flags, "policy": training.policy, "versions": list_versions()}
    if training.initial and not run.history:
        models.widen(training.initial.generator, networks_of(model)["generator"])
        start["weights_sha256"] = training.initial.sha256
    training.initial = None  # its memory is needed
    run.restore(model)
    if run.config and training.epochs_done() >= args.epochs:
        return  # nothing to train or write
    if run.config.get("baselines_db"):
        run.record_start(start, {"fingerprint": fingerprint})
        return
    median = dataset.find_target_median(sets.train)
    facts = {
        "split": sets.split,
        "bins": sets.train.bins,
        "tiles": len(sets.train) * args.batch_size,
        "fingerprint": fingerprint,
        **training.kind.to_entry(),
        "baselines_db": dataset.measure_baselines(sets.validation, median),
    }
    if sets.unheard:
        facts["unheard_baselines_db"] = dataset.measure_baselines(sets.unheard, median)
    with complete(run.folder / "median.npy") as part, open(part, "wb") as file:
        np.save(file, median)
    run.record_start(start, facts)


def check_bins(run, bins):
    """Check that the features have the picture height of the run.

    Raises:
        UserError: they have another height.
    """
    known = run.config.get("bins", data.BINS)
    if run.config and known != bins:
        raise UserError(
            f"{run.folder}: was trained on pictures of {known} bins, but these have {bins}; give "
            f"--name for another run, and --weights {run.folder} to begin with its generator"
        )


def check_tiles(run, sets):
    """Check that the tiles of the run have not changed.

    The features' fingerprint also changes with pieces and instruments that the run does not use. So
    the baselines of the run are computed again: the median of the training targets, and the errors
    of trivial systems on the held-out pairs.

    Raises:
        UserError: the tiles have changed.
    """
    median = dataset.find_target_median(sets.train)
    found = dataset.measure_baselines(sets.validation, median)
    known = run.baselines
    if any(abs(value - known.get(name, value)) > 1e-4 for name, value in found.items()):
        raise UserError(
            f"{run.folder}: its pieces have changed since the training; restore the old features, "
            "or give --name for another run"
        )
    print("the features have changed, but not the pieces of this run", file=sys.stderr)


def list_versions():
    """Versions of the packages that affect the results."""
    packages = ("keras", keras.backend.backend(), "numpy")
    return {name: importlib.metadata.version(name) for name in packages}


def to_json(value):
    """Convert a flag's value for JSON."""
    return str(value) if isinstance(value, Path) else value


def introduce(training, model, parser):
    """Print the flags, the networks, the baselines and the progress of the run."""
    args, run = training.args, training.run
    print("settings, * = not the default")
    for key, value in sorted(vars(args).items()):
        print(format_setting(key, value, parser.get_default(key)))
    sizes = [f"{name} {net.count_params():,}" for name, net in networks_of(model).items()]
    backend = keras.backend.backend()
    gpus = training.gpus or "no"
    print(f"parameters: {', '.join(sizes)}; {training.policy}; {backend}, {gpus} GPU")
    print(f"held-out MAE to beat: {format_errors(run.baselines)}")
    if "unheard_baselines_db" in run.config:
        print(f"unheard origins: {format_errors(run.config['unheard_baselines_db'])}")
    done = training.epochs_done()
    if done >= args.epochs:
        goes_on = f"--epochs {2 * max(args.epochs, len(run.history))}"
        if len(run.history) < args.epochs:
            minutes = max(args.minutes, run.seconds_trained() / 60)
            goes_on = f"--minutes {math.ceil(2 * minutes)}"
        print(f"nothing to train: the run is complete; to continue, give {goes_on}")
    elif run.history:
        print(f"continuing after {len(run.history)} of {args.epochs} epochs")


def format_setting(flag, value, default):
    """Format a flag's value, and its default if that differs."""
    if value == default:
        return f"    {flag:17} {format_flag(value)}"
    if default in (None, []):
        return f"  * {flag:17} {format_flag(value)}"
    return f"  * {flag:17} {format_flag(value)}   (default {format_flag(default)})"
