"""Measure steps 1 and 2 on one core, stage by stage, and a straightforward implementation.

    python benchmarks/data_preparation.py --nsynth_path notes --midi_path midi
    python benchmarks/data_preparation.py --nsynth_path notes --midi_path midi --pieces 20 --hours 3

Prints x real time: seconds of music per second of processor time (user and system). The baseline
renders at 16 kHz in float64, resamples the piece, and computes the phase without using it. It is
slow, so only the first quarter of the pieces is used for it and for the comparison. Memory is the
process's peak so far.
"""

import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # before numpy reads them; an importing module keeps its threads
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import cli  # isort: skip  # first: explains a missing package in one line
import librosa
import numpy as np
from measure import Stopwatch, find_midi

import compute_features
import data
import NoteSynthesizer as synthesis
from synthesis import rendering, scores

NOTE_RATE = 16000  # Hz


def baseline_render(score, notes):
    """Add notes one by one, each with its own envelope.

    Args:
        score: array of `scores.NOTE`.
        notes: {(pitch, velocity): float64 (n,) at NOTE_RATE}.

    Returns:
        float64 (n,) at NOTE_RATE, with a peak of 1.
    """
    seconds = (score["onset"] + score["duration"]).max() + 5
    audio = np.zeros(int(seconds * NOTE_RATE))
    for onset, duration, pitch, velocity in score.tolist():
        note = notes[pitch, velocity].copy()
        held, start = round(duration * NOTE_RATE), round(onset * NOTE_RATE)
        note[held:] *= np.exp(-np.arange(max(len(note) - held, 0)) / 3000)
        note = note[: held + NOTE_RATE]
        audio[start : start + len(note)] += note
    return audio / np.abs(audio).max()


def baseline_resample(audio, to_note_rate=False):
    """Resample float (n,) from NOTE_RATE to 44.1 kHz, or back with ``to_note_rate``: float64."""
    rates = {"orig_sr": NOTE_RATE, "target_sr": data.SAMPLE_RATE}
    if to_note_rate:
        rates = {"orig_sr": data.SAMPLE_RATE, "target_sr": NOTE_RATE}
    return librosa.resample(audio.astype(float), **rates)


def baseline_features(audio):
    """Compute magnitude, phase, dB and tiles: float (n,) -> float64 (tiles, 256, 256, 1)."""
    spectrum = librosa.stft(
        audio, n_fft=data.N_FFT, hop_length=data.HOP_LENGTH, window=data.WINDOW, dtype=np.complex128
    )
    mag, phase = librosa.magphase(spectrum)
    mag = mag * 2 / data.WINDOW.sum()
    db = (20 * np.log1p(mag / data.AMIN)) / (20 * np.log1p(1 / data.AMIN))
    np.angle(phase)
    return data.slice_tiles(db[: data.BINS])


def join_scores(scores, hours):
    """Join the pieces, repeated, to one score of ``hours``."""
    parts, end = [], 0.0
    while end < hours * 3600:
        part = scores[len(parts) % len(scores)].copy()
        part["onset"] += end
        end = (part["onset"] + part["duration"]).max()
        parts.append(part)
    return np.concatenate(parts)


def read_scores(paths):
    """Read the scores of MIDI files."""
    return [scores.read_score(path) for path in paths]


def seconds_of(scores):
    """Length of the scores' rendered audio, s."""
    return sum(synthesis.length(score) for score in scores) / data.SAMPLE_RATE


def warm_up(watch, score, bank, folder):
    """Load all notes of a bank and process one piece, so that start-up costs are measured apart."""

    def load():
        for key in bank.paths:
            bank.note(*key)

    watch.run(f"bank of {len(bank.paths)} notes", load)
    path = folder / "first.wav"
    watch.run("first piece, rendered and written", rendering.write_piece, path, score, bank)
    compute_features.write_tiles(path, folder / "first.npy")


def time_ours(watch, name, scores, bank, folder):
    """Measure steps 1 and 2.

    Args:
        watch: `Stopwatch`.
        name: of the pieces, for printing.
        scores: list of arrays of `scores.NOTE`.
        bank: `NoteBank`.
        folder: output folder.

    Returns:
        Processor time, s per s of music.
    """
    audios = [folder / f"{number}.wav" for number in range(len(scores))]

    def render():
        for path, score in zip(audios, scores):
            rendering.write_piece(path, score, bank)

    def compute():
        for path in audios:
            compute_features.write_tiles(path, path.with_suffix(".npy"))

    music = seconds_of(scores)
    stages = [f"{name}, rendered and written", f"{name}, features"]
    watch.run(stages[0], render, music=music)
    watch.run(stages[1], compute, music=music)
    return watch.add_up(f"{name}, together", stages, music) / music


def time_long_piece(watch, scores, bank, hours, folder):
    """Measure step 1 on one piece of ``hours``."""
    long = folder / "long.wav", join_scores(scores, hours), bank
    watch.run(f"one piece of {hours:g} h", rendering.write_piece, *long, music=hours * 3600)


def time_baseline(watch, scores, bank):
    """Measure the straightforward implementation. Returns processor time, s per s of music."""
    notes = {}
    for score in scores:
        for key in zip(score["pitch"].tolist(), score["velocity"].tolist()):
            if key not in notes:
                notes[key] = baseline_resample(bank.note(*key), to_note_rate=True)
    music = seconds_of(scores)

    def render():
        return [baseline_render(score, notes) for score in scores]

    def resample(rendered):
        return [baseline_resample(audio) for audio in rendered]

    def compute(resampled):
        for audio in resampled:
            baseline_features(audio)

    stages = ["baseline: render", "baseline: resample", "baseline: features"]
    rendered = watch.run(stages[0], render, music=music)
    resampled = watch.run(stages[1], resample, rendered, music=music)
    watch.run(stages[2], compute, resampled, music=music)
    return watch.add_up("baseline together", stages, music) / music


@cli.command
def main(argv=None):
    """Parse flags and run all stages."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--nsynth_path", type=Path, required=True, help="folder of single notes")
    add("--midi_path", type=Path, required=True, help="folder of MIDI files")
    add("--instrument", default="keyboard_acoustic", help="instrument whose notes are used")
    first = "number of MIDI files, the first by name"
    add("--pieces", type=cli.number(int, 1), default=8, help=first)
    length = "length of one long piece, hours; 0: none"
    add("--hours", type=cli.number(float, 0, 4), default=3.0, help=length)
    args = parser.parse_args(argv)
    watch = Stopwatch()
    paths = find_midi(args.midi_path)[: args.pieces]
    scores = watch.run("MIDI files", read_scores, paths)
    few = scores[: max(1, len(scores) // 4)]
    bank = synthesis.NoteBank(args.nsynth_path, args.instrument)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm_up(watch, scores[0], bank, folder)
        time_ours(watch, f"{len(scores)} pieces", scores, bank, folder)
        if args.hours:
            time_long_piece(watch, scores, bank, args.hours, folder)
        ours = time_ours(watch, f"first {len(few)}", few, bank, folder)
        baseline = time_baseline(watch, few, bank)
    print(f"{baseline / ours:.1f} times as fast as the baseline")


if __name__ == "__main__":
    raise SystemExit(main())
