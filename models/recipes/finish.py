"""Finish the vocoder on what the VAE's decoder gives: log-mel -> wave.

    python -m models.recipes.finish --minutes 45

Spectrograms that come from the decoder are smoother than real ones, and those that come from the UNet more so. Half of
the crops are decoded from the encoder's latents, as they are or after the UNet has denoised them, and are to become the
recording. A few are generated from nothing but a sentence: no recording belongs to them, and only the critics judge the
result. The others are real spectrograms, so that the vocoder does not forget them.
"""

from __future__ import annotations

import argparse

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from audioldm.audio import HOP_LENGTH
from audioldm.latent_diffusion.codec import SpectralVocoder

from . import data
from .training import DEVICE, WORK, Adversary, autocast, fit, save_half
from .unet import Lessons, scheduler
from .vae import encoded, mels
from .vocoder import ADVERSARIAL_WEIGHT, FRAMES, Critics, Crops, log_mel, reconstruction

DECODED, REAL, GENERATED = 6, 5, 1  # crops of a batch
JUDGED = [*range(3), *range(DECODED, DECODED + 2), DECODED + REAL]  # of them by the critics, which cost most
DENOISED_SHARE = 0.5  # of the known sounds' decoded crops
STEPS, VARIANTS = 20, 3
PER_SOUND, GUIDANCE = 10, 1.5  # of the generated latents
CRITICS_ALONE = 200  # first steps, in which new critics learn and the vocoder does not


class Painter:
    """The UNet, as the sampler uses it."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.lessons, self.steps, self.scale = Lessons(vae), scheduler(), vae.config.scaling_factor
        self.unet = UNet2DConditionModel.from_pretrained(data.STARTER / "unet").float().to(DEVICE).eval()
        self.steps.set_timesteps(STEPS)

    @torch.no_grad()
    def denoise(self, x: Tensor, first: int, wanted: Tensor, guidance: float = 1.0) -> Tensor:
        """Noisy latents (B, 16, 64, 8) at the step ``first`` -> clean ones, scaled for the VAE."""
        for t in self.steps.timesteps[first:]:
            with autocast():
                answer = self.unet(x, t, None, class_labels=wanted).sample.float()
                if guidance != 1:
                    empty = self.lessons.empty.expand_as(wanted)
                    without = self.unet(x, t, None, class_labels=empty).sample.float()
                    answer = without + guidance * (answer - without)
            x = self.steps.step(answer, t, x).prev_sample
        return x / self.scale

    @torch.no_grad()
    def again(self, variant: int) -> Tensor:
        """The clips' latents (N, 16, 64, 8), noised and denoised.

        For a random 15 to 55 % of the steps: enough to leave the UNet's traces, and not so many that it becomes
        another sound.
        """
        made = []
        for rows in torch.arange(len(self.lessons.means)).split(16):
            first = int(STEPS * (0.85 - 0.13 * variant - 0.13 * torch.rand(()).item()))
            x = self.lessons.means[rows]
            x = self.steps.add_noise(x, torch.randn_like(x), self.steps.timesteps[first])
            made.append(self.denoise(x, first, self.lessons.condition(rows, empty=0.0)))
        return torch.cat(made)

    @torch.no_grad()
    def generated(self) -> Tensor:
        """Latents (20 * PER_SOUND, 16, 64, 8) made from noise and the known sounds' sentences."""
        made = []
        for vectors in self.lessons.said:
            wanted = vectors[torch.arange(PER_SOUND) % len(vectors)]
            x = torch.randn(PER_SOUND, *self.lessons.means.shape[1:], device=DEVICE)
            made.append(self.denoise(x, 0, wanted, GUIDANCE))
        return torch.cat(made)


