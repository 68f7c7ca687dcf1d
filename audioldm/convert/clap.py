"""The CLAP of an original checkpoint, both towers → transformers' ClapModel and feature extractor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .tables import Tensors, check_fit, count_numbers, rename, require

IGNORED = (
    r"(text|audio)_transform\..*",  # of no use at inference
    r"audio_branch\.(spectrogram_extractor|logmel_extractor)\..*",  # constants of STFT and mel filters
    r"audio_branch\.(tscam_conv|head)\..*",  # the classifier with which HTSAT was trained
    r"audio_branch\..*\.attn_mask",  # computed from the window's size
    r".*position_ids",
    r".*token_type_ids",
)
BLOCK = {
    "norm1": "layernorm_before",
    "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
    "attn.relative_position_index": "attention.self.relative_position_index",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
TABLE = {
    "text_branch": "text_model",
    "text_projection.0": "text_projection.linear1",
    "text_projection.2": "text_projection.linear2",
    "audio_projection.0": "audio_projection.linear1",
    "audio_projection.2": "audio_projection.linear2",
    "audio_branch.bn0": "audio_model.audio_encoder.batch_norm",
    "audio_branch.patch_embed": "audio_model.audio_encoder.patch_embed",
    "audio_branch.norm": "audio_model.audio_encoder.norm",
    "logit_scale_a": "logit_scale_a",
    "logit_scale_t": "logit_scale_t",
}
TEXT_HEAD = 64  # channels of a head of RoBERTa, which shapes do not tell
SPECTROGRAM = {"sampling_rate": 48_000, "hop_length": 480, "frequency_min": 50, "frequency_max": 14_000}
SECONDS = 10  # HTSAT's input length


def configuration(state: Tensors, text_heads: int | None = None) -> dict[str, Any]:
    """ClapConfig's arguments, read from the shapes in ``state``; ``text_heads`` are not among them."""
    words = require(state, "text_branch.embeddings.word_embeddings.weight")
    stages = count_numbers(state, r"audio_branch\.layers\.(\d+)\.")
    tables = [
        require(state, f"audio_branch.layers.{i}.blocks.0.attn.relative_position_bias_table") for i in range(stages)
    ]
    patch = require(state, "audio_branch.patch_embed.proj.weight")
    joint = require(state, "text_projection.2.weight").shape[0]
    width = words.shape[1]
    projection = {"projection_dim": joint, "projection_hidden_act": "relu"}
    text = {
        "vocab_size": words.shape[0],
        "hidden_size": width,
        "num_hidden_layers": count_numbers(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": text_heads or max(1, width // TEXT_HEAD),
        "intermediate_size": require(state, "text_branch.encoder.layer.0.intermediate.dense.weight").shape[0],
        "max_position_embeddings": require(state, "text_branch.embeddings.position_embeddings.weight").shape[0],
        "type_vocab_size": require(state, "text_branch.embeddings.token_type_embeddings.weight").shape[0],
        "layer_norm_eps": 1e-5,  # roberta-base's; ClapTextConfig's own default is 1e-12
    }
    audio = {
        "patch_embeds_hidden_size": patch.shape[0],
        "patch_size": patch.shape[2],
        "patch_stride": [4, 4],
        "hidden_size": require(state, "audio_branch.norm.weight").shape[0],
        "depths": [count_numbers(state, rf"audio_branch\.layers\.{i}\.blocks\.(\d+)\.") for i in range(stages)],
        "num_attention_heads": [table.shape[1] for table in tables],
        "window_size": (math.isqrt(tables[0].shape[0]) + 1) // 2,
        "num_mel_bins": require(state, "audio_branch.bn0.weight").shape[0],
        "spec_size": 256,
        "enable_fusion": False,
    }
    return {"text_config": text | projection, "audio_config": audio | projection, **projection}


def convert(state: Tensors, text_heads: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Tensors named as under ``cond_stage_model.model.`` -> config and tensors of ClapModel.

    Raises InputError unless the tensors, except those IGNORED, fit one to one.
    """
    from transformers.models.clap.configuration_clap import ClapConfig
    from transformers.models.clap.modeling_clap import ClapModel

    config = ClapConfig(**configuration(state, text_heads))
    tensors = rename(_split(state), _table(config), IGNORED)
    with torch.device("meta"):
        module = ClapModel(config)
    made = ("position_ids", "token_type_ids")  # numbers that the module makes itself, and that files do not carry
    check_fit(module, tensors | {name: buffer for name, buffer in module.state_dict().items() if name.endswith(made)})
    return config.to_dict(), tensors


def features(state: Tensors, spectrogram: dict[str, int] | None = None) -> dict[str, Any]:
    """The settings of transformers' ClapFeatureExtractor that give the log-mel that HTSAT was trained on."""
    settings = SPECTROGRAM | (spectrogram or {})
    return {
        "feature_extractor_type": "ClapFeatureExtractor",
        "feature_size": require(state, "audio_branch.bn0.weight").shape[0],
        "fft_window_size": require(state, "audio_branch.spectrogram_extractor.stft.conv_real.weight").shape[2],
        "max_length_s": SECONDS,
        "truncation": "rand_trunc",
        "padding": "repeatpad",
        **settings,
    }


def _split(state: Tensors) -> dict[str, Tensor]:
    """Queries, keys and values of HTSAT as tensors of their own, already under their new names."""
    split = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                split[name.replace(".attn.qkv.", f".attention.self.{part}.")] = third
        else:
            split[name] = tensor
    return split


def _table(config: Any) -> dict[str, str]:
    table = dict(TABLE)
    for stage, depth in enumerate(config.audio_config.depths):
        ours, theirs = f"audio_branch.layers.{stage}", f"audio_model.audio_encoder.layers.{stage}"
        table[f"{ours}.downsample"] = f"{theirs}.downsample"
        for block in range(depth):
            inside = BLOCK | {f"attention.self.{part}": f"attention.self.{part}" for part in ("query", "key", "value")}
            table |= {f"{ours}.blocks.{block}.{a}": f"{theirs}.blocks.{block}.{b}" for a, b in inside.items()}
    return table
