"""Make docs/listen: recordings, and their conversions by every shipped model, on one page.

    python docs/make_listen.py

Reads docs/audio/*.ogg. Converts each with the models that `predict.py --list` shows of pretrained/,
at predict.py's default settings. Writes docs/listen/index.html with its sounds (mp3) and pictures,
docs/listen/README.md with links to the sounds, and docs/clips.png.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
import PIL.Image
import soundfile
from figures import draw_spectrograms

import data
import predict
from common.cli import UserError
from common.files import complete
from conversion import known_models
from report import listening
from sound.recordings import read_audio, write_audio

DOCS = Path(__file__).resolve().parent
AUDIO = DOCS / "audio"
LISTEN = DOCS / "listen"
SECONDS = 10  # of each recording, from its beginning
COLOURS = 128  # of the page's pictures: a third of the size, and they look the same
SALAMANDER = (
    "our own MIDI file, played by notes of the Salamander Grand Piano by Alexander Holm (CC BY 3.0)"
)
SMS_TOOLS = "from sms-tools, Music Technology Group, UPF (CC BY 4.0)"
SOROHAN = "the beginning of “Solo trumpet 06” by Mihai Sorohan (CC BY 3.0)"


class Recording(NamedTuple):
    """A file of docs/audio."""

    stem: str  # of the file's name
    title: str
    credit: str
    address: str  # where it is from, or ""


FREESOUND = "https://freesound.org/people/xserra/packs/13038/"
RECORDINGS = (
    Recording("piano", "Piano, sampled", SALAMANDER, ""),
    Recording("recorded_piano", "Piano, recorded", SMS_TOOLS, FREESOUND),
    Recording("cello", "Cello, recorded", SMS_TOOLS, FREESOUND),
    Recording("saxophone", "Saxophone, recorded", SMS_TOOLS, FREESOUND),
    Recording("trumpet", "Trumpet, recorded", SOROHAN, "https://freesound.org/s/77711/"),
)
SENTENCE = "Recordings, and what each shipped model makes of them."
HOW = (
    "Each output was made by predict.py at its default settings. Nothing was selected or edited. "
    "All sounds are MP3, encoded anew."
)
README = """# Listen

{sentence}

{table}

**On GitHub** a link above opens the page of its sound. *View raw* there, or the
download button, plays or saves it.

**On your computer**, clone the repository and open `docs/listen/index.html` in a browser. The page
switches between input and outputs at the same moment.

**On the web**, publish a fork: *Settings → Pages*, branch `main`, folder `/docs`. The page is then
at `https://<your name>.github.io/<repository>/listen/`.

{how} To make this folder again: `python docs/make_listen.py`.

## Sources

{sources}

The conversions have the same licences as their inputs.
"""


def list_models():
    """List the shipped models of predict.py --list: {label: path}."""
    models = {}
    for path in known_models.find_models():
        if path.parent == known_models.PRETRAINED:
            label = listening.plain_instrument(known_models.make_label(path))
            models[label] = path
    return models


def convert(folder, models):
    """Convert the beginnings of the recordings.

    Args:
        folder: path for the files.
        models: {label: path}.

    Yields:
        (`Recording`, {label: audio, float32 (n,) or (n, channels)}), the input first.

    Raises:
        UserError: a conversion failed.
    """
    sources = []
    for recording in RECORDINGS:
        source = folder / f"{recording.stem}.wav"
        audio, rate = soundfile.read(AUDIO / f"{recording.stem}.ogg", dtype="float32")
        soundfile.write(source, audio[: SECONDS * rate], rate)
        sources.append(source)
    for label, path in models.items():
        flags = ["--input", *map(str, sources), "--model", str(path)]
        if predict.main([*flags, "--output", str(folder / label)]):
            raise UserError(f"{path}: could not convert the recordings; see the line above")
    for recording, source in zip(RECORDINGS, sources):
        sounds = {"input": soundfile.read(source, dtype="float32")[0]}
        for label in models:
            sounds[label] = soundfile.read(folder / label / source.name, dtype="float32")[0]
        yield recording, sounds


def make_entries(converted):
    """Yield a `listening.Entry` of each of `convert`'s results."""
    for recording, sounds in converted:
        sentence = f"Input: {recording.credit}."
        yield listening.Entry(recording.title, sounds, sentence=sentence)


