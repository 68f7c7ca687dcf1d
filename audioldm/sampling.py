"""From noise to latents: plain functions over (unet, scheduler, latents, condition, generator)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError

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
        self._next = dict(zip(times, zip(levels[:-1], levels[1:], strict=True), strict=True))

    def step(
        self, predicted: Tensor, timestep: Tensor, latents: Tensor, eta: float, generator: torch.Generator
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
            drawn = torch.randn(latents.shape, generator=generator)
            latents = latents + fresh * drawn.to(latents.device)
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


@torch.inference_mode()
def denoise(
    unet: nn.Module,
    scheduler: Any,
    latents: Tensor,
    condition: Tensor,
    unconditional: Tensor,
    guidance_scale: float,
    generator: torch.Generator,
    eta: float = 1.0,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Denoise ``latents`` (B, C, T, F), standard normal, under ``condition`` (B, 512) -> (B, C, T, F).

    Args:
        scheduler: from make_scheduler; it holds the state of one run.
        unconditional: (1, 512), the condition of no prompt.
        guidance_scale: of e = e_unconditional + scale * (e_condition - e_unconditional); 1 skips the former.
        generator: on the CPU, for the noise of each step (if the sampler has any), so that devices agree.
        eta: of DDIM, 0 (no noise) to 1; upstream 1.
        on_step: called after each step.
    """
    guided = guidance_scale != 1
    labels = torch.cat([unconditional.expand_as(condition), condition]) if guided else condition
    takes = inspect.signature(scheduler.step).parameters  # solvers of differential equations draw no noise
    noise = {name: value for name, value in (("generator", generator), ("eta", eta)) if name in takes}
    for timestep in scheduler.timesteps:
        inputs = torch.cat([latents, latents]) if guided else latents
        time = timestep.to(latents.device)
        predicted = unet(inputs, time, encoder_hidden_states=None, class_labels=labels).sample
        if guided:
            without, with_condition = predicted.chunk(2)
            predicted = without + guidance_scale * (with_condition - without)
        latents = scheduler.step(predicted, timestep, latents, **noise).prev_sample
        if on_step:
            on_step()
    return latents
