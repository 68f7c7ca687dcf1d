"""Write what makes the parts one model: the index, the known sounds and their vectors.

    python -m models.recipes.assemble

``reference.safetensors`` spares a run the text tower: the vectors of the empty prompt and of every known sound.
"""

from __future__ import annotations

import json

from safetensors.torch import save_file

from audioldm.checkpoints.registry import ModelFolder
from audioldm.clap.encoders import CLAPAudioEmbeddingClassifierFreev2

from . import data, texts

INDEX = {
    "_class_name": "LatentDiffusion",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "vocoder": ["transformers", "SpeechT5HifiGan"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "clap": ["transformers", "ClapModel"],
    "clip": ["transformers", "VisionTextDualEncoderModel"],
    "default_translator": "audiocaps_cos_512",
    "defaults": {"sampler": "dpm++", "ddim_steps": 25, "guidance_scale": 3.0, "n_candidates": 3},
}
UNKNOWN_SHARE = 0.02  # of the known sounds' own sentences that may be called unknown


def main() -> None:
    index = data.STARTER / "model_index.json"
    kept = json.loads(index.read_text()) if index.exists() else INDEX
    index.write_text(json.dumps(INDEX | kept, indent=2) + "\n")
    clap = CLAPAudioEmbeddingClassifierFreev2(ModelFolder(data.STARTER, INDEX))
    sounds = clap.encode_text([prompts[0] for prompts in data.SOUNDS.values()])
    said = clap.encode_text([prompt for prompts in data.SOUNDS.values() for prompt in prompts])
    others = clap.encode_text(texts.captions("val")[:500])
    closest = (said @ sounds.T).max(1).values
    threshold = round(closest.quantile(UNKNOWN_SHARE).item(), 3)
    print(f"threshold {threshold}; AudioCaps captions below it: "
          f"{((others @ sounds.T).max(1).values < threshold).float().mean():.0%}")
    rows = [{"name": name, "prompt": prompts[0]} for name, prompts in data.SOUNDS.items()]
    (data.STARTER / "sounds.json").write_text(json.dumps({"sounds": rows, "threshold": threshold}, indent=1) + "\n")
    save_file({"unconditional": clap.encode_text([""]), "sounds": sounds}, data.STARTER / "reference.safetensors")


if __name__ == "__main__":
    main()
