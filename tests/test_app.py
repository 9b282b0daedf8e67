"""The page in a browser: from upload to download, with nothing loaded from elsewhere."""

import base64
import json

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, SCREENS, open_page
from sounds import load_identity, tone
from worker_jobs import sleep

from common.cli import UserError
from conversion import known_models
from sound.recordings import open_sound, read_audio, write_audio

pytest.importorskip("gradio")
import app
from sound.survey import Survey
from webapp import actions, markup, work
from webapp.tabs import Batch, File, Result, Tabs
from webapp.worker import Worker

# What a person does, done by a script: drop a wrong file, then a right one, wait, press, wait,
# listen, switch, download; drop the next, stop it midway
DRIVER = """<script>
const wait = async find => {
  for (let k = 0; k < 6000; k++) {
    const found = find();
    if (found) return found;
    await new Promise(resolve => setTimeout(resolve, 100));
  }
  throw new Error("waited in vain: " + find);
};
const outside = [];
document.addEventListener("securitypolicyviolation", event => outside.push(event.blockedURI));
const drop = async (name, sound) => {
  const input = await wait(() => document.querySelector("#upload input[type=file]"));
  const bytes = Uint8Array.from(atob(sound), c => c.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name, { type: "audio/wav" }));
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
};
const clear = async () => {
  (await wait(() => document.querySelector("#upload button[aria-label=Clear]"))).click();
};
const says = (where, words) => () =>
  document.querySelector(where)?.innerText.includes(words) && document.querySelector(where);
const seen = where => {
  const found = document.querySelector(where);
  return found && found.offsetParent ? found : null;
};
const drag = (element, from, to) => {
  const box = element.getBoundingClientRect();
  const at = share => ({ clientX: box.left + share * box.width, bubbles: true });
  element.dispatchEvent(new PointerEvent("pointerdown", at(from)));
  element.dispatchEvent(new PointerEvent("pointermove", at(to)));
  element.dispatchEvent(new PointerEvent("pointerup", at(to)));
  element.dispatchEvent(new MouseEvent("click", at(to)));
};
const playing = [];
const play = HTMLAudioElement.prototype.play;
HTMLAudioElement.prototype.play = function () {
  if (!playing.includes(this)) playing.push(this);
  return play.call(this);
};
(async () => {
  const result = {};
  try {
    result.empty = document.querySelectorAll("#results .card, #part").length;
    await drop("letter.wav", btoa("no sound"));
    result.mistake = (await wait(says("#summary", "cannot be read"))).innerText;
    await clear();
    await drop("my song.wav", "SOUND");
    result.length = (await wait(says("#summary", "is 2.5 s long"))).innerText;
    const wave = await wait(() => seen("#part") && seen("#summary .wave"));
    drag(wave, 0.2, 0.6);
    result.part = document.querySelector("#part textarea, #part input").value;
    drag(wave, 0, 1);
    await new Promise(resolve => setTimeout(resolve, 500));
    (await wait(() => seen("#convert"))).click();
    await wait(() => document.querySelectorAll("#results .card").length === 3 && seen("#convert"));
    const button = place => document.querySelectorAll("#results .play")[place];
    button(0).click();
    await wait(() => playing.length === 1 && playing[0].currentTime > 0.5);
    button(1).click();
    await wait(() => playing.length === 2 && playing[1].currentTime > 0.6);
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "3", bubbles: true }));
    await wait(() => playing.length === 3 && playing[2].currentTime > 0.7);
    result.durations = playing.map(sound => sound.duration);
    result.paused = playing.map(sound => sound.paused);
    result.pressed = button(2).getAttribute("aria-pressed");
    const picture = document.querySelectorAll("#results .picture")[1];
    await picture.querySelector("img").decode();
    result.width = picture.querySelector("img").naturalWidth;
    drag(picture, 0.1, 0.1);
    await wait(() => !playing[1].paused && playing[1].currentTime < 1);
    const link = document.querySelectorAll("#results a.download")[1];
    result.name = link.download;
    const answer = await fetch(link.href);
    result.bytes = (await answer.arrayBuffer()).byteLength;
    await clear();
    await drop("next.wav", "SLOW");
    await wait(says("#summary", "next.wav is 1:50 long"));
    (await wait(() => seen("#convert"))).click();
    (await wait(() => seen("#stop"))).click();
    await wait(() => seen("#convert") && !seen("#stop"));
    result.left = document.querySelector("#results").innerText;
    result.pills = document.querySelectorAll(".error").length;
    result.overflow = document.documentElement.scrollWidth > window.innerWidth;
    result.screen = window.innerWidth;
    result.outside = outside;
    result.ground = getComputedStyle(document.body).backgroundColor;
  } catch (error) {
    result.error = String(error) + document.body.innerText;
  }
  console.log("RESULT " + JSON.stringify(result) + " END");
})();
</script>"""


