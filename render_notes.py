"""Step 0 (optional): make a folder of single notes from SoundFonts or recorded notes.

    python render_notes.py --soundfont FluidR3_GM.sf2 --list
    python render_notes.py --soundfont FluidR3_GM.sf2 --nsynth_path notes
    python render_notes.py --soundfont FluidR3_GM.sf2 --nsynth_path notes \\
        --instruments organ_acoustic=19 keyboard_acoustic_001=TimGM6mb.sf2:0
    python render_notes.py --recorded_notes my_piano keyboard_acoustic_002 --nsynth_path notes
    python render_notes.py --soundfont FluidR3_GM.sf2 --nsynth_path notes --sample_rate 44100

The folder has the form of NSynth. Each note is mono and lasts 4 s: held for 3 s, released for 1 s.
Pitches are 21 - 108, velocities 25, 50, 75, 100, 127. The sampling rate is 16 kHz, as in NSynth, or
44.1 kHz for the full band. The script rebuilds notes whose font, program, recording or rate has
changed; <nsynth_path>/.made.jsonl records them. It never overwrites other files.
"""

from common import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import contextlib
import ctypes
import itertools
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from tqdm import tqdm

from common.cli import UserError
from common.files import read_json, write_json
from common.record import FOREIGN, Record
from NoteSynthesizer import HELD, NOTE_RATE, PITCHES, RELEASED, VELOCITIES, note_name, note_prefix
from sound.recordings import write_audio
from synthesis import recorded_notes
from synthesis.recorded_notes import WORK_RATES

FORMAT = 1  # raise it when a change of the code changes the samples
NOTE_PEAK = 0.9  # peak of an instrument's loudest note; all its notes have one gain
SILENCE = 2**-15  # peak, one step of 16 bits: the program has no sample at this pitch
# General MIDI. Strings: the ensemble (48) covers more pitches and has faster attacks than the solo
# violin (40). Synth lead: the saw (81), because the square (80) has two detuned oscillators, left
# and right, which beat against each other in mono.
DEFAULT_PROGRAMS = (
    "keyboard_acoustic=0",
    "guitar_acoustic=25",
    "string_acoustic=48",
    "synth_lead_synthetic=81",
)
# Where systems keep SoundFonts. Folders with an unset variable are skipped.
FONT_FOLDERS = (
    # Linux and BSD: packages, manual installations, the user's fonts
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/sounds/sf2",
    "/usr/local/share/sounds/sf3",
    "/usr/local/share/soundfonts",
    "~/.local/share/sounds/sf2",
    "~/.local/share/sounds/sf3",
    "~/.local/share/soundfonts",
    # macOS
    "~/Library/Audio/Sounds/Banks",
    "/Library/Audio/Sounds/Banks",
    # Homebrew; its prefix on Intel is /usr/local
    "/opt/homebrew/share/soundfonts",
    "/opt/homebrew/share/sounds/sf2",
    "/opt/homebrew/share/fluid-synth/sf2",
    "/usr/local/share/fluid-synth/sf2",
    "${HOMEBREW_PREFIX}/share/soundfonts",
    # Windows: where FluidSynth looks
    "${ProgramData}/soundfonts",
    "C:/soundfonts",
    # MuseScore: the user's fonts, and its own on Windows
    "~/Documents/MuseScore4/SoundFonts",
    "~/Documents/MuseScore3/SoundFonts",
    "${ProgramFiles}/MuseScore 4/sound",
    "${ProgramFiles}/MuseScore 3/sound",
)
FONT_EXTENSIONS = (".sf2", ".sf3")
FONTS_NAMED = 8  # largest number of fonts in a message
_SETTINGS = {
    "synth.reverb.active": 0,
    "synth.chorus.active": 0,
    "synth.dynamic-sample-loading": 0,
    "synth.cpu-cores": 1,
    "synth.polyphony": 64,
    "synth.midi-channels": 16,
}


