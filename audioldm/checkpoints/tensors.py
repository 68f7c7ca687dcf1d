"""Tensors in a model's files, and modules filled from them. Torch is imported in functions: lists need none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zipfile import is_zipfile

from safetensors import SafetensorError, safe_open

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

M = TypeVar("M", bound="nn.Module")

PIECE = 16  # tensors that are read at once
IGNORED = ("position_ids", "token_type_ids", "num_batches_tracked")  # buffers that inference does not need


def read_tensors(path: Path, prefixes: Sequence[str] = ("",)) -> dict[str, Tensor]:
    """The tensors whose names begin with one of ``prefixes``; floats as float32. Raises InputError, also for NaN.

    A .bin file is a pickle, of which nothing but tensors is read.
    """
    return {name: tensor for piece in _pieces(path, prefixes) for name, tensor in piece.items()}


def _pieces(path: Path, prefixes: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """As ``read_tensors``, some tensors at a time: what a caller does not keep is then no longer in memory."""
    try:
        for piece in _stored(path, tuple(prefixes)):
            check_finite(piece, path)
            yield {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in piece.items()}
    except InputError:
        raise
    except Exception:  # whatever safetensors, pickle and zip find wrong
        raise InputError(f"the model's file {path} is missing or damaged") from None


def _stored(path: Path, prefixes: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """The tensors as the file has them."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefixes)]
        for start in range(0, len(names), PIECE):  # a file stays in memory while any of its tensors does
            with safe_open(path, framework="pt") as file:
                piece = {name: file.get_tensor(name) for name in names[start : start + PIECE]}
            yield piece
        return
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    yield {name: tensor for name, tensor in state.items() if name.startswith(prefixes)}


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises InputError if a tensor of the file ``path`` holds NaN or infinity; a sum is quick, but may overflow."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise InputError(f"{path} is damaged: its tensor {name} holds NaN or infinite numbers")


def load(
    build: Callable[[], M],
    weights: Path,
    prefixes: Sequence[str] = ("",),
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    dtype: torch.dtype | None = None,
) -> M:
    """``build()`` a module and fill it from the file ``weights``: in eval mode, without gradients, float32.

    The libraries' ``from_pretrained`` reads whole files where one tower of two is needed, and prints. ``adapt`` gives
    the tensors of an older file today's names. ``dtype``: of the parameters, instead; buffers (windows, means) stay
    float32. Raises InputError unless module and file have the same tensors, but for those in IGNORED.
    """
    with _no_initialisation():
        module = build()
    learnt = {name for name, _ in module.named_parameters()}
    state = {}
    for piece in _pieces(weights, prefixes):
        for name, tensor in adapt(piece).items():
            if name.endswith(IGNORED):
                continue
            if dtype is not None:  # a copy, so that the file can leave the memory
                tensor = tensor.to(dtype) if name in learnt else tensor.clone()
            state[name] = tensor
    try:
        missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:  # a tensor of another shape; the last line says which
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{weights} does not fit its config.json: {reason}") from None
    missing = [name for name in missing if not name.endswith(IGNORED)]
    if missing or unexpected:
        example = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is unexpected"
        raise InputError(f"{weights} does not fit its config.json: {example}")
    return module.eval().requires_grad_(False)


def _no_initialisation() -> AbstractContextManager[object]:
    """Makes random initialisation do nothing: numbers for 100 M weights would take seconds and be overwritten."""
    from torch.overrides import TorchFunctionMode

    class NoInitialisation(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(func, "__module__", None) == "torch.nn.init" or func.__name__ in ("normal_", "uniform_"):
                return kwargs["tensor"] if "tensor" in kwargs else args[0]
            return func(*args, **kwargs)

    return NoInitialisation()


def read_arrays(weights: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The tensors called ``names`` of a weights file, without torch where that is possible. Raises InputError."""
    import numpy as np

    try:
        found = _arrays(weights, names)
    except (OSError, KeyError, SafetensorError):
        raise InputError(f"the model's file {weights} is damaged or lacks {' or '.join(names)}") from None
    for name, array in zip(names, found, strict=True):
        if not np.isfinite(array).all():
            raise InputError(f"{weights} is damaged: its tensor {name} holds NaN or infinite numbers")
    return found


def _arrays(weights: Path, names: Sequence[str]) -> list[np.ndarray]:
    if weights.suffix == ".safetensors":
        with safe_open(weights, framework="np") as file:
            if all(file.get_slice(name).get_dtype() != "BF16" for name in names):
                return [file.get_tensor(name) for name in names]
    tensors = read_tensors(weights, names)  # with torch, which a pickle and bfloat16 need
    return [tensors[name].numpy() for name in names]


def find_device(wanted: str) -> torch.device:
    """The device called ``wanted``; "auto": the fastest. Raises InputError if there is none of that name."""
    import torch

    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    device = torch.device(next(name for name in count if count[name]) if wanted == "auto" else wanted)
    if (device.index or 0) >= count[device.type]:
        raise InputError(f'the device "{wanted}" does not exist; --device cpu runs without a GPU')
    return device


def fast_dtype(device: torch.device) -> torch.dtype:
    """The type in which the device multiplies fastest: float16 on a GPU, bfloat16 on CPUs with instructions for it.

    Without such instructions bfloat16 is several times slower than float32, although torch and oneDNN offer it.
    """
    import torch

    if device.type != "cpu":
        return torch.float16
    asked = (getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.bfloat16 if torch.backends.mkldnn.is_available() and any(asked) else torch.float32
