"""Names of pieces, of their versions (transposed, faster), and of instruments."""

import re

MIDI_EXTENSIONS = (".mid", ".midi", ".kar", ".rmi")


def version_name(piece, transpose=0, speed=1.0):
    """Name a version of a piece; unchanged for transpose 0 and speed 1.

    ``version_name("bach/p1", -2, 1.1) == "bach/p1~t-2~s1.1"``
    """
    name = piece
    if transpose != 0:
        name += f"~t{transpose:+g}"
    if speed != 1:
        name += f"~s{speed:g}"
    return name


def piece_of(name):
    """Name of a version's piece, inverse of `version_name`.

    All versions of a piece must be on the same side of a split.
    """
    return re.sub(r"(~t[+-][\d.]+)?(~s[\d.]+)?$", "", name)


TARGET_NAMES = {  # short names of targets, for the names of models
    "keyboard_acoustic": "piano",
    "guitar_acoustic": "guitar",
    "string_acoustic": "strings",
    "synth_lead_synthetic": "synth",
}


def target_name(instrument):
    """Short name of a target for a model of many origins: ``"strings"``."""
    return TARGET_NAMES.get(instrument, instrument)


def family_of(instrument):
    """Name without the preset: ``"organ_electronic_001"`` -> ``"organ_electronic"``."""
    return re.sub(r"_\d{3}$", "", instrument)
