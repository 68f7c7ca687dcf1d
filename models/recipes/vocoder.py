"""Train the starter's vocoder: log-mel (B, T, 64) -> 16 kHz wave (B, 160 T).

    python -m models.recipes.vocoder --minutes 100

It learns from magnitudes first (STFTs of five resolutions, as Parallel WaveGAN, arXiv 1910.11480), and after a fifth of
the time also against critics that look at spectrograms (UnivNet, arXiv 2106.07889; the complex ones as EnCodec, arXiv
2210.13438) and at every n-th sample (HiFi-GAN, arXiv 2010.05646). ``finish.py`` finishes it on the VAE's output.
"""

from __future__ import annotations

import argparse

import torch
from einops import rearrange
from torch import Tensor, nn

from audioldm.audio import HOP_LENGTH, LOG_FLOOR, N_FFT, SAMPLE_RATE, mel_filters
from audioldm.latent_diffusion.codec import SpectralVocoder

from . import data
from .training import DEVICE, WORK, Adversary, autocast, features_and_score, fit, save_half

FRAMES = 48  # of a training crop: 0.48 s
BATCH = 12
KNOWN_SHARE = 0.6  # of the crops that come from the twenty sounds
RESOLUTIONS = (128, 256, 512, 1024, 2048)  # FFT sizes of the reconstruction loss, hop a quarter
CRITIC_RESOLUTIONS = (256, 512, 1024)
CRITIC_PERIODS = (2, 3, 5, 7, 11)  # samples
MEL_WEIGHT, ADVERSARIAL_WEIGHT = 2.0, 4.0  # the second: of the mean of the critics
CRITICS_FROM = 0.2  # of the time
CRITICS_ALONE = 500  # first steps of a warm start
CORRECTIONS = 8  # of the finished vocoder's waves


class Crops:
    """Random crops of the training waves, at random loudness."""

    def __init__(self, clips: list[data.Clip], name: str) -> None:
        self.waves = waves(clips, name)
        known = torch.tensor([c.label in data.SOUNDS for c in clips])
        self.weights = torch.where(known, KNOWN_SHARE / known.sum(), (1 - KNOWN_SHARE) / (~known).sum())

    def __call__(self, batch: int, frames: int) -> Tensor:
        """(batch, 160 * frames) on the device."""
        samples = frames * HOP_LENGTH
        rows = torch.multinomial(self.weights, batch, replacement=True)
        starts = torch.randint(self.waves.shape[1] - samples + 1, (batch,))
        real = torch.stack([self.waves[r, s : s + samples] for r, s in zip(rows, starts, strict=True)]).float()
        real = (real * 10 ** torch.empty(batch, 1).uniform_(-0.8, 0.25)).clamp(-1, 1).to(DEVICE)
        return real + 1e-4 * torch.randn_like(real)  # digital silence has no spectrum to compare


def waves(clips: list[data.Clip], name: str) -> Tensor:
    """(N, 81920) waves of ``clips``, read once."""
    path = WORK / f"waves_{name}.pt"
    if not path.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        torch.save(torch.stack([torch.from_numpy(data.load(c)) for c in clips]).half(), path)
    return torch.load(path, weights_only=True)


FILTERS = mel_filters().to(DEVICE)
WINDOWS = {size: torch.hann_window(size, device=DEVICE) for size in (*RESOLUTIONS, N_FFT)}


def log_mel(wave: Tensor) -> Tensor:
    """``audioldm.audio.log_mel`` (B, frames, 64) in float32, which is enough for a loss and four times as fast."""
    spectrum = torch.stft(wave, N_FFT, HOP_LENGTH, window=WINDOWS[N_FFT], return_complex=True)
    return (FILTERS @ magnitudes(spectrum)).clamp(min=LOG_FLOOR).log().transpose(1, 2)


def magnitudes(spectrum: Tensor) -> Tensor:
    """Absolute values, with a gradient that stays finite where they are zero."""
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-10).sqrt()


