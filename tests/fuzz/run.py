"""Fuzz what reads files, for as long as you like.

    python tests/fuzz/run.py --target midi --runs 100000
    python tests/fuzz/run.py --target audio --runs 100000 --engine atheris

The first engine damages good files at random; atheris (pip install atheris) is guided by coverage.
An input that is neither taken nor refused as documented, or takes over 10 s of processor time, or
2 GB, is written to ``crash-TARGET`` in the current folder. TensorFlow keeps 3 MB of every network
that was built: give --target model some hundred runs at a time, each its --seed.
"""

import functools
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import targets  # noqa: E402

from common import cli  # noqa: E402

SECONDS, BYTES = 10, 2 << 30  # allowed to one input of less than 1 MB


class TookTooLong(BaseException):
    """Nothing that is fuzzed may catch it."""


def watched(target, content):
    """`targets.run_one`; an input that breaks a promise is kept, and its error passes."""

    def too_long(*_):
        raise TookTooLong(f"{SECONDS} s")

    def peak():
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    # processor time; time by the clock, on a machine that may be busy
    clocks = {signal.ITIMER_PROF: SECONDS, signal.ITIMER_REAL: 6 * SECONDS}
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, too_long)
    before = peak()
    for clock, seconds in clocks.items():
        signal.setitimer(clock, seconds)
    try:
        taken = targets.run_one(target, content)
        if peak() - before > BYTES:
            raise MemoryError("took over 2 GB")
        return taken
    except BaseException:
        Path(f"crash-{target}").write_bytes(content)
        raise
    finally:
        for clock in clocks:
            signal.setitimer(clock, 0)


@cli.command
def main(argv=None):
    """Parse flags, fuzz."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--target", choices=targets.TARGETS, required=True, help="what to fuzz")
    parser.add_argument("--runs", type=cli.number(int, 1), default=100_000, help="inputs")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="of the random damage")
    parser.add_argument(
        "--engine", choices=("random", "atheris"), default="random", help="what makes the inputs"
    )
    args = parser.parse_args(argv)
    if args.engine == "atheris":
        return with_atheris(args)
    good = targets.seeds(args.target)
    for content in good:  # imports all that is needed, before the time counts
        assert targets.run_one(args.target, content)
    rng = random.Random(args.seed)
    taken = 0
    began = time.time()
    for _ in range(args.runs):
        damaged = targets.damage_target(args.target, rng.choice(good), rng)
        taken += watched(args.target, damaged)
    seconds = time.time() - began
    print(
        f"{args.target}: {args.runs:,} inputs in {seconds:.0f} s, {taken:,} taken, "
        "the others refused as documented"
    )


def with_atheris(args):
    """Run atheris' loop, from the good files; what it finds is named crash-HASH."""
    try:
        import atheris
    except ImportError:
        raise cli.UserError(
            "--engine atheris: is not installed; pip install atheris, or use the other engine"
        ) from None
    corpus = Path(f"corpus-{args.target}")
    corpus.mkdir(exist_ok=True)
    ours = ["common", "compute_features", "data", "models", "sound", "synthesis", "training"]
    with atheris.instrument_imports(include=ours):
        for number, content in enumerate(targets.seeds(args.target)):
            assert targets.run_one(args.target, content)
            (corpus / f"seed{number}").write_bytes(content)
    limits = [f"-runs={args.runs}", f"-timeout={SECONDS}", f"-rss_limit_mb={BYTES >> 20}"]
    flags = [*limits, "-max_len=100000", str(corpus)]
    atheris.Setup([sys.argv[0], *flags], functools.partial(targets.run_one, args.target))
    atheris.Fuzz()


if __name__ == "__main__":
    raise SystemExit(main())
