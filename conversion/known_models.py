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
    """A model that can be named, and what its folder says of it."""

    path: Path
    label: str  # short name of what it makes: "guitar"
    line: str  # what it knows and how good it is


def find_models():
    """Paths of all models: those of pretrained/ first, then those of runs/, sorted by name.

    A shipped model that has one for any instrument beside it is left out: see `is_superseded`.
    """
    folders = [*(list_folders(PRETRAINED) or ()), *find_run_folders(RUNS)]
    models = [path for path in folders if find_weights(path) is not None]
    return sorted((path for path in models if not is_superseded(path)), key=_place)


def is_superseded(path):
    """Whether a shipped model has one of the same target beside it that takes any instrument.

    It then answers to its full name only: keyboard_acoustic_2_guitar_acoustic beside many_2_guitar.
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
    """The file that holds a model's generator; None if there is none."""
    path = Path(path)
    if os.path.isfile(path):
        return path
    for name in GENERATORS:
        if os.path.isfile(path / name):  # False where the folder cannot be entered
            return path / name
    return None


def find_model(text, flag=None):
    """Find the model that ``text`` names: a path, a name, or a part of a name that fits only one.

    What fits a target counts before what fits an origin: "guitar" is the model that makes guitars.
    A name or label of a shipped model is that model, also where a run of one's own has the same:
    so "guitar" means tomorrow what it means today.

    Args:
        text: str or `Path`.
        flag: that the user gave it by, for messages; or None.

    Raises:
        UserError: no model fits, or several do.
    """
    text = str(text)
    if Path(text).exists():
        return Path(text)
    given = f"{flag} {text}" if flag else text
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
            raise UserError(f"{given}: fits {len(fitting)} models; give one of {names}")
    names = ", ".join(make_label(path) for path in models) or "none yet"
    raise UserError(
        f"{given}: no such model; give one of those that predict.py --list shows ({names}), "
        "a run folder or a model file"
    )


def _name_apart(paths):
    """What each of several models can be called by: a shipped one by its label, others by path."""
    return [make_label(path) if _is_shipped(path) else str(path) for path in paths]


def make_label(path):
    """Short name of what a model makes, for file names: "strings" of x_2_string_acoustic.

    It is what README has users type, see `names.TARGET_NAMES`. A single file is called by its stem,
    ``generator`` by its folder's name.
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
    """`make_label` of each model; where several share one, their names, or else their folders, too.

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
    """What a model knows and how good it is, on one line. Raises UserError if that is damaged."""
    run = RunFacts(path)
    with undamaged(path / "config.json", MEND):
        return ", ".join(_list_facts(run)) or "nothing is written down about it"


def _list_facts(run):
    """What `describe_model` puts together, a list of text."""
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
    """`KnownModel` of each model there is. One whose files are damaged is named and passed over."""
    found = []
    for path in find_models():
        line = cli.attempt(describe_model, path)
        if isinstance(line, UserError):
            cli.pass_over(line)
        else:
            found.append(KnownModel(path, make_label(path), line))
    return found


def makes(name, text):
    """Whether a model's name, <origin>_2_<target>, says that it makes what ``text`` names.

    "strings" is the model of string_acoustic.
    """
    word = text.removesuffix("s").lower()
    return bool(word) and word in name.rpartition("_2_")[2].lower()
