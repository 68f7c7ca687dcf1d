"""LatentDiffusion: the parts of a model, each read from its folder when it is first used.

An image run so reads CLIP's image tower, a translator, UNet, VAE and vocoder, and neither RoBERTa nor HTSAT;
the libraries that a part needs are imported with it. Everything left of the (B, 512) condition is an encoder,
everything right of it never knows where the vector came from.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import logging
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints import hub
from ..checkpoints.layout import ModelFolder, clap_fingerprint, clip_fingerprint, open_folder, read_json, reporting
from ..checkpoints.tensors import fast_dtype, find_device, load, read_tensors
from ..errors import InputError
from ..options import BATCH, PRECISION

if TYPE_CHECKING:
    from collections.abc import Callable
    from tempfile import TemporaryDirectory

    import torch
    from torch import Tensor, nn

    from ..clap.encoders import CLAPAudioEmbeddingClassifierFreev2, ClipEncoder, ImageEncoder
    from .codec import Sizes


log = logging.getLogger("audioldm")


class LatentDiffusion:
    """The parts: unet, vae, vocoder, scheduler, clap, clip, image_encoder, unconditional, known_sounds.

    Modules are in eval mode, without gradients, on ``device``. They take and return float32; UNet, VAE and vocoder
    compute in ``precision``.
    """

    def __init__(
        self, folder: ModelFolder, device: str = "auto", precision: str = "auto", batch: int | None = None
    ) -> None:
        check_how(device, precision, batch)
        self.folder = folder
        self.translators: dict[Path, nn.Module] = {}  # those that were loaded, by file
        self.scratch: TemporaryDirectory[str] | None = None  # with a memory that could not be kept
        self._wanted_device, self._wanted_precision, self.wanted_batch = str(device), precision, batch

    @classmethod
    def from_folder(
        cls, path: str | Path, device: str = "auto", precision: str = "auto", batch: int | None = None
    ) -> LatentDiffusion:
        """As ``registry.build_model``, of the folder ``path``. Raises InputError if a part has no file."""
        return cls(open_folder(path), device, precision, batch)

    @property
    def defaults(self) -> dict[str, Any]:
        """What GenerateOptions should be for this model where the user says nothing."""
        return self.folder.defaults

    @cached_property
    def device(self) -> torch.device:
        """Where the modules are."""
        return find_device(self._wanted_device)

    @cached_property
    def precision(self) -> str:
        """What UNet, VAE and vocoder compute in: "fp32", "bf16" or "fp16"."""
        return best_precision(self.device) if self._wanted_precision == "auto" else self._wanted_precision

    @cached_property
    def unet(self) -> nn.Module:
        """UNet2DConditionModel: (B, C, T, F) latents, timestep, class_labels (B, 512) -> (B, C, T, F)."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        config = dict(self._unet_config)
        return self._load("unet", lambda _: UNet2DConditionModel.from_config(config))

    @cached_property
    def sizes(self) -> Sizes:
        """Sizes of the latents and of the mel. Only configs are read for them, no weights."""
        from .codec import read_sizes

        return read_sizes(self._unet_config, self._config("vae"), self._config("vocoder"), self.folder)

    @cached_property
    def dimension(self) -> int:
        """Numbers in a condition: 512."""
        with reporting(self.folder.part("unet") / "config.json"):
            return int(self._unet_config["projection_class_embeddings_input_dim"])

    @cached_property
    def _unet_config(self) -> dict[str, Any]:
        config = self._config("unet")
        if self.folder.in_hub_layout:
            config, note = hub.corrected_unet_config(config)
            if note:
                log.warning("%s", note)
        return config

    @cached_property
    def vae(self) -> Any:  # diffusers annotates its methods with less than they return
        """AutoencoderKL: log-mel (B, 1, frames, 64) to and from latents (B, C, frames / f, 64 / f)."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        adapt = hub.current_names if self.folder.in_hub_layout else dict
        return self._load("vae", AutoencoderKL.from_config, adapt, channels_last=True)

    @cached_property
    def vocoder(self) -> nn.Module:
        """SpectralVocoder or AudioLDM's HiFi-GAN, as its config says: log-mel (B, frames, 64) -> waves (B, N)."""
        if self._config("vocoder").get("_class_name") == "SpectralVocoder":
            from .codec import SpectralVocoder

            return self._load("vocoder", SpectralVocoder.from_config, lower=False)  # bf16 is too coarse for phases
        from transformers.models.speecht5.configuration_speecht5 import SpeechT5HifiGanConfig

        from .hifigan import HifiGan, in_two_dimensions

        def build(config: dict[str, Any]) -> HifiGan:
            return HifiGan(SpeechT5HifiGanConfig.from_dict(config))

        return self._load("vocoder", build, in_two_dimensions, channels_last=True)

    @cached_property
    def scheduler(self) -> dict[str, Any]:
        """What the UNet was trained with: betas, prediction type …; sampling.make_scheduler takes it."""
        return read_json(self.folder.path / "scheduler" / "scheduler_config.json")

    @cached_property
    def clap(self) -> CLAPAudioEmbeddingClassifierFreev2:
        """CLAP; its text and audio towers are read separately, on first use."""
        from ..clap.encoders import CLAPAudioEmbeddingClassifierFreev2

        return CLAPAudioEmbeddingClassifierFreev2(self.folder, self.device)

    @cached_property
    def clip(self) -> ClipEncoder:
        """CLIP; its image and text towers are read separately, on first use."""
        from ..clap.encoders import ClipEncoder

        return ClipEncoder(*self.clip_files, self.device)

    def release(self, *parts: str) -> None:
        """Release ``parts`` ("clip" …) and their memory; they are read again if they are used again."""
        for part in parts:
            self.__dict__.pop(part, None)
        with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc would keep it for what comes next
            ctypes.CDLL(None).malloc_trim(0)

    @property
    def has_clip(self) -> bool:
        """Whether ``clip_files`` are there without a download."""
        return self.folder.part("clip").is_dir() or hub.is_cached(hub.CLIP_REPOSITORY, hub.CLIP_FILES)

    @cached_property
    def clip_files(self) -> tuple[Path, Path]:
        """The folder and the weights of CLIP: the model's own, or else the hub's."""
        if self.folder.part("clip").is_dir():
            return self.folder.part("clip"), self.folder.weights("clip")
        return hub.clip(instead=f"a copy of it can be put into {self.folder.path / 'clip'}")

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        """Image → CLIP → translator → CLAP space."""
        from ..clap.encoders import ImageEncoder

        return ImageEncoder(self.clip)

    @cached_property
    def unconditional(self) -> Tensor:
        """(1, 512): CLAP's vector of the empty text, from reference.safetensors or else the text tower."""
        stored = self._references.get("unconditional")
        return self.clap.encode_text([""]) if stored is None else stored.to(self.device)

    @cached_property
    def known_sounds(self) -> tuple[list[str], Tensor | None, dict[str, float]]:
        """Names of the sounds the model was trained on, their (K, 512) vectors, and the cosine that is near.

        That cosine is by kind of prompt, as vectors of words, pictures and sounds lie apart even where they
        mean the same; a plain number in sounds.json is the one for text. ([], None, {}) for a model that does
        not say. Raises InputError.
        """
        path = self.folder.path / "sounds.json"
        vectors = self._references.get("sounds")
        if vectors is None or not path.is_file():
            return [], None, {}
        with reporting(path):
            known = read_json(path)
            names = [str(sound["name"]) for sound in known["sounds"]]
            threshold = known.get("threshold", {})
            by_kind = threshold if isinstance(threshold, dict) else {"text": threshold}
            thresholds = {kind: float(cosine) for kind, cosine in by_kind.items()}
        if len(names) != len(vectors):
            raise InputError(f"{path} has {len(names)} sounds, and reference.safetensors {len(vectors)}")
        return names, vectors.to(self.device), thresholds

    @cached_property
    def spaces(self) -> tuple[str, str]:
        """Fingerprints of the CLIP and the CLAP space. Raises InputError."""
        return clip_fingerprint(self.clip_files[1]), clap_fingerprint(self.folder.weights("clap"))

    @cached_property
    def sha256(self) -> str:
        """One hash over all files of the model, 64 hex digits; the first time, about a second for a gigabyte."""
        return self.folder.sha256()

    @cached_property
    def _references(self) -> dict[str, Tensor]:
        path = self.folder.path / "reference.safetensors"
        return read_tensors(path) if path.is_file() else {}

    def _config(self, part: str) -> dict[str, Any]:
        return read_json(self.folder.path / part / "config.json")

    def _load(
        self,
        part: str,
        build: Callable[[dict[str, Any]], Any],
        adapt: Callable[[Any], Any] = dict,
        channels_last: bool = False,
        lower: bool = True,
    ) -> Any:
        """The module that ``build`` makes of the part's config; diffusers' annotation allows a tuple as well.

        ``channels_last``: lay its convolutions out as oneDNN computes them fastest. ``lower``: compute in
        ``precision``. In fp16 a VAE whose config says ``force_upcast`` stays float32: fp16 may not hold its numbers.
        """
        import torch

        with reporting(self.folder.path / part / "config.json"):
            config = self._config(part)
            lower = lower and not (self.precision == "fp16" and config.get("force_upcast"))
            dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision) if lower else None
            module = load(lambda: build(config), self.folder.weights(part), adapt=adapt, dtype=dtype)
        if channels_last and self.device.type == "cpu":
            module.to(memory_format=torch.channels_last)
        module.to(self.device)
        return module if dtype is None else lowered(module, dtype)


