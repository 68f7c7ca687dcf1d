"""Between sound and latents: wave → mel → latents, and back, in pieces where a sound is long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, log_mel
from ..errors import InputError
from .windows import blend

if TYPE_CHECKING:
    from .model import LatentDiffusion

PEAK = 0.99  # of full scale: a louder wave is scaled down to it, so that 16 bits clip nothing
VOCODER_FRAMES = 1_024  # mel frames at once, 10.24 s: what a model makes in one piece is vocoded in one piece
VOCODER_CONTEXT = 32  # mel frames on either side, dropped again; the widest vocoder hears less than 25


def latent_shape(model: LatentDiffusion, duration: float) -> tuple[int, int, int, int]:
    """(1, C, T, F) of the latents for ``duration`` seconds: enough mel frames, and what the UNet can halve."""
    sizes = model.sizes
    frames = math.ceil(round(duration * SAMPLE_RATE) / sizes.hop_length)
    length = math.ceil(frames / sizes.factor / sizes.multiple) * sizes.multiple
    return 1, sizes.channels, length, sizes.bands // sizes.factor


def window_length(model: LatentDiffusion) -> int:
    """Latent frames that the model handles at once: those that its UNet was trained on."""
    return model.sizes.window


@torch.inference_mode()
def encode(model: LatentDiffusion, mel: Tensor) -> tuple[Tensor, Tensor]:
    """Log-mel (1, 1, T * f, 64) -> mean and standard deviation (1, C, T, F) of its latents, scaled for the UNet."""
    factor, scale = model.sizes.factor, model.vae.config["scaling_factor"]

    def piece(start: int, stop: int) -> Tensor:
        posterior = model.vae.encode(mel[:, :, start * factor : stop * factor]).latent_dist
        return torch.cat([posterior.mean, posterior.std], dim=1)

    at_once = window_length(model)
    mean, deviation = blend(piece, mel.shape[2] // factor, at_once, at_once // 4).chunk(2, dim=1)
    return mean * scale, deviation * scale


@torch.inference_mode()
def to_mel(model: LatentDiffusion, latents: Tensor) -> Tensor:
    """Latents (1, C, T, F) -> log-mel (1, 1, T * f, 64)."""
    latents = latents / model.vae.config["scaling_factor"]

    def piece(start: int, stop: int) -> Tensor:
        return model.vae.decode(latents[:, :, start:stop]).sample

    at_once = window_length(model)
    return blend(piece, latents.shape[2], at_once, at_once // 4, model.sizes.factor)


@torch.inference_mode()
def vocode(model: LatentDiffusion, mel: Tensor) -> Tensor:
    """Log-mel (1, 1, frames, 64) -> wave (N,), N a few samples more than the frames' own."""
    mel, frames = mel[:, 0], mel.shape[2]
    if frames <= VOCODER_FRAMES:
        return model.vocoder(mel)[0]
    hop, pieces = model.sizes.hop_length, []
    for start in range(0, frames, VOCODER_FRAMES):
        stop = min(frames, start + VOCODER_FRAMES)
        before = max(0, start - VOCODER_CONTEXT)
        wave = model.vocoder(mel[:, before : stop + VOCODER_CONTEXT])[0]
        pieces.append(wave[(start - before) * hop : (stop - before) * hop])
    return torch.cat(pieces)


def finish(wave: Tensor, duration: float) -> np.ndarray:
    """A wave (N,) -> float32, exactly ``round(duration * 16000)`` samples, within ±0.99. Raises InputError."""
    samples = _cut(wave.clamp(-1, 1), duration)
    peak = np.abs(samples).max()
    return samples * np.float32(PEAK / peak) if peak > PEAK else samples


def finish_kept(wave: Tensor, duration: float) -> tuple[np.ndarray, float]:
    """A wave (N,), a part of which is an original's, as ``finish`` gives it, but as loud as it is if it fits ±1.

    Also returns what all of it was multiplied by: 1, or less. Raises InputError.
    """
    samples = _cut(wave, duration)
    peak = float(np.abs(samples).max())
    gain = 1.0 if peak <= 1 else PEAK / peak
    return (samples if gain == 1 else samples * np.float32(gain)), gain


def _cut(wave: Tensor, duration: float) -> np.ndarray:
    samples = wave[: round(duration * SAMPLE_RATE)].cpu().numpy()
    if not np.isfinite(samples).all():
        raise InputError("the result is not finite; try a smaller guidance scale")
    return samples


def normalise(wave: np.ndarray, samples: int) -> tuple[Tensor, float, float]:
    """A float32 wave at 16 kHz, cut or followed by silence to (samples,), and as loud as upstream makes it.

    The mean is taken off and the loudest sample scaled to 0.5, of the whole wave and then of what is left of it, which
    comes to the latter. Silence stays silence. Also returns the gain and the mean: wave = levelled / gain + mean.
    """
    mean = float(wave.mean())
    part = (wave - np.float32(mean))[:samples]
    peak = float(np.abs(part).max())
    gain = 0.5 / peak if peak > 1e-8 else 1.0
    padded = np.zeros(samples, dtype=np.float32)
    if peak > 1e-8:
        padded[: len(part)] = part * np.float32(gain)
    return torch.from_numpy(padded), gain, mean


def compute_mel(wave: Tensor) -> Tensor:
    """Log-mel (1, 1, N // 160, 64) of a wave (N,) at 16 kHz."""
    return log_mel(wave[None])[:, :, : len(wave) // HOP_LENGTH]


def splice(kept: Tensor, made: Tensor, frames: Tensor, bands: Tensor) -> Tensor:
    """Waves (N,) put together by time and frequency: of ``kept`` the share frames * bands, the rest of ``made``.

    ``frames`` (N // 160,) and ``bands`` (513,) are 0 to 1. Where the share is 1, ``kept`` comes back sample for sample
    (but for rounding).
    """
    window = torch.hann_window(N_FFT)
    one, other = (
        torch.stft(wave, N_FFT, HOP_LENGTH, window=window, return_complex=True) for wave in (kept, made)
    )
    share = bands[:, None] * torch.cat([frames, frames[-1:]])  # a frame more: both ends have one
    mixed = share * one + (1 - share) * other
    return torch.istft(mixed, N_FFT, HOP_LENGTH, window=window, length=len(kept))
