"""A name → a ModelFolder: bundled, published by AudioLDM, in the hub, or a folder of the user's own."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from .checkpoints.layout import INDEX, ModelFolder, open_folder
from .checkpoints.published import UPSTREAM
from .errors import InputError

DEFAULT_MODEL = "starter"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/name


def models_dir() -> Path:
    """The folder with the bundled models: ``audioldm/models`` when installed, ``models`` in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def open_path(path: str | Path) -> ModelFolder:
    """The model in the folder ``path``, or of the original checkpoint file ``path`` (converted at first use).

    Raises InputError.
    """
    expanded = os.path.expanduser(path)
    return _converted(Path(expanded)) if os.path.isfile(expanded) else open_folder(path)


def find(name: str) -> ModelFolder:
    """The model called ``name``: bundled, published by AudioLDM, at the path ``name`` or in the hub's repository.

    What is not there yet is downloaded; a checkpoint is converted at first use, which takes a minute and torch.
    Raises InputError, with the nearest names.
    """
    if name in names():
        return open_folder(models_dir() / name)
    if name in UPSTREAM:
        from .checkpoints.download import checkpoint

        return _converted(checkpoint(name), name)
    path = Path(os.path.expanduser(name))
    if name and os.path.exists(path):
        return open_path(path)
    # owner/name is also how a path in a folder looks: only if there is no such folder, the hub is asked
    if HUB_ID.fullmatch(name) and not os.path.exists(path.parent) and path.suffix != ".ckpt":
        from .checkpoints.hub import snapshot

        return open_folder(snapshot(name))
    if path.suffix == ".ckpt":
        raise InputError(f"no such checkpoint file: {name}")
    if len(path.parts) > 1:
        raise InputError(f"no such model folder: {name}")
    raise InputError(f'unknown model "{name}"{did_you_mean(name, all_names())}')


def is_here(name: str) -> bool:
    """Whether ``find`` would open the model without a download."""
    if name in UPSTREAM:
        from .checkpoints.download import checkpoint_path

        return checkpoint_path(name).is_file()
    if name in names() or os.path.exists(os.path.expanduser(name)) or not HUB_ID.fullmatch(name):
        return True
    from .checkpoints.hub import is_cached

    return is_cached(name)


def _converted(checkpoint: Path, name: str | None = None) -> ModelFolder:
    from .convert.checkpoint import cached

    return open_folder(cached(checkpoint, name))


def names() -> list[str]:
    """Names of the bundled models."""
    return sorted(path.parent.name for path in models_dir().glob(f"*/{INDEX}"))


def all_names() -> list[str]:
    """Names that find knows: the bundled models, and AudioLDM's checkpoints, which it downloads."""
    return [*names(), *UPSTREAM]


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; available: {', '.join(known)}" if known else "; none is installed"
