"""Write the listening page: a self-contained page with sounds, pictures and tables."""

import string
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data
from common.cli import UserError
from common.files import complete
from report import player
from report.pictures import PLOT_LEFT, PLOT_WIDTH, make_pictures, write_card_picture
from sound.loudness import Meter
from sound.recordings import AUDIO_EXTENSIONS, write_audio

AUDIO_FORMAT = "flac"  # lossless, so no codec is audible; browsers play it since 2017
SOURCES = ("acoustic", "electronic", "synthetic")  # in NSynth's names of instruments
PLURALS = {"string": "strings"}
MARKS = (  # in report.html: one is in each page that was ever written with it
    b'<meta name="generator" content="timbre transfer">',
    b":root { --ink: #1d2129;",
)
LISTENING = """<p><label><input type="checkbox" id="match" checked> all sounds of a piece equally
loud</label> · <span class="keys"><kbd>1</kbd> <kbd>2</kbd> … or </span>a click switches at the same
moment<span class="keys">, <kbd>space</kbd> pauses</span>; a click in a picture plays from
there</p>"""


class Entry(NamedTuple):
    """One piece of the listening page.

    Sounds are float (n,) or (n, channels) at 44.1 kHz. One gain for all of them keeps the loudest
    within full scale.
    """

    title: str  # for readers, not a file name
    sounds: dict  # {label: audio}, side by side in one row: input, conversions, target
    more: dict = {}  # noqa: RUF012  {label: audio} of further sounds, folded
    differences: tuple = ()  # pairs of labels (output, target) for pictures of output minus target
    sentence: str = ""  # shown above the sounds
    table: tuple | None = None  # (header, rows) of text, folded


class Page(NamedTuple):
    """The text of a page, without its pieces."""

    title: str
    sentence: str = ""  # main result, above the sounds
    paragraphs: tuple = ()  # text below the sounds
    table: tuple | None = None  # (header, rows) of the summary, folded
    terms: tuple = ()  # pairs (term, meaning) that explain the table


def check_own(folder, flag):
    """Raise UserError if ``folder`` has an index.html that is no page of `write_index`."""
    path = Path(folder) / "index.html"
    if not path.is_file():
        return
    html = path.read_bytes()
    if not any(mark in html for mark in MARKS):
        raise UserError(
            f"{path}: is there and is not a page of this program, so it is kept; "
            f"give another {flag}"
        )


def write_page(folder, page, entries):
    """Write a listening page that works offline: index.html, sounds, pictures.

    Example: originals and conversions side by side, without a target:

        entries = []
        for name, audio, conversions in recordings:  # conversions: {"guitar": audio, ...}
            entries.append(listening.Entry(name, {"original": audio, **conversions}))
        listening.write_page(folder, listening.Page("My songs"), entries)

    Args:
        folder: output folder; created if it does not exist.
        page: `Page`.
        entries: iterable of `Entry`; with a generator only one entry's sounds are in memory.
    """
    sections = []
    for number, entry in enumerate(entries, 1):
        sections.append((entry.title, write_section(folder, number, entry)))
    write_index(folder, page, sections)


def write_section(folder, number, entry):
    """Write one piece's sounds and pictures.

    Args:
        folder: output folder.
        number: from 1; used in file names, because a title may contain any character.
        entry: `Entry`.

    Returns:
        HTML of the section, for `write_index`.
    """
    folder = Path(folder)
    everything = {**entry.sounds, **entry.more}
    peaks = [np.abs(audio).max(initial=0) for audio in everything.values()]
    gain = 1 / max(1, *peaks)
    pictures = make_pictures(everything)
    cards = {}
    for k, (label, audio) in enumerate(everything.items()):
        stem = f"piece{number:02d}_{k + 1}"
        write_audio(folder / f"{stem}.{AUDIO_FORMAT}", gain * audio)
        write_card_picture(pictures[label], folder / f"{stem}.png")
        alt = f"Spectrogram of {entry.title}: {label}"
        cards[label] = card_html(stem, label, alt, k, measure(gain * audio))
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


def measure(audio):
    """(length in s, loudness in LUFS) of audio (n,) or (n, channels) at 44.1 kHz."""
    meter = Meter()
    meter.add(np.atleast_2d(audio.T))
    return len(audio) / data.SAMPLE_RATE, meter.integrated()


