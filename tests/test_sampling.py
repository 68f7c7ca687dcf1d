"""Samplers, against cases whose answer is known exactly."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from audioldm.options import SAMPLERS as NAMES
from audioldm.sampling import SAMPLERS, denoise, make_scheduler

AUDIOLDM = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "timestep_spacing": "leading",
}
V_PREDICTION = {**AUDIOLDM, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
ZERO_SNR = {**V_PREDICTION, "rescale_betas_zero_snr": True, "set_alpha_to_one": True}
EMPTY = torch.zeros(1, 512)


class Oracle:
    """What a UNet would say that was trained to perfection on one sample, ``target``."""

    def __init__(self, config: dict, target: torch.Tensor) -> None:
        # Its levels of noise are computed from the config, not taken from the scheduler under test.
        first, last = config["beta_start"], config["beta_end"]
        betas = torch.linspace(first**0.5, last**0.5, 1000, dtype=torch.double) ** 2
        root = (1 - betas).cumprod(0).sqrt()
        if config.get("rescale_betas_zero_snr"):
            root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        self.root, self.target, self.config, self.calls = root, target, config, []

    def __call__(self, x, timestep, encoder_hidden_states, class_labels):
        self.calls.append((x.clone(), int(timestep), class_labels))
        a = self.root[int(timestep)].clamp(min=2**-12)
        s = (1 - a**2).sqrt()
        noise = (x.double() - a * self.target) / s
        says = noise if self.config["prediction_type"] == "epsilon" else a * noise - s * self.target
        return SimpleNamespace(sample=says.float())


def run(config, sampler, steps, target=None, guidance=1.0, seed=0, **more):
    target = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4) if target is None else target
    oracle = Oracle(config, target)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(target.shape, generator=generator)
    scheduler = make_scheduler(config, sampler, steps)
    return denoise(oracle, scheduler, noise, EMPTY + 1, EMPTY, guidance, generator, **more), target, oracle


@pytest.mark.parametrize("config", [AUDIOLDM, V_PREDICTION, ZERO_SNR], ids=["epsilon", "v", "zero snr"])
@pytest.mark.parametrize("sampler", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 7, 61, 200, 1000])
def test_a_perfect_network_gives_its_sample(config: dict, sampler: str, steps: int) -> None:
    result, target, oracle = run(config, sampler, steps)
    # DDIM of AudioLDM ends at the least noise trained with (deviation 0.04), not at none.
    tolerance = 0.2 if sampler == "ddim" and not config["set_alpha_to_one"] else 1e-3
    assert (result - target).abs().max() < tolerance
    times = [time for _, time, _ in oracle.calls]
    assert len(times) == steps and times == sorted(times, reverse=True)
    assert times[0] >= 1000 * (1 - 1 / steps) * 0.9, "the first step must be at nearly full noise"


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_that_of_diffusers_where_that_is_sound(eta: float) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    theirs, ours = DDIMScheduler(**AUDIOLDM), make_scheduler(AUDIOLDM, "ddim", 20)
    theirs.set_timesteps(20)
    assert torch.equal(theirs.timesteps, ours.timesteps)
    one, other = (torch.Generator().manual_seed(0) for _ in range(2))
    x = y = torch.randn(1, 4, 8, 8)
    for time in ours.timesteps:
        x = theirs.step(x.tanh(), time, x, eta=eta, generator=one).prev_sample
        y = ours.step(y.tanh(), time, y, eta=eta, generator=other).prev_sample
    torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5 * float(x.abs().max()))


def test_the_names_agree() -> None:
    assert tuple(SAMPLERS) == NAMES


def test_noise_of_the_steps_comes_from_the_generator_only() -> None:
    torch.manual_seed(1)
    first, *_ = run(AUDIOLDM, "ddim", 5)
    torch.manual_seed(2)
    again, *_ = run(AUDIOLDM, "ddim", 5)
    other, *_ = run(AUDIOLDM, "ddim", 5, seed=1)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_eta_zero_draws_no_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    target = torch.zeros(1, 4, 4, 4)
    scheduler = make_scheduler(AUDIOLDM, "ddim", 5)
    denoise(Oracle(AUDIOLDM, target), scheduler, target + 1, EMPTY, EMPTY, 1.0, generator, eta=0.0)
    assert torch.equal(generator.get_state(), before)


def test_guidance_extrapolates_from_the_unconditional() -> None:
    class Net:
        sizes: list[int] = []

        def __call__(self, x, timestep, encoder_hidden_states, class_labels):
            self.sizes.append(len(x))
            return SimpleNamespace(sample=class_labels[:, :1, None, None].expand_as(x))

    def once(scale: float) -> torch.Tensor:
        x, scheduler = torch.zeros(1, 2, 4, 4), make_scheduler(AUDIOLDM, "ddim", 1)
        return denoise(Net(), scheduler, x, EMPTY + 3, EMPTY + 2, scale, torch.Generator(), eta=0.0)

    # From x = 0 a step is linear in what the network says: 2 + scale * (3 - 2).
    alone, tripled = once(1.0), once(3.0)
    assert Net.sizes == [1, 2], "at scale 1 the unconditional is not computed"
    torch.testing.assert_close(tripled / alone, torch.full_like(alone, 5 / 3))


def test_on_step_is_called_after_each_step() -> None:
    calls: list[int] = []
    run(AUDIOLDM, "unipc", 9, on_step=lambda: calls.append(1))
    assert len(calls) == 9
