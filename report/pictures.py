"""Draw spectrograms and training histories."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import data
from common.cli import one_line
from common.files import complete
from common.run_facts import read_history
from data import DB_RANGE, HOP_LENGTH, SAMPLE_RATE
from sound.recordings import mix_down
from sound.survey import has_treble

GREY = "#808080"
BLUE, ORANGE = "#3d85c6", "#d9772b"
STYLE = {  # grey text and axes on a transparent background: legible on light and dark pages
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.titlesize": 10,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, ORANGE]),
}
DIFFERENCE_RANGE = 30  # dB, largest difference shown in either direction
DIFFERENCE_MAP = LinearSegmentedColormap.from_list(
    "difference", ["#8fd8ff", "#1f78b4", "#08080c", "#d9772b", "#ffe08a"]
)
CHANCE = 2 * np.log(2)  # discriminator loss of random guessing: two cross-entropies of log 2
PLOT_LEFT, PLOT_WIDTH = 0.09, 0.8  # position of the plot in a card; the page draws its playhead
MEL_TICKS = (0, 0.5, 1, 2, 4, 8, 16)  # kHz
MEL_ROWS = 384  # rows of a picture on the page
HISTORY_TITLES = {
    "mae_db": "mean absolute error, dB",
    "gan_loss": "generator's adversarial loss",
    "disc_loss": "discriminator's loss",
}


def make_pictures(sounds):
    """Compute spectrograms: up to 22 kHz if one sound has audible content above 11 kHz.

    Args:
        sounds: dict label -> audio (n,) or (n, channels) at 44.1 kHz.

    Returns:
        dict label -> float32 (bins, t) on the dB scale, all of one height.
    """
    pictures = {}
    bins = data.BINS
    for label, audio in sounds.items():
        mono = mix_down(np.atleast_2d(audio.T))[0]
        pictures[label] = data.spectrogram(mono, data.FULL_BINS)
        if has_treble(pictures[label]):
            bins = data.FULL_BINS
    return {label: picture[:bins] for label, picture in pictures.items()}


@matplotlib.rc_context(STYLE)
def write_spectrograms(pictures, path, title=None):
    """Write spectrograms side by side on one colour scale, in seconds, kHz and dB below full scale.

    Args:
        pictures: dict name -> float (bins, t) on the dB scale of `data.amplitude_to_db`, 0 ... 1.
        path: file to write; its extension chooses the format.
        title: line above them, or None.
    """
    figure = Figure(
        figsize=(1.2 + 3.4 * len(pictures), 3.2 if title else 2.9), layout="constrained"
    )
    draw_row(figure, pictures)
    if title:
        figure.suptitle(one_line(title), fontsize=11, parse_math=False)
    _save(figure, path)


def draw_row(figure, pictures):
    """Draw spectrograms side by side on ``figure``: dict title -> picture; see `draw_picture`."""
    axes = figure.subplots(1, len(pictures), sharey=True, squeeze=False)[0]
    for axis, (title, picture) in zip(axes, pictures.items()):
        image = draw_picture(axis, picture, title)
    axes[0].set_ylabel("kHz")
    draw_colour_bar(figure, image, ax=list(axes), pad=0.01)  # all images have the same colours


def draw_picture(axis, picture, title=None, is_difference=False):
    """Draw a picture (bins, t), or a difference of two, over kHz.

    Args:
        axis: to draw on.
        picture: on the dB scale of `data.amplitude_to_db`, 0 ... 1; a difference -1 ... 1.
        title: title above it, or None.
        is_difference: use the colours of differences.

    Returns:
        The image, for the colour bar.
    """
    edge = data.band_edge(len(picture)) / 1000  # kHz
    image = _draw_image(axis, np.asarray(picture, np.float32), edge, is_difference)
    axis.set_title(title, parse_math=False)
    return image


def draw_mel(axis, picture, is_difference=False):
    """`draw_picture` on a mel axis: equal perceived pitch distances have equal height."""
    picture = np.asarray(picture, np.float32)
    edge = data.band_edge(len(picture)) / 1000  # kHz
    top = to_mel(edge)
    rows = np.linspace(0, top, MEL_ROWS)
    bins = from_mel(rows) / edge * len(picture)
    below = np.minimum(bins.astype(int), len(picture) - 2)
    part = np.minimum(bins - below, 1).astype(np.float32)[:, np.newaxis]
    stretched = (1 - part) * picture[below] + part * picture[below + 1]
    image = _draw_image(axis, stretched, top, is_difference)
    ticks = [khz for khz in MEL_TICKS if khz < edge]
    labels = [f"{khz:g}" for khz in ticks]
    axis.set_yticks(to_mel(ticks), labels)
    return image


def to_mel(khz):
    """Convert a frequency in kHz to mel (O'Shaughnessy 1987)."""
    return 2595 * np.log10(1 + np.asarray(khz) / 0.7)


def from_mel(mel):
    """Inverse of `to_mel`."""
    return 0.7 * (10 ** (np.asarray(mel) / 2595) - 1)


def _draw_image(axis, picture, top, is_difference):
    """Draw a picture (rows, t) of 0 ... 1, or a difference of two, over seconds."""
    values = picture * DB_RANGE
    if is_difference:
        low, high, colours = -DIFFERENCE_RANGE, DIFFERENCE_RANGE, DIFFERENCE_MAP
    else:
        values = values - DB_RANGE  # below full scale
        low, high, colours = -DB_RANGE, 0, "magma"
    seconds = values.shape[1] * HOP_LENGTH / SAMPLE_RATE
    image = axis.imshow(
        values,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, top),
        vmin=low,
        vmax=high,
        cmap=colours,
    )
    axis.set_xlabel("seconds")
    return image


