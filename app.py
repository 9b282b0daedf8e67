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
import argparse
import asyncio
import contextlib
import functools
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

from common.cli import UserError
from common.run_facts import RunFacts
from conversion import known_models
from research import registry
from webapp import markup, work
from webapp.door import Door
from webapp.tabs import Full, Result, Tabs
from webapp.worker import Busy, Died, Stopped, Worker

FIRST_SECONDS = 120  # of a longer recording are offered
LONGEST_SECONDS = 3600
PATIENCE = 0.2  # s between two looks at how far a conversion is
SPEEDS = {"draft": 0.2, "normal": 0.4, "best": 1.0}  # s of work for 1 s of sound, two cores
BYTES = 3 * 2 * 44100  # of 1 s of sound
WAITING = 20  # conversions of all tabs together

EXAMPLES = {"a grand piano": "docs/audio/piano.mp3"}  # by what its button says
QUALITIES = [  # (what the page says, key of `convert.QUALITIES`)
    ("draft: a first impression in half the time", "draft"),
    ("normal", "normal"),
    ("best: a little cleaner, in two and a half times the time", "best"),
]
GONE = "The recording is no longer here. Drop it again."
FULL = "Too many people use this page at the moment. Try again in a minute."
NO_ROOM = "There is no room for that on the disk now. Choose a shorter part, or try again later."
WRITE = "write from - to, such as 0:12 - 0:40, or all"
HEADING = """<h1>The same music on another instrument</h1>
<p>Drop a recording of a piano alone, and hear it as other instruments play it.</p>"""


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


def parse_part(text, length):
    """Which part of a recording of ``length`` s is meant by text such as "0:12 - 0:40".

    One time alone is the end; "all" or nothing is all.

    Returns:
        (start, seconds): s.

    Raises:
        UserError: it is no part of the recording, or longer than `LONGEST_SECONDS`.
    """
    words = str(text or "").replace("–", "-").strip().lower()
    start, end = 0.0, length
    if words not in ("", "all"):
        try:
            times = [cli.seconds()(word.strip()) for word in words.split("-")]
        except (argparse.ArgumentTypeError, ValueError):
            raise UserError(f"part '{cli.one_line(text)}' is no time; {WRITE}") from None
        if len(times) > 2:
            raise UserError(f"part '{cli.one_line(text)}' has more than two times; {WRITE}")
        start, end = [0.0, *times][-2:]
    end = min(end, length)
    if start >= end:
        is_long = markup.describe_length(length)
        raise UserError(
            f"part '{cli.one_line(text)}' holds nothing of this recording, which is {is_long} "
            f"long; {WRITE}"
        )
    if end - start > LONGEST_SECONDS:
        raise UserError("more than an hour is too much at once; choose a part")
    return start, end - start


def write_part(length):
    """What is offered of a recording of ``length`` s, for `parse_part`: all, or the first part."""
    if length <= FIRST_SECONDS:
        return "all"
    return f"0:00 - {markup.describe_length(FIRST_SECONDS)}"


def list_remarks(heard):
    """Sentences on what is unusual in a recording, `work.Heard`, as predict.py says them."""
    remarks = list(heard.notes)
    if heard.survey.remark:
        remarks.append(f"{heard.survey.remark}; expect little")
    return remarks


