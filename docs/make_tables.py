"""Make the tables about the models, in README and docs: from SoundFonts and MIDI to Markdown.

    python docs/make_tables.py --model many_2_guitar --midi_path midi --side choose
    python docs/make_tables.py --model many_2_guitar many_2_strings many_2_piano many_2_synth \\
        --midi_path midi --side report --grand notes --starnet starnet \\
        --essentia essentia/bin/python

The inputs and the target play the first seconds of each piece, in unison. The inputs are a piano of
the training set, another piano (--grand), and programs of MuseScore General that no model was
trained on. The models convert them as predict.py --level off does. The measures are those of
evaluate.py. Two of its judges have chosen among models: Basic Pitch (notes) and musicnn (tags,
distance). The pitch Jaccard by essentia has not.

--side choose uses the programs for choosing models, flags and lengths of training. --side report
uses the other programs, for published figures. Give each side its own pieces.

Finished files stay in --work, so a stopped run continues. The tables are printed and written to
<work>/<side>/tables.md.

Parts: errors, bands (error by band), judges, attacks (of 49 single notes), stereo (of the first
pieces, by FluidSynth), starnet, recordings. For starnet give StarNet's test pieces, in folders
clarinet, strings, vibraphone and piano. The part recordings uses real ones, --recordings, and
prints how sure musicnn is of the target's name.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "pretrained"))
from common import cli  # isort: skip  # first: explains a missing package in one line
import functools
import json
import math
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import font_bank
import make_data
import numpy as np
import pretty_midi
from tqdm import tqdm

import data
import NoteSynthesizer
import render_notes
from common import devices
from common.cli import UserError
from common.files import complete, find_files, find_named, read_json, write_json
from common.names import MIDI_EXTENSIONS
from common.record import Record
from common.run_facts import RunFacts
from conversion import convert
from measuring import judges, metrics, rows, signals, tables, tagger
from measuring.pieces import find_candidates
from sound.recordings import (
    AUDIO_EXTENSIONS,
    find_audio,
    open_sound,
    read_audio,
    read_blocks,
    write_audio,
)
from synthesis.scores import read_score

ROOT = Path(__file__).resolve().parent.parent
FORMAT = 1  # raised whenever the same files come to give other figures
PARTS = ("errors", "bands", "judges", "attacks", "stereo", "starnet", "recordings")
PROGRAMS = {  # of MuseScore General: never trained on; half to choose by, half to report
    "choose": {
        6: "harpsichord",
        19: "church organ",
        24: "nylon guitar",
        40: "violin",
        46: "harp",
        56: "trumpet",
        73: "flute",
    },
    "report": {
        11: "vibraphone",
        21: "accordion",
        42: "cello",
        52: "choir",
        65: "alto sax",
        71: "clarinet",
        81: "saw lead",
    },
}
GRAND = "keyboard_acoustic_100"  # the name of the unheard piano's notes in --grand
LEAD = 0.1  # s before the first note
STEREO_PIECES = 3
UNCHANGED = "unchanged"
ERRORS = ("written_mae_db", "level_matched_db", "lsd_db")
JACCARD = metrics.Measure("jaccard", "pitch Jaccard", 3, None, (), "")
HEADINGS = {"written_mae_db": "error, dB", "level_matched_db": "level-matched"}  # tables are wide
JUDGED = ("note_f1", "jaccard", "tag_piano", "distance")
TAGS = {  # musicnn's name of each target
    "guitar_acoustic": "guitar",
    "keyboard_acoustic": "piano",
    "string_acoustic": "strings",
    "synth_lead_synthetic": "synth",
}
# StarNet's ten pieces, single instruments, pitch Jaccard as published; the first five of them here
STARNET = {
    "string_acoustic": (
        "clarinet",
        "strings",
        {UNCHANGED: 0.248, "Universal Network": 0.489, "DiffTransfer": 0.178},
    ),
    "keyboard_acoustic": (
        "vibraphone",
        "piano",
        {UNCHANGED: 0.440, "Universal Network": 0.599, "DiffTransfer": 0.308},
    ),
}


class Instrument(NamedTuple):
    """An instrument that plays the pieces."""

    folder: str  # name of the folder of its recordings
    title: str  # in the tables
    open: Callable  # () -> (bank, gain), as `NoteSynthesizer.render` takes them
    sources: tuple  # files that determine its sound
    settings: dict  # other settings that determine its sound


class Target(NamedTuple):
    """A target instrument, with its models and the inputs that they convert."""

    instrument: Instrument
    models: dict  # {name in the tables: `Candidate`}
    inputs: list  # of `Instrument`


# ---- Instruments and pieces --------------------------------------------------------------------


def play_program(font, number, title):
    """Make the `Instrument` of a SoundFont's program. Raises UserError if there is no such font."""
    source = font_bank.Source(str(render_notes.find_font(font)), number)

    def load():
        bank = font_bank.FontBank(source)
        return bank, bank.gain

    folder = f"{Path(source.font).stem}_{number:03d}"
    return Instrument(folder, title, load, (source.font,), {"program": number})


