"""Input for a run over captions, and what a run leaves on disk."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from translator.shards.parquet import open_shards

WORDS = "dog rain church organ sea wave bird engine train bell door wind fire clock water horse".split()


def write_csv(folder: Path, rows: int, name: str = "train") -> Path:
    """AudioCaps' table with generated captions; every tenth has been before, every hundredth is empty."""
    path = folder / f"{name}.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        for i in range(rows):
            unique = i - 1 if i % 10 == 9 else i
            words = " ".join(WORDS[(unique >> shift) % 16] for shift in range(0, 4 + unique % 12, 4))
            lines.writerow([i, "x", 0, "" if i % 100 == 50 else f"{words} {unique}"])
    return path


def rows_of(folder: Path) -> list[dict]:
    return [row for shard in open_shards([folder]) for row in pq.read_table(shard.path).to_pylist()]


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Vectors (N, dim) made in different batches, maybe in 16 bits: cosines of at least 0.9998."""
    one, other = (np.asarray(vectors, np.float64) for vectors in (found, expected))
    cosines = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    assert cosines.min() >= 0.9998


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """What would change if a shard were written again."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.glob("*.parquet")}
