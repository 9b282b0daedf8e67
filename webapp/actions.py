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
from webapp.tabs import KEPT_UPLOADS, Full, Result
from webapp.worker import Busy, Died, Pool, Stopped, Worker

FIRST_SECONDS = 120  # default part of a longer recording
LONGEST_SECONDS = 3600
PATIENCE = 0.2  # s between two checks of the progress
SPEEDS = {"draft": 0.2, "normal": 0.4, "best": 1.0}  # s of work for 1 s of sound, two cores
WAITING = 20  # conversions of all tabs together

QUALITIES = {  # keys of `convert.QUALITIES`, and what the page says of them
    "draft": "a first impression",
    "normal": "a clear sound",
    "best": "a little closer in timbre",
}
GONE = "The recording is no longer here. Drop it again."
FULL = "Too many people use this page at the moment. Try again in a minute."
NO_ROOM = "There is no room for that on the disk now. Choose a shorter part, or try again later."
WRITE = "write from - to, such as 0:12 - 0:40, or all"


class Example(NamedTuple):
    """A recording to try."""

    path: str  # from the project's folder
    credit: str  # whose it is; docs/licences.md says more


SMS_TOOLS = "sms-tools, Music Technology Group, UPF (CC BY 4.0)"
EXAMPLES = {  # by what their buttons say
    "piano": Example("docs/audio/recorded_piano.ogg", SMS_TOOLS),
    "cello": Example("docs/audio/cello.ogg", SMS_TOOLS),
    "saxophone": Example("docs/audio/saxophone.ogg", SMS_TOOLS),
    "trumpet": Example("docs/audio/trumpet.ogg", "Mihai Sorohan (CC BY 3.0)"),
    "sampled piano": Example("docs/audio/piano.mp3", "notes by Alexander Holm (CC BY 3.0)"),
}


class Workers(NamedTuple):
    """The processes that measure and convert recordings; a bad file may crash them, or hang."""

    listener: Pool
    converter: Worker
    load: object  # of `work.convert_order`

    def close(self):
        """End all processes."""
        self.listener.close()
        self.converter.close()


def start_workers(setup=None, load=work.load_model):
    """`Workers`; ``setup`` is called in the converting one before all else."""
    return Workers(Pool(work.set_up_listener), Worker(setup, WAITING), load)


def parse_part(text, length):
    """Parse the part of a recording of ``length`` s in text such as "0:12 - 0:40".

    A single time is the end; "all" or empty text is the whole recording.

    Returns:
        (start, seconds): s.

    Raises:
        UserError: it is not a part of the recording, or longer than `LONGEST_SECONDS`.
    """
    words = str(text or "").replace("–", "-").strip().lower()
    start, end = 0.0, length
    if words not in ("", "all"):
        try:
            times = [cli.seconds()(word.strip()) for word in words.split("-")]
        except (argparse.ArgumentTypeError, ValueError):
            raise UserError(f"part '{cli.one_line(text)}' is not a time; {WRITE}") from None
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
    """Default part of a recording of ``length`` s, for `parse_part`: all, or the first part."""
    if length <= FIRST_SECONDS:
        return "all"
    return f"0:00 - {markup.describe_length(FIRST_SECONDS)}"


def list_remarks(summary):
    """List remarks about a recording, `work.Summary`, with the words of predict.py."""
    remarks = list(summary.remarks)
    if summary.survey.remark:
        remarks.append(f"{summary.survey.remark}; expect little")
    return remarks


