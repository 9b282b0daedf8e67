"""Step 5: measure trained models on whole pieces, with baselines and upper bounds.

    python evaluate.py --model runs/keyboard_acoustic_2_guitar_acoustic --audios audios
    python evaluate.py --model guitar --pairs recordings.csv --report page
    python evaluate.py --model runs/long runs/short --audios audios --report page

Converts the run's validation pieces and, in a separate table, its test pieces. The network runs
once for each piece. Its output gets a phase from each estimator, and each result is compared with
the recording of the target. Prints a table of mean ± standard deviation over pieces and a table of
paired differences. Writes results.csv (each piece and row) and results.json (the tables). The rows:

    identity                               the input, unchanged
    silence                                nothing
    median picture                         one constant spectrum, with the input's phase
    model (phase: NAME)                    the output of predict.py --quality draft --phase NAME
                                           --level off
    true magnitude (phase: NAME)           a perfect network: all errors come from the phase
    true magnitude (phase: the target's)   the cost of the representation (half the band); the only
                                           row with an SNR
    target                                 the recording

For the columns see measuring/metrics.py. "picture" compares the spectrogram of the network (or the
true one) with the target's, "audio" the spectrogram of the written audio. Another table has the
error of the audio in bands of 0 - 22 kHz. Each --origin and each of --conditions has its own table.
A further table compares them, one by one and by family, with known and unknown pianos apart.

Several models share tables and page; only pieces held out by all of them count. Each model has a
row "model LABEL (phase: NAME)". differences.csv has its paired difference from the first model.
"""

from common import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import contextlib
import math
import sys
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import data
from common import devices, kinds
from common.cli import UserError
from common.files import check_folder, find_named, read_json, write_csv, write_json
from common.names import MIDI_EXTENSIONS, family_of
from common.run_facts import RunFacts
from conversion import convert, known_models
from measuring import judges, metrics, tables, tagger
from measuring.pieces import SIDE_WORDS, find_candidates, find_groups, find_median, read_piece
from measuring.rows import (
    COLUMNS,
    IDENTITY,
    MEASURED,
    MEDIAN,
    SHOWN_COLUMNS,
    TARGET,
    TRUE,
    MeasuredSound,
    Settings,
    Systems,
    find_bins,
    make_rows,
    measure,
    name_row,
    name_system,
)
from research import learned_phase
from sound import phase as phases
from sound.conditions import CONDITIONS
from sound.recordings import AUDIO_EXTENSIONS

TABLES = {  # {file of results: (first bytes, other required bytes)}
    "results.csv": (b"piece,row,",),
    "differences.csv": (b"difference,measure,",),
    "overview.csv": (b",", b": unchanged"),
    "results.json": (b"{", b'"rows"'),
}

listening_page = cli.load_later("measuring.page")  # they load Matplotlib
listening = cli.load_later("report.listening")

# ---- One group: its tables ---------------------------------------------------------------------


# Columns of results.csv, results.json; the bands have a table of their own on the screen
WRITTEN_COLUMNS = [*SHOWN_COLUMNS, *metrics.BAND_MEASURES]
WIDTH = 100  # characters of the tables in the terminal
# Columns of the table that compares origins
OVERVIEW = ("mae_db", "level_matched_db", judges.NOTE_F1.key, tagger.DISTANCE)


def find_scores(folder):
    """Find scores for the note judge: {path below ``folder``, without extension: path}.

    Empty without a folder, or, with a note on stderr, without the judge's packages.
    """
    if not folder:
        return {}
    scores = find_named(folder, MIDI_EXTENSIONS)
    if not judges.is_installed():
        print(
            f"evaluate.py: --midi_path {folder}: note F1 is left out, for its judge is not "
            f"installed: {judges.INSTALL}",
            file=sys.stderr,
        )
        return {}
    return scores


def read_notes(scores, piece, seconds):
    """Read a piece's notes by `judges.score_notes`; None without a readable score.

    Prints a note on stderr in either case, and about repairs of the score.
    """
    if not scores:
        return None
    name = Path(piece.name)
    if name.suffix.lower() in AUDIO_EXTENSIONS:  # names of --pairs and --inputs are files
        name = name.with_suffix("")
    path = scores.get(name.as_posix()) or scores.get(name.name)
    if not path:
        print(
            f"evaluate.py: no score of {cli.one_line(piece.name)}: its note F1 is left out",
            file=sys.stderr,
        )
        return None
    read = cli.attempt(judges.score_notes, path, seconds)
    if isinstance(read, UserError):
        print(f"evaluate.py: note F1 is left out: {cli.one_line(read)}", file=sys.stderr)
        return None
    notes, repairs = read
    if repairs:
        print(f"note: {cli.one_line(path)}: repaired: {repairs}", file=sys.stderr)
    return notes


