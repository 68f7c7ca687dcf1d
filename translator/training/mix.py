"""Batches from one or several sources of pairs, each with its share of every batch."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from .. import InputError
from ..shards.pairs import TRAIN, Batch, Pairs, join, shuffled


class Mix:
    """An epoch has as many batches as all training pairs fill; smaller sources are repeated."""

    def __init__(self, sources: Sequence[Pairs], weights: Sequence[float] = (), batch: int = 64, seed: int = 0) -> None:
        weights = list(weights) or [1.0] * len(sources)
        if len(weights) != len(sources) or not all(math.isfinite(w) and w > 0 for w in weights):
            raise InputError(f"give {len(sources)} weights above 0, one for each source")
        for pairs in sources:
            pairs.require()
        self.sources, self.batch, self.seed = list(sources), batch, seed
        self.weights = tuple(w / sum(weights) for w in weights)
        ends = np.round(np.cumsum([0, *self.weights]) * batch).astype(int)
        self.counts = np.diff(ends).tolist()
        if min(self.counts) < 1:
            raise InputError(f"a batch of {batch} is too small for a source with a share of {min(self.weights):.3g}")

    @property
    def pairs(self) -> int:
        """Number of training pairs of all sources."""
        return sum(pairs.train for pairs in self.sources)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return math.ceil(self.pairs / self.batch)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch; its number and the seed determine them."""
        if len(self.sources) == 1:
            stream, left = _Stream(self.sources[0], self.seed, number), self.pairs
            while left > 0:
                yield stream.take(min(self.batch, left))
                left -= self.batch
            return
        streams = [_Stream(pairs, self.seed, number) for pairs in self.sources]
        for _ in range(len(self)):
            parts = [stream.take(count) for stream, count in zip(streams, self.counts, strict=True)]
            yield join(parts)

    def held_out_pairs(self) -> Batch:
        """Held-out pairs of all sources, shuffled so that every part is like the whole."""
        return shuffled(join([pairs.held_out_pairs() for pairs in self.sources]), np.random.default_rng(0))


class _Stream:
    """An endless stream of the training pairs of one source; epoch and seed determine its order."""

    def __init__(self, pairs: Pairs, seed: int, epoch: int) -> None:
        order = np.random.default_rng((seed, epoch, zlib.crc32(pairs.source.encode())))
        self._buffers, self._in_hand, self._at = self._endless(pairs, order), None, 0

    @staticmethod  # a generator that holds its own holder outlives the epoch, with all its rows
    def _endless(pairs: Pairs, order: np.random.Generator) -> Iterator[Batch]:
        while True:
            yield from pairs.buffers(TRAIN, order=order)

    def take(self, count: int) -> Batch:
        parts = []
        while count:
            if self._in_hand is None or self._at == len(self._in_hand.clip):
                self._in_hand, self._at = next(self._buffers), 0
            end = min(self._at + count, len(self._in_hand.clip))
            parts.append(Batch(*(column[self._at : end] for column in self._in_hand)))
            count, self._at = count - (end - self._at), end
        return parts[0] if len(parts) == 1 else join(parts)
