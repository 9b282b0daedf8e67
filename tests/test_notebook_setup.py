"""The notebook's first cells find the repository: clone, Colab, address, zip, or else a hint."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "timbre_transfer.ipynb"
PAGE = "https://github.com/someone/some.name/blob/main/docs/timbre_transfer.ipynb"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git clones")


def setup_cells():
    """Sources of the code cells before the settings: address, repository, packages."""
    sources = []
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            return sources
        if cell["cell_type"] == "code":
            sources.append("".join(cell["source"]))
    raise AssertionError("no cell of settings")


def run_setup(folder, address="", **variables):
    """Run the first cells in a folder: the finished process, which prints where it ended."""
    first, *others = setup_cells()
    assert first.startswith('ADDRESS = ""')
    program = "\n".join([f"ADDRESS = {address!r}", *others, "print(Path.cwd(), sys.path[0])"])
    left_out = ("COLAB_JUPYTER_IP", "KMP_TARGET_PORT", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**env, **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def repository(tmp_path):
    """A small repository: what the cells need of this one."""
    folder = tmp_path / "origin"
    shutil.copytree(ROOT / "common", folder / "common", ignore=shutil.ignore_patterns("*.pyc"))
    (folder / "NoteSynthesizer.py").write_text("")
    (folder / "requirements.txt").write_text("numpy>=1  # is there\n")
    return folder


@pytest.fixture
def address(repository):
    """The repository's address, as git takes it."""
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "Begin"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    return repository.as_uri()


@pytest.fixture
def empty(tmp_path):
    """A folder with nothing but the notebook."""
    folder = tmp_path / "content"
    folder.mkdir()
    shutil.copy(NOTEBOOK, folder)
    return folder


@pytest.fixture
def colab():
    """A server as Colab's: yields a function that sets its sessions and returns the variables."""
    sessions = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/sessions"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(sessions).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def open_from(path):
        sessions.append({"path": path, "name": "timbre_transfer.ipynb", "type": "notebook"})
        return {"COLAB_JUPYTER_IP": "127.0.0.1", "KMP_TARGET_PORT": str(server.server_port)}

    yield open_from
    server.shutdown()
    server.server_close()


def check_ends_in(result, folder):
    assert result.stderr == "" or result.stderr.startswith("Cloning into")
    assert result.returncode == 0
    assert result.stdout == f"{folder} {folder}\n"


def test_the_cells_are_short_and_name_no_place():
    address, repository, packages = setup_cells()
    assert address == 'ADDRESS = ""  # @param {type:"string"}'
    assert len(repository.splitlines()) <= 25
    assert len(packages.splitlines()) <= 5


def test_inside_a_clone_nothing_is_fetched(repository, colab):
    (repository / "docs").mkdir()
    result = run_setup(repository / "docs", **colab(f"fileId={quote(PAGE)}"))
    check_ends_in(result, repository)


@needs_git
@pytest.mark.parametrize(
    "path",
    [
        f"fileId={quote(PAGE, safe='/')}",
        f"fileId={quote(PAGE, safe='')}",
        f"/content/{PAGE.removeprefix('https://').replace('.com', '')}",
    ],
    ids=["half quoted", "quoted", "a path"],
)
def test_on_colab_the_page_it_was_opened_from_is_cloned(path, empty, address, colab):
    instead = {  # git takes the small repository for the one on GitHub
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{address}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/someone/some.name",
    }
    check_ends_in(run_setup(empty, **colab(path), **instead), empty / "timbre")


@needs_git
def test_an_address_is_cloned_and_a_second_time_found(empty, address):
    for _ in range(2):
        check_ends_in(run_setup(empty, f"{address}/blob/main/docs/x.ipynb"), empty / "timbre")


@pytest.mark.parametrize("top", ["name-main", ""], ids=["as GitHub makes it", "without a folder"])
def test_a_zip_is_unpacked(top, empty, repository, tmp_path):
    inside = tmp_path / "zipped"
    shutil.copytree(repository, inside / top)
    shutil.make_archive(empty / "name-main", "zip", inside)
    check_ends_in(run_setup(empty), empty / "timbre_zip" / top)


@pytest.mark.parametrize("path", ["fileId=1aBcDrive", "nobody answers", None])
def test_otherwise_one_line_says_what_to_do(path, empty, colab):
    variables = colab(path) if path else {}
    if path == "nobody answers":
        variables["KMP_TARGET_PORT"] = "1"
    result = run_setup(empty, **variables)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "into ADDRESS, or upload its zip" in result.stderr
    assert sorted(os.listdir(empty)) == ["timbre_transfer.ipynb"]
