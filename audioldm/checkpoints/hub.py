"""Models from the hub (huggingface.co), whose cvssp/audioldm repositories were made for diffusers' AudioLDMPipeline.

They differ from our folders: CLAP is there without its audio tower, the UNet's config has a wrong number of attention
heads, and some names of tensors are of an older diffusers. What to do about each is here.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .layout import INDEX, WEIGHTS, open_folder
from .published import LICENCE, UPSTREAM

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from torch import Tensor

PARTS = ("unet", "vae", "vocoder", "text_encoder", "clap", "clip")  # folders of a repository that have weights
NEEDED = (*(f"{part}/config.json" for part in PARTS[:3]), "scheduler/scheduler_config.json")  # beside the weights
# Channels of an attention head, by the UNet's channels (upstream's num_head_channels), which the configs lack.
HEAD_CHANNELS = {(128, 256, 384, 640): 32, (192, 384, 576, 960): 32, (256, 512, 768, 1280): 64}
DEFAULT_HEADS = 8  # UNet2DConditionModel's default, and the published configs'
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # up to diffusers 0.15
# For models that come without eyes, AudioLDM's own among them: the CLIP of the thesis, 512 numbers for a picture.
CLIP_REPOSITORY = "openai/clip-vit-base-patch32"
CLIP_FILES = (
    "config.json", "model.safetensors", "pytorch_model.bin", "preprocessor_config.json", "tokenizer.json",
)  # fmt: skip
TIMEOUT = 15  # seconds for the hub's first answer

log = logging.getLogger("audioldm")


def snapshot(
    repo_id: str,
    files: Sequence[str] | None = None,
    *,
    endpoint: str | None = None,
    cache_dir: str | Path | None = None,
    instead: str = "a copy of the repository in a folder can be given as --model_name FOLDER",
) -> Path:
    """The folder in the hub's cache with the repository ``repo_id``, downloaded if it is not there.

    A copy in the cache is used without asking the hub for a newer one. A partial download is resumed.

    Args:
        files: names of those wanted, as far as the repository has them (of weights, WEIGHTS, only the first that it
            has); None: those of a model.
        endpoint: the hub's address; None: huggingface.co, or HF_ENDPOINT of the environment.
        instead: for the message to a user who is offline: what can be used instead.
        cache_dir: None: the hub's own (HF_HOME of the environment, else ~/.cache/huggingface).

    Raises:
        InputError: no connection, no such repository, no permission, or no AudioLDM in it.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    api, where = HfApi(endpoint=endpoint), {"endpoint": endpoint, "cache_dir": cache_dir}
    folder = _cached(repo_id, files, where)
    if folder is not None:
        return folder
    quiet = not (sys.stderr.isatty() or are_progress_bars_disabled())
    if quiet:
        disable_progress_bars()
    try:
        there = api.model_info(repo_id, timeout=TIMEOUT).siblings or []  # unlike a list of the tree: no lengthy retries
        chosen = _choose(repo_id, (file.rfilename for file in there), files)
        licence = f"; licence: {LICENCE}" if repo_id in {known.repo for known in UPSTREAM.values()} else ""
        log.warning("downloading %s from %s%s", repo_id, api.endpoint, licence)
        return Path(snapshot_download(repo_id, allow_patterns=chosen, **where))
    except InputError:
        raise
    except Exception as error:  # of the hub's library and of the HTTP library of its choice, which changes
        raise InputError(_sentence(repo_id, api, error, instead)) from error
    finally:
        if quiet:
            enable_progress_bars()


def clip(instead: str) -> tuple[Path, Path]:
    """The folder and the weights of the CLIP for models that come without one. Raises InputError, as ``snapshot``."""
    path = snapshot(CLIP_REPOSITORY, CLIP_FILES, instead=instead)
    return path, next(path / name for name in CLIP_FILES if name in WEIGHTS and (path / name).is_file())


def is_cached(repo_id: str, files: Sequence[str] | None = None) -> bool:
    """Whether ``snapshot`` would need no download."""
    return _cached(repo_id, files, {}) is not None


