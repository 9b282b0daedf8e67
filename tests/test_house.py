"""The structure: what lies at the root, and who imports whom."""

import ast

import pytest
from conftest import ROOT

SCRIPTS = {
    "render_notes",
    "synthesize_audios",
    "compute_features",
    "train",
    "train_generator",
    "predict",
    "evaluate",
    "app",
}
METHOD = {"data", "models", "losses", "lr_finder", "NoteSynthesizer"}
ROOMS = (
    "common",
    "sound",
    "synthesis",
    "conversion",
    "training",
    "measuring",
    "report",
    "research",
    "webapp",
)


def find_modules():
    """{dotted name: path} of the modules at the root and in the rooms."""
    paths = list(ROOT.glob("*.py"))
    for room in ROOMS:
        paths += (ROOT / room).glob("*.py")
    modules = {}
    for path in paths:
        if path.name != "__init__.py":
            modules[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    return modules


def find_imports(path, modules):
    """Names of those ``modules`` that a file imports: anywhere in it, or by `cli.load_later`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "cli.load_later":
            names.add(node.args[0].value)
    return names & set(modules)


@pytest.fixture(scope="module")
def imports():
    """{module: set of the modules that it imports}."""
    modules = find_modules()
    return {name: find_imports(path, modules) for name, path in modules.items()}


def test_the_root_holds_the_scripts_and_the_method():
    assert {path.stem for path in ROOT.glob("*.py")} == SCRIPTS | METHOD


def test_no_import_runs_in_a_circle(imports):
    left = dict(imports)
    while left:
        free = [name for name, below in left.items() if not below & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_nothing_imports_a_script(imports):
    importers = {}
    for name, below in imports.items():
        for script in below & SCRIPTS:
            importers[name] = script
    assert importers == {}


FLOORS = (  # from the ground; what stands on one floor does not import each other
    {"data"},
    {"common"},
    {"sound", "losses", "lr_finder"},
    {"models", "report", "research", "compute_features", "NoteSynthesizer"},
    {"conversion", "synthesis"},
    {"training", "measuring", "webapp", "render_notes", "synthesize_audios"},
    {"train", "train_generator", "predict", "evaluate", "app"},
)


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_no_import_runs_upwards(imports, floor):
    below = set().union(*FLOORS[:floor])
    upwards = []
    for name, others in imports.items():
        room = name.split(".")[0]
        if room not in FLOORS[floor]:
            continue
        for other in others:
            if other.split(".")[0] not in {room, *below}:
                upwards.append((name, other))
    assert upwards == []


def test_every_room_has_a_floor(imports):
    assert {name.split(".")[0] for name in imports} == set().union(*FLOORS)