class Jury(NamedTuple):
    """The external judges in use."""

    scores: dict = {}  # noqa: RUF012  see `find_scores`: for the judge of notes
    listener: tagger.Listener | None = None


def evaluate_group(systems, group, jury, page=None):
    """Evaluate a group piece by piece. A piece that cannot be read is reported and skipped.

    Args:
        systems: `Systems`.
        group: `Group`.
        jury: `Jury`.
        page: `GroupPage` that gets each piece's sounds, or None.

    Returns:
        results, see measuring/tables.py.

    Raises:
        UserError: none of the pieces can be read.
    """
    results = []
    with tqdm(total=len(group.pieces), unit="piece", desc="evaluate") as bar:
        for piece in group.pieces:
            read = cli.attempt(read_piece, piece, group.seconds)
            if isinstance(read, UserError):
                if len(group.pieces) == 1:
                    raise read
                cli.pass_over(read)
                bar.update()
                continue
            audio, reference = read
            if group.condition:
                audio = CONDITIONS[group.condition].apply(audio)
            measured, sounds = evaluate_piece(systems, piece, audio, reference, jury, bar)
            results += measured
            if page:
                page.add(piece, sounds, measured)
            bar.update()
    if not results:
        raise UserError(f"{group.pieces[0].source}: none of these can be read; give others")
    return results


def evaluate_piece(systems, piece, audio, reference, jury, bar):
    """Make and measure all rows of one piece.

    Args:
        systems, audio, reference: see `make_rows`.
        piece: `Piece`.
        jury: `Jury`.
        bar: progress bar that shows the row's name.

    Returns:
        (its results, see measuring/tables.py; {row: audio (n,)}).
    """
    target = None
    if reference is not None:
        target = MeasuredSound(reference, find_bins(systems.models.values()))
    notes = read_notes(jury.scores, piece, len(audio) / data.SAMPLE_RATE)
    measured = []
    sounds = {}
    for row in make_rows(systems, audio, reference):
        bar.set_postfix_str(row.name)
        found = measure(row, target, notes)
        if jury.listener:
            found |= jury.listener.hear(row.name, row.audio)
        measured.append((piece.name, row.name, found))
        sounds[row.name] = row.audio
    return measured, sounds


def leave_out_unread(group, results):
    """Remove the skipped pieces from a group, and mention them in its description."""
    names = {name for name, _, _ in results}
    pieces = [piece for piece in group.pieces if piece.name in names]
    missing = [cli.one_line(piece.name) for piece in group.pieces if piece.name not in names]
    if not missing:
        return group
    about = f"{group.about}; left out, as they cannot be read: {', '.join(missing)}"
    return group._replace(pieces=pieces, about=about)


def list_comparisons(systems, settings):
    """List the comparisons (row, other row) for `tables.compare`; ``systems``: models' names.

    Compares each model with the input and, phase by phase, with the first model; then each phase
    with the first phase.
    """
    first = settings.phases[0]
    comparisons = [(name_row(system, first), IDENTITY) for system in systems]
    for system in systems[1:]:
        for name in settings.phases:
            comparisons.append((name_row(system, name), name_row(systems[0], name)))
    for system in (*systems, TRUE):
        for name in settings.phases[1:]:
            comparisons.append((name_row(system, name), name_row(system, first)))
    return comparisons


def print_table(header, rows):
    """Print a table as Markdown, in parts below each other if it is wider than `WIDTH`."""
    parts = tables.split_columns(header, rows, WIDTH)
    print("\n\n".join(tables.markdown(*part) for part in parts))


def print_group(group, summary, differences):
    """Print a group's tables."""
    if group.title:
        print(f"\n{group.title}")
    print(f"{group.about}\n")
    print_table(*tables.text_table(summary, SHOWN_COLUMNS))
    print("\nmean ± standard deviation over pieces, n: how many; lower is better, SNR and F1 apart")
    if TARGET in summary:
        print("\nAudio MAE by band, dB:\n")
        print_table(*tables.text_table(summary, metrics.BAND_MEASURES))
    if differences:
        print("\nPaired differences, piece by piece:\n")
        print_table(*tables.text_table(differences, COLUMNS))


