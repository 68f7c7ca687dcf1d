"""An original checkpoint ({"state_dict": …}) → a model folder in the diffusers layout.

    audioldm-convert IN.ckpt FOLDER [--dtype fp16] [--tokenizer FOLDER]

Each part has a table of its own (unet, vae, vocoder, clap); here the file is read
without running code in it, split, and written: to a temporary folder, which then gets its name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

from safetensors import SafetensorError

from ..checkpoints.layout import INDEX, WEIGHTS, ModelFolder, cache_dir
from ..clap.tokenizer import read_tokenizer
from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
LIVE, EMA = "model.diffusion_model.", "model_ema."
# What a checkpoint holds beside the networks: the noise schedule, which the betas' end points give anew, and the
# counters of the average.
IGNORED = r"logvar|betas|alphas_\w+|sqrt_\w+|log_one_minus_\w+|posterior_\w+|model_ema\.(decay|num_updates)"
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
PARTS = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "vocoder": ["transformers", "SpeechT5HifiGan"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "clap": ["transformers", "ClapModel"],
}
DEFAULTS = {"duration": 10.0, "guidance_scale": 2.5, "n_candidates": 3}  # upstream's
TOKENIZER = "clap/tokenizer.json"
TOKENIZER_REPOSITORY = "FacebookAI/roberta-base"  # on the hub; checkpoints come without a tokenizer

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class ExtraSettings:
    """Settings that the shapes of a checkpoint's tensors do not tell. None: those of AudioLDM's own six."""

    head_channels: int | None = None
    text_heads: int | None = None
    upsample_rates: Sequence[int] | None = None
    dilations: Sequence[int] | None = None
    spectrogram: dict[str, int] | None = None  # ClapFeatureExtractor's settings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ExtraSettings:
        """From upstream's configuration, with ``tiny_overrides`` where a test model is smaller than it says."""
        small = config.get("tiny_overrides", {})
        unet = config["model"]["params"]["unet_config"]["params"]
        vocoder, audio = small.get("vocoder", {}), small.get("clap_model_config", {}).get("audio_cfg", {})
        names = {"sample_rate": "sampling_rate", "hop_size": "hop_length", "fmin": "frequency_min",
                 "fmax": "frequency_max"}  # fmt: skip
        dilations = vocoder.get("resblock_dilation_sizes", [None])[0]
        return cls(
            head_channels=unet.get("num_head_channels"),
            text_heads=small.get("roberta", {}).get("num_attention_heads"),
            upsample_rates=vocoder.get("upsample_rates"),
            dilations=dilations,
            spectrogram={ours: audio[theirs] for theirs, ours in names.items() if theirs in audio},
        )


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, mapped from the file rather than read. Nothing in it is run. Raises InputError."""
    import torch

    if not path.is_file():
        raise InputError(f"no such checkpoint: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        state = content["state_dict"]
        if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            raise TypeError("not tensors")
    except Exception as error:  # a damaged zip, a pickle that would run code, another kind of file …
        log.debug("%s: %s", path, error)
        raise InputError(f"{path} is damaged or not an AudioLDM checkpoint") from None
    return state


def split(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The parts' tensors under their original names: unet (its averaged weights, which upstream samples with),
    vae, vocoder, clap, and scale_factor alone.

    Every tensor goes to one part or is known to be of no use. Raises InputError.
    """
    from .tables import rename, require, strip_prefix

    scale = require(state, "scale_factor")
    live, averaged = strip_prefix(state, LIVE), strip_prefix(state, EMA)
    first_stage, clap = strip_prefix(state, "first_stage_model."), strip_prefix(state, "cond_stage_model.model.")
    known = (LIVE, EMA, "first_stage_model.", "cond_stage_model.model.", "scale_factor")
    for name in state:
        if not name.startswith(known) and not re.fullmatch(IGNORED, name):
            raise InputError(f"the checkpoint contains the tensor {name}, which AudioLDM does not have")
    if averaged:  # named like the live ones, without the dots
        table = {f"diffusion_model{name.replace('.', '')}": name for name in live}
        unet = rename(averaged, table, (r"decay", r"num_updates"))
        if len(unet) != len(live):
            raise InputError(f"the checkpoint has averages for only {len(unet)} of the UNet's {len(live)} tensors")
    else:
        unet = live
    vocoder = strip_prefix(first_stage, "vocoder.")
    vae = {name: tensor for name, tensor in first_stage.items() if not name.startswith("vocoder.")}
    return {"unet": unet, "vae": vae, "vocoder": vocoder, "clap": clap, "scale_factor": {"": scale}}


