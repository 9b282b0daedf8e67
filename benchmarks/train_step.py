"""Compare variants of the training step: tiles/s, GFLOP/s, share of the peak.

    python benchmarks/train_step.py --filters 64 --batch_size 8
    KERAS_BACKEND=jax python benchmarks/train_step.py --batch_size 8 32 128 \\
        --variants ours_float32 ours_bfloat16 torch_bfloat16

eager           the step of the plain tutorial, see tutorial.py: none of our code, not compiled
compiled        the same in a tf.function
ours_*          Pix2Pix.fit on tiles in memory, float32 or mixed bfloat16 or float16, on
                KERAS_BACKEND; *_jit: with XLA
torch_*         the same networks in PyTorch: float32; bfloat16 autocast with channels_last; the
                latter with torch.compile

Each variant runs in its own process. Variants whose package is missing are left out. Times are
medians over steps. The peak is the speed of square matrix products on the same device. Many run in
a row, so that the start of a product on a GPU does not count.
"""

import functools
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import tutorial
from measure import call_times, machine, repeat_batch, run_json

from common import devices

CHAIN_SECONDS = 0.2  # of products in a row; starting one takes some microseconds
VARIANTS = (
    "eager",
    "compiled",
    "ours_float32",
    "ours_float32_jit",
    "ours_bfloat16",
    "ours_bfloat16_jit",
    "ours_float16",
    "torch_float32",
    "torch_bfloat16",
    "torch_compiled",
)


def step_gflop(filters):
    """GFLOP of one tile's training step, two for each multiply-add: 58.7 at width 64.

    The backward pass takes twice the forward pass. The discriminator runs on two pictures and
    passes a third gradient back through the generated one.
    """
    down = (1, 2, 4, 8, 8, 8, 8, 8)
    up = (8, 8, 8, 8, 4, 2, 1)
    kernel = 4 * 4
    generator = discriminator = 0  # multiply-adds, in filters ** 2
    channels = 1 / filters
    side = 256
    for i, width in enumerate(down):
        side //= 2
        generator += side**2 * kernel * channels * width
        if i < 4:
            pictures = 2 if i == 0 else 1
            discriminator += side**2 * kernel * pictures * channels * width
        channels = width
    discriminator += 16**2 * kernel * 8 / filters
    for width, skip in zip(up, reversed(down[:-1])):
        generator += side**2 * kernel * channels * width
        side *= 2
        channels = width + skip
    generator += side**2 * kernel * channels / filters
    return 2 * filters**2 * (3 * generator + 7 * discriminator) / 1e9


def timed(step, seconds):
    """Median seconds of ``step()`` over about ``seconds``, after three warm-up calls."""
    return statistics.median(call_times(step, seconds, warm_up=3))


def random_tiles(count):
    """Draw input and target, float32 (count, 256, 256, 1) in [-1, 1]."""
    import numpy as np

    return np.random.default_rng(0).uniform(-1, 1, (2, count, 256, 256, 1)).astype(np.float32)


def tutorial_step(filters, batch, seconds, compiled):
    """Measure the step of the usual pix2pix tutorial: seconds per step. See `our_step`."""
    import tensorflow as tf

    run = tutorial.make_plain_step(filters, compiled=compiled)
    x, y = random_tiles(batch)
    x, y = tf.constant(x), tf.constant(y)

    def wait():
        return float(run(x, y))

    return timed(wait, seconds)


def our_step(filters, batch, seconds, precision, jit):
    """Measure `Pix2Pix.fit` on tiles in memory: seconds per step.

    Args:
        filters: width of the networks.
        batch: tiles per step.
        seconds: length of the measurement.
        precision: "float32", "bfloat16" or "float16".
        jit: a key of `models.JIT`.
    """
    import keras

    import models

    devices.keep_memory()
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    generator = models.build_generator(filters)
    model = models.Pix2Pix(generator, models.build_discriminator(filters))
    models.compile_at_once(model, model.optimizer_for(1e-5), jit)
    steps = repeat_batch(tuple(random_tiles(batch)), 1000)
    times = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            float(logs["loss"])  # waits for the end of the step, as a progress bar does
            times.append(time.perf_counter())
            if times[-1] - times[0] > seconds and len(times) > 8:
                self.model.stop_training = True

    model.fit(steps, verbose=0, shuffle=False, callbacks=[Clock()])
    return statistics.median(after - before for before, after in itertools.pairwise(times[2:]))


