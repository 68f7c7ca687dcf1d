"""Where and in which numbers a network computes, and how many sounds go through it at once: asked of the machine.

Whatever a network computes in, it takes and returns float32, so that nobody else needs to know: the sampler, the
guidance, the mel spectrogram and the inverse STFT are always float32.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AT_ONCE = 4  # sounds of a batch; more save little: on a CPU with bf16 8 take 4 % less for each, 4 take a quarter less
BYTES = 2**20  # a generous bound for what a UNet of AudioLDM's size keeps for one latent frame of one sound

M = TypeVar("M", bound=nn.Module)


def find_device(wanted: str) -> torch.device:
    """The device called "cpu", "cuda", "cuda:1" …, "mps", or "auto": a GPU if there is one. Raises InputError."""
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    device = torch.device(next(name for name in count if count[name]) if wanted == "auto" else wanted)
    if (device.index or 0) >= count[device.type]:
        raise InputError(f'the device "{wanted}" does not exist; --device cpu runs without a GPU')
    return device


def best_precision(device: torch.device) -> str:
    """The fastest that is good enough: "fp16" on a GPU, "bf16" on a CPU that has instructions for it, else "fp32".

    Without such instructions bf16 is several times slower than float32, although torch and oneDNN offer it.
    """
    if device.type != "cpu":
        return "fp16"
    asked = (getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bf16" if torch.backends.mkldnn.is_available() and any(asked) else "fp32"


def best_batch(device: torch.device, precision: str, frames: int) -> int:
    """How many sounds of ``frames`` latent frames to denoise together: AT_ONCE, or as many as the memory takes.

    1 where it saves no time (float32 on a CPU). On a GPU half of what is free may be used.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(1, min(AT_ONCE, free // 2 // (frames * BYTES)))
    return AT_ONCE if device.type == "mps" or precision == "bf16" else 1


def rows_agree(device: torch.device, precision: str) -> bool:
    """Whether a sound has the same bytes in a batch of any size; elsewhere batches must all have one size.

    Matrix products are cut into pieces by the number of rows, and sums rounded accordingly. oneDNN's for bf16 are not.
    """
    return device.type == "cpu" and precision == "bf16"


def prepare(module: M, precision: str, device: torch.device) -> M:
    """``module`` on ``device``, with parameters in ``precision``, for float32 inputs and outputs as before.

    Buffers (windows, means) stay as they are. In fp16 a VAE whose config says ``force_upcast`` stays float32, as its
    numbers may be beyond what fp16 holds.
    """
    module.to(device)
    dtype = DTYPES[precision]
    if dtype == torch.float16 and getattr(getattr(module, "config", None), "force_upcast", False):
        return module
    if dtype != torch.float32:
        for parameter in module.parameters():
            parameter.data = parameter.data.to(dtype)
        # A VAE is called by its methods, which lead into its children.
        called = list(module.children()) if hasattr(module, "decode") else [module]
        for one in called:
            one.register_forward_pre_hook(functools.partial(_lower, dtype), with_kwargs=True)
            one.register_forward_hook(lambda _, inputs, output: _cast(output, torch.float32))
    return module


def channels_last(module: M, device: torch.device) -> M:
    """``module`` with its convolutions' weights, and so their results, in the order that oneDNN is fastest with."""
    return module.to(memory_format=torch.channels_last) if device.type == "cpu" else module  # pyright: ignore


def _lower(dtype: torch.dtype, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    """The inputs in ``dtype``, but for a timestep, the second one, which bf16 would round to a multiple of four."""
    return (_cast(args[0], dtype), *args[1:]), {name: _cast(value, dtype) for name, value in named.items()}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """A tensor of floats, or diffusers' holder of one, in ``dtype``; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{f.name: _cast(getattr(value, f.name), dtype)
                                             for f in dataclasses.fields(value)})  # fmt: skip
    return value
