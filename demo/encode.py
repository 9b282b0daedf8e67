"""Write the embedded pieces, demo/scores/*.txt, as MIDI files.

    python demo/encode.py --midi_path demo/midi

A score is a text file: lines "name: value" about the piece, an empty line, and lines
"voice: notes ; voice: notes". The lines of a voice are joined. Notes look like
"c#4:2 e4 r c4+e4:4 |". A pitch is a name (middle C is c4), + joins a chord, r is a rest. A length
in units follows; it applies until the next one. "[...]*3" repeats. A bar line checks that the bar
is full.
"""

import io
import re
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
import pretty_midi

from common.files import complete

SCORES = Path(__file__).parent / "scores"
NUMBERS = (
    "tempo",
    "beat",
    "bar",
    "dynamic",
    "pedal",
)  # quarter notes a minute; units; units; MIDI velocity; units (optional)
SPREAD, JITTER = 4.0, 0.006  # standard deviations: MIDI velocity; s
ACCENT = 5.0  # MIDI velocity added at the beginning of a bar
ARCH = 8.0  # MIDI velocity added in the middle of a four-bar phrase
LEFT = -14.0  # MIDI velocity added for the left hand
ARTICULATION = 0.96  # sounding fraction of a written length


def _write_out(text):
    """Expand repeats such as "[...]*3", the innermost brackets first."""

    def repeat(match):
        part, times = match.groups()
        return f"{part} " * int(times)

    count = 1
    while count:
        text, count = re.subn(r"\[([^\[\]]*)\]\*(\d+)", repeat, text)
    return text


def read_voice(text, bar):
    """Read the notes of one voice: ([(start, length, pitch)], end), in units.

    Raises:
        ValueError: a note cannot be read, or a bar line is not at a multiple of ``bar``.
    """
    text = _write_out(text.replace("|", " | "))
    notes = []
    now = 0.0
    length = 1.0
    for token in text.split():
        if token == "|":
            if now % bar:
                raise ValueError(f"bar {now / bar:.2f} is not full")
            continue
        names, _, number = token.partition(":")
        length = float(number or length)
        if names != "r":
            for name in names.split("+"):
                pitch = pretty_midi.note_name_to_number(name.capitalize())
                notes.append((now, length, pitch))
        now += length
    return notes, now


def read_score(path):
    """Read a score file: (header, {voice: notes}).

    Raises `cli.UserError` if it is malformed or its voices end at different times.
    """
    head, _, body = path.read_text(encoding="utf-8").partition("\n\n")
    texts = {}
    try:
        header = dict(line.split(": ", 1) for line in head.splitlines())
        for key in NUMBERS:
            if key != "pedal" or key in header:
                header[key] = float(header[key])
        for part in filter(str.strip, re.split(r"[;\n]", body)):
            voice, text = part.split(":", 1)
            texts[voice.strip()] = texts.get(voice.strip(), "") + text
        voices = {voice: read_voice(text, header["bar"]) for voice, text in texts.items()}
    except (ValueError, KeyError) as error:
        raise cli.UserError(f"{path}: {error}; correct the score") from None
    ends = {voice: end for voice, (_, end) in voices.items()}
    if len(set(ends.values())) != 1:
        raise cli.UserError(f"{path}: the voices end at {ends}; correct the score")
    return header, {voice: notes for voice, (notes, _) in voices.items()}


def perform(header, voices, seed):
    """Turn a score into a `pretty_midi.PrettyMIDI` with one track per voice.

    The velocity is the piece's ``dynamic`` plus an arch over four bars, an accent at each bar's
    beginning and noise; the left hand is softer. Onsets move by a few milliseconds. The same
    ``seed`` gives the same file.
    """
    rng = np.random.default_rng(seed)
    unit = 60 / header["tempo"] / header["beat"]
    bar, dynamic = header["bar"], header["dynamic"]
    music = pretty_midi.PrettyMIDI(resolution=960, initial_tempo=header["tempo"])
    for voice, notes in voices.items():
        track = pretty_midi.Instrument(0, name=voice)
        for start, length, pitch in notes:
            velocity = dynamic + ARCH * np.sin(np.pi * (start / bar % 4) / 4)
            if start % bar == 0:
                velocity += ACCENT
            if voice.startswith("left"):
                velocity += LEFT
            velocity += rng.normal(0, SPREAD)
            onset = max(0, start * unit + rng.normal(0, JITTER))
            end = onset + length * unit * ARTICULATION
            track.notes.append(pretty_midi.Note(int(np.clip(velocity, 20, 120)), pitch, onset, end))
        if "pedal" in header:
            end = max(note.end for note in track.notes)
            track.control_changes = press_pedal(header["pedal"] * unit, end)
        music.instruments.append(track)
    return music


def press_pedal(every, end):
    """Make pedal events: the sustain pedal lifts briefly every ``every`` seconds until ``end``."""
    changes = []
    for time in np.arange(0, end, every):
        changes += [
            pretty_midi.ControlChange(64, 0, max(0, time - 0.02)),
            pretty_midi.ControlChange(64, 127, time + 0.04),
        ]
    return [*changes, pretty_midi.ControlChange(64, 0, end)]


def write(path, music):
    """Write a `pretty_midi.PrettyMIDI`.

    An identical file is not rewritten and keeps its date, so step 1 keeps its audio.
    """
    buffer = io.BytesIO()
    music.write(buffer)
    if not path.is_file() or path.read_bytes() != buffer.getvalue():
        with complete(path) as part:
            part.write_bytes(buffer.getvalue())


@cli.command
def main(argv=None):
    """Parse flags, write every piece."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--midi_path", type=Path, required=True, help="folder to write the MIDI files to"
    )
    args = parser.parse_args(argv)
    for path in sorted(SCORES.glob("*.txt")):
        header, voices = read_score(path)
        music = perform(header, voices, zlib.crc32(path.stem.encode()))
        write(args.midi_path / f"{path.stem}.mid", music)
        print(
            f"{path.stem}.mid  {music.get_end_time():5.1f} s  "
            f"{header['composer']}: {header['title']} ({header['what']})"
        )


if __name__ == "__main__":
    raise SystemExit(main())
