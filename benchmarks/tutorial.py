"""Compare our training step with the plain tutorial's: the ratio of their processor times.

    python benchmarks/tutorial.py --filters 16 --batch_size 4

The plain step is that of TensorFlow's pix2pix tutorial: Keras's layers, losses and Adam, two
gradient tapes in a tf.function. It imports nothing of this project. Its networks have the same
layers and sizes as ours, so both do the same work. Each step runs in its own process. The processes
take turns, a few steps each, so other load affects both equally. A ratio above 1 means that our
step is faster. TensorFlow only.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
from measure import machine

from common import devices
from common.cli import UserError

SIDES = ("tutorial", "ours")
WARM_UP = 3  # steps before the first turn: the first one compiles
L1_WEIGHT = 100
RATE = 2e-4  # the tutorial's


def plain_block(layer, filters, *rest):
    """Build the tutorial's downsample or upsample block: a convolution with stride 2, and more."""
    import tensorflow as tf

    start = tf.random_normal_initializer(0.0, 0.02)
    convolution = layer(
        filters, 4, strides=2, padding="same", kernel_initializer=start, use_bias=False
    )
    return tf.keras.Sequential([convolution, *rest])


def plain_generator(filters, bins):
    """Build the tutorial's U-Net, with one channel."""
    from keras import layers

    inputs = x = layers.Input((bins, 256, 1))
    skips = []
    for i, width in enumerate((1, 2, 4, 8, 8, 8, 8, 8)):
        norm = [layers.BatchNormalization()] if i > 0 else []
        x = plain_block(layers.Conv2D, width * filters, *norm, layers.LeakyReLU())(x)
        skips.append(x)
    for i, (width, skip) in enumerate(zip((8, 8, 8, 8, 4, 2, 1), reversed(skips[:-1]))):
        dropout = [layers.Dropout(0.5)] if i < 3 else []
        rest = [layers.BatchNormalization(), *dropout, layers.ReLU()]
        x = plain_block(layers.Conv2DTranspose, width * filters, *rest)(x)
        x = layers.Concatenate()([x, skip])
    last = layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="tanh")
    return _model(inputs, last(x))


def plain_discriminator(filters, bins):
    """Build a PatchGAN of four blocks, as in the method; the tutorial's differs."""
    from keras import layers

    inputs, target = layers.Input((bins, 256, 1)), layers.Input((bins, 256, 1))
    x = layers.Concatenate()([inputs, target])
    for i, width in enumerate((1, 2, 4, 8)):
        norm = [layers.BatchNormalization()] if i > 0 else []
        x = plain_block(layers.Conv2D, width * filters, *norm, layers.LeakyReLU())(x)
    return _model([inputs, target], layers.Conv2D(1, 4, padding="same")(x))


def _model(inputs, outputs):
    import keras

    return keras.Model(inputs, outputs)


def make_plain_step(filters, bins=256, compiled=True):
    """Make the tutorial's train_step: a function of tiles (x, y) -> the generator's loss."""
    import tensorflow as tf

    generator = plain_generator(filters, bins)
    discriminator = plain_discriminator(filters, bins)
    gen_adam = tf.keras.optimizers.Adam(RATE, beta_1=0.5)
    disc_adam = tf.keras.optimizers.Adam(RATE, beta_1=0.5)
    gen_adam.build(generator.trainable_variables)
    disc_adam.build(discriminator.trainable_variables)
    entropy = tf.keras.losses.BinaryCrossentropy(from_logits=True)

    def step(x, y):
        with tf.GradientTape() as gen_tape, tf.GradientTape() as disc_tape:
            output = generator(x, training=True)
            real = discriminator([x, y], training=True)
            generated = discriminator([x, output], training=True)
            l1_loss = tf.reduce_mean(tf.abs(y - output))
            gen_loss = entropy(tf.ones_like(generated), generated) + L1_WEIGHT * l1_loss
            disc_loss = entropy(tf.ones_like(real), real)
            disc_loss += entropy(tf.zeros_like(generated), generated)
        gen_weights = generator.trainable_variables
        disc_weights = discriminator.trainable_variables
        gen_adam.apply_gradients(zip(gen_tape.gradient(gen_loss, gen_weights), gen_weights))
        disc_adam.apply_gradients(zip(disc_tape.gradient(disc_loss, disc_weights), disc_weights))
        return gen_loss

    return tf.function(step) if compiled else step


