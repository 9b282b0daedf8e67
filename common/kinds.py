"""The `Kind` of a network: its inputs and outputs. It is stored with the model.

Nearly every model is `PLAIN`. The main path asks a `Kind` where networks may differ; research/ has
the other kinds. A generator of models.py carries its ``kind``; a run's config.json names it.
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
    error = "mae_db"  # function of losses.py that is logged as mae_db
    make_pairs = None  # of tiles to train on, with the arguments of `dataset.TilePairs`; None: that

    def to_entry(self):
        """What is stored, as JSON has it."""
        return {"kind": self.learn, "style": self.style}

    def read_layout(self):
        """What tells the kind where no entry does: see `infer_kind`."""
        return self.inputs, self.outputs, False

    def wire_generator(self, inputs, filters, downsample):
        """Return what the encoder reads, and the function that the decoder applies to each block.

        Args:
            inputs: Keras tensor of the generator's inputs.
            filters: width.
            downsample: `models.downsample`, for encoders of other inputs.
        """
        return inputs, keep

    def judged_part(self, inputs):
        """What the discriminator sees of the generator's ``inputs``."""
        return inputs

    def turn_phase(self, spectrum, outputs):
        """Return the spectrum whose phase the learned estimators take: the input's, turned.

        This kind leaves it as it is.

        Args:
            spectrum: the input's, complex (..., bins).
            outputs: of the network, float32 (..., bins, outputs).
        """
        return spectrum

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
