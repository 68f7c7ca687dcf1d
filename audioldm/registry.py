"""Models and translators by name: find them, open them, and make a memory of captions where no translator is.

A model is bundled, published by AudioLDM, in the hub, or a folder of the user's own.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from translator import settings, zoo
from translator.programs import program

from .checkpoints.layout import (
    CLAP_PROJECTIONS,
    CLIP_PROJECTIONS,
    INDEX,
    ModelFolder,
    cache_dir,
    open_folder,
    read_arrays,
)
from .checkpoints.published import UPSTREAM
from .errors import InputError
from .memory import make_memory

if TYPE_CHECKING:
    from torch import nn

    from .latent_diffusion.model import LatentDiffusion

DEFAULT_MODEL = "starter"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/name
DIMENSIONS = 512  # of AudioLDM's CLAP, and of the CLIP for models that bring none
CAPTIONS = "captions.txt"  # beside the bundled translators: the captions of every memory
BETTER = "audiocaps_cos_512"  # than a memory, and all that its training needs comes with the package

log = logging.getLogger("audioldm")


def build_model(
    ckpt_path: str | Path | None = None,
    config: None = None,
    model_name: str = DEFAULT_MODEL,
    device: str | None = None,
    *,
    precision: str | None = None,
    batch: int | None = None,
) -> LatentDiffusion:
    """The model called ``model_name`` (or at that path), or in the folder or checkpoint file ``ckpt_path``.

    Its parts are read on first use. ``config`` is there for upstream's sake: a model folder carries its own.
    Raises InputError.

    Args:
        device: "cpu", "cuda", "mps" … or None, which is a GPU if there is one.
        precision: "fp32", "bf16", "fp16" or None, which is the fastest that is good enough on the device.
        batch: sounds and candidates to denoise together, 1 to 64; None: as many as save time on the device.
    """
    from .latent_diffusion.model import LatentDiffusion, check_how

    if config is not None:
        raise InputError("config must be None: the model's folder holds its configuration")
    named = model_name if ckpt_path is None else ckpt_path
    if not isinstance(named, str | os.PathLike):
        raise InputError(f"a model is given by its name or path, not by {type(named).__name__}")
    device, precision = ("auto" if one is None else one for one in (device, precision))
    check_how(device, precision, batch)
    folder = find_model(model_name) if ckpt_path is None else open_path(ckpt_path)
    return LatentDiffusion(folder, device, precision, batch)


def models_dir() -> Path:
    """The folder with the bundled models: ``audioldm/models`` when installed, ``models`` in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def is_here(name: str) -> bool:
    """Whether ``find_model`` would open the model without a download."""
    if name in UPSTREAM:
        from .checkpoints.download import checkpoint_path

        return checkpoint_path(name).is_file()
    if name in model_names() or os.path.exists(os.path.expanduser(name)) or not HUB_ID.fullmatch(name):
        return True
    from .checkpoints.hub import is_cached

    return is_cached(name)


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
        return replace(open_folder(models_dir() / name), called=name)
    if name in UPSTREAM:
        from .checkpoints.download import checkpoint

        return replace(_converted(checkpoint(name), name), called=name)
    path = Path(os.path.expanduser(name))
    if name and os.path.exists(path):
        return open_path(path)
    # owner/name is also how a path in a folder looks: only if there is no such folder, the hub is asked
    if HUB_ID.fullmatch(name) and not os.path.exists(path.parent) and path.suffix != ".ckpt":
        from .checkpoints.hub import snapshot

        return replace(open_folder(snapshot(name)), called=name)
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


def translator_roots(model: LatentDiffusion) -> list[Path]:
    """Where translators for ``model`` are looked for, first one first."""
    unkept = [] if model.scratch is None else [Path(model.scratch.name)]
    return [translators_home(), *unkept, model.folder.path.parent / "translators", models_dir() / "translators"]


def how_to_make(name: str, model: str) -> str:
    """The command that makes the translator called ``name`` for the model called ``model``."""
    option = "" if model == DEFAULT_MODEL else f" --model {shlex.quote(model)}"
    data = " --wit sample --contact YOUR@MAIL" if settings.needs_pictures(name) else ""
    return f"{program('audioldm-translator')} make {name}{option}{data}"


def name_of(folder: ModelFolder) -> str:
    """What --model_name and --model call the model in ``folder``: its name, or its absolute path."""
    return folder.called or str(folder.path)


def check_before_download(name: str | None, model: str) -> None:
    """Raise InputError if the model called ``model``, or at that path, cannot have the translator ``name``, as far as
    that can be known before it is downloaded or converted."""
    far = model in UPSTREAM or os.path.isfile(os.path.expanduser(model)) or not is_here(model)
    if name not in (None, settings.MEMORY):
        _check_before_spaces(name, model, None if far else find_model(model))


