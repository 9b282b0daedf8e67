"""Step 1: render MIDI files with the single notes of each instrument.

    python synthesize_audios.py --nsynth_path nsynth-train --midi_path midi --audios_path audios
    python synthesize_audios.py --nsynth_path notes --midi_path midi --audios_path audios \\
        --transpose -2 0 2

Reads MIDI files (.mid, .midi, .kar, .rmi) below --midi_path. Writes
<audios>/<instrument>/<sub/folders>/<piece>.wav, 44.1 kHz mono 16 bit. Each combination of
--transpose and --playback_speed gives another piece, such as <piece>~t+2~s0.9.wav. Damaged MIDI
files are read as far as possible, and repairs are reported.

The script rebuilds a wav whose MIDI file or settings have changed; <audios>/.made.jsonl records
them. It never overwrites other files. Exit code 2 if a MIDI file was left out.
"""

from common import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import itertools
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from common import parallel
from common.cli import UserError
from common.files import MEND, find_named, is_spared, look_for_files, read_json, write_json
from common.names import MIDI_EXTENSIONS, piece_of, version_name
from common.record import DUE, FOREIGN, Record
from data import SAMPLE_RATE
from NoteSynthesizer import (
    DEFAULT_INSTRUMENTS,
    LEVEL,
    MAX_SHIFT,
    NoteBank,
    describe_placings,
    note_prefix,
)
from synthesis.rendering import render_task
from synthesis.scores import change_score, read_repaired

FORMAT = 1  # raise it when a change of the code changes the samples
MAX_NAME = 255  # bytes, longest file name on common file systems


class Version(NamedTuple):
    """A version of a score: speed and transposition."""

    name: str  # of the wav, relative to the instrument's folder, without extension
    midi: Path
    speed: float
    transpose: int  # semitones


class Rendering(NamedTuple):
    """A wav file: a version of a score, played by one instrument."""

    wav: Path
    version: Version
    settings: dict  # all other settings that determine its samples


def find_versions(midi_path, speeds, transposes):
    """Find all versions of all scores.

    Returns:
        (list of `Version`, scores whose name is too long for their audio's: list of paths,
        what cannot be looked at: list of paths relative to ``midi_path``).

    Raises:
        UserError: there is none, or two would have the same name.
    """
    versions = {}
    too_long = []
    found = look_for_files(midi_path, MIDI_EXTENSIONS)
    for path in found.files:
        piece = path.relative_to(midi_path).with_suffix("").as_posix()
        for speed, transpose in itertools.product(speeds, transposes):
            name = version_name(piece, transpose, speed)
            if name in versions:
                other = versions[name].midi
                if other == path:
                    raise UserError(
                        f"--playback_speed {speed}: another one has the same first digits, "
                        f"{speed:g}; leave one out"
                    )
                raise UserError(
                    f"{path}: would be {name}.wav, and so would {other.name}; rename one"
                )
            if len(os.fsencode(Path(name).name)) + len(".wav") > MAX_NAME:
                too_long.append(path)
            else:
                versions[name] = Version(name, path, speed, transpose)
    if not versions and not too_long:
        raise UserError(f"{midi_path}: has no {' or '.join(MIDI_EXTENSIONS)}; check the path")
    unreadable = [path.relative_to(midi_path) for path in found.unreadable]
    return list(versions.values()), list(dict.fromkeys(too_long)), unreadable


def find_renderings(versions, instrument, audios, settings):
    """List the wav files of one instrument: list of `Rendering`."""
    renderings = []
    for version in versions:
        own = settings | {
            "notes": settings["notes"][instrument],
            "speed": version.speed,
            "transpose": version.transpose,
        }
        renderings.append(Rendering(audios / instrument / f"{version.name}.wav", version, own))
    return renderings


def select_due(renderings, record):
    """Select renderings: (those to make, those whose file is not ours)."""
    due = []
    foreign = []
    for rendering in renderings:
        plan = record.plan(rendering.wav, [rendering.version.midi], rendering.settings)
        if plan == FOREIGN:
            foreign.append(rendering)
        elif plan == DUE:
            due.append(rendering)
    return due, foreign


def read_settings(audios):
    """Read audios.json, the settings of the folder's audio; None without it. Raises UserError."""
    remedy = f"{MEND}, or choose another --audios_path"
    return read_json(audios / "audios.json", remedy, notes=dict)


def delete_audio(audios, instruments, record):
    """Delete the wav files of ``instruments`` that this script made."""
    for instrument in instruments:
        note_prefix(instrument)  # raises on a name that leads out of the folder
        for wav in find_own_wavs(audios / instrument, record):
            wav.unlink()


def check_settings(audios, settings, known):
    """Raise UserError if the folder's audio was made with other settings or notes.

    Args:
        audios: the folder.
        settings: of this start, see `get_settings`.
        known: of the folder, see `read_settings`.
    """
    changed = []
    for key, value in settings.items():
        if key != "notes" and known.get(key) != value:
            changed.append(f"{key} {known.get(key)}")
    for instrument, fingerprint in settings["notes"].items():
        if known["notes"].get(instrument, fingerprint) != fingerprint:
            changed.append(f"other notes of {instrument}")
    if changed:
        raise UserError(
            f"{audios / 'audios.json'}: the existing audio was made with {', '.join(changed)}; "
            "choose another --audios_path"
        )