def torch_networks(filters):
    """Build the same networks in PyTorch, width ``filters``: (generator, discriminator)."""
    import torch
    from torch import nn

    def down(before, after, norm=True):
        parts = [nn.Conv2d(before, after, 4, 2, 1, bias=False)]
        if norm:
            parts.append(nn.BatchNorm2d(after))
        return nn.Sequential(*parts, nn.LeakyReLU(0.3))

    def up(before, after, dropout):
        parts = [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after)]
        if dropout:
            parts.append(nn.Dropout(0.5))
        return nn.Sequential(*parts, nn.ReLU())

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.downs = nn.ModuleList()
            self.ups = nn.ModuleList()
            widths = [k * filters for k in (1, 2, 4, 8, 8, 8, 8, 8)]
            channels = 1
            for i, width in enumerate(widths):
                self.downs.append(down(channels, width, norm=i > 0))
                channels = width
            for i, (k, skip) in enumerate(zip((8, 8, 8, 8, 4, 2, 1), reversed(widths[:-1]))):
                self.ups.append(up(channels, k * filters, dropout=i < 3))
                channels = k * filters + skip
            self.last = nn.ConvTranspose2d(channels, 1, 4, 2, 1)

        def forward(self, x):
            skips = []
            for block in self.downs:
                x = block(x)
                skips.append(x)
            for block, skip in zip(self.ups, reversed(skips[:-1])):
                x = torch.cat([block(x), skip], 1)
            return torch.tanh(self.last(x))

    blocks = []
    widths = [2, filters, 2 * filters, 4 * filters, 8 * filters]
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        blocks.append(down(before, after, norm=i > 0))
    return Generator(), nn.Sequential(*blocks, nn.Conv2d(8 * filters, 1, 4, padding="same"))


def torch_gradients(run_g, run_d, disc_weights, x, y, half):
    """Compute the gradients of a step and store them in the weights' ``grad``, None before.

    The discriminator runs on the generated tiles once, as in `kernels.judge`. One backward pass
    computes the gradient of the tiles, another one that of its weights.

    Args:
        run_g, run_d: the networks, or their versions by `torch.compile`.
        disc_weights: list of the discriminator's weights.
        x, y: input and target, float32 (batch, 1, 256, 256).
        half: whether to compute in bfloat16.

    Returns:
        (generator's loss, discriminator's loss), scalar tensors.
    """
    import torch
    from torch.nn import functional as F

    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        output = run_g(x)
        shown = output.detach().requires_grad_()
        real = run_d(torch.cat([x, y], 1)).float()
        generated = run_d(torch.cat([x, shown], 1)).float()
        gan_loss = F.softplus(-generated).mean()
        disc_loss = F.softplus(-real).mean() + F.softplus(generated).mean()
        l1_loss = 100 * F.l1_loss(output.float(), y)
    (to_output,) = torch.autograd.grad(gan_loss, shown, retain_graph=True)
    disc_loss.backward(inputs=disc_weights)
    torch.autograd.backward([l1_loss, output], [None, to_output])  # through the generator once
    return gan_loss + l1_loss, disc_loss


