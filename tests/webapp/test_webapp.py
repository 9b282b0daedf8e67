"""app.py's server as an attacker and a careless user meet it: real requests to the real page."""

import base64
import concurrent.futures
import errno
import http.client
import json
import re
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import matplotlib.image
import pytest
from conftest import HANG
from sounds import encode, load_identity, noise, tone, write
from worker_jobs import (
    abort,
    add,
    exhaust_memory,
    hang_at_mp3,
    kill,
    load_or_crash,
    raise_error,
    sleep,
)

from common import cli
from common.cli import UserError
from sound import recordings
from sound.recordings import open_sound

pytest.importorskip("gradio")
import app
from webapp import actions, work
from webapp.door import Door
from webapp.tabs import Full, Tabs
from webapp.worker import Busy, Died, Job, Pool, Stopped, Worker

CHOICES = [("guitar", "x_2_guitar"), ("crash", "x_2_crash")]


class Page:
    """The page as seen by one browser tab, by HTTP."""

    def __init__(self, address, session=None):
        self.address = address
        self.session = session or uuid.uuid4().hex[:11]

    def ask(self, method, path, body=None, headers=()):
        """(status, text) of a request."""
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=HANG)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def fetch(self, address):
        """Bytes of what is served at an address of the page."""
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=HANG)
        try:
            connection.request("GET", address)
            return connection.getresponse().read()
        finally:
            connection.close()

    def post(self, path, content):
        body = json.dumps(content)
        return self.ask("POST", path, body, {"Content-Type": "application/json"})

    def upload(self, path, name=None):
        """Upload a file; returns what the page then calls it by."""
        head = (
            '--x\r\nContent-Disposition: form-data; name="files"; '
            f'filename="{name or path.name}"\r\n\r\n'
        )
        body = head.encode() + path.read_bytes() + b"\r\n--x--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        status, text = self.ask("POST", "/gradio_api/upload", body, kind)
        assert status == 200, text
        return as_file(json.loads(text)[0])

    def look(self, file):
        """(part that is offered, HTML) of a recording that was dropped."""
        files = file if isinstance(file, list) else [file]
        call = {"data": [files, None], "session_hash": self.session}
        status, text = self.post("/gradio_api/run/look", call)
        assert status == 200, text
        part, text, self.qualities = json.loads(text)["data"]
        return part["value"], text

    def join(self, file, title="guitar", part="all", quality="draft", octave=0, mix=100):
        """Press Convert: (status, text)."""
        config = json.loads(self.ask("GET", "/config")[1])
        start = [call["id"] for call in config["dependencies"] if call["api_name"] == "start"]
        files = file if isinstance(file, list) else [file]
        data = [files, None, title.split(), quality, octave, mix, part]
        call = {"data": data, "fn_index": start[0], "session_hash": self.session}
        return self.post("/gradio_api/queue/join", call)

    def convert(self, file, **options):
        """Press Convert and wait: (HTML of the results, HTML of a mistake)."""
        status, text = self.join(file, **options)
        assert status == 200, text
        _, stream = self.ask("GET", f"/gradio_api/queue/data?session_hash={self.session}")
        messages = [json.loads(line[5:]) for line in stream.splitlines() if line.startswith("data")]
        ends = [each for each in messages if each["msg"] == "process_completed"]
        assert ends[0]["success"], ends
        return ends[0]["output"]["data"][:2]


def as_file(path):
    return {"path": path, "orig_name": "x", "meta": {"_type": "gradio.FileData"}}


def find_sounds(results):
    """Addresses of the sounds in HTML of results."""
    return [part.split('"')[0] for part in results.split('data-sound="')[1:]]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address of the page, `Tabs`), with networks that change nothing."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        quieten(patch, root)
        workers = actions.start_workers(load=load_or_crash)
        tabs = Tabs(root)
        page = app.build_page(actions.Actions(tabs, CHOICES, workers), ["guitar", "crash"])
        address = app.launch(page, tabs, "127.0.0.1", None, False)
        yield address, tabs
        page.close()
        workers.close()


