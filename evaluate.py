"""Step 5: measure a trained model on whole pieces, beside trivial systems and ceilings.

    python evaluate.py --model runs/keyboard_acoustic_2_guitar_acoustic --audios_path audios --report page

Takes the pieces that the run held out, sends each through the network once, gives the result every phase estimator's
phase, and compares all of them with the recording of the target instrument. Prints a table of mean +- standard deviation
over pieces and writes results.csv (each piece and row) and results.json (the table). The rows:

    identity, silence, median picture   trivial systems: input unchanged, nothing, one constant spectrum (input's phase)
    model, PHASE                        what predict.py --phase PHASE writes
    true magnitude, PHASE               a perfect network: what is wrong here is the phase estimator's fault
    true magnitude, true phase          what the representation itself costs (half the band): the only row with an SNR
    target                              the recording: the ceiling of the pitch estimator, 0 elsewhere

Columns: see metrics.py; "picture" is the network's or the true one, "audio" what was written, both against the target's.
"""

import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import contextlib
import csv
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import convert
import data
import devices
import learned_phase
import metrics
import midi
import phase as phases
import report
import styles
from audio import AUDIO_EXTENSIONS, find_audio, open_sound, read_audio
from cli import UserError

COLUMNS = {  # measure: heading, digits
    "mae_db": ("picture MAE, dB", 2),
    "written_mae_db": ("audio MAE, dB", 2),
    "reanalysis_db": ("re-analysis, dB", 2),
    "convergence": ("spectral convergence", 3),
    "lsd_db": ("LSD, dB", 2),
    "lsd_time_first_db": ("LSD time first, dB", 2),
    "multi_resolution": ("multi-resolution STFT", 2),
    "mfcc_distance": ("MFCC cosine distance", 4),
    "pitch_jaccard": ("pitch Jaccard", 3),
    "snr_db": ("SNR, dB", 1),
}
SIDES = {"held_out": "validation", "test": "test"}  # --pieces: name in config.json
OWN_PHASE = "true magnitude, true phase"
MEDIAN_PIECES, MEDIAN_FRAMES = 30, 500  # how much of the training set its median is taken from


class Piece(NamedTuple):
    """One piece to evaluate; the reference may be None."""

    name: str
    input: Path
    reference: Path | None


class Sound:
    """What the measures need of a recording, each computed once: picture, audio at 16 kHz, log mel spectrogram."""

    def __init__(self, audio):
        self.audio, self.picture = audio, data.spectrogram(audio)
        self.low = metrics.resample(audio)
        self.mel = metrics.log_mel(self.low)


def analyse(audio):
    """Audio (n,) -> spectrum complex64 (t, 256), frames as `convert.convert_audio` takes them."""
    return np.concatenate(list(data.stft_stream([audio[np.newaxis]])), axis=1)[0]


def resynthesise(mag, unit, length, estimate, iterations):
    """Magnitude (t, 256) and the input's phasors -> audio (length,), by the path of `convert.convert_audio`."""
    spectra = convert.estimate_phases([(mag * unit)[np.newaxis]], estimate, iterations, seed=0)
    return np.concatenate(list(convert.istft_stream(spectra)), axis=1)[0, :length]


