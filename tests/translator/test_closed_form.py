"""Translators without descent: procrustes and ridge against what is known, and the memory of captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pairs import CLAP, CLIP, DIM, make_rows, read_pairs, write_shard
from safetensors.torch import save_file

from translator import InputError
from translator.model import LinearTranslator, Memory, load_translator, save_translator
from translator.shards import pairs as data
from translator.shards.pairs import HELD_OUT, TRAIN
from translator.training import closed_form, memory

SPACES = {"clip_space": CLIP, "clap_space": CLAP}


def rotated(count: int, kind: str, seed: int) -> tuple[list[dict], np.ndarray, float]:
    """Rows whose CLAP vectors are a rotated, shrunk and shifted image of their CLIP vectors' directions, exactly.

    Texts lie around the first axis, images around minus the second, CLAP vectors around the last. Each pair has its
    mirror image under the same caption, so that the means are those axes' whatever is held out.
    """
    scale, draw = 0.6, np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((DIM - 2, DIM - 2)))
    x = draw.standard_normal((count, DIM - 2))
    x = np.repeat(x / np.linalg.norm(x, axis=1, keepdims=True), 2, axis=0) * np.tile([1, -1], count)[:, None]
    cone = np.eye(DIM)[0] * 0.8 if kind == "text" else np.eye(DIM)[1] * -0.6
    clip = cone + np.sqrt(1 - cone @ cone) * np.pad(x, ((0, 0), (2, 0)))
    clap = np.pad(scale * x @ rotation.T, ((0, 0), (1, 1))) + np.eye(DIM)[-1] * np.sqrt(1 - scale**2)
    length = draw.uniform(0.1, 9, (2 * count, 1))  # CLIP's vectors are of any length
    rows = make_rows(2 * count, name=kind, kind=kind)
    for i, row in enumerate(rows):
        row.update(caption=f"{kind} {i // 2}", clip=clip[i] * length[i], clap=clap[i])
    return rows, rotation, scale


# Procrustes and ridge


@pytest.mark.parametrize("name", ["procrustes", "ridge"])
def test_a_rotation_with_scale_and_means_is_found(tmp_path: Path, name: str) -> None:
    texts, rotation, scale = rotated(200, "text", 1)
    images, _, _ = rotated(150, "image", 2)
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", texts + images))
    found, facts = closed_form.fit(name, [pairs])
    assert facts["texts"] + facts["images"] == pairs.train and "note" not in facts
    axes = np.eye(DIM)
    np.testing.assert_allclose(found.clip_means, [axes[0] * 0.8, axes[1] * -0.6], atol=1e-5)
    np.testing.assert_allclose(found.clap_mean, axes[-1] * 0.8, atol=1e-5)
    expected = np.zeros((DIM, DIM))
    expected[1:-1, 2:] = scale * rotation
    if name == "procrustes":  # where no x ever points, any rotation will do
        np.testing.assert_allclose(found.weight[:, 2:], expected[:, 2:], atol=1e-5)
        lengths = np.linalg.svd(found.weight.numpy(), compute_uv=False)
        np.testing.assert_allclose(lengths, scale, atol=1e-5)
    else:
        assert facts["penalty"] == min(closed_form.PENALTIES)
        np.testing.assert_allclose(found.weight, expected, atol=1e-4)
    held = pairs.held_out_pairs()
    assert F.cosine_similarity(found(held.clip, held.kind), held.clap).min() > 1 - 1e-4


def test_procrustes_is_no_better_for_a_worse_rotation(tmp_path: Path) -> None:
    """Its W leaves less error than any other rotation and scale that were tried."""
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", make_rows(300)))
    around = closed_form.means([pairs])
    total = closed_form.sums([pairs], around)
    batch = next(pairs.buffers(TRAIN))
    x, y = F.normalize(F.normalize(batch.clip) - around.clip[0]), batch.clap - around.clap

    def error(weight: torch.Tensor) -> float:
        return float((y - x @ weight.T).square().sum())

    best = closed_form.procrustes(total, around).weight
    for seed in range(30):
        turn = torch.linalg.qr(torch.eye(DIM) + 0.1 * torch.randn(DIM, DIM, generator=torch.manual_seed(seed)))[0]
        turn = turn * turn.diagonal().sign()
        assert error(turn @ best) > error(best)
    assert min(error(best * 1.02), error(best * 0.98)) > error(best)


def test_ridge_is_least_squares(tmp_path: Path, monkeypatch) -> None:
    """Against numpy's, with √λ rows of the unit matrix below the data; summed over several buffers."""
    monkeypatch.setattr(data, "BUFFER", 70)
    rows = make_rows(300) + make_rows(80, "p", "image", seed=3)
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", rows))
    around = closed_form.means([pairs])
    total = closed_form.sums([pairs], around)
    buffers = list(pairs.buffers(TRAIN))
    assert len(buffers) > 3 and total.count == pairs.train
    clip, clap, kind = (torch.cat(columns).double().numpy() for columns in zip(*buffers, strict=True))
    unit = clip / np.linalg.norm(clip, axis=1, keepdims=True)
    means = np.stack([unit[kind == k].mean(0) for k in (0, 1)])
    np.testing.assert_allclose(around.clip, means, atol=1e-6)
    np.testing.assert_allclose(around.clap, clap.mean(0), atol=1e-6)
    x = unit - means[kind.astype(int)]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for penalty in (1e-5, 0.1):
        size = penalty * len(x) / DIM  # Σ|x|² is the number of rows
        above = np.vstack([x, np.sqrt(size) * np.eye(DIM)])
        expected = np.linalg.lstsq(above, np.vstack([clap - clap.mean(0), np.zeros((DIM, DIM))]), rcond=None)[0].T
        np.testing.assert_allclose(closed_form.ridge(total, around, penalty).weight, expected, atol=1e-4)


