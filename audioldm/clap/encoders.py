"""Text, sound or image → unit vectors in CLAP space, where the UNet takes its condition from.

Each tower is read when it is first needed, from one file that holds two. Prompts are encoded one by one, not
as a padded batch: batched matrix products round differently, and the same prompt must give the same bytes in
any company. Where millions are encoded (prior_steps), …_batch gives the same to 1e-5, and many times faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor, nn

from ..audio import SAMPLE_RATE, resample
from ..checkpoints.layout import ModelFolder, read_json, reporting
from ..checkpoints.published import explain_text_only
from ..checkpoints.tensors import load, read_tensors
from ..errors import InputError
from .tokenizer import read_tokenizer

OFFSET_POSITIONS = ("clap_text_model", "roberta", "xlm-roberta")  # number positions from pad_token_id + 1 on


class CLAPAudioEmbeddingClassifierFreev2(nn.Module):
    """CLAP's text and audio towers: texts or waves -> (B, 512) unit vectors in one space, float32.

    A torch Module with upstream's call: ``embed_mode`` says what ``forward`` takes, "text" or "audio". Each tower
    becomes a submodule when it is first used.
    """

    def __init__(
        self, folder: ModelFolder, device: str | torch.device = "cpu", embed_mode: Literal["text", "audio"] = "text"
    ) -> None:
        super().__init__()
        self.folder, self.embed_mode = folder, embed_mode
        self.path, self.weights = folder.part("clap"), folder.weights("clap")
        self.register_buffer("_place", torch.empty(0, device=device), persistent=False)  # moves with .to()
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.get_buffer("_place").device

    @property
    def hears(self) -> bool:
        """Whether there is an audio tower; the hub's AudioLDM repositories have none."""
        return self.folder.hears

    def forward(self, batch: Sequence[str] | Tensor | np.ndarray) -> Tensor:
        """As upstream: texts, or waves (B, N) at 16 kHz if ``embed_mode`` is "audio" -> (B, 1, 512) unit vectors.

        Unlike upstream, no row is ever replaced by the vector of the empty text.
        """
        if self.embed_mode == "audio":
            vectors = self.encode_audio(list(torch.as_tensor(batch).cpu().float().numpy()))
        else:
            vectors = self.encode_text([batch] if isinstance(batch, str) else [str(text) for text in batch])
        return rearrange(vectors, "b d -> b 1 d")

    def get_unconditional_condition(self, batchsize: int) -> Tensor:
        """As upstream: the vector of the empty text, (batchsize, 1, 512)."""
        return repeat(self.encode_text([""]), "1 d -> b 1 d", b=batchsize)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(B, 512). What is longer than the tower's positions (RoBERTa: 512 tokens) is cut."""
        vectors = [self._text_model(**self._tokenize([text], self.device)).text_embeds for text in texts]
        return F.normalize(torch.cat(vectors), dim=-1)

    def unread(self, text: str) -> str:
        """The end of ``text`` that is beyond the text tower's positions; "" if all of it is read."""
        return self._tokenize.unread(text)

    @torch.inference_mode()
    def encode_text_batch(self, texts: Sequence[str]) -> Tensor:
        """(B, 512), as encode_text up to rounding, in one padded pass; fastest when texts have similar lengths."""
        return F.normalize(self._text_model(**self._tokenize(texts, self.device)).text_embeds.float(), dim=-1)

    @torch.inference_mode()
    def encode_tokens(self, ids: Sequence[int]) -> Tensor:
        """(1, 512) of one text's token numbers, with those of its beginning and end: needs no tokenizer."""
        inputs = torch.tensor([list(ids)], device=self.device)
        vectors = self._text_model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).text_embeds
        return F.normalize(vectors, dim=-1)

    @torch.inference_mode()
    def encode_audio(self, waves: Sequence[np.ndarray]) -> Tensor:
        """(B, 512) of float32 waves (N,) in [-1, 1] at 16 kHz.

        A wave longer than the tower's input (10 s) is split into windows that cover it evenly, and their vectors
        are averaged. Upstream takes one random window, so two of its calls differ. Raises InputError if the model
        has no audio tower.
        """
        if not self.hears:
            raise InputError(explain_text_only(self.folder))
        vectors = []
        for wave in waves:
            windows = torch.cat([self._embed_window(window) for window in self._windows(wave)])
            vectors.append(F.normalize(windows, dim=-1).mean(dim=0, keepdim=True))
        return F.normalize(torch.cat(vectors), dim=-1)

    def _windows(self, wave: np.ndarray) -> list[np.ndarray]:
        if self._features.sampling_rate != SAMPLE_RATE:  # AudioLDM's CLAP hears 48 kHz
            wave = resample(wave, SAMPLE_RATE, self._features.sampling_rate)
        length = int(self._features.nb_max_samples)
        starts = np.linspace(0, max(0, len(wave) - length), math.ceil(len(wave) / length)).round().astype(int)
        return [wave[start : start + length] for start in starts]

    def _embed_window(self, wave: np.ndarray) -> Tensor:
        features = self._features(wave, sampling_rate=self._features.sampling_rate, return_tensors="pt")
        mel = features["input_features"].float().to(self.device)
        return self._audio_model(mel, is_longer=features["is_longer"].to(self.device)).audio_embeds

    @cached_property
    def _config(self) -> Any:
        from transformers.models.clap.configuration_clap import ClapConfig

        with reporting(self.path / "config.json"):
            config = read_json(self.path / "config.json")
            if config.get("model_type") == "clap":
                return ClapConfig.from_dict(config)
            # A text tower of its own, whose file says 1e-12 where RoBERTa was trained with 1e-5.
            return ClapConfig(text_config={**config, "layer_norm_eps": 1e-5})

    @property
    def _text_model(self) -> nn.Module:
        from transformers.models.clap.modeling_clap import ClapTextModelWithProjection

        return self._tower("text", ClapTextModelWithProjection)

    @property
    def _audio_model(self) -> nn.Module:
        from transformers.models.clap.modeling_clap import ClapAudioModelWithProjection

        return self._tower("audio", ClapAudioModelWithProjection)

    def _tower(self, kind: str, network: Callable[[Any], nn.Module]) -> nn.Module:
        name = f"{kind}_tower"
        if name not in self._modules:
            config = getattr(self._config, f"{kind}_config")
            prefixes = (f"{kind}_model.", f"{kind}_projection.")
            self.add_module(name, load(lambda: network(config), self.weights, prefixes).to(self.device))
        return self.get_submodule(name)

    @cached_property
    def _features(self) -> Any:
        from transformers.models.clap.feature_extraction_clap import ClapFeatureExtractor

        with reporting(self.path / "preprocessor_config.json"):
            return ClapFeatureExtractor.from_dict(read_json(self.path / "preprocessor_config.json"))

    @cached_property
    def _tokenize(self) -> _Tokenizer:
        return _Tokenizer(self.folder.tokenizer, self._config.text_config)


