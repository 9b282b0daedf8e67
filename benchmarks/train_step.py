"""A ladder of training steps, each in a process of its own: tiles/s, ratio to the first, GFLOP/s, share of the peak.

    python benchmarks/train_step.py --filters 64 --batch_size 8
    KERAS_BACKEND=jax python benchmarks/train_step.py --batch_size 8 32 128 --variants ours_float32 ours_bfloat16 torch_bfloat16

eager           the usual tutorial's step: two gradient tapes, nothing compiled
compiled        the same in a tf.function
ours_*          Pix2Pix.fit on tiles in memory, float32 or mixed bfloat16 or float16, on KERAS_BACKEND; *_jit: through XLA
torch_*         the same networks in PyTorch: float32; bfloat16 autocast with channels_last; also through torch.compile
Variants whose package is missing are left out. Times are medians of steps.
The peak is the best of some square matrix products on the same device.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import cli
import devices

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
    """GFLOP of one tile's training step, two for each multiply-add; 58.7 at width 64.

    Forward once, backward twice that. The discriminator sees two pictures, and passes a third gradient back through the
    generated one.
    """
    down, up = (1, 2, 4, 8, 8, 8, 8, 8), (8, 8, 8, 8, 4, 2, 1)
    generator, discriminator, channels, side = 0, 0, 1 / filters, 256
    for i, width in enumerate(down):
        side //= 2
        generator += side**2 * 16 * channels * width
        discriminator += (
            side**2 * 16 * (2 * channels if i == 0 else channels) * width if i < 4 else 0
        )
        channels = width
    discriminator += 16**2 * 16 * 8 / filters
    for width, skip in zip(up, down[-2::-1]):
        generator += side**2 * 16 * channels * width
        side, channels = side * 2, width + skip
    generator += side**2 * 16 * channels / filters
    return 2 * filters**2 * (3 * generator + 7 * discriminator) / 1e9


def timed(step, seconds):
    """Median seconds of ``step()`` over about ``seconds``, after three calls that are not counted."""
    for _ in range(3):
        step()
    times = []
    while sum(times) < seconds or len(times) < 5:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def random_tiles(count):
    """Input and target, float32 (count, 256, 256, 1) in [-1, 1]."""
    import numpy as np

    return np.random.default_rng(0).uniform(-1, 1, (2, count, 256, 256, 1)).astype(np.float32)


def tutorial_step(args, compiled):
    """The step of the usual pix2pix tutorial, with Keras's own layers."""
    import tensorflow as tf
    from keras import layers

    import losses
    import models

    for kind in ("BatchNormalization", "Conv2D", "Conv2DTranspose"):
        setattr(models, kind, getattr(layers, kind))
    generator, discriminator = (
        models.build_generator(args.filters),
        models.build_discriminator(args.filters),
    )
    gen_adam, disc_adam = (tf.keras.optimizers.Adam(1e-5, beta_1=0.5) for _ in "gd")

    def step(x, y):
        with tf.GradientTape() as gen_tape, tf.GradientTape() as disc_tape:
            output = generator(x, training=True)
            real, generated = (
                discriminator([x, y], training=True),
                discriminator([x, output], training=True),
            )
            gen_loss = losses.adversarial_loss(generated, True) + 100 * losses.l1_loss(y, output)
            disc_loss = losses.discriminator_loss(real, generated)
        gen_adam.apply(
            gen_tape.gradient(gen_loss, generator.trainable_weights), generator.trainable_weights
        )
        disc_adam.apply(
            disc_tape.gradient(disc_loss, discriminator.trainable_weights),
            discriminator.trainable_weights,
        )
        return gen_loss

    gen_adam.build(generator.trainable_variables)
    disc_adam.build(discriminator.trainable_variables)
    x, y = map(tf.constant, random_tiles(args.batch))
    step = tf.function(step) if compiled else step
    return timed(lambda: float(step(x, y)), args.seconds)


