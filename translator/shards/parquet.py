"""Embedding shards: Parquet files of pairs, a CLIP vector and the CLAP vector of the same thing.

``prior_steps`` writes them and ``translator`` reads them; their columns are defined here. The key-value metadata of a
file have the source of its rows, the fingerprints of both spaces (vectors of one space mean nothing in another), and
the versions of the libraries and models that made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import InputError
from ..zoo import current

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

OK = "ok"  # the status of a row with all its vectors; any other is a failure
DIM = 512
ROW_GROUP = 4096  # rows; 16 MB of vectors, which are read at once


def schema(
    source: str, clip_space: str, clap_space: str | None, versions: dict[str, str] | None = None, dim: int = DIM
) -> pa.Schema:
    """The columns and the metadata of a shard.

    Args:
        source: of its rows: "audiocaps", "wit", "conceptual_captions" …
        clip_space, clap_space: fingerprints; ``clap_space`` is None for pictures without captions.
        versions: of the libraries and models that made the vectors.
        dim: dimensions of both spaces.
    """
    import pyarrow as pa

    vector = pa.list_(pa.float32(), dim)
    columns = [
        ("id", pa.string()),  # unique in its source
        ("source", pa.string()),
        ("split", pa.string()),  # as published: train, val, test; empty where the source has none
        ("caption", pa.string()),
        ("url", pa.string()),  # of the picture, null for captions alone
        ("status", pa.string()),  # "ok", or the kind of failure
        ("error", pa.string()),  # the failure as a sentence
        ("clip", vector),  # as the tower gives it, not normalised; null unless ok
        ("clip_kind", pa.string()),  # which of CLIP's towers: "text" or "image"
        ("clap", vector),  # null unless ok, or if there is no caption
    ]
    metadata = {"source": source, "clip_space": clip_space, "versions": json.dumps(versions or {})}
    if clap_space is not None:
        metadata["clap_space"] = clap_space
    return pa.schema(columns, metadata=metadata)


@dataclass(frozen=True)
class Shard:
    """A Parquet file whose columns are valid; rows are read when they are needed."""

    path: Path
    source: str
    clip_space: str
    clap_space: str | None
    dim: int
    groups: tuple[int, ...]  # rows in each of its row groups

    @property
    def rows(self) -> int:
        return sum(self.groups)

    def open(self) -> pq.ParquetFile:
        """The file, memory-mapped. Raises InputError."""
        return _open(self.path)


def open_shards(paths: Iterable[str | Path]) -> list[Shard]:
    """The shards at ``paths``, each a .parquet file or a folder of them, in order of their names.

    Only their footers are read. Raises InputError: a path does not exist, a file is damaged or no shard, or the shards
    belong to different spaces.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(path.rglob("*.parquet"))
            if not found:
                raise InputError(f"there are no .parquet files in {path}")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"no such file or folder: {path}")
    twice = {file for file in files if files.count(file) > 1}
    if twice:
        raise InputError(f"{sorted(twice)[0]} is given twice")
    shards = [_read_footer(file) for file in files]
    for place in ("clip_space", "clap_space", "dim"):
        kinds = {value: shard for shard in shards if (value := getattr(shard, place)) is not None}
        if len(kinds) > 1:
            (one, first), (two, second) = list(kinds.items())[:2]
            raise InputError(
                f"shards of different spaces cannot be used together: {place} is {one} in {first.path} "
                f"and {two} in {second.path}"
            )
    return shards


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError):
        raise InputError(f"{path} is not a readable Parquet file; is it cut short?") from None


def _read_footer(path: Path) -> Shard:
    import pyarrow as pa

    with _open(path) as file:
        columns, groups = file.schema_arrow, file.metadata
        missing = [name for name in ("id", "status", "caption", "clip", "clip_kind") if name not in columns.names]
        metadata = {key.decode(): value.decode(errors="replace") for key, value in (columns.metadata or {}).items()}
        missing += [key for key in ("source", "clip_space") if key not in metadata]
        if missing:
            raise InputError(f"{path} is not an embedding shard: it lacks {', '.join(missing)}")
        if "clap_space" in metadata and "clap" not in columns.names:
            raise InputError(f"{path} is not an embedding shard: it lacks clap")
        for name in ("id", "status", "caption", "clip_kind"):
            if not pa.types.is_string(columns.field(name).type):
                raise InputError(f"{path} is not an embedding shard: its {name} must be a string")
        clip = columns.field("clip").type
        good = pa.types.is_fixed_size_list(clip) and clip.value_type == pa.float32()
        if not good or ("clap" in columns.names and columns.field("clap").type != clip):
            raise InputError(
                f"{path} is not an embedding shard: its vectors must be lists of float32, all of one length"
            )
        sizes = tuple(groups.row_group(i).num_rows for i in range(groups.num_row_groups))
        clap_space = metadata.get("clap_space")
        return Shard(
            path, metadata["source"], current(metadata["clip_space"]), clap_space and current(clap_space),
            clip.list_size, sizes,
        )  # fmt: skip
