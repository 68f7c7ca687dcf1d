"""Loss curves."""

from __future__ import annotations

import io
from collections.abc import Sequence


def loss_curves(name: str, history: Sequence[dict[str, float]], best_epoch: int) -> bytes:
    """A PNG of the losses and the held-out cosine by epoch; ``history`` comes from a ``Job``."""
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    losses = figure.subplots()
    marker = "o" if len(epochs) == 1 else None
    losses.plot(epochs, [row["train_loss"] for row in history], label="training loss", color="tab:blue", marker=marker)
    losses.plot(
        epochs, [row["held_out_loss"] for row in history], label="held-out loss", color="tab:orange", marker=marker
    )
    losses.axvline(best_epoch, color="grey", linewidth=0.8, linestyle=":", label=f"kept: epoch {best_epoch}")
    losses.set(title=name, xlabel="epoch", ylabel="loss")
    cosine = losses.twinx()
    cosine.plot(
        epochs, [row["held_out_cosine"] for row in history], label="held-out cosine (right)", color="tab:green",
        linestyle="--", marker=marker,
    )  # fmt: skip
    lines = losses.get_legend_handles_labels(), cosine.get_legend_handles_labels()
    losses.legend(lines[0][0] + lines[1][0], lines[0][1] + lines[1][1], loc="center right", fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
