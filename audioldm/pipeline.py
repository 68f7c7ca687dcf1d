"""Sounds from Python, with upstream's names and signatures; our own arguments follow as keywords.

    prompts ─ read ─► Prompt ─ condition ─► (1, 512) ─ generate ─► Sound
"""

from __future__ import annotations

import functools
import numbers
import os
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .conditioning import check_weights, condition_all, encode_prompt, read_negative
from .errors import InputError, missing_name
from .generation import generate
from .inputs.prompt import Prompt, kind_of, read_prompts
from .inputs.sounds import Original, read_original
from .latent_diffusion.model import LatentDiffusion
from .options import GenerateOptions
from .registry import build_model
from .utils import round_up_duration, seed_everything

if TYPE_CHECKING:
    from PIL.Image import Image

    # A prompt: words, an image, a saved vector; an image also as an array, bytes or an open file
    What = str | PathLike[str] | Image | np.ndarray | bytes | BinaryIO
    Sound = str | PathLike[str] | np.ndarray | tuple[int, np.ndarray] | bytes | BinaryIO

__all__ = [
    "build_model", "image_to_audio", "round_up_duration", "seed_everything", "style_transfer",
    "super_resolution_and_inpainting", "text_to_audio",
]  # fmt: skip
GONE = {
    "set_cond_audio": "pass the sound as original_audio_file_path of text_to_audio",
    "set_cond_text": "text_to_audio tells texts, images and sounds apart by itself",
    "make_batch_for_text_to_audio": "text_to_audio takes batchsize",
    "duration_to_latent_t_size": "use audioldm.latent_diffusion.codec.latent_shape(model, duration)",
    "DDIMSampler": "use audioldm.latent_diffusion.sampling",
    "default_audioldm_config": "a model's folder holds its configuration",
}


