"""Make the translator ``memory``, which needs no training: captions in CLIP's space and in CLAP's."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from translator import settings

from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from .latent_diffusion.model import LatentDiffusion

log = logging.getLogger("audioldm")


def make_memory(model: LatentDiffusion, captions: Path, home: Path) -> Path:
    """Make the translator ``memory`` for the spaces of ``model``: both its text towers read the file ``captions``.

    Returns its file in ``home``; if that cannot be written, one that lasts as long as ``model``. Raises InputError.
    """
    from translator.model import Memory, save_translator

    clip_space, clap_space = model.spaces
    texts = captions.read_text(encoding="utf-8").splitlines()
    log.warning("%s reads %d captions with both text towers, once", model.folder.name, len(texts))
    clip, clap = _encode(model, texts)
    memory = Memory(clip, clap, texts)
    facts = {"name": settings.MEMORY, "kind": "memory", "clip_space": clip_space, "clap_space": clap_space}
    name = Path(f"{clip_space}-{clap_space}") / f"{settings.MEMORY}.safetensors"
    try:
        save_translator(home / name, memory, {**facts, **memory.facts()})
        return home / name
    except OSError as error:
        reason = error.strerror
    try:
        model.scratch = tempfile.TemporaryDirectory(prefix="audioldm-")
        path = Path(model.scratch.name) / name
        save_translator(path, memory, {**facts, **memory.facts()})
    except OSError:
        raise InputError(f"cannot save the memory in {(home / name).parent}: {reason}") from None
    log.warning("the memory is not kept, as %s cannot be written: %s", home, reason)
    return path


def _encode(model: LatentDiffusion, captions: list[str]) -> list[Tensor]:
    """The (N, dim) of CLIP's text tower and of CLAP's; a bar for people."""
    from tqdm import tqdm

    from .clap.bulk import encode_all

    towers = (model.clip.encode_text_batch, model.clap.encode_text_batch)
    with tqdm(total=2 * len(captions), unit="captions", file=sys.stderr, leave=False, disable=None) as bar:
        return [encode_all(tower, model.device, captions, bar.update) for tower in towers]
