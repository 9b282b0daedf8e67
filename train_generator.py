"""Step 3, the simple way: train the generator alone, by L1.

    python train_generator.py --dataset_path features --origin keyboard_acoustic \\
        --target guitar_acoustic

Writes runs/<origin>_2_<target>_generator/, of the same contents as train.py's. Run the same command
again to continue.
"""

from common import cli, devices
from training import flags


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    rate = cli.number(float, 0, 10, low_open=True)
    flags.add_training_flags(parser)
    parser.add_argument("--lr", type=rate, default=5e-4, help="learning rate (Adam)")
    flags.add_delta_flag(parser)
    return parser


def build_model(args, rate):
    """The generator, compiled. ``rate`` is a number or a schedule."""
    import models
    from training import setup

    kind = setup.choose_kind(args)
    return models.compiled_generator(
        args.filters, rate, args.jit, args.delta_weight, kind=kind, dropout=args.dropout
    )


def find_rate(args, sets, folder):
    """--findlr: one search."""
    import lr_finder
    from training import feeding

    def build(rate):
        return build_model(args, rate)

    sweeps = {"generator": lr_finder.Sweep("lr", "loss", build)}
    batches = feeding.feed(sets.train, args.workers)
    lr_finder.search(sweeps, batches, args.findlr_steps, args.seed, folder / "lr_finder")


@cli.command
def main(argv=None):
    """Parse flags, train."""
    parser = build_parser()
    args, folder = flags.parse(parser, argv, "train_generator", suffix="_generator")
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
        find_rate(args, sets, folder)
        return
    with run.locked():
        with devices.device_scope(gpus):
            model = build_model(args, args.lr)
            setup.begin(run, model, sets, args, policy, script="train_generator")
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
