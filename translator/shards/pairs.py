"""Pairs for training, streamed from embedding shards: ten million need no more memory than a few.

Whether a pair is held out depends on the hash of its caption, or of its id where it has no caption. So the same words
under two ids, in two shards or in two sources are never on both sides.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import InputError
from ..model import KINDS
from .parquet import OK, Shard

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER = 16_384  # rows that are shuffled together, 67 MB; the next ones are read meanwhile
HELD_OUT_ROWS = 8_192  # held-out pairs of a source that are used
UNUSED, TRAIN, HELD_OUT, PICTURE = range(4)  # uses of a row; PICTURE: no caption, for means only


class Batch(NamedTuple):
    """Vectors (N, dim) float32 and the kinds (N,) of the CLIP vectors, as numbers of KINDS."""

    clip: Tensor  # as the tower gives them
    clap: Tensor
    kind: Tensor


def join(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches, one after the other."""
    return Batch(*(torch.cat(columns) for columns in zip(*batches, strict=True)))


class Totals(NamedTuple):
    """Sums of unit vectors, in double precision."""

    clip: Tensor  # (2, dim), by kind
    clap: Tensor  # (dim,)
    counts: Tensor  # (2,), of CLIP's vectors by kind


class Pairs:
    """The pairs of one source. Only the use of each row, one byte, is kept in memory."""

    def __init__(self, shards: Sequence[Shard], held_out: float = 0.05, source: str | None = None) -> None:
        """Read the rows' ids, captions and statuses.

        Args:
            shards: all of one source.
            held_out: share of the pairs, 0 to 1.
            source: its name, which may stand for several collections; None: the name in the first shard.

        Raises InputError: an id occurs twice, or the shards are damaged.
        """
        self.shards, self.source = list(shards), source or shards[0].source
        self.dim, self.share = shards[0].dim, held_out
        self._groups = [(shard, number) for shard in shards for number in range(len(shard.groups))]
        self.fingerprint = "0" * 16  # 16 hex digits over ids, captions and vectors, independent of their order
        self._marks = self._read_marks(held_out)
        counts = sum((np.bincount(marks, minlength=4) for marks in self._marks), np.zeros(4, np.int64))
        self.unused, self.train, self.held_out, self.pictures = map(int, counts)

    def require(self) -> None:
        """Raises InputError unless there are pairs to train on and held-out pairs."""
        if self.train < 2 or self.held_out < 1:
            raise InputError(
                f"{self.source} has {self.train + self.held_out} usable pairs: too few to train on and hold some out"
            )

    def _read_marks(self, held_out: float) -> list[np.ndarray]:
        marks, total = list[np.ndarray](), 0
        with tempfile.TemporaryFile() as ids:  # eight bytes per row; on disk, because there may be many
            for shard, number in self._groups:
                vectors = ["clip", "clap"] if shard.clap_space else ["clip"]
                table = _read(shard, number, ["id", "status", "caption", *vectors])
                names, captions = table["id"].to_pylist(), table["caption"].to_pylist()
                usable = np.array([status == OK for status in table["status"].to_pylist()], bool)
                hashes = np.array([_hash(str(name)) for name in names], np.uint64)
                ids.write((hashes ^ self._collection(shard))[usable].tobytes())
                words = [" ".join((caption or "").casefold().split()) for caption in captions]
                keys = [_hash(text or f"id {name}") for name, text in zip(names, words, strict=True)]
                total += sum(hashes.tolist()) + 3 * sum(keys) + sum(_total(table[name]) for name in vectors)
                paired = usable & (table["clap"].is_valid().to_numpy() if shard.clap_space else False)
                held = np.array(keys, np.float64) < held_out * 2.0**64
                mark = np.where(paired, np.where(held, HELD_OUT, TRAIN), np.where(usable, PICTURE, UNUSED))
                marks.append(mark.astype(np.uint8))
            self.fingerprint = f"{total % 2**64:016x}"
            ids.flush()
            self._refuse_duplicates(np.memmap(ids, np.uint64, "r") if ids.tell() else np.zeros(0, np.uint64))
        return marks

    def _collection(self, shard: Shard) -> np.uint64:
        """What tells the ids of one collection from the same ids of another, which may have the same picture."""
        return np.uint64(0 if shard.source == self.source else _hash(shard.source))

    @property
    def collections(self) -> dict[str, int]:
        """The pairs of each collection."""
        found: dict[str, int] = {}
        for (shard, _), marks in zip(self._groups, self._marks, strict=True):
            found[shard.source] = found.get(shard.source, 0) + int(np.isin(marks, (TRAIN, HELD_OUT)).sum())
        return found

    def _refuse_duplicates(self, hashes: np.ndarray) -> None:
        parts = 1 + len(hashes) // 1_000_000
        for part in range(parts):
            chunks = [chunk[chunk % parts == part] for chunk in np.array_split(hashes, parts)]
            values, counts = np.unique(np.concatenate(chunks), return_counts=True)
            if (counts > 1).any():
                twice = int(values[counts > 1][0])
                for shard, number in self._groups:
                    for name in _read(shard, number, ["id"])["id"].to_pylist():
                        if _hash(str(name)) ^ int(self._collection(shard)) == twice:
                            raise InputError(
                                f'the id "{name}" occurs more than once in the shards of {self.source}; '
                                "embed overlapping files in one run, which marks duplicates"
                            )

    def buffers(self, *marks: int, order: np.random.Generator | None = None) -> Iterator[Batch]:
        """All rows with one of ``marks``, about BUFFER at a time, shuffled by ``order``; a thread reads ahead.

        Raises InputError if a vector is not finite or all zero.
        """
        if sum(self._count(number, marks) for number in range(len(self._groups))) <= BUFFER:  # few enough to keep
            if marks not in self._kept:
                self._kept[marks] = self._load(range(len(self._groups)), marks)
            yield self._kept[marks] if order is None else shuffled(self._kept[marks], order)
            return
        lots = self._lots(marks, order)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._load, lots[0], marks, order)
            for lot in [*lots[1:], None]:
                batch = ahead.result()
                if lot is not None:
                    ahead = reader.submit(self._load, lot, marks, order)
                yield batch

    @cached_property
    def totals(self) -> Totals:
        """Sums over the training pairs and, for CLIP, over pictures without captions; computed once, in one pass."""
        clip, clap = torch.zeros(len(KINDS), self.dim, dtype=torch.double), torch.zeros(self.dim, dtype=torch.double)
        counts = torch.zeros(len(KINDS), dtype=torch.double)
        for mark, rows in ((TRAIN, self.train), (PICTURE, self.pictures)):
            for batch in self.buffers(mark) if rows else ():
                clip.index_add_(0, batch.kind, F.normalize(batch.clip, dim=-1).double())
                counts += torch.bincount(batch.kind, minlength=len(KINDS))
                if mark == TRAIN:
                    clap += F.normalize(batch.clap, dim=-1).double().sum(0)
        return Totals(clip, clap, counts)

    def _count(self, number: int, marks: tuple[int, ...]) -> int:
        return int(np.isin(self._marks[number], marks).sum())

    def _lots(self, marks: tuple[int, ...], order: np.random.Generator | None) -> list[list[int]]:
        """Numbers of row groups, shuffled by ``order``, in lots of about BUFFER rows."""
        sequence = [number for number in range(len(self._groups)) if self._count(number, marks)]
        if order is not None:
            order.shuffle(sequence)
        lots, rows = [[]], 0
        for number in sequence:
            if rows >= BUFFER:
                lots, rows = [*lots, []], 0
            lots[-1].append(number)
            rows += self._count(number, marks)
        return lots

    @cached_property
    def _kept(self) -> dict[tuple[int, ...], Batch]:
        return {}

    def _load(self, numbers: Sequence[int], marks: tuple[int, ...], order: np.random.Generator | None = None) -> Batch:
        """The rows of some groups, shuffled: each row is read straight into its place, without a copy of all."""
        count = sum(self._count(number, marks) for number in numbers)
        places = np.arange(count) if order is None else order.permutation(count)
        batch = Batch(
            torch.empty(count, self.dim),
            torch.empty(count, 0 if PICTURE in marks else self.dim),
            torch.empty(count, dtype=torch.int64),
        )
        start = 0
        for number in numbers:
            parts = self._load_group(number, marks)
            for column, part in zip(batch, parts, strict=True):
                column.numpy()[places[start : start + len(part)]] = part
            start += len(parts[0])
        return batch

    def _load_group(self, number: int, marks: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shard, group = self._groups[number]
        names = ["clip_kind", "clip", *(["clap"] if PICTURE not in marks else [])]
        table = _read(shard, group, names).filter(np.isin(self._marks[number], marks))
        clip = _vectors(table, "clip", shard)
        clap = _vectors(table, "clap", shard) if "clap" in names else np.zeros((len(clip), 0), np.float32)
        kinds = np.array(
            [KINDS.index(kind) if kind in KINDS else -1 for kind in table["clip_kind"].to_pylist()], np.int64
        )
        if (kinds < 0).any():
            raise InputError(f"{shard.path} has rows whose clip_kind is neither {' nor '.join(KINDS)}")
        return clip, clap, kinds

    def captions(self) -> Iterator[tuple[list[str], Batch]]:
        """The captions and vectors of the training pairs, one row group at a time."""
        for number in range(len(self._groups)):
            keep = self._marks[number] == TRAIN
            if keep.any():
                words = _read(*self._groups[number], ["caption"]).filter(keep)["caption"].to_pylist()
                yield [word or "" for word in words], self._load([number], (TRAIN,))

    def held_out_pairs(self) -> Batch:
        """The first HELD_OUT_ROWS held-out pairs."""
        numbers, rows = [], 0
        for number in range(len(self._groups)):
            if rows < HELD_OUT_ROWS and self._count(number, (HELD_OUT,)):
                numbers.append(number)
                rows += self._count(number, (HELD_OUT,))
        return Batch(*(column[:HELD_OUT_ROWS] for column in self._load(numbers, (HELD_OUT,))))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")


def _total(column: pa.ChunkedArray) -> int:
    """The sum of a column's 32-bit words: a checksum of its vectors."""
    return int(column.combine_chunks().flatten().to_numpy(zero_copy_only=False).view(np.uint32).sum(dtype=np.uint64))


def _read(shard: Shard, group: int, columns: list[str]) -> pa.Table:
    import pyarrow as pa

    try:
        with shard.open() as file:
            return file.read_row_group(group, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError):
        raise InputError(f"{shard.path} is damaged: its rows cannot be read") from None


def _vectors(table: pa.Table, name: str, shard: Shard) -> np.ndarray:
    column = table[name].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, shard.dim)
    if len(vectors) != len(table):
        raise InputError(f'{shard.path} has rows of status "{OK}" without a {name} vector')
    lengths = np.linalg.norm(vectors, axis=1)  # not finite if one number is not
    if not (np.isfinite(lengths) & (lengths > 1e-6)).all():
        bad = int((~np.isfinite(lengths) | (lengths <= 1e-6)).sum())
        raise InputError(f"{shard.path} is damaged: {bad} of its {name} vectors are not finite or all zero")
    return vectors


def shuffled(batch: Batch, order: np.random.Generator) -> Batch:
    rows = torch.from_numpy(order.permutation(len(batch.clip)))
    return Batch(*(column[rows] for column in batch))
