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
from typing import TYPE_CHECKING, Any

import numpy as np

from .checkpoints.published import explain_text_only
from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from .inputs.sounds import Original
    from .latent_diffusion.editing import Source
    from .latent_diffusion.model import LatentDiffusion
    from .latent_diffusion.sampling import Predict
    from .options import GenerateOptions

OnStep = Callable[[], object]

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

    def record(self, elapsed: float) -> dict[str, Any]:
        """What its JSON says of it alone. ``elapsed``: seconds since the run began."""
        return {
            "item": self.item,
            "candidate": self.candidate,
            "noise_seed": self.noise_seed,
            "similarity": self.similarity,
            "samples": len(self.wave),
            **({} if self.gain == 1 else {"gain": self.gain}),
            "elapsed_seconds": round(elapsed, 3),
        }


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
    on_step: OnStep | None = None,
    negative: Tensor | None = None,
) -> Tensor:
    """Latents (1, C, T, F) for the condition ``vector`` (1, 512), with all noise drawn from ``seed``.

    ``negative`` (1, 512): the condition to avoid, in place of that of the empty text.
    """
    from .latent_diffusion import sampling
    from .latent_diffusion.codec import latent_shape

    generator = sampling.upstream_generator(seed)
    noise = sampling.draw(latent_shape(model, options.duration), generator).to(model.device)
    scheduler = sampling.make_scheduler(model.scheduler, options.sampler, options.ddim_steps)
    predict = _predictor(model, vector, options, negative)
    return sampling.clamp_runaway(sampling.denoise(predict, scheduler, noise, generator, on_step=on_step))


def _predictor(
    model: LatentDiffusion, vector: Tensor, options: GenerateOptions, negative: Tensor | None
) -> Predict:
    """The UNet under guidance; where there is none, the unconditional vector is not read."""
    from .latent_diffusion.codec import window_length
    from .latent_diffusion.sampling import predictor

    if options.guidance_scale == 1:
        negative = vector
    unconditional = model.unconditional if negative is None else negative
    return predictor(model.unet, vector, unconditional, options.guidance_scale, window_length(model))


def decode(model: LatentDiffusion, latents: Tensor, duration: float) -> np.ndarray:
    """Latents (1, C, T, F) -> float32 (N,), exactly ``round(duration * 16000)`` samples, within ±0.99."""
    from .latent_diffusion.codec import finish, to_mel, vocode

    return finish(vocode(model, to_mel(model, latents)), duration)


def rank(model: LatentDiffusion, waves: list[np.ndarray], vector: Tensor) -> list[float]:
    """Cosine of each wave's CLAP vector with the condition (1, 512): how well it fits the prompt."""
    return (model.clap.encode_audio(waves) @ vector[0]).cpu().tolist()


def generate(
    model: LatentDiffusion,
    vector: Tensor,
    options: GenerateOptions,
    on_step: OnStep | None = None,
    *,
    negative: Tensor | None = None,
    original: Original | None = None,
    frugal: bool = False,
    on_note: Callable[[str], object] = log.warning,
) -> Iterator[Sound]:
    """Sounds for the condition ``vector`` (1, 512), each as soon as it is made.

    Each sound and each candidate is denoised on its own, not as a batch: batched matrix products round
    differently, and the same seed must give the same bytes in any company; on a CPU a batch would save no time.

    Args:
        on_step: called options.steps_run * batchsize * n_candidates times.
        negative: (1, 512), the condition to avoid.
        original: the sound that every mode but generation begins with, from read_original.
        frugal: release the UNet's memory before the last sound is decoded; the next call loads it again.
        on_note: receives each remark for the user.
    """
    options.check()
    if options.guidance_scale == 0:
        on_note("with a guidance scale of 0 the prompt is not used; 1 follows it without guidance")
    if options.edits and original is None:
        raise InputError(f"--mode {options.mode} needs a sound file (-f)")
    if options.n_candidates > 1 and not model.clap.hears:
        on_note(f"only one candidate is made: {explain_text_only(model.folder)}")
        options = dataclasses.replace(options, n_candidates=1)
    source = None
    if options.edits and original is not None:
        from .latent_diffusion.editing import prepare

        source = prepare(model, original, options)
    for item in range(options.batchsize):
        seeds = [noise_seed(options.seed, item, candidate) for candidate in range(options.n_candidates)]
        waves, gains = [], []
        for seed in seeds:
            last = frugal and item == options.batchsize - 1 and seed == seeds[-1]
            wave, gain = _make(model, vector, options, seed, on_step, negative, source, last)
            waves.append(wave)
            gains.append(gain)
        ranks = rank(model, waves, vector) if len(waves) > 1 else []
        best = int(np.argmax(ranks)) if ranks else 0
        if gains[best] < 1:
            softer = -20 * np.log10(gains[best])
            on_note(f"what is new is too loud for full scale: all of the sound is made {softer:.1f} dB softer")
        yield Sound(waves[best], item, best, seeds[best], ranks[best] if ranks else None, gains[best])


def _make(
    model: LatentDiffusion,
    vector: Tensor,
    options: GenerateOptions,
    seed: int,
    on_step: OnStep | None,
    negative: Tensor | None,
    source: Source | None,
    release: bool,
) -> tuple[np.ndarray, float]:
    """One wave, float32 (N,), and its gain. A transfer of strength 1 keeps only the sound's length.

    ``release``: whether to release the UNet's memory before the decoder and the vocoder are loaded.
    """
    if source is None or (options.mode == "transfer" and options.steps_run == options.ddim_steps):
        latents = denoise(model, vector, options, seed, on_step, negative)
    else:
        from .latent_diffusion import editing
        from .latent_diffusion.codec import finish_kept, vocode

        predict = _predictor(model, vector, options, negative)
        if source.region is not None:
            mel = editing.inpaint(model, predict, options, seed, source, source.region, on_step)
            if release:
                model.release("unet")
            wave = editing.put_back(source, source.region, vocode(model, mel))
            return finish_kept(wave, options.duration)
        latents = editing.transfer(model, predict, options, seed, source, on_step)
    if release:
        model.release("unet")
    return decode(model, latents, options.duration), 1.0
