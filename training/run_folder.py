"""The run folder: config.json, history, and the weights that an exact resume needs.

<run>/config.json      one entry per start, the pieces of each split, baselines
<run>/generator.keras  generator of the epoch chosen by --choose (and discriminator.keras)
<run>/last/            state.json and the weights of the last two epochs, for resuming
<run>/history.csv      one row per epoch
<run>/log.txt          everything printed
<run>/epochs/          generators of --keep_every
<run>/index.html       the run's page (report/run_page.py), with plots/ and previews/
"""

import contextlib
import datetime
import itertools
import json
import math
import os
import shutil
import sys
import warnings
from pathlib import Path

import models
from common.cli import UserError
from common.files import complete, lock, read_json, undamaged, write_csv, write_json
from common.run_facts import find_error
from conversion import model_files
from report import run_page
from report.run_page import LEARNING_RATES
from training.flags import check_fixed, mend_or_begin_anew

KEPT_EPOCHS = 2  # epochs whose weights are kept: if the last are damaged, the ones before remain
FIRST_COLUMNS = (  # of history.csv; other logged columns follow
    "epoch",
    "seconds",
    "tiles_per_s",
    *LEARNING_RATES,
    "mae_db",
    "val_mae_db",
    "unheard_mae_db",
)


def sync(path):
    """Make the system write a file, or a folder's list of names, to the disk."""
    if path.is_dir():
        if os.name == "nt":  # Windows cannot sync folders
            return
        descriptor = os.open(path, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Run:
    """A run folder and its state: history, best error, weights of the last complete epoch.

    Args:
        folder: run folder; may not exist yet.
        epoch_offset: number of the epoch before the first.
        fresh: delete the folder, after locking it, and start over.
        choose: "best" or "last", the epoch whose generator becomes the run's.

    Raises:
        UserError: the state is damaged.
    """

    def __init__(self, folder, epoch_offset=0, fresh=False, choose="best"):
        self.folder = Path(folder)
        self.epoch_offset = epoch_offset
        self.fresh = fresh
        self.choose = choose
        self.state_file = self.folder / "last" / "state.json"
        self.config_file = self.folder / "config.json"
        self.bar = None  # progress bar of the current epoch
        self.history = []  # one row per complete epoch
        self.config = {}
        if not fresh:
            self._read()

    def _read(self):
        remedy = mend_or_begin_anew(self.folder)
        state = read_json(self.state_file, remedy, history=list)
        if state is None and (self.folder / "history.csv").is_file():
            raise UserError(
                f"{self.state_file}: is missing, so this run cannot be resumed; give --name for "
                f"another run, and --weights {self.folder} to begin with its generator"
            )
        self.history = state["history"] if state else []
        with undamaged(self.state_file, remedy):
            for row in self.history:
                _check_numbers(row["epoch"], row["seconds"], row["val_mae_db"])
                if "heldout_mae_db" in row:  # its name in earlier versions
                    row["unheard_mae_db"] = row.pop("heldout_mae_db")
        config = read_json(self.config_file, remedy, flags=dict, split=dict)
        with undamaged(self.config_file, remedy):
            if config:
                for key in ("baselines_db", "unheard_baselines_db"):
                    _check_numbers(*config.get(key, {}).values())
        if self.history:  # before the first epoch there is nothing to keep
            self.config = config or {}

    @contextlib.contextmanager
    def locked(self):
        """Lock the folder for this process. Raises UserError if another process trains in it."""
        with lock(self.folder):
            if self.fresh and self.config_file.is_file():  # delete only folders of this class
                shutil.rmtree(self.folder)
            self._read()  # again, because another process may have trained meanwhile
            try:
                with logged(self.folder / "log.txt"):
                    yield
            finally:
                if self.bar is not None:
                    self.bar.close()  # so that an error starts on a new line

    @property
    def best(self):
        """Lowest validation error so far, dB."""
        return min((row["val_mae_db"] for row in self.history), default=math.inf)

    @property
    def baselines(self):
        """Errors of trivial systems on the held-out pieces, dB; {} in runs older than these."""
        return self.config.get("baselines_db", {})

    def seconds_trained(self):
        """Total time of the complete epochs, s."""
        return sum(row["seconds"] for row in self.history)

    def weights_of(self, row):
        """File of weights and optimiser state after the epoch of a history row."""
        return self.state_file.with_name(f"epoch_{row['epoch']:04d}.weights.h5")

    @property
    def weights(self):
        """File of the last complete epoch's weights."""
        return self.weights_of(self.history[-1])

    def summarise(self):
        """Lines printed at the end: the generator's error, the baselines, the page."""
        error = find_error(self.history, self.config)
        return (
            f"held-out MAE {error:.2f} dB ({format_errors(self.baselines)}) -> "
            f"{self.folder}/generator.keras\n"
            f"verdict: {run_page.describe_error(error, self.baselines)}\n"
            f"page with sounds: {self.folder}/index.html"
        )

    # Settings of the run

    def known_split(self, names):
        """Return the split of a resumed run, or None. New pieces are left out.

        Args:
            names: pieces that exist now.

        Raises:
            UserError: a piece of the training is missing.
        """
        if not self.config:
            return None
        split = self.config["split"]
        with undamaged(self.config_file, mend_or_begin_anew(self.folder)):
            known = set().union(*split.values())
            used = {*split["train"], *split["validation"]}
        gone = sorted(used - set(names))
        if gone:
            raise UserError(
                f"{self.folder}: was trained with {len(gone)} pieces that are missing now, such "
                f"as {gone[0]}; compute them again, or give --name for another run"
            )
        new = len(set(names) - known)
        if new:
            print(f"left out, newer than this run: {new} pieces", file=sys.stderr)
        return split

    def check(self, flags, policy):
        """Check that the run can be resumed with these flags; print changed learning rates.

        Args:
            flags: dict.
            policy: name of Keras's dtype policy.

        Raises:
            UserError: a fixed flag differs; the text has both values.
        """
        before = self.config.get("flags", {})
        check_fixed(self.folder, before, flags)
        known_policy = self.config.get("policy", policy)
        if known_policy != policy and "mixed_float16" in (known_policy, policy):
            precision = known_policy.removeprefix("mixed_")
            raise UserError(
                f"{self.folder}: was trained with --precision {precision}, now "
                f"{policy.removeprefix('mixed_')}, but float16's optimiser has another state; "
                f"give --precision {precision} to continue it, or --name and "
                f"--weights {self.folder} for another run that begins with it"
            )
        for key in LEARNING_RATES:
            if key in before and before[key] != flags[key]:
                print(f"--{key} changes from {before[key]:g} to {flags[key]:g}")

    def record_start(self, start, facts):
        """Write config.json: a new entry in its list of starts, and the facts of the whole run.

        A start without a complete epoch is replaced by the next one. A start with nothing to train
        changes nothing.

        Args:
            start: dict of settings that may differ between starts, such as "flags".
            facts: dict of facts that are the same for all starts, such as "split".
        """
        if len(self.history) >= start["flags"]["epochs"]:
            return
        first = self.epoch_offset + 1
        if self.history:
            first = self.history[-1]["epoch"] + 1
        starts = self.config.get("starts", [])
        if self.config and not starts:  # a run that is older than this list
            known = {key: self.config.get(key) for key in ("flags", "policy", "versions")}
            starts = [{"first_epoch": self.history[0]["epoch"], **known}]
        starts = [entry for entry in starts if entry["first_epoch"] < first]
        starts.append({"first_epoch": first, "time": read_clock(), **start})
        self.config = {**self.config, **start, **facts, "starts": starts}
        write_json(self.config_file, self.config)

    # Epochs

    def restore(self, model):
        """Load the last complete epoch's weights and optimiser state into a compiled model.

        If the file is damaged, it reports that and uses the epoch before.

        Raises:
            UserError: neither can be loaded.
        """
        if not self.history:
            return
        rate = float(model.optimizer.learning_rate)
        model.optimizer.build(model.trainable_variables)
        damage = try_to_load(model, self.weights)
        has_older = len(self.history) > 1 and self.weights_of(self.history[-2]).is_file()
        if damage is not None and has_older:
            print(f"{self.weights}: cannot be loaded ({damage}); using the epoch before")
            self.history.pop()
            damage = try_to_load(model, self.weights)
        if damage is not None:
            remedy = mend_or_begin_anew(self.folder)
            raise UserError(f"{self.weights}: cannot be loaded ({damage}); {remedy}")
        model.optimizer.learning_rate = rate  # the flag's rate, not the stored one
        self.settle()

    def commit(self, model, row):
        """Save an epoch: its networks if it is chosen, the state for resuming, the history.

        state.json is replaced after all other files are on the disk. If the run is killed or the
        power fails before, the epoch is repeated with the same result.

        Returns:
            Whether it is the best epoch so far.
        """
        self._check_space(model)
        best = row["val_mae_db"] < self.best
        if best or self.choose == "last":
            with models.averaged(model):
                self._save_networks(model)
        self.history.append(row)
        with complete(self.weights) as part:
            model.save_weights(part)
            sync(part)
        sync(self.folder)
        sync(self.weights.parent)
        with complete(self.state_file) as part:
            part.write_text(json.dumps({"history": self.history}) + "\n", encoding="utf-8")
            sync(part)
        sync(self.state_file.parent)
        self.settle()
        return best

    def _save_networks(self, model):
        for name, network in networks_of(model).items():
            with complete(self.folder / f"{name}.keras") as part:
                save_network(network, part)
                sync(part)

    def keep(self, model, number):
        """Save the generator after epoch ``number`` as epochs/epoch_0010.keras."""
        path = self.folder / "epochs" / f"epoch_{number:04d}.keras"
        with models.averaged(model), complete(path) as part:
            save_network(networks_of(model)["generator"], part)

    def _check_space(self, model):
        """Raise UserError if an epoch's files may not fit, because HDF5 crashes on a full disk."""
        variables = model.variables + model.optimizer.variables + model.trainable_variables
        size = sum(math.prod(variable.shape) * 4 for variable in variables)
        needed = 8 * 2**20 + int(1.1 * size)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder}: the disk has {free >> 20} MB left, but saving an epoch takes "
                f"{needed >> 20} MB; free some space and run again"
            )

    def settle(self):
        """Rewrite history.csv and delete old weights."""
        if not self.history:
            return
        kept = [self.weights_of(row) for row in self.history[-KEPT_EPOCHS:]]
        for path in self.state_file.parent.glob("*.weights.h5"):
            if path not in kept:
                path.unlink()
        known = dict.fromkeys(itertools.chain(*self.history))  # columns of any row
        columns = [column for column in FIRST_COLUMNS if column in known]
        columns += [column for column in known if column not in FIRST_COLUMNS]
        rows = []
        for row in self.history:
            rows.append([row.get(column, "") for column in columns])
        write_csv(self.folder / "history.csv", [columns, *rows])