def play_grand(notes):
    """Make the `Instrument` of an unknown piano, from notes made by render_notes.py."""
    bank = NoteSynthesizer.NoteBank(notes, GRAND)
    settings = {"notes": bank.fingerprint()}
    return Instrument("grand", "unheard grand", lambda: (bank, bank.gain), (), settings)


def find_inputs(args, target):
    """List the input `Instrument`s for models of ``target``, a name in instruments.csv."""
    known = make_data.read_instruments(make_data.INSTRUMENTS)
    heard, title = "keyboard_acoustic", "heard piano"
    if target == heard:
        heard, title = "guitar_acoustic", "heard guitar"
    (source,) = known[heard]
    inputs = [play_program(source.font, source.program, title)]
    if args.grand:
        inputs.append(play_grand(args.grand))
    for number, name in PROGRAMS[args.side].items():
        if args.programs is None or number in args.programs:
            inputs.append(play_program(args.font, number, f"{name} ({number})"))
    return inputs


def find_targets(args):
    """Group the models of --model by their targets: list of `Target`. Raises UserError."""
    known = make_data.read_instruments(make_data.INSTRUMENTS)
    found = {}
    for candidate in find_candidates(args.model):
        names = candidate.run.targets if candidate.run else []
        if len(names) != 1 or names[0] not in known:
            raise UserError(
                f"--model {candidate.path}: its target is none of instruments.csv's; "
                "give a run folder of a single such target"
            )
        found.setdefault(names[0], {})[candidate.label or "output"] = candidate
    targets = []
    for name, models in found.items():
        if len(models) == 1:
            models = {"output": next(iter(models.values()))}
        (source,) = known[name]
        instrument = play_program(source.font, source.program, name)
        targets.append(Target(instrument, models, find_inputs(args, name)))
    return targets


def find_pieces(args):
    """Find the scores of --midi_path: {name: path}. Raises UserError if there are none."""
    found = find_named(args.midi_path, MIDI_EXTENSIONS)
    pieces = {}
    for name, path in sorted(found.items())[: args.limit]:
        pieces[name.replace("/", "_")] = path
    if not pieces:
        raise UserError(f"--midi_path {args.midi_path}: holds no scores; check the path")
    return pieces


def cut_score(path, seconds):
    """Read the notes that begin in the first ``seconds``; the first is at `LEAD` or earlier."""
    score = read_score(path)
    score["onset"] -= max(0, score["onset"].min() - LEAD)
    return score[score["onset"] < seconds - 0.2]


def write_midi(path, score):
    """Write an array of `scores.NOTE` as a MIDI file, for the note judge and FluidSynth."""
    player = pretty_midi.Instrument(0)
    for onset, duration, pitch, velocity in score.tolist():
        end = onset + max(duration, 0.02)
        player.notes.append(pretty_midi.Note(velocity, pitch, onset, end))
    midi = pretty_midi.PrettyMIDI()
    midi.instruments.append(player)
    with complete(path) as part:
        midi.write(str(part))


def play(score, bank, gain, seconds):
    """Render a score: float32 (n,), ``seconds`` at 44.1 kHz, scaled down if it would clip."""
    samples = round(seconds * data.SAMPLE_RATE)
    blocks = [block.copy() for block in NoteSynthesizer.render(score, bank, gain)]
    audio = np.pad(np.concatenate(blocks), (0, samples))[:samples]
    return audio * np.float32(0.999 / max(np.abs(audio).max(), 0.999))


