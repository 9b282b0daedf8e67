"""HTML and CSS of app.py's page: the recording's summary, progress, results."""

import html
from pathlib import Path
from urllib.parse import quote

from common import cli
from report import player

HERE = Path(__file__).resolve().parent
PICTURES = {  # of instruments, by a word in their names
    "guitar": "guitar",
    "string": "strings",
    "violin": "strings",
    "cello": "strings",
    "synth": "keys",
    "organ": "keys",
    "keyboard": "piano",
    "piano": "piano",
}


def read_file(name):
    """Read a text file in this folder."""
    return (HERE / name).read_text(encoding="utf-8")


def find_picture(title):
    """Name of the picture for an instrument."""
    for word, picture in PICTURES.items():
        if word in title.lower():
            return picture
    return "note"


def write_script():
    """Write the page's JavaScript."""
    return player.read_file("player.js") + read_file("page.js")


def write_style(titles):
    """Write the page's CSS; ``titles``: titles of the instruments, in order."""
    rules = [player.read_file("player.css"), read_file("page.css")]
    for path in sorted((HERE / "pictures").glob("*.svg")):
        address = f"data:image/svg+xml,{quote(path.read_text(encoding='utf-8'))}"
        places = [f".sign-{path.stem}"]
        for place, title in enumerate(titles, 1):
            if find_picture(title) == path.stem:
                places.append(f"#instruments label:nth-of-type({place})::before")
        rules.append(f'{", ".join(places)} {{ --sign: url("{address}"); }}')
    return "\n".join(rules)


def describe_length(seconds):
    """Format the length of a recording: "8.2 s", from one minute on "1:01"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def describe_wait(seconds):
    """Format a waiting time in words."""
    if seconds < 1.5:
        return "a moment"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} minutes"


def write_credits(examples):
    """HTML of whose the examples are, {name: `actions.Example`}; one author's stand together."""
    names = {}  # {credit: names}
    for name, example in examples.items():
        names.setdefault(example.credit, []).append(name)
    parts = [f"{', '.join(group)}: {credit}" for credit, group in names.items()]
    return f"<p>{_sentence('; '.join(parts))}</p>"


def write_recording(name, summary, sound, remarks):
    """HTML about a recording: its waveform, length and remarks.

    Args:
        name: name of the recording.
        summary: `work.Summary`.
        sound: address of a version that browsers play.
        remarks: sentences.
    """
    title = html.escape(name)
    length = describe_length(summary.seconds)
    paragraphs = [f"<p class='remark'>{_sentence(remark)}</p>" for remark in remarks]
    wave = f"<div class='wave'>{draw_wave(summary.peaks)}<b></b></div>"
    sound = player.Sound(sound, summary.seconds)
    card = player.write_card("original", wave, sound, write_sign("original"))
    return f"<section>{card}<p><b>{title}</b> is {length} long.</p>{''.join(paragraphs)}</section>"


def draw_wave(peaks):
    """Draw a recording's peaks, each 0 ... 1, as an SVG picture."""
    bars = []
    for place, peak in enumerate(peaks):
        height = max(1.0, 96 * min(1.0, peak))
        bars.append(f"M{place + 0.5} {50 - height / 2:.1f}v{height:.1f}")
    return (
        f"<svg viewBox='0 0 {len(peaks)} 100' preserveAspectRatio='none' aria-hidden='true'>"
        f"<path d='{''.join(bars)}'/></svg>"
    )


def write_mistake(text):
    """HTML of an error message."""
    return f"<div class='mistake' role='alert'>{html.escape(cli.one_line(text))}</div>"


def write_progress(text, part=None):
    """HTML of a running task; ``part``: completed fraction, 0 ... 1."""
    bar = "" if part is None else f"<progress value='{part:.3f}'></progress>"
    return f"<div class='progress'>{html.escape(text)}{bar}</div>"


def write_batches(batches):
    """HTML of all `tabs.Batch`, the newest first."""
    parts = []
    for batch in reversed(batches):
        cards = [_write_card(result, k) for k, result in enumerate(batch.results)]
        head = player.write_head(batch.name, batch.how)
        parts.append(f"<section>{head}<div class='cards'>{''.join(cards)}</div></section>")
    return "".join(parts)


def _write_card(result, place):
    """HTML of a `tabs.Result`; the index is its place in the batch."""
    title, name = html.escape(result.title), html.escape(result.name)
    key = player.KEYS[place : place + 1]
    sound = player.Sound(result.sound, result.seconds, result.loudness, key)
    picture = f"<img src='{result.picture}' alt='Spectrogram: {title}'>"
    link = f"<a class='download' href='{result.sound}' download='{name}'>Download</a>"
    return player.write_card(result.title, picture, sound, write_sign(result.title), link)


def write_sign(title):
    """HTML of the small picture of an instrument."""
    return f"<span class='sign sign-{find_picture(title)}'></span>"


def _sentence(text):
    text = html.escape(cli.one_line(text))
    return f"{text[:1].upper()}{text[1:]}."
