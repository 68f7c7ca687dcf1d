"""The page as people meet it: a server over the tiny model; and a browser, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web_site import Site, start, stop

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()


@pytest.fixture(scope="session")
def site(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page over the tiny model. It may fetch from servers of this machine, as the tests have some."""
    site = start(
        tmp_path_factory.mktemp("site"), "--model_name", str(tiny_folder), "--device", "cpu", "--time_limit", "60",
        AUDIOLDM_ALLOW_PRIVATE_URLS="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    yield site
    stop(site)


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
        context.set_default_timeout(60_000)
        yield context
        context.close()


@pytest.fixture
def page(chromium: Any, site: Site) -> Iterator[Any]:
    """The page, just opened; nothing that it asks for may lie elsewhere."""
    page, elsewhere, faults = chromium.new_page(), [], []
    own = (site.url, "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else elsewhere.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.goto(site.url)
    page.get_by_role("button", name="Make the sound").wait_for()
    yield page
    assert not elsewhere and not faults
    page.close()
