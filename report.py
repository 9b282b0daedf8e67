"""Pictures of spectrograms and training histories, and the self-contained listening page.

    python report.py runs

lists the training runs in a folder, with a page for each: runs/index.html.
"""

import csv
import string
from html import escape
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import cli
import data
from audio import AUDIO_EXTENSIONS, mix_down, write_audio
from cli import complete, one_line
from data import DB_RANGE, HOP_LENGTH, SAMPLE_RATE
from loudness import Meter

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
AUDIO_FORMAT = "flac"  # lossless: one hears no codec; every browser since 2017 plays it
KEYS = "123456789abcdefghijklmnopqrstuvwxyz"  # that play a piece's sounds on the page
MEL_TICKS = (0, 0.25, 0.5, 1, 2, 4, 8)  # kHz
MEL_ROWS = 384  # of a picture on the page
SOURCES = ("acoustic", "electronic", "synthetic")  # in NSynth's names of instruments
PLURALS = {"string": "strings"}
LISTENING = """<p><label><input type="checkbox" id="match" checked> all sounds of a piece equally \
loud</label> · <span class="keys"><kbd>1</kbd> <kbd>2</kbd> … switch at the same moment, \
<kbd>space</kbd> pauses · </span>a click on a picture plays from there</p>"""
HISTORY_TITLES = {
    "mae_db": "mean absolute error, dB",
    "gan_loss": "generator's adversarial loss",
    "disc_loss": "discriminator's loss",
}


@matplotlib.rc_context(STYLE)
def write_spectrograms(pictures, path, title=None):
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
        figure.suptitle(one_line(title), fontsize=11, parse_math=False)
    _save(figure, path)


def draw_row(figure, pictures):
    """Draw spectrograms side by side on ``figure``: dict title -> picture; see `draw_picture`."""
    axes = figure.subplots(1, len(pictures), sharey=True, squeeze=False)[0]
    for axis, (title, picture) in zip(axes, pictures.items()):
        image = draw_picture(axis, picture, title)
    axes[0].set_ylabel("kHz")
    draw_colour_bar(figure, image, ax=list(axes), pad=0.01)  # of any: all have the same colours


def draw_picture(axis, picture, title=None, is_difference=False, top=NYQUIST_KHZ):
    """Draw a picture (bins, t), or a difference of two, up to ``top`` kHz.

    Args:
        axis: to draw on.
        picture: on the dB scale of `data.amplitude_to_db`, 0 ... 1; a difference -1 ... 1.
        title: above it, or None.
        is_difference: colours for what is too loud and too soft.
        top: kHz at its upper edge.

    Returns:
        the image, for the colour bar.
    """
    image = _draw_image(axis, np.asarray(picture, np.float32), top, is_difference)
    axis.set_title(title, parse_math=False)
    return image


def draw_mel(axis, picture, is_difference=False):
    """`draw_picture` of the kept bins on a mel axis, which spreads what one hears as far apart."""
    top = to_mel(NYQUIST_KHZ)
    rows = np.linspace(0, top, MEL_ROWS)
    picture = np.asarray(picture, np.float32)
    bins = from_mel(rows) / NYQUIST_KHZ * len(picture)
    below = np.minimum(bins.astype(int), len(picture) - 2)
    part = np.minimum(bins - below, 1).astype(np.float32)[:, np.newaxis]
    stretched = (1 - part) * picture[below] + part * picture[below + 1]
    image = _draw_image(axis, stretched, top, is_difference)
    labels = [f"{khz:g}" for khz in MEL_TICKS]
    axis.set_yticks(to_mel(MEL_TICKS), labels)
    return image


