"""Step 4: convert recordings with trained generators.

    python predict.py --input song.m4a --model guitar
    python predict.py --input song.m4a --model guitar strings synth --seconds 20 --page page
    python predict.py --input recordings --model runs/piano_2_guitar --output converted
    python predict.py --list
    python predict.py --input recordings --model guitar --json > results.json

Give a model by its path or by a part of its name that fits only one. Without --output the result
is written next to the input, as song_guitar.wav; existing files are never overwritten. Any
recording or video is accepted, at any sampling rate, number of channels and length. Memory does
not grow with the length. The output has the input's length, channels, rate and bit depth; 16 bits
for compressed inputs, and 24 if flac cannot store a float.

The output is as loud as the input. A limiter reduces true peaks above -1 dBTP. Floating-point
outputs are not limited.

A folder is mirrored below --output. Running the command again converts only missing files and
those whose recording, model or flags have changed. Other files are kept.

With --json, stdout is a JSON list; all other lines go to stderr. It has an object for each output:
`input`, `output` (null after a failure), `model`, `seconds` of sound (null if nothing was converted
now) and `remarks`, a list of text. With --list it has an object for each model: `name`, `path` and
`description`. After an error (exit code 2, no list) stderr has the message.

Digital silence stays silent. Several channels are converted once: the network converts their mean,
and the result is placed in the channels as in the input (sound/stereo.py). Each note keeps its
position, and the image its width. The mean of the output's channels is the conversion of the mean
of the input's.
"""

from common import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import contextlib
import json
import os
import shlex
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import data
from common import devices
from common.cli import UserError
from common.files import check_folder
from common.run_facts import RunFacts
from conversion import convert, known_models
from conversion.convert import BATCH_SIZE, OVERLAP, convert_file
from conversion.outputs import Job, find_missing, list_sources, plan_jobs, plan_place
from research import learned_phase
from sound import phase as phases
from sound.recordings import (
    DEPTHS,
    RATES,
    check_writable,
    open_sound,
)
from sound.survey import listen_open, read_part
from sound.transpose import OCTAVE

PAGE_SECONDS = 120  # of each recording on the listening page, which holds them in memory
COLUMNS = 100  # of --list

_BAR = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total} s [{elapsed}<{remaining}]"


class Result(NamedTuple):
    """What became of a `Job`."""

    job: Job  # its target by the name that it got
    seconds: float | None = None  # of sound that was converted, None if nothing was
    remarks: tuple = ()  # sentences for the user
    is_failure: bool = False


def in_decibels(amplitude):
    """Amplitude -> text in dBFS."""
    if not amplitude:
        return "silence"
    decibels = round(20 * np.log10(amplitude), 1)
    return f"{decibels:+.1f} dBFS" if decibels else "0 dBFS"


def read_options(args, job):
    """The `convert.Options` that the flags ask for, with the pull of a job's model."""
    return convert.Options(
        phase=args.phase,
        phase_iterations=args.phase_iterations,
        pull=job.settings.get("pull"),
        hops=args.hops,
        overlap=args.overlap,
        batch_size=args.batch_size,
        seed=args.seed,
        transpose=args.transpose,
    )


def convert_one(model, job, survey, args, place):
    """Convert one file, with a progress bar in seconds of audio; print a line of summary.

    Args:
        model: see `convert.convert_stream`.
        job: `Job`.
        survey: the recording's `Survey`.
        args: the flags.
        place: see `plan_place`.

    Returns:
        `Result`.
    """

    def place_output(part, path):
        nonlocal job
        job = job._replace(target=place(part, path))

    began = time.perf_counter()
    if survey.remark:
        print(f"{cli.one_line(job.source)}: {survey.remark}; expect little", file=sys.stderr)
    name = cli.one_line(job.source.name)
    with tqdm(
        total=round(survey.seconds), desc=name, leave=False, disable=None, bar_format=_BAR
    ) as bar:
        done = convert_file(
            model,
            job.source,
            job.target,
            read_options(args, job),
            convert.Output(args.sr, args.bits, args.level, args.normalize, args.mix),
            survey=survey,
            place=place_output,
            progress=bar.update,
        )
    speed = done.seconds / (time.perf_counter() - began)
    print(
        f"{cli.one_line(job.target)}: {done.seconds:.1f} s, {describe_level(done, survey)}, "
        f"{speed:.1f} x real time"
    )
    remarks = [survey.remark] if survey.remark else []
    return Result(job, done.seconds, (*remarks, *done.remarks))


