"""Step 4 in a browser: drop or record a sound, choose instruments, hear all of them.

    pip install -r requirements-app.txt
    python app.py

Opens a page that only this computer reaches. It converts by the same code as predict.py, with the
models of pretrained/ and runs/. Nothing is sent anywhere. What was uploaded and made is deleted
when its tab is closed, and all of it when the program ends (Ctrl-C); download what you like.

With --host 0.0.0.0 every computer of the network reaches the page, and may make this one work:
give --auth NAME:PASSWORD, too. See docs/app.md.
"""

from common import cli  # isort: skip  # first, so that Ctrl-C while the rest loads is one line, too
import asyncio
import contextlib
import functools
import html
import math
import os
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

from common.cli import UserError
from conversion import convert, known_models
from conversion.run_facts import RunFacts
from research import registry
from webapp import work
from webapp.door import Door
from webapp.tabs import Result, Tabs
from webapp.worker import Busy, Died, Stopped, Worker

FIRST_SECONDS = 120  # of a recording that are offered: about as many are waited for on two cores
LONGEST_SECONDS = 3600
STEP = 0.1  # s of the slider
PATIENCE = 0.2  # s between two looks at how far a conversion is
SPEEDS = {"draft": 0.4, "normal": 0.8, "best": 2.0}  # s of work for 1 s of sound, two cores
WAITING = 20  # conversions of all tabs together

HERE = Path(__file__).resolve().parent / "webapp"
GONE = "The recording is no longer here. Drop it again."
FULL = "Too many people use this page at the moment. Try again in a minute."


class Workers(NamedTuple):
    """Processes that listen to recordings and convert them; either may die of a file."""

    listener: Worker
    converter: Worker
    load: object  # of `work.convert_order`

    def close(self):
        """End both."""
        self.listener.close()
        self.converter.close()


def start_workers(setup=None, load=work.load_model):
    """`Workers`; ``setup`` is called in the converting one before all else."""
    return Workers(Worker(), Worker(setup, WAITING), load)


