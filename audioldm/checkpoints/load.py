"""Read one part of a model folder into a library's module: quickly, strictly and without a word.

The libraries' ``from_pretrained`` would do, but reads whole files where a run needs one tower of two, first
initialises at random what it then overwrites, and prints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import InputError

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # up to diffusers 0.15
M = TypeVar("M", bound=nn.Module)

IGNORED = ("position_ids", "token_type_ids", "num_batches_tracked")  # buffers that inference does not need


def read_tensors(path: Path, prefixes: Sequence[str] = ("",)) -> dict[str, Tensor]:
    """The tensors whose names begin with one of ``prefixes``; floats as float32. Raises InputError, also for NaN.

    A .bin file is a pickle, of which nothing but tensors is read.
    """
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    try:
        chosen = read(path, tuple(prefixes))
    except (OSError, SafetensorError, ValueError):
        raise InputError(f"the model's file {path} is missing or damaged") from None
    check_finite(chosen, path)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in chosen.items()}


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises InputError if one of the ``tensors`` of the file ``path`` holds NaN or infinite numbers."""
    for name, tensor in tensors.items():
        # A sum is quicker, but may overflow.
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise InputError(f"{path} is damaged: its tensor {name} holds NaN or infinite numbers")


def _read_safetensors(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}


def _read_pickle(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        return {name: tensor for name, tensor in state.items() if name.startswith(prefixes)}
    except Exception as error:  # whatever pickle and zip find wrong
        raise ValueError from error


def from_config(network: type[M], config: Mapping[str, Any]) -> M:
    """``network.from_config(config)`` of diffusers, whose annotation allows a tuple as well."""
    return cast(Any, network).from_config(config)


def load(
    build: Callable[[], M],
    weights: Path,
    prefixes: Sequence[str] = ("",),
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> M:
    """``build()`` a module and fill it from the file ``weights``: in eval mode, without gradients, float32.

    Every tensor must have its place and every place its tensor, but for buffers that mean nothing (IGNORED).
    ``adapt`` gives the tensors of an older file the names of today. Raises InputError if they do not match.
    """
    with _NoInitialisation():
        module = build()
    state = {n: t for n, t in adapt(read_tensors(weights, prefixes)).items() if not n.endswith(IGNORED)}
    try:
        missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:  # a tensor of another shape; the last line says which
        raise InputError(f"{weights} does not fit its config.json: {_last_line(error)}") from None
    missing = [name for name in missing if not name.endswith(IGNORED)]
    if missing or unexpected:
        example = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is unexpected"
        raise InputError(f"{weights} does not fit its config.json: {example}")
    return module.eval().requires_grad_(False)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


class _NoInitialisation(TorchFunctionMode):
    """Makes ``torch.nn.init`` do nothing: random numbers for 100 M weights take seconds, in vain."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def current_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` of a VAE under the names of today's diffusers, if they have those of 0.15 and before."""

    def renamed(name: str) -> str:
        return re.sub(
            r"(\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)",
            lambda match: match[1] + OLD_ATTENTION[match[2]],
            name,
        )

    return {renamed(name): tensor for name, tensor in tensors.items()}