def check_own(folder):
    """Raise UserError if a table in the folder exists and was not written by evaluate.py."""
    for name, words in TABLES.items():
        path = folder / name
        if not path.is_file():
            continue
        text = path.read_bytes()
        if not text.startswith(words[0]) or any(word not in text for word in words):
            raise UserError(
                f"{path}: is there and was not written by evaluate.py, so it is kept; "
                "give another --output"
            )


def drop_others(output, groups, paths):
    """Delete results of other models in these groups' folders, so that a stopped run leaves none.

    ``paths``: see `name_paths`.
    """
    for group in groups:
        folder = output / group.folder
        with contextlib.suppress(UserError):  # a damaged file is replaced, too
            found = read_json(folder / "results.json", "", model=(str, list), rows=dict)
            if found and found["model"] != paths:
                for name in ("results.json", "results.csv", "differences.csv"):
                    (folder / name).unlink(missing_ok=True)
                (output / "overview.csv").unlink(missing_ok=True)


def write_differences(path, differences):
    """Write a table of paired differences as CSV, one line per difference and measure."""
    lines = [["difference", "measure", "mean", "standard deviation", "n"]]
    for pair, cells in differences.items():
        for key, cell in cells.items():
            lines.append([pair, key, cell["mean"], cell["spread"], cell["n"]])
    write_csv(path, lines)
    print(f"-> {path}")


def write_group(folder, results, about):
    """Write results.csv, one line per piece and row, and results.json, the tables."""
    lines = [["piece", "row", *(column.key for column in WRITTEN_COLUMNS)]]
    for piece, row, found in results:
        values = [found.get(column.key, "") for column in WRITTEN_COLUMNS]
        lines.append([cli.one_line(piece), row, *values])
    check_own(folder)  # again, because measuring takes long
    write_csv(folder / "results.csv", lines)
    write_json(folder / "results.json", about)
    print(f"-> {folder / 'results.csv'}, {folder / 'results.json'}")


def average_families(groups, summaries):
    """Average over the instruments of a family, with known and unknown instruments apart.

    Args:
        groups: list of `Group`.
        summaries: {group's title: (summary, differences)}.

    Returns:
        {title: (summary, differences)} of the families.
    """
    families = {}
    for group in groups:
        if group.origin and not group.condition:
            title = group.title.replace(group.origin, family_of(group.origin), 1)
            families.setdefault(title, []).append(summaries[group.title])
    means = {}
    for title, members in families.items():
        if len(members) > 1:
            summary, differences = map(tables.average, zip(*members))
            means[f"{title}: mean of {len(members)} instruments"] = summary, differences
    return means


def compare_groups(summaries, rows_of_systems):
    """Make a table that compares groups: unchanged input, each model, its difference.

    Args:
        summaries: {group's title: (summary, differences)}.
        rows_of_systems: {a model's name: its row}.

    Returns:
        (header, rows) of text.
    """
    known = set()
    for summary, _ in summaries.values():
        known = known.union(*summary.values())
    columns = [column for column in SHOWN_COLUMNS if column.key in OVERVIEW and column.key in known]
    header = [""]
    for column in columns:
        header.append(f"{column.heading}: unchanged")
        for system in rows_of_systems:
            header += [system, "difference"]
    rows = []
    for title, (summary, differences) in summaries.items():
        cells = [title]
        for column in columns:
            shown = [summary[IDENTITY]]
            for row in rows_of_systems.values():
                shown += [summary[row], differences.get(row + tables.MINUS + IDENTITY, {})]
            for of_row in shown:
                cells.append(tables.cell_text(of_row.get(column.key), column.digits))
        rows.append([*cells, str(summary[IDENTITY]["mae_db"]["n"])])
    return [*header, "n"], rows


# ---- The command -------------------------------------------------------------------------------


def add_piece_flags(parser):
    """Add the flags of the source of pieces."""
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        required=True,
        help="one or several models to compare: part of a name that fits only one (see predict.py"
        " --list), run folder, .keras file or .h5 weights",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--audios_path", "--audios", type=Path, help="audio folder with the run's pieces"
    )
    source.add_argument(
        "--pairs",
        type=Path,
        help="CSV file with lines of input,reference: recordings and aligned targets, paths "
        "relative to the file; the reference may be empty",
    )
    source.add_argument(
        "--inputs", type=Path, nargs="+", help="recordings without a target, or folders of them"
    )


def side(text):
    """Parse --pieces as a key of `SIDE_WORDS`; "held_out" is the older name of "validation"."""
    return "validation" if text == "held_out" else text


