"""README and docs do not rot: every command in them is run here on little data, every flag and link in them exists."""

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
from conftest import ORIGIN, ROOT, TARGET, melody
from music import midi_bytes, note, tone

from audio import read_audio, write_audio
from NoteSynthesizer import DEFAULT_INSTRUMENTS, PITCHES, VELOCITIES, note_name

README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "demo" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "demo", "docs", "benchmarks", "pretrained")
    for path in (ROOT / folder).glob("*.py")
    if "cli.Parser(" in path.read_text(encoding="utf-8")
)
VARIANT = "benchmarks/variant.py"  # runs another script
TRAINING = "--filters 2 --epochs 1 --decay_epochs 0 --batch_size 2 --epoch_tiles 4 --findlr_steps 12 --preview_every 0 --fresh"
SMALL = {  # flags that make a command small; of a flag given twice the last counts
    "synthesize_audios.py": "--workers 1 --fresh",
    "compute_features.py": "--workers 1",
    "train.py": TRAINING,
    "train_generator.py": TRAINING,
    "evaluate.py": "--phase input --limit 1",
    "demo/practice.py": "--pieces 2 --seconds 4",
    "benchmarks/floor.py": "--pieces 1 --seconds 2 --renderings 2 --jitter 1 --instruments string_acoustic",
    "benchmarks/data_preparation.py": "--pieces 1 --hours 0",
    "benchmarks/phase.py": "--limit 1 --seconds 1 --iterations 0 2",
    "benchmarks/feeding.py": "--filters 2 --batch_size 2 --tiles 2 --rounds 0 --seconds 0.1",
}
NOT_RUN = {  # how a command begins: why it is not run. Flags of our own scripts are still checked
    r"(python3? -m venv|source|\.) ": "makes or enters an environment: that of this test is there already",
    r"pip install": "downloads",
    r"git clone": "downloads",
    r"make ": "installs and trains for minutes",
    r"(sudo )?(apt|brew) ": "installs system packages",
    r"dask ": "starts servers; test_dask.py starts them",
    r"ruff |pytest |python -m (ruff|pytest)": "runs this test itself",
    r".* --dask ": "needs these servers; see above",
    r"(KERAS_BACKEND=\w+ )?python benchmarks/(train_step|predict|kernels)\.py": "minutes of measurement even when small",
    r"python demo/make_notes\.py": "would play FluidR3_GM.sf2, 148 MB, for minutes; test_render_notes.py plays a small font",
    r"python (pretrained/export|docs/figures)\.py": "needs a finished training; see test_export.py, `make figures`",
}


