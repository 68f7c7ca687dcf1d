"""The progress of a run on stderr: rows done, rows per second and time left; and the table at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

EVERY = 10.0  # seconds between two lines if stderr is not a terminal


class Progress:
    """A bar on a terminal, otherwise a line every few seconds.

    Args:
        name: of the source.
        total: number of rows; None if unknown.
        done: rows that earlier runs have done.
    """

    def __init__(self, name: str, total: int | None, done: int = 0) -> None:
        self._name, self._total, self._before, self._rows = name, total, done, done
        self._began = self._reported = time.monotonic()
        self._bar: tqdm | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, unit="row", desc=name, file=sys.stderr, leave=False, dynamic_ncols=True
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._rows > self._before:
            self._report()

    def add(self, rows: int) -> None:
        """Count ``rows`` more as done."""
        self._rows += rows
        if self._bar is not None:
            self._bar.update(rows)
        elif time.monotonic() - self._reported >= EVERY:
            self._report()

    def _report(self) -> None:
        self._reported = time.monotonic()
        rate = (self._rows - self._before) / max(self._reported - self._began, 1e-3)
        of = "" if self._total is None else f" of {self._total:,}"
        left = ""
        if self._total is not None and rate and self._total > self._rows:
            left = f", {tqdm.format_interval((self._total - self._rows) / rate)} left"
        print(f"{self._name}: {self._rows:,}{of} rows, {rate:,.1f} rows/s{left}", file=sys.stderr, flush=True)


def table(statuses: Mapping[str, int]) -> str:
    """The number of rows by status, most frequent first, and their total."""
    counts = [*sorted(statuses.items(), key=lambda pair: (-pair[1], pair[0])), ("total", sum(statuses.values()))]
    width, digits = (max(map(len, column)) for column in zip(*((name, f"{n:,}") for name, n in counts), strict=True))
    return "\n".join(f"{name:{width}}  {n:>{digits},}" for name, n in counts)
