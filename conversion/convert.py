"""Convert a stream of audio: overlapping tiles, the network, blending, phase, inverse STFT.

    audio  --STFT, dB-->  picture  --cut_tiles-->  tiles  --run_network-->  tiles
           --OverlapAdd-->  picture  --estimate_phases-->  spectra  --istft_stream-->  audio

Several channels go through the network as one, their mean, and are placed again before the last
step: see sound/stereo.py.

Finer hops: the network knows pictures at a hop of 512 samples. With ``hops`` = k it gets k of
them, of the same audio moved by 512 / k samples each. Interleaved, what it gives is one picture
at a hop of 512 / k, of which phase and sound are made: more frames cover each sample, so that
less is left to chance where magnitude and phase do not fit each other.

Level: the network knows one, `TRAINING_LOUDNESS`. `convert_file` measures a recording in a pass of
its own and brings it there. Loudness and peak of the output are known at the end only, so float32
samples wait in a nameless temporary file beside the output, which the system removes even if the
process is killed. Peaks above `loudness.CEILING` are limited, and the whole is raised by what that
costs in loudness, by at most `MAKE_UP`. Floating-point output is not limited: it holds such peaks,
and whoever mixes it turns it down without loss.
"""

import functools
import math
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data
from common import kinds
from common.cli import UserError
from common.files import complete
from sound import phase as phases
from sound import stereo
from sound.loudness import SAFE_PEAK, Limiter, Meter
from sound.recordings import (
    READ_SIZE,
    check_writable,
    choose_depth,
    create_sound,
    named_errors,
    open_sound,
    print_remarks,
    read_blocks,
    read_spool,
    resample_stream,
    write_blocks,
)
from sound.survey import Excerpt, find_offset, listen, remove_offset
from sound.transpose import transpose

# Without overlap the picture jumps at tile borders. A quarter of a tile lowers the error by 0.04
# dB, half a tile by another 0.002 dB at 1.5 times the cost (the shipped guitar, nine pieces; see
# docs/evaluation.md).
OVERLAP = 0.25
BATCH_SIZE = 8
HOPS = (1, 2, 4)  # allowed numbers of interleaved pictures

# Loudness of the training data: the median of ten pieces that synthesize_audios.py rendered
# on keyboard_acoustic (-33 ... -23 LUFS). Notes of a bank are scaled so that a median note at
# velocity 100 peaks at 0.28 (`NoteSynthesizer.LEVEL`), so it is similar for every bank.
TRAINING_LOUDNESS = -28.7  # LUFS

# Largest gain that compensates the loudness lost in the limiter. More gain would compress all loud
# parts to one level. A square wave, which cannot be limited without loss, stays softer.
MAKE_UP = 6.0  # dB
MAKE_UP_ROUNDS = 4
LOUDNESS_TOLERANCE = 0.1  # LU: inaudible

LEVELS = {  # {value of --level: meaning}
    "match": "as loud as the input (ITU-R BS.1770)",
    "network": "the input's gain is undone, and the network's change of level is kept",
    "off": "neither input nor output is scaled",
}


class Options(NamedTuple):
    """How a stream is converted. The flags of predict.py have the same names."""

    phase: str = "input"  # name of an estimator in `phase.ALL`; a learned one needs its network
    phase_iterations: int = 32  # iterations of Griffin-Lim
    pull: float | None = None  # of the anchored phase, see `RunFacts.pull`; None: the default
    hops: int = 1  # interleaved pictures, one of `HOPS`; the time is proportional to it
    overlap: float = OVERLAP  # fraction of a tile that overlaps with the next, 0 <= overlap < 1
    batch_size: int = BATCH_SIZE  # tiles per network call, see `tiles_at_once`
    seed: int = 0  # of random phases
    transpose: float = 0.0  # semitones by which the recording is shifted first, -12 ... 12


DEFAULTS = Options()


class Output(NamedTuple):
    """Format and level of the file that `convert_file` writes."""

    rate: int | None = None  # Hz; None: the input's
    bits: int | str | None = None  # of `recordings.DEPTHS`; None: the input's, if supported
    level: str = "match"  # one of `LEVELS`
    normalize: float | None = None  # peak instead, dBFS; then there is no limiting
    mix: float = 1.0  # share of the conversion, 0 ... 1; the rest is the recording


LIKE_INPUT = Output()

