"""Between sound and latents: wave → mel → latents, and back, in overlapping pieces where a sound is long.

The starter's vocoder is here too: the network of Vocos (Siuzdak, arXiv 2306.00814), whose blocks are ConvNeXt's
(arXiv 2201.03545), at 100 frames a second. An inverse STFT does the upsampling that costs HiFi-GAN most of its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from ..audio import F_MAX, F_MIN, HOP_LENGTH, LOG_FLOOR, N_FFT, SAMPLE_RATE, log_mel
from ..checkpoints.layout import ModelFolder, reporting
from ..errors import InputError

Config = Mapping[str, Any]
PEAK = 0.99  # of full scale: a louder wave is scaled down to it, so that 16 bits clip nothing
WINDOW = 256  # latent frames, for a UNet whose config does not name its training length: AudioLDM's 10.24 s
VOCODER_FRAMES = 1_024  # mel frames at once, 10.24 s: so most models' sounds are vocoded in one piece
VOCODER_CONTEXT = 96  # mel frames on either side, dropped again; a vocoder hears up to 30, a correction 6.4 more
MAX_MAGNITUDE = 1e2  # of one STFT bin; the head is exponential, and one wild value would drown the wave
MAX_CORRECTION, MAX_WAVE = 2.0, 2.0  # nepers, of one band in one frame; of full scale, where a mel runs away


@dataclass(frozen=True)
class Sizes:
    """What a model's configs say about sizes."""

    channels: int  # of the latents
    trained_frames: int | None  # latent frames that the UNet was trained on; None: its config does not say
    multiple: int  # the UNet takes only multiples of so many latent frames
    factor: int  # mel frames, and mel bands, for each one of the latents
    bands: int  # of the mel
    hop_length: int  # samples for each mel frame


def read_sizes(unet: Config, vae: Config, vocoder: Config, folder: ModelFolder) -> Sizes:
    """From the configs of the parts in ``folder``. Raises InputError, naming the file."""
    with reporting(folder.part("unet") / "config.json"):
        frames = unet.get("sample_size")  # (frames, bands), or a number that does not say which
        channels, halvings = int(unet["in_channels"]), len(unet["block_out_channels"]) - 1
    with reporting(folder.part("vae") / "config.json"):
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
    with reporting(folder.part("vocoder") / "config.json"):
        hop = int(vocoder["hop_length"]) if "hop_length" in vocoder else math.prod(vocoder["upsample_rates"])
        bands = int(vocoder["model_in_dim"])
    return Sizes(channels, int(frames[0]) if isinstance(frames, list) else None, 2**halvings, factor, bands, hop)


class Codec(Protocol):
    """What these functions need of a model; LatentDiffusion has it."""
    @cached_property
    def sizes(self) -> Sizes: ...

    @cached_property
    def vae(self) -> Any: ...

    @cached_property
    def vocoder(self) -> nn.Module: ...


def latent_shape(model: Codec, duration: float) -> tuple[int, int, int, int]:
    """(1, C, T, F) of the latents for ``duration`` seconds: rounded up to a length that the UNet can halve."""
    sizes = model.sizes
    frames = math.ceil(round(duration * SAMPLE_RATE) / sizes.hop_length)
    length = math.ceil(frames / sizes.factor / sizes.multiple) * sizes.multiple
    return 1, sizes.channels, length, sizes.bands // sizes.factor


def window_length(model: Codec) -> int:
    """Latent frames that the model handles at once: those that its UNet was trained on."""
    return model.sizes.trained_frames or WINDOW


