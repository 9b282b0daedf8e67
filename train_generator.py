"""Step 3, the simple way: train the generator alone, by L1.

    python train_generator.py --dataset_path features --origin keyboard_acoustic --target guitar_acoustic

Writes runs/<origin>_2_<target>_generator/, of the same contents as train.py's. Run the same command again to continue.
"""

import cli
import devices


@cli.command
def main(argv=None):
    """Parse flags, train."""
    parser = cli.Parser(__doc__)
    cli.training_flags(parser)
    rate = cli.number(float, 0, 10, low_open=True)
    parser.add_argument("--lr", type=rate, default=5e-4, help="learning rate (Adam)")
    args = parser.parse_args(argv)
    gpus = devices.setup_device(args.gpu)

    import models  # Keras loads here, once the device is known
    import training
    from lr_finder import Sweep

    def build(rate=args.lr):
        return models.compiled_generator(
            args.filters, rate, args.jit, **training.generator_kind(args)
        )

    training.train(
        args, parser, gpus, build, {"generator": Sweep("lr", "loss", build)}, "train_generator"
    )


if __name__ == "__main__":
    raise SystemExit(main())
