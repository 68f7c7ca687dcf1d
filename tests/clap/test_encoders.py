"""Encoders, against the libraries' own ways of computing the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file

from audioldm.audio import SAMPLE_RATE as RATE
from audioldm.clap.encoders import preprocess
from audioldm.conditioning import condition
from audioldm.errors import InputError
from audioldm.inputs.prompt import read_prompt
from audioldm.latent_diffusion.model import LatentDiffusion


def test_clap_is_that_of_transformers(tiny_folder: Path, tiny_model: LatentDiffusion) -> None:
    from transformers import ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    model = ClapModel.from_pretrained(tiny_folder / "clap").eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tiny_folder / "clap" / "tokenizer.json"))
    wave = np.random.default_rng(0).standard_normal(20_000).astype(np.float32) * 0.1
    features = ClapFeatureExtractor.from_pretrained(tiny_folder / "clap")(
        wave, sampling_rate=RATE, return_tensors="pt"
    )
    ids = torch.tensor([tokenizer.backend_tokenizer.encode("a dog").ids])  # padded to 32
    with torch.no_grad():
        text = model.get_text_features(ids, attention_mask=(ids != 1).long()).pooler_output
        audio = model.get_audio_features(features["input_features"].float()).pooler_output
    torch.testing.assert_close(tiny_model.clap.encode_text(["rain", "a dog"])[1:], text, atol=1e-5, rtol=0)
    torch.testing.assert_close(tiny_model.clap.encode_audio([wave]), audio, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["dual", "clip"])
def test_clip_is_that_of_transformers(kind: str, tiny_folder: Path, tmp_path: Path, picture: Path) -> None:
    from transformers import CLIPModel, VisionTextDualEncoderModel

    folder = tiny_folder if kind == "dual" else tiny.build(tmp_path, clip="clip")
    reference = (VisionTextDualEncoderModel if kind == "dual" else CLIPModel).from_pretrained(
        folder / "clip", dtype=torch.float32
    )
    encoder = LatentDiffusion.from_folder(folder, "cpu").clip
    image = Image.open(picture)
    settings = json.loads((folder / "clip" / "preprocessor_config.json").read_text())
    pixels = torch.from_numpy(preprocess(image, settings))[None]
    ids = encoder._tokenize(["a dog"], encoder.device)["input_ids"]
    with torch.no_grad():
        expected_image = reference.eval().get_image_features(pixels).pooler_output
        expected_text = reference.get_text_features(ids).pooler_output
    torch.testing.assert_close(encoder.encode_image([image]), expected_image, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder.encode_text(["a dog"]), expected_text, atol=1e-5, rtol=1e-4)
    assert encoder.encode_image([image, image]).shape == (2, 512)


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (64, 64), (20, 90)])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}, "resample": 3},
        {"size": {"height": 50, "width": 60}, "crop_size": {"height": 40, "width": 44}, "resample": 2},
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}, "do_normalize": False},
    ],
)
def test_preprocessing_is_that_of_transformers(size: tuple[int, int], settings: dict) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    settings = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], **settings}
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = CLIPImageProcessorPil(**settings)(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(preprocess(image, settings), expected, atol=1e-5)


@pytest.mark.parametrize("spoilt", [{"size": None}, {"image_mean": "bright"}, {"resample": 99}, {"crop_size": {}}])
def test_settings_that_do_not_fit_are_told_in_a_sentence(copy: Path, picture: Path, spoilt: dict) -> None:
    path = copy / "clip" / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **spoilt}))
    with pytest.raises(InputError, match="preprocessor_config.json has a missing or wrong value"):
        LatentDiffusion.from_folder(copy, "cpu").clip.encode_image([Image.open(picture)])


@pytest.mark.parametrize("content", ["[]", "{}", '{"model_type": "abacus"}'])
def test_a_spoilt_config_is_told_in_a_sentence(copy: Path, picture: Path, content: str) -> None:
    (copy / "clip" / "config.json").write_text(content)
    with pytest.raises(InputError, match="clip/config.json"):
        LatentDiffusion.from_folder(copy, "cpu").clip.encode_image([Image.open(picture)])


def test_long_text_is_cut_and_odd_bytes_are_survived(tiny_model: LatentDiffusion) -> None:
    long = tiny_model.clap.encode_text(["rain " * 1000])
    assert long.shape == (1, 512) and torch.isfinite(long).all()
    assert condition(tiny_model, read_prompt("rain \udcff ☔")).shape == (1, 512)


def test_audio_vectors_are_deterministic_also_of_long_waves(tiny_model: LatentDiffusion) -> None:
    wave = np.random.default_rng(0).standard_normal(25 * RATE).astype(np.float32) * 0.1
    first, again = (tiny_model.clap.encode_audio([wave]) for _ in range(2))
    among = tiny_model.clap.encode_audio([wave[:RATE], wave])[1:]
    assert torch.equal(first, again) and torch.equal(first, among)
    assert float(first.norm()) == pytest.approx(1)
    end_changed = np.concatenate([wave[:-RATE], np.zeros(RATE, np.float32)])
    assert not torch.equal(tiny_model.clap.encode_audio([end_changed]), first), "all of it must be heard"


def test_weights_in_half_precision_run_in_single(tiny_folder: Path, tiny_model: LatentDiffusion) -> None:
    stored = load_file(tiny_folder / "vocoder" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert {parameter.dtype for parameter in tiny_model.vocoder.parameters()} == {torch.float32}


def test_no_prompt_is_ever_left_out(tiny_model: LatentDiffusion) -> None:
    """Upstream replaces a prompt by the empty one with a chance of one in ten, also at inference."""
    vectors = torch.cat([condition(tiny_model, read_prompt(f"a dog barking {n}")) for n in range(10_000)])
    distances = (vectors - tiny_model.unconditional).norm(dim=1)
    assert distances.min() > 1e-3
