import csv
import json
import re
import shutil
import subprocess
import threading

import matplotlib.image
import numpy as np
import pytest

import data
import report
from audio import read_audio

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
HOSTILE = '<img src=x onerror="document.title=1"> $a_{ & "quoted" \u266b.wav'
CHECK = """<script>
const problems = [];
const tell = event => problems.push(event.message || event.target.outerHTML + event.target.error?.message);
window.addEventListener("error", tell, true);
window.addEventListener("load", async () => {
  const played = [];
  for (const audio of document.querySelectorAll("audio")) {
    try {
      await audio.play();
      await new Promise(resolve => audio.addEventListener("timeupdate", () => audio.currentTime > 0 && resolve()));
      played.push(audio.duration);
    } catch (error) { problems.push(audio.src + ": " + error); }
  }
  const images = [...document.images];
  for (const image of images) { image.loading = "eager"; await image.decode().catch(error => problems.push(String(error))); }
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "2" }));
  await new Promise(resolve => setTimeout(resolve, 200));
  const playing = [...document.querySelectorAll("audio")].map(audio => !audio.paused);
  const widths = images.map(image => image.naturalWidth);
  const headings = [...document.querySelectorAll("h2")].map(heading => heading.textContent);
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  console.log("RESULT" + JSON.stringify({ played, widths, playing, headings, wide, problems, title: document.title }) + "END");
});
</script></body>"""


def picture(frames=40):
    return np.linspace(0, 1, 256 * frames).reshape(256, frames)


def make_page(folder, names=("plain",), reference="target"):
    sounds = {"input": 0.3, "output, phase: input": 2.0, "target": 0.5}
    time = np.arange(22050) / data.SAMPLE_RATE
    sounds = {
        label: (level * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
        for label, level in sounds.items()
    }
    table = ["", "MAE <b>"], [["model, input", "1.0 ± 0.1"]]
    sections = [
        report.write_section(folder, k, name, sounds, table, reference)
        for k, name in enumerate(names, 1)
    ]
    report.write_page(folder, "a → b", ["A note & more."], table, names, sections)
    return folder / "index.html"


def test_spectrogram_figure_takes_any_names_and_lengths(tmp_path):
    path = tmp_path / "a.png"
    report.spectrogram_figure(
        {HOSTILE: picture(), "one frame": picture(1)}, path, title="$\\broken{"
    )
    image = matplotlib.image.imread(path)
    assert image.shape[1] > image.shape[0] > 300
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_silence_and_full_scale_are_the_ends_of_one_scale(tmp_path):
    report.spectrogram_figure(
        {"silent": np.zeros((256, 40)), "full": np.ones((256, 40))}, tmp_path / "a.png"
    )
    image = matplotlib.image.imread(tmp_path / "a.png")
    height, width = image.shape[:2]
    assert image[height // 2, width // 4, :3].max() < 0.1
    assert image[height // 2, width * 5 // 8, :3].min() > 0.7


@pytest.mark.parametrize(
    "columns",
    [
        ["epoch", "seconds", "mae_db", "val_mae_db"],
        ["epoch", "mae_db", "val_mae_db", "gan_loss", "disc_loss", "val_gan_loss", "val_disc_loss"],
        ["epoch", "seconds"],
    ],
)
@pytest.mark.parametrize("epochs", [0, 1, 40])
def test_history_figure_draws_the_columns_there_are(tmp_path, columns, epochs):
    with open(tmp_path / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            [epoch + 1, *("" if epoch == 1 else 0.5 for _ in columns[1:])]
            for epoch in range(epochs)
        )
    report.history_figure(
        tmp_path / "history.csv", tmp_path / "a.png", {"identity": 7.0, "median": 4.0}
    )
    panels = (
        max(1, sum(name in columns for name in ("mae_db", "gan_loss", "disc_loss")))
        if epochs
        else 1
    )
    assert matplotlib.image.imread(tmp_path / "a.png").shape[1] == pytest.approx(
        panels * 4.2 * 150, abs=2
    )


def test_section_writes_sounds_of_one_gain_and_pictures(tmp_path):
    make_page(tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f"piece01_{k}.{kind}" for k in (1, 2, 3) for kind in ("png", "flac")} | {
        "piece01_difference.png",
        "index.html",
    }
    peaks = [np.abs(read_audio(tmp_path / f"piece01_{k}.flac")).max() for k in (1, 2, 3)]
    assert peaks == pytest.approx([0.15, 1, 0.25], abs=1e-3)


def test_section_without_target_has_no_difference(tmp_path):
    make_page(tmp_path, reference=None)
    assert not list(tmp_path.glob("*difference*"))


def test_page_needs_no_network_and_escapes_texts(tmp_path):
    html = make_page(tmp_path, [HOSTILE]).read_text(encoding="utf-8")
    assert not re.search(r"(https?:)?//\w|@import|url\(", html)
    assert "<img src=x" not in html and "MAE <b>" not in html
    assert "&lt;img src=x" in html and "MAE &lt;b&gt;" in html and "A note &amp; more." in html
    for source in re.findall(r'src="([^"]+)"', html):
        assert (tmp_path / source).is_file()


def open_in_chromium(page, width, home):
    """What the check script saw on ``page``, and the console's lines."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-extensions",
        "--mute-audio",
        "--autoplay-policy=no-user-gesture-required",
        "--enable-logging=stderr",
        "--remote-debugging-port=0",
        f"--window-size={width},900",
        f"--user-data-dir={home}",
        page.as_uri(),
    ]
    browser = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace"
    )
    timer = threading.Timer(60, browser.kill)
    timer.start()
    console, result = [], None
    try:
        for line in browser.stderr:
            if "CONSOLE" in line:
                console.append(line)
                if found := re.search("RESULT(.*)END", line):
                    result = json.loads(found[1])
                    break
    finally:
        timer.cancel()
        browser.kill()
        browser.communicate()
    return result, console


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_works_in_chromium(tmp_path, width):
    page = make_page(tmp_path / "page", ["plain", HOSTILE])
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", CHECK), encoding="utf-8")
    seen, console = open_in_chromium(page, width, tmp_path / "home")
    assert seen is not None, console
    assert seen["problems"] == [] and len(console) == 1
    assert seen["played"] == pytest.approx([0.5] * 6, abs=0.01)
    assert len(seen["widths"]) == 8 and min(seen["widths"]) > 300
    assert sum(seen["playing"]) == 1 and seen["playing"][4], (
        "key 2 plays the second sound of the last piece, and only it"
    )
    assert seen["headings"] == ["plain", HOSTILE]
    assert seen["title"] == "a → b" and not seen["wide"]
