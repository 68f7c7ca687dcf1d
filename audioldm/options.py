"""How to generate: one set of options for the command line, the functions and whatever comes later."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass
from typing import Any

from .errors import InputError

SAMPLERS = ("ddim", "dpm++", "unipc")  # names only, to keep this module light; sampling.py says what they are


@dataclass(frozen=True)
class GenerateOptions:
    """Options of one generation. What the user leaves out is the model's own default or the one here."""

    duration: float = 5.0  # seconds, 0.5 to 600; upstream 10, here what a laptop does quickly
    ddim_steps: int = 25  # sampler's, 1 to 1000; upstream 200 (DDIM); DPM-Solver++ 15-20 (arXiv 2211.01095)
    guidance_scale: float = 2.5  # classifier-free guidance, 1 (none) to 50; upstream 2.5 (arXiv 2301.12503)
    sampler: str = "dpm++"  # "ddim" (as upstream), "dpm++" or "unipc"
    seed: int = 42  # 0 to 2**63 - 1; upstream 42
    batchsize: int = 1  # sounds, 1 to 64
    n_candidates: int = 1  # per sound, of which the closest to the prompt is kept, 1 to 32; upstream 3

    @classmethod
    def build(cls, given: dict[str, Any], defaults: dict[str, Any] | None = None) -> GenerateOptions:
        """Options from what the user gave (None: left out) over the model's ``defaults``; checked.

        Raises InputError. Unknown names in ``defaults`` are an error as well: a model folder that misspells
        one would otherwise be run differently from what its maker meant.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in defaults or {}:
            if name not in known:
                raise InputError(f'the model folder\'s model_index.json has the unknown default "{name}"')
        chosen = {name: value for name, value in given.items() if value is not None}
        return cls(**{**(defaults or {}), **chosen}).check()

    def check(self) -> GenerateOptions:
        """Return self, or raise InputError: one sentence with the option, its range and its value."""
        _number("duration", self.duration, 0.5, 600, " seconds")
        _whole("number of steps", self.ddim_steps, 1, 1000)
        _number("guidance scale", self.guidance_scale, 1, 50, " (1: no guidance)")
        _whole("seed", self.seed, 0, 2**63 - 1)
        _whole("batch size", self.batchsize, 1, 64)
        _whole("number of candidates", self.n_candidates, 1, 32)
        if self.sampler not in SAMPLERS:
            raise InputError(f'unknown sampler "{self.sampler}"; there are {", ".join(SAMPLERS)}')
        return self


def _number(name: str, value: Any, low: float, high: float, unit: str = "") -> None:
    # Written so that NaN, which compares false with everything, fails.
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and low <= value <= high):
        raise InputError(f"the {name} must be a number from {low} to {high}{unit}, not {_shown(value)}")


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= value <= high:
        raise InputError(f"the {name} must be a whole number from {low} to {high}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
