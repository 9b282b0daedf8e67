"""Find the kind of a network by its name, flags or weights."""

from common.cli import UserError
from common.files import MEND, undamaged
from common.kinds import PLAIN
from research import learned_phase

# The last commit that trained one model for several targets, selected by a style.
WITH_STYLES = "bacc52a"


def list_kinds():
    """List all kinds."""
    return PLAIN, learned_phase.PHASE, learned_phase.BOTH


def find_kind(learn):
    """Find the `Kind` of a value of --learn. Raises ValueError if there is none."""
    for kind in list_kinds():
        if kind.learn == learn:
            return kind
    raise ValueError(f"no kind of model: {learn}")


def refuse_styles(path):
    """Raise UserError for a run or model of several targets, at ``path``."""
    raise UserError(
        f"{path}: has several targets, which this version does not support; use it with commit "
        f"{WITH_STYLES} of this repository, or train one model for each target"
    )


def from_entry(entry, path):
    """Inverse of `Kind.to_entry`; ``path`` names the model in an error.

    Raises:
        ValueError, KeyError, TypeError: it is no such entry.
        UserError: the model has several targets, as older versions trained them.
    """
    if entry.get("style", "none") != "none":
        refuse_styles(path)
    return find_kind(entry["kind"])


def read_from_run(run):
    """Return the `Kind` of a `RunFacts`; for older runs it follows from the flags.

    Raises:
        UserError: its config.json is damaged, or the run has several targets.
    """
    file = run.folder / "config.json"
    if len(run.targets) > 1:
        refuse_styles(file)
    with undamaged(file, MEND):
        if "kind" in run.config:
            return from_entry(run.config, file)
        return find_kind(run.flags.get("learn", "magnitude"))


def infer_kind(inputs, outputs):
    """Infer the `Kind` of a model without an entry, from older code or older Keras.

    This is the only place where channels determine the kind.

    Args:
        inputs: input channels of the first kernels.
        outputs: output channels.

    Raises:
        ValueError: no kind has these channels.
    """
    for kind in list_kinds():
        if (kind.inputs, kind.outputs) == (inputs, outputs):
            return kind
    raise ValueError(f"{inputs} inputs and {outputs} outputs")
