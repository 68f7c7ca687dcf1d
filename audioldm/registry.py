"""Models and translators by name: find them, open them, and make a memory of captions where no translator is.

A model is bundled, published by AudioLDM, in the hub, or a folder of the user's own.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from translator import settings, zoo

from .checkpoints.layout import (
    CLAP_PROJECTIONS,
    CLIP_PROJECTIONS,
    INDEX,
    ModelFolder,
    cache_dir,
    dimension,
    open_folder,
)  # fmt: skip
from .checkpoints.published import UPSTREAM
from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .latent_diffusion.model import LatentDiffusion

DEFAULT_MODEL = "starter"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/name
CAPTIONS = "captions.txt"  # beside the bundled translators: what a memory of any model remembers
BATCH = 64  # captions at once
EMBED = {  # what makes the shards of a source
    "audiocaps": "audiocaps.embedding",
    "wit": "wit.embedding WIT.tsv.gz --contact you@example.org",
}

log = logging.getLogger("audioldm")


def build_model(
    ckpt_path: str | Path | None = None,
    config: None = None,
    model_name: str = DEFAULT_MODEL,
    device: str | None = None,
) -> LatentDiffusion:
    """The model called ``model_name`` (or at that path), or in the folder or checkpoint file ``ckpt_path``.

    Its parts are read on first use. ``device``: "cpu", "cuda" … or None, which is a GPU if there is one.
    ``config`` is there for upstream's sake: a model folder carries its own. Raises InputError.
    """
    from .latent_diffusion.model import LatentDiffusion

    if config is not None:
        raise InputError("config must be None: the model's folder holds its configuration")
    named = model_name if ckpt_path is None else ckpt_path
    if not isinstance(named, str | os.PathLike):
        raise InputError(f"a model is given by its name or path, not by {type(named).__name__}")
    folder = find_model(model_name) if ckpt_path is None else open_path(ckpt_path)
    return LatentDiffusion(folder, "auto" if device is None else device)


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


def find_model(name: str) -> ModelFolder:
    """The model called ``name``: bundled, published by AudioLDM, at the path ``name`` or in the hub's repository.

    What is not there yet is downloaded; a checkpoint is converted at first use, which takes a minute and torch.
    Raises InputError, with the nearest names.
    """
    if name in model_names():
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


def _converted(checkpoint: Path, name: str | None = None) -> ModelFolder:
    from .convert.checkpoint import cached

    return open_folder(cached(checkpoint, name))


def model_names() -> list[str]:
    """Names of the bundled models."""
    return sorted(path.parent.name for path in models_dir().glob(f"*/{INDEX}"))


def all_names() -> list[str]:
    """Names that find_model knows: the bundled models, and AudioLDM's checkpoints, which it downloads."""
    return [*model_names(), *UPSTREAM]


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; available: {', '.join(known)}" if known else "; none is installed"


def translators_home() -> Path:
    """Where installed translators are, and memories that were made: <clip space>-<clap space>/<name>.safetensors."""
    return cache_dir() / "translators"


def translator_roots(folder: ModelFolder) -> list[Path]:
    """Where translators for the model in ``folder`` are looked for, first one first."""
    return [translators_home(), folder.path.parent / "translators", models_dir() / "translators"]


def describe_alternatives(model: LatentDiffusion, name: str = "audiocaps_cos_512") -> str:
    """How a model comes by a translator that it lacks."""
    name_of_model = model.folder.name
    if name_of_model not in all_names() and "/" not in name_of_model:  # nor the hub's
        name_of_model = shlex.quote(str(model.folder.path))
    option = "" if name_of_model == DEFAULT_MODEL else f" --model {name_of_model}"
    sources = ("audiocaps",) if name in settings.CLOSED_FORM else settings.parse(name).sources
    steps = [f"python -m prior_steps.{EMBED[source]}{option} --out shards/{source}" for source in sources]
    steps += [f"audioldm-translator train {name} --data shards"]
    steps += [f"audioldm-translator install translators/{name}.safetensors"]
    return f"--translator memory works at once, without training; or train one: {' && '.join(steps)}"


def find_translator(model: LatentDiffusion, name: str | None = None) -> zoo.Entry:
    """The translator file called ``name`` (or at that path; None: the model's default) for the spaces of ``model``.

    Raises InputError: unknown name, with the nearest ones, or a translator of other spaces.
    """
    name = model.folder.index.get("default_translator") if name is None else name
    if name is None:
        raise InputError(f"{model.folder.name} has no translator for pictures; {describe_alternatives(model)}")
    try:
        return zoo.find(name, translator_roots(model.folder), *model.spaces)
    except InputError as error:
        way = f"; {describe_alternatives(model, name)}" if settings.trainable(name) else ""
        raise InputError(f"{error}{way}") from None


def find_or_make_translator(model: LatentDiffusion, name: str | None = None) -> zoo.Entry:
    """As ``find_translator``; but a missing "memory", which suits every model, is made. Raises InputError."""
    try:
        return find_translator(model, name)
    except InputError:
        if name != settings.MEMORY:
            raise
        return zoo.read_entry(make_memory(model))


def load_translator(model: LatentDiffusion, name: str | None = None) -> nn.Module:
    """The translator that ``find_or_make_translator`` returns, loaded once for the model. Raises InputError."""
    entry = find_or_make_translator(model, name)  # before torch is imported, which takes seconds
    if entry.path not in model.translators:
        from translator import model as networks

        translator = networks.load_translator(entry.path)
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
    captions = (models_dir() / "translators" / CAPTIONS).read_text(encoding="utf-8").splitlines()
    path = translators_home() / f"{clip_space}-{clap_space}" / f"{settings.MEMORY}.safetensors"
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
