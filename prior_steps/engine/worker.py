"""A job, and the worker that does it: fetch, embed and write, a shard at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from audioldm.errors import InputError
from translator.shards.parquet import schema

from ..readers.rows import Row
from .embed import CLAP, TOWERS, Embedded, Embedder, Kind, Prepared
from .write import shard_path, write_shard

if TYPE_CHECKING:
    import pyarrow as pa

    from ..readers import Reader

A = TypeVar("A")
B = TypeVar("B")
SHARD_ROWS = {"text": 10_000, "image": 1_000}  # 41 MB and 4 MB of vectors; a killed run loses at most one shard
SLICE = 64  # pictures that one thread fetches and decodes
AHEAD = 4  # such threads, besides the model: at most 256 pictures are in memory
FEW = 10  # dead addresses that may be chance; if more are dead and none is reached, there is no network


class Fetcher(Protocol):
    """Adds pictures to rows."""

    def fetch_all(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows in the same order, with ``content`` or a failed status. Called from several threads.

        A row that needs no picture is returned as the same object.
        """
        ...

    @property
    def ignores_noai(self) -> bool:
        """Whether it uses pictures whose server forbids the use for AI; the rows depend on this."""
        ...


@dataclass(frozen=True)
class Job:
    """What to embed, and how. Can be pickled if its reader and fetcher can."""

    reader: Reader
    kind: Kind = "text"  # CLIP's input
    model: str = "starter"
    device: str = "auto"
    towers: tuple[str, ...] = TOWERS
    fetcher: Callable[[], Fetcher] | None = None  # makes one for each worker; None: the rows are complete
    limit: int | None = None  # number of rows; None: all
    shard_rows: int | None = None  # None: SHARD_ROWS
    retry: bool = False  # whether shards with temporary failures are made again

    @property
    def rows_each(self) -> int:
        """Rows in every shard but the last."""
        return self.shard_rows or SHARD_ROWS[self.kind]

    @property
    def total(self) -> int | None:
        """The number of rows, if the reader knows it."""
        total = self.reader.total
        return total if self.limit is None else self.limit if total is None else min(total, self.limit)

    def slices(self, done: Container[int] = ()) -> Iterator[tuple[int, list[Row]]]:
        """(k, rows of shard k) for the shards that are not ``done``; the rows of the others are read and dropped.

        Captions come one shard at a time, to be sorted by length; rows with pictures come SLICE at a time.
        """
        size = self.rows_each if self.kind == "text" else SLICE
        numbered = enumerate(islice(self.reader, self.limit))
        for k, shard in groupby(numbered, lambda pair: pair[0] // self.rows_each):
            while k not in done and (rows := [row for _, row in islice(shard, size)]):
                yield k, rows


def starts_of(reader: Reader) -> dict[str, int]:
    """The numbers of its files' first rows, as far as it has read them."""
    return dict(getattr(reader, "starts", {}))


class Worker:
    """Makes shards. Raises InputError, now and later, if the model is unusable."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.embedder = Embedder(job.model, job.device, job.kind, job.towers)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that rows and vectors depend on, for the manifest."""
        clip, clap = self.embedder.model.spaces
        return {
            "source": self.job.reader.name,
            "input": self.job.reader.fingerprint,
            "files": getattr(self.job.reader, "parts", None),
            "reading": getattr(self.job.reader, "fingerprint_of_options", None),
            "model": self.embedder.name,
            "limit": self.job.limit,
            "rows_per_shard": self.job.rows_each,
            "clip_kind": self.job.kind,
            "towers": list(self.job.towers),
            "clip_space": clip,
            "clap_space": clap,
            # None by default, as in folders from before this setting existed
            "ignore_noai": True if self._fetcher is not None and self._fetcher.ignores_noai else None,
        }

    @cached_property
    def _fetcher(self) -> Fetcher | None:
        return None if self.job.fetcher is None else self.job.fetcher()

    def embed(
        self, slices: Iterable[tuple[int, list[Row]]], on_rows: Callable[[int], object] = lambda rows: None
    ) -> Iterator[tuple[int, Embedded]]:
        """Turn slices, as from Job.slices, into shards with their vectors, in order.

        Threads fetch and decode pictures ahead of the model, across shards. Raises InputError: there is no network.
        """
        if self.job.kind == "text":
            for k, rows in slices:
                yield k, self.embedder([(row, None) for row in rows], on_rows)
            return
        for k, shard in groupby(map_ahead(self._prepare, slices, AHEAD), itemgetter(0)):
            parts, fetched = [], Counter[str]()
            for _, prepared, statuses in shard:
                parts.append(self.embedder(prepared, on_rows))
                fetched += statuses
                del prepared  # so that it is not in memory together with the next
            if fetched["unreachable"] == fetched.total() >= FEW:
                raise InputError(
                    f"none of the {fetched.total()} pictures of a shard could be reached; is there a network? "
                    "The shard was not written; the same command resumes with it"
                )
            yield k, Embedded.join(parts)

    def write(self, folder: Path, k: int, embedded: Embedded) -> Counter[str]:
        """Write shard k, and count its rows by status. Raises OSError."""
        source = self.job.reader.name
        return write_shard(shard_path(folder, source, k), embedded, shard_schema(self.embedder, source), self.job.kind)

    def _prepare(self, part: tuple[int, list[Row]]) -> tuple[int, list[Prepared], Counter[str]]:
        """k, the embedder's input, and the statuses of the rows that were fetched."""
        k, before = part
        rows = before if self._fetcher is None else self._fetcher.fetch_all(before)
        fetched = Counter(row.status for row, old in zip(rows, before, strict=True) if row is not old)
        return k, [self.embedder.prepare(row) for row in rows], fetched


def shard_schema(embedder: Embedder, source: str) -> pa.Schema:
    """The schema of the shards that ``embedder`` makes."""
    clip, clap = embedder.model.spaces
    clap = clap if CLAP in embedder.towers else None
    return schema(source, clip, clap, embedder.versions, embedder.model.dimension)


def map_ahead(function: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """function(item) in order, computed by ``threads`` threads that are at most as many items ahead.

    No reference to an item or a result is kept longer than needed.
    """
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[B]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            del item
            if len(waiting) == threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
