"""Access control: ASGI middleware before Gradio that lets only the page's own requests through.

Gradio serves more than this page uses, by paths that clients send. This middleware refuses requests
of other websites, foreign host names, unknown addresses, large bodies and files of other tabs. It
stores uploads and serves results under names of our own.
"""

import asyncio
import base64
import binascii
import ipaddress
import json
import mimetypes
import re
import secrets
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse

from webapp.tabs import SOUND, Full, is_session

UPLOAD_BYTES = 2e9  # of one upload
BODY_BYTES = 1e6  # of any other request; the page's own have about a thousand
STALLED_SECONDS = 60  # silence after which a request ends, because it reserves disk space
LOGIN_SECONDS = 1.0  # delay after a wrong password; only one is checked at a time

UPLOAD = "/gradio_api/upload"
PROGRESS = "/gradio_api/upload_progress"
FILE = "/gradio_api/file="
# Calls of the page's functions, which explain their own errors in words. Gradio answers 500 to data
# that the page never sends, such as too few values: that is the sender's error.
RUN = "/gradio_api/run/"
_READ = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(assets|static|svelte)/.*)?"
    r"|/gradio_api/(startup-events|app_id/?|queue/data|heartbeat/[A-Za-z0-9_-]{1,64})"
)
_WRITTEN = re.compile(r"/gradio_api/(queue/join|run/\w+|cancel|reset)/?")
_EVENTS = "text/event-stream"
_STARTED = "/gradio_api/startup-events"  # asked by Gradio itself, without a password

# Forbids loading from other servers, also for pages of libraries
CONTENT_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


class Stalled(Exception):
    """The rest of a request does not arrive."""


