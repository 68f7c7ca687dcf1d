"""Batches of captions and pictures through the towers: what is in a batch beside them makes no difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from pictures import JPEG, encode
from PIL import Image
from safetensors.torch import load_file, save_file

from audioldm.clap import bulk
from audioldm.errors import InputError
from audioldm.registry import models_dir
from prior_steps.engine import embed
from prior_steps.engine.embed import Embedder
from prior_steps.readers.rows import OK, Row

ROW_WORDS = models_dir() / "translators" / "captions.txt"
CAPTIONS = ["rain", "a dog barking", "waves at the sea " * 20, "", "someone plays the church organ, and a dog barks"]


@pytest.fixture(scope="module", params=["starter", "dual", "clip"])
def model(request, tmp_path_factory) -> str:
    if request.param == "starter":
        return "starter"
    return str(tiny.build(tmp_path_factory.mktemp("models"), clip=request.param))


def rows_of(*contents: bytes | None) -> list[Row]:
    return [Row(str(i), "wit", CAPTIONS[i % 5], content=content) for i, content in enumerate(contents)]


def test_captions_are_the_same_in_any_batch_of_float32(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "fast_dtype", lambda device: torch.float32)
    embedder = Embedder(model, "cpu")
    rows = [Row(str(i), "audiocaps", f"{text} {i}") for i, text in enumerate(CAPTIONS * 3)]
    clip = embedder.model.clip.encode_text([row.caption for row in rows]).numpy()
    clap = embedder.model.clap.encode_text([row.caption for row in rows]).numpy()
    for size in (1, 4, 128):
        monkeypatch.setattr(embed, "TEXT_BATCH", size)
        found = embedder([(row, None) for row in rows])
        assert found.rows == rows and found.clip.dtype == found.clap.dtype == np.float32
        np.testing.assert_allclose(found.clip, clip, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.clap, clap, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.clap, axis=1), 1, atol=1e-5)


def test_captions_in_16_bits_are_near_those_in_float32(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ROW_WORDS.read_text(encoding="utf-8").splitlines()[:300]
    rows = [(Row(str(i), "audiocaps", text), None) for i, text in enumerate(captions)]
    fast = Embedder(model, "cpu")(rows)
    monkeypatch.setattr(bulk, "fast_dtype", lambda device: torch.float32)
    exact = Embedder(model, "cpu")(rows)
    for one, other in ((fast.clip, exact.clip), (fast.clap, exact.clap)):
        cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosines.min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(fast.clap, axis=1), 1, atol=1e-5)


def test_16_bits_that_change_the_vectors_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "fast_dtype", lambda device: torch.bfloat16)
    exact = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))

    def encode(texts: list[str]) -> torch.Tensor:
        good = exact[: len(texts)]
        return good + 0.1 if torch.is_autocast_enabled("cpu") else good

    tower = bulk.FastText(encode, torch.device("cpu"))
    assert torch.equal(tower(["x"] * 50), exact) and tower.dtype == torch.float32


def test_pictures_are_the_same_in_any_batch(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder(model, "cpu", "image")
    pixels = np.random.default_rng(0).integers(0, 255, (7, 60, 90, 3), np.uint8)
    images = [Image.fromarray(one).resize((80 + 9 * i, 70)) for i, one in enumerate(pixels)]
    expected = embedder.model.clip.encode_image(images).numpy()
    prepared = [embedder.prepare(row) for row in rows_of(*map(encode, images))]
    for size in (1, 3, 32):
        monkeypatch.setattr(embed, "IMAGE_BATCH", size)
        found = embedder(prepared)
        np.testing.assert_allclose(found.clip, expected, rtol=0, atol=1e-5)
    assert all(row.status == OK and row.content is None for row in found.rows)
    assert np.isnan(found.clap).all(axis=1).tolist() == [not row.caption for row in found.rows]


def test_what_is_no_picture_is_a_row_that_says_so(tiny_folder: Path) -> None:
    embedder = Embedder(str(tiny_folder), "cpu", "image")
    bomb = encode(Image.new("1", (9000, 9000)))
    contents = [JPEG, b"<html>", JPEG[:400], bomb, b"", None, encode(Image.new("L", (1, 500)))]
    found = embedder([embedder.prepare(row) for row in rows_of(*contents)])
    assert [row.status for row in found.rows] == [
        OK, "not_an_image", "damaged_image", "too_large", "unusable_image", "no_image", "unusable_image",
    ]  # fmt: skip
    assert np.isnan(found.clip).any(axis=1).tolist() == [row.status != OK for row in found.rows]
    assert all((row.error is None) == (row.status == OK) and row.content is None for row in found.rows)


def test_a_vector_that_is_none_is_a_failed_row(tiny_folder: Path) -> None:
    embedder = Embedder(str(tiny_folder), "cpu")
    for weight in embedder.model.clap._text_model.parameters():
        weight.fill_(float("nan"))
    assert [row.status for row in embedder([(Row("1", "audiocaps", "rain"), None)]).rows] == ["not_finite"]


def test_a_vector_of_zeros_is_a_failed_row(copy: Path) -> None:
    weights = load_file(copy / "clip" / "model.safetensors")
    weights["text_projection.weight"] = torch.zeros_like(weights["text_projection.weight"])
    save_file(weights, copy / "clip" / "model.safetensors", {"format": "pt"})
    embedder = Embedder(str(copy), "cpu")
    assert [row.status for row in embedder([(Row("1", "audiocaps", "rain"), None)]).rows] == ["zero_vector"]


def test_one_tower_alone_reads_no_other(copy: Path) -> None:
    tiny.strip(copy / "clap" / "model.safetensors", "text_model.")
    found = Embedder(str(copy), "cpu", towers=("clip",))([(Row("1", "audiocaps", "rain"), None)])
    assert found.clap is None and np.isfinite(found.clip).all()
    with pytest.raises(InputError, match="does not fit its config"):
        Embedder(str(copy), "cpu")([(Row("1", "audiocaps", "rain"), None)])
