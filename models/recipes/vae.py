"""Train the starter's VAE: log-mel (B, 1, T, 64) <-> latents (B, 16, T/8, 8).

    python -m models.recipes.vae --minutes 25

Eight times smaller in time and frequency with 16 channels, where AudioLDM has 4 times and 8: the UNet then
works on a quarter of the positions, which is what two cores can train and sample (docs/starter.md).
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from audioldm.audio import log_mel

from . import data
from .training import DEVICE, WORK, autocast, fit, save_half

CROP = 128  # frames
BATCH = 16
KL_WEIGHT = 2e-4  # per latent value


def network() -> AutoencoderKL:
    """2.6 M parameters, a third of them in the encoder."""
    return AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=16, norm_num_groups=8, sample_size=64,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[16, 32, 64, 128], layers_per_block=1,
    )


def mels(clips: list[data.Clip], name: str) -> Tensor:
    """(N, 1, 512, 64) log-mels of ``clips``, computed once and kept under ``build/recipes``."""
    path = WORK / f"mels_{name}.pt"
    if not path.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        torch.save(torch.cat([log_mel(torch.from_numpy(data.load(c))[None])[:, :, :512] for c in clips]), path)
    return torch.load(path, weights_only=True)


def differences(mel: Tensor) -> list[Tensor]:
    """The mel and its averages over 2 and 4 pixels, with their steps in time and frequency: edges, not only level."""
    parts = []
    for factor in (1, 2, 4):
        small = F.avg_pool2d(mel, factor) if factor > 1 else mel
        parts += [small, small.diff(dim=2), small.diff(dim=3)]
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()

    train, held_out = mels(data.clips(), "train"), mels(data.clips(judge=True), "judge")
    vae = network().to(memory_format=torch.channels_last)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(train), (BATCH,))
        starts = torch.randint(train.shape[2] - CROP + 1, (BATCH,))
        crop = torch.stack([train[r, :, s : s + CROP] for r, s in zip(rows, starts, strict=True)])
        crop = (crop + torch.empty(BATCH, 1, 1, 1).uniform_(-1.5, 0.7)).clamp(min=-11.513)  # loudness
        crop = crop.to(DEVICE).contiguous(memory_format=torch.channels_last)
        with autocast():
            posterior = vae.encode(crop).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        posterior_kl = posterior.kl().mean() / posterior.mean[0].numel()
        pairs = zip(differences(decoded.float()), differences(crop), strict=True)
        reconstruction = sum((a - b).abs().mean() for a, b in pairs) / 3
        level = (decoded.float() - crop).abs().mean().item()
        return reconstruction + KL_WEIGHT * posterior_kl, {"l1": level, "kl": posterior_kl.item()}

    @torch.no_grad()
    def report(step: int, module: AutoencoderKL) -> dict[str, float]:
        sample = held_out[:32].to(DEVICE)
        return {"held_out_l1": round((module(sample).sample - sample).abs().mean().item(), 4)}

    fit("vae", vae, loss, steps=options.steps, minutes=options.minutes, lr=1.5e-3, report=report)
    with torch.no_grad():
        latents = torch.cat([vae.encode(x).latent_dist.mean for x in train.to(DEVICE).split(32)])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    print(report(0, vae), "scaling factor", vae.config.scaling_factor)
    save_half(vae, data.STARTER / "vae")


if __name__ == "__main__":
    main()
