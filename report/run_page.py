"""Write a page for each training run, <run>/index.html, and a list of all runs, <runs>/index.html.

    python -m report runs

Both use the files in the run folders: config.json, history.csv, plots, previews. Keras is not
needed.
"""

import functools
from html import escape
from pathlib import Path
from urllib.parse import quote

from common import cli
from common.cli import UserError, as_list, attempt, one_line, pass_over
from common.files import MEND, list_folders, read_json, undamaged
from common.run_facts import RunFacts, find_run_folders, join_names
from report import listening, player
from sound.recordings import read_audio

SHOWN_PREVIEWS = 24  # largest number of previews; a long run shows the newest and others evenly
RUN_COLUMNS = (
    "run",
    "error, dB",
    "epochs",
    "origin",
    "target",
    "width",
    "rates",
    "time",
    "verdict",
)
LEARNING_RATES = ("gen_lr", "disc_lr", "lr")  # flags
HEADINGS = {  # readable headings of history.csv's columns
    "tiles_per_s": "tiles/s",
    "mae_db": "train, dB",
    "val_mae_db": "held out, dB",
    "unheard_mae_db": "unheard origin, dB",
}


def judge(run):
    """Describe the error of a `RunFacts`, see `describe_error`."""
    if run.error is None:
        return "no epoch yet"
    return describe_error(run.error, run.baselines)


def describe_error(error, baselines):
    """Describe a run's error relative to trivial systems.

    Args:
        error: on the held-out pieces, dB.
        baselines: errors of trivial systems on these, dB: {"identity": the unchanged input,
            "median": one constant spectrum for all frames}; keys may be missing.
    """
    identity = baselines.get("identity")
    median = baselines.get("median")
    if identity is not None and error >= identity:
        return (
            f"worse than the unchanged input ({identity:.2f} dB): train longer, lower the rates, "
            "or check that the pairs are aligned"
        )
    if median is not None and error >= median:
        return (
            f"worse than one constant spectrum ({median:.2f} dB): the output does not follow the "
            "music yet; train longer"
        )
    if identity is None:
        return "no baseline to compare with"
    gain = 1 - error / identity
    return f"{gain:.0%} below the error of the unchanged input ({identity:.2f} dB)"


def format_time(seconds):
    """Format a duration: "3 h 05 min", "12 min", "40 s"."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if seconds >= 90:
        return f"{minutes} min"
    return f"{round(seconds)} s"


# The page of one run


def write_run_page(folder):
    """Write a run's page, <folder>/index.html: settings, history, previews of the epochs.

    Raises:
        UserError: ``folder`` is not a run folder.
    """
    run = RunFacts(folder)
    if not run.config:
        raise UserError(f"{folder}: is not a run folder (no config.json); give a run folder")
    with undamaged(run.folder / "config.json", MEND):
        _write_page(run)


def _write_page(run):
    """Write the page of a `RunFacts`."""
    sections = []  # (title, HTML)
    previews = find_previews(run.folder)
    if previews:
        sections.append(("Previews", _previews_html(run.folder, previews)))
    if (run.folder / "plots" / "history.png").is_file():
        sections.append(("History", _history_html(run)))
    sections.append(("Settings", _settings_html(run)))
    numbered = []
    for number, (title, section) in enumerate(sections, 1):
        numbered.append((title, _number(number, section)))
    listening.write_index(run.folder, listening.Page(run.folder.name, _describe(run)), numbered)


def _number(number, section):
    """Give a section the anchor that the page's links use."""
    return section.replace("<section", f'<section id="piece{number}"', 1)


def _describe(run):
    """Write the first sentence of a run's page."""
    pair = f"{join_names(run.flags.get('origin'))} → {join_names(run.flags.get('target'))}"
    if run.error is None:
        return f"{pair}: no epoch is complete yet."
    epochs = len(run.history)
    plural = "s" if epochs > 1 else ""
    return (
        f"{pair}: {epochs} epoch{plural} in {format_time(run.seconds)}; held-out error "
        f"{run.error:.2f} dB, {judge(run)}."
    )


