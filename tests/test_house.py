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


BESIDE = ("benchmarks", "demo", "docs", "pretrained", "tests")  # folders of scripts, no rooms
IMPORTERS = ("load_later", "import_module", "__import__")


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
    """Names of those ``modules`` that a file imports: anywhere in it, or by a function."""
    return list_imports(path.read_text(encoding="utf-8")) & set(modules)


def list_imports(code):
    """Dotted names that a module's code may import, those in its functions among them.

    Of ``from a import b`` both a and a.b. Raises ValueError for a relative import.
    """
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError("a relative import: write it from the root")
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(IMPORTERS):
            names.update(each.value for each in node.args if isinstance(each, ast.Constant))
    return names


@pytest.fixture(scope="module")
def imports():
    """{module: set of the modules that it imports}."""
    modules = find_modules()
    return {name: find_imports(path, modules) for name, path in modules.items()}


def test_the_root_holds_the_scripts_and_the_method():
    assert {path.stem for path in ROOT.glob("*.py")} == SCRIPTS | METHOD


def test_every_package_is_a_room():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(ROOMS)
    inner = [path for room in ROOMS for path in (ROOT / room).glob("*/**/*.py")]
    assert inner == []  # `find_modules` would pass over these


def test_imports_are_found_wherever_they_stand():
    code = """
import a, b.c
def f():
    from d import e
    g = cli.load_later("h")
    load_later("i"), importlib.import_module("j"), __import__("k"), import_module(unknown)
"""
    assert list_imports(code) == {"a", "b.c", "d", "d.e", "h", "i", "j", "k"}
    with pytest.raises(ValueError, match="relative"):
        list_imports("from . import x")


def check_no_circle(imports):
    left = dict(imports)
    while left:
        free = [name for name, below in left.items() if not below & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_no_import_runs_in_a_circle(imports):
    check_no_circle(imports)


@pytest.mark.parametrize("folder", BESIDE)
def test_no_import_runs_in_a_circle_beside_the_rooms(folder):
    """Nor does a room import what stands beside them."""
    modules = {path.stem: path for path in (ROOT / folder).rglob("*.py")}
    others = {name: path for name, path in modules.items() if name not in SCRIPTS | METHOD}
    check_no_circle({name: find_imports(path, others) for name, path in others.items()})
    wanted = {f"{folder}.{name}" for name in modules} | set(others)
    for name, path in find_modules().items():
        assert not list_imports(path.read_text(encoding="utf-8")) & wanted, name


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
