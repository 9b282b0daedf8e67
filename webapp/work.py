"""The work of app.py's worker processes: measure a recording, convert it."""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data
from common.cli import UserError
from common.run_facts import RunFacts
from conversion import convert, known_models, simple
from sound import recordings, survey
from sound.recordings import create_sound, mix_down, open_sound, read_blocks, resample_stream

PICTURE_WIDTH = 900  # pixels of a spectrogram
TOP = 8000  # Hz: above it a picture shows little of the music
BARS = 300  # of a picture of a wave
COPY_RATE = 22050  # Hz, of a large recording as the page plays it: 160 MB an hour
LONGEST_HEARD = 12  # h: a few MB of compressed silence may be longer
LISTENED = 120  # s of a recording that are measured, similar to the converted part
PATIENCE = 30  # s, see `recordings.PATIENCE`: uploads are on no network disk


def set_up_listener():
    """Prepare a process that listens."""
    recordings.PATIENCE = PATIENCE


def set_up(gpu):
    """Choose the device and load the library for networks. Raises UserError: no such GPU."""
    from common import devices

    set_up_listener()
    devices.setup_device(gpu)
    import models  # noqa: F401  # so that the first conversion starts at once


class Summary(NamedTuple):
    """Properties of a recording."""

    seconds: float  # exact length
    bytes_per_second: int  # of a conversion
    remarks: list  # remarks about repairs of the recording
    survey: survey.Survey  # of the beginning
    peaks: list  # of at most `BARS` equal parts, the loudest is 1


def listen_to(source, copy, tell):
    """Read a recording to its end and measure it.

    Args:
        source: its path.
        copy: path for a version that every browser plays, or None.
        tell: unused; see `worker.Worker.submit`.

    Returns:
        `Summary`.

    Raises:
        UserError: it cannot be read, is empty, or longer than `LONGEST_HEARD`.
    """
    with open_sound(source) as sound:
        rate = sound.samplerate
        step = max(1, rate // 100)
        peaks = []
        for block in data.rechunk(read_blocks(sound), 100 * step):
            if sound.tell() > LONGEST_HEARD * 3600 * rate:
                raise UserError(f"{source}: is longer than {LONGEST_HEARD} h; cut it into parts")
            parts = range(0, block.shape[1], step)
            if parts:
                peaks.append(np.maximum.reduceat(np.abs(block).max(axis=0), parts))
        samples = sound.tell()
    if not samples:
        raise UserError(f"{source}: has no sound; give another file")
    is_small = samples * sound.channels <= LISTENED * 2 * 48000
    if copy is not None:
        write_copy(source, copy, samples / rate, is_small)
    found = survey.listen(source, seconds=LISTENED)
    wave = find_wave(np.concatenate(peaks))
    size = 3 * sound.channels * rate  # 24 bits
    return Summary(samples / rate, size, list(sound.remarks), found, wave)


def find_wave(peaks):
    """Reduce many peaks to a list of at most `BARS`; the loudest is 1."""
    edges = np.linspace(0, len(peaks), min(len(peaks), BARS), endpoint=False).astype(int)
    bars = np.maximum.reduceat(peaks, edges)
    return (bars / max(bars.max(), 1e-6)).tolist()


def write_copy(source, target, length, is_small):
    """Write a recording as WAV, for browsers; a large one as mono at a lower rate."""
    if is_small:
        write_excerpt(source, target, 0.0, None)
        return
    with open_sound(source) as sound:
        mono = map(mix_down, read_blocks(sound))
        blocks = resample_stream(mono, sound.samplerate, COPY_RATE)
        with create_sound(target, target, 1, COPY_RATE, length) as output:
            for block in survey.Excerpt(COPY_RATE, 0.0, length).cut(blocks):
                output.write(np.clip(block.T, -1, 1))


def load_model(path):
    """Load the generator of a model's folder, see `simple.load_network`."""
    return simple.load_network(path, "auto")


class How(NamedTuple):
    """What a person chose besides recording and instruments."""

    quality: str  # key of `convert.QUALITIES`
    transpose: int = 0  # semitones
    mix: float = 1.0  # share of the conversion, 0 ... 1


class Order(NamedTuple):
    """One conversion to do, with its settings."""

    source: str  # path of the recording
    start: float  # s, where the part begins
    seconds: float  # its length
    model: str  # path
    how: How
    folder: Path  # for the outputs


class Made(NamedTuple):
    """Result of an `Order`: paths and length in seconds."""

    before: Path
    before_picture: Path
    after: Path
    after_picture: Path
    seconds: float
    loudness_before: float  # LUFS
    loudness: float


def convert_order(load, order, tell):
    """Convert a recording, or a part of it.

    Args:
        load: function that loads the network of a path, see `load_model`.
        order: `Order`.
        tell: called with the part done, 0 ... 1.

    Returns:
        `Made`. All orders with one folder share the input's excerpt.

    Raises:
        UserError: the recording or the model cannot be used.
    """
    label = known_models.make_label(order.model)
    before = order.folder / "input.wav"
    after = order.folder / f"{label}.wav"
    part, bits = _listen(order.source, order.start, order.seconds)
    if not before.exists():
        write_excerpt(order.source, before, order.start, order.seconds)
        draw_spectrogram(before, before.with_suffix(".png"))
    options = convert.QUALITIES[order.how.quality]
    options = options._replace(pull=RunFacts(order.model).pull, transpose=order.how.transpose)
    done = convert.convert_file(
        load(order.model),
        order.source,
        after,
        options,
        convert.Output(bits=bits, mix=order.how.mix),
        survey=part,
        progress=_share_of(part.seconds, tell),
    )
    draw_spectrogram(after, after.with_suffix(".png"))
    return Made(
        before,
        before.with_suffix(".png"),
        after,
        after.with_suffix(".png"),
        part.seconds,
        part.loudness,
        done.loudness,
    )


def _share_of(seconds, tell):
    """Make a function of a block's seconds that tells the part done of ``seconds``, 0 ... 1."""
    converted = 0.0  # s

    def report(block_seconds):
        nonlocal converted
        converted += block_seconds
        tell(min(1.0, converted / seconds))

    return report


@functools.lru_cache(maxsize=8)
def _listen(source, start, seconds):
    """(`Survey`, `choose_bits`) of a part, measured once, because an upload never changes."""
    with open_sound(source) as sound:
        return survey.listen_open(sound, start, seconds), choose_bits(sound)


def choose_bits(sound):
    """Choose the output depth for an open recording, for `convert.Output`; None: the recording's.

    24 bits for floating-point recordings, because browsers clip peaks above full scale.
    """
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
    """Read a sound's spectrogram, dB scale, float32 (512, at most about `PICTURE_WIDTH`)."""
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
    import matplotlib.image  # here, so that app.py --help is fast

    picture = read_picture(source)[: round(TOP * data.N_FFT / data.SAMPLE_RATE)]
    matplotlib.image.imsave(target, picture[::-1], vmin=0, vmax=1, cmap="magma")