# ---- Files, each made once ---------------------------------------------------------------------


class Workshop:
    """Makes scores, sounds, conversions and measurements in a folder, unless they are up to date.

    Args:
        args: the flags.
        pieces: {name: path of its score}.
    """

    def __init__(self, args, pieces):
        self.args = args
        self.pieces = pieces
        self.folder = args.work / args.side
        self._record = Record(self.folder)

    def make(self, path, sources, settings, function):
        """Call ``function(path)`` unless the file is up to date, see `Record`; returns the path."""
        settings = {**settings, "format": FORMAT}
        if not self._record.is_current(path, sources, settings):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._record.begin([path])
            function(path)
            self._record.add(path, sources, settings)
        return path

    def score(self, piece):
        """Write the MIDI file of a piece's beginning; returns its path."""
        source, seconds = self.pieces[piece], self.args.seconds

        def write(path):
            write_midi(path, cut_score(source, seconds))

        path = self.folder / "scores" / f"{piece}.mid"
        return self.make(path, [source], {"seconds": seconds}, write)

    def render(self, instrument):
        """Render all pieces with an instrument; returns the folder."""
        load = functools.cache(instrument.open)  # once, and only if something is due
        seconds = self.args.seconds
        folder = self.folder / "sounds" / instrument.folder
        for piece, source in self.pieces.items():

            def write(path, source=source):
                write_audio(path, play(cut_score(source, seconds), *load(), seconds))

            sources = [source, *instrument.sources]
            settings = {**instrument.settings, "seconds": seconds}
            self.make(folder / f"{piece}.wav", sources, settings, write)
        return folder

    def convert(self, candidate, source, name, output):
        """Convert the recordings in ``source``, a folder, to ``name``/``output``; returns that."""
        return self.convert_files(candidate, list_recordings(source), f"{name}/{output}", "off")

    def convert_files(self, candidate, paths, name, level):
        """Convert recordings to the folder ``name``, at a --level of predict.py; returns it."""
        model = Model(candidate, self.args.quality)
        folder = self.folder / "outputs" / name
        settings = model.settings if level == "off" else {**model.settings, "level": level}
        for path in paths:

            def write(target, path=path):
                sound = convert.Output(level=level)
                convert.convert_file(model.load(), path, target, model.options, sound)

            self.make(folder / f"{path.stem}.wav", [path, model.file], settings, write)
        return folder

    def make_ceiling(self, candidate, source, reference, name, output):
        """Make a model's upper bound for each recording, see `make_true`; returns the folder."""
        model = Model(candidate, self.args.quality)
        folder = self.folder / "outputs" / name / output
        for path in list_recordings(source):
            true = reference / path.name

            def write(target, path=path, true=true):
                audio = make_true(read_audio(path), read_audio(true), model.options)
                write_audio(target, audio / max(1, np.abs(audio).max()))

            settings = {"quality": self.args.quality, "pull": model.options.pull}
            self.make(folder / path.name, [path, true], settings, write)
        return folder

    def figures(self, path, sources, settings, function):
        """Return the result of ``function()``, stored as JSON in ``path``."""
        self.make(path, sources, settings, lambda part: write_json(part, function()))
        return read_json(path, f"delete {path}")


class Model:
    """A candidate's options of conversion; its network is loaded on first use."""

    def __init__(self, candidate, quality):
        from conversion import model_files

        self.file = model_files.find_generator(candidate.path)
        self.path = candidate.path
        pull = RunFacts(candidate.path).pull
        self.options = convert.QUALITIES[quality]._replace(pull=pull)
        self.settings = {"options": list(self.options)}

    def load(self):
        """Load the network, in predict.py's precision."""
        return load_network(self.path)


@functools.lru_cache(maxsize=1)
def load_network(path):
    """Load a generator; the last one is cached."""
    from conversion import model_files

    return model_files.load_generator(path, "auto")


def make_true(audio, reference, options):
    """Compute the output of a perfect network: the target's magnitude, a phase from the input.

    Args:
        audio, reference: input and target, float32 (n,) at 44.1 kHz; the longer one is cut.
        options: `convert.Options`.
    """
    length = min(len(audio), len(reference))
    audio, reference = audio[:length], reference[:length]
    pull = rows.phases.PULL if options.pull is None else options.pull
    settings = rows.Settings([options.phase], options)
    make = rows.Resynthesis(audio, settings, data.FULL_BINS)
    spectrum = rows.compute_spectrum(reference, options.hops, data.FULL_BINS)
    true = convert.spectrum_to_db(spectrum)
    return make.row(rows.TRUE, true, options.phase, pull=pull).audio


