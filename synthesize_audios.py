"""Step 1: render MIDI files with single notes, once for each instrument.

    python synthesize_audios.py --nsynth_path nsynth-train --midi_path midi --audios_path audios
    python synthesize_audios.py --nsynth_path notes --midi_path midi --audios_path audios --transpose -2 0 2

Reads .mid and .midi files below --midi_path and writes <audios>/<instrument>/<sub/folders>/<piece>.wav, 44.1 kHz mono 16 bit;
of several transpositions or speeds each combination becomes a piece of its own, such as <piece>~t+2~s0.9.wav.
A wav that is there and newer than its MIDI file is kept. Exit code 2 if some MIDI file had to be left out.
"""

import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import itertools
import sys
import time
from collections import Counter
from pathlib import Path

import parallel
from cli import UserError
from data import SAMPLE_RATE
from midi import change_score, read_score, version_name
from NoteSynthesizer import (
    DEFAULT_INSTRUMENTS,
    LEVEL,
    MAX_SHIFT,
    NoteBank,
    describe,
    note_prefix,
    render_task,
)

FORMAT = 1  # raised whenever the same settings come to give other samples


def find_versions(midi_path, speeds, transposes):
    """All pieces to make: {name: (MIDI file, speed, semitones)}. Raises UserError if there is none, or a name twice."""
    versions = {}
    for path in cli.find_files(midi_path, (".mid", ".midi")):
        piece = path.relative_to(midi_path).with_suffix("").as_posix()
        for speed, transpose in itertools.product(speeds, transposes):
            name = version_name(piece, transpose, speed)
            if name in versions:
                raise UserError(
                    f"{path}: would be {name}.wav, and so would {versions[name][0].name}; rename one"
                )
            versions[name] = path, speed, transpose
    if not versions:
        raise UserError(f"{midi_path}: holds no .mid or .midi file; check the path")
    return versions


def check_settings(audios, settings, fresh=False):
    """Write audios.json, or refuse if the audio in the folder was made with other settings or other notes.

    ``fresh`` deletes that audio first: the wav files of the instruments that audios.json names.
    """
    path = audios / "audios.json"
    found = cli.read_json(path, f"delete {audios} and start over", notes=dict) or settings
    notes = found["notes"]
    if fresh:
        for folder in (audios / instrument for instrument in notes if note_prefix(instrument)):
            for wav in cli.find_files(folder, (".wav",)) if folder.is_dir() else ():
                wav.unlink()
        found, notes = settings, {}
    changed = [
        f"{key} {found.get(key)}"
        for key, value in settings.items()
        if key != "notes" and found.get(key) != value
    ]
    changed += [
        f"other notes of {name}"
        for name, value in settings["notes"].items()
        if notes.get(name, value) != value
    ]
    if changed:
        raise UserError(
            f"{path}: the audio there was made with {', '.join(changed)}; choose another folder or give --fresh"
        )
    cli.write_json(path, settings | {"notes": notes | settings["notes"]}, indent=2)


def read_checked(path, pedal, changes):
    """A file's score. Raises UserError if it, or a version that is asked for, cannot be had."""
    score = read_score(path, pedal)
    try:
        for change in changes:
            change_score(score, *change)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return score


def read_scores(paths, pedal, changes, run):
    """Parse MIDI files: ({path: score}, [UserError])."""
    tasks = [(read_checked, path.absolute(), pedal, changes) for path in paths]
    results = run(parallel.attempt, tasks, unit="file", desc="reading")
    scores = {
        path: result for path, result in zip(paths, results) if not isinstance(result, UserError)
    }
    return scores, [result for result in results if isinstance(result, UserError)]


