"""The verbs: 1 check, 2 condition, 3 denoise, 4 decode, 5 rank; and the functions that string them together.

    prompt ─ check ─► Prompt ─ condition ─► (1, 512) ─ denoise ─► latents ─ decode ─► waves ─ rank ─► Sound

Torch is imported where it is needed, so that a bad prompt or option is refused before that takes its seconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .checkpoints import registry
from .errors import InputError
from .latent_diffusion import LatentDiffusion
from .options import GenerateOptions

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

PEAK = 0.99  # of full scale: a louder wave is scaled down to it, so that 16 bits clip nothing

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class Prompt:
    """What to make a sound of, read and found good."""

    kind: Literal["text", "image", "audio"]
    source: str  # as the user gave it: words, URL, file name …
    content: Any  # text: str; image: RGB PIL image; audio: float32 (N,) at 16 kHz


@dataclass(frozen=True)
class Sound:
    """One result: ``wave`` float32 (N,) in [-0.99, 0.99] at 16 kHz, and what it takes to make it again."""

    wave: np.ndarray
    item: int  # which of the batch, from 0
    candidate: int  # which of the item's candidates was kept, from 0
    noise_seed: int  # as the seed of a run with one sound and one candidate, it gives this wave
    similarity: float | None  # cosine of the wave's CLAP vector with the condition; None: no choice


# 1. check


def read_prompt(
    prompt: str | PathLike[str] | Image | None = None, audio_file: str | Path | None = None
) -> Prompt:
    """Read a prompt: words, or an image (URL, file, data URI, PIL image), or else a sound file.

    A path (not a str) is that of an image, whatever it looks like. Raises InputError.
    """
    if (prompt is None) == (audio_file is None):
        raise InputError("give one prompt: either a text or an image (-t), or a sound file (-f)")
    if audio_file is not None:
        from .audio import read_wave

        return Prompt("audio", str(audio_file), read_wave(audio_file))
    if isinstance(prompt, PathLike):
        from .images import load_image

        return Prompt("image", str(prompt), load_image(str(prompt)))
    if not isinstance(prompt, str):
        from .images import to_rgb

        return Prompt("image", "image", to_rgb(prompt))
    from .prompts import kind_of

    if kind_of(prompt) == "text":
        # A terminal may hand over bytes that are no UTF-8, which Python keeps as lone surrogates.
        words = prompt.strip().encode(errors="replace").decode()
        return Prompt("text", words, words)
    from .images import load_image

    return Prompt("image", prompt.strip(), load_image(prompt))


# 2. condition


def condition(model: LatentDiffusion, prompt: Prompt, translator: str | None = None) -> Tensor:
    """The prompt as a (1, 512) unit vector in CLAP space, on the model's device.

    ``translator``: name or file of the one for an image; None is the model's default. Warns, in one line, of
    a prompt unlike everything the model was trained on, where the model knows that for this kind of prompt.
    """
    if prompt.kind == "image":
        vector = model.image_encoder([prompt.content], model.translator(translator))
    elif prompt.kind == "audio":
        vector = model.clap.encode_audio([prompt.content])
    else:
        vector = model.clap.encode_text([prompt.content])
    names, known, thresholds = model.known_sounds
    if known is not None and prompt.kind in thresholds:
        similarity = (known @ vector[0]).cpu()
        if similarity.max() < thresholds[prompt.kind]:
            near = ", ".join(names[i] for i in similarity.topk(min(3, len(names))).indices)
            log.warning(
                "the model %s may not know this; the nearest sounds it knows: %s",
                model.folder.name,
                near,
            )
    return vector


# 3. denoise


def noise_seed(seed: int, item: int, candidate: int) -> int:
    """The seed of one sound's own generator; for item 0, candidate 0 it is ``seed`` itself.

    Derived seeds are below 2**53, which every reader of JSON keeps.
    """
    if item == candidate == 0:
        return int(seed)
    bits = np.random.SeedSequence((seed, item, candidate)).generate_state(1, np.uint64)[0]
    return int(bits) >> 11


def latent_frames(model: LatentDiffusion, duration: float) -> int:
    """Length of the latents for ``duration`` seconds: enough mel frames, and what the UNet can halve."""
    from .audio import SAMPLE_RATE

    hop = math.prod(model.vocoder.config.upsample_rates)  # samples
    frames = math.ceil(round(duration * SAMPLE_RATE) / hop)
    multiple = 2 ** (len(model.unet.config.block_out_channels) - 1)
    return math.ceil(frames / _vae_factor(model) / multiple) * multiple


def denoise(
    model: LatentDiffusion,
    vector: Tensor,
    options: GenerateOptions,
    seed: int,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Latents (1, C, T, F) for the condition ``vector`` (1, 512), with all noise drawn from ``seed``."""
    import torch

    from .sampling import denoise as run
    from .sampling import make_scheduler

    generator = torch.Generator("cpu").manual_seed(seed)
    bands = model.vocoder.config.model_in_dim // _vae_factor(model)
    shape = (1, model.unet.config.in_channels, latent_frames(model, options.duration), bands)
    noise = torch.randn(shape, generator=generator).to(model.device)
    scheduler = make_scheduler(model.scheduler, options.sampler, options.ddim_steps)
    unconditional = model.unconditional if options.guidance_scale != 1 else vector
    return run(
        model.unet,
        scheduler,
        noise,
        vector,
        unconditional,
        options.guidance_scale,
        generator,
        on_step=on_step,
    )


