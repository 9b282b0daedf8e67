"""Draw the figures of README and docs, all in one style, from the embedded notes and pieces.

    python docs/figures.py --run runs/demo/keyboard_acoustic_2_guitar_acoustic \\
        --audios_path runs/demo/audios

What shows a network or a training takes it from that run, which `make demo` makes, but for
`texture`, which shows the pretrained models; nothing is trained here.
"""

import io
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import PIL.Image
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cli
import convert
import data
import devices
import metrics
import midi
import report
from audio import read_audio
from cli import UserError
from NoteSynthesizer import DEFAULT_INSTRUMENTS, NoteBank, render
from report import BLUE, ORANGE

DOCS = Path(__file__).resolve().parent
DEMO = DOCS.parent / "demo"
PIECE = "pieces/greensleeves"  # held out by `make demo`
SECONDS = 6.0  # of music in most pictures
SILENCE = 0.77  # s before the piece's first note, left out
PAPER, INK, PALE, LIGHT = "#fcfcfa", "#2b2f36", "#8a8f98", "#8fd8ff"
NAMES = {name: report.plain_instrument(name) for name in DEFAULT_INSTRUMENTS}
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


def save(figure, name):
    """Write docs/``name``: SVG, or PNG of at most 256 colours.

    That is a quarter of the size of a PNG of all colours, and looks the same.
    """
    buffer = io.BytesIO()
    is_svg = name.endswith(".svg")
    metadata = {"Date": None} if is_svg else None
    figure.savefig(buffer, format=name[-3:], metadata=metadata)
    content = buffer.getvalue()
    if not is_svg:
        picture = PIL.Image.open(buffer).convert("RGB")
        picture = picture.quantize(
            256, PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE
        )
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        content = buffer.getvalue()
    with cli.complete(DOCS / name) as part:
        part.write_bytes(content)
    print(f"docs/{name}: {len(content) / 1000:.0f} kB")


def read_score(pedal=True):
    """The embedded piece's notes, the silence before the first cut to 0.1 s."""
    score = midi.read_score(DEMO / "midi" / f"{Path(PIECE).name}.mid", pedal)
    score["onset"] -= score["onset"].min() - 0.1
    return score


def play(instrument, score=None, seconds=SECONDS):
    """The beginning of the embedded piece, or of another score, on one instrument: float32 (n,)."""
    bank = NoteBank(DEMO / "notes", instrument)
    blocks = render(read_score() if score is None else score, bank, bank.gain)
    return np.concatenate(list(blocks))[: int(seconds * data.SAMPLE_RATE)]


def draw_spectrogram_row(name, pictures, height=2.7):
    """Write pictures side by side: {title: picture}."""
    figure = Figure(figsize=(11, height), layout="constrained")
    report.draw_row(figure, pictures)
    save(figure, name)


def draw_four_instruments():
    """The same tune four times."""
    score = read_score(pedal=False)
    tune = score[score["pitch"] >= 67]
    draw_spectrogram_row(
        "four_instruments.png",
        {NAMES[i]: data.spectrogram(play(i, tune)) for i in DEFAULT_INSTRUMENTS},
    )


def draw_waveform_and_spectrogram():
    """What becomes of a waveform: the whole STFT picture, and what of it the networks see."""
    audio = play("keyboard_acoustic")
    spectrum = data.stft(audio)
    whole = data.amplitude_to_db(np.abs(spectrum) * np.float32(2 / data.WINDOW.sum()))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
    above.plot(np.arange(len(audio)) / data.SAMPLE_RATE, audio, color=BLUE, linewidth=0.4)
    above.set(ylabel="amplitude", title="Greensleeves, keyboard: 44,100 numbers a second")
    image = report.draw_picture(
        below, whole, "its spectrogram: 513 bins, 86 frames a second", top=data.SAMPLE_RATE / 2000
    )
    below.set(ylabel="kHz", xlim=(0, SECONDS))
    tile = data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE
    middle = {"ha": "center", "va": "center"}
    for k in range(2):
        frame = Rectangle((k * tile + 0.012, 0.1), tile - 0.024, 10.9, fill=False)
        frame.set(edgecolor=LIGHT, linewidth=1.6)
        below.add_patch(frame)
        text = f"tile {k + 1}: 256 bins × 256 frames"
        below.text((k + 0.5) * tile, 9.9, text, color=LIGHT, **middle)
    text = "left out: no note of NSynth reaches beyond 8 kHz"
    below.text(tile, 16.5, text, color="white", **middle)
    report.draw_colour_bar(figure, image, ax=below, pad=0.01)
    save(figure, "spectrogram.png")


def draw_score(axis, score, seconds):
    """A piano roll, coloured by velocity."""
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