class Actions:
    """The page's actions for drops and clicks.

    Args:
        tabs: `Tabs`.
        choices: see `list_choices`.
        workers: `Workers`.
    """

    def __init__(self, tabs, choices, workers):
        self._tabs = tabs
        self._paths = dict(choices)  # of models; the page uses labels, not paths
        self._workers = workers
        self._speeds = dict(SPEEDS)

    def try_example(self, name, session):
        """Copy an example, given by its name in `EXAMPLES`, for this tab: path of the copy."""
        example = cli.PROJECT / EXAMPLES[name].path
        path = self._tabs.new_upload(example.name).with_name(example.name)
        shutil.copyfile(example, path)
        self._tabs.add_upload(path, example.name)
        self._tabs.claim(session, str(path))
        return str(path)

    async def look(self, uploads, recording, session):
        """Recordings came or went.

        Returns:
            (part that is offered or "", HTML of what they are, choices of the quality).
        """
        tab = self._tabs.of(session)
        files = tab.choose(uploads, recording)
        texts = []
        seconds = 0.0
        try:
            check_files(files)
            copies = tab.new_copies(len(files))
            for file, copy in zip(files, copies):
                text, length = await self._look_at(tab, file, copy)
                texts.append(text)
                seconds += min(length, FIRST_SECONDS)
        except Stopped:  # another recording came meanwhile and has its own message
            return "", "", self.name_qualities()
        except UserError as error:
            texts = [markup.write_mistake(str(error))] if files else []
        part = ""
        if len(files) == 1 and seconds:
            part = write_part(tab.lengths[str(files[0].path)])
        return part, "".join(texts), self.name_qualities(seconds)

    async def _look_at(self, tab, file, copy):
        """(HTML of what a `webapp.tabs.File` is, its length in s, 0 if it cannot be read)."""
        try:
            summary = await self._listen(tab, file, str(copy), "listening")
        except (UserError, Died, Busy, RuntimeError) as error:
            return markup.write_mistake(in_words(error, file)), 0.0
        sound = tab.publish(copy, "original.wav")
        text = markup.write_recording(file.name, summary, sound, list_remarks(summary))
        return text, summary.seconds

    async def _listen(self, tab, file, copy, kind):
        """`work.Summary` of a file, by a job of this kind of the tab. Raises as `finish`."""
        job = self._workers.listener.submit(work.listen_to, str(file.path), copy)
        tab.begin(kind, job)
        try:
            summary = await finish(job)
        finally:
            job.stop()  # if the page went away meanwhile
        tab.lengths[str(file.path)] = summary.seconds
        tab.sizes[str(file.path)] = summary.bytes_per_second
        return summary

    def name_qualities(self, seconds=0.0):
        """(what the page says, key of `convert.QUALITIES`) for so many seconds of sound."""
        choices = []
        for quality, words in QUALITIES.items():
            text = f"{quality}: {words}"
            if seconds:
                wait = markup.describe_wait(seconds * self._speeds[quality])
                text += f", {wait} for each instrument"
            choices.append((text, quality))
        return choices

    async def start(self, uploads, recording, titles, how, part, session):
        """Convert; ``titles`` are those of the instruments, ``how`` is `work.How`.

        Yields:
            (HTML of all results or None for no news, HTML of the progress, whether it goes on).
        """
        tab = self._tabs.of(session)
        titles = [titles] if isinstance(titles, str) else list(dict.fromkeys(titles or []))
        try:
            files = tab.choose(uploads, recording)
            check_files(files)
            if not titles:
                raise UserError("Choose an instrument first.")
            spans = [find_span(tab, file, part if len(files) == 1 else None) for file in files]
        except UserError as error:
            yield None, markup.write_mistake(str(error)), False
            return
        mistakes = ""
        rest = len(titles) * sum(seconds for _, seconds in spans)  # of sound, still to be made
        try:
            for file, span in zip(files, spans):
                rest -= len(titles) * span[1]
                batch = tab.new_batch(file.name)
                try:
                    if str(file.path) not in tab.lengths:  # where it hangs, nobody waits for it
                        yield None, markup.write_progress("Listening to it ..."), True
                        await self._listen(tab, file, None, "converting")
                        span = find_span(tab, file, part if len(files) == 1 else None)
                    steps = self._convert_file(tab, batch, file, span, titles, how, rest)
                    async with contextlib.aclosing(steps):
                        async for step in steps:
                            yield step
                except (UserError, Died, Busy, Full, RuntimeError) as error:
                    mistakes += markup.write_mistake(in_words(error, file))
                finally:
                    if not batch.results:
                        tab.drop(batch)
        except Stopped:
            pass
        yield markup.write_batches(tab.batches), mistakes, False

    async def _convert_file(self, tab, batch, file, span, titles, how, rest):
        """Convert a file with each instrument into a batch; yields as `start`.

        ``span`` is (start, seconds) of the part, ``rest`` the seconds of sound that come after it.
        """
        start, seconds = span
        size = (1 + len(titles)) * seconds * tab.sizes[str(file.path)]
        with self._tabs.reserved(size):
            for k, title in enumerate(titles, 1):
                order = work.Order(
                    str(file.path), start, seconds, self._paths[title], how, batch.folder
                )
                later = rest + (len(titles) - k) * seconds
                steps = self._convert(tab, batch, title, order, seconds, later)
                async with contextlib.aclosing(steps):
                    async for step in steps:
                        yield step

    async def _convert(self, tab, batch, title, order, expected, later):
        """Add to a batch what comes of an order, of about ``expected`` s; yields as `start`.

        ``later`` are the seconds of sound to convert after it.
        """
        quality = order.how.quality
        job = self._submit(tab, order, expected)
        try:
            async for text in self._follow(job, title, later * self._speeds[quality]):
                yield None, text, True
            add_result(tab, batch, title, order, await finish(job))
            if expected >= 5:  # shorter times are too inexact
                self._speeds[quality] = job.took / expected
            yield markup.write_batches(tab.batches), "", True
        finally:
            job.stop()  # if the page went away meanwhile

    def stop(self, session):
        """End the conversion under way."""
        self._tabs.of(session).stop("converting")

    def leave(self, session):
        """Handle a closed tab."""
        self._tabs.end(session)

    def _submit(self, tab, order, expected):
        """Submit an order: its `Job`, which ends with the tab. Raises Busy."""
        cost = expected * self._speeds[order.how.quality]
        converter, load = self._workers.converter, self._workers.load
        job = converter.submit(work.convert_order, load, order, cost=cost)
        tab.begin("converting", job)
        return job

    async def _follow(self, job, label, later):
        """Yield HTML of how far a job is, whenever that changes, until it is done."""
        told = None
        while not job.is_done and not job.is_stopped:
            text = self.describe_job(job, label, later)
            if text != told:
                yield text
            told = text
            await asyncio.sleep(PATIENCE)

    def describe_job(self, job, label, later=0.0):
        """HTML of a job's progress; ``later``: s of further work that its page waits for."""
        title = label.capitalize()
        before = self._workers.converter.jobs_before(job)
        wait = sum(other.left() for other in before)
        if before:
            text = f"{title}: {len(before)} before you, {markup.describe_wait(wait)}"
        elif not job.part:
            text = f"{title}: begins in a moment"
        else:
            text = f"{title}: {100 * job.part:.0f} %, {markup.describe_wait(job.left())} more"
        if later:  # others take turns with this page, one conversion each
            whole = wait + job.left() + later * (1 + len(before))
            text += f"; all of it in {markup.describe_wait(whole)}"
        return markup.write_progress(text, job.part or None)


