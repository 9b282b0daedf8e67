"""Draw the figures of README and docs, all in one style, from the embedded notes and pieces.

    python docs/figures.py --run runs/demo/keyboard_acoustic_2_guitar_acoustic

The curves of learning rates are those of that run, which `make demo` makes; `texture` shows the
pretrained models. Nothing is trained here.
"""

import io
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import matplotlib
import numpy as np
import PIL.Image
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

import data
from common import devices
from common.cli import UserError
from common.files import complete
from conversion import convert
from NoteSynthesizer import DEFAULT_INSTRUMENTS, NoteBank, render
from report import listening, pictures
from report.pictures import BLUE, ORANGE
from synthesis import scores

DOCS = Path(__file__).resolve().parent
DEMO = DOCS.parent / "demo"
PIECE = "greensleeves"
SECONDS = 6.0  # of music in most pictures
PAPER, INK, PALE, LIGHT = "#fcfcfa", "#2b2f36", "#8a8f98", "#8fd8ff"
NAMES = {name: listening.plain_instrument(name) for name in DEFAULT_INSTRUMENTS}
STYLE = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, ORANGE]),
    "figure.dpi": 100,
    "savefig.dpi": 144,
    "svg.hashsalt": "timbre",
}
LARGE = {"font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "legend.fontsize": 11}
WIDTH = 5.4  # inches: text of size 11 is 10 pixels high on a phone, whose column has 358


def save(figure, name):
    """Write docs/``name``: SVG, or PNG by `write_png`."""
    buffer = io.BytesIO()
    if name.endswith(".svg"):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        write_bytes(buffer.getvalue(), name)
    else:
        figure.savefig(buffer, format="png")
        write_png(PIL.Image.open(buffer).convert("RGB"), name)


def write_png(picture, name, colours=256):
    """Write a PIL.Image, RGB, to docs/``name`` with a limited number of colours.

    256 colours take a quarter of the size of a full-colour PNG and look the same.
    """
    few = picture.quantize(colours, PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    write_bytes(buffer.getvalue(), name)


def write_bytes(content, name):
    """Write docs/``name`` and print its size."""
    with complete(DOCS / name) as part:
        part.write_bytes(content)
    print(f"docs/{name}: {len(content) / 1000:.0f} kB")


def read_score(pedal=True):
    """Read the notes of the embedded piece; the first one starts at 0.1 s."""
    score = scores.read_score(DEMO / "midi" / f"{PIECE}.mid", pedal)
    score["onset"] -= score["onset"].min() - 0.1
    return score


def play(instrument, score=None, seconds=SECONDS):
    """Render the start of a score, by default the embedded one, on an instrument: float32 (n,)."""
    bank = NoteBank(DEMO / "notes", instrument)
    blocks = render(read_score() if score is None else score, bank, bank.gain)
    return np.concatenate(list(blocks))[: int(seconds * data.SAMPLE_RATE)]


def draw_spectrograms(name, shown, columns):
    """Write docs/``name``: spectrograms in a grid, on mel axes.

    Args:
        name: file name.
        shown: {title: picture (bins, t) on the dB scale, 0 ... 1}.
        columns: of the grid.
    """
    rows = math.ceil(len(shown) / columns)
    with matplotlib.rc_context({**STYLE, **LARGE}):
        figure = Figure(figsize=(WIDTH, 0.5 + 1.9 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis, (title, picture) in zip(grid.flat, shown.items()):
            image = pictures.draw_mel(axis, picture)
            axis.set_title(title)
            axis.set_xlabel("")
        for axis in grid[-1]:
            axis.set_xlabel("seconds")
        for axis in grid[:, 0]:
            axis.set_ylabel("kHz, mel scale")
        add_colour_bar(figure, image, list(grid.flat), aspect=12 * rows)
        save(figure, name)


def add_colour_bar(figure, image, axes, label="dB relative to full scale", aspect=20):
    """Draw the colour bar of ``image`` beside ``axes``, ``aspect`` times as high as wide."""
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=aspect)
    bar.set_label(label)
    bar.outline.set_visible(False)


def draw_four_instruments():
    """Draw the same tune on four instruments."""
    score = read_score(pedal=False)
    tune = score[score["pitch"] >= 67]
    shown = {NAMES[name]: data.spectrogram(play(name, tune)) for name in DEFAULT_INSTRUMENTS}
    draw_spectrograms("four_instruments.png", shown, columns=2)


def draw_waveform_and_spectrogram():
    """Draw a waveform, its whole STFT picture, and the part that the networks see."""
    audio = play("keyboard_acoustic")
    spectrum = data.stft(audio)
    whole = data.amplitude_to_db(np.abs(spectrum) * np.float32(2 / data.WINDOW.sum()))
    with matplotlib.rc_context({**STYLE, **LARGE}):
        figure = Figure(figsize=(WIDTH, 5.0), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.6))
        seconds = np.arange(len(audio)) / data.SAMPLE_RATE
        above.plot(seconds, audio, color=BLUE, linewidth=0.5, antialiased=False)
        above.set(
            ylabel="amplitude,\nfull scale 1",
            title="Greensleeves, keyboard: 44,100 numbers a second",
        )
        image = pictures.draw_picture(below, whole)
        below.set(title="its spectrogram: 513 bins, 86 frames a second", ylabel="kHz")
        below.set(xlim=(0, SECONDS), yticks=range(0, 21, 4))
        mark_tiles(below)
        add_colour_bar(figure, image, below)
        save(figure, "spectrogram.png")


def mark_tiles(axis):
    """Mark the part of a whole spectrogram that the networks see."""
    tile = data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE
    top = data.band_edge(data.BINS) / 1000  # kHz
    middle = {"ha": "center", "va": "center"}
    for k in range(2):
        frame = Rectangle((k * tile + 0.02, 0.15), tile - 0.04, top - 0.15)
        frame.set(fill=False, edgecolor=LIGHT, linewidth=1.8)
        axis.add_patch(frame)
        text = f"tile {k + 1}: 256 × 256"
        axis.text((k + 0.5) * tile, 9.6, text, color=LIGHT, fontsize=10, **middle)
    text = "left out by models of 256 bins:\nno note of NSynth reaches beyond 8 kHz"
    axis.text(tile, 16.5, text, color="white", **middle)


def draw_score(axis, score, seconds):
    """Draw an array of `scores.NOTE` as a piano roll of ``seconds`` s; colours are velocities."""
    for note in score[score["onset"] < seconds]:
        colour = matplotlib.colormaps["viridis"](note["velocity"] / 127)
        axis.plot(
            (note["onset"], min(seconds, note["onset"] + note["duration"])),
            [note["pitch"]] * 2,
            color=colour,
            linewidth=3,
            solid_capstyle="butt",
        )
    axis.set(xlim=(0, seconds))


STAGES = (  # (result, script that makes it)
    ("MIDI + single notes", "0 render_notes.py"),
    ("aligned audio", "1 synthesize_audios.py"),
    ("pairs of tiles", "2 compute_features.py"),
    ("trained network", "3 train.py"),
    ("converted recording", "4 predict.py"),
    ("measured and heard", "5 evaluate.py"),
)
COLUMNS = 2
CANVAS = (46, 65)  # tenths of an inch
BOX = (18.4, 16.4)
SPACING = (22.4, 21.6)  # from one box to the next


def draw_pipeline():
    """Draw the result of each step, and the script that makes it, in three rows."""
    figure = Figure(figsize=(CANVAS[0] / 10, CANVAS[1] / 10))
    draw_stages(figure)
    guitar_note = NoteBank(DEMO / "notes", "guitar_acoustic").note(60, 75)
    sounds = [play(name) for name in ("keyboard_acoustic", "guitar_acoustic")]
    tiles = [data.spectrogram(sound)[:, : data.TILE_FRAMES] for sound in sounds]
    draw_score(add_inset(figure, 0, 0), read_score(), SECONDS)
    add_inset(figure, 0, 1).plot(guitar_note[::40], color=ORANGE, linewidth=0.4)
    for row, (sound, colour) in enumerate(zip(sounds, (BLUE, ORANGE))):
        add_inset(figure, 1, row).plot(sound[::80], color=colour, linewidth=0.5)
        draw_inset_picture(add_inset(figure, 2, row), tiles[row])
    draw_network(add_inset(figure, 3, 0, rows=1))
    draw_inset_picture(add_inset(figure, 4, 0), data.spectrogram(sounds[1]))
    add_inset(figure, 4, 1).plot(sounds[1][::80], color=ORANGE, linewidth=0.5)
    draw_inset_picture(add_inset(figure, 5, 0, rows=1), tiles[1] - tiles[0], is_difference=True)
    save(figure, "pipeline.png")


def find_box(stage):
    """Find the (left, lower) edges of a stage's box, in units of `CANVAS`."""
    row, column = divmod(stage, COLUMNS)
    return 2.6 + SPACING[0] * column, CANVAS[1] - 17.8 - SPACING[1] * row


def draw_stages(figure):
    """Draw the boxes of `draw_pipeline` with arrows and names of scripts."""
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, CANVAS[0]), ylim=(0, CANVAS[1]))
    canvas.axis("off")
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": PALE, "linewidth": 0.8}
    arrow = {"arrowstyle": "-|>", "mutation_scale": 12, "color": INK, "linewidth": 1.4}
    centred = {"ha": "center", "va": "center"}
    for stage, (title, script) in enumerate(STAGES):
        left, bottom = find_box(stage)
        middle = left + BOX[0] / 2
        canvas.add_patch(FancyBboxPatch((left, bottom), *BOX, **box))
        canvas.text(middle, bottom + BOX[1] - 1, title, weight="bold", fontsize=10.5, **centred)
        canvas.text(middle, bottom - 2, script, family="monospace", fontsize=10, **centred)
        if stage:
            height = bottom + BOX[1] / 2
            canvas.add_patch(FancyArrowPatch((left - 3.6, height), (left - 0.2, height), **arrow))


