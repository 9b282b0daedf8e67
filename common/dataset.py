"""Read aligned pairs of tiles from disk, in batches.

<features>/features.json
<features>/<instrument>/<sub/folders>/<piece>.npy    float16 (tiles, bins, 256, 1) in [0, 1]

This module does not import Keras; `feeding.feed` makes a Keras data set from the pairs.
"""

import contextlib
import errno
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.cli import UserError
from common.files import read_json
from common.names import family_of
from data import DB_RANGE, FEATURE_PARAMETERS, HEIGHTS, TILE_FRAMES, to_network

CHANNELS = (1, 2)  # of a tile; the first is the dB scale; plain pairs ignore the second
MEDIAN_TILES = 512  # enough for a median, and read in a second

COMPUTE_ANEW = "compute the features again, into another folder, with compute_features.py"

# Lookup tables from float16 bits to float32, on the dB scale and in the networks' range. Twice as
# fast as converting.
_DB = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
with np.errstate(invalid="ignore"):
    _NETWORK = _DB * 2 - 1


def read_features_json(features):
    """Read features.json.

    Raises:
        UserError: the file is missing or damaged, or its parameters differ from data.py's; "bins"
            may be any of `data.HEIGHTS`.
    """
    path = Path(features) / "features.json"
    description = read_json(path, COMPUTE_ANEW, parameters=dict)
    if description is None:
        raise UserError(f"{path}: not found; make it with compute_features.py")
    if not isinstance(description.get("audios", ""), str):
        raise UserError(f"{path}: damaged; {COMPUTE_ANEW}")
    for key, ours in FEATURE_PARAMETERS.items():
        found = description["parameters"].get(key)
        known = HEIGHTS if key == "bins" else (ours,)
        if found not in known:
            raise UserError(f"{path}: {key} is {found}, but this code uses {ours}; {COMPUTE_ANEW}")
    return description


def weigh_origins(names, has, shares):
    """Compute the probability of each origin for the tiles of each piece.

    A family's weight is its share divided by the fraction of pieces that have it. So it gets about
    its share of all tiles, even with few pieces. Within a piece its instruments have equal weights.

    Args:
        names: origins.
        has: bool (pieces, origins), whether an origin has a piece.
        shares: {family: fraction}; the other families share the rest equally. {}: all origins are
            equal. If they leave no rest, a piece that only other families have is theirs equally.

    Returns:
        Probabilities, float64 (pieces, origins); each row sums to 1.
    """
    weights = has.astype(float)
    if shares:
        families = [family_of(name) for name in names]
        others = sorted(set(families) - set(shares))
        rest = max(0.0, 1 - sum(shares.values())) / max(len(others), 1)
        for family in set(families):
            members = np.array([each == family for each in families])
            count = has[:, members].sum(axis=1)  # instruments of the family that have the piece
            if not count.any():
                continue
            share = shares.get(family, rest) / (count > 0).mean()
            weights[:, members] *= (share / np.maximum(count, 1))[:, np.newaxis]
        empty = weights.sum(axis=1) == 0
        weights[empty] = has[empty]
    return weights / weights.sum(axis=1, keepdims=True)


