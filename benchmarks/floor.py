"""How low can the error go? What of a target's picture cannot be known from the input's, for it hangs on phases.

    python benchmarks/floor.py --nsynth_path notes --midi_path midi

Where partials of two notes meet, the magnitude depends on their phases, which a shift of a note by a fraction of a millisecond
turns, and which no magnitude of another instrument tells. So each piece is rendered several times with every onset moved by
up to --jitter, which nobody hears, and each rendering is compared with the best guess that the others give: their median, bin
by bin (the guess that has the least mean absolute error). Prints spectrogram MAE in dB, mean over pieces, by instrument.
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import cli
import data
import metrics
from midi import read_score
from NoteSynthesizer import DEFAULT_INSTRUMENTS, NoteBank, render


def jittered(score, bank, jitter, rng):
    """Picture (256, t) of a score whose onsets are moved by up to ``jitter`` seconds either way."""
    score = score.copy()
    score["onset"] = np.maximum(0, score["onset"] + rng.uniform(-jitter, jitter, len(score)))
    return data.spectrogram(np.concatenate(list(render(np.sort(score, order="onset"), bank, bank.gain))))


def floor(score, bank, jitter, count, rng):
    """Mean MAE in dB between each of ``count`` renderings and the median of the others."""
    pictures = [jittered(score, bank, jitter, rng) for _ in range(count)]
    frames = min(picture.shape[1] for picture in pictures)
    pictures = np.stack([picture[:, :frames] for picture in pictures])
    others = [np.median(np.delete(pictures, k, axis=0), axis=0) for k in range(count)]
    return np.mean([metrics.picture_mae(picture, guess) for picture, guess in zip(pictures, others)])


@cli.command
def main(argv=None):
    """Parse flags, measure, print a table."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--nsynth_path", type=Path, required=True, help="folder of single notes")
    add("--midi_path", type=Path, required=True, help="folder of MIDI files")
    add("--instruments", nargs="+", default=DEFAULT_INSTRUMENTS, help="as NSynth names them")
    add("--pieces", type=cli.number(int, 1), default=9, help="number of pieces, evenly spaced over the sorted files")
    add("--seconds", type=cli.number(float, 1), default=30, help="of each piece")
    add("--jitter", type=cli.number(float, 0), nargs="+", default=[0.2, 1], help="largest shift of an onset, ms")
    add("--renderings", type=cli.number(int, 2), default=9, help="of each piece")
    args = parser.parse_args(argv)
    files = cli.find_files(args.midi_path, (".mid", ".midi"))
    files = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, args.pieces).astype(int))]
    scores = [score[score["onset"] < args.seconds] for score in map(read_score, files)]
    print("| instrument |" + "".join(f" {ms:g} ms |" for ms in args.jitter) + "\n|---|" + "---:|" * len(args.jitter))
    for instrument in args.instruments:
        bank, cells = NoteBank(args.nsynth_path, instrument), []
        for jitter in args.jitter:
            rng = np.random.default_rng(0)
            floors = [floor(s, bank, jitter / 1000, args.renderings, rng) for s in tqdm(scores, instrument, leave=False)]
            cells.append(f"{np.mean(floors):.2f} ± {np.std(floors):.2f}")
        print(f"| {instrument} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
