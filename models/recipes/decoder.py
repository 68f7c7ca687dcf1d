"""Continue the VAE's decoder alone, against critics: latents (B, 32, T/8, 8) -> log-mel (B, 1, T, 64).

    python -m models.recipes.decoder --minutes 20

A decoder that learns distances only draws what is uncertain as a mean: barks become croaks, and rain a hum. The vocoder
adds nothing to a spectrogram, so the texture of noise must be drawn here. The encoder, and so the latents that the UNet
learns, stay as they are.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from . import data
from .training import DEVICE, Adversary, autocast, features_and_score, fit, save_half
from .vae import LATENT_NOISE, Crops, distance, mels, noisy

BATCH = 8
CRITIC_ALONE = 200  # first steps
RATE, CRITIC_RATE = 5e-4, 2e-4
ADVERSARIAL_WEIGHT, MATCHING = 2.0, 1.0  # of the critics; in it, of their features
SIZES = (1, 2)  # pixels that are averaged before a critic looks


class Critics(nn.Module):
    """Judge patches of a log-mel (B, 1, T, 64), at full size and halved: features of every layer of each, score last.

    They see the frequency, too: what noise looks like depends on how many FFT bins a band holds.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.stacks = nn.ModuleList(
            nn.ModuleList([
                norm(nn.Conv2d(2, width, 3, padding=1)),
                norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(4 * width, 4 * width, 3, padding=1)),
                norm(nn.Conv2d(4 * width, 1, 3, padding=1)),
            ])
            for _ in SIZES
        )

    def forward(self, mel: Tensor) -> list[list[Tensor]]:
        band = torch.linspace(-1, 1, mel.shape[3], device=mel.device).expand_as(mel)
        view = torch.cat([(mel + 5) / 4, band], dim=1)
        with autocast():
            return [features_and_score(stack, F.avg_pool2d(view, size) if size > 1 else view)
                    for size, stack in zip(SIZES, self.stacks, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()

    crops = Crops(mels(data.clips(), "train"))
    held_out = mels(data.clips(judge=True), "judge")[::4].to(DEVICE)
    vae = AutoencoderKL.from_pretrained(data.STARTER / "vae").float()
    vae.encoder.requires_grad_(False), vae.quant_conv.requires_grad_(False)
    adversary = Adversary(Critics(), ADVERSARIAL_WEIGHT, CRITIC_ALONE, CRITIC_RATE, MATCHING, follows=True)

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        mel = crops(BATCH)
        with autocast():
            _, decoded = noisy(vae, mel, LATENT_NOISE)
        return adversary(decoded, mel, distance(decoded, mel))

    @torch.no_grad()
    def report(step: int, module: AutoencoderKL) -> dict[str, float]:
        """Distances of kept-out recordings, and their steps in time and frequency in relation to the true ones."""
        made = noisy(module, held_out, 0.0)[1]
        steps = {name: made.diff(dim=dim).abs().mean() / held_out.diff(dim=dim).abs().mean()
                 for name, dim in (("steps_in_time", 2), ("steps_in_frequency", 3))}
        return {name: round(value.item(), 3) for name, value in
                {"held_out_l1": (made - held_out).abs().mean(), **steps}.items()}

    print(report(0, vae.to(DEVICE)))
    fit("decoder", vae, loss, steps=options.steps, minutes=options.minutes, lr=RATE, adversary=adversary, report=report,
        report_every=200)
    print(report(0, vae))
    save_half(vae, data.STARTER / "vae")


if __name__ == "__main__":
    main()