class Tiles:
    """The tiles of one piece, float16 (n, bins, 256, channels) in [0, 1], one channel or two.

    The file is open only during a read, because a set may have more files than a process may open.

    Args:
        path: .npy file of compute_features.py.
        cache: read the whole file now and keep it in memory.

    Raises:
        UserError: the file is damaged, pickled, or has another shape or type.
        OSError: it cannot be opened.
    """

    def __init__(self, path, cache=False):
        self.path = Path(path)
        try:
            with self._named_limit(), open(self.path, "rb") as file:
                shape, dtype = self._read_header(file)
                self.offset = file.tell()
        except (UserError, OSError):
            raise
        except Exception as error:  # for damaged headers numpy raises errors of Python's tokenizer
            raise self._damaged(error) from None
        if dtype != np.float16 or len(shape) != 4 or not shape[0]:
            raise self._unsuitable(f"{dtype} {shape}")
        if shape[1] not in HEIGHTS or shape[2] != TILE_FRAMES or shape[3] not in CHANNELS:
            raise self._unsuitable(f"{dtype} {shape}")
        self.shape = shape
        if self.path.stat().st_size < self.offset + 2 * math.prod(shape):
            raise self._damaged("it ends too early")
        self.kept = None
        if cache:
            self.kept = self.read(0, len(self))

    @contextlib.contextmanager
    def _named_limit(self):
        """Report too many open files as `UserError`."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise UserError(
                f"{self.path}: too many files are open; give fewer --workers or raise ulimit -n"
            ) from None

    @staticmethod
    def _read_header(file):
        """Read shape and dtype; the file is then at the start of the data. Raises ValueError."""
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, by_columns, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"format {version}")
        if by_columns:
            raise ValueError("column by column")
        return shape, dtype

    def _damaged(self, reason):
        remedy = "move it away and run compute_features.py again"
        return UserError(f"{self.path}: is damaged ({reason}); {remedy}")

    def _unsuitable(self, found):
        wanted = "float16 (n, 256 or 512, 256, 1 or 2)"
        return UserError(f"{self.path}: has {found}, not {wanted}; compute it again")

    @property
    def bins(self):
        """Height of a tile."""
        return self.shape[1]

    @property
    def has_phase(self):
        """Whether the tiles also have a phase channel."""
        return self.shape[3] > 1

    def __len__(self):
        """Number of tiles."""
        return self.shape[0]

    def __getitem__(self, index):
        """Tile number ``index``, float16 (bins, 256, channels)."""
        return self.read(index, index + 1)[0]

    def read(self, start, stop):
        """Read tiles ``start`` ... ``stop`` - 1 or to the end: float16 (n, bins, 256, channels).

        Raises UserError if the file has become shorter.
        """
        stop = min(stop, len(self))
        if self.kept is not None:
            return self.kept[start:stop]
        shape = (stop - start, *self.shape[1:])
        size = 2 * math.prod(shape)  # bytes, two per number
        first = self.offset + start * 2 * math.prod(self.shape[1:])
        content = self._read_bytes(first, size)
        return np.frombuffer(content, np.float16).reshape(shape)

    def _read_bytes(self, first, size):
        """Read ``size`` bytes from byte ``first``, with few system calls: it is called often."""
        with self._named_limit():
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            os.lseek(descriptor, first, os.SEEK_SET)
            content = os.read(descriptor, size)
            while len(content) < size:  # a read may return less
                more = os.read(descriptor, size - len(content))
                if not more:
                    raise self._damaged("it ends too early")
                content += more
        finally:
            os.close(descriptor)
        return content


class Batching(NamedTuple):
    """How `TilePairs` draws pairs and makes batches.

    Attributes:
        batch_size: pairs per batch.
        seed: shuffle with this seed and drop the last incomplete batch; None: all pairs, in order.
        cache: keep all tiles in memory.
        epoch_tiles: pairs per epoch, drawn again for each; None: all.
        conditions: augment.Conditions, applied to each pair when it is read; or None.
        multiple: without a seed, drop the last pairs so that their number is a multiple of this.
            For several devices, which all need a share of the last batch.
        shares: {family: fraction of the tiles} of the origins, see `weigh_origins`; {}: all origins
            are equal.
    """

    batch_size: int
    seed: int | None = None
    cache: bool = False
    epoch_tiles: int | None = None
    conditions: object = None
    multiple: int = 1
    shares: dict = {}  # noqa: RUF012


class TilePairs:
    """Batches (x, y) of aligned tiles, float32 (batch, bins, 256, channels) in [-1, 1].

    y is a tile of the target, x the same tile of one origin. With several origins, each epoch draws
    one for every tile; without a seed (see `Batching`) they take turns. An origin may lack some of
    the pieces.

    Args:
        features: features folder.
        origins: list of instruments.
        target: instrument.
        names: pieces to draw from.
        batching: `Batching`; its fields except ``cache`` become attributes.

    Attributes:
        tiles: `Tiles` by piece and instrument.
        index: int32 (pairs, 2): piece, tile.
        bins: height of the tiles.

    Raises:
        UserError: the instruments of a piece differ in the number of tiles, tiles differ in
            height, or a batch is larger than the data.
    """

    inputs = outputs = 1  # channels of x and y

    def __init__(self, features, origins, target, names, batching):
        self.batch_size = batching.batch_size
        self.seed = batching.seed
        self.epoch_tiles = batching.epoch_tiles
        self.conditions = batching.conditions
        self.multiple = batching.multiple
        self.shares = batching.shares
        self.names = list(names)
        self.instruments = [*origins, target]
        self.origins = [self.instruments.index(name) for name in origins]
        self.target = self.instruments.index(target)
        self.tiles = [self._open_piece(Path(features), name, batching.cache) for name in self.names]
        self.bins = self._find_bins()
        self._find_origins()
        self.index = np.array(self._list_pairs(), np.int32)
        self._check_batch()
        self.set_epoch(0)

    def _open_piece(self, features, name, cache):
        """Open the `Tiles` of a piece, by instrument. Raises UserError if their numbers differ."""
        piece = {}
        for i, instrument in enumerate(self.instruments):
            path = features / instrument / f"{name}.npy"
            if i == self.target or path.is_file():
                piece[i] = Tiles(path, cache)
        counts = {self.instruments[i]: len(tiles) for i, tiles in piece.items()}
        if len(set(counts.values())) > 1:
            each = [f"{count} tiles of {i}" for i, count in counts.items()]
            raise UserError(
                f"{name}: {', '.join(each)}; cut the recordings to one length, or synthesize and "
                "compute them again"
            )
        return piece

    def _find_origins(self):
        """Find the origins of each piece, bool (pieces, origins), and their probabilities."""
        has = [[origin in piece for origin in self.origins] for piece in self.tiles]
        self.has = np.array(has)
        names = [self.instruments[origin] for origin in self.origins]
        self.chances = np.cumsum(weigh_origins(names, self.has, self.shares), axis=1)
        self.families = [family_of(name) for name in self.instruments]

    def _find_bins(self):
        """Find the height of the tiles. Raises UserError if they differ."""
        everything = [tiles for piece in self.tiles for tiles in piece.values()]
        first = everything[0]
        for tiles in everything:
            if tiles.bins != first.bins:
                raise UserError(
                    f"{tiles.path}: has tiles of {tiles.bins} bins, {first.path} of {first.bins}; "
                    f"{COMPUTE_ANEW}"
                )
        return first.bins

    def _list_pairs(self):
        """List the rows of `index`."""
        rows = []
        for number, piece in enumerate(self.tiles):
            rows += [(number, tile) for tile in range(len(piece[self.target]))]
        return rows

    def _check_batch(self):
        count = min(len(self.index), self.epoch_tiles or len(self.index))
        if self.seed is not None and self.batch_size > count:
            raise UserError(
                f"--batch_size {self.batch_size}: the epoch has only {count} training tiles; "
                "give a smaller number"
            )

    def set_epoch(self, epoch):
        """Draw the order and the origins of an epoch; both depend on (seed, epoch) only."""
        rng = np.random.default_rng((self.seed or 0, epoch))
        if self.seed is None:
            count = len(self.index) // self.multiple * self.multiple
            self.order = np.arange(count or len(self.index))
        else:
            self.order = rng.permutation(len(self.index))[: self.epoch_tiles]
        self.draw(rng)
        self.epoch = epoch  # last, because other threads read the rest after this number

    def draw(self, rng):
        """Draw an origin for each pair of the epoch, in `drawn` (pairs,)."""
        origins = np.array(self.origins)
        if self.seed is None:
            self.drawn = self._take_turns()
        elif self.has.all() and not self.shares:
            self.drawn = rng.choice(origins, len(self.order))
        else:
            chances = self.chances[self.index[self.order, 0]]  # (pairs, origins), cumulative
            draws = rng.random((len(self.order), 1)) * chances[:, -1:]
            self.drawn = origins[(draws >= chances).sum(axis=1)]

    def _take_turns(self):
        """Assign the origins of a piece to its pairs in turn."""
        drawn = np.empty(len(self.order), int)
        for row, number in enumerate(self.order):
            there = np.flatnonzero(self.has[self.index[number, 0]])
            drawn[row] = self.origins[there[number % len(there)]]
        return drawn

    def __len__(self):
        """Batches per epoch."""
        full, rest = divmod(len(self.order), self.batch_size)
        if rest and self.seed is None:
            return full + 1
        return full

    def __getitem__(self, batch):
        """Batch number ``batch`` of this epoch: (x, y)."""
        start = batch * self.batch_size
        count = min(self.batch_size, len(self.order) - start)
        x = np.empty((count, self.bins, TILE_FRAMES, self.inputs), np.float32)
        y = np.empty((count, self.bins, TILE_FRAMES, self.outputs), np.float32)
        for k in range(count):
            self.fill(start + k, x[k], y[k])
        return x, y

    def fill(self, row, x, y):
        """Write the epoch's pair number ``row`` into x and y, float32 (bins, 256, channels)."""
        origin, target = self.read(row)
        if not self.conditions:
            write_tile(origin, x[..., 0])
            write_tile(target, y[..., 0])
            return
        # NumPy pads a seed with zeros, so tile 0 repeats the numbers of `set_epoch`. Its draw is
        # random all the same; another seed would change what a resumed run draws.
        rng = np.random.default_rng((self.seed, self.epoch, self.order[row]))
        other = partner = None
        if self.conditions.blends and len(self.origins) > 1:
            other = self.read_other(row, rng, self.families[self.drawn[row]])
        if self.conditions.duets and len(self.origins) > 1:
            partner = self.read_other(row, rng)
        origin, target = self.conditions(read_db(origin), read_db(target), rng, other, partner)
        x[..., 0] = to_network(origin)
        y[..., 0] = to_network(target)

    def read(self, row):
        """Read the tiles (origin, target) of the epoch's pair number ``row``, float16 as stored."""
        piece, tile = self.index[self.order[row]]
        tiles = self.tiles[piece]
        return tiles[self.drawn[row]][tile], tiles[self.target][tile]

    def read_other(self, row, rng, family=None):
        """Read the same tile of a random origin, of ``family`` or of any: dB scale, float32."""
        piece, tile = self.index[self.order[row]]
        there = [i for i in self.origins if i in self.tiles[piece]]
        if family is not None:
            there = [i for i in there if self.families[i] == family]
        return read_db(self.tiles[piece][there[rng.integers(len(there))]][tile])

    def trivial_errors(self, origin, target, median):
        """MAE of the unchanged origin and of the median to a pair's target, on the dB scale.

        Args:
            origin, target: tiles from `read`.
            median: float32 (bins,), see `find_target_median`.
        """
        origin = read_db(origin)
        target = read_db(target)
        identity = np.abs(origin - target).mean()
        constant = np.abs(median[:, np.newaxis] - target).mean()
        return identity, constant


