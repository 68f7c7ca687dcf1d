"""The vocoder with a spectral head: log-mel → magnitude and phase → inverse STFT → wave.

The network of Vocos (Siuzdak, arXiv 2306.00814), whose blocks are ConvNeXt's (arXiv 2201.03545): everything runs at
100 frames a second, and the inverse STFT does the upsampling that costs HiFi-GAN most of its time.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

MAX_MAGNITUDE = 1e2  # of one STFT bin; the head is exponential, and one wild value would drown the wave


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
    """

    @register_to_config
    def __init__(
        self, model_in_dim: int = 64, sampling_rate: int = 16_000, hop_length: int = 160, n_fft: int = 640,
        width: int = 256, expansion: int = 768, depth: int = 6,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Conv1d(model_in_dim, width, kernel_size=7, padding=3)
        self.norm_in = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, expansion, 1 / depth) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def spectrum(self, mel: Tensor) -> Tensor:
        """Log-mel (B, T, bands) -> complex STFT (B, n_fft / 2 + 1, T + 1), frames centred on multiples of the hop."""
        mel = torch.cat([mel, mel[:, -1:]], dim=1)  # the frame that is centred on the wave's end
        x = rearrange(self.norm_in(rearrange(self.embed(rearrange(mel, "b t c -> b c t")), "b c t -> b t c")),
                      "b t c -> b c t")
        for block in self.blocks:
            x = block(x)
        x = self.head(self.norm_out(rearrange(x, "b c t -> b t c")))
        magnitude, phase = rearrange(x, "b t (part f) -> part b f t", part=2).float()
        return torch.polar(magnitude.exp().clamp(max=MAX_MAGNITUDE), phase)

    def forward(self, mel: Tensor) -> Tensor:
        n_fft, hop = self.config["n_fft"], self.config["hop_length"]
        length = mel.shape[1] * hop
        return torch.istft(self.spectrum(mel), n_fft, hop, window=self.get_buffer("window"), length=length)