def convert(
    path: Path, folder: Path, dtype: str = "fp32", tokenizer: Path | None = None, extra: ExtraSettings | None = None
) -> Path:
    """Write the checkpoint at ``path`` as the model folder ``folder``, which must not exist; returns it.

    ``dtype``: of the weights on disk (DTYPES). ``tokenizer``: a folder with RoBERTa's; None leaves it out, and text
    prompts with it. Raises InputError.
    """
    from ..checkpoints.tensors import check_finite
    from . import clap, unet, vae, vocoder

    if os.path.lexists(folder):
        raise InputError(f"{folder} already exists; refusing to overwrite it")
    extra = extra or ExtraSettings()
    parts = split(read(path))
    for tensors in parts.values():
        check_finite(tensors, path)
    rates = extra.upsample_rates or vocoder.UPSAMPLE_RATES
    dilations = extra.dilations or vocoder.DILATIONS
    converted = {
        "unet": unet.convert(parts["unet"], extra.head_channels),
        "vae": vae.convert(parts["vae"], float(parts["scale_factor"][""])),
        "vocoder": vocoder.convert(parts["vocoder"], rates, dilations),
        "clap": clap.convert(parts["clap"], extra.text_heads),
    }
    extras = {
        "scheduler/scheduler_config.json": json.dumps(SCHEDULER, indent=2),
        "clap/preprocessor_config.json": json.dumps(clap.features(parts["clap"], extra.spectrogram), indent=2),
    }
    if tokenizer is not None:
        extras[TOKENIZER] = read_tokenizer(tokenizer).to_str()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder.parent}: {error.strerror}") from None
    try:
        _write(work, converted, extras, DTYPES[dtype])
        _references(work)
        index = {"_class_name": "LatentDiffusion", **PARTS, "defaults": DEFAULTS}
        (work / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        work.chmod(0o755)
        os.rename(work, folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write the model folder {folder}: {getattr(error, 'strerror', error)}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _write(
    folder: Path, parts: Mapping[str, tuple[dict[str, Any], dict[str, Tensor]]], extras: Mapping[str, str], dtype: str
) -> None:
    import torch
    from safetensors.torch import save_file

    for part, (config, tensors) in parts.items():
        (folder / part).mkdir()
        kept = {
            name: (tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor).contiguous()
            for name, tensor in tensors.items()
        }
        save_file(kept, folder / part / WEIGHTS[part not in ("unet", "vae")], metadata={"format": "pt"})
        text = json.dumps(config, indent=2, default=str)
        (folder / part / "config.json").write_text(text + "\n", encoding="utf-8")
    for name, text in extras.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _references(folder: Path) -> None:
    """The vector of the empty prompt, so that an image run need not read the text tower. Its tokens are <s></s>."""
    from safetensors.torch import save_file

    from ..clap.encoders import CLAPAudioEmbeddingClassifierFreev2

    clap = CLAPAudioEmbeddingClassifierFreev2(ModelFolder(folder, {}))
    save_file({"unconditional": clap.encode_tokens([0, 2]).clone()}, folder / "reference.safetensors")


def cached(path: Path, name: str | None = None) -> Path:
    """The model folder made from the checkpoint ``path``, in the cache: made now, or at an earlier call.

    The cache identifies it by the file's path, size and time. ``name``: the model's name. Raises InputError.
    """
    path = Path(os.path.abspath(os.path.expanduser(path)))
    if not path.is_file():
        raise InputError(f"no such checkpoint: {path}")
    facts = path.stat()
    key = hashlib.sha256(f"{path} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:8]
    folder = cache_dir() / "converted" / key / (name or path.stem)
    if not (folder / INDEX).is_file():
        split(read(path))  # a file that is no checkpoint is reported first
        log.warning("converting %s once, which takes about a minute for 2.5 GB; the next start is quick", path)
        try:
            convert(path, folder, tokenizer=find_tokenizer(path))
        except InputError:
            if not (folder / INDEX).is_file():  # another process was quicker
                raise
    elif not (folder / TOKENIZER).is_file() and (found := find_tokenizer(path)):
        (folder / TOKENIZER).write_text(read_tokenizer(found).to_str() + "\n", encoding="utf-8")
    return folder


def find_tokenizer(checkpoint: Path) -> Path | None:
    """RoBERTa's tokenizer: a folder ``tokenizer`` beside the checkpoint, or from the hub; None where neither is."""
    beside = checkpoint.parent / "tokenizer"
    if beside.is_dir():
        return beside
    from ..checkpoints import hub

    files = ("tokenizer.json", "vocab.json", "merges.txt")
    try:
        return hub.snapshot(TOKENIZER_REPOSITORY, files, instead=f"its tokenizer.json can be put into {beside}")
    except InputError as error:
        log.warning("text prompts will not work, as there is no tokenizer: %s", error)
        return None