def draw_synthesiser():
    """How notes of a score become audio: the score, one note's envelope, all on two instruments."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.25))
    score = read_score()
    axis = figure.add_subplot(grid[0, 0])
    draw_score(axis, score, 3)
    title = "1  the score: onset, length (pedal included), pitch, velocity"
    axis.set(title=title, ylabel="MIDI pitch", xlabel="seconds")
    draw_envelope(figure.add_subplot(grid[1, 0]))
    shared = None
    for k, (instrument, colour) in enumerate(
        (("keyboard_acoustic", BLUE), ("guitar_acoustic", ORANGE))
    ):
        shared = figure.add_subplot(grid[k, 1], sharex=shared)
        audio = play(instrument, seconds=3)
        seconds = np.arange(len(audio)) / data.SAMPLE_RATE
        shared.plot(seconds, audio, color=colour, linewidth=0.4)
        for onset in score["onset"][score["onset"] < 3]:
            shared.axvline(onset, color=PALE, linewidth=0.6, zorder=0)
        title = f"{3 + k}  all notes added up: {NAMES[instrument]}"
        shared.set(title=title, xlim=(0, 3), ylabel="amplitude")
    shared.set_xlabel("seconds: the same onsets, the same number of samples")
    save(figure, "synthesiser.png")


def draw_envelope(axis):
    """One note of the bank, and what is played of it when the key is held for a while."""
    bank = NoteBank(DEMO / "notes", "keyboard_acoustic")
    rate = data.SAMPLE_RATE
    hold = 0.8  # s
    note = bank.note(69, 75)
    score = np.array([(0, hold, 69, 75)], midi.NOTE)
    played = np.concatenate(list(render(score, bank, gain=1)))
    axis.plot(np.arange(len(note)) / rate, note, color=PALE, linewidth=0.3, alpha=0.5)
    axis.plot(np.arange(len(played)) / rate, played, color=BLUE, linewidth=0.3)
    axis.axvline(hold, color=ORANGE, linestyle="--", linewidth=1.2)
    axis.text(hold + 0.04, note.max() * 0.8, "key up: fades within 1 s", color=ORANGE)
    title = "2  the nearest note of the bank, cut to its length"
    axis.set(title=title, xlim=(0, 2.4), xlabel="seconds", ylabel="amplitude")


STAGES = (
    "MIDI + single notes",
    "aligned audio",
    "pairs of tiles",
    "trained network",
    "converted recording",
)
STEPS = ("1 synthesize_audios.py", "2 compute_features.py", "3 train.py", "4 predict.py")
STAGE_WIDTH = 22.3  # from one stage to the next; the canvas is 110 x 26


def draw_pipeline():
    """The steps, and what lies between them."""
    figure = Figure(figsize=(11, 2.6))
    draw_stages(figure)
    guitar_note = NoteBank(DEMO / "notes", "guitar_acoustic").note(60, 75)
    sounds = [play(name) for name in ("keyboard_acoustic", "guitar_acoustic")]
    draw_score(add_inset(figure, 0, 0), read_score(), SECONDS)
    add_inset(figure, 0, 1).plot(guitar_note[::40], color=ORANGE, linewidth=0.4)
    for row, (sound, colour) in enumerate(zip(sounds, (BLUE, ORANGE))):
        add_inset(figure, 1, row).plot(sound[::80], color=colour, linewidth=0.5)
        tile = data.spectrogram(sound)[:, : data.TILE_FRAMES]
        draw_inset_picture(add_inset(figure, 2, row), tile)
    draw_network(add_inset(figure, 3, 0, rows=1))
    draw_inset_picture(add_inset(figure, 4, 0), data.spectrogram(sounds[1]))
    add_inset(figure, 4, 1).plot(sounds[1][::80], color=ORANGE, linewidth=0.5)
    save(figure, "pipeline.png")


def draw_stages(figure):
    """The boxes of `draw_pipeline`, the arrows between them, and the scripts' names."""
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, 110), ylim=(0, 26))
    canvas.axis("off")
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": PALE, "linewidth": 0.8}
    arrow = {"arrowstyle": "-|>", "mutation_scale": 14, "color": INK, "linewidth": 1.4}
    title = {"ha": "center", "va": "center", "weight": "bold", "fontsize": 9.5}
    code = {"va": "center", "family": "monospace", "fontsize": 8.5}
    for k, stage in enumerate(STAGES):
        left = 2.1 + STAGE_WIDTH * k
        canvas.add_patch(FancyBboxPatch((left, 7.4), 16.6, 17.2, **box))
        canvas.text(left + 8.3, 23, stage, **title)
    for k, step in enumerate(STEPS):
        middle = 21.55 + STAGE_WIDTH * k
        canvas.add_patch(FancyArrowPatch((middle - 2.2, 15.5), (middle + 2.2, 15.5), **arrow))
        canvas.text(middle, 4.6, step, ha="center", **code)
    canvas.text(1.7, 1.6, "0 render_notes.py: notes from a SoundFont", **code)
    canvas.text(108.3, 1.6, "5 evaluate.py: measures, listening page", ha="right", **code)


