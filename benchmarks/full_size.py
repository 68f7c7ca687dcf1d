"""What a full-size AudioLDM costs here: conversion, loading, memory. Random weights of the right shapes.

    python benchmarks/full_size.py [s|m] [--seconds 5] [--steps 2]

Makes a checkpoint in the original format (2.6 or 4.6 GB) in a temporary folder, converts it, adds a random CLIP of
ViT-B/32's size and a translator, and makes a sound of a picture in a process of its own, whose peak of memory stands
beside the bytes of the parts that it used. Needs ../shared for the names of the tensors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))
# Of each part's file, what an image run reads.
USED = {
    "unet": ("",), "vae": ("decoder", "post_quant"), "vocoder": ("",), "clip": ("vision_model", "visual_projection"),
}  # fmt: skip

RUN = """
import json, resource, sys, time
began = time.perf_counter()
import torch, diffusers, transformers
from audioldm.pipeline import build_model
imported = time.perf_counter()
model = build_model(sys.argv[1], device="cpu")
model.unet, model.vae, model.vocoder, model.clip._vision, model.translator(), model.unconditional
loaded = time.perf_counter()
from audioldm import image_to_audio
import numpy as np
from PIL import Image
image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
options = {"duration": float(sys.argv[2]), "ddim_steps": int(sys.argv[3]), "n_candidate_gen_per_text": 1}
wave = image_to_audio(model, image, **options)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"import": imported - began, "load": loaded - imported, "sound": time.perf_counter() - loaded,
                  "peak": peak, "samples": wave.shape[-1]}))
"""


def checkpoint(architecture: str, path: Path) -> None:
    """Random weights; normalisations are ones, so that signals neither vanish nor explode."""
    import upstream

    state, memory = {}, torch.Generator().manual_seed(0)
    for name, (shape, dtype) in (upstream.small if architecture == "s" else upstream.medium)().items():
        if dtype != "torch.float32":
            state[name] = torch.zeros(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
        elif len(shape) == 1 and name.endswith("weight") or name == "scale_factor":
            state[name] = torch.ones(shape)
        else:
            state[name] = torch.randn(shape, generator=memory) * 0.02
    torch.save({"state_dict": state}, path)


def eyes(folder: Path) -> None:
    """A CLIP with the sizes of ViT-B/32, and a translator from its space to the model's."""
    from transformers import CLIPConfig, CLIPModel

    from audioldm.clap.spaces import clap_fingerprint, clip_fingerprint
    from translator.model import Translator, save_translator

    CLIPModel(CLIPConfig()).save_pretrained(folder / "clip")
    settings = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224},
                "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}  # fmt: skip
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps(settings))
    spaces = {
        "clip_space": clip_fingerprint(folder / "clip" / "model.safetensors"),
        "clap_space": clap_fingerprint(folder / "clap" / "model.safetensors"),
    }
    save_translator(folder.parent / "translators" / "random" / "random.safetensors", Translator(512), spaces)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"clip": ["transformers", "CLIPModel"], "default_translator": "random"}
    (folder / "model_index.json").write_text(json.dumps(index))


def used(folder: Path) -> int:
    """Bytes of the tensors that an image run needs."""
    total = 0
    for part, prefixes in USED.items():
        (file,) = (folder / part).glob("*.safetensors")
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                if name.startswith(prefixes):
                    total += tensors.get_tensor(name).nbytes
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", nargs="?", choices=["s", "m"], default="s")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="a folder with room for three times the checkpoint")
    options = parser.parse_args()
    from audioldm.checkpoints.convert import convert

    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        source, folder = Path(scratch) / "random.ckpt", Path(scratch) / "models" / "full"
        checkpoint(options.architecture, source)
        size, began = source.stat().st_size, time.perf_counter()
        convert(source, folder)
        print(f"checkpoint {size / 1e9:.2f} GB, converted in {time.perf_counter() - began:.1f} s")
        source.unlink()
        eyes(folder)
        needed = used(folder)
        for attempt in ("first", "second"):
            command = [sys.executable, "-c", RUN, str(folder), str(options.seconds), str(options.steps)]
            result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
            facts = json.loads(result.stdout.splitlines()[-1])
            print(
                f"{attempt} run: import {facts['import']:.1f} s, load {facts['load']:.1f} s, {options.steps} steps "
                f"and decoding {facts['sound']:.1f} s; peak {facts['peak'] / 1e9:.2f} GB, the parts "
                f"{needed / 1e9:.2f} GB: {facts['peak'] / needed:.2f}"
            )


if __name__ == "__main__":
    main()
