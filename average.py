"""The mean of several generators' weights, which is often better than any of them.

    python train.py --resume runs/A --epochs 20 --keep_every 1
    python average.py --models runs/A/epochs/*.keras --output runs/A/mean.keras
    python predict.py --model runs/A/mean.keras --input song.wav

A discriminator keeps its generator moving: each epoch's is off in a direction of its own, and the
mean is nearer than any to what they circle (Yazıcı et al. 2019, "The unusual effectiveness of
averaging in GAN training"; Izmailov et al. 2018). The models must have a common start: epochs of
one run, and the model that it began with.

`train.py --ema 0.999` keeps such a mean while it trains, and is the simpler way where one knows
beforehand over how many steps. This script chooses afterwards: which epochs, which other models,
and how much of the model that the run began with.
"""

from pathlib import Path

import numpy as np

import cli
import devices
from cli import UserError


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        required=True,
        help="run folders, files, pretrained names; each counts once, or as often as it is named",
    )
    add("--output", type=Path, required=True, help="file to write, .keras")
    return parser


def average(paths):
    """The mean of all weights of several generators, as a generator like the first.

    Means and variances of batch norm are averaged like weights. Two models are in memory at a time.

    Args:
        paths: see `models.load_generator`; of one kind and width.

    Raises:
        UserError: one cannot be loaded, or is of another kind or width than the first.
    """
    import models

    mean = models.load_generator(paths[0])
    sums = [np.array(weight) for weight in mean.get_weights()]  # JAX's cannot be written to
    for path in paths[1:]:
        other = models.load_generator(path)
        if other.kind is not mean.kind or models.width_of(other) != models.width_of(mean):
            raise UserError(
                f"--models {path}: is of another kind or width than {paths[0]}; give epochs of "
                "one run, and what it began with"
            )
        for total, weight in zip(sums, other.get_weights()):
            total += weight
    mean.set_weights([total / len(paths) for total in sums])
    return mean


@cli.command
def main(argv=None):
    """Parse flags, write the file."""
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".keras":
        raise UserError(f"--output {args.output}: is no .keras file; give such a name")
    devices.setup_device("cpu")
    import models

    mean = average(args.models)
    with cli.complete(args.output) as part:
        models.save_generator(mean, part)
    print(f"mean of {len(args.models)} models -> {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
