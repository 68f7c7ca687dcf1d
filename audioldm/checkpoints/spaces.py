"""Fingerprints of embedding spaces: which CLIP, which CLAP? Without torch, so that lists are quick.

CLAP's space is told by the text tower's projection alone, so that a model from the hub, which has no audio tower, is in
the same space as the original checkpoint. Both towers were trained into one space, so one of them identifies it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from translator.spaces import rename

from ..errors import InputError

CLIP_PROJECTIONS = ("visual_projection.weight", "text_projection.weight")
CLAP_PROJECTIONS = ("text_projection.linear1.weight", "text_projection.linear2.weight")
CLAP_BOTH_TOWERS = ("text_projection.linear1.weight", "audio_projection.linear1.weight")


def fingerprint(weights: Path, projections: Sequence[str], dtype: str = "<f4") -> str:
    """First 12 hex digits of the SHA-256 of the projections in a weights file.

    ``dtype``: what their numbers are rounded to first: "<f4", float32, or "<f2", float16, with which a model has the
    same fingerprint when it is saved in half precision. Raises InputError.
    """
    digest = hashlib.sha256()
    for array in _read(weights, projections):
        digest.update(array.astype(dtype).tobytes())
    return digest.hexdigest()[:12]


def dimension(weights: Path, projections: tuple[str, str]) -> int:
    """How many dimensions the space has. Raises InputError."""
    return _read(weights, projections[:1])[0].shape[0]


def _read(weights: Path, names: Sequence[str]) -> list[np.ndarray]:
    try:
        found = _arrays(weights, names)
    except (OSError, KeyError, SafetensorError):
        raise InputError(f"the model's file {weights} is damaged or lacks {' or '.join(names)}") from None
    for name, array in zip(names, found, strict=True):
        if not np.isfinite(array).all():
            raise InputError(f"{weights} is damaged: its tensor {name} holds NaN or infinite numbers")
    return found


def _arrays(weights: Path, names: Sequence[str]) -> list[np.ndarray]:
    if weights.suffix == ".safetensors":
        with safe_open(weights, framework="np") as file:
            if all(file.get_slice(name).get_dtype() != "BF16" for name in names):
                return [file.get_tensor(name) for name in names]
    from .load import read_tensors  # with torch, which a pickle and bfloat16 need

    tensors = read_tensors(weights, names)
    return [tensors[name].numpy() for name in names]


def clip_fingerprint(weights: Path) -> str:
    """The space of a CLIPModel or VisionTextDualEncoderModel. Raises InputError."""
    return fingerprint(weights, CLIP_PROJECTIONS)


def clap_fingerprint(weights: Path) -> str:
    """The space of a ClapModel or ClapTextModelWithProjection. Raises InputError."""
    space = fingerprint(weights, CLAP_PROJECTIONS, "<f2")
    with suppress(InputError):  # without an audio tower it never had another name
        rename(fingerprint(weights, CLAP_BOTH_TOWERS), space)
    return space