class Actions:
    """What the page does when something is dropped or clicked.

    Args:
        tabs: `Tabs`.
        choices: see `list_choices`.
        workers: `Workers`.
    """

    def __init__(self, tabs, choices, workers):
        self._tabs = tabs
        self._paths = dict(choices)  # of models; what the page calls them is no path
        self._workers = workers
        self._speeds = dict(SPEEDS)

    def try_example(self, name, session):
        """Path of a copy of an example, by its name in `EXAMPLES`, for this tab alone."""
        example = cli.PROJECT / EXAMPLES[name]
        path = self._tabs.new_upload(example.name).with_name(example.name)
        shutil.copyfile(example, path)
        self._tabs.add_upload(path, example.name)
        self._tabs.claim(session, str(path))
        return str(path)

    async def look(self, upload, recording, session):
        """A recording came or went: (part that is offered or "", HTML of what it is)."""
        tab = self._tabs.of(session)
        file = tab.choose(upload, recording)
        if upload is None and recording is None:
            return "", ""
        if file is None:
            return "", markup.write_mistake(GONE)
        copy = tab.new_copy()
        try:
            job = self._workers.listener.submit(work.listen_to, str(file.path), str(copy))
            tab.begin("listening", job)
            heard = await finish(job)
        except Stopped:  # another recording came meanwhile, and is told of
            return "", ""
        except (UserError, Died, Busy, RuntimeError) as error:
            return "", markup.write_mistake(in_words(error, file))
        tab.lengths[str(file.path)] = heard.seconds
        sound = tab.publish(copy, "original.wav")
        wait = min(heard.seconds, FIRST_SECONDS) * self._speeds["normal"]
        text = markup.write_recording(file.name, heard, sound, list_remarks(heard), wait)
        return write_part(heard.seconds), text

    async def start(self, upload, recording, titles, quality, part, session):
        """Convert; ``titles`` are those of the instruments.

        Yields:
            (HTML of all results or None for no news, HTML of the progress, whether it goes on).
        """
        tab = self._tabs.of(session)
        titles = [titles] if isinstance(titles, str) else titles
        try:
            file = self._choose(tab, upload, recording, titles)
            length = tab.lengths.get(str(file.path), LONGEST_SECONDS)
            start, seconds = parse_part(part, length)
        except UserError as error:
            yield None, markup.write_mistake(str(error)), False
            return
        size = (1 + len(titles)) * seconds * BYTES
        batch = tab.new_batch(file.name)
        mistake = ""
        job = None
        reserved = 0
        try:
            self._tabs.reserve(size)
            reserved = size
            for title in titles:
                model = self._paths[title]
                order = work.Order(str(file.path), start, seconds, model, quality, batch.folder)
                job = self._submit(tab, order)
                async for text in self._follow(job, title):
                    yield None, text, True
                add_result(tab, batch, title, order, await finish(job))
                self._learn_speed(order, job)
                yield markup.write_batches(tab.batches), "", True
        except Stopped:
            pass
        except (UserError, Died, Busy, Full, RuntimeError) as error:
            mistake = markup.write_mistake(in_words(error, file))
        finally:
            self._tabs.release(reserved)
            if job is not None:
                job.stop()  # if the page went away meanwhile
            if not batch.results:
                tab.drop(batch)
        yield markup.write_batches(tab.batches), mistake, False

    def stop(self, session):
        """End the conversion under way."""
        self._tabs.of(session).stop("converting")

    def leave(self, session):
        """The tab was closed."""
        self._tabs.end(session)

    def _choose(self, tab, upload, recording, titles):
        """`webapp.tabs.File` of what is to be converted. Raises UserError for nothing."""
        file = tab.choose(upload, recording)
        if upload is None and recording is None:
            raise UserError("Drop a recording first, or record one.")
        if file is None:
            raise UserError(GONE)
        if not titles:
            raise UserError("Choose an instrument first.")
        return file

    def _submit(self, tab, order):
        """The `Job` of an order, which ends with the tab. Raises Busy."""
        cost = order.seconds * self._speeds[order.quality]
        converter, load = self._workers.converter, self._workers.load
        job = converter.submit(work.convert_order, load, order, cost=cost)
        tab.begin("converting", job)
        return job

    def _learn_speed(self, order, job):
        """Expect the next conversion to be as fast as this one."""
        if order.seconds >= 5:  # shorter ones tell little
            self._speeds[order.quality] = job.took / order.seconds

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
        title = label.capitalize()
        before = self._workers.converter.jobs_before(job)
        if before:
            wait = markup.describe_wait(sum(other.left() for other in before))
            return markup.write_progress(f"{title}: {len(before)} before you, {wait}")
        if not job.part:
            return markup.write_progress(f"{title}: begins in a moment")
        wait = markup.describe_wait(job.left())
        return markup.write_progress(f"{title}: {100 * job.part:.0f} %, {wait} more", job.part)


