"""Step 0 (optional): render an NSynth-shaped folder of single notes from a SoundFont, with FluidSynth.

    python render_notes.py --soundfont FluidR3_GM.sf2 --list
    python render_notes.py --soundfont FluidR3_GM.sf2 --nsynth_path notes
    python render_notes.py --soundfont FluidR3_GM.sf2 --nsynth_path notes --instruments organ_acoustic=19 flute_acoustic=73

Each note is 4 s at 16 kHz, mono: held for 3 s, released for 1 s; pitches 21 - 108, velocities 25, 50, 75, 100, 127.
"""

import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import ctypes
import itertools
import re
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from audio import write_audio
from cli import UserError
from NoteSynthesizer import PITCHES, VELOCITIES, note_name, note_prefix

NOTE_RATE = 16000  # Hz, NSynth's
FONT_RATE = (
    3 * NOTE_RATE
)  # FluidSynth does not filter what it plays faster: played at 16 kHz, high notes would alias
HELD, RELEASED = 3, 1  # s
NOTE_PEAK = 0.9  # of an instrument's loudest note: every other keeps its level relative to that one
SILENCE = 2**-15  # peak, one step of 16 bits: a program has no sample at this pitch
# General MIDI. Strings: the ensemble (48) covers more pitches and speaks faster than the solo violin (40). Synth lead: the
# saw (81), because the square (80) is two detuned oscillators, left and right, which beat against each other in mono.
DEFAULT_PROGRAMS = (
    "keyboard_acoustic=0",
    "guitar_acoustic=25",
    "string_acoustic=48",
    "synth_lead_synthetic=81",
)
_SETTINGS = {
    "synth.reverb.active": 0,
    "synth.chorus.active": 0,
    "synth.dynamic-sample-loading": 0,
    "synth.cpu-cores": 1,
    "synth.polyphony": 64,
    "synth.midi-channels": 16,
}


class SoundFont:
    """A SoundFont, played one note at a time, each note on a synthesizer of its own.

    FluidSynth reuses a voice with some of its last state: the same note played twice on one synthesizer differs by up to
    a tenth of its level. So the font is loaded once and handed from synthesizer to synthesizer (0.3 ms each).
    """

    def __init__(self, path):
        try:
            with open(path, "rb") as file:
                header = file.read(12)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); give a SoundFont, .sf2"
            ) from None
        if header[:4] != b"RIFF" or header[8:] != b"sfbk":
            raise UserError(f"{path}: is no SoundFont; give an .sf2 file")
        try:
            import fluidsynth
        except (ImportError, OSError) as error:
            raise UserError(
                f"FluidSynth: not found ({error}); install it, e.g. 'apt install fluidsynth' or 'brew install fluid-synth', "
                "and 'pip install pyfluidsynth'"
            ) from None
        self._fluidsynth = fluidsynth
        self._library = ctypes.CDLL(self._fluidsynth.lib)
        self._library.fluid_synth_get_sfont_by_id.restype = ctypes.c_void_p
        for level in range(4):  # panic ... info: FluidSynth writes to stderr by itself
            self._library.fluid_set_log_function(level, None, None)
        synth = self._fluidsynth.Synth(**_SETTINGS)
        with cli.quiet_stderr():  # its libraries complain there of a damaged font
            font_id = synth.sfload(str(path))
        if font_id < 0:
            raise UserError(f"{path}: FluidSynth cannot load this SoundFont; download it again")
        self._font = ctypes.c_void_p(
            self._library.fluid_synth_get_sfont_by_id(ctypes.c_void_p(synth.synth), font_id)
        )
        names = (
            (bank, program, synth.sfpreset_name(font_id, bank, program))
            for bank in range(129)
            for program in range(128)
        )
        self.programs = {(bank, program): name for bank, program, name in names if name is not None}
        self._library.fluid_synth_remove_sfont(ctypes.c_void_p(synth.synth), self._font)
        synth.delete()

    def note(self, bank, program, pitch, velocity):
        """One note: float32 (64000,) at 16 kHz, left and right averaged, on FluidSynth's own scale (peaks about 0.1)."""
        synth = self._fluidsynth.Synth(gain=0.2, samplerate=FONT_RATE, **_SETTINGS)
        font_id = self._library.fluid_synth_add_sfont(ctypes.c_void_p(synth.synth), self._font)
        synth.program_select(0, font_id, bank, program)
        synth.noteon(0, pitch, velocity)
        held = self._play(synth, HELD * FONT_RATE)
        synth.noteoff(0, pitch)
        audio = np.concatenate([held, self._play(synth, RELEASED * FONT_RATE)])
        self._library.fluid_synth_remove_sfont(ctypes.c_void_p(synth.synth), self._font)
        synth.delete()
        return soxr.resample(audio, FONT_RATE, NOTE_RATE)

    def _play(self, synth, count):
        """The next ``count`` samples, float32: pyfluidsynth itself offers 16 bits, with dither that depends on the past."""
        left, right = np.empty((2, count), np.float32)
        pointers = [side.ctypes.data_as(ctypes.c_void_p) for side in (left, right)]
        self._library.fluid_synth_write_float(
            ctypes.c_void_p(synth.synth), count, pointers[0], 0, 1, pointers[1], 0, 1
        )
        return (left + right) / 2


