"""Choose the models and pieces of each table of evaluate.py.

Pieces are those that all runs held out (`find_names`, `find_pieces`), pairs of a CSV file
(`read_pairs`), or recordings without a reference (`find_inputs`); the flags decide in
`find_groups`. Models are always a list here.
"""

import contextlib
import itertools
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data
from common import cli
from common.cli import UserError
from common.files import MEND, find_files, find_named, read_csv
from common.names import piece_of
from common.run_facts import RunFacts
from conversion import known_models
from sound.conditions import CONDITIONS
from sound.recordings import AUDIO_EXTENSIONS, find_audio, open_sound, read_audio

SIDE_WORDS = {  # {value of --pieces: description}
    "validation": "held out from training",
    "test": "kept for the test",
    "all": "of training and held out alike",
}
MEDIAN_PIECES = 30  # pieces of the training set used for its median
MEDIAN_FRAMES = 500  # frames of each of these pieces
LONGEST_MISMATCH = 0.01  # largest relative difference in length of a pair


class Candidate(NamedTuple):
    """A model to evaluate."""

    label: str  # short name, "" for a single model
    path: Path
    run: RunFacts | None  # None if the model is not a run folder
    model: object = None  # for `convert.convert_stream`, after loading


class Piece(NamedTuple):
    """One piece to evaluate; the reference may be None."""

    name: str
    source: Path
    reference: Path | None


class Group(NamedTuple):
    """The pieces and settings of one table."""

    title: str  # "" for a single group
    folder: str  # below --output and --report
    about: str  # description of the pieces
    origin: str | None
    target: str | None
    pieces: list
    condition: str | None = None  # of sound/conditions.py, applied to the input
    seconds: float | None = None  # length of each piece's start; None: all


def read_run(path):
    """Read the `RunFacts` of the run at ``path``; None if it is not a run folder.

    Raises:
        UserError: config.json is damaged, or names no instruments or pieces.
    """
    run = RunFacts(path)
    if not Path(path).is_dir() or not run.config:
        return None
    if not (run.origins and run.targets and run.split):
        raise UserError(f"{run.folder / 'config.json'}: damaged; {MEND}")
    return run


def find_candidates(texts):
    """Find the models of --model, without duplicates: list of `Candidate`. Raises UserError."""
    found = {}
    for text in texts:
        path = known_models.find_model(text, "--model")
        found.setdefault(path.resolve(), path)
    paths = list(found.values())
    labels = [""]
    if len(paths) > 1:
        labels = known_models.make_labels(paths)
    candidates = []
    for label, path in zip(labels, paths):
        candidates.append(Candidate(cli.one_line(label), path, read_run(path)))
    return candidates


def find_names(runs, side):
    """Find the pieces that no run was trained on, in the order of the first run's split.

    Args:
        runs: list of `RunFacts`.
        side: "test", what all of them kept for the test; or "validation", all others: a piece that
            one run held out and another kept for the test had its part in a choice.
    """
    tests = [run.split.get("test", []) for run in runs]
    tested = _find_shared_pieces(tests)
    if side == "test":
        return [name for name in tests[0] if piece_of(name) in tested]
    unused = [_find_unused(run) for run in runs]
    validation = _find_shared_pieces(unused) - tested
    return [name for name in unused[0] if piece_of(name) in validation]


def _find_unused(run):
    """Names of the pieces that a run was not trained on."""
    return [*run.split["validation"], *run.split.get("test", [])]


def _pieces_of(names):
    """Set of the pieces of some versions."""
    return {piece_of(name) for name in names}


def _find_shared_pieces(lists):
    """Set of the pieces that have a version in each of several lists."""
    pieces = [_pieces_of(names) for names in lists]
    return set.intersection(*pieces)


def tell_left_out(candidates):
    """Print on stderr how many pieces were held out by some runs only.

    Raises:
        UserError: no piece is held out by all of them.
    """
    unused = [_pieces_of(_find_unused(candidate.run)) for candidate in candidates]
    shared = set.intersection(*unused)
    left_out = set.union(*unused) - shared
    if not left_out:
        return
    if not shared:
        paths = " ".join(str(candidate.path) for candidate in candidates)
        raise UserError(
            f"--model {paths}: hold no piece out in common; train one with --split_of the other, "
            "or give --pairs, --inputs, or --pieces all"
        )
    parts = []
    for candidate in candidates:
        trained = left_out & _pieces_of(candidate.run.split["train"])
        parts.append(f"{candidate.label} was trained on {len(trained)}")
    print(
        f"evaluate.py: left out, not held out by every model: {_count_pieces(left_out)}; "
        f"{', '.join(parts)}",
        file=sys.stderr,
    )


