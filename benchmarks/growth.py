"""Measure how the time and memory of each step grow with its input: a table and a figure.

    python benchmarks/growth.py --nsynth_path notes --midi_path midi
    python benchmarks/growth.py --nsynth_path notes --midi_path midi --pieces 1 10 100 1000 \\
        --minutes 1 10 60 600 --table docs/growth.csv --figure docs/growth.svg
    python benchmarks/growth.py --redraw --table docs/growth.csv --figure docs/growth.svg

Steps 1 and 2 get --pieces on two instruments; the MIDI files repeat if there are too few. Step 3
trains an epoch of a fixed number of steps on the tiles of as many pieces, so only the time to open
them grows. Step 4 converts a recording of --minutes. Each step runs as its own command. Seconds are
wall-clock time, start-up included. Memory is the largest resident size of any of its processes.
--redraw draws the figure from a saved table and measures nothing. Linux and macOS.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
from measure import find_midi, machine, peak_bytes

import data
from common.cli import UserError
from common.files import read_csv, write_csv
from sound.recordings import read_audio

ROOT = Path(__file__).parent.parent
INSTRUMENTS = ("keyboard_acoustic", "guitar_acoustic")
EPOCH_TILES = 40  # of step 3
TRAINING = ["--filters", "16", "--batch_size", "4", "--epochs", "1", "--preview_every", "0"]
MODEL = "many_2_guitar"


class Cost(NamedTuple):
    """Time and memory of one command."""

    step: str
    size: float  # pieces, or minutes
    seconds: float
    gigabytes: float  # of the largest process


def run_step(step, size, *command):
    """Run a script; returns its `Cost`. Raises UserError if it fails."""
    before = time.perf_counter()
    argv = [sys.executable, *map(str, command)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    errors = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        reason = errors.strip() or f"exit code {process.returncode}"
        raise UserError(f"{command[0]}: {reason.splitlines()[-1]}")
    cost = Cost(step, size, time.perf_counter() - before, peak_bytes(usage) / 1e9)
    print(f"| {step} | {size:g} | {cost.seconds:.1f} | {cost.gigabytes:.2f} |", flush=True)
    return cost


def copy_pieces(files, count, folder):
    """Copy ``count`` MIDI files to a folder; repeat them under other names if there are fewer."""
    folder.mkdir(parents=True)
    for number, file in zip(range(count), itertools.cycle(files)):
        shutil.copyfile(file, folder / f"{number:05d}{file.suffix}")


def measure_training_steps(args, files, count, work):
    """Run steps 1, 2 and 3 with ``count`` pieces: list of `Cost`."""
    copy_pieces(files, count, work / "midi")
    audios = ["--audios_path", work / "audios"]
    where = ["--nsynth_path", args.nsynth_path.absolute(), "--midi_path", work / "midi", *audios]
    rendered = run_step(
        "1 synthesize", count, "synthesize_audios.py", *where, "--instruments", *INSTRUMENTS
    )
    features = work / "features"
    cut = run_step(
        "2 features",
        count,
        "compute_features.py",
        "--audios",
        work / "audios",
        "--features",
        features,
    )
    shutil.rmtree(work / "audios")
    found = [rendered, cut]
    if count > 1:  # training needs one piece to train on and one to hold out
        pair = ["--origin", INSTRUMENTS[0], "--target", INSTRUMENTS[1]]
        options = ["--epoch_tiles", EPOCH_TILES, "--runs_path", work / "runs", "--gpu", "cpu"]
        options += ["--validation_split", min(0.5, 2 / count), *TRAINING]
        command = ["train.py", "--dataset_path", features, *pair, *options]
        found.append(run_step("3 train", count, *command))
    return found


def write_recording(path, minutes, source):
    """Write a wav file of some whole minutes: one minute of ``source``, repeated."""
    import soundfile

    block = np.resize(source, 60 * data.SAMPLE_RATE)
    file_format = "RF64" if minutes > 300 else "WAV"  # a wav file ends at 4 GiB
    options = {"samplerate": data.SAMPLE_RATE, "channels": 1, "format": file_format}
    with soundfile.SoundFile(path, "w", subtype="PCM_16", **options) as file:
        for _ in range(minutes):
            file.write(block)


def measure_conversion(minutes, source, work, quality):
    """Run step 4 with a recording of some minutes: its `Cost`."""
    write_recording(work / "in.wav", minutes, source)
    command = ["predict.py", "--input", work / "in.wav", "--output", work / "out.flac"]
    command += ["--model", MODEL, "--quality", quality, "--gpu", "cpu"]
    return run_step(f"4 predict, {quality}", minutes, *command)


def read_costs(path):
    """Read a table that --table wrote: list of `Cost`. Raises UserError if it is no such table."""
    costs = []
    for number, cells in enumerate(read_csv(path), 1):
        if number == 1 and cells == list(Cost._fields):
            continue
        try:
            step, *values = cells
            costs.append(Cost(step, *map(float, values)))
        except (TypeError, ValueError):
            columns = ",".join(Cost._fields)
            raise UserError(f"{path}: line {number} is not '{columns}'; measure again") from None
    return costs


def draw(costs, path):
    """Draw seconds and memory against the size of the input, in the style of the docs' figures."""
    import matplotlib
    from matplotlib.figure import Figure

    sys.path.append(str(ROOT / "docs"))
    import figures

    colours = (figures.BLUE, figures.ORANGE, figures.INK, figures.PALE)
    with matplotlib.rc_context({**figures.STYLE, **figures.LARGE}):
        figure = Figure((figures.WIDTH, 8.6), layout="constrained")
        time_axes, memory_axes = figure.subplots(2, 1)
        steps = dict.fromkeys(cost.step for cost in costs)
        for step, colour, marker in zip(steps, colours, "os^D"):
            chosen = [cost for cost in costs if cost.step == step]
            unit = "minutes" if step.startswith("4") else "pieces"
            sizes = [cost.size for cost in chosen]
            look = {"color": colour, "marker": marker, "label": f"{step} ({unit})"}
            time_axes.plot(sizes, [cost.seconds for cost in chosen], **look)
            memory_axes.plot(sizes, [cost.gigabytes for cost in chosen], **look)
        time_axes.set(title="time", yscale="log", ylabel="seconds, start-up included")
        memory_axes.set(title="memory", ylabel="GB, largest process")
        memory_axes.set_ylim(bottom=0)
        for axes in (time_axes, memory_axes):
            axes.set(xscale="log", xlabel="pieces, or minutes of the recording")
            axes.xaxis.set_major_formatter("{x:,g}")
        time_axes.yaxis.set_major_formatter("{x:,g}")
        handles, labels = time_axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        figure.savefig(path, metadata={"Date": None})


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--nsynth_path", type=Path, help="folder of keyboard and guitar notes")
    add("--midi_path", type=Path, help="folder of MIDI files")
    whole = cli.number(int, 1)
    add("--pieces", type=whole, nargs="+", default=[1, 10, 100], help="pieces in steps 1 - 3")
    add("--minutes", type=whole, nargs="+", default=[1, 10, 60], help="minutes of sound in step 4")
    add("--quality", choices=("draft", "normal", "best"), default="draft", help="quality in step 4")
    add("--table", type=Path, help="CSV file to write the costs to")
    add("--figure", type=Path, help="figure to draw, .svg or .png")
    add("--redraw", action="store_true", help="draw --figure from --table; measure nothing")
    return parser


