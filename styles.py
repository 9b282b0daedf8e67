"""One model for several targets: a tile of the target beside the input, the style, says which.

What training needs of it is `StylePairs`; what converting needs, `with_style`.
"""

import numpy as np

import data
from cli import UserError
from dataset import TilePairs, Tiles, write_tile
from midi import piece_of


class StylePairs(TilePairs):
    """`TilePairs` of several targets. x has a second channel, the style.

    Each tile of an origin makes a pair with each target that is another instrument. The style is a
    tile of that target from another piece, so that it shows the timbre and not the notes.

    Raises:
        UserError: as `TilePairs`, or there is no other piece.
    """

    inputs = 2

    def _sides(self):
        """The pairs (origin, target) of instruments, of each tile one."""
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
            f"{self.names[0]}: is the only piece {side}, and a style is taken from another; "
            f"{remedy} --validation_split"
        )

    def draw(self, rng):
        """Choose each pair's origin, which its number tells, and its style: tiles of `index`."""
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
        """Write the epoch's pair number ``row``, the style into the second channel of x."""
        super().fill(row, x, y)
        target = self.index[self.order[row], 2]
        piece, tile, _ = self.index[self.styles[row]]
        write_tile(self.tiles[piece][target][tile], x[..., 1])


def preview_style(features, target, name):
    """The picture that a preview takes its style from: dB scale (256, t), a piece of training."""
    tiles = Tiles(features / target / f"{name}.npy")
    return data.join_tiles(tiles.read(0, len(tiles)))


def with_style(model, picture):
    """A model of several targets, and the timbre it is to take -> a function as `convert` takes it.

    Args:
        model: Keras generator with two input channels.
        picture: dB scale (256, t), of the instrument wanted. The loudest stretch of 256 frames of
            it is the style.
    """
    tiles = data.slice_tiles(picture)
    loudest = tiles.mean(axis=(1, 2, 3)).argmax()
    style = data.to_network(tiles[loudest].astype(np.float32))

    def convert(x):
        beside = np.broadcast_to(style, x.shape)
        return model.predict_on_batch(np.concatenate([x, beside], axis=-1))

    return convert
