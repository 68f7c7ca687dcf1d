"""LatentDiffusion: the parts of a model, each read from its folder when it is first used.

An image run so reads CLIP's image tower, a translator, UNet, VAE and vocoder, and neither RoBERTa nor HTSAT;
the libraries that a part needs are imported with it. Everything left of the (B, 512) condition is an encoder,
everything right of it never knows where the vector came from.
"""

from __future__ import annotations

import logging
import math
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints import hub
from ..checkpoints.layout import (
    WEIGHTS,
    ModelFolder,
    clap_fingerprint,
    clip_fingerprint,
    load,
    open_folder,
    read_json,
    read_tensors,
    reporting,
)  # fmt: skip
from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from tempfile import TemporaryDirectory

    import torch
    from torch import Tensor, nn

    from ..clap.encoders import CLAPAudioEmbeddingClassifierFreev2, ClipEncoder, ImageEncoder
    from .codec import Sizes


# For models that come without eyes, AudioLDM's own among them: the CLIP of the thesis, 512 numbers for a picture.
CLIP_REPOSITORY = "openai/clip-vit-base-patch32"
CLIP_FILES = (
    "config.json", "model.safetensors", "pytorch_model.bin", "preprocessor_config.json", "tokenizer.json",
)  # fmt: skip

log = logging.getLogger("audioldm")


class LatentDiffusion:
    """The parts: unet, vae, vocoder, scheduler, clap, clip, image_encoder, unconditional, known_sounds.

    Modules are in eval mode, without gradients, float32, on ``device``.
    """

    def __init__(self, folder: ModelFolder, device: str = "auto") -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d?))?", device):
            raise InputError(f'unknown device "{device}"; use auto, cpu or cuda')
        self.folder = folder
        self.translators: dict[Path, nn.Module] = {}  # those that were loaded, by file
        self.scratch: TemporaryDirectory[str] | None = None  # with a memory that could not be kept
        self._wanted_device = device

    @classmethod
    def from_folder(cls, path: str | Path, device: str = "auto") -> LatentDiffusion:
        """The model in the folder ``path``. Reads its index only; raises InputError if a part has no file.

        ``device``: "cpu", "cuda", "cuda:1" … or "auto", which is a GPU if there is one.
        """
        return cls(open_folder(path), device)

    @property
    def defaults(self) -> dict[str, Any]:
        """What GenerateOptions should be for this model where the user says nothing."""
        return self.folder.defaults

    @cached_property
    def device(self) -> torch.device:
        """Where the modules are. Raises InputError if the device asked for is not there."""
        import torch

        wanted = self._wanted_device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(wanted)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise InputError(f'the device "{wanted}" does not exist; --device cpu runs without a GPU')
        return device

    @cached_property
    def unet(self) -> nn.Module:
        """UNet2DConditionModel: (B, C, T, F) latents, timestep, class_labels (B, 512) -> (B, C, T, F)."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        config = dict(self._unet_config)
        return self._load("unet", lambda _: UNet2DConditionModel.from_config(config))

    @cached_property
    def sizes(self) -> Sizes:
        """Sizes of the latents and of the mel. Only configs are read for them, no weights."""
        from .codec import Sizes

        unet, vae, vocoder = self._unet_config, self._config("vae"), self._config("vocoder")
        with reporting(self.folder.part("unet") / "config.json"):
            frames = unet.get("sample_size")  # (frames, bands), or a number that does not say which
            channels, halvings = int(unet["in_channels"]), len(unet["block_out_channels"]) - 1
        with reporting(self.folder.part("vae") / "config.json"):
            factor = 2 ** (len(vae["block_out_channels"]) - 1)
        with reporting(self.folder.part("vocoder") / "config.json"):
            hop = int(vocoder["hop_length"]) if "hop_length" in vocoder else math.prod(vocoder["upsample_rates"])
            bands = int(vocoder["model_in_dim"])
        return Sizes(channels, int(frames[0]) if isinstance(frames, list) else None, 2**halvings, factor, bands, hop)

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
        return self._load("vae", AutoencoderKL.from_config, adapt)

    @cached_property
    def vocoder(self) -> nn.Module:
        """SpectralVocoder or AudioLDM's HiFi-GAN, as its config says: log-mel (B, frames, 64) -> waves (B, N)."""
        if self._config("vocoder").get("_class_name") == "SpectralVocoder":
            from .codec import SpectralVocoder

            return self._load("vocoder", SpectralVocoder.from_config)
        from transformers.models.speecht5.configuration_speecht5 import SpeechT5HifiGanConfig
        from transformers.models.speecht5.modeling_speecht5 import SpeechT5HifiGan

        return self._load("vocoder", lambda config: SpeechT5HifiGan(SpeechT5HifiGanConfig.from_dict(config)))

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

    @property
    def has_clip(self) -> bool:
        """Whether ``clip_files`` are there without a download."""
        return self.folder.part("clip").is_dir() or hub.is_cached(CLIP_REPOSITORY, CLIP_FILES)

    @cached_property
    def clip_files(self) -> tuple[Path, Path]:
        """The folder and the weights of CLIP: the model's own, or else the hub's CLIP_REPOSITORY."""
        if self.folder.part("clip").is_dir():
            return self.folder.part("clip"), self.folder.weights("clip")
        path = hub.snapshot(
            CLIP_REPOSITORY, CLIP_FILES, instead=f"a copy of it can be put into {self.folder.path / 'clip'}"
        )
        return path, next(path / name for name in CLIP_FILES if name in WEIGHTS and (path / name).is_file())

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

    def _load(self, part: str, build: Callable[[dict[str, Any]], Any], adapt: Callable[[Any], Any] = dict) -> Any:
        """The module that ``build`` makes of the part's config; diffusers' annotation allows a tuple as well."""
        with reporting(self.folder.path / part / "config.json"):
            config = self._config(part)
            return load(lambda: build(config), self.folder.weights(part), adapt=adapt).to(self.device)