def list_recordings(folder):
    """List the recordings in a folder, sorted."""
    return find_files(folder, AUDIO_EXTENSIONS)


# ---- Measures ----------------------------------------------------------------------------------


def measure_errors(folder, reference):
    """Measure the recordings in a folder against those in ``reference``.

    Args:
        folder: path; None measures silence.
        reference: folder of the target's recordings.

    Returns:
        {"results": [[piece, measures], ...]}.
    """
    results = []
    for path in list_recordings(reference):
        target = rows.MeasuredSound(read_audio(path), data.FULL_BINS)
        if folder is None:
            audio = np.zeros_like(target.audio)
        else:
            audio = read_audio(find_twin(folder, path))[: len(target.audio)]
        picture = data.spectrogram(audio, data.FULL_BINS)
        row = rows.Row("", audio, picture, is_made=False)
        results.append([path.stem, rows.measure(row, target)])
    return {"results": results}


def find_twin(folder, path):
    """Find the recording in ``folder`` of the same piece as ``path``. Raises UserError if none."""
    twin = find_audio(folder, path.stem)
    if twin is None:
        raise UserError(f"{folder}: has no {path.stem}; delete the folder")
    return twin


def score_notes(shop, folder):
    """Compute the note F1 of a folder's recordings: {piece: F1}. Stored once for all targets."""

    def judge():
        found = {}
        for path in list_recordings(folder):
            audio = read_audio(path)
            written, _ = judges.score_notes(shop.score(path.stem), len(audio) / data.SAMPLE_RATE)
            found[path.stem] = judges.note_f1(judges.hear_notes(audio), written)
        return found

    path = shop.folder / "notes" / f"{make_file_name(str(folder.relative_to(shop.folder)))}.json"
    return shop.figures(path, list_recordings(folder), {}, judge)


