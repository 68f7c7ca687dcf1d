"""How many steps are enough? Distance to a 1000-step reference, for each sampler.

    python benchmarks/samplers.py [--prompts 4] [--model_name starter]

Every sampler starts from the same noise and, as a solver of the same differential equation, should end where 1000
steps of DDIM without fresh noise (eta 0) end: the table gives the mean absolute difference of the log-mel
spectrograms from that, in nepers (0.115 is one decibel). DDIM as upstream runs it (eta 1) draws noise at every step and
ends elsewhere each time, so for it, and for all, stands beside that what does not depend on the path: the cosine of
CLAP between the sound and its prompt. The second column is the processor's seconds for a sound up to its spectrogram.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STEPS = (5, 10, 15, 20, 25, 35, 50, 100, 200)
SAMPLERS = (("ddim", 1.0), ("ddim", 0.0), ("dpm++", 0.0), ("unipc", 0.0))
SECONDS = 5.0


def run(model, condition: torch.Tensor, sampler: str, eta: float, steps: int, seed: int) -> torch.Tensor:
    """Log-mel (1, 1, frames, 64) that the VAE decodes."""
    from audioldm.latent_diffusion.codec import latent_shape, to_mel
    from audioldm.latent_diffusion.sampling import denoise, draw, make_scheduler, predictor, upstream_generator

    generator = upstream_generator(seed)
    noise = draw(latent_shape(model, SECONDS), generator)
    scheduler = make_scheduler(model.scheduler, sampler, steps)
    guidance, rescale = model.defaults.get("guidance_scale", 2.5), model.folder.index.get("guidance_rescale", 0)
    predict = predictor(model.unet, condition, model.unconditional, guidance, rescale=rescale)
    latents = denoise(predict, scheduler, noise, generator, eta=eta)
    return to_mel(model, latents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--model_name", default="starter")
    parser.add_argument("--precision", default="fp32", help="of what is compared; the reference is fp32")
    parser.add_argument("--reference", type=int, default=1000, help="steps of the reference")
    options = parser.parse_args()
    from audioldm.generation import rank
    from audioldm.latent_diffusion.codec import finish, vocode
    from audioldm.pipeline import build_model

    exact = build_model(model_name=options.model_name, device="cpu", precision="fp32")
    model = build_model(model_name=options.model_name, device="cpu", precision=options.precision)
    sounds = model.known_sounds[0]
    prompts = [f"a {name.replace('_', ' ')}" for name in sounds[: options.prompts]] or ["a dog barking"]
    conditions = model.clap.encode_text(prompts)
    references = []
    for seed, condition in enumerate(conditions):
        began = time.perf_counter()
        references.append(run(exact, condition[None], "ddim", 0.0, options.reference, seed))
        print(f"reference {seed + 1} of {len(prompts)}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(f"{options.model_name}, {len(prompts)} prompts: difference from {options.reference} steps (cosine of CLAP)\n")
    names = [f"{name}, eta {eta:g}" if name == "ddim" else name for name, eta in SAMPLERS]
    print("| steps | seconds | " + " | ".join(names) + " |")
    print("|---" * (len(SAMPLERS) + 2) + "|")
    for steps in STEPS:
        cells, seconds = [], []
        for sampler, eta in SAMPLERS:
            distances, cosines = [], []
            for seed, condition in enumerate(conditions):
                began = time.process_time()
                mel = run(model, condition[None], sampler, eta, steps, seed)
                seconds.append(time.process_time() - began)
                distances.append(float((mel - references[seed]).abs().mean()))
                cosines += rank(model, [finish(vocode(model, mel), SECONDS)], condition[None])
            cosine = sum(cosines) / len(cosines)
            cells.append(f"{sum(distances) / len(distances):.3f} ({cosine:.2f})")
        print(f"| {steps} | {statistics.median(seconds):.2f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
