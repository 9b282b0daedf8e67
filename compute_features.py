"""Step 2: turn aligned audio into dB-scaled STFT tiles.

    python compute_features.py --audios audios --features features

Reads <audios>/<instrument>/<sub/folders>/<piece>.wav, or another format or video, at any sampling
rate. Writes <features>/<instrument>/<sub/folders>/<piece>.npy, float16 (tiles, bins, 256, 1) in
[0, 1], and features.json. The bins are 256 (0 - 11 kHz), or 512 (0 - 22 kHz) if the recordings have
content there. With --phase the tiles have a second channel, the phase in half turns, [-1, 1].
train.py --learn both and train_generator.py --learn phase need it.

Tiles that are up to date are kept. The others are computed again. Tiles of missing recordings are
removed. Exit code 2 if a file was left out.
"""

from common import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np

import data
from common import parallel
from common.cli import UserError
from common.files import (
    MEND,
    complete,
    find_files,
    is_spared,
    look_for_files,
    read_json,
    write_json,
)
from common.record import DUE, FOREIGN, Record
from sound import survey
from sound.recordings import AUDIO_EXTENSIONS, read_mono, resample_stream

ANOTHER_FOLDER = "give another --features"  # a remedy that loses no data
SAMPLE = 12  # recordings used to choose the height of the pictures
SAMPLE_SECONDS = 60  # of each


