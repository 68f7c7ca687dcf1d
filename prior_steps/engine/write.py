"""The folder of a run: its shards and ``manifest.json``, each written whole or not at all.

Shard k has the rows from k × shard_rows on, so the existing shards tell which are missing.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from audioldm.errors import InputError
from translator.files import PART, lock, output_path, writing
from translator.programs import pip_install
from translator.shards.parquet import OK, ROW_GROUP
from translator.zoo import current

from ..readers.rows import Row
from .embed import TOWERS, Embedded

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

log = logging.getLogger("audioldm")

MANIFEST = "manifest.json"
SHARD = re.compile(r".+-(\d{5,})\.parquet")


class Folder:
    """A run's folder, made if it does not exist; locked against other runs until the ``with`` block ends.

    Args:
        path: the folder.
        settings: everything that rows and vectors depend on, as JSON values. A folder belongs to one set of them.
        versions: of the libraries and models that make the vectors, for the manifest.
        again: whether shards that have rows of this status are made again.

    Raises InputError: the folder has other settings, is in use by another run or cannot be written; no pyarrow.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, object],
        versions: Mapping[str, str],
        again: Callable[[str], bool] = lambda status: False,
    ) -> None:
        if find_spec("pyarrow") is None:
            raise InputError(f"pyarrow, which writes shards, is not installed: {pip_install('pyarrow')}")
        self.path = output_path(path)
        self.manifest: dict[str, Any] = {"settings": dict(settings), "versions": dict(versions), "seconds": 0.0}
        self._held = ExitStack()  # the lock
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(lock(self.path / ".lock"))
            self._adopt(settings, again)
            for left in self.path.glob(f".*{PART}"):  # by a run that was killed
                left.unlink()
            if not self.finished:
                self.save()
        except Timeout:
            raise InputError(f"another run is writing to {self.path}; wait for it, or choose another --out") from None
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from None
        except BaseException:
            self._held.close()
            raise

    def _adopt(self, settings: Mapping[str, object], again: Callable[[str], bool]) -> None:
        """Continue from the existing manifest and shards."""
        before = read_manifest(self.path)
        if before is None and any(self.path.glob("*.parquet")):
            raise InputError(f"{self.path} has shards but no {MANIFEST} to describe them; choose another --out")
        counts = {k: count_statuses(path) for k, path in shards(self.path).items()}
        counts = {k: statuses for k, statuses in counts.items() if not any(map(again, statuses))}
        # Whoever deletes a shard wants it made again.
        self.manifest["finished"] = bool(before and before.get("finished") and before.get("shards") == len(counts))
        for name, value in settings.items() if before else ():
            was = before["settings"].get(name) if before else None
            was = current(was) if name.endswith("_space") and isinstance(was, str) else was
            if name in ("files", "reading", "model"):  # "input" is computed from the first; of models, spaces count
                continue
            if name == "input" and was != value and before and self._redo(before, settings, counts):
                continue
            # embedding_clap completed shards of embedding_clip
            more = name == "towers" and self.finished and isinstance(value, list) and set(value) < set(was or ())
            if was != value and not more:
                raise InputError(
                    f"{self.path} belongs to another run: {name} is {_describe(was)} there and "
                    f"{_describe(value)} here; choose another --out"
                )
        self.manifest["seconds"] = before.get("seconds", 0.0) if before else 0.0
        self.manifest["starts"] = before.get("starts", {}) if before else {}
        self.done, self.statuses = set(counts), sum(counts.values(), Counter())
        if before and self.finished:
            self.manifest = before

    def _redo(self, before: dict[str, Any], settings: Mapping[str, Any], counts: dict[int, Counter[str]]) -> bool:
        """Whether this run goes on with ``before``'s, though some of its files were replaced or removed.

        Then the shards from the first such file on are removed, and their ``counts``, to be made again.
        """
        old, new = before["settings"].get("files"), settings.get("files")
        if not (isinstance(old, dict) and isinstance(new, dict)) or not new.keys() <= old.keys():
            return False
        if before["settings"].get("reading") != settings.get("reading"):
            return False
        pairs = zip_longest(old.items(), new.items())
        changed = next((one or other for one, other in pairs if one != other), None)
        if changed is None:
            return False
        first_row = before.get("starts", {}).get(changed[0], 0)
        stale = [k for k in counts if (k + 1) * settings["rows_per_shard"] > first_row]
        for k in stale:
            del counts[k]
            shards(self.path)[k].unlink()
        self.manifest["finished"] = False
        log.warning("%s has changed since: %d of the shards in %s are made again", changed[0], len(stale), self.path)
        return True

    @property
    def finished(self) -> bool:
        """Whether all rows are embedded."""
        return self.manifest["finished"]

    def add(self, k: int, statuses: Mapping[str, int], seconds: float) -> None:
        """Record that shard k is written, and that ``seconds`` passed since the last one."""
        self.done.add(k)
        self.statuses.update(statuses)
        self.manifest["seconds"] += seconds
        self.save()

    def finish(self) -> None:
        """Record that all rows are embedded."""
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
        with writing(self.path / MANIFEST, sync=True) as file:
            file.write(json.dumps(self.manifest, indent=2, ensure_ascii=False).encode() + b"\n")

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def _describe(value: object) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return "unset" if value is None else str(value)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the run in ``folder``; None if there is none. Raises InputError if it is damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["settings"], dict):
            raise TypeError
        return manifest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged, or not the manifest of a run") from None


