"""Draw a model's output for unknown recordings, next to the true target: docs/strangers.png.

    python docs/strangers.py --model guitar --pairs pairs.csv

--pairs has lines of label,input,reference, paths relative to it: recordings, and the same music
on the target, aligned.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
from figures import LARGE, STYLE, WIDTH, add_colour_bar, save
from matplotlib.figure import Figure

import data
from common import cli, devices
from common.cli import UserError
from common.files import read_csv
from conversion import convert
from conversion.known_models import find_model
from report import pictures
from sound.recordings import read_audio

SECONDS = 6  # of each recording, from its beginning
MORE = 3  # s that the network gets and the picture does not show: no end cuts into what is shown
KHZ = (0, 0.5, 1, 2, 4, 8)  # ticks: fewer than on other pictures, for these are lower
PANELS = ("input", "output", "true target", "output minus target")


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="run folder, or a part of a model's name")
    add("--pairs", type=Path, required=True, help="CSV file of lines label,input,reference")
    return parser


def read_rows(path):
    """Read lines of label,input,reference: list of (label, input's picture, target's picture).

    Raises:
        UserError: the file is not such a table.
    """
    rows = []
    for number, cells in enumerate(read_csv(path), 1):
        if len(cells) != 3:
            raise UserError(f"{path}: line {number} is not 'label,input,reference'; correct it")
        label, source, reference = cells
        pair = [read_picture(path.parent / each) for each in (source, reference)]
        length = min(picture.shape[1] for picture in pair)
        rows.append((label, *(picture[:, :length] for picture in pair)))
    return rows


def read_picture(path):
    """Compute the picture (256, t) of a recording's first seconds."""
    return data.spectrogram(read_audio(path)[: (SECONDS + MORE) * data.SAMPLE_RATE])


def draw(figure, rows, model):
    """Draw a column of pictures for each of ``rows``, as `read_rows` returns them, on mel axes."""
    frames = math.ceil(SECONDS * data.SAMPLE_RATE / data.HOP_LENGTH)
    grid = figure.subplots(len(PANELS), len(rows), sharex=True, sharey=True, squeeze=False)
    for axes, (label, source, target) in zip(grid.T, rows):
        output = convert.convert_picture(model, source)[..., 0]
        shown = [picture[:, :frames] for picture in (source, output, target)]
        for axis, picture in zip(axes, shown):
            image = pictures.draw_mel(axis, picture)
        difference = pictures.draw_mel(axes[-1], shown[1] - shown[2], is_difference=True)
        axes[0].set_title(f"{PANELS[0]}: {label}")
        for axis, title in zip(axes[1:], PANELS[1:]):
            axis.set_title(title)
        for axis in axes[:-1]:
            axis.set_xlabel("")
    for axis in grid[:, 0]:
        axis.set_yticks(pictures.to_mel(KHZ), [f"{khz:g}" for khz in KHZ])
        axis.set_ylabel("kHz, mel scale")
    add_colour_bar(figure, image, list(grid[:-1].flat), aspect=36)
    add_colour_bar(figure, difference, list(grid[-1]), "difference, dB", aspect=12)


@cli.command
def main(argv=None):
    """Parse flags, convert, draw."""
    args = build_parser().parse_args(argv)
    path = find_model(args.model)
    rows = read_rows(args.pairs)
    devices.setup_device("cpu")
    from conversion import model_files

    model = model_files.load_generator(path)
    with matplotlib.rc_context({**STYLE, **LARGE, "savefig.dpi": 120}):  # much detail: 200 kB
        figure = Figure(figsize=(WIDTH, 8.2), layout="constrained")
        draw(figure, rows, model)
        save(figure, "strangers.png")


if __name__ == "__main__":
    raise SystemExit(main())
