"""The judge: does a translated picture land nearest to the prompt of its class?

For each picture, the prompts of all classes are ranked in CLAP space by their cosine to the translated picture.
Controls put the figures into perspective: chance, the same vector for every picture, vectors of other pictures, and
CLIP alone with the same prompts (zero-shot: an upper bound for this CLIP).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

import numpy as np
from tqdm import tqdm

from .. import InputError
from . import metrics
from .findings import Control, Evaluation, HeldOut, Judged, Place, Plane, Ranking, Skipped
from .pictures import Picture

if TYPE_CHECKING:
    from torch import Tensor

    from ..shards.pairs import Batch

KS = (1, 5)
BATCH = 1024  # vectors translated at once; a memory compares each with all of its captions

Translate = Callable[..., "Tensor"]  # (B, dim) of CLIP, kind="image" or "text" -> (B, dim) unit vectors in CLAP space


class Towers(Protocol):
    """The towers of a model, provided by the caller: this package has none."""

    name: str  # of the model
    spaces: tuple[str, str]  # fingerprints of its CLIP and its CLAP space

    def image(self, source: str) -> Tensor:
        """(dim,) or (1, dim) of CLIP's image tower, of any length. Raises InputError: no such picture …"""
        ...

    def clip_text(self, texts: Sequence[str]) -> Tensor:
        """(N, dim) of CLIP's text tower, of any length."""
        ...

    def clap_text(self, texts: Sequence[str]) -> Tensor:
        """(N, dim) of CLAP's text tower."""
        ...


@dataclass(frozen=True)
class _Sample:
    """Pictures as CLIP sees them, and both texts of each class. Labels are numbers of ``classes``."""

    pictures: list[Picture]
    clip: np.ndarray  # (N, dim)
    labels: np.ndarray  # (N,)
    classes: list[str]  # K; not each needs a picture
    clip_prompts: np.ndarray  # (K, dim)
    clap_prompts: np.ndarray  # (K, dim)
    ks: tuple[int, ...]
    seed: int

    @property
    def shown(self) -> np.ndarray:
        """Numbers of the classes that have pictures, ascending."""
        return np.unique(self.labels)


def evaluate_images(
    towers: Towers,
    pictures: Sequence[Picture],
    prompts: Mapping[str, str],
    translators: Mapping[str, Translate],
    *,
    default: str | None = None,
    held_out: Batch | None = None,
    ks: Sequence[int] = KS,
    seed: int = 0,
) -> Evaluation:
    """Judge ``translators`` (name -> function of CPU tensors) on ``pictures``, and on ``held_out`` pairs if given.

    Args:
        prompts: class -> prompt, for every class of the pictures; further classes are distractors.
        default: name of the translator that the others are compared with and whose gap is drawn; None: the best.
        held_out: pairs that no translator was trained on.
        ks: R@k is the share of pictures whose own prompt is among the k nearest; k is below the number of classes.
        seed: of the bootstrap; the same resamples for all translators.

    Pictures that have an error or cannot be read are left out and listed. Raises InputError: no picture can be read,
    a class has no prompt, two classes have the same prompt, there are fewer than two classes, a translator gives
    unusable vectors.
    """
    _check(pictures, prompts, translators, default)
    ks = tuple(sorted({k for k in ks if 0 < k < len(prompts)}))
    if not ks:
        raise InputError(f"R@k needs a k from 1 to {len(prompts) - 1}, one less than the number of prompts")
    read, skipped = _read(towers, pictures)
    seen = _sample(towers, read, prompts, ks, seed)
    translated = {name: _translate(name, function, seen.clip, "image") for name, function in translators.items()}
    pairs = judge_pairs(held_out, translators) if held_out is not None else None
    judged = {name: _judge(vectors, seen) for name, vectors in translated.items()}
    judged = dict(sorted(judged.items(), key=lambda item: _order(item[1], ks)))
    reference = default or next(iter(judged))
    return Evaluation(
        model=towers.name,
        spaces=towers.spaces,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seed=seed,
        ks=ks,
        prompts=dict(prompts),
        pictures=tuple(seen.pictures),
        skipped=tuple(skipped),
        default=reference,
        chance=_named(metrics.chance(len(prompts), ks), ks),
        zero_shot=_rank(metrics.rank_all(seen.clip, seen.clip_prompts), seen),
        translators=judged,
        behind=_behind(judged, reference, seen),
        held_out=pairs,
        places=_places({name: translated[name] for name in judged}, seen),
        planes=(_plane(seen.clip, seen.clip_prompts, seen), _plane(translated[reference], seen.clap_prompts, seen)),
    )


