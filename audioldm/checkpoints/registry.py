"""Which models there are: bundled ones, AudioLDM's published checkpoints, the hub's repositories, one's own folders.

A model is a folder in the diffusers layout; its ``model_index.json`` says what is in it. Two kinds are read: ours,
whose ``clap/`` holds both towers of CLAP and its tokenizer, and the one diffusers' AudioLDMPipeline saves (so that of
the hub's cvssp/audioldm repositories), with ``text_encoder/`` and ``tokenizer/`` instead and no audio tower.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import sha256

DEFAULT_MODEL = "starter"
INDEX = "model_index.json"
WEIGHTS = (  # diffusers' and transformers' names, in order of preference
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
WEIGHTED_PARTS = ("unet", "vae", "vocoder", "clap", "clip")
HUB_PIPELINE = "AudioLDMPipeline"  # the class that the index of a folder in the hub's layout names
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/name
LICENCE = "CC BY-NC-SA 4.0 (no commercial use)"


@dataclass(frozen=True)
class Checkpoint:
    """One of AudioLDM's published checkpoint files."""

    url: str
    about: int  # bytes, for messages: measured on the same networks, with moving averages, where not published
    bytes: int | None = None  # its exact size, where it is known
    md5: str | None = None  # the publisher's, 32 hex digits, where it is known
    repo: str | None = None  # the hub's repository with the same weights
    licence: str = LICENCE


_ZENODO = "https://zenodo.org/records/{}/files/{}?download=1"

# The records are those that AudioLDM's own code names. Zenodo publishes size and md5 of every file, but only those of
# the two -m- files could be looked up; of the others, download.py records the hash of what it first gets.
UPSTREAM = {
    "audioldm-s-full": Checkpoint(
        _ZENODO.format(7600541, "audioldm-s-full"), about=2_560_000_000, repo="cvssp/audioldm"
    ),
    "audioldm-s-full-v2": Checkpoint(
        _ZENODO.format(7698295, "audioldm-full-s-v2.ckpt"), about=2_560_000_000, repo="cvssp/audioldm-s-full-v2"
    ),
    "audioldm-m-full": Checkpoint(
        _ZENODO.format(7813012, "audioldm-m-full.ckpt"),
        about=4_571_683_377,
        bytes=4_571_683_377,
        md5="46bad9f176651404b3cf1484942749b9",
        repo="cvssp/audioldm-m-full",
    ),
    "audioldm-l-full": Checkpoint(
        _ZENODO.format(7698295, "audioldm-full-l.ckpt"), about=6_990_000_000, repo="cvssp/audioldm-l-full"
    ),
    "audioldm-s-text-ft": Checkpoint(_ZENODO.format(7813012, "audioldm-s-text-ft.ckpt"), about=2_560_000_000),
    "audioldm-m-text-ft": Checkpoint(
        _ZENODO.format(7813012, "audioldm-m-text-ft.ckpt"),
        about=4_571_676_474,
        bytes=4_571_676_474,
        md5="036bc9b547a50f78b960ef8f14d0e1fb",
    ),
}


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
        """The folder's name; for a folder in the hub's cache, that of its repository ("cvssp/audioldm")."""
        repository = self.path.parent.parent.name
        if self.path.parent.name == "snapshots" and repository.startswith("models--"):
            return repository.removeprefix("models--").replace("--", "/", 1)
        return self.path.name

    @property
    def defaults(self) -> dict[str, Any]:
        """What GenerateOptions should be for this model where the user says nothing."""
        return self.index.get("defaults", {})

    @property
    def in_hub_layout(self) -> bool:
        """Whether this is a folder of diffusers' AudioLDMPipeline, not one of ours."""
        return self.index.get("_class_name") == HUB_PIPELINE

    @property
    def hears(self) -> bool:
        """Whether there is CLAP's audio tower, which ranking and sounds as prompts need."""
        return self.part("clap").name == "clap"

    @property
    def tokenizer(self) -> Path:
        """The folder with the files of CLAP's tokenizer; clap.tokenizer.read_tokenizer reads them."""
        return self.path / ("tokenizer" if self.in_hub_layout else "clap")

    def part(self, name: str) -> Path:
        """The folder of a part; "clap" is text_encoder/ in the hub's layout, unless a clap/ was put beside it."""
        if name == "clap" and self.in_hub_layout and not (self.path / "clap").is_dir():
            return self.path / "text_encoder"
        return self.path / name

    def weights(self, part: str) -> Path:
        """The file with the weights of a part ("unet", "clap" …). Raises InputError if there is none."""
        for name in WEIGHTS:
            if (self.part(part) / name).is_file():
                return self.part(part) / name
        names = " or ".join(WEIGHTS[:2])
        raise InputError(f"the model folder {self.path} has no weights in {self.part(part).name}/ ({names})")

    def files(self) -> list[Path]:
        """What makes the model: its index, references and the files of its parts, sorted."""
        own = [self.path / name for name in (INDEX, "reference.safetensors", "sounds.json")]
        folders = {self.part(part) for part in (*WEIGHTED_PARTS, "scheduler")} | {self.tokenizer}
        parts = [path for folder in folders for path in folder.glob("*")]
        return sorted(path for path in own + parts if path.is_file())

    def sha256(self) -> str:
        """One hash over names and contents of all files: 64 hex digits. About a second for a gigabyte."""
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(f"{path.relative_to(self.path).as_posix()} {sha256(path)}\n".encode())
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
    pipeline = index.get("_class_name")
    if isinstance(pipeline, str) and pipeline.endswith("Pipeline") and not folder.in_hub_layout:
        raise InputError(f"{path} is a model of diffusers' {pipeline}; only {HUB_PIPELINE} can be read")
    for part in WEIGHTED_PARTS:
        if part in index or (folder.in_hub_layout and part != "clip"):
            folder.weights(part)
    if folder.in_hub_layout and folder.hears:
        from .hub import check_audio_tower

        check_audio_tower(folder)
    return folder


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
        from .download import checkpoint

        return _converted(checkpoint(name), name)
    path = Path(os.path.expanduser(name))
    if name and os.path.exists(path):
        return open_path(path)
    # owner/name is also how a path in a folder looks: only if there is no such folder, the hub is asked
    if HUB_ID.fullmatch(name) and not os.path.exists(path.parent) and path.suffix != ".ckpt":
        from .hub import snapshot

        return open_folder(snapshot(name))
    if path.suffix == ".ckpt":
        raise InputError(f"no such checkpoint file: {name}")
    if len(path.parts) > 1:
        raise InputError(f"no such model folder: {name}")
    raise InputError(f'unknown model "{name}"{did_you_mean(name, all_names())}')


def _converted(checkpoint: Path, name: str | None = None) -> ModelFolder:
    from .convert import cached

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
    return f"; there is {', '.join(known)}" if known else "; none is installed"
