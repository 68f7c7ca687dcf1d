"""From noise to latents: plain functions over (unet, scheduler, latents, condition, generator).

``denoise`` begins with noise, ``denoise_from`` with latents and noise added to them (style transfer), ``masked``
keeps what a mask says (inpainting). All their randomness comes through ``draw``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .windows import blend

# Where noise comes from: a generator on the CPU, so that devices agree, or tensors that are ready, to be taken
# in the order in which they would have been drawn (so another program's noise can be replayed).
Noise = torch.Generator | Iterator[Tensor]

# What the UNet was trained with, which every sampler takes over from the model's scheduler_config.json.
TRAINED_WITH = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)


def draw(shape: Sequence[int], generator: Noise) -> Tensor:
    """Standard normal noise of that shape, on the CPU: drawn from a generator, or the next of ready tensors."""
    if isinstance(generator, torch.Generator):
        return torch.randn(tuple(shape), generator=generator)
    noise = next(generator)
    if noise.shape != tuple(shape):
        raise ValueError(f"noise of shape {tuple(noise.shape)} where {tuple(shape)} is needed")
    return noise


def begin(seed: int) -> torch.Generator:
    """The generator of one sound's noise, where upstream's has come to when it draws the first noise of one text.

    Upstream encodes a silence of 10 s for nothing, which draws the noise of its latents, and then draws a number
    for each of two copies of the prompt, to leave it out by chance. None of that is done here, but drawn, so that
    the same seed gives upstream's own sound (with --sampler ddim, one sound and one candidate).
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    torch.randn(1, 8, 256, 16, generator=generator)
    torch.rand(1, generator=generator), torch.rand(1, generator=generator)
    return generator


def make_scheduler(config: Mapping[str, Any], sampler: str, steps: int) -> Any:
    """The scheduler ``sampler`` (see SAMPLERS) for ``steps`` steps of a UNet trained as ``config`` says.

    It has timesteps, falling from nearly full noise, and step(); it holds the state of one run.
    """
    trained = {name: config[name] for name in TRAINED_WITH if name in config}
    return SAMPLERS[sampler](trained, config, steps)


class DDIM:
    """DDIM (arXiv 2010.02502) for any number of steps, with diffusers' levels of noise and interface.

    diffusers' own DDIMScheduler steps to ``t - 1000 // steps``, which is the next timestep only if the steps
    divide 1000; its "trailing" timesteps are one too many for some numbers (61, 103 …); at zero terminal SNR
    with eta 1 it takes roots of rounding errors below zero. Upstream makes 8 steps of 7 and fails at 501.
    """

    def __init__(self, trained: Mapping[str, Any], config: Mapping[str, Any], steps: int) -> None:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        self.alphas = DDIMScheduler(**trained).alphas_cumprod  # squares of the signal's share
        self.predicts = trained.get("prediction_type", "epsilon")
        if self.predicts not in ("epsilon", "v_prediction"):
            raise InputError(f"DDIM cannot use a network that predicts {self.predicts}; --sampler unipc may")
        last = 1.0 if config.get("set_alpha_to_one", True) else float(self.alphas[0])
        total = len(self.alphas)
        leading = config.get("timestep_spacing", "leading") == "leading"
        if leading and total % steps == 0 and 10 <= steps < total:
            offset = config.get("steps_offset", 0)  # upstream: 1
            times = [total // steps * i + offset for i in reversed(range(steps))]
        else:  # "leading" would begin at one half of the noise for 2 steps, at 60 % for 600
            times = [round(total * i / steps) - 1 for i in range(steps, 0, -1)]
        self.timesteps = torch.tensor(times)
        levels = [float(self.alphas[time]) for time in times] + [last]
        self.levels = [(level**0.5, (1 - level) ** 0.5) for level in levels]  # shares of signal and noise
        self._next = dict(zip(times, zip(levels[:-1], levels[1:], strict=True), strict=True))

    def set_begin_index(self, index: int) -> None:
        """There as with diffusers' schedulers; here a step's timestep is enough."""

    def step(
        self, predicted: Tensor, timestep: Tensor, latents: Tensor, eta: float, generator: Noise
    ) -> Any:
        """One step; ``prev_sample`` of what it returns is less noisy."""
        now, then = self._next[int(timestep)]
        signal, noise = now**0.5, (1 - now) ** 0.5
        if self.predicts == "v_prediction":
            sample, noise_in_it = signal * latents - noise * predicted, signal * predicted + noise * latents
        else:
            sample, noise_in_it = (latents - noise * predicted) / signal, predicted
        fresh = eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        latents = then**0.5 * sample + max(0.0, 1 - then - fresh**2) ** 0.5 * noise_in_it
        if fresh > 0:
            latents = latents + fresh * draw(latents.shape, generator).to(latents.device)
        return SimpleNamespace(prev_sample=latents)


def _dpm_solver(trained: Mapping[str, Any], config: Mapping[str, Any], steps: int) -> Any:
    """DPM-Solver++ of second order (arXiv 2211.01095), even over Karras' noise levels (arXiv 2206.00364)."""
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    # At zero terminal SNR noise has no highest level, and Karras would spend most steps near infinity.
    karras = not trained.get("rescale_betas_zero_snr", False)
    spacing = _spacing(trained, steps)
    return _begun(
        DPMSolverMultistepScheduler(**trained, use_karras_sigmas=karras, timestep_spacing=spacing), steps
    )


def _unipc(trained: Mapping[str, Any], config: Mapping[str, Any], steps: int) -> Any:
    """UniPC of second order (arXiv 2302.04867), evenly over time."""
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    return _begun(UniPCMultistepScheduler(**trained, timestep_spacing=_spacing(trained, steps)), steps)


def _spacing(trained: Mapping[str, Any], steps: int) -> str:
    """diffusers' "linspace" repeats timesteps if all are taken, "trailing" one too many for some numbers."""
    return "trailing" if steps == trained.get("num_train_timesteps", 1000) else "linspace"


def _begun(scheduler: Any, steps: int) -> Any:
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)  # else it looks up the first timestep, which Karras' levels may have twice
    return scheduler


