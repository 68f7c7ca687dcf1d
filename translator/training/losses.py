"""The thesis's three losses, as functions of translated and true CLAP vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mse(ours: Tensor, true: Tensor) -> Tensor:
    """Mean over all numbers of (ours - true)², of (B, dim) unit vectors.

    On unit vectors this is ``cos`` times 2 / dim; the two differ only for optimisers that depend on the scale.
    """
    return F.mse_loss(ours, F.normalize(true, dim=-1))


def cos(ours: Tensor, true: Tensor) -> Tensor:
    """Mean over the batch of 1 - cosine(ours, true), 0 to 2, for (B, dim) vectors of any length above 0."""
    return (1 - F.cosine_similarity(ours, true, dim=-1)).mean()


def cl(ours: Tensor, true: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent over the 2B normalised vectors z of both (SimCLR, arXiv 2002.05709, equation 1; its τ there is 0.5 too).

    Each z_i should be nearer to its partner z_j than to all others:
    mean over i of  -log( exp(z_i·z_j / τ) / Σ_{k ≠ i} exp(z_i·z_k / τ) ).

    Works with any batch size; for B = 1 the loss is 0.
    """
    count = len(ours)
    both = F.normalize(torch.cat([ours, true]), dim=-1)
    similarity = both @ both.T / temperature
    similarity = similarity.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=both.device), float("-inf"))
    partner = torch.arange(2 * count, device=both.device).roll(count)
    return F.cross_entropy(similarity, partner)
