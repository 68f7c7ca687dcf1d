"""What a person sees of a run: rows done, rows per second and the time left on stderr; a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

EVERY = 10.0  # seconds between two lines where no person watches a bar


class Progress:
    """A bar on a terminal, else now and then a line.

    Args:
        name: what is embedded.
        total: rows, of which ``done`` were done by earlier runs; None if nobody knows.
    """

    def __init__(self, name: str, total: int | None, done: int = 0) -> None:
        self._name, self._total, self._before, self._rows = name, total, done, done
        self._began = self._told = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, unit="row", desc=name, file=sys.stderr, leave=False, dynamic_ncols=True
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._rows > self._before:
            self._tell()

    def add(self, rows: int) -> None:
        """So many rows more are done."""
        self._rows += rows
        if self._bar is not None:
            self._bar.update(rows)
        elif time.monotonic() - self._told >= EVERY:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        rate = (self._rows - self._before) / max(self._told - self._began, 1e-3)
        of = "" if self._total is None else f" of {self._total:,}"
        left = ""
        if self._total is not None and rate and self._total > self._rows:
            left = f", {duration((self._total - self._rows) / rate)} left"
        print(f"{self._name}: {self._rows:,}{of} rows, {rate:,.1f} rows/s{left}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """``seconds`` as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(statuses: Mapping[str, int]) -> str:
    """Rows by status, the most frequent first, and together."""
    counts = [*sorted(statuses.items(), key=lambda pair: (-pair[1], pair[0])), ("together", sum(statuses.values()))]
    width, digits = (max(map(len, column)) for column in zip(*((name, f"{n:,}") for name, n in counts), strict=True))
    return "\n".join(f"{name:{width}}  {n:>{digits},}" for name, n in counts)
