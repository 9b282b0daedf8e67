"""Pictures of spectrograms and training histories, and the listening page."""

import csv
import string
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

import data
from audio import write_audio
from cli import complete
from data import DB_RANGE, HOP_LENGTH, SAMPLE_RATE

GREY = "#808080"
BLUE, ORANGE = "#3d85c6", "#d9772b"
STYLE = {  # text and axes mid-grey, on a transparent ground: reads on light and on dark pages alike
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
NYQUIST_KHZ = SAMPLE_RATE / 4 / 1000  # upper edge of the kept half of the bins
DIFFERENCE_RANGE = 30  # dB either way that the difference picture shows
DIFFERENCE_MAP = LinearSegmentedColormap.from_list(
    "difference", ["#8fd8ff", "#1f78b4", "#08080c", "#d9772b", "#ffe08a"]
)
CHANCE = 2 * np.log(2)  # discriminator loss of a coin toss: two cross-entropies of log 2
PLOT_LEFT, PLOT_WIDTH = 0.09, 0.8  # of a card's picture: the page draws its playhead there
AUDIO_FORMAT = (
    "flac"  # lossless, so that what one hears is not the codec; every browser since 2017 plays it
)
HISTORY_TITLES = {
    "mae_db": "mean absolute error, dB",
    "gan_loss": "generator's adversarial loss",
    "disc_loss": "discriminator's loss",
}


@matplotlib.rc_context(STYLE)
def spectrogram_figure(pictures, path, title=None):
    """Write spectrograms side by side on one colour scale, in seconds, kHz and dB below full scale.

    Args:
        pictures: dict name -> float (256, t) on the dB scale of `data.amplitude_to_db`, 0 ... 1.
        path: file to write; its extension chooses the format.
        title: line above them, or None.
    """
    figure = Figure(
        figsize=(1.2 + 3.4 * len(pictures), 3.2 if title else 2.9), layout="constrained"
    )
    draw_row(figure, pictures)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    _save(figure, path)


def draw_row(figure, pictures):
    """Draw spectrograms side by side on ``figure``: dict title -> picture; see `draw`."""
    axes = figure.subplots(1, len(pictures), sharey=True, squeeze=False)[0]
    images = [draw(axis, picture, title) for axis, (title, picture) in zip(axes, pictures.items())]
    axes[0].set_ylabel("kHz")
    colour_bar(figure, images[0], ax=list(axes), pad=0.01)


def draw(axis, picture, title=None, difference=False, top=NYQUIST_KHZ):
    """Draw a picture (bins, t) of 0 ... 1, or a difference of two, up to ``top`` kHz; returns the image for the colour bar."""
    values = np.asarray(picture, np.float32) * DB_RANGE
    image = axis.imshow(
        values if difference else values - DB_RANGE,
        origin="lower",
        aspect="auto",
        extent=(0, values.shape[1] * HOP_LENGTH / SAMPLE_RATE, 0, top),
        vmin=-DIFFERENCE_RANGE if difference else -DB_RANGE,
        vmax=DIFFERENCE_RANGE if difference else 0,
        cmap=DIFFERENCE_MAP if difference else "magma",
    )
    axis.set_xlabel("seconds")
    axis.set_title(title, parse_math=False)
    return image


def colour_bar(figure, image, **where):
    """A bar that says dB."""
    bar = figure.colorbar(image, **where)
    bar.ax.set_title("dB", fontsize=8, pad=3)
    bar.outline.set_visible(False)


@matplotlib.rc_context(STYLE)
def history_figure(csv_path, path, baselines):
    """Write the picture of a run's ``history.csv``; arguments of `draw_history`."""
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    figure.set_figwidth(4.2 * draw_history(figure, csv_path, baselines))
    _save(figure, path)


def draw_history(figure, csv_path, baselines):
    """Draw a run's ``history.csv``: error in dB beside its baselines, and each loss; columns not there are not drawn.

    Returns how many panels there are.

    Args:
        figure: to draw on.
        csv_path: one row an epoch; columns epoch, mae_db, gan_loss, disc_loss and these three with ``val_`` in front.
        baselines: errors on validation of trivial systems, in dB: {"identity": ..., "median": ...}.
    """
    with open(csv_path, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {
        name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else ())
    }
    panels = [name for name in HISTORY_TITLES if name in columns or f"val_{name}" in columns] or [
        None
    ]
    levels = {"mae_db": baselines, "disc_loss": {"chance": CHANCE}}
    for axis, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for column, label, colour in ((name, "train", BLUE), (f"val_{name}", "validation", ORANGE)):
            if values := columns.get(column):
                axis.plot(
                    columns["epoch"],
                    values,
                    color=colour,
                    label=label,
                    marker="." if len(values) < 30 else None,
                )
        for (label, level), style in zip(levels.get(name, {}).items(), ("--", ":")):
            axis.axhline(
                level, color=GREY, linestyle=style, linewidth=1, label=f"{label} {level:.2f}"
            )
        axis.set(title=HISTORY_TITLES.get(name), xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(color=GREY, alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.lines:
            axis.legend()
    return len(panels)


def write_section(folder, number, name, sounds, table, reference=None):
    """Write one piece's sounds and pictures for the listening page.

    Args:
        folder: of the page.
        number: of the piece: names its files, for ``name`` may hold anything.
        name: of the piece.
        sounds: dict label -> audio (n,) at 44.1 kHz; all get one gain, so that the loudest fits full scale.
        table: header and rows of text, see `table_html`.
        reference: label of the target among ``sounds``, if there is one: the second sound minus it is the difference picture.

    Returns:
        HTML of the section, for `write_page`.
    """
    gain = 1 / max(1, *(np.abs(audio).max(initial=0) for audio in sounds.values()))
    pictures, cards = {}, []
    for k, (label, audio) in enumerate(sounds.items(), 1):
        stem = f"piece{number:02d}_{k}"
        write_audio(folder / f"{stem}.{AUDIO_FORMAT}", gain * audio)
        pictures[label] = data.spectrogram(audio)
        _card_picture(pictures[label], folder / f"{stem}.png")
        player = f'<audio controls preload="metadata" src="{stem}.{AUDIO_FORMAT}"></audio>'
        cards.append(_card(f"{stem}.png", label, f"Spectrogram of {name}: {label}", k, player))
    if reference:
        output, picture = list(sounds)[1], f"piece{number:02d}_difference.png"
        _card_picture(pictures[output] - pictures[reference], folder / picture, difference=True)
        caption = f"2 minus {list(sounds).index(reference) + 1}: too loud is warm, too soft cold"
        cards.append(
            _card(
                picture,
                caption,
                f"Difference of spectrograms of {name}: {output} minus {reference}",
            )
        )
    return f"""<section id="piece{number}">
<h2>{escape(name)}</h2>
<div class="cards">
{"".join(cards)}</div>
<details><summary>Measures of this piece</summary>{table_html(*table)}</details>
</section>
"""


def _card(picture, caption, alt, key=None, player=""):
    """HTML of one picture with its player, if it has one."""
    key = f"<kbd>{key}</kbd> " if key else ""
    plot = "plot seekable" if player else "plot"
    mark = "<i></i>" if player else ""
    return f"""<figure>
<figcaption>{key}{escape(caption)}</figcaption>
<div class="{plot}"><img src="{picture}" alt="{escape(alt)}" width="720" height="396" loading="lazy">{mark}</div>
{player}
</figure>
"""


def table_html(header, rows):
    """A table whose first column names the rows, the model's marked; texts are escaped. It scrolls sideways if too wide."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = ""
    for name, *cells in rows:
        mark = ' class="model"' if name.startswith("model") else ""
        texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body += f'<tr{mark}><th scope="row">{escape(name)}</th>{texts}</tr>\n'
    return f"""<div class="wide" tabindex="0" role="region" aria-label="table of measures">
<table><thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>
"""


def write_page(folder, title, notes, table, names, sections):
    """Write the listening page's index.html, last of its files: it needs nothing from the network.

    Args:
        folder: where `write_section` put sounds and pictures.
        title: of the page.
        notes: paragraphs of text at its head.
        table: header and rows of the summary, see `table_html`.
        names, sections: of each piece.
    """
    links = "".join(
        f'<li><a href="#piece{k}">{escape(name)}</a></li>' for k, name in enumerate(names, 1)
    )
    page = string.Template(
        (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    ).substitute(
        title=escape(title),
        notes="".join(f"<p>{escape(note)}</p>" for note in notes),
        table=table_html(*table),
        links=links,
        sections="".join(sections),
        left=f"{PLOT_LEFT:.1%}",
        width=f"{PLOT_WIDTH:.1%}",
    )
    with complete(Path(folder) / "index.html") as part:
        part.write_text(page, encoding="utf-8")


@matplotlib.rc_context(STYLE)
def _card_picture(picture, path, difference=False):
    """One spectrogram, its plot at `PLOT_LEFT` and `PLOT_WIDTH` of the picture's width."""
    figure = Figure(figsize=(4, 2.2))
    image = draw(
        figure.add_axes((PLOT_LEFT, 0.19, PLOT_WIDTH, 0.74)), picture, difference=difference
    )
    figure.axes[0].set_ylabel("kHz", labelpad=1)
    colour_bar(
        figure, image, cax=figure.add_axes((PLOT_LEFT + PLOT_WIDTH + 0.012, 0.19, 0.015, 0.74))
    )
    _save(figure, path, dpi=180)


def _save(figure, path, dpi=150):
    with complete(path) as part:
        figure.savefig(part, dpi=dpi, transparent=True)
