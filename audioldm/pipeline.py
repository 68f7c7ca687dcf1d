"""Sounds from Python, with upstream's names and signatures; our own arguments follow as keywords.

    prompts ─ read ─► Prompt ─ condition ─► (1, 512) ─ generate ─► Sound
"""

from __future__ import annotations

import functools
import numbers
import os
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from .conditioning import check_weights, condition_all, encode_prompt, read_negative
from .errors import InputError, missing_name
from .generation import generate
from .inputs.prompt import kind_of, read_prompts
from .inputs.sounds import read_original
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
    def with_sound(*args: object, **kwargs: object) -> np.ndarray:
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
    given = _given(config, seed, ddim_steps, duration, batchsize, guidance_scale, n_candidate_gen_per_text, sampler)
    return _waves(latent_diffusion, text, original_audio_file_path, given, translator, weights, negative_prompt)


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
    given = _given(config, seed, ddim_steps, duration, batchsize, guidance_scale, n_candidate_gen_per_text, sampler)
    given |= {"mode": "transfer", "transfer_strength": transfer_strength}
    return _waves(latent_diffusion, text, original_audio_file_path, given, translator, weights, negative_prompt)


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
    given = _given(config, seed, ddim_steps, duration, batchsize, guidance_scale, n_candidate_gen_per_text, sampler)
    given |= {
        "mode": "inpaint",
        "time_mask_ratio": time_mask_ratio_start_and_end,
        "frequency_mask_ratio": freq_mask_ratio_start_and_end,
    }
    return _waves(latent_diffusion, text, original_audio_file_path, given, translator, weights, negative_prompt)


def _given(
    config: None, seed: int, ddim_steps: object, duration: object, batchsize: int, guidance_scale: object,
    n_candidates: object, sampler: object,
) -> dict[str, Any]:  # fmt: skip
    """The options by name; None: left to the model. Raises InputError."""
    if config is not None:
        raise InputError("config must be None: the model's folder holds its configuration")
    return {
        "seed": seed,
        "ddim_steps": ddim_steps,
        "duration": duration,
        "batchsize": batchsize,
        "guidance_scale": guidance_scale,
        "n_candidates": n_candidates,
        "sampler": sampler,
    }


def _waves(
    model: LatentDiffusion,
    text: What | Sequence[What] | None,
    sound: Sound | None,
    given: dict[str, Any],
    translator: str | None,
    weights: Sequence[float] | None,
    negative_prompt: What | None,
) -> np.ndarray:
    """All sounds of a run as float32 (batchsize, 1, N); ``sound`` is edited if ``given`` has a mode, else a prompt."""
    original = None
    if "mode" in given:
        original = read_original(sound, given["mode"], given["duration"])
        sound = None
        if given["duration"] is None:
            given["duration"] = original.duration
    elif isinstance(text, str) and not text and sound is not None:
        text = None
    prompts = read_prompts(text, sound)
    if not isinstance(model, LatentDiffusion):
        raise InputError(f"the first argument must be a model, as build_model gives it, not {type(model).__name__}")
    options = GenerateOptions.build(given, model.defaults)
    if not isinstance(translator, str | PathLike | None):
        raise InputError(f"translator must be a name or a file, not {type(translator).__name__}")
    translator = None if translator is None else os.fspath(translator)
    weights = check_weights(weights, len(prompts))
    against = read_negative(negative_prompt, options.guidance_scale)
    negative = None if against is None else encode_prompt(model, against, translator)
    vector = condition_all(model, prompts, weights, translator)
    sounds = generate(model, vector, options, negative=negative, original=original)
    return np.stack([sound.wave for sound in sounds])[:, None]


def __getattr__(name: str) -> NoReturn:
    raise missing_name(__name__, name, GONE)
