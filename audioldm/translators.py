"""Which translator for this model: find it, load it, or make a memory of captions."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from translator import settings, zoo

from . import registry
from .checkpoints.layout import ModelFolder, cache_dir
from .checkpoints.spaces import CLAP_PROJECTIONS, CLIP_PROJECTIONS, dimension
from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .latent_diffusion.model import LatentDiffusion

CAPTIONS = "captions.txt"  # beside the bundled translators: what a memory of any model remembers
BATCH = 64  # captions at once
EMBED = {  # what makes the shards of a source
    "audiocaps": "audiocaps.embedding",
    "wit": "wit.embedding WIT.tsv.gz --contact you@example.org",
}

log = logging.getLogger("audioldm")


def home() -> Path:
    """Where installed translators are, and memories that were made: <clip space>-<clap space>/<name>.safetensors."""
    return cache_dir() / "translators"


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


def find(model: LatentDiffusion, name: str | None = None) -> zoo.Entry:
    """The translator file called ``name`` (or at that path; None: the model's default) for the spaces of ``model``.

    Raises InputError: unknown name, with the nearest ones, or a translator of other spaces.
    """
    name = model.folder.index.get("default_translator") if name is None else name
    if name is None:
        raise InputError(f"{model.folder.name} has no translator for pictures; {ways(model)}")
    try:
        return zoo.find(name, roots(model.folder), *model.spaces)
    except InputError as error:
        way = f"; {ways(model, name)}" if settings.trainable(name) else ""
        raise InputError(f"{error}{way}") from None


def find_or_make(model: LatentDiffusion, name: str | None = None) -> zoo.Entry:
    """As ``find``; but a missing "memory", which suits every model, is made. Raises InputError."""
    try:
        return find(model, name)
    except InputError:
        if name != settings.MEMORY:
            raise
        return zoo.read_entry(make_memory(model))


def load(model: LatentDiffusion, name: str | None = None) -> nn.Module:
    """The translator that ``find_or_make`` returns, loaded once for the model. Raises InputError."""
    entry = find_or_make(model, name)  # before torch is imported, which takes seconds
    if entry.path not in model.translators:
        from translator.model import load_translator

        translator = load_translator(entry.path)
        _check_dimensions(model, entry, cast(int, translator.dim))
        model.translators[entry.path] = translator
    return model.translators[entry.path]


def _check_dimensions(model: LatentDiffusion, entry: zoo.Entry, dim: int) -> None:
    """A .pth file does not say which spaces it belongs to, but their dimensions must be its own."""
    clip = dimension(model.clip_files[1], CLIP_PROJECTIONS)
    clap = dimension(model.folder.weights("clap"), CLAP_PROJECTIONS)
    if not dim == clip == clap:
        raise InputError(
            f'the translator "{entry.name}" is for spaces of {dim} dimensions, '
            f"but this model's CLIP space has {clip} and its CLAP space {clap}"
        )


def make_memory(model: LatentDiffusion) -> Path:
    """Make the translator ``memory`` for the spaces of ``model``: both its text towers read the bundled captions.

    Returns its file, which the next run finds. Raises InputError.
    """
    from translator.model import Memory, save_translator

    clip_space, clap_space = model.spaces
    captions = (registry.models_dir() / "translators" / CAPTIONS).read_text(encoding="utf-8").splitlines()
    path = home() / f"{clip_space}-{clap_space}" / f"{settings.MEMORY}.safetensors"
    log.warning("%s reads %d captions with both text towers, once", model.folder.name, len(captions))
    clip = _encode_all(model.clip.encode_text_batch, captions)
    memory = Memory(clip, _encode_all(model.clap.encode_text_batch, captions), captions)
    facts = {"name": settings.MEMORY, "kind": "memory", "clip_space": clip_space, "clap_space": clap_space}
    try:
        save_translator(path, memory, {**facts, **memory.facts()})
    except OSError as error:
        raise InputError(f"cannot save the memory in {path.parent}: {error.strerror}") from None
    return path


def _encode_all(encode: Callable[[Sequence[str]], Tensor], captions: Sequence[str]) -> Tensor:
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