def add_choice_flags(parser):
    """Add the flags that choose pieces, instruments and conditions."""
    add = parser.add_argument
    add(
        "--pieces",
        type=side,
        choices=SIDE_WORDS,
        help="with --audios_path: pieces of the run to measure; with several runs, pieces that all "
        "of them have on that side; default: validation, and test if the run has test pieces",
    )
    add(
        "--origin",
        nargs="+",
        help="instruments to convert from, also outside the training set; one table each; "
        "default: the run's origins (several runs: common origins)",
    )
    add(
        "--target",
        nargs="+",
        help="instruments to compare with, one table each; default: the run's target",
    )
    add(
        "--conditions",
        nargs="+",
        choices=CONDITIONS,
        default=[],
        help="also measure the recordings in a room, with noise, with an old recording's band, or "
        "12 dB softer; one table each; see sound/conditions.py",
    )
    add("--limit", type=cli.number(int, 1), help="measure the first n pieces only")
    add(
        "--seconds",
        type=cli.seconds(low_open=True),
        help="measure only the start of each piece; length in s or m:ss",
    )


def add_judge_flags(parser):
    """Add the flags of the external judges."""
    add = parser.add_argument
    add(
        "--midi_path",
        type=Path,
        help="folder of scores, named like the pieces: adds note F1 by Basic Pitch, if it is "
        "installed (see measuring/judges.py)",
    )
    add(
        "--tagger",
        action="store_true",
        help="add musicnn's tags and the Frechet distance of its embeddings to the targets'; "
        "needs its package (see measuring/tagger.py)",
    )


def add_phase_flags(parser):
    """Add the flags of the phase."""
    add = parser.add_argument
    add(
        "--phase",
        nargs="+",
        choices=phases.ALL,
        help="phase estimators to compare; default: all that the model supports",
    )
    add(
        "--phase_model",
        help="model of train_generator.py --learn phase, for the learned phase",
    )
    add(
        "--phase_iterations",
        type=cli.number(int, 0, 10_000),
        default=32,
        help="iterations of iterative phase estimators",
    )
    add(
        "--pull",
        type=cli.number(float, 0, 10),
        help="how much the input's phase counts in griffinlim_anchored, as in predict.py; default: "
        "each model's own",
    )


def add_conversion_flags(parser):
    """Add the flags of the conversion, without the phase."""
    add = parser.add_argument
    add(
        "--hops",
        type=int,
        choices=convert.HOPS,
        default=1,
        help="hop of 512 samples divided by this, as in predict.py",
    )
    add(
        "--level",
        choices=("off", "match"),
        default="off",
        help="match: scale the input to the training data's loudness, as in predict.py, and scale "
        "the output back; use it for recordings of another level",
    )
    add(
        "--overlap",
        type=cli.number(float, 0, 0.99),
        default=convert.OVERLAP,
        help="fraction of a tile that overlaps with the next one",
    )
    add(
        "--batch_size",
        type=cli.number(int, 1),
        default=convert.BATCH_SIZE,
        help="tiles per network call; half as many if they have 512 bins",
    )
    add("--gpu", help="GPU number, or cpu; default: 0 if there is one")


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add_piece_flags(parser)
    add_choice_flags(parser)
    add_judge_flags(parser)
    add_phase_flags(parser)
    add_conversion_flags(parser)
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        help="folder for the results; default: evaluation in the run folder, or in the current "
        "folder for other models and for several",
    )
    add("--report", type=Path, help="folder for a listening page; default: none")
    add(
        "--report_seconds",
        type=cli.number(float, 0, low_open=True),
        default=20,
        help="seconds of each piece on that page",
    )
    return parser


def load_models(args, candidates):
    """Load the models: (candidates with their models, `Settings`). Raises UserError."""
    devices.setup_device(args.gpu)
    from conversion import model_files

    models = [model_files.load_generator(candidate.path) for candidate in candidates]
    phase_model = model_files.load_generator(args.phase_model) if args.phase_model else None
    names = args.phase
    if not names:
        has_learned = phase_model or all(kinds.kind_of(each).gives_rotation for each in models)
        names = list(phases.ALL if has_learned else phases.ESTIMATORS)
    loaded = []
    pulls = {}
    for candidate, model in zip(candidates, models):
        pull = RunFacts(candidate.path).pull
        if args.pull is not None:
            pull = args.pull
        pulls[name_system(candidate.label)] = phases.PULL if pull is None else pull
        learned_phase.check_phases(names, model, phase_model, f"--model {candidate.path}")
        loaded.append(candidate._replace(model=model))
    options = convert.Options(
        phase_iterations=args.phase_iterations,
        hops=args.hops,
        overlap=args.overlap,
        batch_size=args.batch_size,
    )
    return loaded, Settings(names, options, phase_model, args.level, pulls)