def write_tiles(audio_path, tiles_path, bins=data.BINS, phase=False, place=None):
    """Write one recording's tiles. The audio is streamed; memory holds the picture.

    Returns:
        (number of tiles, list of remarks about repairs of the recording).

    Raises:
        UserError: the recording cannot be read, or ``place`` (see `files.complete`) keeps an
            existing file.
    """

    make_channels = keep_both if phase else keep_magnitude

    def compute_channels(mono, rate):
        mono = resample_stream(mono, rate, data.SAMPLE_RATE)
        stream = data.stft_stream(mono, bins=bins)
        blocks = [make_channels(spectra[0]) for spectra in stream]
        return np.concatenate(blocks, axis=1)  # (channels, frames, bins)

    channels, sound = read_mono(audio_path, compute_channels)
    samples = round(sound.tell() * data.SAMPLE_RATE / sound.samplerate)
    channels = channels[:, : 1 + samples // data.HOP_LENGTH]
    pictures = [data.slice_tiles(channel.T) for channel in channels]
    tiles = np.concatenate(pictures, axis=-1)  # (tiles, bins, 256, channels)
    with complete(tiles_path, place) as part, open(part, "wb") as file:
        np.save(file, np.ascontiguousarray(tiles), allow_pickle=False)
    return len(tiles), sound.remarks


def keep_magnitude(spectrum):
    """Convert a spectrum for tiles: complex64 (t, bins) -> float16 (1, t, bins), dB scale."""
    mag_db = np.minimum(data.amplitude_to_db(np.abs(spectrum)), 1)
    return mag_db[np.newaxis].astype(np.float16)


def keep_both(spectrum):
    """Convert a spectrum for tiles with phase: complex64 (t, 256) -> float16 (2, t, 256).

    The dB scale as of `compute_features.keep_magnitude`, and the phase in half turns, [-1, 1].
    """
    mag_db = np.minimum(data.amplitude_to_db(np.abs(spectrum)), 1)
    half_turns = np.angle(spectrum) / np.pi
    return np.array([mag_db, half_turns], np.float16)


def find_work(audios, features):
    """List (audio path, tiles path) of every piece below ``audios``, and unreadable entries.

    Returns:
        (list of pairs of paths, list of paths relative to ``audios``).

    Raises:
        UserError: there is none, one lies in no instrument's folder, or two have the same name.
    """
    work = {}
    found = look_for_files(audios, AUDIO_EXTENSIONS)
    for path in found.files:
        relative = path.relative_to(audios)
        if len(relative.parts) < 2:
            raise UserError(
                f"{path}: is not in an instrument's folder; expected {audios}/<instrument>/<piece>"
            )
        tiles_path = features / relative.with_suffix(".npy")
        if tiles_path in work:
            raise UserError(f"{path}: same name as {work[tiles_path].name}; rename one")
        work[tiles_path] = path
    if not work:
        raise UserError(f"{audios}: has no audio; make it with synthesize_audios.py")
    unreadable = [path.relative_to(audios) for path in found.unreadable]
    return [(audio, tiles) for tiles, audio in work.items()], unreadable


def check_apart(features, work):
    """Check that there is no recording below ``features``, because --fresh would delete it.

    Args:
        features: folder of the tiles.
        work: (audio path, tiles path) of each piece.

    Raises:
        UserError: one does.
    """
    root = features.resolve()
    for audio, _ in work:
        if root in audio.resolve().parents:
            raise UserError(
                f"--features {features}: also has recordings, such as {audio}, which --fresh "
                "would delete; give a folder without any"
            )


def choose_bins(work, args):
    """Choose the height of the pictures without --bins, see --help, and print it.

    Args:
        work: (audio path, tiles path) of each piece.
        args: the flags.

    Raises:
        UserError: features.json is damaged.
    """
    if not args.fresh:
        path = args.features / "features.json"
        found = read_json(path, f"{MEND}, or {ANOTHER_FOLDER}", parameters=dict)
        if found is not None:
            bins = found["parameters"].get("bins", data.BINS)
            if bins not in data.HEIGHTS:
                raise UserError(f"{path}: made with {bins} bins; {ANOTHER_FOLDER}")
            return bins
    apart = -(-len(work) // SAMPLE)
    for audio, _ in work[::apart]:
        try:
            sound = survey.read_part(audio, 0.0, SAMPLE_SECONDS)
        except UserError:  # reported when its tiles are made
            continue
        if survey.has_treble(data.spectrogram(sound, data.FULL_BINS)):
            print(
                f"pictures of {data.FULL_BINS} bins: {cli.one_line(audio)} has content above 11 kHz"
            )
            return data.FULL_BINS
    print(f"pictures of {data.BINS} bins: no audible content above 11 kHz")
    return data.BINS


def delete_features(features):
    """Delete the folder of the tiles, if this script made it: then it has features.json."""
    if (features / "features.json").is_file():
        shutil.rmtree(features)


def read_description(features, parameters):
    """Read features.json of the folder; {} without it.

    Raises:
        UserError: it tells of other ``parameters``.
    """
    path = features / "features.json"
    description = read_json(path, f"{MEND}, or {ANOTHER_FOLDER}", parameters=dict)
    if description is None:
        return {}
    found = description["parameters"]
    changed = [key for key in parameters | found if found.get(key) != parameters.get(key)]
    if changed:
        raise UserError(
            f"{path}: made with other parameters ({', '.join(changed)}); {ANOTHER_FOLDER}"
        )
    return description


def find_gone(features, work, unreadable, record):
    """Find tiles in the folder without a recording: (ours, others'), lists of paths.

    Of what is ``unreadable`` today, see `find_work`, the tiles stay.
    """
    expected = {tiles for _, tiles in work}
    ours = []
    others = []
    if features.is_dir():
        for path in find_files(features, (".npy",)):
            if path in expected or is_spared(path.relative_to(features), unreadable):
                continue
            if record.knows(path):
                ours.append(path)
            else:
                others.append(path)
    return ours, others


def remove_outdated(features, audios, outdated, described):
    """Remove tiles that are out of date, so that no training uses them.

    Args:
        outdated: their paths; all are ours.
        described: the audio folder that features.json names, or None.

    Raises:
        UserError: they are of another audio folder.
    """
    if outdated and described not in (None, str(audios.resolve())):
        raise UserError(
            f"{features}: made from {described}, whose recordings are not those of {audios}; "
            f"{ANOTHER_FOLDER}"
        )
    for path in outdated:
        path.unlink()


def fingerprint(features, work, parameters, record):
    """Fingerprint of the sources of a set of tiles, 64 hexadecimal digits.

    It changes with the parameters, with a recording's size or modification time, and if a piece
    is added, renamed or removed; not if a folder is moved.

    Args:
        features: folder of the tiles.
        work: (audio path, tiles path) of each piece.
        parameters: see `data.FEATURE_PARAMETERS`.
        record: `record.Record`, which knows the recordings as they were before the work.
    """
    states = []
    for audio, tiles in work:
        _, size, modified = record.state_of(audio)
        name = tiles.relative_to(features).as_posix()
        states.append([name, audio.suffix, size, modified])
    text = json.dumps([parameters, sorted(states)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def compute(work, record, parameters, args):
    """Make tiles in several processes, and record each when it is complete.

    Args:
        work: (audio path, tiles path) of what is to be made.
        record: `record.Record` of the features folder.
        parameters: see `data.FEATURE_PARAMETERS`.
        args: the flags.

    Returns:
        (number of tiles, list of the files' `UserError`s).
    """

    def note_done(task, result):
        _, audio, tiles, *_, place = task
        if isinstance(result, UserError):
            record.give_up(tiles, place)
        else:
            record.add(tiles, [audio], parameters)

    tasks = []
    for audio, tiles in work:
        settings = parameters["bins"], args.phase, record.plan_place(tiles)
        tasks.append((write_tiles, audio.absolute(), tiles.absolute(), *settings))
    outputs = [tiles for _, tiles in work]
    record.begin(outputs)
    with parallel.engine(args.workers, args.dask) as run:
        results = run(cli.attempt, tasks, outputs, done=note_done, unit="file", desc="features")

    count = 0
    errors = []
    for (audio, _), result in zip(work, results):
        if isinstance(result, UserError):
            errors.append(result)
            print(f"compute_features.py: left out: {cli.one_line(result)}", file=sys.stderr)
            continue
        tiles, remarks = result
        count += tiles
        for remark in remarks:
            print(f"note: {cli.one_line(audio)}: {remark}", file=sys.stderr)
    return count, errors


def find_missing(work, record, parameters):
    """List those (audio path, tiles path) of ``work`` whose tiles are missing or out of date.

    Raises:
        UserError: tiles are there that were not made by this script.
    """
    missing = []
    for audio, tiles in work:
        plan = record.plan(tiles, [audio], parameters)
        if plan == FOREIGN:
            raise UserError(
                f"{tiles}: exists, but is not recorded as made from its recording (by hand? by an "
                f"older version?); {ANOTHER_FOLDER}"
            )
        if plan == DUE:
            missing.append((audio, tiles))
    return missing


def print_summary(args, bins, counts, gone, others, tiles, seconds):
    """Print the summary; ``counts``: files computed, kept and left out."""
    computed, kept, left_out = counts
    hours = tiles * data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE / 3600
    size = tiles * (1 + args.phase) * bins / 2**21  # GiB: two bytes per bin and frame
    if gone:
        print(f"{len(gone)} files of missing recordings removed, such as {gone[0].name}")
    if others:
        print(
            f"note: {cli.one_line(others[0])}: was not made here, but training uses it"
            f" ({len(others)} such files)",
            file=sys.stderr,
        )
    print(f"{computed} files computed, {kept} up to date, {left_out} left out")
    print(
        f"{tiles:,} tiles, {size:.2f} GiB, {hours:.2f} h of audio in {seconds:.1f} s "
        f"({hours * 3600 / seconds:.0f} x real time) -> {args.features}"
    )


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--audios",
        "--audios_path",
        type=Path,
        required=True,
        help="audio folder with one sub-folder per instrument",
    )
    add("--features", "--features_path", type=Path, required=True, help="output folder")
    add(
        "--bins",
        type=int,
        choices=data.HEIGHTS,
        help="height of the tiles: 256 (0 - 11 kHz) or 512 (0 - 22 kHz, twice the work); default: "
        "that of an existing folder; for a new one, 512 if the recordings have content above "
        "11 kHz",
    )
    add("--phase", action="store_true", help="store the phase too; takes twice the disk")
    parallel.worker_flags(parser)
    add("--fresh", action="store_true", help="delete the features folder and start over")
    return parser


@cli.command
def main(argv=None):
    """Parse flags, remove what is out of date, compute what is missing, report."""
    args = build_parser().parse_args(argv)
    start = time.time()
    features = args.features
    work, unreadable = find_work(args.audios, features)
    check_apart(features, work)
    parameters = {**data.FEATURE_PARAMETERS, "bins": args.bins or choose_bins(work, args)}
    if args.phase:
        parameters["phase"] = True
    if args.fresh:
        delete_features(features)
    found = read_description(features, parameters)
    record = Record(features)
    missing = find_missing(work, record, parameters)
    gone, others = find_gone(features, work, unreadable, record)
    outdated = gone + [tiles for _, tiles in missing if tiles.exists()]
    remove_outdated(features, args.audios, outdated, found.get("audios"))

    path = features / "features.json"
    description = {"parameters": parameters, "audios": str(args.audios.resolve())}
    if missing or gone:  # no fingerprint until all is there
        write_json(path, description, indent=2)
    tiles, errors = compute(missing, record, parameters, args)
    left_out = set(find_missing(work, record, parameters))
    made = [pair for pair in work if pair not in left_out]
    description["fingerprint"] = fingerprint(features, made, parameters, record)
    write_json(path, description, indent=2)

    counts = len(missing) - len(errors), len(work) - len(missing), len(errors)
    print_summary(args, parameters["bins"], counts, gone, others, tiles, time.time() - start)
    return 2 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
