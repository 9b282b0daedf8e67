"""U-Net generator, PatchGAN discriminator and `Pix2Pix`, which trains both (Isola et al. 2017).

Written with Keras 3 alone: the same file trains on TensorFlow, JAX and PyTorch.
"""

import contextlib

import keras
import numpy as np
from keras import layers, ops

import losses
from common import kinds
from data import BINS, TILE_FRAMES

if keras.backend.backend() == "tensorflow":
    from common import kernels
else:
    kernels = None
keras.config.set_image_data_format("channels_last")  # independent of a user's keras.json

DOWN = (1, 2, 4, 8, 8, 8, 8, 8)  # channels of the encoder's blocks, in multiples of `filters`
UP = (8, 8, 8, 8, 4, 2, 1)
DROPOUT_BLOCKS = 3  # first blocks of UP that have dropout
FILTERS = 64
JIT = {"auto": "auto", "on": True, "off": False}  # --jit -> compile(jit_compile=...)


def _kernel():
    return keras.initializers.RandomNormal(0.0, 0.02)


def _convolution(layer, filters):
    """A 4x4 convolution with stride 2; ``layer`` is Keras's Conv2D or Conv2DTranspose."""
    return layer(
        filters, 4, strides=2, padding="same", use_bias=False, kernel_initializer=_kernel()
    )


def downsample(filters, batch_norm=True):
    """Block that halves height and width: convolution 4x4 stride 2, batch norm, LeakyReLU 0.3."""
    block = [_convolution(layers.Conv2D, filters)]
    if batch_norm:
        block.append(layers.BatchNormalization())
    block.append(layers.LeakyReLU(0.3))
    return keras.Sequential(block)


def upsample(filters, dropout=None):
    """Block that doubles height and width.

    Transposed convolution 4x4 stride 2, batch norm, dropout (a rate or None), ReLU.
    """
    block = [_convolution(layers.Conv2DTranspose, filters), layers.BatchNormalization()]
    if dropout is not None:
        # With a seed, so that PyTorch's dropout follows `callbacks.reseed`. A Dropout(0) has no
        # random state, which would change the layout on disk.
        layer = layers.Dropout(0.5, seed=0)
        layer.rate = dropout
        block.append(layer)
    block.append(layers.ReLU())
    return keras.Sequential(block)


def build_generator(filters=FILTERS, kind=kinds.PLAIN, dropout=0.5, bins=BINS):
    """U-Net: tiles (n, bins, 256, inputs) in [-1, 1] -> (n, bins, 256, outputs) in [-1, 1].

    54,419,713 parameters at width 64. Each block is its own Sequential, so that HDF5 weights of
    this well-known layout from older Keras code load unchanged. The output layer computes in
    float32 under any precision policy.

    Args:
        filters: width: channels of the first block.
        kind: `kinds.Kind`.
        dropout: rate in the decoder's first three blocks.
        bins: height of the tiles, one of `data.HEIGHTS`; the weights do not depend on it.
    """
    inputs = layers.Input((bins, TILE_FRAMES, kind.inputs))
    x = inputs
    skips = []
    for i, width in enumerate(DOWN):
        x = downsample(width * filters, batch_norm=i > 0)(x)
        skips.append(x)
    concatenate = layers.Concatenate()
    for i, (width, skip) in enumerate(zip(UP, reversed(skips[:-1]))):
        x = upsample(width * filters, dropout if i < DROPOUT_BLOCKS else None)(x)
        x = concatenate([x, skip])
    generator = keras.Model(inputs, _output_layer(kind.outputs)(x), name="generator")
    generator.kind = kind
    generator.bins = bins
    return generator


def _output_layer(outputs):
    return layers.Conv2DTranspose(
        outputs,
        4,
        strides=2,
        padding="same",
        kernel_initializer=_kernel(),
        activation="tanh",
        dtype="float32",
    )


def compiled_generator(filters, learning_rate, jit="auto", delta_weight=0.0, **options):
    """Build a generator compiled for training alone: L1, Adam with beta_1 0.5.

    ``jit``: a key of JIT; ``delta_weight``: weight of `losses.delta_loss`; ``options``: those of
    `build_generator`.
    """
    generator = build_generator(filters, **options)
    loss = losses.l1_and_delta_loss(delta_weight) if delta_weight else "mae"
    compile_at_once(generator, TwoRateAdam(learning_rate), jit, loss=loss)
    return generator


