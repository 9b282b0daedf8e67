"""Which pieces a model is measured on, a group of them for each table of evaluate.py.

They are the pieces of its run (`read_run`, `find_pieces`), pairs of a CSV file (`read_pairs`), or
recordings without a reference (`find_recordings`); `find_groups` decides by the flags.
"""

import contextlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cli
import data
import midi
from audio import AUDIO_EXTENSIONS, find_audio, read_audio
from cli import UserError

SIDES = {"held_out": "validation", "test": "test"}  # --pieces: name in config.json
SIDE_WORDS = {
    "held_out": "held out from training",
    "test": "kept for the test",
    "all": "of training and held out alike",
}
MEDIAN_PIECES = 30  # how much of the training set its median is taken from
MEDIAN_FRAMES = 500  # of each of these pieces
LONGEST_MISMATCH = 0.01  # by which the two recordings of a pair may differ in length


class TrainedRun(NamedTuple):
    """What a run's config.json says of instruments and pieces."""

    folder: Path
    origins: list  # instruments that it was trained to convert from
    unheard: list  # origins that were kept out of training
    targets: list
    split: dict  # "train", "validation" and, if some were kept for it, "test": lists of names


class Piece(NamedTuple):
    """One piece to evaluate; the reference may be None."""

    name: str
    source: Path
    reference: Path | None


class Group(NamedTuple):
    """What one table is of."""

    title: str  # "" if there is only one
    folder: str  # below --output and --report
    about: str  # which pieces these are
    origin: str | None
    target: str | None
    pieces: list


def read_run(model):
    """A run's config.json as `TrainedRun`; None for a model that is no run folder.

    Raises:
        UserError: config.json is damaged.
    """
    where = Path(model) / "config.json"
    remedy = "train the model again"
    config = cli.read_json(where, remedy, flags=dict, split=dict)
    if config is None:
        return None
    with cli.undamaged(where, remedy):
        flags = config["flags"]
        unheard = _check_names(flags.get("hold_out_origin"))
        origins = [name for name in _check_names(flags["origin"]) if name not in unheard]
        targets = _check_names(flags["target"])
        return TrainedRun(Path(model), origins, unheard, targets, dict(config["split"]))


def _check_names(flag):
    """The instruments that a flag named: a list. Raises TypeError if they are no names."""
    names = cli.as_list(flag)
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    return names


def find_pieces(run, origin, target, audios, side="held_out"):
    """Pieces of a run that are below ``audios``, on one side of its split, or all that there are.

    Where a piece has other versions (transposed, other speeds), only the original counts. Pieces
    whose audio is missing are named on stderr.

    Args:
        run: `TrainedRun`.
        origin, target: instruments.
        audios: folder that holds a folder for each instrument.
        side: "held_out", "test", or "all" that both instruments have.

    Raises:
        UserError: no such instrument, no such side, or none of its pieces is there.
    """
    if side == "test" and not run.split.get("test"):
        raise UserError("--pieces test: this run kept none for the test; leave the flag out")
    inputs = cli.find_named(audios / origin, AUDIO_EXTENSIONS)
    references = cli.find_named(audios / target, AUDIO_EXTENSIONS)
    there = inputs.keys() & references.keys()
    names = sorted(there) if side == "all" else run.split[SIDES[side]]
    names = [name for name in names if midi.piece_of(name) == name] or names
    missing = [name for name in names if name not in there]
    pieces = [Piece(name, inputs[name], references[name]) for name in names if name in there]
    if not pieces:
        raise UserError(
            f"{audios}: holds none of these pieces; render them with synthesize_audios.py, "
            "or give --pieces all"
        )
    if missing:
        print(
            f"evaluate.py: no audio of both instruments, left out: "
            f"{cli.one_line(', '.join(missing))}",
            file=sys.stderr,
        )
    return pieces


def read_pairs(path):
    """Read lines of "input,reference" from a CSV file, paths relative to it.

    An empty reference means there is none.

    Raises:
        UserError: it is missing, no such table, or empty.
    """
    pieces = []
    for number, line in enumerate(cli.read_csv(path), 1):
        cells = [cell.strip() for cell in line]
        if len(cells) > 2 or not cells[0]:
            raise UserError(f"{path}: line {number} is not 'input,reference'; mend it")
        source, reference = (*cells, "")[:2]
        if (source, reference) != ("input", "reference"):
            wanted = path.parent / reference if reference else None
            pieces.append(Piece(source, path.parent / source, wanted))
    if not pieces:
        raise UserError(f"{path}: names no files; give a line 'input,reference' for each pair")
    return _name_apart(pieces)


def _name_apart(pieces):
    """The same pieces under different names, by which their results are known."""
    seen = {}
    apart = []
    for piece in pieces:
        seen[piece.name] = seen.get(piece.name, 0) + 1
        again = seen[piece.name]
        name = piece.name if again == 1 else f"{piece.name} ({again})"
        apart.append(piece._replace(name=name))
    return apart


def find_recordings(paths):
    """Pieces without reference: files as they are, folders as the recordings in them.

    Raises:
        UserError: a folder has none.
    """
    files = []
    for path in paths:
        found = cli.find_files(path, AUDIO_EXTENSIONS) if path.is_dir() else [path]
        if not found:
            raise UserError(f"--inputs {path}: holds no recording; give another folder")
        files += found
    return [Piece(str(path), path, None) for path in files]


