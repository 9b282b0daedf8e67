"""Step 3, the simple way: train the generator alone, by L1.

    python train_generator.py --dataset_path features --origin keyboard_acoustic \\
        --target guitar_acoustic

Writes runs/<origin>_2_<target>_generator/, with the same files as train.py. Run the same command
again to continue.
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
    flags.add_training_flags(parser)
    parser.add_argument("--lr", type=rate, default=5e-4, help="learning rate (Adam)")
    flags.add_delta_flag(parser)
    return parser


def build_model(training, rate=None):
    """Build the generator, compiled.

    Args:
        training: `setup.Training`.
        rate: learning rate, a number or a schedule; None: the flag's.
    """
    args = training.args
    return models.compiled_generator(
        args.filters,
        rate or args.lr,
        args.jit,
        args.delta_weight,
        kind=training.kind,
        dropout=args.dropout,
        bins=training.sets.train.bins,
    )


def find_rate(training):
    """--findlr: one search."""
    args = training.args

    def build(rate):
        return build_model(training, rate)

    sweeps = {"generator": lr_finder.Sweep("lr", "loss", build)}
    batches = feeding.feed(training.sets.train, args.workers)
    folder = training.run.folder / "lr_finder"
    lr_finder.search(sweeps, batches, args.findlr_steps, args.seed, folder)


@cli.command
def main(argv=None):
    """Parse flags, train."""
    parser = build_parser()
    args, folder = flags.parse(parser, argv, "train_generator", suffix="_generator")
    flags.check_dataset(args, folder)
    gpus = devices.setup_device(args.gpu, trains=True)
    training = setup.prepare(args, folder, "train_generator", gpus)  # Keras loads here
    if args.findlr:
        find_rate(training)
        return
    setup.fit(training, build_model, parser)


if __name__ == "__main__":
    raise SystemExit(main())
