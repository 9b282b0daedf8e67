"""Step 5: measure a trained model on whole pieces, beside trivial systems and ceilings.

    python evaluate.py --model runs/keyboard_acoustic_2_guitar_acoustic --audios audios
    python evaluate.py --model guitar --pairs recordings.csv --report page

Takes the pieces that the run held out (and those it kept for the test, apart), sends each through
the network once, gives the result every phase estimator's phase, and compares all of them with
the recording of the target instrument. Prints a table of mean ± standard deviation over pieces
and one of paired differences, and writes results.csv (each piece and row) and results.json (the
tables). The rows:

    identity                               the input, unchanged
    silence                                nothing
    median picture                         one constant spectrum, with the input's phase
    model (phase: NAME)                    what predict.py --phase NAME --level off writes
    true magnitude (phase: NAME)           a perfect network: what is wrong is the phase's fault
    true magnitude (phase: the target's)   what the representation costs (half the band): the only
                                           row with an SNR
    target                                 the recording

Columns: see metrics.py; "picture" is the network's or the true one, "audio" what was written, both
against the target's. Several origins (--origin) are a table each, and one more that compares them:
pianos heard in training, pianos never heard.
"""

import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import contextlib
import functools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import convert
import data
import devices
import judges
import kinds
import learned_phase
import metrics
import midi
import phase as phases
import report
import styles
import tables
from audio import AUDIO_EXTENSIONS, find_audio, open_sound, read_audio
from cli import UserError
from loudness import Meter

COLUMNS = [*metrics.MEASURES, judges.NOTE_F1]
SIDES = {"held_out": "validation", "test": "test"}  # --pieces: name in config.json
SIDE_WORDS = {
    "held_out": "held out from training",
    "test": "kept for the test",
    "all": "of training and held out alike",
}
IDENTITY, SILENCE, MEDIAN, TARGET = "identity", "silence", "median picture", "target"
MODEL, TRUE = "model", "true magnitude"
OWN_PHASE = f"{TRUE} (phase: the target's)"
MEDIAN_PIECES = 30  # how much of the training set its median is taken from
MEDIAN_FRAMES = 500  # of each of these pieces
LONGEST_MISMATCH = 0.01  # by which the two recordings of a pair may differ in length


def row_name(system, phase_name):
    """The row of a system whose sound has this phase estimator's phase."""
    return f"{system} (phase: {phase_name})"


# ---- Which pieces ------------------------------------------------------------------------------


class Run(NamedTuple):
    """What a run's config.json says of instruments and pieces."""

    folder: Path
    origins: list  # instruments that it was trained to convert from
    unheard: list  # origins that were kept out of training
    targets: list
    split: dict  # "train", "validation" and, if some were kept for it, "test": lists of names


class Piece(NamedTuple):
    """One piece to evaluate; the reference may be None."""

    name: str
    input: Path
    reference: Path | None


class Group(NamedTuple):
    """What one table is of."""

    title: str  # "" if there is only one
    folder: str  # below --output and --report
    about: str  # which pieces these are
    origin: str | None
    target: str | None
    pieces: list


def read_run(model):
    """A run's config.json as `Run`; None for a model that is no run folder.

    Raises:
        UserError: config.json is damaged.
    """
    where = Path(model) / "config.json"
    remedy = "train the model again"
    config = cli.read_json(where, remedy, flags=dict, split=dict)
    if config is None:
        return None
    with cli.undamaged(where, remedy):
        flags = config["flags"]
        unheard = _as_list(flags.get("hold_out_origin") or [])
        origins = [name for name in _as_list(flags["origin"]) if name not in unheard]
        targets = _as_list(flags["target"])
        return Run(Path(model), origins, unheard, targets, dict(config["split"]))


def _as_list(names):
    """One name or a list of them -> a list. Raises TypeError for anything else."""
    if isinstance(names, str):
        return [names]
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    return list(names)


