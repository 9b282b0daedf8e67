"""Time each convolution of a training step alone, and compare their sum with the whole step.

    python benchmarks/convolutions.py --filters 64 --batch_size 8
    python benchmarks/convolutions.py --filters 64 --batch_size 8 --precision bfloat16

Each layer needs three operations: its output, the gradient of its input, the gradient of its
kernel. TensorFlow's operation for each (oneDNN's on a CPU) runs repeatedly on tensors of the
layer's shape. Its data is in the caches as far as it fits. The sum is the time of a step that does
nothing else.

Prints the operations and their speed, slowest first. The last lines compare the sum with a step of
`Pix2Pix.fit`, measured in the same process: convolutions alone / whole step.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from measure import call_times, machine
from train_step import our_step, step_gflop

from common import cli, devices

KERNEL = 4


class Operation(NamedTuple):
    """A convolution of the training step, between a large picture and one of half its side."""

    network: str
    kind: str  # "forward", "input" or "kernel", of a convolution from large to small
    side: int  # of the small picture
    large: int  # channels of the large one
    small: int  # channels of the small one
    stride: int
    count: int  # runs per step

    def gflop(self, batch):
        """GFLOP of one run: two for each multiply-add, borders included."""
        return 2 * batch * self.side**2 * KERNEL**2 * self.large * self.small / 1e9


def list_operations(filters):
    """List all `Operation`s of a training step; ``filters`` is the width of the networks."""
    import models  # Keras loads here, once the device is known

    operations = []
    channels = 1
    side = models.TILE_FRAMES
    down = []
    for width in models.DOWN:
        side //= 2
        down.append((side, channels, width * filters))
        channels = width * filters
    for depth, (side, large, small) in enumerate(down):
        operations.append(Operation("generator", "forward", side, large, small, 2, 1))
        operations.append(Operation("generator", "kernel", side, large, small, 2, 1))
        if depth:  # the tile's own gradient is not needed
            operations.append(Operation("generator", "input", side, large, small, 2, 1))

    channels = down[-1][2]
    side = down[-1][0]
    skips = [small for _, _, small in reversed(down[:-1])]
    for width, skip in zip([*models.UP, None], [*skips, 0]):
        made = 1 if width is None else width * filters
        # a transposed convolution's forward pass is a convolution's input gradient, and vice versa
        for kind in ("input", "kernel", "forward"):
            operations.append(Operation("generator", kind, side, made, channels, 2, 1))
        channels = made + skip
        side *= 2

    for depth, (side, large, small) in enumerate(down[:4]):
        large = 2 if depth == 0 else large
        # for the true and the generated picture, and once more back to the generator
        operations.append(Operation("discriminator", "forward", side, large, small, 2, 2))
        operations.append(Operation("discriminator", "kernel", side, large, small, 2, 2))
        count = 3 if depth else 1
        operations.append(Operation("discriminator", "input", side, large, small, 2, count))
    side, _, small = down[3]
    for kind, count in (("forward", 2), ("kernel", 2), ("input", 3)):
        operations.append(Operation("discriminator", kind, side, small, 1, 1, count))
    return operations


def time_operation(operation, batch, precision, seconds):
    """Measure an operation: seconds of the fastest run.

    Args:
        operation: an `Operation`.
        batch: tiles.
        precision: "float32" or "bfloat16".
        seconds: how long to repeat it.
    """
    import tensorflow as tf

    side = operation.side * operation.stride
    large = tf.cast(tf.random.normal((batch, side, side, operation.large)), precision)
    small = tf.random.normal((batch, operation.side, operation.side, operation.small))
    small = tf.cast(small, precision)
    kernel = tf.random.normal((KERNEL, KERNEL, operation.large, operation.small))
    kernel = tf.cast(kernel, precision)
    strides = [1, operation.stride, operation.stride, 1]
    layout = {"strides": strides, "padding": "SAME"}
    raw = tf.raw_ops
    runs = {
        "forward": lambda: tf.nn.conv2d(large, kernel, **layout),
        "input": lambda: raw.Conv2DBackpropInput(
            input_sizes=large.shape, filter=kernel, out_backprop=small, **layout
        ),
        "kernel": lambda: raw.Conv2DBackpropFilter(
            input=large, filter_sizes=kernel.shape, out_backprop=small, **layout
        ),
    }
    run = tf.function(runs[operation.kind])
    return min(call_times(run, seconds, warm_up=3))


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--filters", type=cli.number(int, 1), default=64, help="width of the networks")
    add("--batch_size", type=cli.number(int, 1), default=8, help="tiles per step")
    add("--precision", choices=("float32", "bfloat16"), default="float32", help="number format")
    add(
        "--seconds",
        type=cli.number(float, 0.1),
        default=20,
        help="time to measure the step, and the same for all convolutions together, s",
    )
    return parser


@cli.command
def main(argv=None):
    """Parse flags, measure, print."""
    args = build_parser().parse_args(argv)
    devices.setup_device("cpu")
    print(f"{machine()}; width {args.filters}, batch {args.batch_size}, {args.precision}")
    lines = []
    total = gflop = 0
    operations = list_operations(args.filters)
    seconds_each = args.seconds / len(operations)  # together as long as the whole step
    for operation in operations:
        took = time_operation(operation, args.batch_size, args.precision, seconds_each)
        work = operation.gflop(args.batch_size)
        total += operation.count * took
        gflop += operation.count * work
        lines.append((operation.count * took, work / took, operation))
    print("| ms of a step | GFLOP/s | network | what | small side | channels | times |")
    print("|---:|---:|---|---|---:|---:|---:|")
    for seconds, speed, operation in sorted(lines, reverse=True):
        channels = f"{operation.large}, {operation.small}"
        print(
            f"| {1e3 * seconds:.1f} | {speed:.0f} | {operation.network} | {operation.kind} "
            f"| {operation.side} | {channels} | {operation.count} |"
        )
    step = our_step(args.filters, args.batch_size, args.seconds, args.precision, "auto")
    counted = args.batch_size * step_gflop(args.filters)
    print(f"{gflop:.0f} GFLOP listed here, {counted:.0f} of train_step.py")
    print(f"convolutions alone {1e3 * total:.0f} ms, {gflop / total:.0f} GFLOP/s")
    print(f"whole step {1e3 * step:.0f} ms, {args.batch_size / step:.2f} tiles/s")
    print(f"convolutions alone / whole step: {total / step:.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
