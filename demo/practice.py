"""Write practice pieces for training, all over the piano's range: scales, chords, two hands, leaps.

    python demo/practice.py --midi_path practice --pieces 40 --seconds 60 --seed 0

Key, register, tempo, loudness, touch and pedal change every few seconds, so that a short training
meets many notes. It is not music; it covers notes that a few pieces of music leave out. Piece i of
a seed is always the same and does not depend on --pieces.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
import pretty_midi
from encode import write

from NoteSynthesizer import PITCHES

MODES = (
    (0, 2, 4, 5, 7, 9, 11),  # major
    (0, 2, 3, 5, 7, 8, 11),  # minor
    (0, 2, 4, 7, 9),  # five-tone
    tuple(range(12)),  # all
)
BEATS = 12  # length of one texture
TEMPO = 50, 160  # quarter notes a minute
LOUDNESS = 20, 122  # MIDI velocity of a single line, mean of a section
PEDAL = 70  # MIDI velocity above which the pedal stays up; ringing notes would clip

# A texture is a function of a random generator and the number of steps in the key's pitch ladder.
# It returns notes (beat, length, step), times in beats. Steps outside the ladder are removed later.


def play_scale(rng, steps):
    """A run up and down through a part of the range, or two runs some steps apart."""
    low = rng.integers(steps - 8)
    span = rng.integers(8, 22)
    length = rng.choice([0.25, 0.5, 1.0])
    apart = rng.choice([0, 0, 2, 5, 7])
    path = low + span - np.abs(np.arange(BEATS / length) % (2 * span) - span)
    if rng.random() < 0.5:
        path = 2 * low + span - path
    notes = []
    for i, step in enumerate(path):
        for above in {0, apart}:
            notes.append((i * length, length, step + above))
    return notes


def play_arpeggio(rng, steps):
    """A chord's notes one after another over some octaves.

    Each note is held until the chord changes, or for its own length.
    """
    shape = rng.choice([2, 2, 3, 4])
    length = rng.choice([0.25, 0.5])
    held = rng.random() < 0.4
    notes = []
    for bar in range(0, BEATS, 4):
        low = rng.integers(steps)
        count = rng.integers(4, 9)
        for i in range(int(4 / length)):
            step = low + shape * (count - abs(i % (2 * count) - count))
            lasts = 4 - i * length if held else length
            notes.append((bar + i * length, lasts, step))
    return notes


def play_chords(rng, steps):
    """Chords of two to five notes, some with a bass note."""
    length = rng.choice([0.5, 1.0, 2.0, 4.0])
    notes = []
    for beat in np.arange(0, BEATS, length):
        root = rng.integers(steps)
        count = rng.integers(2, 6)
        shape = np.sort(rng.choice([0, 2, 4, 6, 7, 9], count, replace=False))
        notes += [(beat, length, root + step) for step in shape]
        if rng.random() < 0.3:
            notes.append((beat, length, root - 14))
    return notes


def play_two_hands(rng, steps):
    """A wandering tune above a broken chord that changes every two beats."""
    tune = rng.integers(steps // 3, steps)
    bass = rng.integers(0, max(1, steps // 2))
    notes = []
    beat = 0.0
    while beat < BEATS:
        length = rng.choice([0.25, 0.5, 0.5, 1.0, 1.5])
        notes.append((beat, length, tune))
        tune += rng.integers(-3, 4)
        beat += length
    figure = rng.permutation([0, 2, 4, 7])
    for start in range(0, BEATS, 2):
        notes += [(start + i / 2, 0.5, bass + step) for i, step in enumerate(figure)]
        bass += rng.integers(-3, 4)
    return notes


def play_leaps(rng, steps):
    """One to four notes at a time, from anywhere."""
    length = rng.choice([0.25, 0.5, 1.0, 3.0])
    notes = []
    for beat in np.arange(0, BEATS, length):
        count = rng.integers(1, 5)
        for step in rng.choice(steps, count, replace=False):
            notes.append((beat, length, step))
    return notes


TEXTURES = (play_scale, play_arpeggio, play_chords, play_two_hands, play_leaps)


def make_section(rng):
    """Make one texture: ([pretty_midi.Note] from time 0 on, length in s, whether pedal is down)."""
    beat = 60 / rng.uniform(*TEMPO)  # s
    loudness = rng.uniform(*LOUDNESS)
    touch = rng.uniform(0.4, 1.1)  # sounding fraction of a written length
    tonic = rng.integers(12)
    mode = MODES[rng.integers(len(MODES))]
    ladder = [pitch for pitch in PITCHES if (pitch - tonic) % 12 in mode]
    play = TEXTURES[rng.integers(len(TEXTURES))]
    texture = [note for note in play(rng, len(ladder)) if 0 <= note[2] < len(ladder)]
    together = sum(length for _, length, _ in texture) / BEATS  # notes at a time
    # Amplitude grows with the square of velocity; this keeps the amplitude of the sum
    loudness /= max(1, together) ** 0.5
    notes = []
    for start, length, step in texture:
        velocity = int(np.clip(loudness + 10 * np.sin(start) + rng.normal(0, 6), 1, 127))
        onset = max(0, start * beat + rng.normal(0, 0.005))
        end = onset + length * beat * touch
        notes.append(pretty_midi.Note(velocity, ladder[int(step)], onset, end))
    pedal = loudness < PEDAL and rng.random() < 0.4
    return notes, BEATS * beat, pedal


def make_piece(seed, number, seconds):
    """Make piece ``number`` of ``seed``, ``seconds`` long: `pretty_midi.PrettyMIDI`."""
    rng = np.random.default_rng((seed, number))
    music = pretty_midi.PrettyMIDI(resolution=960)
    piano = pretty_midi.Instrument(0)
    now = 0.0  # s
    while now < seconds:
        notes, lasts, pedal = make_section(rng)
        for note in notes:
            note.start += now
            note.end = min(note.end + now, seconds)
        piano.notes += [note for note in notes if note.end > note.start]
        piano.control_changes.append(pretty_midi.ControlChange(64, 127 * pedal, now))
        now += lasts
    piano.control_changes.append(pretty_midi.ControlChange(64, 0, seconds))
    music.instruments.append(piano)
    return music


@cli.command
def main(argv=None):
    """Parse flags, write the pieces."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--midi_path", type=Path, required=True, help="folder to write the MIDI files to")
    add("--pieces", type=cli.number(int, 1), default=40, help="number of pieces")
    add("--seconds", type=cli.number(float, 1, 3600), default=60.0, help="length of each piece, s")
    add("--seed", type=cli.number(int, 0), default=0, help="random seed")
    args = parser.parse_args(argv)
    for number in range(args.pieces):
        piece = make_piece(args.seed, number, args.seconds)
        write(args.midi_path / f"practice_{number:03d}.mid", piece)
    print(f"{args.pieces} pieces of {args.seconds:g} s -> {args.midi_path}")


if __name__ == "__main__":
    raise SystemExit(main())