def quieten(patch, root):
    """Gradio's variables as main sets them, for a test only."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        patch.setenv(name, "")
    patch.setattr(app.tempfile, "tempdir", None)
    app.keep_to_oneself(root)


@pytest.fixture
def page(server):
    return Page(server[0])


@pytest.fixture
def song(tmp_path):
    return write(tmp_path / "song.wav", tone(seconds=2))


@pytest.mark.parametrize("name", ["{}", "../victim", "..", ".", "", "uploads", None, 3, ["x"]])
def test_a_tab_s_name_is_never_a_path(server, song, tmp_path, name):
    root = server[1].root
    for victim in (tmp_path / "victim", root.parent / "victim", root / "uploads" / "victim"):
        victim.mkdir(parents=True, exist_ok=True)
    page = Page(server[0])
    file = page.upload(song)
    page.session = name.format(tmp_path / "victim") if isinstance(name, str) else name
    refused = 200 if name == "uploads" else 400  # a word like any other
    assert page.join(file)[0] == refused
    for action in ("look", "stop", "leave"):
        call = {"data": [[file], None], "session_hash": page.session}
        data = call if action == "look" else {**call, "data": []}
        assert page.post(f"/gradio_api/run/{action}", data)[0] == refused
    assert (tmp_path / "victim").is_dir()
    assert (root.parent / "victim").is_dir()
    assert (root / "uploads" / "victim").is_dir()


def test_two_tabs_with_the_same_song_do_not_share_it(server, song):
    first, second = Page(server[0]), Page(server[0])
    files = [first.upload(song), second.upload(song)]
    first.look(files[0])
    second.look(files[1])
    first.post("/gradio_api/run/leave", {"data": [], "session_hash": first.session})
    results, mistake = second.convert(files[1])
    assert mistake == ""
    assert len(find_sounds(results)) == 2


def test_a_song_dropped_again_after_a_reload_is_another(server, song):
    before, after = Page(server[0]), Page(server[0])
    before.look(before.upload(song))
    file = after.upload(song)
    before.post("/gradio_api/run/leave", {"data": [], "session_hash": before.session})
    assert "2.0 s long" in after.look(file)[1]


def test_files_of_other_tabs_and_of_the_disk_are_not_taken(server, page, song, tmp_path):
    own = page.upload(song)
    page.look(own)
    other = Page(server[0])
    for path in (own["path"], str(song), f"{own['path']}/../recording.wav", "http://127.0.0.1/x"):
        assert other.join(as_file(path))[0] == 403
        assert other.join({"path": path})[0] == 403
        call = {"data": [[as_file(path)], None], "session_hash": other.session}
        assert other.post("/gradio_api/run/look", call)[0] == 403


def test_only_uploads_and_results_are_served_and_by_names_nobody_guesses(server, page, song):
    file = page.upload(song, name="../../my #1 song.wav")
    results, _ = page.convert(file)
    for address in find_sounds(results):
        token = address.split("/")[2]
        assert len(token) > 20
        assert page.ask("GET", address)[0] == 200
    assert page.ask("GET", f"/gradio_api/file={file['path']}")[0] == 200
    tab = server[1].of(page.session)
    inner = [str(file.path) for file in tab.results.values()]
    assert len(inner) == 4  # two sounds, two pictures
    for path in [*inner, str(song), "/etc/passwd", f"{file['path']}/../recording.wav"]:
        assert page.ask("GET", f"/gradio_api/file={path}")[0] == 404
        assert page.ask("GET", f"/sound/{path}")[0] == 404
    for name in ("/sound/", "/sound/x/y", "/sound//etc/passwd"):
        assert page.ask("GET", name)[0] == 404


def test_nothing_of_gradio_s_that_the_page_does_not_use_is_reached(page):
    for path in (
        "/gradio_api/file=http://example.org/x",
        "/gradio_api/proxy=http://example.org/x",
        f"/gradio_api/deep_link?session_hash={page.session}",
        "/gradio_api/info",
        "/monitoring",
        "/login",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
    ):
        assert page.ask("GET", path)[0] == 404, path
    for path in (
        "component_server",
        "call/start",
        "call/v2/start",
        "process_recording",
        "api/look",
    ):
        assert page.post(f"/gradio_api/{path}", {"session_hash": "x"})[0] == 404, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:7860"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_websites_cannot_use_the_page(page, headers):
    assert page.ask("GET", "/config", headers=headers)[0] == 403
    assert page.ask("POST", "/gradio_api/upload", b"", headers)[0] == 403
    call = json.dumps({"data": [], "session_hash": "x"})
    assert page.ask("POST", "/gradio_api/run/leave", call, headers)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7860", "[::1]:7860", "192.168.1.5"])
def test_own_names_and_origins_are_let_in(page, host):
    origin = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert page.ask("GET", "/config", headers=origin)[0] == 200


def test_the_page_may_be_opened_by_a_link_but_not_shown_in_a_frame(page):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert page.ask("GET", "/", headers=headers)[0] == 200
    place = urlsplit(page.address)
    connection = http.client.HTTPConnection(place.hostname, place.port)
    connection.request("GET", "/")
    policy = connection.getresponse().headers["content-security-policy"]
    connection.close()
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("data", [[], [None], [[None], None], {"x": 1}, 3, [[[]] * 99, "x", 5]])
def test_a_call_with_data_that_no_page_sends_is_refused(page, data):
    call = {"data": data, "session_hash": page.session}
    for name in ("look", "start", "stop", "leave", "try_example"):
        status, _ = page.post(f"/gradio_api/run/{name}", call)
        assert status == 200 or 400 <= status < 500, (name, status)


def test_numbers_that_are_none_are_refused(page):
    body = '{"data": [], "fn_index": NaN, "session_hash": "x"}'
    assert page.ask("POST", "/gradio_api/run/stop", body)[0] == 400


def test_bodies_larger_than_the_page_sends_are_refused(page):
    call = {"data": ["x" * 1_100_000, None], "session_hash": page.session}
    assert page.post("/gradio_api/run/look", call)[0] == 413
    nested = "[" * 100_000
    assert page.ask("POST", "/gradio_api/run/look", nested)[0] == 400
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    large = {**kind, "Content-Length": "3000000000"}
    assert page.ask("POST", "/gradio_api/upload", b"", large)[0] == 413
    endless = {**kind, "Transfer-Encoding": "chunked"}
    assert page.ask("POST", "/gradio_api/upload", b"0\r\n\r\n", endless)[0] == 411
    assert page.ask("POST", "/gradio_api/upload", b"x", kind)[0] == 400


def test_an_upload_is_no_longer_than_it_says(page):
    """Chunks count in place of a length that is told, too: the disk filled without end."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    body = head + b"sound\r\n--x--\r\n"
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    both = {**kind, "Content-Length": "5", "Transfer-Encoding": "chunked"}
    assert page.ask("POST", "/gradio_api/upload", chunk, both)[0] == 411