def find_own_wavs(folder, record, keep=()):
    """List the wav files in ``folder`` that this script made, without the pieces ``keep``."""
    own = []
    if folder.is_dir():
        for name, wav in find_named(folder, (".wav",)).items():
            if piece_of(name) not in keep and record.knows(wav):
                own.append(wav)
    return own


def read_checked(path, pedal, changes):
    """Read a file: (score, repairs).

    Raises UserError if it, or a version that is asked for, cannot be had.
    """
    score, repairs = read_repaired(path, pedal)
    try:
        for change in changes:
            change_score(score, *change)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return score, repairs


def read_scores(due, args, run):
    """Read the scores of the renderings to make; report repairs and files that are left out.

    Returns:
        ({path: score}, how many were left out).
    """
    paths = sorted({rendering.version.midi for rendering in due})
    changes = []
    for speed, transpose in itertools.product(args.playback_speed, args.transpose):
        changes.append((speed, args.duration_rate, transpose))
    tasks = [(read_checked, path.absolute(), not args.no_pedal, changes) for path in paths]
    results = run(cli.attempt, tasks, unit="file", desc="reading")
    scores = {}
    for path, result in zip(paths, results):
        if isinstance(result, UserError):
            has_old = any(p.wav.exists() for p in due if p.version.midi == path)
            old = "; the audio of an earlier version of it is still there" if has_old else ""
            say_left_out(f"{result}{old}")
            continue
        scores[path], repairs = result
        if repairs:
            print(f"{cli.one_line(path)}: repaired: {repairs}")
    return scores, len(paths) - len(scores)


def say_left_out(text):
    """Print one line on stderr about a score that is left out."""
    print(f"synthesize_audios.py: left out: {cli.one_line(text)}", file=sys.stderr)


def make_task(instrument, rendering, scores, args, record):
    """Make the arguments of `cli.attempt` that render a wav file in a worker."""
    version = rendering.version
    # The score in a tuple: alone, joblib would hand it to one Dask worker for all, and it would be
    # lost with that one
    change = scores[version.midi], version.speed, args.duration_rate, version.transpose
    folder = str(args.nsynth_path.absolute())
    bank = folder, instrument, args.max_shift, rendering.settings["notes"]
    wav = rendering.wav.absolute()
    return render_task, wav, change, bank, record.plan_place(wav)


def render_due(instrument, renderings, scores, args, record, run):
    """Render pieces with one instrument, and print how the notes were placed.

    Args:
        renderings: list of `Rendering`, to make.
        scores: {MIDI file: score}; pieces of others are left out.

    Returns:
        `Counter`: "pieces" rendered, their "samples", and pieces "left out" after all.
    """
    renderings = [rendering for rendering in renderings if rendering.version.midi in scores]
    if not renderings:
        print(f"{instrument}: nothing to do")
        return Counter()
    # The longest piece first, so that no worker is left with it at the end
    renderings.sort(key=lambda rendering: -len(scores[rendering.version.midi]))
    tasks = [make_task(instrument, each, scores, args, record) for each in renderings]
    wavs = [task[1] for task in tasks]
    rendering_by_wav = dict(zip(wavs, renderings))

    def note_done(task, result):
        rendering = rendering_by_wav[task[1]]
        if isinstance(result, UserError):
            record.give_up(rendering.wav, task[-1])
        else:
            record.add(rendering.wav, [rendering.version.midi], rendering.settings)

    record.begin(wavs)
    results = run(cli.attempt, tasks, wavs, note_done, unit="piece", desc=instrument)
    done = []
    for result in results:
        if isinstance(result, UserError):
            say_left_out(result)
        else:
            done.append(result)
    samples = say_rendered(instrument, done)
    return Counter({"pieces": len(done), "samples": samples, "left out": len(results) - len(done)})


def say_rendered(instrument, results):
    """Print how the notes were placed; returns the samples of all pieces."""
    placings = Counter()
    lowered = 0
    samples = 0
    for counts, was_lowered, length in results:
        placings += counts
        lowered += was_lowered
        samples += length
    line = f"{instrument}: {describe_placings(placings)}"
    if lowered:
        line += f"; {lowered} of {len(results)} pieces reduced in level to avoid clipping"
    print(line)
    return samples


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--nsynth_path",
        type=Path,
        required=True,
        help="folder of single notes: an NSynth split, or the output of render_notes.py",
    )
    add("--midi_path", type=Path, required=True, help="folder of MIDI files")
    add("--audios_path", "--audios", type=Path, required=True, help="output folder")
    add(
        "--instruments",
        nargs="+",
        default=DEFAULT_INSTRUMENTS,
        help="instruments, NSynth's names; with a preset: organ_electronic_001",
    )
    add_music_flags(parser)
    parallel.worker_flags(parser)
    add(
        "--fresh",
        action="store_true",
        help="delete all wav files that this script made in the folder, and start over",
    )
    add(
        "--prune",
        action="store_true",
        help="delete wav files whose MIDI file is no longer in --midi_path",
    )
    return parser


