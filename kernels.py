"""Fast paths on TensorFlow: what Keras computes there, to rounding, by kernels that take less time on the same data.

Used by models.py where the backend is TensorFlow; nothing else imports this file. What each saves: docs/benchmarks.md.
"""

import keras
import tensorflow as tf

MATMUL_SIDE = (
    16  # largest smaller side of a convolution whose kernel's gradient is faster as matrix products
)


def batch_norm(x, gamma, beta, epsilon):
    """Batch norm of x (n, h, w, c) in one pass, where Keras's formula makes several.

    Returns:
        (outputs, mean, variance), the latter two float32 (c,), of the batch; the variance is the biased one that Keras keeps.
    """
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon
    )
    count = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
    return outputs, mean, variance * (count - 1) / count  # the kernel gives n / (n - 1) of it


def adam(variable, momentum, velocity, gradient, rate, beta_1, beta_2, epsilon, step):
    """One step of Adam, number ``step`` from 1, in one pass over the weights, where Keras's formula makes ten."""
    variables = variable, momentum, velocity
    var, m, v = ((x.value if isinstance(x, keras.Variable) else x).handle for x in variables)
    tf.raw_ops.ResourceApplyAdam(
        var=var,
        m=m,
        v=v,
        grad=gradient,
        lr=rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        beta1_power=beta_1**step,
        beta2_power=beta_2**step,
    )


def suits_matmul(side):
    """Whether the kernel's gradient of a convolution is faster by `kernel_gradient`: ``side`` is the smaller picture's."""
    return side <= MATMUL_SIDE and not tf.config.list_physical_devices("GPU")


def kernel_gradient(large, small):
    """Gradient of a 4x4 kernel, stride 2, "same": large (n, 2h, 2w, c), small (n, h, w, k) -> (4, 4, c, k).

    A position of ``small`` sees four 2x2 cells of ``large``, so the gradient is four matrix products, which keep the
    processor busier than oneDNN's own kernel does where pictures are small and channels many.
    """
    height, width, k = small.shape[1:]
    c = large.shape[-1]
    cells = tf.nn.space_to_depth(
        tf.pad(large, [[0, 0], [1, 1], [1, 1], [0, 0]]), 2
    )  # (n, h + 1, w + 1, 4 c)
    small = tf.reshape(small, (-1, k))
    products = [
        tf.matmul(
            tf.reshape(cells[:, i : i + height, j : j + width], (-1, 4 * c)),
            small,
            transpose_a=True,
        )
        for i in range(2)
        for j in range(2)
    ]
    kernel = tf.reshape(
        tf.stack(products), (2, 2, 2, 2, c, k)
    )  # cell's row and column, row and column within the cell
    return tf.reshape(tf.transpose(kernel, (0, 2, 1, 3, 4, 5)), (4, 4, c, k))


@tf.custom_gradient
def convolve(x, kernel):
    """Convolution of x (n, 2h, 2w, c) with a kernel (4, 4, c, k), stride 2, "same": (n, h, w, k)."""

    def gradient(upstream):
        back = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(x), 2)
        return back, kernel_gradient(x, upstream)

    return tf.nn.conv2d(x, kernel, 2, "SAME"), gradient


@tf.custom_gradient
def convolve_transpose(x, kernel):
    """Transposed convolution of x (n, h, w, k) with a kernel (4, 4, c, k), stride 2, "same": (n, 2h, 2w, c)."""
    n, height, width, _ = tf.unstack(tf.shape(x))

    def gradient(upstream):
        return tf.nn.conv2d(upstream, kernel, 2, "SAME"), kernel_gradient(upstream, x)

    return tf.nn.conv2d_transpose(
        x, kernel, (n, 2 * height, 2 * width, kernel.shape[2]), 2
    ), gradient


def judge(discriminator, x, picture, training):
    """The discriminator's logits for (x, picture) twice, from one forward pass.

    A gradient reaches ``picture`` through the first only, and the discriminator's weights through the second only.
    """

    @tf.custom_gradient
    def twice(picture):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(picture)
            logits = discriminator([x, picture], training=training)

        def gradient(first, second, variables=()):
            return tape.gradient(logits, picture, first), tape.gradient(logits, variables, second)

        return (logits, tf.identity(logits)), gradient

    return twice(picture)
