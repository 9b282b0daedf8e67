"""HTML of the player that app.py's page and the listening pages share: cards of sounds.

A page holds `read_file("player.css")`, `read_file("player.js")` and, in each section, the cards of
sounds that play in sync.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
KEYS = "123456789abcdefghijklmnopqrstuvwxyz"  # keys that play a section's sounds


class Sound(NamedTuple):
    """A sound of a card."""

    address: str
    seconds: float
    loudness: float = -np.inf  # LUFS; -inf for silence, or if unknown
    key: str = ""  # one of `KEYS`


def read_file(name):
    """Read a text file in this folder."""
    return (HERE / name).read_text(encoding="utf-8")


def write_head(title, remark=""):
    """HTML of a section's heading, with the playing time; texts are escaped."""
    small = f"<small>{escape(remark)}</small>" if remark else ""
    return f'<div class="head"><h2>{escape(title)}</h2>{small}<output></output></div>\n'


def write_card(label, picture, sound=None, before="", after=""):
    """HTML of a card: its label, its picture, and the button that plays it.

    Args:
        label: text, escaped here.
        picture: HTML.
        sound: `Sound`, or None.
        before, after: HTML before the label and after the picture.
    """
    if sound is None:
        head = f'<p class="label">{before}{escape(label)}</p>'
        return f'<article class="card">\n{head}\n<div class="picture">{picture}</div>\n</article>\n'
    about = f'data-sound="{escape(sound.address)}" data-seconds="{sound.seconds:.3f}"'
    if np.isfinite(sound.loudness):
        about += f' data-loudness="{sound.loudness:.2f}"'
    hint = ""
    if sound.key:
        about += f' data-key="{sound.key}"'
        hint = f"<kbd>{sound.key}</kbd>"
    return f"""<article class="card" {about}>
<button class="play" aria-pressed="false" type="button">{hint}{before}{escape(label)}</button>
<div class="picture">{picture}<i></i></div>
{after}</article>
"""
