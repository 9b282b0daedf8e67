"""The run folder: config.json, history, and the weights that an exact resume needs.

<run>/config.json      one entry for every start, the pieces of each split, baselines
<run>/generator.keras  of the epoch that --choose says (discriminator.keras beside it)
<run>/last/            state.json, and weights of the last two epochs: all that resuming needs
<run>/history.csv      one row an epoch
<run>/log.txt          what was printed
<run>/epochs/          generators of --keep_every
<run>/index.html       all of it as a page (report/run_page.py), with plots/ and previews/
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

KEPT_EPOCHS = 2  # weights of: where the last ones are damaged, the ones before are still there
FIRST_COLUMNS = (  # of history.csv; what else the networks log comes after them
    "epoch",
    "seconds",
    "tiles_per_s",
    *LEARNING_RATES,
    "mae_db",
    "val_mae_db",
    "unheard_mae_db",
)


def sync(path):
    """Have the system write a file or a folder's list of names to the disk."""
    if path.is_dir():
        if os.name == "nt":  # which syncs no folders
            return
        descriptor = os.open(path, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Run:
    """A run folder and its state: history, best error, and the last complete epoch's weights.

    Args:
        folder: run folder; need not be there.
        epoch_offset: number of the epoch before the first.
        fresh: delete what is there, once it is locked, and start over.
        choose: "best" or "last", the epoch whose generator is the run's.

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
        self.bar = None  # of the epoch that goes on
        self.history = []  # one row a complete epoch
        self.config = {}
        if not fresh:
            self._read()

    def _read(self):
        remedy = mend_or_begin_anew(self.folder)
        state = read_json(self.state_file, remedy, history=list)
        if state is None and (self.folder / "history.csv").is_file():
            raise UserError(
                f"{self.state_file}: is not there, so this run cannot go on; give --name for "
                f"another run, and --weights {self.folder} to begin with its generator"
            )
        self.history = state["history"] if state else []
        for row in self.history:
            if "heldout_mae_db" in row:  # its name in earlier versions
                row["unheard_mae_db"] = row.pop("heldout_mae_db")
        config = read_json(self.config_file, remedy, flags=dict, split=dict)
        if self.history:  # before the first epoch is done there is nothing to lose
            self.config = config or {}

    @contextlib.contextmanager
    def locked(self):
        """Within, the folder is this process's. Raises UserError if another trains in it."""
        with lock(self.folder):
            if self.fresh and self.config_file.is_file():  # only ever delete what this class made
                shutil.rmtree(self.folder)
            self._read()  # another process may have trained in the meantime
            try:
                with logged(self.folder / "log.txt"):
                    yield
            finally:
                if self.bar is not None:
                    self.bar.close()  # so that an error does not share its line

    @property
    def best(self):
        """Lowest validation error so far, dB."""
        return min((row["val_mae_db"] for row in self.history), default=math.inf)

    def seconds_trained(self):
        """Time that the complete epochs took, s."""
        return sum(row["seconds"] for row in self.history)

    def weights_of(self, row):
        """File of the weights and the optimiser's state after the epoch of a row of history."""
        return self.state_file.with_name(f"epoch_{row['epoch']:04d}.weights.h5")

    @property
    def weights(self):
        """The last complete epoch's."""
        return self.weights_of(self.history[-1])

    def summarise(self):
        """Lines at the end: the generator's error, what to compare it with, where the page is."""
        baselines = self.config["baselines_db"]
        error = find_error(self.history, self.config)
        return (
            f"held-out MAE {error:.2f} dB ({format_errors(baselines)}) -> "
            f"{self.folder}/generator.keras\n"
            f"verdict: {run_page.describe_error(error, baselines)}\n"
            f"see and hear it: {self.folder}/index.html"
        )

    # What it was trained with

    def known_split(self, names):
        """The split of a run that goes on, or None. Pieces that came since are left out.

        Args:
            names: pieces that there are now.

        Raises:
            UserError: a piece that it was trained on is gone.
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
                f"{self.folder}: was trained with {len(gone)} pieces that are not there now, "
                f"{gone[0]} for one; compute them again, or give --name for another run"
            )
        new = len(set(names) - known)
        if new:
            print(f"left out, new since this run began: {new} pieces", file=sys.stderr)
        return split

    def check(self, flags, policy):
        """Check that the run can go on with these flags; say which learning rates change.

        Args:
            flags: dict.
            policy: name of Keras's dtype policy.

        Raises:
            UserError: with both values if not.
        """
        before = self.config.get("flags", {})
        check_fixed(self.folder, before, flags)
        known_policy = self.config.get("policy", policy)
        if known_policy != policy and "mixed_float16" in (known_policy, policy):
            precision = known_policy.removeprefix("mixed_")
            raise UserError(
                f"{self.folder}: was trained with --precision {precision}, now "
                f"{policy.removeprefix('mixed_')}, and float16's optimiser keeps another state; "
                f"give --precision {precision} to continue it, or --name and "
                f"--weights {self.folder} for another run that begins with it"
            )
        for key in LEARNING_RATES:
            if key in before and before[key] != flags[key]:
                print(f"--{key} was {before[key]:g} until now; it is {flags[key]:g} from here")

    def record_start(self, start, facts):
        """Write config.json: a new entry in its list of starts, and what is true of the whole run.

        A start that comes to no epoch leaves no entry: the next one takes its place, and one that
        has nothing to do changes nothing.

        Args:
            start: dict of what may differ from start to start, "flags" among it.
            facts: dict of what is the same for all of them, "split" among it.
        """
        if len(self.history) >= start["flags"]["epochs"]:
            return
        first = self.epoch_offset + 1
        if self.history:
            first = self.history[-1]["epoch"] + 1
        starts = self.config.get("starts", [])
        if self.config and not starts:  # of a run from before there was such a list
            known = {key: self.config.get(key) for key in ("flags", "policy", "versions")}
            starts = [{"first_epoch": self.history[0]["epoch"], **known}]
        starts = [entry for entry in starts if entry["first_epoch"] < first]
        starts.append({"first_epoch": first, "time": read_clock(), **start})
        self.config = {**self.config, **start, **facts, "starts": starts}
        write_json(self.config_file, self.config)

    # Epochs

    def restore(self, model):
        """Load the last complete epoch's weights and optimiser state into a compiled model.

        Where its file is damaged, the epoch before is taken, and said.

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
            print(f"{self.weights}: cannot be loaded ({damage}); taking the epoch before")
            self.history.pop()
            damage = try_to_load(model, self.weights)
        if damage is not None:
            remedy = mend_or_begin_anew(self.folder)
            raise UserError(f"{self.weights}: cannot be loaded ({damage}); {remedy}")
        model.optimizer.learning_rate = rate  # the flag's, not the stored one
        self.settle()

    def commit(self, model, row):
        """Keep an epoch: its networks if it is chosen, everything that resuming needs, history.

        state.json is replaced last of what matters, and all is on the disk by then: a run that is
        killed before, or a computer that loses its power, does the epoch again with equal result.

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
        """Keep the generator as it is after epoch ``number``: epochs/epoch_0010.keras."""
        path = self.folder / "epochs" / f"epoch_{number:04d}.keras"
        with models.averaged(model), complete(path) as part:
            save_network(networks_of(model)["generator"], part)

    def _check_space(self, model):
        """Raise UserError if an epoch's files may not fit: HDF5 crashes where the disk fills up."""
        variables = model.variables + model.optimizer.variables + model.trainable_variables
        size = sum(math.prod(variable.shape) * 4 for variable in variables)
        needed = 8 * 2**20 + int(1.1 * size)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder}: the disk is full but for {free >> 20} MB; free some space, an "
                f"epoch takes {needed >> 20} MB while it is saved, and run again"
            )

    def settle(self):
        """Bring the folder in line with the history: history.csv, and no older weights."""
        if not self.history:
            return
        kept = [self.weights_of(row) for row in self.history[-KEPT_EPOCHS:]]
        for path in self.state_file.parent.glob("*.weights.h5"):
            if path not in kept:
                path.unlink()
        known = dict.fromkeys(itertools.chain(*self.history))  # columns that some row has
        columns = [column for column in FIRST_COLUMNS if column in known]
        columns += [column for column in known if column not in FIRST_COLUMNS]
        rows = []
        for row in self.history:
            rows.append([row.get(column, "") for column in columns])
        write_csv(self.folder / "history.csv", [columns, *rows])


