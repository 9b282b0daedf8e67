"""Gradients of the generator's kernels, layer by layer: oneDNN's convolution against kernels.py's matrix products.

    python benchmarks/kernels.py --filters 64 --batch_size 8

Says why `kernels.MATMUL_SIDE` is what it is. ``side`` is the smaller picture's; times are means, in ms.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import cli
import devices

LAYERS = {  # name: (smaller side, channels of the larger picture, of the smaller), channels in multiples of the width
    "down 2": (64, 1, 2),
    "down 3": (32, 2, 4),
    "down 4": (16, 4, 8),
    "down 5": (8, 8, 8),
    "down 6": (4, 8, 8),
    "down 7": (2, 8, 8),
    "up 2": (2, 8, 16),
    "up 3": (4, 8, 16),
    "up 4": (8, 8, 16),
    "up 5": (16, 4, 16),
    "up 6": (32, 2, 8),
    "up 7": (64, 1, 4),
}


def milliseconds(function, *tensors):
    """Mean time of a call over half a second, after two that are not counted."""
    for _ in range(2):
        function(*tensors)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.5:
        function(*tensors).numpy()
        count += 1
    return (time.perf_counter() - began) / count * 1e3


@cli.command
def main(argv=None):
    """Parse flags, measure each layer, print a table."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--filters", type=cli.number(int, 1), default=64, help="width of the generator"
    )
    parser.add_argument("--batch_size", type=cli.number(int, 1), default=8, help="tiles")
    args = parser.parse_args(argv)
    devices.setup_device("cpu")
    import tensorflow as tf

    import kernels

    def convolution(large, small):
        shape = [4, 4, large.shape[-1], small.shape[-1]]
        return tf.raw_ops.Conv2DBackpropFilter(
            input=large,
            filter_sizes=shape,
            out_backprop=small,
            strides=[1, 2, 2, 1],
            padding="SAME",
        )

    variants = [tf.function(convolution), tf.function(kernels.kernel_gradient)]
    print(
        "| layer | side | float32: oneDNN | products | bfloat16: oneDNN | products |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, (side, *widths) in LAYERS.items():
        times = []
        for dtype in ("float32", "bfloat16"):
            large, small = (
                tf.cast(tf.random.normal((args.batch_size, s, s, w * args.filters)), dtype)
                for s, w in zip((2 * side, side), widths)
            )
            times += [milliseconds(variant, large, small) for variant in variants]
        print(f"| {name} | {side} | " + " | ".join(f"{t:.1f}" for t in times) + " |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