def find_pieces(run, origin, target, audios, side="held_out"):
    """Pieces of a run that are below ``audios``, on one side of its split, or all that there are.

    Where a piece has other versions (transposed, other speeds), only the original counts. Pieces
    whose audio is missing are named on stderr.

    Args:
        run: `Run`.
        origin, target: instruments.
        audios: folder that holds a folder for each instrument.
        side: "held_out", "test", or "all" that both instruments have.

    Raises:
        UserError: no such instrument, no such side, or none of its pieces is there.
    """
    if side == "test" and not run.split.get("test"):
        raise UserError("--pieces test: this run kept none for the test; leave the flag out")
    inputs = cli.find_named(audios / origin, AUDIO_EXTENSIONS)
    references = cli.find_named(audios / target, AUDIO_EXTENSIONS)
    there = inputs.keys() & references.keys()
    names = sorted(there) if side == "all" else run.split[SIDES[side]]
    names = [name for name in names if midi.piece_of(name) == name] or names
    missing = [name for name in names if name not in there]
    pieces = [Piece(name, inputs[name], references[name]) for name in names if name in there]
    if not pieces:
        raise UserError(
            f"{audios}: holds none of these pieces; render them with synthesize_audios.py, "
            "or give --pieces all"
        )
    if missing:
        print(
            f"evaluate.py: no audio of both instruments, left out: "
            f"{cli.one_line(', '.join(missing))}",
            file=sys.stderr,
        )
    return pieces


def read_pairs(path):
    """Read lines of "input,reference" from a CSV file, paths relative to it.

    An empty reference means there is none.

    Raises:
        UserError: it is missing, no such table, or empty.
    """
    pieces = []
    for number, line in enumerate(cli.read_csv(path), 1):
        cells = [cell.strip() for cell in line]
        if len(cells) > 2 or not cells[0]:
            raise UserError(f"{path}: line {number} is not 'input,reference'; mend it")
        source, reference = (*cells, "")[:2]
        if (source, reference) != ("input", "reference"):
            wanted = path.parent / reference if reference else None
            pieces.append(Piece(source, path.parent / source, wanted))
    if not pieces:
        raise UserError(f"{path}: names no files; give a line 'input,reference' for each pair")
    return _name_apart(pieces)


def _name_apart(pieces):
    """The same pieces under different names, by which their results are known."""
    seen, apart = {}, []
    for piece in pieces:
        seen[piece.name] = seen.get(piece.name, 0) + 1
        again = seen[piece.name]
        name = piece.name if again == 1 else f"{piece.name} ({again})"
        apart.append(piece._replace(name=name))
    return apart


def find_recordings(paths):
    """Pieces without reference: files as they are, folders as the recordings in them.

    Raises:
        UserError: a folder has none.
    """
    files = []
    for path in paths:
        found = cli.find_files(path, AUDIO_EXTENSIONS) if path.is_dir() else [path]
        if not found:
            raise UserError(f"--inputs {path}: holds no recording; give another folder")
        files += found
    return [Piece(str(path), path, None) for path in files]


def find_groups(args, run):
    """What is to be evaluated, a table each: list of `Group`. Raises UserError."""
    if args.pairs or args.inputs:
        return [_find_unknown_group(args, run)]
    if not run:
        raise UserError(
            f"--model {args.model}: is no run folder, so its pieces are not known; "
            "give --pairs or --inputs"
        )
    origins, targets = choose_instruments(args, run)
    sides = [args.pieces] if args.pieces else ["held_out"]
    if not args.pieces and run.split.get("test"):
        sides.append("test")
    groups = []
    for target in targets:
        for origin in origins:
            for side in sides:
                pieces = find_pieces(run, origin, target, args.audios_path, side)[: args.limit]
                title = f"{origin} → {target}{_heard(run, origin)}, {SIDE_WORDS[side]}"
                parts = [target] if len(run.targets) > 1 or args.target else []
                parts += [origin] if len(origins) > 1 else []
                parts += [side] if side == "test" and not args.pieces else []
                about = describe_pieces(pieces, run, side)
                groups.append(Group(title, "/".join(parts), about, origin, target, pieces))
    if len(groups) == 1:
        groups = [groups[0]._replace(title="")]
    return groups


def _heard(run, origin):
    """What a title adds to an origin."""
    return "" if origin in run.origins else " (an instrument never heard in training)"


def _find_unknown_group(args, run):
    """The one group of --pairs or --inputs, of whose pieces no split tells."""
    if args.origin or args.target:
        flag = "--origin" if args.origin else "--target"
        raise UserError(f"{flag}: goes with --audios_path; leave it out")
    if args.pieces:
        raise UserError("--pieces: goes with --audios_path; leave it out")
    pieces = read_pairs(args.pairs) if args.pairs else find_recordings(args.inputs)
    pieces = pieces[: args.limit]
    about = describe_pieces(pieces)
    target = run.targets[0] if run and len(run.targets) == 1 else None
    return Group("", "", about, None, target, pieces)