SAMPLERS = {"ddim": DDIM, "dpm++": _dpm_solver, "unipc": _unipc}


def level(scheduler: Any, index: int) -> tuple[float, float]:
    """Shares of signal and of noise (their squares add up to 1) before step ``index``, from 0, the noisiest."""
    if isinstance(scheduler, DDIM):
        return scheduler.levels[index]
    sigma = float(scheduler.sigmas[index])  # noise over signal
    signal = (1 + sigma**2) ** -0.5
    return signal, sigma * signal


def add_noise(scheduler: Any, clean: Tensor, index: int, generator: Noise) -> Tensor:
    """``clean`` (B, C, T, F) as noisy as before step ``index``; one draw."""
    signal, noise = level(scheduler, index)
    return signal * clean + noise * draw(clean.shape, generator).to(clean.device)


def clamp_runaway(latents: Tensor) -> Tensor:
    """Latents that have run away (beyond ±100) clipped to ±10, as upstream does; others as they are."""
    return latents.clamp(-10, 10) if latents.abs().max() > 100 else latents


def denoise(
    unet: nn.Module,
    scheduler: Any,
    latents: Tensor,
    condition: Tensor,
    unconditional: Tensor,
    guidance_scale: float,
    generator: Noise,
    eta: float = 1.0,
    on_step: Callable[[], None] | None = None,
    window: int | None = None,
) -> Tensor:
    """Denoise ``latents`` (B, C, T, F), standard normal, under ``condition`` (B, 512) -> (B, C, T, F).

    Args:
        scheduler: from make_scheduler; it holds the state of one run.
        unconditional: (1, 512), the condition of no prompt, or of what shall not be heard.
        guidance_scale: of e = e_unconditional + scale * (e_condition - e_unconditional); 1 skips the former.
        generator: for the noise of each step, if the sampler has any: see Noise.
        eta: of DDIM, 0 (no noise) to 1; upstream 1.
        on_step: called after each step.
        window: latent frames that the UNet may see at once; longer latents are predicted in windows that
            overlap by half, and blended at each step. None: no limit.
    """
    predict = _predictor(unet, condition, unconditional, guidance_scale, window)
    return _run(predict, scheduler, latents, generator, eta, on_step)


