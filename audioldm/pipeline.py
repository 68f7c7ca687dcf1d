"""The verbs: 1 check, 2 condition, 3 denoise, 4 decode, 5 rank; and the functions that string them together.

    prompts ─ check ─► Prompt ─ condition ─► (1, 512) ─ denoise ─► latents ─ decode ─► waves ─ rank ─► Sound

The first two are in conditioning.py; what begins with a sound of the user's is in editing.py.
Torch is imported where it is needed, so that a bad prompt or option is refused before that takes its seconds.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .checkpoints import registry
from .conditioning import (
    Prompt,
    check_negative,
    check_prompts,
    check_weights,
    condition,
    condition_all,
    encode_prompt,
    read_negative,
    read_prompt,
    read_prompts,
)
from .editing import Original, Source, inpaint, prepare, put_back, read_original, tame, transfer
from .errors import InputError
from .latent_diffusion import LatentDiffusion
from .options import GenerateOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Prompt", "Sound", "begin", "build_model", "check_negative", "check_prompts", "check_weights", "condition",
    "condition_all", "decode", "denoise", "encode_prompt", "generate", "noise_seed", "rank", "read_negative",
    "read_original", "read_prompt", "read_prompts",
]  # fmt: skip
UPSTREAM = ("text_to_audio", "image_to_audio", "style_transfer", "super_resolution_and_inpainting")  # in functions.py

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class Sound:
    """One result: ``wave`` float32 (N,) in [-0.99, 0.99] at 16 kHz, and what it takes to make it again."""

    wave: np.ndarray
    item: int  # which of the batch, from 0
    candidate: int  # which of the item's candidates was kept, from 0
    noise_seed: int  # as the seed of a run with one sound and one candidate, it gives this wave
    similarity: float | None  # cosine of the wave's CLAP vector with the condition; None: no choice


# 3. denoise


def noise_seed(seed: int, item: int, candidate: int) -> int:
    """The seed of one sound's own generator; for item 0, candidate 0 it is ``seed`` itself.

    Derived seeds are below 2**53, which every reader of JSON keeps.
    """
    if item == candidate == 0:
        return int(seed)
    bits = np.random.SeedSequence((seed, item, candidate)).generate_state(1, np.uint64)[0]
    return int(bits) >> 11


def begin(seed: int) -> torch.Generator:
    """The generator of one sound's noise, where upstream's has come to when it draws the first noise of one text.

    Upstream encodes a silence of 10 s for nothing, which draws the noise of its latents, and then draws a number
    for each of two copies of the prompt, to leave it out by chance. None of that is done here, but drawn, so that
    the same seed gives upstream's own sound (with --sampler ddim, one sound and one candidate).
    """
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    torch.randn(1, 8, 256, 16, generator=generator)
    torch.rand(1, generator=generator), torch.rand(1, generator=generator)
    return generator


def denoise(
    model: LatentDiffusion,
    vector: Tensor,
    options: GenerateOptions,
    seed: int,
    on_step: Callable[[], None] | None = None,
    negative: Tensor | None = None,
) -> Tensor:
    """Latents (1, C, T, F) for the condition ``vector`` (1, 512), with all noise drawn from ``seed``.

    ``negative`` (1, 512): the condition to go away from, in place of the empty text's.
    """
    from .decoding import latent_shape, window
    from .sampling import denoise as run
    from .sampling import draw, make_scheduler

    generator = begin(seed)
    noise = draw(latent_shape(model, options.duration), generator).to(model.device)
    scheduler = make_scheduler(model.scheduler, options.sampler, options.ddim_steps)
    latents = run(
        model.unet,
        scheduler,
        noise,
        vector,
        _unconditional(model, vector, options, negative),
        options.guidance_scale,
        generator,
        on_step=on_step,
        window=window(model),
    )
    return tame(latents)


def _unconditional(
    model: LatentDiffusion, vector: Tensor, options: GenerateOptions, negative: Tensor | None
) -> Tensor:
    """What guidance leads away from; without guidance nothing, and nothing is read for it."""
    if options.guidance_scale == 1:
        return vector
    return model.unconditional if negative is None else negative


# 4. decode


def decode(model: LatentDiffusion, latents: Tensor, duration: float) -> np.ndarray:
    """Latents (1, C, T, F) -> float32 (N,), exactly ``round(duration * 16000)`` samples, within ±0.99."""
    from .decoding import finish, to_mel, vocode

    return finish(vocode(model, to_mel(model, latents)), duration)


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
    *,
    negative: Tensor | None = None,
    original: Original | None = None,
) -> Iterator[Sound]:
    """Sounds for the condition ``vector`` (1, 512), one after the other as they are made.

    Each sound and each candidate is denoised on its own, not as a batch: batched matrix products round
    differently, and the same seed shall give the same bytes in any company; on a CPU a batch would gain no
    time. ``on_step`` is called options.steps_run * batchsize * n_candidates times. ``negative`` (1, 512): the
    condition to go away from. ``original``: the sound that every mode but generation begins with, by read_original.
    """
    options.check()
    if options.edits and original is None:
        raise InputError(f"--mode {options.mode} begins with a sound: give its file with -f")
    options = _heard(model, options)
    source = prepare(model, original, options) if options.edits else None
    for item in range(options.batchsize):
        seeds = [noise_seed(options.seed, item, candidate) for candidate in range(options.n_candidates)]
        waves = []
        for seed in seeds:
            last = item == options.batchsize - 1 and seed == seeds[-1]
            waves.append(_make(model, vector, options, seed, on_step, negative, source, last and model.frugal))
        similarities = rank(model, waves, vector) if len(waves) > 1 else [None]
        best = int(np.argmax(similarities)) if len(waves) > 1 else 0
        yield Sound(waves[best], item, best, seeds[best], similarities[best])


def _heard(model: LatentDiffusion, options: GenerateOptions) -> GenerateOptions:
    """One candidate instead of several where the model cannot hear which is the best, with a warning."""
    if options.n_candidates == 1 or model.clap.hears:
        return options
    from .checkpoints.hub import text_only

    log.warning("one candidate is made: %s", text_only(model.folder))
    return dataclasses.replace(options, n_candidates=1)


def _make(
    model: LatentDiffusion,
    vector: Tensor,
    options: GenerateOptions,
    seed: int,
    on_step: Callable[[], None] | None,
    negative: Tensor | None,
    source: Source | None,
    last: bool,
) -> np.ndarray:
    """One wave, float32 (N,). A transfer of strength 1 is a generation: of the sound only its length is left.

    ``last``: the UNet is not needed again, and need not be in memory beside the decoder and the vocoder.
    """
    unconditional = _unconditional(model, vector, options, negative)
    if source is None or (options.mode == "transfer" and options.steps_run == options.ddim_steps):
        latents = denoise(model, vector, options, seed, on_step, negative)
    elif options.mode == "transfer":
        latents = transfer(model, vector, unconditional, options, seed, source, on_step)
    else:
        from .decoding import finish, vocode

        mel = inpaint(model, vector, unconditional, options, seed, source, on_step)
        if last:
            model.release("unet")
        return finish(put_back(source, vocode(model, mel)), options.duration, keep_level=True)
    if last:
        model.release("unet")
    return decode(model, latents, options.duration)


def build_model(
    ckpt_path: str | Path | None = None,
    config: None = None,
    model_name: str = registry.DEFAULT_MODEL,
    device: str | None = None,
) -> LatentDiffusion:
    """The model called ``model_name`` (or at that path), or in the folder or checkpoint file ``ckpt_path``.

    Its parts are read on first use. ``device``: "cpu", "cuda" … or None, which is a GPU if there is one.
    ``config`` is there for upstream's sake: a model folder carries its own. Raises InputError.
    """
    if config is not None:
        raise InputError("config must be left out: the model's folder says how it is built")
    folder = registry.find(model_name) if ckpt_path is None else registry.open_path(ckpt_path)
    return LatentDiffusion(folder, "auto" if device is None else device)


def __getattr__(name: str) -> Any:
    if name not in UPSTREAM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import functions

    return getattr(functions, name)