# Measured by two judges on nine pieces, a piano of the training set -> guitar: F1 of notes (the
# target's own .701) / distance of timbre (two halves of the target 28), see docs/phase.md.
QUALITIES = {
    "draft": Options("input", 0, hops=1),  # .755 / 285
    "normal": Options("griffinlim_anchored", 8, hops=2),  # .716 / 80
    "best": Options("griffinlim_anchored", 16, hops=4),  # .711 / 77
}


def convert_audio(model, audio, sample_rate, options=DEFAULTS):
    """Convert audio in memory with the same stream as predict.py, without changing its level.

    It is for measuring. `simple.convert_array` also handles the level, as predict.py does.

    Several channels are converted once and placed, see sound/stereo.py. An offset is removed.

    Args:
        model: see `convert_stream`.
        audio: float (n,) or (n, channels), full scale = 1, any n.
        sample_rate: of ``audio``, whole Hz.
        options: `Options`.

    Returns:
        float32, shape and rate of ``audio``; may exceed full scale. It is silent above the model's
        pictures: above 11 or 22 kHz.

    Raises:
        ValueError: ``audio`` holds NaN or infinite samples.
        KeyError: no such phase estimator.
    """
    audio = np.asarray(audio, np.float32)
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")
    channels = np.atleast_2d(audio.T)
    prepared = _prepare([channels], find_offset(channels))
    blocks = list(convert_stream(model, prepared, sample_rate, options=options))
    converted = np.concatenate(blocks, axis=1)[:, : len(audio)]
    return converted.T.reshape(audio.shape)


def convert_picture(model, picture, options=DEFAULTS):
    """Convert the picture of a whole piece with the network.

    Tiles overlap and are blended as in `convert_stream`. Silent frames (all zero) stay silent.

    Args:
        model: see `convert_stream`.
        picture: dB scale 0 ... 1, float32 (bins, t) or (bins, t, inputs). With ``options.hops`` = k
            it has k pictures, interleaved frame by frame.
        options: `Options`; those of the phase are not used.

    Returns:
        float32 (bins, t, outputs).
    """
    frames = picture.swapaxes(0, 1)[np.newaxis]  # (1, t, bins[, inputs])
    stream = convert_frames(model, [frames], _keep, options)
    parts = [converted for _, converted in stream]
    return np.concatenate(parts, axis=1)[0].swapaxes(0, 1)


def _keep(frames):
    return frames


def convert_stream(model, blocks, rate, new_rate=None, options=DEFAULTS):
    """Convert a stream: float32 arrays (channels, any) at ``rate`` -> the same at ``new_rate``.

    The output is up to 12 ms longer than the input, slightly more if resampled; the caller cuts
    it.

    Args:
        model: Keras generator (`model_files.load_generator`), or any function of its form: float32
            (n, bins, 256, 1) in [-1, 1] -> the same. It always gets `tiles_at_once` tiles; missing
            ones are zeros.
        blocks: the audio, full scale = 1.
        rate, new_rate: rates of input and output, Hz; default of the output: the input's.
        options: `Options`; its phase is one of `phase.ESTIMATORS` or, if the model's kind gives
            a rotation, of `phase.LEARNED`.

    Raises:
        KeyError: no such phase estimator.
    """
    hop_length = data.HOP_LENGTH // options.hops
    blocks = resample_stream(blocks, rate, data.SAMPLE_RATE)
    blocks = transpose(blocks, data.SAMPLE_RATE, options.transpose)
    placement = stereo.Placement(hop_length)
    frames = data.stft_stream(stereo.split(blocks), hop_length, kinds.bins_of(model))
    frames = ahead(placement.mix(frames))
    frames = convert_frames(model, frames, spectrum_to_db, options)
    kind = kinds.kind_of(model) if options.phase in phases.LEARNED else kinds.PLAIN
    packed = ahead(_pack(frames, kind))
    pull = phases.PULL if options.pull is None else options.pull
    estimate = functools.partial(phases.ALL[options.phase], pull=pull)
    iterations, seed = options.phase_iterations, options.seed
    spectra = estimate_phases(packed, estimate, iterations, seed, hop_length)
    audio = istft_stream(placement.place(spectra), hop_length)
    return resample_stream(audio, data.SAMPLE_RATE, new_rate or rate)


