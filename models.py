"""U-Net generator, PatchGAN discriminator and `Pix2Pix`, the two trained together (Isola et al. 2017).

Written with Keras 3 alone: the same file trains on TensorFlow, JAX and PyTorch.
"""

import collections
import hashlib
import tempfile
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers, ops

import losses
from cli import UserError, find_model
from data import BINS, TILE_FRAMES

if keras.backend.backend() == "tensorflow":
    import kernels
else:
    kernels = None

DOWN = (1, 2, 4, 8, 8, 8, 8, 8)  # channels of the encoder's blocks, in multiples of `filters`
UP = (8, 8, 8, 8, 4, 2, 1)
STYLE = (2, 4, 8, 8)  # of the style encoder's
DROPOUT_BLOCKS = 3  # the first of UP
FILTERS = 64
JIT = {"auto": "auto", "on": True, "off": False}  # --jit -> compile(jit_compile=...)


def _kernel():
    return keras.initializers.RandomNormal(0.0, 0.02)


@keras.saving.register_keras_serializable("timbre")
class BatchNormalization(layers.BatchNormalization):
    """Keras's batch norm; on TensorFlow it trains with the fused kernel."""

    def call(self, inputs, training=None, mask=None):
        """Normalise, and update the moving statistics where it trains."""
        if not (kernels and training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = kernels.batch_norm(
            inputs, self.gamma.value, self.beta.value, self.epsilon
        )
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return outputs


class _FastKernelGradient:
    """Mixin of 4x4 convolutions with stride 2, no bias, no activation: on TensorFlow the kernel's gradient may be faster."""

    fast, larger = (
        None,
        1,
    )  # kernels.py's function, and how much larger the input is than the smaller picture

    def call(self, inputs):
        """Convolve."""
        if kernels and kernels.suits_matmul(inputs.shape[1] // self.larger):
            return getattr(kernels, self.fast)(inputs, kernels.tf.convert_to_tensor(self.kernel))
        return super().call(inputs)


@keras.saving.register_keras_serializable("timbre")
class Conv2D(_FastKernelGradient, layers.Conv2D):
    """Keras's convolution, of `downsample`."""

    fast, larger = "convolve", 2


@keras.saving.register_keras_serializable("timbre")
class Conv2DTranspose(_FastKernelGradient, layers.Conv2DTranspose):
    """Keras's transposed convolution, of `upsample`."""

    fast = "convolve_transpose"


def downsample(filters, batch_norm=True):
    """Block that halves height and width: convolution 4x4 stride 2, batch norm, LeakyReLU 0.3."""
    block = [
        Conv2D(filters, 4, strides=2, padding="same", use_bias=False, kernel_initializer=_kernel())
    ]
    if batch_norm:
        block.append(BatchNormalization())
    return keras.Sequential([*block, layers.LeakyReLU(0.3)])


def upsample(filters, dropout=None):
    """Block that doubles height and width: transposed convolution 4x4 stride 2, batch norm, dropout (a rate or None), ReLU."""
    block = [
        Conv2DTranspose(
            filters, 4, strides=2, padding="same", use_bias=False, kernel_initializer=_kernel()
        ),
        BatchNormalization(),
    ]
    if dropout is not None:
        block.append(layers.Dropout(0.5))
        block[
            -1
        ].rate = dropout  # given to Dropout itself, 0 would drop its seed from the saved files: another layout
    return keras.Sequential([*block, layers.ReLU()])


def modulate(x, style):
    """Scale and shift each channel of x (n, h, w, c) as ``style`` (n, k) says: FiLM (Perez et al. 2018)."""
    channels = x.shape[-1]
    change = layers.Reshape((1, 1, 2 * channels))(
        layers.Dense(2 * channels, kernel_initializer="zeros")(style)
    )
    return layers.Add()([x, layers.Multiply()([x, change[..., :channels]]), change[..., channels:]])


def build_generator(filters=FILTERS, channels=1, film=False, outputs=1, dropout=0.5):
    """U-Net: tiles (n, 256, 256, channels) in [-1, 1] -> (n, 256, 256, outputs) in [-1, 1]. 54,419,713 parameters at width 64.

    The channels behind the first are styles. The plain network takes them as pictures; with ``film`` (one style) an encoder
    of four convolutions and a mean over the tile describes the style in 8 ``filters`` numbers, which modulate each block of
    the decoder: timbre has no place in a tile, and the skip connections bypass what is known at the bottom.

    Each block is a Sequential of its own, so that HDF5 weights of this well-known layout saved by older Keras code load
    unchanged. The output layer computes in float32 under any precision policy.
    """
    inputs = x = layers.Input((BINS, TILE_FRAMES, channels))
    if film:
        x, style = inputs[..., :1], inputs[..., 1:]
        for width in STYLE:
            style = downsample(width * filters)(style)
        style = layers.GlobalAveragePooling2D()(style)
    skips = []
    for i, width in enumerate(DOWN):
        x = downsample(width * filters, batch_norm=i > 0)(x)
        skips.append(x)
    concatenate = layers.Concatenate()
    for i, (width, skip) in enumerate(zip(UP, reversed(skips[:-1]))):
        x = upsample(width * filters, dropout if i < DROPOUT_BLOCKS else None)(x)
        x = modulate(x, style) if film else x
        x = concatenate([x, skip])
    x = layers.Conv2DTranspose(
        outputs,
        4,
        strides=2,
        padding="same",
        kernel_initializer=_kernel(),
        activation="tanh",
        dtype="float32",
    )(x)
    return keras.Model(inputs, x, name="generator")


def compiled_generator(filters, learning_rate, jit="auto", **kind):
    """A generator, built with ``kind``, compiled to be trained alone: L1, Adam with beta_1 0.5; ``jit`` is a key of JIT."""
    generator = build_generator(filters, **kind)
    generator.compile(
        TwoRateAdam(learning_rate), loss="mae", metrics=[losses.mae_db], jit_compile=JIT[jit]
    )
    return generator


def build_discriminator(filters=FILTERS, channels=1, outputs=1):
    """PatchGAN: [input (n, 256, 256, channels), picture (n, 256, 256, outputs)] -> logits (n, 16, 16, 1), one a patch.

    2,766,337 parameters at width 64.
    """
    inputs = layers.Input((BINS, TILE_FRAMES, channels))
    picture = layers.Input((BINS, TILE_FRAMES, outputs))
    x = layers.Concatenate()([inputs, picture])
    for i, width in enumerate(DOWN[:4]):
        x = downsample(width * filters, batch_norm=i > 0)(x)
    x = layers.Conv2D(1, 4, padding="same", kernel_initializer=_kernel(), dtype="float32")(x)
    return keras.Model([inputs, picture], x, name="discriminator")


@keras.saving.register_keras_serializable("timbre")
class TwoRateAdam(keras.optimizers.Adam):
    """Adam with one learning rate for the first ``split`` variables and another for the rest (all of them, by default).

    Adam treats every variable by itself, so this equals one Adam for each network. ``learning_rate`` times ``factors[0]``
    or ``factors[1]`` is the rate; schedules and callbacks that change ``learning_rate`` scale both.
    """

    def __init__(self, learning_rate=2e-4, factors=(1.0, 1.0), split=0, beta_1=0.5, **kwargs):
        super().__init__(learning_rate, beta_1=beta_1, **kwargs)
        self.factors, self.split = tuple(factors), split

    def update_step(self, gradient, variable, learning_rate):
        """Adam's step with the variable's own rate."""
        index = self._get_variable_index(variable)
        rate = learning_rate * self.factors[index >= self.split]
        if not kernels:
            return super().update_step(gradient, variable, rate)
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
        """Adam's configuration and ours."""
        return {**super().get_config(), "factors": self.factors, "split": self.split}


class Pix2Pix(keras.Model):
    """Generator and discriminator trained together by plain ``fit()``, both gradients from one forward pass.

    ``call`` is the generator. The loss is the sum loss_G + loss_D of

        loss_G = BCE(1, D(x, G(x))) + l1_weight * L1(y, G(x)),  D's weights held constant
        loss_D = BCE(1, D(x, y)) + BCE(0, D(x, G(x))),          G's output held constant

    so the gradient of the sum is each network's own gradient, as from two separate tapes.
    Logs: ``loss`` (the sum), ``gan_loss`` (first term of loss_G), ``disc_loss``, and what ``compile(metrics=...)`` names.
    """

    def __init__(self, generator, discriminator, l1_weight=losses.L1_WEIGHT):
        super().__init__(name="pix2pix")
        self.generator, self.discriminator, self.l1_weight = generator, discriminator, l1_weight
        self.gan_tracker = keras.metrics.Mean("gan_loss")
        self.disc_tracker = keras.metrics.Mean("disc_loss")
        self.built = True  # both networks are

    def optimizer_for(self, learning_rate, factors=(1.0, 1.0)):
        """`TwoRateAdam` whose rate is learning_rate * factors[0] for the generator, * factors[1] for the discriminator."""
        return TwoRateAdam(learning_rate, factors, split=len(self.generator.trainable_variables))

    def call(self, x, training=None):
        """The generator's output."""
        return self.generator(x, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """loss_G + loss_D, a scalar. The discriminator judges without the style."""
        x = x[..., : self.discriminator.input_shape[0][-1]]
        real = self.discriminator([x, y], training=training)
        judged, generated = self._judge(x, y_pred, training)
        gan_loss = losses.adversarial_loss(judged, True)
        disc_loss = losses.discriminator_loss(real, generated)
        self.gan_tracker.update_state(gan_loss)
        self.disc_tracker.update_state(disc_loss)
        # tf.distribute adds up the replicas' gradients
        replicas = kernels.tf.distribute.get_strategy().num_replicas_in_sync if kernels else 1
        return (gan_loss + self.l1_weight * losses.l1_loss(y, y_pred) + disc_loss) / replicas

    def _judge(self, x, y_pred, training):
        """Logits of (x, y_pred) twice: with the discriminator's weights held constant, and with y_pred held constant."""
        if kernels:
            return kernels.judge(self.discriminator, x, y_pred, training)
        frozen = [(v, ops.stop_gradient(v)) for v in self.discriminator.variables]
        with keras.StatelessScope(frozen):
            judged = self.discriminator([x, y_pred], training=training)
        return judged, self.discriminator([x, ops.stop_gradient(y_pred)], training=training)


def load_generator(path):
    """A trained generator as a Keras model.

    Only weights are read, into a network built here: a model file's own configuration, and any code in it, is never run.
    The width is taken from the weights' shapes.

    Args:
        path: run folder, our ``.keras`` file, ``.h5`` weights (older Keras code's, too), or the name of a pretrained model,
            whose file is compared with the SHA-256 beside it.

    Raises:
        UserError: the file is missing, of another kind or content, or holds weights of another layout.
    """
    file = find_model(path)
    if file.is_dir():
        file = next(
            (f for f in (file / "generator.keras", file / "generator.weights.h5") if f.is_file()),
            file,
        )
    if not file.is_file():
        raise UserError(
            f"{path}: no model there; give a run folder, a .keras file or HDF5 weights (.h5)"
        )
    sums = file.with_name("SHA256SUMS")
    if (
        sums.is_file()
        and hashlib.sha256(file.read_bytes()).hexdigest().encode() not in sums.read_bytes().split()
    ):
        raise UserError(
            f"{file}: is not the file that {sums.name} names; restore it: git checkout {file.parent}"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            if (
                file.suffix == ".keras"
            ):  # a zip archive, in which HDF5 would seek back and forth for seconds
                with zipfile.ZipFile(file) as archive:
                    weights = Path(archive.extract("model.weights.h5", folder))
            else:
                weights = file
            generator = build_generator(**_layout(weights))
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Keras only warns of weights that it does not find
                generator.load_weights(weights)
        except (
            Exception
        ) as error:  # a damaged file brings out of zipfile, zlib, h5py and Keras nearly every kind
            reason = str(error)[:100]
            raise UserError(
                f"{file}: holds no generator of this layout ({reason}); train one with train.py"
            ) from None
    return generator


def width_of(generator):
    """The width, ``filters``, that a generator was built with: its last upsampling block's channels."""
    return (
        [layer for layer in generator.layers if isinstance(layer, keras.Sequential)][-1]
        .layers[0]
        .filters
    )


def widen(narrow, wide, seed=0):
    """Give ``wide`` the weights of ``narrow``, a network of the same kind and 1/k of its width, so that it computes the same.

    Each channel stands k times (Net2WiderNet, Chen, Goodfellow and Shlens 2016). The k copies of a weight that reads them
    add up to the original, and each is off by noise as large as the weights are, so that training sets the copies apart.
    """
    rng = np.random.default_rng(seed)
    for old, new in zip(narrow._flatten_layers(), wide._flatten_layers()):
        if not isinstance(old, keras.Model):
            reads = (
                -1 if isinstance(old, layers.Conv2DTranspose) else -2
            )  # a kernel's axis of channels that it reads
            for weight, widened in zip(old.weights, new.weights):
                widened.assign(
                    _repeat_channels(ops.convert_to_numpy(weight), widened.shape, reads, rng)
                )


def _repeat_channels(values, shape, reads, rng):
    """An array whose axes are repeated to ``shape``; the copies along axis ``reads`` of a kernel add up to the original."""
    spread, copies = values.std(), [n // m for m, n in zip(values.shape, shape)]
    for axis, k in enumerate(copies):
        values = np.repeat(values, k, axis)
    if values.ndim == 1 or copies[reads] == 1:
        return values
    others = np.delete(shape, reads)
    noise = rng.normal(0, spread, (shape[reads] // copies[reads], copies[reads], *others))
    noise = (noise - noise.mean(1, keepdims=True)).reshape(-1, *others)
    return (values + np.moveaxis(noise, 0, reads)) / copies[reads]


def _layout(file):
    """`build_generator`'s arguments for the U-Net saved in HDF5 ``file``.

    Of its kernels the first has the fewest outputs; the last layer is the only convolution with a bias.
    """
    groups = collections.defaultdict(list)  # shapes by layer
    with h5py.File(file, "r") as h5:
        h5.visititems(
            lambda _, item: (
                groups[item.parent.name].append(item.shape)
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    shapes = [shape for layer in groups.values() for shape in layer]
    channels, filters = min((shape[2:] for shape in shapes if len(shape) == 4), key=lambda s: s[1])
    if not (1 <= channels <= 16 and 1 <= filters <= 512):
        raise ValueError(f"{channels} channels, width {filters}")
    film = any(len(shape) == 2 for shape in shapes)
    last = next(layer for layer in groups.values() if sorted(map(len, layer)) == [1, 4])
    return {
        "filters": filters,
        "channels": 2 if film else channels,
        "film": film,
        "outputs": min(last, key=len)[0],
    }
