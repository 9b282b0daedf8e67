"""List models and find one by part of its name: those in pretrained/, then those in runs/.

A model is a folder that holds a generator; its name is ``<origin>_2_<target>``.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import data
from common import cli
from common.cli import PROJECT, UserError
from common.files import MEND, list_folders, undamaged
from common.names import target_name
from common.run_facts import RunFacts, find_run_folders, join_names

PRETRAINED = PROJECT / "pretrained"
RUNS = Path("runs")
GENERATORS = ("generator.keras", "generator.weights.h5")
_SOURCES = ("_acoustic", "_electronic", "_synthetic")  # NSynth's second word of an instrument


class KnownModel(NamedTuple):
    """A known model and its description."""

    path: Path
    label: str  # short name of the target: "guitar"
    line: str  # instruments and error


def find_models():
    """List the paths of all models: pretrained/ first, then runs/, sorted by name.

    It leaves out shipped models that a model for any instrument replaces: see `is_superseded`.
    """
    folders = [*(list_folders(PRETRAINED) or ()), *find_run_folders(RUNS)]
    models = [path for path in folders if find_weights(path) is not None]
    return sorted((path for path in models if not is_superseded(path)), key=_place)


def is_superseded(path):
    """Whether there is a shipped model with the same target that accepts any instrument.

    Then it has its full name only: keyboard_acoustic_2_guitar_acoustic, because of many_2_guitar.
    """
    origin, _, target = path.name.rpartition("_2_")
    if not _is_shipped(path) or origin == "many":
        return False
    return find_weights(PRETRAINED / f"many_2_{target_name(target)}") is not None


def _place(path):
    return not _is_shipped(path), str(path)


def _is_shipped(path):
    return path.parent.resolve() == PRETRAINED.resolve()


def find_weights(path):
    """Find the file of a model's generator; None if there is none."""
    path = Path(path)
    if os.path.isfile(path):
        return path
    for name in GENERATORS:
        if os.path.isfile(path / name):  # False where the folder cannot be entered
            return path / name
    return None


def find_model(text, flag=None):
    """Find the model that ``text`` names: a path, a name, or a part of a name that fits only one.

    A match of the target has priority over one of the origin: "guitar" is the model to guitar. A
    shipped model has priority over a run of the same name or label, so "guitar" keeps its meaning.

    Args:
        text: str or `Path`.
        flag: flag of the user, for messages; or None.

    Raises:
        UserError: no model matches, or several do.
    """
    text = str(text)
    if text and Path(text).exists():  # Path("") is the current folder
        return Path(text)
    given = f"{flag} {text}" if flag else text
    if not text:
        where = flag or "model"
        raise UserError(f"{where} '': is empty; give one that predict.py --list shows")
    for path in list_folders(PRETRAINED) or ():
        if path.name == text and find_weights(path) is not None:
            return path
    models = find_models()
    named = [path for path in models if path.name == text]
    word = text.removesuffix("s").lower()  # "strings" is the model of string_acoustic
    shipped = [
        path for path in models if _is_shipped(path) and make_label(path).removesuffix("s") == word
    ]
    targets = [path for path in models if makes(path.name, text)]
    anywhere = [path for path in models if word in path.name.lower()]
    for fitting in (named, shipped, targets, anywhere):
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = ", ".join(_name_apart(fitting))
            raise UserError(f"{given}: matches {len(fitting)} models; give one of {names}")
    names = ", ".join(make_label(path) for path in models) or "none yet"
    raise UserError(
        f"{given}: no such model; give one that predict.py --list shows ({names}), "
        "a run folder or a model file"
    )


def _name_apart(paths):
    """Names that distinguish several models: labels of shipped ones, paths of others."""
    return [make_label(path) if _is_shipped(path) else str(path) for path in paths]


def make_label(path):
    """Short name of a model's target, for file names: "strings" for x_2_string_acoustic.

    See `names.TARGET_NAMES`. The label of a single file is its stem; for ``generator`` it is its
    folder's name.
    """
    path = Path(path)
    name = path.name if path.is_dir() else path.stem
    if not path.is_dir() and name.partition(".")[0] == "generator":
        name = path.resolve().parent.name
    target = target_name(name.rpartition("_2_")[2])
    for source in _SOURCES:
        target = target.removesuffix(source)
    label = re.sub(r"\W+", "_", target).strip("_")
    return label or "converted"


def make_labels(paths):
    """`make_label` of each model; equal labels are replaced by names, or extended by folders.

    runs/x_2_guitar and runs/y_2_guitar are "x_2_guitar" and "y_2_guitar"; a/x_2_guitar and
    b/x_2_guitar are "a_guitar" and "b_guitar".
    """
    short = [make_label(path) for path in paths]
    labels = list(short)
    parts = [Path(path).resolve().parts[1:] for path in paths]  # without the root
    for depth in range(1, 1 + max(map(len, parts))):
        longer = list(labels)
        for k, names in enumerate(parts):
            if labels.count(labels[k]) > 1:
                longer[k] = names[-1] if depth == 1 else "_".join([*names[-depth:-1], short[k]])
        labels = longer
    return labels


def describe_model(path):
    """Describe a model's instruments and error in one line. Raises UserError if damaged."""
    run = RunFacts(path)
    with undamaged(path / "config.json", MEND):
        return ", ".join(_list_facts(run)) or "nothing is written down about it"


def _list_facts(run):
    """List the parts of `describe_model`, as text."""
    flags = run.flags
    parts = []
    if "origin" in flags and "target" in flags:
        parts.append(f"{join_names(flags['origin'])} -> {join_names(flags['target'])}")
    if flags.get("conditions"):
        parts.append("in rooms and noise")
    if "filters" in flags:
        parts.append(f"width {flags['filters']}")
        edge = data.band_edge(run.config.get("bins", data.BINS)) / 1000
        parts.append(f"0 - {edge:.0f} kHz")
    if run.error is not None:
        validation = run.split.get("validation", ())
        pieces = "a piece" if len(validation) == 1 else "pieces"
        text = f"{run.error:.2f} dB off on {pieces} it has not seen"
        unchanged = run.baselines.get("identity")
        if unchanged is not None:
            text += f" (input unchanged {unchanged:.2f})"
        parts.append(text)
    return parts


def list_models():
    """List the `KnownModel` of each model. Models with damaged files are reported and skipped."""
    found = []
    for path in find_models():
        line = cli.attempt(describe_model, path)
        if isinstance(line, UserError):
            cli.pass_over(line)
        else:
            found.append(KnownModel(path, make_label(path), line))
    return found


def makes(name, text):
    """Whether ``text`` matches the target in a model's name, <origin>_2_<target>.

    "strings" is the model of string_acoustic.
    """
    word = text.removesuffix("s").lower()
    return bool(word) and word in name.rpartition("_2_")[2].lower()