def list_sources():
    """List the credits of the recordings, one line each."""
    lines = []
    for recording in RECORDINGS:
        line = f"{recording.title}: {recording.credit}"
        lines.append(f"{line}, {recording.address}" if recording.address else line)
    return lines


def name_sound(recording, label):
    """Name the files of a sound, without extension: "cello_synth_lead"."""
    return f"{recording.stem}_{label.replace(' ', '_')}"


def make_small(folder, labels):
    """Rename a listening page's files by their content, and make them smaller.

    Sounds become mp3; pictures get few colours.

    Args:
        folder: of the page, as `listening.write_page` leaves it.
        labels: of each recording's sounds.
    """
    page = folder / "index.html"
    html = page.read_text(encoding="utf-8")
    for number, recording in enumerate(RECORDINGS, 1):
        for k, label in enumerate(labels, 1):
            old, new = f"piece{number:02d}_{k}", name_sound(recording, label)
            sound = folder / f"{old}.{listening.AUDIO_FORMAT}"
            audio, rate = soundfile.read(sound, dtype="float32")
            write_audio(folder / f"{new}.mp3", audio, rate)
            picture = PIL.Image.open(folder / f"{old}.png")
            few = picture.quantize(COLOURS, PIL.Image.Quantize.FASTOCTREE)  # keeps transparency
            few.save(folder / f"{new}.png", optimize=True)
            html = html.replace(f"{old}.{listening.AUDIO_FORMAT}", f"{new}.mp3")
            html = html.replace(f"{old}.png", f"{new}.png")
            sound.unlink()
            (folder / f"{old}.png").unlink()
    page.write_text(html, encoding="utf-8")


def write_readme(folder, labels):
    """Write README.md: links to the sounds, how to open the page, credits."""
    lines = [f"| | {' | '.join(labels)} |", f"|---{'|---' * len(labels)}|"]
    for recording in RECORDINGS:
        cells = [f"[mp3]({name_sound(recording, label)}.mp3)" for label in labels]
        lines.append(f"| {' | '.join([recording.title, *cells])} |")
    sources = [f"- {line}" for line in list_sources()]
    text = README.format(
        sentence=SENTENCE, table="\n".join(lines), how=HOW, sources="\n".join(sources)
    )
    with complete(folder / "README.md") as part:
        part.write_text(text, encoding="utf-8")


@cli.command
def main(argv=None):
    """Convert the recordings; write the page, README.md and clips.png."""
    cli.Parser(__doc__).parse_args(argv)
    models = list_models()
    labels = ["input", *models]
    page = listening.Page("Listen", SENTENCE, paragraphs=(HOW, *list_sources()))
    with tempfile.TemporaryDirectory() as temporary:
        converted = convert(Path(temporary), models)
        made = Path(temporary) / "page"
        listening.write_page(made, page, make_entries(converted))
        make_small(made, labels)
        write_readme(made, labels)
        shutil.rmtree(LISTEN, ignore_errors=True)
        shutil.copytree(made, LISTEN)
    size = sum(path.stat().st_size for path in LISTEN.glob("*.mp3"))
    print(f"{LISTEN}: {size / 1e6:.1f} MB of sound")
    draw_clips()


def draw_clips():
    """Draw clips.png: spectrograms of two of the published mp3 files."""
    count = SECONDS * data.SAMPLE_RATE
    names = {"in: a sampled piano, not in the training set": "input", "out: guitar": "guitar"}
    pictures = {}
    for title, label in names.items():
        audio = read_audio(LISTEN / f"{name_sound(RECORDINGS[0], label)}.mp3")
        pictures[title] = data.spectrogram(np.asarray(audio)[:count])
    draw_spectrograms("clips.png", pictures, columns=1)


if __name__ == "__main__":
    raise SystemExit(main())
