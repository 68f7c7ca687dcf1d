"""The engine on Ray Data: one task reads, many workers embed and write shards, here or on a cluster.

Shards travel with the pictures of their rows, and the workers write them, so all machines must see the folders under
the same names. If a worker dies, Ray gives its shard to another one. The reader waits while all workers are busy.
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
from translator.programs import pip_install

from .progress import Display
from .worker import Job, Worker, starts_of
from .write import Folder

CORES = 2.0  # for each worker's model, if there are enough


def run_on_ray(job: Job, folder: Folder, progress: Display, address: str | None, workers: int | None) -> None:
    """Do the rest of ``job`` on the cluster at ``address``, or on this machine; see ``run``."""
    with _cluster(address) as ray:
        cores, gpus = (ray.cluster_resources().get(kind, 0.0) for kind in ("CPU", "GPU"))
        count = workers or max(1, int(gpus if gpus and job.device != "cpu" else cores / CORES))
        resources = {"num_cpus": max(0.01, min(CORES, cores / count))}  # Ray waits for ever for more than there is
        if gpus and job.device != "cpu":
            resources["num_gpus"] = min(1.0, gpus / count)
        began = time.monotonic()
        # The reader needs no core, as workers may take all. (And Ray would fuse steps with equal needs.)
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
            folder.manifest["starts"] |= json.loads(result["starts"])
            folder.add(int(result["shard"]), statuses, now - began)
            progress.add(sum(statuses.values()))
            began = now


def _read(_: Any, job: Job, done: frozenset[int]) -> Iterator[dict[str, list[Any]]]:
    """Read shards, one per batch, each with the files' first rows that are known by then."""
    for _, shard in groupby(job.slices(done), itemgetter(0)):
        slices = pickle.dumps(list(shard))
        yield {"slices": [slices], "starts": [json.dumps(starts_of(job.reader))]}


class _RayWorker:
    """A worker with its model, in its own process."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.worker, self.folder = Worker(job), folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        (shard,), (starts,) = batch["slices"], batch["starts"]
        try:
            ((k, embedded),) = self.worker.embed(pickle.loads(shard))
            statuses = self.worker.write(self.folder, k, embedded)
        except InputError as error:  # Ray would replace it by its traceback
            return {"shard": [-1], "statuses": ["{}"], "starts": ["{}"], "error": [str(error)]}
        return {"shard": [k], "statuses": [json.dumps(statuses)], "starts": [str(starts)], "error": [""]}


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to ``address``, or started here and stopped at the end. Raises InputError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # otherwise it reports to its makers
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError:
        raise InputError(f"--engine ray requires Ray: {pip_install('ray[data]')}") from None
    ours = not ray.is_initialized()  # whether to start and stop it here
    try:
        if ours:
            options: dict[str, Any] = {"include_dashboard": False} if address is None else {}
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster answers at {address}: {' '.join(str(error).split())}") from None
    context = ray.data.DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    context.target_max_block_size = 1  # bytes: every shard is a block, which goes to the next free worker
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
        context.target_max_block_size, context.enable_progress_bars = before  # for others who use Ray in this process
        if ours:
            ray.shutdown()
