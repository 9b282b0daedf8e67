"""Losses and the one metric, as plain functions of tensors.

Plain functions and not ``keras.losses`` objects: under ``tf.distribute`` the objects divide by the number of replicas,
and a cross-entropy so halved beside an undivided L1 would silently double lambda. `Pix2Pix` scales the sum, once.
"""

from keras import ops

from data import DB_RANGE

L1_WEIGHT = 100.0  # lambda of Isola et al. 2017, "Image-to-image translation with conditional adversarial networks"


def l1_loss(target, output):
    """Mean absolute difference of two tensors of equal shape, a float32 scalar."""
    return ops.mean(ops.abs(target - output))


def mae_db(target, output):
    """Spectrogram MAE in dB per sample: tiles (n, 256, 256, channels) in [-1, 1] -> (n,). [-1, 1] spans DB_RANGE = 96.33 dB.

    Of three channels only the first is a picture. Of two, a phase network's, both count: the unit is no dB then.
    """
    channels = 1 if target.shape[-1] == 3 else None
    return ops.mean(ops.abs(target - output)[..., :channels], axis=(1, 2, 3)) * (DB_RANGE / 2)


def adversarial_loss(logits, is_real):
    """Binary cross-entropy of the discriminator's logits against all-ones (``is_real``) or all-zeros, mean over patches.

    -log sigmoid(l) = softplus(-l) and -log(1 - sigmoid(l)) = softplus(l) (Goodfellow et al. 2014, non-saturating).
    """
    return ops.mean(ops.softplus(-logits if is_real else logits))


def discriminator_loss(real_logits, generated_logits):
    """Sum of both cross-entropies, a scalar; 2 ln 2 = 1.386 for a discriminator that cannot tell."""
    return adversarial_loss(real_logits, True) + adversarial_loss(generated_logits, False)