def add_inset(figure, stage, row, rows=2):
    """Add axes without frame to a stage's box, number ``row`` of ``rows`` from the top."""
    left, bottom = find_box(stage)
    height = (BOX[1] - 2.6) / rows
    bottom += (rows - 1 - row) * height
    where = (
        (left + 0.6) / CANVAS[0],
        (bottom + 0.4) / CANVAS[1],
        (BOX[0] - 1.2) / CANVAS[0],
        (height - 0.8) / CANVAS[1],
    )
    axis = figure.add_axes(where, facecolor="none")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    return axis


def draw_inset_picture(axis, picture, is_difference=False):
    """Draw a spectrogram, or a difference of two, without labels."""
    pictures.draw_picture(axis, picture, is_difference=is_difference)
    axis.set(xlabel="")


def draw_network(axis):
    """Draw the U-Net as bars: 8 blocks down, 7 up, and the skip connections."""
    heights = np.linspace(1.15, 0.16, 8)
    for block, height in enumerate([*heights, *heights[-2::-1]]):
        axis.plot(
            (block, block),
            (-height, height),
            color=BLUE if block < 8 else ORANGE,
            linewidth=4.5,
            solid_capstyle="butt",
        )
    for block, height in enumerate(heights[:-1]):
        axis.plot((block, 14 - block), [height - 0.03] * 2, color=PALE, linewidth=0.7, zorder=0)
    axis.set(xlim=(-1, 15), ylim=(-1.3, 1.3))