def add_result(tab, batch, label, order, made):
    """Add what came of an order, `work.Made`, to a `webapp.tabs.Batch`."""
    if not batch.results:
        length = markup.describe_length(made.seconds)
        place = f" from {markup.describe_length(order.start)} on" if order.start else ""
        batch.how = f"{length}{place}, {order.quality}"
        sound = tab.publish(made.before, "input.wav")
        picture = tab.publish(made.before_picture, "input.png")
        batch.results.append(Result("original", "input.wav", sound, picture))
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


def in_words(error, file):
    """What went wrong with a `webapp.tabs.File`, for people: its name in place of its path."""
    if isinstance(error, Busy):
        return FULL
    if isinstance(error, Full):
        return NO_ROOM
    if isinstance(error, Died):
        return f"{file.name} {error}; export it again, as wav, and give that"
    if isinstance(error, UserError):
        return cli.one_line(str(error).replace(str(file.path), file.name))
    return f"{file.name}: {error}: a mistake of this program, which its terminal tells more about"


def build_page(actions, titles):
    """The page, as gradio.Blocks: ``actions`` of its instruments, which are called ``titles``."""
    import gradio as gr

    with gr.Blocks(title="Timbre transfer", analytics_enabled=False) as page:
        gr.HTML(HEADING, elem_id="heading")
        with gr.Row(elem_id="sources", equal_height=True):
            upload = gr.File(
                label="A recording or a video", show_label=False, elem_id="upload", height=130
            )
            recording = gr.Audio(
                sources=["microphone"],
                type="filepath",
                label="or record one",
                show_label=False,
                elem_id="recording",
                buttons=[],
            )
        with gr.Row(elem_id="examples"):
            examples = {name: gr.Button(f"or try {name}", size="sm") for name in EXAMPLES}
        heard = gr.HTML(elem_id="heard")
        part = gr.Textbox(
            "all",
            label="Part to convert",
            info="all, or from - to, such as 0:12 - 0:40: write it, or draw it in the wave",
            elem_id="part",
            visible=False,
        )
        model = gr.CheckboxGroup(
            titles,
            value=titles,
            label="Instrument",
            elem_id="instruments",
        )
        quality = gr.Radio(QUALITIES, value="normal", label="Quality", elem_id="quality")
        button = gr.Button("Convert", variant="primary", elem_id="convert")
        end = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)
        status = gr.HTML(elem_id="status")
        results = gr.HTML(js_on_load=markup.read_file("page.js"), elem_id="results")
        connect(
            actions,
            page,
            [upload, recording],
            examples,
            ask=[model, quality, part],
            tell=[results, status, button, end],
            heard=heard,
        )
    return page


def connect(actions, page, sounds, examples, ask, tell, heard):
    """Have the page's components call `Actions`; what they are is in `build_page`."""
    import gradio as gr

    async def look(upload, recording, request: gr.Request):
        part, text = await actions.look(upload, recording, request.session_hash)
        return gr.update(value=part, visible=part != ""), text

    async def start(upload, recording, model, quality, part, request: gr.Request):
        steps = actions.start(upload, recording, model, quality, part, request.session_hash)
        async with contextlib.aclosing(steps):
            async for results, status, is_busy in steps:
                shown = gr.skip() if results is None else results
                yield shown, status, gr.update(visible=not is_busy), gr.update(visible=is_busy)

    def stop(request: gr.Request):
        actions.stop(request.session_hash)

    def leave(request: gr.Request):
        actions.leave(request.session_hash)

    listening = markup.write_progress("Listening to it ...")
    say = f"(dropped, recorded) => (dropped || recorded ? {listening!r} : '')"
    for component in sounds:
        part = ask[-1]
        component.change(None, sounds, heard, js=say)  # at once
        component.change(look, sounds, [part, heard], queue=False, show_progress="hidden")
    for name, button in examples.items():

        def try_example(request: gr.Request, name=name):
            return actions.try_example(name, request.session_hash)

        button.click(try_example, None, sounds[0], queue=False, show_progress="hidden")
    _, _, button, end = tell
    how = {"concurrency_limit": None, "show_progress": "hidden"}
    button.click(start, [*sounds, *ask], tell, **how)
    end.click(stop, queue=False)
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
