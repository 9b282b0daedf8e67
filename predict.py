"""Step 4: convert recordings with a trained generator.

    python predict.py --model runs/keyboard_acoustic_2_guitar_acoustic --input piano.wav --output guitar.wav
    python predict.py --model runs/keyboard_acoustic_2_guitar_acoustic --input recordings --output converted

Reads wav, flac, ogg and mp3 at any sampling rate, mono or not, and of any length: recordings stream through, so memory
does not grow with them. The output has the input's length, channels and rate. Its level is the network's; if its peak
would pass full scale, the whole is turned down to fit. A folder is mirrored below --output; files already there are kept.
Where the input is digital silence, so is the output. Each channel is converted by itself: mid and side came out 0.2 dB
worse in magnitude and 0.6 dB in the level difference of the channels (two voices panned half left and right), more so
the wider the image.
"""

import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import contextlib
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

import data
import phase as phases
from cli import UserError

# Without overlap the picture jumps at tile borders 2.6 times as much as elsewhere. A quarter of a tile ends that and lowers
# the error by 0.03 dB; half a tile lowers it by another 0.003 dB at 1.5 times the cost (width 16, six held-out pieces).
OVERLAP = 0.25
BATCH_SIZE = 8
_BAR = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total} s [{elapsed}<{remaining}]"


def predict(model, audio, sample_rate, **options):
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

    Tiles overlap and are blended as in `predict`, and frames that are silent (all zero) stay so.
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
    blocks = data.resample_blocks(blocks, rate, data.SAMPLE_RATE)
    frames = convert_frames(model, data.analyse_blocks(blocks), spectrum_to_db, overlap, batch_size)
    turn = turned if phase in phases.LEARNED else lambda unit, _: unit
    spectra = (
        data.db_to_amplitude(c[..., 0]) * turn(data.phasor(original), c[..., 1:])
        for original, c in frames
    )
    spectra = estimate_phases(spectra, phases.ALL[phase], phase_iterations, seed)
    return data.resample_blocks(synthesise(spectra), data.SAMPLE_RATE, new_rate or rate)


def turned(unit, rotation):
    """Unit phasors (..., 256) turned by a network's ``rotation`` (..., 256, 2), cos and sin of any length."""
    return unit * data.phasor(rotation[..., 0] + 1j * rotation[..., 1])


def synthesise(spectra):
    """Inverse of `data.analyse_blocks`: stream of spectra (channels, any, 256) -> stream of audio float32 (channels, any)."""
    for piece in data.pieces(spectra, data.BLOCK_FRAMES, keep=1):
        yield data.synthesise(piece)


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
        model, overlap, batch_size: see `predict`.

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
    for piece in data.pieces(frames, batch_size * stride, keep=held):
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


def with_style(model, picture):
    """A model of several targets, and the timbre it is to take -> a function of the form that `predict` takes.

    Args:
        model: Keras generator with two input channels.
        picture: dB scale (256, t), of the instrument wanted. The loudest stretch of 256 frames of it is the style.
    """
    tiles = data.slice_tiles(picture)
    style = data.to_network(tiles[tiles.mean(axis=(1, 2, 3)).argmax()].astype(np.float32))
    return lambda x: model.predict_on_batch(
        np.concatenate([x, np.broadcast_to(style, x.shape)], axis=-1)
    )


def with_phase(model, phase_model):
    """Magnitude network and phase network -> a function that gives what a network of both gives, for `predict`."""

    def run(x):
        magnitude = np.asarray(getattr(model, "predict_on_batch", model)(x))[..., :1]
        rotation = phase_model.predict_on_batch(np.concatenate([x, magnitude], axis=-1))
        return np.concatenate([magnitude, rotation], axis=-1)

    return run


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
    for piece in data.pieces(spectra, data.BLOCK_FRAMES, keep=2 * iterations):
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
        data.open_sound(source) as sound,
        named_errors(target),
        cli.complete(target) as part,
        tempfile.TemporaryFile(dir=target.parent) as spool,
    ):
        rate, peak = new_rate or sound.samplerate, 0.0
        with create_sound(target, part, sound.channels, rate) as output:
            for block in convert_stream(
                model, data.read_blocks(sound), sound.samplerate, rate, **options
            ):
                peak = max(peak, float(np.abs(block).max(initial=0)))
                spool.write(np.ascontiguousarray(block.T).tobytes())
                progress(block.shape[1] / rate)
            wanted = min(peak, 1.0) if normalize is None else 10 ** (normalize / 20)
            gain = wanted / peak if peak else 1.0
            length = round(sound.tell() * rate / sound.samplerate)
            write_spool(spool, output, length, gain)
    return length / rate, peak, gain


