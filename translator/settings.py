"""The names of the translators, and the settings that each name stands for. No torch: lists are to be quick.

The thesis's eighteen are called ``{audiocaps,wit,audiocaps_wit}_{mse,cos,cl}_{256,512}``: data, loss, width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import TranslatorError

LOSSES = ("mse", "cos", "cl")
CLOSED_FORM = ("procrustes", "ridge")
MEMORY = "memory"
EIGHTEEN = tuple(
    f"{data}_{loss}_{hidden}"
    for data, loss, hidden in itertools.product(("audiocaps", "wit", "audiocaps_wit"), LOSSES, (256, 512))
)


@dataclass(frozen=True)
class Settings:
    """How a translator is trained. The defaults are the thesis's, but for what it did not have."""

    name: str
    sources: tuple[str, ...]  # of the pairs
    loss: str  # mse, cos or cl
    hidden: int  # width of the two hidden layers
    weights: tuple[float, ...] = ()  # of the sources in every batch; () is equal parts
    lr: float = 1e-3  # of Adam
    epochs: int = 50  # at most
    batch: int = 64  # pairs
    dropout: float = 0.0  # probability
    temperature: float = 0.5  # of the contrastive loss
    noise: float = 0.0  # greatest length of Gaussian noise on the unit input (C3, arXiv 2401.08567)
    centred: bool = False  # inputs minus the mean of their kind, text or image (C3)
    patience: int = 5  # epochs without a better held-out loss, after which training stops; 0: never
    held_out: float = 0.05  # share of the pairs
    seed: int = 0


def parse(name: str, known: Iterable[str] = ("audiocaps", "wit")) -> Settings:
    """The settings of the translator called ``name``: ``<data>_<loss>_<hidden>[_noise][_centred]``.

    ``known``: names of the sources of which <data> may be made, joined by ``_``. Raises TranslatorError.
    """
    rest, noise, centred = name, 0.0, False
    while rest.endswith(("_noise", "_centred")):
        rest, _, variant = rest.rpartition("_")
        noise, centred = (1.0, centred) if variant == "noise" else (noise, True)
    data, _, hidden = rest.rpartition("_")
    data, _, loss = data.rpartition("_")
    sources = _sources(data, tuple(known))
    if loss not in LOSSES or not hidden.isdecimal() or not 1 <= int(hidden) <= 65536 or not sources:
        raise TranslatorError(
            f'"{name}" is no name of a translator that can be trained: it is '
            f"<data>_<{'|'.join(LOSSES)}>_<hidden>, with data of {', '.join(sorted(known)) or 'none'}, "
            f"or {', '.join(CLOSED_FORM)} or {MEMORY}"
        )
    settings = Settings(name, sources, loss, int(hidden), noise=noise, centred=centred)
    if loss == "cl" and len(sources) > 1:  # the thesis's exception
        settings = replace(settings, lr=2e-3, epochs=60, dropout=0.5)
    return settings


def _sources(data: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """``data`` taken apart into names that are ``known``; () if that cannot be done."""
    if data in known:
        return (data,)
    for name in known:
        if data.startswith(name + "_") and (rest := _sources(data[len(name) + 1 :], known)):
            return (name, *rest)
    return ()