def test_the_held_out_pairs_choose_the_penalty(tmp_path: Path) -> None:
    """With hardly more pairs than dimensions and noise, the least penalty is not the best."""
    draw = np.random.default_rng(0)
    rows = make_rows(40, dim=DIM)
    for row in rows:
        row["clap"] = row["clap"] + draw.standard_normal(DIM).astype(np.float32)
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", rows), held_out=0.4)
    found, facts = closed_form.fit("ridge", [pairs])
    assert facts["penalty"] > min(closed_form.PENALTIES)
    around = closed_form.means([pairs])
    held = pairs.held_out_pairs()
    scores = [
        F.cosine_similarity(one(held.clip, held.kind), held.clap).mean()
        for one in (closed_form.ridge(closed_form.sums([pairs], around), around, p) for p in closed_form.PENALTIES)
    ]
    assert F.cosine_similarity(found(held.clip, held.kind), held.clap).mean() == max(scores)


def test_pictures_without_captions_give_the_mean_of_images(tmp_path: Path) -> None:
    alone = make_rows(50, "p", "image", seed=4, paired=False)
    texts = write_shard(tmp_path / "t.parquet", make_rows(100))
    pictures = write_shard(tmp_path / "p.parquet", alone, "wit", clap_space=None)
    sources = [read_pairs(texts), read_pairs(pictures)]
    found, facts = closed_form.fit("procrustes", sources)
    assert (facts["texts"], facts["images"]) == (sources[0].train, 50)
    expected = np.mean([row["clip"] / np.linalg.norm(row["clip"]) for row in alone], axis=0)
    np.testing.assert_allclose(found.clip_means[1], expected, atol=1e-6)
    one, facts = closed_form.fit("procrustes", sources[:1])
    assert "no images in the data" in facts["note"] and torch.equal(one.clip_means[0], one.clip_means[1])
    with pytest.raises(InputError, match="no pairs to learn from"):
        closed_form.fit("ridge", sources[1:])


