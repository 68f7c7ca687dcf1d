"""A translator in training: its network, optimiser and history, and its state on disk."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import InputError
from ..files import write
from ..model import Translator, centred
from ..settings import Settings
from ..shards.pairs import Batch
from . import losses, record


@dataclass
class Job:
    """One translator being trained."""

    settings: Settings
    network: Translator
    optimizer: torch.optim.Optimizer
    untrained: float = math.inf  # held-out loss before the first epoch
    history: list[dict[str, float]] = field(default_factory=list)  # one row for each epoch
    best: dict[str, Tensor] = field(default_factory=dict)
    noise: torch.Generator | None = None  # for the epoch's noise

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the smallest held-out loss; 0 before the first."""
        return min(range(self.epoch), key=lambda i: self.history[i]["held_out_loss"], default=-1) + 1

    @property
    def done(self) -> bool:
        """Whether all epochs have passed, or ``patience`` epochs without an improvement by ``gain``.

        ``gain`` is a share of the whole decrease so far, because the losses have different floors: the contrastive
        loss ends far above 0.
        """
        reference, gained = self.untrained, 0
        for row in self.history:
            if row["held_out_loss"] < reference - self.settings.gain * (self.untrained - reference):
                reference, gained = row["held_out_loss"], row["epoch"]
        patience = self.settings.patience
        return self.epoch >= self.settings.epochs or bool(patience and self.epoch - gained >= patience)


def begin(
    settings: Settings, held_out: Batch, clip_means: Tensor | None, facts: dict[str, Any], out: Path, device: str
) -> Job:
    """Make a new job, or resume one after its last epoch. Raises InputError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Translator(
            settings.hidden,
            held_out.clip.shape[1],
            settings.dropout,
            clip_means.clone() if settings.centred and clip_means is not None else None,
        ).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)
    job, path = Job(settings, network.eval(), optimizer), state_path(settings, out)
    job.untrained = judge(job, held_out)["held_out_loss"]
    if path.exists():
        try:
            state = torch.load(path, weights_only=True, map_location=device)
            same = record.matches(state["made_of"], record.made_of(settings, facts))
        except Exception:
            raise InputError(f"{path}, the state of an interrupted training, is damaged; delete it") from None
        if not same:
            raise InputError(
                f"{out} has an interrupted training of {settings.name} with other settings or data; "
                f"delete {path.name} there, or choose another folder"
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        job.history, job.best = state["history"], state["best"]
    return job


def save_state(job: Job, facts: dict[str, Any], out: Path) -> None:
    """Write everything that ``begin`` needs to resume."""
    state = {
        "made_of": record.made_of(job.settings, facts), "network": job.network.state_dict(),
        "optimizer": job.optimizer.state_dict(), "history": job.history, "best": job.best,
    }  # fmt: skip
    content = io.BytesIO()
    torch.save(state, content)
    write(state_path(job.settings, out), content.getvalue())


def state_path(settings: Settings, out: Path) -> Path:
    """The file of an interrupted training."""
    return out / f".{settings.name}.state"


def epochs_done(settings: Settings, out: Path) -> int:
    """How many epochs of an interrupted training are done, as far as its state can be read."""
    try:
        return len(torch.load(state_path(settings, out), weights_only=True, map_location="cpu")["history"])
    except Exception:  # no file, or a damaged one: ``begin`` says so
        return 0


def draw_seed(settings: Settings, epoch: int, what: str) -> int:
    """A seed that makes a translator the same alone or beside others, interrupted or not."""
    return zlib.crc32(f"{settings.seed} {epoch} {settings.name} {what}".encode())


def take_steps(job: Job, batches: Sequence[Batch]) -> Tensor:
    """Take an optimiser step for each batch; returns the sum of their losses."""
    total = torch.zeros((), device=batches[0].clip.device)
    for batch in batches:
        loss = batch_loss(job, batch, job.noise)
        job.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        job.optimizer.step()
        total += loss.detach()
    return total


def batch_loss(job: Job, batch: Batch, noise: torch.Generator | None = None) -> Tensor:
    """The loss of one batch, with noise on the unit inputs if the settings ask for it."""
    settings, network = job.settings, job.network
    x = centred(batch.clip, network.clip_means, batch.kind)
    if settings.noise:  # random length, random direction
        length = settings.noise * torch.rand(len(x), 1, generator=noise, device=x.device) / x.shape[1] ** 0.5
        x = F.normalize(x + length * torch.randn(x.shape, generator=noise, device=x.device), dim=-1)
    return _loss(settings, network.layers(x), batch.clap)


def _loss(settings: Settings, ours: Tensor, true: Tensor) -> Tensor:
    if settings.loss == "cl":
        return losses.cl(ours, true, settings.temperature)
    return {"mse": losses.mse, "cos": losses.cos}[settings.loss](ours, true)


@torch.no_grad()
def judge(job: Job, held_out: Batch) -> dict[str, float]:
    """held_out_loss and held_out_cosine; in batches of the training's size, on which the contrastive loss depends."""
    parts = zip(held_out.clip.split(1024), held_out.kind.split(1024), strict=True)
    ours = torch.cat([job.network(clip, kind) for clip, kind in parts])
    size = job.settings.batch
    chunks = list(zip(ours.split(size), held_out.clap.split(size), strict=True))
    loss = sum(_loss(job.settings, a, b).item() * len(a) for a, b in chunks) / len(ours)
    return {"held_out_loss": loss, "held_out_cosine": F.cosine_similarity(ours, held_out.clap).mean().item()}