def systems(
    model, audio, reference, median, names, iterations, overlap, batch_size, phase_model=None
):
    """Yield every row of one piece: (name, audio (n,), picture asked for (256, 1 + n // 512), whether audio was made of it).

    The network runs once. A learned phase is ``model``'s own or, from the magnitude in question, ``phase_model``'s. Without
    a ``reference`` (audio of the input's length) ceilings and trivial systems are left out, without ``median`` (256,) that
    row.
    """
    frames = 1 + len(audio) // data.HOP_LENGTH
    spectrum = analyse(audio)
    unit, picture = data.phasor(spectrum), convert.spectrum_to_db(spectrum)

    def row(name, asked, phase_name, phase_of=unit, rotation=None):
        if phase_name in phases.LEARNED:
            if phase_model:
                rotation = convert.convert_picture(
                    phase_model, np.stack([picture.T, asked.T], -1), overlap, batch_size
                )
                rotation = rotation.swapaxes(0, 1)
            phase_of = learned_phase.turned(unit, rotation)
        made = resynthesise(
            data.db_to_amplitude(asked), phase_of, len(audio), phases.ALL[phase_name], iterations
        )
        return name, made, asked[:frames].T, True

    yield "identity", audio, picture[:frames].T, False
    if reference is not None:
        yield "silence", np.zeros_like(audio), np.zeros_like(picture[:frames].T), False
        if median is not None:
            yield row("median picture", np.broadcast_to(median, picture.shape), "input")
    converted = convert.convert_picture(model, picture.T, overlap, batch_size).swapaxes(0, 1)
    rotation = converted[..., 1:]
    for name in names:
        yield row(f"model, {name}", converted[..., 0], name, rotation=rotation)
    if reference is not None:
        spectrum = analyse(reference)
        true = convert.spectrum_to_db(spectrum)
        for name in names:
            yield row(f"true magnitude, {name}", true, name, rotation=rotation)
        yield row(OWN_PHASE, true, "input", data.phasor(spectrum))
        yield "target", reference, true[:frames].T, False


def measure(name, audio, asked, made, reference=None, score=None):
    """The measures of `COLUMNS` that apply to one row, as a dict.

    Args:
        name, audio, asked, made: see `systems`.
        reference: the target recording, a `Sound`.
        score: pitches of the score, `metrics.score_pitches`.
    """
    found, sound = {}, Sound(audio)
    if made:
        found["reanalysis_db"] = metrics.picture_mae(sound.picture, asked)
        found["convergence"] = metrics.spectral_convergence(
            *map(data.db_to_amplitude, (sound.picture, asked))
        )
    if reference:
        found["mae_db"] = metrics.picture_mae(asked, reference.picture)
        found["written_mae_db"] = metrics.picture_mae(sound.picture, reference.picture)
        found["lsd_db"] = metrics.lsd_per_frame(sound.mel, reference.mel)
        found["lsd_time_first_db"] = metrics.lsd_time_first(sound.mel, reference.mel)
        found["multi_resolution"] = metrics.multi_resolution_stft(sound.low, reference.low)
        found["mfcc_distance"] = metrics.mfcc_distance(sound.mel, reference.mel)
    if score is not None:
        found["pitch_jaccard"] = metrics.pitch_jaccard(metrics.sounding_pitches(sound.low), score)
    if name == OWN_PHASE:
        found["snr_db"] = metrics.snr(reference.audio, audio)
    return found


def summarise(results, columns=COLUMNS):
    """Mean, standard deviation (n - 1; None for one piece) and n over pieces; values that are not finite are left out.

    Args:
        results: list of (piece, row, measures) in the table's order.
        columns: names of the measures to keep.

    Returns:
        {row: {measure: {"mean", "spread", "n"}}}.
    """
    table = {}
    for row in dict.fromkeys(row for _, row, _ in results):
        table[row] = {}
        for column in columns:
            values = [
                found[column]
                for _, r, found in results
                if r == row and np.isfinite(found.get(column, np.nan))
            ]
            if values:
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
                table[row][column] = {
                    "mean": float(np.mean(values)),
                    "spread": spread,
                    "n": len(values),
                }
    return table


def text_table(summary, headings=COLUMNS):
    """(header, rows) of text: each cell mean ± spread, and its n where that is not the row's. Empty columns are left out."""
    columns = [column for column in headings if any(column in cells for cells in summary.values())]
    rows = []
    for row, cells in summary.items():
        pieces = max((cell["n"] for cell in cells.values()), default=0)
        texts = []
        for column in columns:
            cell, digits = cells.get(column), headings[column][1]
            text = f"{cell['mean']:.{digits}f}" if cell else "–"
            if cell and cell["spread"] is not None:
                text += f" ± {cell['spread']:.{digits}f}"
            texts.append(text + (f" (n = {cell['n']})" if cell and cell["n"] != pieces else ""))
        rows.append([row, *texts, str(pieces)])
    return ["", *(headings[column][0] for column in columns), "n"], rows


