"""What ``make`` embeds: the shards of one collection, where they are kept, and how long they take."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .engine.embed import IMAGE_BATCH, TEXT_BATCH, Embedder
from .engine.fetch import is_temporary
from .engine.worker import Job
from .engine.write import read_manifest, shards
from .readers.rows import OK, Row

if TYPE_CHECKING:
    from torch import Tensor

SHARD_ROWS = {"text": 2_000, "image": 200}  # fewer than otherwise, so that a killed run loses less than a minute
PROBED = {"text": 2 * TEXT_BATCH, "image": IMAGE_BATCH}  # rows that are embedded to see how long it takes
PER_DOWNLOAD = {"wit": 0.1, "conceptual_captions": 0.03}  # seconds, assumed: from one host, and from many


@dataclass(eq=False)
class Part:
    """The shards of one collection."""

    job: Job
    work: Path  # the folder of all parts
    ignores_noai: bool = False

    @property
    def name(self) -> str:
        return self.job.reader.name

    @cached_property
    def folder(self) -> Path:
        """Its own folder, named by what it is made of."""
        facts = f"{self.job.reader.fingerprint} {self.job.limit} {self.job.rows_each}{' noai' * self.ignores_noai}"
        return self.work / f"{self.name}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"

    @property
    def left(self) -> int:
        """How many rows are left to embed."""
        if (finished := self._finished) is None:
            manifest = read_manifest(self.folder) or {}
            return max(1, self.count - manifest.get("statuses", {}).get(OK, 0))
        again = sum(rows for status, rows in finished.items() if self.job.retry and is_temporary(status))
        return min(finished.total(), again * self.job.rows_each)  # whole shards are made again

    @property
    def count(self) -> int:
        """The number of rows that are embedded or can be."""
        finished = self._finished
        return self._scan[1] if finished is None else finished[OK]

    @property
    def rows(self) -> int:
        """The number of rows, rejected ones included."""
        return self._scan[0]

    @property
    def _finished(self) -> Counter[str] | None:
        """The number of rows of each status if all are embedded, otherwise None."""
        manifest = read_manifest(self.folder) or {}
        whole = manifest.get("finished") and manifest.get("shards") == len(shards(self.folder))
        return Counter(manifest["statuses"]) if whole else None

    @cached_property
    def _scan(self) -> tuple[int, int, list[Row]]:
        """How many rows there are and can be embedded, and some of these, drawn evenly; their pictures are not kept."""
        rows, count, drawn, most, order = 0, 0, list[Row](), PROBED[self.job.kind], random.Random(0)
        for row in islice(self.job.reader, self.job.limit):
            rows += 1
            if row.status != OK:
                continue
            count += 1
            place = len(drawn) if len(drawn) < most else order.randrange(count)
            drawn[place : place + 1] = [replace(row, content=row.content and b"")] if place < most else []
        return rows, count, drawn

    def seconds(self) -> float:
        """About how long the rest takes: what some rows take now, times their number."""
        if not self.left:
            return 0.0
        embedder = Embedder(self.job.model, self.job.device, self.job.kind)
        rows = self._scan[2]
        probe = [(row, None if self.job.kind == "text" else _noise(embedder)) for row in rows]
        embedder(probe[: 1 + len(probe) // 4])  # reads the weights, and decides on the precision
        began = time.perf_counter()
        embedder(probe)
        each = (time.perf_counter() - began) / max(1, len(probe))
        if any(row.url and row.content is None for row in rows):
            each = max(each, PER_DOWNLOAD[self.name])
        return self.left * each


def _noise(embedder: Embedder) -> Tensor:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    return embedder.model.clip.pixels(Image.fromarray(pixels))
