"""Pictures of spectrograms and training histories, and the listening page.

Text and axes are mid-grey on a transparent ground, which reads on light and on dark pages alike.
"""

import csv
import string
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

import data
from cli import complete
from data import DB_RANGE, HOP_LENGTH, SAMPLE_RATE

GREY = "#808080"
BLUE, ORANGE = "#3d85c6", "#d9772b"
NYQUIST_KHZ = SAMPLE_RATE / 4 / 1000  # upper edge of the kept half of the bins
DIFFERENCE_RANGE = 30  # dB either way that the difference picture shows
DIFFERENCE_MAP = LinearSegmentedColormap.from_list("difference", ["#8fd8ff", "#1f78b4", "#08080c", "#d9772b", "#ffe08a"])
CHANCE = 2 * np.log(2)  # discriminator loss of a coin toss: two cross-entropies of log 2
PLOT_LEFT, PLOT_WIDTH = 0.09, 0.8  # of a card's picture: the page draws its playhead there
AUDIO_FORMAT = "flac"  # lossless, so that what one hears is not the codec; every browser since 2017 plays it
HISTORY_TITLES = {
    "mae_db": "mean absolute error, dB", "gan_loss": "generator's adversarial loss", "disc_loss": "discriminator's loss",
}  # fmt: skip


def spectrogram_figure(pictures, path, title=None):
    """Write spectrograms side by side on one colour scale, in seconds, kHz and dB below full scale.

    Args:
        pictures: dict name -> float (256, t) on the dB scale of `data.amplitude_to_db`, 0 ... 1.
        path: file to write; its extension chooses the format.
        title: line above them, or None.
    """
    figure = Figure(figsize=(1.2 + 3.4 * len(pictures), 3.2 if title else 2.9), layout="constrained")
    axes = figure.subplots(1, len(pictures), sharey=True, squeeze=False)[0]
    for axis, (name, picture) in zip(axes, pictures.items()):
        image = _draw(axis, picture)
        axis.set_title(name, color=GREY, fontsize=10, parse_math=False)
    axes[0].set_ylabel("kHz")
    _colour_bar(figure, image, ax=list(axes), pad=0.01)
    if title:
        figure.suptitle(title, color=GREY, fontsize=11, parse_math=False)
    _save(figure, path)


def history_figure(csv_path, path, identity_db=None, median_db=None):
    """Draw a run's ``history.csv``: error in dB beside its baselines, and each loss; columns not there are not drawn.

    Args:
        csv_path: one row an epoch; columns epoch, mae_db, gan_loss, disc_loss and these three with ``val_`` in front.
        path: picture to write.
        identity_db, median_db: errors on validation of the unchanged input and of the per-bin median, in dB.
    """
    with open(csv_path, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else ())}
    levels = {"mae_db": {"identity": identity_db, "median": median_db}, "disc_loss": {"chance": CHANCE}}
    panels = [name for name in HISTORY_TITLES if name in columns or f"val_{name}" in columns]
    figure = Figure(figsize=(4.2 * max(1, len(panels)), 3.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels):
        for column, label, colour in ((name, "train", BLUE), (f"val_{name}", "validation", ORANGE)):
            if column in columns:
                axis.plot(columns["epoch"], columns[column], color=colour, label=label, marker="." if len(rows) < 30 else None)
        for (label, level), style in zip(levels.get(name, {}).items(), ("--", ":")):
            if level is not None:
                axis.axhline(level, color=GREY, linestyle=style, linewidth=1, label=f"{label} {level:.2f}")
        axis.set_title(HISTORY_TITLES[name], color=GREY, fontsize=10)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False, labelcolor=GREY, fontsize=8)
        axis.grid(color=GREY, alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
        _grey(axis)
    _save(figure, path)


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
    folder = Path(folder)
    gain = 1 / max(1, *(np.abs(audio).max(initial=0) for audio in sounds.values()))
    pictures, cards = {}, []
    for k, (label, audio) in enumerate(sounds.items(), 1):
        stem = f"piece{number:02d}_{k}"
        data.write_audio(folder / f"{stem}.{AUDIO_FORMAT}", gain * audio)
        pictures[label] = data.spectrogram(audio)
        _card_picture(pictures[label], folder / f"{stem}.png")
        player = f'<audio controls preload="metadata" src="{stem}.{AUDIO_FORMAT}"></audio>'
        cards.append(_card(f"{stem}.png", label, f"Spectrogram of {name}: {label}", k, player))
    if reference:
        output, picture = list(sounds)[1], f"piece{number:02d}_difference.png"
        _card_picture(pictures[output] - pictures[reference], folder / picture, difference=True)
        caption = f"2 minus {list(sounds).index(reference) + 1}: too loud is warm, too soft cold"
        cards.append(_card(picture, caption, f"Difference of spectrograms of {name}: {output} minus {reference}"))
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
    links = "".join(f'<li><a href="#piece{k}">{escape(name)}</a></li>' for k, name in enumerate(names, 1))
    page = string.Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(title), notes="".join(f"<p>{escape(note)}</p>" for note in notes), table=table_html(*table),
        links=links, sections="".join(sections), left=f"{PLOT_LEFT:.1%}", width=f"{PLOT_WIDTH:.1%}",
    )  # fmt: skip
    with complete(Path(folder) / "index.html") as part:
        part.write_text(page, encoding="utf-8")


def _card_picture(picture, path, difference=False):
    """One spectrogram, its plot at `PLOT_LEFT` and `PLOT_WIDTH` of the picture's width."""
    figure = Figure(figsize=(4, 2.2))
    image = _draw(figure.add_axes((PLOT_LEFT, 0.19, PLOT_WIDTH, 0.74)), picture, difference)
    figure.axes[0].set_ylabel("kHz", labelpad=1)
    _colour_bar(figure, image, cax=figure.add_axes((PLOT_LEFT + PLOT_WIDTH + 0.012, 0.19, 0.015, 0.74)))
    _save(figure, path, dpi=180)


def _draw(axis, picture, difference=False):
    """Draw a picture (256, t) of 0 ... 1, or a difference of two, on ``axis``; returns the image for the colour bar."""
    frames = np.shape(picture)[1]
    values = np.asarray(picture, np.float32) * DB_RANGE
    image = axis.imshow(
        values if difference else values - DB_RANGE, origin="lower", aspect="auto",
        extent=(0, frames * HOP_LENGTH / SAMPLE_RATE, 0, NYQUIST_KHZ),
        vmin=-DIFFERENCE_RANGE if difference else -DB_RANGE, vmax=DIFFERENCE_RANGE if difference else 0,
        cmap=DIFFERENCE_MAP if difference else "magma",
    )  # fmt: skip
    axis.set_xlabel("seconds")
    _grey(axis)
    return image


def _colour_bar(figure, image, **where):
    bar = figure.colorbar(image, **where)
    bar.ax.set_title("dB", color=GREY, fontsize=8, pad=3)
    bar.outline.set_visible(False)
    _grey(bar.ax)


def _grey(axis):
    """Set everything written on ``axis`` in the grey that reads on light and dark."""
    axis.tick_params(colors=GREY, labelsize=8)
    axis.xaxis.label.set(color=GREY, fontsize=8)
    axis.yaxis.label.set(color=GREY, fontsize=8)
    for spine in axis.spines.values():
        spine.set_color(GREY)


def _save(figure, path, dpi=150):
    with complete(path) as part:
        figure.savefig(part, dpi=dpi, transparent=True)
