"""A model on disk: a folder in the diffusers layout, and the embedding spaces of its towers.

Two kinds of folders are read: ours, whose ``clap/`` holds both towers of CLAP and its tokenizer, and the one that
diffusers' AudioLDMPipeline saves, as in the hub's cvssp/audioldm repositories, with ``text_encoder/`` and
``tokenizer/`` instead and no audio tower.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from translator.files import sha256
from translator.zoo import rename

from ..errors import InputError
from .tensors import read_arrays, read_tensors

INDEX = "model_index.json"
WEIGHTS = (  # diffusers' and transformers' names, in order of preference
    "diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin", "pytorch_model.bin",
)  # fmt: skip
WEIGHTED_PARTS = ("unet", "vae", "vocoder", "clap", "clip")
HUB_PIPELINE = "AudioLDMPipeline"  # the class that the index of a folder in the hub's layout names
CACHE_VARIABLE = "AUDIOLDM_CACHE_DIR"
DEFAULT_CACHE = "~/.cache/audioldm"  # upstream's: its downloads are found there, and checked
CLIP_PROJECTIONS = ("visual_projection.weight", "text_projection.weight")  # their weights name the space
CLAP_PROJECTIONS = ("text_projection.linear1.weight", "text_projection.linear2.weight")
CLAP_BOTH_TOWERS = ("text_projection.linear1.weight", "audio_projection.linear1.weight")


def cache_dir() -> Path:
    """The folder for checkpoints: AUDIOLDM_CACHE_DIR of the environment, else ~/.cache/audioldm."""
    return Path(os.path.abspath(os.path.expanduser(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE)))


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk whose index was read and whose files are all there."""

    path: Path
    index: dict[str, Any]
    called: str | None = None  # the name that opened it, as registry.find_model knows it; None: a path did

    @property
    def name(self) -> str:
        """The folder's name; for a folder in the hub's cache, the repository's name ("cvssp/audioldm")."""
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
        """The folder of a part; "clap" is text_encoder/ in the hub's layout unless there is a clap/."""
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder. Raises InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"the model's file {path} is missing or damaged")
    return content


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """While the block uses what read_json returned: raise InputError if a value is missing or of the wrong type."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise InputError(f"the model's file {path} has a missing or wrong value ({reason})") from error


def open_folder(path: str | Path) -> ModelFolder:
    """Read a model folder's index and check that every part is there. Raises InputError."""
    if not os.fspath(path):
        raise InputError("the model folder's name is empty")
    path = Path(os.path.abspath(os.path.expanduser(path)))
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = "no" if isinstance(error, FileNotFoundError | NotADirectoryError) else "an unreadable"
        why = f"{path} is not a model folder: it has {what} {INDEX}"
        raise InputError(why if os.path.lexists(path) else f"no such model folder: {path}") from None
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
        _check_audio_tower(folder)
    return folder


def _check_audio_tower(folder: ModelFolder) -> None:
    """See that the clap/ that was put into a folder of the hub's layout is of the same space as its text_encoder/.

    Raises InputError.
    """
    text, audio = CLAP_BOTH_TOWERS
    ours = read_tensors(folder.weights("clap"), CLAP_BOTH_TOWERS)
    encoder = ModelFolder(folder.path / "text_encoder", {}).weights(".")
    wanted, given = read_tensors(encoder, (text,)).get(text), ours.get(text)
    if audio not in ours:
        raise InputError(f"{folder.path / 'clap'} has no audio tower; remove it")
    if wanted is None or given is None or given.shape != wanted.shape or not given.allclose(
        wanted, rtol=1e-2, atol=1e-4  # one of them may be stored in 16 bits
    ):
        raise InputError(f"{folder.path / 'clap'} belongs to a different model than text_encoder/ beside it")


def fingerprint(weights: Path, projections: Sequence[str], dtype: str = "<f4") -> str:
    """The name of a space: the first 12 hex digits of the SHA-256 of the projections in a weights file.

    ``dtype``: the type to which their numbers are rounded first: "<f4", float32, or "<f2", float16, which gives a
    model the same fingerprint when it is saved in half precision. Raises InputError.
    """
    content = b"".join(array.astype(dtype).tobytes() for array in read_arrays(weights, projections))
    return hashlib.sha256(content).hexdigest()[:12]


def clip_fingerprint(weights: Path) -> str:
    """The space of a CLIPModel or VisionTextDualEncoderModel. Raises InputError."""
    return fingerprint(weights, CLIP_PROJECTIONS)


def clap_fingerprint(weights: Path) -> str:
    """The space of a ClapModel or ClapTextModelWithProjection. Raises InputError.

    The text tower's projection alone names it, so that a model of the hub, which has no audio tower, is in the same
    space as the original checkpoint. Both towers were trained into one space.
    """
    space = fingerprint(weights, CLAP_PROJECTIONS, "<f2")
    with suppress(InputError):  # without an audio tower it never had another name
        rename(fingerprint(weights, CLAP_BOTH_TOWERS), space)
    return space