def parse_instrument(text):
    """``"organ_electronic_001=19"`` or, with a bank, ``"...=8:19"`` -> (instrument, bank, program).

    Raises:
        UserError: the name, or the numbers (bank 0 - 128, program 0 - 127), are malformed.
    """
    instrument, _, number = text.partition("=")
    note_prefix(instrument)  # refuses a malformed name
    match = re.fullmatch(r"(?:(\d{1,3}):)?(\d{1,3})", number)
    bank, program = (int(digits or 0) for digits in match.groups()) if match else (-1, -1)
    if not (0 <= bank <= 128 and 0 <= program <= 127):
        raise UserError(
            f"--instruments {text}: no such program; write NAME=PROGRAM or NAME=BANK:PROGRAM (see --list)"
        )
    return instrument, bank, program


def render_instrument(font, bank, program, name):
    """Every note of one program, scaled together so that the loudest peaks at `NOTE_PEAK`, with a progress bar of this name.

    Returns:
        {(pitch, velocity): float32 (64000,)}; silent notes are left out.
    """
    keys = list(itertools.product(PITCHES, VELOCITIES))
    notes = {key: font.note(bank, program, *key) for key in tqdm(keys, desc=name, unit="note")}
    peaks = {key: np.abs(note).max() for key, note in notes.items()}
    gain = NOTE_PEAK / max(max(peaks.values()), 1e-6)
    return {
        key: note * np.float32(gain) for key, note in notes.items() if peaks[key] * gain > SILENCE
    }


@cli.command
def main(argv=None):
    """Render the notes of the instruments asked for that are not there yet."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--soundfont", required=True, help="SoundFont to render, .sf2")
    parser.add_argument("--nsynth_path", help="folder to write the notes to, in its audio/")
    parser.add_argument(
        "--instruments",
        nargs="+",
        default=DEFAULT_PROGRAMS,
        metavar="NAME=[BANK:]PROGRAM",
        help="names to give, as NSynth does, and the programs to render, 0 - 127",
    )
    parser.add_argument("--list", action="store_true", help="show the font's programs and stop")
    args = parser.parse_args(argv)
    instruments = [parse_instrument(text) for text in args.instruments]
    if not args.list and not args.nsynth_path:
        raise UserError("--nsynth_path: is missing; name the folder to write the notes to")

    font = SoundFont(args.soundfont)
    if args.list:
        for (bank, program), name in font.programs.items():
            print(f"{bank}:{program}" if bank else program, name, sep="\t")
        return
    for instrument, bank, program in instruments:
        if (bank, program) not in font.programs:
            raise UserError(
                f"--instruments {instrument}={bank}:{program}: {args.soundfont} has no such program (see --list)"
            )
    for instrument, bank, program in instruments:
        print(write_instrument(font, instrument, bank, program, Path(args.nsynth_path) / "audio"))


def write_instrument(font, instrument, bank, program, folder):
    """Write the notes of one program that ``folder`` lacks; return a line that says how many."""
    paths = {
        key: folder / note_name(instrument, *key) for key in itertools.product(PITCHES, VELOCITIES)
    }
    missing = [key for key, path in paths.items() if not path.exists()]
    line = f"{instrument}: {font.programs[bank, program]}: {len(paths) - len(missing)} notes already there"
    if not missing:
        return line
    notes = render_instrument(font, bank, program, instrument)
    written = [key for key in missing if key in notes]
    for key in written:
        write_audio(paths[key], notes[key], NOTE_RATE)
    return f"{line}, {len(written)} written, {len(missing) - len(written)} silent ones left out"


if __name__ == "__main__":
    raise SystemExit(main())
