"""Checks of every request, and the headers of every answer.

- Host: on the loopback interface only its own names are accepted, as another site's name may
  resolve to it (DNS rebinding). Requests of another site's page are refused (Origin,
  Sec-Fetch-Site), except for a link to the page.
- Token: where one is set, every request needs it, also for the page's own files. A program sends
  "Authorization: Bearer TOKEN". A browser opens "/?token=TOKEN" once and gets a cookie
  (SameSite=Strict).
- A body that is larger than the limit, by its announced or its actual length, gets 413, and one
  that does not arrive in time 408. More simultaneous uploads than the limit get 429.
- Plain ASGI around the whole application, so that errors of the framework are covered, too.
"""

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
COOKIE = "overpaint-token"

_NOTHING = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
API_POLICY = f"default-src 'none'; {_NOTHING}"
PAGE_POLICY = f"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; {_NOTHING}"
"""Content security policies: of answers with data, and of the page with its files."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every answer, besides a content security policy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server."""

    max_bytes: int = 64 * 2**20
    """Size of a request's body."""
    max_pixels: int = 100_000_000
    """Size of a photo."""
    max_uploads: int = 8
    """Bodies that are received at the same time."""
    upload_seconds: float = 60
    """Time for receiving a body."""
    max_queued: int = 32
    """Jobs in the queues."""
    job_seconds: float = 300
    """Time for a job."""
    report_seconds: float = 1200
    """Time for a report, which detects five times."""
    keep_seconds: float = 3600
    """Time for which the results of a job are kept."""
    keep_bytes: int = 2 * 2**30
    """Size of all results; beyond it the oldest are deleted before their time."""
    keep_jobs: int = 500
    """Number of results, likewise. Each is an open file, and many systems allow a process 1,024."""


class Guard:
    """An ASGI application that checks requests for another one."""

    def __init__(self, app: App, limits: Limits, *, token: str | None, any_host: bool) -> None:
        """token: None accepts requests without one. any_host: accept every name of this host."""
        self._app = app
        self._limits = limits
        self._token = token
        self._any_host = any_host
        self._num_uploads = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # start and end of the server; there are no web sockets
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        send = _add_headers(send, scope["path"])
        headers = {key.lower().decode("latin-1"): value for key, value in scope["headers"]}
        if refusal := self._find_refusal(scope, headers):
            await _answer(send, *refusal)
        elif self._is_sign_in(scope):
            await _sign_in(send, self._token or "", secure=scope.get("scheme") == "https")
        elif scope["method"] != "POST":  # the application reads no other bodies
            await self._app(scope, receive, send)
        elif self._num_uploads >= self._limits.max_uploads:
            await _answer(send, 429, "too many uploads at once", "try again in some seconds")
        else:
            body = _Body(self, receive, self._limits)
            try:
                await self._app(scope, body.receive, send)
            finally:
                body.end()

    def _find_refusal(
        self, scope: MutableMapping[str, Any], headers: dict[str, bytes]
    ) -> tuple[int, str, str] | None:
        """Status, reason and remedy of a request that is refused; None for one that is accepted."""
        host = headers.get("host", b"").decode("latin-1")
        if not self._any_host and _parse_host(host) not in LOOPBACK:
            return 421, "this server answers on this machine only", "ask 127.0.0.1"
        origin = headers.get("origin", b"").decode("latin-1")
        foreign = headers.get("sec-fetch-site", b"") in (b"cross-site", b"same-site")
        is_link = (scope["method"], scope["path"]) == ("GET", "/")
        if (foreign and not is_link) or (origin and _parse_netloc(origin) != host):
            return 403, "a page of another site may not ask here", "ask from this server's own page"
        if not (self._may_ask(headers) or self._is_sign_in(scope)):
            remedy = "send the header Authorization: Bearer TOKEN; in a browser, open /?token=TOKEN"
            return 401, "a token is required", remedy
        length = headers.get("content-length", b"0")
        if length.isdigit() and int(length) > self._limits.max_bytes:
            return 413, *describe_size_limit(self._limits)
        return None

    def _may_ask(self, headers: dict[str, bytes]) -> bool:
        if self._token is None:
            return True
        scheme, _, given = headers.get("authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and self._is_token(given.strip()):
            return True
        return self._is_token(_read_cookie(headers.get("cookie", b"")))

    def _is_token(self, given: bytes) -> bool:
        return hmac.compare_digest(given, (self._token or "").encode())

    def _is_sign_in(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether a browser requests the page with the token in its address."""
        if self._token is None or (scope["method"], scope["path"]) != ("GET", "/"):
            return False
        try:
            fields = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=100)
        except ValueError:
            return False
        return self._is_token(fields.get("token", [""])[0].encode())


class _Body:
    """The body of a request, whose size, time and number at once are limited."""

    def __init__(self, guard: Guard, receive: Receive, limits: Limits) -> None:
        self._guard, self._receive, self._limits = guard, receive, limits
        self._until = time.monotonic() + limits.upload_seconds
        self._num_bytes, self._ended = 0, False
        guard._num_uploads += 1

    async def receive(self) -> Message:
        """ASGI's receive. Its exceptions become the application's answer."""
        if self._ended:  # the application waits for the end of the connection
            return await self._receive()
        try:
            left = max(self._until - time.monotonic(), 0.001)
            message = await asyncio.wait_for(self._receive(), left)
        except TimeoutError:
            reason = f"the upload took longer than {self._limits.upload_seconds:g} s"
            raise HTTPException(408, f"{reason}; send a smaller file") from None
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > self._limits.max_bytes:
            raise HTTPException(413, "; ".join(describe_size_limit(self._limits)))
        if not message.get("more_body", False):
            self.end()
        return message

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._guard._num_uploads -= 1


def describe_size_limit(limits: Limits) -> tuple[str, str]:
    """Reason and remedy for an upload that is too large."""
    return f"the upload is larger than {limits.max_bytes:,} bytes", "give a smaller file"


def _parse_host(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _parse_netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _read_cookie(header: bytes) -> bytes:
    """The token in a browser's cookie; empty where there is none."""
    try:
        found = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return b""
    return found.value.encode("latin-1", "replace") if found else b""


def _add_headers(send: Send, path: str) -> Send:
    policy = API_POLICY if path.startswith("/api/") else PAGE_POLICY

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            own = {"content-security-policy": policy, **HEADERS}
            names = {name.lower() for name, _ in given}
            given += [(k.encode(), v.encode()) for k, v in own.items() if k.encode() not in names]
            message["headers"] = given
        await send(message)

    return send_with_headers


async def _sign_in(send: Send, token: str, *, secure: bool) -> None:
    """Set the cookie, and redirect the browser to the page without the token in its address."""
    cookie = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{'; Secure' * secure}"
    headers = [(b"location", b"/"), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: int, message: str, remedy: str) -> None:
    body = json.dumps({"message": message, "remedy": remedy}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 429:
        headers.append((b"retry-after", b"5"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