def _section_html(number, entry, shown, folded):
    """HTML of one piece: its sentence, its row of cards, its folded parts."""
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
{player.write_head(entry.title)}{sentence}
<div class="cards">
{"".join(shown)}</div>
{more}{measures}</section>
"""


def _name_fold(entry):
    """Summary of the folded part below a piece's row: "Output minus target, 4 more sounds"."""
    parts = []
    if entry.differences:
        parts.append("output minus target")
    if entry.more:
        parts.append("1 more sound" if len(entry.more) == 1 else f"{len(entry.more)} more sounds")
    text = ", ".join(parts)
    return text[0].upper() + text[1:]


def fold_html(summary, html):
    """HTML that opens with a click on its summary."""
    return f"<details><summary>{escape(summary)}</summary>\n{html}\n</details>\n"


def sound_path(stem):
    """Path of the sound that belongs to the picture <stem>.png."""
    return stem.with_name(f"{stem.name}.{AUDIO_FORMAT}")


def card_html(stem, label, alt, place=0, measured=None):
    """HTML of one card: its name, its picture, its player.

    Args:
        stem: stem of its files, relative to the page: <stem>.png and, if any, the sound.
        label: heading of the card.
        alt: description of the picture.
        place: index among the section's sounds, for the key; beyond the last key there is none.
        measured: result of `measure`; None without a sound.
    """
    sound = None
    if measured:
        key = player.KEYS[place : place + 1]
        sound = player.Sound(f"{stem}.{AUDIO_FORMAT}", *measured, key)
    return player.write_card(label, _picture_html(stem, alt), sound)


def _difference_html(stem, title, output):
    """HTML of the picture of an output, given by its label, minus its target."""
    alt = f"Difference of the spectrograms of {title}: {output} minus target"
    label = f"{output} minus target: too loud is warm, too soft is cold"
    return player.write_card(label, _picture_html(stem, alt))


def _picture_html(stem, alt):
    size = 'width="720" height="396"'
    return f'<img src="{stem}.png" alt="{escape(alt)}" {size} loading="lazy">'


def table_html(header, rows):
    """HTML of a table with row names in the first column; rows of models are marked.

    Texts are escaped. A wide table scrolls sideways.
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


def write_index(folder, page, sections):
    """Write the listening page's index.html, after all other files.

    Args:
        folder: output folder with the files of `write_section`.
        page: `Page`.
        sections: list of (title, HTML), one per piece.
    """
    everything = "".join(html for _, html in sections)
    template = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    html = string.Template(template).substitute(
        title=escape(page.title),
        sentence=f'<p class="said">{escape(page.sentence)}</p>' if page.sentence else "",
        links=_links_html([title for title, _ in sections]),
        sections=everything,
        measures=_measures_html(page),
        paragraphs="".join(f"<p>{escape(text)}</p>" for text in page.paragraphs),
        listening=LISTENING if "data-sound" in everything else "",
        style=player.read_file("player.css"),
        script=player.read_file("player.js"),
        left=f"{PLOT_LEFT:.1%}",
        width=f"{PLOT_WIDTH:.1%}",
    )
    with complete(Path(folder) / "index.html") as part:
        part.write_text(html, encoding="utf-8", errors="backslashreplace")


def _links_html(titles):
    """HTML of links to the pieces of a page; "" for a single piece."""
    if len(titles) < 2:
        return ""
    items = ""
    for number, title in enumerate(titles, 1):
        items += f'<li><a href="#piece{number}">{escape(title)}</a></li>'
    return f'<nav aria-label="pieces"><ol>{items}</ol></nav>'


def _measures_html(page):
    """HTML of a `Page`'s folded table and its terms; "" without a table."""
    if not page.table:
        return ""
    explained = ""
    for term, meaning in page.terms:
        explained += f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>"
    return fold_html("All measures", f"{table_html(*page.table)}<dl>\n{explained}</dl>")


def plain_title(name):
    """Make a readable title of a piece: "pieces/fur_elise.wav" -> "Fur elise"."""
    path = Path(name)
    stem = path.stem if path.suffix.lower() in AUDIO_EXTENSIONS else path.name
    words = stem.replace("_", " ").strip() or str(name)
    return words[0].upper() + words[1:]


def plain_instrument(name):
    """Make a readable name of an instrument: "synth_lead_synthetic_012" -> "synth lead 12".

    NSynth's names are <family>_<source>_<preset>. The source acoustic and preset 0 are left out.
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