def find_font(name):
    """Find a SoundFont: ``name`` as a path, otherwise in `FONT_FOLDERS`.

    The extension ``.sf2`` or ``.sf3`` is optional in these folders.

    Raises:
        UserError: not found.
    """
    path = Path(name)
    if path.exists() or path.name != str(name):  # a path is not searched for
        return path
    folders = list_font_folders()
    for folder in folders:
        for extension in ("", *FONT_EXTENSIONS):
            found = folder / f"{name}{extension}"
            if found.is_file():
                return found
    fonts = list_fonts(folders)
    if not fonts:
        raise UserError(
            f"{name}: no such SoundFont, and none in the system's folders; give its path, or "
            "install one, e.g. 'apt install fluid-soundfont-gm' (FluidR3_GM.sf2)"
        )
    if len(fonts) > FONTS_NAMED:
        fonts[FONTS_NAMED:] = ["..."]
    raise UserError(
        f"{name}: no such SoundFont, here or in the system's folders; give its path, or one of "
        f"these: {', '.join(fonts)}"
    )


def list_font_folders():
    """List those of `FONT_FOLDERS` that exist: list of paths."""
    folders = []
    for folder in FONT_FOLDERS:
        path = Path(os.path.expandvars(os.path.expanduser(folder)))
        if "$" not in str(path) and path.is_dir():
            folders.append(path)
    return folders


def list_fonts(folders):
    """List the names of SoundFonts in folders, sorted, without duplicates."""
    names = set()
    for folder in folders:
        with contextlib.suppress(PermissionError):
            names |= {path.name for path in folder.iterdir() if is_font_name(path)}
    return sorted(names, key=str.casefold)


def is_font_name(path):
    """Whether a path's extension is a SoundFont's."""
    return path.suffix.lower() in FONT_EXTENSIONS


def check_font(path):
    """Raise UserError if a file cannot be a SoundFont."""
    try:
        with open(path, "rb") as file:
            header = file.read(12)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a SoundFont, .sf2 or .sf3"
        ) from None
    if header[:4] != b"RIFF" or header[8:] != b"sfbk":
        raise UserError(f"{path}: is not a SoundFont; give an .sf2 or .sf3 file")


def _import_fluidsynth():
    try:
        import fluidsynth
    except (ImportError, OSError) as error:
        raise UserError(
            f"FluidSynth: not found ({error}); install it, e.g. 'apt install fluidsynth' or "
            "'brew install fluid-synth', and 'pip install pyfluidsynth'"
        ) from None
    return fluidsynth


def _pointer_of(synth):
    return ctypes.c_void_p(synth.synth)


class SoundFont:
    """A SoundFont that plays single notes, each on a new synthesizer.

    FluidSynth reuses a voice with some of its last state: the same note played twice on one
    synthesizer differs by up to a tenth of its level. So the font is loaded once and attached to
    each new synthesizer (0.3 ms each).

    Attributes:
        programs: {(bank, program): name}.
    """

    def __init__(self, path):
        check_font(path)
        self._fluidsynth = _import_fluidsynth()
        self._library = ctypes.CDLL(self._fluidsynth.lib)
        self._library.fluid_synth_get_sfont_by_id.restype = ctypes.c_void_p
        for level in range(4):  # panic ... info: stop FluidSynth from writing to stderr
            self._library.fluid_set_log_function(level, None, None)
        synth = self._fluidsynth.Synth(**_SETTINGS)
        with cli.quiet_stderr():  # its libraries report a damaged font there
            font_id = synth.sfload(str(path))
        if font_id < 0:
            raise UserError(f"{path}: FluidSynth cannot load this SoundFont; download it again")
        pointer = self._library.fluid_synth_get_sfont_by_id(_pointer_of(synth), font_id)
        self._font = ctypes.c_void_p(pointer)
        self.programs = {}
        for bank, program in itertools.product(range(129), range(128)):
            name = synth.sfpreset_name(font_id, bank, program)
            if name is not None:
                self.programs[bank, program] = name
        self._library.fluid_synth_remove_sfont(_pointer_of(synth), self._font)
        synth.delete()

    def note(self, bank, program, pitch, velocity, rate=NOTE_RATE):
        """Render one note: float32 (4 s at ``rate``,), the average of left and right.

        The scale is FluidSynth's; peaks are about 0.1.
        """
        font_rate = WORK_RATES[rate]
        synth = self._fluidsynth.Synth(gain=0.2, samplerate=font_rate, **_SETTINGS)
        font_id = self._library.fluid_synth_add_sfont(_pointer_of(synth), self._font)
        synth.program_select(0, font_id, bank, program)
        synth.noteon(0, pitch, velocity)
        held = self._play(synth, HELD * font_rate)
        synth.noteoff(0, pitch)
        audio = np.concatenate([held, self._play(synth, RELEASED * font_rate)])
        self._library.fluid_synth_remove_sfont(_pointer_of(synth), self._font)
        synth.delete()
        return soxr.resample(audio, font_rate, rate)

    def _play(self, synth, count):
        """Render the next ``count`` samples, float32 (count,).

        pyfluidsynth's own method gives 16 bits, with dither that depends on earlier samples.
        """
        left, right = np.empty((2, count), np.float32)
        pointers = [side.ctypes.data_as(ctypes.c_void_p) for side in (left, right)]
        self._library.fluid_synth_write_float(
            _pointer_of(synth), count, pointers[0], 0, 1, pointers[1], 0, 1
        )
        return (left + right) / 2


