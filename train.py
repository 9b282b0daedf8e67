"""Step 3: train generator and discriminator together (pix2pix).

    python train.py --dataset_path features --origin keyboard_acoustic --target guitar_acoustic

Writes runs/<origin>_2_<target>/: the generator, the state for resuming, history, plots, previews.
Several origins give one model that accepts any of them: runs/many_2_<target>/. Run the same command
again to continue after a stop; the result is the same as without the stop. --findlr searches the
learning rates first.
"""

from common import cli, devices
from training import flags

# Keras loads after the device is chosen.
lr_finder = cli.load_later("lr_finder")
models = cli.load_later("models")
feeding = cli.load_later("training.feeding")
setup = cli.load_later("training.setup")


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    rate = cli.number(float, 0, 10, low_open=True)
    weight = cli.number(float, 0)
    flags.add_training_flags(parser)
    add = parser.add_argument
    add("--gen_lr", type=rate, default=5e-4, help="generator's learning rate (Adam)")
    add("--disc_lr", type=rate, default=5e-5, help="discriminator's learning rate (Adam)")
    # The error in dB is lowest for a smooth picture, before the adversarial term takes effect.
    parser.set_defaults(choose="last")
    add("--l1_weight", type=weight, default=100.0, help="lambda: weight of L1 in the loss")
    flags.add_delta_flag(parser)
    add(
        "--ema",
        type=cli.number(float, 0, 1),
        default=0.0,
        metavar="SHARE",
        help="decay of an exponential moving average of the generator's weights, such as 0.999; "
        "the average becomes the run's generator; 0: off",
    )
    return parser


def build_model(training):
    """Build both networks, compiled with the learning rates of the flags."""
    args = training.args
    return build_pair(training, args.gen_lr, disc_factor=args.disc_lr / args.gen_lr)


def build_pair(training, gen_lr, gen_factor=1.0, disc_factor=1.0):
    """Build both networks, compiled.

    Args:
        training: `setup.Training`.
        gen_lr: learning rate, a number or a schedule.
        gen_factor, disc_factor: factors of the rate for each network.
    """
    args, kind, bins = training.args, training.kind, training.sets.train.bins
    generator = models.build_generator(args.filters, kind, args.dropout, bins)
    discriminator = models.build_discriminator(args.filters, kind, bins)
    model = models.Pix2Pix(generator, discriminator, args.l1_weight, args.ema, args.delta_weight)
    optimizer = model.optimizer_for(gen_lr, (gen_factor, disc_factor))
    models.compile_at_once(model, optimizer, args.jit)
    return model


def find_rates(training):
    """--findlr: one search for the generator alone, one for the discriminator, one for both."""
    args = training.args

    def generator_alone(rate):
        return models.compiled_generator(
            args.filters,
            rate,
            args.jit,
            args.delta_weight,
            kind=training.kind,
            dropout=args.dropout,
            bins=training.sets.train.bins,
        )

    def discriminator_alone(rate):
        return build_pair(training, rate, gen_factor=0.0)

    def both(rate):
        return build_pair(training, rate)

    sweeps = {
        "generator": lr_finder.Sweep("gen_lr", "loss", generator_alone),
        "discriminator": lr_finder.Sweep("disc_lr", "disc_loss", discriminator_alone),
        "both": lr_finder.Sweep(None, "loss", both),
    }
    batches = feeding.feed(training.sets.train, args.workers)
    folder = training.run.folder / "lr_finder"
    lr_finder.search(sweeps, batches, args.findlr_steps, args.seed, folder)


@cli.command
def main(argv=None):
    """Parse flags, train."""
    parser = build_parser()
    args, folder = flags.parse(parser, argv, "train")
    flags.check_dataset(args, folder)
    gpus = devices.setup_device(args.gpu, trains=True)
    training = setup.prepare(args, folder, "train", gpus)  # Keras loads here
    if args.findlr:
        find_rates(training)
        return
    setup.fit(training, build_model, parser)


if __name__ == "__main__":
    raise SystemExit(main())
