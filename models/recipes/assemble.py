"""Write what makes the parts one model: the index, the known sounds and their vectors.

    python -m models.recipes.assemble

``reference.safetensors`` spares a run the text tower: the vectors of the empty prompt and of every known sound.
"""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

from audioldm.checkpoints.layout import ModelFolder
from audioldm.clap.encoders import CLAPAudioEmbeddingClassifierFreev2

from . import data, texts
from .unet import DEFAULT_TRANSLATOR, translated

INDEX = {
    "_class_name": "LatentDiffusion",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "vocoder": ["audioldm", "SpectralVocoder"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "clap": ["transformers", "ClapModel"],
    "clip": ["transformers", "VisionTextDualEncoderModel"],
    "default_translator": DEFAULT_TRANSLATOR,
    "guidance_rescale": 0.7,  # as arXiv 2305.08891 recommends
    "defaults": {"sampler": "unipc", "ddim_steps": 20, "guidance_scale": 2.5, "n_candidates": 3},
}
UNKNOWN_SHARE = 0.05  # of the known sounds' own sentences, and of imagined pictures, that may be called unknown


def main() -> None:
    (data.STARTER / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    clap = CLAPAudioEmbeddingClassifierFreev2(ModelFolder(data.STARTER, INDEX))
    sounds = clap.encode_text([prompts[0] for prompts in data.SOUNDS.values()])
    said = clap.encode_text([prompt for prompts in data.SOUNDS.values() for prompt in prompts])
    pictures = translated([INDEX["default_translator"]], disturbed=False)
    known = {"text": said, "image": torch.cat([vectors for sound, vectors in pictures.items() if sound])}
    others = {"text": clap.encode_text(texts.captions("val")[:500]), "image": pictures[None]}
    thresholds = {}
    for kind, vectors in known.items():
        thresholds[kind] = round((vectors @ sounds.T).max(1).values.quantile(UNKNOWN_SHARE).item(), 3)
        below = ((others[kind] @ sounds.T).max(1).values < thresholds[kind]).float().mean()
        print(f"{kind}: threshold {thresholds[kind]}; of other {kind}s {below:.0%} are below it")
    rows = [{"name": name, "prompt": prompts[0]} for name, prompts in data.SOUNDS.items()]
    facts = {"sounds": rows, "threshold": thresholds}
    (data.STARTER / "sounds.json").write_text(json.dumps(facts, indent=1) + "\n")
    save_file({"unconditional": clap.encode_text([""]), "sounds": sounds}, data.STARTER / "reference.safetensors")


if __name__ == "__main__":
    main()
