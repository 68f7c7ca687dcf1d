"""What the judge found, as tables, JSON and pictures."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import TranslatorError
from .metrics import Estimate
from .pictures import Picture

CONSTANT = "Constant there: the best single vector for all pairs."
TABLE, RECORD, RECALL, GAP = "evaluation.md", "evaluation.json", "recall.png", "gap.png"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """A picture that was not judged."""

    name: str
    why: str


@dataclass(frozen=True)
class Ranking:
    """How near the right prompt was. Keys are R@1, R@5 … (shares, 0 to 1) and "mean rank" (from 1)."""

    ranks: np.ndarray  # (N,), of the right prompt for each picture
    classes: dict[str, Estimate]  # mean over classes, each weighing the same
    pictures: dict[str, Estimate]  # mean over pictures
    each_class: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Control:
    """The same for vectors that cannot know what the picture shows."""

    classes: dict[str, float]
    pictures: dict[str, float]


@dataclass(frozen=True)
class Judged:
    """A translator's figures, and what its vectors score if every picture gets their mean, or another picture's."""

    ranking: Ranking
    constant: Control
    shuffled: Control


@dataclass(frozen=True)
class HeldOut:
    """Mean cosines to the true CLAP vectors of held-out pairs, by kind of the CLIP vector: text, image."""

    pairs: dict[str, int]
    constant: dict[str, float]  # that of the best constant vector
    translators: dict[str, dict[str, float]]

    def markdown(self) -> str:
        """A table of these cosines, the best first."""
        means = {name: sum(cosines.values()) / len(cosines) for name, cosines in self.translators.items()}
        best = sorted(means, key=means.__getitem__, reverse=True)
        rows = [[name, *_cosines(self.translators[name])] for name in best]
        columns = ["translator", *(f"cosine, {count:,} pairs of {kind}" for kind, count in self.pairs.items())]
        return "\n".join([*_table(columns, [*rows, ["constant", *_cosines(self.constant)]]), "", CONSTANT])


@dataclass(frozen=True)
class Place:
    """Where vectors lie: lengths, the cone they are in, and how far from the prompts of the same classes."""

    norm: float  # mean length
    norm_sd: float
    cone: float | None  # mean cosine of two of different classes
    gap: float | None = None  # distance of the mean unit vector from that of the prompts


@dataclass(frozen=True)
class Plane:
    """Pictures and prompts in the plane that shows most of both."""

    pictures: np.ndarray  # (N, 2)
    prompts: np.ndarray  # (C, 2), of the classes that have pictures
    labels: np.ndarray  # (N,), which of the prompts is the picture's


@dataclass(frozen=True)
class Report:
    """All that ``evaluate_images`` found; ``translators`` are in order of the widest R@k, the best first."""

    model: str
    spaces: tuple[str, str]  # fingerprints of CLIP's and CLAP's
    date: str  # UTC, ISO 8601
    seed: int
    ks: tuple[int, ...]
    prompts: dict[str, str]  # all that were ranked, class -> words
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

    def markdown(self) -> str:
        """A title, the table of translators with what stands beside them, and that of the gap between modalities."""
        shown = len({picture.label for picture in self.pictures})
        skipped = f"; {len(self.skipped)} could not be read" if self.skipped else ""
        lines = [
            f"# {_count(len(self.translators), 'translator')} of {self.model}, judged by pictures",
            "",
            f"{_count(len(self.pictures), 'picture')} of {shown} class{'' if shown == 1 else 'es'}, "
            f"ranked among {len(self.prompts)} prompts{skipped}. "
            f"CLIP space {self.spaces[0]}, CLAP space {self.spaces[1]}, {self.date[:10]}.",
            "",
            *_table(self._columns(), self._rows()),
            "",
            "R@k: the right prompt is among the k nearest; means over classes, then over pictures. In brackets: 95 % "
            "of bootstrap resamples, of classes or of pictures. Constant: the translator's mean vector for every "
            "picture. Shuffled: each picture with the vector of another.",
        ]
        if self.held_out:
            pairs = " and ".join(f"{count:,} of {kind}" for kind, count in self.held_out.pairs.items())
            lines += ["", f"Held-out pairs: {pairs}. {CONSTANT}"]
        lines += ["", *_table(PLACE_COLUMNS, [_place_row(name, place) for name, place in self.places.items()]), ""]
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """Everything but the drawn points, of JSON's own types."""
        return {
            "model": self.model,
            "spaces": dict(zip(("clip", "clap"), self.spaces, strict=True)),
            "date": self.date,
            "seed": self.seed,
            "prompts": self.prompts,
            "pictures": [{"name": picture.name, "label": picture.label} for picture in self.pictures],
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "default": self.default,
            "chance": self.chance,
            "zero_shot": _plain(self.zero_shot),
            "translators": {
                name: {
                    **_plain(judged.ranking),
                    "constant": asdict(judged.constant),
                    "shuffled": asdict(judged.shuffled),
                    "minus_default": {key: asdict(value) for key, value in self.behind.get(name, {}).items()},
                }
                for name, judged in self.translators.items()
            },
            "held_out": asdict(self.held_out) if self.held_out else None,
            "places": {name: asdict(place) for name, place in self.places.items()},
        }

    def save(self, folder: str | Path) -> None:
        """Write the tables, the JSON and the pictures as a new folder: all of it or nothing, and nothing is replaced.

        Without matplotlib there are no pictures, and a warning says so. Raises TranslatorError.
        """
        folder = Path(folder)
        check_new(folder)
        files = {TABLE: self.markdown().encode(), RECORD: json.dumps(self.json(), indent=1, allow_nan=False).encode()}
        files |= self._drawn()
        temporary = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=folder.parent))
            for name, content in files.items():
                (temporary / name).write_bytes(content)
            temporary.chmod(0o755)  # mkdtemp's 0700 is for secrets
            os.rename(temporary, folder)
        except OSError as error:
            raise TranslatorError(f"the evaluation cannot be written to {folder}: {error.strerror}") from None
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def _drawn(self) -> dict[str, bytes]:
        from . import plots

        try:
            return {RECALL: plots.recall(self), GAP: plots.gap(self)}
        except ImportError:
            log.warning("no pictures were drawn: that takes matplotlib")
            return {}

    def _columns(self) -> list[str]:
        widest = f"R@{self.ks[-1]}"
        names = [*(f"R@{k}" for k in self.ks), "mean rank"]
        cosines = [f"held-out cosine, {kind}" for kind in self.held_out.pairs] if self.held_out else []
        return [
            "translator", *names, f"{widest} - default's", f"{widest} constant", f"{widest} shuffled",
            f"by picture: {names[0]}", *names[1:], *cosines,
        ]  # fmt: skip

    def _rows(self) -> list[list[str]]:
        widest, kinds = f"R@{self.ks[-1]}", list(self.held_out.pairs) if self.held_out else []
        rows = []
        for name, judged in self.translators.items():
            found, behind = judged.ranking, self.behind.get(name)
            controls = (judged.constant.classes, judged.shuffled.classes)
            cosines = _cosines(self.held_out.translators[name]) if self.held_out else []
            rows.append([
                f"**{name}**" if name == self.default else name,
                *(_figure(key, value) for key, value in found.classes.items()),
                _points(behind[widest]) if behind else "",
                *(_figure(widest, Estimate(control[widest])) for control in controls),
                *(_figure(key, value) for key, value in found.pictures.items()),
                *cosines,
            ])  # fmt: skip
        zero = [[_figure(*item) for item in part.items()] for part in (self.zero_shot.classes, self.zero_shot.pictures)]
        rows.append(["CLIP zero-shot", *zero[0], "", "", "", *zero[1], *("" for _ in kinds)])
        lots = [_figure(key, Estimate(value)) for key, value in self.chance.items()]
        rows.append(["chance", *lots, "", "", "", *lots, *("" for _ in kinds)])
        if self.held_out:
            blank = [""] * (len(rows[0]) - len(kinds) - 1)
            rows.append(["constant", *blank, *_cosines(self.held_out.constant)])
        return rows


