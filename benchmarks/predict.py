"""Measure step 4: speed end to end and by stage, peak memory, and the cost of finer hops.

    python benchmarks/predict.py --minutes 10
    python benchmarks/predict.py --minutes 10 --quality draft normal best
    python benchmarks/predict.py --minutes 60 --quality best --channels 2

Makes a sound and an untrained generator, converts the sound in this process, and prints x real
time: seconds of audio per second. Stages run one after another, each with its library's own number
of threads. End to end includes importing packages, loading the model and compiling it. On a busy
machine use the processor time: other programs hardly change it.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

START = time.perf_counter()
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from common import cli  # isort: skip  # noqa: E402  # first: explains a missing package
import measure  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402

import data  # noqa: E402
from common import devices  # noqa: E402
from conversion import convert  # noqa: E402
from sound import loudness, survey  # noqa: E402
from sound.recordings import RATES  # noqa: E402

MEASURING = "measuring the input"  # a separate pass: its time includes all that it calls
STAGES = {  # stage -> what to time; the time of a nested stage counts for that stage only
    MEASURING: (survey, "listen"),
    "reading": (convert, "read_blocks"),
    "resampling": (convert, "resample_stream"),
    "STFT": (data, "stft_stream"),
    "dB, tiles, blending": (convert, "convert_frames"),
    "network": None,  # the model's own method
    "phase": (convert, "estimate_phases"),
    "inverse STFT": (convert, "istft_stream"),
    "measuring the output": (loudness.Meter, "watch"),
    "writing": (convert, "write_blocks"),
}


class StageWatch:
    """Time spent in each stage. Nested stages are not included, except in MEASURING."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self.stack = ["rest"]
        self.last = time.process_time()

    @contextlib.contextmanager
    def __call__(self, stage):
        """Count the time of a ``with`` block for ``stage``."""
        if MEASURING in self.stack:
            stage = MEASURING
        self.switch()
        self.stack.append(stage)
        try:
            yield
        finally:
            self.switch()
            self.stack.pop()

    def switch(self):
        """Add the time since the last switch to the running stage."""
        now = time.process_time()
        self.seconds[self.stack[-1]] += now - self.last
        self.last = now

    def wrap(self, stage, function):
        """Time a function, or each step of a generator."""

        def timed(*args, **kwargs):
            with self(stage):
                result = function(*args, **kwargs)
            return steps(result) if hasattr(result, "__next__") else result

        def steps(generator):
            while True:
                with self(stage):
                    item = next(generator, generator)
                if item is generator:
                    return
                yield item

        return timed


