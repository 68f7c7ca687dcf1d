"""Memories (see ``model.Memory``), drawn from pairs: the one translator that needs no training."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import InputError
from ..model import Memory
from . import record

MAX_CAPTIONS = 5_000_000  # bytes in a header; the library reads headers of up to 100 MB

if TYPE_CHECKING:
    from ..shards.pairs import Pairs


def draw(sources: Sequence[Pairs], size: int, seed: int = 0) -> Memory:
    """A memory of ``size`` different captions, drawn by ``seed`` from the training pairs without pictures.

    Raises InputError if there are fewer than two.
    """
    kept: dict[int, tuple[str, Tensor, Tensor]] = {}  # by a hash; the smallest are kept
    for pairs in sources:
        for words, batch in pairs.captions():
            for row in range(len(words)):
                if batch.kind[row] == 0 and words[row].strip():
                    key = zlib.crc32(f"{seed} {words[row].casefold()}".encode())
                    kept.setdefault(key, (words[row], batch.clip[row].clone(), batch.clap[row].clone()))
            kept = dict(sorted(kept.items())[: max(size, 0)])
    if len(kept) < 2:
        raise InputError("a memory needs at least two different captions, embedded by CLIP's text tower")
    captions, clip, clap = zip(*kept.values(), strict=True)
    return Memory(torch.stack(clip), torch.stack(clap), captions)


def make(sources: dict[str, Pairs], out: Path, size: int, seed: int = 0) -> Path:
    """Write memory.safetensors with ``size`` pairs of the data, and memory.json. Raises InputError."""
    made = {**record.data_facts(sources), "captions": size, "seed": seed}
    path = out / "memory.safetensors"
    if record.is_finished(path, made):
        return path
    kept = draw(list(sources.values()), size, seed)
    if len(kept.facts()["captions"].encode()) > MAX_CAPTIONS:
        raise InputError(f"{len(kept.captions)} captions do not fit into a file's header; keep fewer (--captions)")
    return record.save(kept, "memory", "memory", made, out, half=False, more=kept.facts())