def make_our_step(filters, bins=256):
    """Make our step, as called by train.py's `fit`: a function of tiles (x, y) -> loss."""
    import models

    devices.keep_memory()
    generator = models.build_generator(filters, bins=bins)
    discriminator = models.build_discriminator(filters, bins=bins)
    model = models.Pix2Pix(generator, discriminator)
    models.compile_at_once(model, model.optimizer_for(RATE))

    def step(x, y):
        return model.train_on_batch(x, y)[0]

    return step


def random_tiles(batch, bins=256):
    """Input and target, float32 (batch, bins, 256, 1) in [-1, 1]."""
    shape = 2, batch, bins, 256, 1
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def take_turns(args):
    """Run one side in a process: for each line of stdin do some steps and print their seconds."""
    devices.setup_device("cpu", trains=True)
    import tensorflow as tf

    make = {"tutorial": make_plain_step, "ours": make_our_step}[args.measure]
    step = make(args.filters, args.bins)
    x, y = random_tiles(args.batch_size, args.bins)
    x, y = tf.constant(x), tf.constant(y)
    for _ in range(WARM_UP):
        float(step(x, y))
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        for _ in range(args.steps):
            float(step(x, y))
        print(json.dumps((time.process_time() - began) / args.steps), flush=True)


def start(side, args):
    """Start the process of one side and wait until it is ready. Raises UserError if it fails."""
    command = [sys.executable, __file__, "--measure", side, "--filters", str(args.filters)]
    command += ["--batch_size", str(args.batch_size), "--bins", str(args.bins)]
    command += ["--steps", str(args.steps)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    read_answer(process, side)
    return process


def read_answer(process, side):
    """Read the next line of JSON that a process prints; other lines are skipped."""
    for line in process.stdout:
        try:
            return json.loads(line)
        except ValueError:
            continue
    raise UserError(f"--measure {side}: ended; see its last lines above")


def compare(seconds):
    """Median and quartiles of the paired ratios tutorial / ours.

    Args:
        seconds: list of (tutorial's, ours), s per step, in the same turn.
    """
    pairs = np.array(seconds)
    return np.percentile(pairs[:, 0] / pairs[:, 1], [50, 25, 75])


@cli.command
def main(argv=None):
    """Start both sides, let them take turns, print the ratio."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--filters", type=cli.number(int, 1), default=64, help="width of the networks")
    add("--batch_size", type=cli.number(int, 1), default=8, help="tiles a step")
    add("--bins", type=int, choices=(256, 512), default=256, help="height of the tiles")
    add("--steps", type=cli.number(int, 1), default=4, help="steps of a turn")
    add("--turns", type=cli.number(int, 2), default=10, help="turns of each")
    add("--measure", choices=SIDES, help="used by the script itself")
    args = parser.parse_args(argv)
    if args.measure:
        take_turns(args)
        return 0
    processes = {side: start(side, args) for side in SIDES}
    seconds = []
    for _ in range(args.turns):
        turn = []
        for side, process in processes.items():
            process.stdin.write("go\n")
            turn.append(read_answer(process, side))
        seconds.append(turn)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    median, low, high = compare(seconds)
    print(f"{machine()}; width {args.filters}, batch {args.batch_size}, {args.bins} bins")
    for side, value in zip(SIDES, np.median(seconds, axis=0)):
        print(f"{side}: {value:.3f} s of processor time a step (median of {args.turns} turns)")
    print(f"tutorial / ours, paired: {median:.2f} (quartiles {low:.2f} - {high:.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