def markdown(header, rows):
    """A Markdown table, columns aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
        for line in lines
    )


def best_phases(summary):
    """One line a measure: the phase estimator that serves the model best beside the input's phase."""
    models = {
        row.removeprefix("model, "): cells
        for row, cells in summary.items()
        if row.startswith("model, ")
    }
    lines = []
    for column, (heading, digits) in COLUMNS.items():
        means = {name: cells[column]["mean"] for name, cells in models.items() if column in cells}
        if len(set(means.values())) > 1 and "input" in means:
            best = min(means, key=means.get)
            beside = f", input {means['input']:.{digits}f}" if best != "input" else ""
            lines.append(f"  {heading}: {best} {means[best]:.{digits}f}{beside}")
    return (
        ["The best phase for the model's magnitude, beside the input's:", *lines] if lines else []
    )


def read_config(model):
    """A run's config.json; an empty dict for a model that is no run folder. Raises UserError if it is damaged."""
    where = Path(model) / "config.json", "train the model again"
    config = cli.read_json(*where, flags=dict, split=dict)
    if config is None:
        return {}
    with cli.undamaged(*where):
        sides = (config["flags"][side] for side in ("origin", "target"))
        origins, targets = ([names] if isinstance(names, str) else names for names in sides)
        return {
            "origin": origins[0],
            "origins": origins,
            "target": targets[0],
            "targets": targets,
            **config["split"],
        }


def find_pieces(model, config, audios, which="held_out"):
    """Pieces of a run that are below ``audios``: those held out, those kept for the test, or all that both instruments have.

    Where a piece has other versions (transposed, other speeds), only the original counts. Pieces whose audio is missing
    are named on stderr.

    Raises:
        UserError: no run folder, no such instrument, or none of its pieces is there.
    """
    if not config:
        raise UserError(
            f"--model {model}: is no run folder, so its pieces are not known; give --pairs or --inputs"
        )
    if which == "test" and "test" not in config:
        raise UserError(
            "--pieces test: this run kept none for the test; train it with --maestro_split, or leave the flag out"
        )
    inputs, references = (
        cli.find_named(audios / config[side], AUDIO_EXTENSIONS) for side in ("origin", "target")
    )
    names = sorted(inputs.keys() & references.keys()) if which == "all" else config[SIDES[which]]
    names = [name for name in names if midi.piece_of(name) == name] or names
    missing = [name for name in names if name not in inputs or name not in references]
    pieces = [Piece(name, inputs[name], references[name]) for name in names if name not in missing]
    if pieces and missing:
        print(
            f"evaluate.py: no audio of both instruments, left out: {cli.one_line(', '.join(missing))}",
            file=sys.stderr,
        )
    if not pieces:
        raise UserError(
            f"{audios}: holds none of these pieces; render them with synthesize_audios.py, or give --pieces all"
        )
    return pieces


