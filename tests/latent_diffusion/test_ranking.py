"""Of several candidates, only the best is denoised to the end, and it is the same sound as on its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import audioldm
from audioldm import generation
from audioldm.commands.common import steps
from audioldm.conditioning import condition
from audioldm.generation import Sound, generate, noise_seed
from audioldm.inputs.prompt import read_prompt
from audioldm.inputs.sounds import Original, read_original
from audioldm.latent_diffusion import sampling
from audioldm.latent_diffusion.codec import latent_shape, window_length
from audioldm.latent_diffusion.model import LatentDiffusion
from audioldm.options import GenerateOptions

QUICK = {"duration": 0.5, "ddim_steps": 5}  # ranked after 3 steps


@contextmanager
def rows_of(module: torch.nn.Module) -> Iterator[list[int]]:
    """The number of rows of each call of ``module``."""
    rows: list[int] = []
    hook = module.register_forward_hook(lambda _, args, result: rows.append(len(args[0])))
    yield rows
    hook.remove()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several threads round the rows of a float32 batch differently on a CPU, where such batches are not made."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def again(model: LatentDiffusion, sound: Sound, given: dict, original: Original | None = None) -> bytes:
    """The sound on its own."""
    alone = GenerateOptions.build({**given, "seed": sound.noise_seed, "n_candidates": 1, "batchsize": 1})
    (one,) = generate(model, condition(model, read_prompt("waves")), alone, original=original)
    return one.wave.tobytes()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "precision, batch, filled, sampler",
    [
        ("bf16", 4, False, "dpm++"), ("bf16", 3, False, "unipc"), ("bf16", 1, False, "unipc"),
        ("fp32", 1, False, "dpm++"), ("fp32", 3, True, "unipc"), ("fp32", 4, True, "dpm++"),
    ],
)  # fmt: skip
def test_only_the_best_is_denoised_further(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str, batch: int, filled: bool, sampler: str
) -> None:
    model = LatentDiffusion.from_folder(tiny_folder, "cpu", precision)
    monkeypatch.setattr(generation, "batch_size", lambda model: batch)  # a GPU's, in float32
    vector, told = condition(model, read_prompt("waves")), []
    given = {**QUICK, "sampler": sampler, "n_candidates": 5, "batchsize": 3}
    options = GenerateOptions.build(given)
    with rows_of(model.unet) as rows:
        sounds = list(generate(model, vector, options, lambda: told.append(1)))
    assert len(told) == options.evaluations == 3 * (5 * 3 + 2)
    if filled:
        assert rows == [2 * batch] * len(rows) and sum(rows) >= 2 * len(told)
    else:
        assert sum(rows) == 2 * len(told)  # with and without the prompt
    assert [sound.item for sound in sounds] == [0, 1, 2]
    for sound in sounds:
        assert sound.noise_seed == noise_seed(options.seed, sound.item, sound.candidate)
        assert again(model, sound, given) == sound.wave.tobytes()
        assert sound.similarity == generation.rank(model, [sound.wave], vector)[0]


@pytest.mark.parametrize("sampler", ["dpm++", "unipc"])
def test_the_best_is_that_whose_expected_sound_is_nearest(tiny_model: LatentDiffusion, sampler: str) -> None:
    model, vector = tiny_model, condition(tiny_model, read_prompt("waves"))
    options = GenerateOptions.build({**QUICK, "sampler": sampler, "n_candidates": 4, "batchsize": 4})
    predict = sampling.predictor(model.unet, vector, model.unconditional, options.guidance_scale, window_length(model))

    def expected(seed: int) -> float:
        """How near the clean latents are that the network sees in those before the third step, by their definition."""
        before: list[torch.Tensor] = []
        generators = [sampling.upstream_generator(seed)]
        noise = sampling.draw(latent_shape(model, options.duration), generators)
        scheduler = sampling.make_scheduler(model.scheduler, sampler, 5)
        sampling.denoise(
            predict, scheduler, noise, generators, before_step=lambda _, latents: before.append(latents) or latents
        )
        signal, share = scheduler.level(2)
        with torch.inference_mode():
            clean = signal * before[2] - share * predict(before[2], scheduler.timesteps[2])
        return generation.rank(model, [generation.decode(model, clean, options.duration)], vector)[0]

    assert model.scheduler["prediction_type"] == "v_prediction"
    best = [int(np.argmax([expected(noise_seed(options.seed, item, n)) for n in range(4)])) for item in range(4)]
    assert [sound.candidate for sound in generate(model, vector, options)] == best and len(set(best)) > 1


@pytest.mark.parametrize("mode", ["transfer", "inpaint", "superres"])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_edits_and_what_is_told_of_them(tiny_model: LatentDiffusion, mode: str, sampler: str) -> None:
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32) / 9
    original = read_original((16_000, wave), mode)
    given = {"duration": 0.5, "ddim_steps": 6, "sampler": sampler, "mode": mode, "n_candidates": 3, "batchsize": 2}
    given |= {"time_range": (0.1, 0.3)} if mode == "inpaint" else {}
    strengths = (0, 0.2, 0.9, 1) if mode == "transfer" else (None,)  # 0, 1, 5 and 6 steps
    for strength, early in zip(strengths, (0, 1, 3, 4), strict=False):
        given["transfer_strength"] = strength
        options, told = GenerateOptions.build(given), []
        sounds = list(
            generate(tiny_model, condition(tiny_model, read_prompt("waves")), options, lambda: told.append(1),  # noqa: B023
                     original=original)
        )  # fmt: skip
        early = early if mode == "transfer" and sampler != "ddim" else options.steps_run
        assert len(told) == 2 * (3 * early + options.steps_run - early) == options.evaluations
        for sound in sounds:
            assert again(tiny_model, sound, given, original) == sound.wave.tobytes()


def test_when_the_candidates_are_ranked() -> None:
    def ranked(**given: object) -> int:
        return GenerateOptions.build({"n_candidates": 3, **given}).ranked_after

    assert [ranked(ddim_steps=count) for count in (1, 2, 3, 4, 5, 10, 25, 1000)] == [1, 2, 2, 3, 3, 6, 15, 600]
    assert ranked(sampler="unipc") == 15 and ranked(sampler="ddim") == ranked(mode="superres") == 25
    options = GenerateOptions.build({"n_candidates": 3, "batchsize": 2})
    for hears, count in ((True, 2 * (3 * 15 + 10)), (False, 2 * 25)):
        assert steps(SimpleNamespace(folder=SimpleNamespace(hears=hears)), options) == count


def test_a_frugal_run_makes_the_same_sound(tiny_folder: Path) -> None:
    options = GenerateOptions.build({**QUICK, "n_candidates": 3})
    waves = []
    for frugal in (False, True):
        model = LatentDiffusion.from_folder(tiny_folder, "cpu")
        (sound,) = generate(model, condition(model, read_prompt("waves")), options, frugal=frugal)
        waves.append(sound.wave.tobytes())
        assert ("unet" in model.__dict__) != frugal
    assert waves[0] == waves[1]


def test_the_starters_sound_is_the_same_in_any_batch() -> None:
    given = {"duration": 1.0, "ddim_steps": 5, "n_candidates": 3, "batchsize": 2, "seed": 3}
    made = []
    for batch in (1, 2, 4):
        model = audioldm.build_model(device="cpu", precision="bf16", batch=batch)
        with rows_of(model.unet) as rows:
            sounds = list(generate(model, condition(model, read_prompt("waves")), GenerateOptions.build(given)))
        assert sum(rows) == 2 * 2 * (3 * 3 + 2) and max(rows) == 2 * batch
        made.append([(sound.wave.tobytes(), sound.candidate, sound.similarity) for sound in sounds])
    assert made[0] == made[1] == made[2]
    assert [again(model, sound, given) for sound in sounds] == [wave for wave, *_ in made[0]]
