"""Aligned tile pairs on disk -> shuffled batches; the split into training and held-out pieces.

<features>/features.json, <features>/<instrument>/<sub/folders>/<piece>.npy float16 (tiles, 256, 256, 1) in [0, 1]
"""

import csv
import hashlib
from pathlib import Path, PurePosixPath

import keras
import numpy as np

import learned_phase
from cli import UserError, find_named, read_json
from data import BINS, DB_RANGE, FEATURE_PARAMETERS, TILE_FRAMES
from midi import piece_of

SHAPES = (BINS, TILE_FRAMES, 1), (BINS, TILE_FRAMES, 2)  # of a tile without and with phase
LEARN = ("magnitude", "phase", "both")  # what a network gives


def read_features_json(features):
    """The contents of features.json.

    Raises:
        UserError: it is missing or damaged, or the tiles were made with other parameters than data.py's.
    """
    path = Path(features) / "features.json"
    description = read_json(path, "run compute_features.py --fresh", parameters=dict)
    if description is None:
        raise UserError(f"{path}: not found; make it with compute_features.py")
    for key, ours in FEATURE_PARAMETERS.items():
        if (found := description["parameters"].get(key)) != ours:
            raise UserError(
                f"{path}: {key} is {found}, this code's is {ours}; run compute_features.py --fresh"
            )
    return description


def listed(instruments):
    """One instrument or a list of several -> a list."""
    return [instruments] if isinstance(instruments, str) else list(instruments)


def several(origin, target):
    """Whether there are several instruments on a side, so that one model is to learn all of them and needs a style."""
    return not (isinstance(origin, str) and isinstance(target, str))


def pair_pieces(features, origin, target):
    """Pieces that all the instruments have; ``origin`` and ``target`` name one each, or several in a list.

    Returns:
        (pieces, unpaired): sorted names (paths below the instrument's folder, without extension), and the files'
        paths relative to ``features`` that have no partner.

    Raises:
        UserError: an instrument is named twice, would be its own only partner, or is not there, or there is no common piece.
    """
    features, names = Path(features), {}
    origins, targets = listed(origin), listed(target)
    alone = set(origins) & set(targets) if 1 in (len(origins), len(targets)) else ()
    for flag, instruments in (("--origin", origins), ("--target", targets)):
        for instrument in instruments:
            if instruments.count(instrument) > 1 or (instrument in alone and flag == "--target"):
                raise UserError(
                    f"{flag} {instrument}: is {'the origin' if instrument in alone else 'named'} too; name another"
                )
    for instrument in dict.fromkeys(origins + targets):
        folder = features / instrument
        if not folder.is_dir():
            there = ", ".join(sorted(p.name for p in features.glob("*") if p.is_dir())) or "none"
            raise UserError(f"{folder}: no such instrument; there are: {there}")
        names[instrument] = set(find_named(folder, (".npy",)))
    common = set.intersection(*names.values())
    if not common:
        who = " and ".join(names)
        raise UserError(
            f"{features}: {who} have no piece in common; synthesize them from the same MIDI files"
        )
    unpaired = sorted(
        f"{instrument}/{name}" for instrument in names for name in names[instrument] - common
    )
    return sorted(common), unpaired


def split_pieces(names, validation_split, seed=0):
    """Split by piece: all versions (transpositions, speeds) of one piece land on one side.

    A piece's place follows from (seed, its name) alone, so that a set that grows keeps its held-out pieces held out.

    Returns:
        (training, validation): sorted lists of names; about ``validation_split`` of the pieces, at least one on each side.

    Raises:
        UserError: there is only one piece.
    """
    pieces = sorted(
        {piece_of(name) for name in names},
        key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).digest(),
    )
    if len(pieces) < 2:
        raise UserError(f"{pieces[0]}: is the only piece; training needs a second one to hold out")
    held_out = set(pieces[: min(len(pieces) - 1, max(1, round(len(pieces) * validation_split)))])
    return [n for n in names if piece_of(n) not in held_out], [
        n for n in names if piece_of(n) in held_out
    ]


