"""A network that learns the phase rotation from origin to target.

    --learn    x: dB scale of        y
    phase      origin and target     `compute_rotation`, from the origin's phase to the target's
    both       origin                dB scale of the target, and `compute_rotation`

Training uses `PhasePairs`; conversion uses `with_phase` and `Kind.turn_phase`. The two kinds of
network are `PHASE` and `BOTH`.
"""

import numpy as np

import data
from common.cli import UserError
from common.dataset import TilePairs, write_tile
from common.kinds import Kind, bins_of, kind_of
from sound import phase as phases


def compute_rotation(origin, target):
    """Compute the rotation from origin's to target's phase: float32 (bins, 256, 2), cos and sin.

    Both play the same notes. So along a partial the two phases advance equally: each rotates many
    times in a tile, but their difference is constant. Both numbers are multiplied by the target's
    dB scale, as a weight: it is 0 where nothing sounds.

    Args:
        origin, target: tiles float16 (bins, 256, 2): dB scale, and phase in half turns.
    """
    half_turns = target[..., 1].astype(np.float32) - origin[..., 1]
    angle = half_turns * np.float32(np.pi)
    return target[..., :1] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


class PhasePairs(TilePairs):
    """`TilePairs` for a network that predicts phase; the table at the top describes x and y.

    Args:
        kind: `PHASE` or `BOTH`.
        features, origins, target, names, batching: see `TilePairs`.

    Raises:
        UserError: as `TilePairs`; the tiles have no phase; several origins.
    """

    def __init__(self, kind, features, origins, target, names, batching):
        if len(origins) > 1:
            raise UserError(f"--learn {kind.learn}: needs a single --origin; give one")
        self.kind = kind
        self.inputs = kind.inputs
        self.outputs = kind.outputs
        super().__init__(features, origins, target, names, batching)
        for piece in self.tiles:
            if not all(tiles.has_phase for tiles in piece.values()):
                raise UserError(
                    f"--learn {kind.learn}: {features} has no phase; "
                    "compute features with compute_features.py --phase, into another folder"
                )

    def fill(self, row, x, y):
        """Write the epoch's pair number ``row``."""
        origin, target = self.read(row)
        write_tile(origin, x[..., 0])
        if self.kind.gives_picture:
            write_tile(target, y[..., 0])
        else:
            write_tile(target, x[..., 1])
        y[..., -2:] = compute_rotation(origin, target)

    def trivial_errors(self, origin, target, median):
        """For a phase network: the errors of no rotation, and of 0 everywhere.

        They are halved: the network's range is 2 wide, the dB scale of errors 1.
        """
        if self.kind.gives_picture:
            return super().trivial_errors(origin, target, median)
        rotation = compute_rotation(origin, target)
        unturned = target[..., :1] * np.float32([1, 0])
        return np.abs(rotation - unturned).mean() / 2, np.abs(rotation).mean() / 2


class _Rotating(Kind):
    """Base of both kinds: they predict a rotation and train on `PhasePairs`."""

    gives_rotation = True

    def make_pairs(self, features, origins, target, names, batching):
        """Make `PhasePairs`."""
        return PhasePairs(self, features, origins, target, names, batching)

    def turn_phase(self, spectrum, outputs):
        """Turn the input's spectrum by the last two outputs."""
        return turn(spectrum, outputs[..., -2:])


class Both(_Rotating):
    """Predicts the target's picture and the rotation from the origin's magnitude."""

    learn = "both"
    outputs = 3  # picture, cosine and sine of the rotation
    error = "picture_mae_db"


class Phase(_Rotating):
    """Predicts the rotation from both magnitudes."""

    learn = "phase"
    inputs = 2  # magnitudes of origin and target
    outputs = 2
    gives_picture = False


BOTH = Both()
PHASE = Phase()


def turn(spectrum, rotation):
    """Turn a spectrum or phasors, (..., bins), by a network's ``rotation``.

    ``rotation``: (..., bins, 2), cosine and sine, of any length.
    """
    return spectrum * data.phasor(rotation[..., 0] + 1j * rotation[..., 1])


def with_phase(model, phase_model):
    """Combine a magnitude and a phase network to a function with the outputs of `BOTH`."""

    predict = getattr(model, "predict_on_batch", model)  # a network, or a function of its form

    def convert(x):
        magnitude = np.asarray(predict(x))[..., :1]
        rotation = phase_model.predict_on_batch(np.concatenate([x, magnitude], axis=-1))
        return np.concatenate([magnitude, rotation], axis=-1)

    convert.kind = BOTH
    convert.bins = bins_of(model)
    return convert


def check_phases(names, model, phase_model=None, called="--model"):
    """Check that a model, with an optional phase model, supports the phases ``names``.

    ``called`` names the model in an error.

    Raises:
        UserError: a model is of the wrong kind, or a learned phase is given without a model for it.
    """
    if not kind_of(model).gives_picture:
        raise UserError(
            f"{called}: predicts phase, not magnitude; "
            "give it as --phase_model, and a model of magnitudes as --model"
        )
    if phase_model and kind_of(phase_model) is not PHASE:
        raise UserError(
            "--phase_model: predicts magnitude; give a model of train_generator.py --learn phase"
        )
    if phase_model and bins_of(phase_model) != bins_of(model):
        raise UserError(
            f"--phase_model: has {bins_of(phase_model)} bins, {called} has {bins_of(model)}; "
            "give one trained on the same features"
        )
    for name in names:
        if name in phases.LEARNED and not phase_model and not kind_of(model).gives_rotation:
            raise UserError(
                f"--phase {name}: {called} does not predict phase; "
                "give --phase_model, or a --model of --learn both"
            )
