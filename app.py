"""Step 4 in a browser: drop or record a sound, choose an instrument, hear both.

    pip install -r requirements-app.txt
    python app.py

Opens a page that only this computer reaches. It converts by the same code as predict.py, with the
models of pretrained/ and runs/. Nothing is sent anywhere. What was uploaded and made is deleted
when its tab is closed, and all of it when the program ends (Ctrl-C); download what you like.
"""

from common import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import functools
import html
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from urllib.parse import quote

import numpy as np

import data
from common.cli import UserError
from common.files import MEND, read_json, undamaged
from conversion import convert, known_models
from research import registry
from sound import survey
from sound.recordings import (
    AUDIO_EXTENSIONS,
    create_sound,
    mix_down,
    open_sound,
    read_blocks,
    resample_stream,
)

FIRST_SECONDS = 120  # of a recording that are offered: about as many are waited for on two cores
PICTURE_SECONDS = 12  # of a spectrogram: more are too fine to see
LONGEST_SECONDS = 3600
UPLOAD_LIMIT = "2gb"
KEPT_MODELS = 3  # in memory, 220 MB each
DELETE_AFTER = 3600  # s: uploads whose tab was left open

# Nothing is loaded from elsewhere, whatever a library's page asks for
CONTENT_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)
SWITCH = """
element.addEventListener('click', event => {
  const chosen = event.target.closest('button[data-sound]');
  if (!chosen) return;
  const sounds = [...element.querySelectorAll('audio')];
  const next = sounds[Number(chosen.dataset.sound)];
  const playing = sounds.find(sound => !sound.paused);
  const wasPlaying = playing === next;
  if (playing) {
    playing.pause();
    next.currentTime = playing.currentTime;
  }
  if (!wasPlaying) next.play();
  for (const button of element.querySelectorAll('button[data-sound]'))
    button.setAttribute('aria-pressed', String(button === chosen && !wasPlaying));
});
"""
STYLE = """
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 1rem; }
.pair audio { width: 100%; }
.pair button { width: 100%; padding: .7rem; border: 2px solid currentColor; border-radius: .5rem;
  background: transparent; color: inherit; font: inherit; cursor: pointer; }
.pair button[aria-pressed=true] { border-color: #e8730c; font-weight: bold; }
"""


class Tab:
    """The files of one browser tab: what was uploaded, and a folder of what was made."""

    def __init__(self, root, name):
        self.folder = Path(root) / name
        self._uploads = set()

    def keep(self, upload):
        """Remember an uploaded file, to delete it with the rest."""
        self._uploads.add(Path(upload))

    def new_folder(self):
        """A folder for one conversion. Those of earlier ones are deleted."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.folder

    def delete(self):
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for upload in self._uploads:
            upload.unlink(missing_ok=True)


class Tabs:
    """Each open `Tab`, by the name that Gradio gives it."""

    def __init__(self, root):
        self._root = root
        self._tabs = {}
        self._lock = threading.Lock()

    def of(self, request):
        """The tab that a Gradio request belongs to."""
        name = request.session_hash
        with self._lock:
            if name not in self._tabs:
                self._tabs[name] = Tab(self._root, name)
            return self._tabs[name]

    def end(self, request):
        """Delete what a tab, which is closed, has left."""
        with self._lock:
            tab = self._tabs.pop(request.session_hash, None)
        if tab is not None:
            tab.delete()


@functools.lru_cache(maxsize=KEPT_MODELS)
def load_model(path):
    """The generator of a model's folder, loaded once."""
    from conversion.model_files import load_generator

    return load_generator(path)


def measure_length(path):
    """Length of a recording in seconds; it is read to its end if its header does not say it."""
    with open_sound(path) as sound:
        if sound.frames:
            return sound.frames / sound.samplerate
        for _ in read_blocks(sound):
            pass
        return sound.tell() / sound.samplerate


def describe_length(seconds):
    """What is offered of a recording: (seconds to convert, sentence)."""
    minutes, rest = divmod(round(seconds), 60)
    text = f"{minutes}:{rest:02d} long."
    if seconds <= FIRST_SECONDS:
        return max(1, round(seconds)), text
    first = FIRST_SECONDS // 60
    return FIRST_SECONDS, f"{text} Its first {first} minutes are converted; more takes longer."


def write_excerpt(source, target, seconds):
    """Write the first seconds of a recording as WAV, for browsers to play."""
    with open_sound(source) as sound:
        excerpt = survey.Excerpt(sound.samplerate, 0.0, seconds)
        with create_sound(target, target, sound.channels, sound.samplerate, seconds) as output:
            for block in excerpt.cut(read_blocks(sound)):
                output.write(np.clip(block.T, -1, 1))