class ClipEncoder:
    """CLIP's image and text towers, of a CLIPModel or any VisionTextDualEncoderModel, as they give their
    vectors."""

    def __init__(self, path: Path, weights: Path, device: str | torch.device = "cpu") -> None:
        self.path, self.weights = path, weights
        self.device = torch.device(device)

    @torch.inference_mode()
    def encode_image(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images of any size -> (B, 512), not normalised."""
        return torch.cat([self._vision(self.pixels(image)[None].to(self.device)) for image in images])

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(B, 512), not normalised. What is longer than the tower's positions is cut."""
        return torch.cat([self._text(**self._tokenize([text], self.device)) for text in texts])

    @torch.inference_mode()
    def encode_pixels_batch(self, pixels: Sequence[Tensor]) -> Tensor:
        """(B, 512), as encode_image up to rounding, of B results of ``pixels``, in one pass."""
        batch = torch.stack(list(pixels)).to(self.device, memory_format=torch.channels_last)  # as convolutions like it
        return self._vision(batch)

    @torch.inference_mode()
    def encode_text_batch(self, texts: Sequence[str]) -> Tensor:
        """(B, 512), as encode_text up to rounding, in one padded pass; fastest when texts have similar lengths."""
        return self._text(**self._tokenize(texts, self.device))

    def pixels(self, image: Image.Image) -> Tensor:
        """(3, height, width) float32 of an RGB image of any size, as the image tower takes it; on the CPU."""
        with reporting(self.path / "preprocessor_config.json"):
            return torch.from_numpy(preprocess(image, self._preprocessing))

    @cached_property
    def _vision(self) -> Callable[..., Tensor]:
        return self._tower("vision_model", self._config.vision_config, "visual_projection")

    @cached_property
    def _text(self) -> Callable[..., Tensor]:
        return self._tower("text_model", self._config.text_config, "text_projection")

    def _tower(self, name: str, config: Any, projection: str) -> Callable[..., Tensor]:
        from transformers.models.auto.modeling_auto import AutoModel

        tower = load(
            lambda: nn.ModuleDict({name: AutoModel.from_config(config)}), self.weights, (f"{name}.",)
        )[name]
        tower.to(self.device)
        weight = read_tensors(self.weights, (f"{projection}.weight",))[f"{projection}.weight"].to(self.device)
        return lambda *args, **inputs: F.linear(tower(*args, **inputs).pooler_output, weight)

    @cached_property
    def _config(self) -> Any:
        from transformers.models.auto.configuration_auto import AutoConfig

        with reporting(self.path / "config.json"):
            config = read_json(self.path / "config.json")
            return AutoConfig.for_model(config.pop("model_type"), **config)

    @cached_property
    def _tokenize(self) -> _Tokenizer:
        return _Tokenizer(self.path, self._config.text_config)

    @cached_property
    def _preprocessing(self) -> dict[str, Any]:
        return read_json(self.path / "preprocessor_config.json")


class ImageEncoder:
    """An image → CLIP's image tower → a translator → (B, 512) unit vectors in CLAP space, float32."""

    def __init__(self, clip: ClipEncoder) -> None:
        self.clip = clip

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], translator: nn.Module) -> Tensor:
        """RGB images of any size -> (B, 512); ``translator`` leads from this CLIP's space into CLAP's."""
        return translator.to(self.clip.device)(self.clip.encode_image(images))


