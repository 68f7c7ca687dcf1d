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
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..audio import SAMPLE_RATE, resample
from ..checkpoints.layout import ModelFolder, text_only
from ..checkpoints.load import load, read_json, read_tensors, using
from ..errors import InputError
from .tokenizer import read_tokenizer

OFFSET_POSITIONS = ("clap_text_model", "roberta", "xlm-roberta")  # number positions from pad_token_id + 1 on


class CLAPAudioEmbeddingClassifierFreev2:
    """CLAP's text and audio towers: words or waves -> (B, 512) unit vectors in one space, float32."""

    def __init__(self, folder: ModelFolder, device: str | torch.device = "cpu") -> None:
        self.path, self.weights, self.folder = folder.part("clap"), folder.weights("clap"), folder
        self.device = torch.device(device)

    @property
    def hears(self) -> bool:
        """Whether there is an audio tower; the hub's AudioLDM repositories have none."""
        return self.folder.hears

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(B, 512). What is longer than the tower's positions (RoBERTa: 512 tokens) is cut."""
        vectors = [self._text_model(**self._tokenize(text)).text_embeds for text in texts]
        return F.normalize(torch.cat(vectors), dim=-1)

    @torch.inference_mode()
    def encode_text_batch(self, texts: Sequence[str]) -> Tensor:
        """(B, 512), what encode_text gives but for rounding, in one padded pass; texts of like length are best."""
        return F.normalize(self._text_model(**self._tokenize(*texts)).text_embeds, dim=-1)

    @torch.inference_mode()
    def encode_tokens(self, ids: Sequence[int]) -> Tensor:
        """(1, 512) of one text's token numbers, with those of its beginning and end: needs no tokenizer."""
        inputs = torch.tensor([list(ids)], device=self.device)
        vectors = self._text_model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).text_embeds
        return F.normalize(vectors, dim=-1)

    @torch.inference_mode()
    def encode_audio(self, waves: Sequence[np.ndarray]) -> Tensor:
        """(B, 512) of float32 waves (N,) in [-1, 1] at 16 kHz.

        A wave longer than the tower hears at once (10 s) is heard in windows that cover it evenly, and the
        windows' vectors are averaged; upstream hears one random window, so that two calls differ. Raises
        InputError if the model does not hear.
        """
        if not self.hears:
            raise InputError(text_only(self.folder))
        vectors = []
        for wave in waves:
            windows = torch.cat([self._embed_window(window) for window in self._windows(wave)])
            vectors.append(F.normalize(windows, dim=-1).mean(dim=0, keepdim=True))
        return F.normalize(torch.cat(vectors), dim=-1)

    def _windows(self, wave: np.ndarray) -> list[np.ndarray]:
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

        with using(self.path / "config.json"):
            config = read_json(self.path / "config.json")
            if config.get("model_type") == "clap":
                return ClapConfig.from_dict(config)
            # A text tower of its own, whose file says 1e-12 where RoBERTa was trained with 1e-5.
            return ClapConfig(text_config={**config, "layer_norm_eps": 1e-5})

    @cached_property
    def _text_model(self) -> nn.Module:
        from transformers.models.clap.modeling_clap import ClapTextModelWithProjection

        return load(
            lambda: ClapTextModelWithProjection(self._config.text_config),
            self.weights,
            ("text_model.", "text_projection."),
        ).to(self.device)

    @cached_property
    def _audio_model(self) -> nn.Module:
        from transformers.models.clap.modeling_clap import ClapAudioModelWithProjection

        return load(
            lambda: ClapAudioModelWithProjection(self._config.audio_config),
            self.weights,
            ("audio_model.", "audio_projection."),
        ).to(self.device)

    @cached_property
    def _features(self) -> Any:
        from transformers.models.clap.feature_extraction_clap import ClapFeatureExtractor

        with using(self.path / "preprocessor_config.json"):
            return ClapFeatureExtractor.from_dict(read_json(self.path / "preprocessor_config.json"))

    @cached_property
    def _tokenize(self) -> Callable[..., dict[str, Tensor]]:
        return _tokenizer(self.folder.tokenizer, self._config.text_config, self.device)


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
        return torch.cat([self._text(**self._tokenize(text)) for text in texts])

    @torch.inference_mode()
    def encode_pixels_batch(self, pixels: Sequence[Tensor]) -> Tensor:
        """(B, 512), what encode_image gives but for rounding, of what ``pixels`` made of B images, in one pass."""
        batch = torch.stack(list(pixels)).to(self.device, memory_format=torch.channels_last)  # as convolutions like it
        return self._vision(batch)

    @torch.inference_mode()
    def encode_text_batch(self, texts: Sequence[str]) -> Tensor:
        """(B, 512), what encode_text gives but for rounding, in one padded pass; texts of like length are best."""
        return self._text(**self._tokenize(*texts))

    def pixels(self, image: Image.Image) -> Tensor:
        """(3, height, width) float32 of an RGB image of any size, as the image tower takes it; on the CPU."""
        with using(self.path / "preprocessor_config.json"):
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

        with using(self.path / "config.json"):
            config = read_json(self.path / "config.json")
            return AutoConfig.for_model(config.pop("model_type"), **config)

    @cached_property
    def _tokenize(self) -> Callable[..., dict[str, Tensor]]:
        return _tokenizer(self.path, self._config.text_config, self.device)

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
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _new_size(size: tuple[int, int], wanted: dict[str, int] | int) -> tuple[int, int]:
    """(width, height) after resizing; the short side becomes shortest_edge, the long one is rounded down."""
    if isinstance(wanted, dict) and "height" in wanted:
        return wanted["width"], wanted["height"]
    edge = wanted["shortest_edge"] if isinstance(wanted, dict) else wanted
    return tuple(edge if side == min(size) else int(edge * side / min(size)) for side in size)


def _tokenizer(path: Path, config: Any, device: torch.device) -> Callable[..., dict[str, Tensor]]:
    """A function from texts to the inputs of a text tower, padded to the longest of them."""
    tokenizer = read_tokenizer(path)
    offset = config.pad_token_id + 1 if config.model_type in OFFSET_POSITIONS else 0
    padding = config.pad_token_id or 0  # RoBERTa counts positions by it; elsewhere the mask says it all
    tokenizer.no_padding()
    tokenizer.enable_truncation(config.max_position_embeddings - offset)

    def tokenize(*texts: str) -> dict[str, Tensor]:
        rows = [torch.tensor(encoded.ids) for encoded in tokenizer.encode_batch(texts)]
        ids = pad_sequence(rows, batch_first=True, padding_value=padding)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

    return tokenize
