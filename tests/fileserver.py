"""A file on a server of one's own that breaks off, lies and changes its mind, for tests of downloads."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from server import Server

from audioldm.checkpoints.download import download, part_of
from audioldm.errors import InputError

BODY = random.Random(0).randbytes(1_500_000)
OTHER = random.Random(1).randbytes(1_500_000)
MD5 = hashlib.md5(BODY).hexdigest()
PAUSES = (0.01, 0.01, 0.01)  # seconds
Step = Callable[["Source", BaseHTTPRequestHandler], None]


class Source:
    """A file on a server; ``steps`` say what happens at the next requests, after which all goes well."""

    def __init__(self, server: Server, path: str = "/file.ckpt", body: bytes = BODY, etag: str | None = '"1"') -> None:
        self.server, self.body, self.etag, self.ranges = server, body, etag, True
        self.steps: list[Step] = []
        self.url = server.route(path, self._handle)

    @property
    def asked(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("Range") for _, headers in self.server.requests]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        (self.steps.pop(0) if self.steps else Source.serve)(self, handler)

    def serve(self, handler: BaseHTTPRequestHandler, upto: int | None = None, pause: float = 0) -> None:
        """Send what was asked for, but break off after ``upto`` bytes of it; ``pause`` seconds before each 100 kB."""
        begin, asked = 0, handler.headers.get("Range")
        if asked and self.ranges and handler.headers.get("If-Range") in (None, self.etag):
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(self.body):
                self.answer(handler, 416, {"Content-Range": f"bytes */{len(self.body)}"})
                return
        headers = {"Content-Length": str(len(self.body) - begin)}
        if self.etag:
            headers["ETag"] = self.etag
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(self.body) - 1}/{len(self.body)}"
        self.answer(handler, 206 if begin else 200, headers)
        content = self.body[begin:][:upto]
        for start in range(0, len(content), 100_000):
            self.server.stopping.wait(pause)
            handler.wfile.write(content[start : start + 100_000])

    @staticmethod
    def answer(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()


def broken_after(count: int) -> Step:
    return lambda source, handler: source.serve(handler, upto=count)


def status(number: int, **headers: str) -> Step:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda source, handler: source.answer(handler, number, names)


def files(path: Path) -> list[str]:
    """What lies in the folder of ``path``, by what comes after its name."""
    return sorted(file.name.removeprefix(path.name) for file in path.parent.glob("*"))


def start(source: Source, path: Path, count: int = 700_000) -> int:
    """Leave a .part as an interrupted process does; returns how much is in it."""
    source.steps = [broken_after(count)] * 9
    with pytest.raises(InputError):
        download(source.url, path, pauses=())
    source.steps, source.server.requests[:] = [], []
    return part_of(path).stat().st_size
