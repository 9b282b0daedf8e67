"""docs/timbre_transfer.ipynb runs from top to bottom, with a short training, and stays small."""

import base64
import io
import json
import sys

import PIL.Image
import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

sys.path.insert(0, str(ROOT / "docs"))
import run_notebook  # noqa: E402  # after what may skip this file

PATH = ROOT / "docs" / "timbre_transfer.ipynb"
SHORT = """MINUTES = 0.01
PRACTICE = 2
SECONDS = 4
MUSIC = "greensleeves"
FILTERS = 2
WORK = Path({work!r})
"""


def find_outputs(notebook, kind):
    """Outputs of a MIME type, in order."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if kind in output.get("data", {}):
                found.append(output["data"][kind])
    return found


def test_it_runs_from_top_to_bottom(tmp_path):
    notebook = nbformat.read(PATH, as_version=4)
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert settings.source.count("=") == SHORT.count("=")
    settings.source = SHORT.format(work=str(tmp_path / "work"))
    run_notebook.execute(notebook, PATH.parent)  # raises where a cell fails
    assert len(find_outputs(notebook, "image/png")) == 9
    players = find_outputs(notebook, "text/html")
    assert sum("<audio" in html for html in players) == 11
    trained = tmp_path / "work" / "keyboard_acoustic_2_guitar_acoustic"
    assert (trained / "generator.keras").is_file()


def test_what_is_committed_has_pictures_and_no_sound():
    text = PATH.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert len(find_outputs(notebook, "image/png")) == 9
    assert "<audio" not in text
    assert str(ROOT) not in text
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in codes]
    assert counts == list(range(1, len(codes) + 1))


def test_pictures_are_made_small():
    picture = PIL.Image.effect_noise((200, 100), 64).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("show(x)")
    text = base64.b64encode(buffer.getvalue()).decode()
    cell.outputs.append(nbformat.v4.new_output("display_data", {"image/png": text}))
    notebook.cells.append(cell)
    run_notebook.shrink_pictures(notebook)
    small = base64.b64decode(cell.outputs[0]["data"]["image/png"])
    assert len(small) < len(buffer.getvalue())
    assert PIL.Image.open(io.BytesIO(small)).size == (200, 100)


def test_players_are_taken_out():
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("play(x)", execution_count=1)
    player = {"text/html": "<audio src='...'>", "text/plain": "<IPython.lib.display.Audio object>"}
    picture = {"image/png": "..."}
    for shown in (player, picture):
        cell.outputs.append(nbformat.v4.new_output("display_data", shown))
    notebook.cells.append(cell)
    run_notebook.remove_players(notebook)
    left = [json.loads(json.dumps(output["data"])) for output in cell.outputs]
    assert left == [{"text/plain": run_notebook.PLAYER}, picture]


def test_minutes_are_set_and_set_back():
    notebook = nbformat.read(PATH, as_version=4)
    before = [cell.source for cell in notebook.cells]
    usual = run_notebook.set_minutes(notebook, 12.0)
    changed = [cell.source for cell in notebook.cells]
    assert sum("MINUTES = 12.0  # of training" in source for source in changed) == 1
    run_notebook.set_minutes(notebook, usual)
    assert [cell.source for cell in notebook.cells] == before


def test_printed_text_is_joined():
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("run(x)")
    for name, text in (("stdout", "a"), ("stdout", "b"), ("stderr", "c")):
        cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))
    notebook.cells += [nbformat.v4.new_markdown_cell("x"), cell]
    run_notebook.clean(notebook)
    assert [output.text for output in cell.outputs] == ["ab", "c"]