def maestro_split(path, names):
    """Split as MAESTRO's table says: a CSV file with the columns ``midi_filename`` and ``split``, such as maestro-v3.0.0.csv.

    All versions of a piece go where the piece goes; a piece that the table lacks goes nowhere.

    Returns:
        {"train": names, "validation": names, "test": names}, each sorted as ``names`` are.

    Raises:
        UserError: it is no such table, or there is no piece for training, or none for validation.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [
                (PurePosixPath(row["midi_filename"]), row["split"]) for row in csv.DictReader(file)
            ]
        sides = {path.with_suffix("").as_posix(): side for path, side in rows}
    except FileNotFoundError:
        raise UserError(
            f"--maestro_split {path}: no such file; give the path of maestro-v3.0.0.csv"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise UserError(
            f"--maestro_split {path}: is no table with midi_filename and split; give maestro-v3.0.0.csv"
        ) from None
    split = {
        side: [n for n in names if sides.get(piece_of(n)) == side]
        for side in ("train", "validation", "test")
    }
    for side in ("train", "validation"):
        if not split[side]:
            raise UserError(
                f"--maestro_split {path}: puts none of the {len(names)} pieces in {side}; give these pieces' table"
            )
    return split


def load_tiles(path, cache=False):
    """Tiles of one piece, float16 (n, 256, 256, 1), or 2 with phase: memory-mapped, or read into memory if ``cache``.

    Raises:
        UserError: the file is damaged, pickled, or of another shape or type.
    """
    try:
        tiles = np.lib.format.open_memmap(
            path, mode="r"
        )  # unlike np.load, takes nothing else for an array
    except (
        Exception
    ) as error:  # of a damaged header numpy lets through what Python's own tokenizer raises
        raise UserError(
            f"{path}: cannot be read ({error}); delete it and run compute_features.py again"
        ) from None
    if tiles.dtype != np.float16 or tiles.shape[1:] not in SHAPES or not len(tiles):
        raise UserError(
            f"{path}: holds {tiles.dtype} {tiles.shape}, not float16 (n, 256, 256, 1 or 2); compute it again"
        )
    return np.array(tiles) if cache else tiles


class TilePairs(keras.utils.PyDataset):
    """Batches (x, y) of aligned tiles, float32 (batch, 256, 256, channels) in [-1, 1].

    ``learn``    x: dB scale of            y
    magnitude    origin                    dB scale of the target
    phase        origin, and target        `rotation` from the origin's phase to the target's
    both         origin                    dB scale of the target, `rotation`

    With several origins or targets each tile of an origin makes a pair with each target that is another instrument, and x gets
    a second channel: the style, a tile of that target from another piece.

    Args:
        features: features folder.
        origin, target: an instrument each, or a list of several.
        names: pieces to draw from.
        batch_size: pairs a batch.
        seed: shuffle with this seed, and leave out what does not fill a batch; None: in order, all of it.
        cache: hold all tiles in memory.
        workers: reading threads.
        epoch_tiles: tiles an epoch, drawn anew for each; None: all.
        learn: one of LEARN.

    Attributes:
        pieces: tiles of each piece, of each instrument, the origins first.
        index: int32 (pairs, 4): piece, tile, and which instruments are origin and target.

    Raises:
        UserError: a piece has different numbers of tiles, a batch is larger than the data, or there is no other piece or no
            phase where one is needed.
    """

    def __init__(
        self,
        features,
        origin,
        target,
        names,
        batch_size,
        seed=None,
        cache=False,
        workers=1,
        epoch_tiles=None,
        learn=LEARN[0],
    ):
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=2 * workers + 2)
        self.batch_size, self.seed, self.epoch_tiles = batch_size, seed, epoch_tiles
        self.learn = learn
        self.styled = several(origin, target)
        origins, targets = listed(origin), listed(target)
        instruments = list(dict.fromkeys(origins + targets))
        sides = [
            (instruments.index(a), instruments.index(b)) for a in origins for b in targets if a != b
        ]
        self.pieces = [
            [load_tiles(Path(features) / i / f"{name}.npy", cache) for i in instruments]
            for name in names
        ]
        for name, tiles in zip(names, self.pieces):
            counts = dict(zip(instruments, map(len, tiles)))
            if len(set(counts.values())) > 1:
                text = ", ".join(
                    f"{count} tiles of {instrument}" for instrument, count in counts.items()
                )
                raise UserError(f"{name}: {text}; synthesize and compute it again")
            if learn != "magnitude" and any(t.shape[-1] == 1 for t in tiles):
                raise UserError(
                    f"--learn {learn}: {features} holds no phase; run compute_features.py --phase --fresh"
                )
        self.index = np.array(
            [
                (p, t, *pair)
                for p, tiles in enumerate(self.pieces)
                for t in range(len(tiles[0]))
                for pair in sides
            ],
            np.int32,
        )
        self.works = np.unique([piece_of(name) for name in names], return_inverse=True)[
            1
        ]  # versions of a piece are one work
        if self.styled and self.works.max() == 0:
            side, remedy = ("held out", "raise") if seed is None else ("to train on", "lower")
            reason = f"is the only piece {side}, and a style is taken from another"
            raise UserError(f"{names[0]}: {reason}; {remedy} --validation_split")
        if seed is not None and batch_size > (
            tiles := min(len(self.index), epoch_tiles or len(self.index))
        ):
            raise UserError(
                f"--batch_size {batch_size}: there are only {tiles} training tiles an epoch; make it smaller"
            )
        self.set_epoch(0)

    def set_epoch(self, epoch):
        """Put the pairs in the order of this epoch, with its styles: both follow from (seed, epoch) alone."""
        rng = np.random.default_rng((self.seed or 0, epoch))
        self.order = self.index
        if self.seed is not None:
            self.order = rng.permutation(self.index)[: self.epoch_tiles]
        if self.styled:
            self.styles = rng.choice(self.index, len(self.order))
            while (same := self.works[self.styles[:, 0]] == self.works[self.order[:, 0]]).any():
                self.styles[same] = rng.choice(self.index, same.sum())

    def __len__(self):
        """Batches an epoch."""
        full, rest = divmod(len(self.order), self.batch_size)
        return full + (rest > 0 and self.seed is None)

    def __getitem__(self, i):
        """Batch i of this epoch."""
        rows = slice(i * self.batch_size, (i + 1) * self.batch_size)
        chosen = self.order[rows]
        inputs, outputs = 1 + (self.styled or self.learn == "phase"), 1 + LEARN.index(self.learn)
        x = np.empty((len(chosen), BINS, TILE_FRAMES, inputs), np.float32)
        y = np.empty((len(chosen), BINS, TILE_FRAMES, outputs), np.float32)
        for k, (piece, tile, *sides) in enumerate(chosen):
            origin, target = (self.pieces[piece][side][tile] for side in sides)
            read_tile(origin, x[k, ..., 0])
            read_tile(target, x[k, ..., 1] if self.learn == "phase" else y[k, ..., 0])
            if self.learn != "magnitude":
                y[k, ..., -2:] = learned_phase.rotation(origin, target)
            if self.styled:
                piece, tile, *_ = self.styles[rows][k]
                read_tile(self.pieces[piece][sides[1]][tile], x[k, ..., 1])
        return x, y


def read_tile(tile, out):
    """Tile float16 (256, 256, 1 or 2) -> its dB scale in network range [-1, 1], float32, written to ``out`` (256, 256)."""
    out[:] = tile[..., 0]
    out *= 2  # while the tile is in the processor's cache
    out -= 1


def target_median(pairs, max_tiles=512):
    """Per-bin median of the targets: the constant picture nearest to them in MAE. Float32 (256,), dB scale [0, 1].

    From at most ``max_tiles`` tiles, evenly spaced over the set.
    """
    chosen = pairs.index[
        np.linspace(0, len(pairs.index) - 1, min(max_tiles, len(pairs.index))).astype(int)
    ]
    frames = np.concatenate(
        [pairs.pieces[piece][side][tile][..., 0] for piece, tile, _, side in chosen], axis=1
    )
    return np.median(frames.astype(np.float32), axis=1)


def baselines_db(pairs, median):
    """Spectrogram MAE in dB of the trivial systems over all of ``pairs``: {"identity": ..., "median": ...}.

    For a phase network, on the same scale: no rotation, the input's phase, and 0 everywhere.
    """
    sums = np.zeros(2)
    for piece, tile, *sides in pairs.index:
        x, y = (pairs.pieces[piece][side][tile].astype(np.float32) for side in sides)
        if pairs.learn == "phase":
            turned, still = learned_phase.rotation(x, y), y[..., :1] * np.float32([1, 0])
            sums += np.abs(turned - still).mean() / 2, np.abs(turned).mean() / 2
            continue
        x, y = x[..., 0], y[..., 0]
        sums += np.abs(x - y).mean(), np.abs(median[:, np.newaxis] - y).mean()
    return dict(zip(("identity", "median"), (sums / len(pairs.index) * DB_RANGE).tolist()))
