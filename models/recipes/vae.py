"""Train the starter's VAE: log-mel (B, 1, T, 64) <-> latents (B, 16, T/8, 8).

    python -m models.recipes.vae --minutes 46
    python -m models.recipes.vae --decoder --minutes 25

The second makes the decoder rough again where the real spectrogram is: least absolute error gives the median of what is
likely, and the median of rain is smooth. It leaves the encoder, and so the latents that the UNet learns, as they are.

Eight times smaller in time and frequency with 16 channels, where AudioLDM has 4 times and 8: the UNet then
works on a quarter of the positions, which is what two cores can train and sample (docs/starter.md).
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from audioldm.audio import log_mel

from . import data
from .training import DEVICE, WORK, Adversary, autocast, features_and_score, fit, save_half

CROP = 128  # frames
BATCH = 12
LATENT_NOISE = 0.2  # greatest share of the latents' deviation that the decoder must not mind: UNets err, too
KL_WEIGHT = 2e-4  # per latent value


def network() -> AutoencoderKL:
    """2.8 M parameters, a good third of them in the encoder."""
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


def roughness(mel: Tensor) -> Tensor:
    """How much neighbours differ in time and in frequency, averaged over patches of 8 x 8: (B, 2, T / 8, 8)."""
    steps = F.pad(mel.diff(dim=2), (0, 0, 0, 1)).abs(), F.pad(mel.diff(dim=3), (0, 1)).abs()
    return F.avg_pool2d(torch.cat(steps, dim=1), 8)


class Critics(nn.Module):
    """Judges of patches of a mel spectrogram (B, 1, T, 64), at full and at half resolution."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.stacks = nn.ModuleList(
            nn.ModuleList([
                norm(nn.Conv2d(1, width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
                norm(nn.Conv2d(2 * width, 1, 3, padding=1)),
            ])
            for _ in range(2)
        )

    def forward(self, mel: Tensor) -> list[list[Tensor]]:
        scales = mel, F.avg_pool2d(mel, 2)
        return [features_and_score(stack, x) for stack, x in zip(self.stacks, scales, strict=True)]


@torch.no_grad()
def encoded(vae: AutoencoderKL, mels: Tensor) -> Tensor:
    """Means of the latents (N, 16, T / 8, 8), not scaled."""
    return torch.cat([vae.to(DEVICE).encode(x.to(DEVICE)).latent_dist.mean for x in mels.split(32)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--decoder", action="store_true", help="continue the trained VAE's decoder against critics")
    options = parser.parse_args()

    train, held_out = mels(data.clips(), "train"), mels(data.clips(judge=True), "judge")
    vae = AutoencoderKL.from_pretrained(data.STARTER / "vae").float() if options.decoder else network()
    vae = vae.to(memory_format=torch.channels_last)
    if options.decoder:
        adversary = Adversary(Critics())
        vae.encoder.requires_grad_(False), vae.quant_conv.requires_grad_(False)
        latents = encoded(vae, train)

    def crops() -> tuple[Tensor, Tensor, Tensor]:
        """Rows, first latent frames, and the mels (BATCH, 1, CROP, 64) there."""
        rows = torch.randint(len(train), (BATCH,))
        starts = torch.randint((train.shape[2] - CROP) // 8 + 1, (BATCH,))
        mel = torch.stack([train[r, :, 8 * s : 8 * s + CROP] for r, s in zip(rows, starts, strict=True)])
        return rows, starts, mel.to(DEVICE).contiguous(memory_format=torch.channels_last)

    def whole(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        mel = crops()[2]
        mel = (mel + torch.empty(BATCH, 1, 1, 1, device=DEVICE).uniform_(-1.5, 0.7)).clamp(min=-11.513)  # loudness
        with autocast():
            posterior = vae.encode(mel).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        posterior_kl = posterior.kl().mean() / posterior.mean[0].numel()
        pairs = zip(differences(decoded), differences(mel), strict=True)
        reconstruction = sum((a - b).abs().mean() for a, b in pairs) / 3
        parts = {"l1": (decoded - mel).abs().mean().item(), "kl": posterior_kl.item()}
        return reconstruction + KL_WEIGHT * posterior_kl, parts

    def decoder(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        rows, starts, mel = crops()
        chosen = torch.stack([latents[r, :, s : s + CROP // 8] for r, s in zip(rows, starts, strict=True)])
        error = LATENT_NOISE * latents.std() * torch.rand(BATCH, 1, 1, 1, device=DEVICE)
        chosen = chosen + error * torch.randn_like(chosen)
        with autocast():
            decoded = vae.decode(chosen.contiguous(memory_format=torch.channels_last)).sample.float()
        level, against = (decoded - mel).abs().mean(), adversary(decoded, mel)
        rough = (roughness(decoded) - roughness(mel)).abs().mean()
        parts = {"l1": level.item(), "rough": rough.item(), "adversarial": against.item()}
        return 0.5 * level + 3 * rough + against, parts

    @torch.no_grad()
    def report(step: int, module: AutoencoderKL) -> dict[str, float]:
        sample = held_out[:32].to(DEVICE)
        again = module(sample).sample
        return {"held_out_l1": round((again - sample).abs().mean().item(), 4),
                "held_out_rough": round((roughness(again) - roughness(sample)).abs().mean().item(), 4)}

    name, loss, rate = ("vae_decoder", decoder, 5e-4) if options.decoder else ("vae", whole, 1.5e-3)
    fit(name, vae, loss, steps=options.steps, minutes=options.minutes, lr=rate, report=report)
    if not options.decoder:
        vae.register_to_config(scaling_factor=round(1 / encoded(vae, train).std().item(), 5))
    print(report(0, vae), "scaling factor", vae.config.scaling_factor)
    save_half(vae, data.STARTER / "vae")


if __name__ == "__main__":
    main()