def read_pairs(path):
    """Read lines of "input,reference" from a CSV file, paths relative to it; an empty reference means there is none.

    Raises:
        UserError: it is missing, no such table, or empty.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError, csv.Error):
        raise UserError(
            f"{path}: is no CSV file; give one with a line 'input,reference' for each pair"
        ) from None
    pieces = []
    for number, line in enumerate(lines, 1):
        if len(line) > 2 or not line[0].strip() or "\0" in "".join(line):
            raise UserError(f"{path}: line {number} is not 'input,reference'; mend it")
        source, reference = (cell.strip() for cell in (*line, "")[:2])
        if (source, reference) != ("input", "reference"):
            pieces.append(
                Piece(source, path.parent / source, path.parent / reference if reference else None)
            )
    if not pieces:
        raise UserError(f"{path}: names no files; give a line 'input,reference' for each pair")
    return pieces


def listed(paths):
    """Recordings: files as they are, folders as the recordings in them. Raises UserError if a folder has none."""
    files = []
    for path in paths:
        found = cli.find_files(path, AUDIO_EXTENSIONS) if path.is_dir() else [path]
        if not found:
            raise UserError(f"--inputs {path}: holds no recording; give another folder")
        files += found
    return files


def read_pitches(path, audios, seconds):
    """The score's pitches, `metrics.score_pitches`, with the pedal and durations that the audio was rendered with."""
    settings = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        settings = dict(json.loads((audios / "audios.json").read_text()))
    score = midi.read_score(path, pedal=settings.get("pedal", True))
    score = midi.change_score(score, duration_rate=settings.get("duration_rate", 1.0))
    return metrics.score_pitches(score["onset"], score["duration"], score["pitch"], seconds)