def draw_learning_rates(run):
    """Draw the three curves of a run's learning-rate search. Raises UserError if one is missing."""
    import lr_finder

    curves = {}
    rates = {}
    for name in ("generator", "discriminator", "both"):
        path = run / "lr_finder" / f"{name}.csv"
        if not path.is_file():
            raise UserError(
                f"{path}: not found; run 'make figures', which searches the rates first"
            )
        curve = lr_finder.Curve(*np.loadtxt(path, delimiter=",", skiprows=1).T)
        curves[name] = curve
        rates[name] = lr_finder.suggest(curve.rates, curve.smoothed)
    with matplotlib.rc_context({**STYLE, **LARGE}):
        figure = Figure(figsize=(WIDTH, 7.2), layout="constrained")
        lr_finder.draw_curves(figure, curves, rates)
        save(figure, "lr_finder.svg")


def draw_texture():
    """Draw three notes on strings and synth lead, and the pretrained models' outputs."""
    from conversion import model_files

    score = np.array([(0.1, 0.9, 55, 75), (1.2, 0.9, 67, 75), (2.3, 1.6, 60, 75)], scores.NOTE)
    x = data.spectrogram(play("keyboard_acoustic", score))
    shown = {}
    for instrument in DEFAULT_INSTRUMENTS[2:]:
        name = NAMES[instrument]
        shown[name] = data.spectrogram(play(instrument, score))
        model = model_files.load_generator(f"keyboard_acoustic_2_{instrument}")
        shown[f"{name}, model"] = convert.convert_picture(model, x)[..., 0]
    frames = 4 * data.SAMPLE_RATE // data.HOP_LENGTH
    beginnings = {name: picture[:, :frames] for name, picture in shown.items()}
    draw_spectrograms("texture.png", beginnings, columns=2)


@cli.command
def main(argv=None):
    """Parse flags, draw all figures."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder that make demo made")
    args = parser.parse_args(argv)
    if not (args.run / "generator.keras").is_file():
        raise UserError(f"{args.run}: no trained model there; run 'make demo' first")
    devices.setup_device("cpu")
    with matplotlib.rc_context(STYLE):
        draw_four_instruments()
        draw_waveform_and_spectrogram()
        draw_pipeline()
        draw_texture()
        draw_learning_rates(args.run)


if __name__ == "__main__":
    raise SystemExit(main())
