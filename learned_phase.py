"""A network that learns phase: what turns the origin's phase into the target's."""

import numpy as np

import data
import phase as phases
from cli import UserError
from kinds import Kind, kind_of


def turned(unit, rotation):
    """Unit phasors (..., 256) turned by a network's ``rotation`` (..., 256, 2), cos and sin of any length."""
    return unit * data.phasor(rotation[..., 0] + 1j * rotation[..., 1])


def with_phase(model, phase_model):
    """Magnitude network and phase network -> a function that gives what a network of both gives, for `predict`."""

    def run(x):
        magnitude = np.asarray(getattr(model, "predict_on_batch", model)(x))[..., :1]
        rotation = phase_model.predict_on_batch(np.concatenate([x, magnitude], axis=-1))
        return np.concatenate([magnitude, rotation], axis=-1)

    return run


def check_phases(names, model, phase_model=None):
    """Raise UserError if a model or a phase model is of the wrong kind, or if they cannot give the phases ``names``."""
    if kind_of(model) is Kind.PHASE:
        raise UserError(
            "--model: gives a phase, no magnitude; name it as --phase_model beside a --model of magnitudes"
        )
    if phase_model and kind_of(phase_model) is not Kind.PHASE:
        remedy = "give a model of train_generator.py --learn phase"
        raise UserError(f"--phase_model: gives a magnitude; {remedy}")
    for name in names:
        if name in phases.LEARNED and not phase_model and kind_of(model) is Kind.MAGNITUDE:
            raise UserError(
                f"--phase {name}: this model gives no phase; give --phase_model, or a --model of --learn both"
            )


def rotation(origin, target):
    """What turns the origin's phase into the target's: float32 (256, 256, 2), cos and sin, times the target's dB scale.

    Both play the same notes, so along a partial the two phases advance alike and their difference stands still, where each
    of them goes round many times in a tile. The weight says where it matters, and is 0 where nothing sounds.
    """
    angle = (target[..., 1].astype(np.float32) - origin[..., 1]) * np.float32(np.pi)
    return target[..., :1] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
