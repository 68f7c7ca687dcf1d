"""Plots of an evaluation, as the bytes of PNG files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .findings import Evaluation, Plane

DEFAULT, OTHERS, PICTURES, WORDS, GREY = "#5b93c9", "#c3d6ea", "#1f4e79", "#d1632a", "#666666"
DPI = 130


def recall(found: Evaluation) -> bytes:
    """Bars of R@k with intervals for all translators, best first; lines for chance and CLIP zero-shot."""
    from matplotlib.figure import Figure

    names = list(found.translators)
    figure = Figure(figsize=(2.6 + 3.4 * len(found.ks), 1.7 + 0.27 * len(names)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(found.ks), sharey=True))
    for axes, k in zip(panels, found.ks, strict=True):
        key = f"R@{k}"
        estimates = [found.translators[name].ranking.classes[key] for name in names]
        axes.barh(
            range(len(names)), [100 * estimate.value for estimate in estimates], height=0.7,
            color=[DEFAULT if name == found.default else OTHERS for name in names],
        )  # fmt: skip
        known = [(row, *estimate.interval) for row, estimate in enumerate(estimates) if estimate.interval]
        if known:  # of one class there is no interval
            rows, low, high = np.array(known).T
            axes.hlines(rows, 100 * low, 100 * high, color="black", linewidth=0.9, label="95 % of resampled classes")
        axes.axvline(100 * found.chance[key], color=WORDS, linestyle="--", linewidth=1.2, label="chance")
        zero_shot = 100 * found.zero_shot.classes[key].value
        axes.axvline(zero_shot, color=GREY, linestyle=":", linewidth=1.4, label="CLIP zero-shot")
        axes.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), title=f"{key}, % (mean over classes)")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0].get_yticklabels()[names.index(found.default)].set_fontweight("bold")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False, fontsize=9)
    return _png(figure)


def gap(found: Evaluation) -> bytes:
    """Pictures and the prompts of their classes, in CLIP's space and, translated by the default, in CLAP's.

    Both spaces are of unit vectors and drawn to the same scale, so distances are comparable.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.8), layout="constrained")
    before, after = found.places["CLIP: pictures"], found.places[f"CLAP: pictures by {found.default}"]
    titles = (f"before: CLIP space\ngap {before.gap:.2f}", f"after {found.default}: CLAP space\ngap {after.gap:.2f}")
    panels = figure.subplots(1, 2)
    half = 0.54 * max(np.ptp(_points(plane), axis=0).max() for plane in found.planes)
    for axes, plane, title in zip(panels, found.planes, titles, strict=True):
        _scatter(axes, plane)
        middle = (_points(plane).min(axis=0) + _points(plane).max(axis=0)) / 2
        axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
        axes.set_title(title, fontsize=11)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return _png(figure)


def _scatter(axes: Axes, plane: Plane) -> None:
    """Draw a thin line from each picture to its prompt, as arXiv 2203.02053 does for pairs."""
    ends = np.stack([plane.pictures, plane.prompts[plane.labels]])
    axes.plot(ends[..., 0], ends[..., 1], color="#cccccc", linewidth=0.5, zorder=1)
    axes.scatter(*plane.pictures.T, s=18, color=PICTURES, alpha=0.6, linewidths=0, zorder=2, label="picture")
    axes.scatter(*plane.prompts.T, s=34, color=WORDS, marker="D", linewidths=0, zorder=3, label="prompt of a class")
    axes.set(xticks=[], yticks=[], aspect="equal")


def _points(plane: Plane) -> np.ndarray:
    return np.concatenate([plane.pictures, plane.prompts])


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()