def stft(wave: Tensor, size: int) -> Tensor:
    """Complex (B, size / 2 + 1, frames) of (B, N)."""
    return torch.stft(wave, size, size // 4, window=WINDOWS[size], return_complex=True)


def reconstruction(fake: Tensor, real: Tensor) -> Tensor:
    """Mean over resolutions of spectral convergence and log-magnitude distance, plus the log-mel's distance."""
    total = MEL_WEIGHT * (log_mel(fake) - log_mel(real)).abs().mean()
    for size in RESOLUTIONS:
        a, b = magnitudes(stft(fake, size)), magnitudes(stft(real, size))
        total = total + ((b - a).norm() / b.norm() + (a.log() - b.log()).abs().mean()) / len(RESOLUTIONS)
    return total


class Critics(nn.Module):
    """Small convolutional judges: wave (B, N) -> features of every layer of each, score last.

    One for each STFT resolution sees the logarithm of the magnitude, and the complex spectrum with its range
    compressed by the power 0.3. One for each period sees every p-th sample.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        narrow = width // 2
        self.columns = nn.ModuleList(
            nn.ModuleList([
                norm(nn.Conv1d(1, narrow, 5, stride=3, padding=2)),
                norm(nn.Conv1d(narrow, 2 * narrow, 5, stride=3, padding=2)),
                norm(nn.Conv1d(2 * narrow, 4 * narrow, 5, stride=3, padding=2)),
                norm(nn.Conv1d(4 * narrow, 4 * narrow, 5, padding=2)),
                norm(nn.Conv1d(4 * narrow, 1, 3, padding=1)),
            ])
            for _ in CRITIC_PERIODS
        )
        self.stacks = nn.ModuleList(
            nn.ModuleList([
                norm(nn.Conv2d(3, width, (5, 3), stride=(2, 1), padding=(2, 1))),
                norm(nn.Conv2d(width, width, (5, 3), stride=(2, 2), padding=(2, 1))),
                norm(nn.Conv2d(width, 2 * width, (5, 3), stride=(2, 2), padding=(2, 1))),
                norm(nn.Conv2d(2 * width, 1, 3, padding=1)),
            ])
            for _ in CRITIC_RESOLUTIONS
        )

    def view(self, wave: Tensor, size: int) -> Tensor:
        spectrum = stft(wave, size)
        magnitude = magnitudes(spectrum)
        squeezed = magnitude.pow(-0.7)
        parts = magnitude.log() / 4, spectrum.real * squeezed, spectrum.imag * squeezed
        return torch.stack(parts, dim=1).contiguous(memory_format=torch.channels_last)

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        views = [self.view(wave, size) for size in CRITIC_RESOLUTIONS]
        whole = [wave[:, : wave.shape[1] // period * period] for period in CRITIC_PERIODS]
        views += [rearrange(x, "b (t p) -> (b p) 1 t", p=p) for x, p in zip(whole, CRITIC_PERIODS, strict=True)]
        with autocast():
            judges = [*self.stacks, *self.columns]
            return [features_and_score(judge, x) for judge, x in zip(judges, views, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--warm-start", action="store_true", help="begin from the committed weights")
    options = parser.parse_args()

    crops = Crops(data.clips(), "train")
    held_out = waves(data.clips(list(data.SOUNDS), judge=True), "judge")[::4, :SAMPLE_RATE].float().to(DEVICE)
    vocoder = SpectralVocoder(corrections=CORRECTIONS)
    if options.warm_start:
        vocoder = SpectralVocoder.from_pretrained(data.STARTER / "vocoder").float()
    adversary = Adversary(Critics(), ADVERSARIAL_WEIGHT, CRITICS_ALONE if options.warm_start else 0)

    def loss(step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        real = crops(BATCH, FRAMES)
        with autocast():
            fake = vocoder(log_mel(real)[:, :FRAMES])
        error = reconstruction(fake, real)
        if not options.warm_start and progress < CRITICS_FROM:
            return error, {"reconstruction": error.item()}
        half = slice(BATCH // 2)  # critics cost more than the vocoder
        return adversary(fake[half], real[half], error)

    @torch.no_grad()
    def report(step: int, module: nn.Module) -> dict[str, float]:
        fake = module(log_mel(held_out)[:, :100])
        return {"held_out_mel": round((log_mel(fake) - log_mel(held_out)).abs().mean().item(), 4)}

    rate = 5e-4 if options.warm_start else 1e-3
    fit("vocoder", vocoder, loss, steps=options.steps, minutes=options.minutes, lr=rate, betas=(0.8, 0.99),
        adversary=adversary, report=report)
    print(report(0, vocoder))
    save_half(vocoder, data.STARTER / "vocoder")


if __name__ == "__main__":
    main()