def add_inset(figure, stage, row, rows=2):
    """Axes without frame in the box of a stage, one of ``rows`` below each other."""
    height = 13.6 / rows
    bottom = 7.8 + (rows - 1 - row) * height
    left = 2.9 + STAGE_WIDTH * stage
    where = (left / 110, bottom / 26, 15 / 110, (height - 0.8) / 26)
    axis = figure.add_axes(where, facecolor="none")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    return axis


def draw_inset_picture(axis, picture):
    """A spectrogram without labels."""
    report.draw_picture(axis, picture)
    axis.set(xlabel="")


def draw_network(axis):
    """The U-Net as bars: 8 blocks down, 7 up, and the connections between blocks of one size."""
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
    """The learning-rate search's three curves."""
    import lr_finder

    curves = {}
    rates = {}
    for name in ("generator", "discriminator", "both"):
        path = run / "lr_finder" / f"{name}.csv"
        if not path.is_file():
            raise UserError(
                f"{path}: not found; run 'make figures', which searches the rates first"
            )
        curves[name] = np.loadtxt(path, delimiter=",", skiprows=1).T
        tried, _, smoothed = curves[name]
        rates[name] = lr_finder.suggest(tried, smoothed)
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    lr_finder.draw_curves(figure, curves, rates)
    save(figure, "lr_finder.svg")


def draw_history(run, baselines):
    """Errors and losses, epoch by epoch."""
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    report.draw_history(figure, run / "history.csv", baselines)
    save(figure, "history.svg")


def draw_conversion(run, x, y):
    """Input, output and target of a held-out piece: audio (n,) of input and target."""
    import models

    x, y = data.spectrogram(x), data.spectrogram(y)
    output = convert.convert_picture(models.load_generator(run), x)[..., 0]
    errors = [metrics.picture_mae(y, picture) for picture in (x, output)]
    frames = int(SECONDS * data.SAMPLE_RATE / data.HOP_LENGTH)
    draw_spectrogram_row(
        "result.png",
        {
            f"input, keyboard ({errors[0]:.1f} dB off)": x[:, :frames],
            f"output ({errors[1]:.1f} dB off)": output[:, :frames],
            "target, guitar": y[:, :frames],
        },
        height=3,
    )


def draw_texture():
    """Three notes on strings and synth lead, and what the pretrained models make of them."""
    import models

    score = np.array([(0.1, 0.9, 55, 75), (1.2, 0.9, 67, 75), (2.3, 1.6, 60, 75)], midi.NOTE)
    x = data.spectrogram(play("keyboard_acoustic", score))
    pictures = {}
    for instrument in DEFAULT_INSTRUMENTS[2:]:
        name = NAMES[instrument]
        pictures[name] = data.spectrogram(play(instrument, score))
        model = models.load_generator(f"keyboard_acoustic_2_{instrument}")
        pictures[f"{name}, model"] = convert.convert_picture(model, x)[..., 0]
    frames = 4 * data.SAMPLE_RATE // data.HOP_LENGTH
    beginnings = {name: picture[:, :frames] for name, picture in pictures.items()}
    draw_spectrogram_row("texture.png", beginnings, height=3)


@cli.command
def main(argv=None):
    """Parse flags, draw everything."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder that make demo made")
    parser.add_argument(
        "--audios_path", type=Path, required=True, help="audio that it was trained and tested on"
    )
    args = parser.parse_args(argv)
    if not (args.run / "generator.keras").is_file():
        raise UserError(f"{args.run}: no trained model there; run 'make demo' first")
    baselines = json.loads((args.run / "config.json").read_text())["baselines_db"]
    devices.setup_device("cpu")
    span = slice(int(SILENCE * data.SAMPLE_RATE), 30 * data.SAMPLE_RATE)
    origin, target = DEFAULT_INSTRUMENTS[:2]
    x = read_audio(args.audios_path / origin / f"{PIECE}.wav")[span]
    y = read_audio(args.audios_path / target / f"{PIECE}.wav")[span]
    with matplotlib.rc_context(STYLE):
        for figure in (
            draw_four_instruments,
            draw_waveform_and_spectrogram,
            draw_synthesiser,
            draw_pipeline,
        ):
            figure()
        draw_texture()
        draw_conversion(args.run, x, y)
        draw_history(args.run, baselines)
        draw_learning_rates(args.run)


if __name__ == "__main__":
    raise SystemExit(main())