class Program(NamedTuple):
    """An instrument to render from a SoundFont."""

    instrument: str
    font: str  # path or name, as given
    bank: int  # 0 - 128
    number: int  # 0 - 127


def parse_instrument(text, font=None):
    """Parse ``"organ_electronic_001=19"``, ``"...=8:19"`` (bank), ``"...=TimGM6mb.sf2:8:19"``.

    Args:
        text: an argument of --instruments.
        font: font of an instrument that names none.

    Returns:
        `Program`.

    Raises:
        UserError: name or numbers are malformed, or no font is named.
    """
    instrument, _, source = text.partition("=")
    note_prefix(instrument)  # raises on a malformed name
    match = re.fullmatch(r"(?:(.*?\D.*?):)?(?:(\d{1,3}):)?(\d{1,3})", source)
    if match:
        own_font, bank, number = match[1], int(match[2] or 0), int(match[3])
    if not match or bank > 128 or number > 127:
        raise UserError(
            f"--instruments {text}: no such program; write NAME=PROGRAM, NAME=BANK:PROGRAM "
            "or NAME=FONT:PROGRAM (see --list)"
        )
    if own_font is None and font is None:
        raise UserError(
            f"--instruments {text}: names no font; give --soundfont or write NAME=FONT:PROGRAM"
        )
    return Program(instrument, own_font or font, bank, number)


def render_program(font, bank, program, name, rate=NOTE_RATE):
    """Render every note of a program; ``name`` labels the progress bar.

    Returns:
        {(pitch, velocity): float32 (4 s at ``rate``,)}, scaled by `scale_notes`.
    """
    notes = {}
    keys = list(itertools.product(PITCHES, VELOCITIES))
    for key in tqdm(keys, desc=name, unit="note"):
        notes[key] = font.note(bank, program, *key, rate)
    return scale_notes(notes)


def scale_notes(notes):
    """Scale all notes by one gain so that the largest peak is `NOTE_PEAK`; drop silent notes."""
    peaks = {key: np.abs(note).max() for key, note in notes.items()}
    gain = NOTE_PEAK / max(max(peaks.values()), 1e-6)
    scaled = {}
    for key, note in notes.items():
        if peaks[key] * gain > SILENCE:
            scaled[key] = note * np.float32(gain)
    return scaled


