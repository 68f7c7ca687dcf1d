"""Fingerprints of embedding spaces: which CLIP, which CLAP? Without torch, so that lists are quick."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import InputError

CLIP_PROJECTIONS = ("visual_projection.weight", "text_projection.weight")
CLAP_PROJECTIONS = ("text_projection.linear1.weight", "audio_projection.linear1.weight")


def fingerprint(weights: Path, projections: tuple[str, str]) -> str:
    """First 12 hex digits of the SHA-256 of the two projections of a safetensors file, as float32 little
    endian.

    As float32, so that a model saved in another precision that holds the same values keeps its space.
    """
    digest = hashlib.sha256()
    for array in _read(weights, projections):
        digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()[:12]


def dimension(weights: Path, projections: tuple[str, str]) -> int:
    """How many dimensions the space has. Raises InputError."""
    return _read(weights, projections[:1])[0].shape[0]


def _read(weights: Path, names: Sequence[str]) -> list[np.ndarray]:
    try:
        if weights.suffix == ".bin":
            from .load import read_tensors  # with torch, which a pickle needs

            tensors = read_tensors(weights, names)
            return [tensors[name].numpy() for name in names]
        with safe_open(weights, framework="np") as file:
            found = [file.get_tensor(name) for name in names]
    except (OSError, KeyError, SafetensorError):
        raise InputError(f"the model's file {weights} is damaged or lacks {' or '.join(names)}") from None
    for name, array in zip(names, found, strict=True):
        if not np.isfinite(array).all():
            raise InputError(f"{weights} is damaged: its tensor {name} holds NaN or infinite numbers")
    return found


def clip_fingerprint(weights: Path) -> str:
    """The space of a CLIPModel or VisionTextDualEncoderModel. Raises InputError."""
    return fingerprint(weights, CLIP_PROJECTIONS)


def clap_fingerprint(weights: Path) -> str:
    """The space of a ClapModel. Raises InputError."""
    return fingerprint(weights, CLAP_PROJECTIONS)
