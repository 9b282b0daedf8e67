"""Convert from Python as predict.py does: a recording into a file, or an array into an array.

    from conversion.simple import convert, convert_array

    path = convert("song.m4a", model="guitar")  # writes song_guitar.wav beside it
    converted = convert_array(audio, 44100, model="guitar")

Keywords have the names and defaults of predict.py's flags. Mistakes raise `cli.UserError`.
"""

import functools
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from common import cli, devices, kinds
from common.cli import UserError
from common.files import place_beside
from common.run_facts import RunFacts
from conversion import known_models
from conversion.convert import LEVELS, QUALITIES, Output, convert_file
from conversion.outputs import name_beside
from sound.recordings import DEPTHS, MAX_CHANNELS, RATES, create_sound
from sound.survey import listen
from sound.transpose import OCTAVE

KEPT_MODELS = 3  # in memory, 220 MB each
CHOICES = {  # of the arguments of `convert`
    "quality": QUALITIES,
    "level": LEVELS,
    "bits": (None, *DEPTHS),
    "precision": devices.INFERENCE,
}
LIMITS = {  # lowest and highest value of those that are numbers
    "normalize": (-100, 0),
    "start": (0, math.inf),
    "seconds": (0, math.inf),
    "sr": RATES,
    "sample_rate": RATES,
    "transpose": (-OCTAVE, OCTAVE),
    "mix": (0, 1),
}


def convert(
    recording,
    model,
    output=None,
    *,
    quality="normal",
    level="match",
    normalize=None,
    start=0.0,
    seconds=None,
    sr=None,
    bits=None,
    precision="auto",
    transpose=0.0,
    mix=1.0,
):
    """Convert a recording to the same samples as predict.py.

    Args:
        recording: path of a recording or a video.
        model: part of a name that fits only one, or path; see `known_models.find_model`.
        output: path; its extension sets the format; default: song_guitar.wav next to song.m4a.
        quality: key of `convert.QUALITIES`.
        level: key of `convert.LEVELS`.
        normalize: peak instead of the level, dBFS.
        start, seconds: the part to convert, s; default: all.
        sr: sampling rate of the output, Hz; default: the input's.
        bits: 16, 24 or "float"; default: the input's, 16 for lossy formats.
        precision: of the network, "auto", "float32" or "bfloat16".
        transpose: semitones that the recording is moved up before, -12 ... 12.
        mix: share of the conversion, 0 ... 1; the rest is the recording itself.

    Returns:
        `Path` of the written file. No file is replaced: if ``output`` exists, the name is numbered.

    Raises:
        UserError: the recording or model cannot be used, the output cannot be written, or an
            argument has an unknown value or one out of range.
    """
    _check(quality=quality, level=level, bits=bits, precision=precision)
    _check_range(normalize=normalize, start=start, seconds=seconds)
    _check_range(sr=sr, transpose=transpose, mix=mix)
    sr = _as_whole("sr", sr)
    path = known_models.find_model(model)
    recording = Path(recording)
    target = Path(output or name_beside(recording, known_models.make_label(path)))
    survey = listen(recording, start, seconds)
    if survey.remark:
        print(f"{cli.one_line(recording)}: {survey.remark}; expect little", file=sys.stderr)
    written = []
    convert_file(
        load_network(path, precision),
        recording,
        target,
        QUALITIES[quality]._replace(pull=RunFacts(path).pull, transpose=transpose),
        Output(sr, bits, level, normalize, mix),
        survey=survey,
        place=lambda part, name: written.append(place_beside(part, name)),
    )
    return written[0]


def convert_array(
    audio, sample_rate, model, *, quality="normal", level="match", normalize=None, precision="auto"
):
    """Convert audio in memory, in the same way as `convert` a floating-point file.

    Args:
        audio: float (n,) or (n, channels), full scale = 1.
        sample_rate: of ``audio``, whole Hz.
        model, quality, level, normalize, precision: see `convert`.

    Returns:
        float32, shape and rate of ``audio``. Peaks are not limited and may exceed full scale.

    Raises:
        ValueError: ``audio`` is empty, has another shape, or has integer, NaN or infinite samples.
        UserError: as `convert`.
    """
    if np.asarray(audio).dtype.kind in "iub":
        raise ValueError("audio holds integers; give floats, such as int16 samples / 32768")
    _check_range(sample_rate=sample_rate)
    sample_rate = _as_whole("sample_rate", sample_rate)
    audio = np.asarray(audio, np.float32)
    columns = audio.reshape(len(audio), -1) if audio.ndim in (1, 2) and audio.size else None
    if columns is None or columns.shape[1] > MAX_CHANNELS:
        raise ValueError(f"audio is of shape {audio.shape}; give (samples,) or (samples, channels)")
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "array.wav"
        about = columns.shape[1], sample_rate, len(audio) / sample_rate, "float"
        with create_sound(source, source, *about) as file:
            file.write(columns)
        options = {"quality": quality, "level": level, "normalize": normalize}
        converted = convert(source, model, precision=precision, **options)
        return soundfile.read(converted, dtype="float32")[0].reshape(audio.shape)


def load_network(path, precision):
    """Load a model's generator and keep it in memory until its file changes.

    Raises:
        UserError: there is none, or it needs more than a recording.
    """
    weights = known_models.find_weights(path)
    changed = weights and weights.stat().st_mtime_ns
    return _load(path, precision, changed)


@functools.lru_cache(maxsize=KEPT_MODELS)
def _load(path, precision, changed):
    if "keras" not in sys.modules:  # otherwise its backend is already fixed
        devices.setup_device()
    from conversion.model_files import load_generator  # loads Keras

    network = load_generator(path, precision)
    kind = kinds.kind_of(network)
    if not kind.gives_picture:
        raise UserError(f"{path}: needs more than a recording; convert with predict.py")
    return network


def _check(**arguments):
    """Raise UserError if an argument has none of its `CHOICES`."""
    for name, value in arguments.items():
        if value not in CHOICES[name]:
            choices = ", ".join(repr(choice) for choice in CHOICES[name])
            raise UserError(f"{name}={value!r}: give one of {choices}")


def _as_whole(name, value):
    """Return an argument, a number or None, as int. Raises UserError if it has a fraction."""
    if value is None:
        return None
    if value != int(value):
        raise UserError(f"{name}={value!r}: is not whole; give a whole number")
    return int(value)


def _check_range(**arguments):
    """Raise UserError if an argument, a number or None, is not within its `LIMITS`."""
    for name, value in arguments.items():
        low, high = LIMITS[name]
        if value is not None and not low <= value <= high:
            limits = f"at least {low}" if high == math.inf else f"{low} ... {high}"
            raise UserError(f"{name}={value!r}: is out of range; give {limits}")