def check_files(files):
    """Raise UserError unless there are `webapp.tabs.File` to convert, and not too many."""
    if not files:
        raise UserError("Drop a recording first, or record one.")
    if len(files) > KEPT_UPLOADS:
        raise UserError(f"{len(files)} recordings at once are too many; drop {KEPT_UPLOADS}.")
    if None in files:
        raise UserError(GONE)


def find_span(tab, file, part):
    """(start, seconds) of what is to be converted of a file. Raises UserError.

    ``part`` is a person's text, see `parse_part`, or None: what would be offered.
    """
    length = tab.lengths.get(str(file.path))
    if part is None:
        part = write_part(length or FIRST_SECONDS)
    start, seconds = parse_part(part, length or LONGEST_SECONDS)
    return start, seconds if length else min(seconds, FIRST_SECONDS)


def add_result(tab, batch, label, order, made):
    """Add the result of an order, `work.Made`, to a `webapp.tabs.Batch`."""
    if not batch.results:
        length = markup.describe_length(made.seconds)
        place = f" from {markup.describe_length(order.start)} on" if order.start else ""
        batch.how = f"{length}{place}, {describe(order.how)}"
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


def describe(how):
    """`work.How` in words."""
    words = [how.quality]
    if how.transpose:
        words.append("octave up" if how.transpose > 0 else "octave down")
    if how.mix < 1:
        words.append(f"{100 * how.mix:.0f} % of it the new instrument")
    return ", ".join(words)


async def finish(job):
    """Result of a job. Raises as `webapp.worker.Job.wait`; `Stopped` at once."""
    while not job.is_done:
        if job.is_stopped:
            raise Stopped
        await asyncio.sleep(PATIENCE / 4)
    return job.wait()


def in_words(error, file):
    """Explain an error of a `webapp.tabs.File`, with its name instead of its path."""
    if isinstance(error, Busy):
        return FULL
    if isinstance(error, Full):
        return NO_ROOM
    if isinstance(error, Died):
        return f"{file.name} {error}; export it again, as wav, and give that"
    if isinstance(error, UserError):
        return cli.one_line(str(error).replace(str(file.path), file.name))
    return f"{file.name}: {error}: a mistake of this program, which its terminal tells more about"
