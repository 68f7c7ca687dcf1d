"""Finish the VAE's decoder and the vocoder together: latents (B, 16, T/8, 8) -> log-mel -> wave.

    python -m models.recipes.decoder --minutes 60

Each was trained alone; here the wave that comes out of both is compared with the recording, and shown to critics. The
latents are the encoder's, or what the UNet makes of them after noise, so that they are blurred as generated ones are.
Others are generated from nothing but a sentence: no recording belongs to them, and only the critics judge the result. A
third of the crops goes through the vocoder alone, so that it does not forget real spectrograms. The encoder does not
change, and with it the latents that the UNet learns.
"""

from __future__ import annotations

import argparse

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from audioldm.audio import HOP_LENGTH
from audioldm.latent_diffusion.vocoder import SpectralVocoder

from . import data
from .training import DEVICE, WORK, Adversary, autocast, fit, save_half
from .unet import Lessons, scheduler
from .vae import encoded, mels, roughness
from .vocoder import ADVERSARIAL_WEIGHT, Critics, Crops, log_mel, reconstruction, waves

LATENT_FRAMES = 16  # of a training crop: 1.28 s
DECODED, REAL, GENERATED = 3, 2, 1  # crops of a batch: from latents, real spectrograms, generated latents
LATENT_NOISE = 0.2  # greatest share of the latents' deviation that the decoder must not mind: UNets err, too
DENOISED_SHARE = 0.5  # of the known sounds' crops
STEPS, VARIANTS = 20, 3
PER_SOUND, GUIDANCE = 10, 1.5  # of the generated latents
CRITICS_WARMUP = 300  # steps in which the new critics gain their full weight
MEL_WEIGHT, ROUGHNESS_WEIGHT = 0.5, 1.0  # of the decoded spectrogram's own losses


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


class LatentCrops:
    """Random crops: latents, the log-mels and the waves that they are to become."""

    def __init__(self, vae: AutoencoderKL) -> None:
        clips = data.clips()
        self.waves, self.mels = waves(clips, "train"), mels(clips, "train")
        self.latents = encoded(vae, self.mels)
        self.again, self.made = painted(vae)
        names = list(data.SOUNDS)
        known = data.clips(names) + [c for c in data.clips(names, judge=True) if c.label not in data.TEN]
        self.place = {clip.path: row for row, clip in enumerate(known)}
        self.paths = [clip.path for clip in clips]
        self.weights = Crops(clips, "train").weights

    def __call__(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, 16, LATENT_FRAMES, 8), (batch, 8 LATENT_FRAMES, 64), (batch, 1280 LATENT_FRAMES)."""
        chosen = []
        for row in torch.multinomial(self.weights, batch, replacement=True).tolist():
            start = int(torch.randint(self.latents.shape[2] - LATENT_FRAMES + 1, ()))
            source, place = self.latents[row], self.place.get(self.paths[row])
            if place is not None and torch.rand(()) < DENOISED_SHARE:
                source = self.again[place, int(torch.randint(VARIANTS, ()))]
            mel = slice(8 * start, 8 * (start + LATENT_FRAMES))
            wave = slice(HOP_LENGTH * mel.start, HOP_LENGTH * mel.stop)
            chosen.append((source[:, start : start + LATENT_FRAMES], self.mels[row, 0, mel], self.waves[row, wave]))
        latents, spectrograms, sounds = (torch.stack(parts).to(DEVICE) for parts in zip(*chosen, strict=True))
        error = LATENT_NOISE * self.latents.std() * torch.rand(batch, 1, 1, 1, device=DEVICE)
        return latents + error * torch.randn_like(latents), spectrograms, sounds.float()

    def generated(self, batch: int) -> Tensor:
        """(batch, 16, LATENT_FRAMES, 8) of latents without a recording."""
        rows = torch.randint(len(self.made), (batch,)).tolist()
        starts = torch.randint(self.made.shape[2] - LATENT_FRAMES + 1, (batch,)).tolist()
        return torch.stack([self.made[r, :, s : s + LATENT_FRAMES] for r, s in zip(rows, starts, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=200_000)
    options = parser.parse_args()

    vae = AutoencoderKL.from_pretrained(data.STARTER / "vae").float().eval()
    crops, real_crops = LatentCrops(vae), Crops(data.clips(), "train")
    vae = vae.to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False), vae.quant_conv.requires_grad_(False)
    vocoder = SpectralVocoder.from_pretrained(data.STARTER / "vocoder").float()
    adversary = Adversary(Critics())

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        latents, mel, wave = crops(DECODED)
        latents = torch.cat([latents, crops.generated(GENERATED).to(DEVICE)])
        alone = real_crops(REAL, 8 * LATENT_FRAMES)
        with autocast():
            decoded = vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
            read = log_mel(alone)[:, : 8 * LATENT_FRAMES]
            fake = vocoder(torch.cat([decoded[:DECODED, 0], read, decoded[DECODED:, 0]])).float()
        decoded, paired = decoded[:DECODED].float(), DECODED + REAL
        real = torch.cat([wave, alone, crops(GENERATED)[2]])
        spectral, against = reconstruction(fake[:paired], real[:paired]), adversary(fake, real, paired)
        level = (decoded[:, 0] - mel).abs().mean()
        rough = (roughness(decoded) - roughness(mel[:, None])).abs().mean()
        parts = {"spectral": spectral, "adversarial": against, "level": level, "rough": rough}
        own = MEL_WEIGHT * level + ROUGHNESS_WEIGHT * rough
        weight = ADVERSARIAL_WEIGHT * min(1.0, step / CRITICS_WARMUP)
        return spectral + weight * against + own, {name: part.item() for name, part in parts.items()}

    both = nn.ModuleDict({"vae": vae, "vocoder": vocoder})
    fit("decoder", both, loss, steps=options.steps, minutes=options.minutes, lr=3e-4, betas=(0.8, 0.99))
    save_half(both["vae"], data.STARTER / "vae")
    save_half(both["vocoder"], data.STARTER / "vocoder")


if __name__ == "__main__":
    main()