def _check_numbers(*values):
    """Raise TypeError if a value of a JSON file is not a number."""
    for value in values:
        if not isinstance(value, (int, float)):
            raise TypeError


class _Log:
    """A stream that forwards text to another stream and adds each line, with time, to a file."""

    def __init__(self, stream, file):
        self.stream = stream
        self.file = file
        self.line = ""

    def write(self, text):
        """Forward ``text``; the file gets whole lines only."""
        self.line += text
        *lines, self.line = self.line.split("\n")
        for line in lines:
            self.file.write(f"{read_clock()}  {line}\n")
        return self.stream.write(text)

    def __getattr__(self, name):
        """Forward all other attributes to the stream."""
        return getattr(self.stream, name)


@contextlib.contextmanager
def logged(path):
    """Copy stdout of the block to a file, and the error that ends it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
        log = _Log(sys.stdout, file)
        try:
            with contextlib.redirect_stdout(log):
                yield
        except BaseException as error:
            file.write(f"{read_clock()}  stopped: {str(error) or type(error).__name__}\n")
            raise


def save_network(network, path):
    """Save a network to a .keras file, a generator together with its kind."""
    if hasattr(network, "kind"):
        model_files.save_generator(network, path)
    else:
        network.save(path)


def try_to_load(model, path):
    """Load weights by `load_weights`; returns the reason of a failure, or None."""
    try:
        load_weights(model, path)
    except (OSError, ValueError, Warning) as error:
        return str(error)[:80]
    return None


def load_weights(model, path):
    """Load weights and optimiser state; Keras's warnings (other variables) become errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.load_weights(path)


def format_errors(errors):
    """Format {"identity": 7.1, ...} as "identity 7.10 dB, ..."."""
    return ", ".join(f"{name} {value:.2f} dB" for name, value in errors.items())


def read_clock():
    """Local time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def networks_of(model):
    """By name, what is trained: both networks of a `models.Pix2Pix`, or the generator alone."""
    if hasattr(model, "discriminator"):
        return {"generator": model.generator, "discriminator": model.discriminator}
    return {"generator": model}