class Judges:
    """Applies the external judges to recordings, relative to those of one target.

    Args:
        shop: `Workshop`.
        reference: folder of the target's recordings.
        has_scores: whether there are scores of them.
    """

    def __init__(self, shop, reference, has_scores=True):
        self._shop = shop
        self._reference = reference
        self._has_scores = has_scores
        self._listener = None

    def judge(self, folder):
        """Judge a folder's recordings.

        Returns:
            {"results": [[piece, measures], ...], "distance": number, None if unknown}.
        """
        if self._listener is None:
            self._listener = tagger.Listener()
            for path in list_recordings(self._reference):
                self._listener.hear(str(self._reference), read_audio(path))
        notes = score_notes(self._shop, folder) if self._has_scores else {}
        results = []
        for path in list_recordings(folder):
            audio = read_audio(path)
            if folder == self._reference:  # the listener already has its embeddings
                found = tagger.Listener().hear("", audio)
            else:
                found = self._listener.hear(str(folder), audio)
            if path.stem in notes:
                found["note_f1"] = notes[path.stem]
            results.append([path.stem, found])
        distance = self._listener.distance(str(folder), str(self._reference))
        self._add_jaccard(folder, results)
        return {"results": results, "distance": None if math.isnan(distance) else distance}

    def _add_jaccard(self, folder, results):
        python = self._shop.args.essentia
        if not python or folder == self._reference:
            return
        script = ROOT / "benchmarks" / "pitch_jaccard.py"
        command = [python, script, "--target", self._reference, "--outputs", folder, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip() or f"exit code {done.returncode}"
            raise UserError(f"--essentia {python}: {reason.splitlines()[-1]}")
        measured = json.loads(done.stdout)[str(folder)]
        for piece, found in results:
            found["jaccard"] = measured[piece]


def judge_all(shop, reference, folders, name, has_scores=True):
    """Judge each of ``folders``, {row: folder}: (results, summary), see measuring/tables.py."""
    jury = Judges(shop, reference, has_scores)
    results = []
    distances = {}
    for row, folder in tqdm(folders.items(), desc=f"{name}: judges", unit="row"):
        path = shop.folder / "judged" / name / f"{make_file_name(row)}.json"
        sources = [*list_recordings(reference), *list_recordings(folder)]
        settings = {"essentia": bool(shop.args.essentia), "scores": has_scores}
        found = shop.figures(path, sources, settings, functools.partial(jury.judge, folder))
        for piece, measures in found["results"]:
            results.append((piece, row, measures))
        distances[row] = found["distance"]
    columns = [judges.NOTE_F1, JACCARD, *tagger.COLUMNS]
    summary = tables.summarise(results, columns)
    for row, distance in distances.items():
        if distance is not None:
            count = len(list_recordings(folders[row]))
            summary[row][tagger.DISTANCE] = {"mean": distance, "spread": None, "n": count}
    return results, summary


def make_file_name(text):
    """Make a file name of a row's name."""
    return "".join(each if each.isalnum() else "_" for each in text)


# ---- Tables ------------------------------------------------------------------------------------


def choose_columns(keys):
    """List the `Measure`s of these keys, in this order."""
    known = {}
    for measure in (*rows.MEASURED, JACCARD, *tagger.COLUMNS):
        known[measure.key] = measure._replace(heading=HEADINGS.get(measure.key, measure.heading))
    return [known[key] for key in keys]


def find_rows(shop, target):
    """Convert all inputs of a target with its models, unless that is done.

    Returns:
        ({row: folder of its recordings}, pairs of rows to compare). The last rows are the upper
        bounds and the target.
    """
    reference = shop.render(target.instrument)
    folders = {}
    pairs = []
    name = target.instrument.title
    for instrument in tqdm(target.inputs, desc=f"{name}: convert", unit="input"):
        unchanged = f"{instrument.title}: {UNCHANGED}"
        folders[unchanged] = shop.render(instrument)
        for label, candidate in target.models.items():
            row = f"{instrument.title}: {label}"
            folder = f"{candidate.path.name}/{shop.args.quality}"
            source = folders[unchanged]
            folders[row] = shop.convert(candidate, source, folder, instrument.folder)
            pairs.append((row, unchanged))
    first = target.inputs[0]
    source = folders[f"{first.title}: {UNCHANGED}"]
    for label, candidate in target.models.items():
        row = "true magnitude"
        if len(target.models) > 1:
            row += f", pull of {label}"
        ceiling = f"true/{name}/{candidate.path.name}/{shop.args.quality}"
        folders[row] = shop.make_ceiling(candidate, source, reference, ceiling, first.folder)
    folders["target"] = reference
    return folders, pairs


def add_means(summary, target, labels):
    """Add the rows of means over the unknown programs, before the rows of the upper bounds."""
    held = [each.title for each in target.inputs if each.title.endswith(")")]
    if len(held) < 2:
        return summary
    means = {}
    for label in labels:
        parts = []
        for title in held:
            parts.append({"": summary[f"{title}: {label}"]})
        means[f"mean of {len(held)} programs: {label}"] = tables.average(parts)[""]
    last = f"{held[-1]}: {labels[-1]}"
    longer = {}
    for row, cells in summary.items():
        longer[row] = cells
        if row == last:
            longer |= means
    return longer


def compare_rows(results, pairs, columns):
    """Compute paired differences, see `tables.compare`; their names have the input once."""
    shorter = {}
    for row, cells in tables.compare(results, pairs, columns).items():
        title = row.partition(": ")[0]
        shorter[row.replace(f"{tables.MINUS}{title}: ", tables.MINUS)] = cells
    return shorter


def table_of(summary, keys):
    """Format some columns of a summary as a Markdown table."""
    columns = choose_columns(keys)
    shown = {}
    for row, cells in summary.items():
        shown[row] = {key: cell for key, cell in cells.items() if key in keys}
    return tables.markdown(*tables.text_table(shown, columns))


def make_error_tables(shop, target, folders, pairs):
    """Make the tables of errors, of bands, and of paired differences: lines of Markdown."""
    name = target.instrument.title
    reference = folders["target"]
    results = []
    measured = {**folders, "silence": None}
    for row, folder in tqdm(measured.items(), desc=f"{name}: errors", unit="row"):
        path = shop.folder / "errors" / name / f"{make_file_name(row)}.json"
        sources = [*list_recordings(reference)]
        if folder:
            sources += list_recordings(folder)
        function = functools.partial(measure_errors, folder, reference)
        for piece, measures in shop.figures(path, sources, {}, function)["results"]:
            results.append((piece, row, measures))
    summary = tables.summarise(results, rows.MEASURED)
    summary = add_means(summary, target, [UNCHANGED, *target.models])
    differences = compare_rows(results, pairs, rows.MEASURED)
    lines = []
    if "errors" in shop.args.parts:
        lines += [f"### {name}: error of the sound", "", table_of(summary, ERRORS), ""]
        lines += ["Paired differences:", "", table_of(differences, ERRORS), ""]
    if "bands" in shop.args.parts:
        keys = [measure.key for measure in metrics.BAND_MEASURES]
        lines += [f"### {name}: error by band, dB", "", table_of(summary, keys), ""]
    return lines


def make_judge_tables(shop, target, folders, pairs):
    """Make the tables of note F1, pitch Jaccard, tags and distance: lines of Markdown."""
    name = target.instrument.title
    results, summary = judge_all(shop, folders["target"], folders, name)
    summary = add_means(summary, target, [UNCHANGED, *target.models])
    differences = compare_rows(results, pairs, choose_columns(JUDGED[:2]))
    lines = [f"### {name}: judges", "", table_of(summary, JUDGED), ""]
    lines += ["Basic Pitch (notes) and musicnn (tag, distance) have chosen among models; the pitch"]
    lines += ["Jaccard has not. The target's own distance is that of its two halves.", ""]
    return [*lines, "Paired differences:", "", table_of(differences, JUDGED[:2]), ""]


def run_fluidsynth(path, midi, instrument):
    """Render a MIDI file with FluidSynth: stereo, 44.1 kHz, without reverb and chorus.

    Args:
        path: wav file to write.
        midi: path of the score.
        instrument: `Instrument` of `play_program`.

    Raises:
        UserError: FluidSynth is not installed.
    """
    if shutil.which("fluidsynth") is None:
        raise UserError("fluidsynth: not found; install it, or leave attacks and stereo out")
    score = pretty_midi.PrettyMIDI(str(midi))
    score.instruments[0].program = instrument.settings["program"]
    scratch = path.with_name(f"{path.stem}_played.mid")
    score.write(str(scratch))
    command = ["fluidsynth", "-ni", "-R", "0", "-C", "0", "-g", "0.7", "-r", "44100"]
    command += ["-F", str(path), instrument.sources[0], str(scratch)]
    subprocess.run(command, check=True, capture_output=True)
    scratch.unlink()


def make_attack_table(shop, target):
    """Make the table of attacks and gaps of 49 notes on the first input: lines of Markdown."""
    name = target.instrument.title
    folder = shop.folder / "attacks"
    midi = shop.make(
        folder / "notes.mid", [], {}, lambda path: write_midi(path, signals.make_test_notes())
    )
    played = {}
    for instrument in (target.inputs[0], target.instrument):
        path = folder / instrument.folder / "notes.wav"

        def write(path, instrument=instrument):
            run_fluidsynth(path, midi, instrument)

        settings = instrument.settings
        played[instrument.title] = shop.make(path, [midi, *instrument.sources], settings, write)
    source, reference = [path.parent for path in played.values()]
    folders = {f"{target.inputs[0].title}: {UNCHANGED}": source}
    for label, candidate in target.models.items():
        output = f"attacks/{candidate.path.name}/{shop.args.quality}"
        folders[label] = shop.convert(candidate, source, output, source.name)
    candidate = next(iter(target.models.values()))
    ceiling = f"attacks/true/{name}/{shop.args.quality}"
    folders["true magnitude"] = shop.make_ceiling(
        candidate, source, reference, ceiling, source.name
    )
    folders["target"] = reference
    table = []
    for row, where in folders.items():
        audio = read_audio(where / "notes.wav")
        rises, gaps = signals.measure_attacks(audio), signals.measure_gaps(audio)
        rise = f"{np.median(rises):.1f} ({np.percentile(rises, 90):.1f})"
        table.append([row, rise, f"{np.median(gaps):.1f}", str(len(rises))])
    header = ["", "rise, ms: median (90 %)", "gaps, dB", "notes"]
    return [f"### {name}: attacks and gaps", "", tables.markdown(header, table), ""]


def read_stereo(path):
    """Read a stereo recording: float32 (n, 2)."""
    with open_sound(path) as sound:
        return np.concatenate(list(read_blocks(sound)), axis=1).T


def make_stereo_table(shop, target):
    """Make the table of changes of the first input's stereo image: lines of Markdown."""
    instrument = target.inputs[0]
    source = shop.folder / "stereo" / instrument.folder
    for piece in list(shop.pieces)[:STEREO_PIECES]:
        midi = shop.score(piece)

        def write(path, midi=midi):
            run_fluidsynth(path, midi, instrument)
            audio = read_stereo(path)[: round(shop.args.seconds * data.SAMPLE_RATE)]
            write_audio(path, audio)

        sources = [midi, *instrument.sources]
        shop.make(source / f"{piece}.wav", sources, instrument.settings, write)
    table = []
    for label, candidate in target.models.items():
        name = f"stereo/{candidate.path.name}/{shop.args.quality}"
        folder = shop.convert(candidate, source, name, source.name)
        for path in list_recordings(source):
            change = signals.compare_stereo(read_stereo(path), read_stereo(folder / path.name))
            moved = f"{np.median(change.moved):.1f} ({np.percentile(change.moved, 90):.1f})"
            cells = [moved, f"{change.before:.2f}", f"{change.after:.2f}"]
            table.append([f"{path.stem}: {label}", *cells])
    header = ["", "level moves by, dB: median (90 %)", "correlation in", "out"]
    title = f"### {target.instrument.title}: stereo of the {instrument.title}"
    return [title, "", tables.markdown(header, table), ""]


def make_starnet_table(shop, target):
    """Make the table of StarNet's test pieces, with published values: lines of Markdown."""
    known = STARNET.get(target.instrument.title)
    if known is None:
        return []
    source, reference, published = known
    source, reference = (shop.args.starnet / name for name in (source, reference))
    folders = {f"{source.name}, {UNCHANGED}": source}
    for label, candidate in target.models.items():
        name = f"starnet/{candidate.path.name}/{shop.args.quality}"
        folders[label] = shop.convert(candidate, source, name, source.name)
    folders["target"] = reference
    name = f"starnet_{reference.name}"
    _, summary = judge_all(shop, reference, folders, name, has_scores=False)
    for row, value in published.items():
        cell = {"mean": value, "spread": None, "n": 10}
        summary[f"published: {row}"] = {"jaccard": cell}
    lines = [f"### {source.name} → {reference.name}, StarNet's test pieces", ""]
    lines += [table_of(summary, ("jaccard", "distance")), ""]
    return [*lines, "Zero-shot: no model here was trained on StarNet; the published ones were.", ""]


def make_recordings_table(shop, target):
    """Make the table of real recordings: the target's tag, before and after: lines of Markdown."""
    name = target.instrument.title
    tag = TAGS.get(name)
    if tag is None:
        return []
    true = np.mean(hear_tag(shop, tag, f"{name}/target", shop.render(target.instrument)))
    before = hear_tag(shop, tag, f"{name}/unchanged", *shop.args.recordings)
    table = [[each.stem, f"{value:.2f}"] for each, value in zip(shop.args.recordings, before)]
    header = ["", "unchanged"]
    for label, candidate in target.models.items():
        folder = f"recordings/{candidate.path.name}/{shop.args.quality}"
        folder = shop.convert_files(candidate, shop.args.recordings, folder, "match")
        outputs = [folder / f"{path.stem}.wav" for path in shop.args.recordings]
        header += [label, "of the true target's"]
        for row, value in zip(table, hear_tag(shop, tag, f"{name}/{label}", *outputs)):
            row += [f"{value:.2f}", f"{value / true:.2f}"]
    lines = [f"### {name}: real recordings, tag “{tag}”", "", tables.markdown(header, table), ""]
    lines += [f"The true {name} plays the pieces of this side: {true:.2f}. musicnn has chosen"]
    return [*lines, "among models, by its distance. The level is predict.py's default.", ""]


def hear_tag(shop, tag, name, *paths):
    """Return musicnn's probability of a tag in each of some recordings, or of a folder's."""
    if len(paths) == 1 and paths[0].is_dir():
        paths = list_recordings(paths[0])

    def hear():
        found = {}
        for path in paths:
            found[path.stem] = tagger.Listener().hear("", read_audio(path)).get(f"tag_{tag}")
        return found

    path = shop.folder / "recordings" / f"{make_file_name(name)}.json"
    found = shop.figures(path, list(paths), {"tag": tag}, hear)
    return [float("nan") if value is None else value for value in found.values()]


def make_tables(shop, target):
    """Make the tables of --parts for one target's models: lines of Markdown."""
    parts = shop.args.parts
    lines = []
    if {"errors", "bands", "judges"} & set(parts):
        folders, pairs = find_rows(shop, target)
        if {"errors", "bands"} & set(parts):
            lines += make_error_tables(shop, target, folders, pairs)
        if "judges" in parts:
            lines += make_judge_tables(shop, target, folders, pairs)
    if "attacks" in parts:
        lines += make_attack_table(shop, target)
    if "stereo" in parts:
        lines += make_stereo_table(shop, target)
    if "starnet" in parts and shop.args.starnet:
        lines += make_starnet_table(shop, target)
    if "recordings" in parts and shop.args.recordings:
        lines += make_recordings_table(shop, target)
    return lines


# ---- The command -------------------------------------------------------------------------------


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--model", nargs="+", required=True, help="models, as of predict.py")
    add("--midi_path", type=Path, required=True, help="folder of the side's scores")
    add("--side", choices=PROGRAMS, required=True, help="what the figures are for")
    add(
        "--grand",
        type=Path,
        help=f"NSynth-shaped folder with the notes {GRAND} of a piano that no model heard; for "
        "--side report only",
    )
    add("--font", default="MuseScore_General", help="SoundFont of the programs")
    add("--programs", type=int, nargs="*", help="only these of the side's programs; default: all")
    add("--starnet", type=Path, help="folder of StarNet's test pieces; for --side report only")
    add("--recordings", type=Path, nargs="+", help="real recordings, for the part of that name")
    add("--essentia", help="a Python that has essentia, for the pitch Jaccard; default: without")
    add("--quality", choices=convert.QUALITIES, default="normal", help="as of predict.py")
    add("--seconds", type=cli.seconds(low_open=True), default=30.0, help="of each piece")
    add("--limit", type=cli.number(int, 1), help="the first n pieces only")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="tables to make")
    add("--work", type=Path, default=Path("tables"), help="where all that is made is kept")
    add("--gpu", help="GPU number, or cpu; default: 0 if there is one")
    return parser