def compile_at_once(model, optimizer, jit="auto", **options):
    """``model.compile(...)`` with the metric ``mae_db``, and create all variables at once.

    Created later, while Keras traces its first step, they make it trace twice, which takes seconds.

    Args:
        model: built generator or `Pix2Pix`.
        optimizer: Keras optimiser.
        jit: a key of JIT.
        options: further arguments of ``compile``.
    """
    error = getattr(losses, kinds.kind_of(model).error)
    metric = keras.metrics.MeanMetricWrapper(error, name="mae_db")
    model.compile(optimizer, metrics=[metric], jit_compile=JIT[jit], **options)
    optimizer.build(model.trainable_variables)


def build_discriminator(filters=FILTERS, kind=kinds.PLAIN, bins=BINS):
    """Build a PatchGAN: [input, output] -> logits (n, bins // 16, 16, 1), one per patch.

    2,766,337 parameters at width 64.
    """
    inputs = layers.Input((bins, TILE_FRAMES, kind.inputs))
    outputs = layers.Input((bins, TILE_FRAMES, kind.outputs))
    x = layers.Concatenate()([inputs, outputs])
    for i, width in enumerate(DOWN[:4]):
        x = downsample(width * filters, batch_norm=i > 0)(x)
    x = layers.Conv2D(1, 4, padding="same", kernel_initializer=_kernel(), dtype="float32")(x)
    return keras.Model([inputs, outputs], x, name="discriminator")


@keras.saving.register_keras_serializable("timbre")
class TwoRateAdam(keras.optimizers.Adam):
    """Adam with one learning rate for the first ``split`` variables, another for the rest.

    Adam updates every variable separately, so this equals one Adam per network. The rates are
    ``learning_rate`` times ``factors[0]`` or ``factors[1]``; schedules and callbacks that change
    ``learning_rate`` scale both. By default all variables belong to the rest, with factor 1.
    """

    def __init__(self, learning_rate=2e-4, factors=(1.0, 1.0), split=0, beta_1=0.5, **kwargs):
        super().__init__(learning_rate, beta_1=beta_1, **kwargs)
        self.factors = tuple(factors)
        self.split = split

    def update_step(self, gradient, variable, learning_rate):
        """Apply Adam's step with the rate of the variable."""
        index = self._get_variable_index(variable)
        factor = self.factors[0] if index < self.split else self.factors[1]
        rate = learning_rate * factor
        if not kernels:
            super().update_step(gradient, variable, rate)
            return
        kernels.adam(
            variable,
            self._momentums[index],
            self._velocities[index],
            gradient,
            rate,
            self.beta_1,
            self.beta_2,
            self.epsilon,
            ops.cast(self.iterations + 1, "float32"),
        )

    def get_config(self):
        """Configuration of Adam, factors and split."""
        return {**super().get_config(), "factors": self.factors, "split": self.split}


