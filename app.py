"""Step 4 in a browser: drop or record a sound, choose instruments, listen.

    pip install -r requirements-app.txt
    python app.py

Opens a page that only this computer can reach. It uses the code of predict.py and the models of
pretrained/ and runs/. No data leaves the computer. Uploads and results are deleted when their tab
is closed or the program ends (Ctrl-C), so download the results you want to keep.

With --host 0.0.0.0 every computer in the network can use the page and this computer's processor.
Then also give --auth NAME:PASSWORD. See docs/app.md.
"""

from common import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import argparse
import contextlib
import functools
import os
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

from common.cli import UserError
from common.run_facts import RunFacts
from conversion import known_models
from research import registry
from webapp import markup, work
from webapp.actions import EXAMPLES, WAITING, Actions, start_workers
from webapp.door import Door
from webapp.tabs import Tabs

OCTAVES = [("an octave down", -12), ("as it is", 0), ("an octave up", 12)]
HEADING = """<h1>The same music on another instrument</h1>
<p>Drop a recording, or several, of one instrument alone, and hear other instruments play it.</p>"""


def _needs_only_a_recording(path):
    """Whether a model needs no input besides the recording. Raises UserError."""
    run = RunFacts(path)
    if not run.config:
        return True
    kind = registry.read_from_run(run)
    return kind.gives_picture


def list_choices():
    """List (label, path) of each model that needs only a recording. Raises UserError.

    A model with a damaged config.json is reported on stderr and skipped.
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


class Widgets(NamedTuple):
    """What the page consists of, from top to bottom."""

    upload: object
    recording: object
    examples: dict  # buttons by name
    summary: object  # of the recording
    part: object
    instruments: object
    quality: object
    octave: object
    mix: object
    convert: object  # buttons, of which one is shown
    stop: object
    status: object
    results: object


def build_page(actions, titles):
    """The page, as gradio.Blocks: ``actions`` of its instruments, which are called ``titles``."""
    import gradio as gr

    with gr.Blocks(title="Timbre transfer", analytics_enabled=False) as page:
        connect(actions, page, lay_out(titles, actions.name_qualities()))
    return page


def lay_out_sources():
    """The two fields that take recordings: for files, and for the microphone."""
    import gradio as gr

    with gr.Row(elem_id="sources", equal_height=True):
        upload = gr.File(
            label="Recordings or videos",
            file_count="multiple",
            show_label=False,
            elem_id="upload",
            height=130,
        )
        recording = gr.Audio(
            sources=["microphone"],
            type="filepath",
            label="or record one",
            show_label=False,
            elem_id="recording",
            buttons=[],
        )
    return upload, recording


def lay_out(titles, qualities):
    """The page's `Widgets`; ``qualities`` are choices of `gradio.Radio`."""
    import gradio as gr

    gr.HTML(HEADING, elem_id="heading")
    upload, recording = lay_out_sources()
    with gr.Row(elem_id="examples"):
        examples = {name: gr.Button(name, size="sm", min_width=0) for name in EXAMPLES}
    gr.HTML(markup.write_credits(EXAMPLES), elem_id="credits")
    summary = gr.HTML(elem_id="summary")
    hint = "all, or from - to, such as 0:12 - 0:40: write it, or draw it in the wave"
    part = gr.Textbox("all", label="Part to convert", info=hint, elem_id="part", visible=False)
    instruments = gr.CheckboxGroup(titles, value=titles, label="Instrument", elem_id="instruments")
    quality = gr.Radio(qualities, value="normal", label="Quality", elem_id="quality")
    with gr.Accordion("Pitch and mix", open=False, elem_id="more"):
        octave = gr.Radio(OCTAVES, value=0, label="The recording goes in", elem_id="octave")
        mix = gr.Slider(
            0, 100, 100, step=5, label="New instrument, %", info="the rest is the recording itself"
        )
    return Widgets(
        upload,
        recording,
        examples,
        summary,
        part,
        instruments,
        quality,
        octave,
        mix,
        gr.Button("Convert", variant="primary", elem_id="convert"),
        gr.Button("Stop", variant="stop", elem_id="stop", visible=False),
        gr.HTML(elem_id="status"),
        gr.HTML(js_on_load=markup.write_script(), elem_id="results"),
    )


