"""The list of runs, a run's page and evaluate.py's page in Chromium, on a phone and a screen."""

import pytest
from browser import CHROMIUM, SCREENS, open_page
from sounds import identity, tone
from test_run_page import add_preview, make_run

from measuring import tables
from measuring.page import GroupPage
from measuring.pieces import Candidate, Group, Piece
from measuring.rows import (
    IDENTITY,
    SHOWN_COLUMNS,
    TARGET,
    Settings,
    Systems,
    name_row,
    name_system,
)
from report import run_page

# What does not fit: the page, boxes with tables, texts beside their cells. Then two sounds play
CHECK = """<script>
window.addEventListener("load", async () => {
  const until = async found => {
    for (let tries = 0; tries < 5000 && !found(); tries++)
      await new Promise(resolve => setTimeout(resolve, 100));
  };
  const all = where => [...document.querySelectorAll(where)];
  for (const fold of all("details")) fold.open = true;
  const boxes = all(".wide");
  const inside = boxes.map(box => box.getBoundingClientRect().right <= innerWidth);
  const scrolls = boxes.map(box => {
    box.scrollLeft = 1e6;
    const moved = box.scrollLeft > 0;
    box.scrollLeft = 0;
    return moved;
  });
  const over = all("th, td").filter(cell => {
    const text = document.createRange();
    text.selectNodeContents(cell);
    const [inner, outer] = [text.getBoundingClientRect(), cell.getBoundingClientRect()];
    return inner.width && (inner.left < outer.left - 1 || inner.right > outer.right + 1);
  });
  const cards = all("[data-sound]");
  const playing = () => cards.map(card => card.classList.contains("playing")).indexOf(true);
  const played = [];
  if (cards.length) {
    cards[0].querySelector(".play").click();
    await until(() => findSound(cards[0].dataset.sound).currentTime > 0);
    played.push(playing());
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "2", bubbles: true }));
    await until(() => playing() === 1 && findSound(cards[1].dataset.sound).currentTime > 0);
    played.push(playing());
  }
  const root = document.documentElement;
  const result = { inside, scrolls, played, over: over.map(cell => cell.textContent),
    spare: root.clientWidth - root.scrollWidth, width: innerWidth,
    ground: getComputedStyle(document.body).backgroundColor,
    columns: all("table.runs thead th").filter(cell => cell.offsetWidth).length };
  console.log("RESULT " + JSON.stringify(result) + " END");
});
</script></body>"""
LONG = "many_instruments_2_guitar_acoustic"
PHASES = ["griffinlim_anchored", "input"]


def look(page, width, is_dark, home):
    """What `CHECK` finds on a page, of which nothing may be wider than the window."""
    text = page.read_text(encoding="utf-8").replace("</body>", CHECK)
    page.write_text(text, encoding="utf-8")
    seen, console = open_page(page.as_uri(), width, home, is_dark)
    assert seen is not None, console
    assert seen["width"] == width
    assert seen["spare"] == 0
    assert all(seen["inside"])
    assert seen["over"] == []
    red = int(seen["ground"].partition("(")[2].partition(",")[0])
    assert (red < 128) == is_dark
    return seen


def make_runs(folder):
    """Two runs of long names, one with previews and a long history; the folder's own page."""
    origins = [f"keyboard_acoustic_{k:03d}" for k in range(8)]
    run = make_run(folder / LONG, [7.5, 4.0], origin=origins, gen_lr=5e-4, disc_lr=5e-5, epochs=9)
    columns = ["epoch", "seconds", "val_mae_db", *(f"a_loss_of_the_network_{k}" for k in range(12))]
    row = ["60", "4.0", *["0.1234567"] * 12]
    rows = [",".join(columns), *(",".join([str(epoch), *row]) for epoch in (1, 2))]
    (run / "history.csv").write_text("\n".join(rows))
    for epoch in (1, 2):
        add_preview(run, epoch)
    (run / "plots").mkdir()
    (run / "previews/input.png").rename(run / "plots/history.png")
    make_run(folder / "group/second", [3.0], lr=1e-3, epochs=1)
    run_page.write_overview(folder)
    return folder / "index.html"


def make_evaluation(folder):
    """evaluate.py's page of two models and a piece, with every measure."""
    labels = [f"{name}_{LONG}" for name in ("long", "short")]
    candidates = [Candidate(label, folder / label, None) for label in labels]
    names = [name_system(label) for label in labels]
    rows = [name_row(name, phase) for name in names for phase in PHASES]
    sounds = {row: tone(seconds=2) for row in (IDENTITY, *rows, TARGET)}
    values = {column.key: 1.2345 for column in SHOWN_COLUMNS}
    measured = [("a/piece", row, values) for row in sounds]
    group = Group("", "", "One piece.", "keyboard_acoustic", "guitar_acoustic", [], None, None)
    systems = Systems(dict.fromkeys(names, identity), None, Settings(PHASES))
    page = GroupPage(folder, group, candidates, systems, 2)
    page.add(Piece("a/piece", None, None), sounds, measured)
    page.write(tables.summarise(measured, SHOWN_COLUMNS))
    return folder / "index.html"


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize(("width", "is_dark"), SCREENS)
def test_the_runs_fit_a_phone_and_a_screen(tmp_path, width, is_dark):
    runs = make_runs(tmp_path / "runs")
    seen = look(runs, width, is_dark, tmp_path / "home")
    assert seen["columns"] == (4 if width == 390 else len(run_page.RUN_COLUMNS))
    if width == 390:
        assert seen["scrolls"] == [False]
    seen = look(tmp_path / "runs" / LONG / "index.html", width, is_dark, tmp_path / "home")
    assert seen["played"] == [0, 1]
    assert seen["scrolls"][0], "the table of the epochs scrolls within its box"


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize(("width", "is_dark"), SCREENS)
def test_an_evaluation_fits_a_phone_and_a_screen(tmp_path, width, is_dark):
    seen = look(make_evaluation(tmp_path / "page"), width, is_dark, tmp_path / "home")
    assert seen["played"] == [0, 1]
    assert all(seen["scrolls"]) or width > 390, "tables scroll within their boxes"