def without_blocks(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(page):
    """The commands of a page, one a string: lines of its bash blocks, joined where they continue, and `python ...` inline."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).replace(
        "\\\n", " "
    )
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in blocks.splitlines()]
    inline = re.findall(r"`((?:\w+=\w+ )?python [\w/]+\.py [^`]*)`", without_blocks(text))
    parts = [
        part.strip() for line in [*lines, *inline] for part in " ".join(line.split()).split("&&")
    ]
    return list(dict.fromkeys(filter(None, parts)))


def reason_not_to_run(command):
    named = re.search(r"--(?:model|weights) (\w+_2_\w+)", command)
    if named and not (ROOT / "pretrained" / named[1]).is_dir():
        return f"pretrained/{named[1]} is not in this clone"
    return next((why for start, why in NOT_RUN.items() if re.match(start, command)), None)


def run_script(script, *flags):
    """Run one of our scripts in this process, as if it were the main one: (exit code, output)."""
    output, before = io.StringIO(), (sys.argv, sys.path)
    sys.argv, sys.path = [script, *flags], [str((ROOT / script).parent), *sys.path]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as end:
        return end.code or 0, output.getvalue()
    finally:
        sys.argv, sys.path = before


def run(command):
    """Run one command of a page in the current folder. Fails with its output."""
    words = shlex.split(command)
    if words[1:2] == [VARIANT]:  # in a process of its own: it changes data.py
        command = [sys.executable, ROOT / VARIANT, *words[2:], *SMALL[words[3]].split()]
        result = subprocess.run(command, capture_output=True, text=True)
        code, output = result.returncode, result.stderr
    elif words[0] == "python":
        code, output = run_script(*words[1:], *SMALL.get(words[1], "").split())
    else:
        result = subprocess.run(command, shell=True, capture_output=True, text=True)
        code, output = result.returncode, result.stderr
    assert code == 0, f"{command}\n{output[-2000:]}"


@pytest.fixture(scope="module")
def known_flags():
    return {
        script: set(re.findall(r"--\w+", run_script(script, "--help")[1])) for script in SCRIPTS
    }


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as a reader has it, with little data under the names that the pages use, and README's commands done in it."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("demo", "benchmarks", "pretrained", "report.html"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "FluidR3_GM.sf2").symlink_to(Path(pretty_midi.__file__).parent / "TimGM6mb.sf2")
    notes = folder / "notes" / "audio"  # complete, so that render_notes.py has nothing to do
    for k, instrument in enumerate((*DEFAULT_INSTRUMENTS, "organ_acoustic", "flute_acoustic")):
        first = notes / note_name(instrument, PITCHES[0], VELOCITIES[0])
        write_audio(first, tone(60 + k, 0.5), 16000)
        for pitch in PITCHES:
            for velocity in VELOCITIES:
                if not (path := notes / note_name(instrument, pitch, velocity)).exists():
                    os.link(first, path)
    tune = [event for k in range(24) for event in note(480 * k, 480 * k + 400, 50 + k)]
    for name in (
        "midi/bach/one.mid",
        "midi/two.MID",
        "midi/three.midi",
        *(f"maestro-v3.0.0/2018/{n}.midi" for n in "abc"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(midi_bytes(tune))
    rows = [
        f"2018/{name}.midi,{side}" for name, side in zip("abc", ("train", "validation", "test"))
    ]
    (folder / "maestro-v3.0.0" / "maestro-v3.0.0.csv").write_text(
        "\n".join(["midi_filename,split", *rows])
    )
    for name in ("piano.wav", "recording.wav", "song.mp3", "recordings/one.wav"):
        write_audio(folder / name, melody(0, (1, 0.5), 4))
    before = Path.cwd()
    os.chdir(folder)
    try:
        run_all(README)
        yield folder
    finally:
        os.chdir(before)


def run_all(page):
    for command in commands(page):
        if not reason_not_to_run(command):
            if command.startswith("python render_notes.py"):
                pytest.importorskip("fluidsynth", exc_type=ImportError)
            run(command)


def test_readme_commands_ran(workplace):
    assert sum(not reason_not_to_run(command) for command in commands(README)) >= 7
    for made in (
        f"audios/{ORIGIN}/bach/one.wav",
        f"features/{TARGET}/two.npy",
        "guitar.wav",
        "page/index.html",
        f"runs/{ORIGIN}_2_{TARGET}/generator.keras",
        f"runs/{ORIGIN}_2_{TARGET}/lr_finder/lr_finder.png",
    ):
        assert (workplace / made).stat().st_size > 0
    assert np.abs(read_audio(workplace / "guitar.wav")).max() > 0


def test_every_figure_is_drawn(workplace, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import figures

    monkeypatch.setattr(figures, "DOCS", tmp_path)
    for seed, instrument in enumerate((ORIGIN, TARGET)):
        write_audio(
            workplace / "audios_of_demo" / instrument / f"{figures.PIECE}.wav",
            melody(seed, (1, 0.5), 4),
        )
    run = f"runs/{ORIGIN}_2_{TARGET}"
    assert figures.main(["--run", run, "--audios_path", "audios_of_demo"]) == 0
    drawn = {path.name for path in tmp_path.iterdir()}
    in_docs = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".svg", ".png")}
    assert drawn == in_docs - {
        "listening_page.png",
        "phase_page.png",
    }  # those are pictures of a browser
    assert all((ROOT / "docs" / name).stat().st_size < 300_000 for name in in_docs)


def test_figures_without_a_model_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import figures

    assert figures.main(["--run", str(tmp_path), "--audios_path", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("no trained model there; run 'make demo' first\n")


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_run(page, workplace):
    run_all(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_flags_exist(page, known_flags):
    for command in commands(page):
        if script := re.match(rf"(?:\w+=\w+ )?python (?:{VARIANT} \w+ )?([\w/]+\.py)", command):
            assert set(re.findall(r"--\w+", command)) <= known_flags[script[1]], command
    foreign = {"--upgrade"}  # pip's
    named = set(re.findall(r"(?<![\w-])--[a-z]\w+", page.read_text(encoding="utf-8")))
    assert named <= set().union(*known_flags.values()) | foreign


def test_every_flag_is_explained(known_flags):
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    user_flags = set().union(*(known_flags[script] for script in SCRIPTS if "/" not in script)) - {
        "--help"
    }
    aliases = {"--features_path"}
    assert not {flag for flag in user_flags - aliases if not re.search(rf"{flag}\b", text)}


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
            headings = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings
            }, target