class Pix2Pix(keras.Model):
    """Generator and discriminator, trained together by plain ``fit()`` from one forward pass.

    ``call`` is the generator. The loss is the sum loss_G + loss_D of

        loss_G = BCE(1, D(x, G(x))) + l1_weight * (L1(y, G(x)) + delta_weight * delta(y, G(x))),
                                                                D's weights held constant
        loss_D = BCE(1, D(x, y)) + BCE(0, D(x, G(x))),          G's output held constant

    so the gradient of the sum is each network's own gradient, as with two separate tapes. The terms
    and their weights are ``loss_weights``. It logs ``loss`` (the sum), each term of
    ``loss_weights`` except L1, and the metrics of ``compile(metrics=...)``, such as L1 in dB; each
    is a mean over samples.

    With ``ema`` it keeps an exponential moving average of the generator, ``averages``, for
    `averaged`. The average includes the weights at the start of each step, and the statistics of
    batch norm. The network's own statistics cover the last hundred steps and do not fit averaged
    weights: the error was 1 dB higher after 1,600 steps at 0.999. Keras's ``use_ema`` also averages
    the discriminator, but not the statistics. It starts with the full first weights, whose
    influence lasts thousands of steps at 0.999.

    Args:
        generator, discriminator: networks of one kind.
        l1_weight: lambda.
        delta_weight: weight of `losses.delta_loss` relative to L1; 0: off.
        ema: decay of the average per step, in [0, 1]; 0: no average.
    """

    def __init__(
        self, generator, discriminator, l1_weight=losses.L1_WEIGHT, ema=0.0, delta_weight=0.0
    ):
        super().__init__(name="pix2pix")
        self.generator = generator
        self.discriminator = discriminator
        self.kind = kinds.kind_of(generator)
        self.loss_weights = {"gan_loss": 1.0, "l1_loss": l1_weight, "disc_loss": 1.0}
        if delta_weight:
            self.loss_weights["delta_loss"] = l1_weight * delta_weight
        logged = [name for name in self.loss_weights if name != "l1_loss"]
        self.trackers = [keras.metrics.Mean(name) for name in logged]
        self.ema = ema
        self.averages = []  # of generator.weights
        if ema:
            self.steps = self._add_state(())
            self.averages = [self._add_state(weight.shape) for weight in generator.weights]
        self.built = True  # both networks are built

    def _add_state(self, shape):
        """Add a variable that is saved but not trained, with the same value on all devices."""
        return self.add_weight(
            shape,
            "zeros",
            dtype="float32",
            trainable=False,
            aggregation="only_first_replica",
        )

    def optimizer_for(self, learning_rate, factors=(1.0, 1.0)):
        """`TwoRateAdam`: its factors are the generator's and the discriminator's."""
        return TwoRateAdam(learning_rate, factors, split=len(self.generator.trainable_variables))

    def call(self, x, training=None):
        """Return the generator's output."""
        return self.generator(x, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """loss_G + loss_D, a scalar."""
        if training and self.averages:
            self._update_averages()
        real = self.discriminator([x, y], training=training)
        judged, generated = self._judge(x, y_pred, training)
        terms = {  # each (n,)
            "gan_loss": losses.adversarial_loss(judged, True),
            "l1_loss": losses.l1_loss(y, y_pred),
            "disc_loss": losses.discriminator_loss(real, generated),
        }
        if "delta_loss" in self.loss_weights:
            terms["delta_loss"] = losses.delta_loss(y, y_pred)
        for tracker in self.trackers:
            tracker.update_state(terms[tracker.name])
        loss = sum(self.loss_weights[name] * term for name, term in terms.items())
        loss = losses.mean_of_batch(loss)
        if kernels:
            loss /= kernels.count_replicas()  # tf.distribute adds up the replicas' gradients
        return loss

    def _update_averages(self):
        """Update the averages with the generator's weights.

        Until ``ema`` is reached, after 1,998 steps for 0.999, step k counts k times, so the first
        steps soon lose their weight (Shamir and Zhang 2013, polynomial-decay averaging).
        TensorFlow's (1 + n) / (10 + n) would average over the last ninth of a run for 8,990 steps,
        for any ``ema``.
        """
        pace = ops.maximum(1 - self.ema, 2 / (self.steps + 2))
        for average, weight in zip(self.averages, self.generator.weights):
            average.assign_add(pace * (weight - average))
        self.steps.assign_add(1)

    def _judge(self, x, y_pred, training):
        """Compute the logits of (x, y_pred) twice: with constant weights, with constant y_pred."""
        if kernels:
            return kernels.judge(self.discriminator, x, y_pred, training)
        frozen = [(v, ops.stop_gradient(v)) for v in self.discriminator.variables]
        with keras.StatelessScope(frozen):
            judged = self.discriminator([x, y_pred], training=training)
        return judged, self.discriminator([x, ops.stop_gradient(y_pred)], training=training)


@contextlib.contextmanager
def averaged(model):
    """Replace the generator's weights by their average in the block, if ``model`` has one.

    Validation, previews and saving use the average. Afterwards the exact weights are restored,
    because training and resumed runs continue from them.

    Args:
        model: generator or `Pix2Pix`. Before the first step of a run the average is all zeros.
    """
    averages = getattr(model, "averages", [])
    if not averages:
        yield
        return
    weights = [_copy(weight) for weight in model.generator.weights]
    model.generator.set_weights([_copy(average) for average in averages])
    try:
        yield
    finally:
        model.generator.set_weights(weights)


def _copy(variable):
    """Copy a variable's value: PyTorch's array changes with it, and JAX reuses its memory."""
    return np.array(ops.convert_to_numpy(variable))


def fold_norms(generator):
    """Make an equivalent, faster generator for conversion; it differs by rounding only.

    The scale of each batch norm goes into the kernel before it, and its offset becomes a bias. In
    bfloat16, where Keras computes norms in float32, this saves an eighth of the time. The output
    layer becomes `_output_block`, which saves a sixth of the rest.
    """
    folded = keras.models.clone_model(generator, clone_function=_without_norm)
    for old, new in zip(generator.layers, folded.layers):
        if isinstance(old, layers.Conv2DTranspose):
            new.set_weights(_output_weights(*old.get_weights()))
            continue
        if not isinstance(old, keras.Sequential):
            new.set_weights(old.get_weights())
            continue
        kernel = old.layers[0].kernel.numpy()
        if len(new.layers[0].weights) == 1:
            new.set_weights([kernel])
            continue
        norm = next(each for each in old.layers if isinstance(each, layers.BatchNormalization))
        gamma, beta, mean, variance = norm.get_weights()
        scale = gamma / np.sqrt(variance + norm.epsilon)
        spread = scale
        if isinstance(old.layers[0], layers.Conv2DTranspose):  # its outputs are not the last axis
            spread = scale[:, np.newaxis]
        new.set_weights([kernel * spread, beta - mean * scale])
    folded.kind, folded.bins = generator.kind, generator.bins
    return folded


def _without_norm(layer):
    """Clone a layer; a block becomes a convolution with bias and an activation."""
    if isinstance(layer, layers.Conv2DTranspose):
        return _output_block(layer)
    if not isinstance(layer, keras.Sequential):
        return type(layer).from_config(layer.get_config())
    convolution, *others = layer.layers
    norms = [each for each in others if isinstance(each, layers.BatchNormalization)]
    config = {**convolution.get_config(), "use_bias": bool(norms)}
    activation = others[-1]
    return keras.Sequential(
        [
            type(convolution).from_config(config),
            type(activation).from_config(activation.get_config()),
        ]
    )


def _output_block(layer):
    """Make layers that are equivalent to the transposed convolution of `_output_layer`.

    oneDNN's transposed convolution is slow with few outputs. A pixel depends on 2x2 inputs: one
    convolution computes the four pixels with the same 2x2 inputs (Shi et al. 2016), which are then
    rearranged.
    """
    outputs = layer.filters
    _, rows, columns, _ = layer.input.shape
    rows, columns = rows + 1, columns + 1  # of corners between inputs
    options = {"dtype": layer.dtype_policy}
    return keras.Sequential(
        [
            layers.ZeroPadding2D(1, dtype=layer.input.dtype),
            layers.Conv2D(4 * outputs, 2, activation=layer.activation, **options),
            layers.Reshape((rows, columns, 2, 2, outputs), **options),
            layers.Permute((1, 3, 2, 4, 5), **options),
            layers.Reshape((2 * rows, 2 * columns, outputs), **options),
            layers.Cropping2D(1, **options),
        ]
    )


def _output_weights(kernel, bias):
    """Convert weights of a transposed convolution, (4, 4, outputs, inputs), to `_output_block`'s.

    Input i reaches pixels 2i - 1 ... 2i + 2 by taps 0 ... 3. So pixel 2i - 1 + p, with p = 0 or 1,
    has tap 2 + p of input i - 1, the corner's first, and tap p of input i, its second.
    """
    outputs, inputs = kernel.shape[2:]
    taps = kernel.reshape(2, 2, 2, 2, outputs, inputs)[::-1, :, ::-1]  # (near, p, near, p, ...)
    corner = taps.transpose(0, 2, 5, 1, 3, 4)
    return [corner.reshape(2, 2, inputs, 4 * outputs), np.tile(bias, 4)]


def width_of(generator):
    """Width, ``filters``, of a generator: channels of its last decoder block."""
    blocks = [layer for layer in generator.layers if isinstance(layer, keras.Sequential)]
    return blocks[-1].layers[0].filters


def widen(narrow, wide, seed=0):
    """Give ``wide`` the weights of ``narrow``, of the same kind and at most its width.

    The output stays the same. All channels are repeated equally often, up to a difference of one
    (Net2WiderNet, Chen, Goodfellow and Shlens 2016). The weights that read the copies of a channel
    add up to the original weight. They have noise as large as the weights, so that training can
    separate the copies.
    """
    rng = np.random.default_rng(seed)
    for old, new in zip(narrow._flatten_layers(), wide._flatten_layers()):
        if isinstance(old, keras.Model):  # its layers follow
            continue
        reads = -2  # axis of a kernel's input channels
        if isinstance(old, layers.Conv2DTranspose):
            reads = -1
        for weight, widened in zip(old.weights, new.weights):
            values = ops.convert_to_numpy(weight)
            widened.assign(_copy_channels(values, widened.shape, reads, rng))


def _copy_channels(values, shape, reads, rng):
    """Copy an array's channels to ``shape``; copies along axis ``reads`` of a kernel add up."""
    spread = values.std()
    # Two joined blocks with the same number of channels (decoder and skip connection) are copied as
    # each block alone.
    sources = [np.arange(new) * old // new for old, new in zip(values.shape, shape)]
    copied = values[np.ix_(*sources)]
    if values.ndim == 1:
        return copied
    read = sources[reads]
    copies = np.bincount(read)  # of each input channel, side by side
    first = np.cumsum(copies) - copies
    copied = np.moveaxis(copied, reads, -1)
    noise = np.moveaxis(rng.normal(0, spread, shape), reads, -1)
    means = np.add.reduceat(noise, first, axis=-1) / copies
    apart = (copied + noise - means[..., read]) / copies[read]
    return np.moveaxis(apart, -1, reads)
