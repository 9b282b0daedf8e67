"""One model for several targets: a tile of the target beside the input, the style, says which."""

import numpy as np

import data


def with_style(model, picture):
    """A model of several targets, and the timbre it is to take -> a function of the form that `predict` takes.

    Args:
        model: Keras generator with two input channels.
        picture: dB scale (256, t), of the instrument wanted. The loudest stretch of 256 frames of it is the style.
    """
    tiles = data.slice_tiles(picture)
    style = data.to_network(tiles[tiles.mean(axis=(1, 2, 3)).argmax()].astype(np.float32))
    return lambda x: model.predict_on_batch(
        np.concatenate([x, np.broadcast_to(style, x.shape)], axis=-1)
    )
