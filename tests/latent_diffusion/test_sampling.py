"""Samplers, against cases whose answer is known exactly."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from audioldm.latent_diffusion.codec import blend, starts
from audioldm.latent_diffusion.sampling import (
    SAMPLERS,
    add_noise,
    denoise,
    denoise_from,
    denoise_masked,
    draw,
    make_scheduler,
    predictor,
)
from audioldm.options import SAMPLERS as NAMES

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
    predict = predictor(oracle, EMPTY + 1, EMPTY, guidance)
    return denoise(predict, scheduler, noise, generator, **more), target, oracle


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
        y = ours.step(y.tanh(), time, y, eta, other)
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
    predict = predictor(Oracle(AUDIOLDM, target), EMPTY, EMPTY, 1.0)
    denoise(predict, scheduler, target + 1, generator, eta=0.0)
    assert torch.equal(generator.get_state(), before)


def test_guidance_extrapolates_from_the_unconditional() -> None:
    class Net:
        sizes: list[int] = []

        def __call__(self, x, timestep, encoder_hidden_states, class_labels):
            self.sizes.append(len(x))
            return SimpleNamespace(sample=class_labels[:, :1, None, None].expand_as(x))

    def once(scale: float) -> torch.Tensor:
        x, scheduler = torch.zeros(1, 2, 4, 4), make_scheduler(AUDIOLDM, "ddim", 1)
        return denoise(predictor(Net(), EMPTY + 3, EMPTY + 2, scale), scheduler, x, torch.Generator(), eta=0.0)

    # From x = 0 a step is linear in what the network says: 2 + scale * (3 - 2).
    alone, tripled = once(1.0), once(3.0)
    assert Net.sizes == [1, 2], "at scale 1 the unconditional is not computed"
    torch.testing.assert_close(tripled / alone, torch.full_like(alone, 5 / 3))


def test_on_step_is_called_after_each_step() -> None:
    calls: list[int] = []
    run(AUDIOLDM, "unipc", 9, on_step=lambda: calls.append(1))
    assert len(calls) == 9


# Beginning with a sound


def tools(config: dict, sampler: str, steps: int, target: torch.Tensor) -> tuple:
    return Oracle(config, target), make_scheduler(config, sampler, steps)


TARGET = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
CONDITION = (EMPTY + 1, EMPTY, 1.0)


@pytest.mark.parametrize("config", [AUDIOLDM, V_PREDICTION, ZERO_SNR], ids=["epsilon", "v", "zero snr"])
@pytest.mark.parametrize("sampler", NAMES)
def test_levels_of_noise_are_those_of_the_timesteps(config: dict, sampler: str) -> None:
    """Shares add up, fall, and are what the UNet was trained with at the timestep it is told."""
    oracle, scheduler = tools(config, sampler, 20, TARGET)
    levels = [scheduler.level(index) for index in range(20)]
    assert all(abs(signal**2 + noise**2 - 1) < 1e-5 for signal, noise in levels)
    assert all(one[1] > other[1] for one, other in zip(levels, levels[1:], strict=False))
    for (signal, _), time in zip(levels, scheduler.timesteps, strict=True):
        near = oracle.root[max(0, int(time) - 1) : int(time) + 2]  # Karras' levels lie between timesteps
        assert near.min() - 2e-3 < signal < near.max() + 2e-3


@pytest.mark.parametrize("sampler", NAMES)
@pytest.mark.parametrize("steps", [0, 1, 5, 9, 10])
def test_a_transfer_runs_the_last_steps(sampler: str, steps: int) -> None:
    oracle, scheduler = tools(AUDIOLDM, sampler, 10, TARGET)
    start = torch.full_like(TARGET, 3.0)
    predict = predictor(oracle, *CONDITION)
    result = denoise_from(predict, scheduler, start, steps, torch.Generator().manual_seed(0))
    assert [time for _, time, _ in oracle.calls] == [int(time) for time in scheduler.timesteps[10 - steps :]]
    if not steps:
        assert torch.equal(result, start)
        return
    noise = torch.randn(TARGET.shape, generator=torch.Generator().manual_seed(0))
    _, fresh = tools(AUDIOLDM, sampler, 10, TARGET)  # its upstream's quirk: DDIM begins one level noisier
    signal, share = fresh.level(max(0, 10 - steps - (sampler == "ddim")))
    expected = noise if steps == 10 else signal * start + share * noise
    torch.testing.assert_close(oracle.calls[0][0], expected)
    if (sampler, steps) != ("ddim", 1):  # there, most of a whole level of noise is never taken away
        assert (result - TARGET).abs().max() < 0.5


def test_noise_may_come_ready() -> None:
    """As another program drew it, in that order: what is kept, then the step; and one of a wrong shape is told."""
    mask = torch.zeros(1, 1, 4, 4)
    mask[:, :, :2] = 1
    generator = torch.Generator().manual_seed(3)
    ready = [torch.randn(TARGET.shape, generator=generator) for _ in range(9)]
    results = []
    for noise in (iter(ready[1:]), generator.manual_seed(3)):
        first = draw(TARGET.shape, noise) if isinstance(noise, torch.Generator) else ready[0]
        oracle, scheduler = tools(AUDIOLDM, "ddim", 4, TARGET)
        result = denoise_masked(predictor(oracle, *CONDITION), scheduler, first, TARGET + 2, mask, noise)
        results.append((result, oracle.calls))
    assert torch.equal(results[0][0], results[1][0])
    for index, (x, _, _) in enumerate(results[0][1]):
        signal, share = scheduler.level(index)
        kept = signal * (TARGET + 2) + share * ready[1 + 2 * index]
        torch.testing.assert_close(x[:, :, :2], kept[:, :, :2])
    with pytest.raises(ValueError, match="shape"):
        add_noise(scheduler, TARGET, 0, iter([EMPTY]))


@pytest.mark.parametrize("sampler", NAMES)
def test_inpainting_makes_what_is_not_kept(sampler: str) -> None:
    mask = torch.ones(1, 1, 4, 4)
    mask[..., 3:] = 0
    oracle, scheduler = tools(AUDIOLDM, sampler, 20, TARGET)
    generator = torch.Generator().manual_seed(0)
    noise = draw(TARGET.shape, generator)
    result = denoise_masked(predictor(oracle, *CONDITION), scheduler, noise, TARGET, mask, generator)
    assert (result - TARGET)[..., 3:].abs().max() < 0.2


# Windows


@pytest.mark.parametrize(("length", "window", "overlap"), [(64, 64, 32), (65, 64, 32), (1000, 64, 32), (130, 64, 16)])
def test_windows_cover_all(length: int, window: int, overlap: int) -> None:
    first = starts(length, window, overlap)
    assert first[0] == 0 and first[-1] == max(0, length - window)
    assert all(0 < b - a <= window - overlap for a, b in zip(first, first[1:], strict=False))


def test_a_blend_of_windows_is_what_they_agree_on_and_smooth_where_not() -> None:
    x = torch.randn(1, 2, 300, 3)
    agreed = blend(lambda start, stop: x[:, :, start:stop], 300, 64, 32)
    torch.testing.assert_close(agreed, x)
    scaled = blend(lambda start, stop: x[:, :, start:stop].repeat_interleave(4, 2), 300, 64, 16, scale=4)
    torch.testing.assert_close(scaled, x.repeat_interleave(4, 2))
    signs = iter([1.0, -1.0] * 10)
    steps = blend(lambda start, stop: torch.full((1, 1, stop - start, 1), next(signs)), 300, 64, 32)[0, 0, :, 0]
    assert steps.max() == 1 and steps.min() < -0.9 and steps.diff().abs().max() < 0.12


def test_windows_see_no_more_than_they_may_and_short_latents_are_seen_whole() -> None:
    class Net:
        def __init__(self) -> None:
            self.lengths: list[int] = []

        def __call__(self, x, timestep, encoder_hidden_states, class_labels):
            self.lengths.append(x.shape[2])
            return SimpleNamespace(sample=x.tanh() + x.mean())  # of the whole window, so that windows disagree

    def result(length: int, window: int | None) -> tuple[torch.Tensor, list[int]]:
        net, generator = Net(), torch.Generator().manual_seed(0)
        noise = draw((1, 2, length, 4), generator)
        scheduler = make_scheduler(AUDIOLDM, "dpm++", 4)
        predict = predictor(net, EMPTY + 1, EMPTY, 2.0, window)
        return denoise(predict, scheduler, noise, generator), net.lengths

    (whole, _), (one, _) = result(16, None), result(16, 16)
    assert torch.equal(whole, one)
    long, lengths = result(100, 16)
    assert set(lengths) == {16} and torch.isfinite(long).all() and long.shape[2] == 100
