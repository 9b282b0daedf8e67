"""README and docs do not rot: README's commands are run on little data, all others are parsed.

Every flag and link in the pages exists, docs/reference.md is what docs/reference.py makes, and the
picture of who calls whom is true.
"""

import ast
import contextlib
import io
import itertools
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
from conftest import ORIGIN, ROOT, TARGET, melody
from music import midi_bytes, note, note_sound
from sounds import encode
from test_house import find_modules

from NoteSynthesizer import DEFAULT_INSTRUMENTS, PITCHES, VELOCITIES, note_name
from sound.recordings import read_audio, write_audio

sys.path.insert(0, str(ROOT / "docs"))
import reference

README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "demo" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TRAINING = (
    "--filters 2 --epochs 1 --decay_epochs 0 --batch_size 2 --epoch_tiles 4 --findlr_steps 12 "
    "--preview_every 0 --fresh"
)
SMALL = {  # flags that make a command small; of a flag given twice the last counts
    "synthesize_audios.py": "--workers 1 --fresh",
    "compute_features.py": "--workers 1",
    "train.py": TRAINING,
    "train_generator.py": TRAINING,
    "evaluate.py": "--phase input --limit 1",
}
# How README's others begin
NOT_OURS = ("git clone ", "cd ", "make ", "python3 -m venv ", ". ", "pip install ")