def make_sound(path, seconds, rate, channels):
    """Write chords with decaying overtones. The speed does not depend on the sound.

    Args:
        path: of the wav file.
        seconds: its length, s, rounded up to whole bars of 4 s.
        rate: sampling rate, Hz.
        channels: number of identical channels.
    """
    t = np.arange(rate * 4) / rate
    notes = [220 * 2 ** (k / 12) for k in (0, 4, 7, 12)]
    bar = np.zeros(len(t))
    for frequency in notes:
        for h in range(1, 9):  # overtones
            bar += np.sin(2 * np.pi * frequency * h * t) / h * np.exp(-t * h) / 16
    bar = np.repeat(bar[:, np.newaxis].astype(np.float32), channels, axis=1)
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as sound:
        for _ in range(-(-seconds // 4)):
            sound.write(bar)


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--minutes",
        type=cli.number(float, 0.1),
        default=10,
        help="length of the recording, minutes",
    )
    add("--model", help="generator to use; default: an untrained one")
    add("--filters", type=cli.number(int, 1), default=64, help="width of the untrained generator")
    add("--bins", type=int, choices=data.HEIGHTS, default=data.BINS, help="height of its tiles")
    add(
        "--rate",
        type=cli.number(int, *RATES),
        default=data.SAMPLE_RATE,
        help="sampling rate, Hz",
    )
    add("--channels", type=cli.number(int, 1), default=1, help="channels of the recording")
    add(
        "--overlap",
        type=cli.number(float, 0, 0.9),
        default=convert.OVERLAP,
        help="fraction of a tile that overlaps with the next one",
    )
    add(
        "--quality",
        choices=convert.QUALITIES,
        nargs="+",
        default=["normal"],
        help="hop and phase, as in predict.py; several are measured in turn",
    )
    per_call = "tiles per network call"
    add("--batch_size", type=cli.number(int, 1), default=convert.BATCH_SIZE, help=per_call)
    add(
        "--stages",
        action="store_true",
        help="also measure each stage; they then run one after another, which takes longer",
    )
    add("--precision", choices=devices.INFERENCE, default="auto", help="as in predict.py")
    add("--gpu", default="cpu", help="GPU number, or cpu")
    return parser


def save_untrained(path, filters, bins):
    """Write a generator's file in another process, so that its memory is not counted."""
    program = (
        "from common import devices; devices.setup_device('cpu')\n"
        f"import models; models.build_generator({filters}, bins={bins}).save({str(path)!r})"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def watch_stages(watch, model):
    """Wrap each of STAGES so that ``watch`` times it; they then run one after another."""
    convert.ahead = iter
    for stage, place in STAGES.items():
        if place is None:
            model.predict_on_batch = watch.wrap(stage, model.predict_on_batch)
        else:
            owner, name = place
            setattr(owner, name, watch.wrap(stage, getattr(owner, name)))


def time_compiling(model, batch_size):
    """Measure the compiling of a model: seconds of its first batch minus those of its second."""
    count = convert.tiles_at_once(batch_size, model.bins)
    tiles = np.zeros((count, model.bins, data.TILE_FRAMES, 1), np.float32)
    _, first = measure.time_call(model.predict_on_batch, tiles)
    _, second = measure.time_call(model.predict_on_batch, tiles)
    return first - second


def convert_and_print(watch, quality, model, folder, args, start):
    """Convert the sound once; print time and memory.

    Args:
        watch: the `StageWatch` of the stages.
        quality: of `convert.QUALITIES`.
        model: the generator.
        folder: holds input.wav.
        args: flags.
        start: seconds before the conversion, added for end to end.

    Returns:
        Processor time, s.
    """
    watch.switch()
    watch.seconds.clear()
    began = time.perf_counter()
    processor_began = time.process_time()
    options = convert.QUALITIES[quality]
    options = options._replace(overlap=args.overlap, batch_size=args.batch_size)
    done = convert.convert_file(model, folder / "input.wav", folder / "output.wav", options)
    watch.switch()
    total = time.perf_counter() - began
    processor_time = time.process_time() - processor_began
    whole = start + total
    print(f"\n{quality}: {options}")
    print(
        f"converting    {done.seconds / total:8.1f} x real time  "
        f"({total:.1f} s; {processor_time:.1f} s of processor time)"
    )
    print(f"end to end    {done.seconds / whole:8.1f} x real time  ({whole:.1f} s)")
    print(f"peak memory   {measure.peak_memory():8.2f} GiB")
    if args.stages:
        print("processor time of each stage:")
        for stage in [*STAGES, "rest"]:
            spent = watch.seconds[stage]
            print(f"{stage:20} {spent:8.2f} s  {spent / processor_time:6.1%}")
    return processor_time


@cli.command
def main(argv=None):
    """Measure and print."""
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = time.perf_counter()
        make_sound(folder / "input.wav", round(args.minutes * 60), args.rate, args.channels)
        path = args.model or folder / "generator.keras"
        if not args.model:
            save_untrained(path, args.filters, args.bins)
        made = time.perf_counter() - made  # not part of the conversion

        devices.setup_device(args.gpu)
        from conversion import model_files

        model = model_files.load_generator(path, args.precision)
        loaded = time.perf_counter() - START - made
        start = loaded + time_compiling(model, args.batch_size)
        print(f"{measure.machine()}, load {os.getloadavg()[0]:.1f}")
        print(f"{model.count_params():,} parameters, {vars(args)}")
        print(f"start, load, compile {start:8.1f} s  ({loaded:.1f} s without compiling)")
        watch = StageWatch()
        if args.stages:
            watch_stages(watch, model)
        times = []  # processor time of each quality, s
        for quality in args.quality:
            times.append(convert_and_print(watch, quality, model, folder, args, start))
            print(f"processor time{times[-1] / times[0]:7.2f} x that of {args.quality[0]}")


if __name__ == "__main__":
    raise SystemExit(main())