def describe_length(seconds):
    """Length of a recording as text: "8.2 s", from a minute on "1:01"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def describe_recording(name, heard):
    """What the page says of a recording, as HTML; ``heard`` is a `work.Heard`."""
    lines = [f"<b>{html.escape(name)}</b> is {describe_length(heard.seconds)} long."]
    if heard.seconds > FIRST_SECONDS:
        first = FIRST_SECONDS // 60
        lines[0] += f" Its first {first} minutes are converted; more takes longer."
    remarks = list(heard.notes)
    if heard.survey.remark:
        remarks.append(f"{heard.survey.remark}; expect little")
    for remark in remarks:
        text = html.escape(cli.one_line(remark))
        lines.append(f"<span class='remark'>{text[0].upper()}{text[1:]}.</span>")
    return f"<div>{'<br>'.join(lines)}</div>"


def write_mistake(text):
    """HTML of what went wrong, in words."""
    return f"<div class='mistake' role='alert'>{html.escape(cli.one_line(text))}</div>"


def write_progress(text, part=None):
    """HTML of what is being done; ``part`` of it is done, 0 ... 1."""
    value = "" if part is None else f" value='{part:.3f}'"
    return f"<div class='progress'>{html.escape(text)}<progress{value}></progress></div>"


def write_batches(batches):
    """HTML of all batches, newest first."""
    parts = []
    for batch in reversed(batches):
        cards = [_write_card(result) for result in batch.results]
        heading = f"{html.escape(batch.name)} <small>{html.escape(batch.how)}</small>"
        parts.append(
            f"<section class='batch'><h2>{heading}</h2>"
            f"<div class='cards'>{''.join(cards)}</div></section>"
        )
    return "".join(parts)


def _write_card(result):
    title, name = html.escape(result.title), html.escape(result.name)
    return (
        f"<article class='card'><button class='play' data-sound='{result.sound}' "
        f"aria-pressed='false' aria-label='Play {title}'>{title}</button>"
        f"<div class='picture'><img src='{result.picture}' alt='Spectrogram: {title}'>"
        "<i></i></div>"
        f"<a class='download' href='{result.sound}' download='{name}'>Download</a></article>"
    )


def _needs_only_a_recording(path):
    """Whether a model converts a recording without any other input. Raises UserError."""
    run = RunFacts(path)
    if not run.config:
        return True
    kind = registry.read_from_run(run)
    return kind.gives_picture and not kind.takes_style


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


class Actions:
    """What the page does when something is dropped or clicked.

    Args:
        tabs: `Tabs`.
        choices: see `list_choices`.
        workers: `Workers`.
    """

    def __init__(self, tabs, choices, workers):
        self._tabs = tabs
        self._labels = {path: label for label, path in choices}
        self._workers = workers
        self._speed = dict(SPEEDS)

    async def look(self, upload, recording, session):
        """A recording came or went: (update of the seconds' slider, HTML that says what it is)."""
        import gradio as gr

        source = upload or recording
        if source is None:
            return gr.update(), ""
        tab = self._tabs.of(session)
        file = tab.uploads.get(str(source))
        if file is None:
            return gr.update(), write_mistake(GONE)
        try:
            job = self._workers.listener.submit(work.listen_to, str(source))
            tab.begin("listening", job)
            heard = await finish(job)
        except Stopped:  # another recording came meanwhile
            return gr.update(), ""
        except (UserError, Died, Busy, RuntimeError) as error:
            return gr.update(), write_mistake(in_words(error, file))
        text = describe_recording(file.name, heard)
        return make_slider(heard.seconds), text

    async def start(self, upload, recording, models, quality, seconds, session):
        """Convert; yields (HTML of all results, HTML of the progress, whether it is under way)."""
        tab = self._tabs.of(session)
        source = upload or recording
        file = tab.uploads.get(str(source))
        models = [models] if isinstance(models, str) else models
        problem = None
        if source is None:
            problem = "Drop a recording first, or record one."
        elif file is None:
            problem = GONE
        elif not models:
            problem = "Choose an instrument first."
        if problem is not None:
            yield write_batches(tab.batches), write_mistake(problem), False
            return
        batch = tab.new_batch(file.name if upload else "recording")
        mistake = ""
        try:
            for model in models:
                length = min(max(float(seconds or 0), STEP), LONGEST_SECONDS)
                order = work.Order(str(source), 0.0, length, model, quality, batch.folder)
                job = self._submit(tab, order)
                async for text in self._follow(job, self._labels[model]):
                    yield write_batches(tab.batches), text, True
                add_result(tab, batch, self._labels[model], order, await finish(job))
        except Stopped:
            pass
        except (UserError, Died, Busy, RuntimeError) as error:
            mistake = write_mistake(in_words(error, file))
        finally:
            tab.stop("converting")  # if the page went away meanwhile
            if not batch.results:
                tab.drop(batch)
        yield write_batches(tab.batches), mistake, False

    def stop(self, session):
        """End the conversion under way."""
        self._tabs.of(session).stop("converting")

    def leave(self, session):
        """The tab was closed."""
        self._tabs.end(session)

    def _submit(self, tab, order):
        """The `Job` of an order, which ends with the tab. Raises Busy."""
        cost = order.seconds * self._speed[order.quality]
        converter, load = self._workers.converter, self._workers.load
        job = converter.submit(work.convert_order, load, order, cost=cost)
        tab.begin("converting", job)
        return job

    async def _follow(self, job, label):
        """Yield HTML of how far a job is, whenever that changes, until it is done."""
        told = None
        while not job.is_done and not job.is_stopped:
            text = self._describe(job, label)
            if text != told:
                yield text
            told = text
            await asyncio.sleep(PATIENCE)

    def _describe(self, job, label):
        """HTML of how far a job is."""
        before = self._workers.converter.jobs_before(job)
        if before:
            seconds = sum(other.left() for other in before)
            return write_progress(f"{label}: {len(before)} before you, {describe_wait(seconds)}")
        if not job.part:
            return write_progress(f"{label}: loading the network")
        left = describe_wait(job.left())
        return write_progress(f"{label}: {100 * job.part:.0f} %, {left}", job.part)


def add_result(tab, batch, label, order, made):
    """Add what came of an order, `work.Made`, to a `Batch`."""
    if not batch.results:
        batch.how = f"{describe_length(made.seconds)}, {order.quality}"
        sound = tab.publish(made.before, "input.wav")
        picture = tab.publish(made.before_picture, "input.png")
        batch.results.append(Result("Original", "input.wav", sound, picture))
    stem = Path(batch.name).stem[:80]
    name = f"{stem}_{known_models.make_label(order.model)}.wav"
    sound = tab.publish(made.after, name)
    picture = tab.publish(made.after_picture, "output.png")
    batch.results.append(Result(label, name, sound, picture))


async def finish(job):
    """Result of a job. Raises as `webapp.worker.Job.wait`; `Stopped` at once."""
    while not job.is_done:
        if job.is_stopped:
            raise Stopped
        await asyncio.sleep(PATIENCE / 4)
    return job.wait()


def describe_wait(seconds):
    """A time that is to be waited for, in words."""
    if seconds < 1.5:
        return "a moment more"
    if seconds < 90:
        return f"about {seconds:.0f} s more"
    return f"about {seconds / 60:.0f} minutes more"


def make_slider(length):
    """Update of the slider of seconds for a recording of ``length`` s: all of it, or its first."""
    import gradio as gr

    top = math.ceil(round(min(length, LONGEST_SECONDS) / STEP, 6)) * STEP  # never less
    is_needed = top >= 2 * STEP
    return gr.update(maximum=max(top, 2 * STEP), value=min(top, FIRST_SECONDS), visible=is_needed)


def in_words(error, file):
    """What went wrong with a `webapp.tabs.File`, for people: its name in place of its path."""
    if isinstance(error, Busy):
        return FULL
    if isinstance(error, Died):
        return f"{file.name} {error}; export it again, as wav, and give that"
    if isinstance(error, UserError):
        return cli.one_line(str(error).replace(str(file.path), file.name))
    return f"{file.name}: {error}: a mistake of this program, which its terminal tells more about"


def build_page(actions, choices):
    """The page, as gradio.Blocks.

    Args:
        actions: `Actions`.
        choices: see `list_choices`.
    """
    import gradio as gr

    async def look(upload, recording, request: gr.Request):
        return await actions.look(upload, recording, request.session_hash)

    async def start(upload, recording, model, quality, seconds, request: gr.Request):
        session = request.session_hash
        work = actions.start(upload, recording, model, quality, seconds, session)
        async with contextlib.aclosing(work) as steps:
            async for results, status, is_busy in steps:
                yield results, status, gr.update(visible=not is_busy), gr.update(visible=is_busy)

    def stop(request: gr.Request):
        actions.stop(request.session_hash)

    def leave(request: gr.Request):
        actions.leave(request.session_hash)

    with gr.Blocks(title="Timbre transfer", analytics_enabled=False) as page:
        gr.Markdown("# The same music on another instrument")
        with gr.Row():
            with gr.Column():
                upload = gr.File(label="A recording or a video", elem_id="upload")
                heard = gr.HTML(elem_id="heard")
                recording = gr.Audio(
                    sources=["microphone"], type="filepath", label="or record one", buttons=[]
                )
            with gr.Column():
                model = gr.CheckboxGroup(
                    choices, value=[choices[0][1]], label="Instrument", elem_id="instruments"
                )
                quality = gr.Radio(
                    list(convert.QUALITIES),
                    value="normal",
                    label="Quality",
                    info="draft takes half as long as normal, best almost three times as long",
                )
                seconds = gr.Slider(
                    STEP,
                    FIRST_SECONDS,
                    value=FIRST_SECONDS,
                    step=STEP,
                    label="Seconds to convert",
                    elem_id="seconds",
                )
                button = gr.Button("Convert", variant="primary", elem_id="convert")
                end = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)
        status = gr.HTML(elem_id="status")
        results = gr.HTML(js_on_load=read_file("page.js"), elem_id="results")

        sounds = [upload, recording]
        for component in sounds:
            component.change(look, sounds, [seconds, heard], queue=False, show_progress="hidden")
        button.click(
            start,
            [*sounds, model, quality, seconds],
            [results, status, button, end],
            concurrency_limit=None,
            show_progress="hidden",
        )
        end.click(stop, queue=False)
        page.unload(leave)
    return page