def ahead(blocks):
    """Compute a stream in a thread of its own, one block ahead, beside what is made of it.

    Whatever ends this stream early, Ctrl-C included, does not wait for the block under way: its
    decoder may hang. Whoever closes the recording ends that block, too, see `recordings.Sound`.
    """
    blocks = iter(blocks)
    thread = ThreadPoolExecutor(1)
    try:
        following = thread.submit(next, blocks, None)
        while (block := _wait_for(following)) is not None:
            following = thread.submit(next, blocks, None)
            yield block
    finally:
        thread.shutdown(wait=False)


def _wait_for(future):
    """Return a future's result. Ctrl-C ends the wait within a second.

    Python handles a Ctrl-C that comes just before a wait only after the wait, so none is long.
    """
    while not future.done():
        wait([future], timeout=1)
    return future.result()


def _pack(frames, kind):
    """Convert a stream of `convert_frames` for `estimate_phases`.

    ``kind``: the network's `Kind`, which turns the input's phase.
    """
    for original, converted in frames:
        spectrum = kind.turn_phase(original, converted)
        yield pack(data.db_to_amplitude(converted[..., 0]), spectrum)


def pack(mag, spectrum):
    """Stack new magnitude and input's spectrum, both (..., bins), to complex64 (..., 2, bins)."""
    return np.stack([mag.astype(np.complex64), spectrum], axis=-2)


def istft_stream(spectra, hop_length=data.HOP_LENGTH):
    """Inverse of `data.stft_stream`: complex64 (channels, any, bins) -> float32 (channels, any)."""
    shared = data.N_FFT // hop_length - 1  # frames that two blocks share
    for block in data.rechunk(spectra, data.BLOCK_FRAMES, keep=shared):
        yield data.istft_frames(block, hop_length)


def spectrum_to_db(frames):
    """Complex spectra on the scale of `data.magnitude` -> dB scale, float32, same shape."""
    return data.amplitude_to_db(np.abs(frames))


def tile_weights():
    """Weight of each frame of a tile, (256,) float32.

    A triangle, because the middle of a tile has context on both sides.
    """
    return np.bartlett(data.TILE_FRAMES + 2)[1:-1].astype(np.float32)


def convert_frames(model, frames, to_db, options):
    """Convert a stream of frames with the network in overlapping tiles, and blend them.

    Args:
        model: see `convert_stream`.
        frames: stream of arrays (channels, any, bins, ...), time before frequency.
        to_db: function that makes dB-scaled pictures of frames, float32 (rows, any, bins) or
            (rows, any, bins, inputs).
        options: `Options`.

    Yields:
        (frames, converted): input frames, and the network's output, float32 (channels, any, bins,
        outputs), the first output in [0, 1]; 0 where the whole frame is 0.
    """
    hops = options.hops
    stride = max(1, round(data.TILE_FRAMES * (1 - options.overlap)))
    held = data.TILE_FRAMES - stride  # frames at a block's end that later tiles also cover
    batch_size = tiles_at_once(options.batch_size, kinds.bins_of(model))
    windows = math.lcm(batch_size, hops) // hops  # tiles in a row at a time: whole batches
    blend = OverlapAdd(stride)
    for block in data.rechunk(frames, windows * stride * hops, keep=held * hops):
        rows = split_hops(block, hops)
        tiles = cut_tiles(to_db(rows), stride)
        outputs = run_network(model, tiles, batch_size)
        converted = blend.add(outputs)[:, : rows.shape[1]]
        converted *= find_sound(rows)
        converted = join_hops(converted, hops)[:, : block.shape[1]]
        done = outputs.shape[1] * stride * hops  # frames that no later tile covers
        yield block[:, :done], converted[:, :done]
    yield block[:, done:], converted[:, done:]


