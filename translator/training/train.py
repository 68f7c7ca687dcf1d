"""Train translators: several at once on one stream of pairs, each as it would be alone; resumable, the best kept."""

from __future__ import annotations

import csv
import io
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import InputError
from ..model import Translator, centred, write
from ..settings import Settings
from ..shards.pairs import Batch, Pairs
from . import closed_form, losses, record
from .mix import Mix

Report = Callable[[str], None]
TURN = 32  # batches that a job takes before another one has its turn


@dataclass
class Job:
    """One translator being trained."""

    settings: Settings
    network: Translator
    optimizer: torch.optim.Optimizer
    untrained: float = math.inf  # held-out loss before the first epoch
    history: list[dict[str, float]] = field(default_factory=list)  # one row for each epoch
    best: dict[str, Tensor] = field(default_factory=dict)
    noise: torch.Generator | None = None  # of the epoch

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose held-out loss was least; 0 before the first."""
        return min(range(self.epoch), key=lambda i: self.history[i]["held_out_loss"], default=-1) + 1

    @property
    def done(self) -> bool:
        """After all epochs, or when the held-out loss has not fallen by ``gain`` for ``patience`` of them.

        ``gain`` is a share of the whole fall until then, as the losses have other floors: the contrastive one ends far
        above 0.
        """
        reference, gained = self.untrained, 0
        for row in self.history:
            if row["held_out_loss"] < reference - self.settings.gain * (self.untrained - reference):
                reference, gained = row["held_out_loss"], row["epoch"]
        patience = self.settings.patience
        return self.epoch >= self.settings.epochs or bool(patience and self.epoch - gained >= patience)


def train(
    wanted: Sequence[Settings],
    sources: dict[str, Pairs],
    out: Path,
    *,
    device: str = "cpu",
    half: bool = False,
    report: Report = print,
) -> list[Path]:
    """Train ``wanted``; write <name>.safetensors, .json, .csv and .png of each into ``out``, and return the first ones.

    Translators of the same data share one pass over it. What is finished in ``out`` is left as it is, and what was
    interrupted goes on after its last epoch. ``sources``: the pairs by name. ``half``: 16-bit numbers in the files.
    ``report`` takes lines for people. Raises InputError: data lack, or ``out`` holds the same name made otherwise.
    """
    facts = record.data_facts(sources)
    todo = [settings for settings in wanted if not _finished(settings, facts, out)]
    for settings in wanted:
        if settings not in todo:
            _state_path(settings, out).unlink(missing_ok=True)  # where it was killed at its very end
            report(f"{settings.name}: already in {out}")
    groups: dict[tuple[Any, ...], list[Settings]] = {}
    for settings in todo:
        groups.setdefault((settings.sources, settings.weights, settings.batch, settings.seed), []).append(settings)
    mixes = {key: Mix([sources[name] for name in key[0]], key[1], key[2], key[3]) for key in groups}
    centring = any(settings.centred for settings in todo)  # pictures of any source say where CLIP's pictures lie
    found = closed_form.means(list(sources.values())) if centring else None
    if found and not found.images:
        raise InputError("centred translators take pictures, with captions or without, to learn where these lie")
    clip_means = found.clip if found else None
    for key, group in groups.items():
        _train_group(group, mixes[key], clip_means, facts, out, device, half, report)
    return [out / f"{settings.name}.safetensors" for settings in wanted]


def _train_group(
    group: list[Settings],
    mix: Mix,
    clip_means: Tensor | None,
    facts: dict[str, Any],
    out: Path,
    device: str,
    half: bool,
    report: Report,
) -> None:
    """Train translators that share their batches, epoch by epoch."""
    held_out = Batch(*(column.to(device) for column in mix.held_out_pairs()))
    jobs = [_begin(settings, held_out, clip_means, facts, out, device) for settings in group]
    constant = closed_form.constant_cosine(mix, held_out)
    title, began, finished = "+".join(group[0].sources), time.monotonic(), 0
    while active := [job for job in jobs if not job.done]:
        number = min(job.epoch for job in active)
        learning = [job for job in active if job.epoch == number]
        started = time.monotonic()
        _epoch(learning, mix, number, device, held_out)
        for job in learning:
            _save_state(job, facts, out)
        seconds = time.monotonic() - started
        finished += 1
        ahead = max(job.settings.epochs for job in active) - number - 1
        cosine = max(job.history[-1]["held_out_cosine"] for job in learning)
        report(
            f"{title}: epoch {number + 1}, {len(learning)} of {len(jobs)} learning, held-out cosine up to {cosine:.4f} "
            f"(constant {constant:.4f}), {mix.pairs * len(learning) / seconds:,.0f} pairs/s, "
            f"at most {_clock(ahead * (time.monotonic() - began) / finished)} left"
        )
        for job in learning:
            if job.done:
                _finish(job, facts, constant, out, half)
                report(f"{job.settings.name}: best epoch {job.best_epoch}, {out / job.settings.name}.safetensors")
    for job in jobs:
        if _state_path(job.settings, out).exists():  # interrupted between its last epoch and its end
            _finish(job, facts, constant, out, half)


def _begin(
    settings: Settings,
    held_out: Batch,
    clip_means: Tensor | None,
    facts: dict[str, Any],
    out: Path,
    device: str,
) -> Job:
    """A job as new, or as its last epoch left it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Translator(
            settings.hidden,
            held_out.clip.shape[1],
            settings.dropout,
            clip_means.clone() if settings.centred and clip_means is not None else None,
        ).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)
    job, path = Job(settings, network.eval(), optimizer), _state_path(settings, out)
    job.untrained = judge(job, held_out)["held_out_loss"]
    if path.exists():
        try:
            state = torch.load(path, weights_only=True, map_location=device)
            same = state["made_of"] == record.made_of(settings, facts)
        except Exception:
            raise InputError(f"{path}, the state of an interrupted training, is damaged; delete it") from None
        if not same:
            raise InputError(
                f"an interrupted training of {settings.name} with other settings or data lies in {out}; "
                f"delete {path.name} there, or choose another folder"
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        job.history, job.best = state["history"], state["best"]
    return job


def _epoch(jobs: list[Job], mix: Mix, number: int, device: str, held_out: Batch) -> None:
    """One pass over the training pairs for all ``jobs``; adds a row to the history of each.

    On CPUs each job has a thread of its own, which is half as fast again as all threads on one job after the other; and
    its sums are the same on any number of cores.
    """
    for job in jobs:
        job.network.train()
        job.network.generator = torch.Generator(device).manual_seed(_seed(job.settings, number, "dropout"))
        job.noise = torch.Generator(device).manual_seed(_seed(job.settings, number, "noise"))
    totals, steps, started = torch.zeros(len(jobs), device=device), 0, time.monotonic()
    batches = mix.epoch(number)
    with _a_thread_each(device) as share:
        while lot := [Batch(*(c.to(device, non_blocking=True) for c in batch)) for batch in islice(batches, TURN)]:
            totals += torch.stack(list(share(lambda job, lot=lot: _steps(job, lot), jobs)))
            steps += len(lot)
    seconds = time.monotonic() - started
    for job, total in zip(jobs, totals.tolist(), strict=True):
        job.network.eval()
        row = {"epoch": number + 1, "train_loss": total / steps, **judge(job, held_out)}
        if not all(map(math.isfinite, row.values())):
            raise InputError(f"the training of {job.settings.name} came to numbers that are not finite")
        job.history.append({**row, "seconds": round(seconds / len(jobs), 2)})
        if job.best_epoch == job.epoch:
            job.best = {name: tensor.detach().clone() for name, tensor in job.network.state_dict().items()}


@contextmanager
def _a_thread_each(device: str) -> Iterator[Callable[..., Iterable[Tensor]]]:
    """A ``map`` over as many threads as torch may use, of which each then uses one; the usual ``map`` on a GPU."""
    if device != "cpu":
        yield map
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def _steps(job: Job, batches: Sequence[Batch]) -> Tensor:
    """A step for each batch; the sum of their losses."""
    total = torch.zeros((), device=batches[0].clip.device)
    for batch in batches:
        loss = batch_loss(job, batch, job.noise)
        job.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        job.optimizer.step()
        total += loss.detach()
    return total


def batch_loss(job: Job, batch: Batch, noise: torch.Generator | None = None) -> Tensor:
    """The loss of one batch, with noise on the unit inputs where the settings say so."""
    settings, network = job.settings, job.network
    x = centred(batch.clip, network.clip_means, batch.kind)
    if settings.noise:  # of a random length, in a random direction
        length = settings.noise * torch.rand(len(x), 1, generator=noise, device=x.device) / x.shape[1] ** 0.5
        x = F.normalize(x + length * torch.randn(x.shape, generator=noise, device=x.device), dim=-1)
    return _loss(settings, network.layers(x), batch.clap)


def _loss(settings: Settings, ours: Tensor, true: Tensor) -> Tensor:
    if settings.loss == "cl":
        return losses.cl(ours, true, settings.temperature)
    return {"mse": losses.mse, "cos": losses.cos}[settings.loss](ours, true)


@torch.no_grad()
def judge(job: Job, held_out: Batch) -> dict[str, float]:
    """held_out_loss, in batches of the training's size as the contrastive loss depends on it; held_out_cosine."""
    parts = zip(held_out.clip.split(1024), held_out.kind.split(1024), strict=True)
    ours = torch.cat([job.network(clip, kind) for clip, kind in parts])
    size = job.settings.batch
    chunks = list(zip(ours.split(size), held_out.clap.split(size), strict=True))
    loss = sum(_loss(job.settings, a, b).item() * len(a) for a, b in chunks) / len(ours)
    return {"held_out_loss": loss, "held_out_cosine": F.cosine_similarity(ours, held_out.clap).mean().item()}


def _finish(job: Job, facts: dict[str, Any], constant: float, out: Path, half: bool) -> None:
    from .curves import loss_curves

    settings, row = job.settings, job.history[job.best_epoch - 1]
    job.network.load_state_dict(job.best)
    metrics = {
        "best_epoch": job.best_epoch,
        "epochs": job.epoch,
        **{key: round(row[key], 5) for key in ("train_loss", "held_out_loss", "held_out_cosine")},
        "constant_cosine": round(constant, 5),
        "seconds": round(sum(row["seconds"] for row in job.history), 1),
    }
    table = io.StringIO()
    writer = csv.DictWriter(table, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(job.history)
    write(out / f"{settings.name}.csv", table.getvalue().encode())
    write(out / f"{settings.name}.png", loss_curves(settings.name, job.history, job.best_epoch))
    record.save(
        job.network, settings.name, "network", {**record.made_of(settings, facts), "metrics": metrics}, out, half
    )
    _state_path(settings, out).unlink(missing_ok=True)


def _finished(settings: Settings, facts: dict[str, Any], out: Path) -> bool:
    """Whether ``out`` has it. Raises InputError if it has another one of that name."""
    return record.there(out / f"{settings.name}.safetensors", record.made_of(settings, facts))


def _state_path(settings: Settings, out: Path) -> Path:
    return out / f".{settings.name}.state"


def _save_state(job: Job, facts: dict[str, Any], out: Path) -> None:
    state = {
        "made_of": record.made_of(job.settings, facts), "network": job.network.state_dict(),
        "optimizer": job.optimizer.state_dict(), "history": job.history, "best": job.best,
    }  # fmt: skip
    content = io.BytesIO()
    torch.save(state, content)
    write(_state_path(job.settings, out), content.getvalue())


def _seed(settings: Settings, epoch: int, what: str) -> int:
    """So that a translator is the same alone or beside others, interrupted or not."""
    return zlib.crc32(f"{settings.seed} {epoch} {settings.name} {what}".encode())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
