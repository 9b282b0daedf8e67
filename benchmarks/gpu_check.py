"""Check that training on this GPU agrees with the CPU, and measure its speed (about five minutes).

    python benchmarks/gpu_check.py

Renders the embedded pieces. Then it tests each installed backend of Keras that sees a GPU, in each
precision:

agreement  trains a small pix2pix (width 16, batch 4) for 200 steps, with the weights and tiles of a
           float32 run on the CPU, and compares the mean L1, in dB, of each 40 steps
speed      tiles/s at width 64 on tiles in memory, and their share of the matrix-product peak
feeding    tiles/s from disk with recording conditions, relative to tiles in memory

Please open an issue named "gpu_check: <your card>" with the output. A verdict other than "agrees"
is a defect; please report it in any case.
"""

import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
from measure import machine, repeat_batch, run_json, time_call

from common import devices

ROOT = Path(__file__).parent.parent
ORIGIN, TARGET = "keyboard_acoustic", "guitar_acoustic"
EPOCHS = 5
EPOCH_TILES = 160  # the embedded pieces have about 170
SMALL_FILTERS, SMALL_BATCH = 16, 4  # 5 epochs of 160 tiles are 200 steps
RATE = 2e-4
TOLERANCE = {  # largest difference of the mean L1 over 40 steps, relative to the CPU in float32
    "float32": 0.02,
    "bfloat16": 0.05,
    "float16": 0.05,
}
PRECISIONS = tuple(TOLERANCE)
CHILD_LIMIT = 600  # s, after which a measurement counts as failed


def prepare_tiles(folder):
    """Run steps 1 and 2 on the embedded pieces and two instruments. Returns the features folder."""
    import compute_features
    import synthesize_audios

    audios = folder / "audios"
    features = folder / "features"
    where = ["--nsynth_path", str(ROOT / "demo/notes"), "--midi_path", str(ROOT / "demo/midi")]
    instruments = ["--instruments", ORIGIN, TARGET]
    synthesize_audios.main([*where, "--audios_path", str(audios), *instruments])
    compute_features.main(["--audios", str(audios), "--features", str(features)])
    return features


def build_model(filters, dropout):
    """Build a compiled `models.Pix2Pix` with the same weights on every backend."""
    import keras
    import numpy as np

    import models

    generator = models.build_generator(filters, dropout=dropout)
    model = models.Pix2Pix(generator, models.build_discriminator(filters))
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        if len(weight.shape) == 4:  # kernels; all other weights start as constants, 0 or 1
            weight.assign(rng.normal(0, 0.02, weight.shape).astype(np.float32))
    models.compile_at_once(model, model.optimizer_for(RATE))
    keras.utils.set_random_seed(0)
    return model


def make_pairs(features, batch_size, conditions=None):
    """Make `dataset.TilePairs` of the embedded pieces."""
    from common import dataset
    from training import splits

    names, _ = splits.pair_pieces(features, [ORIGIN, TARGET])
    return dataset.TilePairs(
        features,
        [ORIGIN],
        TARGET,
        names,
        dataset.Batching(batch_size, seed=0, epoch_tiles=EPOCH_TILES, conditions=conditions),
    )


def measure_agreement(features):
    """Train the small model; returns the mean L1 of each epoch, dB."""
    import keras

    from training import feeding

    pairs = make_pairs(features, SMALL_BATCH)

    def begin_epoch(epoch, logs):
        pairs.set_epoch(epoch)

    shuffle = keras.callbacks.LambdaCallback(on_epoch_begin=begin_epoch)
    model = build_model(SMALL_FILTERS, dropout=0.0)  # each backend would draw its own dropout
    history = model.fit(
        feeding.feed(pairs), epochs=EPOCHS, callbacks=[shuffle], verbose=0, shuffle=False
    )
    return history.history["mae_db"]


def measure_feeding(features, filters, batch_size, workers):
    """Ratio of tiles/s from disk, with recording conditions, to tiles/s of one batch in memory."""
    from sound import augment
    from training import feeding

    pairs = make_pairs(features, batch_size, augment.Conditions(augment.DEFAULT))
    memory = repeat_batch(pairs[0], len(pairs))
    model = build_model(filters, dropout=0.5)
    model.fit(memory, verbose=0, shuffle=False)  # compiles
    options = {"epochs": EPOCHS, "verbose": 0, "shuffle": False}
    _, in_memory = time_call(model.fit, memory, **options)
    _, from_disk = time_call(model.fit, feeding.feed(pairs, workers), **options)
    return in_memory / from_disk


def measure_here(args):
    """Measure one backend and precision in this process; print the result as JSON."""
    gpus = devices.setup_device(args.gpu)
    devices.set_precision(args.precision, gpus)
    found = {}
    if args.measure == "agreement":
        found["mae_db"] = measure_agreement(args.features)
    else:
        import train_step

        found["seconds"] = train_step.our_step(
            args.filters, args.batch_size, args.seconds, args.precision, jit="auto"
        )
        found["peak"] = train_step.peak_gflops("keras", args.precision)
        found["feeding"] = measure_feeding(
            args.features, args.filters, args.batch_size, args.workers
        )
    print(json.dumps(found))