def tiles_at_once(batch_size, bins):
    """Number of tiles of ``bins`` per network call; ``batch_size`` is the number for 256 bins.

    Half as many tiles of 512 bins need the same memory and take no more time.
    """
    return max(1, batch_size * data.BINS // bins)


def split_hops(frames, hops):
    """Split interleaved pictures into rows; missing frames at the end are zeros.

    (channels, t, ...) at the fine hop -> (channels * hops, ceil(t / hops), ...) at the usual one.
    """
    channels, length = frames.shape[:2]
    padding = [(0, 0)] * frames.ndim
    padding[1] = (0, -length % hops)
    padded = np.pad(frames, padding)
    pictures = padded.reshape(channels, -1, hops, *frames.shape[2:]).swapaxes(1, 2)
    return pictures.reshape(channels * hops, -1, *frames.shape[2:])


def join_hops(rows, hops):
    """Inverse of `split_hops`: (channels * hops, t, ...) -> (channels, t * hops, ...)."""
    length = rows.shape[1]
    pictures = rows.reshape(-1, hops, *rows.shape[1:]).swapaxes(1, 2)
    return pictures.reshape(-1, length * hops, *rows.shape[2:])


def cut_tiles(picture, stride):
    """Cut tiles every ``stride`` frames; the last one is padded with zeros.

    Picture float32 (rows, t, bins) or (rows, t, bins, inputs) -> (rows, n, bins, 256, inputs),
    frequency before time, as the network takes them; n is at least 1.
    """
    picture = picture.reshape(*picture.shape[:3], -1)
    length = picture.shape[1]
    held = data.TILE_FRAMES - stride
    starts = range(0, max(1, length - held), stride)
    missing = starts[-1] + data.TILE_FRAMES - length
    picture = np.pad(picture, ((0, 0), (0, missing), (0, 0), (0, 0)))
    tiles = [picture[:, start : start + data.TILE_FRAMES] for start in starts]
    return np.stack(tiles, axis=1).swapaxes(2, 3)


class OverlapAdd:
    """Blends overlapping tiles, block by block: their mean, weighted by `tile_weights`.

    Each frame's sum is divided by the sum of its weights, so the first and last edge, covered by
    one tile, keep their level.
    """

    def __init__(self, stride):
        self.stride = stride
        self.held = data.TILE_FRAMES - stride
        self.total = np.zeros((1, self.held, 1, 1), np.float32)  # of the tiles before
        self.weight = np.zeros((self.held, 1, 1), np.float32)

    def add(self, tiles):
        """Add the next tiles, float32 (rows, n, bins, 256, outputs).

        Returns:
            float32 (rows, n * stride + held, bins, outputs). The last ``held`` frames are not
            final: later tiles cover them, and the next call begins with them.
        """
        rows, count, bins, _, outputs = tiles.shape
        done = count * self.stride
        total = np.zeros((rows, done + self.held, bins, outputs), np.float32)
        weight = np.zeros((done + self.held, 1, 1), np.float32)
        total[:, : self.held] = self.total
        weight[: self.held] = self.weight
        weights = tile_weights()[:, np.newaxis, np.newaxis]
        for k in range(count):
            span = slice(k * self.stride, k * self.stride + data.TILE_FRAMES)
            total[:, span] += tiles[:, k].swapaxes(1, 2) * weights
            weight[span] += weights
        assert weight.min() > 0
        self.total = total[:, done:].copy()
        self.weight = weight[done:].copy()
        return total / weight


def find_sound(frames):
    """Find frames with any nonzero value: (rows, t, bins, ...) -> bool (rows, t, 1, 1)."""
    sounds = frames.reshape(*frames.shape[:2], -1).any(axis=2)
    return sounds[..., np.newaxis, np.newaxis]


def run_network(model, tiles, batch_size):
    """Run the network on tiles, in batches of one size so that it is compiled once.

    Args:
        model: see `convert_stream`.
        tiles: dB scale, float32 (rows, n, bins, 256, inputs).
        batch_size: tiles per network call.

    Returns:
        float32 (rows, n, bins, 256, outputs). A magnitude, the first output, is on the dB scale;
        others are unchanged.

    Raises:
        UserError: the network's output is not finite.
    """
    run = getattr(model, "predict_on_batch", model)
    flat = tiles.reshape(-1, *tiles.shape[2:])
    outputs = []
    for start in range(0, len(flat), batch_size):
        batch = flat[start : start + batch_size]
        count = len(batch)
        if count < batch_size:
            batch = np.concatenate([batch, np.zeros((batch_size - count, *batch.shape[1:]))])
        outputs.append(np.asarray(run(data.to_network(batch)))[:count])
    converted = np.concatenate(outputs)
    if not np.isfinite(converted).all():
        remedy = "train another, with a lower learning rate"
        raise UserError(f"--model: the network's output has NaN or infinite values; {remedy}")
    if kinds.kind_of(model).gives_picture:
        converted[..., 0] = data.from_network(converted[..., 0])
    return converted.reshape(*tiles.shape[:2], *converted.shape[1:])


def estimate_phases(packed, estimate, iterations, seed, hop_length=data.HOP_LENGTH):
    """Estimate phases for a stream of magnitudes.

    Blocks have a margin of `phase.reach` frames on both sides, so the result is that of the whole.

    Args:
        packed: complex64 (channels, any, 2, bins), see `pack`.
        estimate, iterations, seed: see sound/phase.py.
        hop_length: samples from frame to frame.

    Yields:
        spectra, complex64 (channels, any, bins).
    """
    margin = phases.reach(iterations, hop_length)
    start = 0  # index of the block's first frame
    for block in data.rechunk(packed, data.BLOCK_FRAMES, keep=2 * margin):
        result = np.empty_like(block[:, :, 0])
        for channel in range(len(block)):
            mag = block[channel, :, 0].real.T
            unit = estimate(
                mag,
                block[channel, :, 1].T,
                iterations=iterations,
                seed=seed,
                start=start,
                hop_length=hop_length,
            )
            result[channel] = (mag * unit).T
        begin = margin if start else 0
        end = max(begin, result.shape[1] - margin)
        yield result[:, begin:end]
        start += data.BLOCK_FRAMES
    yield result[:, end:]


class Conversion(NamedTuple):
    """Result of `convert_file`."""

    seconds: float
    peak: float  # of the output as written, full scale = 1
    gain: float  # applied to the network's output
    loudness: float  # of the output as written, LUFS; -inf for silence
    limited: bool  # whether peaks were limited
    remarks: tuple = ()  # remarks about repairs of the recording


def convert_file(
    model,
    source,
    target,
    options=DEFAULTS,
    output=LIKE_INPUT,
    survey=None,
    place=os.replace,
    progress=None,
):
    """Convert a recording, or a part of it, as a stream; memory does not grow with its length.

    Its level: see the top of this file.

    Args:
        model: see `convert_stream`.
        source, target: paths; the target's extension chooses the format.
        options, output: `Options` and `Output`.
        survey: `Survey` of the part to convert; default: of the whole recording.
        place: function that renames the complete file, see `files.complete`.
        progress: called with the seconds done, block by block.

    Returns:
        `Conversion`.

    Raises:
        UserError: the recording cannot be read, or the output cannot be written.
    """
    with open_sound(source) as sound:
        output = output._replace(rate=output.rate or sound.samplerate)
        check_writable(target, sound.channels, output.rate, output.bits)
        depth = choose_depth(target, output.bits or sound.bits)
        survey = survey or listen(source)
        about = sound.channels, output.rate, survey.seconds, depth or 16
        with (
            named_errors(target),
            complete(target, place) as part,
            tempfile.TemporaryFile(dir=Path(target).parent) as spool,
            tempfile.TemporaryFile(dir=Path(target).parent) as mixed,
            create_sound(target, part, *about) as file,
        ):
            made = _convert_to_spool(model, sound, spool, survey, options, output, progress)
            if output.mix < 1:
                made = _mix_with_input(source, spool, mixed, made, survey, output)
                spool = mixed
            gain = _choose_gain(made, survey, output)
            may_limit = output.normalize is None and depth != "float"
            done = _write(spool, file, made, gain, may_limit)
    print_remarks(sound)
    return done._replace(remarks=tuple(sound.remarks))


class _Made(NamedTuple):
    """Properties of the audio in the temporary file."""

    samples: int  # length of the output
    peak: float
    loudness: float  # LUFS
    gain_in: float  # gain of the input, for the network


def _convert_to_spool(model, sound, spool, survey, options, output, progress):
    """Convert the surveyed part of an open ``sound`` to a file of raw float32: `_Made`."""
    gain_in = 1.0
    if output.level != "off":
        gain_in = find_gain(survey.mono_loudness, TRAINING_LOUDNESS)
    meter = Meter()
    excerpt = Excerpt(sound.samplerate, survey.start, survey.seconds)
    blocks = _prepare(excerpt.cut(read_blocks(sound)), survey.offset, gain_in)
    blocks = convert_stream(model, blocks, sound.samplerate, data.SAMPLE_RATE, options)
    blocks = resample_stream(meter.watch(blocks), data.SAMPLE_RATE, output.rate)
    peak = _fill_spool(spool, blocks, output.rate, progress)
    # An output without samples could not be read, and the stream is a little longer than its input
    samples = max(1, round(excerpt.samples * output.rate / sound.samplerate))
    return _Made(samples, peak, meter.integrated(), gain_in)


def _mix_with_input(source, spool, mixed, made, survey, output):
    """Mix `_Made` with the recording by ``output.mix`` and write it to ``mixed``: a new `_Made`.

    The conversion keeps the level that it has without a mix.
    """
    gain = output.mix * _choose_gain(made, survey, output._replace(normalize=None))

    def add(wet, dry):
        for one, other in zip(wet, dry):
            yield gain * one + (1 - output.mix) * other[:, : one.shape[1]]

    with open_sound(source) as sound:
        excerpt = Excerpt(sound.samplerate, survey.start, survey.seconds)
        dry = remove_offset(excerpt.cut(read_blocks(sound)), survey.offset)
        dry = resample_stream(dry, sound.samplerate, output.rate)
        wet = read_spool(spool, sound.channels, made.samples)
        blocks = add(data.rechunk(wet, READ_SIZE), data.rechunk(dry, READ_SIZE))
        peak = _fill_spool(mixed, blocks, output.rate, None)
    loudness = _measure(read_spool(mixed, sound.channels, made.samples), output.rate)
    return _Made(made.samples, peak, loudness, 1.0)


def _choose_gain(made, survey, output):
    """Choose the gain for `_Made`, before limiting."""
    if not made.peak:
        return 1.0
    if output.normalize is not None:
        return 10 ** (output.normalize / 20) / made.peak
    gain = 1 / made.gain_in
    if output.level == "match":
        gain = find_gain(made.loudness, survey.loudness, otherwise=gain)
    return gain


def _write(spool, output, made, gain, may_limit):
    """Write `_Made` to an open file with a gain: `Conversion`."""
    rate = output.samplerate
    loudness = made.loudness + 20 * math.log10(gain)
    if may_limit and gain * made.peak > SAFE_PEAK:
        gain, loss = _make_up(spool, output, made, gain)
        loudness -= loss
    limiter = Limiter(rate)
    blocks = _read_amplified(spool, output, made, gain)
    if may_limit:
        blocks = limiter.limit(blocks)
    peak = write_blocks(output, blocks)
    return Conversion(made.samples / rate, peak, gain, loudness, limiter.is_used)


def _make_up(spool, output, made, gain):
    """Compensate the loudness that a limiter takes: (gain, remaining loss in LU).

    More gain means more limiting, so the gain is found by secant steps.
    """
    rate = output.samplerate
    unlimited = _measure(_read_amplified(spool, output, made, gain), rate)

    def find_loss(raised):
        blocks = _read_amplified(spool, output, made, gain * 10 ** (raised / 20))
        return unlimited - _measure(Limiter(rate).limit(blocks), rate)

    raised = 0.0  # dB
    loss = find_loss(raised)
    step = loss
    for _ in range(MAKE_UP_ROUNDS):
        if not loss > LOUDNESS_TOLERANCE or raised == MAKE_UP:
            break
        step = min(step, MAKE_UP - raised)
        raised += step
        before, loss = loss, find_loss(raised)
        step *= loss / max(before - loss, 0.1 * step)
    return gain * 10 ** (raised / 20), loss if math.isfinite(loss) else 0.0


def _read_amplified(spool, output, made, gain):
    return _amplify(read_spool(spool, output.channels, made.samples), gain)


def _measure(blocks, rate):
    """Loudness of a stream, LUFS."""
    meter = Meter()
    for _ in meter.watch(resample_stream(blocks, rate, data.SAMPLE_RATE)):
        pass
    return meter.integrated()


def _fill_spool(spool, blocks, rate, progress):
    """Write a stream to a file as raw float32, frame by frame; returns its peak."""
    peak = 0.0
    for block in blocks:
        peak = max(peak, float(np.abs(block).max(initial=0)))
        spool.write(np.ascontiguousarray(block.T).tobytes())
        if progress:
            progress(block.shape[1] / rate)
    return peak


def find_gain(loudness, wanted, otherwise=1.0):
    """Factor from one loudness to another, both in LUFS; ``otherwise`` if one is silent."""
    if not math.isfinite(loudness) or not math.isfinite(wanted):
        return otherwise
    return 10 ** ((wanted - loudness) / 20)


def _prepare(blocks, offset, gain=1.0):
    """Prepare a recording for `convert_stream`: remove its offset, scale it to the network's level.

    Args:
        blocks: stream of float32 (channels, any).
        offset: of each channel, see `survey.remove_offset`.
        gain: factor.
    """
    return _amplify(remove_offset(blocks, offset), gain)


def _amplify(blocks, gain):
    for block in blocks:
        yield block * np.float32(gain)
