"""Measure the loader: pairs/s of the loader alone, and the training speed with and without it.

    python benchmarks/feeding.py --features features --origin keyboard_acoustic \\
        --target guitar_acoustic

map         baseline: memory-mapped files, numpy converts float16 to float32
read        ours: each file is opened when it is read
cached      ours with --cache
conditions  ours with --conditions, all default conditions

All data comes from the system's page cache, so the speed of the disk is not measured. The second
part alternates an epoch of training on real tiles with one on a single batch in memory.
"""

import itertools
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
from measure import machine, repeat_batch, time_call

from common import devices

THREADS = (1, 2, 4)


class MappedPairs:
    """The batches of a `TilePairs`, read through memory maps and converted by numpy."""

    def __init__(self, pairs):
        import numpy as np

        self.pairs = pairs
        self.maps = {}
        for tiles in itertools.chain.from_iterable(piece.values() for piece in pairs.tiles):
            self.maps[tiles.path] = np.load(tiles.path, mmap_mode="r")

    def __len__(self):
        """Batches an epoch."""
        return len(self.pairs)

    def __getitem__(self, batch):
        """Batch number ``batch``."""
        import numpy as np

        size = self.pairs.batch_size
        x = np.empty((size, self.pairs.bins, 256, 1), np.float32)
        y = np.empty_like(x)
        for k in range(size):
            piece, tile = self.pairs.index[self.pairs.order[batch * size + k]]
            origin = self.pairs.drawn[batch * size + k]
            for side, out in ((origin, x), (self.pairs.target, y)):
                out[k] = self.maps[self.pairs.tiles[piece][side].path][tile]
                out[k] *= 2
                out[k] -= 1
        return x, y


def pairs_per_second(source, threads, seconds):
    """Read batches with several threads for some seconds: (pairs/s, processor ms of a pair)."""
    count = 0
    batches = itertools.cycle(range(len(source)))
    start = time.perf_counter()
    processor_start = time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - start < seconds:
            wanted = itertools.islice(batches, threads)
            for x, _ in pool.map(source.__getitem__, wanted):
                count += len(x)
    processor_time = time.process_time() - processor_start
    return count / (time.perf_counter() - start), 1000 * processor_time / count


def measure_loader(sources, rounds, seconds):
    """Print a table of medians over rounds. Each round measures every source once."""
    speeds = {}
    for _ in range(rounds):
        for name, threads in itertools.product(sources, THREADS):
            speed = pairs_per_second(sources[name], threads, seconds)
            speeds.setdefault((name, threads), []).append(speed)
    print("| reading | threads | pairs/s | of map | processor time of a pair, ms |")
    print("|---|---:|---:|---:|---:|")
    for (name, threads), found in speeds.items():
        ratios = [ours[0] / theirs[0] for ours, theirs in zip(found, speeds["map", threads])]
        ratio = statistics.median(ratios)
        speed, cost = statistics.median_low(found)
        print(f"| {name} | {threads} | {speed:,.0f} | {ratio:.2f} | {cost:.2f} |", flush=True)


def training_speed(args, pairs, real):
    """Tiles/s of fit() over an epoch of ``pairs`` (``real``) or of its first batch, repeated."""
    import models
    from training import feeding

    generator = models.build_generator(args.filters, bins=pairs.bins)
    discriminator = models.build_discriminator(args.filters, bins=pairs.bins)
    model = models.Pix2Pix(generator, discriminator)
    models.compile_at_once(model, model.optimizer_for(1e-5))
    source = repeat_batch(pairs[0], len(pairs))
    if real:
        source = feeding.feed(pairs, args.workers)
    model.fit(source, epochs=1, verbose=0, shuffle=False)  # compiles
    _, seconds = time_call(model.fit, source, epochs=1, verbose=0, shuffle=False)
    return len(pairs) * pairs.batch_size / seconds


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    whole = cli.number(int, 1)
    add = parser.add_argument
    add("--features", type=Path, required=True, help="features folder")
    add("--origin", required=True, nargs="+", metavar="NAME", help="instruments to convert from")
    add("--target", required=True, metavar="NAME", help="instrument to convert to")
    add("--pieces", type=whole, default=100, help="number of pieces to read")
    add("--filters", type=whole, default=16, help="width of the networks")
    add("--batch_size", type=whole, default=8, help="tiles per batch")
    add("--workers", type=whole, default=2, help="reading threads of the training part")
    add("--tiles", type=whole, default=400, help="tiles per epoch of the training part")
    add("--rounds", type=cli.number(int, 0), default=3, help="repetitions of each part")
    add("--seconds", type=cli.number(float, 0.1), default=3, help="time per loader figure, s")
    add("--no_training", action="store_true", help="measure the loader only")
    return parser


@cli.command
def main(argv=None):
    """Parse flags, measure, print."""
    args = build_parser().parse_args(argv)
    devices.setup_device("cpu")
    from common import dataset
    from sound import augment
    from training import splits

    devices.keep_memory()
    names, _ = splits.pair_pieces(args.features, [*args.origin, args.target])
    where = args.features, args.origin, args.target, names[: args.pieces]
    drawn = dataset.Batching(args.batch_size, seed=0)
    pairs = dataset.TilePairs(*where, drawn)
    print(f"{machine()}; {len(pairs.index)} pairs, batch {args.batch_size}")
    sources = {
        "map": MappedPairs(pairs),
        "read": pairs,
        "cached": dataset.TilePairs(*where, drawn._replace(cache=True)),
        "conditions": dataset.TilePairs(*where, drawn._replace(conditions=augment.Conditions())),
    }
    measure_loader(sources, args.rounds, args.seconds)
    if args.no_training:
        return
    short = dataset.TilePairs(*where, drawn._replace(epoch_tiles=args.tiles))
    print("| training on | tiles/s | ratio |\n|---|---:|---:|")
    for _ in range(args.rounds):
        memory = training_speed(args, short, real=False)
        disk = training_speed(args, short, real=True)
        print(f"| memory | {memory:.2f} | 1.000 |\n| disk | {disk:.2f} | {disk / memory:.3f} |")


if __name__ == "__main__":
    raise SystemExit(main())
