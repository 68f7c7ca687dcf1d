"""The HiFi-GAN of an original checkpoint → transformers' SpeechT5HifiGan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .tables import Tensors, check_fit, count_numbers, rename, require

TABLE = {name: name for name in ("conv_pre", "resblocks", "conv_post")} | {"ups": "upsampler"}
UPSAMPLE_RATES = (5, 4, 2, 2, 2)  # 160 samples for a frame; shapes do not tell them
DILATIONS = (1, 3, 5)


def configuration(
    state: Tensors, upsample_rates: Sequence[int] = UPSAMPLE_RATES, dilations: Sequence[int] = DILATIONS
) -> dict[str, Any]:
    """SpeechT5HifiGanConfig's arguments, read from the shapes in ``state``, except the last two."""
    ups = [require(state, f"ups.{i}.weight") for i in range(count_numbers(state, r"ups\.(\d+)\."))]
    kernels = count_numbers(state, r"resblocks\.(\d+)\.") // max(1, len(ups))
    return {
        "model_in_dim": require(state, "conv_pre.weight").shape[1],
        "sampling_rate": 16_000,
        "upsample_initial_channel": state["conv_pre.weight"].shape[0],
        "upsample_rates": list(upsample_rates),
        "upsample_kernel_sizes": [weight.shape[2] for weight in ups],
        "resblock_kernel_sizes": [require(state, f"resblocks.{i}.convs1.0.weight").shape[2] for i in range(kernels)],
        "resblock_dilation_sizes": [list(dilations)] * kernels,
        "normalize_before": False,
    }


def convert(
    state: Tensors, upsample_rates: Sequence[int] = UPSAMPLE_RATES, dilations: Sequence[int] = DILATIONS
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Tensors named as under ``first_stage_model.vocoder.`` -> config and tensors of SpeechT5HifiGan.

    Raises InputError unless the tensors fit one to one.
    """
    from transformers.models.speecht5.configuration_speecht5 import SpeechT5HifiGanConfig
    from transformers.models.speecht5.modeling_speecht5 import SpeechT5HifiGan

    config = SpeechT5HifiGanConfig(**configuration(state, upsample_rates, dilations))
    bins = config.model_in_dim  # the module stores mean and scale even where it does not normalise
    tensors = rename(state, TABLE) | {"mean": torch.zeros(bins), "scale": torch.ones(bins)}
    with torch.device("meta"):
        module = SpeechT5HifiGan(config)
    check_fit(module, tensors)
    return config.to_dict(), tensors