def without_blocks(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(page):
    """The commands of a page: lines of its bash blocks, joined where they continue on the next,
    and `python ...` within the text."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            found += re.sub(r"\s+#.*", "", line).split("&&")
    found += re.findall(r"`((?:\w+=\w+ )?python [\w/]+\.py [^`]*)`", without_blocks(text))
    found = [re.sub(r"python -m (\w+)\.(\w+)", r"python \1/\2.py", command) for command in found]
    words = [" ".join(command.split()) for command in found]
    return list(dict.fromkeys(command for command in words if command))


def script_of(command):
    """The script of ours that a command runs, or None."""
    match = re.match(r"(?:\w+=\w+ )?python ([\w/]+\.py)", command)
    return match and match[1]


def run(command):
    """Run one of our scripts here, as if it were the main one. Fails with its output."""
    script, *flags = shlex.split(command)[1:]
    flags += SMALL.get(script, "").split()
    output, before = io.StringIO(), (sys.argv, sys.path)
    on_interrupt = signal.getsignal(signal.SIGINT)  # which a script that is done ignores
    sys.argv, sys.path = [script, *flags], [str((ROOT / script).parent), *sys.path]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{command}\n{output.getvalue()[-2000:]}"
    finally:
        sys.argv, sys.path = before
        signal.signal(signal.SIGINT, on_interrupt)


@pytest.fixture(scope="module")
def parsers():
    """{script: its parser}."""
    return {script: reference.find_parser(script) for script in reference.find_scripts()}


def flags_of(parser):
    return set(parser._option_string_actions)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as a reader has it, with little data under README's names, and its commands done."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "pretrained").symlink_to(ROOT / "pretrained")
    (folder / "demo").mkdir()
    (folder / "demo" / "notes").symlink_to(ROOT / "demo" / "notes")
    soundfont = Path(pretty_midi.__file__).parent / "TimGM6mb.sf2"
    (folder / "FluidR3_GM.sf2").symlink_to(soundfont)
    put_notes(folder / "notes" / "audio")
    tune = []
    for k in range(24):
        tune += note(480 * k, 480 * k + 400, 50 + k)
    midi = folder / "demo" / "midi"
    (midi / "bach").mkdir(parents=True)
    for name in ("bach/one.mid", "two.MID", "three.midi"):
        (midi / name).write_bytes(midi_bytes(tune))
    write_audio(folder / "piano.wav", melody(0, (1, 0.5), 4))
    write_audio(folder / "docs" / "audio" / "piano.ogg", melody(0, (1, 0.5), 4))
    encode(folder / "song.m4a", melody(0, (1, 0.5), 4), "aac")
    before = Path.cwd()
    os.chdir(folder)
    try:
        run_readme()
        yield folder
    finally:
        os.chdir(before)


def put_notes(folder):
    """All notes of the default instruments, so that render_notes.py finds them."""
    for k, instrument in enumerate(DEFAULT_INSTRUMENTS):
        first = folder / note_name(instrument, PITCHES[0], VELOCITIES[0])
        write_audio(first, note_sound(60 + k, 0.5), 16000)
        for pitch in PITCHES:
            for velocity in VELOCITIES:
                path = folder / note_name(instrument, pitch, velocity)
                if path != first:
                    os.link(first, path)


def run_readme():
    for command in commands(README):
        if command.startswith(NOT_OURS):
            continue
        if script_of(command) == "app.py":
            continue  # goes on until it is stopped: tests/test_app.py runs it
        if script_of(command) != "render_notes.py" or has_fluidsynth():
            run(command)


def has_fluidsynth():
    try:
        import fluidsynth  # noqa: F401
    except ImportError:
        return False
    return True


def test_readme_commands_ran(workplace):
    for made in (
        f"audios/{ORIGIN}/bach/one.wav",
        f"features/{TARGET}/two.npy",
        "guitar.wav",
        "song_guitar.wav",
        "song_strings.wav",
        "page/index.html",
        f"runs/{ORIGIN}_2_{TARGET}/generator.keras",
        f"runs/{ORIGIN}_2_{TARGET}/lr_finder/lr_finder.png",
    ):
        assert (workplace / made).stat().st_size > 0
    assert np.abs(read_audio(workplace / "guitar.wav")).max() > 0


def test_every_figure_is_drawn(workplace, monkeypatch, tmp_path):
    import drawings
    import figures

    monkeypatch.setattr(figures, "DOCS", tmp_path)
    run = f"runs/{ORIGIN}_2_{TARGET}"
    assert figures.main(["--run", run]) == 0
    drawn = {path.name for path in tmp_path.iterdir()}
    in_docs = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".svg", ".png")}
    made_otherwise = {"listening_page.png", "phase_page.png", "clips.png"}
    made_otherwise |= {"growth.svg", *drawings.NAMES}
    assert drawn == in_docs - made_otherwise
    pages = "".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
    pages = pages.replace("docs/", "")
    for name in in_docs:
        assert f"]({name})" in pages or f'src="{name}"' in pages
    assert all((ROOT / "docs" / name).stat().st_size < 300_000 for name in in_docs)


def test_the_drawings_are_up_to_date(tmp_path, monkeypatch):
    import drawings

    monkeypatch.setattr(drawings, "DOCS", tmp_path)
    assert drawings.main([]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(drawings.NAMES)
    for name in drawings.NAMES:
        there = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert there == (tmp_path / name).read_text(encoding="utf-8")


def test_the_figure_of_growth_is_that_of_its_table(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import growth

    drawn = tmp_path / "growth.svg"
    table = ROOT / "docs" / "growth.csv"
    flags = ["--redraw", "--figure", str(drawn), "--table"]
    assert growth.main([*flags, str(table)]) == 0
    curves = []
    for path in (drawn, ROOT / "docs" / "growth.svg"):
        text = path.read_text(encoding="utf-8")
        assert 'width="388.8pt"' in text  # text of size 11 is then legible on a phone
        curves.append(len(re.findall(r"<use xlink:href", text)))
    assert curves[0] == curves[1]
    table = tmp_path / "costs.csv"
    table.write_text("step,size,seconds,gigabytes\n3 train,10,soon,1\n")
    assert growth.main([*flags, str(table)]) == 2
    assert "line 2 is not 'step,size,seconds,gigabytes'" in capsys.readouterr().err


def test_readme_fits_in_200_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def sentences(text):
    """The prose of a page, sentence by sentence, as lists of words.

    Left out are code blocks, tables, headings and pictures. Items of lists and paragraphs end a
    sentence; a link counts as its text and inline code as one word.
    """
    text = re.sub(r"^ *```.*?^ *```", "\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]+`", "CODE", text)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<img[^>]*>|<[^>]+>", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    lines = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith(("|", "#")):
            line = ""
        if re.match(r"([-*]|\d+\.) ", line):
            lines.append("")
            line = line.partition(" ")[2]
        lines.append(line)
    found = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        for sentence in re.split(r"(?<=[.!?])[)*\"”]*\s+", paragraph.replace("**", "")):
            words = re.findall(r"[^\s]*\w[^\s]*", sentence)
            if len(words) > 2:
                found.append(words)
    return found


PROSE = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "pretrained" / "README.md"]
USUAL_WORDS, MOST_WORDS = 18, 30  # of the median sentence, and of nine in ten


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_sentences_are_short(page):
    found = sentences(page.read_text(encoding="utf-8"))
    lengths = [len(words) for words in found]
    assert np.median(lengths) <= USUAL_WORDS
    long = [" ".join(words) for words in found if len(words) > MOST_WORDS]
    assert len(long) <= len(found) / 10, "\n".join(long)


def list_docstrings():
    """Docstrings of all modules but the tests: {path: text}, without examples and tables."""
    docstrings = {}
    for path in sorted(ROOT.glob("*.py")) + sorted(ROOT.glob("*/*.py")):
        if path.parent.name == "tests":
            continue
        lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
        prose = ["" if re.match(r"    |.*\S  +\S|-- ", line) else line for line in lines]
        docstrings[path.relative_to(ROOT).as_posix()] = "\n".join(prose)
    return docstrings


def test_sentences_of_docstrings_and_help_are_short(parsers):
    found = {}
    for path, text in list_docstrings().items():
        found[path] = sentences(text)
    for script, parser in parsers.items():
        for action in parser._actions:
            for clause in (action.help or "").split("; "):
                found.setdefault(f"{script} --help", []).append(clause.split())
    lengths = [len(words) for words in itertools.chain(*found.values())]
    assert len(lengths) > 500
    assert np.median(lengths) <= USUAL_WORDS
    for place, those in found.items():
        for words in those:
            assert len(words) <= MOST_WORDS, f"{place}: {' '.join(words)}"


def test_what_counts_as_a_sentence():
    text = """# A heading of six words

Two `x + y` sentences. This is [the second one](page.md)!

| a | table |
|---|---|

- an item of five words
- Another item:
  it continues here.

```bash
no prose at all
```
"""
    counts = [len(words) for words in sentences(text)]
    assert counts == [3, 5, 5, 5]


def test_a_long_pair_of_loud_masters_can_be_cut(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "data_recordings.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for name, seed in (("piano.flac", 0), ("synth.wav", 1)):
        loud = np.clip(9 * melody(seed, (1, 0.5), 68), -1, 1)
        soundfile.write(name, loud, 48000)
        assert np.abs(read_audio(name)).max() > 1.01
    exec(recipe, {})
    for instrument in ("piano_own", "synth_own"):
        cut = sorted(Path("audios", instrument).iterdir())
        seconds = [soundfile.info(path).duration for path in cut]
        assert sorted(seconds) == pytest.approx([68 * 44.1 / 48 - 60, 60], abs=0.01)
        pieces = [read_audio(path) for path in cut]
        assert 0.99 < max(np.abs(piece).max() for piece in pieces) <= 1


def test_figures_without_a_model_are_refused(tmp_path, capsys):
    import figures

    assert figures.main(["--run", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("no trained model there; run 'make demo' first\n")


@pytest.mark.skipif(os.name == "nt", reason="a shell's script")
@pytest.mark.parametrize(("free", "is_told"), [(4_900_000, True), (5_100_000, False)])
def test_continuous_integration_tells_of_a_disk_nearly_full(tmp_path, free, is_told):
    programs = {
        "id": "echo 1000",  # no root: nothing of the system is installed
        "df": f"echo head; echo disk 0 0 {free} 0% /",
        "make": 'echo "make $1, PIP_NO_CACHE_DIR=$PIP_NO_CACHE_DIR"',
    }
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "VENV": str(tmp_path)}
    done = subprocess.run([ROOT / ".ci/run"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "make test, PIP_NO_CACHE_DIR=1\n"
    assert bool(done.stderr) == is_told
    assert "only 4 GB are free" in done.stderr or not is_told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_accepted(page, parsers):
    """Scripts exist, and their parsers take what the page gives them."""
    for command in commands(page):
        script = script_of(command)
        if script is None:
            continue
        words = shlex.split(command.split(script)[1])
        if "..." in words or "--resume" in words:  # left out by the page, or given by the run
            assert {word for word in words if word[:2] == "--"} <= flags_of(parsers[script])
        else:
            parsers[script].parse_args(words)


def test_the_address_to_clone_has_one_name_everywhere():
    texts = {}
    for page in [*PROSE, ROOT / "docs" / "timbre_transfer.ipynb", ROOT / "CITATION.cff"]:
        texts[page.relative_to(ROOT).as_posix()] = page.read_text(encoding="utf-8")
    clones = []
    for text in texts.values():
        clones += re.findall(r"git clone -.*", text)
    assert clones
    assert set(clones) == {"git clone --depth 1 ADDRESS_OF_THIS_PAGE timbre && cd timbre"}
    assert [name for name, text in texts.items() if "REPOSITORY" in text] == []
    assert "`ADDRESS_OF_THIS_PAGE` is what your browser shows" in texts["README.md"]


PLACES = re.compile(
    r"--(?:output|audios|audios_path|features|dataset_path|runs_path|nsynth_path|midi_path|report"
    r"|page|work|pairs|inputs?|recorded_notes|recordings|soundfont|table|figure) ([\w.][\w./-]*)"
)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_what_the_commands_read_and_write_stays_out_of_git():
    places = set()
    for page in PAGES:
        for command in commands(page):
            if script_of(command):
                places.update(PLACES.findall(command))
    assert {"song.m4a", "few_runs", "my_piano", "page"} <= places
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    tracked = {name.split("/")[0] for name in names.splitlines()}
    paths = []
    for place in places:
        if place.split("/")[0] not in tracked:
            paths.append(place if "." in place else f"{place}/file")
    words = ["git", "check-ignore", "--verbose", "--non-matching", *paths]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert [line for line in result.stdout.splitlines() if line.startswith("::")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_flags_exist(page, parsers):
    known = {"--depth", "--upgrade", "--logdir", "--wildcards"}  # git, pip, tensorboard, tar
    known |= {"--prefix", "--no", "--runs"}  # npm; pip's --no-deps; tests/fuzz
    for parser in parsers.values():
        known |= flags_of(parser)
    named = set(re.findall(r"(?<![\w-])--[a-z]\w+", page.read_text(encoding="utf-8")))
    assert named <= known


def test_the_reference_is_up_to_date():
    there = reference.PAGE.read_text(encoding="utf-8")
    assert there == reference.write_page(), "run python docs/reference.py"


def test_every_flag_is_in_the_reference(parsers):
    text = reference.PAGE.read_text(encoding="utf-8")
    for script, parser in parsers.items():
        section = text.partition(f"\n## {script}\n")[2].partition("\n## ")[0]
        for flag in flags_of(parser) - {"-h", "--help"}:
            assert f"`{flag}`" in section


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = without_blocks(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file), target


def test_the_index_of_docs_has_every_page():
    index = ROOT / "docs" / "README.md"
    text = index.read_text(encoding="utf-8")
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page != index]
    assert [name for name in pages if f"]({name})" not in text] == []


def anchors_of(page):
    """The names by which GitHub links a page's headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def drawn_calls(chart):
    """[(module, another one, what it takes of it or "")]: the thin arrows of a Mermaid chart."""
    calls = []
    for line in chart.splitlines():
        # a -->|word| b --> c: nodes, and between them words
        parts = re.split(r"\s+-->(?:\|(.*?)\|)?\s+", line.strip())
        nodes, words = parts[::2], parts[1::2]
        for caller, word, called in zip(nodes, words, nodes[1:]):
            calls.append((caller, called, word or ""))
    return calls


def names_taken(file, module):
    """What a file takes of a module, which it imports anywhere; None if it does not import it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    room, _, name = module.rpartition(".")
    late = f"cli.load_later('{module}')"
    aliases = set()
    taken = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {each.asname or each.name for each in node.names if each.name == module}
        elif isinstance(node, ast.ImportFrom) and node.module == module:
            taken |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == room:
            aliases |= {each.asname or each.name for each in node.names if each.name == name}
        elif isinstance(node, ast.Assign) and ast.unparse(node.value) == late:
            aliases.add(ast.unparse(node.targets[0]))
    if not aliases and not taken:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
            taken.add(node.attr)
    return taken


def names_defined(path):
    """Names of a module's functions, classes, and of all that it assigns to."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_the_names_in_contributing_are_in_the_code():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = {}
    for module, path in find_modules().items():
        modules[module.rpartition(".")[2]] = path
    named = re.findall(r"`(\w+)\.(\w+)`", text)
    named = [(ROOT / modules[stem], name) for stem, name in named if stem in modules]
    for name, path in re.findall(r"`(\w+)`\s+(?:of|in)\s+`([\w/]+\.py)`", text):
        named.append((ROOT / path, name))
    missing = []
    for path, name in named:
        if name != "py" and name not in names_defined(path):
            missing.append(f"{path.name}: {name}")
    assert len(named) > 12
    assert missing == []


def test_the_picture_of_calls_is_true():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (chart,) = re.findall(r"^```mermaid\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert all((ROOT / name).is_file() for name in re.findall(r"[\w/]+\.py\b", chart))
    calls = drawn_calls(chart)
    assert len(calls) == chart.count("-->") > 0
    for caller, called, word in calls:
        taken = names_taken(ROOT / caller, called.removesuffix(".py").replace("/", "."))
        assert taken is not None, f"{caller} does not import {called}"
        assert word in {"", *taken}, f"{caller} takes no {word} of {called}"


def test_a_wrong_picture_would_be_told():
    calls = drawn_calls("  a.py -->|f| b.py --> c.py\n  x ==> step1\n")
    assert calls == [("a.py", "b.py", "f"), ("b.py", "c.py", "")]
    assert names_taken(ROOT / "data.py", "models") is None
    assert "Pix2Pix" in names_taken(ROOT / "train.py", "models")
    assert "losses" not in names_taken(ROOT / "train.py", "models")