class Door:
    """ASGI middleware.

    Args:
        app: the protected ASGI application.
        tabs: `tabs.Tabs`.
        host: address that the server listens on.
        auth: (name, password), or None: everybody may use the page.
    """

    def __init__(self, app, tabs, host, auth=None):
        self._app = app
        self._tabs = tabs
        self._names = find_own_names(host)
        self._auth = auth
        self._wrong = asyncio.Lock()

    async def __call__(self, scope, receive, send):
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_safely(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
                if message["status"] == 500 and scope["path"].startswith(RUN):
                    message = {**message, "status": 400}  # see `RUN`
            await send(message)

        answer = self._refuse(scope) or await self._ask_password(scope)
        try:
            answer = answer or await self._answer(scope, _with_patience(receive))
        except ClientDisconnect:
            return
        except Stalled:
            answer = PlainTextResponse("the rest of this request did not come", 408)
        if isinstance(answer, bytes):  # the body, already read
            receive = _replay(answer, receive)
            answer = self._app
        await answer(scope, receive, send_safely)

    def _refuse(self, scope):
        """Refuse a request of a foreign page or name; otherwise None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not is_own_name(host, self._names):
            return PlainTextResponse(
                f"{host[:100]!r} is not this page's name: open it by its IP address or by the "
                "computer's name, or start it with --host NAME",
                403,
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return PlainTextResponse("another website may not use this page", 403)
        opens = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not opens:
            return PlainTextResponse("another website may not use this page", 403)
        return None

    async def _ask_password(self, scope):
        """A refusal if name and password are wanted and not given; else None."""
        if self._auth is None or scope["path"] == _STARTED:
            return None
        given = Headers(scope=scope).get("authorization")
        if given is not None:
            if is_authorized(given, self._auth):
                return None
            async with self._wrong:
                await asyncio.sleep(LOGIN_SECONDS)
        ask = {"www-authenticate": 'Basic realm="timbre transfer", charset="UTF-8"'}
        return PlainTextResponse("name and password, please", 401, headers=ask)

    async def _answer(self, scope, receive):
        """The response, the app behind this, or the body for it."""
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD"):
            if path.startswith(SOUND):
                return serve(self._tabs.find_result(path.split("/")[2]))
            if path.startswith(FILE):
                return serve(self._tabs.find_upload(path.removeprefix(FILE)))
            if path == PROGRESS:  # the page asks during each upload; its end is enough
                return PlainTextResponse('data: {"msg": "done"}\n\n', media_type=_EVENTS)
            if _READ.fullmatch(path):
                return self._app
        elif method == "POST" and path.rstrip("/") == UPLOAD:
            return await self._take_upload(Request(scope, receive))
        elif method == "POST" and _WRITTEN.fullmatch(path):
            return await self._check_call(Request(scope, receive))
        return PlainTextResponse("no such address", 404)

    async def _check_call(self, request):
        """The body of a call of one of the page's functions, or a refusal."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES:
                return _say("this request is too large", 413)
        try:
            call = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return _say("this request is damaged", 400)
        session = call.get("session_hash") if isinstance(call, dict) else None
        if not is_session(session):
            return _say("this request comes from no page", 400)
        for path in find_paths(call):
            if not self._tabs.claim(session, path):
                return _say("The recording is no longer here. Drop it again.", 403)
        return bytes(body)

    async def _take_upload(self, request):
        """Store what is uploaded; the answer has its paths, as Gradio's own has."""
        length = request.headers.get("content-length", "")
        if "transfer-encoding" in request.headers:  # it would replace the length
            length = ""
        if not length.isascii() or not length.isdigit():
            return PlainTextResponse("the length of an upload must be known", 411)
        size = int(length)
        if size > UPLOAD_BYTES:
            return PlainTextResponse(f"at most {UPLOAD_BYTES / 1e9:g} GB are taken", 413)
        try:
            await run_in_threadpool(self._tabs.reserve, 2 * size)  # it is copied once
        except Full:
            return PlainTextResponse("no room for it now: close other tabs, or wait", 507)
        try:
            async with request.form(max_files=20, max_fields=20) as form:
                uploads = [item for item in form.getlist("files") if not isinstance(item, str)]
                paths = [await run_in_threadpool(self._store, upload) for upload in uploads]
        except (HTTPException, MultiPartException, KeyError):
            return PlainTextResponse("this upload is damaged", 400)
        except OSError:  # of `_store`: a full disk
            return PlainTextResponse("no room for it now: close other tabs, or wait", 507)
        finally:
            self._tabs.release(2 * size)
        return JSONResponse(paths)

    def _store(self, upload):
        """Store one upload; returns its path as text."""
        name = Path(upload.filename or "recording").name
        path = self._tabs.new_upload(name)
        try:
            with open(path, "xb") as file:
                while block := upload.file.read(2**20):
                    file.write(block)
        except OSError:
            shutil.rmtree(path.parent, ignore_errors=True)  # no tab would ever delete it
            raise
        self._tabs.add_upload(path, name)
        return str(path)


def serve(file):
    """Make a response with a `tabs.File`, or the requested part of it; 404 for None."""
    if file is None or not file.path.is_file():
        return PlainTextResponse("no such sound; it may have been deleted", 404)
    kind = mimetypes.guess_type(file.path)[0] or ""
    is_harmless = kind.startswith(("audio/", "video/")) or kind == "image/png"
    return FileResponse(
        file.path,
        filename=file.name,
        media_type=kind if is_harmless else "application/octet-stream",
        content_disposition_type="inline" if is_harmless else "attachment",
        headers={"cache-control": "private, no-store"},
    )


def find_own_names(host):
    """List the host names, in lower case, under which browsers may reach a server on ``host``."""
    name = socket.gethostname()
    names = ["localhost", host, name, f"{name}.local", socket.getfqdn()]
    return {name.lower().rstrip(".") for name in names}


def is_own_name(host, names):
    """Whether a Host header is an IP address or one of ``names``.

    A website whose name points to this computer (DNS rebinding) sends its own name.
    """
    try:
        parts = urlsplit(f"//{host}")
        name = parts.hostname or ""
    except ValueError:
        return False
    if "@" in parts.netloc:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.rstrip(".") in names
    return True


def is_authorized(given, auth):
    """Whether an Authorization header has the right (name, password)."""
    kind, _, code = given.partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        words = base64.b64decode(code, validate=True)
    except (binascii.Error, ValueError):
        return False
    return secrets.compare_digest(words, ":".join(auth).encode())


def find_paths(content):
    """Find the file names in parsed JSON: each value of a key ``path``, at any depth."""
    paths = []
    rest = [content]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            rest.extend(item.values())
            if "path" in item:
                paths.append(str(item["path"]))
        elif isinstance(item, list):
            rest.extend(item)
    return paths


def _refuse_constant(text):
    """Refuse NaN and Infinity, which are not JSON. Raises ValueError."""
    raise ValueError(text)


def _say(words, status):
    """Make a refusal whose text Gradio's page shows."""
    return JSONResponse({"detail": words, "error": words}, status)


def _with_patience(receive):
    """Wrap an ASGI ``receive``: it raises `Stalled` after `STALLED_SECONDS` without data."""

    async def take():
        try:
            return await asyncio.wait_for(receive(), STALLED_SECONDS)
        except asyncio.TimeoutError:
            raise Stalled from None

    return take


def _replay(body, receive):
    """Wrap an ASGI ``receive``: it returns ``body`` first."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def give():
        if messages:
            return messages.pop()
        return await receive()

    return give
