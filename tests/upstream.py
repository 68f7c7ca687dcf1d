"""Original AudioLDM checkpoints for tests: the golden one, and the names and shapes of the full-size ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = SHARED / "golden" / "a"
KEYS = SHARED / "upstream_keys_s.json"

Shapes = dict[str, tuple[list[int], str]]


def small() -> Shapes:
    """audioldm-s-*: tensor name -> shape and dtype."""
    return {name: (shape, dtype) for name, (shape, dtype) in json.loads(KEYS.read_text()).items()}


def medium() -> Shapes:
    """audioldm-m-*: the same with a UNet half as wide again and HTSAT-base."""
    scaled: Shapes = {}
    for name, (shape, dtype) in small().items():
        if name.startswith(("model.diffusion_model.", "model_ema.")):
            condition = len(shape) == 2 and re.search(r"film_emb\.?weight", name)  # its inputs stay 512
            shape = [d * 3 // 2 if d >= 128 and not (condition and i == 1) else d for i, d in enumerate(shape)]
        elif "audio_branch" in name or "audio_projection.0.weight" in name:
            shape = [d * 4 // 3 if d % 96 == 0 else d for d in shape]
        scaled[name] = (shape, dtype)
        if match := re.match(r"(.*audio_branch\.layers\.2\.blocks\.)(\d)(\..*)", name):  # 12 blocks instead of 6
            scaled[f"{match[1]}{int(match[2]) + 6}{match[3]}"] = (shape, dtype)
    return scaled


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of these shapes without memory."""
    dtypes = {name: getattr(torch, dtype.removeprefix("torch.")) for name, (_, dtype) in shapes.items()}
    return {name: torch.empty(shape, dtype=dtypes[name], device="meta") for name, (shape, _) in shapes.items()}
