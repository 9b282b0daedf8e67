import csv
import itertools
import re

import matplotlib.image
import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, SCREENS, open_page
from matplotlib.figure import Figure
from sounds import tone

import data
from report import listening, pictures
from sound.recordings import read_audio

HOSTILE = '<img src=x onerror="document.title=1"> $a_{ & "quoted" \u266b.wav'
CHECK = """<script>
const problems = [];
const tell = event => problems.push(
  event.message || event.target.outerHTML + event.target.error?.message);
window.addEventListener("error", tell, true);
const wait = ms => new Promise(resolve => setTimeout(resolve, ms));
const press = key =>
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const cards = () => [...document.querySelectorAll("[data-sound]")];
const playing = () => cards().map(card => card.classList.contains("playing"));
const until = async found => {
  for (let tries = 0; tries < 5000 && !found(); tries++) await wait(100);
};
const soundOf = card => findSound(card.dataset.sound);
window.addEventListener("load", async () => {
  const folded = [...document.querySelectorAll("details")].map(fold => fold.open);
  const first = document.querySelector(".play").getBoundingClientRect().bottom;
  const played = [];
  for (const card of cards()) {
    const sound = soundOf(card);
    sound.loop = true;  // on a busy machine it would have ended before it is looked at
    card.querySelector(".play").click();
    await until(() => (sound.readyState > 2 && sound.currentTime > 0) || sound.error);
    if (sound.error) problems.push(sound.src + ": " + sound.error.message);
    played.push(sound.duration);
  }
  const images = [...document.images];
  for (const image of images) {
    image.loading = "eager";
    await image.decode().catch(error => problems.push(String(error)));
  }
  press("2");
  await until(() => playing()[SECOND]);
  const second = playing();
  soundOf(cards()[SECOND]).pause();
  soundOf(cards()[SECOND]).currentTime = 1.5;
  press("3");  // goes on where the second was
  await until(() => soundOf(cards()[SECOND + 1]).currentTime > 0);
  const moment = soundOf(cards()[SECOND + 1]).currentTime;
  press(" ");
  await until(() => !playing().includes(true));
  const paused = playing();
  const plot = cards()[0].querySelector("i").getBoundingClientRect();
  const at = { clientX: plot.left + plot.width / 2, bubbles: true };
  cards()[0].querySelector(".picture").dispatchEvent(new MouseEvent("click", at));
  const sought = soundOf(cards()[0]).currentTime;
  cards()[SECOND].querySelector(".play").click();
  scrollTo(0, 0);
  press("a");
  await until(() => playing()[SECOND + 8] && !playing()[0]);
  const tenth = playing();
  const card = document.querySelector(".card.playing");
  let visible = false;
  await until(() => {  // the page glides there
    const box = card.getBoundingClientRect();
    return visible = box.top >= -1 && box.bottom <= innerHeight + 1;
  });
  const volumes = cards().map(card => soundOf(card).volume);
  document.getElementById("match").click();
  const unmatched = cards().map(card => soundOf(card).volume);
  const widths = images.map(image => image.naturalWidth);
  const shapes = images.map(image => image.height / image.width).filter(Boolean);
  const headings = [...document.querySelectorAll("h2")].map(heading => heading.textContent);
  const ground = getComputedStyle(document.body).backgroundColor;
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  console.log("RESULT " + JSON.stringify({ folded, first, played, widths, shapes, second, moment,
    paused, sought, tenth, visible, volumes, unmatched, headings, ground, wide, problems,
    screen: innerWidth,
    title: document.title }) + " END");
});
</script></body>"""


def picture(frames=40):
    return np.linspace(0, 1, 256 * frames).reshape(256, frames)


LEVELS = {"Input": 0.3, "Output": 2.0, "Target": 0.5}
SECONDS = 4  # of each sound
OTHERS = 7  # further sounds: the last one's key is the first letter


def make_piece(title="plain", **changes):
    piece = listening.Entry(
        title,
        {label: tone(seconds=SECONDS, level=level) for label, level in LEVELS.items()},
        {f"Output, phase: {k}": tone(seconds=SECONDS, level=1) for k in range(OTHERS)},
        (("Output", "Target"),),
        "2.00 dB from the b; the unchanged input 7.00 dB.",
        (["", "MAE <b>"], [["model (phase: input)", "1.0 ± 0.1"]]),
    )
    return piece._replace(**changes)


def make_page(folder, titles=("plain",)):
    """A page of pieces, the last one with further sounds, folded."""
    pieces = [make_piece(title, more={}) for title in titles[:-1]]
    pieces.append(make_piece(titles[-1]))
    terms = [("MAE <b>", "what it says")]
    table = pieces[0].table
    page = listening.Page("a → b", "2 dB <off>.", ["A note & more."], table, terms)
    listening.write_page(folder, page, pieces)
    return folder / "index.html"