def describe_level(done, survey):
    """How loud an output is, in words: a `convert.Conversion`, and the input's `Survey`."""
    peak = "silence" if not done.peak else f"peak {in_decibels(done.peak)}"
    if done.peak > 1:
        peak += " (kept, for the output is floating-point)"
    if not np.isfinite(done.loudness):
        return peak
    remarks = []
    difference = done.loudness - survey.loudness
    if abs(difference) < 0.1:
        remarks.append("as loud as the input")
    else:
        remarks.append(f"{difference:+.1f} LU against the input")
    if done.limited:
        remarks.append("peaks limited")
    return f"{done.loudness:.1f} LUFS ({', '.join(remarks)}), {peak}"


def convert_all(jobs, args, planned):
    """Convert the jobs, model by model, each loaded once.

    A file that cannot be converted is named on stderr and passed over. If it is the only one,
    UserError passes, and before the networks load if that is known so early.

    Args:
        jobs: list of `Job`, what is missing of ``planned``.
        args: the flags.
        planned: list of all `Job` of this command.

    Returns:
        `Result` of each job.
    """
    surveys = {}  # of the recordings: each is listened to once, for all models
    if len({job.source for job in planned}) == 1:
        check_and_listen(jobs[0], args, surveys)
    with say_loading():
        devices.setup_device(args.gpu)
        from conversion.model_files import load_generator

    results = [None] * len(jobs)
    phase_model = None
    if args.phase_model:
        phase_model = load_generator(args.phase_model, args.precision)
    for path in dict.fromkeys(job.model_path for job in jobs):
        model = load_generator(path, args.precision)
        converter = make_converter(model, args.phase, phase_model)
        for k, job in enumerate(jobs):
            if job.model_path != path:
                continue
            result = cli.attempt(convert_recorded, converter, job, args, surveys)
            if isinstance(result, UserError):
                if len(planned) == 1:
                    raise result
                cli.pass_over(result)
                result = Result(job, remarks=(str(result),), is_failure=True)
            results[k] = result
    return results


def check_and_listen(job, args, surveys):
    """Return the `Survey` of a job's recording, measured once for all its jobs.

    Args:
        job: `Job`.
        args: the flags.
        surveys: dict that stores the surveys.

    Raises:
        UserError: the recording cannot be read, or the output cannot be written.
    """
    check_folder(job.target.parent, "--output")
    changed = job.source.stat().st_mtime_ns if job.source.exists() else None
    key = job.source, changed  # measure again if the file has changed
    if key not in surveys:
        with open_sound(job.source) as sound:
            check_writable(job.target, sound.channels, args.sr or sound.samplerate, args.bits)
            surveys[key] = listen_open(sound, args.start, args.seconds)
    return surveys[key]


def convert_recorded(model, job, args, surveys):
    """`convert_one`, and record the output's sources. Returns the same."""
    survey = check_and_listen(job, args, surveys)
    place = plan_place(job)
    if job.record is not None:
        job.record.begin([job.target])
    result = convert_one(model, job, survey, args, place)
    job = result.job
    if job.record is not None:
        job.record.add(job.target, list_sources(job), job.settings)
    return result


