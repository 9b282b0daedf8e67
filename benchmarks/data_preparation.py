"""Speed of steps 1 and 2 on one core, stage by stage, beside a straightforward implementation; and peak memory.

    python benchmarks/data_preparation.py --nsynth_path notes --midi_path midi
    python benchmarks/data_preparation.py --nsynth_path notes --midi_path midi --pieces 20 --hours 3

Prints x real time: seconds of music per second of processor time (user and system). The baseline renders at 16 kHz in
float64, resamples the piece, and computes the phase to throw it away. Memory is the process's peak up to that stage.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import librosa
import numpy as np

import cli
import compute_features
import data
import midi
import NoteSynthesizer as synthesis

NOTE_RATE = 16000  # Hz


def baseline_render(score, notes):
    """Notes added one by one at 16 kHz, float64, each with an envelope of its own."""
    audio = np.zeros(int(((score["onset"] + score["duration"]).max() + 5) * NOTE_RATE))
    for onset, duration, pitch, velocity in score.tolist():
        note = notes[pitch, velocity].copy()
        held, start = round(duration * NOTE_RATE), round(onset * NOTE_RATE)
        note[held:] *= np.exp(-np.arange(max(len(note) - held, 0)) / 3000)
        note = note[: held + NOTE_RATE]
        audio[start : start + len(note)] += note
    return audio / np.abs(audio).max()


def baseline_features(audio):
    """Magnitude and phase in float64, dB, tiles."""
    spectrum = librosa.stft(
        audio, n_fft=data.N_FFT, hop_length=data.HOP_LENGTH, window=data.WINDOW, dtype=np.complex128
    )
    mag, phase = librosa.magphase(spectrum)
    mag = mag * 2 / data.WINDOW.sum()
    db = (20 * np.log1p(mag / data.AMIN)) / (20 * np.log1p(1 / data.AMIN))
    np.angle(phase)
    return data.slice_tiles(db[: data.BINS])


class Stopwatch:
    """Processor time and peak memory of calls, printed as they come."""

    def __init__(self):
        self.seconds = {}

    def __call__(self, name, function, music=0.0):
        """Run ``function``, print what it took for ``music`` seconds of music, and return what it returned."""
        start = time.process_time()
        result = function()
        took = self.seconds[name] = time.process_time() - start
        speed = f"{music / took:8,.0f} x real time" if music else ""
        print(f"{name:38s} {took:8.2f} s  peak {memory():5.2f} GiB {speed}", flush=True)
        return result

    def sum(self, name, music, *names):
        """Print the speed of several stages together."""
        took = sum(self.seconds[n] for n in names)
        print(f"{name:38s} {took:8.2f} s {'':16s} {music / took:8,.0f} x real time")
        return took


def memory():
    """Peak memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**30 if sys.platform == "darwin" else 2**20
    )


def long_score(scores, hours):
    """The pieces one after the other, again and again, for ``hours``."""
    parts, end = [], 0.0
    while end < hours * 3600:
        part = scores[len(parts) % len(scores)].copy()
        part["onset"] += end
        end = (part["onset"] + part["duration"]).max()
        parts.append(part)
    return np.concatenate(parts)


def run(args, folder):
    """All stages."""
    paths = cli.find_files(args.midi_path, (".mid", ".midi"))[: args.pieces]
    watch = Stopwatch()
    scores = watch("MIDI files", lambda: [midi.read_score(path) for path in paths])
    bank = synthesis.NoteBank(args.nsynth_path, args.instrument)
    watch(f"bank of {len(bank.paths)} notes", lambda: [bank.note(*key) for key in bank.paths])
    music = sum(synthesis.length(score) for score in scores) / data.SAMPLE_RATE
    audios = [folder / f"{number}.wav" for number in range(len(scores))]
    watch(
        "first piece, rendered and written",
        lambda: synthesis.write_piece(audios[0], scores[0], bank),
    )
    watch(
        f"{len(scores)} pieces, rendered and written",
        lambda: [synthesis.write_piece(*piece, bank) for piece in zip(audios, scores)],
        music,
    )
    if args.hours:
        lasting = long_score(scores, args.hours)
        name = f"one piece of {args.hours:g} h"
        watch(
            name,
            lambda: synthesis.write_piece(folder / "long.wav", lasting, bank),
            args.hours * 3600,
        )
    compute_features.write_tiles(audios[0], folder / "warm.npy")
    watch(
        "features",
        lambda: [compute_features.write_tiles(path, path.with_suffix(".npy")) for path in audios],
        music,
    )

    pairs = {
        pair
        for score in scores
        for pair in zip(score["pitch"].tolist(), score["velocity"].tolist())
    }
    notes = {
        pair: librosa.resample(
            bank.note(*pair).astype(float), orig_sr=data.SAMPLE_RATE, target_sr=NOTE_RATE
        )
        for pair in pairs
    }
    few = scores[: max(1, len(scores) // 4)]  # it is slow
    some = sum(synthesis.length(score) for score in few) / data.SAMPLE_RATE
    audio = watch(
        "baseline: render", lambda: [baseline_render(score, notes) for score in few], some
    )
    audio = watch(
        "baseline: resample",
        lambda: [librosa.resample(a, orig_sr=NOTE_RATE, target_sr=data.SAMPLE_RATE) for a in audio],
        some,
    )
    watch("baseline: features", lambda: [baseline_features(a) for a in audio], some)
    ours = (
        watch.sum("together", music, f"{len(scores)} pieces, rendered and written", "features")
        / music
    )
    slow = (
        watch.sum(
            "baseline together",
            some,
            "baseline: render",
            "baseline: resample",
            "baseline: features",
        )
        / some
    )
    print(f"{slow / ours:.1f} times as fast as the baseline")


@cli.command
def main(argv=None):
    """Parse flags and run."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--nsynth_path", type=Path, required=True, help="folder of single notes")
    parser.add_argument("--midi_path", type=Path, required=True, help="folder of MIDI files")
    parser.add_argument("--instrument", default="keyboard_acoustic", help="whose notes to use")
    parser.add_argument(
        "--pieces",
        type=cli.number(int, 1),
        default=8,
        help="MIDI files to take, the first ones by name",
    )
    parser.add_argument(
        "--hours",
        type=cli.number(float, 0, 4),
        default=3.0,
        help="length of one long piece; 0: none",
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        run(args, Path(folder))


if __name__ == "__main__":
    raise SystemExit(main())
