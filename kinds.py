"""What a network gives and takes, by name. Stored with the model, so that no channels are counted.

A generator of `models.py` carries ``kind`` and ``style``; `models.save_generator` writes them into
the file, and a run's config.json has them too. No Keras here.
"""

import enum

from cli import as_list

ENTRY = "timbre.json"  # in a .keras archive; in an HDF5 file the attribute of the same name


class Kind(enum.Enum):
    """What a network gives for a tile. The value is that of ``--learn``."""

    MAGNITUDE = "magnitude"  # the target's picture
    PHASE = "phase"  # rotation from the origin's phase to the target's, from both magnitudes
    BOTH = "both"  # the picture and the rotation, from the origin's magnitude


class Style(enum.Enum):
    """How a tile of the target says which of several targets is wanted: ``--conditioning``."""

    NONE = "none"  # one target, so nothing has to be said
    FILM = "film"  # an encoder describes it, and modulates the decoder
    TILE = "tile"  # a picture beside the input


# (256, 256, outputs): the picture is one, a rotation is its cosine and sine
OUTPUTS = {Kind.MAGNITUDE: 1, Kind.PHASE: 2, Kind.BOTH: 3}


def count_inputs(kind, style=Style.NONE):
    """Channels of a generator's input: the picture, and what stands beside it."""
    if kind is Kind.PHASE:
        return 2  # the target's magnitude beside the origin's
    if style is Style.NONE:
        return 1
    return 2


def kind_of(model):
    """`Kind` of a generator; a plain function that stands in for one gives magnitudes."""
    return getattr(model, "kind", Kind.MAGNITUDE)


def takes_style(model):
    """Whether a generator wants a tile of the target beside its input."""
    return getattr(model, "style", Style.NONE) is not Style.NONE


def to_entry(kind, style=Style.NONE):
    """What is stored, as JSON has it."""
    return {"kind": kind.value, "style": style.value}


def from_entry(entry):
    """The inverse of `to_entry`: (kind, style). Raises ValueError, KeyError or TypeError."""
    return Kind(entry["kind"]), Style(entry["style"])


def read_from_run(config):
    """(kind, style) of a run by its config.json, a dict; of a run of older code by its flags.

    Raises ValueError, KeyError or TypeError where it is damaged.
    """
    if "kind" in config:
        return from_entry(config)
    flags = config["flags"]
    style = Style.NONE
    if len(as_list(flags["target"])) > 1:
        style = Style(flags.get("conditioning", Style.FILM.value))
    return Kind(flags.get("learn", Kind.MAGNITUDE.value)), style


def infer_kind(inputs, outputs, modulated):
    """(kind, style) of a model without an entry: one of older code, or of older Keras's.

    The only place where a kind is told by channels.

    Args:
        inputs, outputs: channels of the input (with the style's) and of the output.
        modulated: whether there are dense layers, which only `Style.FILM` has.

    Raises:
        ValueError: no network of ours has these channels.
    """
    found = [kind for kind, count in OUTPUTS.items() if count == outputs]
    if not found:
        raise ValueError(f"{outputs} outputs")
    kind = found[0]
    style = Style.NONE
    if modulated:
        style = Style.FILM
    elif inputs == 2 and kind is not Kind.PHASE:
        style = Style.TILE
    if count_inputs(kind, style) != inputs:
        raise ValueError(f"{inputs} inputs and {outputs} outputs")
    return kind, style
