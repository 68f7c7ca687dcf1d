"""What stands before Gradio: the health check, limits of size, and no fetching of what visitors name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .request import MAX_UPLOAD

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEALTH = "/health"
MAX_BODY = 30_000_000  # bytes of a request that is not an upload; a data URI may be in it
HEADERS = 100_000  # bytes around the file in an upload
UPLOAD = re.compile(r"/gradio_api/upload/?$")
# Gradio's own ways to fetch an address for a visitor, and pages that nobody needs.
CLOSED = re.compile(r"/(gradio_api/)?(file=\w+:|file/\w+:|proxy=|deep_link|monitoring)")


class Guard:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["path"] == HEALTH:
            return await _answer(send, 200, "ok\n")
        if CLOSED.match(scope["path"]):
            return await _answer(send, 404, "this server does not fetch addresses\n")
        limit = MAX_UPLOAD + HEADERS if UPLOAD.match(scope["path"]) else MAX_BODY
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            return await _answer(send, 413, "the request is too large\n")
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise ConnectionError("the request is too large")
            return message

        await self.app(scope, counted, send)


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
