"""Train the starter's vocoder: log-mel (B, T, 64) -> 16 kHz wave (B, 160 T).

    python -m models.recipes.vocoder --minutes 30

A HiFi-GAN generator of 0.8 M parameters. It learns first from magnitudes alone (STFTs of five resolutions, as Parallel
WaveGAN, arXiv 1910.11480), then also against critics that look at spectrograms (UnivNet, arXiv 2106.07889).
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from audioldm.audio import HOP_LENGTH, SAMPLE_RATE, log_mel

from . import data
from .training import DEVICE, WORK, Adversary, autocast, features_and_score, fit, save_half

FRAMES = 48  # of a training crop: 0.48 s
BATCH = 6
RESOLUTIONS = (128, 256, 512, 1024, 2048)  # FFT sizes of the reconstruction loss, hop a quarter
CRITIC_RESOLUTIONS = (256, 512, 1024)


def network() -> SpeechT5HifiGan:
    """Upsamples 8 x 5 x 4 = 160 times; kernels chosen so that every stage multiplies the length exactly."""
    return SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=64, sampling_rate=SAMPLE_RATE, upsample_initial_channel=160, upsample_rates=[8, 5, 4],
        upsample_kernel_sizes=[16, 11, 8], resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3, 5]] * 2,
        normalize_before=False,
    ))


def waves(clips: list[data.Clip], name: str) -> Tensor:
    """(N, 81920) waves of ``clips``, read once."""
    path = WORK / f"waves_{name}.pt"
    if not path.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        torch.save(torch.stack([torch.from_numpy(data.load(c)) for c in clips]).half(), path)
    return torch.load(path, weights_only=True)


def spectrogram(wave: Tensor, size: int) -> Tensor:
    """STFT magnitudes (B, size / 2 + 1, frames) of (B, N)."""
    window = torch.hann_window(size, device=wave.device)
    return torch.stft(wave, size, size // 4, window=window, return_complex=True).abs().clamp(min=1e-5)


def reconstruction(fake: Tensor, real: Tensor) -> Tensor:
    """Mean over resolutions of spectral convergence and log-magnitude distance, plus the log-mel's distance."""
    total = 2 * (log_mel(fake) - log_mel(real)).abs().mean()
    for size in RESOLUTIONS:
        a, b = spectrogram(fake, size), spectrogram(real, size)
        total = total + ((b - a).norm() / b.norm() + (a.log() - b.log()).abs().mean()) / len(RESOLUTIONS)
    return total


class Critics(nn.Module):
    """One small 2-D convolutional judge per STFT resolution: wave (B, N) -> features of every layer, score last."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.stacks = nn.ModuleList(
            nn.ModuleList([
                norm(nn.Conv2d(1, width, (5, 3), stride=(2, 1), padding=(2, 1))),
                norm(nn.Conv2d(width, width, (5, 3), stride=(2, 2), padding=(2, 1))),
                norm(nn.Conv2d(width, 2 * width, (5, 3), stride=(2, 2), padding=(2, 1))),
                norm(nn.Conv2d(2 * width, 1, 3, padding=1)),
            ])
            for _ in CRITIC_RESOLUTIONS
        )

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        views = [spectrogram(wave, size).log().unsqueeze(1) / 4 for size in CRITIC_RESOLUTIONS]
        return [features_and_score(stack, x) for stack, x in zip(self.stacks, views, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--adversarial", action="store_true", help="continue the trained vocoder against critics")
    options = parser.parse_args()

    labels = None if DEVICE == "cuda" else list(data.SOUNDS)
    train = waves(data.clips(labels), "train")
    held_out = waves(data.clips(judge=True), "judge")[:48, : SAMPLE_RATE].float().to(DEVICE)
    vocoder = SpeechT5HifiGan.from_pretrained(data.STARTER / "vocoder").float() if options.adversarial else network()
    adversary = Adversary(Critics()) if options.adversarial else None
    vocoder.apply_weight_norm()
    samples = FRAMES * HOP_LENGTH

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(train), (BATCH,))
        starts = torch.randint(train.shape[1] - samples + 1, (BATCH,))
        real = torch.stack([train[r, s : s + samples] for r, s in zip(rows, starts, strict=True)]).float()
        real = (real * 10 ** torch.empty(BATCH, 1).uniform_(-0.8, 0.25)).clamp(-1, 1).to(DEVICE)
        real = real + 1e-4 * torch.randn_like(real)  # digital silence has no spectrum to compare
        with autocast():
            fake = vocoder(log_mel(real)[:, 0, :FRAMES])
        fake = fake.float()
        spectral = reconstruction(fake, real)
        total, parts = spectral, {"spectral": spectral.item()}
        if adversary:
            against = adversary(fake, real)
            total, parts = total + 0.5 * against, parts | {"adversarial": against.item()}
        return total, parts

    @torch.no_grad()
    def report(step: int, module: nn.Module) -> dict[str, float]:
        fake = module(log_mel(held_out)[:, 0, :100])
        return {"held_out_mel": round((log_mel(fake) - log_mel(held_out)).abs().mean().item(), 4)}

    name = "vocoder_adversarial" if options.adversarial else "vocoder"
    rate = 3e-4 if options.adversarial else 1.5e-3
    fit(name, vocoder, loss, steps=options.steps, minutes=options.minutes, lr=rate, betas=(0.8, 0.99), report=report)
    print(report(0, vocoder))
    for layer in list(vocoder.modules()):  # transformers 5.23's own remover does not know what its applier makes
        if nn.utils.parametrize.is_parametrized(layer):
            nn.utils.parametrize.remove_parametrizations(layer, "weight")
    save_half(vocoder, data.STARTER / "vocoder")


if __name__ == "__main__":
    main()