def _check(
    pictures: Sequence[Picture], prompts: Mapping[str, str], translators: Mapping[str, Translate], default: str | None
) -> None:
    if not translators:
        raise InputError("there are no translators to evaluate")
    if default is not None and default not in translators:
        raise InputError(f'the default translator "{default}" is not among the evaluated ones')
    wordless = sorted({picture.label for picture in pictures if picture.error is None} - set(prompts))
    if wordless:
        raise InputError(f'the class "{wordless[0]}" has no prompt')
    if len(prompts) < 2:
        wrong = [picture.error for picture in pictures if picture.error is not None]
        why = f"; {len(wrong)} of {len(pictures)} pictures cannot be used, the first: {wrong[0]}" if wrong else ""
        raise InputError(f"at least two classes are required{why}")
    classes: dict[str, str] = {}
    for label, words in prompts.items():
        if classes.setdefault(words, label) != label:
            raise InputError(f'the classes "{classes[words]}" and "{label}" have the same prompt: "{words}"')


def _read(towers: Towers, pictures: Sequence[Picture]) -> tuple[list[tuple[Picture, np.ndarray]], list[Skipped]]:
    read, skipped = [], []
    for picture in tqdm(pictures, desc="pictures", unit="", disable=None):
        try:
            if picture.error is not None:
                raise InputError(picture.error)
            vector = _finite(towers.image(picture.source).reshape(1, -1), "CLIP's image tower")[0]
        except ValueError as error:
            skipped.append(Skipped(picture.name, str(error)))
        else:
            read.append((picture, vector))
    if not read:
        why = f"; the first: {skipped[0].why}" if skipped else ""
        raise InputError(f"none of {len(pictures)} pictures could be read{why}")
    return read, skipped


def _sample(
    towers: Towers,
    read: Sequence[tuple[Picture, np.ndarray]],
    prompts: Mapping[str, str],
    ks: tuple[int, ...],
    seed: int,
) -> _Sample:
    words, classes = list(prompts.values()), list(prompts)
    return _Sample(
        [picture for picture, _ in read],
        np.stack([vector for _, vector in read]),
        np.array([classes.index(picture.label) for picture, _ in read]),
        classes,
        _finite(towers.clip_text(words), "CLIP's text tower"),
        _finite(towers.clap_text(words), "CLAP's text tower"),
        ks,
        seed,
    )


def _finite(vectors: Tensor, whose: str) -> np.ndarray:
    """(N, dim) float32. Raises InputError if they have no direction."""
    found = vectors.detach().float().cpu().numpy()
    if not np.isfinite(found).all() or not np.linalg.norm(found, axis=-1).all():
        raise InputError(f"{whose} gives vectors that are not finite or have no length")
    return found


def _translate(name: str, translate: Translate, clip: np.ndarray | Tensor, kind: str) -> np.ndarray:
    import torch

    with torch.inference_mode():
        try:
            batches = [translate(batch, kind=kind) for batch in torch.as_tensor(clip).split(BATCH)]
        except RuntimeError:  # torch's, of matrices that do not fit
            raise InputError(f"the translator {name} does not accept vectors of {clip.shape[1]} numbers") from None
        return _finite(torch.cat(batches), f"the translator {name}")


def _rank(ranks: np.ndarray, seen: _Sample) -> Ranking:
    """Summarise the ranks (N, K) of all prompts for the pictures' own prompts."""
    own = ranks[np.arange(len(ranks)), seen.labels]
    values, names = metrics.measure(own, seen.ks), metrics.measures(seen.ks)
    each = metrics.class_means(values, seen.labels)
    return Ranking(
        own,
        dict(zip(names, metrics.over_classes(values, seen.labels, seen.seed), strict=True)),
        dict(zip(names, metrics.over_rows(values, seen.seed), strict=True)),
        {seen.classes[label]: _named(row, seen.ks) for label, row in zip(seen.shown, each, strict=True)},
    )