def read_file(name):
    """Text of a file of webapp/."""
    return (HERE / name).read_text(encoding="utf-8")


def launch(page, tabs, host, port, open_browser, auth=None, **options):
    """Serve a page in the background; `gradio.Blocks.block_thread` then waits for Ctrl-C.

    Returns:
        Its address.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    fonts = ["system-ui", "sans-serif"]  # Gradio's own are fetched from elsewhere
    theme = gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])
    page.queue(default_concurrency_limit=1, max_size=4 * WAITING)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        quiet=True,  # it would recommend a public link
        prevent_thread_lock=True,
        ssr_mode=False,
        theme=theme,
        css=read_file("page.css"),
        footer_links=[],
        app_kwargs={"middleware": [Middleware(Door, tabs=tabs, host=host, auth=auth)]},
        **options,
    )
    return address


def name_and_password(text):
    """An argparse ``type=`` for NAME:PASSWORD."""
    name, colon, password = text.partition(":")
    if not name or not colon or not password:
        raise cli.argparse.ArgumentTypeError(f"'{text}' is not of the form NAME:PASSWORD")
    return name, password


def build_parser():
    """All flags."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: other computers, too")
    add("--port", type=cli.number(int, 1, 65535), help="port; default: the first free from 7860")
    add(
        "--auth",
        type=name_and_password,
        metavar="NAME:PASSWORD",
        help="let in only who knows these; for --host",
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
    page = build_page(Actions(tabs, choices, workers), choices)
    workers.converter.wait_until_ready()
    address = launch(page, tabs, args.host, args.port, not args.no_browser, args.auth)
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
