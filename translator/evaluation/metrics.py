"""The metrics: ranks among class prompts, means with intervals, controls, and the geometry of vectors.

Plain numpy over vectors (rows) and ``labels``, the numbers of the rows' classes. Classes differ in size, so every
figure over pictures also exists as a mean over classes, which all have the same weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000  # of the bootstrap: 95 % intervals to about a twentieth of their width
LEVELS = (2.5, 97.5)  # per cent
BLOCK = 4_000_000  # counts, 32 MB


@dataclass(frozen=True)
class Estimate:
    """A mean with 95 % percentile bootstrap intervals (Efron 1979); None where there are too few rows.

    For a mean over classes, ``interval`` resamples the classes with their pictures: the uncertainty from the choice of
    classes. ``same_classes`` resamples the pictures within each class; it is narrow if classes have one picture each,
    where nothing can be resampled.
    """

    value: float
    interval: tuple[float, float] | None = None
    same_classes: tuple[float, float] | None = None


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float64. A row of length 0 gives NaN: check before."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def rank_all(vectors: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Rank of every prompt for every row, by cosine: (N, dim), (K, dim) -> (N, K), 1 to K.

    A prompt ranks after all that are equally near, so vectors that do not distinguish the prompts gain nothing.
    """
    cosines = unit(vectors) @ unit(prompts).T
    return np.stack([(cosines >= own[:, None]).sum(axis=1) for own in cosines.T], axis=1)


def measures(ks: Sequence[int]) -> list[str]:
    """Names of the columns of ``measure``: "R@1", "R@5" …, "mean rank"."""
    return [*(f"R@{k}" for k in ks), "mean rank"]


def measure(ranks: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Ranks of any shape -> (…, M): whether it is at most k, for each of ``ks``, then the rank itself."""
    return np.stack([*(ranks <= k for k in ks), ranks], axis=-1).astype(np.float64)


def chance(count: int, ks: Sequence[int]) -> np.ndarray:
    """(M,): the expected values for random ranks among ``count`` prompts."""
    return measure(np.arange(1, count + 1), ks).mean(axis=0)


def class_means(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, …) -> (C, …): the mean of each class that has rows, in order of its number."""
    return np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])


def over_classes(rows: np.ndarray, labels: np.ndarray, seed: int) -> list[Estimate]:
    """Mean over classes of the classes' means, for each column of (N, M)."""
    means, random = class_means(rows, labels), np.random.default_rng(seed)
    redrawn = _resampled(means, random) if len(means) > 1 else None
    within = None
    if len(rows) > len(means):
        within = np.mean([_resampled(rows[labels == label], random) for label in np.unique(labels)], axis=0)
    return _estimates(means.mean(axis=0), redrawn, within)


def over_rows(rows: np.ndarray, seed: int) -> list[Estimate]:
    """Mean of the rows for each column of (N, M); ``interval`` resamples the rows."""
    redrawn = _resampled(rows, np.random.default_rng(seed)) if len(rows) > 1 else None
    return _estimates(rows.mean(axis=0), redrawn)


def constant(vectors: np.ndarray, prompts: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """(K, M) for a picture of each class, if every picture had the mean of the unit ``vectors`` (N, dim)."""
    return measure(rank_all(unit(vectors).mean(axis=0, keepdims=True), prompts)[0], ks)


def shuffled(ranks: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """(K, M) for a picture of each class, if it had the vector of a random picture.

    This is the exact mean over all permutations, in which each picture has each vector equally often. ``ranks``: (N, K)
    of ``rank_all``.
    """
    return np.stack([measure(column, ks).mean(axis=0) for column in ranks.T])


def centres(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C, dim): the mean of the unit vectors of each class."""
    return class_means(unit(vectors), labels)


def norms(vectors: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the rows' lengths."""
    lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=1)
    return float(lengths.mean()), float(lengths.std())


def cone(centres: np.ndarray) -> float | None:
    """Mean cosine between vectors of different classes: 0 for all directions, 1 for one; None for one class.

    The mean over pairs of rows is the product of the classes' mean unit vectors.
    """
    count = len(centres)
    if count < 2:
        return None
    total = np.sum(centres.sum(axis=0) ** 2) - np.sum(centres**2)
    return float(total / (count * (count - 1)))


def gap(centres: np.ndarray, others: np.ndarray) -> float:
    """The modality gap (Liang et al., arXiv 2203.02053): distance between the means of two kinds, 0 to 2.

    Both kinds have the same classes, with the same weights.
    """
    return float(np.linalg.norm(centres.mean(axis=0) - others.mean(axis=0)))


def plane(centres: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(dim,) origin and (dim, 2) axes of the plane of largest variance: PCA of the classes' means.

    With the classes' means, the class with most pictures does not determine the view.
    """
    points = np.concatenate([centres, others])
    origin = points.mean(axis=0)
    return origin, np.linalg.svd(points - origin, full_matrices=False)[2][:2].T


def _resampled(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, M): means of as many rows as there are, drawn with replacement.

    Computed as the counts of the drawn rows times the rows, in blocks that limit the memory for the counts.
    """
    count = len(rows)
    even, block = np.full(count, 1 / count), max(1, BLOCK // count)
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    return np.concatenate([random.multinomial(count, even, size=size) @ rows / count for size in sizes])


def _estimates(values: np.ndarray, *resamples: np.ndarray | None) -> list[Estimate]:
    intervals = [
        [None] * len(values) if means is None else [(float(a), float(b)) for a, b in np.percentile(means, LEVELS, 0).T]
        for means in resamples
    ]
    return [Estimate(float(value), *both) for value, *both in zip(values, *intervals, strict=True)]
