"""Take the screenshots of the listening page for the docs: listening_page.png, phase_page.png.

    python evaluate.py --model runs/notebook/keyboard_acoustic_2_guitar_acoustic \\
        --audios_path runs/notebook/audios --hops 2 --phase_iterations 8 \\
        --phase griffinlim_anchored input random flat --report page --report_seconds 6
    python docs/pages.py --listening page --phases page

docs/timbre_transfer.ipynb trains that run. The first picture is the top of the page, up to the end
of its first piece. The second is what is folded below that piece. Chromium takes them, in a window
so narrow that the cards stand below each other.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import cli  # isort: skip  # first: explains a missing package in one line
import numpy as np
import PIL.Image
from figures import write_png

from common.cli import UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH = 520  # CSS pixels; README and docs show the pictures 390 wide
HEIGHT = 4000  # CSS pixels: more than needed; the empty part is cut off
SCALE = 1.5  # pixels of the picture to a CSS pixel
MARGIN = 16  # pixels kept below
PATIENCE = 120  # s that the browser may take
COLOURS = 96  # two colour maps and a few greys: a third smaller than with 256
LISTENING = "section:not(#piece1), footer { display: none }"
FOLDED = (
    "header, footer, section:not(#piece1), #piece1 > :not(details), #piece1 > details + details"
    " { display: none } section { border: 0; padding: 0 }"
)
UNFOLD = "<script>document.querySelector('#piece1 > details').open = true</script>"


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--listening", type=Path, required=True, help="folder of a page, for listening_page.png")
    add("--phases", type=Path, required=True, help="folder of a page, for phase_page.png")
    return parser


def find_browser():
    """Find the path of Chromium. Raises UserError if it is not installed."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    raise UserError("Chromium: not found; install it, e.g. 'apt install chromium'")


def photograph(browser, folder, style, script=""):
    """Take a screenshot of the page in a folder, with additional CSS and HTML: PIL.Image, RGB.

    Raises:
        UserError: there is no page, or the browser gives no picture.
    """
    page = folder / "index.html"
    if not page.is_file():
        raise UserError(f"{page}: not found; give the folder of evaluate.py --report")
    text = page.read_text(encoding="utf-8")
    text = text.replace("</body>", f"<style>{style}</style>{script}</body>")
    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.NamedTemporaryFile(suffix=".html", dir=folder) as changed,  # beside its pictures
    ):
        changed.write(text.encode())
        changed.flush()
        shot = Path(home) / "shot.png"
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={home}",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--force-device-scale-factor={SCALE}",
            f"--screenshot={shot}",
            Path(changed.name).resolve().as_uri(),
        ]
        with contextlib.suppress(subprocess.TimeoutExpired):  # then there is no picture
            subprocess.run(command, check=False, capture_output=True, timeout=PATIENCE)
        if not shot.is_file():
            raise UserError(f"{page}: {browser} takes no picture of it; look at it there")
        return cut_empty_end(PIL.Image.open(shot).convert("RGB"))


def cut_empty_end(picture):
    """Cut the last rows of a single colour off a picture, except for a margin."""
    pixels = np.asarray(picture)  # (rows, columns, 3)
    same = (pixels == pixels[-1, 0]).all(axis=(1, 2))
    last = np.flatnonzero(~same).max(initial=0)
    return picture.crop((0, 0, picture.width, min(picture.height, last + 1 + MARGIN)))


@cli.command
def main(argv=None):
    """Parse flags, take both pictures."""
    args = build_parser().parse_args(argv)
    browser = find_browser()
    listening = photograph(browser, args.listening, LISTENING)
    write_png(listening, "listening_page.png", COLOURS)
    phases = photograph(browser, args.phases, FOLDED, UNFOLD)
    write_png(phases, "phase_page.png", COLOURS)


if __name__ == "__main__":
    raise SystemExit(main())