def find_pieces(runs, origin, target, audios, side="validation"):
    """Find the pieces of runs below ``audios``, on one side of their splits, or all pieces.

    If a piece has other versions (transposed, other speeds), only the original counts. Pieces
    without audio are reported on stderr.

    Args:
        runs: list of `RunFacts`; see `find_names`.
        origin, target: instruments.
        audios: folder that holds a folder for each instrument.
        side: "validation", "test", or "all" that both instruments have.

    Raises:
        UserError: no such instrument, no such side, or none of its pieces is there.
    """
    if side == "test" and not find_names(runs, side):
        which = "this run kept none" if len(runs) == 1 else "these runs kept none in common"
        raise UserError(f"--pieces test: {which} for the test; leave the flag out")
    inputs = find_named(audios / origin, AUDIO_EXTENSIONS)
    references = find_named(audios / target, AUDIO_EXTENSIONS)
    in_both = inputs.keys() & references.keys()
    names = sorted(in_both) if side == "all" else find_names(runs, side)
    pieces = []
    missing = []
    for name in _leave_out_versions(names):
        if name in in_both:
            pieces.append(Piece(name, inputs[name], references[name]))
        else:
            missing.append(name)
    if not pieces:
        raise UserError(
            f"{audios}: has none of these pieces; render them with synthesize_audios.py, "
            "or give --pieces all"
        )
    if missing:
        print(
            f"evaluate.py: no audio of both instruments, left out: "
            f"{cli.one_line(', '.join(missing))}",
            file=sys.stderr,
        )
    return pieces


def _leave_out_versions(names):
    """Keep the originals of pieces; all versions if there is no original."""
    originals = [name for name in names if piece_of(name) == name]
    return originals if originals else names


def read_pairs(path):
    """Read lines of "input,reference" from a CSV file, paths relative to it.

    An empty reference means no reference.

    Args:
        path: of the file, a Path.

    Returns:
        list of `Piece` with different names.

    Raises:
        UserError: the file is missing, empty, or not such a table.
    """
    pieces = []
    for number, line in enumerate(read_csv(path), 1):
        cells = [_as_name(cell.strip()) for cell in line]
        if cells == ["input", "reference"]:  # heading
            continue
        if len(cells) > 2 or not cells[0]:
            raise UserError(f"{path}: line {number} is not 'input,reference'; correct it")
        source = cells[0]
        reference = None
        if len(cells) == 2 and cells[1]:
            reference = path.parent / cells[1]
        pieces.append(Piece(source, path.parent / source, reference))
    if not pieces:
        raise UserError(f"{path}: has no lines; give a line 'input,reference' for each pair")
    return _name_apart(pieces)


def _as_name(text):
    """Convert text of a UTF-8 file to a file name, independent of the locale."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _name_apart(pieces):
    """Give the pieces different names, because results are stored by name."""
    seen = {}
    apart = []
    for piece in pieces:
        seen[piece.name] = seen.get(piece.name, 0) + 1
        again = seen[piece.name]
        name = piece.name if again == 1 else f"{piece.name} ({again})"
        apart.append(piece._replace(name=name))
    return apart


def find_inputs(paths):
    """Make pieces without reference from files and from the recordings in folders.

    Raises:
        UserError: a folder has no recordings.
    """
    files = []
    for path in paths:
        found = find_files(path, AUDIO_EXTENSIONS) if path.is_dir() else [path]
        if not found:
            raise UserError(f"--inputs {path}: has no recordings; give another folder")
        files += found
    return [Piece(str(path), path, None) for path in files]


def keep_readable(pieces):
    """Keep the pieces whose recordings can be opened; the others are reported.

    Raises:
        UserError: none can be opened.
    """
    kept = []
    for piece in pieces:
        result = cli.attempt(_open_both, piece)
        if not isinstance(result, UserError):
            kept.append(piece)
        elif len(pieces) == 1:
            raise result
        else:
            cli.pass_over(result)
    if not kept:
        raise UserError(
            f"{pieces[0].source}: none of these recordings can be read; give other recordings"
        )
    return kept


def _open_both(piece):
    """Open a piece's recordings. Raises UserError or OSError if one cannot be opened."""
    for path in (piece.source, piece.reference):
        if path is not None:
            open_sound(path).close()


