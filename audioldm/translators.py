"""The command ``audioldm-translator``, and what a model lends to translators: its spaces, its towers, its captions."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from translator import TranslatorError, settings, zoo

from .checkpoints import download, registry
from .checkpoints.registry import ModelFolder
from .cli import Parser, command
from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from translator.evaluation.pictures import Picture

    from .latent_diffusion import LatentDiffusion

CAPTIONS = "captions.txt"  # beside the bundled translators: what a memory of any model remembers
BATCH = 64  # captions at once
EMBED = {  # what makes the shards of a source
    "audiocaps": "audiocaps.embedding",
    "wit": "wit.embedding WIT.tsv.gz --contact you@example.org",
}

log = logging.getLogger("audioldm")


def home() -> Path:
    """Where installed translators are, and memories that were made: <clip space>-<clap space>/<name>.safetensors."""
    return download.cache_dir() / "translators"


def roots(folder: ModelFolder) -> list[Path]:
    """Where translators for the model in ``folder`` are looked for, first one first."""
    return [home(), folder.path.parent / "translators", registry.models_dir() / "translators"]


def ways(model: LatentDiffusion, name: str = "audiocaps_cos_512") -> str:
    """How a model comes by a translator that it lacks."""
    name_of_model = model.folder.name
    if name_of_model not in registry.all_names() and "/" not in name_of_model:  # nor the hub's
        name_of_model = shlex.quote(str(model.folder.path))
    option = "" if name_of_model == registry.DEFAULT_MODEL else f" --model {name_of_model}"
    sources = ("audiocaps",) if name in settings.CLOSED_FORM else settings.parse(name).sources
    steps = [f"python -m prior_steps.{EMBED[source]}{option} --out shards/{source}" for source in sources]
    steps += [f"audioldm-translator train {name} --data shards"]
    steps += [f"audioldm-translator install translators/{name}.safetensors"]
    return f"--translator memory works at once, without training; or train one: {' && '.join(steps)}"


def remember(model: LatentDiffusion) -> Path:
    """Make the translator ``memory`` for the spaces of ``model``: both its text towers read the bundled captions.

    Returns its file, which the next run finds. Raises InputError.
    """
    from translator.model import Memory, save_translator

    clip_space, clap_space = model.spaces
    captions = (registry.models_dir() / "translators" / CAPTIONS).read_text(encoding="utf-8").splitlines()
    path = home() / f"{clip_space}-{clap_space}" / f"{settings.MEMORY}.safetensors"
    log.warning("%s reads %d captions with both text towers, once", model.folder.name, len(captions))
    vectors = [_read(encode, captions) for encode in (model.clip.encode_text_batch, model.clap.encode_text_batch)]
    memory = Memory(*vectors, captions)
    facts = {"name": settings.MEMORY, "kind": "memory", "clip_space": clip_space, "clap_space": clap_space}
    try:
        save_translator(path, memory, {**facts, **memory.facts()})
    except OSError as error:
        raise InputError(f"the memory cannot be kept in {path.parent}: {error.strerror}") from None
    return path


def _read(encode: Callable[[Sequence[str]], Tensor], captions: Sequence[str]) -> Tensor:
    """(N, dim) of ``captions``, those of like length together; a bar for people."""
    import torch
    from tqdm import tqdm

    order = sorted(range(len(captions)), key=lambda row: len(captions[row]))
    with tqdm(total=len(order), unit="captions", file=sys.stderr, leave=False, disable=None) as bar:
        parts = []
        for start in range(0, len(order), BATCH):
            parts.append(encode([captions[row] for row in order[start : start + BATCH]]).cpu())
            bar.update(len(parts[-1]))
    return torch.cat(parts)[torch.tensor(order).argsort()]


class Host:
    """A model, as ``translator.cli`` asks for it."""

    def __init__(self, name: str | None) -> None:
        from .pipeline import build_model

        self.model = build_model(model_name=registry.DEFAULT_MODEL if name is None else name)
        self.name, self.spaces = self.model.folder.name, self.model.spaces
        self.roots, self.home = roots(self.model.folder), home()
        self.default: str | None = self.model.folder.index.get("default_translator")

    def find(self, name: str) -> zoo.Entry:
        """The translator called ``name``, or the file there; a memory is made. Raises InputError."""
        return self.model.find_translator(name)

    @property
    def dim(self) -> int:
        return self.model.dimension

    @property
    def sounds(self) -> dict[str, str]:
        from .checkpoints.folder import read_json, using

        path = self.model.folder.path / "sounds.json"
        if not path.is_file():
            raise InputError(f"{self.name} does not say which sounds it knows")
        with using(path):
            return {sound["name"]: sound["prompt"] for sound in read_json(path)["sounds"]}

    @cached_property
    def encoders(self) -> Encoders:
        return Encoders(self.model)

    def imagehear(self) -> list[Picture]:
        from translator.evaluation.imagehear import photographs

        from .fetch import download as fetch

        accept = {"Accept": "application/json, image/*"}  # the listing's server wants the first to be named
        return photographs(download.cache_dir() / "imagehear", lambda url: fetch(url, headers=accept))


class Encoders:
    """The towers of a model, as ``translator.evaluate`` asks for them."""

    def __init__(self, model: LatentDiffusion) -> None:
        self.model, self.name, self.spaces = model, model.folder.name, model.spaces

    def image(self, source: str) -> Tensor:
        """(1, dim) of the picture at a URL or in a file. Raises InputError."""
        from .images import load_image

        return self.model.clip.encode_image([load_image(source)]).cpu()

    def clip_text(self, texts: Sequence[str]) -> Tensor:
        """(N, dim), not normalised."""
        return self.model.clip.encode_text(texts).cpu()

    def clap_text(self, texts: Sequence[str]) -> Tensor:
        """(N, dim) unit vectors."""
        return self.model.clap.encode_text(texts).cpu()


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``audioldm-translator``; returns its exit code."""
    return command(lambda: _run(argv), as_program=argv is None, name="audioldm-translator")


def _run(argv: Sequence[str] | None) -> int:
    from translator import cli

    parser = Parser("audioldm-translator", allow_abbrev=False)
    cli.add_arguments(parser)
    try:
        return cli.run(parser.parse_args(argv), Host)
    except TranslatorError as error:
        raise InputError(str(error)) from None
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install audioldm-vision[train] brings it") from None
