"""Read config.json and history.csv of a run folder or a shipped model.

training/run_folder.py writes both files.
"""

import functools
import re
from pathlib import Path

from common.cli import as_list
from common.files import MEND, list_folders, read_csv, read_json, undamaged

_DECIMAL_COMMA = re.compile(r"^([-+]?\d+),(\d+(?:[eE][-+]?\d+)?)$")


class RunFacts:
    """The facts of one run folder. Each property raises UserError if its file is damaged.

    Args:
        model: run folder, or a generator's file in one.

    Attributes:
        folder: `Path` of the run folder.
        config: contents of config.json; {} without the file.
    """

    def __init__(self, model):
        path = Path(model)
        self.folder = path if path.is_dir() else path.parent
        self._config_file = self.folder / "config.json"
        self.config = read_json(self._config_file, MEND) or {}
        with undamaged(self._config_file, MEND):
            for key in ("flags", "baselines_db", "split", "versions"):
                if not isinstance(self.config.get(key, {}), dict):
                    raise TypeError

    @property
    def flags(self):
        """Flags of the last start, a dict."""
        return self.config.get("flags", {})

    @property
    def baselines(self):
        """Errors of trivial systems on the held-out pieces, dB: {"identity": ..., ...}."""
        return self.config.get("baselines_db", {})

    @property
    def split(self):
        """Names of the pieces: {"train": list, "validation": list}, optionally "test"."""
        return self.config.get("split", {})

    @property
    def origins(self):
        """Origins of the training, a list of instruments."""
        return [name for name in self._read_names("origin") if name not in self.unheard]

    @property
    def unheard(self):
        """Origins kept out of the training, a list."""
        return self._read_names("hold_out_origin")

    @property
    def targets(self):
        """Targets of the training, a list of instruments."""
        return self._read_names("target")

    def _read_names(self, flag):
        with undamaged(self._config_file, MEND):
            names = as_list(self.flags.get(flag))
            if not all(isinstance(name, str) for name in names):
                raise TypeError
        return names

    @property
    def pull(self):
        """Pull of the model's anchored phase, see `phase.griffinlim_anchored`; None: the default.

        Targets with softer onsets than a piano need less of the input's phase.
        """
        if "pull" not in self.config:
            return None
        with undamaged(self._config_file, MEND):
            pull = float(self.config["pull"])
            if not 0 <= pull <= 10:
                raise ValueError
        return pull

    @functools.cached_property
    def history(self):
        """Rows of history.csv, one dict of text per epoch; [] without the file."""
        return read_history(self.folder / "history.csv")

    @functools.cached_property
    def error(self):
        """Error of the run's generator on held-out pieces, dB; None before the first epoch."""
        where = self._config_file if "mean" in self.config else self.folder / "history.csv"
        with undamaged(where, MEND):
            return find_error(self.history, self.config)

    @functools.cached_property
    def seconds(self):
        """Total time of the epochs, s."""
        with undamaged(self.folder / "history.csv", MEND):
            return sum(float(row.get("seconds") or 0) for row in self.history)


def find_run_folders(runs):
    """List the folders in ``runs`` and their folders; reports those that cannot be accessed."""
    found = []
    for folder in list_folders(runs) or ():
        inner = list_folders(folder)
        if inner is not None:
            found += [folder, *inner]
    return found


def join_names(names):
    """Format instruments: "a+b", or for more than three "12 instruments such as a"."""
    names = as_list(names)
    if len(names) > 3:
        return f"{len(names)} instruments such as {names[0]}"
    return "+".join(names)


def read_history(path):
    """Read a run's history.csv: one dict of text per row; [] without the file.

    Decimal commas, which some spreadsheets write, become points.
    """
    if not path.is_file():
        return []
    columns, *lines = read_csv(path) or [[]]
    rows = []
    for line in lines:
        cells = [_DECIMAL_COMMA.sub(r"\1.\2", cell.strip()) for cell in line]
        rows.append(dict(zip(columns, cells)))
    return rows


def find_error(history, config):
    """Error of a run's generator on held-out pieces, dB; None before the first epoch.

    Args:
        history: rows of `read_history`.
        config: of the run. The flag ``choose`` selects the epoch of the generator. Older shipped
            models have the entry ``mean`` (of epochs), which holds the error.
    """
    if "mean" in config:
        return float(config["mean"]["val_mae_db"])
    errors = [float(row["val_mae_db"]) for row in history if row.get("val_mae_db", "") != ""]
    if not errors:
        return None
    if config.get("flags", {}).get("choose") == "last":
        return errors[-1]
    return min(errors)
