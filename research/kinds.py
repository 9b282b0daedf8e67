"""What a network gives and takes: one `Kind` for each, stored by its names with the model.

The main path asks a `Kind` where networks may differ, and knows nothing else of the rare ones:
`PLAIN` is what nearly every model is, styles.py and learned_phase.py have the others. A generator
of models.py carries its ``kind``; a run's config.json has its names. No Keras here until a method
is called that needs it.
"""

import data

ENTRY = "timbre.json"  # in a .keras archive; in an HDF5 file the attribute of the same name


class Kind:
    """One target, whose picture the network gives. Other kinds override what is different."""

    learn = "magnitude"  # as of --learn
    style = "none"  # as of --conditioning; "none" where nothing has to say which target is wanted
    inputs = outputs = 1  # channels of the generator's tiles
    gives_picture = True  # as its first output
    gives_rotation = False  # of the input's phase, as its last two outputs
    takes_style = False  # a tile of the target as its last input
    make_pairs = None  # of tiles to train on, with the arguments of `dataset.TilePairs`; None: that

    def to_entry(self):
        """What is stored, as JSON has it."""
        return {"kind": self.learn, "style": self.style}

    def read_layout(self):
        """What tells the kind where no entry does: see `infer_kind`."""
        return self.inputs, self.outputs, False

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


def kind_of(model):
    """`Kind` of a network; a plain function that stands in for one is `PLAIN`."""
    return getattr(model, "kind", PLAIN)


def bins_of(model):
    """Height of a network's pictures; of a function that does not say it, `data.BINS`."""
    return getattr(model, "bins", data.BINS)
