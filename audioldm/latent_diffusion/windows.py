"""Long sounds in overlapping pieces, so that no network sees more at once than it was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def starts(length: int, window: int, overlap: int) -> list[int]:
    """Where pieces of ``window`` begin that cover ``length``, evenly, each sharing ``overlap`` or more with
    the next."""
    if length <= window:
        return [0]
    count = math.ceil((length - window) / (window - overlap)) + 1
    return [round(index * (length - window) / (count - 1)) for index in range(count)]


def blend(
    piece: Callable[[int, int], Tensor], length: int, window: int, overlap: int, scale: int = 1
) -> Tensor:
    """Put pieces together along time, (B, C, length * scale, F), cross-fading where they overlap.

    What is not longer than ``window`` is one piece, as it is. Else each place is the mean of the pieces that
    cover it (MultiDiffusion, arXiv 2302.08113), weighted with sine-squared ramps as long as ``overlap``, so
    that no piece has an edge. The pieces are made one after the other: memory grows with the length only.

    Args:
        piece: makes what is between two places (start, stop) of ``length``: (B, C, (stop - start) * scale, F).
        window, overlap: in the units of ``length``; 0 < overlap < window.
    """
    if length <= window:
        return piece(0, length)
    size = window * scale
    place = torch.arange(size, dtype=torch.float64) + 0.5
    ramp = (torch.minimum(place, size - place) / (overlap * scale)).clamp(max=1)
    weight = torch.sin(math.pi / 2 * ramp).square().float()[:, None]  # (size, 1), > 0
    total, weights = torch.empty(0), torch.zeros(length * scale, 1)
    for start in starts(length, window, overlap):
        made = piece(start, start + window)
        if not start:
            total = made.new_zeros((*made.shape[:2], length * scale, made.shape[3]))
        inside = slice(start * scale, start * scale + size)
        total[:, :, inside] += made * weight.to(made.device)
        weights[inside] += weight
    return total / weights.to(total.device)