def choose_instruments(args, run):
    """(origins, targets) that --origin and --target ask for, or that the run was trained on.

    By default every origin, those that were kept out of training last; of a model of several
    targets the first one.

    Raises:
        UserError: an instrument is on both sides.
    """
    origins = args.origin or [*run.origins, *run.unheard]
    if not args.origin and len(run.targets) > 1:
        origins = origins[:1]
    targets = args.target or [name for name in run.targets if name not in origins]
    both = [name for name in targets if name in origins]
    if both:
        raise UserError(f"--target {both[0]}: is the origin; name another target or --origin")
    if not targets:
        raise UserError(
            f"--origin {origins[0]}: is the only target; name another, or give --target"
        )
    return origins, targets


def describe_pieces(pieces, run=None, side=None):
    """One line that says which pieces these are."""
    names = ", ".join(cli.one_line(piece.name) for piece in pieces)
    count = f"{len(pieces)} piece" if len(pieces) == 1 else f"{len(pieces)} pieces"
    if not side:
        return f"{count}; whether the model was trained on them is not known here: {names}"
    if side == "all":
        used = sum(piece.name in run.split["train"] for piece in pieces)
        return f"{count}, {used} of them used in training: {names}"
    return f"{count} {SIDE_WORDS[side]}: {names}"


def read_piece(piece):
    """One piece's audio and its reference's audio or None, of one length.

    Raises:
        UserError: one of them is empty, or they differ by more than 1 % in length.
    """
    audio = read_audio(piece.input)
    if not len(audio):
        raise UserError(f"{piece.input}: has no sound to compare; leave it out")
    if not piece.reference:
        return audio, None
    reference = read_audio(piece.reference)
    if not len(reference):
        raise UserError(f"{piece.reference}: has no sound to compare; leave it out")
    shorter, longer = sorted([len(audio), len(reference)])
    if longer - shorter > LONGEST_MISMATCH * longer:
        raise UserError(
            f"{piece.reference}: lasts {len(reference) / data.SAMPLE_RATE:.2f} s, {piece.input} "
            f"{len(audio) / data.SAMPLE_RATE:.2f} s; give two recordings of the same music at the "
            "same time, cut to one length"
        )
    return audio[:shorter], reference[:shorter]


