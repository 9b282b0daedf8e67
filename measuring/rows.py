"""Compute and measure every row of evaluate.py's tables.

`make_rows` gives audio and spectrogram of every system: the unchanged input, the network with every
phase, a perfect network. `measure` compares one of them with the target.
"""

import functools
from typing import NamedTuple

import numpy as np

import data
from common import kinds
from conversion import convert
from measuring import judges, metrics, tagger
from research import learned_phase
from sound import phase as phases
from sound.loudness import Meter
from sound.survey import find_offset, remove_offset

COLUMNS = [*metrics.MEASURES, judges.NOTE_F1]
MEASURED = [*COLUMNS, *metrics.BAND_MEASURES]  # all that `measure` gives
SHOWN_COLUMNS = [*COLUMNS, *tagger.COLUMNS]
IDENTITY, SILENCE, MEDIAN, TARGET = "identity", "silence", "median picture", "target"
MODEL, TRUE = "model", "true magnitude"
OWN_PHASE = f"{TRUE} (phase: the target's)"


def name_system(label):
    """Name a model as a system of the tables: "model", with its label if there are several."""
    return f"{MODEL} {label}".strip()


def name_row(system, phase_name):
    """Name the row of a system with a phase estimator."""
    return f"{system} (phase: {phase_name})"


class Settings(NamedTuple):
    """How pieces are converted; see the flags of these names."""

    phases: list
    options: convert.Options = convert.DEFAULTS  # without phase and pull, which vary
    phase_model: object = None
    level: str = "off"  # "match": scale the input to the training data's loudness
    pulls: dict = {}  # noqa: RUF012  {name of a model: its own pull}


class Systems(NamedTuple):
    """The compared systems, besides the trivial ones and the upper bounds."""

    models: dict  # {name, of `name_system`: model, see `convert.convert_stream`}
    median: np.ndarray | None  # per-bin median of the training targets (bins,)
    settings: Settings


class Row(NamedTuple):
    """One system's output for one piece."""

    name: str
    audio: np.ndarray  # float32 (n,)
    asked: np.ndarray  # picture (bins, 1 + n // 512) of which the audio was made, or its own
    is_made: bool  # whether the audio was made from the picture


def find_bins(models):
    """Height of the compared pictures: the largest of the networks."""
    return max((kinds.bins_of(model) for model in models), default=data.BINS)


