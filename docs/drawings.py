"""Draw the diagrams of README and docs as SVG: forward.svg, notes.svg, networks.svg.

    python docs/drawings.py

The sizes and layers of networks.svg are read from the networks that models.py builds. All three
are 440 units wide, with a background of their own: legible on a phone and on dark pages.
"""

import math
import sys
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
from common import devices
from common.files import complete

DOCS = Path(__file__).resolve().parent
NAMES = ("forward.svg", "notes.svg", "networks.svg")
WIDTH = 440
PAPER, INK, PALE = "#fcfcfa", "#2b2f36", "#8a8f98"
BLUE, ORANGE, GREEN = "#d6e6f5", "#fbe0cc", "#dcefdc"  # of boxes
DARK_BLUE, DARK_ORANGE = "#2f6fab", "#c2601c"  # of curves
LETTERS = {  # of a block's layers in networks.svg
    "Conv2D": "C",
    "Conv2DTranspose": "T",
    "BatchNormalization": "B",
    "Dropout": "D",
    "LeakyReLU": "L",
    "ReLU": "R",
}
LEGEND = (
    "Sizes: height, width, channels",
    "C  4 × 4 convolution, stride 2",
    "    (1 in the last)",
    "T  the same, transposed",
    "B  batch norm",
    "D  dropout 0.5",
    "L  LeakyReLU 0.3",
    "R  ReLU",
    "copy: joined to the input",
    "    of the next block",
)
ROW, BOX = 54, 40  # in networks.svg: distance of two blocks, height of a block


