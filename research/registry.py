"""Find the kind of a network by its names, flags or weights."""

from common.files import MEND, undamaged
from common.kinds import PLAIN
from research import learned_phase, styles


def list_kinds():
    """List all kinds."""
    return PLAIN, styles.FILM, styles.TILE, learned_phase.PHASE, learned_phase.BOTH


def find_kind(learn, style):
    """Find a `Kind` by its names. Raises ValueError if there is none."""
    for kind in list_kinds():
        if (kind.learn, kind.style) == (learn, style):
            return kind
    raise ValueError(f"no kind of model: {learn}, {style}")


def from_flags(learn, targets, conditioning):
    """Find the `Kind` for --learn, --target (a list) and --conditioning.

    Raises ValueError if there is none.
    """
    if learn == PLAIN.learn and len(targets) > 1:
        return find_kind(learn, conditioning)
    return find_kind(learn, PLAIN.style)


def from_entry(entry):
    """Inverse of `Kind.to_entry`. Raises ValueError, KeyError or TypeError."""
    return find_kind(entry["kind"], entry["style"])


def read_from_run(run):
    """Return the `Kind` of a `RunFacts`; for older runs it follows from the flags.

    Raises:
        UserError: its config.json is damaged.
    """
    with undamaged(run.folder / "config.json", MEND):
        if "kind" in run.config:
            return from_entry(run.config)
        learn = run.flags.get("learn", "magnitude")
        return from_flags(learn, run.targets, run.flags.get("conditioning", "film"))


def infer_kind(inputs, outputs, has_dense):
    """Infer the `Kind` of a model without an entry, from older code or older Keras.

    This is the only place where channels determine the kind.

    Args:
        inputs: input channels of the first kernels.
        outputs: output channels.
        has_dense: whether the model has dense layers.

    Raises:
        ValueError: no kind has this layout.
    """
    for kind in list_kinds():
        if kind.read_layout() == (inputs, outputs, has_dense):
            return kind
    raise ValueError(f"{inputs} inputs and {outputs} outputs")