def compute_spectrum(audio, hops=1, bins=data.BINS):
    """Compute the spectrum of audio (n,), complex64 (t, bins), with `convert_stream`'s frames."""
    stream = data.stft_stream([audio[np.newaxis]], data.HOP_LENGTH // hops, bins)
    return np.concatenate(list(stream), axis=1)[0]


def resynthesise(mag, spectrum, length, estimate, iterations, hops=1):
    """Make audio from a magnitude, in the same way as `convert.convert_audio`.

    Args:
        mag: float32 (t, bins), linear.
        spectrum: spectrum of the input, complex64 (t, bins).
        length: length of the audio, samples.
        estimate: a phase estimator of sound/phase.py.
        iterations: number of iterations of iterative estimators.
        hops: frames per HOP_LENGTH samples.

    Returns:
        float32 (length,).
    """
    hop_length = data.HOP_LENGTH // hops
    packed = [convert.pack(mag, spectrum)[np.newaxis]]
    spectra = convert.estimate_phases(packed, estimate, iterations, 0, hop_length)
    blocks = list(convert.istft_stream(spectra, hop_length))
    return np.concatenate(blocks, axis=1)[0, :length]


def without_offset(audio):
    """Remove the offset of audio (n,), as `convert.convert_audio` does."""
    channels = audio[np.newaxis]
    (block,) = remove_offset([channels], find_offset(channels))
    return block[0]


class Resynthesis:
    """Makes rows from pictures: audio of a piece's length, with phases estimated from the piece.

    All pictures have ``bins`` bins; lower pictures of a network are padded with silence. The
    piece's own picture and phases are those without its offset, as predict.py takes them.
    """

    def __init__(self, audio, settings, bins):
        self.audio = audio
        self.bins = bins
        self.settings = settings
        self.frames = 1 + len(audio) // data.HOP_LENGTH  # the rest reaches beyond the end
        self.gain = find_training_gain(audio) if settings.level == "match" else 1.0
        heard = without_offset(audio)
        self.spectrum = compute_spectrum(heard, settings.options.hops, bins)  # (t, bins)
        self.picture = convert.spectrum_to_db(self.spectrum)  # (t, bins)

    def convert(self, model, picture):
        """Run a network on a picture (t, bins) or (t, bins, inputs): (t, bins, outputs)."""
        own = kinds.bins_of(model)
        swapped = picture[:, :own].swapaxes(0, 1)
        converted = convert.convert_picture(model, swapped, self.settings.options)
        return np.pad(converted.swapaxes(0, 1), ((0, 0), (0, self.bins - own), (0, 0)))

    def at_usual_hop(self, picture):
        """Keep the frames of a picture (t, bins) at the usual hop: (bins, t)."""
        hops = self.settings.options.hops
        return picture[hops - 1 :: hops][: self.frames].T

    def row_of_sound(self, name, audio, picture):
        """Make a row from existing audio and its own picture (t, bins)."""
        return Row(name, audio, self.at_usual_hop(picture), False)

    def row(self, name, asked, phase_name, rotation=None, pull=phases.PULL):
        """Make a row from the picture ``asked`` (t, bins) and an estimator's phase.

        ``rotation`` (t, bins, 2) turns the input's phase into a learned one, unless a phase model
        does; ``pull`` is of the anchored one.
        """
        spectrum = self.spectrum
        if phase_name in phases.LEARNED:
            if self.settings.phase_model:
                both = np.stack([self.picture, asked], axis=-1)
                rotation = self.convert(self.settings.phase_model, both)
            spectrum = learned_phase.turn(spectrum, rotation)
        estimate = functools.partial(phases.ALL[phase_name], pull=pull)
        return self._made(name, asked, spectrum, estimate)

    def row_of_phase(self, name, asked, spectrum):
        """Make a row from the picture ``asked`` (t, bins) and the phase of a spectrum."""
        return self._made(name, asked, spectrum, phases.ALL["input"])

    def _made(self, name, asked, spectrum, estimate):
        mag = data.db_to_amplitude(asked)
        iterations = self.settings.options.phase_iterations
        hops = self.settings.options.hops
        audio = resynthesise(mag, spectrum, len(self.audio), estimate, iterations, hops)
        return Row(name, audio, self.at_usual_hop(asked), True)


def find_training_gain(audio):
    """Factor that scales audio (n,) to the loudness of the training data."""
    meter = Meter()
    meter.add(audio[np.newaxis])
    return convert.find_gain(meter.integrated(), convert.TRAINING_LOUDNESS)


def amplify(picture, gain):
    """Scale the sound of a picture on the dB scale, of any shape, by ``gain``."""
    if gain == 1:
        return picture
    return data.amplitude_to_db(data.db_to_amplitude(picture) * np.float32(gain))


def make_rows(systems, audio, reference):
    """Yield every `Row` of one piece. Each network runs once.

    A learned phase comes from the model (for the true magnitude from the first model), or from the
    phase model.

    Args:
        systems: `Systems`.
        audio: the input, float32 (n,).
        reference: the target recording (n,); None leaves out the upper bounds and the trivial
            systems except identity.
    """
    models, median, settings = systems
    bins = find_bins(models.values())
    make = Resynthesis(audio, settings, bins)
    unchanged = convert.spectrum_to_db(compute_spectrum(audio, settings.options.hops, bins))
    yield make.row_of_sound(IDENTITY, audio, unchanged)
    if reference is not None:
        yield make.row_of_sound(SILENCE, np.zeros_like(audio), np.zeros_like(make.picture))
        if median is not None:
            yield make.row(MEDIAN, np.broadcast_to(median, make.picture.shape), "input")
    rotations = []
    for system, model in models.items():
        outputs = make.convert(model, amplify(make.picture, make.gain))
        magnitude = amplify(outputs[..., 0], 1 / make.gain)
        rotations.append(outputs[..., 1:])
        pull = settings.pulls.get(system, phases.PULL)
        for name in settings.phases:
            yield make.row(name_row(system, name), magnitude, name, rotations[-1], pull)
    if reference is not None:
        spectrum = compute_spectrum(reference, settings.options.hops, bins)
        true = convert.spectrum_to_db(spectrum)
        for name in settings.phases:
            yield make.row(name_row(TRUE, name), true, name, rotations[0])
        yield make.row_of_phase(OWN_PHASE, true, spectrum)
        yield make.row_of_sound(TARGET, reference, true)


class MeasuredSound:
    """Representations of a recording for the measures, each computed on first use."""

    def __init__(self, audio, bins=data.BINS):
        self.audio = audio
        self.bins = bins

    @functools.cached_property
    def picture(self):
        """(bins, t) on the dB scale."""
        return data.spectrogram(self.audio, self.bins)

    @functools.cached_property
    def full_picture(self):
        """(512, t) on the dB scale: the full band."""
        if self.bins == data.FULL_BINS:
            return self.picture
        return data.spectrogram(self.audio, data.FULL_BINS)

    @functools.cached_property
    def low(self):
        """The audio at 16 kHz."""
        return metrics.resample(self.audio)

    @functools.cached_property
    def mel(self):
        """`metrics.log_mel`."""
        return metrics.log_mel(self.low)


def things_to_compare(row, target=None, notes=None):
    """Collect the arguments of the measures for one row: {name in `metrics.Measure.takes`: value}.

    Args:
        row: `Row`.
        target: the target recording, a `MeasuredSound`, or None.
        notes: of the score, see `evaluate.read_notes`, or None.
    """
    sound = MeasuredSound(row.audio, len(row.asked))
    things = {"asked": row.asked}
    if row.is_made:
        things["written_picture"] = sound.picture
        things["written_mag"] = data.db_to_amplitude(sound.picture)
        things["asked_mag"] = data.db_to_amplitude(row.asked)
    if target:
        for name in ("picture", "full_picture", "low", "mel"):
            things[name] = getattr(sound, name)
            things[f"target_{name}"] = getattr(target, name)
    if row.name == OWN_PHASE:
        things["waveform"] = row.audio
        things["target_waveform"] = target.audio
    if notes:
        things["heard_notes"] = judges.hear_notes(row.audio)
        things["score_notes"] = notes
    return things


def measure(row, target=None, notes=None):
    """Compute all measures that apply to a row: {key: value}; arguments: `things_to_compare`."""
    things = things_to_compare(row, target, notes)
    found = {}
    for column in MEASURED:
        if all(name in things for name in column.takes):
            found[column.key] = column.function(*(things[name] for name in column.takes))
    return found
