"""Step 4: convert recordings with a trained generator.

    python predict.py --model runs/keyboard_acoustic_2_guitar_acoustic --input piano.wav --output guitar.wav
    python predict.py --model runs/keyboard_acoustic_2_guitar_acoustic --input recordings --output converted

Reads recordings and videos of any format and sampling rate, mono or not, and of any length: they stream through, so memory
does not grow with them. The output has the input's length, channels and rate. Its level is the network's; if its peak
would pass full scale, the whole is turned down to fit. A folder is mirrored below --output; files already there are kept.
Where the input is digital silence, so is the output. Each channel is converted by itself: mid and side came out 0.2 dB
worse in magnitude and 0.6 dB in the level difference of the channels (two voices panned half left and right), more so
the wider the image.
"""

import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import data
import devices
import kinds
import learned_phase
import phase as phases
import styles
from audio import AUDIO_EXTENSIONS, RATES, WRITTEN_EXTENSIONS, open_sound, read_audio
from cli import UserError
from convert import BATCH_SIZE, OVERLAP, convert_file

_BAR = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total} s [{elapsed}<{remaining}]"


def as_written(path):
    """The name of a recording's conversion: its own, as .wav if its format is only read."""
    return path if path.suffix.lower() in WRITTEN_EXTENSIONS else path.with_suffix(".wav")


def plan(inputs, output):
    """Pairs (source, target) that ``--input`` and ``--output`` ask for; folders are mirrored. Raises UserError."""
    inputs, output = [Path(path) for path in inputs], Path(output)
    audio = output.suffix.lower() in AUDIO_EXTENSIONS and not output.is_dir()
    if audio and (len(inputs) > 1 or inputs[0].is_dir()):
        raise UserError(f"--output {output}: one file cannot take several; give a folder")
    if not audio and (
        output.is_file()
        or (output.suffix and len(inputs) == 1 and inputs[0].is_file() and not output.is_dir())
    ):
        raise UserError(
            f"--output {output}: neither a folder nor {', '.join(WRITTEN_EXTENSIONS)}; give one of these"
        )
    pairs = []
    for path in inputs:
        if path.is_dir():
            found = cli.find_files(path, AUDIO_EXTENSIONS)
            found = [
                file for file in found if output.resolve() not in file.resolve().parents
            ]  # the output may lie inside
            if not found:
                raise UserError(f"{path}: holds no recording and no video; give another --input")
            pairs += [(file, output / as_written(file.relative_to(path))) for file in found]
        else:
            pairs.append((path, output if audio else output / as_written(Path(path.name))))
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
            with open_sound(source) as sound:
                seconds = (sound.frames or 0) / sound.samplerate  # an estimate
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


def prepare(model, phase, style=None, phase_model=None):
    """The function that `predict` takes, made of a model and the flags --phase, --style and --phase_model.

    Raises:
        UserError: a model needs a flag that is missing, or cannot use one that is given.
    """
    learned_phase.check_phases([phase], model, phase_model)
    if phase_model and phase not in phases.LEARNED:
        raise UserError(
            f"--phase_model: is not used by --phase {phase}; give --phase {' or '.join(phases.LEARNED)}"
        )
    if style and not kinds.takes_style(model):
        raise UserError(f"--style {style}: this model knows one target only; leave it out")
    if kinds.takes_style(model) and not style:
        raise UserError(
            "--style: is missing, and this model knows several targets; give a recording of the one wanted"
        )
    converter = styles.with_style(model, data.spectrogram(read_audio(style))) if style else model
    return learned_phase.with_phase(converter, phase_model) if phase_model else converter


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
        help="recordings or videos, or folders of them: wav, flac, mp3, m4a, mp4 ...",
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
        type=cli.number(int, *RATES),
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
        open_sound(missing[0][0]).close()  # a mistake shows before the model loads
    devices.setup_device(args.gpu)
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
