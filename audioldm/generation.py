"""From the condition, a unit vector, to sounds: denoise, decode, rank.

    (1, 512) ─ denoise ─► latents ─ decode ─► waves ─ rank ─► Sound

What begins with a sound of the user's is in latent_diffusion/editing.py. Torch is imported where it is needed, so
that a bad prompt or option is refused before that takes its seconds.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .checkpoints.published import explain_text_only
from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from .inputs.sounds import Original
    from .latent_diffusion.editing import Region, Source
    from .latent_diffusion.model import LatentDiffusion
    from .latent_diffusion.sampling import Predict
    from .options import GenerateOptions

OnStep = Callable[[], object]

AT_ONCE = 4  # sounds of a batch; more save little: on a CPU with bf16 4 take a quarter less time for each, 6 take 30 %
BYTES = 2**20  # a generous bound for what a UNet of AudioLDM's size keeps for one latent frame of one sound

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class Sound:
    """One result: ``wave`` float32 (N,) in [-0.99, 0.99] at 16 kHz, and the facts that make it again."""

    wave: np.ndarray
    item: int  # which of the batch, from 0
    candidate: int  # which of the item's candidates was kept, from 0
    noise_seed: int  # as the seed of a run with one sound and one candidate, it gives this wave
    similarity: float | None  # cosine of the wave's CLAP vector with the condition; None: no choice
    gain: float = 1.0  # of an edit: factor on the whole wave, so that nothing is clipped

    def record(self, elapsed: float) -> dict[str, object]:
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
    seeds: Sequence[int],
    on_step: OnStep | None = None,
    negative: Tensor | None = None,
) -> Tensor:
    """Latents (B, C, T, F) for the condition ``vector`` (1, 512), all noise of each drawn from one of B ``seeds``.

    ``negative`` (1, 512): the condition to avoid; None: the condition of the empty text.
    """
    from .latent_diffusion import sampling
    from .latent_diffusion.codec import latent_shape

    generators = [sampling.upstream_generator(seed) for seed in seeds]
    noise = sampling.draw(latent_shape(model, options.duration), generators).to(model.device)
    scheduler = sampling.make_scheduler(model.scheduler, options.sampler, options.ddim_steps)
    predict = _predictor(model, vector, options, negative)
    return sampling.clamp_runaway(sampling.denoise(predict, scheduler, noise, generators, on_step=on_step))


def _predictor(
    model: LatentDiffusion, vector: Tensor, options: GenerateOptions, negative: Tensor | None
) -> Predict:
    """The UNet under guidance; where there is none, the unconditional vector is not read."""
    from .latent_diffusion.codec import window_length
    from .latent_diffusion.sampling import predictor

    if options.guidance_scale == 1:
        negative = vector
    unconditional = model.unconditional if negative is None else negative
    rescale = float(model.folder.index.get("guidance_rescale", 0))
    return predictor(model.unet, vector, unconditional, options.guidance_scale, window_length(model), rescale)


def decode(model: LatentDiffusion, latents: Tensor, duration: float) -> np.ndarray:
    """Latents (1, C, T, F) -> float32 (N,), exactly ``round(duration * 16000)`` samples, within ±0.99."""
    from .latent_diffusion.codec import finish, to_mel, vocode

    return finish(vocode(model, to_mel(model, latents)), duration)


def rank(model: LatentDiffusion, waves: Sequence[np.ndarray], vector: Tensor) -> list[float]:
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

    Sounds and candidates are denoised ``batch_size(model)`` at a time, each with the noise of its own seed, and decoded
    one by one. The same seed gives the same bytes in any company.

    Args:
        on_step: called options.steps_run * batchsize * n_candidates times.
        negative: (1, 512), the condition to avoid.
        original: the sound that every mode but generation begins with, from read_original.
        frugal: release the memory of CLAP before the UNet is loaded, and the UNet's before the last sound is decoded;
            who needs them again loads them again.
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
    if frugal:
        negative = model.unconditional if negative is None and options.guidance_scale != 1 else negative
        model.release("clap")
    source = None
    if options.edits and original is not None:
        from .latent_diffusion.editing import prepare

        source = prepare(model, original, options)
    seeds = [
        noise_seed(options.seed, item, candidate)
        for item in range(options.batchsize)
        for candidate in range(options.n_candidates)
    ]
    latents_for = functools.partial(_denoise, model, vector, options, negative=negative, source=source)
    made = _make(model, options, seeds, latents_for, on_step, source, frugal)
    for item in range(options.batchsize):
        waves, gains = zip(*itertools.islice(made, options.n_candidates), strict=True)
        ranks = rank(model, waves, vector) if len(waves) > 1 else []
        best = int(np.argmax(ranks)) if ranks else 0
        if gains[best] < 1:
            softer = -20 * np.log10(gains[best])
            on_note(f"the new part is beyond full scale: the whole sound is made {softer:.1f} dB softer")
        seed = seeds[item * options.n_candidates + best]
        yield Sound(waves[best], item, best, seed, ranks[best] if ranks else None, gains[best])


def batch_size(model: LatentDiffusion) -> int:
    """How many sounds are denoised together: what the user wants, or AT_ONCE, or as many as a GPU's memory takes.

    Always 1 in float32 on a CPU: more save no time there, and threads round the rows of a batch differently. On a GPU
    half of what is free may be used.
    """
    import torch

    from .latent_diffusion.codec import window_length

    if model.device.type == "cpu" and model.precision == "fp32":
        return 1
    if model.wanted_batch is not None:
        return model.wanted_batch
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        return max(1, min(AT_ONCE, free // 2 // (window_length(model) * BYTES)))
    return AT_ONCE if model.device.type == "mps" or model.precision == "bf16" else 1  # float16 on a CPU is slow


def _make(
    model: LatentDiffusion,
    options: GenerateOptions,
    seeds: Sequence[int],
    latents_for: Callable[[Sequence[int], OnStep | None], tuple[Tensor, Region | None]],
    on_step: OnStep | None,
    source: Source | None,
    frugal: bool,
) -> Iterator[tuple[np.ndarray, float]]:
    """The wave of each seed, float32 (N,), and its gain; ``batch_size(model)`` seeds are denoised at once.

    ``latents_for``: ``_denoise`` for the seeds of one batch. ``frugal``: whether to release the UNet's memory before
    the decoder and the vocoder are loaded for the last ones.
    """
    from .latent_diffusion.codec import finish_kept, vocode

    at_once = batch_size(model)
    # Matrix products are cut into pieces by the number of rows, and their sums rounded accordingly, so that all batches
    # must have one size. Not so oneDNN's for bf16.
    same_in_any_batch = model.device.type == "cpu" and model.precision == "bf16"
    for start in range(0, len(seeds), at_once):
        group = list(seeds[start : start + at_once])
        filled = group if same_in_any_batch else group + group[-1:] * (at_once - len(group))
        step = None if on_step is None else functools.partial(_repeat, on_step, len(group))
        latents, region = latents_for(filled, step)
        if frugal and start + at_once >= len(seeds):
            model.release("unet")
        for one in latents[: len(group)].split(1):
            if source is not None and region is not None:
                from .latent_diffusion.editing import inpainted_mel, put_back

                wave = vocode(model, inpainted_mel(model, source, region, one))
                yield finish_kept(put_back(source, region, wave), options.duration)
            else:
                yield decode(model, one, options.duration), 1.0


def _repeat(call: OnStep, count: int) -> None:
    for _ in range(count):
        call()


def _denoise(
    model: LatentDiffusion,
    vector: Tensor,
    options: GenerateOptions,
    seeds: Sequence[int],
    on_step: OnStep | None,
    negative: Tensor | None,
    source: Source | None,
) -> tuple[Tensor, Region | None]:
    """Latents (B, C, T, F) for B seeds, and what of the source is to be put back into their sounds.

    A transfer of strength 1 keeps only the sound's length.
    """
    if source is None or (options.mode == "transfer" and options.steps_run == options.ddim_steps):
        return denoise(model, vector, options, seeds, on_step, negative), None
    from .latent_diffusion import editing

    predict = _predictor(model, vector, options, negative)
    if source.region is not None:
        return editing.inpaint(model, predict, options, seeds, source, source.region, on_step), source.region
    return editing.transfer(model, predict, options, seeds, source, on_step), None
