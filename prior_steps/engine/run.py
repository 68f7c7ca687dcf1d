"""The engine: reader → fetch → embed → write, a shard at a time; what is there already is not done again.

The same ``Worker`` runs in this process (``local``) or, many of them, in a Ray cluster (ray.py).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from .progress import Progress, table
from .worker import Job, Worker
from .write import Folder

ENGINES = ("local", "ray")


def run(
    job: Job, out: str | Path, *, engine: str = "local", address: str | None = None, workers: int | None = None
) -> Folder:
    """Embed what ``job`` says into the folder ``out``, as far as that is not done; returns the folder, left.

    Args:
        engine: "local": in this process; "ray": on Ray, at ``address`` (None: this machine) by ``workers``.

    Raises InputError: see Folder and Embedder; what a reader finds wrong with a file as a whole; no network.
    """
    from .fetch import may_pass

    worker = Worker(job)
    again = may_pass if job.retry else lambda status: False
    with Folder(out, worker.settings, worker.embedder.versions, again) as folder:
        if folder.finished:
            print(f"{folder.path} is finished; nothing is left to do", file=sys.stderr)
        else:
            _do_the_rest(worker, folder, engine, address, workers)
    if left := sum(rows for status, rows in folder.statuses.items() if may_pass(status)):
        print(f"pictures that failed in ways that may pass: {left:,}; --retry asks for them again", file=sys.stderr)
    return folder


def _do_the_rest(worker: Worker, folder: Folder, engine: str, address: str | None, workers: int | None) -> None:
    job, before = worker.job, folder.statuses.total()
    if before:
        print(f"{folder.path} has {len(folder.done)} shards already, {before:,} rows", file=sys.stderr)
    with Progress(job.reader.name, job.total, before) as progress:
        if engine == "ray":
            from .ray import run_on_ray

            run_on_ray(job, folder, progress, address, workers)
        else:
            run_here(worker, folder, progress)
    folder.finish()


def run_here(worker: Worker, folder: Folder, progress: Progress) -> None:
    """Do what is left in this process."""
    began = time.monotonic()
    for k, embedded in worker.embed(worker.job.slices(folder.done), progress.add):
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
