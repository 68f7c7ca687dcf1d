"""Seconds of the clock until the page has a sound, and the server's memory over many requests; on a quiet machine.

    python benchmarks/web.py [--requests 100] [--cores 2]

Starts the page over the starter and waits for its address. A browser, if chromium is there, then drops examples/dog.jpg
into it and hears the sound; programs send the same photo again, ten requests at once, and the rest one by one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "tests")]
from web_site import ROOT, Site, start, stop  # noqa: E402

DOG = ROOT / "examples" / "dog.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100, metavar="N")
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="for the server and its clients together")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
        site = start(Path(folder) / "site")
        try:
            told("from the command to the address", began)
            measure(site, args.requests)
        finally:
            stop(site)


def measure(site: Site, count: int) -> None:
    from gradio_client import Client, handle_file

    begun = time.perf_counter()
    if path := shutil.which("chromium"):
        in_browser(site, path)
        told("from the address to the sound of the first photo, in a browser", begun)
    client = Client(site.url, verbose=False)

    def send(seed: int) -> Any:
        return client.submit(picture=handle_file(str(DOG)), seed=seed, api_name="/generate")

    begun = time.perf_counter()
    send(0).result()
    told("the same photo again, from a program", begun)
    begun = time.perf_counter()
    for job in [send(seed) for seed in range(10)]:
        job.result()
    told("ten at once, until the last one is answered", begun)
    before, begun = site.memory(), time.perf_counter()
    for seed in range(count):
        send(seed).result()
    told(f"{count} one by one", begun)
    print(f"{before:8.0f} MB resident before these {count}, {site.memory():.0f} MB after them")


def in_browser(site: Site, path: str) -> None:
    """Open the page, give it the photo, press the button and wait until the page has the sound."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(site.url)
        page.locator("input[type=file]").first.set_input_files(DOG)
        page.get_by_role("button", name="Remove Image").wait_for()
        page.get_by_role("button", name="Make the sound").click()
        page.locator(".result audio[src]").first.wait_for(state="attached")
        browser.close()


def told(what: str, begun: float) -> None:
    print(f"{time.perf_counter() - begun:8.1f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
