"""The engine: reader → fetch → embed → write, a shard at a time; what is there already is not done again.

The same ``Worker`` runs in this process (``local``) or, many of them, in a Ray cluster (ray_engine.py).
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from translator.shards import schema

from .embed import CLAP, TOWERS, Embedded, Embedder, Kind
from .progress import Progress, table
from .rows import Row
from .write import Folder, shard_path, write_shard

if TYPE_CHECKING:
    import pyarrow as pa

    from .readers import Reader

ENGINES = ("local", "ray")
SHARD_ROWS = {"text": 10_000, "image": 1_000}  # 41 MB and 4 MB of vectors; what a killed run does again at most
SLICE = 64  # pictures that one thread fetches and decodes
AHEAD = 4  # such threads, beside the model: 256 pictures at most are in memory


class Fetcher(Protocol):
    """Gets pictures."""

    def fetch_all(self, rows: Sequence[Row]) -> list[Row]:
        """The same rows in the same order, with ``content`` or a failed status. Called from several threads."""
        ...


@dataclass(frozen=True)
class Job:
    """What to embed, and with what. Can be pickled if its reader and fetcher can."""

    reader: Reader
    kind: Kind = "text"  # what CLIP is shown
    model: str = "starter"
    device: str = "auto"
    towers: tuple[str, ...] = TOWERS
    fetcher: Callable[[], Fetcher] | None = None  # makes one, for each worker; None: the rows have all they need
    limit: int | None = None  # rows, the first ones; None: all
    shard_rows: int | None = None  # None: SHARD_ROWS

    @property
    def rows_each(self) -> int:
        """Rows in every shard but the last."""
        return self.shard_rows or SHARD_ROWS[self.kind]

    @property
    def total(self) -> int | None:
        """How many rows there will be, if the reader knows."""
        total = self.reader.total
        return total if self.limit is None else self.limit if total is None else min(total, self.limit)

    def shards(self, done: Container[int] = ()) -> Iterator[tuple[int, list[Row]]]:
        """(k, rows of shard k) of the shards that are not ``done``, whose rows are read nonetheless."""
        rows = islice(self.reader, self.limit)
        for k in count():
            if not (chunk := list(islice(rows, self.rows_each))):
                return
            if k not in done:
                yield k, chunk


class Worker:
    """Does shards. Raises InputError, then and later, for what is wrong with the model."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.embedder = Embedder(job.model, job.device, job.kind, job.towers)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that rows and vectors depend on, for the manifest."""
        clip, clap = self.embedder.model.spaces
        return {
            "source": self.job.reader.name,
            "input": self.job.reader.fingerprint,
            "limit": self.job.limit,
            "rows_per_shard": self.job.rows_each,
            "clip_kind": self.job.kind,
            "towers": list(self.job.towers),
            "clip_space": clip,
            "clap_space": clap,
        }

    @cached_property
    def _fetcher(self) -> Fetcher | None:
        return None if self.job.fetcher is None else self.job.fetcher()

    def embed(
        self, shards: Iterable[tuple[int, list[Row]]], on_rows: Callable[[int], object] = lambda rows: None
    ) -> Iterator[tuple[int, Embedded]]:
        """Shards with their vectors, in order. Threads fetch and decode pictures ahead of the model, across shards."""
        if self.job.kind == "text":  # whole shards, to sort by length
            for k, rows in shards:
                yield k, self.embedder([(row, None) for row in rows], on_rows)
            return
        parts: list[Embedded] = []
        for (k, last, _), prepared in ahead(lambda task: self._prepare(task[2]), _slices(shards), AHEAD):
            parts.append(self.embedder(prepared, on_rows))
            if last:
                yield k, Embedded.join(parts)
                parts = []

    def write(self, folder: Path, k: int, embedded: Embedded) -> Counter[str]:
        """Write shard k; returns how many rows it has of each status. Raises OSError."""
        source = self.job.reader.name
        return write_shard(
            shard_path(folder, source, k), embedded, shard_schema(self.embedder, source), self.job.kind
        )

    def _prepare(self, rows: list[Row]) -> list[Any]:
        if self._fetcher is not None:
            rows = self._fetcher.fetch_all(rows)
        return [self.embedder.prepare(row) for row in rows]


def shard_schema(embedder: Embedder, source: str) -> pa.Schema:
    """The schema of shards that ``embedder`` fills."""
    clip, clap = embedder.model.spaces
    clap = clap if CLAP in embedder.towers else None
    return schema(source, clip, clap, embedder.versions, embedder.model.dimension)


def _slices(shards: Iterable[tuple[int, list[Row]]]) -> Iterator[tuple[int, bool, list[Row]]]:
    """(k, whether it is the last of its shard, rows)."""
    for k, rows in shards:
        for start in range(0, len(rows), SLICE):
            yield k, start + SLICE >= len(rows), rows[start : start + SLICE]


def ahead(function: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[tuple[Any, Any]]:
    """(item, function(item)) in order, worked out by ``threads`` that are no further ahead than their number."""
    pool, waiting = ThreadPoolExecutor(threads), deque[tuple[Any, Future]]()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) == threads:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def run(
    job: Job, out: str | Path, *, engine: str = "local", address: str | None = None, workers: int | None = None
) -> Folder:
    """Embed what ``job`` says into the folder ``out``, as far as that is not done; returns the folder, left.

    Args:
        engine: "local": in this process; "ray": on Ray, at ``address`` (None: this machine) by ``workers``.

    Raises InputError: see Folder and Embedder; what a reader finds wrong with a file as a whole.
    """
    worker = Worker(job)
    with Folder(out, worker.settings, worker.embedder.versions) as folder:
        if folder.finished:
            print(f"{folder.path} is finished; nothing is left to do", file=sys.stderr)
            return folder
        before = folder.statuses.total()
        if before:
            print(f"{folder.path} has {len(folder.done)} shards already, {before:,} rows", file=sys.stderr)
        with Progress(job.reader.name, job.total, before) as progress:
            if engine == "ray":
                from .ray_engine import run_on_ray

                run_on_ray(job, folder, progress, address, workers)
            else:
                run_here(worker, folder, progress)
        folder.finish()
    return folder


def run_here(worker: Worker, folder: Folder, progress: Progress) -> None:
    """Do what is left in this process."""
    began = time.monotonic()
    for k, embedded in worker.embed(worker.job.shards(folder.done), progress.add):
        statuses = worker.write(folder.path, k, embedded)
        del embedded  # or it would be in memory beside the next
        now = time.monotonic()
        folder.add(k, statuses, now - began)
        began = now


def report(folder: Folder) -> str:
    """The table of statuses and where the rows are."""
    rate = folder.manifest["rows_per_second"]
    speed = f", {rate:,} rows/s" if rate else ""
    return f"{table(folder.statuses)}\n{folder.path}: {len(folder.done)} shards{speed}"