def check_flags(args):
    """Raise UserError for flags that do not fit together, or if a judge is missing."""
    for name in ("grand", "starnet"):
        if args.side == "choose" and getattr(args, name):
            raise UserError(f"--{name}: is for --side report; leave it out")
    if {"judges", "starnet"} & set(args.parts) or args.recordings:
        tagger.check_installed("--parts judges, starnet, recordings")
    if "judges" in args.parts and not judges.is_installed():
        raise UserError(f"--parts judges: the judge of notes is not installed: {judges.INSTALL}")
    if not args.seconds > 3:
        raise UserError(f"--seconds {args.seconds:g}: the judges need more than 3 s; give 30")


@cli.command
def main(argv=None):
    """Parse flags; make, print and write the tables."""
    args = build_parser().parse_args(argv)
    check_flags(args)
    pieces = find_pieces(args)
    devices.setup_device(args.gpu)
    shop = Workshop(args, pieces)
    shop.folder.mkdir(parents=True, exist_ok=True)
    words = sys.argv[1:] if argv is None else argv
    lines = ["Made by", "", "```bash", f"python docs/make_tables.py {shlex.join(words)}", "```", ""]
    about = (
        f"{len(pieces)} pieces, the first {args.seconds:g} s each, `--quality {args.quality}`, "
        f"level off. Mean ± standard deviation over pieces. The pieces: {', '.join(pieces)}."
    )
    lines += [*textwrap.wrap(about, 100), ""]
    for target in find_targets(args):
        lines += make_tables(shop, target)
        text = "\n".join(lines)
        with complete(shop.folder / "tables.md") as part:
            part.write_text(text, encoding="utf-8")
    print(text)
    print(f"-> {shop.folder / 'tables.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
