"""The page in a browser: from upload to download, with nothing loaded from elsewhere."""

import base64
import json

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, open_page
from sounds import identity, tone

from common.cli import UserError
from conversion import known_models
from sound.recordings import read_audio, write_audio

pytest.importorskip("gradio")
import app

# What a person does, done by a script: drop a file, wait, press, wait, switch, download
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
(async () => {
  const result = {};
  try {
    const input = await wait(() => document.querySelector("input[type=file]"));
    const bytes = Uint8Array.from(atob("SOUND"), c => c.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], "my song.wav", { type: "audio/wav" }));
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    await wait(() => document.body.innerText.includes("0:02 long"));
    (await wait(() => document.querySelector("#convert"))).click();
    const pair = await wait(() => document.querySelectorAll("#pair audio").length === 2 &&
      document.querySelector("#pair"));
    const [before, after] = pair.querySelectorAll("audio");
    await wait(() => before.readyState > 3 && after.readyState > 3);
    result.durations = [before.duration, after.duration];
    const [first, second] = pair.querySelectorAll("button");
    first.click();
    await wait(() => before.currentTime > 0.3);
    second.click();
    await wait(() => !after.paused && after.currentTime > 0.3);
    result.paused = [before.paused, after.paused];
    result.pressed = second.getAttribute("aria-pressed");
    const picture = await wait(() => document.querySelector("img[src*=spectrograms]"));
    await picture.decode();
    result.width = picture.naturalWidth;
    const answer = await fetch(after.src);
    result.bytes = (await answer.arrayBuffer()).byteLength;
    HTMLAnchorElement.prototype.click = function () { result.name = this.download || this.href; };
    (await wait(() => document.querySelector("#download:not([disabled])"))).click();
    await wait(() => result.name);
    result.overflow = document.documentElement.scrollWidth > window.innerWidth;
    result.outside = outside;
  } catch (error) {
    result.error = String(error) + document.body.innerText;
  }
  console.log("RESULT " + JSON.stringify(result) + " END");
})();
</script>"""


class Request:
    """As much of a Gradio request as `app.Tabs` needs."""

    def __init__(self, name):
        self.session_hash = name


@pytest.fixture
def quiet_gradio(tmp_path, monkeypatch):
    """Gradio's variables as main sets them, for this test only."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    app.keep_to_oneself(tmp_path)


def test_a_long_recording_is_offered_as_its_first_minutes():
    assert app.describe_length(61.2) == (61, "1:01 long.")
    seconds, text = app.describe_length(451)
    assert seconds == 120
    assert text.startswith("7:31 long. Its first 2 minutes")


def test_a_conversion_holds_the_first_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "load_model", lambda path: identity)
    source = tmp_path / "my song.flac"
    write_audio(source, tone(seconds=3))
    told = []
    folder = tmp_path / "made"
    folder.mkdir()
    before, after, picture = app.convert_upload(
        source, source.name, "x_2_guitar_acoustic", "draft", 2, folder, told.append
    )
    assert after.name == "my song_guitar.wav"
    np.testing.assert_allclose(read_audio(before), tone(seconds=2), atol=1e-3)
    assert len(read_audio(after)) == 2 * 44100
    assert picture.stat().st_size > 1000
    assert told[-1] == 1


def test_what_a_tab_left_is_deleted_with_it(tmp_path):
    tabs = app.Tabs(tmp_path / "root")
    one, other = Request("one"), Request("other")
    upload = tmp_path / "upload.wav"
    upload.touch()
    tabs.of(one).keep(upload)
    folders = [tabs.of(request).new_folder() for request in (one, other)]
    (folders[0] / "made.wav").touch()
    tabs.end(one)
    assert not upload.exists()
    assert not folders[0].exists()
    assert folders[1].exists()
    tabs.end(one)  # a second time does no harm


def test_mistakes_name_the_file_and_not_where_it_was_put(tmp_path):
    path = tmp_path / "uploads" / "song.txt"
    error = UserError(f"{path}: holds no sound; give another file")
    assert app.in_words(error, path) == "song.txt: holds no sound; give another file"


def test_only_models_that_need_nothing_but_a_recording_are_offered(tmp_path, monkeypatch):
    monkeypatch.setattr(known_models, "RUNS", tmp_path)
    monkeypatch.setattr(app.cli, "PRETRAINED", tmp_path / "none")
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


def test_players_find_files_of_any_name():
    pair = app.write_pair("/x/in.wav", "/x/take #2 (50%)_guitar.wav", "synth lead")
    assert "/gradio_api/file=/x/take%20%232%20%2850%25%29_guitar.wav'" in pair
    assert "Play synth lead" in pair


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_from_upload_to_download(tmp_path, monkeypatch, quiet_gradio):
    monkeypatch.setattr(app, "load_model", lambda path: identity)
    write_audio(tmp_path / "x.wav", tone(seconds=2))
    sound = base64.b64encode((tmp_path / "x.wav").read_bytes()).decode()
    root = tmp_path / "root"
    page = app.build_page(app.Tabs(root), [("guitar", "x_2_guitar")])
    head = DRIVER.replace("SOUND", sound)
    address = app.launch(page, root, "127.0.0.1", None, False, head=head)
    try:
        result, console = open_page(address, 390, tmp_path / "chromium")
    finally:
        page.close()
    assert result is not None, console
    assert "error" not in result, result["error"]
    assert result["durations"] == pytest.approx([2, 2], abs=0.01)
    assert result["paused"] == [True, False]
    assert result["pressed"] == "true"
    assert result["width"] > 300
    assert result["bytes"] > 2 * 44100 * 2
    assert result["name"].endswith("my song_guitar.wav")
    assert not result["overflow"]
    assert result["outside"] == []


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", None), ("PCM_24", None), ("FLOAT", 24)])
def test_nothing_is_played_that_a_browser_would_clip(tmp_path, subtype, bits):
    soundfile.write(tmp_path / "x.wav", tone(seconds=0.1), 44100, subtype)
    assert app.choose_bits(tmp_path / "x.wav") == bits