# 4. decode


def decode(model: LatentDiffusion, latents: Tensor, duration: float) -> np.ndarray:
    """Latents (1, C, T, F) -> float32 (N,), exactly ``round(duration * 16000)`` samples, within ±0.99."""
    import torch

    from .audio import SAMPLE_RATE

    with torch.inference_mode():
        mel = model.vae.decode(latents / model.vae.config.scaling_factor).sample  # (1, 1, frames, 64)
        wave = model.vocoder(mel[:, 0])[0]
    wave = wave[: round(duration * SAMPLE_RATE)].clamp(-1, 1).cpu().numpy()
    peak = np.abs(wave).max()
    if not np.isfinite(peak):
        raise InputError("this gives no sound but infinite numbers; a smaller guidance scale may help")
    return wave * np.float32(PEAK / peak) if peak > PEAK else wave


# 5. rank


def rank(model: LatentDiffusion, waves: list[np.ndarray], vector: Tensor) -> list[float]:
    """Cosine of each wave's CLAP vector with the condition (1, 512): how well it is what was asked for."""
    return (model.clap.encode_audio(waves) @ vector[0]).cpu().tolist()


# Strung together


def generate(
    model: LatentDiffusion,
    vector: Tensor,
    options: GenerateOptions,
    on_step: Callable[[], None] | None = None,
) -> Iterator[Sound]:
    """Sounds for the condition ``vector`` (1, 512), one after the other as they are made.

    Each sound and each candidate is denoised on its own, not as a batch: batched matrix products round
    differently, and the same seed shall give the same bytes in any company; on a CPU a batch would gain no
    time. ``on_step`` is called steps * batchsize * n_candidates times.
    """
    options.check()
    for item in range(options.batchsize):
        seeds = [noise_seed(options.seed, item, candidate) for candidate in range(options.n_candidates)]
        waves = []
        for seed in seeds:
            latents = denoise(model, vector, options, seed, on_step)
            waves.append(decode(model, latents, options.duration))
        similarities = rank(model, waves, vector) if len(waves) > 1 else [None]
        best = int(np.argmax(similarities)) if len(waves) > 1 else 0
        yield Sound(waves[best], item, best, seeds[best], similarities[best])


def build_model(
    ckpt_path: str | Path | None = None,
    config: None = None,
    model_name: str = registry.DEFAULT_MODEL,
    device: str | None = None,
) -> LatentDiffusion:
    """The model called ``model_name`` (or in that folder), or in the folder ``ckpt_path``.

    Its parts are read on first use. ``device``: "cpu", "cuda" … or None, which is a GPU if there is one.
    ``config`` is there for upstream's sake: a model folder carries its own. Raises InputError.
    """
    _no_config(config)
    folder = registry.find(model_name) if ckpt_path is None else registry.open_folder(ckpt_path)
    return LatentDiffusion(folder, "auto" if device is None else device)


def text_to_audio(
    latent_diffusion: LatentDiffusion,
    text: str | PathLike[str] | Image | None,
    original_audio_file_path: str | Path | None = None,
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
) -> np.ndarray:
    """A prompt -> float32 (batchsize, 1, N) in [-0.99, 0.99] at 16 kHz.

    ``text`` may also be an image (URL, file, data URI, path, PIL image), as ``-t`` of the command line may; with
    ``original_audio_file_path`` instead (text None or ""), sounds like that one. Units and ranges of the rest
    are those of GenerateOptions; None is the model's default. Raises InputError.
    """
    _no_config(config)
    prompt = read_prompt(text if original_audio_file_path is None else text or None, original_audio_file_path)
    given = {
        "seed": seed,
        "ddim_steps": ddim_steps,
        "duration": duration,
        "batchsize": batchsize,
        "guidance_scale": guidance_scale,
        "n_candidates": n_candidate_gen_per_text,
        "sampler": sampler,
    }
    options = GenerateOptions.build(given, latent_diffusion.defaults)
    vector = condition(latent_diffusion, prompt, translator)
    return np.stack([sound.wave for sound in generate(latent_diffusion, vector, options)])[:, None]


def image_to_audio(
    latent_diffusion: LatentDiffusion,
    image: str | PathLike[str] | Image,
    translator: str | None = None,
    **options: Any,
) -> np.ndarray:
    """An image (PIL image, URL, file, data URI) -> float32 (batchsize, 1, N) in [-0.99, 0.99] at 16 kHz.

    ``translator``: name or file; None is the model's default. ``options`` are text_to_audio's.
    Raises InputError.
    """
    if isinstance(image, str):
        from .prompts import kind_of

        if kind_of(image) != "image":
            raise InputError("the image must be a URL, a file, a data URI or a PIL image, not words")
    return text_to_audio(latent_diffusion, image, translator=translator, **options)


def _no_config(config: Any) -> None:
    if config is not None:
        raise InputError("config must be left out: the model's folder says how it is built")


def _vae_factor(model: LatentDiffusion) -> int:
    """Mel frames, and bands, to one of the latents."""
    return 2 ** (len(model.vae.config.block_out_channels) - 1)
