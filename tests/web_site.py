"""A server of the page in a process of its own, which writes down each connection to another machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "import sys; from audioldm.web.command import main; sys.exit(main(sys.argv[1:]))"
WATCH = """
import socket
connect = socket.socket.connect
def watched(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        with open({log!r}, "a") as log:
            print(address, file=log)
        raise OSError("no network")
    return connect(self, address)
socket.socket.connect = watched
"""


@dataclass
class Site:
    """A running server."""

    url: str
    process: subprocess.Popen[str]
    files: Path  # where it may keep files of its visitors

    def kept(self) -> list[Path]:
        """All files of visitors."""
        return [Path(folder, name) for folder, _, names in os.walk(self.files) for name in names]

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
    files, here, port, log = folder / "files", folder / "here", free_port(), folder / "connections"
    files.mkdir(parents=True)
    here.mkdir()
    log.touch()
    (folder / "sitecustomize.py").write_text(WATCH.format(log=str(log)))
    variables = {**os.environ, "TMPDIR": str(files), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **environment}
    command = [sys.executable, "-c", PROGRAM, "--port", str(port), *arguments]
    process = subprocess.Popen(command, cwd=here, env=variables, text=True, stdout=subprocess.PIPE, stderr=None)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address == f"http://127.0.0.1:{port}/"
    return Site(address, process, files)


def stop(site: Site) -> int:
    site.process.send_signal(signal.SIGTERM)
    try:
        return site.process.wait(timeout=120)
    finally:
        site.process.kill()


def raw(site: Site, **values: Any) -> str:
    """What the server answers to a request that is not a client's, field by field."""
    info = requests.get(f"{site.url}gradio_api/info", timeout=20).json()["named_endpoints"]["/generate"]
    data = [values.get(one["parameter_name"], one["parameter_default"]) for one in info["parameters"]]
    begun = requests.post(f"{site.url}gradio_api/call/generate", json={"data": data}, timeout=20).json()
    return requests.get(f"{site.url}gradio_api/call/generate/{begun['event_id']}", timeout=60).text


def wait_until(condition: Any, seconds: float = 30) -> bool:
    """Whether ``condition()`` becomes true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
