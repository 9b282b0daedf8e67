"""A stream of audio through a generator: tiles that overlap, the network, blending, phase, sound."""

import tempfile

import numpy as np

import cli
import data
import learned_phase
import phase as phases
from audio import create_sound, named_errors, open_sound, read_blocks, resample_stream, write_spool
from cli import UserError

# Without overlap the picture jumps at tile borders 2.6 times as much as elsewhere. A quarter of a tile ends that and lowers
# the error by 0.03 dB; half a tile lowers it by another 0.003 dB at 1.5 times the cost (width 16, six held-out pieces).
OVERLAP = 0.25
BATCH_SIZE = 8


def convert_audio(model, audio, sample_rate, **options):
    """Convert a recording that is in memory, by the same stream as the command.

    Args:
        model: see `convert_stream`; ``options``: its others.
        audio: float (n,) or (n, channels), full scale = 1, any n; each channel is converted by itself.
        sample_rate: of ``audio``, whole Hz.

    Returns:
        float32, shape and rate of ``audio``; may exceed full scale. Nothing is left of the input above 11 kHz.

    Raises:
        ValueError: ``audio`` holds NaN or infinite samples.
        KeyError: no such phase estimator.
    """
    audio = np.asarray(audio, np.float32)
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")
    stream = convert_stream(model, [np.atleast_2d(audio.T)], sample_rate, **options)
    return np.concatenate(list(stream), axis=1)[:, : len(audio)].T.reshape(audio.shape)


def convert_picture(model, picture, overlap=OVERLAP, batch_size=BATCH_SIZE):
    """The network's picture of a whole piece: dB scale (256, t) or (256, t, k), 0 ... 1 -> float32 (256, t, channels).

    Tiles overlap and are blended as in `convert_audio`, and frames that are silent (all zero) stay so.
    """
    stream = convert_frames(
        model, [picture.swapaxes(0, 1)[np.newaxis]], lambda frames: frames, overlap, batch_size
    )
    return np.concatenate([converted for _, converted in stream], axis=1)[0].swapaxes(0, 1)


def convert_stream(
    model,
    blocks,
    rate,
    new_rate=None,
    *,
    phase="input",
    phase_iterations=32,
    overlap=OVERLAP,
    batch_size=BATCH_SIZE,
    seed=0,
):
    """Convert a stream: float32 arrays (channels, any) at ``rate`` -> the same at ``new_rate`` (default: ``rate``).

    What comes out is up to 12 ms longer (resampled: a little more) than what went in: the caller cuts it.

    Args:
        model: Keras generator (`models.load_generator`), or any function of its form: float32 (n, 256, 256, 1) in [-1, 1]
            -> the same. It always gets ``batch_size`` tiles, of zeros where there are no more.
        phase: estimator's name in `phase.ESTIMATORS` or, if the model gives three outputs, `phase.LEARNED`.
        phase_iterations: of iterative estimators.
        overlap: fraction of a tile that the next one covers again, 0 <= overlap < 1.
        batch_size: tiles that go through the network at once.
        seed: of random phases.
    """
    blocks = resample_stream(blocks, rate, data.SAMPLE_RATE)
    frames = convert_frames(model, data.stft_stream(blocks), spectrum_to_db, overlap, batch_size)
    turn = learned_phase.turned if phase in phases.LEARNED else lambda unit, _: unit
    spectra = (
        data.db_to_amplitude(c[..., 0]) * turn(data.phasor(original), c[..., 1:])
        for original, c in frames
    )
    spectra = estimate_phases(spectra, phases.ALL[phase], phase_iterations, seed)
    return resample_stream(istft_stream(spectra), data.SAMPLE_RATE, new_rate or rate)


def istft_stream(spectra):
    """Inverse of `data.stft_stream`: stream of spectra (channels, any, 256) -> stream of audio float32 (channels, any)."""
    for piece in data.rechunk(spectra, data.BLOCK_FRAMES, keep=1):
        yield data.istft_frames(piece)


def spectrum_to_db(frames):
    """Complex spectra on the scale of `data.magnitude` -> dB scale, float32, same shape."""
    return data.amplitude_to_db(np.abs(frames))


def tile_weights():
    """Weight of each frame of a tile, (256,) float32: a triangle, for a tile's middle sees context on both sides."""
    return np.bartlett(data.TILE_FRAMES + 2)[1:-1].astype(np.float32)


