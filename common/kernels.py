"""Fast paths on TensorFlow: what Keras computes there, to rounding, in less time.

models.py uses them where the backend is TensorFlow; nothing else imports this file.
What each saves, and what was tried and saved too little: docs/benchmarks.md.
"""

import keras
import tensorflow as tf

# largest smaller side of a convolution whose kernel's gradient is faster as matrix products
PRODUCTS_SIDE = 16


def adam(variable, momentum, velocity, gradient, rate, beta_1, beta_2, epsilon, step):
    """One step of Adam in one pass over the weights, where Keras's formula makes ten.

    Args:
        variable, momentum, velocity: Keras or TensorFlow variables, changed in place.
        gradient: tensor of their shape.
        rate, beta_1, beta_2, epsilon: Adam's.
        step: its number, from 1.
    """
    tf.raw_ops.ResourceApplyAdam(
        var=_handle_of(variable),
        m=_handle_of(momentum),
        v=_handle_of(velocity),
        grad=gradient,
        lr=rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        beta1_power=beta_1**step,
        beta2_power=beta_2**step,
    )


def _handle_of(variable):
    if isinstance(variable, keras.Variable):
        variable = variable.value
    return variable.handle


def speed_up(layer):
    """Give a convolution a faster gradient of its kernel, where that is faster.

    It stays Keras's own layer, also in a saved file; returns it.

    Args:
        layer: Keras's Conv2D or Conv2DTranspose, 4x4, stride 2, "same", no bias or activation.
    """
    slow = layer.call
    fast = convolve
    larger = 2  # how much larger the input is than the smaller picture
    if isinstance(layer, keras.layers.Conv2DTranspose):
        fast = convolve_transpose
        larger = 1

    def call(inputs):
        side = inputs.shape[1] // larger
        if side > PRODUCTS_SIDE or tf.config.list_physical_devices("GPU"):
            return slow(inputs)
        return fast(inputs, tf.convert_to_tensor(layer.kernel))

    layer.call = call
    return layer


@tf.custom_gradient
def convolve(x, kernel):
    """Convolution of x (n, 2h, 2w, c) with a kernel (4, 4, c, k), stride 2: (n, h, w, k)."""

    def gradient(upstream):
        back = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(x), 2)
        return back, kernel_gradient(x, upstream)

    return tf.nn.conv2d(x, kernel, 2, "SAME"), gradient


@tf.custom_gradient
def convolve_transpose(x, kernel):
    """Transposed convolution of x (n, h, w, k), kernel (4, 4, c, k), stride 2: (n, 2h, 2w, c)."""
    n, height, width, _ = tf.unstack(tf.shape(x))
    shape = n, 2 * height, 2 * width, kernel.shape[2]

    def gradient(upstream):
        back = tf.nn.conv2d(upstream, kernel, 2, "SAME")
        return back, kernel_gradient(upstream, x)

    return tf.nn.conv2d_transpose(x, kernel, shape, 2), gradient


def kernel_gradient(large, small):
    """Gradient of a 4x4 kernel, stride 2: large (n, 2h, 2w, c), small (n, h, w, k) -> (4, 4, c, k).

    A position of ``small`` sees four 2x2 cells of ``large``, so the gradient is four matrix
    products, which keep the processor busier than oneDNN's own kernel does where pictures are small
    and channels many.
    """
    height, width, k = small.shape[1:]
    c = large.shape[-1]
    padded = tf.pad(large, [[0, 0], [1, 1], [1, 1], [0, 0]])
    cells = tf.nn.space_to_depth(padded, 2)  # (n, h + 1, w + 1, 4 c)
    small = tf.reshape(small, (-1, k))
    products = []
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        seen = cells[:, row : row + height, column : column + width]
        seen = tf.reshape(seen, (-1, 4 * c))
        products.append(tf.matmul(seen, small, transpose_a=True))
    # (cell's row, cell's column, row within it, column within it, c, k)
    kernel = tf.reshape(tf.stack(products), (2, 2, 2, 2, c, k))
    return tf.reshape(tf.transpose(kernel, (0, 2, 1, 3, 4, 5)), (4, 4, c, k))


def judge(discriminator, x, picture, training):
    """The discriminator's logits for (x, picture) twice, from one forward pass.

    A gradient reaches ``picture`` through the first only, and the discriminator's weights through
    the second only.
    """

    @tf.custom_gradient
    def twice(picture):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(picture)
            logits = discriminator([x, picture], training=training)

        def gradient(first, second, variables=()):
            to_picture = tape.gradient(logits, picture, first)
            to_weights = tape.gradient(logits, variables, second)
            return to_picture, to_weights

        return (logits, tf.identity(logits)), gradient

    return twice(picture)


def count_replicas():
    """Devices that share a batch under ``tf.distribute``."""
    return tf.distribute.get_strategy().num_replicas_in_sync