def target_median(model, config, audios):
    """Per-bin median picture (256,) of the training targets: the run's median.npy, or taken from their audio, or None."""
    if not config:
        return None
    with contextlib.suppress(OSError, ValueError):
        median = np.load(Path(model) / "median.npy", allow_pickle=False)
        one = (
            len(config["origins"]) == len(config["targets"]) == 1
        )  # of several, the file is the median of all
        if median.shape == (data.BINS,) and one:
            return median.astype(np.float32)
    frames = []
    for name in config["train"][:: 1 + len(config["train"]) // MEDIAN_PIECES]:
        if audios and (path := find_audio(audios / config["target"], name)):
            picture = data.spectrogram(read_audio(path))
            frames.append(picture[:, :: 1 + picture.shape[1] // MEDIAN_FRAMES])
    return np.median(np.concatenate(frames, axis=1), axis=1) if frames else None


def read_piece(piece):
    """One piece's audio and its reference's audio or None, both cut to the shorter."""
    audio = read_audio(piece.input)
    reference = read_audio(piece.reference) if piece.reference else None
    length = min(len(audio), len(audio if reference is None else reference))
    if not length:
        raise UserError(f"{piece.input}: has no sound to compare; leave it out")
    return audio[:length], None if reference is None else reference[:length]


def evaluate_all(model, pieces, median, config, args, page):
    """Evaluate piece by piece, and write each one's part of the listening ``page``, if there is to be one.

    Returns:
        (results, sections): [(piece, row, measures)] and the page's sections.
    """
    options = args.phase, args.phase_iterations, args.overlap, args.batch_size, args.phase_model
    scores = cli.find_named(args.midi_path, (".mid", ".midi")) if args.midi_path else {}
    results, sections = [], []
    with tqdm(total=len(pieces), unit="piece", desc="evaluate") as bar:
        for number, piece in enumerate(pieces, 1):
            audio, reference = read_piece(piece)
            score = scores.get(piece.name) or scores.get(Path(piece.name).stem)
            if args.midi_path and not score:
                print(
                    f"evaluate.py: {args.midi_path}: no score of {piece.name}, pitches left out",
                    file=sys.stderr,
                )
            pitches = (
                read_pitches(score, args.audios_path, len(audio) / data.SAMPLE_RATE)
                if score
                else None
            )
            heard = None if reference is None else Sound(reference)
            measured, sounds = [], {}
            for row, made, asked, is_made in systems(model, audio, reference, median, *options):
                bar.set_postfix_str(row)
                measured.append(
                    (piece.name, row, measure(row, made, asked, is_made, heard, pitches))
                )
                sounds[row] = made[: int(args.report_seconds * data.SAMPLE_RATE)]
            results += measured
            if page:
                playable, target = page_sounds(sounds, config)
                table = text_table(summarise(measured))
                sections.append(
                    report.write_section(page, number, piece.name, playable, table, target)
                )
            bar.update()
    return results, sections


def page_sounds(sounds, config):
    """The rows that the listening page plays, in its order and with its labels, and the target's label or None."""
    origin, target = (f": {config[key]}" if config else "" for key in ("origin", "target"))
    chosen = {f"input{origin}": sounds["identity"]}
    chosen |= {
        name.replace("model, ", "output, phase: "): sound
        for name, sound in sounds.items()
        if name.startswith("model")
    }
    if "target" in sounds:
        chosen[f"target{target}"] = sounds["target"]
    return chosen, f"target{target}" if "target" in sounds else None


def write_results(folder, results, summary, about):
    """Write results.csv, one line a piece and row, and results.json, the summary and what it is of."""
    lines = (
        [piece, row, *(found.get(column, "") for column in COLUMNS)]
        for piece, row, found in results
    )
    cli.write_csv(folder / "results.csv", [["piece", "row", *COLUMNS], *lines])
    cli.write_json(folder / "results.json", {**about, "rows": summary})


def describe(pieces, args, config):
    """One line that says which pieces these are."""
    names = ", ".join(piece.name for piece in pieces)
    count = f"{len(pieces)} piece" + "s" * (len(pieces) != 1)
    if not args.audios_path:
        return f"{count}; whether the model was trained on them is not known here: {names}"
    if args.pieces == "all":
        return f"{count}, {sum(piece.name in config['train'] for piece in pieces)} of them used in training: {names}"
    return f"{count} {'kept for the test' if args.pieces == 'test' else 'held out from training'}: {names}"


def styled(model, config, audios):
    """A model of several targets, with the style of config["target"]: its first training piece, see `styles.with_style`."""
    if model.input_shape[-1] == 1:
        return model
    if not config or audios is None:
        raise UserError(
            "--model: knows several targets, of which evaluate.py picks one with --audios_path only; give that"
        )
    folder, name = audios / config["target"], config["train"][0]
    path = find_audio(folder, name)
    if not path:
        raise UserError(
            f"{folder}: has no {name}, which the style is taken from; render it with synthesize_audios.py"
        )
    return styles.with_style(model, data.spectrogram(read_audio(path)))


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--model", required=True, help="run folder, name in pretrained/, .keras file or .h5 weights"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--audios_path", "--audios", type=Path, help="audio folder that the run's pieces lie in"
    )
    source.add_argument(
        "--pairs",
        type=Path,
        help="CSV file of lines input,reference, relative to it; reference may be empty",
    )
    source.add_argument(
        "--inputs", type=Path, nargs="+", help="recordings without reference, or folders of them"
    )
    add(
        "--pieces",
        choices=(*SIDES, "all"),
        default="held_out",
        help="which pieces of the run, with --audios_path; test: those that --maestro_split kept aside",
    )
    add(
        "--origin",
        help="instrument that a model of several origins is to convert from; default: the first",
    )
    add(
        "--target",
        nargs="+",
        help="instruments to evaluate a model of several targets on, those it never saw included; "
        "default: all it was trained on",
    )
    add("--limit", type=cli.number(int, 1), help="take the first pieces only")
    add("--midi_path", type=Path, help="scores, named like the pieces: adds the pitch measure")
    add(
        "--phase",
        nargs="+",
        choices=phases.ALL,
        help="phase estimators to compare; default: all that the model allows",
    )
    add("--phase_model", help="model of train.py --learn phase, for the learned phase")
    add(
        "--phase_iterations",
        type=cli.number(int, 0, 10_000),
        default=32,
        help="of iterative phase estimators",
    )
    add(
        "--overlap",
        type=cli.number(float, 0, 0.99),
        default=convert.OVERLAP,
        help="fraction of a tile that the next covers",
    )
    add(
        "--batch_size",
        type=cli.number(int, 1),
        default=convert.BATCH_SIZE,
        help="tiles that go through the network at once",
    )
    add(
        "--output",
        type=Path,
        help="folder for the results; default: evaluation in the run folder, or here for other models",
    )
    add("--report", type=Path, help="folder for a listening page; default: none")
    add(
        "--report_seconds",
        type=cli.number(float, 0, low_open=True),
        default=20,
        help="seconds of each piece on that page",
    )
    add("--gpu", help="GPU number, or cpu; default: 0 if there is one")
    return parser


def evaluate_target(model, config, args, output, page):
    """Evaluate against one target, write the results to ``output`` and, if asked for, the listening ``page``; print both."""
    if args.audios_path:
        pieces = find_pieces(args.model, config, args.audios_path, args.pieces)
    else:
        pieces = (
            read_pairs(args.pairs)
            if args.pairs
            else [Piece(str(path), path, None) for path in listed(args.inputs)]
        )
    pieces = pieces[: args.limit]
    for path in (path for piece in pieces for path in (piece.input, piece.reference) if path):
        open_sound(path).close()  # a mistake shows before the work
    median = target_median(args.model, config, args.audios_path)
    if median is None and not args.inputs:
        print("evaluate.py: no median.npy in the run folder: that row is left out", file=sys.stderr)
    results, sections = evaluate_all(
        styled(model, config, args.audios_path), pieces, median, config, args, page
    )
    summary, about = summarise(results), describe(pieces, args, config)
    settings = {"phase_iterations": args.phase_iterations, "overlap": args.overlap}
    write_results(output, results, summary, {"model": str(args.model), "pieces": about, **settings})
    table = text_table(summary)
    print(
        f"{about}\n\n{markdown(*table)}\n\nmean ± standard deviation over pieces, n: how many; lower is better, SNR apart"
    )
    print(
        *best_phases(summary), f"-> {output / 'results.csv'}, {output / 'results.json'}", sep="\n"
    )
    if page:
        notes = [
            about,
            f"The first {args.report_seconds:g} s of each piece are here; the measures are of whole pieces.",
        ]
        title = (
            f"{config['origin']} → {config['target']}"
            if config
            else f"Conversions by {Path(args.model).name}"
        )
        report.write_page(page, title, notes, table, [piece.name for piece in pieces], sections)
        print(f"-> {page / 'index.html'}")


@cli.command
def main(argv=None):
    """Parse flags, evaluate against each target."""
    args = build_parser().parse_args(argv)
    args.model = cli.find_model(args.model)
    config = read_config(args.model)
    if (args.origin or args.target) and not (
        args.audios_path and config and (config["origins"] + config["targets"])[2:]
    ):
        flag = "--origin" if args.origin else "--target"
        raise UserError(
            f"{flag}: goes with a model of several instruments and --audios_path; leave it out"
        )
    config |= {"origin": args.origin} if args.origin else {}
    targets = (
        args.target or [name for name in config["targets"] if name != config["origin"]]
        if config
        else [""]
    )
    if config and (not targets or config["origin"] in targets):
        raise UserError(
            f"--target {config['origin']}: is the origin; name another target or --origin"
        )
    is_run = config and args.model.resolve().parent != cli.PRETRAINED.resolve()
    run = args.model / "evaluation" if is_run else Path("evaluation")
    devices.setup_device(args.gpu)
    import models

    model = models.load_generator(args.model)
    args.phase_model = models.load_generator(args.phase_model) if args.phase_model else None
    args.phase = args.phase or list(
        phases.ALL if args.phase_model or model.output_shape[-1] == 3 else phases.ESTIMATORS
    )
    learned_phase.check_phases(args.phase, model, args.phase_model)
    for target in targets:
        folder = target if len(config.get("targets", ())) > 1 or args.target else ""
        if folder:
            print(f"\n{target}")
        config |= {"target": target} if config else {}
        evaluate_target(
            model, config, args, (args.output or run) / folder, args.report and args.report / folder
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
