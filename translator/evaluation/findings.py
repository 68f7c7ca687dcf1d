"""What the judge finds, as values; ``report`` writes them as tables and files, ``plots`` draws them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metrics import Estimate
from .pictures import Picture


@dataclass(frozen=True)
class Skipped:
    """A picture that was not judged."""

    name: str
    why: str


@dataclass(frozen=True)
class Ranking:
    """Ranks of the pictures' own prompts. Keys are R@1, R@5 … (shares, 0 to 1) and "mean rank" (from 1)."""

    ranks: np.ndarray  # (N,), for each picture the rank of its own prompt
    classes: dict[str, Estimate]  # mean over classes, all with the same weight
    pictures: dict[str, Estimate]  # mean over pictures
    each_class: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Control:
    """The same figures for vectors that do not depend on the picture's content."""

    classes: dict[str, float]
    pictures: dict[str, float]


@dataclass(frozen=True)
class Judged:
    """The figures of a translator, of its mean vector for every picture, and of vectors of other pictures."""

    ranking: Ranking
    constant: Control
    shuffled: Control


@dataclass(frozen=True)
class HeldOut:
    """Mean cosines to the true CLAP vectors of held-out pairs, by kind of the CLIP vector: text, image."""

    pairs: dict[str, int]
    constant: dict[str, float]  # of the best constant vector
    translators: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Place:
    """Where vectors lie: their lengths, their cone, and their distance from the prompts of the same classes."""

    norm: float  # mean length
    norm_sd: float
    cone: float | None  # mean cosine between classes
    gap: float | None = None  # distance between the mean unit vectors of pictures and prompts


@dataclass(frozen=True)
class Plane:
    """Pictures and prompts, projected to the plane of their largest variance."""

    pictures: np.ndarray  # (N, 2)
    prompts: np.ndarray  # (C, 2), of the classes that have pictures
    labels: np.ndarray  # (N,), number of each picture's prompt


@dataclass(frozen=True)
class Evaluation:
    """All findings about a set of translators, ordered by the widest R@k, best first."""

    model: str
    spaces: tuple[str, str]  # fingerprints of CLIP's and CLAP's
    date: str  # UTC, ISO 8601
    seed: int
    ks: tuple[int, ...]
    prompts: dict[str, str]  # class -> prompt, of all ranked prompts
    pictures: tuple[Picture, ...]
    skipped: tuple[Skipped, ...]
    default: str  # the translator that the others are compared with
    chance: dict[str, float]
    zero_shot: Ranking  # CLIP's own, by its text tower
    translators: dict[str, Judged]
    behind: dict[str, dict[str, Estimate]]  # each minus the default, over classes
    held_out: HeldOut | None
    places: dict[str, Place]
    planes: tuple[Plane, Plane]  # CLIP's space, and CLAP's with the default translator
