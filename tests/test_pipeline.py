"""From prompt to wave with tiny random networks: exact lengths, same bytes, only what is needed is read."""

from __future__ import annotations

import json
import logging
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import audioldm
from audioldm import registry
from audioldm.conditioning import condition
from audioldm.errors import InputError
from audioldm.generation import generate, noise_seed
from audioldm.inputs.prompt import read_prompt
from audioldm.latent_diffusion.model import LatentDiffusion
from audioldm.options import GenerateOptions

RATE = 16_000


# The waves


@pytest.mark.parametrize("duration", [0.5, 0.73, 1.23456, 2.5, 3])
def test_length_is_exact_to_the_sample(tiny_model: LatentDiffusion, duration: float) -> None:
    waves = audioldm.text_to_audio(tiny_model, "a dog barking", duration=duration, ddim_steps=1)
    assert waves.shape == (1, 1, round(duration * RATE)) and waves.dtype == np.float32
    assert np.isfinite(waves).all() and np.abs(waves).max() <= 0.99 and waves.std() > 1e-3


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_same_bytes_whatever_the_batch(tiny_model: LatentDiffusion, sampler: str) -> None:
    def waves(**more: object) -> np.ndarray:
        return audioldm.text_to_audio(tiny_model, "rain", seed=7, duration=0.5, sampler=sampler, **more)

    alone, four = waves(), waves(batchsize=4)
    assert four.shape[0] == 4
    assert alone[0].tobytes() == four[0].tobytes()
    assert len({wave.tobytes() for wave in four}) == 4, "each sound must have noise of its own"
    torch.manual_seed(99)
    assert waves().tobytes() == alone.tobytes(), "the global generator must not matter"


def test_each_sound_can_be_made_again_on_its_own(tiny_model: LatentDiffusion) -> None:
    options = GenerateOptions(duration=0.5, ddim_steps=2, batchsize=2, n_candidates=3, sampler="ddim")
    vector = condition(tiny_model, read_prompt("waves"))
    for sound in generate(tiny_model, vector, options):
        again = GenerateOptions(duration=0.5, ddim_steps=2, seed=sound.noise_seed, sampler="ddim")
        (one,) = generate(tiny_model, vector, again)
        assert one.wave.tobytes() == sound.wave.tobytes()


def test_the_candidate_nearest_to_the_condition_is_kept(tiny_model: LatentDiffusion) -> None:
    options = GenerateOptions(duration=0.5, ddim_steps=2, n_candidates=4)
    vector = condition(tiny_model, read_prompt("waves"))
    (kept,) = generate(tiny_model, vector, options)
    cosines = []
    for candidate in range(4):
        seed = noise_seed(options.seed, 0, candidate)
        (sound,) = generate(tiny_model, vector, GenerateOptions(duration=0.5, ddim_steps=2, seed=seed))
        cosines.append(float(tiny_model.clap.encode_audio([sound.wave]) @ vector[0]))
    assert kept.candidate == int(np.argmax(cosines)) and kept.similarity == pytest.approx(max(cosines))


def test_seeds_of_sounds() -> None:
    seeds = [noise_seed(5, item, candidate) for item in range(8) for candidate in range(8)]
    assert seeds[0] == 5 and len(set(seeds)) == 64 and all(0 <= seed < 2**53 for seed in seeds)


def test_prompt_translator_and_seed_all_matter(tiny_model: LatentDiffusion, picture: Path) -> None:
    def wave(prompt: str, **more: object) -> bytes:
        return audioldm.text_to_audio(tiny_model, prompt, duration=0.5, **more).tobytes()

    results = [
        wave("rain"),
        wave("a dog"),
        wave("rain", seed=1),
        wave(str(picture)),
        wave(str(picture), translator="tiny_mse"),
    ]
    assert len(set(results)) == len(results)
    as_image = audioldm.image_to_audio(tiny_model, Image.open(picture), duration=0.5)
    assert as_image.tobytes() == results[3] == wave(str(picture), translator="tiny_cos")


