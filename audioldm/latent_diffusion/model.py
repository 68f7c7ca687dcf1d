"""LatentDiffusion: the parts of a model, each read from its folder when it is first used.

An image run so reads CLIP's image tower, a translator, UNet, VAE and vocoder, and neither RoBERTa nor HTSAT;
the libraries that a part needs are imported with it. Everything left of the (B, 512) condition is an encoder,
everything right of it never knows where the vector came from.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints import hub
from ..checkpoints.layout import WEIGHTS, ModelFolder, open_folder, read_json, reporting
from ..checkpoints.spaces import clap_fingerprint, clip_fingerprint
from ..errors import InputError
from ..options import BATCH, PRECISION

if TYPE_CHECKING:
    from collections.abc import Callable
    from tempfile import TemporaryDirectory
    from typing import TypeVar

    import torch
    from torch import Tensor, nn

    from ..clap.encoders import CLAPAudioEmbeddingClassifierFreev2, ClipEncoder, ImageEncoder

    M = TypeVar("M", bound=nn.Module)

# For models that come without eyes, AudioLDM's own among them: the CLIP of the thesis, 512 numbers for a picture.
CLIP_REPOSITORY = "openai/clip-vit-base-patch32"
CLIP_FILES = (
    "config.json", "model.safetensors", "pytorch_model.bin", "preprocessor_config.json", "tokenizer.json",
)  # fmt: skip

WINDOW = 256  # latent frames, for a UNet that does not say what it was trained on: AudioLDM's 10.24 s

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class Sizes:
    """What a model's configs say about sizes."""

    channels: int  # of the latents
    trained_frames: int | None  # latent frames that the UNet was trained on; None: its config does not say
    multiple: int  # the UNet takes only multiples of so many latent frames
    factor: int  # mel frames, and mel bands, for each one of the latents
    bands: int  # of the mel
    hop_length: int  # samples for each mel frame

    @property
    def window(self) -> int:
        """Latent frames that the model handles at once: those that its UNet was trained on."""
        return self.trained_frames or WINDOW


class LatentDiffusion:
    """The parts: unet, vae, vocoder, scheduler, clap, clip, image_encoder, unconditional, known_sounds.

    Modules are in eval mode, without gradients, on ``device``. They take and return float32; UNet, VAE and vocoder
    compute in ``precision``.
    """

    def __init__(
        self, folder: ModelFolder, device: str = "auto", precision: str = "auto", batch: int | None = None
    ) -> None:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d?))?", device):
            raise InputError(f'unknown device "{device}"; use auto, cpu, cuda or mps')
        PRECISION.check(precision)
        BATCH.check(1 if batch is None else batch)
        self.folder = folder
        self.translators: dict[Path, nn.Module] = {}  # those that were loaded, by file
        self.scratch: TemporaryDirectory[str] | None = None  # with a memory that could not be kept
        self._wanted_device, self._wanted_precision, self._wanted_batch = device, precision, batch

    @classmethod
    def from_folder(
        cls, path: str | Path, device: str = "auto", precision: str = "auto", batch: int | None = None
    ) -> LatentDiffusion:
        """The model in the folder ``path``. Reads its index only; raises InputError if a part has no file.

        Args:
            device: "cpu", "cuda", "cuda:1" …, "mps" or "auto", which is a GPU if there is one.
            precision: "fp32", "bf16", "fp16" or "auto", which is the fastest that is good enough on the device.
            batch: sounds to denoise together, 1 to 64; None: as many as save time on the device.
        """
        return cls(open_folder(path), device, precision, batch)

    @property
    def defaults(self) -> dict[str, Any]:
        """What GenerateOptions should be for this model where the user says nothing."""
        return self.folder.defaults

    @cached_property
    def device(self) -> torch.device:
        """Where the modules are. Raises InputError if the device asked for is not there."""
        from .precision import find_device

        return find_device(self._wanted_device)

    @cached_property
    def precision(self) -> str:
        """What UNet, VAE and vocoder compute in: "fp32", "bf16" or "fp16"."""
        from .precision import best_precision

        return best_precision(self.device) if self._wanted_precision == "auto" else self._wanted_precision

    @cached_property
    def batch(self) -> int:
        """How many sounds are denoised together."""
        from .precision import best_batch

        if self._wanted_batch is not None:
            return self._wanted_batch
        return best_batch(self.device, self.precision, self.sizes.window)

    @cached_property
    def unet(self) -> nn.Module:
        """UNet2DConditionModel: (B, C, T, F) latents, timestep, class_labels (B, 512) -> (B, C, T, F)."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        from ..checkpoints.load import from_config

        config = dict(self._unet_config)
        return self._lower(self._load("unet", lambda _: from_config(UNet2DConditionModel, config)))

    @cached_property
    def sizes(self) -> Sizes:
        """Sizes of the latents and of the mel. Only configs are read for them, no weights."""
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

        from ..checkpoints.load import current_names, from_config
        from .precision import channels_last

        vae = self._load("vae", lambda config: from_config(AutoencoderKL, config), current_names)
        return channels_last(self._lower(vae), self.device)

    @cached_property
    def vocoder(self) -> nn.Module:
        """SpectralVocoder or AudioLDM's HiFi-GAN, as its config says: log-mel (B, frames, 64) -> waves (B, N)."""
        if self._config("vocoder").get("_class_name") == "SpectralVocoder":
            from ..checkpoints.load import from_config
            from .vocoder import SpectralVocoder

            return self._lower(self._load("vocoder", lambda config: from_config(SpectralVocoder, config)))
        from transformers.models.speecht5.configuration_speecht5 import SpeechT5HifiGanConfig

        from .hifigan import HifiGan, in_two_dimensions
        from .precision import channels_last

        def build(config: dict[str, Any]) -> HifiGan:
            return HifiGan(SpeechT5HifiGanConfig.from_dict(config))

        return channels_last(self._lower(self._load("vocoder", build, in_two_dimensions)), self.device)

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
        """Forget ``parts`` ("clip" …), and with them their memory; they are read anew if they are used again."""
        for part in parts:
            self.__dict__.pop(part, None)

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
        from ..checkpoints.load import read_tensors

        path = self.folder.path / "reference.safetensors"
        return read_tensors(path) if path.is_file() else {}

    def _lower(self, module: M) -> M:
        from .precision import prepare

        return prepare(module, self.precision, self.device)

    def _config(self, part: str) -> dict[str, Any]:
        return read_json(self.folder.path / part / "config.json")

    def _load(self, part: str, build: Callable[[dict[str, Any]], M], adapt: Callable[[Any], Any] = dict) -> M:
        from ..checkpoints.load import load

        with reporting(self.folder.path / part / "config.json"):
            config = self._config(part)
            return load(lambda: build(config), self.folder.weights(part), adapt=adapt).to(self.device)
