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
    """Converts the start of a held-out piece to a picture and a sound.

    The origin is one kept out of the training, if any of these has the piece. Sound is written if
    the recordings of the features are available.

        previews/input.*, target.*      picture, and sound
        previews/epoch_003/output.*     of that epoch
        previews/epoch_003/spectrogram.png, about.json

    Args:
        training: `setup.Training`.
        generator: Keras model.

    Raises:
        UserError: --preview_piece matches no held-out piece, or several.
    """

    def __init__(self, training, generator):
        args, sets = training.args, training.sets
        self.folder = training.run.folder / "previews"
        self.every = args.preview_every
        self.piece = choose_piece(args.preview_piece, sets.split["validation"])
        self.audios = sets.description.get("audios")  # None without recordings, as of make_data.py
        features = Path(args.dataset_path)
        origins = [*(args.hold_out_origin or ()), *args.origin]
        self.origin = find_player(features, origins, self.piece)
        self.target = args.target
        self.model = generator if training.kind.gives_picture else None
        self.audio = None  # the input's recording, if available
        frames = PREVIEW_SECONDS * data.SAMPLE_RATE // data.HOP_LENGTH
        if self.every and self.model is not None:
            self.audio = self._read_audio(self.origin)
            if self.audio is None:
                self._tell_silence(features)
        if self.audio is not None:  # as long as the sound, so that clicks on the picture match it
            frames = 1 + len(self.audio) // data.HOP_LENGTH
        self.input = read_start(features / self.origin / f"{self.piece}.npy", frames)
        self.truth = read_start(features / self.target / f"{self.piece}.npy", frames)
        self.begun = False

    def __call__(self, epoch):
        """Write the preview of an epoch, if --preview_every includes it."""
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
            normal = convert.QUALITIES["normal"]
            converted = convert.convert_audio(self.model, self.audio, data.SAMPLE_RATE, normal)
            write_sound(folder / "output", converted)
        about = {"piece": self.piece, "origin": self.origin, "target": self.target}
        write_json(folder / "about.json", about)

    def _write_fixed(self):
        """Write the input and the target, which are the same for all epochs."""
        for name, picture, audio in (
            ("input", self.input, self.audio),
            ("target", self.truth, self._read_audio(self.target)),
        ):
            pictures.write_card_picture(picture, self.folder / f"{name}.png")
            if audio is not None:
                write_sound(self.folder / name, audio)

    def _tell_silence(self, features):
        """Print why previews have no sound."""
        if self.audios is None:
            reason = f"{features / 'features.json'}: names no recordings"
        else:
            reason = f"{Path(self.audios) / self.origin}: has no recording of {self.piece}"
        print(f"note: {one_line(reason)}, so previews have no sound", file=sys.stderr)

    def _read_audio(self, instrument):
        """Read the start of the piece; None without a recording."""
        if self.audios is None:
            return None
        path = find_audio(Path(self.audios) / instrument, self.piece)
        if not path:
            return None
        return read_audio(path)[: PREVIEW_SECONDS * data.SAMPLE_RATE]


def find_player(features, instruments, piece):
    """Find the first of the ``instruments`` that has a piece, because some may lack it."""
    for name in instruments:
        if (features / name / f"{piece}.npy").is_file():
            return name
    return instruments[0]


def write_sound(stem, audio):
    """Write mono ``audio`` for the run's page; reduce its level if it would clip."""
    peak = np.abs(audio).max(initial=0)
    write_audio(listening.sound_path(stem), audio / max(1, peak))


def choose_piece(wanted, names):
    """Choose the piece of the previews: the match of ``wanted`` in ``names``, or the first."""
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
        f"--preview_piece {wanted}: matches {len(fitting)} held-out pieces; give one of {among}"
    )


def read_start(path, frames):
    """Read up to ``frames`` first frames of a piece's picture: dB scale, float16 (bins, t)."""
    count = math.ceil(frames / data.TILE_FRAMES)
    return data.join_tiles(dataset.Tiles(path).read(0, count), frames)