def find_groups(args, run):
    """What is to be evaluated, a table each: list of `Group`. Raises UserError."""
    if args.pairs or args.inputs:
        return [_find_unknown_group(args, run)]
    if not run:
        raise UserError(
            f"--model {args.model}: is no run folder, so its pieces are not known; "
            "give --pairs or --inputs"
        )
    origins, targets = choose_instruments(args, run)
    sides = [args.pieces] if args.pieces else ["held_out"]
    if not args.pieces and run.split.get("test"):
        sides.append("test")
    groups = []
    for target in targets:
        for origin in origins:
            for side in sides:
                pieces = find_pieces(run, origin, target, args.audios_path, side)[: args.limit]
                title = f"{origin} → {target}{_heard(run, origin)}, {SIDE_WORDS[side]}"
                parts = [target] if len(run.targets) > 1 or args.target else []
                parts += [origin] if len(origins) > 1 else []
                parts += [side] if side == "test" and not args.pieces else []
                about = describe_pieces(pieces, run, side)
                groups.append(Group(title, "/".join(parts), about, origin, target, pieces))
    if len(groups) == 1:
        groups = [groups[0]._replace(title="")]
    return groups


def _heard(run, origin):
    """What a title adds to an origin."""
    return "" if origin in run.origins else " (an instrument never heard in training)"


def _find_unknown_group(args, run):
    """The one group of --pairs or --inputs, of whose pieces no split tells."""
    if args.origin or args.target:
        flag = "--origin" if args.origin else "--target"
        raise UserError(f"{flag}: goes with --audios_path; leave it out")
    if args.pieces:
        raise UserError("--pieces: goes with --audios_path; leave it out")
    pieces = read_pairs(args.pairs) if args.pairs else find_recordings(args.inputs)
    pieces = pieces[: args.limit]
    about = describe_pieces(pieces)
    target = run.targets[0] if run and len(run.targets) == 1 else None
    return Group("", "", about, None, target, pieces)


def choose_instruments(args, run):
    """(origins, targets) that --origin and --target ask for, or that the run was trained on.

    By default every origin, those that were kept out of training last; of a model of several
    targets the first one.

    Raises:
        UserError: an instrument is on both sides.
    """
    origins = args.origin or [*run.origins, *run.unheard]
    if not args.origin and len(run.targets) > 1:
        origins = origins[:1]
    targets = args.target or [name for name in run.targets if name not in origins]
    both = [name for name in targets if name in origins]
    if both:
        raise UserError(f"--target {both[0]}: is the origin; name another target or --origin")
    if not targets:
        raise UserError(
            f"--origin {origins[0]}: is the only target; name another, or give --target"
        )
    return origins, targets


def describe_pieces(pieces, run=None, side=None):
    """One line that says which pieces these are."""
    names = ", ".join(cli.one_line(piece.name) for piece in pieces)
    count = f"{len(pieces)} piece" if len(pieces) == 1 else f"{len(pieces)} pieces"
    if not side:
        return f"{count}; whether the model was trained on them is not known here: {names}"
    if side == "all":
        used = sum(piece.name in run.split["train"] for piece in pieces)
        return f"{count}, {used} of them used in training: {names}"
    return f"{count} {SIDE_WORDS[side]}: {names}"


def read_piece(piece):
    """One piece's audio and its reference's audio or None, of one length.

    Raises:
        UserError: one of them is empty, or they differ by more than 1 % in length.
    """
    audio = read_audio(piece.source)
    if not len(audio):
        raise UserError(f"{piece.source}: has no sound to compare; leave it out")
    if not piece.reference:
        return audio, None
    reference = read_audio(piece.reference)
    if not len(reference):
        raise UserError(f"{piece.reference}: has no sound to compare; leave it out")
    shorter, longer = sorted([len(audio), len(reference)])
    if longer - shorter > LONGEST_MISMATCH * longer:
        raise UserError(
            f"{piece.reference}: lasts {len(reference) / data.SAMPLE_RATE:.2f} s, {piece.source} "
            f"{len(audio) / data.SAMPLE_RATE:.2f} s; give two recordings of the same music at the "
            "same time, cut to one length"
        )
    return audio[:shorter], reference[:shorter]


def find_median(run, target, audios):
    """Per-bin median picture (256,) of the training targets, or None if there is no way to know it.

    It is the run's median.npy, or taken from the targets' audio: with several targets the file is
    the median of them all.
    """
    if not run:
        return None
    if run.targets == [target]:
        with contextlib.suppress(OSError, ValueError):
            median = np.load(run.folder / "median.npy", allow_pickle=False)
            if median.shape == (data.BINS,):
                return median.astype(np.float32)
    names = run.split["train"]
    frames = []
    for name in names[:: 1 + len(names) // MEDIAN_PIECES]:
        path = audios and find_audio(audios / target, name)
        if path:
            picture = data.spectrogram(read_audio(path))
            frames.append(picture[:, :: 1 + picture.shape[1] // MEDIAN_FRAMES])
    return np.median(np.concatenate(frames, axis=1), axis=1) if frames else None
