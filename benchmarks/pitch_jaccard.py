"""Pitch Jaccard distance of recordings from their targets, as ss-vq-vae and DiffTransfer report it.

    python3 -m venv essentia && essentia/bin/pip install essentia librosa
    essentia/bin/python benchmarks/pitch_jaccard.py --target strings --outputs clarinet converted

Each folder has recordings (wav, flac) with the same names. essentia's MultiPitchMelodia finds
pitches at 16 kHz, which are rounded to semitones. The distance of a frame is
1 - |A and B| / |A or B|; that of a recording is the mean over frames. Equal pitches give 0. Compare
the distance with that of the unchanged input.

essentia has the AGPL licence, so it is installed in a separate environment and is not a requirement
of this project.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np

from common.cli import UserError
from common.files import find_named

RATE = 16000  # Hz
EXTENSIONS = (".wav", ".flac")


def find_recordings(folder):
    """Find a folder's recordings: {name without extension: path}. Raises UserError if none."""
    found = find_named(folder, EXTENSIONS)
    if not found:
        raise UserError(f"{folder}: holds no {' or '.join(EXTENSIONS)}; give another folder")
    return found


def hear_pitches(path):
    """Find the pitches of each frame: list of sets of MIDI numbers."""
    import essentia
    import librosa

    essentia.log.warningActive = essentia.log.infoActive = False
    from essentia.standard import MultiPitchMelodia

    audio, _ = librosa.load(path, sr=RATE)
    low, high = audio.min(), audio.max()
    if high > low:  # to -1 ... 1, as in the published code
        audio = 2 * (audio - low) / (high - low) - 1
    frames = []
    for hertz in MultiPitchMelodia(sampleRate=RATE)(audio.astype(np.float32)):
        frames.append({int(librosa.hz_to_midi(each) + 0.5) for each in hertz if each > 1})
    return frames


def jaccard_distance(a, b):
    """Mean over frames of 1 - |A and B| / |A or B|; 0 if neither has a pitch.

    Args:
        a, b: from `hear_pitches`; the longer one is cut.
    """
    distances = []
    for first, second in zip(a, b):
        either = first | second
        distances.append(1 - len(first & second) / len(either) if either else 0.0)
    return float(np.mean(distances))


def measure_folder(folder, targets):
    """Measure a folder's recordings against ``targets``, {name: pitches}: {name: distance}."""
    found = {}
    for name, path in find_recordings(folder).items():
        if name in targets:
            found[name] = jaccard_distance(hear_pitches(path), targets[name])
    if not found:
        raise UserError(f"{folder}: no recording is named like a target's; give another folder")
    return found


@cli.command
def main(argv=None):
    """Analyse the targets, measure each folder, print."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--target", type=Path, required=True, help="folder of the true recordings")
    add("--outputs", type=Path, nargs="+", required=True, help="folders to measure")
    add("--json", action="store_true", help="print {folder: {name: distance}} instead of a table")
    args = parser.parse_args(argv)
    targets = {name: hear_pitches(path) for name, path in find_recordings(args.target).items()}
    measured = {str(folder): measure_folder(folder, targets) for folder in args.outputs}
    if args.json:
        print(json.dumps(measured))
        return 0
    for folder, distances in measured.items():
        values = list(distances.values())
        spread = np.std(values, ddof=1) if len(values) > 1 else 0
        print(f"{folder}: {np.mean(values):.3f} ± {spread:.3f}, n {len(values)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
