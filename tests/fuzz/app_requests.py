"""Fuzz app.py's server: damaged and hostile requests to every address.

    python tests/fuzz/app_requests.py --runs 5000 --seed 0

Starts app.py on a free port, with its own home and folder for temporary files. Every answer must be
right or a refusal (4xx); a request that does not end properly may get none. Afterwards the page
must still convert a recording, hold no more than 1 GB more memory than before, and have written no
file outside its folder. The requests that broke a rule are printed; the exit code is then 1.
"""

import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import targets  # noqa: E402

from common import cli  # noqa: E402

HOST = "127.0.0.1"
PATIENCE = 300  # s for the start, and for a conversion
BYTES = 1 << 30  # that the server may grow by
SECONDS = 3  # for the end of an answer; events go on for as long as the page is open
PATHS = (
    *("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
    *("/assets/index.js", "/static/img/logo.svg", "/svelte/svelte.js", "/sound/x/y", "/sound/"),
    *("/gradio_api/startup-events", "/gradio_api/app_id", "/gradio_api/heartbeat/abc"),
    *("/gradio_api/queue/data?session_hash=abc", "/gradio_api/upload_progress?upload_id=1"),
    *("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"),
    *(f"/gradio_api/run/{name}" for name in ("look", "start", "stop", "leave", "try_example")),
    *("/gradio_api/file=/etc/passwd", "/gradio_api/file=../app.py", "/gradio_api/info"),
    *("/gradio_api/call/look", "/gradio_api/proxy=http://127.0.0.1", "/docs", "/login", "/logout"),
    *("/assets/../../app.py", "/static/..%2f..%2fapp.py", "//etc/passwd", "/sound/%00/x", "*"),
)
METHODS = ("GET", "GET", "POST", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "X")
HEADERS = (
    *(("Host", value) for value in ("evil.example", "", "127.0.0.1:1@evil", "localhost", "[::1")),
    *(("Origin", value) for value in ("http://evil.example", "null", "http://127.0.0.1")),
    *(("Content-Type", value) for value in ("text/plain", "multipart/form-data", "a" * 9000)),
    *(("Content-Length", value) for value in ("-1", "9", "99999999999", "x")),
    *(("Transfer-Encoding", value) for value in ("chunked", "gzip")),
    *(("Range", value) for value in ("bytes=0-", "bytes=9-1", "bytes=-1", "x")),
    *(
        ("Sec-Fetch-Site", "cross-site"),
        ("Authorization", "Basic eA=="),
        ("Expect", "100-continue"),
    ),
    *(("Cookie", "a" * 9000), ("X-Forwarded-Host", "evil.example"), ("X", "\0\xff")),
)
PARTS = ("all", "0:00 - 0:01", "-1", "1e99", "5 - 2", "", "0:0:0:0", "\0", "nan", "9" * 5000)


class Server:
    """app.py in a process of its own, below ``folder``."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("home", "tmp", "work"):
            (folder / name).mkdir()
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        self.log = folder / "log.txt"
        environment = {
            **os.environ,
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "MPLCONFIGDIR": str(folder / "home"),
        }
        command = [sys.executable, ROOT / "app.py", "--no_browser", "--gpu", "cpu"]
        command += ["--port", str(self.port)]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder / "work", env=environment, stdout=log, stderr=log
            )
        end = time.time() + PATIENCE
        while "the page is at" not in self.log.read_text(errors="replace"):
            if self.process.poll() is not None or time.time() > end:
                raise RuntimeError(self.log.read_text(errors="replace"))
            time.sleep(0.2)

    def close(self):
        """End it as Ctrl-C does; returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def count_bytes(self):
        """Resident memory of the process and its children."""
        numbers = [self.process.pid]
        for number in numbers:
            for children in Path(f"/proc/{number}/task").glob("*/children"):
                numbers += map(int, children.read_text().split())
        size = 0
        for number in numbers:
            pages = int(Path(f"/proc/{number}/statm").read_text().split()[1])
            size += pages * os.sysconf("SC_PAGE_SIZE")
        return size

    def list_files(self):
        """All files that it may have written outside its own folder, tmp/timbre-..."""
        found = set()
        for path in self.folder.rglob("*"):
            is_own = path.relative_to(self.folder).as_posix().startswith("tmp/timbre-")
            if path.is_file() and path != self.log and not is_own:
                found.add(path)
        return found

    def send(self, raw, is_whole):
        """Send bytes: the answer's bytes, b"" without one. What is not whole is cut off at last."""
        answer = b""
        with socket.create_connection((HOST, self.port), timeout=30) as connection:
            try:
                connection.sendall(raw)
                if not is_whole:
                    connection.shutdown(socket.SHUT_WR)
                end = time.time() + SECONDS
                while len(answer) < 2**16 and time.time() < end:
                    connection.settimeout(30 if not answer else max(0.1, end - time.time()))
                    more = connection.recv(2**16)
                    if not more:
                        break
                    answer += more
            except OSError:  # the server closed first, or gave nothing more
                pass
        return answer

    def post(self, path, content, kind="application/json"):
        """A good request of the page: (status, text)."""
        body = json.dumps(content).encode() if kind == "application/json" else content
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        connection.request("POST", f"/gradio_api/{path}", body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")

    def get(self, path):
        """A good request: text."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        connection.request("GET", path)
        return connection.getresponse().read().decode(errors="replace")


def encode_sound():
    """A second of sound as WAV."""
    noise = np.random.default_rng(0).normal(0, 0.1, 22050)
    file = io.BytesIO()
    soundfile.write(file, noise, 22050, format="WAV")
    return file.getvalue()


def write_upload(content, name="song.wav"):
    """Body of an upload, with the boundary "x"."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + b"\r\n--x--\r\n"


def convert(server, session):
    """Do what a person does: whether a conversion comes of it."""
    status, text = server.post(
        "upload", write_upload(encode_sound()), "multipart/form-data; boundary=x"
    )
    if status != 200:
        return False
    file = as_file(json.loads(text)[0])
    status, _ = server.post("run/look", {"data": [[file], None], "session_hash": session})
    if status != 200:
        return False
    config = json.loads(server.get("/config"))
    start = next(call["id"] for call in config["dependencies"] if call["api_name"] == "start")
    data = [[file], None, ["guitar"], "draft", 0, 100, "all"]
    call = {"data": data, "fn_index": start, "session_hash": session}
    status, _ = server.post("queue/join", call)
    if status != 200:
        return False
    stream = server.get(f"/gradio_api/queue/data?session_hash={session}")
    server.post("run/leave", {"data": [], "session_hash": session})
    return "data-sound" in stream


def as_file(path):
    """A file as Gradio's page names it."""
    return {"path": path, "orig_name": "x", "meta": {"_type": "gradio.FileData"}}


class Requests:
    """Makes requests as bytes."""

    def __init__(self, server, rng):
        self._port = server.port
        self._rng = rng
        config = json.loads(server.get("/config"))
        self._calls = [call["id"] for call in config["dependencies"]]
        sound = encode_sound()
        status, text = server.post("upload", write_upload(sound), "multipart/form-data; boundary=x")
        assert status == 200
        self._paths = [
            *json.loads(text),
            "/etc/passwd",
            "..",
            "",
            "/dev/zero",
            str(ROOT / "app.py"),
        ]
        self._sound = sound

    def make(self):
        """(bytes, whether it is a whole request)."""
        rng = self._rng
        method = rng.choice(METHODS)
        path = rng.choice(PATHS)
        headers = {"Host": f"{HOST}:{self._port}", "Connection": "close"}
        body = b""
        if method == "POST" or rng.random() < 0.1:
            kind, body = self._make_body(path)
            headers["Content-Type"] = kind
            headers["Content-Length"] = str(len(body))
        is_whole = True
        if rng.random() < 0.3:
            for name, value in rng.sample(HEADERS, rng.randint(1, 3)):
                headers[name] = value
                is_whole = False  # a length that is not true, an encoding that is none
        if rng.random() < 0.2:
            path = targets.damage(path.encode(), rng).decode("latin-1")
            is_whole = False
        lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {headers[key]}" for key in headers)]
        raw = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
        if rng.random() < 0.1:
            return targets.damage(raw, rng), False
        return raw, is_whole

    def _make_body(self, path):
        """(content type, body) of a call or an upload, often damaged."""
        rng = self._rng
        if "upload" in path:
            name = rng.choice(("song.wav", "../../x.wav", "a" * 400, "\0", 'x"; y="', "x.py", ""))
            body = write_upload(targets.damage(self._sound, rng), name)
            if rng.random() < 0.5:
                body = targets.damage(body, rng)
            return "multipart/form-data; boundary=x", body
        session = rng.choice(("abc", "def", "../x", "", "\0", "x" * 99))
        file = as_file(rng.choice(self._paths))
        data = rng.choice(
            (
                [],
                [[file], None],
                [[file], file],
                [[file], None, ["guitar"], "draft", 0, 100, rng.choice(PARTS)],
                [None, None, ["x"], "x", "x", -5, None],
                [[file] * 50, None, ["guitar", "strings"] * 20, "best", 12, 50, "all"],
            )
        )
        call = {"data": data, "session_hash": session, "fn_index": rng.choice(self._calls)}
        body = json.dumps(call).encode()
        if rng.random() < 0.5:
            body = targets.damage_json(body, rng)
        if rng.random() < 0.1:
            body = targets.damage(body, rng)
        if rng.random() < 0.02:
            body = rng.choice((b"[" * 100_000, b'{"a":' * 50_000, b'"' + b"x" * 1_100_000 + b'"'))
        return "application/json", body


def judge(raw, is_whole, answer):
    """(status or "none", what is wrong with the answer or "")."""
    if not answer:
        return "none", "no answer" if is_whole else ""
    status = answer.split(b" ", 2)[1:2]
    if not answer.startswith(b"HTTP/1.1 ") or not status or not status[0].isdigit():
        return "odd", "not an answer of HTTP"
    code = int(status[0])
    if code >= 500 and not (code == 503 and b"/queue/join" in raw.partition(b"\r\n")[0]):
        return code, f"answer {code}"  # a queue that is full says 503
    for secret in (b"root:x:0", b"def keep_to_oneself", str(ROOT).encode()):
        if code < 300 and secret in answer:
            return code, f"tells {secret.decode()}"
    return code, ""


@cli.command
def main(argv=None):
    """Parse flags, start the page, send requests, look what is left."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--runs", type=cli.number(int, 1), default=5000, help="requests")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="of the requests")
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    faults = Counter()
    statuses = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-app-") as folder:
        server = Server(Path(folder))
        try:
            assert convert(server, "before")
            requests = Requests(server, rng)
            files, size = server.list_files(), server.count_bytes()
            began = time.time()
            for _ in range(args.runs):
                raw, is_whole = requests.make()
                status, fault = judge(raw, is_whole, server.send(raw, is_whole))
                statuses[status] += 1
                if fault:
                    faults[fault] += 1
                    if faults[fault] <= 3:
                        print(f"{fault}: {raw[:600]!r}", flush=True)
                if server.process.poll() is not None:
                    faults["the server ended"] += 1
                    break
            seconds = time.time() - began
            for fault in find_damage(server, files, size):
                faults[fault] += 1
        finally:
            if server.close() not in (0, 130):
                faults["it ended with an error"] += 1
        ours, others = count_tracebacks(server.log.read_text(errors="replace"))
        left = list((Path(folder) / "tmp").iterdir())
        print(f"statuses: {sorted(statuses.items(), key=str)}")
        print(f"in its log {ours} tracebacks of this project, {others} of its packages")
        if ours:
            faults["tracebacks"] = ours
            Path("app-log.txt").write_bytes(server.log.read_bytes())
        if left:
            faults[f"left behind: {left[0].name}"] += 1
    print(f"app: {args.runs:,} requests in {seconds:.0f} s; faults: {dict(faults) or 'none'}")
    return 1 if faults else 0


def count_tracebacks(log):
    """Count tracebacks in a log: (those of errors that arose in this project, others)."""
    ours = others = 0
    for block in log.split("Traceback (most recent call last)")[1:]:
        places = [line for line in block.splitlines() if line.strip().startswith('File "')]
        if places and str(ROOT) in places[-1] and "site-packages" not in places[-1]:
            ours += 1
        else:
            others += 1
    return ours, others


def find_damage(server, files, size):
    """Yield what is wrong with the server after all requests."""
    for session in ("abc", "def"):
        server.post("run/leave", {"data": [], "session_hash": session})
    if not convert(server, "after"):
        yield "it converts no more"
    more = server.list_files() - files
    if more:
        yield f"wrote {len(more)} files, such as {sorted(more)[0]}"
    growth = server.count_bytes() - size
    print(f"memory: {growth / 2**20:+.0f} MB from {size / 2**20:.0f} MB")
    if growth > BYTES:
        yield f"grew by {growth >> 20} MB"


if __name__ == "__main__":
    raise SystemExit(main())