def preprocess(image: Image.Image, settings: dict[str, Any]) -> np.ndarray:
    """An RGB image -> (3, height, width) float32, as a CLIP image tower expects it.

    ``settings`` is the folder's preprocessor_config.json: size (shortest_edge, or height and width), resample
    (Pillow's number), crop_size, rescale_factor, image_mean and image_std (per channel), and do_… for each
    step.
    """
    image = image.convert("RGB")
    if settings.get("do_resize", True):
        image = image.resize(
            _new_size(image.size, settings["size"]), Image.Resampling(settings.get("resample", 3))
        )
    if settings.get("do_center_crop", True):
        crop = settings.get("crop_size", settings["size"])
        height, width = (crop["height"], crop["width"]) if isinstance(crop, dict) else (crop, crop)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, dtype=np.float32)
    if settings.get("do_rescale", True):
        pixels = pixels * np.float32(settings.get("rescale_factor", 1 / 255))
    if settings.get("do_normalize", True):
        pixels = (pixels - np.float32(settings["image_mean"])) / np.float32(settings["image_std"])
    return np.ascontiguousarray(rearrange(pixels, "h w c -> c h w"))


def _new_size(size: tuple[int, int], wanted: dict[str, int] | int) -> tuple[int, int]:
    """(width, height) after resizing; the short side becomes shortest_edge, the long one is rounded down."""
    if isinstance(wanted, dict) and "height" in wanted:
        return wanted["width"], wanted["height"]
    edge, short = wanted["shortest_edge"] if isinstance(wanted, dict) else wanted, min(size)
    width, height = (edge if side == short else int(edge * side / short) for side in size)
    return width, height


class _Tokenizer:
    """From texts to the inputs of a text tower, padded to the longest of them."""

    def __init__(self, path: Path, config: Any) -> None:
        self._tokenizer = read_tokenizer(path)
        offset = config.pad_token_id + 1 if config.model_type in OFFSET_POSITIONS else 0
        padding = config.pad_token_id or 0  # RoBERTa counts positions by it; elsewhere the mask says it all
        self._tokenizer.enable_padding(pad_id=padding)
        self._tokenizer.enable_truncation(config.max_position_embeddings - offset)

    def __call__(self, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids, mask = [one.ids for one in encoded], [one.attention_mask for one in encoded]
        return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}

    def unread(self, text: str) -> str:
        """The end of ``text`` that is cut off; "" if there is none."""
        encoded = self._tokenizer.encode(text)
        return text[max(stop for _, stop in encoded.offsets) :] if encoded.overflowing else ""