def read_picture(path):
    """The spectrogram of a sound's beginning, dB scale, float32 (256, t)."""
    with open_sound(path) as sound:
        excerpt = survey.Excerpt(sound.samplerate, 0.0, PICTURE_SECONDS)
        mono = mix_down(np.concatenate(list(excerpt.cut(read_blocks(sound))), axis=1))
        resampled = list(resample_stream([mono], sound.samplerate, data.SAMPLE_RATE))
    return data.spectrogram(np.concatenate(resampled, axis=1)[0])


def draw_spectrograms(before, after, path):
    """Write the spectrograms of two sounds, side by side, as a picture."""
    from report import pictures

    shown = {"input": read_picture(before), "output": read_picture(after)}
    pictures.write_spectrograms(shown, path)


def write_pair(before, after, instrument):
    """HTML of two players, which change over at the same moment."""
    cells = []
    for number, (path, name) in enumerate(((before, "Original"), (after, instrument))):
        address = html.escape(f"/gradio_api/file={quote(str(path))}")
        name = html.escape(name)
        cells.append(
            f"<div><button data-sound='{number}' aria-pressed='false'>Play {name}</button>"
            f"<audio src='{address}' controls preload='auto' aria-label='{name}'></audio></div>"
        )
    return f"<div class='pair'>{''.join(cells)}</div>"


def convert_upload(source, name, model, quality, seconds, folder, progress):
    """Convert the first seconds of a recording.

    Args:
        source: path of the recording.
        name: what it is called, for the output's name.
        model: path of a model.
        quality: key of `convert.QUALITIES`.
        seconds: of the recording that are converted.
        folder: where the outputs go.
        progress: called with the part done, 0 ... 1.

    Returns:
        (excerpt of the input, output, picture): paths.

    Raises:
        UserError: the recording or the model cannot be used.
    """
    label = known_models.make_label(model)
    before = folder / "input.wav"
    after = folder / f"{Path(name).stem[:80]}_{label}.wav"
    write_excerpt(source, before, seconds)
    how = convert.QUALITIES[quality]
    done = 0.0

    def report_progress(block_seconds):
        nonlocal done
        done += block_seconds
        progress(min(1.0, done / seconds))

    convert.convert_file(
        load_model(model),
        source,
        after,
        heard=survey.listen(source, seconds=seconds),
        progress=report_progress,
        phase=how.phase,
        phase_iterations=how.phase_iterations,
        pull=known_models.read_pull(model),
        hops=how.hops,
        bits=choose_bits(source),
    )
    picture = folder / "spectrograms.png"
    draw_spectrograms(before, after, picture)
    return before, after, picture


def _needs_only_a_recording(path):
    """Whether a model converts a recording without any other input. Raises UserError."""
    where = path / "config.json"
    config = read_json(where, MEND)
    if config is None:
        return True
    with undamaged(where, MEND):
        kind = registry.read_from_run(config)
    return kind.gives_picture and not kind.takes_style


def choose_bits(source):
    """Depth of a recording's output, for `convert.convert_file`: None is the recording's own.

    24 bits for floating-point recordings, whose peaks above full scale a browser would clip.
    """
    with open_sound(source) as sound:
        return 24 if sound.bits == "float" else None


def list_choices():
    """(label, path) of each model that needs nothing but a recording. Raises UserError.

    A model whose config.json is damaged is named on stderr and passed over.
    """
    paths = []
    for path in known_models.find_models():
        suits = cli.attempt(_needs_only_a_recording, path)
        if isinstance(suits, UserError):
            cli.pass_over(suits)
        elif suits:
            paths.append(path)
    if not paths:
        raise UserError(
            "pretrained/, runs/: hold no model; train one with train.py, or get pretrained/ with "
            "the repository"
        )
    from report import listening

    labels = [listening.plain_instrument(label) for label in known_models.make_labels(paths)]
    return list(zip(labels, map(str, paths)))


def make_actions(tabs, choices):
    """What the page does: (when a sound comes or goes, on the button).

    Arguments as of `build_page`.
    """
    import gradio as gr

    labels = {path: label for label, path in choices}

    def look(upload, recording, request: gr.Request):
        source = upload or recording
        if source is None:
            return gr.update(), ""
        tabs.of(request).keep(source)
        try:
            length = measure_length(source)
        except UserError as error:
            raise gr.Error(in_words(error, source), print_exception=False) from None
        seconds, text = describe_length(length)
        top = max(1, min(LONGEST_SECONDS, round(length)))
        return gr.update(maximum=top, value=seconds), text

    bar = gr.Progress()  # Gradio fills it in where it is a default

    def start(upload, recording, model, quality, seconds, request: gr.Request, progress=bar):
        source = upload or recording
        if source is None:
            raise gr.Error("Drop a recording first, or record one.", print_exception=False)
        progress(0, desc="loading the model")
        folder = tabs.of(request).new_folder()
        name = Path(source).name if upload else "recording"
        tell = functools.partial(progress, desc="converting")
        try:
            made = convert_upload(source, name, model, quality, seconds, folder, tell)
        except UserError as error:
            raise gr.Error(in_words(error, source), print_exception=False) from None
        before, after, picture = made
        pair = write_pair(before, after, labels[model])
        return pair, str(picture), gr.update(value=str(after), interactive=True)

    return look, start


