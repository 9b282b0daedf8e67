"""The page in a browser: from upload to download, with nothing loaded from elsewhere."""

import base64
import json

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, open_page
from sounds import load_identity, tone

from common.cli import UserError
from conversion import known_models
from sound.recordings import read_audio, write_audio

pytest.importorskip("gradio")
import app
from sound.survey import Survey
from webapp import work
from webapp.tabs import Batch, File, Result, Tabs

# What a person does, done by a script: drop a wrong file, then a right one, wait, press, wait,
# listen, switch, download; drop the next, stop it midway
DRIVER = """<script>
const wait = async find => {
  for (let k = 0; k < 600; k++) {
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
const playing = [];
const play = HTMLAudioElement.prototype.play;
HTMLAudioElement.prototype.play = function () {
  if (!playing.includes(this)) playing.push(this);
  return play.call(this);
};
(async () => {
  const result = {};
  try {
    await drop("letter.wav", btoa("no sound"));
    result.mistake = (await wait(says("#heard", "cannot be read"))).innerText;
    await clear();
    await drop("my song.wav", "SOUND");
    result.length = (await wait(says("#heard", "is 2.5 s long"))).innerText;
    (await wait(() => seen("#convert"))).click();
    await wait(() => document.querySelectorAll("#results .card").length === 2 && seen("#convert"));
    const [first, second] = document.querySelectorAll("#results .play");
    first.click();
    await wait(() => playing.length === 1 && playing[0].currentTime > 0.5);
    second.click();
    await wait(() => playing.length === 2 && playing[1].currentTime > 0.6);
    result.durations = playing.map(sound => sound.duration);
    result.paused = playing.map(sound => sound.paused);
    result.pressed = second.getAttribute("aria-pressed");
    const picture = document.querySelectorAll("#results img")[1];
    await picture.decode();
    result.width = picture.naturalWidth;
    picture.closest(".picture").click();
    const link = document.querySelectorAll("#results a.download")[1];
    result.name = link.download;
    const answer = await fetch(link.href);
    result.bytes = (await answer.arrayBuffer()).byteLength;
    await clear();
    await drop("next.wav", "SLOW");
    await wait(says("#heard", "next.wav is 40.0 s long"));
    (await wait(() => seen("#convert"))).click();
    (await wait(() => seen("#stop"))).click();
    await wait(() => seen("#convert") && !seen("#stop"));
    result.left = document.querySelector("#results").innerText;
    result.pills = document.querySelectorAll(".error").length;
    result.overflow = document.documentElement.scrollWidth > window.innerWidth;
    result.outside = outside;
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
    """A recording as `app.describe_recording` is told of it."""
    return work.Heard(seconds, [], Survey(0.0, seconds, -20.0, remark))


def test_a_long_recording_is_offered_as_its_first_minutes():
    assert app.describe_length(61.2) == "1:01"
    assert app.describe_length(20.53) == "20.5 s"
    assert app.make_slider(451.0)["value"] == 120
    text = app.describe_recording("x.wav", hear(451))
    assert "is 7:31 long. Its first 2 minutes" in text


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.9, 1.4, 20.5, 20.53, 119.99])
def test_a_short_recording_is_offered_to_its_last_sample(seconds):
    slider = app.make_slider(seconds)
    assert seconds <= slider["value"] < seconds + app.STEP + 1e-6
    assert slider["maximum"] > app.STEP
    assert slider["value"] <= slider["maximum"]


def test_a_remark_is_shown_as_predict_says_it():
    shown = app.describe_recording("x", hear(9, "it is <silent>"))
    assert "It is &lt;silent&gt;; expect little." in shown


def test_a_conversion_holds_the_part_asked_for(tmp_path):
    source = tmp_path / "my song.flac"
    write_audio(source, tone(seconds=3))
    told = []
    order = work.Order(str(source), 0.5, 2.0, "x_2_guitar_acoustic", "draft", tmp_path / "made")
    order.folder.mkdir()
    made = work.convert_order(load_identity, order, told.append)
    np.testing.assert_allclose(read_audio(made.before), tone(seconds=3)[22050:][:88200], atol=1e-3)
    assert len(read_audio(made.after)) == 2 * 44100
    assert made.seconds == 2
    assert made.after_picture.stat().st_size > 1000
    assert told[-1] == 1


def test_mistakes_name_the_file_and_not_where_it_was_put(tmp_path):
    file = File(tmp_path / "uploads" / "0123", "song.txt", 0.0)
    error = UserError(f"{file.path}: holds no sound; give another file")
    assert app.in_words(error, file) == "song.txt: holds no sound; give another file"


def test_only_models_that_need_nothing_but_a_recording_are_offered(tmp_path, monkeypatch):
    monkeypatch.setattr(known_models, "RUNS", tmp_path)
    monkeypatch.setattr(known_models, "PRETRAINED", tmp_path / "none")
    configs = {
        "a_2_plain": {"kind": "magnitude", "style": "none"},
        "a_2_both": {"kind": "both", "style": "none"},
        "a_2_older": {"flags": {"target": "x", "learn": "magnitude"}},
        "a_2_turned": {"kind": "phase", "style": "none"},
        "a_2_any": {"kind": "magnitude", "style": "tile"},
        "a_2_several": {"flags": {"target": ["x", "y"]}},
        "a_2_string_acoustic": {"kind": "magnitude", "style": "none"},
    }
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "generator.keras").write_bytes(b"")
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    assert [label for label, _ in app.list_choices()] == ["both", "older", "plain", "strings"]


def test_names_of_files_are_no_html():
    batch = Batch("<b>.wav", None)
    batch.results.append(Result("synth's lead", "<i>'.wav", "/sound/1/x", "/sound/2/y"))
    text = app.write_batches([batch])
    assert "&lt;b&gt;.wav" in text
    assert "download='&lt;i&gt;&#x27;.wav'" in text
    assert "Play synth&#x27;s lead" in text
    assert "<i>" not in app.describe_recording("<i>", hear(3), [])
    assert "<b>" not in app.write_mistake("<b>")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_from_upload_to_download(tmp_path, quiet_gradio, width):
    sound, slow = (encode_wav(tmp_path, seconds) for seconds in (2.5, 40))
    workers = app.start_workers(load=load_identity)
    tabs = Tabs(tmp_path / "root")
    choices = [("guitar", "x_2_guitar")]
    page = app.build_page(app.Actions(tabs, choices, workers), choices)
    head = DRIVER.replace("SOUND", sound).replace("SLOW", slow)
    address = app.launch(page, tabs, "127.0.0.1", None, False, head=head)
    try:
        result, console = open_page(address, width, tmp_path / "chromium")
    finally:
        page.close()
        workers.close()
    assert result is not None, console
    assert "error" not in result, result["error"]
    assert "letter.wav: cannot be read as audio" in result["mistake"]
    assert "my song.wav is 2.5 s long" in result["length"]
    assert result["durations"] == pytest.approx([2.5, 2.5], abs=0.001)
    assert result["paused"] == [True, False]
    assert result["pressed"] == "true"
    assert result["width"] > 100
    assert result["bytes"] > 2.5 * 8000 * 2
    assert result["name"] == "my song_guitar.wav"
    assert "my song.wav" in result["left"]
    assert "next.wav" not in result["left"]
    assert result["pills"] == 0
    assert not result["overflow"]
    assert result["outside"] == []


def encode_wav(folder, seconds):
    """A WAV file of so many seconds, as base64."""
    write_audio(folder / "x.wav", tone(seconds=seconds, rate=8000), 8000)
    return base64.b64encode((folder / "x.wav").read_bytes()).decode()


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", None), ("PCM_24", None), ("FLOAT", 24)])
def test_nothing_is_played_that_a_browser_would_clip(tmp_path, subtype, bits):
    soundfile.write(tmp_path / "x.wav", tone(seconds=0.1), 44100, subtype)
    assert work.choose_bits(tmp_path / "x.wav") == bits
