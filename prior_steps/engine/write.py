"""The folder of a run: its shards and ``manifest.json``. What is there is whole: temporary names, then renamed.

Shard k has the rows from k × shard_rows on, so that the shards that are there say what is left to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from audioldm.errors import InputError
from translator.shards.parquet import OK, ROW_GROUP

from ..readers.rows import Row
from .embed import TOWERS, Embedded

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MANIFEST, PART = "manifest.json", ".part"
SHARD = re.compile(r".+-(\d{5,})\.parquet")


class Folder:
    """A run's folder, made if need be; locked for other runs until it is left.

    Args:
        path: the folder.
        settings: all that the rows and vectors depend on; JSON values. A folder belongs to one run's settings.
        versions: of what makes the vectors, for the manifest.
        again: whether shards that have rows of this status are to be made again.

    Raises InputError: it belongs to other settings, another run is writing there, it cannot be written; no pyarrow.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, Any],
        versions: Mapping[str, str],
        again: Callable[[str], bool] = lambda status: False,
    ) -> None:
        if find_spec("pyarrow") is None:
            raise InputError("shards are written by pyarrow, which is not installed: pip install pyarrow")
        self.path = Path(os.path.expanduser(path))
        self.manifest: dict[str, Any] = {"settings": dict(settings), "versions": dict(versions), "seconds": 0.0}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path)
            self._adopt(settings, again)
            for left in self.path.glob(f".*{PART}"):  # by a run that was killed
                left.unlink()
            if not self.finished:
                self.save()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from None

    def _adopt(self, settings: Mapping[str, Any], again: Callable[[str], bool]) -> None:
        """Go on from the manifest and the shards that are there."""
        before = read_manifest(self.path)
        if before is None and any(self.path.glob("*.parquet")):
            raise InputError(f"{self.path} has shards but no {MANIFEST} that says of what; --out names another folder")
        counts = {k: count_statuses(path) for k, path in shards(self.path).items()}
        counts = {k: statuses for k, statuses in counts.items() if not any(map(again, statuses))}
        # Whoever deletes a shard wants it made again.
        self.manifest["finished"] = bool(before and before.get("finished") and before.get("shards") == len(counts))
        for name, value in settings.items() if before else ():
            was = before["settings"].get(name)
            # embedding_clap was there after embedding_clip
            more = name == "towers" and self.finished and set(value) < set(was or ())
            if was != value and not more:
                raise InputError(
                    f"{self.path} is of another run: {name} is {_told(was)} there and {_told(value)} here; "
                    "--out names another folder"
                )
        self.manifest["seconds"] = before.get("seconds", 0.0) if before else 0.0
        self.done, self.statuses = set(counts), sum(counts.values(), Counter())
        if self.finished:
            self.manifest = before

    @property
    def finished(self) -> bool:
        """Whether all rows are in."""
        return self.manifest["finished"]

    def add(self, k: int, statuses: Mapping[str, int], seconds: float) -> None:
        """Note that shard k is there, and that ``seconds`` passed since the last one."""
        self.done.add(k)
        self.statuses.update(statuses)
        self.manifest["seconds"] += seconds
        self.save()

    def finish(self) -> None:
        """Note that all rows are in."""
        self.manifest["finished"] = True
        self.save()

    def save(self) -> None:
        """Write the manifest. Raises OSError."""
        rows, seconds = self.statuses.total(), self.manifest["seconds"]
        self.manifest |= {
            "shards": len(self.done),
            "rows": rows,
            "statuses": dict(self.statuses.most_common()),
            "rows_per_second": round(rows / seconds, 1) if seconds else None,
        }
        with replacing(self.path / MANIFEST) as file:
            file.write(json.dumps(self.manifest, indent=2, ensure_ascii=False).encode() + b"\n")

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def _lock(folder: Path) -> IO[bytes]:
    """A lock that ends with the process, however that ends."""
    file = open(folder / ".lock", "ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"another run is writing to {folder}; wait for it, or --out names another") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system without locks
            raise
    return file


def _told(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return "unset" if value is None else str(value)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the run in ``folder`` says of itself; None if there is none. Raises InputError if it is damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["settings"], dict):
            raise TypeError
        return manifest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not the manifest of a run, or it is damaged") from None


def shard_path(folder: Path, source: str, k: int) -> Path:
    """Where shard k belongs."""
    return folder / f"{source}-{k:05}.parquet"


def shards(folder: Path) -> dict[int, Path]:
    """The finished shards in ``folder``, by number."""
    found = ((SHARD.fullmatch(path.name), path) for path in sorted(folder.glob("*.parquet")))
    return {int(match[1]): path for match, path in found if match}


def count_statuses(shard: Path) -> Counter[str]:
    """How many rows of each status. Raises InputError if the file is damaged."""
    statuses = _read(shard, ["status"])["status"]
    return Counter({one["values"]: one["counts"] for one in statuses.value_counts().to_pylist()})


def _read(shard: Path, columns: list[str] | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(shard, columns=columns, partitioning=None)
    except (pa.ArrowException, OSError, KeyError):
        raise InputError(damaged(shard)) from None


def damaged(shard: Path) -> str:
    """The sentence on a shard that cannot be read."""
    return f"the shard {shard} is damaged; delete it, and the next run makes it anew"


def write_shard(path: Path, embedded: Embedded, schema: pa.Schema, kind: str) -> Counter[str]:
    """Write a shard and return how many rows it has of each status. Raises OSError.

    ``kind``: which of CLIP's towers made the vectors. A shard that is there is replaced by the same rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = embedded.rows
    columns = {name: [getattr(row, name) for row in rows] for name in ("id", "source", "split", "caption", "url")}
    columns |= {"status": [row.status for row in rows], "error": [row.error for row in rows]}
    columns["clip_kind"] = [kind] * len(rows)
    words = list(columns)
    for tower in TOWERS:
        columns[tower] = _vectors(rows, getattr(embedded, tower), schema.field(tower).type)
    with replacing(path) as file:
        pq.write_table(
            pa.table(columns, schema=schema),
            file,
            row_group_size=ROW_GROUP,
            compression={name: "zstd" for name in words},  # vectors are noise to a compressor
            use_dictionary=["source", "split", "status", "error", "clip_kind"],
            write_statistics=words,
        )
    return Counter(row.status for row in rows)


def read_shard(path: Path) -> Embedded:
    """What write_shard wrote. Raises InputError if the file is damaged."""
    import numpy as np

    table = _read(path, None)
    fields = [name for name in Row.__match_args__ if name != "content"]
    rows, vectors = [Row(**values) for values in table.select(fields).to_pylist()], []
    for tower in TOWERS:
        column = table[tower].combine_chunks()
        found = np.full((len(rows), column.type.list_size), np.nan, np.float32)
        there = column.is_valid().to_numpy(zero_copy_only=False)
        found[there] = column.flatten().to_numpy().reshape(-1, found.shape[1])
        vectors.append(None if column.null_count == len(rows) else found)
    return Embedded(rows, *vectors)


def _vectors(rows: list[Any], vectors: np.ndarray | None, type: pa.DataType) -> pa.Array:
    """A column of vectors, null where a row has failed or has none."""
    import numpy as np
    import pyarrow as pa

    if vectors is None:
        return pa.nulls(len(rows), type)
    missing = np.isnan(vectors[:, 0]) | np.array([row.status != OK for row in rows], bool)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.where(missing[:, None], np.float32(0), vectors).ravel()), type=type, mask=pa.array(missing)
    )


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that gets the name ``path`` once the block is over and its bytes are on the disk."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}{PART}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
