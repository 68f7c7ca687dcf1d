"""A condition on disk: the vector of one or several prompts as a .npy file, written and read back."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from translator.files import write_new

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

SUFFIX = ".npy"
MAX_BYTES = 1 << 16  # 512 numbers are 4 KB at most
UNIT = 1e-5  # a vector as long as 1 within this is taken as it is, so that a saved one gives the same bytes


def read_vector(path: str | Path, name: str | None = None) -> np.ndarray:
    """A vector from a .npy file, (D,) or (1, D) floats -> float32 (D,) of length 1. Nothing in it is run.

    ``name`` stands for it in messages; None: its path. Raises InputError.
    """
    import numpy as np

    file, name = Path(os.path.expanduser(path)), str(path) if name is None else name
    if not file.is_file():
        raise InputError(f"no such file: {name}")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{name} is too large to be one vector")
        with file.open("rb") as content:
            vector = np.lib.format.read_array(content, allow_pickle=False)
    except InputError:
        raise
    except Exception:  # numpy raises all sorts on a damaged header
        raise InputError(f"{name} is not a readable .npy file of numbers") from None
    return as_vector(vector, name)


def content_of(file: Any, name: str) -> bytes:
    """The rest of an open file; `name` stands for it in messages. Raises InputError."""
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise InputError(f'{name} cannot be read; open it with mode "rb"') from error
    if not isinstance(data, bytes):
        raise InputError(f'{name} is open as text; open it with mode "rb"')
    try:
        at_end = not data and file.tell() > 0
    except Exception:  # it cannot tell
        at_end = False
    if at_end:
        raise InputError(f"{name} has been read to its end; seek(0) goes back to its beginning")
    return data


def to_numpy(array: Any, what: str) -> np.ndarray:
    """What is like an array, a tensor of torch on any device among them, as one of NumPy.

    Raises InputError, which says ``what``, if it is none.
    """
    import numpy as np

    try:
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            array = array.float() if str(array.dtype) == "torch.bfloat16" else array
        return np.asarray(array)
    except Exception:  # ragged lists, tensors without values …
        raise InputError(what) from None


def as_vector(vector: Any, name: str) -> np.ndarray:
    """An array (D,) or (1, D) of floats -> float32 (D,) of length 1; ``name`` stands for it in messages.

    Raises InputError.
    """
    import numpy as np

    vector = to_numpy(vector, f"{name} is not an array that can be read")
    if vector.dtype.kind != "f":
        raise InputError(f"{name} does not hold floating-point numbers")
    if vector.ndim == 2 and len(vector) == 1:
        vector = vector[0]
    if vector.ndim != 1 or not len(vector):
        raise InputError(f"{name} has the shape {vector.shape}; expected one vector, (512,) or (1, 512)")
    vector = vector.astype(np.float64)
    length = math.sqrt(float((vector**2).sum())) if np.isfinite(vector).all() else math.inf
    if not 0 < length < math.inf:
        raise InputError(f"{name} has no direction: its numbers are all zero, infinite or NaN")
    return (vector if abs(length - 1) < UNIT else vector / length).astype(np.float32)


def write_vector(path: str | Path, vector: np.ndarray) -> None:
    """Write float32 (512,) as the .npy file ``path``, whole or not at all; ``-t`` takes it as a prompt.

    Raises InputError if it cannot be written or exists.
    """
    import numpy as np

    path, buffer = Path(path), io.BytesIO()
    np.save(buffer, np.asarray(vector, dtype=np.float32).reshape(-1), allow_pickle=False)
    try:
        write_new(path, buffer.getvalue())
    except FileExistsError:
        raise InputError(f"{path} already exists; refusing to overwrite it") from None
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
