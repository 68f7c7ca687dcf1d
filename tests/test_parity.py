"""What upstream computed, from the excerpt in tests/golden/: log-mel, resampling, DDIM, the noise of a transfer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audioldm.audio import log_mel, mel_filters, resample
from audioldm.convert.checkpoint import SCHEDULER
from audioldm.convert.verify import LATENTS, MEL, RESAMPLED, STEPS
from audioldm.latent_diffusion.sampling import add_noise, denoise, make_scheduler


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(Path(__file__).parent / "golden" / "parity.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def test_mel_filters(golden: dict[str, torch.Tensor]) -> None:
    assert difference(mel_filters(), golden["mel_basis"]) < 1e-8


def test_log_mel(golden: dict[str, torch.Tensor]) -> None:
    frames = golden["log_mel"].shape[2]
    assert difference(log_mel(golden["wave"])[:, 0, :frames].mT, golden["log_mel"]) < MEL


def test_resampling(golden: dict[str, torch.Tensor]) -> None:
    wanted = golden["resample_48k"]
    ours = torch.from_numpy(resample(golden["resample_16k"].numpy(), 16_000, 48_000))
    assert difference(ours[: len(wanted)], wanted) < RESAMPLED


def test_ddim_steps(golden: dict[str, torch.Tensor]) -> None:
    """A network that predicts what upstream's did leads through upstream's latents."""
    scheduler = make_scheduler(SCHEDULER, "ddim", len(golden["noise"]))
    assert scheduler.timesteps.tolist() == sorted(golden["timesteps"].tolist(), reverse=True)
    before = torch.cat([golden["x_T"][None], golden["x"][:-1]])
    trajectory: list[torch.Tensor] = []

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        step = len(trajectory)
        trajectory.append(latents)
        signal, noise = scheduler.level(step)
        return (before[step] - signal * golden["x0"][step]) / noise

    final = denoise(predict, scheduler, golden["x_T"], iter(golden["noise"]))
    assert difference(torch.stack([*trajectory, final]), torch.cat([before, golden["x"][-1:]])) < LATENTS


def test_the_noise_of_a_transfer(golden: dict[str, torch.Tensor]) -> None:
    scheduler = make_scheduler(SCHEDULER, "ddim", STEPS)
    index = STEPS - int(golden["t_enc"]) - scheduler.lag
    noisy = add_noise(scheduler, golden["init_latent"], index, iter(golden["encode_noise"][None]))
    assert difference(noisy, golden["z_enc"]) < LATENTS
