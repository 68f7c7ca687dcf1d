"""From noise to latents: plain functions over a ``predict`` function and a scheduler.

``denoise`` begins with noise, ``denoise_from`` with latents and noise added to them (style transfer),
``denoise_masked`` keeps the masked part (inpainting). All their random numbers come from ``draw``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..errors import InputError
from .codec import blend

# Where noise comes from: a generator on the CPU, so that all devices agree, or one for each row of a batch; or ready
# tensors in the order in which they would have been drawn (to replay the noise of another program).
Noise = torch.Generator | Sequence[torch.Generator] | Iterator[Tensor]
# (latents (B, C, T, F), timestep) -> the network's prediction, guidance included.
Predict = Callable[[Tensor, Tensor], Tensor]

# What the UNet was trained with; every sampler takes these from the model's scheduler_config.json.
TRAINED_WITH = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip


def draw(shape: Sequence[int], noise: Noise) -> Tensor:
    """Standard normal noise of that shape, on the CPU: drawn from a generator, or one a row, or the next tensor."""
    if isinstance(noise, torch.Generator):
        return torch.randn(tuple(shape), generator=noise)
    if isinstance(noise, Sequence):
        return torch.cat([torch.randn((1, *shape[1:]), generator=one) for one in noise])
    ready = next(noise)
    if ready.shape != tuple(shape):
        raise ValueError(f"noise of shape {tuple(ready.shape)} where {tuple(shape)} is needed")
    return ready


def upstream_generator(seed: int) -> torch.Generator:
    """The generator of one sound's noise, in the state in which upstream draws the first noise of one text.

    Before that, upstream draws noise for the latents of 10 s of silence, and a number for each of two copies of the
    prompt, to drop it at random. They are drawn here too, so that the same seed gives upstream's own sound (with
    --sampler ddim, one sound and one candidate).
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    torch.randn(1, 8, 256, 16, generator=generator)
    for _ in range(2):
        torch.rand(1, generator=generator)
    return generator


class Scheduler(Protocol):
    """The steps of one run, from nearly full noise to none. It holds the run's state."""

    timesteps: Tensor  # falling
    lag: int  # denoise_from adds the noise of this many steps before the first that is run

    def begin(self, index: int) -> None:
        """Prepare for the step ``index``, from 0, the noisiest."""

    def level(self, index: int) -> tuple[float, float]:
        """Shares of signal and of noise (their squares sum to 1) before step ``index``."""
        ...

    def step(self, predicted: Tensor, timestep: Tensor, latents: Tensor, eta: float, noise: Noise) -> Tensor:
        """The latents (B, C, T, F) after one step, less noisy."""
        ...


def make_scheduler(config: Mapping[str, Any], sampler: str, steps: int) -> Scheduler:
    """The scheduler ``sampler`` (one of SAMPLERS) with ``steps`` steps for a UNet trained as ``config`` says."""
    trained = {name: config[name] for name in TRAINED_WITH if name in config}
    return SAMPLERS[sampler](trained, config, steps)


