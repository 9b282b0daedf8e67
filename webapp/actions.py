"""The actions of app.py's page: inspect a dropped file, convert it, stop, close the tab."""

import argparse
import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import NamedTuple

from common import cli
from common.cli import UserError
from conversion import known_models
from webapp import markup, work
from webapp.tabs import Full, Result
from webapp.worker import Busy, Died, Stopped, Worker

FIRST_SECONDS = 120  # of a longer recording are offered
LONGEST_SECONDS = 3600
PATIENCE = 0.2  # s between two looks at how far a conversion is
SPEEDS = {"draft": 0.2, "normal": 0.4, "best": 1.0}  # s of work for 1 s of sound, two cores
BYTES = 3 * 2 * 44100  # of 1 s of sound
WAITING = 20  # conversions of all tabs together

EXAMPLES = {"a sampled grand piano": "docs/audio/piano.mp3"}  # by what its button says
GONE = "The recording is no longer here. Drop it again."
FULL = "Too many people use this page at the moment. Try again in a minute."
NO_ROOM = "There is no room for that on the disk now. Choose a shorter part, or try again later."
WRITE = "write from - to, such as 0:12 - 0:40, or all"


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


def list_remarks(summary):
    """Sentences on what is unusual in a recording, `work.Summary`, as predict.py says them."""
    remarks = list(summary.remarks)
    if summary.survey.remark:
        remarks.append(f"{summary.survey.remark}; expect little")
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
            summary = await finish(job)
        except Stopped:  # another recording came meanwhile, and is told of
            return "", ""
        except (UserError, Died, Busy, RuntimeError) as error:
            return "", markup.write_mistake(in_words(error, file))
        tab.lengths[str(file.path)] = summary.seconds
        tab.sizes[str(file.path)] = summary.bytes_per_second
        sound = tab.publish(copy, "original.wav")
        wait = min(summary.seconds, FIRST_SECONDS) * self._speeds["normal"]
        text = markup.write_recording(file.name, summary, sound, list_remarks(summary), wait)
        return write_part(summary.seconds), text

    async def start(self, upload, recording, titles, quality, part, session):
        """Convert; ``titles`` are those of the instruments.

        Yields:
            (HTML of all results or None for no news, HTML of the progress, whether it goes on).
        """
        tab = self._tabs.of(session)
        titles = [titles] if isinstance(titles, str) else list(dict.fromkeys(titles or []))
        try:
            file = self._choose(tab, upload, recording, titles)
            length = tab.lengths.get(str(file.path))
            start, seconds = parse_part(part, length or LONGEST_SECONDS)
        except UserError as error:
            yield None, markup.write_mistake(str(error)), False
            return
        batch = tab.new_batch(file.name)
        mistake = ""
        expected = seconds if length else FIRST_SECONDS
        size = (1 + len(titles)) * expected * tab.sizes.get(str(file.path), BYTES)
        try:
            with self._tabs.reserved(size):
                for title in titles:
                    model = self._paths[title]
                    order = work.Order(str(file.path), start, seconds, model, quality, batch.folder)
                    steps = self._convert(tab, batch, title, order, expected)
                    async with contextlib.aclosing(steps):
                        async for step in steps:
                            yield step
        except Stopped:
            pass
        except (UserError, Died, Busy, Full, RuntimeError) as error:
            mistake = markup.write_mistake(in_words(error, file))
        finally:
            if not batch.results:
                tab.drop(batch)
        yield markup.write_batches(tab.batches), mistake, False

    async def _convert(self, tab, batch, title, order, expected):
        """Add to a batch what comes of an order, of about ``expected`` s; yields as `start`."""
        job = self._submit(tab, order, expected)
        try:
            async for text in self._follow(job, title):
                yield None, text, True
            add_result(tab, batch, title, order, await finish(job))
            if expected >= 5:  # shorter ones tell little
                self._speeds[order.quality] = job.took / expected
            yield markup.write_batches(tab.batches), "", True
        finally:
            job.stop()  # if the page went away meanwhile

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

    def _submit(self, tab, order, expected):
        """The `Job` of an order, which ends with the tab. Raises Busy."""
        cost = expected * self._speeds[order.quality]
        converter, load = self._workers.converter, self._workers.load
        job = converter.submit(work.convert_order, load, order, cost=cost)
        tab.begin("converting", job)
        return job

    async def _follow(self, job, label):
        """Yield HTML of how far a job is, whenever that changes, until it is done."""
        told = None
        while not job.is_done and not job.is_stopped:
            text = self.describe_job(job, label)
            if text != told:
                yield text
            told = text
            await asyncio.sleep(PATIENCE)

    def describe_job(self, job, label):
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
        loudness = made.loudness_before
        result = Result("original", "input.wav", sound, picture, made.seconds, loudness)
        batch.results.append(result)
    stem = Path(batch.name).stem[:80]
    name = f"{stem}_{known_models.make_label(order.model)}.wav"
    sound = tab.publish(made.after, name)
    picture = tab.publish(made.after_picture, "output.png")
    batch.results.append(Result(label, name, sound, picture, made.seconds, made.loudness))


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