@pytest.mark.parametrize("path", ["upload", "run/look"])
def test_a_sender_that_falls_silent_keeps_no_room(server, page, monkeypatch, path):
    monkeypatch.setattr("webapp.door.STALLED_SECONDS", 0.1)
    kind = "application/json" if path == "run/look" else "multipart/form-data; boundary=x"
    headers = {"Content-Type": kind, "Content-Length": "1000000"}
    assert page.ask("POST", f"/gradio_api/{path}", b"--x\r\n", headers)[0] == 408
    assert server[1]._reserved == 0


def test_an_instrument_asked_for_twice_is_made_once(page, song):
    results, mistake = page.convert(page.upload(song), title="guitar guitar")
    assert mistake == ""
    assert len(find_sounds(results)) == 2


def test_a_small_file_of_endless_sound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "LONGEST_HEARD", 1 / 3600)
    song = write(tmp_path / "song.flac", tone(seconds=2))
    with pytest.raises(UserError, match=r"song\.flac: is longer than .* cut it"):
        work.listen_to(str(song), str(tmp_path / "copy.wav"), None)


def test_a_file_at_which_the_decoder_hangs_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "_DECODER", "import time; time.sleep(1000)")
    monkeypatch.setattr(recordings, "PATIENCE", 0.5)
    song = write(tmp_path / "song.flac", tone(seconds=2))
    with pytest.raises(UserError, match=r"song\.flac: the decoder gave nothing"):
        work.listen_to(str(song), str(tmp_path / "copy.wav"), None)


