"""A model folder as diffusers' AudioLDMPipeline saves it, which is that of the hub's cvssp/audioldm repositories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

BIN = {
    "diffusion_pytorch_model.safetensors": "diffusion_pytorch_model.bin",
    "model.safetensors": "pytorch_model.bin",
}


def write_hub_folder(folder: Path, made: Path) -> Path:
    """Write our model folder ``folder`` as ``made``: CLAP's text tower only, weights as .bin, as the published ones."""
    for part in ("unet", "vae", "vocoder", "scheduler"):
        shutil.copytree(folder / part, made / part)
    (made / "text_encoder").mkdir()
    config = json.loads((folder / "clap" / "config.json").read_text())["text_config"]
    (made / "text_encoder" / "config.json").write_text(json.dumps(config))
    clap = load_file(folder / "clap" / "model.safetensors")
    tower = {name: tensor for name, tensor in clap.items() if name.startswith("text_")}
    torch.save(tower, made / "text_encoder" / "pytorch_model.bin")
    (made / "tokenizer").mkdir()
    shutil.copy(folder / "clap" / "tokenizer.json", made / "tokenizer")
    for weights in list(made.glob("*/*.safetensors")):
        torch.save(load_file(weights), weights.with_name(BIN[weights.name]))
        weights.unlink()
    index = {
        "_class_name": "AudioLDMPipeline",
        "_diffusers_version": "0.15.0.dev0",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "ClapTextModelWithProjection"],
        "tokenizer": ["transformers", "RobertaTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers", "SpeechT5HifiGan"],
    }
    (made / "model_index.json").write_text(json.dumps(index))
    return made
