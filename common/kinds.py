"""The `Kind` of a network: its inputs and outputs. It is stored with the model.

Nearly every model is `PLAIN`; research/ has the other kinds. The main code asks a `Kind` where
networks differ. A generator of models.py has the attribute ``kind``; a run's config.json names it.
"""

import data

ENTRY = "timbre.json"  # file in a .keras archive; in an HDF5 file an attribute of this name


class Kind:
    """The plain kind: one target, and the network gives its picture. Other kinds override it."""

    learn = "magnitude"  # value of --learn
    style = "none"  # value of --conditioning; "none" without a style
    inputs = outputs = 1  # channels of the generator's tiles
    gives_picture = True  # the first output is a picture
    gives_rotation = False  # the last two outputs are a rotation of the input's phase
    takes_style = False  # the last input is a tile of the target
    error = "mae_db"  # function of losses.py that is logged as mae_db
    make_pairs = None  # function with the arguments of `dataset.TilePairs`; None: `TilePairs`

    def to_entry(self):
        """The entry stored with the model, for JSON."""
        return {"kind": self.learn, "style": self.style}

    def read_layout(self):
        """Layout that identifies the kind of a model without an entry: see `infer_kind`."""
        return self.inputs, self.outputs, False

    def wire_generator(self, inputs, filters, downsample):
        """Return the encoder's input, and the function that the decoder applies to each block.

        Args:
            inputs: Keras tensor of the generator's inputs.
            filters: width.
            downsample: `models.downsample`, for encoders of other inputs.
        """
        return inputs, keep

    def judged_part(self, inputs):
        """Return the part of the generator's ``inputs`` that the discriminator sees."""
        return inputs

    def turn_phase(self, spectrum, outputs):
        """Turn the phase of the input's spectrum, for the learned estimators; here unchanged.

        Args:
            spectrum: spectrum of the input, complex (..., bins).
            outputs: outputs of the network, float32 (..., bins, outputs).
        """
        return spectrum

    def prepare_preview(self, generator, features, target, names):
        """Return the function that previews convert with; None if the kind has no preview.

        Args:
            generator: Keras model of this kind.
            features: features folder.
            target: instrument.
            names: pieces of the training set.
        """
        return generator


PLAIN = Kind()


def keep(x):
    """Return ``x``."""
    return x


def kind_of(model):
    """`Kind` of a network; `PLAIN` for a function without the attribute."""
    return getattr(model, "kind", PLAIN)


def bins_of(model):
    """Height of a network's pictures; `data.BINS` for a function without the attribute."""
    return getattr(model, "bins", data.BINS)
