"""Small functions that upstream's users know."""

from __future__ import annotations

import math
from pathlib import Path

from .errors import InputError

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
    """Seconds of sound in the file ``fname`` (any format that libsndfile reads). Raises InputError."""
    import soundfile

    try:
        return float(soundfile.info(fname).duration)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{fname} is not an audio file that can be read: {error}") from None


def round_up_duration(duration: float) -> float:
    """The next multiple of 2.5 s that is not shorter than ``duration`` seconds."""
    return math.ceil(duration / GRID) * GRID
