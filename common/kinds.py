"""The `Kind` of a network: its inputs and outputs. It is stored with the model.

Nearly every model is `PLAIN`; research/ has the kinds with a learned phase. The main code asks a
`Kind` where networks differ. A generator of models.py has the attribute ``kind``; a run's
config.json names it.
"""

import data

ENTRY = "timbre.json"  # file in a .keras archive; in an HDF5 file an attribute of this name


class Kind:
    """The plain kind: the network gives the target's picture. Other kinds override it."""

    learn = "magnitude"  # value of --learn
    inputs = outputs = 1  # channels of the generator's tiles
    gives_picture = True  # the first output is a picture
    gives_rotation = False  # the last two outputs are a rotation of the input's phase
    error = "mae_db"  # function of losses.py that is logged as mae_db
    make_pairs = None  # function with the arguments of `dataset.TilePairs`; None: `TilePairs`

    def to_entry(self):
        """The entry stored with the model, for JSON."""
        return {"kind": self.learn}

    def turn_phase(self, spectrum, outputs):
        """Turn the phase of the input's spectrum, for the learned estimators; here unchanged.

        Args:
            spectrum: spectrum of the input, complex (..., bins).
            outputs: outputs of the network, float32 (..., bins, outputs).
        """
        return spectrum


PLAIN = Kind()


def kind_of(model):
    """`Kind` of a network; `PLAIN` for a function without the attribute."""
    return getattr(model, "kind", PLAIN)


def bins_of(model):
    """Height of a network's pictures; `data.BINS` for a function without the attribute."""
    return getattr(model, "bins", data.BINS)