def our_step(args, precision, jit):
    """`Pix2Pix.fit` on tiles in memory: seconds a step. ``jit`` is a key of `models.JIT`."""
    import keras

    import losses
    import models

    devices.keep_memory()
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    model = models.Pix2Pix(
        models.build_generator(args.filters), models.build_discriminator(args.filters)
    )
    model.compile(model.optimizer_for(1e-5), metrics=[losses.mae_db], jit_compile=models.JIT[jit])
    x, y = random_tiles(args.batch)

    class Steps(keras.utils.PyDataset):
        def __len__(self):
            return 1000

        def __getitem__(self, i):
            return x, y

    class Clock(
        keras.callbacks.Callback
    ):  # reads each step's losses, as a progress bar does: the step is over by then
        times = []  # noqa: RUF012

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            self.times.append(time.perf_counter())
            if self.times[-1] - self.times[0] > args.seconds and len(self.times) > 8:
                self.model.stop_training = True

    model.fit(Steps(), verbose=0, shuffle=False, callbacks=[clock := Clock()])
    return statistics.median(b - a for a, b in zip(clock.times[2:], clock.times[3:]))


def torch_networks(f):
    """The same networks in PyTorch, of width ``f``."""
    import torch
    from torch import nn

    def down(before, after, norm=True):
        parts = [nn.Conv2d(before, after, 4, 2, 1, bias=False)]
        return nn.Sequential(*parts, *([nn.BatchNorm2d(after)] if norm else []), nn.LeakyReLU(0.3))

    def up(before, after, dropout):
        parts = [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after)]
        return nn.Sequential(*parts, *([nn.Dropout(0.5)] if dropout else []), nn.ReLU())

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [k * f for k in (1, 2, 4, 8, 8, 8, 8, 8)]
            self.downs = nn.ModuleList(
                down(b, w, i > 0) for i, (b, w) in enumerate(zip([1, *widths], widths))
            )
            ups, channels = [], widths[-1]
            for i, (k, skip) in enumerate(zip((8, 8, 8, 8, 4, 2, 1), widths[-2::-1])):
                ups.append(up(channels, k * f, i < 3))
                channels = k * f + skip
            self.ups = nn.ModuleList(ups)
            self.last = nn.ConvTranspose2d(channels, 1, 4, 2, 1)

        def forward(self, x):
            skips = []
            for block in self.downs:
                x = block(x)
                skips.append(x)
            for block, skip in zip(self.ups, skips[-2::-1]):
                x = torch.cat([block(x), skip], 1)
            return torch.tanh(self.last(x))

    widths = [2, f, 2 * f, 4 * f, 8 * f]
    parts = [
        down(before, after, i > 0) for i, (before, after) in enumerate(itertools.pairwise(widths))
    ]
    return Generator(), nn.Sequential(*parts, nn.Conv2d(8 * f, 1, 4, padding="same"))


def torch_step(args, precision, compiled=False):
    """The same step in PyTorch: seconds."""
    import torch
    from torch.nn import functional as F

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if precision == "bfloat16" else torch.contiguous_format
    generator, discriminator = networks = [
        m.to(device, memory_format=layout) for m in torch_networks(args.filters)
    ]
    adams = [torch.optim.Adam(m.parameters(), 1e-5, betas=(0.5, 0.999)) for m in networks]
    x, y = (
        torch.rand(args.batch, 1, 256, 256, device=device).mul(2).sub(1).to(memory_format=layout)
        for _ in "xy"
    )
    run_g, run_d = (torch.compile(m) if compiled else m for m in (generator, discriminator))

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            output = run_g(x)
            adams[1].zero_grad(set_to_none=True)
            real, generated = run_d(torch.cat([x, y], 1)), run_d(torch.cat([x, output.detach()], 1))
            (F.softplus(-real.float()).mean() + F.softplus(generated.float()).mean()).backward()
            discriminator.requires_grad_(False)
            adams[0].zero_grad(set_to_none=True)
            loss = F.softplus(-run_d(torch.cat([x, output], 1)).float()).mean() + 100 * F.l1_loss(
                output.float(), y
            )
            loss.backward()
            discriminator.requires_grad_(True)
        for adam in adams:
            adam.step()
        return loss.item()

    return timed(step, args.seconds)