def find_groups(args, candidates):
    """Find the groups to evaluate, one per table: list of `Group`. Raises UserError.

    Args:
        args: flags of evaluate.py.
        candidates: list of `Candidate`.
    """
    if args.pairs or args.inputs:
        groups = [_find_unknown_group(args, candidates)]
    else:
        groups = _find_known_groups(args, candidates)
    if args.conditions:
        _check_references(groups)
        groups = _add_conditions(groups, args.conditions)
    if len(groups) == 1:
        groups = [groups[0]._replace(title="")]
    if args.seconds:
        groups = [_shorten(group, args.seconds) for group in groups]
    return groups


def _shorten(group, seconds):
    """Limit a group to the first ``seconds`` of its pieces."""
    about = f"{group.about}; the first {seconds:g} s of each"
    return group._replace(about=about, seconds=seconds)


def _check_references(groups):
    """Raise UserError if a piece has no reference."""
    for group in groups:
        if not all(piece.reference for piece in group.pieces):
            raise UserError(
                "--conditions: needs the target of every recording; give --audios_path, or --pairs "
                "without empty references"
            )


def _add_conditions(groups, names):
    """Add a copy of each group for each condition."""
    more = []
    for group in groups:
        title = group.title or "as recorded"
        more.append(group._replace(title=title))
        for name in names:
            condition = CONDITIONS[name]
            more.append(
                group._replace(
                    title=f"{group.title}, {condition.words}".removeprefix(", "),
                    folder=f"{group.folder}/{name}".removeprefix("/"),
                    condition=name,
                )
            )
    return more


def _find_known_groups(args, candidates):
    """Find the groups of pieces from the models' runs. Raises UserError."""
    for candidate in candidates:
        if not candidate.run:
            raise UserError(
                f"--model {candidate.path}: is not a run folder, so its pieces are not known; "
                "give --pairs or --inputs"
            )
    runs = [candidate.run for candidate in candidates]
    origins, targets = choose_instruments(args, candidates)
    if args.pieces != "all":
        tell_left_out(candidates)
    sides = _choose_sides(args, runs)
    groups = []
    for target, origin, side in itertools.product(targets, origins, sides):
        pieces = find_pieces(runs, origin, target, args.audios_path, side)
        pieces = keep_readable(pieces[: args.limit])
        folder = []  # only the parts that differ between groups
        if args.target:
            folder.append(target)
        if len(origins) > 1:
            folder.append(origin)
        if side == "test" and not args.pieces:
            folder.append(side)
        title = f"{origin} → {target}{_tell_unheard(candidates, origin)}, {SIDE_WORDS[side]}"
        about = describe_pieces(pieces, runs, side)
        groups.append(Group(title, "/".join(folder), about, origin, target, pieces))
    return groups


def _choose_sides(args, runs):
    """Choose the sides of the splits for --pieces."""
    if args.pieces:
        return [args.pieces]
    if find_names(runs, "test"):
        return ["validation", "test"]
    return ["validation"]


def _tell_unheard(candidates, origin):
    """Addition to a title: the models that were not trained on the origin, or ""."""
    unheard_by = [each.label for each in candidates if origin not in each.run.origins]
    if not unheard_by:
        return ""
    if len(unheard_by) == len(candidates):
        return " (an instrument never heard in training)"
    return f" (an instrument that {', '.join(unheard_by)} never heard in training)"


def _find_unknown_group(args, candidates):
    """Make the group of --pairs or --inputs, whose pieces are in no split."""
    if args.origin or args.target:
        flag = "--origin" if args.origin else "--target"
        raise UserError(f"{flag}: needs --audios_path; leave it out")
    if args.pieces:
        raise UserError("--pieces: needs --audios_path; leave it out")
    pieces = read_pairs(args.pairs) if args.pairs else find_inputs(args.inputs)
    pieces = keep_readable(pieces[: args.limit])
    were = "the model was" if len(candidates) == 1 else "the models were"
    about = (
        f"{_count_pieces(pieces)}; whether {were} trained on them is not known here: "
        f"{_list_names(pieces)}"
    )
    return Group("", "", about, None, _find_only_target(candidates), pieces)


def _find_only_target(candidates):
    """Find the target of all run folders; None without runs.

    Raises UserError if they have no common target.
    """
    known = [candidate for candidate in candidates if candidate.run]
    if not known:
        return None
    return find_common_targets(known)[0]


def find_common_targets(candidates):
    """Find the target of all models, in a list. Raises UserError if there is none."""
    remedy = "evaluate it alone, or name one --target for all, with --audios_path"
    targets = [candidate.run.targets for candidate in candidates]
    return _find_common(candidates, targets, "makes", remedy)


