"""A network that learns the phase rotation from origin to target.

    --learn    x: dB scale of        y
    phase      origin and target     `compute_rotation`, from the origin's phase to the target's
    both       origin                dB scale of the target, and `compute_rotation`

Training uses `PhasePairs`; conversion uses `with_phase`, and the hook `Kind.turn_phase`. The two
kinds of network are `PHASE` and `BOTH`.
"""

import numpy as np

import data
from common.cli import UserError
from common.dataset import TilePairs, write_tile
from common.kinds import Kind, bins_of, kind_of
from sound import phase as phases


def compute_rotation(origin, target):
    """What turns the origin's phase into the target's: float32 (bins, 256, 2), cosine and sine.

    Both play the same notes, so along a partial the two phases advance alike and their difference
    stands still, where each of them goes round many times in a tile. Both numbers are multiplied
    by the target's dB scale: it says where phase matters, and is 0 where nothing sounds.

    Args:
        origin, target: tiles float16 (bins, 256, 2): dB scale, and phase in half turns.
    """
    half_turns = target[..., 1].astype(np.float32) - origin[..., 1]
    angle = half_turns * np.float32(np.pi)
    return target[..., :1] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


class PhasePairs(TilePairs):
    """`TilePairs` for a network that gives phase; what x and y are stands at the top of this file.

    Args:
        kind: `PHASE` or `BOTH`.
        features, origins, targets, names, batching: see `TilePairs`.

    Raises:
        UserError: as `TilePairs`, or the tiles hold no phase, or there are several instruments on
            a side.
    """

    def __init__(self, kind, features, origins, targets, names, batching):
        if len(origins) > 1 or len(targets) > 1:
            raise UserError(
                f"--learn {kind.learn}: goes with one --target and one --origin; give one of each"
            )
        self.kind = kind
        self.inputs = kind.inputs
        self.outputs = kind.outputs
        super().__init__(features, origins, targets, names, batching)
        for piece in self.tiles:
            if not all(tiles.has_phase for tiles in piece.values()):
                raise UserError(
                    f"--learn {kind.learn}: {features} holds no phase; "
                    "compute them with compute_features.py --phase, into another folder"
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
        """Where a network gives phase only: the errors of no rotation at all, and of 0 everywhere.

        Halved, for the network's range is two wide and the dB scale, which errors are on, one.
        """
        if self.kind.gives_picture:
            return super().trivial_errors(origin, target, median)
        rotation = compute_rotation(origin, target)
        unturned = target[..., :1] * np.float32([1, 0])
        return np.abs(rotation - unturned).mean() / 2, np.abs(rotation).mean() / 2


class _Rotating(Kind):
    """What both kinds share: they give a rotation, and are trained on `PhasePairs`."""

    gives_rotation = True

    def make_pairs(self, features, origins, targets, names, batching):
        """`PhasePairs`."""
        return PhasePairs(self, features, origins, targets, names, batching)

    def turn_phase(self, spectrum, outputs):
        """The input's spectrum, turned by the last two outputs."""
        return turn(spectrum, outputs[..., -2:])


class Both(_Rotating):
    """The target's picture and the rotation, from the origin's magnitude."""

    learn = "both"
    outputs = 3  # the picture, and a rotation's cosine and sine
    error = "picture_mae_db"


class Phase(_Rotating):
    """The rotation, from the magnitudes of both."""

    learn = "phase"
    inputs = 2  # the target's magnitude beside the origin's
    outputs = 2
    gives_picture = False

    def prepare_preview(self, generator, features, target, names):
        """None: a rotation is no picture to look at."""
        return None


BOTH = Both()
PHASE = Phase()


def turn(spectrum, rotation):
    """A spectrum, or phasors, (..., bins), turned by a network's ``rotation``.

    The latter is (..., bins, 2), cosine and sine of any length.
    """
    return spectrum * data.phasor(rotation[..., 0] + 1j * rotation[..., 1])


def with_phase(model, phase_model):
    """Magnitude network and phase network -> a function that gives what a network of both gives."""

    predict = getattr(model, "predict_on_batch", model)  # of a network, or a function of its form

    def convert(x):
        magnitude = np.asarray(predict(x))[..., :1]
        rotation = phase_model.predict_on_batch(np.concatenate([x, magnitude], axis=-1))
        return np.concatenate([magnitude, rotation], axis=-1)

    convert.kind = BOTH
    convert.bins = bins_of(model)
    return convert


def check_phases(names, model, phase_model=None, called="--model"):
    """Check that a model, and maybe a phase model beside it, can give the phases ``names``.

    ``called`` is how an error names the model.

    Raises:
        UserError: one of them is of the wrong kind, or a learned phase is asked of neither.
    """
    if not kind_of(model).gives_picture:
        raise UserError(
            f"{called}: gives a phase, no magnitude; "
            "name it as --phase_model beside a --model of magnitudes"
        )
    if phase_model and kind_of(phase_model) is not PHASE:
        raise UserError(
            "--phase_model: gives a magnitude; give a model of train_generator.py --learn phase"
        )
    if phase_model and bins_of(phase_model) != bins_of(model):
        raise UserError(
            f"--phase_model: knows pictures of {bins_of(phase_model)} bins, {called} of "
            f"{bins_of(model)}; give one trained on the same features"
        )
    for name in names:
        if name in phases.LEARNED and not phase_model and not kind_of(model).gives_rotation:
            raise UserError(
                f"--phase {name}: {called} gives no phase; "
                "give --phase_model, or a --model of --learn both"
            )