def test_files_that_hang_hold_up_no_other_tab(tmp_path, monkeypatch, song):
    """Two of them, of which one is converted before the page has listened to it."""
    quieten(monkeypatch, tmp_path / "root")
    converter = Worker(hang_at_mp3)
    workers = actions.Workers(Pool(hang_at_mp3), converter, load_identity)
    tabs = Tabs(tmp_path / "root")
    page = app.build_page(actions.Actions(tabs, CHOICES, workers), ["guitar"])
    address = app.launch(page, tabs, "127.0.0.1", None, False)
    bad = write(tmp_path / "bad.mp3", tone(seconds=1))
    first, second, other = Page(address), Page(address), Page(address)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        try:
            hanging = [
                threads.submit(first.look, first.upload(bad)),
                threads.submit(second.convert, second.upload(bad)),
            ]
            for tab in map(tabs.of, (first.session, second.session)):
                while not any(job.is_running for job in tab.jobs.values()):
                    time.sleep(0.01)
            file = other.upload(song)
            assert "2.0 s long" in other.look(file)[1]
            results, mistake = other.convert(file)
            assert (mistake, len(find_sounds(results))) == ("", 2)
            assert not any(each.done() for each in hanging)
        finally:
            for each in (first, second):
                tabs.end(each.session)
            concurrent.futures.wait(hanging, timeout=HANG)  # answered: only then the page may end
            page.close()
            workers.close()


def test_a_pool_has_no_more_workers_than_it_may():
    pool = Pool(most=2)
    try:
        jobs = [pool.submit(sleep, 600) for _ in range(3)]
        assert len(pool._workers) == 2
        jobs[1].stop()  # alone at its worker
        assert pool.submit(add, 1, 2).wait() == 3
    finally:
        pool.close()


def test_many_channels_are_played_as_one(tmp_path):
    song = write(tmp_path / "song.wav", noise(400_000, 30).clip(-1, 1), 400_000)
    summary = work.listen_to(str(song), str(tmp_path / "copy.wav"), None)
    assert summary.bytes_per_second == 3 * 30 * 400_000
    with open_sound(tmp_path / "copy.wav") as sound:
        assert (sound.channels, sound.samplerate) == (1, work.COPY_RATE)


def test_uploads_leave_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("webapp.tabs.DISK", 1000)
    monkeypatch.setattr("webapp.tabs.SPARE", 0)
    tabs = Tabs(tmp_path)
    path = tabs.new_upload("x.wav")
    path.write_bytes(b"x" * 500)
    tabs.add_upload(path, "x.wav")
    tabs.reserve(400)
    with pytest.raises(Full):
        tabs.reserve(200)
    tabs.release(400)
    tabs.reserve(200)


def test_files_that_are_deleted_meanwhile_take_no_room(tmp_path, monkeypatch):
    (tmp_path / "deleted").write_bytes(b"x")
    real = Path.lstat

    def lose(path):
        path.unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(Path, "lstat", lose)
    Tabs(tmp_path).reserve(1)


def test_an_upload_that_fails_leaves_no_part(tmp_path):
    parts = [b"x"]

    def read(size):
        if parts:
            return parts.pop()
        raise OSError(errno.ENOSPC, "No space left on device")

    upload = SimpleNamespace(filename="song.wav", file=SimpleNamespace(read=read))
    with pytest.raises(OSError, match="No space"):
        Door(None, Tabs(tmp_path), "localhost")._store(upload)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_conversion_without_room_is_refused_in_words(page, song, monkeypatch):
    file = page.upload(song)
    page.look(file)
    monkeypatch.setattr("webapp.tabs.DISK", 100)
    _, mistake = page.convert(file)
    assert "no room" in mistake
    monkeypatch.undo()
    assert page.convert(file)[1] == ""