def find_common_origins(candidates):
    """Find the common origins; those unknown to the first model come last. Raises UserError."""
    origins = []
    for candidate in candidates:
        origins.append([*candidate.run.origins, *candidate.run.unheard])
    return _find_common(candidates, origins, "converts from", "give --origin")


def _find_common(candidates, lists, does, remedy):
    """Find the instruments in all lists, one list per model, in the order of the first.

    Raises UserError if there is none; ``does`` is the verb of its text.
    """
    common = lists[0]
    for candidate, instruments in zip(candidates[1:], lists[1:]):
        kept = [name for name in common if name in instruments]
        if not kept:
            raise UserError(
                f"--model {candidate.path}: {does} {', '.join(instruments)}, and "
                f"{candidates[0].path} {does} {', '.join(common)}; {remedy}"
            )
        common = kept
    return common


def choose_instruments(args, candidates):
    """Choose (origins, targets): from --origin and --target, or common to all runs.

    The default is every origin, those kept out of the training last.

    Raises:
        UserError: an instrument is on both sides, or the runs have no common instrument.
    """
    origins = args.origin or find_common_origins(candidates)
    targets = args.target
    if not targets:
        targets = [name for name in find_common_targets(candidates) if name not in origins]
    both = [name for name in targets if name in origins]
    if both:
        raise UserError(f"--target {both[0]}: is the origin; name another target or --origin")
    if not targets:
        raise UserError(
            f"--origin {origins[0]}: is the only target; name another, or give --target"
        )
    return origins, targets


def describe_pieces(pieces, runs, side):
    """Describe the pieces and their side of the splits in one line."""
    if side != "all":
        return f"{_count_pieces(pieces)} {SIDE_WORDS[side]}: {_list_names(pieces)}"
    trained = set()
    for run in runs:
        trained.update(run.split["train"])
    used = sum(piece.name in trained for piece in pieces)
    return f"{_count_pieces(pieces)}, {used} of them used in training: {_list_names(pieces)}"


def _count_pieces(pieces):
    return "1 piece" if len(pieces) == 1 else f"{len(pieces)} pieces"


def _list_names(pieces):
    return ", ".join(cli.one_line(piece.name) for piece in pieces)


def read_piece(piece, seconds=None):
    """Read a piece's audio and its reference's audio, cut to one length.

    Args:
        piece: `Piece`.
        seconds: length of the start to read; None: all.

    Returns:
        (audio, reference): float32 (n,) at 44.1 kHz each; the reference is None if the piece
        has none.

    Raises:
        UserError: one is empty, or the lengths differ by more than 1 %.
    """
    audio = read_audio(piece.source)
    wanted = round(seconds * data.SAMPLE_RATE) if seconds else None
    if not len(audio):
        raise UserError(f"{piece.source}: has no sound to compare; leave it out")
    if not piece.reference:
        return audio[:wanted], None
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
    length = min(shorter, wanted) if wanted else shorter
    return audio[:length], reference[:length]


def find_median(run, target, audios, bins=data.BINS):
    """Find the per-bin median (bins,) of the training targets; None if unknown.

    It is read from the run's median.npy, or computed from the audio of another target.

    Args:
        run: `RunFacts` or None.
        target: instrument.
        audios: folder that holds a folder for each instrument, or None.
        bins: height of the compared pictures.
    """
    if not run:
        return None
    if run.targets == [target]:
        with contextlib.suppress(OSError, ValueError):
            median = np.load(run.folder / "median.npy", allow_pickle=False)
            if median.shape == (bins,):
                return median.astype(np.float32)
    if not audios:
        return None
    return _take_median(run.split["train"], audios / target, bins)


def _take_median(names, folder, bins):
    """Compute the per-bin median (bins,) of some pieces' frames; None if all are missing."""
    pieces_apart = 1 + len(names) // MEDIAN_PIECES
    frames = []
    for name in names[::pieces_apart]:
        path = find_audio(folder, name)
        if path:
            audio = cli.attempt(read_audio, path)
            if isinstance(audio, UserError):
                cli.pass_over(audio)
                continue
            picture = data.spectrogram(audio, bins)
            frames_apart = 1 + picture.shape[1] // MEDIAN_FRAMES
            frames.append(picture[:, ::frames_apart])
    if not frames:
        return None
    return np.median(np.concatenate(frames, axis=1), axis=1)