def corrected_unet_config(config: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The config of an AudioLDM UNet with the right attention heads, and a sentence if that changed it.

    The script that made the hub's folders left out the number of heads, and the default, 8 everywhere, is in the
    published configs. Upstream has heads of 32 channels (in -l-: of 64), and with other heads the weights, which
    have the same shapes for any number, compute something else. Configs of other networks are returned as they are.
    """
    channels = config.get("block_out_channels")
    head = HEAD_CHANNELS.get(tuple(channels)) if isinstance(channels, list | tuple) else None
    audioldm = config.get("class_embed_type") == "simple_projection" and config.get("class_embeddings_concat")
    said = config.get("attention_head_dim", DEFAULT_HEADS)
    if head is None or not audioldm or said != DEFAULT_HEADS or config.get("num_attention_heads") is not None:
        return config, None
    heads = [count // head for count in channels or ()]
    note = (
        f"the UNet's config says {said} attention heads in every block, a known mistake of the hub's AudioLDM folders; "
        f"{', '.join(map(str, heads[:-1]))} and {heads[-1]} are used, as in the original"
    )
    return {**config, "attention_head_dim": heads}, note


def _choose(repo_id: str, there: Iterable[str], files: Sequence[str] | None) -> list[str]:
    """Which files of the repository are to be fetched: of the same weights in two formats, one. Raises InputError."""
    there = set(there)
    if files is not None:
        chosen = _one_kind_of_weights([name for name in files if name in there])
        if not chosen:
            raise InputError(f"the hub's repository {repo_id} has no {' or '.join(files)}")
        return chosen
    if INDEX not in there:
        raise InputError(f"the hub's repository {repo_id} is not a model in diffusers' layout: it has no {INDEX}")
    settings = r"[^/]+\.json|tokenizer/[^/]+\.(json|txt)|scheduler/scheduler_config\.json|reference\.safetensors"
    settings += rf"|({'|'.join(PARTS)})/(config|preprocessor_config|tokenizer)\.json"
    chosen = [name for name in sorted(there) if re.fullmatch(settings, name)]
    for part in PARTS:
        chosen += _one_kind_of_weights([f"{part}/{name}" for name in WEIGHTS if f"{part}/{name}" in there])
    return chosen


def _one_kind_of_weights(names: list[str]) -> list[str]:
    """``names`` with only the first of those of weights."""
    weights = [name for name in names if name.rpartition("/")[2] in WEIGHTS]
    return [name for name in names if name not in weights[1:]]


def _cached(repo_id: str, files: Sequence[str] | None, where: dict[str, Any]) -> Path | None:
    """The repository's folder in the cache, if all wanted files are in it."""
    from huggingface_hub import snapshot_download

    any_file = INDEX if files is None else files[0]
    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=[any_file], local_files_only=True, **where))
        if files is None:
            open_folder(folder)
            files = NEEDED
    except Exception:  # not in the cache: the hub is asked, and reports a wrong name
        return None
    there = [name for name in files if (folder / name).is_file()]
    lacking = [name for name in files if name not in there]
    if any(name in WEIGHTS for name in there):
        lacking = [name for name in lacking if name not in WEIGHTS]
    return None if lacking else folder


def _sentence(repo_id: str, api: HfApi, error: Exception, instead: str) -> str:
    from huggingface_hub import errors

    host = api.endpoint.partition("://")[2]
    if isinstance(error, errors.GatedRepoError):
        return f"{api.endpoint}/{repo_id} requires you to accept its conditions there, then run: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no folder {repo_id}, and {host} has no such repository, or not for everyone"
    if isinstance(error, errors.HFValidationError):
        return f"there is no folder {repo_id}, and no repository can have this name"
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return f"{repo_id} is not in the hub's cache, and HF_HUB_OFFLINE forbids the download"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"{host} answered {status} when asked for {repo_id}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{repo_id} cannot be saved in the hub's cache: {error.strerror}"
    return (
        f"{host} cannot be reached ({type(causes[-1]).__name__}), and {repo_id} is not in the hub's cache; {instead}"
    )


def current_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` of a VAE under the names of today's diffusers, if they have those of 0.15 and before."""

    def renamed(name: str) -> str:
        return re.sub(
            r"(\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)",
            lambda match: match[1] + OLD_ATTENTION[match[2]],
            name,
        )

    return {renamed(name): tensor for name, tensor in tensors.items()}
