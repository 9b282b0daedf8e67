"""Convert the start of a held-out piece after an epoch, as a spectrogram and as audio."""

import math
import sys
from pathlib import Path

import numpy as np

import data
from common import dataset
from common.cli import UserError, one_line
from common.files import write_json
from conversion import convert
from report import listening, pictures
from sound.recordings import find_audio, read_audio, write_audio

PREVIEW_SECONDS = 12


class Preview:
    """Converts the start of a held-out piece, for the eye and the ear.

    It is of an origin kept out of the training, if there is any that has the piece. Sound is
    written where the recordings are that the features were made of.

        previews/input.*, target.*      picture, and sound
        previews/epoch_003/output.*     of that epoch
        previews/epoch_003/spectrogram.png, about.json

    Args:
        training: `setup.Training`.
        generator: Keras model.

    Raises:
        UserError: --preview_piece fits no held-out piece, or several.
    """

    def __init__(self, training, generator):
        args, sets = training.args, training.sets
        self.folder = training.run.folder / "previews"
        self.every = args.preview_every
        self.piece = choose_piece(args.preview_piece, sets.split["validation"])
        self.audios = Path(sets.description.get("audios", ""))
        features = Path(args.dataset_path)
        origins = [*(args.hold_out_origin or ()), *args.origin]
        self.origin = find_player(features, origins, self.piece)
        self.target = next(name for name in args.target if name != self.origin)
        training_pieces = sets.split["train"]
        self.model = training.kind.prepare_preview(
            generator, features, self.target, training_pieces
        )
        self.audio = None  # of the input, where there is a recording of it
        frames = PREVIEW_SECONDS * data.SAMPLE_RATE // data.HOP_LENGTH
        if self.every and self.model is not None:
            self.audio = self._read_audio(self.origin)
            if self.audio is None:
                place = one_line(self.audios / self.origin)
                text = f"no recording of {self.piece} there, so previews have no sound"
                print(f"note: {place}: {text}", file=sys.stderr)
        if self.audio is not None:  # so that a click on a picture plays what it shows
            frames = 1 + len(self.audio) // data.HOP_LENGTH
        self.input = read_start(features / self.origin / f"{self.piece}.npy", frames)
        self.truth = read_start(features / self.target / f"{self.piece}.npy", frames)
        self.begun = False

    def __call__(self, epoch):
        """Write the preview of an epoch, if it is one's turn."""
        if self.model is None or not self.every or epoch % self.every:
            return
        if not self.begun:
            self._write_fixed()
            self.begun = True
        folder = self.folder / f"epoch_{epoch:03d}"
        output = convert.convert_picture(self.model, self.input.astype(np.float32))[..., 0]
        shown = {
            f"{self.origin} (input)": self.input,
            f"epoch {epoch} (output)": output,
            f"{self.target} (true)": self.truth,
        }
        pictures.write_spectrograms(shown, folder / "spectrogram.png", title=self.piece)
        pictures.write_card_picture(output, folder / "output.png")
        if self.audio is not None:
            converted = convert.convert_audio(self.model, self.audio, data.SAMPLE_RATE)
            write_sound(folder / "output", converted)
        about = {"piece": self.piece, "origin": self.origin, "target": self.target}
        write_json(folder / "about.json", about)

    def _write_fixed(self):
        """The input and the true target, which are the same for all epochs."""
        for name, picture, audio in (
            ("input", self.input, self.audio),
            ("target", self.truth, self._read_audio(self.target)),
        ):
            pictures.write_card_picture(picture, self.folder / f"{name}.png")
            if audio is not None:
                write_sound(self.folder / name, audio)

    def _read_audio(self, instrument):
        """The beginning of the piece, or None where its recording is not there."""
        path = find_audio(self.audios / instrument, self.piece)
        if not path:
            return None
        return read_audio(path)[: PREVIEW_SECONDS * data.SAMPLE_RATE]


def find_player(features, instruments, piece):
    """The first of the ``instruments`` that has a piece: not all origins need have it."""
    for name in instruments:
        if (features / name / f"{piece}.npy").is_file():
            return name
    return instruments[0]


def write_sound(stem, audio):
    """Write mono ``audio`` for the run's page, turned down where it would clip."""
    peak = np.abs(audio).max(initial=0)
    write_audio(listening.sound_path(stem), audio / max(1, peak))


def choose_piece(wanted, names):
    """The piece of the previews: the one of ``names`` that ``wanted`` fits, or the first."""
    if wanted is None:
        return names[0]
    if wanted in names:
        return wanted
    fitting = [name for name in names if wanted in name]
    if len(fitting) == 1:
        return fitting[0]
    choices = fitting or names
    among = ", ".join(choices[:5])
    if len(choices) > 5:
        among += ", ..."
    raise UserError(
        f"--preview_piece {wanted}: fits {len(fitting)} held-out pieces; give one of {among}"
    )


def read_start(path, frames):
    """The picture of a piece's first frames, so many or fewer: dB scale, float16 (bins, t)."""
    count = math.ceil(frames / data.TILE_FRAMES)
    return data.join_tiles(dataset.Tiles(path).read(0, count), frames)
