"""Find the pieces of a features folder; split them into training, validation and test."""

import hashlib
import os
from pathlib import Path, PurePosixPath

from common.cli import UserError
from common.files import find_named, read_csv
from common.names import piece_of


def check_instruments(origins, target, unheard=()):
    """Raise UserError if an instrument is named twice.

    ``unheard``: origins kept out of the training.
    """
    named = {"--origin": origins, "--hold_out_origin": unheard}
    for flag, instruments in named.items():
        for instrument in instruments:
            if instruments.count(instrument) > 1:
                raise UserError(f"{flag} {instrument}: is named twice; name it once")
    for instrument in unheard:
        if instrument == target or instrument in origins:
            raise UserError(
                f"--hold_out_origin {instrument}: is also an origin or the target; "
                "name it in one flag"
            )
    if target in origins:
        raise UserError(f"--target {target}: is an origin too; name another")


def check_folders(features, instruments):
    """Raise UserError if an instrument of a list has no folder in ``features``."""
    features = Path(features)
    if not features.is_dir():
        raise UserError(
            f"--dataset_path {features}: no such folder; give the output of compute_features.py"
        )
    for instrument in instruments:
        folder = features / instrument
        if not folder.is_dir():
            there = sorted(path.name for path in features.glob("*") if path.is_dir())
            listing = ", ".join(there) or "none"
            raise UserError(f"{folder}: no such instrument; there are: {listing}")


def pair_pieces(features, instruments, some_of=()):
    """Find the pieces that all ``instruments`` and at least one of ``some_of`` have.

    Returns:
        (pieces, unpaired): sorted names (paths below the instrument's folder, without extension),
        and paths, relative to ``features``, of files without a partner.

    Raises:
        UserError: an instrument is missing, or there is no common piece.
    """
    features = Path(features)
    names = {}
    check_folders(features, [*instruments, *some_of])
    for instrument in [*instruments, *some_of]:
        names[instrument] = set(find_named(features / instrument, (".npy",)))
    common = set.intersection(*(names[instrument] for instrument in instruments))
    if some_of:
        common &= set.union(*(names[instrument] for instrument in some_of))
    if not common:
        who = " and ".join(names)
        raise UserError(
            f"{features}: {who} have no piece in common; synthesize them from the same MIDI files, "
            "or give recordings of the same music the same name"
        )
    unpaired = []
    for instrument, found in names.items():
        unpaired += [f"{instrument}/{name}" for name in found - common]
    return sorted(common), sorted(unpaired)


def keep_played(features, instruments, names, flag):
    """List those of the pieces ``names`` that at least one of the ``instruments`` has.

    Raises:
        UserError: there is none; the text names ``flag``, the flag of the instruments.
    """
    kept = []
    for name in names:
        if any((Path(features) / each / f"{name}.npy").is_file() for each in instruments):
            kept.append(name)
    if not kept:
        raise UserError(
            f"{flag} {instruments[0]}: has none of the {len(names)} held-out pieces; synthesize "
            "them for this instrument, or leave it out"
        )
    return kept


def _draw(seed, piece):
    """Number in [0, 1) that depends on the seed and a piece's name only."""
    digest = hashlib.sha256(os.fsencode(f"{seed}/{piece}")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_pieces(names, validation_split, seed=0):
    """Split by piece: all versions (transpositions, speeds) of a piece go to one side.

    A piece is held out if its number, a function of seed and name, is below ``validation_split``.
    So the other pieces stay on their sides when pieces are added or removed, and the fraction is
    met on average only. A side that would be empty gets the nearest piece.

    Returns:
        (training, validation): lists of names, in the order of ``names``.

    Raises:
        UserError: there is only one piece.
    """
    draws = {piece_of(name): _draw(seed, piece_of(name)) for name in names}
    pieces = sorted(draws, key=draws.get)
    if len(pieces) < 2:
        raise UserError(f"{pieces[0]}: is the only piece; training needs a second one to hold out")
    count = sum(draw < validation_split for draw in draws.values())
    count = min(max(count, 1), len(pieces) - 1)
    chosen = set(pieces[:count])
    training = [name for name in names if piece_of(name) not in chosen]
    validation = [name for name in names if piece_of(name) in chosen]
    return training, validation


def keep_for_test(training, test_split, seed=0):
    """Move the pieces with numbers nearest to 1 from the training set to the test set.

    `split_pieces` holds out those nearest to 0, so the validation set does not depend on
    ``test_split``.

    Args:
        training: first result of `split_pieces`.
        test_split: fraction of all pieces, met on average; at least one piece.
        seed: as for `split_pieces`.

    Returns:
        (training, test): lists of names, in the order of ``training``.

    Raises:
        UserError: no piece would be left to train on.
    """
    draws = {piece_of(name): _draw(seed, piece_of(name)) for name in training}
    limit = min(1 - test_split, max(draws.values()))
    kept = [name for name in training if draws[piece_of(name)] >= limit]
    rest = [name for name in training if draws[piece_of(name)] < limit]
    if not rest:
        raise UserError(
            f"--test_split {test_split:g}: leaves no piece to train on; give a smaller one"
        )
    return rest, kept


def split_like(split, names, validation_split, seed):
    """Split as another run; pieces unknown to it follow the rule of `split_pieces`.

    Args:
        split: that run's split, {"train": names, "validation": names}, optionally "test", which is
            kept out of both sides.
        names: existing pieces.
        validation_split, seed: for pieces unknown to that run.

    Raises:
        UserError: a side would be empty.
    """
    side_of = {}
    for side, known in split.items():
        side_of |= {piece_of(name): side for name in known}
    sides = {"train": [], "validation": [], "test": []}
    for name in names:
        piece = piece_of(name)
        drawn = "validation" if _draw(seed, piece) < validation_split else "train"
        sides[side_of.get(piece, drawn)].append(name)
    for side in ("train", "validation"):
        if not sides[side]:
            raise UserError(
                f"--split_of: puts none of the {len(names)} pieces in {side}; leave it out"
            )
    if not sides["test"]:
        del sides["test"]
    return sides


def read_maestro(path):
    """Read MAESTRO's table: {piece: "train", "validation" or "test"}. Raises UserError."""
    sides = {}
    rows = read_csv(path)
    try:
        names = rows[0].index("midi_filename")
        split = rows[0].index("split")
        for row in rows[1:]:
            piece = PurePosixPath(row[names]).with_suffix("").as_posix()
            sides[piece] = row[split]
    except (IndexError, ValueError):
        raise UserError(
            f"--maestro_split {path}: is not a table with midi_filename and split; "
            "give maestro-v3.0.0.csv"
        ) from None
    return sides


def maestro_split(path, names):
    """Split by MAESTRO's table, a CSV file with the columns ``midi_filename`` and ``split``.

    All versions of a piece go to its side. Pieces that are not in the table are left out.

    Returns:
        {"train": names, "validation": names, "test": names}, each in the order of ``names``.

    Raises:
        UserError: the file is not such a table, or leaves training or validation empty.
    """
    sides = read_maestro(path)
    split = {}
    for side in ("train", "validation", "test"):
        split[side] = [name for name in names if sides.get(piece_of(name)) == side]
        if not split[side] and side != "test":
            raise UserError(
                f"--maestro_split {path}: puts none of the {len(names)} pieces in {side}, such as "
                f"{names[0]}; give the table of these pieces, and run step 1 on the table's folder"
            )
    return split