def find_previews(folder):
    """List the folders of the previews that a run's page shows, the newest first.

    Only previews of the newest preview's piece count, because --preview_piece may have changed.
    """
    known = {}  # {folder: contents of about.json}
    folders = [path for path in list_folders(folder / "previews") or () if _is_preview(path)]
    for path in sorted(folders, key=_epoch_of, reverse=True):
        about = attempt(read_about, path)
        if isinstance(about, UserError):
            pass_over(about)
        elif about:
            known[path] = about
    if not known:
        return []
    newest = next(iter(known.values()))
    same = [path for path, about in known.items() if about == newest]
    step = -(-len(same) // SHOWN_PREVIEWS)
    return same[::step]


def _is_preview(folder):
    """Whether a folder has the name of a preview; a copy, "epoch_0010 (2)", has not."""
    return folder.name.startswith("epoch_") and folder.name.removeprefix("epoch_").isdecimal()


def _epoch_of(preview):
    """Number of the epoch, for sorting: epoch_1000 after epoch_999."""
    return int(preview.name.removeprefix("epoch_"))


def read_about(preview):
    """Read about.json of a preview: {"piece": ..., "origin": ..., "target": ...}, or None."""
    return read_json(preview / "about.json", MEND, piece=str, origin=str, target=str)


def _previews_html(folder, previews):
    """HTML of input, outputs of the epochs, and target, side by side."""
    about = read_about(previews[0])
    cards = []
    origin = listening.plain_instrument(about["origin"])
    target = listening.plain_instrument(about["target"])
    sounds = [(folder / "previews" / "input", f"Input: {origin}")]
    for preview in previews:
        sounds.append((preview / "output", f"Epoch {_epoch_of(preview)}"))
    sounds.insert(2, (folder / "previews" / "target", f"Target: {target}"))
    for k, (stem, label) in enumerate(sounds):
        cards.append(_card(folder, stem, label, k, about["piece"]))
    newest = "".join(cards[:3])
    earlier = ""
    if cards[3:]:
        row = f'<div class="cards">\n{"".join(cards[3:])}</div>'
        plural = "s" if cards[4:] else ""
        earlier = listening.fold_html(f"{len(cards) - 3} earlier epoch{plural}", row)
    head = player.write_head(listening.plain_title(about["piece"]))
    return f"""<section>
{head}<div class="cards">
{newest}</div>
{earlier}</section>
"""


def _card(folder, stem, label, place_among, piece):
    """HTML of a preview's picture and, if it exists, its sound."""
    place = stem.relative_to(folder).as_posix()
    sound = listening.sound_path(stem)
    alt = f"Spectrogram of {piece}: {label}"
    measured = _measure(sound) if sound.is_file() else None
    return listening.card_html(place, label, alt, place_among, measured)


@functools.cache
def _measure(path):
    """Apply `listening.measure` to a file."""
    return listening.measure(read_audio(path))


def _history_html(run):
    """HTML of the history: its picture, and all rows as a table."""
    columns = list(run.history[0]) if run.history else []
    rows = []
    for row in reversed(run.history):
        rows.append([_shorten(row.get(column, "")) for column in columns])
    header = [HEADINGS.get(column, column) for column in columns]
    table = listening.fold_html("Every epoch", listening.table_html(header, rows)) if rows else ""
    return f"""<section>
<h2>History</h2>
<div class="scroll" tabindex="0" role="region" aria-label="history">
<img class="history" src="plots/history.png" alt="Error and losses, epoch by epoch"></div>
{table}</section>
"""


def _shorten(cell):
    """Shorten a number's text to four digits."""
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell


def _settings_html(run):
    """HTML of all flags of the last start and other settings in config.json."""
    rows = []
    for flag, value in sorted(run.flags.items()):
        if flag == "script":  # not a flag
            rows.append(["trained by", f"{value}.py"])
            continue
        rows.append([f"--{flag}", " ".join(str(item) for item in as_list(value)) or "–"])
    rows.append(["precision of the layers", str(run.config.get("policy", ""))])
    for name, version in run.config.get("versions", {}).items():
        rows.append([name, str(version)])
    for side, names in run.config.get("split", {}).items():
        rows.append([f"pieces: {side}", str(len(names))])
    return f"""<section>
<h2>Settings</h2>
{listening.table_html(("setting", "value"), rows)}</section>
"""


# All runs


def find_runs(folder):
    """Find all runs in ``folder`` and its folders: list of `RunFacts`, lowest error first.

    Reports and skips runs with damaged files.
    """
    runs = []
    for path in find_run_folders(folder):
        run = attempt(_read_whole, path)
        if isinstance(run, UserError):
            pass_over(run)
        elif run.split:
            runs.append(run)
        elif not run.flags and (path / "config.json").is_file():
            pass_over(f"{path / 'config.json'}: does not describe a run")
    return sorted(runs, key=lambda run: run.error if run.error is not None else float("inf"))


def _read_whole(folder):
    """Read the `RunFacts` of a folder with all its files. Raises UserError."""
    run = RunFacts(folder)
    _ = run.error, run.seconds  # these read history.csv
    return run


def describe_run(run, folder):
    """Make a row of text with `RUN_COLUMNS`. Raises UserError if the config is damaged."""
    flags = run.flags
    with undamaged(run.folder / "config.json", MEND):
        rates = [name for name in LEARNING_RATES if flags.get(name) is not None]
        return [
            run.folder.relative_to(folder).as_posix(),
            "" if run.error is None else f"{run.error:.2f}",  # second column: visible on a phone
            f"{len(run.history)} of {flags.get('epochs', '?')}",
            join_names(flags.get("origin")),
            join_names(flags.get("target")),
            str(flags.get("filters", "")),
            " / ".join(f"{float(flags[name]):g}" for name in rates),
            format_time(run.seconds),
            _shorten_verdict(judge(run)),
        ]


def _shorten_verdict(verdict):
    """A verdict of `judge` without its advice and the other system's error."""
    return verdict.partition(":")[0].partition(" (")[0].replace("below the error of", "below")


def write_overview(folder):
    """Write the list of all runs, <folder>/index.html, and every run's own page.

    Returns:
        Rows of text, see `describe_run`.

    Raises:
        UserError: ``folder`` has no run, or an index.html of another program.
    """
    folder = Path(folder)
    listening.check_own(folder, "folder")
    rows = []
    for run in find_runs(folder):
        row = attempt(describe_run, run, folder)
        if isinstance(row, UserError):
            pass_over(row)
            continue
        rows.append(row)
        page = attempt(write_run_page, run.folder)
        if isinstance(page, UserError):
            pass_over(page)
    if not rows:
        raise UserError(f"{folder}: has no runs; train one, or give the folder of --runs_path")
    table = listening.table_html(RUN_COLUMNS, rows).replace("<table>", '<table class="runs">', 1)
    for row in rows:
        name = escape(row[0])
        link = f'<a href="{quote(row[0])}/index.html">{name}</a>'
        table = table.replace(f'<th scope="row">{name}</th>', f'<th scope="row">{link}</th>', 1)
    section = f'<section id="piece1">\n{table}</section>\n'
    sentence = "The lowest error on the held-out pieces comes first."
    page = listening.Page("Training runs", sentence)
    listening.write_index(folder, page, [("Runs", section)])
    return rows


TERMINAL_COLUMNS = ("run", "error, dB", "epochs", "time", "verdict")  # the page has all


def print_runs(rows):
    """Print the list of runs with aligned columns."""
    places = [RUN_COLUMNS.index(column) for column in TERMINAL_COLUMNS]
    table = []
    for row in (RUN_COLUMNS, *rows):
        table.append([row[place] for place in places])
    widths = []
    for column in zip(*table):
        widths.append(max(len(cell) for cell in column))
    for row in table:
        cells = [one_line(cell).ljust(width) for cell, width in zip(row, widths)]
        print("  ".join(cells).rstrip())


@cli.command
def main(argv=None):
    """Parse flags, list the runs."""
    parser = cli.Parser(__doc__, prog="report")
    parser.add_argument("runs", nargs="?", default="runs", help="folder of run folders")
    folder = Path(parser.parse_args(argv).runs)
    rows = write_overview(folder)
    print_runs(rows)
    print(f"-> {folder / 'index.html'}")
