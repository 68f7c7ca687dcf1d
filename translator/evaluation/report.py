"""An evaluation as tables, JSON and pictures."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from .. import InputError
from ..files import writing_folder
from . import plots
from .findings import Evaluation, HeldOut, Place, Ranking
from .metrics import Estimate

CONSTANT = "Constant there: the best single vector for all pairs."
TABLE, RECORD, RECALL, GAP = "evaluation.md", "evaluation.json", "recall.png", "gap.png"
PLACE_COLUMNS = ["unit vectors", "length before", "cosine between classes", "gap to prompts"]

log = logging.getLogger(__name__)


def markdown(found: Evaluation) -> str:
    """A title, the table of translators with their controls, and the table of the gap between modalities."""
    shown = len({picture.label for picture in found.pictures})
    skipped = f"; {len(found.skipped)} could not be read" if found.skipped else ""
    lines = [
        f"# {_count(len(found.translators), 'translator')} of {found.model}, judged by pictures",
        "",
        f"{_count(len(found.pictures), 'picture')} of {shown} class{'' if shown == 1 else 'es'}, "
        f"ranked among {len(found.prompts)} prompts{skipped}. "
        f"CLIP space {found.spaces[0]}, CLAP space {found.spaces[1]}, {found.date[:10]}.",
        "",
        *_table(_columns(found), _rows(found)),
        "",
        "R@k: the right prompt is among the k nearest; means over classes, then over pictures. In brackets: 95 % "
        "of bootstrap resamples, of classes or of pictures. Constant: the translator's mean vector for every "
        "picture. Shuffled: each picture with the vector of another.",
    ]
    if found.held_out:
        pairs = " and ".join(f"{count:,} of {kind}" for kind, count in found.held_out.pairs.items())
        lines += ["", f"Held-out pairs: {pairs}. {CONSTANT}"]
    lines += ["", *_table(PLACE_COLUMNS, [_place_row(name, place) for name, place in found.places.items()]), ""]
    return "\n".join(lines)


def held_out_markdown(found: HeldOut) -> str:
    """A table of cosines to held-out pairs, the best translator first."""
    means = {name: sum(cosines.values()) / len(cosines) for name, cosines in found.translators.items()}
    best = sorted(means, key=means.__getitem__, reverse=True)
    rows = [[name, *_cosines(found.translators[name])] for name in best]
    columns = ["translator", *(f"cosine, {count:,} pairs of {kind}" for kind, count in found.pairs.items())]
    return "\n".join([*_table(columns, [*rows, ["constant", *_cosines(found.constant)]]), "", CONSTANT])


def as_json(found: Evaluation) -> dict[str, object]:
    """Everything but the drawn points, in JSON's own types."""
    return {
        "model": found.model,
        "spaces": dict(zip(("clip", "clap"), found.spaces, strict=True)),
        "date": found.date,
        "seed": found.seed,
        "prompts": found.prompts,
        "pictures": [{"name": picture.name, "label": picture.label} for picture in found.pictures],
        "skipped": [asdict(skipped) for skipped in found.skipped],
        "default": found.default,
        "chance": found.chance,
        "zero_shot": _ranking_json(found.zero_shot),
        "translators": {
            name: {
                **_ranking_json(judged.ranking),
                "constant": asdict(judged.constant),
                "shuffled": asdict(judged.shuffled),
                "minus_default": {key: asdict(value) for key, value in found.behind.get(name, {}).items()},
            }
            for name, judged in found.translators.items()
        },
        "held_out": asdict(found.held_out) if found.held_out else None,
        "places": {name: asdict(place) for name, place in found.places.items()},
    }


def save(found: Evaluation, folder: str | Path) -> None:
    """Write the tables, the JSON and the pictures as a new folder: all of it or nothing.

    Without matplotlib there are no pictures, and a warning says so. Raises InputError.
    """
    folder = Path(folder)
    check_new(folder)
    files = {TABLE: markdown(found).encode(), RECORD: json.dumps(as_json(found), indent=1, allow_nan=False).encode()}
    try:
        files |= {RECALL: plots.recall(found), GAP: plots.gap(found)}
    except ImportError:
        log.warning("no pictures were drawn, because matplotlib is not installed")
    try:
        with writing_folder(folder) as temporary:
            for name, content in files.items():
                (temporary / name).write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write the evaluation to {folder}: {error.strerror}") from None


def check_new(folder: str | Path) -> None:
    """Raises InputError if ``folder`` exists and is not empty; to be called before minutes of work."""
    folder = Path(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if os.path.lexists(folder):
        raise InputError(f"{folder} already exists; refusing to overwrite results. Choose another folder")


def _columns(found: Evaluation) -> list[str]:
    widest = f"R@{found.ks[-1]}"
    names = [*(f"R@{k}" for k in found.ks), "mean rank"]
    cosines = [f"held-out cosine, {kind}" for kind in found.held_out.pairs] if found.held_out else []
    return [
        "translator", *names, f"{widest} - default's", f"{widest} constant", f"{widest} shuffled",
        f"by picture: {names[0]}", *names[1:], *cosines,
    ]  # fmt: skip


def _rows(found: Evaluation) -> list[list[str]]:
    widest, held_out = f"R@{found.ks[-1]}", found.held_out
    no_cosines = [""] * (len(held_out.pairs) if held_out else 0)
    rows = []
    for name, judged in found.translators.items():
        ranking, behind = judged.ranking, found.behind.get(name)
        rows.append([
            f"**{name}**" if name == found.default else name,
            *(_figure(key, value) for key, value in ranking.classes.items()),
            _points(behind[widest]) if behind else "",
            *(_figure(widest, Estimate(control.classes[widest])) for control in (judged.constant, judged.shuffled)),
            *(_figure(key, value) for key, value in ranking.pictures.items()),
            *(_cosines(held_out.translators[name]) if held_out else []),
        ])  # fmt: skip
    by_class, by_picture = (
        [_figure(*item) for item in part.items()] for part in (found.zero_shot.classes, found.zero_shot.pictures)
    )
    rows.append(["CLIP zero-shot", *by_class, "", "", "", *by_picture, *no_cosines])
    chance = [_figure(key, Estimate(value)) for key, value in found.chance.items()]
    rows.append(["chance", *chance, "", "", "", *chance, *no_cosines])
    if held_out:
        blank = [""] * (len(rows[0]) - len(no_cosines) - 1)
        rows.append(["constant", *blank, *_cosines(held_out.constant)])
    return rows


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


def _ranking_json(ranking: Ranking) -> dict[str, object]:
    return {**asdict(ranking), "ranks": ranking.ranks.tolist()}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