def build_page(tabs, choices):
    """The page, as gradio.Blocks: what it shows; what its buttons do is `make_actions`.

    Args:
        tabs: `Tabs`.
        choices: see `list_choices`.
    """
    import gradio as gr

    look, start = make_actions(tabs, choices)

    def leave(request: gr.Request):
        tabs.end(request)

    with gr.Blocks(title="Timbre transfer", delete_cache=(600, DELETE_AFTER)) as page:
        gr.Markdown("# The same music on another instrument")
        with gr.Row():
            with gr.Column():
                upload = gr.File(label="A recording or a video", file_types=list(AUDIO_EXTENSIONS))
                recording = gr.Audio(sources=["microphone"], type="filepath", label="or record one")
                length = gr.Markdown()
            with gr.Column():
                model = gr.Dropdown(choices, value=choices[0][1], label="Instrument")
                quality = gr.Radio(
                    list(convert.QUALITIES),
                    value="normal",
                    label="Quality",
                    info="draft takes half as long as normal, best almost three times as long",
                )
                seconds = gr.Slider(
                    1, FIRST_SECONDS, value=FIRST_SECONDS, step=1, label="Seconds to convert"
                )
                button = gr.Button("Convert", variant="primary", elem_id="convert")
        pair = gr.HTML(js_on_load=SWITCH, elem_id="pair")
        picture = gr.Image(label="Spectrograms", type="filepath", interactive=False)
        download = gr.DownloadButton("Download", interactive=False, elem_id="download")

        sounds = [upload, recording]
        for component in sounds:
            component.change(look, sounds, [seconds, length], queue=False)
        inputs = [*sounds, model, quality, seconds]
        button.click(start, inputs, [pair, picture, download], concurrency_limit=1)
        page.unload(leave)
    return page


def in_words(error, source):
    """A `UserError` for the page: in place of the path of an upload, which says nothing."""
    return cli.one_line(str(error).replace(str(source), Path(source).name))


def launch(page, root, host, port, open_browser, **options):
    """Serve a page in the background; `gradio.Blocks.block_thread` then waits for Ctrl-C.

    Returns:
        Its address.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    fonts = ["system-ui", "sans-serif"]  # Gradio's own are fetched from elsewhere
    theme = gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])
    page.queue(default_concurrency_limit=1)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        quiet=True,  # it would recommend a public link
        prevent_thread_lock=True,
        ssr_mode=False,
        theme=theme,
        css=STYLE,
        footer_links=[],
        allowed_paths=[str(root)],
        max_file_size=UPLOAD_LIMIT,
        app_kwargs={"middleware": [Middleware(StayHere)]},
        **options,
    )
    return address


class StayHere:
    """ASGI middleware: tells browsers to load nothing from other addresses."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        """Handle one request."""

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", CONTENT_POLICY.encode())
                message = message | {"headers": [*message["headers"], policy]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: other computers, too")
    add("--port", type=cli.number(int, 1, 65535), help="port; default: the first free from 7860")
    add("--no_browser", action="store_true", help="do not open the page, only print its address")
    add("--gpu", help="GPU number, or cpu; default: GPU 0 if there is one")
    return parser


@cli.command
def main(argv=None):
    """Serve the page until Ctrl-C."""
    args = build_parser().parse_args(argv)
    choices = list_choices()
    print("loading; the page opens in a moment ...", flush=True)
    from common import devices

    devices.setup_device(args.gpu)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is below is deleted
    with tempfile.TemporaryDirectory(prefix="timbre-") as root:
        keep_to_oneself(root)
        page = build_page(Tabs(root), choices)
        address = launch(page, root, args.host, args.port, not args.no_browser)
        print(f"the page is at {address} (Ctrl-C ends it)", flush=True)
        page.block_thread()


def keep_to_oneself(root):
    """Have Gradio report to nobody and put uploads into ``root``. Before it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(Path(root) / "uploads")


if __name__ == "__main__":
    raise SystemExit(main())
