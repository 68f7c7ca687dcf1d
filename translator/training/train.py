"""Train several translators on one stream of pairs, each with the same result as alone; interruptions are resumed."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .. import InputError
from ..files import write
from ..model import Translator
from ..settings import Settings
from ..shards.pairs import Batch, Pairs
from . import closed_form, record
from .curves import loss_curves
from .job import Job, begin, draw_seed, epochs_done, judge, save_state, state_path, take_steps
from .mix import Mix

Report = Callable[[str], None]
Share = Callable[[float], object]  # is told the share that is done of what was left at the beginning, 0 to 1
TURN = 32  # batches that a job takes in one turn
USUAL_EPOCHS = 15  # before the training stops; 10 to 20 of the starter's


def train(
    wanted: Sequence[Settings],
    sources: dict[str, Pairs],
    out: Path,
    *,
    device: str = "cpu",
    half: bool = False,
    report: Report = print,
    on_share: Share = lambda share: None,
) -> list[Path]:
    """Train translators; write <name>.safetensors, .json, .csv and .png for each, and return the first of these.

    Translators of the same data share one pass over it. Finished translators in ``out`` are left as they are;
    interrupted trainings resume after their last epoch.

    Args:
        wanted: settings of the translators.
        sources: the pairs by name.
        out: the folder.
        device: "cpu" or "cuda".
        half: whether to save 16-bit numbers.
        report: called with lines for people.
        on_share: called after each epoch.

    Raises InputError: data are missing, or ``out`` has a translator of the same name made with other settings.
    """
    facts = record.data_facts(sources)
    todo = [settings for settings in wanted if not _finished(settings, facts, out)]
    for settings in wanted:
        if settings not in todo:
            state_path(settings, out).unlink(missing_ok=True)  # left if it was killed at its very end
            report(f"{settings.name}: already in {out}")
    groups: dict[tuple[Any, ...], list[Settings]] = {}
    for settings in todo:
        groups.setdefault((settings.sources, settings.weights, settings.batch, settings.seed), []).append(settings)
    mixes = {key: Mix([sources[name] for name in key[0]], key[1], key[2], key[3]) for key in groups}
    centring = any(settings.centred for settings in todo)  # the pictures of all sources count for the means
    found = closed_form.means(list(sources.values())) if centring else None
    if found and not found.images:
        raise InputError("centred translators require pictures in the data, with or without captions, for their mean")
    clip_means = found.clip if found else None
    done = 0
    for key, group in groups.items():

        def on_epochs(epochs: float, done: int = done) -> None:
            on_share((done + epochs) / len(todo))

        _train_group(group, mixes[key], clip_means, facts, out, device, half, report, on_epochs)
        done += len(group)
        on_share(done / len(todo))
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
    on_epochs: Share,
) -> None:
    """Train translators that share their batches, epoch by epoch; ``on_epochs`` is told how many of them are done."""
    held_out = Batch(*(column.to(device) for column in mix.held_out_pairs()))
    jobs = [begin(settings, held_out, clip_means, facts, out, device) for settings in group]
    constant = closed_form.constant_cosine(mix, held_out)
    title, began, finished = "+".join(group[0].sources), time.monotonic(), 0
    before = [job.epoch for job in jobs]
    while active := [job for job in jobs if not job.done]:
        number = min(job.epoch for job in active)
        learning = [job for job in active if job.epoch == number]
        started = time.monotonic()
        _epoch(learning, mix, number, device, held_out)
        for job in learning:
            save_state(job, facts, out)
        seconds = time.monotonic() - started
        finished += 1
        ahead = max(job.settings.epochs for job in active) - number - 1
        cosine = max(job.history[-1]["held_out_cosine"] for job in learning)
        report(
            f"{title}: epoch {number + 1}, {len(learning)} of {len(jobs)} learning, held-out cosine up to {cosine:.4f} "
            f"(constant {constant:.4f}), {mix.pairs * len(learning) / seconds:,.0f} pairs/s, "
            f"at most {tqdm.format_interval(ahead * (time.monotonic() - began) / finished)} left"
        )
        on_epochs(sum(map(_share_done, jobs, before)))
        for job in learning:
            if job.done:
                _finish(job, facts, constant, out, half)
                report(f"{job.settings.name}: best epoch {job.best_epoch}, {out / job.settings.name}.safetensors")
    for job in jobs:
        if state_path(job.settings, out).exists():  # interrupted between its last epoch and its end
            _finish(job, facts, constant, out, half)


def _share_done(job: Job, before: int) -> float:
    """About how much is done of what was left of ``job`` after ``before`` epochs."""
    return 1.0 if job.done else min(0.95, (job.epoch - before) / max(1, USUAL_EPOCHS - before))


def _epoch(jobs: list[Job], mix: Mix, number: int, device: str, held_out: Batch) -> None:
    """Train all ``jobs`` on one pass over the pairs, and add a row to the history of each.

    On CPUs each job has one thread. That is 1.5 times as fast as all threads on one job after the other, and the sums
    are the same on any number of cores.
    """
    for job in jobs:
        job.network.train()
        job.network.generator = torch.Generator(device).manual_seed(draw_seed(job.settings, number, "dropout"))
        job.noise = torch.Generator(device).manual_seed(draw_seed(job.settings, number, "noise"))
    totals, steps, started = torch.zeros(len(jobs), device=device), 0, time.monotonic()
    batches = mix.epoch(number)
    with _one_thread_each(device) as share:
        while lot := [Batch(*(c.to(device, non_blocking=True) for c in batch)) for batch in islice(batches, TURN)]:
            totals += torch.stack(list(share(lambda job, lot=lot: take_steps(job, lot), jobs)))
            steps += len(lot)
    seconds = time.monotonic() - started
    for job, total in zip(jobs, totals.tolist(), strict=True):
        job.network.eval()
        row = {"epoch": number + 1, "train_loss": total / steps, **judge(job, held_out)}
        if not all(map(math.isfinite, row.values())):
            raise InputError(f"the training of {job.settings.name} diverged: its loss is not a finite number")
        job.history.append({**row, "seconds": round(seconds / len(jobs), 2)})
        if job.best_epoch == job.epoch:
            job.best = {name: tensor.detach().clone() for name, tensor in job.network.state_dict().items()}


def estimate(
    wanted: Sequence[Settings], pairs: Mapping[str, int], dim: int = 512, out: Path | None = None
) -> float:
    """About how many seconds the training of ``wanted`` takes here, from a few steps on random numbers.

    ``pairs``: the number of pairs by source. ``out``: the folder where trainings may have been interrupted.
    """
    threads, seconds = torch.get_num_threads(), 0.0
    speeds: dict[tuple[int, str, int], float] = {}
    for settings in wanted:
        kind = settings.hidden, settings.loss, settings.batch
        speeds[kind] = speeds.get(kind) or _seconds_per_pair(settings, dim)
        before = epochs_done(settings, out) if out else 0
        epochs = max(1, min(USUAL_EPOCHS, settings.epochs) - before)
        seconds += epochs * speeds[kind] * sum(pairs[source] for source in settings.sources)
    return seconds / max(1, min(threads, len(wanted)))


def _seconds_per_pair(settings: Settings, dim: int) -> float:
    network = Translator(settings.hidden, dim)
    job = Job(settings, network, torch.optim.Adam(network.parameters(), fused=True))
    clip, clap = torch.randn(2, settings.batch, dim)
    batch = Batch(clip, clap, torch.zeros(settings.batch, dtype=torch.int64))
    with _one_thread_each("cpu"):
        take_steps(job, [batch] * 2)
        began = time.perf_counter()
        take_steps(job, [batch] * TURN)
    return (time.perf_counter() - began) / (TURN * settings.batch)


@contextmanager
def _one_thread_each(device: str) -> Iterator[Callable[..., Iterable[Tensor]]]:
    """A ``map`` over as many threads as torch may use, each of which is limited to one; plain ``map`` on a GPU."""
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


def _finish(job: Job, facts: dict[str, Any], constant: float, out: Path, half: bool) -> None:
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
    state_path(settings, out).unlink(missing_ok=True)


def _finished(settings: Settings, facts: dict[str, Any], out: Path) -> bool:
    """Whether ``out`` has this translator. Raises InputError if it has another one of that name."""
    return record.is_finished(out / f"{settings.name}.safetensors", record.made_of(settings, facts))
