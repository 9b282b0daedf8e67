"""Make the clips of the README: the embedded piano through the shipped models, and their picture.

    python docs/clips.py

Reads docs/audio/piano.ogg, which is no recording of a performance: our own MIDI, played by notes of
the Salamander grand at 16 kHz. Writes docs/audio/*.mp3 and docs/clips.png.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from figures import draw_spectrograms

import data
import predict
from common import cli
from common.cli import UserError
from sound.recordings import read_audio, write_audio

DOCS = Path(__file__).resolve().parent
PIANO = DOCS / "audio" / "piano.ogg"
MODELS = {  # by label
    "guitar": "keyboard_acoustic_2_guitar_acoustic",
    "string": "keyboard_acoustic_2_string_acoustic",
    "synth_lead": "keyboard_acoustic_2_synth_lead_synthetic",
}
PICTURE_SECONDS = 10


def build_parser():
    """No flags."""
    return cli.Parser(__doc__)


def convert_clips(folder):
    """The piano by each model, as loud as it was: {label: float32 (n,)}. ``folder`` is for files.

    Raises:
        UserError: a conversion failed.
    """
    flags = ["--input", str(PIANO), "--model", *MODELS.values(), "--quality", "best"]
    if predict.main([*flags, "--output", str(folder)]):
        raise UserError(f"{PIANO}: could not be converted; see the line above")
    return {label: read_audio(folder / f"piano_{label}.ogg") for label in MODELS}


@cli.command
def main(argv=None):
    """Convert, write, draw."""
    build_parser().parse_args(argv)
    sounds = {"piano": read_audio(PIANO)}
    with tempfile.TemporaryDirectory() as folder:
        sounds |= convert_clips(Path(folder))
    for label, audio in sounds.items():
        write_audio(DOCS / "audio" / f"{label}.mp3", audio)
    draw_clips()


def draw_clips():
    """Draw clips.png from the mp3 files: what it shows is what one hears."""
    count = PICTURE_SECONDS * data.SAMPLE_RATE
    piano, guitar = (read_audio(DOCS / "audio" / f"{name}.mp3") for name in ("piano", "guitar"))
    pictures = {
        "in: a sampled grand, not in the training set": data.spectrogram(piano[:count]),
        "out: guitar": data.spectrogram(guitar[:count]),
    }
    draw_spectrograms("clips.png", pictures, columns=1)


if __name__ == "__main__":
    raise SystemExit(main())
