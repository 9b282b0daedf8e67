"""Losses and the metric, as plain functions: one value for each sample of a batch.

They are not ``keras.losses`` objects, because under ``tf.distribute`` these divide by the number of
replicas. Next to an undivided L1, a halved cross-entropy would silently double lambda.
`models.Pix2Pix` scales the sum once. With a value for each sample, a mean over an epoch counts each
sample once, even if the last batch is smaller or a device gets none of it.
"""

from keras import ops

from data import DB_RANGE

# lambda of Isola et al. 2017, "Image-to-image translation with conditional adversarial networks"
L1_WEIGHT = 100.0
ONSET_STEP = 0.1  # change between frames, range [-1, 1], 4.8 dB: a larger change is an onset
ONSET_EXTRA = 4.0  # additional weight of an onset in `delta_loss`


def l1_loss(target, output):
    """Mean absolute difference of two tensors of equal shape (n, ...), float32 (n,)."""
    return mean_of_each(ops.abs(target - output))


def delta_loss(target, output):
    """Error of the change from frame to frame, with extra weight on onsets, float32 (n,).

    With d a tile's difference of neighbouring frames,

        mean of |d(target) - d(output)| * (1 + ONSET_EXTRA * [|d(target)| > ONSET_STEP])

    L1 alone is lowest for the median of all possible outputs. The median is smooth, so its attacks
    are slow.

    Args:
        target, output: tiles (n, bins, frames, outputs) in [-1, 1].
    """
    wanted = target[:, :, 1:] - target[:, :, :-1]
    found = output[:, :, 1:] - output[:, :, :-1]
    onsets = ops.cast(ops.abs(wanted) > ONSET_STEP, wanted.dtype)
    return mean_of_each(ops.abs(wanted - found) * (1 + ONSET_EXTRA * onsets))


def l1_and_delta_loss(delta_weight):
    """Make the loss of a generator alone, for Keras: L1 + delta_weight * `delta_loss`."""

    def loss(target, output):
        return l1_loss(target, output) + delta_weight * delta_loss(target, output)

    return loss


def mae_db(target, output):
    """Spectrogram MAE in dB: tiles (n, bins, 256, outputs) in [-1, 1] -> float32 (n,).

    [-1, 1] spans DB_RANGE = 96.33 dB. For a phase network the unit is not dB.
    """
    return l1_loss(target, output) * (DB_RANGE / 2)


def picture_mae_db(target, output):
    """`mae_db` of the picture, the first output, for a network that also predicts a phase."""
    return mae_db(target[..., :1], output[..., :1])


def adversarial_loss(logits, is_real):
    """Cross-entropy of a discriminator's logits (n, ...) with all 1 or all 0, float32 (n,).

    -log sigmoid(l) = softplus(-l) and -log(1 - sigmoid(l)) = softplus(l) (Goodfellow et al. 2014,
    non-saturating).

    Args:
        logits: one per patch.
        is_real: whether the correct answer is 1.
    """
    if is_real:
        logits = -logits
    return mean_of_each(ops.softplus(logits))


def discriminator_loss(real_logits, generated_logits):
    """Sum of both cross-entropies, float32 (n,); 2 ln 2 = 1.386 at chance."""
    real = adversarial_loss(real_logits, True)
    generated = adversarial_loss(generated_logits, False)
    return real + generated


def mean_of_each(values):
    """(n, ...) -> mean of each sample (n,)."""
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes)


def mean_of_batch(values):
    """(n,) -> mean, a scalar; 0 of no samples, so that it adds nothing."""
    count = ops.cast(ops.shape(values)[0], values.dtype)
    return ops.sum(values) / ops.maximum(count, 1)
