"""Train the starter's VAE: log-mel (B, 1, T, 64) <-> latents (B, 32, T/8, 8).

    python -m models.recipes.vae --minutes 46

Every channel of the latents has mean 0 and deviation 1 over the training clips, and the decoder learns to bear noise on
them. What a diffusion model errs by then costs little, and no channel drowns early in the noise schedule.

``decoder.py`` continues the decoder alone, against critics.

Eight times smaller in time and frequency with 32 channels, where AudioLDM has 4 times and 8: the UNet then
works on a quarter of the positions, which is what two cores can train and sample (docs/starter.md).
"""

from __future__ import annotations

import argparse
import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from audioldm.audio import log_mel

from . import data
from .training import DEVICE, WORK, autocast, fit, save_half

CROP = 128  # frames
BATCH = 12
LATENT_NOISE = 0.3  # greatest deviation of the noise that the decoder learns to bear, beside the latents' own of 1
UNIT_WEIGHT = 0.1  # of the squared distance of the channels' means from 0 and deviations from 1
KEEP_WEIGHT = 1.0  # of the squared distance of a widened VAE's first channels from what they were
POSTERIOR = 0.1  # deviation of the posterior that the finished encoder reports


def network(channels: int) -> AutoencoderKL:
    """2.8 M parameters, a good third of them in the encoder."""
    return AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=channels, norm_num_groups=8, sample_size=64,
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


class Crops:
    """Random crops of the spectrograms of recordings, at random loudness."""

    def __init__(self, mels: Tensor) -> None:
        self.mels = mels

    def __call__(self, batch: int) -> Tensor:
        """(batch, 1, CROP, 64) on the device."""
        rows = torch.randint(len(self.mels), (batch,)).tolist()
        starts = torch.randint(self.mels.shape[2] - CROP + 1, (batch,)).tolist()
        mel = torch.stack([self.mels[r, :, s : s + CROP] for r, s in zip(rows, starts, strict=True)]).to(DEVICE)
        return (mel + torch.empty(batch, 1, 1, 1, device=DEVICE).uniform_(-1.5, 0.7)).clamp(min=-11.513)


def differences(mel: Tensor) -> list[Tensor]:
    """The mel and its averages over 2 and 4 pixels, with their steps in time and frequency: edges, not only level."""
    parts = []
    for factor in (1, 2, 4):
        small = F.avg_pool2d(mel, factor) if factor > 1 else mel
        parts += [small, small.diff(dim=2), small.diff(dim=3)]
    return parts


def distance(decoded: Tensor, mel: Tensor) -> Tensor:
    """The mean distance of what is decoded from ``mel``, in level and in edges."""
    pairs = zip(differences(decoded), differences(mel), strict=True)
    return sum((a - b).abs().mean() for a, b in pairs) / 3


def standardised(vae: AutoencoderKL, latents: Tensor) -> AutoencoderKL:
    """``vae`` with channels of mean 0 and deviation 1 over its ``latents`` (N, C, T, F), and otherwise the same.

    The change goes into the convolutions before and after the latents. The posterior's deviation becomes POSTERIOR.
    """
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encode, decode, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    with torch.no_grad():
        encode.weight[:channels] /= deviation.view(-1, 1, 1, 1)
        encode.bias[:channels] = (encode.bias[:channels] - mean) / deviation
        encode.weight[channels:], encode.bias[channels:] = 0, 2 * math.log(POSTERIOR)
        decode.bias += decode.weight[:, :, 0, 0] @ mean
        decode.weight *= deviation.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)
    return vae


@torch.no_grad()
def widened(old: AutoencoderKL, channels: int) -> AutoencoderKL:
    """``old`` with ``channels`` of latents: the first are its own, and the decoder does not yet look at the others."""
    vae, first = network(channels).to(old.device), old.config.latent_channels
    ours = vae.state_dict()
    vae.load_state_dict(ours | {k: v for k, v in old.state_dict().items() if v.shape == ours[k].shape})
    for name in ("encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in"):
        wide, narrow = vae.get_submodule(name), old.get_submodule(name)
        rows = first if name == "quant_conv" else len(narrow.bias)  # its other rows are the posterior's deviations
        wide.weight[:rows] = F.pad(narrow.weight[:rows], (0, 0, 0, 0, 0, wide.in_channels - narrow.in_channels))
        wide.bias[:rows] = narrow.bias[:rows]
    return vae


def noisy(vae: AutoencoderKL, mel: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """The latents of ``mel`` (B, 1, T, 64), and what the decoder makes of them under noise of up to that deviation."""
    latents = vae.encode(mel).latent_dist.mean.float()
    amount = noise * torch.rand(len(latents), 1, 1, 1, device=latents.device)
    return latents, vae.decode(latents + amount * torch.randn_like(latents)).sample.float()


@torch.no_grad()
def encoded(vae: AutoencoderKL, mels: Tensor) -> Tensor:
    """Means of the latents (N, C, T / 8, 8), not scaled."""
    return torch.cat([vae.to(DEVICE).encode(x.to(DEVICE)).latent_dist.mean for x in mels.split(32)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--warm-start", action="store_true", help="begin from the committed weights")
    parser.add_argument("--channels", type=int, default=32, help="of the latents")
    parser.add_argument("--widen", help="begin from the VAE in this folder, which has fewer channels and keeps them")
    options = parser.parse_args()

    train, held_out = mels(data.clips(), "train"), mels(data.clips(judge=True), "judge")
    begin = options.widen or (data.STARTER / "vae" if options.warm_start else None)
    vae = AutoencoderKL.from_pretrained(begin).float() if begin else network(options.channels)
    old = vae.to(DEVICE) if options.widen else None
    vae = widened(old, options.channels) if old else vae
    vae, crops = standardised(vae, encoded(vae, train)), Crops(train)

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        mel = crops(BATCH)
        with autocast():
            latents, decoded = noisy(vae, mel, LATENT_NOISE)
        level, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        uneven = level.square().mean() + (deviation - 1).square().mean()
        moved = latents.new_zeros(())
        if old:
            with torch.no_grad(), autocast():
                wanted = old.encode(mel).latent_dist.mean.float()
            moved = (latents[:, : wanted.shape[1]] - wanted).square().mean()
        total = distance(decoded, mel) + UNIT_WEIGHT * uneven + KEEP_WEIGHT * moved
        return total, {"uneven": uneven.item(), "moved": moved.item()}

    @torch.no_grad()
    def report(step: int, module: AutoencoderKL) -> dict[str, float]:
        sample = held_out[::4].to(DEVICE)
        return {f"held_out_l1_{noise}": round((noisy(module, sample, noise)[1] - sample).abs().mean().item(), 4)
                for noise in (0.0, LATENT_NOISE)}

    print(report(0, vae))
    fit("vae", vae, loss, steps=options.steps, minutes=options.minutes, lr=7e-4 if begin else 1.5e-3,
        report=report, report_every=200)
    print(report(0, vae))
    save_half(standardised(vae, encoded(vae, train)), data.STARTER / "vae")


if __name__ == "__main__":
    main()
