"""Plan predict.py's outputs: which recording becomes which file, by which model.

`plan_jobs` names every output before the conversion begins; `find_missing` leaves out the finished
ones. Nothing here converts or loads a network.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from common import cli
from common.cli import UserError
from common.files import find_files, find_free, list_folder, place_beside
from common.record import DUE, FOREIGN, Record
from conversion import known_models
from sound.recordings import AUDIO_EXTENSIONS, WRITTEN_EXTENSIONS

CURRENT = "there already, made in the same way"
KEPT = "kept, for this command did not make it"
NAME_BYTES = 240  # longest file name: 255 are allowed, and hidden names are a little longer


class Job(NamedTuple):
    """One recording to convert with one model."""

    source: Path
    target: Path
    model_path: Path
    settings: dict  # all settings of the output besides recording and model
    record: Record | None  # of the output folder; None for a new file next to the input


def plan_jobs(inputs, output, model_paths, settings):
    """Plan the conversions. An input that cannot be accessed is skipped if there are others.

    Args:
        inputs: paths of recordings and folders of them.
        output: path of a file or folder; None: next to the input.
        model_paths: paths of the models.
        settings: {path of a model: see `Job`}.

    Returns:
        list of `Job`.

    Raises:
        UserError: an input is missing, or the output does not fit the inputs.
    """
    inputs = _check_inputs(inputs)
    if output is not None and _is_one_file(inputs, output, model_paths):
        source = _find_recordings(inputs[0], output)[0]
        _check_target(source, output, taken=())
        record = Record(output.parent)
        model_path = model_paths[0]
        return [Job(source, output, model_path, settings[model_path], record)]
    records = {None: None}  # by output folder
    taken = set()  # outputs of the jobs so far
    jobs = []
    for path, source, model_path, label in _list_conversions(inputs, output, model_paths):
        if output is None and not path.is_dir():
            root = None
            target = find_free(name_beside(source, label), taken)
        else:
            root = _beside(path, label) if output is None else output
            inner = source.relative_to(path) if path.is_dir() else Path(source.name)
            suffix = f"_{label}" if output is not None and len(model_paths) > 1 else ""
            target = _mirror(source, root / inner, suffix, taken)
        _check_target(source, target, taken)
        taken.add(target)
        if root not in records:
            records[root] = Record(root)
        jobs.append(Job(source, target, model_path, settings[model_path], records[root]))
    return jobs


def _check_inputs(inputs):
    """Return the inputs that can be accessed; the others are reported.

    Raises:
        UserError: an input does not exist.
        OSError: the only input cannot be accessed.
    """
    usable = []
    for path in inputs:
        if os.path.lexists(path):
            result = cli.attempt(_look_at, path)
            if isinstance(result, UserError):
                if len(inputs) == 1:
                    raise result
                cli.pass_over(result)
                continue
            usable.append(path)
            continue
        whole = Path(" ".join(map(str, inputs)))
        if os.path.exists(whole):
            raise UserError(f"{path}: no such file; write a name with spaces in quotes: '{whole}'")
        raise UserError(f"{path}: no such file; check the path")
    if not usable:
        raise UserError(f"--input {inputs[0]}: none of these can be read; give another --input")
    return usable


def _look_at(path):
    """Raise OSError for a broken or cyclic link, and for a folder that cannot be listed."""
    os.stat(path)
    if os.path.isdir(path):
        list_folder(path)


def _list_conversions(inputs, output, model_paths):
    """Yield (the --input, a recording of it, a model's path and label) of each conversion."""
    labels = known_models.make_labels(model_paths)
    for path in inputs:
        for source in _find_recordings(path, output):
            for model_path, label in zip(model_paths, labels):
                yield path, source, model_path, label


def _is_one_file(inputs, output, model_paths):
    """Whether ``output`` is a file name. Raises UserError if it does not suit the inputs."""
    if output.is_dir():
        return False
    one_input = len(inputs) == 1 and not inputs[0].is_dir()
    suffix = output.suffix.lower()
    if suffix in WRITTEN_EXTENSIONS:
        if len(model_paths) > 1:
            raise UserError(
                f"--output {output}: is one file, but there are several models; give a folder"
            )
        if not one_input:
            raise UserError(
                f"--output {output}: is one file, but there are several inputs; give a folder"
            )
        return True
    if output.is_file() or (suffix and one_input):
        written = ", ".join(WRITTEN_EXTENSIONS)
        raise UserError(f"--output {output}: is neither a folder nor {written}; give one of these")
    return False


def _find_recordings(path, output):
    """List the recordings of an --input, without those in an output folder below it.

    Raises UserError if there are none, or if the output folder is the input itself.
    """
    if not path.is_dir():
        return [path]
    files = find_files(path, AUDIO_EXTENSIONS)
    if not files:
        raise UserError(f"{path}: has no recordings; give another --input")
    if output is None:
        return files
    root = _resolve(output)
    if root == _resolve(path):
        raise UserError(f"--output {output}: is the --input folder itself; give another folder")
    if _resolve(path) in root.parents:
        inner = [file for file in files if root not in _resolve(file).parents]
        if not inner:
            raise UserError(
                f"{path}: all its recordings lie in --output {output}, among what was converted "
                "before; give another --input"
            )
        return inner
    return files


def _beside(path, label):
    """Output folder of an input folder."""
    path = _resolve(path)
    return path.with_name(_shorten(path.name, f"_{label}"))


def _resolve(path):
    """`Path.resolve` without the RuntimeError for a cyclic link before Python 3.13."""
    return Path(os.path.realpath(path))


def name_beside(source, label):
    """Name the output of a recording: song.m4a -> song_guitar.wav."""
    return source.with_name(_shorten(source.stem, f"_{label}.wav"))


def _shorten(stem, ending):
    """Join ``stem`` and ``ending`` to a file name, cut to the length that systems allow."""
    room = NAME_BYTES - len(os.fsencode(ending))
    name = os.fsencode(stem)
    if len(name) > room:
        # Drops a character that was cut in the middle. The bytes are usually UTF-8 in any locale.
        name = name[:room].decode("utf-8", "ignore").encode("utf-8")
    return os.fsdecode(name) + ending


def _mirror(source, path, suffix, taken):
    """Name a file in the output folder: ``path``, as wav if its format cannot be written.

    If song.wav and song.m4a would both become song.wav, the second becomes song.m4a.wav.
    """
    if path.suffix.lower() in WRITTEN_EXTENSIONS:
        return path.with_name(_shorten(path.stem, f"{suffix}{path.suffix}"))
    target = path.with_name(_shorten(path.stem, f"{suffix}.wav"))
    if target in taken or os.path.exists(source.with_suffix(".wav")):
        target = path.with_name(_shorten(path.name, f"{suffix}.wav"))
    return target


def _check_target(source, target, taken):
    """Raise UserError if a job would overwrite its own input or another job's output."""
    if _resolve(target) == _resolve(source):
        raise UserError(f"{source}: the output would overwrite this input; give another --output")
    if target in taken:
        raise UserError(f"{source}: another input also becomes {target}; convert them separately")


def find_missing(jobs):
    """Find the jobs whose output is missing or out of date; the others are reported.

    Returns:
        (these jobs, {output that is not made: reason}).

    Raises:
        UserError: the only output exists and was not made by this command.
    """
    missing = []
    others = {}
    for job in jobs:
        plan = DUE  # without a record the name is free
        if job.record is not None:
            plan = job.record.plan(job.target, list_sources(job), job.settings)
        if plan == DUE:
            missing.append(job)
        else:
            others[job.target] = KEPT if plan == FOREIGN else CURRENT
    foreign = [path for path, why in others.items() if why == KEPT]
    current = len(others) - len(foreign)
    if current:
        print(f"{current} of {len(jobs)} files are there already, made in the same way")
    if foreign and len(jobs) == 1:
        raise UserError(
            f"{foreign[0]}: exists and was not made by this command, so it is kept; "
            "give another --output"
        )
    for path in foreign:
        print(f"{KEPT}: {cli.one_line(path)}; give another --output")
    return missing, others


def plan_place(job):
    """Make the function that renames a job's complete output: see `files.complete`.

    A file that appears meanwhile, from the user or another process, is kept; the output gets the
    next free name. Call it before `Record.begin`.

    Returns:
        function(part, path) -> the new path.
    """
    if job.record is None:
        return place_beside
    own = job.record.plan_place(job.target)

    def place(part, path):
        if own.may_replace(path):
            os.replace(part, path)
            return path
        got = place_beside(part, path)
        if got != path:
            names = f"{cli.one_line(path)}: appeared meanwhile, so it is kept; see {got.name}"
            print(f"note: {names}", file=sys.stderr)
            job.record.give_up(path, own)
        return got

    return place


def list_sources(job):
    """List the source files of an output: recording, generator, phase model."""
    sources = [job.source, known_models.find_weights(job.model_path) or job.model_path]
    path = job.settings["phase_model"]
    if path:
        sources.append(known_models.find_weights(path) or path)
    return sources
