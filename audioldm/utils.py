"""Small functions under upstream's names."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from .errors import InputError, missing_name
from .outputs.destination import get_time, save_wave

__all__ = [
    "get_bit_depth", "get_duration", "get_time", "round_up_duration", "save_wave", "seed_everything",
]  # fmt: skip
GONE = {
    "default_audioldm_config": "a model's folder holds its configuration",
    "download_checkpoint": "use audioldm.build_model(model_name=...), which downloads once and checks the file",
    "get_metadata": "the list is audioldm.checkpoints.published.UPSTREAM",
    "CACHE_DIR": "use audioldm.checkpoints.layout.cache_dir()",
    "instantiate_from_config": "use audioldm.build_model()",
}

GRID = 2.5  # seconds: upstream's durations are multiples of it; here any duration from 0.5 s on works


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch. Nothing here draws from them."""
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


def get_bit_depth(fname: str | Path) -> int:
    """Bits of a sample in the PCM file ``fname``. Raises InputError."""
    subtype = _info(fname).subtype
    bits = re.fullmatch(r"PCM_[SU]?(\d+)", subtype)
    if bits is None:
        raise InputError(f"{fname} is not PCM but {subtype}")
    return int(bits[1])


def _info(fname: str | Path) -> Any:
    import soundfile

    try:
        return soundfile.info(fname)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{fname} is not a readable audio file: {error}") from None


def round_up_duration(duration: float) -> float:
    """The smallest multiple of 2.5 s that is not shorter than ``duration`` seconds."""
    return math.ceil(duration / GRID) * GRID


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name, GONE)
