"""The names of translators and the settings that they stand for; imports no torch, so that lists are quick.

The thesis's eighteen are called ``{audiocaps,wit,audiocaps_wit}_{mse,cos,cl}_{256,512}``: data, loss, width.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import InputError

LOSSES = ("mse", "cos", "cl")
CLOSED_FORM = ("procrustes", "ridge")
MEMORY = "memory"
PART_OF = {"conceptual_captions": "wit"}  # collections that count as another source, as in the thesis
EIGHTEEN = tuple(
    f"{data}_{loss}_{hidden}"
    for data, loss, hidden in itertools.product(("audiocaps", "wit", "audiocaps_wit"), LOSSES, (256, 512))
)
KNOWN = (*EIGHTEEN, *CLOSED_FORM, MEMORY)  # names that have a meaning for every model


@dataclass(frozen=True)
class Settings:
    """How a translator is trained. Defaults are the thesis's, where it had the setting."""

    name: str
    sources: tuple[str, ...]  # of the pairs
    loss: str  # mse, cos or cl
    hidden: int  # width of the two hidden layers
    weights: tuple[float, ...] = ()  # shares of the sources in a batch; (): equal
    lr: float = 1e-3  # learning rate of Adam
    epochs: int = 50  # maximum
    batch: int = 64  # pairs in a batch
    dropout: float = 0.0  # probability
    temperature: float = 0.5  # of the contrastive loss
    noise: float = 0.0  # maximum length of Gaussian noise on the unit input (C3, arXiv 2401.08567)
    centred: bool = False  # whether the mean of their kind is subtracted from inputs (C3)
    patience: int = 3  # epochs without an improvement by ``gain`` before training stops; 0: never stop
    gain: float = 0.001  # smallest improvement, as a share of the held-out loss's whole decrease
    held_out: float = 0.05  # share of held-out pairs
    seed: int = 0

    def checked(self) -> Settings:
        """Return the settings if all are in their ranges. Raises InputError."""
        for flag, good, range_ in (
            ("hidden", 1 <= self.hidden <= 65536, "from 1 to 65536"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch", self.batch >= 1, "1 or more"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            ("temperature", 0 < self.temperature < math.inf, "above 0"),
            ("noise", 0 <= self.noise < math.inf, "0 or more"),
            ("patience", self.patience >= 0, "0 or more"),
            ("gain", 0 <= self.gain < 1, "from 0 to below 1"),
            ("held_out", 0 < self.held_out < 1, "between 0 and 1"),
            ("seed", 0 <= self.seed < 2**63, "a whole number from 0 on"),
        ):
            if not good:
                raise InputError(f"{flag} must be {range_}, not {getattr(self, flag)}")
        return self


def parse(name: str, known: Iterable[str] = ("audiocaps", "wit")) -> Settings:
    """The settings of the translator called ``name``: ``<data>_<loss>_<hidden>[_noise][_centred]``.

    ``known``: the names of sources that <data> may contain, joined by ``_``. Raises InputError.
    """
    form = rf"([^/]+)_({'|'.join(LOSSES)})_([1-9][0-9]{{0,4}})(_noise)?(_centred)?"
    match = re.fullmatch(form, name)
    data, loss, hidden, noise, centred = match.groups() if match else ("", "", 0, None, None)
    sources = _sources(data, tuple(known))
    if not 1 <= int(hidden) <= 65536 or not sources or len(set(sources)) < len(sources):
        raise InputError(
            f'"{name}" is not the name of a trainable translator: use '
            f"<data>_<{'|'.join(LOSSES)}>_<hidden>, with data from {', '.join(sorted(known)) or 'no source'}, "
            f"or {', '.join(CLOSED_FORM)} or {MEMORY}"
        )
    settings = Settings(name, sources, loss, int(hidden), noise=1.0 if noise else 0.0, centred=bool(centred))
    if loss == "cl" and len(sources) > 1:  # the thesis's exception
        settings = replace(settings, lr=2e-3, epochs=60, dropout=0.5)
    return settings


def needs_pictures(name: str) -> bool:
    """Whether the translator called ``name`` learns from pictures, or from their mean. Raises InputError."""
    if name in (*CLOSED_FORM, MEMORY):
        return False
    found = parse(name)
    return found.centred or "wit" in found.sources


def expand(given: Iterable[str]) -> list[str]:
    """Names without repetitions; "all" stands for the eighteen."""
    return list(dict.fromkeys(name for one in given for name in (EIGHTEEN if one == "all" else [one])))


def is_known(name: str) -> bool:
    """Whether a name is one of KNOWN, or a variant of one of the eighteen."""
    return name in KNOWN or re.sub("(_noise)?(_centred)?$", "", name) in EIGHTEEN


def preference(name: str) -> tuple[int, int, int, str]:
    """A sort key: translators that are probably better for pictures, judged by their names, have a smaller one.

    Those that learnt from pictures go before those that learnt from sentences alone, then cos, cl, mse, then the wider
    (the tables in docs/translators.md).
    """
    try:
        found = parse(name)
    except InputError:
        return 2 if name in CLOSED_FORM else 4, 0, 0, name
    seen = ("wit",), ("audiocaps", "wit")
    place = seen.index(found.sources) if found.sources in seen else 3
    return place, ("cos", "cl", "mse").index(found.loss), -found.hidden, name


def trainable(name: str) -> bool:
    """Whether ``audioldm-translator train`` accepts this name, with the thesis's sources."""
    try:
        return name in (*CLOSED_FORM, MEMORY) or bool(parse(name))
    except InputError:
        return False


def _sources(data: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Split ``data`` into ``known`` names; () if that is impossible."""
    if data in known:
        return (data,)
    for name in known:
        if data.startswith(name + "_") and (rest := _sources(data[len(name) + 1 :], known)):
            return (name, *rest)
    return ()