def draw_colour_bar(figure, image, **where):
    """Draw a colour bar in dB."""
    bar = figure.colorbar(image, **where)
    bar.ax.set_title("dB", fontsize=8, pad=3)
    bar.outline.set_visible(False)


@matplotlib.rc_context(STYLE)
def write_history(csv_path, path, baselines):
    """Write the picture of a run's ``history.csv``; arguments of `draw_history`."""
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    figure.set_figwidth(4.2 * draw_history(figure, csv_path, baselines))
    _save(figure, path)


def draw_history(figure, csv_path, baselines):
    """Draw a run's ``history.csv``: error in dB with its baselines, and each loss.

    Missing columns are not drawn. Returns the number of panels.

    Args:
        figure: to draw on.
        csv_path: one row per epoch; columns epoch, mae_db, any that end in ``_loss``, also with
            the prefix ``val_``.
        baselines: validation errors of trivial systems, in dB:
            {"identity": ..., "median": ...}.
    """
    columns = _read_columns(csv_path)
    names = _list_panels(columns)
    levels = {"mae_db": baselines, "disc_loss": {"chance": CHANCE}}
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names):
        _draw_curve(axis, columns, name, "train", BLUE)
        _draw_curve(axis, columns, f"val_{name}", "validation", ORANGE)
        _draw_levels(axis, levels.get(name, {}))
        axis.set(title=HISTORY_TITLES.get(name, name), xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(color=GREY, alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.lines:
            axis.legend()
    return len(names)


def _draw_curve(axis, columns, name, label, colour):
    """Draw a column over the epochs, if it is there."""
    values = columns.get(name)
    if values:
        marker = "." if len(values) < 30 else None
        axis.plot(columns["epoch"], values, color=colour, label=label, marker=marker)


def _draw_levels(axis, levels):
    """Draw up to two reference levels for a curve: {label: level}."""
    for (label, level), style in zip(levels.items(), ("--", ":")):
        text = f"{label} {level:.2f}"
        axis.axhline(level, color=GREY, linestyle=style, linewidth=1, label=text)


def _list_panels(columns):
    """List the columns of history.csv to draw, each with its ``val_`` column; [None] if none."""
    trained = [column.removeprefix("val_") for column in columns]
    drawn = [name for name in trained if name == "mae_db" or name.endswith("_loss")]
    return list(dict.fromkeys(drawn)) or [None]


def _read_columns(csv_path):
    """Read a run's history.csv: {column: list of floats, NaN for an empty cell}."""
    rows = read_history(Path(csv_path))
    columns = {}
    for name in rows[0] if rows else ():
        columns[name] = [float(row.get(name) or "nan") for row in rows]
    return columns


@matplotlib.rc_context(STYLE)
def write_card_picture(picture, path, is_difference=False):
    """Write one spectrogram on a mel axis, its plot at `PLOT_LEFT` and `PLOT_WIDTH` of its width.

    Args:
        picture: float (bins, t) as of `data.spectrogram`, or a difference of two.
        path: .png file to write.
        is_difference: as of `draw_picture`.
    """
    figure = Figure(figsize=(4, 2.2))
    axis = figure.add_axes((PLOT_LEFT, 0.19, PLOT_WIDTH, 0.74))
    image = draw_mel(axis, picture, is_difference)
    axis.xaxis.set_major_locator(MaxNLocator(steps=(1, 2, 5, 10)))
    unit = "of difference" if is_difference else "relative to full scale"
    axis.set_xlabel(f"seconds; colours: dB {unit}")
    axis.text(-0.02, 1.04, "kHz", transform=axis.transAxes, ha="right", fontsize=8)
    bar = figure.add_axes((PLOT_LEFT + PLOT_WIDTH + 0.012, 0.19, 0.015, 0.74))
    draw_colour_bar(figure, image, cax=bar)
    _save(figure, path, dpi=180)


def _save(figure, path, dpi=150):
    with complete(path) as part:
        figure.savefig(part, dpi=dpi, transparent=True)
