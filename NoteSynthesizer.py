"""A bank of single notes, and music rendered with it."""

import re

from cli import UserError

PITCHES = range(21, 109)  # MIDI numbers of NSynth's notes, the 88 keys of a piano
VELOCITIES = (25, 50, 75, 100, 127)  # NSynth's five
DEFAULT_INSTRUMENTS = ("keyboard_acoustic", "guitar_acoustic", "string_acoustic", "synth_lead_synthetic")


def note_prefix(instrument):
    """What the names of an instrument's notes begin with: ``organ_electronic_001``; preset 000 where none is given.

    Raises:
        UserError: the name is not ``family_source`` or ``family_source_PPP`` in small letters.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", instrument):
        raise UserError(f"instrument '{instrument}': no such name; write family_source or family_source_003, as NSynth does")
    return instrument if re.search(r"_\d{3}$", instrument) else f"{instrument}_000"


def note_name(instrument, pitch, velocity):
    """NSynth's name of a note's file: ``note_name("keyboard_acoustic", 60, 100) == "keyboard_acoustic_000-060-100.wav"``."""
    return f"{note_prefix(instrument)}-{pitch:03d}-{velocity:03d}.wav"
