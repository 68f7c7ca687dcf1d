"""Small functions under upstream's names."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from translator.files import output_path, slug

from .errors import InputError, missing_name
from .inputs.samples import as_float
from .inputs.vector import to_numpy
from .outputs.destination import Destination, check_folder, get_time

if TYPE_CHECKING:
    import numpy as np
    import soundfile

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

log = logging.getLogger("audioldm")

MOST_CHANNELS = 32  # an array of fewer samples than that, and of more sounds, is one of (samples, channels)
GRID = 2.5  # seconds: upstream's durations are multiples of it; here any duration from 0.5 s on works


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch. Nothing here draws from them."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def save_wave(waveform: object, savepath: str | Path, name: str | Sequence[str] = "outwav") -> list[Path]:
    """Write waves at 16 kHz as ``savepath``/``name``_0.wav … and return the paths.

    Args:
        waveform: (B, 1, N), (B, N) or (N,), floats within ±1 or 8-, 16- or 32-bit integers. A wave beyond full
            scale is made softer as a whole, with a warning; nothing is clipped.
        savepath: a folder, which is created if necessary.
        name: a prompt, a path or a URL, reduced to characters that suit a file name; or one for each wave. If a
            file exists, the new one gets another number.

    Raises InputError, also if the folder cannot be written.
    """
    waves = _waves(waveform)
    names = [name] * len(waves) if isinstance(name, str | os.PathLike) else name
    names = list(names) if isinstance(names, list | tuple) else []
    if len(names) != len(waves) or not all(isinstance(one, str | os.PathLike) for one in names):
        raise InputError(f"there are {len(waves)} sounds: give save_wave one name, or a list of {len(waves)} names")
    if not isinstance(savepath, str | os.PathLike):
        raise InputError("savepath must be the name of a folder")
    folder = output_path(savepath)
    check_folder(folder)
    return [
        Destination(folder, slug(_without_ending(os.fsdecode(one))), count=len(waves)).write(index, wave)
        for index, (one, wave) in enumerate(zip(names, waves, strict=True))
    ]


def _without_ending(name: str) -> str:
    return name[:-4].rpartition("/")[2] if name.lower().endswith(".wav") else name


def _waves(waveform: object) -> list[np.ndarray]:
    """Each wave as float32 (N,) within ±1. Raises InputError."""
    import numpy as np

    values = to_numpy(waveform, "the waveform is not an array that can be read; give (sounds, 1, samples)")
    shape = values.shape
    if values.ndim == 3 and values.shape[1] == 1:
        values = values[:, 0]
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size or values.shape[1] < MOST_CHANNELS < len(values):
        raise InputError(f"the waveform has the shape {shape}; give (sounds, 1, samples)")
    values = as_float(values, "the waveform")
    if not np.isfinite(values).all():
        raise InputError("the waveform holds NaN or infinite numbers, which are no sound")
    waves = []
    for number, wave in enumerate(values):
        loudest = float(np.abs(wave).max())
        if loudest > 1:
            softer = 20 * np.log10(loudest)
            log.warning("sound %d goes %.1f dB beyond full scale; all of it is made softer", number, softer)
        waves.append(wave / np.float32(max(1, loudest)))
    return waves


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


def _info(fname: str | Path) -> soundfile._SoundFileInfo:
    import soundfile

    try:
        return soundfile.info(fname)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{fname} is not a readable audio file: {error}") from None


def round_up_duration(duration: float) -> float:
    """The smallest multiple of 2.5 s that is not shorter than ``duration`` seconds."""
    return math.ceil(duration / GRID) * GRID


def __getattr__(name: str) -> NoReturn:
    raise missing_name(__name__, name, GONE)