class NoteFolder:
    """The notes of one instrument in a folder, and the record of their sources.

    Args:
        root: an NSynth-shaped folder; notes go to its ``audio``.
        instrument: its name.
        sources: files that the notes are made from.
        settings: dict of all other settings that determine the notes.
        rate: sampling rate, Hz.
    """

    def __init__(self, root, instrument, sources, settings, rate=NOTE_RATE):
        self._record = Record(root)
        self._sources = sources
        self._settings = settings | {"format": FORMAT}
        if rate != NOTE_RATE:  # older records do not have the default rate
            self._settings["sample_rate"] = rate
        self.rate = rate
        self.paths = {}  # (pitch, velocity) -> path, for all of NSynth's pitches and velocities
        for pitch, velocity in itertools.product(PITCHES, VELOCITIES):
            path = Path(root) / "audio" / note_name(instrument, pitch, velocity)
            self.paths[pitch, velocity] = path
        # Lists the notes that exist, written last: a program may be silent at some pitches
        self._list = Path(root) / f"{note_prefix(instrument)}.json"

    def is_complete(self):
        """Whether all notes exist and are up to date."""
        if not self._is_current(self._list):
            return False
        try:
            names = read_json(self._list, "", notes=list)["notes"]
        except UserError:  # our own file is damaged: write it again
            return False
        wanted = [path for path in self.paths.values() if path.name in names]
        return all(self._is_current(path) for path in wanted)

    def are_all_foreign(self):
        """Whether every note exists and none was made by this script."""
        return all(self._is_foreign(path) for path in self.paths.values())

    def check_free(self):
        """Raise UserError if a note to be written exists and was not made by this script."""
        foreign = [path for path in self.paths.values() if self._is_foreign(path)]
        if self._is_foreign(self._list):
            foreign.append(self._list)
        if foreign:
            raise UserError(
                f"{foreign[0]}: was not made by this script, or was changed since; choose "
                "another name for the instrument or another --nsynth_path"
            )

    def write(self, notes, about):
        """Write {(pitch, velocity): note} and the list ``about``: returns the number written.

        It deletes earlier notes of this script that are not in ``notes``.
        """
        due = [key for key in notes if not self._is_current(self.paths[key])]
        gone = [path for key, path in self.paths.items() if key not in notes and path.exists()]
        self.check_free()  # again: making the notes took a while
        places = {
            path: self._record.plan_place(path) for path in (*self.paths.values(), self._list)
        }
        self._record.begin([*(self.paths[key] for key in due), self._list])
        for path in gone:
            path.unlink()
        for key in due:
            path = self.paths[key]
            self._write(path, places[path], write_audio, notes[key], self.rate)
        names = [self.paths[key].name for key in notes]
        self._write(self._list, places[self._list], write_json, about | {"notes": sorted(names)})
        return len(due)

    def _write(self, path, place, function, *content):
        """Have ``function`` write a file, and note it in the record."""
        try:
            function(path, *content, place=place)
        except UserError:
            self._record.give_up(path, place)
            raise
        self._record.add(path, self._sources, self._settings)

    def _is_current(self, path):
        return self._record.is_current(path, self._sources, self._settings)

    def _is_foreign(self, path):
        return self._record.plan(path, self._sources, self._settings) == FOREIGN


class RenderJob(NamedTuple):
    """An instrument to make from a font's program or from recordings."""

    instrument: str
    folder: NoteFolder
    program: Program | None
    recordings: list | None  # of recorded_notes.Recording


def plan_programs(texts, font, root, rate=NOTE_RATE):
    """Plan the jobs of --instruments: list of `RenderJob`."""
    jobs = []
    for text in texts:
        program = parse_instrument(text, font)
        path = find_font(program.font)
        settings = {"bank": program.bank, "program": program.number}
        folder = NoteFolder(root, program.instrument, [path], settings, rate)
        jobs.append(RenderJob(program.instrument, folder, program._replace(font=path), None))
    return jobs


def plan_recordings(named_folders, root, rate=NOTE_RATE):
    """Plan the jobs of --recorded_notes: list of `RenderJob`.

    ``named_folders``: list of (folder, instrument).

    Several folders of one instrument are combined.
    """
    folders = {}
    for path, instrument in named_folders:
        note_prefix(instrument)  # raises on a malformed name
        folders.setdefault(instrument, []).append(path)
    jobs = []
    for instrument, paths in folders.items():
        recordings, passed_over = recorded_notes.find_recorded_notes(paths)
        if passed_over:
            print(f"{instrument}: skipped files without a pitch in their name: {passed_over}")
        again = recorded_notes.find_repeated(recordings)
        if again:
            print(
                f"{instrument}: skipped {len(again)} recordings with the same note and loudness "
                f"as another, such as {cli.one_line(again[0].path)}"
            )
        settings = {"recordings": recorded_notes.fingerprint(recordings)}
        folder = NoteFolder(root, instrument, [], settings, rate)
        jobs.append(RenderJob(instrument, folder, None, recordings))
    return jobs


def check_jobs(jobs, fonts):
    """Load the fonts and check all jobs before the first starts; ``fonts``: {path: SoundFont}.

    Raises:
        UserError: a job cannot be done.
    """
    for job in jobs:
        job.folder.check_free()
        program = job.program
        if program is None:
            continue
        if program.font not in fonts:
            fonts[program.font] = SoundFont(program.font)
        if (program.bank, program.number) not in fonts[program.font].programs:
            raise UserError(
                f"--instruments {job.instrument}={program.bank}:{program.number}: "
                f"{program.font} has no such program (see --list)"
            )


