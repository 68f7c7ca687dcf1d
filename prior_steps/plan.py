"""What ``make`` embeds, where it keeps the shards, and how long that takes."""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audioldm.checkpoints.download import download
from audioldm.checkpoints.layout import cache_dir
from audioldm.errors import InputError

from .audiocaps.reader import AudioCaps
from .command import fetcher
from .conceptual_captions.reader import ConceptualCaptions
from .engine.embed import IMAGE_BATCH, TEXT_BATCH, Embedder, Kind
from .engine.worker import Fetcher, Job
from .engine.write import read_manifest
from .readers import Reader
from .readers.rows import OK, Row
from .wit.reader import Wit

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = "sample"
SAMPLE_URL = "https://storage.googleapis.com/gresearch/wit/wit_v1.train.all-1percent_sample.tsv.gz"
SAMPLE_BYTES = 250_000_000  # about: a hundredth of WIT's 25 GB
SHARD_ROWS = {"text": 2_000, "image": 200}  # fewer than otherwise, so that a killed run loses less than a minute
PROBED = {"text": 2 * TEXT_BATCH, "image": IMAGE_BATCH}  # rows that are embedded to see how long it takes
PER_DOWNLOAD = {"wit": 0.1, "conceptual_captions": 0.03}  # seconds, assumed: from one host, and from many


@dataclass
class Part:
    """The shards of one collection."""

    job: Job
    work: Path  # the folder of all parts

    @property
    def name(self) -> str:
        return self.job.reader.name

    @cached_property
    def folder(self) -> Path:
        """Its own folder, named by what it is made of."""
        facts = f"{self.job.reader.fingerprint} {self.job.limit} {self.job.rows_each}"
        return self.work / f"{self.name}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"

    @cached_property
    def left(self) -> int:
        """How many rows are left to embed."""
        manifest = read_manifest(self.folder) or {}
        if manifest.get("finished"):
            return 0
        return max(1, self.count - manifest.get("statuses", {}).get(OK, 0))

    @property
    def count(self) -> int:
        """The number of rows that can be embedded."""
        return self._scan[0]

    @cached_property
    def _scan(self) -> tuple[int, list[Row]]:
        """How many rows can be embedded, and some of them, drawn evenly; their pictures are not kept."""
        count, drawn, most, order = 0, list[Row](), PROBED[self.job.kind], random.Random(0)
        for row in islice(self.job.reader, self.job.limit):
            if row.status != OK:
                continue
            count += 1
            place = len(drawn) if len(drawn) < most else order.randrange(count)
            drawn[place : place + 1] = [replace(row, content=row.content and b"")] if place < most else []
        return count, drawn

    def seconds(self) -> float:
        """About how long the rest takes: what some rows take now, times their number."""
        if not self.left:
            return 0.0
        embedder = Embedder(self.job.model, self.job.device, self.job.kind)
        rows = self._scan[1]
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


def parts(args: argparse.Namespace, sources: set[str], model: str, work: Path) -> list[Part]:
    """The parts that ``sources``, of the translators, are made of. Raises InputError."""
    return [
        Part(Job(reader, kind, model, args.device, fetcher=fetch, limit=args.limit, shard_rows=SHARD_ROWS[kind],
                 retry=fetch is not None and args.retry), work)
        for reader, kind, fetch in _readers(args, sources)
    ]  # fmt: skip


def _readers(
    args: argparse.Namespace, sources: set[str]
) -> Iterator[tuple[Reader, Kind, Callable[[], Fetcher] | None]]:
    if "audiocaps" in sources:
        yield AudioCaps(), "text", None
    if "wit" not in sources:
        return
    if args.wit:
        yield Wit(sample() if args.wit == SAMPLE else args.wit), "image", fetcher(args)
    if args.cc:
        yield ConceptualCaptions(args.cc), "image", fetcher(args)


def check(args: argparse.Namespace, names: list[str], sources: set[str]) -> None:
    """Raise InputError if a source is missing, or a contact that its server asks for."""
    if "wit" in sources and not (args.wit or args.cc):
        name = next(name for name in names if "wit" in name)
        raise InputError(
            f"{name} learns from pictures with captions: give --wit {SAMPLE} (a hundredth of WIT, "
            f"{SAMPLE_BYTES / 1e6:.0f} MB, and its pictures), --wit FILE of WIT or --cc FILE of Conceptual Captions"
        )
    if args.wit and not args.wit.endswith(".parquet") and not args.contact:
        raise InputError("the pictures of WIT are Wikimedia's, which requires a contact: --contact YOUR@MAIL")


def sample() -> Path:
    """Google's sample of WIT, downloaded once. Raises InputError."""
    path = cache_dir() / "wit" / SAMPLE_URL.rpartition("/")[2]
    return download(SAMPLE_URL, path, about=SAMPLE_BYTES, note="licence: CC BY-SA 3.0")
