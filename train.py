"""Step 3: train generator and discriminator together (pix2pix).

    python train.py --dataset_path features --origin keyboard_acoustic --target guitar_acoustic
    python train.py --dataset_path features --origin keyboard_acoustic --target guitar_acoustic string_acoustic

Writes runs/<origin>_2_<target>/, of several instruments "any" in their place: the best generator, what resuming needs, history,
plots, previews. Run the same command again to continue after a stop; the result is that of a run without the stop. --findlr
searches the learning rates first.
"""

import cli
import devices


@cli.command
def main(argv=None):
    """Parse flags, train."""
    parser = cli.Parser(__doc__)
    cli.training_flags(parser)
    rate = cli.number(float, 0, 10, low_open=True)
    parser.add_argument(
        "--gen_lr", type=rate, default=5e-4, help="generator's learning rate (Adam)"
    )
    parser.add_argument(
        "--disc_lr", type=rate, default=5e-5, help="discriminator's learning rate (Adam)"
    )
    parser.add_argument(
        "--l1_weight",
        type=cli.number(float, 0),
        default=100.0,
        help="lambda: weight of L1 in the loss",
    )
    args = parser.parse_args(argv)
    gpus = devices.setup_device(args.gpu)

    import losses  # Keras loads here, once the device is known
    import models
    import training
    from lr_finder import Sweep

    kind = training.generator_kind(args)

    def build(rate=args.gen_lr, factors=(1.0, args.disc_lr / args.gen_lr)):
        channels = (
            kind["channels"] if args.learn == "phase" else 1
        )  # of several targets it does not see the style
        discriminator = models.build_discriminator(args.filters, channels, kind["outputs"])
        networks = models.build_generator(args.filters, **kind), discriminator
        model = models.Pix2Pix(*networks, l1_weight=args.l1_weight)
        model.compile(
            model.optimizer_for(rate, factors),
            metrics=[losses.mae_db],
            jit_compile=models.JIT[args.jit],
        )
        return model

    sweeps = {
        "generator": Sweep(
            "gen_lr",
            "loss",
            lambda rate: models.compiled_generator(args.filters, rate, args.jit, **kind),
        ),
        "discriminator": Sweep("disc_lr", "disc_loss", lambda rate: build(rate, (0.0, 1.0))),
        "both": Sweep(None, "loss", lambda rate: build(rate, (1.0, 1.0))),
    }
    training.train(args, parser, gpus, build, sweeps, "train")


if __name__ == "__main__":
    raise SystemExit(main())
