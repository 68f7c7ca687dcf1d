"""Finish the vocoder on what the VAE's decoder gives: log-mel -> wave.

    python -m models.recipes.finish --minutes 45

Spectrograms that come from the decoder are smoother than real ones, and those that come from the UNet more so. More
than half of the crops are decoded from the encoder's latents, as they are or under noise as a UNet leaves it, and are
to become the recording. The others are real spectrograms, so that the vocoder does not forget them.
"""

from __future__ import annotations

import argparse

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from audioldm.audio import HOP_LENGTH
from audioldm.latent_diffusion.codec import SpectralVocoder
from translator.files import sha256

from . import data
from .training import DEVICE, WORK, Adversary, autocast, fit, save_half
from .vae import LATENT_NOISE, mels, noisy
from .vocoder import (
    ADVERSARIAL_WEIGHT,
    BATCH,
    CORRECTIONS,
    CRITICS_ALONE,
    FRAMES,
    Critics,
    Crops,
    log_mel,
    reconstruction,
)

DECODED = 7  # crops of a batch
JUDGED = [*range(3), *range(DECODED, DECODED + 3)]  # of them by the critics, which cost most
VARIANTS = 2  # with noise, of every clip, beside the one without


@torch.no_grad()
def decoded(vae: AutoencoderKL, spectrograms: Tensor, noise: float) -> Tensor:
    """Log-mels (N, 1, 512, 64) -> those decoded from their latents under noise (N, 512, 64), in half precision."""
    made = []
    for mel in spectrograms.split(8):
        with autocast():
            made.append(noisy(vae, mel.to(DEVICE), noise)[1][:, 0].half().cpu())
    return torch.cat(made)


def variants(clips: list[data.Clip]) -> Tensor:
    """Decoded log-mels (N, 1 + VARIANTS, 512, 64) of the clips, the first without noise; computed once."""
    path = WORK / f"decoded_{sha256(data.STARTER / 'vae' / 'diffusion_pytorch_model.safetensors')[:8]}.pt"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(data.STARTER / "vae").float().to(DEVICE).eval()
        spectrograms = mels(clips, "train")
        made = [decoded(vae, spectrograms, LATENT_NOISE if number else 0.0) for number in range(1 + VARIANTS)]
        torch.save(torch.stack(made, dim=1), path)
    return torch.load(path, weights_only=True)


def deepened(vocoder: SpectralVocoder, depth: int) -> SpectralVocoder:
    """``vocoder`` with more blocks before its head, which at first add next to nothing."""
    config = {name: value for name, value in vocoder.config.items() if not name.startswith("_")}
    deeper = SpectralVocoder(**config | {"depth": depth, "corrections": CORRECTIONS})
    unexpected = deeper.load_state_dict(vocoder.state_dict(), strict=False).unexpected_keys
    if unexpected:
        raise SystemExit(f"the vocoder has {len(vocoder.blocks)} blocks already")
    with torch.no_grad():
        for block in deeper.blocks[len(vocoder.blocks) :]:
            block.scale.fill_(0.01)
    return deeper


class DecodedCrops:
    """Random crops of spectrograms from the decoder, and the waves that they are to become."""

    def __init__(self, clips: list[data.Clip], real: Crops) -> None:
        self.waves, self.weights, self.mels = real.waves, real.weights, variants(clips)

    def __call__(self, batch: int) -> tuple[Tensor, Tensor]:
        """(batch, FRAMES, 64), (batch, 160 FRAMES)."""
        chosen = []
        for row in torch.multinomial(self.weights, batch, replacement=True).tolist():
            source = self.mels[row, int(torch.randint(1 + VARIANTS, ()))]
            start = int(torch.randint(len(source) - FRAMES + 1, ()))
            wave = self.waves[row, HOP_LENGTH * start : HOP_LENGTH * (start + FRAMES)]
            chosen.append((source[start : start + FRAMES], wave))
        spectrograms, sounds = (torch.stack(parts).to(DEVICE).float() for parts in zip(*chosen, strict=True))
        return spectrograms, sounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--depth", type=int, help="blocks of the vocoder, if more than it has")
    options = parser.parse_args()

    clips = data.clips()
    real_crops = Crops(clips, "train")
    crops = DecodedCrops(clips, real_crops)
    vocoder = SpectralVocoder.from_pretrained(data.STARTER / "vocoder").float()
    if options.depth:
        vocoder = deepened(vocoder, options.depth)
    adversary = Adversary(Critics(), ADVERSARIAL_WEIGHT, CRITICS_ALONE)
    trained = WORK / "vocoder.pt"
    if trained.exists():  # new critics undo in minutes what old ones taught
        adversary.load_state_dict(torch.load(trained, weights_only=True, map_location=DEVICE)["adversary"])

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        mel, wave = crops(DECODED)
        alone = real_crops(BATCH - DECODED, FRAMES)
        with autocast():
            fake = vocoder(torch.cat([mel, log_mel(alone)[:, :FRAMES]])).float()
        real = torch.cat([wave, alone])
        return adversary(fake[JUDGED], real[JUDGED], reconstruction(fake, real))

    fit("finish", vocoder, loss, steps=options.steps, minutes=options.minutes, lr=options.rate, betas=(0.8, 0.99),
        adversary=adversary)
    save_half(vocoder, data.STARTER / "vocoder")


if __name__ == "__main__":
    main()
