"""Guidance, and how far it is rescaled."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from audioldm.latent_diffusion.sampling import predictor


def unet(latents: torch.Tensor, timestep: torch.Tensor, *, encoder_hidden_states: None, class_labels: torch.Tensor):
    return SimpleNamespace(sample=latents * class_labels[:, :1, None, None])


@pytest.mark.parametrize("rescale, deviation", [(0.0, 5.0), (1.0, 2.0), (0.5, 3.5)])
def test_a_guided_prediction_is_brought_back_to_the_conditions_deviation(rescale: float, deviation: float) -> None:
    latents = torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = latents / latents.std((1, 2, 3), keepdim=True)
    condition, unconditional = torch.full((1, 512), 2.0), torch.full((1, 512), 1.0)
    predict = predictor(unet, condition, unconditional, 4.0, rescale=rescale)  # type: ignore[arg-type]
    predicted = predict(latents, torch.tensor(7))
    torch.testing.assert_close(predicted.std((1, 2, 3)), torch.full((3,), deviation))
    alone = predict(latents[1:2], torch.tensor(7))
    assert torch.equal(alone, predicted[1:2])
