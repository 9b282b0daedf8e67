"""Notes that a piano transcriber, transkun, hears in recordings of known scores.

    python3 -m venv transkun && transkun/bin/pip install transkun soundfile soxr
    transkun/bin/python benchmarks/transkun_notes.py --scores tables/report/scores \\
        --recordings tables/report/sounds/grand

--scores has the MIDI files, each folder of --recordings has recordings (wav, flac) with the same
names, as docs/make_tables.py leaves them. Prints two numbers for each folder: the F1 of onsets
within 50 ms and a quarter tone (mir_eval), and the notes found in relation to those of the score.
Both are mean ± standard deviation over recordings. transkun was trained on pianos; compare what it
finds in an output with what it finds in the true target.

transkun (Yan and Duan 2024, MIT, its package contains the weights) needs PyTorch, so it is
installed in a separate environment and is not a requirement of this project.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np

from common.cli import UserError
from common.files import find_named

EXTENSIONS = (".wav", ".flac")
LAST = 0.5  # s: notes that start in this time before the end are left out, on both sides


def load_transcriber(segment):
    """Load transkun: a function of audio (n,) at 44.1 kHz -> (onsets in s, pitches), arrays.

    Args:
        segment: see --segment.
    """
    import moduleconf
    import torch
    import transkun
    from transkun.Data import Note  # noqa: F401  its checkpoint needs it

    folder = Path(transkun.__file__).parent / "pretrained"
    settings = moduleconf.parseFromFile(str(folder / "2.0.conf"))
    model = settings["Model"].module.TransKun(conf=settings["Model"].config)
    stored = torch.load(folder / "2.0.pt", map_location="cpu", weights_only=False)
    model.load_state_dict(stored.get("best_state_dict", stored.get("state_dict")), strict=False)
    model.eval()

    def hear(audio):
        stereo = torch.from_numpy(np.stack([audio, audio], axis=1).astype(np.float32))
        with torch.no_grad():
            notes = model.transcribe(stereo, segment, segment)
        notes = [note for note in notes if note.pitch > 0]  # below: pedals
        return np.array([n.start for n in notes]), np.array([n.pitch for n in notes])

    return hear


def read_recording(path):
    """Read a recording as mono: float32 (n,) at 44.1 kHz."""
    import soundfile
    import soxr

    audio, rate = soundfile.read(path, always_2d=True, dtype="float32")
    return soxr.resample(audio.mean(axis=1), rate, 44100)


def read_notes(path, seconds):
    """Read a MIDI file's notes that start in the first ``seconds``: (onsets in s, pitches)."""
    import pretty_midi

    notes = []
    for player in pretty_midi.PrettyMIDI(str(path)).instruments:
        notes += player.notes
    notes = sorted((note.start, note.pitch) for note in notes)
    onsets, pitches = np.array(notes).reshape(-1, 2).T
    return cut_notes(onsets, pitches, seconds)


def cut_notes(onsets, pitches, seconds):
    """Leave out notes that start in the last `LAST` s: (onsets, pitches)."""
    kept = onsets < seconds - LAST
    return onsets[kept], pitches[kept]


def compare_notes(heard, written):
    """F1 of the onsets, and the number of notes heard in relation to those of the score."""
    if not len(heard[0]) or not len(written[0]):  # mir_eval would warn
        return float(len(heard[0]) == len(written[0])), len(heard[0]) / max(len(written[0]), 1)
    from mir_eval.transcription import precision_recall_f1_overlap

    both = []
    for onsets, pitches in (written, heard):
        intervals = np.stack([onsets, onsets + 0.1], axis=1)
        both += [intervals, 440 * 2 ** ((pitches - 69.0) / 12)]
    f1 = precision_recall_f1_overlap(*both, offset_ratio=None)[2]
    return float(f1), len(heard[0]) / len(written[0])


def measure_folder(hear, folder, scores, limit=None, longest=None):
    """Measure a folder's recordings: {name: (F1, notes in relation to the score's)}.

    Args:
        hear: from `load_transcriber`.
        folder: path.
        scores: {name: path of the MIDI file}.
        limit: number of recordings, the first by name; None: all.
        longest: s of each recording; None: all.

    Raises:
        UserError: no recording is named like a score.
    """
    found = {}
    for name, path in sorted(find_named(folder, EXTENSIONS).items())[:limit]:
        if name in scores:
            audio = read_recording(path)
            audio = audio[: round(longest * 44100)] if longest else audio
            seconds = len(audio) / 44100
            heard = cut_notes(*hear(audio), seconds)
            found[name] = compare_notes(heard, read_notes(scores[name], seconds))
    if not found:
        raise UserError(f"{folder}: no recording is named like a score; give another folder")
    return found


@cli.command
def main(argv=None):
    """Transcribe each folder's recordings, print."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--scores", type=Path, required=True, help="folder of the scores")
    add("--recordings", type=Path, nargs="+", required=True, help="folders to measure")
    add(
        "--segment",
        type=cli.seconds(low_open=True),
        help="length of the parts that are heard, side by side; notes that sound at the end of a "
        "part are lost, so give more than --seconds; default: 16 s that overlap by half, slower",
    )
    add("--seconds", type=cli.seconds(low_open=True), help="only the first seconds of each")
    add("--limit", type=cli.number(int, 1), help="the first n recordings only")
    add("--json", action="store_true", help="print {folder: {name: [F1, notes]}} instead of lines")
    args = parser.parse_args(argv)
    scores = find_named(args.scores, (".mid", ".midi"))
    if not scores:
        raise UserError(f"--scores {args.scores}: holds no MIDI file; check the path")
    hear = load_transcriber(args.segment)
    measured = {}
    for folder in args.recordings:
        measured[str(folder)] = measure_folder(hear, folder, scores, args.limit, args.seconds)
        if not args.json:
            print(describe(folder, measured[str(folder)]), flush=True)
    if args.json:
        print(json.dumps(measured))
    return 0


def describe(folder, found):
    """Format one folder's line."""
    values = np.array(list(found.values()))
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(2)
    f1, notes = [f"{mean:.2f} ± {each:.2f}" for mean, each in zip(values.mean(axis=0), spread)]
    return f"{folder}: F1 {f1}, notes found / written {notes}, n {len(values)}"


if __name__ == "__main__":
    raise SystemExit(main())