def connect(actions, page, widgets):
    """Have `Widgets` call `Actions`."""
    import gradio as gr

    async def look(upload, recording, request: gr.Request):
        part, text, qualities = await actions.look(upload, recording, request.session_hash)
        return gr.update(value=part, visible=part != ""), text, gr.update(choices=qualities)

    async def start(upload, recording, titles, quality, octave, mix, part, request: gr.Request):
        how = work.How(quality, octave, mix / 100)
        steps = actions.start(upload, recording, titles, how, part, request.session_hash)
        async with contextlib.aclosing(steps):
            async for results, status, is_busy in steps:
                shown = gr.skip() if results is None else results
                yield shown, status, gr.update(visible=not is_busy), gr.update(visible=is_busy)

    def stop(request: gr.Request):
        actions.stop(request.session_hash)

    def leave(request: gr.Request):
        actions.leave(request.session_hash)

    sounds = [widgets.upload, widgets.recording]
    listening = markup.write_progress("Listening to it ...")
    say = f"(dropped, recorded) => (dropped?.length || recorded ? {listening!r} : '')"
    quietly = {"queue": False, "show_progress": "hidden"}
    for sound in sounds:
        sound.change(None, sounds, widgets.summary, js=say)  # at once
        sound.change(look, sounds, [widgets.part, widgets.summary, widgets.quality], **quietly)
    for name, button in widgets.examples.items():

        def try_example(request: gr.Request, name=name):
            return [actions.try_example(name, request.session_hash)]

        button.click(try_example, None, widgets.upload, **quietly)
    how = [widgets.instruments, widgets.quality, widgets.octave, widgets.mix, widgets.part]
    widgets.convert.click(
        start,
        [*sounds, *how],
        [widgets.results, widgets.status, widgets.convert, widgets.stop],
        concurrency_limit=None,
        show_progress="hidden",
    )
    widgets.stop.click(stop, queue=False)
    page.unload(leave)


def launch(page, tabs, host, port, open_browser, auth=None, titles=(), **options):
    """Serve a page in the background; `gradio.Blocks.block_thread` then waits for Ctrl-C.

    Args:
        page: of `build_page`.
        tabs: `Tabs`.
        host, port: address to listen on.
        open_browser: whether to.
        auth: (name, password) that visitors must know, or None.
        titles: of the instruments, for their pictures.
        options: of `gradio.Blocks.launch`.

    Returns:
        Its address.
    """
    from starlette.middleware import Middleware

    page.queue(default_concurrency_limit=1, max_size=4 * WAITING)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        quiet=True,  # it would recommend a public link
        prevent_thread_lock=True,
        ssr_mode=False,
        theme=make_theme(),
        css=markup.write_style(titles),
        footer_links=[],
        app_kwargs={"middleware": [Middleware(Door, tabs=tabs, host=host, auth=auth)]},
        **options,
    )
    return address


def make_theme():
    """Colours and fonts, light and dark. Gradio's own fonts are fetched from elsewhere."""
    import gradio as gr

    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        body_background_fill="#faf7f2",
        body_background_fill_dark="#1a1614",
        block_border_width="0px",
        block_background_fill="#ffffff",
        block_background_fill_dark="#262019",
        block_title_text_weight="600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill_dark="#332b22",
        color_accent="#c2410c",
        color_accent_soft="#ffedd5",
        color_accent_soft_dark="#4a2a14",
        button_primary_background_fill="#c2410c",  # on which white is legible
        button_primary_background_fill_hover="#9a3412",
        button_primary_background_fill_dark="#c2410c",
        button_primary_background_fill_hover_dark="#9a3412",
        button_large_padding="0.9rem 1.2rem",
    )


def name_and_password(text):
    """An argparse ``type=`` for NAME:PASSWORD."""
    name, colon, password = text.partition(":")
    if not name or not colon or not password:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME:PASSWORD")
    return name, password


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 opens the page to other computers",
    )
    add("--port", type=cli.number(int, 1, 65535), help="port; default: the first free from 7860")
    add(
        "--auth",
        type=name_and_password,
        metavar="NAME:PASSWORD",
        help="name and password that the page asks for; use it with --host",
    )
    add("--no_browser", action="store_true", help="do not open the page, only print its address")
    add("--gpu", help="GPU number, or cpu; default: GPU 0 if there is one")
    return parser


@cli.command
def main(argv=None):
    """Serve the page until Ctrl-C."""
    args = build_parser().parse_args(argv)
    choices = list_choices()
    print("loading; the page opens in a moment ...", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is below is deleted
    with tempfile.TemporaryDirectory(prefix="timbre-") as root:
        keep_to_oneself(root)
        workers = start_workers(functools.partial(work.set_up, args.gpu))
        with contextlib.closing(workers):
            serve(args, choices, Tabs(root), workers)


def serve(args, choices, tabs, workers):
    """Open the page and wait for Ctrl-C."""
    titles = [title for title, _ in choices]
    page = build_page(Actions(tabs, choices, workers), titles)
    workers.converter.wait_until_ready()
    address = launch(page, tabs, args.host, args.port, not args.no_browser, args.auth, titles)
    print(f"the page is at {address} (Ctrl-C ends it)", flush=True)
    if args.auth is None and args.host not in ("127.0.0.1", "localhost", "::1"):
        print(
            "everybody in this network may use the page; --auth NAME:PASSWORD asks for a password",
            flush=True,
        )
    page.block_thread()


def keep_to_oneself(root):
    """Have Gradio report to nobody and put all files into ``root``. Before it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(Path(root) / "uploads")
    tempfile.tempdir = str(root)


if __name__ == "__main__":
    raise SystemExit(main())