def test_spectrograms_take_any_names_and_lengths(tmp_path):
    path = tmp_path / "a.png"
    pictures.write_spectrograms(
        {HOSTILE: picture(), "one frame": picture(1)}, path, title="$\\broken{"
    )
    image = matplotlib.image.imread(path)
    assert image.shape[1] > image.shape[0] > 300
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_silence_and_full_scale_are_the_ends_of_one_scale(tmp_path):
    pictures.write_spectrograms(
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
def test_history_draws_the_columns_there_are(tmp_path, columns, epochs):
    with open(tmp_path / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for epoch in range(epochs):
            cell = "" if epoch == 1 else 0.5
            writer.writerow([epoch + 1, *[cell] * len(columns[1:])])
    pictures.write_history(
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
    count = len(LEVELS) + OTHERS
    names = {"index.html", "piece01_difference.png"}
    for k in range(1, count + 1):
        names |= {f"piece01_{k}.png", f"piece01_{k}.flac"}
    assert {path.name for path in tmp_path.iterdir()} == names
    peaks = [np.abs(read_audio(tmp_path / f"piece01_{k}.flac")).max() for k in (1, 2, 3)]
    assert peaks == pytest.approx([0.15, 1, 0.25], abs=1e-3)


def test_page_of_conversions_without_target(tmp_path):
    both = np.stack([tone(seconds=SECONDS)] * 2, axis=1)  # two channels
    sounds = {"original": both, "guitar": both / 2}
    pieces = (listening.Entry(title, sounds) for title in ("one", "two"))
    listening.write_page(tmp_path / "page", listening.Page("My songs"), pieces)
    names = {path.name for path in (tmp_path / "page").iterdir()}
    stems = ("piece01_1", "piece01_2", "piece02_1", "piece02_2")
    files = ["".join(parts) for parts in itertools.product(stems, (".png", ".flac"))]
    assert names == {"index.html", *files}
    html = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert html.count('class="play"') == 4 and "original" in html
    assert "<table" not in html and "minus" not in html and "<details" not in html
    with soundfile.SoundFile(tmp_path / "page" / "piece01_1.flac") as sound:
        assert sound.channels == 2


def test_the_sentence_and_the_sounds_come_first(tmp_path):
    html = make_page(tmp_path).read_text(encoding="utf-8")
    sentence, sound = html.index("2 dB &lt;off&gt;."), html.index('class="play"')
    assert sentence < sound < html.index("<details") < html.index("<table")
    assert html.index("<h1>") < sentence and html.index("A note &amp; more.") > sound


def test_page_needs_no_network_and_escapes_texts(tmp_path):
    html = make_page(tmp_path, [HOSTILE]).read_text(encoding="utf-8")
    assert not re.search(r"(https?:)?//\w|@import|url\(", html)
    assert "<img src=x" not in html and "MAE <b>" not in html
    assert "&lt;img src=x" in html and "MAE &lt;b&gt;" in html
    for source in re.findall(r'(?:src|data-sound)="([^"$]+)"', html):
        assert (tmp_path / source).is_file()


def test_names_are_as_people_say_them():
    titles = {"pieces/fur_elise": "Fur elise", "a/song.1.WAV": "Song.1", "BR_IM6": "BR IM6"}
    assert {name: listening.plain_title(name) for name in titles} == titles
    instruments = {
        "keyboard_acoustic": "keyboard",
        "string_acoustic": "strings",
        "synth_lead_synthetic": "synth lead",
        "organ_electronic_001": "electronic organ 1",
        "guitar_acoustic_019": "guitar 19",
        "piano": "piano",
    }
    assert {name: listening.plain_instrument(name) for name in instruments} == instruments


def test_mel_axis_shows_a_tone_where_its_tick_is():
    assert pictures.from_mel(pictures.to_mel([0, 1, 5.5])) == pytest.approx([0, 1, 5.5], abs=1e-9)
    picture = np.zeros((256, 10), np.float32)
    one_khz = round(1000 / (data.SAMPLE_RATE / data.N_FFT))
    picture[one_khz] = 1
    axis = Figure().add_subplot()
    image = pictures.draw_mel(axis, picture)
    rows = image.get_array()[:, 5]
    at = rows.argmax() / len(rows) * image.get_extent()[3]
    assert at == pytest.approx(pictures.to_mel(1), abs=10)
    assert axis.get_yticks()[2] == pytest.approx(pictures.to_mel(1))


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize(("width", "is_dark"), SCREENS)
def test_page_works_in_chromium(tmp_path, width, is_dark):
    page = make_page(tmp_path / "page", ["plain", HOSTILE])
    check = CHECK.replace("SECOND", str(len(LEVELS) + 1))
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", check), encoding="utf-8")
    seen, console = open_page(page.as_uri(), width, tmp_path / "home", is_dark)
    assert seen is not None, console
    assert seen["problems"] == [] and len(console) == 1
    first, count = len(LEVELS), 2 * len(LEVELS) + OTHERS
    assert seen["played"] == pytest.approx([SECONDS] * count, abs=0.01)
    assert len(seen["widths"]) == count + 2 and min(seen["widths"]) > 300
    assert not any(seen["folded"])
    assert seen["first"] < 900, "the first player is on the first screen"
    second = [k for k, on in enumerate(seen["second"]) if on]
    assert second == [first + 1], "key 2 plays the second sound of the last piece, and only it"
    assert 1.5 <= seen["moment"] < 2.5, "key 3 goes on where the second was"
    assert not any(seen["paused"]), "space pauses"
    assert seen["sought"] == pytest.approx(SECONDS / 2, abs=0.1), "a click in a picture seeks"
    assert seen["shapes"] == pytest.approx([0.55] * len(seen["shapes"]), abs=0.02)
    tenth = [k for k, on in enumerate(seen["tenth"]) if on]
    assert tenth == [first + 9] and seen["visible"], "key a plays the tenth, and scrolls to it"
    assert seen["volumes"][:3] == pytest.approx([1, 0.15, 0.6], abs=0.01)
    assert seen["unmatched"] == [1] * count
    assert (int(re.findall(r"\d+", seen["ground"])[0]) < 128) == is_dark
    assert seen["headings"] == ["plain", HOSTILE]
    assert seen["title"] == "a → b" and not seen["wide"]
    assert seen["screen"] == width
