"""Which translator for this model: find it, load it, or make a memory of captions."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from translator import settings, zoo
from translator.programs import program

from . import registry
from .checkpoints.layout import ModelFolder, cache_dir
from .checkpoints.spaces import CLAP_PROJECTIONS, CLIP_PROJECTIONS, dimension
from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .latent_diffusion.model import LatentDiffusion

CAPTIONS = "captions.txt"  # beside the bundled translators: what a memory of any model remembers
BETTER = "audiocaps_cos_512"  # than a memory, and all that its training needs comes with the package
THESIS = (
    "%s does not name its spaces. The thesis trained towards the space of laion_clap's default checkpoint, in which no "
    "model here lives; a translator that was trained so makes unrelated sounds"
)

log = logging.getLogger("audioldm")


def home() -> Path:
    """Where installed translators are, and memories that were made: <clip space>-<clap space>/<name>.safetensors."""
    return cache_dir() / "translators"


def roots(model: LatentDiffusion) -> list[Path]:
    """Where translators for ``model`` are looked for, first one first."""
    unkept = [] if model.scratch is None else [Path(model.scratch.name)]
    return [home(), *unkept, model.folder.path.parent / "translators", registry.models_dir() / "translators"]


def how_to_make(name: str, model: str) -> str:
    """The command that makes the translator called ``name`` for the model called ``model``."""
    option = "" if model == registry.DEFAULT_MODEL else f" --model {shlex.quote(model)}"
    pictures = name not in settings.CLOSED_FORM and "wit" in settings.parse(name).sources
    data = " --wit sample --contact YOUR@MAIL" if pictures else ""
    return f"{program('audioldm-translator')} make {name}{option}{data}"


def name_of(folder: ModelFolder) -> str:
    """What --model_name and --model call the model in ``folder``: its name, or its path."""
    own = folder.name
    return own if own in registry.all_names() or "/" in own else str(folder.path)  # "/": of the hub


def check_before_download(name: str | None, model: str) -> None:
    """Raise InputError if the model called ``model`` must be downloaded and cannot have the translator ``name``.

    Its spaces are not known yet. But there must be a translator of that name, and not of a bundled model.
    """
    if name in (None, settings.MEMORY) or registry.is_here(model):
        return
    if zoo.is_path(name):
        namesakes = [zoo.read_entry(Path(os.path.expanduser(name)))]
    else:
        namesakes = [entry for entry in zoo.available(home()) if entry.name == name]
    bundled = {entry.spaces for entry in zoo.available(registry.models_dir() / "translators")}
    if all(entry.spaces in bundled for entry in namesakes):
        known = name if settings.is_known(name) else BETTER
        near = "" if known == name else registry.did_you_mean(name, list(settings.KNOWN))
        raise InputError(
            f'there is no translator "{name}" for {model}{near}; without --translator, {settings.MEMORY} is used, '
            f"which needs no training; to make one: {how_to_make(known, model)}"
        )


def default_name(model: LatentDiffusion) -> str:
    """The translator for pictures if none is named: the model's own choice, else the best one that was trained for
    its spaces, else a memory."""
    given = model.folder.index.get("default_translator")
    if given is not None:
        return given
    entries = (entry for root in dict.fromkeys(roots(model)) for entry in zoo.available(root))
    trained = {entry.name for entry in entries if entry.fits(*model.spaces)} - {settings.MEMORY}
    return min(trained, key=settings.preference, default=settings.MEMORY)


def find(model: LatentDiffusion, name: str | None = None) -> zoo.Entry:
    """The translator file called ``name`` (or at that path; None: the model's default) for the spaces of ``model``.

    Raises InputError: unknown name, with the nearest ones, or a translator of other spaces.
    """
    name = default_name(model) if name is None else name
    try:
        return zoo.find(name, roots(model), *model.spaces, settings.KNOWN)
    except InputError as error:
        if not settings.is_known(name) or name == settings.MEMORY:
            raise
        raise InputError(
            f"{error}; {settings.MEMORY} needs no training; to make this one: "
            f"{how_to_make(name, name_of(model.folder))}"
        ) from None


def find_or_make(model: LatentDiffusion, name: str | None = None) -> zoo.Entry:
    """As ``find``; but a missing "memory", which suits every model, is made. Raises InputError."""
    name = default_name(model) if name is None else name
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
        if None in entry.spaces:
            log.warning(THESIS, entry.path)
        if name is None and entry.name == settings.MEMORY:
            log.warning(
                '%s has no trained translator: "%s" is used, which needs no training; a better one: %s',
                model.folder.name, settings.MEMORY, how_to_make(BETTER, name_of(model.folder)),
            )  # fmt: skip
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

    Returns its file, which the next run finds; if it cannot be kept, one that lasts as long as ``model``. Raises
    InputError.
    """
    from translator.model import Memory, save_translator

    clip_space, clap_space = model.spaces
    captions = (registry.models_dir() / "translators" / CAPTIONS).read_text(encoding="utf-8").splitlines()
    log.warning("%s reads %d captions with both text towers, once", model.folder.name, len(captions))
    clip, clap = _encode(model, captions)
    memory = Memory(clip, clap, captions)
    facts = {"name": settings.MEMORY, "kind": "memory", "clip_space": clip_space, "clap_space": clap_space}
    name = Path(f"{clip_space}-{clap_space}") / f"{settings.MEMORY}.safetensors"
    try:
        save_translator(home() / name, memory, {**facts, **memory.facts()})
        return home() / name
    except OSError as error:
        reason = error.strerror
    try:
        model.scratch = tempfile.TemporaryDirectory(prefix="audioldm-")
        path = Path(model.scratch.name) / name
        save_translator(path, memory, {**facts, **memory.facts()})
    except OSError:
        raise InputError(f"cannot save the memory in {(home() / name).parent}: {reason}") from None
    log.warning("the memory is not kept, as %s cannot be written: %s", home(), reason)
    return path


def _encode(model: LatentDiffusion, captions: list[str]) -> list[Tensor]:
    """The (N, dim) of CLIP's text tower and of CLAP's; a bar for people."""
    from tqdm import tqdm

    from .clap.bulk import encode_all

    towers = (model.clip.encode_text_batch, model.clap.encode_text_batch)
    with tqdm(total=2 * len(captions), unit="captions", file=sys.stderr, leave=False, disable=None) as bar:
        return [encode_all(tower, model.device, captions, bar.update) for tower in towers]
