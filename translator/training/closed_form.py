"""Linear translators in closed form: one pass over the pairs, then one solution; seconds for any number of rows.

x = norm(norm(c) - μ_C) and y = a - μ_A, with one μ_C for CLIP's texts and one for its images (C3, arXiv 2401.08567;
arXiv 2602.17584). W is the matrix of ``model.LinearTranslator``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import InputError
from ..model import KINDS, LinearTranslator, centred
from ..shards.pairs import TRAIN, Batch, Pairs
from . import record
from .mix import Mix

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of ridge, times the mean square of x; chosen on the held-out pairs


@dataclass(frozen=True)
class Means:
    """clip (2, dim): mean unit vectors of CLIP's texts and images; clap (dim,); numbers of texts and images."""

    clip: Tensor
    clap: Tensor
    texts: int
    images: int


def means(sources: Sequence[Pairs]) -> Means:
    """Means over the training pairs; the images' mean includes pictures without captions.

    Where one kind is missing, the other's mean is used: nothing is known about the gap between them.
    """
    totals = [pairs.totals for pairs in sources]
    clip, clap, counts = totals[0]
    for more in totals[1:]:
        clip, clap, counts = clip + more.clip, clap + more.clap, counts + more.counts
    if not counts.sum() or not (trained := sum(pairs.train for pairs in sources)):
        raise InputError("there are no pairs to learn from")
    clip = clip / counts.clamp(min=1)[:, None]
    for kind in range(len(KINDS)):
        if not counts[kind]:
            clip[kind] = clip[1 - kind]
    return Means(clip.float(), (clap / trained).float(), int(counts[0]), int(counts[1]))


@dataclass(frozen=True)
class Sums:
    """xx (dim, dim) = Σ x xᵀ, yx (dim, dim) = Σ y xᵀ, in double precision, over ``count`` pairs."""

    xx: Tensor
    yx: Tensor
    count: int


def sums(sources: Sequence[Pairs], around: Means) -> Sums:
    """Over all training pairs."""
    dim = sources[0].dim
    xx, yx = (torch.zeros(dim, dim, dtype=torch.double) for _ in range(2))
    count = 0
    for pairs in sources:
        for batch in pairs.buffers(TRAIN):
            x = centred(batch.clip, around.clip, batch.kind)
            y = F.normalize(batch.clap, dim=-1) - around.clap
            xx += (x.T @ x).double()
            yx += (y.T @ x).double()
            count += len(x)
    return Sums(xx, yx, count)


def procrustes(total: Sums, around: Means) -> LinearTranslator:
    """The rotation (or reflection) and one scale that bring x nearest to y: W = s·U·Vᵀ of Σ y xᵀ = U·S·Vᵀ, with
    s = tr(S) / Σ |x|² (Schönemann 1966; Gower and Dijksterhuis, Procrustes Problems, section 4)."""
    u, singular, vt = torch.linalg.svd(total.yx)
    return LinearTranslator((singular.sum() / total.xx.trace() * (u @ vt)).float(), around.clap, around.clip)


def ridge(total: Sums, around: Means, penalty: float) -> LinearTranslator:
    """W = Σ y xᵀ (Σ x xᵀ + λI)⁻¹, with λ = ``penalty`` times Σ |x|² / dim."""
    dim = len(total.xx)
    system = total.xx + penalty * total.xx.trace() / dim * torch.eye(dim, dtype=torch.double)
    return LinearTranslator(torch.linalg.solve(system, total.yx.T).T.float(), around.clap, around.clip)


def fit(name: str, sources: Sequence[Pairs]) -> tuple[LinearTranslator, dict[str, float | int | str]]:
    """Fit ``procrustes`` or ``ridge`` to all sources; returns also the facts to record. Raises InputError."""
    for pairs in sources:
        if pairs.train:
            pairs.require()
    around = means(sources)
    total = sums([pairs for pairs in sources if pairs.train], around)
    facts: dict[str, float | int | str] = {"texts": around.texts, "images": around.images}
    if not around.images or not around.texts:
        missing = "texts" if around.images else "images"
        facts["note"] = f"no {missing} in the data: the mean of the other kind is used"
    if name == "procrustes":
        return procrustes(total, around), facts
    held = [pairs.held_out_pairs() for pairs in sources if pairs.held_out]
    fits = {penalty: ridge(total, around, penalty) for penalty in PENALTIES}
    scores = {
        penalty: float(torch.cat([F.cosine_similarity(fit(h.clip, h.kind), h.clap) for h in held]).mean())
        for penalty, fit in fits.items()
    }
    best = max(scores, key=scores.__getitem__)
    return fits[best], {**facts, "penalty": best}


def constant_cosine(mix: Mix, held_out: Batch) -> float:
    """Mean cosine of the held-out CLAP vectors to the training mean: the score of a constant vector."""
    first, *others = (w * means([pairs]).clap for w, pairs in zip(mix.weights, mix.sources, strict=True))
    mean = sum(others, first)
    return F.cosine_similarity(mean.to(held_out.clap.device)[None], held_out.clap).mean().item()


def make(name: str, sources: dict[str, Pairs], out: Path, half: bool = False) -> Path:
    """Fit ``procrustes`` or ``ridge`` to all sources and write <name>.safetensors and .json into ``out``.

    Raises InputError: there are too few pairs, or ``out`` has a file of that name made from other data.
    """
    made = record.data_facts(sources)
    path, began = out / f"{name}.safetensors", time.monotonic()
    if record.is_finished(path, made):
        return path
    translator, found = fit(name, list(sources.values()))
    mixed = Mix([pairs for pairs in sources.values() if pairs.train])
    held = mixed.held_out_pairs()
    metrics = {
        "held_out_cosine": round(F.cosine_similarity(translator(held.clip, held.kind), held.clap).mean().item(), 5),
        "constant_cosine": round(constant_cosine(mixed, held), 5),
        "seconds": round(time.monotonic() - began, 1),
    }
    return record.save(translator, name, name, {**made, "fit": found, "metrics": metrics}, out, half)