def peak_gflops(backend, precision):
    """Best of some square matrix products, GFLOP/s."""
    n = 3072
    if backend == "torch":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        a = torch.rand(n, n, device=device, dtype=getattr(torch, precision))
        product = lambda: float((a @ a)[0, 0])  # noqa: E731
    else:
        import keras

        a = keras.ops.cast(keras.random.uniform((n, n)), precision)
        product = lambda: float(keras.ops.matmul(a, a)[0, 0])  # noqa: E731
    times = []
    for _ in range(20):
        start = time.perf_counter()
        product()
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times) / 1e9


def measure(args):
    """Run one variant; print its figures as JSON."""
    name = args.measure
    precision = (
        "bfloat16"
        if name == "torch_compiled"
        else next((p for p in ("bfloat16", "float16") if p in name), "float32")
    )
    if name.startswith("torch"):
        seconds = torch_step(args, precision, compiled=name == "torch_compiled")
    else:
        devices.setup_device(args.gpu)
        if name.startswith("ours"):
            seconds = our_step(args, precision, "on" if name.endswith("_jit") else "auto")
        else:
            seconds = tutorial_step(args, compiled=name == "compiled")
    peak = peak_gflops("torch" if name.startswith("torch") else "keras", precision)
    print(json.dumps({"seconds": seconds, "peak": peak}))


@cli.command
def main(argv=None):
    """Parse flags, run each variant, print the table."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--filters", type=cli.number(int, 1), default=64, help="width of the networks"
    )
    parser.add_argument(
        "--batch_size", type=cli.number(int, 1), nargs="+", default=[8], help="tiles a step"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=VARIANTS,
        metavar="NAME",
        help="which to run",
    )
    parser.add_argument(
        "--seconds", type=cli.number(float, 0.1), default=20, help="to measure each for"
    )
    parser.add_argument("--gpu", help="as of train.py")
    parser.add_argument(
        "--measure",
        choices=VARIANTS,
        help="run this one here and print JSON (used by the script itself)",
    )
    args = parser.parse_args(argv)
    if args.measure:
        args.batch = args.batch_size[0]
        return measure(args)
    print(f"{machine()}; width {args.filters}, {step_gflop(args.filters):.1f} GFLOP a tile")
    print(
        "| batch | variant | tiles/s | ratio | GFLOP/s | of matmul peak |\n|---|---|---|---|---|---|"
    )
    for batch in args.batch_size:
        first = None
        for name in args.variants:
            flags = [
                "--measure",
                name,
                "--batch_size",
                batch,
                "--filters",
                args.filters,
                "--seconds",
                args.seconds,
            ]
            flags += ["--gpu", args.gpu] if args.gpu else []
            done = subprocess.run(
                [sys.executable, __file__, *map(str, flags)], capture_output=True, text=True
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["?"])[-1]
                print(f"| {batch} | {name} | left out: {reason[:80]} | | | |", flush=True)
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            speed = batch / result["seconds"]
            first = first or speed
            gflops = speed * step_gflop(args.filters)
            share = 100 * gflops / result["peak"]
            print(
                f"| {batch} | {name} | {speed:.2f} | {speed / first:.2f} | {gflops:.0f} | {share:.0f} % |",
                flush=True,
            )


def machine():
    """Processor, cores and, if there is one, GPU: one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        "unknown processor",
    )
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        gpu = "no GPU"
    return f"{name}, {os.cpu_count()} cores, {gpu}, KERAS_BACKEND={os.environ.get('KERAS_BACKEND', 'tensorflow')}"


if __name__ == "__main__":
    raise SystemExit(main())
