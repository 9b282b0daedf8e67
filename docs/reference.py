"""Write docs/reference.md: every flag of every script, from the scripts' own parsers.

    python docs/reference.py

Run it after a flag was added or changed; tests/test_docs.py checks that the page is up to date.
"""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
from common.files import complete

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference.md"
STEPS = (  # in the order in which they are used; other scripts follow by name
    "render_notes.py",
    "synthesize_audios.py",
    "compute_features.py",
    "train.py",
    "train_generator.py",
    "predict.py",
    "app.py",
    "evaluate.py",
)
FOLDERS = (".", "conversion", "report", "demo", "pretrained", "benchmarks", "docs")
BEGINNING = """# Every flag of every script

`python docs/reference.py` makes this page from `--help`. A flag without a default is off or
unset. A flag with `…` takes several values.
"""


class _Caught(Exception):
    """Carries the parser out of a script's main."""


def find_scripts():
    """Paths of all scripts, relative to the project: the steps first."""
    scripts = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            if "\n@cli.command\n" in path.read_text(encoding="utf-8"):
                scripts.append(path.relative_to(ROOT).as_posix())
    others = [script for script in scripts if script not in STEPS]
    return [*STEPS, *others]


def find_parser(script):
    """The parser that a script's main makes, caught when it begins to parse."""
    parse_args = cli.Parser.parse_args

    def catch(parser, *_):
        raise _Caught(parser)

    cli.Parser.parse_args = catch
    try:
        _load(script).main([])
    except _Caught as caught:
        return caught.args[0]
    finally:
        cli.Parser.parse_args = parse_args
    raise RuntimeError(f"{script}: main made no cli.Parser")


def _load(script):
    """Import a script under a name of its own: benchmarks/predict.py is not predict.py."""
    name = script.removesuffix(".py").replace("/", "_")
    before = list(sys.path)
    sys.path.insert(0, str((ROOT / script).parent))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / script)
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(name, module)  # `cli.command` looks its file up there
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def write_section(script, parser):
    """A script's part of the page, Markdown."""
    title = parser.description.strip().splitlines()[0]
    rows = []
    for action in parser._actions:
        if action.dest != "help":
            rows.append(f"| {_names(action)} | {_meaning(action)} | {_default(action)} |")
    head = ["| flag | meaning | default |", "|---|---|---|"]
    return "\n".join([f"## {script}", "", title, "", *head, *rows, ""])


def _names(action):
    names = action.option_strings or [action.dest]
    several = " …" if action.nargs in ("+", "*") else ""
    return ", ".join(f"`{name}`" for name in names) + several


def _meaning(action):
    text = (action.help or "").replace("%%", "%")
    if action.choices:
        choices = ", ".join(f"`{choice}`" for choice in action.choices)
        text = f"{text}; one of {choices}"
    return text.replace("|", "\\|")


def _default(action):
    default = action.default
    if action.required:
        return "required"
    if default is None or default is False or default == []:
        return ""
    if isinstance(default, Path) and default.is_relative_to(ROOT):
        default = default.relative_to(ROOT).as_posix()
    if isinstance(default, (list, tuple)):
        default = " ".join(str(value) for value in default)
    return f"`{default}`"


def write_page():
    """The whole page, Markdown."""
    sections = [BEGINNING]
    for script in find_scripts():
        parser = find_parser(script)
        if len(parser._actions) > 1:  # more than --help
            sections.append(write_section(script, parser))
    return "\n".join(sections)


@cli.command
def main(argv=None):
    """Write the page."""
    cli.Parser(__doc__).parse_args(argv)
    with complete(PAGE) as part:
        part.write_text(write_page(), encoding="utf-8")
    print(f"-> {PAGE}")


if __name__ == "__main__":
    raise SystemExit(main())
