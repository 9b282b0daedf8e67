"""Speed of step 4, end to end and by stage, the process's peak memory, and what finer hops cost.

    python benchmarks/predict.py --minutes 10
    python benchmarks/predict.py --minutes 10 --quality draft normal best
    python benchmarks/predict.py --minutes 60 --quality best --channels 2

Makes a sound and an untrained generator, converts in this process, and prints x real time: seconds
of audio per second. Stages run one after another, each with as many threads as its library takes.
End to end counts the start-up too. On a busy machine look at the processor time, which other
programs hardly change.
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

import measure  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402

import cli  # noqa: E402
import convert  # noqa: E402
import data  # noqa: E402
import devices  # noqa: E402
import survey  # noqa: E402
from audio import RATES  # noqa: E402

STAGES = {  # stage -> what to time; where several nest, each counts without what it waits for
    "measuring the input": (survey, "listen"),
    "reading": (convert, "read_blocks"),
    "resampling": (convert, "resample_stream"),
    "STFT": (data, "stft_stream"),
    "dB, tiles, blending": (convert, "convert_frames"),
    "network": None,  # the model's own method
    "phase": (convert, "estimate_phases"),
    "inverse STFT": (convert, "istft_stream"),
    "writing": (convert, "write_spool"),
}


class StageWatch:
    """Time spent in each stage, without the time of stages inside it."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self.stack = ["rest"]
        self.last = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, stage):
        """Count the time of a ``with`` block for ``stage``."""
        self.switch()
        self.stack.append(stage)
        try:
            yield
        finally:
            self.switch()
            self.stack.pop()

    def switch(self):
        """Book the time since the last switch on the stage that runs now."""
        now = time.perf_counter()
        self.seconds[self.stack[-1]] += now - self.last
        self.last = now

    def wrap(self, stage, function):
        """Time a function, or a generator in each of its steps."""

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
    """Write chords with decaying overtones: nothing in the code depends on what it is."""
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
        help="of tiles, fraction",
    )
    add(
        "--quality",
        choices=convert.QUALITIES,
        nargs="+",
        default=["normal"],
        help="hop and phase, as of predict.py; of several, each is converted in turn",
    )
    add("--batch_size", type=cli.number(int, 1), default=convert.BATCH_SIZE, help="tiles at once")
    add("--gpu", default="cpu", help="GPU number, or cpu")
    return parser


def save_untrained(path, filters):
    """Write a generator's file, in a process of its own, whose memory does not count."""
    program = (
        "import devices; devices.setup_device('cpu')\n"
        f"import models; models.build_generator({filters}).save({str(path)!r})"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def watch_stages(watch, model):
    """Have ``watch`` time each of STAGES."""
    for stage, place in STAGES.items():
        if place is None:
            model.predict_on_batch = watch.wrap(stage, model.predict_on_batch)
        else:
            module, name = place
            setattr(module, name, watch.wrap(stage, getattr(module, name)))


def convert_and_print(watch, quality, model, folder, args):
    """Convert the sound once, and print what it took; returns the processor time, s."""
    watch.switch()
    watch.seconds.clear()
    began = time.perf_counter()
    used = time.process_time()
    settings = convert.QUALITIES[quality]
    done = convert.convert_file(
        model,
        folder / "input.wav",
        folder / "output.wav",
        overlap=args.overlap,
        batch_size=args.batch_size,
        **settings._asdict(),
    )
    watch.switch()
    total = time.perf_counter() - began
    used = time.process_time() - used
    print(f"\n{quality}: {settings}")
    speed = done.seconds / total
    print(
        f"converting    {speed:8.1f} x real time  ({total:.1f} s; {used:.1f} s of processor time)"
    )
    print(f"peak memory   {measure.peak_memory():8.2f} GiB")
    for stage in [*STAGES, "rest"]:
        spent = watch.seconds[stage]
        speed = done.seconds / spent if spent else float("inf")
        print(f"{stage:20} {speed:8.1f} x  {spent / total:6.1%}")
    return used


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
            save_untrained(path, args.filters)
        made = time.perf_counter() - made  # not part of converting

        devices.setup_device(args.gpu)
        import models

        model = models.load_generator(path)
        loaded = time.perf_counter() - START - made
        print(f"{measure.machine()}, load {os.getloadavg()[0]:.1f}")
        print(f"{model.count_params():,} parameters, {vars(args)}")
        print(f"start, load   {loaded:8.1f} s")
        warm_up = np.zeros((args.batch_size, 256, 256, 1), np.float32)
        model.predict_on_batch(warm_up)  # compiles; that is not part of converting
        watch = StageWatch()
        watch_stages(watch, model)
        used = []
        for quality in args.quality:
            used.append(convert_and_print(watch, quality, model, folder, args))
            print(f"processor time{used[-1] / used[0]:7.2f} x that of {args.quality[0]}")


if __name__ == "__main__":
    raise SystemExit(main())
