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
from PIL import Image
from safetensors import safe_open

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))
# Of each part's file, what an image run reads.
USED = {
    "unet": ("",), "vae": ("decoder", "post_quant"), "vocoder": ("",), "clip": ("vision_model", "visual_projection"),
}  # fmt: skip

LOAD = """
import sys, time
import diffusers.models.autoencoders.autoencoder_kl, diffusers.models.unets.unet_2d_condition
import transformers.models.clip.modeling_clip, transformers.models.speecht5.modeling_speecht5
from audioldm import registry
from audioldm.pipeline import build_model
began = time.perf_counter()
model = build_model(sys.argv[1], device="cpu")
model.unet, model.vae, model.vocoder, model.clip._vision, registry.load_translator(model), model.unconditional
print(time.perf_counter() - began)
"""
RUN = """
import re, sys, time
from audioldm.commands.generate import main
began = time.perf_counter()
status = main(sys.argv[1:])
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
print(status, time.perf_counter() - began, peak)
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

    from audioldm.checkpoints.layout import clap_fingerprint, clip_fingerprint
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
    from audioldm.convert.checkpoint import convert

    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        source, folder = Path(scratch) / "random.ckpt", Path(scratch) / "models" / "full"
        checkpoint(options.architecture, source)
        size, began = source.stat().st_size, time.perf_counter()
        convert(source, folder)
        print(f"checkpoint {size / 1e9:.2f} GB, converted in {time.perf_counter() - began:.1f} s")
        source.unlink()
        eyes(folder)
        needed = used(folder)
        picture = Path(scratch) / "picture.png"
        Image.effect_noise((400, 300), 80).save(picture)
        options = ["-t", str(picture), "-ckpt", str(folder), "-s", scratch, "-dur", str(options.seconds), "-n", "1",
                   "--ddim_steps", str(options.steps), "--device", "cpu"]  # fmt: skip
        for attempt in ("first", "second"):
            seconds = float(_python(LOAD, str(folder)))
            status, whole, peak = _python(RUN, *options).split()
            print(
                f"{attempt} run: loading {seconds:.1f} s; the command {float(whole):.1f} s, exit code {status}, peak "
                f"{int(peak) / 1e9:.2f} GB, the parts {needed / 1e9:.2f} GB: {int(peak) / needed:.2f}"
            )


def _python(code: str, *arguments: str) -> str:
    """The last line that a fresh interpreter prints."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
