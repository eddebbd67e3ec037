"""What stands in front of every request: who may ask, how much, and what every answer carries.

- Host: on the loopback interface only its own names, as another site's name may lead here (DNS
  rebinding). A page of another site may not post here either (Origin, Sec-Fetch-Site).
- Token: where one is set, every request needs "Authorization: Bearer TOKEN".
- A body ends with 413 when it is longer than the limit, by its announced length or by what comes,
  and with 408 when it does not come in time. Uploads beyond the limit of those at once get 429.
- Written as plain ASGI around the whole application, so that its own errors are covered, too.
"""

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of what one server takes."""

    max_bytes: int = 64 * 2**20
    """Of a request's body."""
    max_pixels: int = 100_000_000
    """Of a photo."""
    max_uploads: int = 4
    """Requests with a body at once, waiting ones among them."""
    upload_seconds: float = 60
    """In which a body has to come."""
    job_seconds: float = 300
    """In which a photo has to be examined."""


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: App, limits: Limits, *, token: str | None, any_host: bool) -> None:
        """token: None lets everybody ask. any_host: take every name of this host."""
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
        send = _with_headers(send)
        headers = {key.lower().decode("latin-1"): value for key, value in scope["headers"]}
        if refusal := self._refusal(headers):
            await _answer(send, *refusal)
            return
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        if self._num_uploads >= self._limits.max_uploads:
            await _answer(send, 429, "too many photos at once; try again in some seconds")
            return
        self._num_uploads += 1
        try:
            await self._app(scope, self._limited(receive), send)
        finally:
            self._num_uploads -= 1

    def _refusal(self, headers: dict[str, bytes]) -> tuple[int, str] | None:
        """Status and reason where a request is not even looked at."""
        host = headers.get("host", b"").decode("latin-1")
        if not self._any_host and _name(host) not in LOOPBACK:
            return 421, "this server answers on this machine only; ask 127.0.0.1"
        origin = headers.get("origin", b"").decode("latin-1")
        foreign = headers.get("sec-fetch-site", b"") in (b"cross-site", b"same-site")
        if foreign or (origin and _netloc(origin) != host):
            return 403, "a page of another site may not ask here"
        if self._token is not None:
            given = headers.get("authorization", b"")
            if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                return 401, "a token is required: send the header Authorization: Bearer TOKEN"
        length = headers.get("content-length", b"0")
        if length.isdigit() and int(length) > self._limits.max_bytes:
            return 413, self._too_large()
        return None

    def _too_large(self) -> str:
        return f"the upload is larger than {self._limits.max_bytes:,} bytes; give a smaller file"

    def _limited(self, receive: Receive) -> Receive:
        """Counts a body and its time. What it raises becomes the application's answer."""
        until = time.monotonic() + self._limits.upload_seconds
        num_bytes, complete = 0, False

        async def limited() -> Message:
            nonlocal num_bytes, complete
            if complete:  # only the end of the connection is waited for
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(until - time.monotonic(), 0.001))
            except TimeoutError:
                reason = f"the upload took longer than {self._limits.upload_seconds:g} s"
                raise HTTPException(408, reason) from None
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._limits.max_bytes:
                raise HTTPException(413, self._too_large())
            complete = not message.get("more_body", False)
            return message

        return limited


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", ()), *own]
        await send(message)

    return sent


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 429:
        headers.append((b"retry-after", b"5"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