@pytest.mark.parametrize("half", [False, True])
def test_a_linear_translator_in_a_file(tmp_path: Path, half: bool) -> None:
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", make_rows(100)))
    found, _ = closed_form.fit("ridge", [pairs])
    save_translator(tmp_path / "x.safetensors", found, SPACES, torch.float16 if half else torch.float32)
    loaded = load_translator(tmp_path / "x.safetensors")
    assert type(loaded) is LinearTranslator and loaded.dim == DIM and loaded.metadata == SPACES
    clip = torch.randn(5, DIM)
    for kind in ("text", "image"):
        torch.testing.assert_close(loaded(clip, kind), found(clip, kind), atol=3e-3 if half else 0, rtol=0)
    torch.testing.assert_close(loaded(clip).norm(dim=-1), torch.ones(5))


# The memory

CAPTIONS = ["a dog barks", 'she said "hush",\nand it was', "la pluie sur le toit ☔", "don't\t\\ {stop}", "\U0001f600"]


@pytest.fixture
def bank() -> Memory:
    torch.manual_seed(0)
    return Memory(torch.randn(5, DIM) * 4, torch.randn(5, DIM), CAPTIONS, sharpness=6)


def test_weights_are_those_of_the_formula(bank: Memory) -> None:
    clip = torch.randn(7, DIM) * 3
    cosines = np.array([[float(F.cosine_similarity(c, b, dim=0)) for b in bank.clip] for c in clip])
    scores = (cosines - cosines.mean(1, keepdims=True)) / cosines.std(1, ddof=1, keepdims=True)
    expected = np.exp(6 * scores) / np.exp(6 * scores).sum(1, keepdims=True)
    np.testing.assert_allclose(bank.weights(clip), expected, atol=1e-5)
    torch.testing.assert_close(bank.weights(clip).sum(-1), torch.ones(7))
    np.testing.assert_allclose(bank(clip), F.normalize(torch.tensor(expected).float() @ bank.clap), atol=1e-5)
    assert torch.equal(bank(clip, "text"), bank(clip, "image"))


def test_the_nearest_caption_counts_most(bank: Memory) -> None:
    for row, caption in enumerate(CAPTIONS):
        leaned = bank.leaned_on(bank.clip[row])
        assert leaned[0][0] == caption and leaned[0][1] > 0.9
        assert [w for _, w in leaned] == sorted((w for _, w in leaned), reverse=True)
        assert sum(w for _, w in leaned) == pytest.approx(1) and len(leaned) == 5
        assert F.cosine_similarity(bank(bank.clip[row : row + 1])[0], bank.clap[row], dim=0) > 0.9
    assert bank.leaned_on(bank.clip[:1], 2) == bank.leaned_on(bank.clip[0])[:2]


def test_it_is_indifferent_to_what_all_cosines_share(bank: Memory) -> None:
    """A picture's vector has a part that points away from all texts: the modality gap."""
    clip = F.normalize(torch.randn(3, DIM))
    normal = torch.linalg.svd(bank.clip, full_matrices=True)[2][-1]  # at right angles to all captions
    torch.testing.assert_close(bank.weights(clip), bank.weights(clip + 5 * normal), atol=1e-4, rtol=0)


def test_two_captions_or_more() -> None:
    for clips, claps, captions in ((1, 1, 1), (3, 2, 3), (3, 3, 2)):
        with pytest.raises(ValueError, match="two captions or more"):
            Memory(torch.ones(clips, DIM), torch.ones(claps, DIM), CAPTIONS[:captions])
    same = Memory(torch.ones(2, DIM), torch.eye(2, DIM), CAPTIONS[:2])
    assert same.weights(torch.randn(1, DIM)).tolist() == [[0.5, 0.5]], "captions that CLIP cannot tell apart"


def test_a_memory_in_a_file(bank: Memory, tmp_path: Path) -> None:
    path = tmp_path / "memory.safetensors"
    save_translator(path, bank, {**SPACES, **bank.facts()})
    loaded, clip = load_translator(path), torch.randn(4, DIM)
    assert type(loaded) is Memory and loaded.captions == CAPTIONS and loaded.sharpness == bank.sharpness
    torch.testing.assert_close(loaded(clip), bank(clip))
    assert [caption for caption, _ in loaded.leaned_on(clip[:1])] == [c for c, _ in bank.leaned_on(clip[:1])]
    assert loaded.metadata["clip_space"] == CLIP


