"""Half precision and batches: what they change in the sound, and what they must not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import audioldm
from audioldm import generation
from audioldm.audio import log_mel
from audioldm.latent_diffusion.codec import clamp_runaway
from audioldm.latent_diffusion.model import LatentDiffusion, best_precision
from audioldm.latent_diffusion.sampling import draw


def test_bf16_changes_a_sound_far_less_than_another_seed_does() -> None:
    options = {"duration": 2.0, "ddim_steps": 10, "n_candidate_gen_per_text": 1}
    mels = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model = audioldm.build_model(device="cpu", precision=name)
        assert next(model.unet.parameters()).dtype == dtype == next(model.vae.parameters()).dtype
        for prompt in ("a dog barking", "rain falling"):
            for seed in (1, 2):
                wave = audioldm.text_to_audio(model, prompt, seed=seed, **options)[0]
                assert wave.dtype == np.float32
                mels[name, prompt, seed] = log_mel(torch.from_numpy(wave))
    prompts = ("a dog barking", "rain falling")
    between_seeds = np.mean([distance(mels["fp32", p, 1], mels["fp32", p, 2]) for p in prompts])
    changed = [distance(mels["fp32", p, seed], mels["bf16", p, seed]) for p in prompts for seed in (1, 2)]
    assert min(changed) > 0 and np.mean(changed) < between_seeds / 5


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().mean())


@pytest.mark.parametrize("name, batch", [("bf16", 4), ("bf16", 3), ("fp32", None), ("fp32", 3)])
def test_the_same_bytes_in_any_company(tiny_folder: Path, name: str, batch: int | None) -> None:
    model = LatentDiffusion.from_folder(tiny_folder, "cpu", name, batch)
    options = {"duration": 1.3, "ddim_steps": 3, "n_candidate_gen_per_text": 1}
    together = audioldm.text_to_audio(model, "rain", batchsize=5, **options)
    for item, seed in ((0, 42), (2, audioldm.generation.noise_seed(42, 2, 0)), (4, 1)):
        alone = audioldm.text_to_audio(model, "rain", seed=seed, **options)[0]
        assert (alone.tobytes() == together[item].tobytes()) == (seed != 1)


@pytest.mark.parametrize("name, batch", [("bf16", 4), ("fp32", 2)])
def test_edits_are_the_same_in_any_company(tiny_folder: Path, name: str, batch: int) -> None:
    model = LatentDiffusion.from_folder(tiny_folder, "cpu", name, batch)
    sound = (16_000, np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 9)
    for edit, *how in ((audioldm.style_transfer, 0.5), (audioldm.super_resolution_and_inpainting,)):
        prompts = ("rain", sound, *how) if how else ("rain", sound)
        one, three = (edit(model, *prompts, ddim_steps=4, batchsize=count) for count in (1, 3))
        assert three[0].tobytes() == one[0].tobytes() != three[1].tobytes()


def test_bf16_is_chosen_only_where_the_machine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, chosen in (((False, False), "fp32"), ((True, False), "bf16"), ((False, True), "bf16")):
        for name, there in zip(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), flags, strict=True):
            monkeypatch.setattr(torch.cpu, name, lambda there=there: there, raising=False)
        assert best_precision(torch.device("cpu")) == chosen
    assert best_precision(torch.device("cuda")) == best_precision(torch.device("mps")) == "fp16"


def test_a_batch_is_what_saves_time_and_fits(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def size(device: str, *more: object) -> int:
        model = LatentDiffusion.from_folder(tiny_folder, "cpu", *more)
        model.__dict__["device"] = torch.device(device)  # a GPU that is not there
        return generation.batch_size(model)

    assert size("cpu", "fp32") == size("cpu", "fp32", 7) == 1 < size("cpu", "bf16") < size("cpu", "bf16", 7) == 7
    sizes = []
    for free in (2**40, 2**30, 2**20):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**40))
        sizes.append(size("cuda", "fp16"))
    assert sizes == [generation.AT_ONCE, 2, 1]


def test_hifi_gan_in_two_dimensions_is_the_same(tiny_model: LatentDiffusion) -> None:
    from transformers.models.speecht5.modeling_speecht5 import SpeechT5HifiGan

    theirs = SpeechT5HifiGan.from_pretrained(tiny_model.folder.path / "vocoder", dtype=torch.float32)
    mel = torch.randn(2, 30, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(mel)
        torch.testing.assert_close(tiny_model.vocoder(mel), expected, atol=5e-5, rtol=1e-5)
    assert expected.std() > 0.01


def test_each_part_takes_and_gives_float32(tiny_folder: Path) -> None:
    model = LatentDiffusion.from_folder(tiny_folder, "cpu", "bf16")
    z, mel = torch.randn(1, 8, 16, 16), torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        made = [
            model.unet(z, torch.tensor(7), encoder_hidden_states=None, class_labels=torch.randn(1, 512)).sample,
            model.vae.decode(z).sample, model.vae.encode(mel).latent_dist.mean, model.vocoder(mel[:, 0]),
        ]  # fmt: skip
    assert {one.dtype for one in made} == {torch.float32}
    for module in (model.unet, model.vae, model.vocoder):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    fp16 = LatentDiffusion.from_folder(tiny_folder, "cpu", "fp16")
    assert {parameter.dtype for parameter in fp16.vae.parameters()} == {torch.float32}  # force_upcast
    assert {parameter.dtype for parameter in fp16.unet.parameters()} == {torch.float16}


def test_the_phases_of_the_spectral_vocoder_are_not_rounded() -> None:
    model = audioldm.build_model(device="cpu", precision="bf16")
    assert {parameter.dtype for parameter in model.vocoder.parameters()} == {torch.float32}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_what_is_rounded_leaves_nothing_of_its_file_in_memory(tiny_folder: Path, tmp_path: Path) -> None:
    def mapped(precision: str) -> list[str]:
        folder = shutil.copytree(tiny_folder, tmp_path / precision)  # other tests keep the files of tiny_folder open
        model = LatentDiffusion.from_folder(folder, "cpu", precision)
        _ = model.unet, model.vae, model.vocoder
        lines = Path("/proc/self/maps").read_text().splitlines()
        return [line for line in lines if str(folder) in line and line.endswith(".safetensors")]

    assert mapped("bf16") == [] != mapped("fp32")


def test_one_runaway_does_not_clip_its_neighbours() -> None:
    latents = torch.full((2, 1, 2, 2), 20.0)
    latents[1, 0, 0, 0] = 1000
    clipped = clamp_runaway(latents)
    assert torch.equal(clipped[0], latents[0]) and clipped[1].max() == 10


def test_each_row_draws_from_its_own_generator() -> None:
    one, two, again = (torch.Generator().manual_seed(seed) for seed in (1, 2, 1))
    both = draw((2, 3, 4, 4), [one, two])
    assert torch.equal(both[:1], draw((1, 3, 4, 4), again)) and not torch.equal(both[0], both[1])
