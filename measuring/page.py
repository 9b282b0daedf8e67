"""The contents of evaluate.py's listening page: each piece's sounds, spectrograms and measures.

report/listening.py has the layout of such pages.
"""

import data
from common import cli
from conversion import convert
from measuring import tables
from measuring.rows import (
    IDENTITY,
    MEDIAN,
    MODEL,
    SHOWN_COLUMNS,
    SILENCE,
    TARGET,
    TRUE,
    find_training_gain,
    name_row,
    name_system,
)
from report import listening

ROW_TERMS = (  # (start of a row's name, description)
    (IDENTITY, "The input, unchanged: what there is to beat."),
    (SILENCE, "Nothing at all."),
    (MEDIAN, "One constant spectrum, the median of the training targets."),
    (MODEL, "The network's picture, made audible with the phase named."),
    (TRUE, "The target's own picture with that phase: what a perfect network would reach."),
    (TARGET, "The recording of the target instrument."),
)


class GroupPage:
    """The listening page of one group: the outputs of all ``candidates`` for each piece.

    It deletes an earlier page at once, because that would show these sounds under its names. Raises
    UserError if index.html is no such page.
    """

    def __init__(self, folder, group, candidates, systems, seconds):
        self.folder = folder
        self.group = group
        self.outputs = {}  # {name of a model in the tables: label of its sound here}
        for candidate in candidates:
            label = f"Output: {candidate.label}" if candidate.label else "Output"
            self.outputs[name_system(candidate.label)] = label
        self.candidates = candidates
        self.models = systems.models
        self.settings = systems.settings
        self.seconds = seconds
        self.sections = []  # (title, HTML) of each piece
        listening.check_own(folder, "--report")
        (folder / "index.html").unlink(missing_ok=True)

    def add(self, piece, sounds, measured):
        """Write one piece's sounds and pictures.

        Args:
            piece: `Piece`.
            sounds: {row: audio (n,)}.
            measured: its results, see measuring/tables.py.
        """
        samples = int(self.seconds * data.SAMPLE_RATE)
        summary = tables.summarise(measured, SHOWN_COLUMNS)
        audio = sounds[IDENTITY][:samples]
        shown = {self._input_label(): audio}
        more = {}
        for system, label in self.outputs.items():
            shown[label] = self._convert(system, audio)
            for name in self.settings.phases:
                more[f"{label}, phase: {name}"] = sounds[name_row(system, name)][:samples]
        differences = []
        if TARGET in sounds:
            shown[self._target_label()] = sounds[TARGET][:samples]
            differences = [(label, self._target_label()) for label in self.outputs.values()]
        entry = listening.Entry(
            listening.plain_title(piece.name),
            shown,
            more,
            differences,
            self._sentence(summary),
            tables.text_table(summary, SHOWN_COLUMNS),
        )
        html = listening.write_section(self.folder, len(self.sections) + 1, entry)
        self.sections.append((entry.title, html))

    def _convert(self, system, audio):
        """What predict.py makes of audio (n,) at normal quality, but for its level."""
        gain = find_training_gain(audio) if self.settings.level == "match" else 1.0
        options = convert.QUALITIES["normal"]._replace(pull=self.settings.pulls.get(system))
        model = self.models[system]
        return convert.convert_audio(model, gain * audio, data.SAMPLE_RATE, options) / gain

    def _input_label(self):
        if not self.group.origin:
            return "Input"
        return f"Input: {listening.plain_instrument(self.group.origin)}"

    def _target_label(self):
        if not self.group.target:
            return "Target"
        return f"Target: {listening.plain_instrument(self.group.target)}"

    def _sentence(self, summary):
        """Write the sentence above the sounds: errors of the outputs and the input."""
        if "mae_db" not in summary[IDENTITY]:
            return ""
        errors = []
        for candidate in self.candidates:
            row = name_row(name_system(candidate.label), self.settings.phases[0])
            errors.append(f"{candidate.label} {summary[row]['mae_db']['mean']:.2f} dB".strip())
        target = listening.plain_instrument(self.group.target) if self.group.target else "target"
        unchanged = summary[IDENTITY]["mae_db"]["mean"]
        return f"{', '.join(errors)} from the {target}; the unchanged input {unchanged:.2f} dB."

    def _title(self):
        if not self.group.origin:
            names = [candidate.label or candidate.path.name for candidate in self.candidates]
            return f"Conversions by {', '.join(names)}"
        origin = listening.plain_instrument(self.group.origin)
        return f"From {origin} to {listening.plain_instrument(self.group.target)}"

    def _extent(self):
        """Describe how much of each piece is on the page and how much is measured."""
        measured = self.group.seconds  # None: all; the sounds are not longer
        if measured and measured <= self.seconds:
            return f"The first {measured:g} s of each piece are here, and measured."
        part = f"its first {measured:g} s" if measured else "whole pieces"
        return f"The first {self.seconds:g} s of each piece are here; measures are of {part}."

    def write(self, summary):
        """Write the page, after all its files."""
        paragraphs = [
            *describe_candidates(self.candidates),
            self.group.about,
            self._extent(),
            "“Output” is what predict.py makes at normal quality. The sounds folded below it, and "
            "the tables, have the phase named, at the hop and level of the measurement.",
            "Mean ± standard deviation over pieces; the lower the better, SNR and note F1 apart.",
        ]
        header, rows = table = tables.text_table(summary, SHOWN_COLUMNS)
        terms = []
        for column in SHOWN_COLUMNS:
            if column.heading in header:
                terms.append((column.heading, column.meaning))
        for name, meaning in ROW_TERMS:
            if any(row[0].startswith(name) for row in rows):
                terms.append((name, meaning))
        page = listening.Page(self._title(), self._sentence(summary), paragraphs, table, terms)
        listening.write_index(self.folder, page, self.sections)
        print(f"-> {self.folder / 'index.html'}")


def describe_candidates(candidates):
    """List the models' names in the tables, one line each; none for a single model."""
    lines = []
    for candidate in candidates:
        if candidate.label:
            lines.append(f"{name_system(candidate.label)}: {cli.one_line(candidate.path)}")
    return lines
