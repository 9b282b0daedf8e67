"""Does the loader keep the device busy? The loader alone, and training on real tiles against training on tiles in memory.

    python benchmarks/feeding.py --features features --origin keyboard_acoustic --target guitar_acoustic

copy    what cannot be beaten: memory-mapped float16 -> float32, one thread
cold    after asking the system to forget the files (posix_fadvise), warm: from the page cache, cached: --cache
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))
from measure import machine

import cli
import devices


def forget(paths):
    """Drop files from the page cache."""
    os.sync()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def pairs_per_second(pairs, threads, seconds):
    """Read batches of ``pairs`` by that many threads, over again if need be, for some seconds."""
    count, start = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - start < seconds:
            count += sum(len(x) for x, _ in pool.map(pairs.__getitem__, range(len(pairs))))
    return count / (time.perf_counter() - start)


def copies_per_second(pairs, seconds):
    """The plain conversion of both tiles of a pair, one thread."""
    import numpy as np

    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for piece, tile, *_ in pairs.order[:256]:
            for side in pairs.pieces[piece]:
                np.asarray(side[tile], np.float32)
            count += 1
    return count / (time.perf_counter() - start)


def training_speed(args, pairs, real):
    """Tiles/s of fit() over one epoch of ``pairs`` (a warm-up epoch first), or over one batch of it again and again."""
    import keras

    import losses
    import models

    model = models.Pix2Pix(
        models.build_generator(args.filters), models.build_discriminator(args.filters)
    )
    model.compile(model.optimizer_for(1e-5), metrics=[losses.mae_db])
    batch = pairs[0]

    class Memory(keras.utils.PyDataset):
        def __len__(self):
            return len(pairs)

        def __getitem__(self, i):
            return batch

    data = pairs if real else Memory()
    model.fit(data, epochs=1, verbose=0, shuffle=False)
    start = time.perf_counter()
    model.fit(data, epochs=1, verbose=0, shuffle=False)
    return len(pairs) * pairs.batch_size / (time.perf_counter() - start)


@cli.command
def main(argv=None):
    """Parse flags, measure, print."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--features", type=Path, required=True, help="features folder")
    parser.add_argument("--origin", required=True, help="instrument")
    parser.add_argument("--target", required=True, help="instrument")
    parser.add_argument(
        "--filters", type=cli.number(int, 1), default=16, help="width of the networks"
    )
    parser.add_argument("--batch_size", type=cli.number(int, 1), default=8, help="tiles a batch")
    parser.add_argument(
        "--tiles", type=cli.number(int, 1), default=400, help="tiles an epoch of the training part"
    )
    parser.add_argument(
        "--rounds",
        type=cli.number(int, 0),
        default=3,
        help="repetitions of the training part, in turn",
    )
    parser.add_argument(
        "--seconds", type=cli.number(float, 0.1), default=3, help="for each figure of the loader"
    )
    args = parser.parse_args(argv)
    devices.setup_device("cpu")
    import dataset

    names, _ = dataset.pair_pieces(args.features, args.origin, args.target)
    where = (args.features, args.origin, args.target, names, args.batch_size)
    pairs = dataset.TilePairs(*where, seed=0)
    print(f"{machine()}; {len(pairs.index)} pairs, batch {args.batch_size}")
    pairs_per_second(pairs, 2, args.seconds)  # into the page cache
    floor = copies_per_second(pairs, args.seconds)
    print(
        f"| reading | threads | pairs/s | of copy |\n|---|---|---|---|\n| copy | 1 | {floor:,.0f} | 1.00 |"
    )
    for name in ("warm", "cached", "cold"):
        for threads in (1, 2, 4):
            source = dataset.TilePairs(*where, seed=0, cache=name == "cached")
            if name == "cold":
                forget(
                    args.features / i / f"{n}.npy"
                    for i in (args.origin, args.target)
                    for n in names
                )
            speed = pairs_per_second(source, threads, 0.01 if name == "cold" else args.seconds)
            print(f"| {name} | {threads} | {speed:,.0f} | {speed / floor:.2f} |", flush=True)
    pairs.index = pairs.index[: args.tiles]
    pairs.set_epoch(0)
    print("| training on | tiles/s | ratio |\n|---|---|---|")
    for _ in range(args.rounds):
        memory, real = (training_speed(args, pairs, real) for real in (False, True))
        print(
            f"| memory | {memory:.2f} | 1.000 |\n| disk | {real:.2f} | {real / memory:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    raise SystemExit(main())