def add_distances(summary, distances, count):
    """Put the tagger's distances, {row: value} over all ``count`` pieces, into a summary."""
    for row, distance in distances.items():
        if math.isnan(distance):  # too little sound for it
            continue
        summary[row][tagger.DISTANCE] = {"mean": distance, "spread": None, "n": count}


def choose_output(args, candidates):
    """Choose the folder for the results."""
    if args.output:
        return args.output
    first = candidates[0]
    is_pretrained = first.path.resolve().parent == known_models.PRETRAINED.resolve()
    if len(candidates) == 1 and first.run and not is_pretrained:
        return first.path / "evaluation"
    return Path("evaluation")


def name_paths(candidates):
    """Name the models in results.json: a path, or a list of several."""
    paths = [str(candidate.path) for candidate in candidates]
    return paths if len(paths) > 1 else paths[0]


def describe_group(candidates, group, settings):
    """Describe a group in results.json, without its tables."""
    return {
        "model": name_paths(candidates),
        "origin": group.origin,
        "target": group.target,
        "condition": group.condition,
        "pieces": group.about,
        "seconds": group.seconds,
        "phase_iterations": settings.options.phase_iterations,
        "hops": settings.options.hops,
        "level": settings.level,
        "pulls": settings.pulls,
        "overlap": settings.options.overlap,
    }


def tell_no_median(group):
    """Print on stderr that a group lacks the row of the median, unless it has no target anyway."""
    if any(piece.reference for piece in group.pieces):
        print(
            f"evaluate.py: the row '{MEDIAN}' is left out: there is no median.npy that fits, and "
            "no audio of the training targets",
            file=sys.stderr,
        )


def run_group(candidates, group, settings, scores, args, output):
    """Evaluate one group, print and write all of it. Returns (summary, differences)."""
    run = next((candidate.run for candidate in candidates if candidate.run), None)
    median = None
    if group.target:
        bins = find_bins(candidate.model for candidate in candidates)
        median = find_median(run, group.target, args.audios_path, bins)
    if median is None:
        tell_no_median(group)
    models = {}
    for candidate in candidates:
        models[name_system(candidate.label)] = candidate.model
    jury = Jury(scores, tagger.Listener() if args.tagger else None)
    systems = Systems(models, median, settings)
    page = None
    if args.report:
        folder = args.report / group.folder
        page = listening_page.GroupPage(folder, group, candidates, systems, args.report_seconds)
    results = evaluate_group(systems, group, jury, page)
    group = leave_out_unread(group, results)
    summary = tables.summarise(results, WRITTEN_COLUMNS)
    if jury.listener:
        add_distances(summary, jury.listener.distances(TARGET), len(group.pieces))
    differences = tables.compare(results, list_comparisons(list(models), settings), MEASURED)
    print_group(group, summary, differences)
    about = describe_group(candidates, group, settings)
    about |= {"rows": summary, "differences": differences}
    write_group(output / group.folder, results, about)
    if len(candidates) > 1:
        write_differences(output / group.folder / "differences.csv", differences)
    if page:
        page.write(summary)
    return summary, differences


@cli.command
def main(argv=None):
    """Parse flags, evaluate group by group, compare the groups."""
    args = build_parser().parse_args(argv)
    candidates = find_candidates(args.model)
    if args.tagger:
        tagger.check_installed()
    groups = find_groups(args, candidates)
    scores = find_scores(args.midi_path)
    output = choose_output(args, candidates)
    check_folder(output, "--output")
    if args.report:
        check_folder(args.report, "--report")
    for folder in {output, *(output / group.folder for group in groups)}:
        check_own(folder)
    if args.report:
        for group in groups:
            listening.check_own(args.report / group.folder, "--report")
    candidates, settings = load_models(args, candidates)
    drop_others(output, groups, name_paths(candidates))
    for line in listening_page.describe_candidates(candidates):
        print(line)
    summaries = {}
    for group in groups:
        summaries[group.title] = run_group(candidates, group, settings, scores, args, output)
    if len(groups) > 1:
        rows_of_systems = {}
        for candidate in candidates:
            system = name_system(candidate.label)
            rows_of_systems[system] = name_row(system, settings.phases[0])
        summaries |= average_families(groups, summaries)
        header, rows = compare_groups(summaries, rows_of_systems)
        print()
        print_table(header, rows)
        check_own(output)
        write_csv(output / "overview.csv", [header, *rows])
        print(f"-> {output / 'overview.csv'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