def _judge(vectors: np.ndarray, seen: _Sample) -> Judged:
    ranks = metrics.rank_all(vectors, seen.clap_prompts)
    return Judged(
        _rank(ranks, seen),
        _control(metrics.constant(vectors, seen.clap_prompts, seen.ks), seen),
        _control(metrics.shuffled(ranks, seen.ks), seen),
    )


def _control(by_class: np.ndarray, seen: _Sample) -> Control:
    """(K, M) for a picture of each class -> the means over classes and over pictures."""
    means = by_class[seen.shown].mean(axis=0), by_class[seen.labels].mean(axis=0)
    return Control(*(_named(mean, seen.ks) for mean in means))


def _named(values: Iterable[float], ks: Sequence[int]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(metrics.measures(ks), values, strict=True)}


def _order(judged: Judged, ks: Sequence[int]) -> tuple[float, ...]:
    """Best first: by the widest R@k, then the narrower ones, then the mean rank."""
    found = judged.ranking.classes
    return (*(-found[f"R@{k}"].value for k in reversed(ks)), found["mean rank"].value)


def _behind(judged: Mapping[str, Judged], reference: str, seen: _Sample) -> dict[str, dict[str, metrics.Estimate]]:
    """Each translator minus the reference, over classes; paired by picture, so common difficulty cancels out."""
    values = {name: metrics.measure(found.ranking.ranks, seen.ks) for name, found in judged.items()}
    names = metrics.measures(seen.ks)
    return {
        name: dict(zip(names, metrics.over_classes(own - values[reference], seen.labels, seen.seed), strict=True))
        for name, own in values.items()
        if name != reference
    }


def judge_pairs(pairs: Batch, translators: Mapping[str, Translate]) -> HeldOut:
    """Mean cosines to the true CLAP vectors, for texts and images separately: a translator may know only one kind.

    Raises InputError: there are no pairs, or vectors are not finite or have no length.
    """
    from ..model import KINDS

    if not len(pairs.clip):
        raise InputError("there are no held-out pairs")
    counts: dict[str, int] = {}
    constant: dict[str, float] = {}
    cosines: dict[str, dict[str, float]] = {name: {} for name in translators}
    for number, kind in enumerate(KINDS):
        rows = pairs.kind == number
        if not rows.any():
            continue
        true = metrics.unit(_finite(pairs.clap[rows], "the data: the CLAP side of a held-out pair"))
        counts[kind] = len(true)
        constant[kind] = float(np.linalg.norm(true.mean(axis=0)))  # of the best one, which is the mean's direction
        for name, translate in translators.items():
            ours = metrics.unit(_translate(name, translate, pairs.clip[rows], kind))
            cosines[name][kind] = float((ours * true).sum(axis=1).mean())
    return HeldOut(counts, constant, cosines)


def _places(translated: Mapping[str, np.ndarray], seen: _Sample) -> dict[str, Place]:
    """Where pictures and prompts lie in both spaces, over the classes that have pictures."""
    clip, clap = (metrics.unit(prompts[seen.shown]) for prompts in (seen.clip_prompts, seen.clap_prompts))

    def of_pictures(vectors: np.ndarray, prompts: np.ndarray) -> Place:
        means = metrics.centres(vectors, seen.labels)
        return Place(*metrics.norms(vectors), metrics.cone(means), metrics.gap(means, prompts))

    return {
        "CLIP: prompts": Place(*metrics.norms(seen.clip_prompts[seen.shown]), metrics.cone(clip)),
        "CLIP: pictures": of_pictures(seen.clip, clip),
        "CLAP: prompts": Place(*metrics.norms(seen.clap_prompts[seen.shown]), metrics.cone(clap)),
        **{f"CLAP: pictures by {name}": of_pictures(vectors, clap) for name, vectors in translated.items()},
    }


def _plane(vectors: np.ndarray, prompts: np.ndarray, seen: _Sample) -> Plane:
    ours, words = metrics.unit(vectors), metrics.unit(prompts[seen.shown])
    origin, axes = metrics.plane(metrics.centres(vectors, seen.labels), words)
    return Plane((ours - origin) @ axes, (words - origin) @ axes, np.searchsorted(seen.shown, seen.labels))
