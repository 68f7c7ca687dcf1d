"""One training loop for every recipe: timed, logged, checkpointed, resumable, with averaged weights."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import REPOSITORY

WORK = REPOSITORY / "build" / "recipes"  # checkpoints, caches and loss curves; not committed
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def autocast() -> torch.autocast:
    """bf16 arithmetic for the forward pass; on CPUs with AVX-512 BF16 and on GPUs twice as fast or more."""
    return torch.autocast(DEVICE, dtype=torch.bfloat16)


class Averaged:
    """Exponential moving average of a module's weights, with a warm-up of the decay."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)


class Optimizer:
    """AdamW, or Muon (torch.optim.Muon) for every matrix and convolution kernel and AdamW for the rest.

    Muon takes matrices: a kernel (out, in, height, width) is shown to it as (out, in * height * width). Its step is
    scaled to the size of AdamW's, so that one learning rate serves both (arXiv 2502.16982).
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float,
                 muon: bool) -> None:
        self.kernels = [p for p in parameters if muon and p.ndim > 1]
        rest = [p for p in parameters if not muon or p.ndim == 1]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay)]
        if self.kernels:
            self.matrices = [nn.Parameter(p.data.flatten(1)) for p in self.kernels]  # views of the same memory
            self.optimizers.append(torch.optim.Muon(self.matrices, lr=lr, weight_decay=weight_decay,
                                                    adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float) -> None:
        if self.kernels:
            for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
                matrix.grad = kernel.grad.flatten(1)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def fit(
    name: str,
    module: nn.Module,
    loss: Callable[[int, float], tuple[Tensor, dict[str, float]]],
    *,
    steps: int,
    minutes: float,
    lr: float,
    warmup: int = 100,
    weight_decay: float = 0.01,
    ema: float = 0.999,
    betas: tuple[float, float] = (0.9, 0.99),
    muon: bool = False,
    adversary: Adversary | None = None,
    report: Callable[[int, nn.Module], dict[str, float]] | None = None,
    report_every: int = 500,
) -> nn.Module:
    """Train ``module`` on ``loss(step, progress)`` until ``steps`` or ``minutes``; return it averaged.

    The learning rate warms up, then falls as a cosine over whichever budget runs out first. A checkpoint every
    two minutes in ``build/recipes/<name>.pt`` is resumed by the next call (one with fewer minutes than were spent
    only returns what is there, so a running training can be looked at); losses go to ``<name>.csv``. The state of an
    ``adversary`` that ``loss`` uses is kept with it: new critics undo in minutes what old ones taught.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    checkpoint = WORK / f"{name}.pt"
    module.to(DEVICE).train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = Optimizer(parameters, lr, betas, weight_decay, muon)
    averaged = Averaged(module, ema)
    step, used = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=DEVICE)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        averaged.weights, averaged.steps = state["averaged"], state["step"]
        step, used = state["step"], state["seconds"]
        if adversary and "adversary" in state:
            adversary.load_state_dict(state["adversary"])
        print(f"{name}: resumed at step {step} after {used / 60:.1f} min", flush=True)
    start = time.monotonic() - used
    first, saved, sums, count = step, time.monotonic(), {}, 0
    log = open(WORK / f"{name}.csv", "a", newline="")
    while True:
        elapsed = time.monotonic() - start
        progress = max(step / steps, elapsed / (60 * minutes))
        if step > first and (progress >= 1 or time.monotonic() - saved > 120):
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(),
                     "averaged": averaged.weights, "step": step, "seconds": elapsed}
            if adversary:
                state["adversary"] = adversary.state_dict()
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
            saved = time.monotonic()
        if progress >= 1:
            break
        rate = lr * min(1, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + _cos(progress)))
        if adversary and adversary.follows:
            adversary.slow(rate / lr)
        value, parts = loss(step, progress)
        module.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(rate)
        averaged.update(module)
        step, count = step + 1, count + 1
        for key, number in {"loss": value.item(), **parts}.items():
            sums[key] = sums.get(key, 0.0) + number
        if step % 50 == 0:
            row = {"step": step, "minutes": round(elapsed / 60, 2), **{k: round(v / count, 5) for k, v in sums.items()}}
            if report and step % report_every == 0:
                row |= report(step, module)
                module.train()
            csv.writer(log).writerow([f"{k}={v}" for k, v in row.items()])
            log.flush()
            print(name, row, f"of {minutes:g} min", flush=True)
            sums, count = {}, 0
    module.load_state_dict(averaged.weights)
    return module.eval()


def features_and_score(layers: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """What each layer of a critic makes of ``x``, behind a leaky ReLU; the last one's answer is the score."""
    features = []
    for layer in layers[:-1]:
        x = F.leaky_relu(layer(x), 0.2)
        features.append(x)
    return [*features, layers[-1](x)]


class Adversary:
    """Trains ``critics`` a step at a time and gives the generator its loss, in part a least-squares adversarial one.

    ``critics`` turn a batch into lists of features, one for each critic, the score last (arXiv 1611.04076); the
    generator is also to match the features (arXiv 1512.09300). New critics know nothing: during their first ``alone``
    steps the generator does not learn.

    Args:
        weight: of the mean over the critics, beside the reconstruction.
        follows: whether the critics' learning rate falls with the generator's.
    """

    def __init__(self, critics: nn.Module, weight: float, alone: int = 0, lr: float = 4e-4,
                 matching: float = 2.0, follows: bool = False) -> None:
        self.critics, self.weight, self.alone, self.matching = critics.to(DEVICE), weight, alone, matching
        self.steps, self.lr, self.follows = 0, lr, follows
        self.optimizer = torch.optim.AdamW(critics.parameters(), lr=lr, betas=(0.8, 0.99))

    def slow(self, share: float) -> None:
        """Let the critics learn at that share of their rate: as fast as a generator whose rate falls, or they win."""
        for group in self.optimizer.param_groups:
            group["lr"] = share * self.lr

    def state_dict(self) -> dict[str, Any]:
        return {"critics": self.critics.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critics.load_state_dict(state["critics"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]

    def __call__(self, fake: Tensor, real: Tensor, reconstruction: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss of ``fake`` (B, ...), which is to become ``real``, and its parts. ``reconstruction``: its error."""
        judged, truth = self.critics(fake.detach()), self.critics(real)
        verdict = sum((t[-1] - 1).square().mean() + j[-1].square().mean() for j, t in zip(judged, truth, strict=True))
        self.optimizer.zero_grad(set_to_none=True)
        verdict.backward()
        self.optimizer.step()
        self.steps += 1
        loss = fake.new_zeros(())
        for ours, theirs in zip(self.critics(fake), truth, strict=True):
            alike = sum((a - b.detach()).abs().mean() for a, b in zip(ours[:-1], theirs[:-1], strict=True))
            loss = loss + ((ours[-1] - 1).square().mean() + self.matching * alike) / len(truth)
        total = 0.0 * loss if self.steps <= self.alone else reconstruction + self.weight * loss
        return total, {"reconstruction": reconstruction.item(), "adversarial": loss.item()}


def _cos(progress: float) -> float:
    return float(torch.cos(torch.tensor(min(progress, 1.0) * torch.pi)))


def save_half(module: nn.Module, folder: Path) -> None:
    """Write a diffusers or transformers module as fp16 safetensors and its config into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    module.to("cpu", torch.float16).save_pretrained(folder, safe_serialization=True)
    config = folder / "config.json"
    facts = json.loads(config.read_text(encoding="utf-8"))
    facts.pop("_name_or_path", None)  # where the weights lay on this machine
    config.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)  # the libraries write weights for the owner's eyes only