def do_job(job, fonts):
    """Render an instrument's notes, write those that are due, return a line of summary."""
    if job.program is not None:
        notes, title, about = render_from_font(job, fonts[job.program.font])
    else:
        notes, title, about = render_from_recordings(job)
    about = {"instrument": note_prefix(job.instrument), "title": title} | about
    written = job.folder.write(notes, about)
    there = len(notes) - written
    line = f"{job.instrument}: {title}: {there} notes already there, {written} written"
    missing = len(job.folder.paths) - len(notes)
    if job.program is not None:
        return f"{line}, {missing} silent notes left out"
    if missing:
        line += f", {missing} left out: no such loudness, or no recording near enough"
    return line


def render_from_font(job, font):
    """Render a program: (notes {(pitch, velocity): samples}, title, dict for the notes' list)."""
    program = job.program
    notes = render_program(font, program.bank, program.number, job.instrument, job.folder.rate)
    title = font.programs[program.bank, program.number]
    about = {"font": Path(program.font).name, "program": f"{program.bank}:{program.number}"}
    return notes, title, about


def render_from_recordings(job):
    """Render recordings: (notes {(pitch, velocity): samples}, title, dict for the notes' list)."""
    rate = job.folder.rate
    notes = scale_notes(recorded_notes.render_recordings(job.recordings, job.instrument, rate))
    pitches = {recording.pitch for recording in job.recordings}
    title = f"{len(job.recordings)} recordings of {len(pitches)} pitches"
    return notes, title, {"layers": recorded_notes.choose_layers(job.recordings)}


def list_programs(font):
    """Print the programs of a SoundFont."""
    for (bank, program), name in font.programs.items():
        print(f"{bank}:{program}" if bank else program, name, sep="\t")


def build_parser():
    """The flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--soundfont",
        help="SoundFont (.sf2, .sf3) for --instruments that name none: a path, or the name of a "
        "font in the system's folders",
    )
    add("--nsynth_path", help="output folder; the notes go to its audio/")
    add(
        "--instruments",
        nargs="+",
        metavar="NAME=[FONT:][BANK:]PROGRAM",
        help="name of each instrument, as in NSynth, and its program, 0 - 127; "
        f"default, with --soundfont: {' '.join(DEFAULT_PROGRAMS)}",
    )
    add(
        "--recorded_notes",
        nargs=2,
        action="append",
        default=[],
        metavar=("FOLDER", "NAME"),
        help="make the instrument NAME from recorded notes in FOLDER; file names give the pitch "
        "and, if there are several, the loudness: C4v8.ogg, D#4.wav, 060-100.flac; repeatable",
    )
    add(
        "--sample_rate",
        type=int,
        choices=WORK_RATES,
        default=NOTE_RATE,
        help="sampling rate of the notes, Hz: 16000 as in NSynth, or 44100 for 512 bins",
    )
    add("--list", action="store_true", help="list the font's programs and stop")
    return parser


def parse_flags(argv):
    """Parse and check the flags, without opening a font."""
    args = build_parser().parse_args(argv)
    if args.list and not args.soundfont:
        raise UserError("--soundfont: is missing; name the SoundFont to list")
    if not args.list and not args.nsynth_path:
        raise UserError("--nsynth_path: is missing; name the folder to write the notes to")
    if not (args.soundfont or args.instruments or args.recorded_notes):
        raise UserError("--soundfont: is missing; name a SoundFont, or give --recorded_notes")
    if args.instruments is None:
        args.instruments = DEFAULT_PROGRAMS if args.soundfont else ()
    return args


@cli.command
def main(argv=None):
    """Make the notes that are missing or out of date."""
    args = parse_flags(argv)
    if args.list:
        list_programs(SoundFont(find_font(args.soundfont)))
        return
    rate = args.sample_rate
    jobs = plan_programs(args.instruments, args.soundfont, args.nsynth_path, rate)
    jobs += plan_recordings(args.recorded_notes, args.nsynth_path, rate)
    prefixes = [note_prefix(job.instrument) for job in jobs]
    for prefix in prefixes:
        if prefixes.count(prefix) > 1:
            raise UserError(f"{prefix}: is given twice; choose another name for one of them")
    due = []
    for job in jobs:
        if job.folder.are_all_foreign():
            count = len(job.folder.paths)
            print(f"{job.instrument}: {count} notes already there, not made by this script")
        elif job.folder.is_complete():
            print(f"{job.instrument}: all notes already there")
        else:
            due.append(job)
    fonts = {}
    check_jobs(due, fonts)
    for job in due:
        print(do_job(job, fonts))


if __name__ == "__main__":
    raise SystemExit(main())