def check_how(device: object, precision: str, batch: int | None) -> None:
    """Raises InputError if a model cannot run like that, here; for before it is downloaded."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d?))?", str(device)):  # it may be a torch.device
        raise InputError(f'unknown device "{device}"; use auto, cpu, cuda or mps')
    PRECISION.check(precision)
    BATCH.check(1 if batch is None else batch)
    if str(device) not in ("auto", "cpu"):
        find_device(str(device))


def best_precision(device: torch.device) -> str:
    """The fastest that is good enough: "fp16" on a GPU, "bf16" on a CPU that has instructions for it, else "fp32"."""
    import torch

    return {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(fast_dtype(device), "fp32")


def lowered(module: Any, dtype: torch.dtype) -> Any:
    """``module``, whose parameters are ``dtype``, made to take and return float32: nobody else needs to know."""
    import torch

    # A VAE is called by its methods, which lead into its children.
    for called in module.children() if hasattr(module, "decode") else [module]:
        called.register_forward_pre_hook(functools.partial(_lower_inputs, dtype), with_kwargs=True)
        called.register_forward_hook(lambda _, inputs, output: _cast(output, torch.float32))
    return module


def _lower_inputs(dtype: torch.dtype, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    """But for a timestep, the second one, which bf16 would round to a multiple of four."""
    return (_cast(args[0], dtype), *args[1:]), {name: _cast(value, dtype) for name, value in named.items()}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """A tensor, or diffusers' holder of tensors, in ``dtype``; anything else as it is."""
    if hasattr(value, "is_floating_point"):
        return value.to(dtype) if value.is_floating_point() else value
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {field.name: _cast(getattr(value, field.name), dtype) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **fields)
