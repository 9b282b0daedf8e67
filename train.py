"""Step 3: train generator and discriminator together (pix2pix).

    python train.py --dataset_path features --origin keyboard_acoustic --target guitar_acoustic

Writes runs/<origin>_2_<target>/: the generator, what resuming needs, history, plots, previews.
Several origins make one model that takes any of them: runs/many_2_<target>/. Run the same command
again to continue after a stop; the result is that of a run without the stop. --findlr searches the
learning rates first.
"""

from common import cli, devices
from training import flags


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    rate = cli.number(float, 0, 10, low_open=True)
    weight = cli.number(float, 0)
    flags.add_training_flags(parser)
    add = parser.add_argument
    add("--gen_lr", type=rate, default=5e-4, help="generator's learning rate (Adam)")
    add("--disc_lr", type=rate, default=5e-5, help="discriminator's learning rate (Adam)")
    # The error in dB is lowest for a smooth picture, before the adversarial term has done its work.
    parser.set_defaults(choose="last")
    add("--l1_weight", type=weight, default=100.0, help="lambda: weight of L1 in the loss")
    flags.add_delta_flag(parser)
    add(
        "--ema",
        type=cli.number(float, 0, 1),
        default=0.0,
        metavar="SHARE",
        help="the run's generator is an exponential moving average of the one that is trained, "
        "of which this share stays at a step, such as 0.999; 0: the trained one itself",
    )
    return parser


def build_model(args, gen_lr, gen_factor=1.0, disc_factor=1.0):
    """Both networks, compiled. The rates are ``gen_lr``, a number or a schedule, times a factor."""
    import models
    from training import setup

    kind = setup.choose_kind(args)
    generator = models.build_generator(args.filters, kind, args.dropout)
    discriminator = models.build_discriminator(args.filters, kind)
    model = models.Pix2Pix(generator, discriminator, args.l1_weight, args.ema, args.delta_weight)
    optimizer = model.optimizer_for(gen_lr, (gen_factor, disc_factor))
    models.compile_at_once(model, optimizer, args.jit)
    return model


def find_rates(args, sets, folder):
    """--findlr: one search for the generator alone, one for the discriminator, one for both."""
    import lr_finder
    import models
    from training import feeding, setup

    kind = setup.choose_kind(args)

    def generator_alone(rate):
        return models.compiled_generator(
            args.filters, rate, args.jit, args.delta_weight, kind=kind, dropout=args.dropout
        )

    def discriminator_alone(rate):
        return build_model(args, rate, gen_factor=0.0)

    def both(rate):
        return build_model(args, rate)

    sweeps = {
        "generator": lr_finder.Sweep("gen_lr", "loss", generator_alone),
        "discriminator": lr_finder.Sweep("disc_lr", "disc_loss", discriminator_alone),
        "both": lr_finder.Sweep(None, "loss", both),
    }
    batches = feeding.feed(sets.train, args.workers)
    lr_finder.search(sweeps, batches, args.findlr_steps, args.seed, folder / "lr_finder")


@cli.command
def main(argv=None):
    """Parse flags, train."""
    parser = build_parser()
    args, folder = flags.parse(parser, argv, "train")
    flags.check_dataset(args, folder)
    gpus = devices.setup_device(args.gpu, trains=True)

    from training import (
        callbacks,  # Keras loads here, once the device is known
        feeding,
        setup,
    )
    from training.run_folder import Run

    policy = setup.prepare(args, gpus)
    run = Run(folder, args.epoch_offset, args.fresh, args.choose)
    sets = setup.load_sets(args, run, gpus)
    if args.findlr:
        find_rates(args, sets, folder)
        return
    with run.locked():
        with devices.device_scope(gpus):
            model = build_model(args, args.gen_lr, disc_factor=args.disc_lr / args.gen_lr)
            setup.begin(run, model, sets, args, policy, script="train")
        setup.introduce(parser, args, model, run, policy, gpus)
        model.fit(
            feeding.feed(sets.train, args.workers),
            validation_data=feeding.feed(sets.held_out, args.workers),
            epochs=args.epochs,
            initial_epoch=setup.epochs_done(args, run),
            callbacks=callbacks.make_callbacks(model, args, run, sets),
            shuffle=False,  # the pairs come shuffled
            verbose=0,
        )
        print(run.summarise())


if __name__ == "__main__":
    raise SystemExit(main())