def convert_frames(model, frames, to_db, overlap, batch_size):
    """Send a stream of frames through the network in tiles that overlap, and blend them on the dB scale.

    Args:
        frames: stream of arrays (channels, any, 256, ...), time before frequency.
        to_db: makes dB-scaled pictures, float32 (channels, any, 256) or (channels, any, 256, k), of them.
        model, overlap, batch_size: see `convert_audio`.

    Yields:
        (frames, converted): as they came, and what the network gave, float32 (channels, any, 256, outputs), the first
        output in [0, 1]; 0 where the whole frame was 0. Weights sum to 1 everywhere: the first and last edge, which one
        tile covers, count fully.
    """
    stride = max(1, round(data.TILE_FRAMES * (1 - overlap)))
    held = data.TILE_FRAMES - stride  # frames that later tiles cover too
    weights = tile_weights()[:, np.newaxis, np.newaxis]
    total, weight = (
        np.zeros((1, held, 1, 1), np.float32),
        np.zeros((held, 1, 1), np.float32),
    )  # of tiles before: incomplete
    for piece in data.rechunk(frames, batch_size * stride, keep=held):
        channels, length, bins = piece.shape[:3]
        spans = [
            slice(start, start + data.TILE_FRAMES)
            for start in range(0, max(1, length - held), stride)
        ]
        done, end = len(spans) * stride, len(spans) * stride + held
        picture = np.pad(
            to_db(piece).reshape(channels, length, bins, -1),
            ((0, 0), (0, end - length), (0, 0), (0, 0)),
        )
        tiles = np.stack(
            [picture[:, span].swapaxes(1, 2) for span in spans], axis=1
        )  # (channels, n, 256, 256, k)
        tiles = run_network(
            model, tiles.reshape(-1, bins, data.TILE_FRAMES, picture.shape[-1]), batch_size
        )
        tiles = tiles.reshape(channels, -1, bins, data.TILE_FRAMES, tiles.shape[-1]).swapaxes(2, 3)
        shape = channels, end, bins, tiles.shape[-1]
        total = np.pad(total, ((0, 0), (0, done), (0, 0), (0, 0))) + np.zeros(shape, np.float32)
        weight = np.pad(weight, ((0, done), (0, 0), (0, 0)))
        for k, span in enumerate(spans):
            total[:, span] += tiles[:, k] * weights
            weight[span] += weights
        assert weight.min() > 0
        sounds = piece.reshape(channels, length, -1).any(axis=2)[..., np.newaxis, np.newaxis]
        converted = total[:, :length] / weight[:length] * sounds
        yield piece[:, :done], converted[:, :done]
        rest = piece[:, done:], converted[:, done:]
        total, weight = total[:, done:], weight[done:]
    yield rest


def run_network(model, tiles, batch_size):
    """Tiles of the dB scale -> converted tiles, float32 (n, 256, 256, outputs), in batches of one size: nothing retraces.

    The first output is on the dB scale, others stay as the network gives them. A phase network's outputs are others.
    """
    run = getattr(model, "predict_on_batch", model)
    padding = np.zeros((-len(tiles) % batch_size, *tiles.shape[1:]), np.float32)
    batches = data.to_network(np.concatenate([tiles, padding])).reshape(
        -1, batch_size, *tiles.shape[1:]
    )
    converted = np.concatenate([np.asarray(run(batch)) for batch in batches])[: len(tiles)]
    if not np.isfinite(converted).all():
        raise UserError(
            "--model: its network gives NaN or infinite values; train it again with a lower learning rate"
        )
    if converted.shape[-1] != 2:
        converted[..., 0] = data.from_network(converted[..., 0])
    return converted


def estimate_phases(spectra, estimate, iterations, seed):
    """Give a stream of spectra (channels, any, 256) the phases that ``estimate`` makes of it, magnitudes unchanged.

    Blocks carry a margin of ``iterations`` frames on both sides, so they give what the whole would (see phase.py).
    """
    start, rest = 0, None  # index of the block's first frame
    for piece in data.rechunk(spectra, data.BLOCK_FRAMES, keep=2 * iterations):
        mag, unit = np.abs(piece), data.phasor(piece)
        result = np.stack(
            [
                m * estimate(m.T, p.T, iterations=iterations, seed=seed, start=start).T
                for m, p in zip(mag, unit)
            ]
        )
        begin = iterations if start else 0
        end = max(begin, result.shape[1] - iterations)
        yield result[:, begin:end]
        rest = result[:, end:]
        start += data.BLOCK_FRAMES
    yield rest


def convert_file(
    model, source, target, new_rate=None, normalize=None, progress=lambda seconds: None, **options
):
    """Convert one recording, whatever its length, at flat memory.

    The peak is known at the end only, so float32 samples wait in a nameless temporary file beside the output, which
    the system removes even if the process is killed.

    Args:
        source, target: paths; the target's extension chooses the format.
        new_rate: of the output, Hz; default: the input's.
        normalize: peak level wanted, dBFS; None keeps the level unless it would clip.
        progress: called with the seconds done, after each block.
        options: of `convert_stream`.

    Returns:
        (seconds of audio, peak of the network's output, gain applied).
    """
    with (
        open_sound(source) as sound,
        named_errors(target),
        cli.complete(target) as part,
        tempfile.TemporaryFile(dir=target.parent) as spool,
    ):
        rate, peak = new_rate or sound.samplerate, 0.0
        with create_sound(target, part, sound.channels, rate) as output:
            for block in convert_stream(
                model, read_blocks(sound), sound.samplerate, rate, **options
            ):
                peak = max(peak, float(np.abs(block).max(initial=0)))
                spool.write(np.ascontiguousarray(block.T).tobytes())
                progress(block.shape[1] / rate)
            wanted = min(peak, 1.0) if normalize is None else 10 ** (normalize / 20)
            gain = wanted / peak if peak else 1.0
            length = round(sound.tell() * rate / sound.samplerate)
            write_spool(spool, output, length, gain)
    return length / rate, peak, gain