@torch.inference_mode()
def encode(model: Codec, mel: Tensor) -> tuple[Tensor, Tensor]:
    """Log-mel (1, 1, T * f, 64) -> mean and standard deviation (1, C, T, F) of its latents, scaled for the UNet."""
    factor, scale = model.sizes.factor, model.vae.config["scaling_factor"]

    def piece(start: int, stop: int) -> Tensor:
        posterior = model.vae.encode(mel[:, :, start * factor : stop * factor]).latent_dist
        return torch.cat([posterior.mean, posterior.std], dim=1)

    at_once = window_length(model)
    mean, deviation = blend(piece, mel.shape[2] // factor, at_once, at_once // 4).chunk(2, dim=1)
    return mean * scale, deviation * scale


def clamp_runaway(latents: Tensor) -> Tensor:
    """Clip latents (B, C, T, F) that have run away (beyond ±100) to ±10, as upstream does; leave others as they are."""
    away = latents.abs().amax(dim=(1, 2, 3), keepdim=True) > 100
    return torch.where(away, latents.clamp(-10, 10), latents)


@torch.inference_mode()
def to_mel(model: Codec, latents: Tensor) -> Tensor:
    """Latents (1, C, T, F) -> log-mel (1, 1, T * f, 64)."""
    latents = latents / model.vae.config["scaling_factor"]

    def piece(start: int, stop: int) -> Tensor:
        return model.vae.decode(latents[:, :, start:stop]).sample

    at_once = window_length(model)
    return blend(piece, latents.shape[2], at_once, at_once // 4, model.sizes.factor)


@torch.inference_mode()
def vocode(model: Codec, mel: Tensor) -> Tensor:
    """Log-mel (1, 1, frames, 64) -> wave (frames * hop,)."""
    mel, frames = mel[:, 0], mel.shape[2]
    hop, pieces = model.sizes.hop_length, []
    for start in range(0, frames, VOCODER_FRAMES):
        stop, before = min(frames, start + VOCODER_FRAMES), max(0, start - VOCODER_CONTEXT)
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

    Also returns the factor on all of it: 1, or less. Raises InputError.
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

    The mean of the whole wave is subtracted, and the loudest sample of the part scaled to 0.5, as by upstream's two
    passes. Silence stays silence. Also returns the gain and the mean: wave = levelled / gain + mean.
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
    (up to rounding).
    """
    window = torch.hann_window(N_FFT)
    one, other = (torch.stft(wave, N_FFT, HOP_LENGTH, window=window, return_complex=True) for wave in (kept, made))
    share = bands[:, None] * torch.cat([frames, frames[-1:]])  # a frame more: both ends have one
    mixed = share * one + (1 - share) * other
    return torch.istft(mixed, N_FFT, HOP_LENGTH, window=window, length=len(kept))


def starts(length: int, window: int, overlap: int) -> list[int]:
    """Where pieces of ``window`` begin that cover ``length`` evenly, each sharing ``overlap`` or more with the next."""
    if length <= window:
        return [0]
    count = math.ceil((length - window) / (window - overlap)) + 1
    return [round(index * (length - window) / (count - 1)) for index in range(count)]


def blend(piece: Callable[[int, int], Tensor], length: int, window: int, overlap: int, scale: int = 1) -> Tensor:
    """Put pieces together along time, (B, C, length * scale, F), cross-fading where they overlap.

    What is not longer than ``window`` is one piece, as it is. Else each place is the mean of the pieces that cover it
    (MultiDiffusion, arXiv 2302.08113), weighted with sine-squared ramps as long as ``overlap``, so that no piece has an
    edge. The pieces are made one after the other: memory grows with the length only.

    Args:
        piece: makes the part from start to stop of ``length``: (B, C, (stop - start) * scale, F).
        window, overlap: in the units of ``length``; 0 < overlap < window.
    """
    if length <= window:
        return piece(0, length)
    size = window * scale
    place = torch.arange(size, dtype=torch.float64) + 0.5
    ramp = (torch.minimum(place, size - place) / (overlap * scale)).clamp(max=1)
    weight = torch.sin(math.pi / 2 * ramp).square().float()[:, None]  # (size, 1), > 0
    total, weights = torch.empty(0), torch.zeros(length * scale, 1)
    for start in starts(length, window, overlap):
        made = piece(start, start + window)
        if not start:
            total = made.new_zeros((*made.shape[:2], length * scale, made.shape[3]))
        inside = slice(start * scale, start * scale + size)
        total[:, :, inside] += made * weight.to(made.device)
        weights[inside] += weight
    return total / weights.to(total.device)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a perceptron for each frame: (B, width, T) -> (B, width, T)."""

    def __init__(self, width: int, expansion: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, expansion)
        self.activation = nn.GELU()
        self.contract = nn.Linear(expansion, width)
        self.scale = nn.Parameter(scale * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(rearrange(self.depthwise(x), "b c t -> b t c"))
        y = self.scale * self.contract(self.activation(self.expand(y)))
        return x + rearrange(y, "b t c -> b c t")


class SpectralVocoder(ModelMixin, ConfigMixin):
    """Log-mel (B, T, model_in_dim) -> waves (B, T * hop_length) at ``sampling_rate`` Hz, about within [-1, 1].

    Args:
        model_in_dim: mel bands of a frame.
        hop_length: samples of a frame. ``n_fft``: length of the inverse STFT's Hann window, in samples.
        width, expansion, depth: of the ConvNeXt blocks.
        corrections: number of corrections of the wave (not in training); they take audioldm.audio's bands and hop.
    """

    @register_to_config
    def __init__(
        self, model_in_dim: int = 64, sampling_rate: int = 16_000, hop_length: int = 160, n_fft: int = 640,
        width: int = 256, expansion: int = 768, depth: int = 6, corrections: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Conv1d(model_in_dim, width, kernel_size=7, padding=3)
        self.norm_in = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, expansion, 1 / depth) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("mel_window", torch.hann_window(N_FFT), persistent=False)
        bands = mel_filter_bank(N_FFT // 2 + 1, model_in_dim, F_MIN, F_MAX, sampling_rate, "slaney", "slaney")
        filters = torch.from_numpy(bands.T.astype(np.float32))
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("shares", (filters / filters.sum(0).clamp(min=1e-8)).T, persistent=False)  # sum to 1

    def spectrum(self, mel: Tensor) -> Tensor:
        """Log-mel (B, T, bands) -> complex STFT (B, n_fft / 2 + 1, T + 1), frames centred on multiples of the hop."""
        mel = torch.cat([mel, mel[:, -1:]], dim=1)  # the frame that is centred on the wave's end
        x = rearrange(self.embed(rearrange(mel, "b t c -> b c t")), "b c t -> b t c")
        x = rearrange(self.norm_in(x), "b t c -> b c t")
        for block in self.blocks:
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):  # bf16 would give phases in steps of a hundredth of a turn
            x = self.head(self.norm_out(rearrange(x, "b c t -> b t c").float()))
        magnitude, phase = rearrange(x, "b t (part f) -> part b f t", part=2)
        return torch.polar(magnitude.exp().clamp(max=MAX_MAGNITUDE), phase)

    def forward(self, mel: Tensor) -> Tensor:
        n_fft, hop, window = self.config["n_fft"], self.config["hop_length"], self.get_buffer("window")
        wave = torch.istft(self.spectrum(mel), n_fft, hop, window=window, length=mel.shape[1] * hop)
        for _ in range(0 if self.training else self.config["corrections"]):
            wave = self.corrected(wave, mel)
        return wave

    def corrected(self, wave: Tensor, mel: Tensor) -> Tensor:
        """``wave`` (B, N) with every bin of its STFT as much louder or softer as its bands of ``mel`` ask for.

        The phases stay, as in Griffin and Lim (1984). Tones lose the beats that a short window gives them.
        """
        window, filters, shares = map(self.get_buffer, ("mel_window", "filters", "shares"))
        spectrum = torch.stft(wave, N_FFT, HOP_LENGTH, window=window, return_complex=True)
        wanted = rearrange(torch.cat([mel, mel[:, -1:]], dim=1), "b t band -> b band t")
        change = wanted - (filters @ spectrum.abs()).clamp(min=LOG_FLOOR).log()
        spectrum *= (shares @ change.clamp(-MAX_CORRECTION, MAX_CORRECTION)).exp()
        return torch.istft(spectrum, N_FFT, HOP_LENGTH, window=window, length=wave.shape[1]).clamp(-MAX_WAVE, MAX_WAVE)
