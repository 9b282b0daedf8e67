"""Run docs/timbre_transfer.ipynb and keep its outputs in it, without the sounds.

    python docs/run_notebook.py

GitHub shows a notebook's pictures, but not its players, and each player holds half a megabyte.
"""

import base64
import io
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
from common.cli import UserError
from common.files import complete

DOCS = Path(__file__).resolve().parent
NOTEBOOK = DOCS / "timbre_transfer.ipynb"
WORK = DOCS.parent / "runs" / "notebook"  # as in the notebook
PLAYER = "(a player: run the notebook to hear it)"
SECONDS = 3600  # limit for a cell; training takes two minutes
COLOURS = 128  # of pictures: they look the same in a quarter of the size


def execute(notebook, folder):
    """Run all cells of a notebook and store their outputs in it.

    Args:
        notebook: as read by nbformat; changed in place.
        folder: working folder of the cells.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbclient

    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources=place).execute()


def set_minutes(notebook, minutes):
    """Set MINUTES in the notebook's cell of settings; returns its earlier text."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    found = re.search(r"^MINUTES = (\S+)", cell.source, re.MULTILINE)
    cell.source = cell.source.replace(found[0], f"MINUTES = {minutes}")
    return found[1]


def remove_players(notebook):
    """Replace audio players in a notebook's outputs by one line of text."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "<audio" in output.get("data", {}).get("text/html", ""):
                output["data"] = {"text/plain": PLAYER}


def shrink_pictures(notebook):
    """Reduce the pictures in a notebook's outputs to `COLOURS` colours."""
    import PIL.Image

    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = output.get("data", {}).get("image/png")
            if not text:
                continue
            picture = PIL.Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
            few = picture.quantize(COLOURS, PIL.Image.Quantize.MAXCOVERAGE, dither=0)
            buffer = io.BytesIO()
            few.save(buffer, "PNG", optimize=True)
            output["data"]["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def clean(notebook):
    """Remove execution times, widgets and versions; join printed text that came in parts."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        joined = []
        for output in cell.get("outputs", ()):
            if joined and output.get("name") and output.get("name") == joined[-1].get("name"):
                joined[-1]["text"] += output["text"]
            else:
                joined.append(output)
        if cell.cell_type == "code":
            cell.outputs = joined
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}


@cli.command
def main(argv=None):
    """Run the notebook and write it with its outputs."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--minutes",
        type=cli.number(float, 0, low_open=True),
        help="training time for the outputs, on a busy machine; default: the notebook's",
    )
    args = parser.parse_args(argv)
    try:
        import ipykernel  # noqa: F401
        import nbclient  # noqa: F401
        import nbformat
    except ImportError as error:
        raise UserError(f"{error.name}: not installed; pip install nbclient ipykernel") from None
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shutil.rmtree(WORK, ignore_errors=True)  # or the training would go on
    if args.minutes:
        usual = set_minutes(notebook, args.minutes)
    execute(notebook, DOCS)
    if args.minutes:
        set_minutes(notebook, usual)
    remove_players(notebook)
    shrink_pictures(notebook)
    clean(notebook)
    with complete(NOTEBOOK) as part:
        nbformat.write(notebook, part)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    raise SystemExit(main())