def _check_before_spaces(name: str, model: str, folder: ModelFolder | None) -> None:
    """Raise InputError if a model whose spaces are not known yet cannot have the translator ``name``.

    They are known once the model and its CLIP are there. Before, a file can be loaded, and of a name there must be a
    file: of the bundled ones none will do, as bundled models bring their own CLIP. ``folder``: None: it is not there.
    """
    if name == settings.MEMORY or folder is not None and folder.part("clip").is_dir():
        return
    bundled = {entry.spaces for entry in zoo.available(models_dir() / "translators")}
    if zoo.is_path(name):
        entry = zoo.read_entry(Path(os.path.expanduser(name)))
        if entry.spaces in bundled:
            raise InputError(f'the translator "{name}" belongs to a bundled model, and works only with that')
        from translator import model as networks

        _check_dimensions(entry, networks.load_translator(entry.path).dim, DIMENSIONS, DIMENSIONS)
        return
    roots = [translators_home(), *([] if folder is None else [folder.path.parent / "translators"])]
    known = [entry.name for root in roots for entry in zoo.available(root) if entry.spaces not in bundled]
    if name not in known:
        raise _with_command(zoo.missing(name, known, _possible(name)), name, model)


def _possible(name: str) -> Iterator[str]:
    """Names that every model's translators can have; ``name`` is among them if it is a variant of one."""
    yield from settings.KNOWN
    if settings.is_known(name):
        yield name


def _with_command(error: InputError, name: str, model: str) -> InputError:
    """``error``, that there is no translator ``name``, with the command that makes it, if it is no mistyped name."""
    if not settings.is_known(name) or name == settings.MEMORY:
        return error
    return InputError(f"{error}; {settings.MEMORY} needs no training; to make this one: {how_to_make(name, model)}")


def default_name(model: LatentDiffusion) -> str:
    """The translator for pictures if none is named: the model's own choice, else the best one that was trained for
    its spaces, else a memory."""
    given = model.folder.index.get("default_translator")
    if given is not None:
        return given
    entries = (entry for root in dict.fromkeys(translator_roots(model)) for entry in zoo.available(root))
    trained = {entry.name for entry in entries if entry.fits(*model.spaces) and not entry.unnamed} - {settings.MEMORY}
    return min(trained, key=settings.preference, default=settings.MEMORY)


def find_translator(model: LatentDiffusion, name: str | None = None) -> zoo.Entry:
    """The translator file called ``name`` (or at that path; None: the model's default) for the spaces of ``model``.

    Raises InputError: unknown name, with the nearest ones, or a translator of other spaces.
    """
    name = default_name(model) if name is None else name
    called = name_of(model.folder)
    if not model.has_clip:
        _check_before_spaces(name, called, model.folder)
    try:
        return zoo.find(name, translator_roots(model), *model.spaces, _possible(name))
    except InputError as error:
        raise _with_command(error, name, called) from None


def find_or_make_translator(model: LatentDiffusion, name: str | None = None) -> zoo.Entry:
    """As ``find_translator``; but a missing "memory", which suits every model, is made. Raises InputError."""
    name = default_name(model) if name is None else name
    try:
        return find_translator(model, name)
    except InputError:
        if name != settings.MEMORY:
            raise
        return zoo.read_entry(make_memory(model, models_dir() / "translators" / CAPTIONS, translators_home()))


def load_translator(model: LatentDiffusion, name: str | None = None) -> nn.Module:
    """The translator that ``find_or_make_translator`` returns, loaded once for the model. Raises InputError."""
    entry = find_or_make_translator(model, name)  # before torch is imported, which takes seconds
    if entry.path not in model.translators:
        from translator import model as networks

        translator = networks.load_translator(entry.path)
        clip = len(read_arrays(model.clip_files[1], CLIP_PROJECTIONS[:1])[0])
        clap = len(read_arrays(model.folder.weights("clap"), CLAP_PROJECTIONS[:1])[0])
        _check_dimensions(entry, translator.dim, clip, clap)
        if entry.unnamed:
            log.warning(zoo.UNNAMED.format(entry.path))
        if name is None and entry.name == settings.MEMORY:
            log.warning(
                '%s has no trained translator: "%s" is used, which needs no training; a better one: %s',
                model.folder.name, settings.MEMORY, how_to_make(BETTER, name_of(model.folder)),
            )  # fmt: skip
        model.translators[entry.path] = translator
    return model.translators[entry.path]


def _check_dimensions(entry: zoo.Entry, dim: int, clip: int, clap: int) -> None:
    """A .pth file does not say which spaces it belongs to, but their dimensions must be its own."""
    if not dim == clip == clap:
        raise InputError(
            f'the translator "{entry.name}" is for spaces of {dim} dimensions, '
            f"but this model's CLIP space has {clip} and its CLAP space {clap}"
        )