def run_apart(args, measure, backend, precision, gpu):
    """Run `measure_here` in a new process: (its result, or None; the reason of the failure)."""
    command = [sys.executable, __file__, "--measure", measure, "--features", str(args.features)]
    command += ["--precision", precision, "--seconds", str(args.seconds)]
    command += ["--filters", str(args.filters), "--batch_size", str(args.batch_size)]
    command += ["--workers", str(args.workers)]
    if gpu:
        command += ["--gpu", gpu]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return run_json(command, environment, CHILD_LIMIT)


def check_backend(args, backend, reference):
    """Measure each precision of a backend and print its lines.

    Args:
        args: flags.
        backend: of `devices.BACKENDS`.
        reference: mean L1 of each epoch on the CPU, dB.

    Returns:
        Whether all precisions agree with the CPU and nothing failed.
    """
    all_agree = True
    for precision in args.precisions:
        name = f"{backend} {precision}"
        trained, reason = run_apart(args, "agreement", backend, precision, args.gpu)
        if not trained:
            print(f"| {name} | **failed**: {reason} | | | | |", flush=True)
            all_agree = False
            continue
        off = largest_difference(trained["mae_db"], reference)
        agrees = off <= TOLERANCE[precision]
        verdict = "agrees" if agrees else "**DIFFERS**"
        speed, reason = run_apart(args, "speed", backend, precision, args.gpu)
        figures = f"**failed**: {reason} | | |"
        if speed:
            figures = format_speed(args, speed)
        print(f"| {name} | {verdict}, {off:.1%} off | {figures} |", flush=True)
        all_agree &= agrees and speed is not None
    return all_agree


def format_speed(args, speed):
    """Format the table's four speed cells; ``speed`` is a dict of `measure_here`."""
    import train_step

    tiles = args.batch_size / speed["seconds"]
    share = tiles * train_step.step_gflop(args.filters) / speed["peak"]
    return f"{tiles:.1f} | {share:.0%} | {speed['peak'] / 1000:.2f} | {speed['feeding']:.2f}"


def largest_difference(errors, reference):
    """Compute the largest relative difference of two lists of errors of equal length.

    It is infinite if an error is not finite: max() would ignore the NaN of a diverged training.
    """
    if not all(map(math.isfinite, [*errors, *reference])):
        return math.inf
    return max(abs(ours - known) / known for ours, known in zip(errors, reference, strict=True))


def find_backends(gpu):
    """List the installed backends that see a GPU; with ``gpu`` "cpu" all installed ones."""
    found = []
    for backend in devices.BACKENDS:
        if not importlib.util.find_spec(backend):
            print(f"{backend}: is not installed")
            continue
        version = importlib.metadata.version(backend)
        count = 1
        if gpu != "cpu":
            count = count_gpus(backend)
        if count:
            found.append(backend)
            print(f"{backend} {version}")
        else:
            print(f"{backend} {version}: sees no GPU")
    return found


def count_gpus(backend):
    """Count the GPUs that a backend sees, in a new process."""
    code = "from common import devices; print(devices.setup_device())"
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return 0
    return int(done.stdout.split()[-1])


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    whole = cli.number(int, 1)
    add("--gpu", help="GPU number, as in train.py; cpu: try the script without a GPU")
    add("--filters", type=whole, default=64, help="width of the networks in the speed test")
    add("--batch_size", type=whole, default=16, help="tiles per step in the speed test")
    add("--workers", type=whole, help="reading threads; default: one per core")
    add("--seconds", type=cli.number(float, 0.1), default=5, help="time per speed figure, s")
    add(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        default=PRECISIONS,
        help="precisions to check",
    )
    add("--measure", choices=("agreement", "speed"), help="internal")
    add("--features", type=Path, help="internal")
    add("--precision", choices=PRECISIONS, help="internal")
    return parser


@cli.command
def main(argv=None):
    """Parse flags, measure, print the table. Exit code 1 if a backend does not agree."""
    args = build_parser().parse_args(argv)
    args.workers = args.workers or os.cpu_count()
    if args.measure:
        measure_here(args)
        return 0
    print(machine())
    print(f"Python {sys.version.split()[0]}, Keras {importlib.metadata.version('keras')}")
    backends = find_backends(args.gpu)
    if not backends:
        raise cli.UserError(
            "no installed backend sees a GPU; see nvidia-smi, or give --gpu cpu to try the script"
        )
    with tempfile.TemporaryDirectory() as folder:
        args.features = prepare_tiles(Path(folder))
        print("training the small model on the CPU, for comparison ...")
        reference, reason = run_apart(args, "agreement", backends[0], "float32", "cpu")
        if not reference:
            raise cli.UserError(f"{backends[0]} cannot train on the CPU: {reason}")
        errors = " ".join(f"{error:.3f}" for error in reference["mae_db"])
        print(f"{backends[0]}, float32, on the CPU: mean L1 of each 40 steps, dB: {errors}")
        print(f"width {args.filters}, batch {args.batch_size}, {args.workers} reading threads")
        print("| | 200 steps against the CPU's | tiles/s | of peak | peak, TFLOP/s | feeding |")
        print("|---|---|---:|---:|---:|---:|")
        agree = [check_backend(args, name, reference["mae_db"]) for name in backends]
    print("feeding: speed from disk with recording conditions; 1 is the speed from memory")
    print('Please open an issue named "gpu_check: <your card>" with this output.')
    return 0 if all(agree) else 1


if __name__ == "__main__":
    raise SystemExit(main())
