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

ENCODER = (2, 4, 8, 8)  # channels of the style encoder's blocks, in multiples of the width


class StylePairs(TilePairs):
    """`TilePairs` of several targets. x has a second channel, the style.

    Each tile of an origin is paired with each target that is a different instrument. The style is a
    tile of that target from another piece, so it shows the timbre but not the notes.

    Raises:
        UserError: as `TilePairs`, or there is only one piece.
    """

    inputs = 2

    def _sides(self):
        """List the pairs (origin, target) of instruments; each tile makes one pair for each."""
        sides = []
        for origin in self.origins:
            sides += [(origin, target) for target in self.targets if target != origin]
        return sides

    def _list_pairs(self):
        rows = []
        for number, piece in enumerate(self.tiles):
            for tile in range(len(piece[0])):
                rows += [(number, tile, target) for _, target in self._sides()]
        works = [piece_of(name) for name in self.names]  # versions of a piece are one work
        self.works = np.unique(works, return_inverse=True)[1]
        if self.works.max() == 0:
            self._refuse_only_piece()
        return rows

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
        """Set each pair's origin, which follows from its number, and draw its style.

        A style is a row of `index` from another work.
        """
        origins = np.array([origin for origin, _ in self._sides()])
        self.drawn = origins[self.order % len(origins)]
        self.styles = rng.integers(len(self.index), size=len(self.order))
        own = self.works[self.index[self.order, 0]]
        while True:
            same = self.works[self.index[self.styles, 0]] == own
            if not same.any():
                return
            self.styles[same] = rng.integers(len(self.index), size=same.sum())

    def fill(self, row, x, y):
        """Write the epoch's pair number ``row``; the style goes to the second channel of x."""
        super().fill(row, x, y)
        target = self.index[self.order[row], 2]
        piece, tile, _ = self.index[self.styles[row]]
        write_tile(self.tiles[piece][target][tile], x[..., 1])


def with_style(model, picture):
    """Fix the style of a model of several targets; returns a function for `convert`.

    Args:
        model: Keras generator with two input channels.
        picture: dB scale (bins, t), of the target instrument. Its loudest tile is the style.
    """
    tiles = data.slice_tiles(picture)
    loudest = tiles.mean(axis=(1, 2, 3)).argmax()
    style = data.to_network(tiles[loudest].astype(np.float32))

    def convert(x):
        beside = np.broadcast_to(style, x.shape)
        return model.predict_on_batch(np.concatenate([x, beside], axis=-1))

    convert.bins = bins_of(model)
    return convert


class Tile(Kind):
    """The style is a second input channel."""

    style = "tile"
    inputs = 2
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
