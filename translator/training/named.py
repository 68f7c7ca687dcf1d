"""Translators by name, from shards: which sources a name learns from, and the way from there to its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .. import InputError, settings
from ..settings import MEMORY, Settings
from ..shards.pairs import Pairs
from ..shards.parquet import Shard
from . import closed_form, memory
from .train import Report, Share, train


@dataclass(frozen=True)
class Order:
    """What to make, and how.

    Args:
        names: of translators.
        given: fields of Settings that differ from what a name stands for.
        weights: "SOURCE=X" for each source, its share of a batch.
        captions: number of captions in a memory.
        half: whether to save 16-bit numbers.
        device: "cpu" or "cuda".
    """

    names: Sequence[str]
    given: Mapping[str, Any]
    weights: Sequence[str] | None = None
    captions: int = 2000
    half: bool = False
    device: str = "cpu"

    @property
    def networks(self) -> list[str]:
        """Names of those that are trained; the others are fitted or drawn."""
        return [name for name in self.names if name not in (*settings.CLOSED_FORM, MEMORY)]

    @property
    def held_out(self) -> float:
        return self.given.get("held_out", Settings.held_out)

    def settings(self, known: Sequence[str]) -> list[Settings]:
        """The settings of the networks, of which ``known`` are the sources of the data. Raises InputError."""
        return [self._settings(name, known) for name in self.networks]

    def _settings(self, name: str, known: Sequence[str]) -> Settings:
        try:
            chosen = settings.parse(name, known)
        except InputError:
            wanted = settings.parse(name).sources if settings.trainable(name) else ()
            if missing := [source for source in wanted if source not in known]:
                raise InputError(
                    f"{name} learns from {' and '.join(wanted)}; --data has no shards of {' or '.join(missing)}"
                ) from None
            raise
        return replace(chosen, **self.given, weights=_weights(self.weights, chosen.sources)).checked()


def _weights(given: Sequence[str] | None, sources: Sequence[str]) -> tuple[float, ...]:
    if not given or len(sources) < 2:
        return ()
    try:
        pairs = dict(word.rsplit("=", 1) for word in given)
        return tuple(float(pairs[source]) for source in sources)
    except (ValueError, KeyError):
        raise InputError(f"--weights needs a share for each source: {' '.join(f'{s}=1' for s in sources)}") from None


def by_source(shards: Sequence[Shard]) -> dict[str, list[Shard]]:
    """The shards of each source; those of Conceptual Captions count as WIT's, as in the thesis."""
    found: dict[str, list[Shard]] = {}
    for shard in shards:
        found.setdefault(settings.PART_OF.get(shard.source, shard.source), []).append(shard)
    return dict(sorted(found.items()))


def read_pairs(shards: Mapping[str, list[Shard]], held_out: float) -> dict[str, Pairs]:
    """The pairs of each source. Raises InputError."""
    if not 0 < held_out < 1:
        raise InputError("the held-out share must lie between 0 and 1")
    return {source: Pairs(own, held_out, source) for source, own in shards.items()}


def make_all(
    order: Order, shards: Sequence[Shard], out: Path, report: Report = print, on_share: Share = lambda share: None
) -> dict[str, Pairs]:
    """Make all translators of ``order`` from ``shards``, in the folder ``out``; returns the pairs by source.

    ``report`` is called with lines for people, ``on_share`` with the share of what was left that is done, 0 to 1.
    Raises InputError.
    """
    _check_device(order.device)
    sources = by_source(shards)
    wanted = order.settings(list(sources))
    used = {source for one in wanted for source in one.sources}
    if len(wanted) < len(order.names) or any(one.centred for one in wanted):
        used = set(sources)
    for source in sources.keys() - used:
        left = sources.pop(source)
        count = "one shard" if len(left) == 1 else f"{len(left)} shards"
        report(f"not used by {', '.join(order.names)}: {count} of {source} ({left[0].path})")
    pairs = read_pairs(sources, order.held_out)
    make_from(pairs, order, out, report, on_share)
    return pairs


def make_from(
    pairs: dict[str, Pairs], order: Order, out: Path, report: Report = print, on_share: Share = lambda share: None
) -> None:
    """Make all translators of ``order`` from ``pairs``, by source, all of which count. See ``make_all``."""
    wanted = order.settings(list(pairs))
    done, count = len(wanted), len(order.names)
    if wanted:
        train(
            wanted, pairs, out, device=order.device, half=order.half, report=report,
            on_share=lambda share: on_share(share * len(wanted) / count),
        )  # fmt: skip
    for name in (name for name in order.names if name not in order.networks):
        if name == MEMORY:
            path = memory.make(pairs, out, size=order.captions, seed=order.given.get("seed", 0))
        else:
            path = closed_form.make(name, pairs, out, half=order.half)
        report(f"{name}: {path}")
        done += 1
        on_share(done / count)


def _check_device(name: str) -> None:
    if name != "cpu" and not (name.startswith("cuda") and torch.cuda.is_available()):
        raise InputError(f'the device "{name}" is not available; --device cpu trains without a GPU')
