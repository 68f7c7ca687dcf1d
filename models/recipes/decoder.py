"""Finish the VAE's decoder and the vocoder together: latents (B, 16, T/8, 8) -> log-mel -> wave.

    python -m models.recipes.decoder --minutes 60

Each was taught alone; here the wave that comes out of both is compared with the recording, and shown to critics. The
latents are the encoder's, or what the UNet makes of them after noise: blurred in just the way in which generated ones
are. Every third crop goes through the vocoder alone, so that it still speaks real spectrograms. The encoder is left as
it is, and with it the latents that the UNet learns.
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
DECODED, REAL = 4, 2  # crops of a batch from latents, and from real spectrograms
LATENT_NOISE = 0.2  # greatest share of the latents' deviation that the decoder must not mind: UNets err, too
DENOISED_SHARE = 0.5  # of the known sounds' crops
STEPS, VARIANTS, GUIDANCE = 20, 4, 1.5
MEL_WEIGHT, ROUGHNESS_WEIGHT = 0.5, 1.0  # of the decoded spectrogram's own losses


@torch.no_grad()
def denoised(vae: AutoencoderKL) -> Tensor:
    """Latents (N, VARIANTS, 16, 64, 8) of the known sounds' clips, noised and denoised again by the UNet; not scaled.

    By a random 15 to 55 % of the steps: enough for its own brush, and not so much that it becomes another sound.
    """
    path = WORK / "denoised.pt"
    if not path.exists():
        lessons, steps = Lessons(vae), scheduler()
        unet = UNet2DConditionModel.from_pretrained(data.STARTER / "unet").float().to(DEVICE).eval()
        steps.set_timesteps(STEPS)
        variants = []
        for variant in range(VARIANTS):
            made = []
            for rows in torch.arange(len(lessons.means)).split(16):
                first = int(STEPS * (0.85 - 0.1 * variant - 0.1 * torch.rand(()).item()))
                x = lessons.means[rows]
                x = steps.add_noise(x, torch.randn_like(x), steps.timesteps[first])
                wanted = lessons.condition(rows, empty=0.0)
                both = torch.cat([lessons.empty.expand_as(wanted), wanted])
                for t in steps.timesteps[first:]:
                    with autocast():
                        without, following = unet(torch.cat([x, x]), t, None, class_labels=both).sample.float().chunk(2)
                    x = steps.step(without + GUIDANCE * (following - without), t, x).prev_sample
                made.append(x)
            variants.append(torch.cat(made) / vae.config.scaling_factor)
            print(f"denoised: {variant + 1} of {VARIANTS}", flush=True)
        torch.save(torch.stack(variants, dim=1), path)
    return torch.load(path, weights_only=True)


class LatentCrops:
    """Random crops: latents, the log-mels and the waves that they are to become."""

    def __init__(self, vae: AutoencoderKL) -> None:
        clips = data.clips()
        self.waves, self.mels = waves(clips, "train"), mels(clips, "train")
        self.latents, self.again = encoded(vae, self.mels), denoised(vae)
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
        alone = real_crops(REAL, 8 * LATENT_FRAMES)
        with autocast():
            decoded = vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
            heard = torch.cat([decoded[:, 0], log_mel(alone)[:, : 8 * LATENT_FRAMES]])
            fake = vocoder(heard)
        decoded, fake, real = decoded.float(), fake.float(), torch.cat([wave, alone])
        spectral, against = reconstruction(fake, real), adversary(fake, real)
        level = (decoded[:, 0] - mel).abs().mean()
        rough = (roughness(decoded) - roughness(mel[:, None])).abs().mean()
        parts = {"spectral": spectral, "adversarial": against, "level": level, "rough": rough}
        own = MEL_WEIGHT * level + ROUGHNESS_WEIGHT * rough
        return spectral + ADVERSARIAL_WEIGHT * against + own, {name: part.item() for name, part in parts.items()}

    both = nn.ModuleDict({"vae": vae, "vocoder": vocoder})
    fit("decoder", both, loss, steps=options.steps, minutes=options.minutes, lr=3e-4, betas=(0.8, 0.99))
    save_half(both["vae"], data.STARTER / "vae")
    save_half(both["vocoder"], data.STARTER / "vocoder")


if __name__ == "__main__":
    main()
