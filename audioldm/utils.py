"""Small functions that upstream's users know."""

from __future__ import annotations

import math
from pathlib import Path

GRID = 2.5  # seconds: upstream's lengths are multiples of it; here any length from 0.5 s on will do


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch, which generating here does not draw from."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def get_duration(fname: str | Path) -> float:
    """Seconds of sound in the file ``fname``. Raises InputError."""
    from .inputs.samples import duration

    return duration(fname)


def round_up_duration(duration: float) -> float:
    """The next multiple of 2.5 s that is not shorter than ``duration`` seconds."""
    return math.ceil(duration / GRID) * GRID