def shard_path(folder: Path, source: str, k: int) -> Path:
    """The file of shard k."""
    return folder / f"{source}-{k:05}.parquet"


def shards(folder: Path) -> dict[int, Path]:
    """The finished shards in ``folder``, by number."""
    found = ((SHARD.fullmatch(path.name), path) for path in sorted(folder.glob("*.parquet")))
    return {int(match[1]): path for match, path in found if match}


def count_statuses(shard: Path) -> Counter[str]:
    """Count the rows of each status. Raises InputError if the file is damaged."""
    statuses = _read(shard, ["status"])["status"]
    return Counter({one["values"]: one["counts"] for one in statuses.value_counts().to_pylist()})


def _read(shard: Path, columns: list[str] | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(shard) as file:
            return file.read(columns)
    except (pa.ArrowException, OSError, KeyError):
        raise InputError(damaged(shard)) from None


def damaged(shard: Path) -> str:
    """The error message for a shard that cannot be read."""
    return f"the shard {shard} is damaged; delete it, and the next run makes it again"


def write_shard(path: Path, embedded: Embedded, schema: pa.Schema, kind: str) -> Counter[str]:
    """Write a shard, in place of an existing one, and count its rows by status. Raises OSError.

    ``kind``: the CLIP tower that made the vectors.
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
    with writing(path, sync=True) as file:
        pq.write_table(
            pa.table(columns, schema=schema),
            file,
            row_group_size=ROW_GROUP,
            compression={name: "zstd" for name in words},  # pyright: ignore[reportArgumentType]  # vectors do not
            use_dictionary=["source", "split", "status", "error", "clip_kind"],  # pyright: ignore[reportArgumentType]
            write_statistics=words,  # pyright: ignore[reportArgumentType]
        )
    return Counter(row.status for row in rows)


def read_shard(path: Path) -> Embedded:
    """Read a shard of write_shard. Raises InputError if the file is damaged."""
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


def _vectors(rows: list[Row], vectors: np.ndarray | None, type: pa.DataType) -> pa.Array:
    """A column of vectors, null where a row has failed or has none."""
    import numpy as np
    import pyarrow as pa

    if vectors is None:
        return pa.nulls(len(rows), type)
    missing = np.isnan(vectors[:, 0]) | np.array([row.status != OK for row in rows], bool)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.where(missing[:, None], np.float32(0), vectors).ravel()), type=type, mask=pa.array(missing)
    )