def painted(vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Latents (N, VARIANTS, 16, 64, 8) of the clips, denoised again, and generated ones; computed once."""
    path = WORK / "painted.pt"
    if not path.exists():
        painter = Painter(vae)
        again = torch.stack([painter.again(variant) for variant in range(VARIANTS)], dim=1)
        torch.save((again, painter.generated()), path)
    return torch.load(path, weights_only=True)


@torch.no_grad()
def decoded(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents (N, 16, 64, 8), not scaled -> log-mels (N, 512, 64), in half precision."""
    made = []
    for x in latents.split(16):
        with autocast():
            made.append(vae.decode(x.to(DEVICE)).sample[:, 0])
    return torch.cat(made).half()


class DecodedCrops:
    """Random crops of spectrograms from the decoder, and the waves that they are to become."""

    def __init__(self, vae: AutoencoderKL, clips: list[data.Clip], real: Crops) -> None:
        self.waves, self.weights = real.waves, real.weights
        place = {clip.path: row for row, clip in enumerate(data.generated_from())}
        self.places = [place.get(clip.path) for clip in clips]
        path = WORK / "decoded.pt"
        if not path.exists():
            again, made = painted(vae)
            exact = decoded(vae, encoded(vae, mels(clips, "train")))
            variants = torch.stack([decoded(vae, variant) for variant in again.unbind(1)], dim=1)
            torch.save((exact, variants, decoded(vae, made)), path)
        self.exact, self.variants, self.made = torch.load(path, weights_only=True)

    def __call__(self, batch: int) -> tuple[Tensor, Tensor]:
        """(batch, FRAMES, 64), (batch, 160 FRAMES)."""
        chosen = []
        for row in torch.multinomial(self.weights, batch, replacement=True).tolist():
            start = int(torch.randint(self.exact.shape[1] - FRAMES + 1, ()))
            source, place = self.exact[row], self.places[row]
            if place is not None and torch.rand(()) < DENOISED_SHARE:
                source = self.variants[place, int(torch.randint(VARIANTS, ()))]
            wave = self.waves[row, HOP_LENGTH * start : HOP_LENGTH * (start + FRAMES)]
            chosen.append((source[start : start + FRAMES], wave))
        spectrograms, sounds = (torch.stack(parts).to(DEVICE).float() for parts in zip(*chosen, strict=True))
        return spectrograms, sounds

    def generated(self, batch: int) -> Tensor:
        """(batch, FRAMES, 64) to which no recording belongs."""
        rows = torch.randint(len(self.made), (batch,)).tolist()
        starts = torch.randint(self.made.shape[1] - FRAMES + 1, (batch,)).tolist()
        parts = [self.made[r, s : s + FRAMES] for r, s in zip(rows, starts, strict=True)]
        return torch.stack(parts).to(DEVICE).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--steps", type=int, default=200_000)
    options = parser.parse_args()

    vae = AutoencoderKL.from_pretrained(data.STARTER / "vae").float().eval()
    clips = data.clips()
    real_crops = Crops(clips, "train")
    crops = DecodedCrops(vae, clips, real_crops)
    vocoder = SpectralVocoder.from_pretrained(data.STARTER / "vocoder").float()
    adversary, paired = Adversary(Critics()), DECODED + REAL

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        mel, wave = crops(DECODED)
        alone = real_crops(REAL, FRAMES)
        spectrograms = torch.cat([mel, log_mel(alone)[:, :FRAMES], crops.generated(GENERATED)])
        with autocast():
            fake = vocoder(spectrograms).float()
        real = torch.cat([wave, alone, crops(GENERATED)[1]])
        against = adversary(fake[JUDGED], real[JUDGED], len(JUDGED) - GENERATED)
        if step < CRITICS_ALONE:
            return 0.0 * against, {}
        spectral = reconstruction(fake[:paired], real[:paired])
        parts = {"spectral": spectral.item(), "adversarial": against.item()}
        return spectral + ADVERSARIAL_WEIGHT * against, parts

    fit("finish", vocoder, loss, steps=options.steps, minutes=options.minutes, lr=2.5e-4, betas=(0.8, 0.99),
        adversary=adversary)
    save_half(vocoder, data.STARTER / "vocoder")


if __name__ == "__main__":
    main()