class Drawing:
    """An SVG picture, WIDTH units wide."""

    def __init__(self, height, title):
        self.height = height
        self.title = title
        self.parts = []

    def box(self, left, top, width, height, *lines, fill="white"):
        """Draw a rectangle with lines of text; the first is bold."""
        self.parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6" '
            f'fill="{fill}" stroke="{PALE}"/>'
        )
        middle = top + height / 2 - 9 * (len(lines) - 1)
        for k, line in enumerate(lines):
            weight = "bold" if k == 0 else "normal"
            self.text(left + width / 2, middle + 18 * k + 5, line, weight=weight)

    def text(self, x, y, text, anchor="middle", size=14, weight="normal"):
        """Draw one line of text; ``y`` is its baseline."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}">{escape(text)}</text>'
        )

    def arrow(self, *points):
        """Draw a line through points (x, y), with an arrow head at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.5" '
            'marker-end="url(#head)"/>'
        )

    def line(self, *points, stroke=PALE, width=1):
        """Draw a line through points (x, y)."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="{width}"/>'
        )

    def shape(self, points, fill):
        """Draw a filled polygon with corners (x, y)."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polygon points="{path}" fill="{fill}"/>')

    def write(self):
        """Return the drawing as SVG, text."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height}" '
            f'viewBox="0 0 {WIDTH} {self.height}" font-family="Helvetica, Arial, sans-serif" '
            f'fill="{INK}">\n<title>{escape(self.title)}</title>\n'
            '<defs><marker id="head" markerUnits="userSpaceOnUse" markerWidth="10" '
            'markerHeight="9" refX="9" refY="4.5" orient="auto">'
            f'<path d="M0,0 L10,4.5 L0,9 z" fill="{INK}"/></marker></defs>\n'
            f'<rect width="{WIDTH}" height="{self.height}" rx="8" fill="{PAPER}"/>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"


def draw_forward():
    """Draw the steps of predict.py, from recording to output: `Drawing`."""
    picture = Drawing(523, "From a recording to its conversion")
    picture.box(120, 12, 200, 44, "recording", "44.1 kHz")
    picture.arrow((220, 56), (220, 78))
    picture.box(120, 80, 200, 44, "STFT", "1,024 points, hop 512")
    picture.arrow((170, 124), (170, 138), (112, 138), (112, 158))
    picture.arrow((270, 124), (270, 138), (348, 138), (348, 379))
    picture.box(12, 160, 200, 44, "magnitude", "dB scale, 0 … 96 dB", fill=BLUE)
    picture.arrow((112, 204), (112, 226))
    picture.box(
        12, 228, 200, 62, "generator", "tiles of 256 frames (3 s),", "256 or 512 bins", fill=ORANGE
    )
    picture.arrow((112, 290), (112, 312))
    picture.box(12, 314, 200, 44, "new magnitude", "the target instrument", fill=BLUE)
    picture.text(360, 220, "the input's", anchor="start")
    picture.text(360, 238, "phase", anchor="start")
    picture.arrow((112, 358), (112, 412), (148, 412))
    text = "phase estimator", "the input's phase as it is, or", "Griffin-Lim that starts from it"
    picture.box(150, 381, 278, 62, *text, fill=GREEN)
    picture.arrow((289, 443), (289, 465))
    picture.box(150, 467, 278, 44, "inverse STFT", "the converted recording")
    return picture


def decay(t, seconds):
    """Envelope, 0 ... 1, of a plucked note at ``t`` s: held for ``seconds``, released in 1 s."""
    level = math.exp(-0.9 * t) * min(1, t / 0.02)
    if t > seconds:
        level *= max(0, math.exp(-(t - seconds) / 0.1875))
    return level


def draw_note(picture, left, middle, scale, seconds, end, fill, height=22):
    """Draw the envelope of a note, symmetric about ``middle``.

    Args:
        picture: `Drawing`.
        left, middle: position of the onset, units.
        scale: units per second.
        seconds: time until the release.
        end: s, where the drawing is cut.
        fill: colour.
        height: units, of the loudest point above ``middle``.
    """
    times = [k * end / 80 for k in range(81)]
    upper = [(left + scale * t, middle - height * decay(t, seconds)) for t in times]
    lower = [(left + scale * t, middle + height * decay(t, seconds)) for t in reversed(times)]
    picture.shape(upper + lower, fill)


def draw_notes():
    """Draw the steps of synthesize_audios.py for one note of a score: `Drawing`."""
    picture = Drawing(492, "From a score and a bank of notes to audio")
    score = ((0.2, 0.8, 2), (1.0, 0.8, 1), (1.8, 1.3, 0))  # onset, duration in s, step
    scale = 110  # units a second
    titles = (
        ("1  score", "a MIDI file: pitch, velocity, onset, duration"),
        ("2  note of the bank", "nearest pitch and velocity, recorded for 4 s"),
        ("3  fitted", "shifted to the pitch; held, then released in 1 s"),
        ("4  placed", "added at its onset; all notes together are the audio"),
    )
    for k, (title, text) in enumerate(titles):
        top = 10 + 119 * k
        picture.box(10, top, 420, 111)
        picture.text(22, top + 22, title, anchor="start", weight="bold")
        picture.text(22, top + 41, text, anchor="start")
    for onset, duration, step in score:
        fill = DARK_ORANGE if step == 1 else DARK_BLUE
        left, top = 22 + scale * onset, 62 + 16 * (2 - step)
        right = left + scale * duration
        picture.shape([(left, top), (right, top), (right, top + 9), (left, top + 9)], fill)
    draw_note(picture, 22, 203, 98, 3, 4, DARK_ORANGE)
    draw_note(picture, 22 + scale, 322, scale, 0.8, 1.8, DARK_ORANGE)
    held = 22 + scale * 1.8
    picture.line((held, 300), (held, 344), stroke=INK)
    picture.text(held + 8, 310, "release", anchor="start", size=13)
    for onset, duration, step in score:
        fill = DARK_ORANGE if step == 1 else DARK_BLUE
        draw_note(picture, 22 + scale * onset, 441, scale, duration, min(1.8, 3.6 - onset), fill)
    return picture


def describe_block(layer):
    """Abbreviate the layers of a block, see `LETTERS`: "C B L"."""
    layers = getattr(layer, "layers", [layer])
    return " ".join(LETTERS[type(each).__name__] for each in layers)


def name_size(shape):
    """Format a shape without its first axis: (None, 128, 128, 64) -> "128 × 128 × 64"."""
    return " × ".join(f"{size:,}" for size in shape[1:])


def find_blocks(network):
    """List the layers of a network that have weights, in order."""
    return [layer for layer in network.layers if layer.weights]


def draw_networks(generator, discriminator):
    """Draw both networks, a box per block with its output size and layers: `Drawing`."""
    picture = Drawing(892, "The generator and the discriminator, layer by layer")
    draw_generator(picture, generator, 24)
    draw_discriminator(picture, discriminator, 552)
    for k, line in enumerate(LEGEND):
        picture.text(218, 584 + 24 * k, line.replace("    ", "\u2003\u2002"), "start", 13)
    return picture


def draw_generator(picture, generator, top):
    """Draw the generator from ``top`` down: encoder on the left, decoder on the right."""
    blocks = find_blocks(generator)
    down, up = blocks[:8], blocks[8:]  # the last one of `up` is the output layer
    text = f"Generator: {generator.count_params():,} parameters"
    picture.text(12, top, text, "start", 15, "bold")
    first = top + 12
    picture.box(12, first, 170, BOX, "input", name_size(generator.input_shape))
    for k, layer in enumerate(down):
        at = first + ROW * (k + 1)
        text = name_size(layer.output.shape), describe_block(layer)
        picture.box(12, at, 170, BOX, *text, fill=BLUE)
        picture.arrow((97, at - ROW + BOX), (97, at - 1))
    for k, layer in enumerate(up):
        at = first + ROW * (7 - k)
        is_last = k == len(up) - 1
        text = name_size(layer.output.shape), describe_block(layer)
        if is_last:
            text = "output", f"{text[0]}: {text[1]}, tanh"
        picture.box(258, at, 170, BOX, *text, fill=ORANGE)
        picture.arrow((343, at + ROW), (343, at + BOX + 1))
        if not is_last:
            picture.arrow((182, at + BOX / 2), (257, at + BOX / 2))
            picture.text(219, at + BOX / 2 - 5, "copy", size=12)
    bottom = first + ROW * 8 + BOX / 2
    picture.arrow((182, bottom), (343, bottom), (343, first + ROW * 7 + BOX + 1))


def draw_discriminator(picture, discriminator, top):
    """Draw the blocks of the discriminator below each other, from ``top`` down."""
    text = f"Discriminator: {discriminator.count_params():,} parameters"
    picture.text(12, top, text, "start", 15, "bold")
    first = top + 12
    pair = discriminator.input_shape
    picture.box(12, first, 190, BOX, "input and output", f"{name_size(pair[0])}, twice")
    blocks = find_blocks(discriminator)
    for k, layer in enumerate(blocks):
        at = first + ROW * (k + 1)
        text = name_size(layer.output.shape), describe_block(layer)
        if k == len(blocks) - 1:
            text = text[0], f"{text[1]}: logits, one a patch"
        picture.box(12, at, 190, BOX, *text, fill=GREEN)
        picture.arrow((107, at - ROW + BOX), (107, at - 1))


def build_networks():
    """Build (generator, discriminator) of the default width and height."""
    devices.setup_device("cpu")
    import models

    return models.build_generator(), models.build_discriminator()


@cli.command
def main(argv=None):
    """Write the three files."""
    cli.Parser(__doc__).parse_args(argv)
    pictures = (draw_forward(), draw_notes(), draw_networks(*build_networks()))
    for name, picture in zip(NAMES, pictures):
        with complete(DOCS / name) as part:
            part.write_text(picture.write(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    raise SystemExit(main())