def check_flags(parser, args):
    """End with one line if flags that belong together are missing."""
    needed = ("table", "figure") if args.redraw else ("nsynth_path", "midi_path")
    missing = [f"--{name}" for name in needed if getattr(args, name) is None]
    if missing:
        purpose = "--redraw needs" if args.redraw else "to measure, give"
        parser.error(f"{purpose} {' and '.join(missing)}")


def measure_all(args):
    """Run all steps with all sizes, print and save the table: list of `Cost`."""
    files = find_midi(args.midi_path)
    print(machine())
    print("| step | pieces or minutes | s | GB |\n|---|---:|---:|---:|")
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for count in args.pieces:
            work = Path(folder) / f"pieces_{count}"
            costs += measure_training_steps(args, files, count, work)
            shutil.rmtree(work)
        source = read_audio(ROOT / "docs/audio/piano.ogg")
        for minutes in args.minutes:
            costs.append(measure_conversion(minutes, source, Path(folder), args.quality))
    if args.table:
        write_csv(args.table, [Cost._fields, *costs])
    return costs


@cli.command
def main(argv=None):
    """Parse flags, measure, print, draw."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_flags(parser, args)
    costs = read_costs(args.table) if args.redraw else measure_all(args)
    if args.figure:
        draw(costs, args.figure)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