def test_a_pil_image_or_a_path_is_the_same_as_its_file(tiny_model: LatentDiffusion, tmp_path: Path) -> None:
    """Upright and on white, which a bare conversion to RGB forgets; and what was given stays as it was."""
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    expected = read_prompt(str(path)).content
    with Image.open(path) as image:
        assert read_prompt(image).content.tobytes() == expected.tobytes() and expected.size == (30, 40)
        assert image.size == (40, 30) and image.mode == "RGBA"
    assert read_prompt(path).content.tobytes() == expected.tobytes()
    waves = [audioldm.image_to_audio(tiny_model, it, duration=0.5, ddim_steps=1) for it in (path, str(path))]
    assert waves[0].tobytes() == waves[1].tobytes()
    with pytest.raises(InputError, match="no such file"):
        audioldm.image_to_audio(tiny_model, Path("a dog"))


def test_the_benchmark_does_what_the_command_does(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from audioldm import generation
    from audioldm.latent_diffusion import sampling

    monkeypatch.setattr("builtins.__import__", __import__)  # the stopwatch replaces it: put it back at the end
    calls = []
    for place, verb in ((sampling, "denoise"), (generation, "decode"), (generation, "rank")):
        real = getattr(place, verb)  # which the stopwatch replaces, too
        monkeypatch.setattr(place, verb, lambda *a, v=verb, f=real, **more: (calls.append(v), f(*a, **more))[1])
    monkeypatch.setattr(generation, "batch_size", lambda model: 1)
    stages = runpy.run_path(str(Path(audioldm.__file__).parents[1] / "benchmarks" / "stages.py"))
    monkeypatch.setattr(sys, "argv", ["stages", "--model_name", str(tiny_folder), "-dur", "0.5", "-n", "3"])
    stages["main"]()
    assert calls == ["rank", *["denoise", "decode", "rank"] * 4]  # the first "rank" reads its encoder
    seconds = dict(re.findall(r"(\w+) +(\d+\.\d+) s", capsys.readouterr().out))
    assert list(seconds) == [*stages["STAGES"], "together"]


def test_a_sound_as_prompt(tiny_model: LatentDiffusion, tmp_path: Path) -> None:
    first = audioldm.text_to_audio(tiny_model, "rain", duration=0.7)
    (path,) = audioldm.save_wave(first, tmp_path, "like it")
    waves = audioldm.text_to_audio(tiny_model, "", str(path), duration=0.5)
    assert waves.shape == (1, 1, 8000)
    expected = tiny_model.clap.encode_audio([read_prompt(audio_file=path).content])
    torch.testing.assert_close(condition(tiny_model, read_prompt(audio_file=path)), expected)


def test_upstreams_call_by_position(tiny_model: LatentDiffusion) -> None:
    waves = audioldm.text_to_audio(tiny_model, "rain", None, 3, 2, 0.6, 2, 2.5, 2, None)
    assert waves.shape == (2, 1, 9600)


def test_denoising_and_decoding_are_those_of_the_libraries(
    tiny_folder: Path, tiny_model: LatentDiffusion
) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import SpeechT5HifiGan

    unet = UNet2DConditionModel.from_pretrained(tiny_folder / "unet").eval()
    vae = AutoencoderKL.from_pretrained(tiny_folder / "vae").eval()
    vocoder = SpeechT5HifiGan.from_pretrained(tiny_folder / "vocoder", dtype=torch.float32).eval()
    scheduler = DDIMScheduler.from_pretrained(tiny_folder / "scheduler")
    vector, unconditional = tiny_model.clap.encode_text(["rain"]), tiny_model.unconditional
    scheduler.set_timesteps(10)
    generator = torch.Generator().manual_seed(5)
    torch.randn(1, 8, 256, 16, generator=generator)  # what upstream draws before the first noise of a text
    torch.rand(1, generator=generator), torch.rand(1, generator=generator)
    x = torch.randn(1, 8, 26, 16, generator=generator)  # 1 s: 100 frames / 4, made even for the UNet
    with torch.no_grad():
        for t in scheduler.timesteps:
            without = unet(x, t, encoder_hidden_states=None, class_labels=unconditional).sample
            with_it = unet(x, t, encoder_hidden_states=None, class_labels=vector).sample
            said = without + 2 * (with_it - without)
            x = scheduler.step(said, t, x, eta=1.0, generator=generator).prev_sample
        expected = vocoder(vae.decode(x / 0.9).sample[0])[0, :16_000].numpy()
    expected *= min(1, 0.99 / np.abs(expected).max())
    options = {"duration": 1, "ddim_steps": 10, "sampler": "ddim", "guidance_scale": 2.0, "seed": 5}
    waves = audioldm.text_to_audio(tiny_model, "rain", **options)
    np.testing.assert_allclose(waves[0, 0], expected, atol=1e-3)


@pytest.mark.parametrize("image", ["a dog", "missing.png"])
def test_image_to_audio_wants_an_image(tiny_model: LatentDiffusion, image: str) -> None:
    with pytest.raises(InputError):
        audioldm.image_to_audio(tiny_model, image)


# Only what is needed


def test_an_image_run_reads_neither_text_tower_nor_audio_tower(copy: Path, picture: Path) -> None:
    tiny.strip(copy / "clap" / "model.safetensors", "text_model.", "audio_model.")
    tiny.strip(copy / "clip" / "model.safetensors", "text_model.")
    (copy / "clap" / "tokenizer.json").unlink()
    waves = audioldm.image_to_audio(LatentDiffusion.from_folder(copy, "cpu"), str(picture), duration=0.5)
    assert waves.shape == (1, 1, 8000)


def test_a_text_run_reads_neither_clip_nor_audio_tower(copy: Path) -> None:
    tiny.strip(copy / "clap" / "model.safetensors", "audio_model.")
    tiny.strip(copy / "clip" / "model.safetensors", "text_model.", "vision_model.")
    model = LatentDiffusion.from_folder(copy, "cpu")
    assert audioldm.text_to_audio(model, "rain", duration=0.5).shape == (1, 1, 8000)
    with pytest.raises(InputError, match="audio_model.* is missing"):
        audioldm.text_to_audio(model, "rain", duration=0.5, n_candidate_gen_per_text=2)


def test_nothing_is_read_before_it_is_used(copy: Path) -> None:
    for part in ("unet", "vae", "vocoder", "clap", "clip"):
        next((copy / part).glob("*.safetensors")).write_bytes(b"not weights")
    model = LatentDiffusion.from_folder(copy, "cpu")
    for part in ("unet", "vae", "vocoder"):
        with pytest.raises(InputError, match=f"{part}.* is missing or damaged"):
            getattr(model, part)


def test_without_references_the_unconditional_is_computed(copy: Path, tiny_model: LatentDiffusion) -> None:
    (copy / "reference.safetensors").unlink()
    computed = LatentDiffusion.from_folder(copy, "cpu").unconditional
    torch.testing.assert_close(computed, tiny_model.unconditional)


def test_importing_and_refusing_need_no_torch(tiny_folder: Path, picture: Path) -> None:
    missing = str(picture.with_name("none.png"))
    code = f"""
import sys, audioldm, audioldm.commands.generate
heavy = ("torch", "numpy", "PIL", "transformers", "diffusers", "safetensors", "requests")
assert not [name for name in heavy if name in sys.modules]
try:
    audioldm.commands.generate.main(["-h"])
except SystemExit:
    pass
assert not [name for name in heavy if name in sys.modules]
model = ["--model_name", {str(tiny_folder)!r}]
assert audioldm.commands.generate.main([*model, "-t", "rain", "-dur", "0"]) == 2
assert audioldm.commands.generate.main([*model, "-t", {missing!r}]) == 2
assert audioldm.commands.generate.main([*model, "-t", {str(picture)!r}, "--translator", "x"]) == 2
assert "torch" not in sys.modules
"""
    repository = Path(audioldm.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=repository)


# Translators, known sounds, spoilt folders


def test_a_translator_of_another_space_is_refused(copy: Path, picture: Path, tmp_path: Path) -> None:
    other = tiny.build(tmp_path / "other", seed=1)
    model = LatentDiffusion.from_folder(copy, "cpu")
    foreign = LatentDiffusion.from_folder(other, "cpu")
    shutil.rmtree(copy.parent / "translators")
    shutil.copytree(other.parent / "translators", copy.parent / "translators")
    with pytest.raises(InputError) as caught:
        audioldm.image_to_audio(model, str(picture))
    for space in (*model.spaces, *foreign.spaces):
        assert space in str(caught.value)


def test_the_nearest_known_sounds_are_named(copy: Path, picture: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = LatentDiffusion.from_folder(copy, "cpu")
    names = ["dog", "rain", "organ", "sea"]
    vectors = model.clap.encode_text(tiny.WORDS).clone()
    references = load_file(copy / "reference.safetensors")
    save_file({**references, "sounds": vectors}, copy / "reference.safetensors")

    def warnings(threshold: float | dict[str, float], prompt: str) -> list[str]:
        caplog.clear()
        sounds = {"sounds": [{"name": n} for n in names], "threshold": threshold}
        (copy / "sounds.json").write_text(json.dumps(sounds))
        with caplog.at_level(logging.WARNING, "audioldm"):
            condition(LatentDiffusion.from_folder(copy, "cpu"), read_prompt(prompt))
        return [record.getMessage() for record in caplog.records]

    assert warnings(0.999, tiny.WORDS[1]) == []
    assert warnings({"image": 1.1}, tiny.WORDS[1]) == []
    (warning,) = warnings(1.1, tiny.WORDS[1])
    assert [warning] == warnings({"text": 1.1, "image": -1}, tiny.WORDS[1])
    assert warning.startswith("the model tiny may not know this; the nearest sounds it knows: ")
    for threshold, count in ((1.1, 0), ({"text": 1.1}, 0), ({"image": 1.1}, 1), ({"image": -1.1}, 0)):
        assert len(warnings(threshold, str(picture))) == count, "each kind of prompt has a threshold of its own"
    assert warning.split(": ")[1].startswith("rain, ") and len(warning.split(", ")) == 3


@pytest.mark.parametrize(
    "spoilt",
    [
        {"sounds": [{"prompt": "rain"}], "threshold": 0.5},
        {"sounds": ["rain"], "threshold": 0.5},
        {"sounds": [{"name": "rain"}], "threshold": "near"},
        {"sounds": [{"name": "rain"}], "threshold": {"text": None}},
        {"threshold": 0.5},
        ["rain"],
    ],
)
def test_known_sounds_that_cannot_be_read(copy: Path, spoilt: object) -> None:
    references = load_file(copy / "reference.safetensors")
    save_file({**references, "sounds": torch.eye(1, 512)}, copy / "reference.safetensors")
    (copy / "sounds.json").write_text(json.dumps(spoilt))
    with pytest.raises(InputError, match="sounds.json"):
        condition(LatentDiffusion.from_folder(copy, "cpu"), read_prompt("rain"))


@pytest.mark.parametrize("content", ["{", "[]"])
@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_spoilt_folder_is_told_in_a_sentence(copy: Path, part: str, content: str) -> None:
    (copy / part).write_text(content)
    with pytest.raises(InputError, match=part):
        audioldm.text_to_audio(LatentDiffusion.from_folder(copy, "cpu"), "rain", duration=0.5)


def test_weights_that_do_not_fit_their_config(copy: Path) -> None:
    path = copy / "vocoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "upsample_initial_channel": 64}))
    with pytest.raises(InputError, match="does not fit its config.json"):
        _ = LatentDiffusion.from_folder(copy, "cpu").vocoder
    tiny.strip(copy / "vae" / "diffusion_pytorch_model.safetensors", "post_quant_conv.")
    with pytest.raises(InputError, match="post_quant_conv.* is missing"):
        _ = LatentDiffusion.from_folder(copy, "cpu").vae


PARTS = {  # what a run reads of each part, and the part's weights
    "unet": ("rain", "unet/diffusion_pytorch_model.safetensors", "conv_in.weight"),
    "vae": ("rain", "vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias"),
    "vocoder": ("rain", "vocoder/model.safetensors", "conv_pre.bias"),
    "CLAP's text tower": ("rain", "clap/model.safetensors", "text_projection.linear1.weight"),
    "CLAP's audio tower": ("sound", "clap/model.safetensors", "audio_projection.linear1.bias"),
    "CLIP's image tower": ("picture", "clip/model.safetensors", "visual_projection.weight"),
    "references": ("rain", "reference.safetensors", "unconditional"),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", PARTS)
def test_nan_in_weights_names_the_file_and_the_tensor(copy: Path, picture: Path, part: str, value: float) -> None:
    prompt, file, name = PARTS[part]
    tensors = load_file(copy / file)
    tensors[name].flatten()[-1:] = value
    save_file(tensors, copy / file, {"format": "pt"})
    model = LatentDiffusion.from_folder(copy, "cpu")
    with pytest.raises(InputError, match=f"{copy / file} is damaged: its tensor {name} holds NaN or infinite numbers"):
        if prompt == "picture":
            audioldm.image_to_audio(model, picture, duration=0.5)
        elif prompt == "sound":
            audioldm.text_to_audio(model, None, original_audio_file_path=np.ones(9000, np.float32), duration=0.5)
        else:
            audioldm.text_to_audio(model, prompt, duration=0.5)


def test_large_weights_are_no_damage(copy: Path) -> None:
    file = copy / "vocoder" / "model.safetensors"
    tensors = load_file(file)
    tensors["conv_pre.bias"][:] = 6e4  # of 16 bits: their sum is infinite
    save_file(tensors, file, {"format": "pt"})
    assert LatentDiffusion.from_folder(copy, "cpu").vocoder is not None


def test_folders_that_are_no_models(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a model folder"):
        audioldm.build_model(tmp_path)
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights in vae"):
        audioldm.build_model(str(copy))
    with pytest.raises(InputError, match="config must be None"):
        audioldm.build_model(config={})
    for empty in ({"ckpt_path": ""}, {"model_name": ""}, {"device": ""}, {"precision": ""}, {"batch": 0}):
        with pytest.raises(InputError):
            audioldm.build_model(**empty)
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "default_translator": 5}))
    with pytest.raises(InputError, match="does not describe a model"):
        audioldm.build_model(copy)


@pytest.mark.parametrize(
    "bad",
    [
        {"duration": 0.49}, {"duration": 601}, {"duration": float("nan")}, {"duration": float("inf")},
        {"duration": "5"}, {"duration": True}, {"ddim_steps": 0}, {"ddim_steps": 1001}, {"ddim_steps": 2.5},
        {"guidance_scale": 50.1}, {"guidance_scale": -3}, {"guidance_scale": float("nan")}, {"seed": -1},
        {"seed": 2**63}, {"seed": 1.0}, {"batchsize": 0}, {"batchsize": 65}, {"n_candidates": 0},
        {"n_candidates": 33}, {"sampler": "euler"}, {"mode": "dance"}, {"transfer_strength": 0.5},
        *({"mode": "transfer", "transfer_strength": x} for x in (-0.1, 1.1, float("nan"), "1", True)),
        {"time_range": (0, 1)}, {"mode": "transfer", "frequency_range": (0, 1)}, {"mode": "inpaint"},
        *({"mode": mode, "time_range": x} for mode in ("inpaint", "superres")
          for x in ((1, 1), (2, 1), (-1, 1), (0, float("nan")), (0, 601), (5, 6), (1,), 1, "12", ("1", "2"))),
        *({"mode": "inpaint", "frequency_range": x} for x in ((0, 8001), (0, float("inf")), (float("nan"), 1))),
        *({"mode": "inpaint", "time_mask_ratio": x} for x in ((0, 1.1), (0.5, 0.4), (float("nan"), 1))),
        {"mode": "inpaint", "time_mask_ratio": (0, 1), "time_range": (0, 1)},
    ],
)  # fmt: skip
def test_options_out_of_range(bad: dict) -> None:
    with pytest.raises(InputError):
        GenerateOptions.build(bad)


def test_what_the_modes_have_by_default() -> None:
    transfer, superres = (GenerateOptions.build({"mode": mode}) for mode in ("transfer", "superres"))
    assert transfer.transfer_strength == 0.5 and superres.frequency_range == (4000, 8000)
    assert [GenerateOptions.build({"mode": "transfer", "ddim_steps": 10, "transfer_strength": x}).steps_run
            for x in (0, 0.09, 0.5, 0.99, 1)] == [0, 0, 5, 9, 10]  # fmt: skip


def test_options_fall_to_the_models_own_and_then_to_ours() -> None:
    given = {"seed": np.int64(7), "duration": None}
    options = GenerateOptions.build(given, {"duration": 9.0, "ddim_steps": 3})
    assert (options.seed, options.duration, options.ddim_steps, options.guidance_scale) == (7, 9.0, 3, 2.5)
    with pytest.raises(InputError, match="stepz"):
        GenerateOptions.build({}, {"stepz": 3})


@pytest.mark.parametrize("how", [{"device": "nonsense"}, {"device": "cuda:99"}, {"precision": "int8"}, {"batch": 0}])
def test_a_way_that_cannot_be_run_is_refused_before_a_download(how: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(registry, "find_model", lambda name: pytest.fail(f"{name} would be downloaded"))
    with pytest.raises(InputError, match=r"device|precision|at once"):
        audioldm.build_model(model_name="audioldm-s-full-v2", **how)
