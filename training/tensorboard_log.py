"""Write a run's numbers, spectrograms and audio for TensorBoard."""

import importlib.util

import keras
import numpy as np

import data
from common.cli import UserError
from report import listening
from sound.recordings import read_audio


def check_packages():
    """Raise UserError if the packages for --tensorboard are missing."""
    needed = ("tensorflow", "tensorboard")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--tensorboard: needs {' and '.join(missing)}; pip install {' '.join(missing)}"
        )


class TensorBoard(keras.callbacks.Callback):
    """Writes each epoch's numbers, preview and sound from the run folder to TensorBoard.

    The steps are the numbers of the epochs. It must come after `Session`, which makes these files.
    """

    def __init__(self, run):
        super().__init__()
        import tensorflow  # with any backend

        self.run = run
        self.tf = tensorflow
        self.writer = None
        self.fixed_written = False  # in this start

    def on_epoch_end(self, epoch, logs=None):
        """Write the newest row of the history and, if it exists, its preview."""
        if self.writer is None:  # not earlier, so that a start without training leaves no file
            folder = self.run.folder / "tensorboard"
            self.writer = self.tf.summary.create_file_writer(str(folder))
        row = self.run.history[-1]
        step = row["epoch"]
        preview = self.run.folder / "previews" / f"epoch_{step:03d}"
        with self.writer.as_default(step=step):
            for name, value in row.items():
                if name != "epoch":
                    self.tf.summary.scalar(name, value)
            picture = preview / "spectrogram.png"
            if picture.is_file():
                pixels = self.tf.io.decode_png(picture.read_bytes(), channels=4)
                self.tf.summary.image("preview", pixels[self.tf.newaxis])
            self._write_sound("output", preview / "output")
            if not self.fixed_written:
                self.fixed_written = self._write_fixed()
        self.writer.flush()

    def _write_fixed(self):
        """Write the preview's input and target; returns whether they exist yet."""
        folder = self.run.folder / "previews"
        for name in ("input", "target"):
            self._write_sound(name, folder / name)
        return listening.sound_path(folder / "target").is_file()

    def _write_sound(self, name, stem):
        path = listening.sound_path(stem)
        if path.is_file():
            audio = read_audio(path)[np.newaxis, :, np.newaxis]
            self.tf.summary.audio(name, audio, sample_rate=data.SAMPLE_RATE)