def _seed_third(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Upstream's older versions had no sound before the seed: a number in the third place is the seed."""

    @functools.wraps(function)
    def with_sound(*args: Any, **kwargs: Any) -> np.ndarray:
        if len(args) > 2 and isinstance(args[2], numbers.Integral):
            args = (*args[:2], kwargs.pop("original_audio_file_path", None), *args[2:])
        return function(*args, **kwargs)

    return with_sound


@_seed_third
def text_to_audio(
    latent_diffusion: LatentDiffusion,
    text: What | Sequence[What] | None,
    original_audio_file_path: Sound | None = None,
    seed: int = 42,
    ddim_steps: int | None = None,
    duration: float | None = None,
    batchsize: int = 1,
    guidance_scale: float | None = None,
    n_candidate_gen_per_text: int | None = None,
    config: None = None,
    *,
    sampler: str | None = None,
    translator: str | None = None,
    weights: Sequence[float] | None = None,
    negative_prompt: What | None = None,
) -> np.ndarray:
    """Prompts -> float32 (batchsize, 1, N) in [-0.99, 0.99] at 16 kHz.

    ``text`` may also be an image (URL, file, data URI, path, PIL image) or a saved vector (.npy), as ``-t`` of the
    command line may, or a list of such; with ``original_audio_file_path``, sounds like that one, alone (text None or
    "") or mixed with the others. ``weights``: one for each prompt, the sound's last. ``negative_prompt``: what
    the sound should avoid. For units and ranges of the rest, see GenerateOptions; None is the model's default.
    Raises InputError.
    """
    _no_config(config)
    no_text = isinstance(text, str) and not text and original_audio_file_path is not None
    prompts = read_prompts(None if no_text else text, original_audio_file_path)
    given = _given(seed, ddim_steps, duration, batchsize, guidance_scale, n_candidate_gen_per_text, sampler)
    options = _options(latent_diffusion, given)
    return _waves(latent_diffusion, prompts, options, translator, weights, negative_prompt)


def image_to_audio(
    latent_diffusion: LatentDiffusion,
    image: What,
    translator: str | None = None,
    **options: Any,
) -> np.ndarray:
    """An image -> float32 (batchsize, 1, N) in [-0.99, 0.99] at 16 kHz.

    ``image``: URL, file, data URI, PIL image, array, bytes or open file.
    ``translator``: name or file; None is the model's default. ``options`` are text_to_audio's.
    Raises InputError.
    """
    if image is None or isinstance(image, str) and kind_of(image) != "image":
        raise InputError("the image must be a URL, a file, a data URI or a PIL image, not a text")
    return text_to_audio(latent_diffusion, image, translator=translator, **options)


def style_transfer(
    latent_diffusion: LatentDiffusion,
    text: What | Sequence[What],
    original_audio_file_path: Sound,
    transfer_strength: float,
    seed: int = 42,
    duration: float | None = None,
    batchsize: int = 1,
    guidance_scale: float | None = None,
    ddim_steps: int | None = None,
    config: None = None,
    *,
    n_candidate_gen_per_text: int | None = None,
    sampler: str | None = None,
    translator: str | None = None,
    weights: Sequence[float] | None = None,
    negative_prompt: What | None = None,
) -> np.ndarray:
    """A sound file restyled for the prompts -> float32 (batchsize, 1, N) in [-0.99, 0.99] at 16 kHz.

    ``transfer_strength``: from 0, the sound after VAE and vocoder, to 1, in which nothing of it is left.
    ``duration`` None: the file's own. The file may be of any rate, format and length, and is cut to ``duration``.
    The rest is text_to_audio's. Raises InputError.
    """
    _no_config(config)
    original = read_original(original_audio_file_path, "transfer", duration)
    prompts = read_prompts(text)
    given = _given(seed, ddim_steps, duration, batchsize, guidance_scale, n_candidate_gen_per_text, sampler)
    given = {"duration": original.duration, **_without_none(given)}
    given |= {"mode": "transfer", "transfer_strength": transfer_strength}
    options = _options(latent_diffusion, given)
    return _waves(latent_diffusion, prompts, options, translator, weights, negative_prompt, original)


def super_resolution_and_inpainting(
    latent_diffusion: LatentDiffusion,
    text: What | Sequence[What],
    original_audio_file_path: Sound | None = None,
    seed: int = 42,
    ddim_steps: int | None = None,
    duration: float | None = None,
    batchsize: int = 1,
    guidance_scale: float | None = None,
    n_candidate_gen_per_text: int | None = None,
    time_mask_ratio_start_and_end: tuple[float, float] = (0.10, 0.15),
    freq_mask_ratio_start_and_end: tuple[float, float] = (1.0, 1.0),
    config: None = None,
    *,
    sampler: str | None = None,
    translator: str | None = None,
    weights: Sequence[float] | None = None,
    negative_prompt: What | None = None,
) -> np.ndarray:
    """A sound file with a part regenerated for the prompts -> float32 (batchsize, 1, N) in [-0.99, 0.99] at 16 kHz.

    Made new are both a time, at all frequencies, and frequencies, at all times, in shares (0 to 1) of the latents'
    length and height: int(T * start) to before int(T * end). (1, 1) leaves one of the two out, so (1, 1) and
    (0.75, 1) is super-resolution. All else keeps the file's own mel spectrogram. ``duration`` None: the file's own.
    The rest is text_to_audio's. Raises InputError.
    """
    _no_config(config)
    original = read_original(original_audio_file_path, "inpaint", duration)
    prompts = read_prompts(text)
    given = _given(seed, ddim_steps, duration, batchsize, guidance_scale, n_candidate_gen_per_text, sampler)
    given = {"duration": original.duration, **_without_none(given)}
    given |= {
        "mode": "inpaint",
        "time_mask_ratio": time_mask_ratio_start_and_end,
        "frequency_mask_ratio": freq_mask_ratio_start_and_end,
    }
    options = _options(latent_diffusion, given)
    return _waves(latent_diffusion, prompts, options, translator, weights, negative_prompt, original)


def _waves(
    model: LatentDiffusion,
    prompts: Sequence[Prompt],
    options: GenerateOptions,
    translator: str | None,
    weights: Sequence[float] | None,
    negative_prompt: Any,
    original: Original | None = None,
) -> np.ndarray:
    """All sounds of a run as float32 (batchsize, 1, N)."""
    if not isinstance(translator, str | PathLike | None):
        raise InputError(f"translator must be a name or a file, not {type(translator).__name__}")
    translator = None if translator is None else os.fspath(translator)
    weights = check_weights(weights, len(prompts))
    against = read_negative(negative_prompt, options.guidance_scale)
    negative = None if against is None else encode_prompt(model, against, translator)
    vector = condition_all(model, prompts, weights, translator)
    sounds = generate(model, vector, options, negative=negative, original=original)
    return np.stack([sound.wave for sound in sounds])[:, None]


def _given(
    seed: int, steps: Any, duration: Any, batchsize: int, guidance: Any, candidates: Any, sampler: Any
) -> dict[str, Any]:
    return {
        "seed": seed,
        "ddim_steps": steps,
        "duration": duration,
        "batchsize": batchsize,
        "guidance_scale": guidance,
        "n_candidates": candidates,
        "sampler": sampler,
    }


def _options(model: LatentDiffusion, given: dict[str, Any]) -> GenerateOptions:
    """``given`` over the model's own defaults. Raises InputError."""
    if not isinstance(model, LatentDiffusion):
        raise InputError(f"the first argument must be a model, as build_model gives it, not {type(model).__name__}")
    return GenerateOptions.build(given, model.defaults)


def _without_none(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _no_config(config: Any) -> None:
    if config is not None:
        raise InputError("config must be None: the model's folder holds its configuration")


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name, GONE)
