"""From the condition, a unit vector, to sounds: denoise, decode, rank.

    (1, 512) ─ denoise ─► latents ─ decode ─► waves ─ rank ─► Sound

What begins with a sound of the user's is in latent_diffusion/editing.py. Torch is imported where it is needed, so
that a bad prompt or option is refused before that takes its seconds.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .checkpoints.layout import text_only
from .errors import InputError
from .latent_diffusion.editing import inpaint, prepare, put_back, transfer

if TYPE_CHECKING:
    from torch import Tensor

    from .inputs.sounds import Original
    from .latent_diffusion.editing import Source
    from .latent_diffusion.model import LatentDiffusion
    from .options import GenerateOptions

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class Sound:
    """One result: ``wave`` float32 (N,) in [-0.99, 0.99] at 16 kHz, and what it takes to make it again."""

    wave: np.ndarray
    item: int  # which of the batch, from 0
    candidate: int  # which of the item's candidates was kept, from 0
    noise_seed: int  # as the seed of a run with one sound and one candidate, it gives this wave
    similarity: float | None  # cosine of the wave's CLAP vector with the condition; None: no choice
    gain: float = 1.0  # of an edit: what all of the wave was multiplied by, so that nothing is clipped


def noise_seed(seed: int, item: int, candidate: int) -> int:
    """The seed of one sound's own generator; for item 0, candidate 0 it is ``seed`` itself.

    Derived seeds are below 2**53, which every reader of JSON keeps.
    """
    if item == candidate == 0:
        return int(seed)
    bits = np.random.SeedSequence((seed, item, candidate)).generate_state(1, np.uint64)[0]
    return int(bits) >> 11


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
    from .latent_diffusion import sampling
    from .latent_diffusion.codec import latent_shape, window

    generator = sampling.begin(seed)
    noise = sampling.draw(latent_shape(model, options.duration), generator).to(model.device)
    scheduler = sampling.make_scheduler(model.scheduler, options.sampler, options.ddim_steps)
    latents = sampling.denoise(
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
    return sampling.clamp_runaway(latents)


def _unconditional(
    model: LatentDiffusion, vector: Tensor, options: GenerateOptions, negative: Tensor | None
) -> Tensor:
    """What guidance leads away from; without guidance nothing, and nothing is read for it."""
    if options.guidance_scale == 1:
        return vector
    return model.unconditional if negative is None else negative


def decode(model: LatentDiffusion, latents: Tensor, duration: float) -> np.ndarray:
    """Latents (1, C, T, F) -> float32 (N,), exactly ``round(duration * 16000)`` samples, within ±0.99."""
    from .latent_diffusion.codec import finish, to_mel, vocode

    return finish(vocode(model, to_mel(model, latents)), duration)


def rank(model: LatentDiffusion, waves: list[np.ndarray], vector: Tensor) -> list[float]:
    """Cosine of each wave's CLAP vector with the condition (1, 512): how well it is what was asked for."""
    return (model.clap.encode_audio(waves) @ vector[0]).cpu().tolist()


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
        waves, gains = [], []
        for seed in seeds:
            last = item == options.batchsize - 1 and seed == seeds[-1]
            wave, gain = _make(model, vector, options, seed, on_step, negative, source, last and model.frugal)
            waves.append(wave)
            gains.append(gain)
        similarities = rank(model, waves, vector) if len(waves) > 1 else [None]
        best = int(np.argmax(similarities)) if len(waves) > 1 else 0
        if gains[best] < 1:
            log.warning("what is new is too loud for full scale: all of the sound is made %.1f dB softer",
                        -20 * np.log10(gains[best]))  # fmt: skip
        yield Sound(waves[best], item, best, seeds[best], similarities[best], gains[best])


def _heard(model: LatentDiffusion, options: GenerateOptions) -> GenerateOptions:
    """One candidate instead of several where the model cannot hear which is the best, with a warning."""
    if options.n_candidates == 1 or model.clap.hears:
        return options
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
) -> tuple[np.ndarray, float]:
    """One wave, float32 (N,), and its gain.

    A transfer of strength 1 is a generation: of the sound only its length is left.
    ``last``: the UNet is not needed again, and need not be in memory beside the decoder and the vocoder.
    """
    unconditional = _unconditional(model, vector, options, negative)
    if source is None or (options.mode == "transfer" and options.steps_run == options.ddim_steps):
        latents = denoise(model, vector, options, seed, on_step, negative)
    elif options.mode == "transfer":
        latents = transfer(model, vector, unconditional, options, seed, source, on_step)
    else:
        from .latent_diffusion.codec import finish_kept, vocode

        mel = inpaint(model, vector, unconditional, options, seed, source, on_step)
        if last:
            model.release("unet")
        return finish_kept(put_back(source, vocode(model, mel)), options.duration)
    if last:
        model.release("unet")
    return decode(model, latents, options.duration), 1.0