def check_new(folder: str | Path) -> None:
    """To be asked before work of minutes. Raises TranslatorError if results cannot go there: something has the name."""
    folder = Path(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if os.path.lexists(folder):
        raise TranslatorError(f"{folder} is there already, and results are never overwritten; name another folder")


PLACE_COLUMNS = ["unit vectors", "length before", "cosine between classes", "gap to prompts"]


def _place_row(name: str, place: Place) -> list[str]:
    return [name, f"{place.norm:.2f} ± {place.norm_sd:.2f}", *(_number(value) for value in (place.cone, place.gap))]


def _cosines(by_kind: dict[str, float]) -> list[str]:
    return [f"{cosine:.3f}" for cosine in by_kind.values()]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _figure(name: str, estimate: Estimate) -> str:
    """A share in per cent, a rank with one decimal; the interval in brackets."""
    scale, unit = (1, "") if name == "mean rank" else (100, " %")
    value, interval = f"{estimate.value * scale:.1f}{unit}", estimate.interval
    if interval is None:
        return value
    digits = 1 if name == "mean rank" else 0
    return f"{value} ({'–'.join(f'{end * scale:.{digits}f}' for end in interval)})"


def _points(estimate: Estimate) -> str:
    """A difference of shares in percentage points."""
    value = f"{round(100 * estimate.value, 1) + 0.0:+.1f}"  # + 0.0: no -0.0
    if estimate.interval is None:
        return value
    return f"{value} ({' to '.join(f'{round(100 * end) + 0.0:+.0f}' for end in estimate.interval)})"


def _plain(ranking: Ranking) -> dict[str, Any]:
    return {**asdict(ranking), "ranks": ranking.ranks.tolist()}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
