"""A training step and a validation on any number of virtual devices; test_devices.py runs it.

python tests/two_devices.py DEVICES WEIGHTS.npz RESULT.npz
"""

import os
import sys
from unittest import mock

import numpy as np

BATCH = 4
# Three blocks down instead of eight: to compile a network takes most of the time here
SHALLOW = {"DOWN": (1, 2, 4), "UP": (2, 1)}
# Tiles of the validation: two whole batches, and one of which a second device gets nothing. JAX
# refuses such a batch; setup.py leaves out what cannot be shared out (`dataset.TilePairs`).
SAMPLES = {"tensorflow": 9, "jax": 10}


def tiles(count, seed):
    """Random tiles float32 (count, 256, 256, 1) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, 256, 256, 1)).astype(np.float32)


def build_model(freeze=True):
    """A small `models.Pix2Pix` whose step is the same however its batch is shared out.

    Unless batch norm is at work, ``freeze`` false: each device has statistics of its own share.
    """
    import keras

    import models

    keras.utils.set_random_seed(0)
    with mock.patch.multiple(models, **SHALLOW):
        model = models.Pix2Pix(models.build_generator(2), models.build_discriminator(2))
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not freeze
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # each device draws its own
    # a large epsilon makes Adam's first step 0.03 gradients, so that weights show gradients
    split = len(model.generator.trainable_variables)
    adam = models.TwoRateAdam(30.0, split=split, epsilon=1.0)
    models.compile_at_once(model, adam)
    return model


def make_weights(model):
    """Weights as if trained: batch norm has statistics, and kernels let gradients through."""
    rng = np.random.default_rng(0)
    weights = []
    for variable in model.weights:
        if variable.path.endswith(("gamma", "moving_variance")):
            weights.append(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith("kernel"):
            weights.append(rng.normal(0, 0.2, variable.shape))
        else:
            weights.append(rng.normal(0, 0.1, variable.shape))
    return weights


def take_step(model, weights):
    """One step on the first tiles: {name: its logs, and how far each weight moved}."""
    model.set_weights(weights)
    before = model.get_weights()
    x, y = tiles(BATCH, 0), tiles(BATCH, 1)
    history = model.fit(x, y, batch_size=BATCH, epochs=1, shuffle=False, verbose=0).history
    result = {name: values[0] for name, values in history.items()}
    for number, (old, new) in enumerate(zip(before, model.get_weights())):
        result[f"step_{number}"] = new - old
    return result


def validate(model, samples, prefix):
    """A validation with a short last batch: {prefix and name: error}."""
    x, y = tiles(samples, 2), tiles(samples, 3)
    logs = model.evaluate(x, y, batch_size=BATCH, verbose=0, return_dict=True)
    return {f"{prefix}{name}": value for name, value in logs.items()}


def read_norms(model):
    """The moving statistics of the generator's batch norm."""
    import keras

    norms = []
    for layer in model.generator._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            norms.append(layer)
    result = {}
    for number, norm in enumerate(norms):
        result[f"norm_mean_{number}"] = keras.ops.convert_to_numpy(norm.moving_mean)
        result[f"norm_variance_{number}"] = keras.ops.convert_to_numpy(norm.moving_variance)
    return result


class Numbered:
    """Pairs, in whose batches stands the epoch that they were read for."""

    epoch = 0

    def __len__(self):
        """Batches an epoch."""
        return 10

    def __getitem__(self, batch):
        """Batch number ``batch``: x and y, both (BATCH, 1)."""
        numbers = np.full((BATCH, 1), self.epoch, np.float32)
        return numbers, numbers


def epochs_read():
    """What the epochs 2, 3, 4 are trained on: the mean of their batches' own numbers of epochs."""
    import keras

    from training import feeding

    pairs = Numbered()

    def begin_epoch(epoch, logs):
        pairs.epoch = epoch

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    number = keras.metrics.MeanMetricWrapper(lambda y, _: y, name="number")
    model.compile("sgd", loss="mse", metrics=[number])
    history = model.fit(
        feeding.feed(pairs, workers=2),
        initial_epoch=2,
        epochs=5,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=begin_epoch)],
        shuffle=False,
        verbose=0,
    )
    return history.history["number"]


def main(argv):
    """Run on virtual CPU devices."""
    count, weights_file, result_file = int(argv[0]), argv[1], argv[2]
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        virtual = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        tf.config.set_logical_device_configuration(cpu, virtual)
    from common import devices

    with devices.device_scope(count):
        model = build_model()
        normed = build_model(freeze=False)
        # Here, for a second scope would number its reductions as this one does, and mix them up.
        read = epochs_read()
    with np.load(weights_file) as stored:
        weights = [stored[f"arr_{number}"] for number in range(len(stored.files))]
    samples = SAMPLES[os.environ["KERAS_BACKEND"]]
    result = take_step(model, weights) | validate(model, samples, "val_")
    take_step(normed, weights)
    result |= read_norms(normed) | validate(normed, samples, "norm_val_")
    result["epochs_read"] = read
    np.savez(result_file, **result)


if __name__ == "__main__":
    main(sys.argv[1:])
