"""The engine on Ray Data: one task reads, many workers embed and write shards, here or on a cluster.

A shard is what travels, with the pictures that came with its rows, and a worker writes it itself: all machines must see
the folders by the same names. Ray hands a shard to another worker if the first one dies, and lets the reader wait while
the workers are busy.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from audioldm.errors import InputError

from .progress import Progress
from .worker import Job, Worker
from .write import Folder

CORES = 2.0  # of a worker's model, if there are so many


def run_on_ray(job: Job, folder: Folder, progress: Progress, address: str | None, workers: int | None) -> None:
    """Do what is left of ``job`` on the cluster at ``address``, or on this machine; see run.run."""
    with _cluster(address) as ray:
        cores, gpus = (ray.cluster_resources().get(kind, 0.0) for kind in ("CPU", "GPU"))
        count = workers or max(1, int(gpus if gpus and job.device != "cpu" else cores / CORES))
        resources = {"num_cpus": max(0.01, min(CORES, cores / count))}  # more than there is would wait for ever
        if gpus and job.device != "cpu":
            resources["num_gpus"] = min(1.0, gpus / count)
        began = time.monotonic()
        # Workers may take all cores, and the reader needs one of none. (And steps of like needs Ray would run as one.)
        rows = ray.data.from_items([0]).map_batches(
            _read, fn_args=(job, frozenset(folder.done)), batch_size=1, num_cpus=0
        )
        results = rows.map_batches(
            _RayWorker,
            fn_constructor_args=(job, folder.path),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            **resources,
        )
        for result in results.iter_rows():
            if result["error"]:
                raise InputError(result["error"])
            statuses, now = json.loads(result["statuses"]), time.monotonic()
            folder.add(int(result["shard"]), statuses, now - began)
            progress.add(sum(statuses.values()))
            began = now


def _read(_: Any, job: Job, done: frozenset[int]) -> Iterator[dict[str, list[Any]]]:
    """Shards, one a batch."""
    for _, shard in groupby(job.slices(done), itemgetter(0)):
        yield {"slices": [pickle.dumps(list(shard))]}


class _RayWorker:
    """A worker, with its model, in a process of its own."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.worker, self.folder = Worker(job), folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        (shard,) = batch["slices"]
        try:
            ((k, embedded),) = self.worker.embed(pickle.loads(shard))
            statuses = self.worker.write(self.folder, k, embedded)
        except InputError as error:  # Ray would hand on its traceback, as text
            return {"shard": [-1], "statuses": ["{}"], "error": [str(error)]}
        return {"shard": [k], "statuses": [json.dumps(statuses)], "error": [""]}


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to ``address``, or started here and stopped in the end. Raises InputError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError:
        raise InputError("--engine ray needs Ray, which the extra [ray] installs") from None
    ours = not ray.is_initialized()
    try:
        if ours:
            options = {"include_dashboard": False} if address is None else {}
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster answers at {address}: {' '.join(str(error).split())}") from None
    context = ray.data.DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    context.target_max_block_size = 1  # bytes: every shard a block of its own, which goes to the next free worker
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise cause or error from None
    finally:
        context.target_max_block_size, context.enable_progress_bars = before  # of who else uses Ray in this process
        if ours:
            ray.shutdown()