@pytest.fixture
def quiet_gradio(tmp_path, monkeypatch):
    """Gradio's variables as main sets them, for this test only."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(app.tempfile, "tempdir", None)
    app.keep_to_oneself(tmp_path / "root")


def hear(seconds, remark=""):
    """A recording as `webapp.markup` is told of it."""
    return work.Summary(
        seconds, 264_600, [], Survey(0.0, seconds, -20.0, remark, -20.0), [0.5, 1.0]
    )


def test_lengths_are_told_as_people_say_them():
    assert markup.describe_length(61.2) == "1:01"
    assert markup.describe_length(20.53) == "20.5 s"
    assert markup.describe_length(59.97) == "1:00"


@pytest.mark.parametrize("length", [0.01, 1.4, 20.53, 120.0])
def test_a_recording_is_offered_whole(length):
    assert actions.parse_part(actions.write_part(length), length) == (0, length)


def test_a_long_recording_is_offered_as_its_first_minutes():
    assert actions.parse_part(actions.write_part(451.0), 451.0) == (0, 120)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("0:12 - 0:20", (12, 8)),
        ("12–20.5", (12, 8.5)),
        ("5", (0, 5)),
        ("0:10 - 9:00", (10, 20)),
        (" ALL ", (0, 30)),
        ("", (0, 30)),
    ],
)
def test_a_part_is_written_as_from_and_to(text, part):
    assert actions.parse_part(text, 30.0) == part


def test_more_than_an_hour_is_refused_at_once():
    with pytest.raises(UserError, match="choose a part"):
        actions.parse_part("all", 4000.0)
    assert actions.parse_part("0:30 - 1:00:30", 4000.0) == (30, 3600)


def test_a_remark_is_shown_as_predict_says_it():
    heard = hear(9, "it is <silent>")
    shown = markup.write_recording("x", heard, "/sound/x", actions.list_remarks(heard))
    assert "It is &lt;silent&gt;; expect little." in shown


def test_a_conversion_holds_the_part_asked_for(tmp_path):
    source = tmp_path / "my song.flac"
    write_audio(source, tone(seconds=3))
    told = []
    order = work.Order(
        str(source), 0.5, 2.0, "x_2_guitar_acoustic", work.How("draft"), tmp_path / "made"
    )
    order.folder.mkdir()
    made = work.convert_order(load_identity, order, told.append)
    np.testing.assert_allclose(read_audio(made.before), tone(seconds=3)[22050:][:88200], atol=1e-3)
    assert len(read_audio(made.after)) == 2 * 44100
    assert made.seconds == 2
    assert made.after_picture.stat().st_size > 1000
    assert told[-1] == 1


def test_mistakes_name_the_file_and_not_where_it_was_put(tmp_path):
    file = File(tmp_path / "uploads" / "0123", "song.txt", 0.0)
    error = UserError(f"{file.path}: has no sound; give another file")
    assert actions.in_words(error, file) == "song.txt: has no sound; give another file"


def test_only_models_that_need_nothing_but_a_recording_are_offered(tmp_path, monkeypatch):
    monkeypatch.setattr(known_models, "RUNS", tmp_path)
    monkeypatch.setattr(known_models, "PRETRAINED", tmp_path / "none")
    configs = {
        "a_2_plain": {"kind": "magnitude", "style": "none"},
        "a_2_both": {"kind": "both", "style": "none"},
        "a_2_older": {"flags": {"target": "x", "learn": "magnitude"}},
        "a_2_turned": {"kind": "phase"},
        "a_2_any": {"kind": "magnitude", "style": "tile"},
        "a_2_several": {"flags": {"target": ["x", "y"]}},
        "a_2_string_acoustic": {"kind": "magnitude"},
    }
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "generator.keras").write_bytes(b"")
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    assert [label for label, _ in app.list_choices()] == ["both", "older", "plain", "strings"]


def test_names_of_files_are_no_html():
    batch = Batch("<b>.wav", None)
    result = Result("synth's lead", "<i>'.wav", "/sound/1/x", "/sound/2/y", 1.0, -20.0)
    batch.results.append(result)
    text = markup.write_batches([batch])
    assert "&lt;b&gt;.wav" in text
    assert "download='&lt;i&gt;&#x27;.wav'" in text
    assert "synth&#x27;s lead" in text
    assert "<i>x" not in markup.write_recording("<i>x", hear(3), "/sound/x", [])
    assert "<b>" not in markup.write_mistake("<b>")
    assert "<b>" not in markup.write_progress("<b>", 0.5)


def test_each_instrument_has_a_picture():
    titles = ["guitar", "strings", "synth lead", "flute"]
    assert [markup.find_picture(title) for title in titles] == ["guitar", "strings", "keys", "note"]
    style = markup.write_style(titles)
    for place in range(1, 5):
        assert f"#instruments label:nth-of-type({place})::before" in style


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize(("width", "is_dark"), SCREENS)
def test_from_upload_to_download(tmp_path, quiet_gradio, width, is_dark):
    sound, slow = (encode_wav(tmp_path, seconds) for seconds in (2.5, 110))
    workers = actions.start_workers(load=load_identity)
    tabs = Tabs(tmp_path / "root")
    choices = [("guitar", "x_2_guitar"), ("strings", "x_2_strings")]
    page = app.build_page(actions.Actions(tabs, choices, workers), ["guitar", "strings"])
    head = DRIVER.replace("SOUND", sound).replace("SLOW", slow)
    address = app.launch(page, tabs, "127.0.0.1", None, False, head=head)
    try:
        result, console = open_page(address, width, tmp_path / "chromium", is_dark)
    finally:
        page.close()
        workers.close()
    assert result is not None, console
    assert "error" not in result, result["error"]
    assert "letter.wav: cannot be read as audio" in result["mistake"]
    assert "my song.wav is 2.5 s long" in result["length"]
    assert result["empty"] == 0
    assert result["part"] == "0:00.5 - 0:01.5"
    assert result["durations"] == pytest.approx([2.5, 2.5, 2.5], abs=0.001)
    assert result["paused"] == [True, True, False]
    assert result["pressed"] == "true"
    assert result["width"] > 100
    assert result["bytes"] > 2.5 * 8000 * 2
    assert result["name"] == "my song_guitar.wav"
    assert "my song.wav" in result["left"]
    assert "next.wav" not in result["left"]
    assert result["pills"] == 0
    assert result["screen"] == width
    assert not result["overflow"]
    assert result["outside"] == []
    red = int(result["ground"].partition("(")[2].partition(",")[0])
    assert (red < 128) == is_dark


def encode_wav(folder, seconds):
    """A WAV file of so many seconds, as base64."""
    write_audio(folder / "x.wav", tone(seconds=seconds, rate=8000), 8000)
    return base64.b64encode((folder / "x.wav").read_bytes()).decode()


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", None), ("PCM_24", None), ("FLOAT", 24)])
def test_nothing_is_played_that_a_browser_would_clip(tmp_path, subtype, bits):
    soundfile.write(tmp_path / "x.wav", tone(seconds=0.1), 44100, subtype)
    with open_sound(tmp_path / "x.wav") as sound:
        assert work.choose_bits(sound) == bits


def test_who_waits_is_told_how_long():
    worker = Worker()
    try:
        first = worker.submit(sleep, 600, cost=300.0)
        second = worker.submit(sleep, 600, cost=5.0)
        page = actions.Actions(None, [], actions.Workers(worker, worker, None))
        assert "Guitar: 1 before you, about 5 minutes" in page.describe_job(second, "guitar")
        text = page.describe_job(second, "guitar", later=10.0)  # others take turns meanwhile
        assert "1 before you, about 5 minutes; all of it in about 5 minutes" in text
        first.stop()
        assert "before you" not in page.describe_job(second, "guitar")
    finally:
        worker.close()