@contextlib.contextmanager
def named_errors(target):
    """Name ``target`` in libsndfile's errors of writing it, which come without (a disk that is full, for one)."""
    try:
        yield
    except (soundfile.LibsndfileError, AssertionError) as error:
        raise UserError(
            f"{target}: cannot be written ({str(error) or 'cut short'}); is the disk full?"
        ) from None


def create_sound(target, part, channels, rate):
    """Open ``part`` for writing what ``target``'s extension says: 16-bit PCM, Vorbis or MP3. Raises UserError."""
    try:
        return soundfile.SoundFile(part, "w", rate, channels)
    except (soundfile.LibsndfileError, ValueError, TypeError):
        remedy = "give another extension or --sr"
        raise UserError(
            f"{target}: this format does not take {channels} channels at {rate} Hz; {remedy}"
        ) from None


def write_spool(spool, output, length, gain):
    """Write the first ``length`` frames of raw float32 in ``spool``, times ``gain``."""
    spool.seek(0)
    for start in range(0, length, 2**16):  # libvorbis overflows its stack on much longer blocks
        raw = spool.read(min(2**16, length - start) * output.channels * 4)
        output.write(np.frombuffer(raw, np.float32).reshape(-1, output.channels) * np.float32(gain))


def plan(inputs, output):
    """Pairs (source, target) that ``--input`` and ``--output`` ask for; folders are mirrored. Raises UserError."""
    inputs, output = [Path(path) for path in inputs], Path(output)
    audio = output.suffix.lower() in cli.AUDIO_EXTENSIONS and not output.is_dir()
    if audio and (len(inputs) > 1 or inputs[0].is_dir()):
        raise UserError(f"--output {output}: one file cannot take several; give a folder")
    if not audio and (
        output.is_file()
        or (output.suffix and len(inputs) == 1 and inputs[0].is_file() and not output.is_dir())
    ):
        raise UserError(
            f"--output {output}: neither a folder nor {', '.join(cli.AUDIO_EXTENSIONS)}; give one of these"
        )
    pairs = []
    for path in inputs:
        if path.is_dir():
            found = cli.find_files(path, cli.AUDIO_EXTENSIONS)
            found = [
                file for file in found if output.resolve() not in file.resolve().parents
            ]  # the output may lie inside
            if not found:
                raise UserError(
                    f"{path}: holds no {', '.join(cli.AUDIO_EXTENSIONS)} file; give another --input"
                )
            pairs += [(file, output / file.relative_to(path)) for file in found]
        else:
            pairs.append((path, output if audio else output / path.name))
    targets = set()
    for source, target in pairs:
        if target.resolve() == source.resolve():
            raise UserError(
                f"{source}: the output would overwrite this input; give another --output"
            )
        if target in targets:
            raise UserError(f"{source}: another input also becomes {target}; convert them apart")
        targets.add(target)
    return pairs


def decibels(amplitude):
    """Amplitude -> text in dBFS."""
    return f"{20 * np.log10(amplitude):+.1f} dBFS" if amplitude else "silence"


def convert_all(model, pairs, **options):
    """Convert files one by one, with a progress bar in seconds of audio each; print a line of summary for each.

    A file that cannot be converted is named on stderr and passed over; the number of these is returned. If it is the
    only file, UserError passes.
    """
    failed = 0
    for source, target in pairs:
        began = time.perf_counter()
        try:
            with data.open_sound(source) as sound:
                seconds = sound.frames / sound.samplerate
            with tqdm(
                total=round(seconds), desc=source.name, leave=False, disable=None, bar_format=_BAR
            ) as bar:
                seconds, peak, gain = convert_file(
                    model, source, target, progress=bar.update, **options
                )
        except UserError as error:
            if len(pairs) == 1:
                raise
            print(f"passed over: {cli.one_line(error)}", file=sys.stderr)
            failed += 1
            continue
        speed = seconds / (time.perf_counter() - began)
        scaled = f", scaled by {20 * np.log10(gain):+.1f} dB" if gain != 1 else ""
        print(
            f"{cli.one_line(target)}: {seconds:.1f} s, {speed:.1f} x real time, peak {decibels(peak)}{scaled}"
        )
    return failed