def test_a_tab_keeps_its_last_uploads_and_results(server, page, song, monkeypatch):
    monkeypatch.setattr("webapp.tabs.KEPT_UPLOADS", 2)
    monkeypatch.setattr("webapp.tabs.KEPT_BATCHES", 1)
    files = [page.upload(song) for _ in range(3)]
    looks = [page.convert(file)[0] for file in files]
    assert page.ask("GET", f"/gradio_api/file={files[0]['path']}")[0] == 404
    assert page.ask("GET", f"/gradio_api/file={files[1]['path']}")[0] == 200
    assert page.ask("GET", find_sounds(looks[0])[0])[0] == 404
    assert page.ask("GET", find_sounds(looks[2])[0])[0] == 200
    tab = server[1].of(page.session)
    assert len(list(tab.folder.iterdir())) == 1


def test_uploads_that_no_page_asks_about_are_deleted(tmp_path, monkeypatch):
    tabs = Tabs(tmp_path)
    path = tabs.new_upload("x.wav")
    path.touch()
    tabs.add_upload(path, "x.wav")
    tabs.reserve(0)
    assert path.exists()
    monkeypatch.setattr("webapp.tabs.UNCLAIMED", -1)
    tabs.reserve(0)
    assert not path.exists()


def test_the_number_of_tabs_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("webapp.tabs.TABS", 3)
    tabs = Tabs(tmp_path)
    first = tabs.of("a")
    folder = first.new_batch("x").folder
    for name in "bcd":
        tabs.of(name)
    assert not folder.exists()
    assert not first.is_open


def test_a_tab_with_files_outlives_empty_ones(tmp_path, monkeypatch):
    """A stranger who calls himself by ever new names must not end everybody's tabs."""
    monkeypatch.setattr("webapp.tabs.TABS", 3)
    tabs = Tabs(tmp_path)
    first = tabs.of("a")
    path = tabs.new_upload("x.wav")
    tabs.add_upload(path, "x.wav")
    assert tabs.claim("a", str(path))
    for name in "bcdefg":
        tabs.of(name)
    assert first.is_open
    assert tabs.of("a") is first


def test_a_password_keeps_others_out(tmp_path, monkeypatch, song):
    monkeypatch.setattr("webapp.door.LOGIN_SECONDS", 0.01)
    quieten(monkeypatch, tmp_path / "root")
    workers = actions.start_workers(load=load_identity)
    tabs = Tabs(tmp_path / "root")
    page = app.build_page(actions.Actions(tabs, CHOICES, workers), ["guitar"])
    address = app.launch(page, tabs, "127.0.0.1", None, False, auth=("anna", "bäume"))
    try:
        client = Page(address)
        for words in (None, "anna:x", "anna", ":", "anna:bäume "):
            code = "" if words is None else base64.b64encode(words.encode()).decode()
            headers = {} if words is None else {"Authorization": f"Basic {code}"}
            for path in ("/", "/config", "/sound/x", "/gradio_api/heartbeat/x", "/assets/x"):
                assert client.ask("GET", path, headers=headers)[0] == 401
            assert client.ask("POST", "/gradio_api/upload", b"", headers)[0] == 401
        code = base64.b64encode("anna:bäume".encode()).decode()
        assert client.ask("GET", "/", headers={"Authorization": f"Basic {code}"})[0] == 200
        assert client.ask("GET", "/", headers={"Authorization": "Basic ?"})[0] == 401
    finally:
        page.close()
        workers.close()


def test_auth_takes_a_name_and_a_password(capsys):
    args = app.build_parser().parse_args(["--auth", "anna:a:b"])
    assert args.auth == ("anna", "a:b")
    for text in ("anna", "anna:", ":x"):
        with pytest.raises(SystemExit):
            app.build_parser().parse_args(["--auth", text])
        assert f"'{text}' is not of the form NAME:PASSWORD" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.05, 0.4, 1.2, 20.53])
def test_a_recording_of_any_length_keeps_it(page, tmp_path, seconds):
    song = write(tmp_path / "song.wav", tone(seconds=seconds))
    file = page.upload(song)
    part, text = page.look(file)
    assert "long" in text
    results, mistake = page.convert(file, part=part)
    assert mistake == ""
    for address in find_sounds(results):
        (tmp_path / "made.wav").write_bytes(page.fetch(address))
        with open_sound(tmp_path / "made.wav") as sound:
            assert sound.frames == round(seconds * 44100)


