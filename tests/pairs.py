"""Small embedding shards for tests: real Parquet files of pairs with something to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from translator.shards.parquet import OK, open_shards, schema

CLIP, CLAP = "c" * 12, "a" * 12  # fingerprints
DIM = 16


def make_rows(
    count: int, name: str = "a", kind: str = "text", dim: int = DIM, seed: int = 0, paired: bool = True
) -> list[dict[str, Any]]:
    """``count`` rows with captions and ids of their own, begun with ``name``.

    The CLAP vector is a function of the CLIP vector that is the same for all calls, bent so that no linear map does.
    """
    teacher, draw = np.random.default_rng(99), np.random.default_rng(seed)
    first, second = (teacher.standard_normal((dim, dim)) for _ in range(2))
    clip = draw.standard_normal((count, dim)) + (0.5 if kind == "text" else -0.5)
    clap = np.tanh(clip / np.linalg.norm(clip, axis=1, keepdims=True) @ first * 2) @ second + 1
    clap /= np.linalg.norm(clap, axis=1, keepdims=True)
    return [
        {
            "id": f"{name}{i}", "caption": f"sound {i} of {name}", "status": OK, "clip_kind": kind,
            "clip": clip[i].astype(np.float32), "clap": clap[i].astype(np.float32) if paired else None,
        }
        for i in range(count)
    ]  # fmt: skip


def write_shard(
    path: Path, rows: list[dict[str, Any]], source: str = "audiocaps", *, clip_space: str = CLIP,
    clap_space: str | None = CLAP, dim: int = DIM, group: int = 50,
) -> Path:  # fmt: skip
    """Write ``rows`` as the shard ``path``, ``group`` to a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = schema(source, clip_space, clap_space, dim=dim)
    table = pa.Table.from_pylist([{**row, "source": source} for row in rows], columns)
    pq.write_table(table, path, row_group_size=group)
    return path


def read_pairs(*paths: Path, held_out: float = 0.1):
    """The pairs of shards of one source."""
    from translator.shards.pairs import Pairs

    return Pairs(open_shards(paths), held_out)