def check_phases(names, model, phase_model=None):
    """Raise UserError if a model or a phase model is of the wrong kind, or if they cannot give the phases ``names``."""
    if model.output_shape[-1] == 2:
        raise UserError(
            "--model: gives a phase, no magnitude; name it as --phase_model beside a --model of magnitudes"
        )
    if phase_model and phase_model.output_shape[-1] != 2:
        raise UserError("--phase_model: gives a magnitude; give a model of train.py --learn phase")
    for name in names:
        if name in phases.LEARNED and not phase_model and model.output_shape[-1] == 1:
            raise UserError(
                f"--phase {name}: this model gives no phase; give --phase_model, or a --model of --learn both"
            )


def prepare(model, phase, style=None, phase_model=None):
    """The function that `predict` takes, made of a model and the flags --phase, --style and --phase_model.

    Raises:
        UserError: a model needs a flag that is missing, or cannot use one that is given.
    """
    check_phases([phase], model, phase_model)
    if phase_model and phase not in phases.LEARNED:
        raise UserError(
            f"--phase_model: is not used by --phase {phase}; give --phase {' or '.join(phases.LEARNED)}"
        )
    if model.input_shape[-1] == 1 and style:
        raise UserError(f"--style {style}: this model knows one target only; leave it out")
    if model.input_shape[-1] == 2 and not style:
        raise UserError(
            "--style: is missing, and this model knows several targets; give a recording of the one wanted"
        )
    converter = with_style(model, data.spectrogram(data.read_audio(style))) if style else model
    return with_phase(converter, phase_model) if phase_model else converter


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help="run folder, name in pretrained/, .keras file, or weights (.h5) of older Keras code",
    )
    add(
        "--input",
        required=True,
        nargs="+",
        help="recordings, or folders of them: wav, flac, ogg, mp3",
    )
    add(
        "--output",
        required=True,
        help="file, whose extension chooses the format, or folder; a file there is replaced, "
        "files in a folder are kept",
    )
    add("--style", help="recording of the instrument wanted, for a model of several targets")
    add(
        "--phase_model",
        help="model of train_generator.py --learn phase, used by --phase learned and learned_griffinlim",
    )
    add(
        "--phase",
        choices=phases.ALL,
        default="input",
        help="estimator: input keeps pitches best, griffinlim writes the network's picture most faithfully",
    )
    add(
        "--phase_iterations",
        type=cli.number(int, 0, 10_000),
        default=32,
        help="iterations of Griffin-Lim",
    )
    add(
        "--overlap",
        type=cli.number(float, 0, 0.9),
        default=OVERLAP,
        help="fraction of a tile that the next one covers again",
    )
    add(
        "--sr",
        type=cli.number(int, *data.RATES),
        help="sampling rate of the output, Hz; default: the input's",
    )
    add(
        "--normalize",
        type=cli.number(float, -100, 0),
        nargs="?",
        const=-1.0,
        metavar="DBFS",
        help="bring the peak to this level, dBFS (bare: -1); default: keep the level, unless it would clip",
    )
    add(
        "--batch_size",
        type=cli.number(int, 1, 1024),
        default=BATCH_SIZE,
        help="tiles that go through the network at once",
    )
    add("--seed", type=cli.number(int, 0, 2**31), default=0, help="seed of random phases")
    add("--gpu", help="GPU number, or cpu; default: GPU 0 if there is one")
    return parser


@cli.command
def main(argv=None):
    """Parse the flags, load the model once and convert what is missing."""
    args = build_parser().parse_args(argv)
    model = cli.find_model(args.model)
    pairs = plan(args.input, args.output)
    several = len(pairs) > 1 or Path(args.input[0]).is_dir()
    missing = [(source, target) for source, target in pairs if not (several and target.exists())]
    if len(missing) < len(pairs):
        print(f"{len(pairs) - len(missing)} of {len(pairs)} files are already in {args.output}")
    if not missing:
        return 0
    if len(missing) == 1:
        data.open_sound(missing[0][0]).close()  # a mistake shows before the model loads
    cli.setup_device(args.gpu)
    from models import load_generator

    phase_model = load_generator(args.phase_model) if args.phase_model else None
    converter = prepare(load_generator(model), args.phase, args.style, phase_model)
    failed = convert_all(
        converter,
        missing,
        new_rate=args.sr,
        normalize=args.normalize,
        phase=args.phase,
        phase_iterations=args.phase_iterations,
        overlap=args.overlap,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    print(
        f"{len(missing) - failed} of {len(missing)} recordings converted with phase '{args.phase}'"
    )
    return 2 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