def to_mel(khz):
    """Frequency in kHz -> mel (O'Shaughnessy 1987)."""
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
    """A bar that says dB."""
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
    """Draw a run's ``history.csv``: error in dB beside its baselines, and each loss.

    Columns that are not there are not drawn. Returns how many panels there are.

    Args:
        figure: to draw on.
        csv_path: one row an epoch; columns epoch, mae_db, any that end on ``_loss``, and these with
            ``val_`` in front.
        baselines: errors on validation of trivial systems, in dB:
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
    """Draw what to compare a curve with, two at most: {label: level}."""
    for (label, level), style in zip(levels.items(), ("--", ":")):
        text = f"{label} {level:.2f}"
        axis.axhline(level, color=GREY, linestyle=style, linewidth=1, label=text)


def _list_panels(columns):
    """Columns of history.csv that are drawn, each with its ``val_`` one; [None] without any."""
    trained = [column.removeprefix("val_") for column in columns]
    drawn = [name for name in trained if name == "mae_db" or name.endswith("_loss")]
    return list(dict.fromkeys(drawn)) or [None]


def _read_columns(csv_path):
    """A CSV file of numbers -> {column: list of floats, NaN for an empty cell}."""
    with open(csv_path, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {}
    for name in rows[0] if rows else ():
        columns[name] = [float(row[name] or "nan") for row in rows]
    return columns


class Entry(NamedTuple):
    """One piece of the listening page.

    Sounds are float (n,) or (n, channels) at 44.1 kHz; one gain for all of them keeps the loudest
    within full scale.
    """

    title: str  # as people write it
    sounds: dict  # {label: audio}, side by side in one row: input, conversions, target
    more: dict = {}  # noqa: RUF012  {label: audio} of further sounds, folded
    differences: tuple = ()  # pairs of labels (output, target): pictures of one minus the other
    sentence: str = ""  # what to know of it before one listens
    table: tuple | None = None  # (header, rows) of text, folded


def write_page(folder, title, entries, sentence="", notes=(), table=None, terms=()):
    """Write a listening page that needs nothing from the network: index.html, sounds, pictures.

    Original and conversions of two recordings side by side, without any target:

        entries = []
        for name, audio, conversions in recordings:  # conversions: {"guitar": audio, ...}
            entries.append(report.Entry(name, {"original": audio, **conversions}))
        report.write_page(folder, "My songs", entries)

    Args:
        folder: of the page; made if it is not there.
        title: of the page.
        entries: any iterable of `Entry`; of a generator, only one's sounds are in memory at a time.
        sentence, notes, table, terms: see `write_index`.
    """
    titles = []
    sections = []
    for number, entry in enumerate(entries, 1):
        sections.append(write_section(folder, number, entry))
        titles.append(entry.title)
    write_index(folder, title, titles, sections, sentence, notes, table, terms)


def write_section(folder, number, entry):
    """Write one piece's sounds and pictures.

    Args:
        folder: of the page.
        number: names the files, for a title may hold anything; from 1.
        entry: `Entry`.

    Returns:
        the HTML of its section, for `write_index`.
    """
    folder = Path(folder)
    everything = {**entry.sounds, **entry.more}
    peaks = [np.abs(audio).max(initial=0) for audio in everything.values()]
    gain = 1 / max(1, *peaks)
    pictures = {}
    cards = {}
    for k, (label, audio) in enumerate(everything.items()):
        stem = f"piece{number:02d}_{k + 1}"
        write_audio(folder / f"{stem}.{AUDIO_FORMAT}", gain * audio)
        pictures[label] = data.spectrogram(_mix_to_mono(audio))
        write_card_picture(pictures[label], folder / f"{stem}.png")
        key = KEYS[k : k + 1]  # the last of very many have none
        alt = f"Spectrogram of {entry.title}: {label}"
        cards[label] = card_html(stem, label, alt, key, measure_loudness(gain * audio))
    shown = [cards[label] for label in entry.sounds]
    folded = _write_differences(folder, number, entry, pictures)
    folded += [cards[label] for label in entry.more]
    return _section_html(number, entry, shown, folded)


def _write_differences(folder, number, entry, pictures):
    """Write the pictures of outputs minus targets; returns the HTML of their cards."""
    cards = []
    for k, (output, target) in enumerate(entry.differences, 1):
        stem = f"piece{number:02d}_difference"
        if k > 1:
            stem += f"_{k}"
        difference = pictures[output] - pictures[target]
        write_card_picture(difference, folder / f"{stem}.png", is_difference=True)
        cards.append(_difference_html(stem, entry.title, output))
    return cards


def _mix_to_mono(audio):
    if audio.ndim == 1:
        return audio
    return mix_down(audio.T)[0]


def measure_loudness(audio):
    """Loudness in LUFS of audio (n,) or (n, channels), -inf for silence."""
    meter = Meter()
    meter.add(np.atleast_2d(audio.T))
    return meter.integrated()


def _section_html(number, entry, shown, folded):
    """HTML of one piece: its sentence, its row of cards, and what is folded."""
    sentence = ""
    if entry.sentence:
        sentence = f'<p class="said">{escape(entry.sentence)}</p>'
    more = ""
    if folded:
        more = fold_html(_name_fold(entry), f'<div class="cards">\n{"".join(folded)}</div>')
    measures = ""
    if entry.table:
        measures = fold_html("Measures of this piece", table_html(*entry.table))
    return f"""<section id="piece{number}">
<h2>{escape(entry.title)}</h2>
{sentence}
<div class="cards">
{"".join(shown)}</div>
{more}{measures}</section>
"""


def _name_fold(entry):
    """What is folded below a piece's row: "Output minus target, 4 more sounds"."""
    parts = []
    if entry.differences:
        parts.append("output minus target")
    if entry.more:
        parts.append("1 more sound" if len(entry.more) == 1 else f"{len(entry.more)} more sounds")
    text = ", ".join(parts)
    return text[0].upper() + text[1:]


def fold_html(summary, html):
    """HTML that is shown once its summary is clicked on."""
    return f"<details><summary>{escape(summary)}</summary>\n{html}\n</details>\n"


def sound_path(stem):
    """Path of the sound beside the picture <stem>.png."""
    return stem.with_name(f"{stem.name}.{AUDIO_FORMAT}")


