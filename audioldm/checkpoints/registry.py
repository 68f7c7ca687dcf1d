"""Which models there are: those that come with the package, and folders of the user's own.

A model is a folder in the diffusers layout; its ``model_index.json`` says what is in it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

DEFAULT_MODEL = "starter"
INDEX = "model_index.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")  # diffusers' and transformers' names
WEIGHTED_PARTS = ("unet", "vae", "vocoder", "clap", "clip")


def models_dir() -> Path:
    """The folder with the bundled models: ``audioldm/models`` when installed, ``models`` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk whose index was read and whose files are all there."""

    path: Path
    index: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def defaults(self) -> dict[str, Any]:
        """What GenerateOptions should be for this model where the user says nothing."""
        return self.index.get("defaults", {})

    def weights(self, part: str) -> Path:
        """The safetensors file of a part ("unet", "clap" …). Raises InputError if there is none."""
        for name in WEIGHTS:
            if (self.path / part / name).is_file():
                return self.path / part / name
        raise InputError(f"the model folder {self.path} has no weights in {part}/ ({' or '.join(WEIGHTS)})")

    def files(self) -> list[Path]:
        """What makes the model: its index, references and the files of its parts, sorted."""
        own = [self.path / name for name in (INDEX, "reference.safetensors", "sounds.json")]
        parts = [path for part in (*WEIGHTED_PARTS, "scheduler") for path in (self.path / part).glob("*")]
        return sorted(path for path in own + parts if path.is_file())

    def sha256(self) -> str:
        """One hash over names and contents of all files: 64 hex digits. About a second for a gigabyte."""
        digest = hashlib.sha256()
        for path in self.files():
            with open(path, "rb") as file:
                content = hashlib.sha256()
                while block := file.read(1 << 20):
                    content.update(block)
            digest.update(f"{path.relative_to(self.path).as_posix()} {content.hexdigest()}\n".encode())
        return digest.hexdigest()


def open_folder(path: str | Path) -> ModelFolder:
    """Read a model folder's index and check that every part is there. Raises InputError."""
    if not os.fspath(path):
        raise InputError("the name of the model folder is empty")
    path = Path(os.path.abspath(os.path.expanduser(path)))
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = "no" if isinstance(error, FileNotFoundError | NotADirectoryError) else "an unreadable"
        raise InputError(f"{path} is not a model folder: it has {what} {INDEX}") from None
    if not (
        isinstance(index, dict)
        and isinstance(index.get("defaults", {}), dict)
        and isinstance(index.get("default_translator"), str | None)
    ):
        raise InputError(f"{path / INDEX} does not describe a model")
    folder = ModelFolder(path, index)
    for part in WEIGHTED_PARTS:
        if part in index:
            folder.weights(part)
    return folder


def find(name: str) -> ModelFolder:
    """The model called ``name``, or at the path ``name``. Raises InputError, with the nearest names."""
    if name in names():
        return open_folder(models_dir() / name)
    if os.path.exists(os.path.expanduser(name)):
        return open_folder(name)
    if len(Path(name).parts) > 1:
        raise InputError(f"no such model folder: {name}")
    raise InputError(f'unknown model "{name}"{did_you_mean(name, names())}')


def names() -> list[str]:
    """Names of the bundled models."""
    return sorted(path.parent.name for path in models_dir().glob(f"*/{INDEX}"))


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there is {', '.join(known)}" if known else "; none is installed"
