"""What a network gives and takes: one `Kind` for each, stored by its names with the model.

The main path asks a `Kind` where networks may differ, and knows nothing else of the rare ones:
`PLAIN` is what nearly every model is, styles.py and learned_phase.py have the others. A generator
of models.py carries its ``kind``; a run's config.json has its names. No Keras here until a method
is called that needs it.
"""

import dataset
from cli import as_list

ENTRY = "timbre.json"  # in a .keras archive; in an HDF5 file the attribute of the same name


class Kind:
    """One target, whose picture the network gives. Other kinds override what is different."""

    learn = "magnitude"  # as of --learn
    style = "none"  # as of --conditioning; "none" where nothing has to say which target is wanted
    inputs = outputs = 1  # channels of the generator's tiles
    gives_picture = True  # as its first output
    gives_rotation = False  # of the input's phase, as its last two outputs
    takes_style = False  # a tile of the target as its last input

    def to_entry(self):
        """What is stored, as JSON has it."""
        return {"kind": self.learn, "style": self.style}

    def read_layout(self):
        """What tells the kind where no entry does: see `infer_kind`."""
        return self.inputs, self.outputs, False

    def make_pairs(self, features, origins, targets, names, **options):
        """What such a network is trained on: arguments and errors of `dataset.TilePairs`."""
        return dataset.TilePairs(features, origins, targets, names, **options)

    def wire_generator(self, inputs, filters):
        """(what the encoder reads of ``inputs``, what the decoder applies after each block)."""
        return inputs, keep

    def judged_part(self, inputs):
        """What the discriminator sees of the generator's ``inputs``."""
        return inputs

    def measure_error(self, target, output):
        """The metric ``mae_db``: see `losses.mae_db`."""
        import losses

        return losses.mae_db(target, output)

    def prepare_preview(self, generator, features, target, names):
        """The function that previews convert with; None if it gives nothing to look at.

        Args:
            generator: Keras model of this kind.
            features: features folder.
            target: instrument.
            names: pieces that it is trained on.
        """
        return generator


PLAIN = Kind()


def keep(x):
    """``x`` itself."""
    return x


def list_kinds():
    """Every kind that there is."""
    import learned_phase  # both build on this module
    import styles

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


def read_from_run(config):
    """`Kind` of a run by its config.json, a dict; of a run of older code by its flags.

    Raises ValueError, KeyError or TypeError where it is damaged.
    """
    if "kind" in config:
        return from_entry(config)
    flags = config["flags"]
    targets = as_list(flags["target"])
    return from_flags(flags.get("learn", "magnitude"), targets, flags.get("conditioning", "film"))


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


def kind_of(model):
    """`Kind` of a network; a plain function that stands in for one is `PLAIN`."""
    return getattr(model, "kind", PLAIN)
