"""One model for several targets: a tile of the target, the style, selects one.

Training uses `StylePairs`; conversion uses `with_style`. The kind, `FILM` or `TILE`, determines how
the network reads the style.
"""

from pathlib import Path

import numpy as np

import data
from common.cli import UserError
from common.dataset import TilePairs, Tiles, write_tile
from common.kinds import Kind, bins_of
from common.names import piece_of

import os

ENCODER = (1, 2, 4, 8)  # channels of the style encoder's blocks, in multiples of the width
STYLE_TILES = int(os.environ.get("STYLE_TILES", "4"))  # tiles that show the target


class StylePairs(TilePairs):
    """`TilePairs` of several targets. x has more channels, the style.

    A piece makes pairs of any two of its instruments, an origin and a target. The style is
    STYLE_TILES tiles of that target from other pieces, so it shows the timbre but not the notes. An
    instrument may lack some of the pieces.

    Raises:
        UserError: as `TilePairs`, or no target has two pieces.
    """

    inputs = 1 + STYLE_TILES
    all_targets = False  # a piece may lack some of them

    def _list_pairs(self):
        works = [piece_of(name) for name in self.names]  # versions of a piece are one work
        self.works = np.unique(works, return_inverse=True)[1]
        self._list_styles()
        rows = []
        self.sources = []  # origin of each row
        for number, piece in enumerate(self.tiles):
            origins = [origin for origin in self.origins if origin in piece]
            targets = [target for target in self.targets if self._has_style(number, target)]
            for tile in range(len(next(iter(piece.values())))):
                for place, target in enumerate(targets):
                    others = [origin for origin in origins if origin != target]
                    if self.seed is None and others:  # they take turns: less to validate
                        others = [others[(tile + place) % len(others)]]
                    rows += [(number, tile, target) for _ in others]
                    self.sources += others
        self.sources = np.array(self.sources)
        if not rows:
            self._refuse_only_piece()
        return rows

    def _list_styles(self):
        """List the tiles of each target: {target: int (n, 2), piece and tile}."""
        self.shown = {}
        for target in self.targets:
            tiles = []
            for number, piece in enumerate(self.tiles):
                if target in piece:
                    tiles += [(number, tile) for tile in range(len(piece[target]))]
            self.shown[target] = np.array(tiles, np.int32).reshape(-1, 2)

    def _has_style(self, number, target):
        """Whether a piece has the target, and the target another work."""
        works = self.works[self.shown[target][:, 0]]
        return target in self.tiles[number] and (works != self.works[number]).any()

    def _refuse_only_piece(self):
        side = "to train on"
        remedy = "lower"
        if self.seed is None:
            side = "held out"
            remedy = "raise"
        raise UserError(
            f"{self.names[0]}: is the only piece {side}, but the style must come from another; "
            f"{remedy} --validation_split"
        )

    def draw(self, rng):
        """Set each pair's origin, and a seed for its styles."""
        self.drawn = self.sources[self.order]
        self.seeds = rng.integers(2**31, size=len(self.order))

    def fill(self, row, x, y):
        """Write the epoch's pair number ``row``; the style goes to the other channels of x."""
        super().fill(row, x, y)
        number, _, target = self.index[self.order[row]]
        shown = self.shown[target]
        others = shown[self.works[shown[:, 0]] != self.works[number]]
        rng = np.random.default_rng(self.seeds[row])
        for channel in range(1, self.inputs):
            piece, tile = others[rng.integers(len(others))]
            write_tile(self.tiles[piece][target][tile], x[..., channel])


def with_style(model, picture):
    """Fix the style of a model of several targets; returns a function for `convert`.

    Args:
        model: Keras generator with two input channels.
        picture: dB scale (bins, t), of the target instrument. Its loudest tile is the style.
    """
    tiles = data.slice_tiles(picture)
    order = np.argsort(-tiles.mean(axis=(1, 2, 3)))
    chosen = np.resize(order[: max(1, len(order) * 2 // 3)], STYLE_TILES)
    style = data.to_network(tiles[chosen, ..., 0].astype(np.float32)).transpose(1, 2, 0)

    def convert(x):
        beside = np.broadcast_to(style, (len(x), *style.shape))
        return model.predict_on_batch(np.concatenate([x, beside], axis=-1))

    convert.bins = bins_of(model)
    return convert


class Tile(Kind):
    """The style is a second input channel."""

    style = "tile"
    inputs = 1 + STYLE_TILES
    takes_style = True

    def make_pairs(self, features, origins, targets, names, batching):
        """Make `StylePairs`."""
        return StylePairs(features, origins, targets, names, batching)

    def judged_part(self, inputs):
        """Return the picture without the style."""
        return inputs[..., :1]

    def prepare_preview(self, generator, features, target, names):
        """Return the generator with the style of the first training piece."""
        tiles = Tiles(Path(features) / target / f"{names[0]}.npy")
        return with_style(generator, data.join_tiles(tiles.read(0, len(tiles))))


class Film(Tile):
    """An encoder describes the style, and the description modulates each block of the decoder.

    Four convolutions and a mean over the tile give 8 * width numbers. The mean suits timbre, which
    has no position in a tile. All blocks need it, because skip connections bypass the bottleneck.
    """

    style = "film"

    def read_layout(self):
        """Picture and style have separate kernels, and the modulation uses dense layers."""
        return 1, self.outputs, True

    def wire_generator(self, inputs, filters, downsample):
        """The encoder reads the picture; the style modulates the decoder's blocks."""
        described = encode_style(inputs[..., 1:], filters, downsample)

        def adapt(x):
            return modulate(x, described)

        return inputs[..., :1], adapt


TILE = Tile()
FILM = Film()


def encode_style(picture, filters, downsample):
    """Describe the timbre of target tiles: (n, bins, 256, 1) -> (n, 8 * filters)."""
    from keras import layers  # not before the device is chosen

    if STYLE_TILES > 1:  # side by side in time
        picture = layers.Permute((1, 3, 2))(picture)
        picture = layers.Reshape((picture.shape[1], STYLE_TILES * 256, 1))(picture)
    for width in ENCODER:
        picture = downsample(width * filters)(picture)
    return layers.GlobalAveragePooling2D()(picture)


def modulate(x, described):
    """Scale and shift each channel of x (n, h, w, c) by a function of ``described`` (n, k).

    FiLM (Perez et al. 2018).
    """
    from keras import layers

    channels = x.shape[-1]
    change = layers.Dense(2 * channels, kernel_initializer="zeros")(described)
    change = layers.Reshape((1, 1, 2 * channels))(change)
    scaled = layers.Multiply()([x, change[..., :channels]])
    return layers.Add()([x, scaled, change[..., channels:]])
