"""The progress of a run on stderr: rows done, rows per second and time left; and the table at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Protocol

from tqdm import tqdm

EVERY = 10.0  # seconds between two lines if stderr is not a terminal


class Display(Protocol):
    """What shows the progress of a run over rows."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *_: object) -> None: ...

    def add(self, rows: int) -> None:
        """Count ``rows`` more as done."""
        ...


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


class Stages:
    """Several steps, one after the other, in one display: a bar on a terminal, otherwise a line every few seconds.

    Args:
        name: of the command.
        seconds: about how long each step takes, by its name, in order.
    """

    def __init__(self, name: str, seconds: Mapping[str, float]) -> None:
        self._name, self._seconds, self._total = name, dict(seconds), max(sum(seconds.values()), 1e-3)
        self._step, self._share, self._before = "", 0.0, 0.0
        self._began = self._reported = time.monotonic()
        self._bar: tqdm | None = None
        if sys.stderr.isatty():
            form = "{desc} {percentage:3.0f} %|{bar}| {postfix}"
            self._bar = tqdm(total=1.0, desc=name, bar_format=form, file=sys.stderr, leave=False, dynamic_ncols=True)

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begin(self, step: str) -> None:
        """The step before is over; ``step`` begins."""
        self._before += self._seconds.get(self._step, 0.0)
        self._step, self._share = step, 0.0
        self._show(now=True)

    def done(self, share: float) -> None:
        """So much of the step is done, 0 to 1."""
        self._share = min(1.0, max(share, self._share))
        self._show()

    def rows(self, total: int, done: int) -> _Rows:
        """A display of rows, as ``run`` wants it, for this step, which is to do what is not yet done of ``total``."""
        return _Rows(self, total - done)

    def say(self, line: str) -> None:
        """Print a line clear of the bar."""
        tqdm.write(line, file=sys.stderr)

    def left(self, spent: float) -> float:
        """About how many seconds are left after ``spent``.

        Both the estimates and the pace so far count: by the share that is ahead, and by the share that is done.
        """
        done = self._passed / self._total
        return (self._total - self._passed) * (1.0 - done + spent / self._total)  # done · spent / passed: the pace

    @property
    def _passed(self) -> float:
        """How many of the estimated seconds are behind."""
        return self._before + self._share * self._seconds.get(self._step, 0.0)

    def _show(self, now: bool = False) -> None:
        text = f"{self._step}, about {duration(self.left(time.monotonic() - self._began))} left"
        if self._bar is not None:
            self._bar.n = self._passed / self._total
            self._bar.set_postfix_str(text)
        elif now or time.monotonic() - self._reported >= EVERY:
            self._reported = time.monotonic()
            print(f"{self._name}: {self._passed / self._total:.0%}, {text}", file=sys.stderr, flush=True)


class _Rows:
    """The rows of a step of ``Stages``."""

    def __init__(self, stages: Stages, rows: int) -> None:
        self._stages, self._all, self._done = stages, rows, 0

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None: ...

    def add(self, rows: int) -> None:
        self._done += rows
        self._stages.done(self._done / max(1, self._all))


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def table(statuses: Mapping[str, int]) -> str:
    """The number of rows by status, most frequent first, and their total."""
    counts = [*sorted(statuses.items(), key=lambda pair: (-pair[1], pair[0])), ("total", sum(statuses.values()))]
    width, digits = (max(map(len, column)) for column in zip(*((name, f"{n:,}") for name, n in counts), strict=True))
    return "\n".join(f"{name:{width}}  {n:>{digits},}" for name, n in counts)