def denoise_from(
    unet: nn.Module,
    scheduler: Any,
    clean: Tensor,
    steps: int,
    condition: Tensor,
    unconditional: Tensor,
    guidance_scale: float,
    generator: Noise,
    eta: float = 1.0,
    on_step: Callable[[], None] | None = None,
    window: int | None = None,
) -> Tensor:
    """Add noise to ``clean`` (B, C, T, F) and run the last ``steps`` of the scheduler's steps (style transfer).

    0 steps return ``clean``; all of them begin with noise alone. In between, DDIM adds as much noise as there
    is one step before the first that is run, because upstream does; other samplers add what that step expects.
    Draws: the noise added, then that of each step. Other arguments are those of ``denoise``.
    """
    start = len(scheduler.timesteps) - steps
    if not 0 <= start <= len(scheduler.timesteps):
        raise ValueError(f"{steps} of {len(scheduler.timesteps)} steps")
    if not steps:
        return clean
    if not start:
        latents = draw(clean.shape, generator).to(clean.device)
    else:
        latents = add_noise(scheduler, clean, start - isinstance(scheduler, DDIM), generator)
    predict = _predictor(unet, condition, unconditional, guidance_scale, window)
    return _run(predict, scheduler, latents, generator, eta, on_step, start)


def masked(
    unet: nn.Module,
    scheduler: Any,
    latents: Tensor,
    clean: Tensor,
    mask: Tensor,
    condition: Tensor,
    unconditional: Tensor,
    guidance_scale: float,
    generator: Noise,
    eta: float = 1.0,
    on_step: Callable[[], None] | None = None,
    window: int | None = None,
) -> Tensor:
    """Denoise ``latents`` (B, C, T, F), standard normal, where ``mask`` (1, 1, T, F) is 0 (inpainting).

    Before each step, what is under 1 is replaced by ``clean`` (B, C, T, F) with fresh noise of that step's
    level, so that the rest fits to it (RePaint, arXiv 2201.09865, without its jumps back). After the last step
    it is not replaced: that is left to the caller, as upstream leaves it. Draws at each step: the noise on
    ``clean``, then the step's own. Other arguments are those of ``denoise``.
    """

    def keep(index: int, latents: Tensor) -> Tensor:
        return mask * add_noise(scheduler, clean, index, generator) + (1 - mask) * latents

    predict = _predictor(unet, condition, unconditional, guidance_scale, window)
    return _run(predict, scheduler, latents, generator, eta, on_step, before_step=keep)


def _predictor(
    unet: nn.Module, condition: Tensor, unconditional: Tensor, guidance_scale: float, window: int | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function (latents (B, C, T, F), timestep) -> what the UNet predicts for them, with guidance."""
    guided = guidance_scale != 1
    labels = torch.cat([unconditional.expand_as(condition), condition]) if guided else condition

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        inputs = torch.cat([latents, latents]) if guided else latents
        predicted = unet(inputs, timestep, encoder_hidden_states=None, class_labels=labels).sample
        if guided:
            without, with_condition = predicted.chunk(2)
            predicted = without + guidance_scale * (with_condition - without)
        return predicted

    def predict_windows(latents: Tensor, timestep: Tensor) -> Tensor:
        def piece(start: int, stop: int) -> Tensor:
            return predict(latents[:, :, start:stop], timestep)

        length = latents.shape[2]
        return blend(piece, length, window or length, (window or length) // 2)

    return predict_windows


@torch.inference_mode()
def _run(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    latents: Tensor,
    generator: Noise,
    eta: float,
    on_step: Callable[[], None] | None,
    start: int = 0,
    before_step: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """The scheduler's steps from ``start`` on; ``before_step`` (index, latents) may change the latents."""
    if start:
        scheduler.set_begin_index(start)
    takes = inspect.signature(scheduler.step).parameters  # solvers of differential equations draw no noise
    noise = {name: value for name, value in (("generator", generator), ("eta", eta)) if name in takes}
    for index, timestep in enumerate(scheduler.timesteps[start:], start):
        if before_step:
            latents = before_step(index, latents)
        predicted = predict(latents, timestep.to(latents.device))
        latents = scheduler.step(predicted, timestep, latents, **noise).prev_sample
        if on_step:
            on_step()
    return latents
