"""The UNet of an original checkpoint → diffusers' UNet2DConditionModel.

Upstream's second attention attends to the latents themselves again, which diffusers' attn2 does where it
is given no encoder's states. Heads = channels / head channels (measured: the public
conversion script's 8 heads everywhere give outputs that are wrong by 0.2 to 0.4).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checkpoints import hub
from ..errors import InputError
from .tables import Tensors, check_fit, count_numbers, rename, require

RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION = {name: name for name in ("norm", "proj_in", "transformer_blocks", "proj_out")}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "film_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
HEAD_CHANNELS = {widths[0]: head for widths, head in hub.HEAD_CHANNELS.items()}  # by the width of the first block


def configuration(state: Tensors, head_channels: int | None = None) -> dict[str, Any]:
    """UNet2DConditionModel's arguments, read from the shapes in ``state``; ``head_channels`` are not among them."""
    blocks, layers = _counts(state)
    width = require(state, "input_blocks.0.0.weight").shape[0]
    head_channels = head_channels or HEAD_CHANNELS.get(width)
    if head_channels is None:
        raise InputError(
            f"the UNet is {width} channels wide, unlike those of AudioLDM; pass its configuration to "
            "audioldm-convert --config and use the resulting folder as -ckpt"
        )
    firsts = [1 + block * (layers + 1) for block in range(blocks)]
    widths = [state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in firsts]
    attends = [f"input_blocks.{i}.1.norm.weight" in state for i in firsts]
    return {
        "sample_size": [256, 16],  # 10.24 s
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "out_channels": require(state, "out.2.weight").shape[0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "cross_attention_dim": widths,  # as wide as the latents, to which attn2 attends
        "attention_head_dim": [width // head_channels for width in widths],  # diffusers' name for the number of heads
        "norm_num_groups": 32,
        "class_embed_type": "simple_projection",
        "class_embeddings_concat": True,
        "projection_class_embeddings_input_dim": require(state, "film_emb.weight").shape[1],
    }


def convert(state: Tensors, head_channels: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Tensors named as under ``model.diffusion_model.`` -> the config and the tensors of UNet2DConditionModel.

    Raises InputError unless every tensor finds its place and every place its tensor.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    tensors = rename(state, _table(state))
    config = configuration(state, head_channels)
    with torch.device("meta"):
        module = UNet2DConditionModel(**config)
    check_fit(module, tensors)
    return dict(module.config), tensors


def _counts(state: Tensors) -> tuple[int, int]:
    """Blocks (resolutions), and layers in each."""
    blocks = 1 + count_numbers(state, r"input_blocks\.(\d+)\.0\.op\.")
    return blocks, count_numbers(state, r"input_blocks\.(\d+)\.0\.in_layers\.0\.") // blocks


def _table(state: Tensors) -> dict[str, str]:
    """Source module -> target module, for the blocks that ``state`` has."""
    blocks, layers = _counts(state)
    table = dict(ENDS)

    def add(source: str, target: str, inside: dict[str, str]) -> None:
        table.update({f"{source}.{ours}": f"{target}.{theirs}" for ours, theirs in inside.items()})

    for block in range(blocks):
        for layer in range(layers):
            source = f"input_blocks.{1 + block * (layers + 1) + layer}"
            add(f"{source}.0", f"down_blocks.{block}.resnets.{layer}", RESNET)
            add(f"{source}.1", f"down_blocks.{block}.attentions.{layer}", ATTENTION)
        table[f"input_blocks.{(block + 1) * (layers + 1)}.0.op"] = f"down_blocks.{block}.downsamplers.0.conv"
        for layer in range(layers + 1):
            source = f"output_blocks.{block * (layers + 1) + layer}"
            add(f"{source}.0", f"up_blocks.{block}.resnets.{layer}", RESNET)
            add(f"{source}.1", f"up_blocks.{block}.attentions.{layer}", ATTENTION)
            for place in (1, 2):  # after the attention, where there is one
                table[f"{source}.{place}.conv"] = f"up_blocks.{block}.upsamplers.0.conv"
    add("middle_block.0", "mid_block.resnets.0", RESNET)
    add("middle_block.1", "mid_block.attentions.0", ATTENTION)
    add("middle_block.2", "mid_block.resnets.1", RESNET)
    return table