def median_spectrum(run, target, audios):
    """Per-bin median picture (256,) of the training targets, or None if there is no way to know it.

    It is the run's median.npy, or taken from the targets' audio: with several targets the file is
    the median of them all.
    """
    if not run:
        return None
    if run.targets == [target]:
        with contextlib.suppress(OSError, ValueError):
            median = np.load(run.folder / "median.npy", allow_pickle=False)
            if median.shape == (data.BINS,):
                return median.astype(np.float32)
    names = run.split["train"]
    frames = []
    for name in names[:: 1 + len(names) // MEDIAN_PIECES]:
        path = audios and find_audio(audios / target, name)
        if path:
            picture = data.spectrogram(read_audio(path))
            frames.append(picture[:, :: 1 + picture.shape[1] // MEDIAN_FRAMES])
    return np.median(np.concatenate(frames, axis=1), axis=1) if frames else None


# ---- One piece: its rows -----------------------------------------------------------------------


class Settings(NamedTuple):
    """How pieces are converted; see the flags of these names."""

    phases: list
    phase_iterations: int
    overlap: float
    batch_size: int
    phase_model: object = None
    hops: int = 1  # pictures that are interleaved, see convert.py
    level: str = "off"  # "match": the network gets the input at the training's loudness


class Row(NamedTuple):
    """One system's answer to one piece."""

    name: str
    audio: np.ndarray  # float32 (n,)
    asked: np.ndarray  # picture (256, 1 + n // 512) that the audio was made of, or its own
    is_made: bool  # whether the audio was made of the picture


def spectrum_of(audio, hops=1):
    """Audio (n,) -> spectrum complex64 (t, 256), frames as `convert.convert_stream` takes them."""
    stream = data.stft_stream([audio[np.newaxis]], data.HOP_LENGTH // hops)
    return np.concatenate(list(stream), axis=1)[0]


def resynthesise(mag, unit, length, estimate, iterations, hops=1):
    """Make sound of a magnitude, by the path of `convert.convert_audio`.

    Args:
        mag: float32 (t, 256), linear.
        unit: the input's phasors, complex64 (t, 256).
        length: of the audio, samples.
        estimate: a phase estimator of phase.py.
        iterations: of iterative ones.
        hops: frames to every HOP_LENGTH samples.

    Returns:
        float32 (length,).
    """
    hop_length = data.HOP_LENGTH // hops
    spectra = [(mag * unit)[np.newaxis]]
    spectra = convert.estimate_phases(spectra, estimate, iterations, 0, hop_length)
    blocks = list(convert.istft_stream(spectra, hop_length))
    return np.concatenate(blocks, axis=1)[0, :length]


class Resynthesis:
    """Makes rows of pictures: sounds of one piece's length, with phases made from its own."""

    def __init__(self, audio, settings):
        self.audio, self.settings = audio, settings
        self.frames = 1 + len(audio) // data.HOP_LENGTH  # the rest reaches beyond the end
        self.gain = training_gain(audio) if settings.level == "match" else 1.0
        spectrum = spectrum_of(audio, settings.hops)
        self.unit = data.phasor(spectrum)  # (t, 256)
        self.picture = convert.spectrum_to_db(spectrum)  # (t, 256)

    def convert(self, model, picture):
        """A network's outputs for a picture (t, 256) or (t, 256, inputs): (t, 256, outputs)."""
        swapped = picture.swapaxes(0, 1)
        converted = convert.convert_picture(
            model,
            swapped,
            self.settings.overlap,
            self.settings.batch_size,
            self.settings.hops,
        )
        return converted.swapaxes(0, 1)

    def at_usual_hop(self, picture):
        """The frames (t, 256) of a picture that stand where those of the usual hop do: (256, t)."""
        hops = self.settings.hops
        return picture[hops - 1 :: hops][: self.frames].T

    def unmade(self, name, audio, picture):
        """A row of a sound that there is already, and its picture (t, 256)."""
        return Row(name, audio, self.at_usual_hop(picture), False)

    def row(self, name, asked, phase_name, rotation=None):
        """A row whose sound is made of the picture ``asked`` (t, 256) and an estimator's phase.

        ``rotation`` (t, 256, 2) turns the input's phase into a learned one, unless a phase model
        does.
        """
        unit = self.unit
        if phase_name in phases.LEARNED:
            if self.settings.phase_model:
                both = np.stack([self.picture, asked], axis=-1)
                rotation = self.convert(self.settings.phase_model, both)
            unit = learned_phase.turned(unit, rotation)
        return self._made(name, asked, unit, phases.ALL[phase_name])

    def row_of_phase(self, name, asked, unit):
        """A row whose sound is made of the picture ``asked`` (t, 256) and just this phase."""
        return self._made(name, asked, unit, phases.ALL["input"])

    def _made(self, name, asked, unit, estimate):
        mag = data.db_to_amplitude(asked)
        iterations, hops = self.settings.phase_iterations, self.settings.hops
        audio = resynthesise(mag, unit, len(self.audio), estimate, iterations, hops)
        return Row(name, audio, self.at_usual_hop(asked), True)


def training_gain(audio):
    """Factor that brings audio (n,) to the loudness that networks are trained at."""
    meter = Meter()
    meter.add(audio[np.newaxis])
    return convert.find_gain(meter.integrated(), convert.TRAINING_LOUDNESS)


def amplify(picture, gain):
    """A picture on the dB scale, of any shape, of a sound that is ``gain`` times as loud."""
    if gain == 1:
        return picture
    return data.amplitude_to_db(data.db_to_amplitude(picture) * np.float32(gain))


def make_rows(model, audio, reference, median, settings):
    """Yield every `Row` of one piece. The network runs once.

    Args:
        model: see `convert.convert_stream`.
        audio: the input, float32 (n,).
        reference: the target recording (n,); None leaves out ceilings and all trivial systems but
            one.
        median: per-bin median of the training targets (256,), or None.
        settings: `Settings`. A learned phase is ``model``'s own or, from the magnitude in
            question, the phase model's.
    """
    make = Resynthesis(audio, settings)
    yield make.unmade(IDENTITY, audio, make.picture)
    if reference is not None:
        yield make.unmade(SILENCE, np.zeros_like(audio), np.zeros_like(make.picture))
        if median is not None:
            yield make.row(MEDIAN, np.broadcast_to(median, make.picture.shape), "input")
    outputs = make.convert(model, amplify(make.picture, make.gain))
    magnitude, rotation = amplify(outputs[..., 0], 1 / make.gain), outputs[..., 1:]
    for name in settings.phases:
        yield make.row(row_name(MODEL, name), magnitude, name, rotation)
    if reference is not None:
        spectrum = spectrum_of(reference, settings.hops)
        true = convert.spectrum_to_db(spectrum)
        for name in settings.phases:
            yield make.row(row_name(TRUE, name), true, name, rotation)
        yield make.row_of_phase(OWN_PHASE, true, data.phasor(spectrum))
        yield make.unmade(TARGET, reference, true)


# ---- One piece: its measures -------------------------------------------------------------------


class Sound:
    """What the measures need of a recording, each computed when it is first asked for."""

    def __init__(self, audio):
        self.audio = audio

    @functools.cached_property
    def picture(self):
        """(256, t) on the dB scale."""
        return data.spectrogram(self.audio)

    @functools.cached_property
    def low(self):
        """The audio at 16 kHz."""
        return metrics.resample(self.audio)

    @functools.cached_property
    def mel(self):
        """`metrics.log_mel`."""
        return metrics.log_mel(self.low)

    @functools.cached_property
    def pitches(self):
        """`metrics.sounding_pitches`."""
        return metrics.sounding_pitches(self.low)


def things_to_compare(row, target=None, notes=None):
    """What the measures compare of one row: {name in `metrics.Measure.takes`: thing}.

    Args:
        row: `Row`.
        target: the target recording, a `Sound`, or None.
        notes: of the score, see `read_notes`, or None.
    """
    sound = Sound(row.audio)
    things = {"asked": row.asked}
    if row.is_made:
        things["written_picture"] = sound.picture
        things["written_mag"] = data.db_to_amplitude(sound.picture)
        things["asked_mag"] = data.db_to_amplitude(row.asked)
    if target:
        for name in ("picture", "low", "mel", "pitches"):
            things[name] = getattr(sound, name)
            things[f"target_{name}"] = getattr(target, name)
    if row.name == OWN_PHASE:
        things["waveform"] = row.audio
        things["target_waveform"] = target.audio
    if notes:
        things["heard_notes"] = judges.hear_notes(row.audio)
        things["score_notes"] = notes
    return things


def measure(row, target=None, notes=None):
    """The measures that apply to one row: {key: value}; arguments of `things_to_compare`."""
    things = things_to_compare(row, target, notes)
    found = {}
    for column in COLUMNS:
        if all(name in things for name in column.takes):
            found[column.key] = column.function(*(things[name] for name in column.takes))
    return found


# ---- One group: its tables and its page --------------------------------------------------------


def find_scores(folder):
    """Scores by name for the judge of notes: {path below ``folder``, without extension: path}.

    Empty without a folder, or where the judge is not installed, which is said.
    """
    if not folder:
        return {}
    scores = cli.find_named(folder, (".mid", ".midi"))
    if not judges.is_installed():
        print(
            f"evaluate.py: --midi_path {folder}: note F1 is left out, for "
            f"{', '.join(judges.PACKAGES)} are not all installed; see judges.py",
            file=sys.stderr,
        )
        return {}
    return scores


def read_notes(scores, piece, seconds):
    """A piece's notes, as `judges.score_notes` gives them, or None without a score to be read.

    That, and what had to be repaired to read it, is said.
    """
    if not scores:
        return None
    name = Path(piece.name)
    if name.suffix.lower() in AUDIO_EXTENSIONS:  # of --pairs and --inputs, whose names are files
        name = name.with_suffix("")
    path = scores.get(name.as_posix()) or scores.get(name.name)
    if not path:
        print(
            f"evaluate.py: no score of {cli.one_line(piece.name)}: its note F1 is left out",
            file=sys.stderr,
        )
        return None
    try:
        notes, repairs = judges.score_notes(path, seconds)
    except UserError as error:
        print(f"evaluate.py: note F1 is left out: {cli.one_line(error)}", file=sys.stderr)
        return None
    if repairs:
        print(f"note: {cli.one_line(path)}: repaired: {repairs}", file=sys.stderr)
    return notes


def evaluate_group(model, group, median, settings, scores=(), page=None):
    """Evaluate a group piece by piece.

    Args:
        model: see `convert.convert_stream`.
        group: `Group`.
        median: see `make_rows`.
        settings: `Settings`.
        scores: see `find_scores`.
        page: `GroupPage` that gets each piece's sounds, or None.

    Returns:
        results, see tables.py.
    """
    results = []
    with tqdm(total=len(group.pieces), unit="piece", desc="evaluate") as bar:
        for piece in group.pieces:
            audio, reference = read_piece(piece)
            target = None if reference is None else Sound(reference)
            notes = read_notes(scores, piece, len(audio) / data.SAMPLE_RATE)
            measured, sounds = [], {}
            for row in make_rows(model, audio, reference, median, settings):
                bar.set_postfix_str(row.name)
                measured.append((piece.name, row.name, measure(row, target, notes)))
                sounds[row.name] = row.audio
            results += measured
            if page:
                page.add(piece, sounds, measured)
            bar.update()
    return results


def pairs_to_compare(settings):
    """Rows to compare in pairs: the model with the input, each phase with the first one."""
    first = settings.phases[0]
    pairs = [(row_name(MODEL, first), IDENTITY)]
    for system in (MODEL, TRUE):
        for name in settings.phases[1:]:
            pairs.append((row_name(system, name), row_name(system, first)))
    return pairs


def describe_best_phases(results, settings):
    """Lines of text: by each measure, the phase that serves the model best, beside the first."""
    rows = {row_name(MODEL, name): name for name in settings.phases}
    first = row_name(MODEL, settings.phases[0])
    lines = []
    for column in COLUMNS:
        best, means = tables.find_best(results, list(rows), column)
        if not best:
            continue
        text = f"  {column.heading}: {rows[best]} {means[best]:.{column.digits}f}"
        if best != first and first in means:
            text += f", {rows[first]} {means[first]:.{column.digits}f}"
        lines.append(text)
    if lines:
        lines.insert(0, f"The best phase for the model's magnitude, beside {rows[first]}:")
    return lines


def print_group(group, summary, differences, results, settings):
    """Print a group's tables."""
    if group.title:
        print(f"\n{group.title}")
    print(f"{group.about}\n")
    print(tables.markdown(*tables.text_table(summary, COLUMNS)))
    print("\nmean ± standard deviation over pieces, n: how many; lower is better, SNR and F1 apart")
    if differences:
        print("\nPaired differences, piece by piece:\n")
        print(tables.markdown(*tables.text_table(differences, COLUMNS)))
    print("\n".join(["", *describe_best_phases(results, settings)]))


def write_group(folder, results, about):
    """Write results.csv, one line a piece and row, and results.json, the tables."""
    lines = [["piece", "row", *(column.key for column in COLUMNS)]]
    for piece, row, found in results:
        values = [found.get(column.key, "") for column in COLUMNS]
        lines.append([cli.one_line(piece), row, *values])
    cli.write_csv(folder / "results.csv", lines)
    cli.write_json(folder / "results.json", about)
    print(f"-> {folder / 'results.csv'}, {folder / 'results.json'}")


def overview(summaries):
    """A table that compares groups: the input unchanged, the model, and the difference.

    Args:
        summaries: {group's title: (summary, differences, the model's row)}.

    Returns:
        (header, rows) of text.
    """
    columns = [column for column in COLUMNS if column.key in ("mae_db", "level_matched_db")]
    header = [""]
    for column in columns:
        header += [f"{column.heading}: unchanged", "model", "difference"]
    rows = []
    for title, (summary, differences, model_row) in summaries.items():
        cells = [title]
        for column in columns:
            difference = differences.get(model_row + tables.MINUS + IDENTITY, {})
            for of_row in (summary[IDENTITY], summary[model_row], difference):
                cells.append(tables.cell_text(of_row.get(column.key), column.digits))
        rows.append([*cells, str(summary[model_row]["mae_db"]["n"])])
    return [*header, "n"], rows


ROW_TERMS = (  # how a row's name begins, and what it is
    (IDENTITY, "The input, unchanged: what there is to beat."),
    (SILENCE, "Nothing at all."),
    (MEDIAN, "One constant spectrum, the median of the training targets."),
    (MODEL, "The network's picture, made audible with the phase named."),
    (TRUE, "The target's own picture with that phase: what a perfect network would reach."),
    (TARGET, "The recording of the target instrument."),
)


class GroupPage:
    """The listening page of one group."""

    def __init__(self, folder, group, settings, seconds):
        self.folder, self.group, self.settings, self.seconds = folder, group, settings, seconds
        self.titles, self.sections = [], []

    def add(self, piece, sounds, measured):
        """Write one piece's sounds and pictures.

        Args:
            piece: `Piece`.
            sounds: {row: audio (n,)}.
            measured: its results, see tables.py.
        """
        samples = int(self.seconds * data.SAMPLE_RATE)
        summary = tables.summarise(measured, COLUMNS)
        first, *others = self.settings.phases
        shown = {self._input_label(): sounds[IDENTITY][:samples]}
        shown["Output"] = sounds[row_name(MODEL, first)][:samples]
        more = {}
        for name in others:
            more[f"Output, phase: {name}"] = sounds[row_name(MODEL, name)][:samples]
        difference = None
        if TARGET in sounds:
            shown[self._target_label()] = sounds[TARGET][:samples]
            difference = "Output", self._target_label()
        entry = report.Piece(
            report.plain_title(piece.name),
            shown,
            more,
            difference,
            self.describe(summary),
            tables.text_table(summary, COLUMNS),
        )
        self.sections.append(report.write_section(self.folder, len(self.titles) + 1, entry))
        self.titles.append(entry.title)

    def _input_label(self):
        if not self.group.origin:
            return "Input"
        return f"Input: {report.plain_instrument(self.group.origin)}"

    def _target_label(self):
        if not self.group.target:
            return "Target"
        return f"Target: {report.plain_instrument(self.group.target)}"

    def describe(self, summary):
        """The sentence above the sounds: how far the output is from the target, and the input."""
        cells = summary[row_name(MODEL, self.settings.phases[0])]
        if "mae_db" not in cells:
            return ""
        target = report.plain_instrument(self.group.target) if self.group.target else "target"
        unchanged = summary[IDENTITY]["mae_db"]["mean"]
        return (
            f"{cells['mae_db']['mean']:.2f} dB from the {target}; "
            f"the unchanged input {unchanged:.2f} dB."
        )

    def _title(self, model):
        if not self.group.origin:
            return f"Conversions by {Path(model).name}"
        origin = report.plain_instrument(self.group.origin)
        return f"From {origin} to {report.plain_instrument(self.group.target)}"

    def write(self, model, summary):
        """Write the page itself, last of its files; ``model`` is its path."""
        notes = [
            self.group.about,
            f"The first {self.seconds:g} s of each piece are here; measures are of whole pieces.",
            f"“Output” has the phase {self.settings.phases[0]}.",
            "Mean ± standard deviation over pieces; the lower the better, SNR and note F1 apart.",
        ]
        header, rows = table = tables.text_table(summary, COLUMNS)
        terms = [(column.heading, column.meaning) for column in COLUMNS if column.heading in header]
        for name, meaning in ROW_TERMS:
            if any(row[0].startswith(name) for row in rows):
                terms.append((name, meaning))
        sentence = self.describe(summary)
        titles = self.titles
        report.write_index(
            self.folder, self._title(model), titles, self.sections, sentence, notes, table, terms
        )
        print(f"-> {self.folder / 'index.html'}")


# ---- The command -------------------------------------------------------------------------------


def choose_style(model, run, target, audios):
    """A model of several targets with one's style, its first training piece's; others unchanged.

    Raises:
        UserError: there is no recording to take the style from.
    """
    if not kinds.takes_style(model):
        return model
    if not run or audios is None:
        raise UserError(
            "--model: knows several targets, of which evaluate.py picks one with --audios_path "
            "only; give that"
        )
    name = run.split["train"][0]
    path = find_audio(audios / target, name)
    if not path:
        raise UserError(
            f"{audios / target}: has no {name}, which the style is taken from; render it with "
            "synthesize_audios.py"
        )
    return styles.with_style(model, data.spectrogram(read_audio(path)))


def add_piece_flags(parser):
    """Flags that say which pieces."""
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
        help="CSV file of lines input,reference, relative to it: recordings and aligned targets; "
        "the reference may be empty",
    )
    source.add_argument(
        "--inputs", type=Path, nargs="+", help="recordings without reference, or folders of them"
    )
    add(
        "--pieces",
        choices=(*SIDES, "all"),
        help="which pieces of the run, with --audios_path; default: held_out and, where a run kept "
        "some for the test, test",
    )
    add(
        "--origin",
        nargs="+",
        help="instruments to convert from, heard in training or not, a table each; default: the "
        "run's, of a model of several targets the first",
    )
    add(
        "--target",
        nargs="+",
        help="instruments to compare with, for a model of several targets also those it never "
        "saw; default: all it was trained on",
    )
    add("--limit", type=cli.number(int, 1), help="take the first pieces only")
    add(
        "--midi_path",
        type=Path,
        help="scores, named like the pieces: adds note F1 by an independent transcriber, where it "
        "is installed (judges.py says how)",
    )


def add_conversion_flags(parser):
    """Flags that say how pieces are converted."""
    add = parser.add_argument
    add(
        "--phase",
        nargs="+",
        choices=phases.ALL,
        help="phase estimators to compare; default: all that the model allows",
    )
    add(
        "--phase_model",
        help="model of train_generator.py --learn phase, for the learned phase",
    )
    add(
        "--phase_iterations",
        type=cli.number(int, 0, 10_000),
        default=32,
        help="of iterative phase estimators",
    )
    add(
        "--hops",
        type=int,
        choices=convert.HOPS,
        default=1,
        help="finer hops: pictures that are interleaved, as of predict.py",
    )
    add(
        "--level",
        choices=("off", "match"),
        default="off",
        help="match: the network gets the input at the training's loudness, as of predict.py, and "
        "its answer is brought back; for recordings of another level",
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
    add("--gpu", help="GPU number, or cpu; default: 0 if there is one")


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add_piece_flags(parser)
    add_conversion_flags(parser)
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        help="folder for the results; default: evaluation in the run folder, or here for others",
    )
    add("--report", type=Path, help="folder for a listening page; default: none")
    add(
        "--report_seconds",
        type=cli.number(float, 0, low_open=True),
        default=20,
        help="seconds of each piece on that page",
    )
    return parser


def load_networks(args):
    """(model, `Settings`) that the flags ask for. Raises UserError."""
    devices.setup_device(args.gpu)
    import models

    model = models.load_generator(args.model)
    phase_model = models.load_generator(args.phase_model) if args.phase_model else None
    names = args.phase
    if not names:
        has_learned = phase_model or kinds.kind_of(model) is kinds.Kind.BOTH
        names = list(phases.ALL if has_learned else phases.ESTIMATORS)
    learned_phase.check_phases(names, model, phase_model)
    return model, Settings(
        names,
        args.phase_iterations,
        args.overlap,
        args.batch_size,
        phase_model,
        args.hops,
        args.level,
    )


def choose_output(args, run):
    """The folder for the results."""
    if args.output:
        return args.output
    is_pretrained = args.model.resolve().parent == cli.PRETRAINED.resolve()
    return args.model / "evaluation" if run and not is_pretrained else Path("evaluation")


def run_group(model, group, run, settings, scores, args, output):
    """Evaluate one group, print and write all of it. Returns (summary, differences)."""
    median = median_spectrum(run, group.target, args.audios_path) if group.target else None
    if median is None and not args.inputs:
        print("evaluate.py: no median.npy in the run folder: that row is left out", file=sys.stderr)
    page = None
    if args.report:
        page = GroupPage(args.report / group.folder, group, settings, args.report_seconds)
    styled = choose_style(model, run, group.target, args.audios_path)
    results = evaluate_group(styled, group, median, settings, scores, page)
    summary = tables.summarise(results, COLUMNS)
    differences = tables.compare(results, pairs_to_compare(settings), COLUMNS)
    print_group(group, summary, differences, results, settings)
    about = {
        "model": str(args.model),
        "origin": group.origin,
        "target": group.target,
        "pieces": group.about,
        "phase_iterations": settings.phase_iterations,
        "hops": settings.hops,
        "level": settings.level,
        "overlap": settings.overlap,
        "rows": summary,
        "differences": differences,
    }
    write_group(output / group.folder, results, about)
    if page:
        page.write(args.model, summary)
    return summary, differences


@cli.command
def main(argv=None):
    """Parse flags, evaluate group by group, compare the groups."""
    args = build_parser().parse_args(argv)
    args.model = cli.find_model(args.model)
    run = read_run(args.model)
    groups = find_groups(args, run)
    for group in groups:
        for piece in group.pieces:
            for path in filter(None, (piece.input, piece.reference)):
                open_sound(path).close()  # a mistake shows before the work
    scores = find_scores(args.midi_path)
    output = choose_output(args, run)
    cli.check_folder(output, "--output")
    if args.report:
        cli.check_folder(args.report, "--report")
    model, settings = load_networks(args)
    summaries = {}
    for group in groups:
        summary, differences = run_group(model, group, run, settings, scores, args, output)
        summaries[group.title] = summary, differences, row_name(MODEL, settings.phases[0])
    if len(groups) > 1:
        header, rows = overview(summaries)
        print(f"\n{tables.markdown(header, rows)}")
        cli.write_csv(output / "overview.csv", [header, *rows])
        print(f"-> {output / 'overview.csv'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
