"""Names of pieces, of their versions (transposed, faster), and of instruments."""

import re

MIDI_EXTENSIONS = (".mid", ".midi", ".kar", ".rmi")


def version_name(piece, transpose=0, speed=1.0):
    """Name of one version of a piece, unchanged for 0 and 1.

    ``version_name("bach/p1", -2, 1.1) == "bach/p1~t-2~s1.1"``
    """
    name = piece
    if transpose != 0:
        name += f"~t{transpose:+g}"
    if speed != 1:
        name += f"~s{speed:g}"
    return name


def piece_of(name):
    """The piece that a version is of, inverse of `version_name`.

    All versions of a piece belong on one side of a split.
    """
    return re.sub(r"(~t[+-][\d.]+)?(~s[\d.]+)?$", "", name)


TARGET_NAMES = {  # how models are called by what they make
    "keyboard_acoustic": "piano",
    "guitar_acoustic": "guitar",
    "string_acoustic": "strings",
    "synth_lead_synthetic": "synth",
}


def target_name(instrument):
    """What a model of many origins that makes an instrument is called by: ``"strings"``."""
    return TARGET_NAMES.get(instrument, instrument)


def family_of(instrument):
    """``"organ_electronic_001"`` -> ``"organ_electronic"``: its name without the preset."""
    return re.sub(r"_\d{3}$", "", instrument)
