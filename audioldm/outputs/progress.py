"""How far a run is, on stderr: a bar for a terminal, and a line every ten seconds for a notebook or a log."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, TextIO

EVERY_S = 10.0  # seconds between two lines


class Progress:
    """Counts up to ``total`` (None: unknown) of ``unit``, "step" or "row"; to be closed, or used as a context."""

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit, self.done = total, unit, 0
        self._began = self._told = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit, file=sys.stderr, leave=False, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        """One more is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._told >= EVERY_S and self.done != self.total:
            self._told = now
            print(f"audioldm: {self._line(now - self._began)}", file=sys.stderr, flush=True)

    def say(self, text: str, file: TextIO) -> None:
        """Print a line clear of the bar."""
        with self._bar.external_write_mode(file) if self._bar is not None else contextlib.nullcontext():
            print(text, file=file, flush=True)

    def _line(self, seconds: float) -> str:
        if self.total is None:
            return f"{self.done} {self.unit}s are done"
        left = time_left(seconds / self.done * (self.total - self.done))
        return f"{self.done} of {self.total} {self.unit}s are done, about {left} left"


def time_left(seconds: float) -> str:
    """ "90 s", "5 min" or "3 h"."""
    left = round(seconds)
    return f"{left} s" if left < 120 else f"{left // 60} min" if left < 7200 else f"{left // 3600} h"