def render_instrument(instrument, versions, scores, args, run):
    """Render what one instrument lacks, and say what was done with the notes. Returns (pieces rendered, samples)."""
    bank, tasks = (str(args.nsynth_path.absolute()), instrument, args.max_shift), []
    for name, (midi, speed, transpose) in versions.items():
        wav = args.audios_path / instrument / f"{name}.wav"
        if midi in scores and not parallel.is_done(wav, midi):
            # the score in a tuple: alone, joblib would hand it to one Dask worker for all, and it would be lost with that one
            tasks.append(
                (wav.absolute(), (scores[midi], speed, args.duration_rate, transpose), bank)
            )
    tasks.sort(
        key=lambda task: -len(task[1][0])
    )  # the longest first: no worker is left alone with it at the end
    results = run(render_task, tasks, [wav for wav, *_ in tasks], unit="piece", desc=instrument)
    counts, lowered, samples = zip(*results) if results else ((), (), ())
    note = (
        f"; {sum(lowered)} of {len(tasks)} pieces made lower, they would have clipped"
        if any(lowered)
        else ""
    )
    print(
        f"{instrument}: {describe(sum(counts, Counter()))}{note}"
        if tasks
        else f"{instrument}: nothing to do"
    )
    return len(tasks), sum(samples)


def parse_flags(argv):
    """The flags, checked."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--nsynth_path",
        type=Path,
        required=True,
        help="folder of single notes: an NSynth split, or made by render_notes.py",
    )
    add("--midi_path", type=Path, required=True, help="folder of MIDI files")
    add("--audios_path", "--audios", type=Path, required=True, help="where the audio goes")
    add(
        "--instruments",
        nargs="+",
        default=DEFAULT_INSTRUMENTS,
        help="as NSynth names them; preset: organ_electronic_001",
    )
    add(
        "--playback_speed",
        type=cli.number(float, 0.1, 10),
        nargs="+",
        default=[1.0],
        help="2 plays twice as fast",
    )
    add(
        "--duration_rate",
        type=cli.number(float, 0, 100, True),
        default=1.0,
        help="factor of notes' durations; onsets stay",
    )
    add("--transpose", type=cli.number(int, -60, 60), nargs="+", default=[0], help="semitones")
    add("--no_pedal", action="store_true", help="ignore the sustain pedal")
    add(
        "--max_shift",
        type=cli.number(int, 0, 48),
        default=MAX_SHIFT,
        help="semitones that a note may be resampled by",
    )
    parallel.worker_flags(parser)
    add(
        "--fresh",
        action="store_true",
        help="delete all wav files of the instruments made before, and start over",
    )
    args = parser.parse_args(argv)
    for name in ("instruments", "playback_speed", "transpose"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


@cli.command
def main(argv=None):
    """Render what is missing, report."""
    args = parse_flags(argv)
    start = time.time()
    versions = find_versions(args.midi_path, args.playback_speed, args.transpose)
    notes = {name: NoteBank(args.nsynth_path, name).fingerprint() for name in args.instruments}
    check_settings(
        args.audios_path,
        {
            "format": FORMAT,
            "sample_rate": SAMPLE_RATE,
            "level": LEVEL,
            "pedal": not args.no_pedal,
            "duration_rate": args.duration_rate,
            "max_shift": args.max_shift,
            "notes": notes,
        },
        args.fresh,
    )
    wanted = {
        midi
        for name, (midi, _, _) in versions.items()
        if not all(
            parallel.is_done(args.audios_path / instrument / f"{name}.wav", midi)
            for instrument in args.instruments
        )
    }
    changes = [
        (speed, args.duration_rate, transpose)
        for speed in args.playback_speed
        for transpose in args.transpose
    ]
    with parallel.engine(args.workers, args.dask) as run:
        scores, errors = read_scores(sorted(wanted), not args.no_pedal, changes, run)
        for error in errors:
            print(f"synthesize_audios.py: left out: {cli.one_line(error)}", file=sys.stderr)
        done = [
            render_instrument(instrument, versions, scores, args, run)
            for instrument in args.instruments
        ]
    pieces, music = (
        sum(count for count, _ in done),
        sum(samples for _, samples in done) / SAMPLE_RATE,
    )
    seconds = time.time() - start
    left_out = len(errors) * len(changes) * len(args.instruments)
    print(
        f"{pieces:,} pieces rendered, {len(versions) * len(args.instruments) - pieces - left_out:,} were there,"
        f" {len(errors):,} MIDI files left out\n"
        f"{music / 3600:.2f} h of audio in {seconds:.1f} s ({music / seconds:.0f} x real time) -> {args.audios_path}"
    )
    return 2 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
