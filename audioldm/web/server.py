"""Serving the page: Gradio without its telephone, its files in a folder that goes when the server goes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .request import MAX_UPLOAD

if TYPE_CHECKING:
    from .engine import Engine

FIRST_PORT, PORTS = 7860, 100  # tried in turn
SWEEP_S = 600.0  # seconds between two looks for files that nobody needs any more
QUIET = {  # environment of Gradio, which is read when it is imported
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_PROXY": "localhost,127.0.0.1,::1",  # Gradio looks at its own first page
    "no_proxy": "localhost,127.0.0.1,::1",
}


def free_port(host: str, port: int | None) -> int:
    """``port``, or the first free one, at ``host``. Raises InputError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port or FIRST_PORT, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"{host} is not an address of this machine") from None
    error = OSError("no port is free")
    for candidate in [port] if port else range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], candidate))
                return candidate
            except OSError as why:
                error = why
    raise InputError(f"cannot serve at {host} port {port or FIRST_PORT}: {error.strerror or error}")


def serve(engine: Engine, host: str, port: int | None, announce: Callable[[str], object]) -> int:
    """Serve until Ctrl-C or SIGTERM; ``announce`` receives the address. Returns 0. Raises InputError."""
    port = free_port(host, port)
    os.environ.update(QUIET)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="audioldm-web-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        from starlette.middleware import Middleware

        from .guard import Guard
        from .page import CSS, build, theme
        from .sessions import Sessions

        sessions = Sessions(Path(folder).resolve())
        page = build(engine, sessions)
        sessions.protect()
        page.queue(max_size=64, default_concurrency_limit=8)
        page.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
            ssr_mode=False, show_error=True, max_file_size=MAX_UPLOAD, enable_monitoring=False, run_history=False,
            footer_links=["api"], theme=theme(), css=CSS, app_kwargs={"middleware": [Middleware(Guard)]},
        )  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        engine.warm_up()  # before anybody comes: imports hold up all of the server's threads
        announce(f"http://{shown}:{port}/")
        while not stop.wait(SWEEP_S):
            with contextlib.suppress(OSError):  # a file that Gradio removed meanwhile
                sessions.sweep()
        page.close(verbose=False)
    return 0
