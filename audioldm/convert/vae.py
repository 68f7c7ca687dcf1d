"""The first stage of an original checkpoint, without its vocoder → diffusers' AutoencoderKL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .tables import Tensors, check_fit, count_numbers, rename, require

RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def configuration(state: Tensors, scale_factor: float) -> dict[str, Any]:
    """AutoencoderKL's arguments, read from the shapes in ``state``."""
    blocks = count_numbers(state, r"encoder\.down\.(\d+)\.block\.")
    widths = [require(state, f"encoder.down.{i}.block.0.conv1.weight").shape[0] for i in range(blocks)]
    return {
        "in_channels": require(state, "encoder.conv_in.weight").shape[1],
        "out_channels": require(state, "decoder.conv_out.weight").shape[0],
        "latent_channels": require(state, "post_quant_conv.weight").shape[1],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "layers_per_block": count_numbers(state, r"encoder\.down\.0\.block\.(\d+)\."),
        "norm_num_groups": 32,
        "scaling_factor": scale_factor,
    }


def convert(state: Tensors, scale_factor: float) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Tensors named as under ``first_stage_model.``, without the vocoder -> config and tensors of AutoencoderKL.

    ``scale_factor``: factor on encodings. Raises InputError unless the tensors fit one to one.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    tensors = rename(state, _table(state))
    for name, tensor in tensors.items():
        if ".attentions." in name and tensor.ndim == 4:  # a 1 x 1 convolution there, a matrix here
            tensors[name] = tensor[:, :, 0, 0]
    with torch.device("meta"):
        module = AutoencoderKL(**configuration(state, scale_factor))
    check_fit(module, tensors)
    return dict(module.config), tensors


def _table(state: Tensors) -> dict[str, str]:
    blocks = count_numbers(state, r"encoder\.down\.(\d+)\.block\.")
    layers = count_numbers(state, r"encoder\.down\.0\.block\.(\d+)\.")
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}

    def add(source: str, target: str, inside: dict[str, str]) -> None:
        table.update({f"{source}.{ours}": f"{target}.{theirs}" for ours, theirs in inside.items()})

    for coder in ("encoder", "decoder"):
        add(coder, coder, {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"})
        add(f"{coder}.mid.block_1", f"{coder}.mid_block.resnets.0", RESNET)
        add(f"{coder}.mid.block_2", f"{coder}.mid_block.resnets.1", RESNET)
        add(f"{coder}.mid.attn_1", f"{coder}.mid_block.attentions.0", ATTENTION)
    for block in range(blocks):
        mirrored = blocks - 1 - block  # upstream counts both halves from the full resolution
        for layer in range(layers):
            add(f"encoder.down.{block}.block.{layer}", f"encoder.down_blocks.{block}.resnets.{layer}", RESNET)
        for layer in range(layers + 1):
            add(f"decoder.up.{block}.block.{layer}", f"decoder.up_blocks.{mirrored}.resnets.{layer}", RESNET)
        table[f"encoder.down.{block}.downsample.conv"] = f"encoder.down_blocks.{block}.downsamplers.0.conv"
        table[f"decoder.up.{block}.upsample.conv"] = f"decoder.up_blocks.{mirrored}.upsamplers.0.conv"
    return table
