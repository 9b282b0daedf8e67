"""Step 2: turn aligned audio into dB-scaled STFT tiles.

    python compute_features.py --audios audios --features features

Reads <audios>/<instrument>/<sub/folders>/<piece>.wav (flac, ogg and mp3 too, any sampling rate) and writes
<features>/<instrument>/<sub/folders>/<piece>.npy, float16 (tiles, 256, 256, 1) in [0, 1], and features.json. With --phase
the tiles have a second channel, the phase in half turns, [-1, 1]: what train.py --learn phase or both needs.
A file that is there and newer than its audio is kept. Exit code 2 if some file had to be left out.
"""

import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import shutil
import sys
import time
from pathlib import Path

import numpy as np

import data
import parallel
from audio import AUDIO_EXTENSIONS, open_sound, read_blocks, resample_stream
from cli import UserError


def write_tiles(audio_path, tiles_path, phase=False):
    """Write one file's tiles and return how many. The audio streams through. Raises UserError if it cannot be read."""
    with open_sound(audio_path) as sound:
        mono = (block.mean(axis=0, keepdims=True) for block in read_blocks(sound))
        spectra = data.stft_stream(resample_stream(mono, sound.samplerate, data.SAMPLE_RATE))
        frames = [channels_of(block[0], phase) for block in spectra]
        samples = round(sound.tell() * data.SAMPLE_RATE / sound.samplerate)
    frames = np.concatenate(frames, axis=1)[:, : 1 + samples // data.HOP_LENGTH]
    tiles = np.concatenate([data.slice_tiles(channel.T) for channel in frames], axis=-1)
    with cli.complete(tiles_path) as part, open(part, "wb") as file:
        np.save(file, np.ascontiguousarray(tiles), allow_pickle=False)
    return len(tiles)


def channels_of(spectrum, phase):
    """Spectrum complex64 (t, 256) -> float16 (1, t, 256): dB scale; with ``phase`` (2, t, 256): that, and half turns."""
    channels = [np.minimum(data.amplitude_to_db(np.abs(spectrum)), 1)]
    if phase:
        channels.append(np.angle(spectrum) / np.pi)
    return np.array(channels, np.float16)


def describe(features, audios, fresh=False, phase=False):
    """Write features.json, or check that the one that is there says the same. ``fresh`` deletes the folder first.

    Raises UserError if it does not, or if the audio lies in the folder.
    """
    if features.resolve() in (audios.resolve(), *audios.resolve().parents):
        raise UserError(
            f"--features {features}: holds the audio too, which --fresh would delete; give a folder of its own"
        )
    wanted = data.FEATURE_PARAMETERS | ({"phase": True} if phase else {})
    path = features / "features.json"
    if fresh and path.is_file():  # only ever delete a folder that this script made
        shutil.rmtree(features)
    found = cli.read_json(path, "give --fresh to start over", parameters=dict) or {
        "parameters": wanted
    }
    changed = [
        key
        for key in wanted | found["parameters"]
        if found["parameters"].get(key) != wanted.get(key)
    ]
    if changed:
        raise UserError(
            f"{path}: made with other parameters ({', '.join(changed)}); give --fresh to start over"
        )
    cli.write_json(path, {"parameters": wanted, "audios": str(audios.resolve())}, indent=2)


def find_work(audios, features):
    """(audio path, tiles path) of every piece below ``audios``. Raises UserError if there is none, or a name twice."""
    work = {}
    for path in cli.find_files(audios, AUDIO_EXTENSIONS):
        relative = path.relative_to(audios)
        if len(relative.parts) < 2:
            raise UserError(
                f"{path}: lies in no instrument's folder; expected {audios}/<instrument>/<piece>"
            )
        tiles_path = features / relative.with_suffix(".npy")
        if tiles_path in work:
            raise UserError(f"{path}: same name as {work[tiles_path].name}; rename one")
        work[tiles_path] = path
    if not work:
        raise UserError(f"{audios}: holds no audio; make it with synthesize_audios.py")
    return [(audio, tiles) for tiles, audio in work.items()]


@cli.command
def main(argv=None):
    """Parse flags, compute what is missing, report."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--audios",
        "--audios_path",
        type=Path,
        required=True,
        help="audio folder, one sub-folder an instrument",
    )
    add("--features", "--features_path", type=Path, required=True, help="where the tiles go")
    add("--phase", action="store_true", help="keep the phase as well: twice the disk")
    parallel.worker_flags(parser)
    add("--fresh", action="store_true", help="delete the features folder and start over")
    args = parser.parse_args(argv)

    start = time.time()
    work = find_work(args.audios, args.features)
    describe(args.features, args.audios, args.fresh, args.phase)
    missing = [(audio, tiles) for audio, tiles in work if not parallel.is_done(tiles, audio)]
    tasks = [(write_tiles, *map(Path.absolute, pair), args.phase) for pair in missing]
    with parallel.engine(args.workers, args.dask) as run:
        results = run(
            parallel.attempt, tasks, [tiles for _, tiles in missing], unit="file", desc="features"
        )
    errors = [result for result in results if isinstance(result, UserError)]
    tiles = sum(result for result in results if not isinstance(result, UserError))
    for error in errors:
        print(f"compute_features.py: left out: {cli.one_line(error)}", file=sys.stderr)
    seconds = time.time() - start
    audio_seconds = tiles * data.TILE_FRAMES * data.HOP_LENGTH / data.SAMPLE_RATE
    print(
        f"{len(missing) - len(errors)} files computed, {len(work) - len(missing)} were there, {len(errors)} left out\n"
        f"{tiles:,} tiles, {tiles * (1 + args.phase) / 2**13:.2f} GiB, {audio_seconds / 3600:.2f} h of audio in {seconds:.1f} s"
        f" ({audio_seconds / seconds:.0f} x real time) -> {args.features}"
    )
    return 2 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
