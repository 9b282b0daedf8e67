"""Make the embedded notes, demo/notes: a subset of render_notes.py's notes, compressed.

    python demo/make_notes.py --soundfont FluidR3_GM.sf2 --nsynth_path demo/notes

Writes every third or fourth pitch at four of NSynth's five velocities as Ogg Vorbis. Step 1 shifts
these notes to the other pitches. demo/README.md gives the reasons and the cost.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import soundfile

from common.files import complete
from NoteSynthesizer import NOTE_RATE, PITCHES, VELOCITIES, note_name
from render_notes import DEFAULT_PROGRAMS, SoundFont, find_font, parse_instrument, render_program

KEPT_VELOCITIES = VELOCITIES[:-1]  # few pieces use the loudest
# First pitch and step. A font samples every few pitches itself, so the offset matters: these are
# nearest to the full bank.
KEPT_PITCHES = {
    "keyboard_acoustic": PITCHES[0::4],
    "guitar_acoustic": PITCHES[0::3],
    "string_acoustic": PITCHES[1::3],
    "synth_lead_synthetic": PITCHES[1::3],
}
COMPRESSION = 0.2  # libsndfile's, 0 - 1: about 40 kbit/s


def write_note(path, audio):
    """Write a note, float32 (n,), as Ogg Vorbis, unless the file exists.

    An Ogg stream contains a random number, so rewriting the same sound would change the file.
    """
    if path.exists():
        return
    with complete(path) as part:
        soundfile.write(
            part,
            audio,
            NOTE_RATE,
            format="OGG",
            subtype="VORBIS",
            compression_level=COMPRESSION,
        )


@cli.command
def main(argv=None):
    """Parse flags, render and thin each instrument."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--soundfont", required=True, help="SoundFont, .sf2")
    parser.add_argument(
        "--nsynth_path",
        type=Path,
        required=True,
        help="folder to write the notes to, in its audio/",
    )
    args = parser.parse_args(argv)
    font = SoundFont(find_font(args.soundfont))
    for text in DEFAULT_PROGRAMS:
        instrument, _, bank, program = parse_instrument(text, args.soundfont)
        notes = render_program(font, bank, program, instrument)
        highest = max(notes)[0]  # the font's highest note, which serves the pitches above it
        pitches = {*KEPT_PITCHES[instrument], highest}
        kept = [(p, v) for p, v in notes if p in pitches and v in KEPT_VELOCITIES]
        for key in kept:
            name = Path(note_name(instrument, *key)).with_suffix(".ogg")
            write_note(args.nsynth_path / "audio" / name, notes[key])
        print(f"{instrument}: {len(kept)} of {len(notes)} notes -> {args.nsynth_path}")


if __name__ == "__main__":
    raise SystemExit(main())
