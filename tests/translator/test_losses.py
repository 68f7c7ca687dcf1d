"""The three losses by hand and by formula, and what the names of translators stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from translator import InputError, settings
from translator.settings import EIGHTEEN, Settings, parse, trainable
from translator.training import losses


def vectors(count: int, dim: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    return F.normalize(torch.randn(count, dim, generator=draw)), torch.randn(count, dim, generator=draw) * 3


# Losses


def test_losses_by_hand() -> None:
    ours = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    true = torch.tensor([[0.0, 5.0], [1.0, 0.0]])  # the first is not of unit length
    assert losses.cos(ours, true).item() == pytest.approx(((1 - 0) + (1 - 0.6)) / 2)
    assert losses.mse(ours, true).item() == pytest.approx((1 + 1 + 0.4**2 + 0.8**2) / 4)
    assert losses.cos(ours, -ours).item() == pytest.approx(2)
    for loss in (losses.cos, losses.mse):
        assert loss(ours, ours).item() == pytest.approx(0, abs=1e-6)


def test_nt_xent_of_two_pairs_by_hand() -> None:
    """Partners are one, all others at right angles: each of the four tells exp(2) from exp(2) + 1 + 1."""
    ours = torch.eye(2)
    assert losses.cl(ours, ours * 7).item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)), rel=1e-6)
    assert losses.cl(ours, ours.flip(0)).item() == pytest.approx(-math.log(1 / (math.exp(2) + 2)), rel=1e-6)


def nt_xent(ours: np.ndarray, true: np.ndarray, temperature: float) -> float:
    """Loop by loop, as the paper's equation has it."""
    z = [v / math.sqrt(sum(x * x for x in v)) for v in [*ours, *true]]
    count, total = len(ours), 0.0
    for i in range(2 * count):
        j = i + count if i < count else i - count
        others = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * count) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[j]) / temperature) / others)
    return total / (2 * count)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("temperature", [0.5, 0.07])
def test_nt_xent_is_the_formula(count: int, temperature: float) -> None:
    ours, true = vectors(count)
    ours.requires_grad_()
    loss = losses.cl(ours, true, temperature)
    expected = nt_xent(ours.detach().double().numpy(), true.double().numpy(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    loss.backward()
    assert ours.grad.isfinite().all() and (count == 1) == (not ours.grad.any())


def test_nt_xent_has_the_thesis_temperature() -> None:
    assert losses.cl(*vectors(5)) == losses.cl(*vectors(5), temperature=0.5)


def test_mse_is_cos_on_another_scale() -> None:
    ours, true = vectors(9, dim=32)
    assert losses.mse(ours, true).item() == pytest.approx(losses.cos(ours, true).item() * 2 / 32, rel=1e-5)


# Names


def test_the_eighteen_have_the_thesis_settings() -> None:
    assert len(EIGHTEEN) == len(set(EIGHTEEN)) == 18
    for name in EIGHTEEN:
        data, loss, hidden = name.rsplit("_", 2)
        sources = ("audiocaps", "wit") if data == "audiocaps_wit" else (data,)
        exception = data == "audiocaps_wit" and loss == "cl"
        lr, epochs, dropout = (2e-3, 60, 0.5) if exception else (1e-3, 50, 0.0)
        assert parse(name) == Settings(name, sources, loss, int(hidden), lr=lr, epochs=epochs, dropout=dropout)
        assert parse(name).checked().batch == 64 and parse(name).temperature == 0.5 and trainable(name)


@pytest.mark.parametrize(
    "name, noise, centred",
    [
        ("wit_cos_512", 0, False), ("wit_cos_512_noise", 1, False), ("wit_cos_512_centred", 0, True),
        ("wit_cos_512_noise_centred", 1, True),
    ],
)  # fmt: skip
def test_variants(name: str, noise: float, centred: bool) -> None:
    found = parse(name)
    assert (found.noise, found.centred) == (noise, centred)
    assert (found.name, found.sources, found.loss, found.hidden) == (name, ("wit",), "cos", 512)


def test_other_sources_and_widths() -> None:
    known = ("conceptual_captions", "wit", "wit_base", "audiocaps")
    assert parse("conceptual_captions_cl_64", known).sources == ("conceptual_captions",)
    assert parse("wit_conceptual_captions_mse_1024", known).sources == ("wit", "conceptual_captions")
    assert parse("wit_base_cos_512", known).sources == ("wit_base",)
    three = parse("wit_wit_base_audiocaps_cl_8_noise", known)
    assert three.sources == ("wit", "wit_base", "audiocaps") and three.lr == 2e-3 and three.noise == 1


@pytest.mark.parametrize(
    "name",
    ["", "wit", "wit_cos", "wit_512", "wit_cos_0", "wit_cos_-1", "wit_cos_99999999", "wit_cos_5.5", "wit_l1_512",
     "wit_COS_512", "_cos_512", "wit__cos_512", "wit_wit_cos_512", "clotho_cos_512", "wit_cos_512_noisy",
     "wit_cos_512_", "../wit_cos_512", "wit/_cos_512", "audiocaps wit_cos_512", "wit_cos_512_noise_noise",
     "wit_cos_512_centred_noise", "wit_cos_" + "9" * 5000, "wit_cos_\u0665"],
)  # fmt: skip
def test_nonsense_is_no_name(name: str) -> None:
    with pytest.raises(InputError, match="not the name of a trainable translator.*audiocaps, wit.*ridge"):
        parse(name)
    assert not trainable(name)


def test_closed_forms_and_memory_are_trainable() -> None:
    assert all(map(trainable, (*settings.CLOSED_FORM, settings.MEMORY)))


@pytest.mark.parametrize(
    "setting, bad",
    [("lr", 0), ("lr", math.nan), ("lr", math.inf), ("epochs", 0), ("batch", 0), ("dropout", 1), ("dropout", -0.1),
     ("temperature", 0), ("noise", -1), ("noise", math.inf), ("patience", -1), ("gain", 1), ("held_out", 0),
     ("held_out", 1), ("hidden", 0), ("hidden", 10**6), ("seed", -1), ("seed", 2**63)],
)  # fmt: skip
def test_settings_out_of_range(setting: str, bad: float) -> None:
    with pytest.raises(InputError, match=f"^{setting} must be .*, not "):
        Settings(**{"name": "x", "sources": ("wit",), "loss": "cos", "hidden": 8, setting: bad}).checked()
