"""The page as people meet it: a server of its own process, over the tiny model; and a browser, where there is one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from audioldm.web.command import main; sys.exit(main(sys.argv[1:]))"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()


@dataclass
class Site:
    """A running server."""

    url: str
    process: subprocess.Popen[str]
    files: Path  # where it may keep files of its visitors

    def kept(self) -> list[Path]:
        """All files of visitors."""
        return [path for path in self.files.rglob("*") if path.is_file()]

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder: Path, *arguments: str, **environment: str) -> Site:
    pytest.importorskip("gradio", reason="Gradio is not installed (the extra web)")
    files, port = folder / "files", free_port()
    files.mkdir(parents=True)
    variables = {**os.environ, "TMPDIR": str(files), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", PROGRAM, "--port", str(port), *arguments]
    process = subprocess.Popen(command, cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=None)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address == f"http://127.0.0.1:{port}/"
    return Site(address, process, files)


def stop(site: Site) -> int:
    site.process.send_signal(signal.SIGTERM)
    try:
        return site.process.wait(timeout=30)
    finally:
        site.process.kill()


@pytest.fixture(scope="session")
def site(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page over the tiny model. It may fetch from servers of this machine, as the tests have some."""
    site = start(
        tmp_path_factory.mktemp("site"), "--model_name", str(tiny_folder), "--device", "cpu", "--time_limit", "60",
        AUDIOLDM_ALLOW_PRIVATE_URLS="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    yield site
    stop(site)


def wait_until(condition: Any, seconds: float = 30) -> bool:
    """Whether ``condition()`` becomes true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's chromium with a camera and a microphone that are not real."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no browser: chromium is not installed (Debian: apt-get install chromium; CHROMIUM names another)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra test)")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=path, args=FLAGS, headless=True,
            permissions=["camera", "microphone", "clipboard-read", "clipboard-write"],
        )  # fmt: skip
        context.set_default_timeout(30_000)
        yield context
        context.close()