def test_a_length_that_is_only_guessed_is_measured(page, tmp_path):
    sound = noise(40 * 44100)
    sound[44100:] = 0
    path = encode(tmp_path / "guessed.aac", sound, "aac")
    file = page.upload(path)
    _, text = page.look(file)
    assert "40.0 s long" in text or "40.1 s long" in text
    results, _ = page.convert(file, part="39 - 50")
    assert "1.0 s from 39.0 s on" in results or "1.1 s from" in results


def test_a_wrong_file_is_told_in_words_where_it_was_dropped(page, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("no sound")
    _, text = page.look(page.upload(path))
    assert "letter.txt: cannot be read as audio" in text
    assert str(tmp_path) not in text
    assert "uploads" not in text
    results, mistake = page.convert(page.upload(path))
    assert "letter.txt: cannot be read as audio" in mistake
    assert results == ""


def test_what_the_models_know_nothing_of_is_told_before_it_is_converted(page, tmp_path):
    path = write(tmp_path / "hiss.wav", noise(44100 * 6))
    _, text = page.look(page.upload(path))
    assert "noise" in text.lower()
    assert "expect little" in text


def test_what_was_odd_in_a_file_is_told(page, tmp_path):
    whole = write(tmp_path / "whole.wav", tone(seconds=3)).read_bytes()
    path = tmp_path / "cut.wav"
    path.write_bytes(whole[:-100_000])
    _, text = page.look(page.upload(path))
    assert "its end is missing" in text.lower()


def test_a_file_that_kills_the_process_costs_only_itself(page, song):
    file = page.upload(song)
    page.look(file)
    results, mistake = page.convert(file, title="crash")
    assert "song.wav crashed the program that reads it" in mistake
    assert results == ""
    results, mistake = page.convert(file)
    assert mistake == ""
    assert len(find_sounds(results)) == 2


def test_a_tab_s_earlier_results_keep_their_names(page, tmp_path):
    for name in ("first.wav", "second & last.wav"):
        results, _ = page.convert(page.upload(write(tmp_path / name, tone(seconds=1))))
    assert results.index("second &amp; last.wav") < results.index("first.wav")
    assert "download='first_guitar.wav'" in results
    assert "download='second &amp; last_guitar.wav'" in results


def test_each_download_holds_the_song_of_its_name(page, tmp_path):
    for name, seconds in (("one.wav", 1), ("two.wav", 2)):
        results, _ = page.convert(page.upload(write(tmp_path / name, tone(seconds=seconds))))
    for name, seconds in (("one_guitar.wav", 1), ("two_guitar.wav", 2)):
        (link,) = [tag for tag in re.findall("<a [^>]*>", results) if f"'{name}'" in tag]
        address = re.search(r"href=['\"]([^'\"]*)", link)[1]
        (tmp_path / name).write_bytes(page.fetch(address))
        with open_sound(tmp_path / name) as sound:
            assert sound.frames == seconds * 44100


@pytest.mark.parametrize("part", [None, -3, 0, "x", "1:00 - 2:00", "1 - 2 - 3", "1e999", "nan", []])
def test_odd_parts_do_no_harm(page, song, part):
    file = page.upload(song)
    page.look(file)
    results, mistake = page.convert(file, part=part)
    assert ("0:12 - 0:40" in mistake) == (part is not None)
    assert ("2.0 s" in str(results)) == (part is None)


@pytest.mark.parametrize("name", actions.EXAMPLES)
def test_an_example_is_there_at_a_click_and_converts(server, page, name):
    call = {"data": [], "session_hash": page.session}
    place = list(actions.EXAMPLES).index(name)
    action = f"try_example_{place}" if place else "try_example"  # Gradio's names
    status, text = page.post(f"/gradio_api/run/{action}", call)
    assert status == 200, text
    (file,) = json.loads(text)["data"][0]
    example = cli.PROJECT / actions.EXAMPLES[name].path
    assert file["orig_name"] == example.name
    assert f"<b>{example.name}</b> is " in page.look(file)[1]
    results, mistake = page.convert(file, part="0:00 - 0:01")
    assert mistake == ""
    assert len(find_sounds(results)) == 2
    assert Page(server[0]).join(file)[0] == 403


def test_the_page_and_the_licences_say_whose_the_examples_are(page):
    credits = page.ask("GET", "/config")[1]
    licences = (cli.PROJECT / "docs/licences.md").read_text(encoding="utf-8")
    for example in actions.EXAMPLES.values():
        assert example.credit in credits
        author, _, licence = example.credit.rstrip(")").rpartition(" (")
        author = author.removeprefix("notes by ").rpartition(", ")[2]
        assert author in licences and licence in licences


def test_files_that_are_dropped_together_are_converted_one_after_the_other(page, tmp_path):
    names = ("one.wav", "letter.wav", "two.wav")
    songs = [write(tmp_path / name, tone(seconds=1 + k)) for k, name in enumerate(names)]
    songs[1].write_text("no sound")
    files = [page.upload(song) for song in songs]
    part, text = page.look(files)
    assert part == ""
    assert text.index("one.wav</b> is 1.0 s") < text.index("letter.wav: cannot be read")
    assert "two.wav</b> is 3.0 s" in text
    results, mistake = page.convert(files, part="0:00 - 0:01")  # of one that was there before
    assert "letter.wav: cannot be read" in mistake
    assert "3.0 s, draft" in results and "1.0 s, draft" in results
    assert "one_guitar.wav" in results and "two_guitar.wav" in results
    assert len(find_sounds(results)) == 4
    _, text = page.look([files[0]] * 9)
    assert "too many" in text


def test_the_quality_is_told_with_its_time(page, song):
    page.look(page.upload(song))
    labels = [label for label, _ in page.qualities["choices"]]
    assert [label.split(":")[0] for label in labels] == ["draft", "normal", "best"]
    assert all(label.endswith("for each instrument") for label in labels)


def test_octave_and_mix_are_those_asked_for(page, song):
    file = page.upload(song)
    page.look(file)
    results, mistake = page.convert(file, octave=12, mix=40)
    assert mistake == ""
    assert "draft, octave up, 40 % of it the new instrument" in results


def test_what_came_last_is_converted(page, tmp_path):
    dropped = page.upload(write(tmp_path / "dropped.wav", tone(seconds=1)))
    assert "dropped.wav" in page.look(dropped)[1]
    recorded = page.upload(write(tmp_path / "audio.wav", tone(seconds=2)))
    call = {"data": [[dropped], recorded], "session_hash": page.session}
    assert "recording 1" in page.post("/gradio_api/run/look", call)[1]
    results, _ = page.convert(dropped)
    assert "dropped.wav" in results


def test_the_page_plays_what_was_dropped(page, tmp_path):
    path = encode(tmp_path / "song.aac", noise(44100 * 3), "aac")
    _, text = page.look(page.upload(path))
    (address,) = find_sounds(text)
    place = urlsplit(page.address)
    connection = http.client.HTTPConnection(place.hostname, place.port)
    connection.request("GET", address, headers={"Range": "bytes=0-3"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (206, b"RIFF")
    connection.close()


def test_no_path_of_a_model_is_told(server):
    assert "x_2_guitar" not in Page(server[0]).ask("GET", "/config")[1]


def test_what_a_tab_left_is_deleted_with_it(server, song):
    page = Page(server[0])
    file = page.upload(song)
    results, _ = page.convert(file)
    folder = server[1].of(page.session).folder
    assert folder.is_dir()
    page.post("/gradio_api/run/leave", {"data": [], "session_hash": page.session})
    assert not folder.exists()
    assert page.ask("GET", find_sounds(results)[0])[0] == 404
    assert page.ask("GET", f"/gradio_api/file={file['path']}")[0] == 404
    assert page.join(file)[0] == 403


def test_a_tab_that_is_closed_midway_leaves_no_traceback(server, tmp_path, capfd, caplog):
    page, other = Page(server[0]), Page(server[0])
    file = page.upload(write(tmp_path / "song.wav", tone(seconds=100)))
    page.look(file)
    place = urlsplit(page.address)
    beat = http.client.HTTPConnection(place.hostname, place.port, timeout=HANG)
    beat.request("GET", f"/gradio_api/heartbeat/{page.session}")
    heart = beat.getresponse()
    assert page.join(file, quality="best")[0] == 200
    news = http.client.HTTPConnection(place.hostname, place.port, timeout=HANG)
    news.request("GET", f"/gradio_api/queue/data?session_hash={page.session}")
    stream = news.getresponse()
    while b"process_generating" not in stream.readline():
        pass
    tab = server[1].of(page.session)
    (job,) = [job for kind, job in tab.jobs.items() if kind == "converting"]
    for closed in (stream, news, heart, beat):
        closed.close()
    until = time.monotonic() + HANG
    while tab.folder.exists() or not (job.is_done or job.is_stopped):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "2.0 s" in other.convert(other.upload(write(tmp_path / "x.wav", tone(seconds=2))))[0]
    told = "".join(capfd.readouterr()) + caplog.text
    assert "Traceback" not in told and "Error" not in told


@pytest.fixture
def worker():
    worker = Worker(longest=2)
    yield worker
    worker.close()


def test_a_worker_that_dies_is_replaced(worker):
    assert worker.submit(add, 1, 2).wait() == 3
    with pytest.raises(Died, match="crashed the program"):
        worker.submit(abort).wait()
    assert worker.submit(add, 3, 4).wait() == 7


def test_memory_is_blamed_only_if_the_process_was_killed(worker):
    with pytest.raises(Died, match="memory"):
        worker.submit(kill).wait()


def test_stopped_work_ends_and_what_waits_goes_on(worker):
    long, waiting = worker.submit(sleep, 600), worker.submit(sleep, 600)
    last = worker.submit(add, 1, 1)
    assert worker.jobs_before(last) == [long, waiting]
    waiting.stop()
    assert worker.jobs_before(last) == [long]
    long.stop()
    assert last.wait() == 2
    for job in (long, waiting):
        with pytest.raises(Stopped):
            job.wait()


def test_what_is_left_is_told_by_what_is_done(monkeypatch):
    now = 100.0
    monkeypatch.setattr("webapp.worker.time.monotonic", lambda: now)
    job = Job(add, (), cost=30.0)
    assert job.left() == 30
    job._begin()
    now = 104.0
    job._tell(0.25)
    assert job.left() == 12
    now = 106.0  # nothing was told meanwhile: less is left, not more
    assert job.left() == 10
    now = 200.0
    assert job.left() == 0


def test_only_so_many_wait(worker):
    jobs = [worker.submit(sleep, 600) for _ in range(3)]
    with pytest.raises(Busy):
        worker.submit(add, 1, 1)
    for job in jobs:
        job.stop()


def test_a_full_disk_is_told_without_its_path(worker):
    with pytest.raises(app.UserError, match="No space left"):
        worker.submit(raise_error).wait()


def test_too_little_memory_is_no_mistake_of_the_program(worker):
    with pytest.raises(UserError, match="memory; choose a shorter part"):
        worker.submit(exhaust_memory).wait()


def test_closing_ends_what_is_under_way():
    worker = Worker()
    job = worker.submit(sleep, 600)
    threading.Timer(0.1, worker.close).start()
    with concurrent.futures.ThreadPoolExecutor() as pool, pytest.raises(Stopped):
        pool.submit(job.wait).result(timeout=HANG)


def test_a_picture_has_a_column_for_each_moment(tmp_path):
    path = write(tmp_path / "x.wav", tone(seconds=60))
    picture = work.read_picture(path)
    assert picture.shape[0] == 512
    assert 600 < picture.shape[1] <= 1000


def test_a_tone_is_a_line_at_its_height(tmp_path):
    path = write(tmp_path / "x.wav", tone(frequency=2000, seconds=1))
    work.draw_spectrogram(path, tmp_path / "x.png")
    rows = matplotlib.image.imread(tmp_path / "x.png")[:, 40, :3].sum(axis=1)
    assert 1 - rows.argmax() / len(rows) == pytest.approx(2000 / work.TOP, abs=0.02)