class _Log:
    """A stream that passes text on to another one, and each line, with the time, to a file."""

    def __init__(self, stream, file):
        self.stream = stream
        self.file = file
        self.line = ""

    def write(self, text):
        """Pass ``text`` on; of what is no whole line yet the file has to wait."""
        self.line += text
        *lines, self.line = self.line.split("\n")
        for line in lines:
            self.file.write(f"{read_clock()}  {line}\n")
        return self.stream.write(text)

    def __getattr__(self, name):
        """All else is the stream's."""
        return getattr(self.stream, name)


@contextlib.contextmanager
def logged(path):
    """Within, what is printed to stdout is also added to a file; so is the error that ends it."""
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
    """Save a network to a .keras file; a generator with its kind."""
    if hasattr(network, "kind"):
        model_files.save_generator(network, path)
    else:
        network.save(path)


def try_to_load(model, path):
    """Load weights as `load_weights` does; returns why they cannot be loaded, or None."""
    try:
        load_weights(model, path)
    except (OSError, ValueError, Warning) as error:
        return str(error)[:80]
    return None


def load_weights(model, path):
    """Load weights and optimiser state; what Keras only warns of (other variables) is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.load_weights(path)


def format_errors(errors):
    """{"identity": 7.1, ...} -> "identity 7.10 dB, ..."."""
    return ", ".join(f"{name} {value:.2f} dB" for name, value in errors.items())


def read_clock():
    """The time, to the second, with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def networks_of(model):
    """By name, what is trained: both networks of a `models.Pix2Pix`, or the generator alone."""
    if hasattr(model, "discriminator"):
        return {"generator": model.generator, "discriminator": model.discriminator}
    return {"generator": model}
