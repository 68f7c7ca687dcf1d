"""How to generate: one set of options for the command line, the functions and whatever comes later."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass
from typing import Any

from .errors import InputError

SAMPLERS = ("ddim", "dpm++", "unipc")  # names only, to keep this module light; sampling.py says what they are
MODES = ("generation", "transfer", "inpaint", "superres")
MAX_DURATION = 600.0  # seconds
TOP = 8_000.0  # Hz, the highest that 16 kHz sound has


@dataclass(frozen=True)
class GenerateOptions:
    """Options of one generation. What the user leaves out is the model's own default or the one here."""

    duration: float = 5.0  # seconds, 0.5 to 600; upstream 10, here what a laptop does quickly
    ddim_steps: int = 25  # sampler's, 1 to 1000; upstream 200 (DDIM); DPM-Solver++ 15-20 (arXiv 2211.01095)
    guidance_scale: float = 2.5  # of classifier-free guidance, 0 to 50; upstream 2.5 (arXiv 2301.12503)
    sampler: str = "dpm++"  # "ddim" (as upstream), "dpm++" or "unipc"
    seed: int = 42  # 0 to 2**63 - 1; upstream 42
    batchsize: int = 1  # sounds, 1 to 64
    n_candidates: int = 1  # per sound, of which the closest to the prompt is kept, 1 to 32; upstream 3
    mode: str = "generation"  # or, beginning with a sound: "transfer", "inpaint", "superres"
    transfer_strength: float | None = None  # of transfer: 0 (the sound as it is) to 1 (forgotten); 0.5
    # What inpaint and superres make new: each of these, from the first number to before the second.
    time_range: tuple[float, float] | None = None  # seconds, at all frequencies
    frequency_range: tuple[float, float] | None = None  # Hz up to 8000, at all times; superres: from 4000 on
    time_mask_ratio: tuple[float, float] | None = None  # the same as shares of the latents, 0 to 1, which is
    frequency_mask_ratio: tuple[float, float] | None = None  # how upstream's function says it

    @property
    def edits(self) -> bool:
        """Whether the mode begins with a sound."""
        return self.mode != "generation"

    @property
    def chosen(self) -> dict[str, Any]:
        """All options by name, without those that only another mode has."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def steps_run(self) -> int:
        """How many of the sampler's steps are run: a transfer runs the last int(strength * steps), as upstream."""
        if self.mode != "transfer" or self.transfer_strength is None:
            return self.ddim_steps
        return int(self.transfer_strength * self.ddim_steps)

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
        chosen = {**(defaults or {}), **chosen}
        if chosen.get("mode") == "transfer":
            chosen.setdefault("transfer_strength", 0.5)
        if chosen.get("mode") == "superres" and "frequency_mask_ratio" not in chosen:
            chosen.setdefault("frequency_range", (TOP / 2, TOP))
        return cls(**chosen).check()

    def check(self) -> GenerateOptions:
        """Return self, or raise InputError: one sentence with the option, its range and its value."""
        _number("duration", self.duration, 0.5, MAX_DURATION, " seconds")
        _whole("number of steps", self.ddim_steps, 1, 1000)
        _number("guidance scale", self.guidance_scale, 0, 50, " (1: no guidance, 0: the prompt is not used)")
        _whole("seed", self.seed, 0, 2**63 - 1)
        _whole("batch size", self.batchsize, 1, 64)
        _whole("number of candidates", self.n_candidates, 1, 32)
        if self.sampler not in SAMPLERS:
            raise InputError(f'unknown sampler "{self.sampler}"; available: {", ".join(SAMPLERS)}')
        if self.mode not in MODES:
            raise InputError(f'unknown mode "{self.mode}"; available: {", ".join(MODES)}')
        self._check_mode()
        return self

    def _check_mode(self) -> None:
        if self.mode == "transfer":
            _number("transfer strength", self.transfer_strength, 0, 1, " (1: forget the sound)")
        elif self.transfer_strength is not None:
            raise InputError(f"a transfer strength works only with --mode transfer, not {self.mode}")
        in_time, in_frequency = (
            (self.time_range, self.time_mask_ratio),
            (self.frequency_range, self.frequency_mask_ratio),
        )
        given = [one for one in (*in_time, *in_frequency) if one is not None]
        if given and self.mode not in ("inpaint", "superres"):
            raise InputError(f"time and frequency ranges work only with --mode inpaint and superres, not {self.mode}")
        if self.mode == "inpaint" and not given:
            raise InputError("--mode inpaint needs a --time_range in seconds, a --frequency_range in Hz, or both")
        if None not in in_time or None not in in_frequency:
            raise InputError("give a range either in seconds or Hz, or as shares, not both")
        _range("time range", self.time_range, MAX_DURATION, " seconds")
        _range("frequency range", self.frequency_range, TOP, " Hz")
        _range("time mask ratio", self.time_mask_ratio, 1, may_be_empty=True)
        _range("frequency mask ratio", self.frequency_mask_ratio, 1, may_be_empty=True)
        if self.time_range is not None and self.time_range[0] >= self.duration:
            raise InputError(
                f"the time range begins at {self.time_range[0]:g} s, but the sound ends at {self.duration:g} s"
            )


def _range(name: str, value: Any, high: float, unit: str = "", may_be_empty: bool = False) -> None:
    if value is None:
        return
    try:
        first, last = value
        numbers_only = all(isinstance(one, numbers.Real) and not isinstance(one, bool) for one in value)
        good = numbers_only and 0 <= first <= last <= high and (first < last or may_be_empty)
    except (TypeError, ValueError):  # not two
        good = False
    if not good:
        raise InputError(f"the {name} must be two rising numbers from 0 to {high:g}{unit}, not {_shown(value)}")


def _number(name: str, value: Any, low: float, high: float, unit: str = "") -> None:
    # Written so that NaN, which compares false with everything, fails.
    if not (isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= float(value) <= high):
        raise InputError(f"the {name} must be a number from {low} to {high}{unit}, not {_shown(value)}")


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise InputError(f"the {name} must be a whole number from {low} to {high}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