def read_db(tile):
    """Read a tile's dB scale: float16 (bins, 256, channels) -> float32 (bins, 256) in [0, 1]."""
    return np.take(_DB, tile[..., 0].view(np.uint16))


def write_tile(tile, out):
    """Write a tile's dB scale, float16 (bins, 256, channels), to ``out``, float32 in [-1, 1]."""
    np.take(_NETWORK, tile[..., 0].view(np.uint16), out=out, mode="clip")


def find_target_median(pairs):
    """Per-bin median of the targets, the constant spectrum with the least MAE.

    Float32 (bins,) on the dB scale, from at most MEDIAN_TILES tiles, evenly spaced over the set.
    """
    count = min(MEDIAN_TILES, len(pairs.index))
    rows = np.linspace(0, len(pairs.index) - 1, count).astype(int)
    pictures = []
    for piece, tile in pairs.index[rows]:
        pictures.append(pairs.tiles[piece][pairs.target][tile][..., 0])
    frames = np.concatenate(pictures, axis=1)
    return np.median(frames.astype(np.float32), axis=1)


def measure_baselines(pairs, median):
    """Spectrogram MAE in dB of trivial systems over ``pairs``: {"identity": ..., "median": ...}."""
    sums = np.zeros(2)
    for row in range(len(pairs.order)):
        origin, target = pairs.read(row)
        sums += pairs.trivial_errors(origin, target, median)
    identity, constant = sums / len(pairs.order) * DB_RANGE
    return {"identity": float(identity), "median": float(constant)}
