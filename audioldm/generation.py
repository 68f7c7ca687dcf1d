"""From the condition, a unit vector, to sounds: denoise, decode, rank.

    (1, 512) ─ denoise ─► latents ─ decode ─► waves ─ rank ─► Sound

What begins with a sound of the user's is in latent_diffusion/editing.py. Torch is imported where it is needed, so
that a bad prompt or option is refused before that takes its seconds.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from .checkpoints.published import explain_text_only
from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from .inputs.sounds import Original
    from .latent_diffusion.editing import Source
    from .latent_diffusion.model import LatentDiffusion
    from .latent_diffusion.sampling import Predict, Scheduler, Solver
    from .options import GenerateOptions

T = TypeVar("T")
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
    scheduler: Scheduler | None = None,
    stop: int | None = None,
) -> Tensor:
    """Latents (B, C, T, F) for the condition ``vector`` (1, 512), all noise of each drawn from one of B ``seeds``.

    ``negative`` (1, 512): the condition to avoid; None: the condition of the empty text. ``scheduler``: a new one, to
    go on with after ``stop`` steps.
    """
    from .latent_diffusion import sampling
    from .latent_diffusion.codec import latent_shape

    generators = [sampling.upstream_generator(seed) for seed in seeds]
    noise = sampling.draw(latent_shape(model, options.duration), generators).to(model.device)
    scheduler = scheduler or sampling.make_scheduler(model.scheduler, options.sampler, options.ddim_steps)
    predict = _predictor(model, vector, options, negative)
    return sampling.denoise(predict, scheduler, noise, generators, on_step=on_step, stop=stop)


def _predictor(model: LatentDiffusion, vector: Tensor, options: GenerateOptions, negative: Tensor | None) -> Predict:
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
    from .latent_diffusion.codec import clamp_runaway, finish, to_mel, vocode

    return finish(vocode(model, to_mel(model, clamp_runaway(latents))), duration)


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
    one by one. The same seed gives the same bytes in any company. Candidates are ranked by CLAP after
    ``options.ranked_after`` steps, and only the best is denoised further.

    Args:
        on_step: called ``options.evaluations`` times; with one candidate, if the model cannot rank them.
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
    on_step = on_step or (lambda: None)
    for sound in _Run(model, vector, options, negative, source, frugal, on_step, batch_size(model)).sounds():
        if sound.gain < 1:
            softer = -20 * np.log10(sound.gain)
            on_note(f"the new part is beyond full scale: the whole sound is made {softer:.1f} dB softer")
        yield sound


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


@dataclass(frozen=True)
class _Run:
    """One call of ``generate``: what its batches have in common, and what is done with them."""

    model: LatentDiffusion
    vector: Tensor
    options: GenerateOptions
    negative: Tensor | None
    source: Source | None
    frugal: bool
    on_step: OnStep
    at_once: int  # sounds of a batch

    def sounds(self) -> Iterator[Sound]:
        """The nearest candidate of each sound; those that were ranked early are made ready, a batch at once."""
        made, options = self.candidates(), self.options
        best = (
            max(itertools.islice(made, options.n_candidates), key=lambda one: one.sound.similarity or 0)
            for _ in range(options.batchsize)
        )
        if options.ranked_after == options.steps_run:
            yield from (one.sound for one in best)
        while group := list(itertools.islice(best, self.at_once)):
            yield from self.finish(group)

    def candidates(self) -> Iterator[_Candidate]:
        """Each sound's candidates, after ``ranked_after`` steps, as they are then expected to sound in the end."""
        order = list(itertools.product(range(self.options.batchsize), range(self.options.n_candidates)))
        for start in range(0, len(order), self.at_once):
            places = order[start : start + self.at_once]
            seeds = [noise_seed(self.options.seed, *place) for place in places]
            latents, solver = self.begin(self.filled(seeds), self.step(len(seeds)))
            if self.frugal and solver is None and start + self.at_once >= len(order):
                self.model.release("unet")
            for row, (place, seed) in enumerate(zip(places, seeds, strict=True)):
                wave, gain = self.wave(latents[row : row + 1])
                similarity = rank(self.model, [wave], self.vector)[0] if self.options.n_candidates > 1 else None
                yield _Candidate(Sound(wave, *place, seed, similarity, gain), solver, row)

    def begin(self, seeds: Sequence[int], on_step: OnStep | None) -> tuple[Tensor, Solver | None]:
        """Latents (B, C, T, F) of B seeds; after early steps those that are expected in the end, and their solver.

        A transfer of strength 1 keeps only the sound's length.
        """
        from .latent_diffusion import editing, sampling

        model, options = self.model, self.options
        predict = _predictor(model, self.vector, options, self.negative)
        if self.source is not None and self.source.region is not None:
            return editing.inpaint(model, predict, options, seeds, self.source, self.source.region, on_step), None
        scheduler = sampling.make_scheduler(model.scheduler, options.sampler, options.ddim_steps)
        if self.source is None or options.steps_run == options.ddim_steps:
            latents = denoise(model, self.vector, options, seeds, on_step, self.negative, scheduler, self.stop)
        else:
            latents = editing.transfer(predict, scheduler, options, seeds, self.source, on_step, self.stop)
        if options.ranked_after < options.steps_run and isinstance(scheduler, sampling.Solver):
            return scheduler.estimate, scheduler
        return latents, None

    def finish(self, group: Sequence[_Candidate]) -> Iterator[Sound]:
        """The sounds of candidates that are denoised further."""
        from .latent_diffusion import sampling

        rows = [(one.solver, one.row) for one in group if one.solver is not None]
        solver = sampling.Solver.joined(self.filled(rows))
        latents = sampling.denoise(
            _predictor(self.model, self.vector, self.options, self.negative), solver, solver.latents, (),
            on_step=self.step(len(group)), start=self.stop,
        )  # fmt: skip
        if self.frugal and group[-1].sound.item == self.options.batchsize - 1:
            self.model.release("unet")
        for one, final in zip(group, latents[: len(group)].split(1), strict=True):
            wave, gain = self.wave(final)
            similarity = rank(self.model, [wave], self.vector)[0]
            yield dataclasses.replace(one.sound, wave=wave, gain=gain, similarity=similarity)

    def wave(self, latents: Tensor) -> tuple[np.ndarray, float]:
        """Latents (1, C, T, F) -> float32 (N,), with the source's own samples where they are kept, and its gain."""
        if self.source is None or self.source.region is None:
            return decode(self.model, latents, self.options.duration), 1.0
        from .latent_diffusion.editing import inpainted_wave

        return inpainted_wave(self.model, self.source, self.source.region, latents, self.options.duration)

    @property
    def stop(self) -> int:
        """The first step, of all that the sampler has, after the candidates are ranked."""
        return self.options.ddim_steps - self.options.steps_run + self.options.ranked_after

    def step(self, count: int) -> OnStep:
        """What is to be called after each step of ``count`` sounds."""
        return lambda: [self.on_step() for _ in range(count)]

    def filled(self, rows: Sequence[T]) -> list[T]:
        """``rows``, the last repeated where all batches must have one size.

        The number of rows decides how the sums of matrix products are rounded, but not in oneDNN's for bf16.
        """
        if self.model.device.type == "cpu" and self.model.precision == "bf16":
            return list(rows)
        return [*rows, *[rows[-1]] * (self.at_once - len(rows))]


class _Candidate(NamedTuple):
    sound: Sound
    solver: Solver | None  # of its batch, if it is ranked early
    row: int  # its place in that batch
