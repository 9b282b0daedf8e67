"""What app.py has done in a process of its own: listening to a recording, converting it."""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import matplotlib.image
import numpy as np

import data
from common.cli import UserError
from conversion import convert, known_models
from conversion.run_facts import RunFacts
from sound import survey
from sound.recordings import create_sound, mix_down, open_sound, read_blocks, resample_stream

KEPT_MODELS = 3  # in memory, 220 MB each
PICTURE_WIDTH = 900  # pixels of a spectrogram
LISTENED = 120  # s of a recording by which it is judged: about as many are converted


def set_up(gpu):
    """Choose the device and load the library for networks. Raises UserError: no such GPU."""
    from common import devices

    devices.setup_device(gpu)
    import models  # noqa: F401  # so that the first conversion begins at once


class Heard(NamedTuple):
    """What a recording is like."""

    seconds: float  # exact: it was read to its end
    notes: list  # sentences on what had to be done to read it
    survey: survey.Survey  # of its beginning


def listen_to(source, tell):
    """Read a recording to its end, whatever its header says: `Heard`. Raises UserError."""
    with open_sound(source) as sound:
        for _ in read_blocks(sound):
            pass
        samples = sound.tell()
    if not samples:
        raise UserError(f"{source}: holds no sound; give another file")
    heard = survey.listen(source, seconds=LISTENED)
    return Heard(samples / sound.samplerate, list(sound.remarks), heard)


@functools.lru_cache(maxsize=KEPT_MODELS)
def load_model(path):
    """The generator of a model's folder, loaded once."""
    from conversion.model_files import load_generator

    return load_generator(path)


class Order(NamedTuple):
    """What is to be converted, and how."""

    source: str  # path of the recording
    start: float  # s, where the part begins
    seconds: float | None  # its length; None: to the end
    model: str  # path
    quality: str  # key of `convert.QUALITIES`
    folder: Path  # for the outputs


class Made(NamedTuple):
    """Paths of what came of an `Order`, and how long it is in seconds."""

    before: Path
    before_picture: Path
    after: Path
    after_picture: Path
    seconds: float


def convert_order(load, order, tell):
    """Convert a recording, or a part of it.

    Args:
        load: makes a network of a model's path, see `load_model`.
        order: `Order`.
        tell: called with the part done, 0 ... 1.

    Returns:
        `Made`. The input's excerpt is made once for all orders with one folder.

    Raises:
        UserError: the recording or the model cannot be used.
    """
    label = known_models.make_label(order.model)
    before = order.folder / "input.wav"
    after = order.folder / f"{label}.wav"
    heard = _listen(order.source, order.start, order.seconds)
    if not before.exists():
        write_excerpt(order.source, before, order.start, order.seconds)
        draw_spectrogram(before, before.with_suffix(".png"))
    how = convert.QUALITIES[order.quality]
    done = 0.0

    def report_progress(block_seconds):
        nonlocal done
        done += block_seconds
        tell(min(1.0, done / heard.seconds))

    convert.convert_file(
        load(order.model),
        order.source,
        after,
        heard=heard,
        progress=report_progress,
        phase=how.phase,
        phase_iterations=how.phase_iterations,
        pull=RunFacts(order.model).pull,
        hops=how.hops,
        bits=choose_bits(order.source),
    )
    draw_spectrogram(after, after.with_suffix(".png"))
    return Made(before, before.with_suffix(".png"), after, after.with_suffix(".png"), heard.seconds)


@functools.lru_cache(maxsize=8)
def _listen(source, start, seconds):
    """`survey.listen`, once for all models: an upload never changes."""
    return survey.listen(source, start, seconds)


def choose_bits(source):
    """Depth of a recording's output, for `convert.convert_file`: None is the recording's own.

    24 bits for floating-point recordings, whose peaks above full scale a browser would clip.
    """
    with open_sound(source) as sound:
        return 24 if sound.bits == "float" else None


def write_excerpt(source, target, start, seconds):
    """Write a part of a recording as WAV, for browsers to play."""
    with open_sound(source) as sound:
        excerpt = survey.Excerpt(sound.samplerate, start, seconds)
        length = seconds or 0.0
        with create_sound(target, target, sound.channels, sound.samplerate, length) as output:
            for block in excerpt.cut(read_blocks(sound)):
                output.write(np.clip(block.T, -1, 1))


def read_picture(path):
    """The spectrogram of a sound, dB scale, float32 (512, about `PICTURE_WIDTH` at most)."""
    with open_sound(path) as sound:
        mono = map(mix_down, read_blocks(sound))
        resampled = resample_stream(mono, sound.samplerate, data.SAMPLE_RATE)
        spectra = data.stft_stream(resampled, bins=data.FULL_BINS)
        length = sound.frames / sound.samplerate * data.SAMPLE_RATE / data.HOP_LENGTH
        step = max(1, math.ceil(length / PICTURE_WIDTH))  # frames in a pixel
        parts = []
        for block in data.rechunk(spectra, 64 * step):
            mag = np.abs(block[0])  # (t, 512)
            parts.append(np.maximum.reduceat(mag, range(0, len(mag), step)))
    return data.amplitude_to_db(np.concatenate(parts)).T


def draw_spectrogram(source, target):
    """Write the spectrogram of a sound as a picture without axes, low frequencies below."""
    picture = read_picture(source)
    matplotlib.image.imsave(target, picture[::-1], vmin=0, vmax=1, cmap="magma")