class DDIM:
    """DDIM (arXiv 2010.02502) for any number of steps, with the noise levels of diffusers.

    diffusers' own DDIMScheduler steps to ``t - 1000 // steps``, which is the next timestep only if the steps
    divide 1000; its "trailing" timesteps are one too many for some numbers (61, 103 …); at zero terminal SNR
    with eta 1 it takes roots of rounding errors below zero. Upstream makes 8 steps of 7 and fails at 501.
    """

    lag = 1  # upstream's off-by-one in style transfer, kept for equal results

    def __init__(self, trained: Mapping[str, Any], config: Mapping[str, Any], steps: int) -> None:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        self.alphas = DDIMScheduler(**trained).alphas_cumprod  # squares of the signal's share
        self.prediction_type = trained.get("prediction_type", "epsilon")
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise InputError(f"DDIM cannot use a network that predicts {self.prediction_type}; try --sampler unipc")
        last = 1.0 if config.get("set_alpha_to_one", True) else float(self.alphas[0])
        total, leading = len(self.alphas), config.get("timestep_spacing", "leading") == "leading"
        if leading and total % steps == 0 and 10 <= steps < total:
            offset = config.get("steps_offset", 0)  # upstream: 1
            times = [total // steps * i + offset for i in reversed(range(steps))]
        else:  # "leading" would begin at one half of the noise for 2 steps, at 60 % for 600
            times = [round(total * i / steps) - 1 for i in range(steps, 0, -1)]
        self.timesteps = torch.tensor(times)
        levels = [float(self.alphas[time]) for time in times] + [last]
        self._levels = [(level**0.5, (1 - level) ** 0.5) for level in levels]
        self._next = dict(zip(times, zip(levels[:-1], levels[1:], strict=True), strict=True))

    def begin(self, index: int) -> None:
        """Nothing to prepare: the timestep of a step is enough."""

    def level(self, index: int) -> tuple[float, float]:
        return self._levels[index]

    def step(self, predicted: Tensor, timestep: Tensor, latents: Tensor, eta: float, noise: Noise) -> Tensor:
        """``eta``: 0 (no new noise) to 1."""
        now, then = self._next[int(timestep)]
        signal, share = now**0.5, (1 - now) ** 0.5
        if self.prediction_type == "v_prediction":
            sample, noise_in_it = signal * latents - share * predicted, signal * predicted + share * latents
        else:
            sample, noise_in_it = (latents - share * predicted) / signal, predicted
        fresh = eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        latents = then**0.5 * sample + max(0.0, 1 - then - fresh**2) ** 0.5 * noise_in_it
        return latents + fresh * draw(latents.shape, noise).to(latents.device) if fresh > 0 else latents


class Solver:
    """A solver of diffusers; it draws no noise."""

    lag = 0

    def __init__(self, scheduler: Any, steps: int) -> None:
        scheduler.set_timesteps(steps)
        self._scheduler, self.timesteps = scheduler, scheduler.timesteps
        self.begin(0)  # otherwise it looks up the first timestep, which Karras' levels may contain twice

    def begin(self, index: int) -> None:
        self._scheduler.set_begin_index(index)

    def level(self, index: int) -> tuple[float, float]:
        sigma = float(self._scheduler.sigmas[index])  # noise over signal
        signal = (1 + sigma**2) ** -0.5
        return signal, sigma * signal

    def step(self, predicted: Tensor, timestep: Tensor, latents: Tensor, eta: float, noise: Noise) -> Tensor:
        self.latents = self._scheduler.step(predicted, timestep, latents).prev_sample
        return self.latents

    @property
    def estimate(self) -> Tensor:
        """The clean latents (B, C, T, F) that the last step took the network's prediction for."""
        return self._scheduler.model_outputs[-1]

    @staticmethod
    def joined(rows: Sequence[tuple[Solver, int]]) -> Solver:
        """The solver of a new batch: each row with the solver and place it had, after the same step, 2 or later."""
        joined = copy.deepcopy(rows[0][0])
        states = [solver._scheduler for solver, _ in rows]

        def gather(values: Sequence[Tensor]) -> Tensor:
            return torch.cat([value[row : row + 1] for value, (_, row) in zip(values, rows, strict=True)])

        joined.latents = gather([solver.latents for solver, _ in rows])
        outputs = zip(*(state.model_outputs for state in states), strict=True)
        joined._scheduler.model_outputs = [gather(values) for values in outputs]
        if hasattr(states[0], "last_sample"):  # of UniPC
            joined._scheduler.last_sample = gather([state.last_sample for state in states])
        return joined


def _dpm_solver(trained: Mapping[str, Any], config: Mapping[str, Any], steps: int) -> Solver:
    """DPM-Solver++ of second order (arXiv 2211.01095), even over Karras' noise levels (arXiv 2206.00364)."""
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    # At zero terminal SNR noise has no highest level, and Karras would spend most steps near infinity.
    karras, spacing = not trained.get("rescale_betas_zero_snr", False), _spacing(trained, steps)
    return Solver(DPMSolverMultistepScheduler(**trained, use_karras_sigmas=karras, timestep_spacing=spacing), steps)


def _unipc(trained: Mapping[str, Any], config: Mapping[str, Any], steps: int) -> Solver:
    """UniPC of second order (arXiv 2302.04867), evenly over time."""
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    return Solver(UniPCMultistepScheduler(**trained, timestep_spacing=_spacing(trained, steps)), steps)


def _spacing(trained: Mapping[str, Any], steps: int) -> Literal["trailing", "linspace"]:
    """diffusers' "linspace" repeats timesteps if all are taken, "trailing" has one too many for some numbers."""
    return "trailing" if steps == trained.get("num_train_timesteps", 1000) else "linspace"


SAMPLERS: dict[str, Callable[..., Scheduler]] = {"ddim": DDIM, "dpm++": _dpm_solver, "unipc": _unipc}


def predictor(
    unet: nn.Module, condition: Tensor, unconditional: Tensor, guidance_scale: float, window: int | None = None,
    rescale: float = 0.0,
) -> Predict:  # fmt: skip
    """What ``unet`` predicts under ``condition`` (B, 512), with classifier-free guidance.

    Args:
        condition: (B, 512), or (1, 512) for latents of any batch.
        unconditional: (1, 512), the condition of no prompt, or of the prompt to avoid.
        guidance_scale: of e = e_unconditional + scale * (e_condition - e_unconditional); 1 skips the former.
        window: latent frames that the UNet may see at once; longer latents are predicted in windows that
            overlap by half, and blended at each step. None: no limit.
        rescale: 0 to 1, how far a guided prediction is brought back to the deviation of the one under
            ``condition`` (arXiv 2305.08891, 3.4).
    """
    guided = guidance_scale != 1

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        labels, inputs = condition.expand(len(latents), -1), latents
        if guided:
            labels, inputs = torch.cat([unconditional.expand_as(labels), labels]), torch.cat([latents, latents])
        predicted = unet(inputs, timestep, encoder_hidden_states=None, class_labels=labels).sample
        if guided:
            without, with_condition = predicted.chunk(2)
            predicted = without + guidance_scale * (with_condition - without)
            if rescale:
                ratio = with_condition.std((1, 2, 3), keepdim=True) / predicted.std((1, 2, 3), keepdim=True)
                predicted = predicted * (1 - rescale + rescale * ratio)
        return predicted

    def predict_windows(latents: Tensor, timestep: Tensor) -> Tensor:
        length = latents.shape[2]
        if window is None or length <= window:
            return predict(latents, timestep)
        return blend(lambda start, stop: predict(latents[:, :, start:stop], timestep), length, window, window // 2)

    return predict_windows


def add_noise(scheduler: Scheduler, clean: Tensor, index: int, noise: Noise) -> Tensor:
    """``clean`` (B, C, T, F) as noisy as before step ``index``; one draw."""
    signal, share = scheduler.level(index)
    return signal * clean + share * draw(clean.shape, noise).to(clean.device)


@torch.inference_mode()
def denoise(
    predict: Predict, scheduler: Scheduler, latents: Tensor, noise: Noise, *, eta: float = 1.0,
    on_step: Callable[[], object] | None = None, start: int = 0, stop: int | None = None,
    before_step: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Denoise ``latents`` (B, C, T, F), standard normal unless ``start`` is above 0.

    Args:
        noise, eta: for the noise of each step, if the sampler adds any. DDIM's eta is 0 (none) to 1; upstream 1.
        on_step: called after each step.
        start, stop: the first step to run, and the first to leave to another call, with the same scheduler.
        before_step: (index, latents) -> latents, called before each step.
    """
    scheduler.begin(start)
    for index, timestep in enumerate(scheduler.timesteps[start:stop], start):
        if before_step:
            latents = before_step(index, latents)
        predicted = predict(latents, timestep.to(latents.device))
        latents = scheduler.step(predicted, timestep, latents, eta, noise)
        if on_step:
            on_step()
    return latents


def denoise_from(
    predict: Predict, scheduler: Scheduler, clean: Tensor, steps: int, noise: Noise, **more: Any
) -> Tensor:
    """Add noise to ``clean`` (B, C, T, F) and run the last ``steps`` steps of the scheduler (style transfer).

    0 steps return ``clean``; all steps begin with noise alone. In between, the noise added has the level of the
    first step that is run, or with DDIM, as upstream, of the step before. Draws: the noise added, then each step's.
    ``more``: eta, on_step and stop of ``denoise``.
    """
    start = len(scheduler.timesteps) - steps
    if not 0 <= start <= len(scheduler.timesteps):
        raise ValueError(f"{steps} of {len(scheduler.timesteps)} steps")
    if not steps:
        return clean
    latents = add_noise(scheduler, clean, start - scheduler.lag, noise) if start else draw(clean.shape, noise).to(clean)
    return denoise(predict, scheduler, latents, noise, start=start, **more)


def denoise_masked(
    predict: Predict, scheduler: Scheduler, latents: Tensor, clean: Tensor, mask: Tensor, noise: Noise, **more: Any
) -> Tensor:
    """Denoise ``latents`` (B, C, T, F), standard normal, where ``mask`` (1, 1, T, F) is 0 (inpainting).

    Before each step, latents under 1 are replaced by ``clean`` (B, C, T, F) with fresh noise of that step's level, so
    that the rest fits to it (RePaint, arXiv 2201.09865, without its jumps back). After the last step they are not
    replaced; upstream leaves that to the caller too. Draws at each step: the noise on ``clean``, then the step's own.
    ``more``: eta and on_step of ``denoise``.
    """

    def keep(index: int, latents: Tensor) -> Tensor:
        return mask * add_noise(scheduler, clean, index, noise) + (1 - mask) * latents

    return denoise(predict, scheduler, latents, noise, before_step=keep, **more)
