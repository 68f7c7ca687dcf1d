"""A run: reader → fetch → embed → write, one shard at a time; finished shards are not made again.

The same ``Worker`` runs in this process (``local``), or many of them run on Ray (``ray``).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ..readers.rows import LEFT_OUT, OK
from .fetch import is_temporary
from .progress import Display, Progress, table
from .ray import run_on_ray
from .worker import Job, Worker, starts_of
from .write import Folder

ENGINES = ("local", "ray")


def run(
    job: Job,
    out: str | Path,
    *,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    show: Callable[[str, int | None, int], Display] = Progress,
) -> Folder:
    """Do the rest of ``job`` in the folder ``out``; returns the folder, unlocked.

    Args:
        job: what to embed.
        out: the folder.
        engine: "local": in this process; "ray": on Ray.
        address: of the Ray cluster; None: this machine.
        workers: number of Ray workers; None: as many as fit.
        show: makes the display of the progress, of the source's name, the number of rows and how many are done.

    Raises InputError: see Folder and Embedder; a file cannot be read; there is no network.
    """
    worker = Worker(job)
    again = is_temporary if job.retry else lambda status: False
    with Folder(out, worker.settings, worker.embedder.versions, again) as folder:
        if folder.finished:
            print(f"{folder.path} is already finished", file=sys.stderr)
        else:
            _resume(worker, folder, show, engine, address, workers)
    if left := sum(rows for status, rows in folder.statuses.items() if is_temporary(status)):
        print(f"{left:,} pictures failed temporarily; rerun with --retry", file=sys.stderr)
    return folder


def _resume(
    worker: Worker,
    folder: Folder,
    show: Callable[[str, int | None, int], Display],
    engine: str,
    address: str | None,
    workers: int | None,
) -> None:
    job, before = worker.job, folder.statuses.total()
    if before:
        print(f"resuming {folder.path}: {len(folder.done)} shards, {before:,} rows are done", file=sys.stderr)
    with show(job.reader.name, job.total, before) as progress:
        if engine == "ray":
            run_on_ray(job, folder, progress, address, workers)
        else:
            run_here(worker, folder, progress)
    folder.finish()


def run_here(worker: Worker, folder: Folder, progress: Display) -> None:
    """Make the remaining shards in this process."""
    began = time.monotonic()
    for k, embedded in worker.embed(worker.job.slices(folder.done), progress.add):
        statuses = worker.write(folder.path, k, embedded)
        del embedded  # so that it is not in memory together with the next
        now = time.monotonic()
        folder.manifest["starts"] |= starts_of(worker.job.reader)
        folder.add(k, statuses, now - began)
        began = now


def failures(folder: Folder) -> Counter[str]:
    """The number of rows that failed, by status, without those that were left out on purpose."""
    return Counter({status: rows for status, rows in folder.statuses.items() if status not in (OK, *LEFT_OUT)})


def report(folder: Folder) -> str:
    """The table of statuses, the folder and the speed."""
    rate = folder.manifest["rows_per_second"]
    speed = f", {rate:,} rows/s" if rate else ""
    return f"{table(folder.statuses)}\n{folder.path}: {len(folder.done)} shards{speed}"
