"""Speed of step 4, end to end and by stage, and the process's peak memory.

    python benchmarks/predict.py --minutes 10
    python benchmarks/predict.py --minutes 60 --overlap 0.5 --phase griffinlim --channels 2

Makes a sound and an untrained generator, converts in this process, and prints x real time: seconds of audio per second.
Stages run one after another, each with as many threads as its library takes. End to end counts the start-up too. On a
busy machine look at the processor time, which other programs hardly change.
"""

import contextlib
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

START = time.perf_counter()
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import soundfile  # noqa: E402

import cli  # noqa: E402
import convert
import data  # noqa: E402
import devices
import predict  # noqa: E402
from audio import RATES

STAGES = {  # stage -> what to time, where several nest each counts without what it waits for
    "reading": (data, "read_blocks"),
    "resampling": (data, "resample_stream"),
    "STFT": (data, "analyse_blocks"),
    "dB, tiles, blending": (predict, "convert_frames"),
    "network": (predict, "_run"),
    "phase": (predict, "estimate_phases"),
    "inverse STFT": (predict, "synthesise"),
    "writing": (predict, "write_spool"),
}


class Stopwatch:
    """Time spent in each stage, without the time of stages inside it."""

    def __init__(self):
        self.seconds, self.stack, self.last = defaultdict(float), ["rest"], time.perf_counter()

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
    bar = (
        sum(np.sin(2 * np.pi * f * h * t) / h * np.exp(-t * h) for f in notes for h in range(1, 9))
        / 16
    )
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
    add("--overlap", type=cli.number(float, 0, 0.9), default=0.0, help="of tiles, fraction")
    add("--phase", choices=convert.phases.ESTIMATORS, default="input", help="phase estimator")
    add("--phase_iterations", type=cli.number(int, 0), default=32, help="iterations of Griffin-Lim")
    add("--batch_size", type=cli.number(int, 1), default=convert.BATCH_SIZE, help="tiles at once")
    add("--gpu", default="cpu", help="GPU number, or cpu")
    return parser


def save_untrained(path, filters):
    """Write a generator's file, in a process of its own, whose memory does not count."""
    program = "import cli; devices.setup_device('cpu'); import models; models.build_generator({}).save({!r})"
    subprocess.run([sys.executable, "-c", program.format(filters, str(path))], cwd=ROOT, check=True)


def watch_stages(watch, model):
    """Have ``watch`` time each of STAGES."""
    for stage, (module, name) in STAGES.items():
        if name == "_run":
            model.predict_on_batch = watch.wrap(stage, model.predict_on_batch)
        else:
            setattr(module, name, watch.wrap(stage, getattr(module, name)))


@cli.command
def main(argv=None):
    """Measure and print."""
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        made = time.perf_counter()
        source, model_path = (
            Path(folder, "input.wav"),
            args.model or Path(folder, "generator.keras"),
        )
        make_sound(source, round(args.minutes * 60), args.rate, args.channels)
        if not args.model:
            save_untrained(model_path, args.filters)
        made = time.perf_counter() - made  # not part of converting

        devices.setup_device(args.gpu)
        import models

        model = models.load_generator(model_path)
        loaded = time.perf_counter() - START - made

        watch_stages(watch := Stopwatch(), model)
        seconds, _, _ = convert.convert_file(
            model,
            source,
            Path(folder, "output.wav"),
            phase=args.phase,
            phase_iterations=args.phase_iterations,
            overlap=args.overlap,
            batch_size=args.batch_size,
        )
        watch.switch()

    total, used = time.perf_counter() - START - made, time.process_time()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"{model.count_params():,} parameters, {seconds:.0f} s of audio, {vars(args)}"
    )
    print(
        f"end to end    {seconds / total:8.1f} x real time  ({total:.1f} s; {used:.1f} s of processor time)"
    )
    print(f"peak memory   {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:8.2f} GiB")
    print(f"{'start, load':20} {seconds / loaded:8.1f} x  {loaded / total:6.1%}")
    for stage in [*STAGES, "rest"]:
        spent = watch.seconds[stage]
        print(
            f"{stage:20} {seconds / spent if spent else float('inf'):8.1f} x  {spent / total:6.1%}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
