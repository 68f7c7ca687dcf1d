"""Renaming tensors by a plain table, so that each is used once or named as ignored.

A table maps the name of a module, or the beginning of one, in the source to that in the target:
{"time_embed.0": "time_embedding.linear_1"} moves its weight and its bias.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from ..errors import InputError

Tensors = Mapping[str, Tensor]


def strip_prefix(state: Tensors, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def rename(state: Tensors, table: Mapping[str, str], ignored: Iterable[str] = ()) -> dict[str, Tensor]:
    """``state`` under the names that ``table`` gives; the longest beginning in the table counts.

    ``ignored``: regular expressions of whole names that are left out. Raises InputError for a tensor that is in
    neither, or if two would get one name.
    """
    leave_out = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if leave_out.fullmatch(name):
            continue
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            target = table.get(".".join(parts[:count]))
            if target is not None:
                break
        else:
            raise InputError(f"the checkpoint contains the tensor {name}, which AudioLDM does not have")
        new = ".".join([target, *parts[count:]])
        if new in renamed:
            raise InputError(f"the checkpoint has two tensors for {new}")
        renamed[new] = tensor
    return renamed


def require(state: Tensors, name: str) -> Tensor:
    """``state[name]``. Raises InputError if it is missing."""
    if name not in state:
        raise InputError(f"the checkpoint lacks the tensor {name}; it is not a complete AudioLDM checkpoint")
    return state[name]


def count_numbers(state: Tensors, pattern: str) -> int:
    """How many different whole numbers stand for the group of ``pattern`` (a regular expression) in the names."""
    matcher = re.compile(pattern)
    return len({match[1] for name in state if (match := matcher.match(name))})


def check_fit(module: nn.Module, tensors: Tensors) -> None:
    """Check that ``tensors`` are exactly those of ``module`` (on the device "meta"). Raises InputError."""
    try:
        module.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f"the checkpoint does not fit {type(module).__name__}: {lines[-1]}") from None