def add_music_flags(parser):
    """Add the flags that change a score."""
    add = parser.add_argument
    add(
        "--playback_speed",
        type=cli.number(float, 0.1, 10),
        nargs="+",
        default=[1.0],
        help="speed factor; 2 plays twice as fast",
    )
    add(
        "--duration_rate",
        type=cli.number(float, 0, 100, True),
        default=1.0,
        help="factor for the durations of notes; onsets do not change",
    )
    add(
        "--transpose",
        type=cli.number(int, -60, 60),
        nargs="+",
        default=[0],
        help="semitones to transpose by",
    )
    add("--no_pedal", action="store_true", help="ignore the sustain pedal")
    add(
        "--max_shift",
        type=cli.number(int, 0, 48),
        default=MAX_SHIFT,
        help="largest shift of a recorded note, semitones",
    )


def parse_flags(argv):
    """Parse the flags; repeated values count once."""
    args = build_parser().parse_args(argv)
    for name in ("instruments", "playback_speed", "transpose"):
        once_each = list(dict.fromkeys(getattr(args, name)))
        setattr(args, name, once_each)
    return args


def get_settings(args):
    """List the settings that determine the samples, besides scores, speeds and transpositions."""
    notes = {}
    for instrument in args.instruments:
        notes[instrument] = NoteBank(args.nsynth_path, instrument).fingerprint()
    return {
        "format": FORMAT,
        "sample_rate": SAMPLE_RATE,
        "level": LEVEL,
        "pedal": not args.no_pedal,
        "duration_rate": args.duration_rate,
        "max_shift": args.max_shift,
        "notes": notes,
    }


def handle_orphans(versions, unreadable, args, record):
    """Find audio of this script whose score is missing; delete it with --prune, or report it.

    Of scores that are ``unreadable`` today, see `find_versions`, it stays.
    """
    pieces = {piece_of(version.name) for version in versions}
    orphans = []
    for instrument in args.instruments:
        folder = args.audios_path / instrument
        for wav in find_own_wavs(folder, record, pieces):
            name = wav.relative_to(folder).with_suffix("").as_posix()
            if not is_spared(Path(f"{piece_of(name)}.wav"), unreadable):
                orphans.append(wav)
    if not orphans:
        return
    if args.prune:
        for wav in orphans:
            wav.unlink()
        print(f"{len(orphans):,} wav files of missing scores deleted")
    else:
        print(
            f"{len(orphans):,} wav files have no score in {args.midi_path}, such as "
            f"{cli.one_line(orphans[0])}; they remain in the data set unless you give --prune"
        )


def say_foreign(foreign):
    """Report existing wav files that this script did not make."""
    if foreign:
        print(
            f"{len(foreign):,} wav files kept: not made by this script, or changed "
            f"since, such as {cli.one_line(foreign[0].wav)}; move them away to render them"
        )


def find_due(versions, settings, args, record):
    """Find what to render: ({instrument: list of `Rendering`}, those whose file is not ours)."""
    due = {}
    foreign = []
    for instrument in args.instruments:
        wanted = find_renderings(versions, instrument, args.audios_path, settings)
        due[instrument], others = select_due(wanted, record)
        foreign += others
    return due, foreign


@cli.command
def main(argv=None):
    """Render what is missing or out of date, report."""
    args = parse_flags(argv)
    start = time.time()
    found = find_versions(args.midi_path, args.playback_speed, args.transpose)
    versions, too_long, out_of_reach = found
    for path in too_long:
        say_left_out(f"{path}: the name is too long for its wav files; rename it")
    settings = get_settings(args)
    record = Record(args.audios_path)
    known = read_settings(args.audios_path) or settings
    if args.fresh:
        delete_audio(args.audios_path, known["notes"], record)
        known = settings
    check_settings(args.audios_path, settings, known)
    settings_of_all = settings | {"notes": known["notes"] | settings["notes"]}
    write_json(args.audios_path / "audios.json", settings_of_all, indent=2)

    due, foreign = find_due(versions, settings, args, record)
    all_due = list(itertools.chain.from_iterable(due.values()))
    total = Counter()
    with parallel.engine(args.workers, args.dask) as run:
        scores, unreadable = read_scores(all_due, args, run)
        for instrument in args.instruments:
            total += render_due(instrument, due[instrument], scores, args, record, run)

    say_foreign(foreign)
    handle_orphans(versions, out_of_reach, args, record)
    left_out = len(too_long) + unreadable
    there = len(versions) * len(args.instruments) - len(all_due) - len(foreign)
    seconds = time.time() - start
    music = total["samples"] / SAMPLE_RATE
    print(
        f"{total['pieces']:,} pieces rendered, {there:,} up to date, "
        f"{left_out:,} MIDI files left out\n"
        f"{music / 3600:.2f} h of audio in {seconds:.1f} s ({music / seconds:.0f} x real time) "
        f"-> {args.audios_path}"
    )
    return 2 if left_out or total["left out"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