def torch_step(filters, batch, seconds, precision, compiled=False):
    """Measure the same step in PyTorch: seconds per step. See `our_step`."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = precision == "bfloat16"
    layout = torch.channels_last if half else torch.contiguous_format
    generator, discriminator = torch_networks(filters)
    generator.to(device, memory_format=layout)
    discriminator.to(device, memory_format=layout)
    gen_adam = torch.optim.Adam(generator.parameters(), 1e-5, betas=(0.5, 0.999))
    disc_adam = torch.optim.Adam(discriminator.parameters(), 1e-5, betas=(0.5, 0.999))
    x, y = torch.rand(2, batch, 1, 256, 256, device=device).mul(2).sub(1)
    x = x.to(memory_format=layout)
    y = y.to(memory_format=layout)
    run_g, run_d = generator, discriminator
    if compiled:
        run_g, run_d = torch.compile(generator), torch.compile(discriminator)

    disc_weights = list(discriminator.parameters())

    def step():
        gen_adam.zero_grad(set_to_none=True)
        disc_adam.zero_grad(set_to_none=True)
        gen_loss, _ = torch_gradients(run_g, run_d, disc_weights, x, y, half)
        gen_adam.step()
        disc_adam.step()
        return gen_loss.item()

    return timed(step, seconds)


def peak_gflops(backend, precision):
    """Measure chains of square matrix products: GFLOP/s of the fastest chain.

    The program waits only for the last product of a chain.
    """
    n = 3072
    scale = 2 / n  # keeps the products of a chain from growing or vanishing
    if backend == "torch":
        import torch

        # TF32 is the default of its convolutions, and of TensorFlow's and JAX's products
        torch.backends.cuda.matmul.allow_tf32 = True
        device = "cuda" if torch.cuda.is_available() else "cpu"
        a = torch.rand(n, n, device=device).mul(scale).to(getattr(torch, precision))
        matmul = torch.matmul
    else:
        import keras

        a = keras.ops.cast(keras.random.uniform((n, n)) * scale, precision)
        matmul = keras.ops.matmul

    def multiply(count):
        product = a
        for _ in range(count):
            product = matmul(product, a)
        return float(product[0, 0])

    once = min(call_times(functools.partial(multiply, 1), seconds=1))
    count = max(1, round(CHAIN_SECONDS / once))
    chain = min(call_times(functools.partial(multiply, count), seconds=5))
    return 2 * n**3 * count / chain / 1e9


def precision_of(variant):
    """The floating-point format of a variant."""
    if variant == "torch_compiled":
        return "bfloat16"
    for precision in ("bfloat16", "float16"):
        if precision in variant:
            return precision
    return "float32"


def run_variant(args):
    """Run one variant; print its figures as JSON."""
    name = args.measure
    precision = precision_of(name)
    backend = "torch" if name.startswith("torch") else "keras"
    size = args.filters, args.batch_size[0], args.seconds
    if backend == "torch":
        seconds = torch_step(*size, precision, compiled=name == "torch_compiled")
    else:
        devices.setup_device(args.gpu)
        if name.startswith("ours"):
            seconds = our_step(*size, precision, "on" if name.endswith("_jit") else "auto")
        else:
            seconds = tutorial_step(*size, compiled=name == "compiled")
    print(json.dumps({"seconds": seconds, "peak": peak_gflops(backend, precision)}))


def run_apart(args, name, batch):
    """Run one variant in a new process: (its figures, or None; reason of the failure)."""
    command = [sys.executable, __file__, "--measure", name]
    command += ["--batch_size", str(batch), "--filters", str(args.filters)]
    command += ["--seconds", str(args.seconds)]
    if args.gpu:
        command += ["--gpu", args.gpu]
    return run_json(command)


@cli.command
def main(argv=None):
    """Parse flags, run each variant, print the table."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--filters", type=cli.number(int, 1), default=64, help="width of the networks"
    )
    parser.add_argument(
        "--batch_size", type=cli.number(int, 1), nargs="+", default=[8], help="tiles per step"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=VARIANTS,
        metavar="NAME",
        help="variants to run",
    )
    parser.add_argument(
        "--seconds", type=cli.number(float, 0.1), default=20, help="time per variant, s"
    )
    parser.add_argument("--gpu", help="GPU number, or cpu; default: GPU 0 if there is one")
    parser.add_argument(
        "--measure",
        choices=VARIANTS,
        help="internal: run this variant here and print JSON",
    )
    args = parser.parse_args(argv)
    if args.measure:
        run_variant(args)
        return
    print(f"{machine()}; width {args.filters}, {step_gflop(args.filters):.1f} GFLOP a tile")
    print("| batch | variant | tiles/s | ratio | GFLOP/s | of matmul peak |")
    print("|---|---|---|---|---|---|")
    for batch in args.batch_size:
        print_ladder(args, batch)


def print_ladder(args, batch):
    """Print the table's lines of one batch size; ratios are to the first variant that runs."""
    first = None
    for name in args.variants:
        result, reason = run_apart(args, name, batch)
        if result is None:
            print(f"| {batch} | {name} | left out: {reason} | | | |", flush=True)
            continue
        speed = batch / result["seconds"]
        first = first or speed
        gflops = speed * step_gflop(args.filters)
        share = 100 * gflops / result["peak"]
        figures = f"{speed:.2f} | {speed / first:.2f} | {gflops:.0f} | {share:.0f} %"
        print(f"| {batch} | {name} | {figures} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
