"""All kinds of networks, found by their names, flags or weights."""

from common.files import MEND, undamaged
from common.kinds import PLAIN
from research import learned_phase, styles


def list_kinds():
    """Every kind that there is."""
    return PLAIN, styles.FILM, styles.TILE, learned_phase.PHASE, learned_phase.BOTH


def find_kind(learn, style):
    """The `Kind` of these names. Raises ValueError if there is none."""
    for kind in list_kinds():
        if (kind.learn, kind.style) == (learn, style):
            return kind
    raise ValueError(f"no kind of model: {learn}, {style}")


def from_flags(learn, targets, conditioning):
    """The `Kind` that --learn, --target (a list) and --conditioning ask for.

    Raises ValueError if there is none.
    """
    if learn == PLAIN.learn and len(targets) > 1:
        return find_kind(learn, conditioning)
    return find_kind(learn, PLAIN.style)


def from_entry(entry):
    """The inverse of `Kind.to_entry`. Raises ValueError, KeyError or TypeError."""
    return find_kind(entry["kind"], entry["style"])


def read_from_run(run):
    """Return the `Kind` of a `RunFacts`; of a run of older code by its flags.

    Raises:
        UserError: its config.json is damaged.
    """
    with undamaged(run.folder / "config.json", MEND):
        if "kind" in run.config:
            return from_entry(run.config)
        learn = run.flags.get("learn", "magnitude")
        return from_flags(learn, run.targets, run.flags.get("conditioning", "film"))


def infer_kind(inputs, outputs, has_dense):
    """`Kind` of a model without an entry: one of older code, or of older Keras's.

    The only place where a kind is told by channels.

    Args:
        inputs: channels that its first kernels read.
        outputs: its channels.
        has_dense: whether there are dense layers.

    Raises:
        ValueError: no network of ours has these.
    """
    for kind in list_kinds():
        if kind.read_layout() == (inputs, outputs, has_dense):
            return kind
    raise ValueError(f"{inputs} inputs and {outputs} outputs")