def card_html(stem, label, alt, key="", loudness=None):
    """HTML of one sound: its name, its picture, its player.

    Args:
        stem: of its files, relative to the page: <stem>.png, and the sound if there is one.
        label: what it is.
        alt: what the picture shows.
        key: that plays it, or "".
        loudness: of the sound in LUFS, -inf for silence; None if there is no sound.
    """
    hint = f"<kbd>{key}</kbd> " if key else ""
    plot = "plot"
    player = ""
    if loudness is not None:
        plot = "plot seekable"
        known = f' data-loudness="{loudness:.2f}"' if np.isfinite(loudness) else ""
        player = f'<audio controls preload="metadata"{known} src="{stem}.{AUDIO_FORMAT}"></audio>\n'
    return f"""<figure>
<figcaption>{hint}{escape(label)}</figcaption>
<div class="{plot}">{_picture_html(stem, alt)}<i></i></div>
{player}</figure>
"""


def _difference_html(stem, title, output):
    """HTML of the picture of an output, which is labelled so, minus its target."""
    alt = f"Difference of the spectrograms of {title}: {output} minus target"
    return f"""<figure>
<figcaption>{escape(output)} minus target: too loud is warm, too soft is cold</figcaption>
<div class="plot">{_picture_html(stem, alt)}</div>
</figure>
"""


def _picture_html(stem, alt):
    size = 'width="720" height="396"'
    return f'<img src="{stem}.png" alt="{escape(alt)}" {size} loading="lazy">'


def table_html(header, rows):
    """A table whose first column names the rows, the model's marked; texts are escaped.

    It scrolls sideways if it is too wide.
    """
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


def write_index(folder, title, titles, sections, sentence="", notes=(), table=None, terms=()):
    """Write the listening page's index.html, last of its files.

    Args:
        folder: where `write_section` put sounds and pictures.
        title: of the page.
        titles, sections: of each piece.
        sentence: the one thing to know, above the sounds.
        notes: paragraphs of text, below them.
        table: (header, rows) of the summary, folded, or None.
        terms: list of (term, meaning) that explain the table.
    """
    links = ""
    if len(titles) > 1:
        items = ""
        for number, name in enumerate(titles, 1):
            items += f'<li><a href="#piece{number}">{escape(name)}</a></li>'
        links = f'<nav aria-label="pieces"><ol>{items}</ol></nav>'
    measures = ""
    if table:
        explained = ""
        for term, meaning in terms:
            explained += f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>"
        measures = fold_html("All measures", f"{table_html(*table)}<dl>\n{explained}</dl>")
    has_sound = any("<audio" in section for section in sections)
    template = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    page = string.Template(template).substitute(
        title=escape(title),
        sentence=f'<p class="said">{escape(sentence)}</p>' if sentence else "",
        links=links,
        sections="".join(sections),
        measures=measures,
        notes="".join(f"<p>{escape(note)}</p>" for note in notes),
        listening=LISTENING if has_sound else "",
        left=f"{PLOT_LEFT:.1%}",
        width=f"{PLOT_WIDTH:.1%}",
    )
    with complete(Path(folder) / "index.html") as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")


def plain_title(name):
    """A piece's name as people write it: "pieces/fur_elise.wav" -> "Fur elise"."""
    path = Path(name)
    stem = path.stem if path.suffix.lower() in AUDIO_EXTENSIONS else path.name
    words = stem.replace("_", " ").strip() or str(name)
    return words[0].upper() + words[1:]


def plain_instrument(name):
    """An instrument's name as people say it: "synth_lead_synthetic_012" -> "synth lead 12".

    NSynth's names are <family>_<source>_<preset>; acoustic ones and preset 0 go without saying.
    """
    words = name.split("_")
    preset = 0
    if words[-1].isdigit():
        preset = int(words.pop())
    source = "acoustic"
    if len(words) > 1 and words[-1] in SOURCES:
        source = words.pop()
    family = " ".join(words)
    family = PLURALS.get(family, family)
    if source != "acoustic" and "synth" not in family:
        family = f"{source} {family}"
    if preset:
        family += f" {preset}"
    return family


@matplotlib.rc_context(STYLE)
def write_card_picture(picture, path, is_difference=False):
    """Write one spectrogram on a mel axis, its plot at `PLOT_LEFT` and `PLOT_WIDTH` of its width.

    Args:
        picture: float (256, t) as of `data.spectrogram`, or a difference of two.
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


@cli.command
def main(argv=None):
    """Parse flags, list the runs."""
    parser = cli.Parser(__doc__)
    parser.add_argument("runs", nargs="?", default="runs", help="folder of run folders")
    folder = Path(parser.parse_args(argv).runs)

    import run_page  # which imports this module

    rows = run_page.write_overview(folder)
    run_page.print_runs(rows)
    print(f"-> {folder / 'index.html'}")


if __name__ == "__main__":
    raise SystemExit(main())