@contextlib.contextmanager
def say_loading():
    """Show a message on a terminal while the networks load."""
    text = "loading the networks ..."
    shown = sys.stderr.isatty()
    if shown:
        print(text, end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:  # overwrite with blanks, because not every terminal has escape sequences
            print(" " * len(text), end="\r", file=sys.stderr, flush=True)


def make_converter(model, phase, phase_model=None):
    """Make the function for `convert` from a model, --phase and --phase_model.

    Raises:
        UserError: a model needs a flag that is missing, or cannot use one that is given.
    """
    learned_phase.check_phases([phase], model, phase_model)
    if phase_model and phase not in phases.LEARNED:
        learned = " or ".join(phases.LEARNED)
        raise UserError(f"--phase_model: is not used by --phase {phase}; give --phase {learned}")
    return learned_phase.with_phase(model, phase_model) if phase_model else model


def describe_phase(args):
    """Describe the hop and the phase estimator."""
    text = f"hop {data.HOP_LENGTH // args.hops}, phase '{args.phase}'"
    if "griffinlim" in args.phase:
        text += f", {args.phase_iterations} iterations"
    return text


def write_page(folder, jobs, args):
    """Write the listening page: each recording with all its conversions."""
    from report import listening

    listening.check_own(folder, "--page")  # again, because converting takes long
    names = dict.fromkeys(Path(job.model_path).name for job in jobs)
    how = f"with {describe_phase(args)}"
    quality = convert.QUALITIES[args.quality]
    named = quality.phase, quality.phase_iterations, quality.hops
    if (args.phase, args.phase_iterations, args.hops) == named:
        how = f"at {args.quality} quality"
    paragraphs = [f"predict.py made the outputs from the inputs, {how}: {', '.join(names)}."]
    page = listening.Page("Before and after", paragraphs=paragraphs)
    listening.write_page(folder, page, _page_pieces(jobs, args))
    return Path(folder) / "index.html"


def _page_pieces(jobs, args):
    """Yield each recording as a `listening.Entry`."""
    from report import listening

    seconds = min(args.seconds or PAGE_SECONDS, PAGE_SECONDS)
    for source in dict.fromkeys(job.source for job in jobs):
        sounds = {"Input": read_part(source, args.start, seconds, mono=False)}
        for job in jobs:
            if job.source == source:
                target = listening.plain_instrument(known_models.make_label(job.model_path))
                label = f"Output: {target}"
                if label in sounds:  # two models of one target
                    label = f"{label} ({cli.one_line(job.model_path)})"
                sounds[label] = read_part(job.target, 0.0, seconds, mono=False)
        title = listening.plain_title(cli.one_line(source.name))
        sentence = ""
        if len(sounds["Input"]) == PAGE_SECONDS * data.SAMPLE_RATE:
            sentence = f"The first {PAGE_SECONDS} s are here; the outputs' files are whole."
        yield listening.Entry(title, sounds, sentence=sentence)


def print_models(as_json):
    """List the models; paths are relative to the current folder."""
    models = known_models.list_models()
    if as_json:
        found = []
        for model in models:
            path = relative_path(model.path)
            found.append({"name": model.label, "path": path, "description": model.line})
        print(json.dumps(found, indent=2))
        return
    if not models:
        print("no models: train one with train.py, or get the repository's pretrained/")
        return
    width = 2 + max(len(model.label) for model in models)
    for model in models:
        print(f"{model.label:{width}}{cli.one_line(relative_path(model.path))}")
        lines = textwrap.wrap(cli.one_line(model.line), COLUMNS - width, break_long_words=False)
        print(textwrap.indent("\n".join(lines), " " * width))


def relative_path(path):
    """Make a path relative to the current folder; unchanged on another Windows drive."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)


def print_results(results):
    """Print the result of each job as JSON: see the docstring of this script."""
    found = []
    for result in results:
        job = result.job
        entry = {"input": str(job.source), "output": None, "model": relative_path(job.model_path)}
        if not result.is_failure:
            entry["output"] = str(job.target)
        found.append({**entry, "seconds": result.seconds, "remarks": result.remarks})
    print(json.dumps(found, indent=2))


def say_how_to_hear(jobs, page):
    """Print the command that opens the result."""
    if page is not None:
        path = page
    elif len(jobs) == 1:
        path = jobs[0].target
    elif jobs:
        try:
            path = os.path.commonpath([job.target.parent.resolve() for job in jobs])
        except ValueError:  # on several Windows drives
            path = jobs[0].target.parent
    else:
        return
    print(f"listen: {cli.one_line(write_open_command(path, sys.platform))}")


def write_open_command(path, platform):
    """Write the command that opens a file or folder on ``platform``, with any name."""
    if platform == "win32":
        # `start "name"` is a window's title to cmd, and `start "" "name"` an error in PowerShell.
        return f'explorer "{path}"'
    opener = "open" if platform == "darwin" else "xdg-open"
    name = str(path)
    if name.startswith("-"):  # it would be read as an option
        name = f"./{name}"
    return f"{opener} {shlex.quote(name)}"


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add_common_flags(parser)
    add_level_flags(parser)
    add_phase_flags(parser)
    add_stream_flags(parser)
    return parser


def add_common_flags(parser):
    """What is converted, by which model, how well."""
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        help="one or several models: part of a name that fits only one (see --list), run folder, "
        ".keras file, or weights (.h5) from older Keras code",
    )
    add(
        "--input",
        nargs="+",
        help="recordings, or folders of them: wav, flac, ogg, mp3, m4a, opus, a video, ...",
    )
    add(
        "--output",
        help="output file or folder; the extension sets the format (wav, flac, ogg, mp3); "
        "default: next to the input",
    )
    add("--list", action="store_true", help="list the models and their errors")
    add(
        "--json",
        action="store_true",
        help="for scripts: print the results, or the models of --list, as JSON on stdout, and all "
        "other lines on stderr",
    )
    add(
        "--quality",
        choices=convert.QUALITIES,
        default="normal",
        help="draft: hop 512 and the input's phase; normal: hop 256 and 8 Griffin-Lim iterations "
        "anchored to that phase, 2 x the network's work; best: hop 128 and 16 iterations, 4 x the "
        "network's work; --hops, --phase and --phase_iterations override it",
    )
    add_part_flags(parser)
    add("--page", metavar="FOLDER", help="write a page that plays input and outputs to this folder")


def add_part_flags(parser):
    """Which part of the recording is converted, and at which pitch."""
    add = parser.add_argument
    add("--start", type=cli.seconds(), default=0.0, help="start of the part to convert, s or m:ss")
    add(
        "--seconds",
        type=cli.seconds(low_open=True),
        help="length of the part to convert, s or m:ss; default: all",
    )
    add(
        "--transpose",
        type=cli.number(float, -OCTAVE, OCTAVE),
        default=0,
        metavar="SEMITONES",
        help="move the recording up (12: an octave) or down (-12) before it is converted",
    )


def add_level_flags(parser):
    """How loud the output is."""
    add = parser.add_argument
    add(
        "--level",
        choices=convert.LEVELS,
        default="match",
        help="match: make the output as loud as the input (ITU-R BS.1770); network: keep the "
        "network's change of level; off: do not scale input or output",
    )
    add(
        "--normalize",
        type=cli.number(float, -100, 0),
        nargs="?",
        const=-1.0,
        metavar="DBFS",
        help="scale the peak to this level instead, dBFS (without a value: -1)",
    )
    add(
        "--mix",
        type=cli.number(float, 0, 1),
        default=1,
        help="share of the conversion, 0 to 1; the rest is the recording itself, at its own pitch",
    )


def add_phase_flags(parser):
    """How sound is made of the network's picture."""
    add = parser.add_argument
    add(
        "--phase_model",
        help="model of train_generator.py --learn phase, used by --phase learned and "
        "learned_griffinlim",
    )
    add("--hops", type=int, choices=convert.HOPS, help="hop of 512 samples divided by this")
    add("--phase", choices=phases.ALL, help="phase estimator, see docs/phase.md")
    add(
        "--phase_iterations",
        type=cli.number(int, 0, 10_000),
        help="iterations of Griffin-Lim; default with --phase: 32",
    )
    add(
        "--pull",
        type=cli.number(float, 0, 10),
        help="weight of the input's phase in griffinlim_anchored; more gives clearer onsets, less "
        f"suits targets with soft onsets; default: the model's value, mostly {phases.PULL}",
    )


def depth(text):
    """--bits as one of `recordings.DEPTHS`."""
    return text if text == "float" else int(text)


def add_stream_flags(parser):
    """How the recording goes through the network, and on what."""
    add = parser.add_argument
    add(
        "--overlap",
        type=cli.number(float, 0, 0.9),
        default=OVERLAP,
        help="fraction of a tile that overlaps with the next one",
    )
    add(
        "--sr",
        type=cli.number(int, *RATES),
        help="sampling rate of the output, Hz; default: the input's",
    )
    add(
        "--bits",
        type=depth,
        choices=DEPTHS,
        help="depth of a wav's or flac's samples; float (wav only) keeps peaks above full scale; "
        "default: the input's, 16 if that is compressed with loss",
    )
    add(
        "--batch_size",
        type=cli.number(int, 1, 1024),
        default=BATCH_SIZE,
        help="tiles per network call; half as many if they have 512 bins",
    )
    add("--seed", type=cli.number(int, 0, 2**31), default=0, help="seed of random phases")
    add(
        "--precision",
        choices=devices.INFERENCE,
        default="auto",
        help="number format of the network; auto: bfloat16 for models of 512 bins if that is "
        "faster on the processor (up to 1.7 x), otherwise float32",
    )
    add("--gpu", help="GPU number, or cpu; default: GPU 0 if there is one")


def apply_quality(args):
    """Set --hops, --phase and --phase_iterations from --quality, unless they are given.

    Raises:
        UserError: --pull is given with a phase that does not use it.
    """
    quality = convert.QUALITIES[args.quality]
    if args.phase_iterations is None:
        args.phase_iterations = quality.phase_iterations if args.phase is None else 32
    if args.hops is None:
        args.hops = quality.hops
    if args.phase is None:
        args.phase = quality.phase
    if args.pull is not None and args.phase != "griffinlim_anchored":
        raise UserError(
            f"--pull {args.pull:g}: needs --phase griffinlim_anchored, not '{args.phase}'; "
            "leave it out, or give --quality normal or best"
        )


def read_settings(args, model_path):
    """List the settings of an output besides recording and model, for `record.Record`."""
    names = (
        *("hops", "phase", "phase_iterations", "overlap", "sr", "level", "normalize"),
        *("start", "seconds", "seed", "phase_model"),
    )
    settings = {name: getattr(args, name) for name in names}
    if args.precision != "auto":
        settings["precision"] = args.precision
    for name, usual in (("bits", None), ("transpose", 0), ("mix", 1)):
        if getattr(args, name) != usual:  # unasked, as in older records, it goes without saying
            settings[name] = getattr(args, name)
    if args.phase == "griffinlim_anchored":
        pull = RunFacts(model_path).pull if args.pull is None else args.pull
        if pull not in (None, phases.PULL):  # unsaid, as in older records
            settings["pull"] = pull
    return settings


@cli.command
def main(argv=None):
    """Parse the flags, load each model once and convert what is missing."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.list:
        print_models(args.json)
        return 0
    for flag in ("model", "input"):
        if not getattr(args, flag):
            parser.error(f"--{flag} is missing; say what to convert, and with which model")
    apply_quality(args)
    if args.json:
        with contextlib.redirect_stdout(sys.stderr):
            results = convert_inputs(args)
        print_results(results)
    else:
        results = convert_inputs(args)
    return 2 if any(result.is_failure for result in results) else 0


def convert_inputs(args):
    """Convert what is missing, write the page, say how to listen; `Result` of each planned job."""
    found = {}  # a model that is named twice, as guitar and by its path, is one
    for name in args.model:
        path = known_models.find_model(name, "--model")
        found.setdefault(path.resolve(), path)
    model_paths = list(found.values())
    settings = {path: read_settings(args, path) for path in model_paths}
    inputs = [Path(path) for path in args.input]
    output = None if args.output is None else Path(args.output)
    jobs = plan_jobs(inputs, output, model_paths, settings)
    if args.page:
        from report import listening

        check_folder(args.page, "--page")
        listening.check_own(args.page, "--page")
    missing, others = find_missing(jobs)
    made = {}  # by the planned output
    if missing:
        for job, result in zip(missing, convert_all(missing, args, jobs)):
            made[job.target] = result
        count = sum(not result.is_failure for result in made.values())
        print(f"{count} of {len(missing)} converted: {describe_phase(args)}")
    results = []
    for job in jobs:
        result = made.get(job.target)
        results.append(result or Result(job, remarks=(others[job.target],)))
    complete = []
    for result in results:
        if not result.is_failure and result.job.target.exists():
            complete.append(result.job)
    page = write_page(args.page, complete, args) if args.page and complete else None
    say_how_to_hear(complete, page)
    return results


if __name__ == "__main__":
    raise SystemExit(main())