@pytest.mark.parametrize(
    "change",
    [{"captions": None}, {"captions": "[]"}, {"captions": "{"}, {"captions": '["one", "two"]'}, {"captions": "7"},
     {"sharpness": "blunt"}, {"sharpness": None}, {"sharpness": "nan"}],
)  # fmt: skip
def test_a_memory_whose_captions_are_spoilt(bank: Memory, tmp_path: Path, change: dict) -> None:
    facts = {key: value for key, value in {**SPACES, **bank.facts(), **change}.items() if value is not None}
    save_file(bank.state_dict(), tmp_path / "x.safetensors", facts)
    with pytest.raises(InputError, match="x.safetensors is not a translator: its tensors or captions do not fit"):
        load_translator(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "state",
    [{"weight": (4, 4), "clap_mean": (), "clip_means": (2, 4)},
     {"weight": (4, 3), "clap_mean": (4,), "clip_means": (2, 4)},
     {"weight": (4, 4), "clap_mean": (4,), "clip_means": (4,)}, {"clip": (), "clap": ()}, {"clip": (5,), "clap": (5,)},
     {"clip": (5, 4), "clap": (5,)}, {"clip": (5, 4), "clap": (5, 3)}, {"clip": (5, 4), "clap": (4, 4)},
     {"clip": (5, 0), "clap": (5, 0)}],
)  # fmt: skip
def test_tensors_that_do_not_fit(tmp_path: Path, state: dict) -> None:
    tensors = {name: torch.ones(shape) for name, shape in state.items()}
    save_file(tensors, tmp_path / "x.safetensors", {"captions": json.dumps(CAPTIONS), "sharpness": "6"})
    with pytest.raises(InputError, match="x.safetensors is not a translator: its tensors or captions do not fit"):
        load_translator(tmp_path / "x.safetensors")


def test_a_memory_is_drawn_from_captions(tmp_path: Path) -> None:
    rows, pictures = make_rows(200), make_rows(50, "p", "image", seed=1)
    rows[5]["caption"] = None
    rows[7]["caption"], rows[8]["caption"] = "THE SAME", "the same"
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", rows + pictures), held_out=0.2)
    drawn = memory.draw([pairs], 30, seed=1)
    assert len(drawn.captions) == len(set(drawn.captions)) == 30
    assert memory.draw([pairs], 30, seed=1).captions == drawn.captions != memory.draw([pairs], 30, seed=2).captions
    by_caption = {row["caption"]: row for row in rows}
    for caption, clip, clap in zip(drawn.captions, drawn.clip, drawn.clap, strict=True):
        np.testing.assert_allclose(clip, F.normalize(torch.tensor(by_caption[caption]["clip"]), dim=0), atol=1e-6)
        np.testing.assert_allclose(clap, by_caption[caption]["clap"], atol=1e-6)
    every = memory.draw([pairs], 10_000).captions
    held = {clip.numpy().tobytes() for buffer in pairs.buffers(HELD_OUT) for clip in buffer.clip}
    expected = {r["caption"].casefold() for r in rows if r["caption"] and r["clip"].tobytes() not in held}
    assert {caption.casefold() for caption in every} == expected


@pytest.mark.parametrize("size", [1, 0, -3])
def test_a_memory_that_is_too_small(tmp_path: Path, size: int) -> None:
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", make_rows(40)))
    with pytest.raises(InputError, match="a memory needs at least two different captions"):
        memory.draw([pairs], size)


def test_pictures_are_no_captions(tmp_path: Path) -> None:
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", make_rows(40, kind="image")))
    with pytest.raises(InputError, match="embedded by CLIP's text tower"):
        memory.draw([pairs], 10)
