"""A real HTTP server on this machine whose every answer a test decides, for tests of what strangers may send.

with Server() as server:
    server.answer("/dog.jpg", jpeg_bytes)
    load_image(server.url("/dog.jpg"))
    assert server.paths == ["/dog.jpg"]
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """Serves on `host`:`port` (0: a free one) in threads until the `with` block ends."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, certificate: str | None = None) -> None:
        """`certificate` is a PEM file holding certificate and key; with it the server speaks https."""
        self.connections = 0  # accepted so far
        self.requests: list[tuple[str, dict[str, str]]] = []  # (path with query, headers)
        self.bytes_sent = 0  # by `stream`
        self.stopping = threading.Event()
        self._routes: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self._http = self._make(host, port)
        self._scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake is left to the thread of the connection: a failing one must not stop the server.
            self._http.socket = context.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
            self._scheme = "https"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def url(self, path: str, host: str | None = None) -> str:
        return f"{self._scheme}://{host or self._http.server_address[0]}:{self.port}{path}"

    def answer(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        """Answer `path` with `body`; Content_Type="…" sets a header, Content_Length the announced length."""
        headers.setdefault("Content_Length", str(len(body)))
        return self.stream(path, [body], status, **headers)

    def redirect(self, path: str, target: str, status: int = 302) -> str:
        return self.answer(path, status=status, Location=target)

    def stream(
        self, path: str, pieces: Iterable[bytes], status: int = 200, pause: float = 0.0, **headers: str
    ) -> str:
        """Answer `path` piece by piece, `pause` seconds between them, without a length; returns the URL."""

        def handle(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            self._send(handler, pieces, pause)

        return self.route(path, handle)

    def raw(self, path: str, pieces: Iterable[bytes], pause: float = 0.0) -> str:
        """Answer `path` with these bytes, status line and headers included; returns the URL."""
        return self.route(path, lambda handler: self._send(handler, pieces, pause))

    def stall(self, path: str) -> str:
        """Accept a request for `path` and never answer; returns the URL."""
        return self.route(path, lambda handler: self.stopping.wait(10) and None)

    def route(self, path: str, handle: Callable[[BaseHTTPRequestHandler], None]) -> str:
        self._routes[path] = handle
        return self.url(path)

    def _send(self, handler: BaseHTTPRequestHandler, pieces: Iterable[bytes], pause: float) -> None:
        for piece in pieces:
            handler.wfile.write(piece)
            self.bytes_sent += len(piece)
            if self.stopping.wait(pause) if pause else self.stopping.is_set():
                return

    def _make(self, host: str, port: int) -> ThreadingHTTPServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # the client went away, as clients of these tests do
                    super().handle()

            def do_GET(self) -> None:
                server.requests.append((self.path, dict(self.headers)))
                route = server._routes.get(self.path.partition("?")[0])
                if route:
                    route(self)
                else:
                    self.send_error(404)

            do_HEAD = do_GET  # a route that is asked both ways looks at handler.command

            def log_message(self, *_: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def get_request(self) -> Any:
                server.connections += 1
                return super().get_request()

            def handle_error(self, *_: Any) -> None:
                pass

        return Http((host, port), Handler)
