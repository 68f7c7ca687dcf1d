"""How to generate: one table of options for the command line, the page, the functions and their errors."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass
from typing import Any, cast

from .errors import InputError

SAMPLERS = ("ddim", "dpm++", "unipc")  # names only, to keep this module light; see sampling.py
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MODES = ("generation", "transfer", "inpaint", "superres")
MAX_DURATION = 600.0  # seconds
TOP = 8_000.0  # Hz, the highest that 16 kHz sound has


@dataclass(frozen=True)
class Option:
    """One option as people meet it: a flag of the command, a field of the page, a name in an error."""

    name: str  # of its value, in Python and in the page's API
    flags: tuple[str, ...]  # of the command
    title: str  # in labels and errors
    help: str  # meaning and unit
    kind: type = str  # of the value, or of each of several
    low: float | None = None  # the smallest number allowed
    high: float | None = None
    note: str = ""  # added to the range in errors
    choices: tuple[str, ...] = ()
    metavar: str | tuple[str, ...] | None = None
    values: int | str = 1  # after the flag: so many, or "+" for any number; "append": the flag may be repeated
    once: bool = False  # refuse the flag twice, where the first value would be lost
    default: Any = None  # None: left to the model, or nothing
    shown: str = ""  # the default in the help of the command

    def check(self, value: object) -> None:
        """Raises InputError, one sentence with the range, if ``value`` is outside the table's range."""
        if self.choices and value not in self.choices:
            raise InputError(f'unknown {self.title} "{value}"; available: {", ".join(self.choices)}')
        if self.low is None or self.high is None:
            return
        if self.values == 2:
            _range(self.title, value, self.high, self.note)
        elif self.kind is int:
            _whole(self.title, value, int(self.low), int(self.high))
        else:
            _number(self.title, value, self.low, self.high, self.note)

    @property
    def described(self) -> str:
        """The help with the range of numbers: "seconds of sound, 0.5 to 600"."""
        if self.low is None or self.high is None or self.values == 2 or self is SEED:
            return self.help
        return f"{self.help}, {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class GenerateOptions:
    """Options of one generation, with the ranges of the table below. What the user leaves out is the model's own
    default or the one here."""

    duration: float = 5.0  # seconds; upstream 10; 5 is quick on a laptop
    ddim_steps: int = 25  # sampler's; upstream 200 (DDIM); DPM-Solver++ 15-20 (arXiv 2211.01095)
    guidance_scale: float = 2.5  # of classifier-free guidance; upstream 2.5 (arXiv 2301.12503)
    sampler: str = "dpm++"  # "ddim" (as upstream), "dpm++" or "unipc"
    seed: int = 42  # upstream 42
    batchsize: int = 1  # sounds
    n_candidates: int = 1  # per sound, of which the closest to the prompt is kept; upstream 3
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
    def chosen(self) -> dict[str, object]:
        """All options by name, without those that only another mode has."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def steps_run(self) -> int:
        """How many of the sampler's steps are run: a transfer runs the last int(strength * steps), as upstream."""
        if self.mode != "transfer" or self.transfer_strength is None:
            return self.ddim_steps
        return int(self.transfer_strength * self.ddim_steps)

    @property
    def ranked_after(self) -> int:
        """After how many of ``steps_run`` the candidates are ranked, and only the best is denoised further: 60 %.

        All where there is nothing to choose from, with DDIM, which is as upstream, and where a region is made new.
        """
        if self.n_candidates == 1 or self.sampler == "ddim" or self.mode not in ("generation", "transfer"):
            return self.steps_run
        return -(-3 * self.steps_run // 5)

    @property
    def evaluations(self) -> int:
        """How many steps are made for all sounds and candidates together."""
        return self.batchsize * (self.n_candidates * self.ranked_after + self.steps_run - self.ranked_after)

    @classmethod
    def build(cls, given: dict[str, Any], defaults: dict[str, Any] | None = None) -> GenerateOptions:
        """Checked options: those that the user gave (None: not given) over the model's ``defaults``.

        Raises InputError. Unknown names in ``defaults`` are an error as well: a model folder that misspells
        one would otherwise run with other settings than intended.
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
        for option in (*SAMPLING, MODE):
            option.check(getattr(self, option.name))
        self._check_mode()
        return self

    def _check_mode(self) -> None:
        if self.mode == "transfer":
            STRENGTH.check(self.transfer_strength)
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
        TIME_RANGE.check(self.time_range)
        FREQUENCY_RANGE.check(self.frequency_range)
        _range("time mask ratio", self.time_mask_ratio, 1, may_be_empty=True)
        _range("frequency mask ratio", self.frequency_mask_ratio, 1, may_be_empty=True)
        if self.time_range is not None and self.time_range[0] >= self.duration:
            raise InputError(
                f"the time range begins at {self.time_range[0]:g} s, but the sound ends at {self.duration:g} s"
            )


_DEFAULT = GenerateOptions()

DURATION = Option(
    "duration", ("-dur", "--duration"), "duration", "seconds of sound", float, 0.5, MAX_DURATION, " seconds",
    metavar="S", shown=f"{_DEFAULT.duration:g}",
)  # fmt: skip
BATCHSIZE = Option(
    "batchsize", ("-b", "--batchsize"), "batch size", "number of sounds", int, 1, 64,
    metavar="N", shown=str(_DEFAULT.batchsize),
)  # fmt: skip
SEED = Option(
    "seed", ("--seed",), "seed", "same seed, same sounds", int, 0, 2**63 - 1,
    metavar="N", shown=str(_DEFAULT.seed),
)  # fmt: skip
GUIDANCE = Option(
    "guidance_scale", ("-gs", "--guidance_scale"), "guidance scale", "how closely to follow the prompt", float, 0, 50,
    " (1: no guidance, 0: the prompt is not used)", metavar="X", shown=f"{_DEFAULT.guidance_scale:g}",
)  # fmt: skip
CANDIDATES = Option(
    "n_candidates", ("-n", "--n_candidate_gen_per_text"), "number of candidates",
    "candidates per sound; the best is kept", int, 1, 32, metavar="N", shown=str(_DEFAULT.n_candidates),
)  # fmt: skip
STEPS = Option(
    "ddim_steps", ("--ddim_steps",), "number of steps", "sampler steps", int, 1, 1000,
    metavar="N", shown=str(_DEFAULT.ddim_steps),
)  # fmt: skip
SAMPLER = Option(
    "sampler", ("--sampler",), "sampler", "how noise is removed", choices=SAMPLERS, shown=_DEFAULT.sampler,
)  # fmt: skip
SAMPLING = (DURATION, BATCHSIZE, SEED, GUIDANCE, CANDIDATES, STEPS, SAMPLER)

MODE = Option(
    "mode", ("--mode",), "mode", "transfer restyles the sound -f, inpaint and superres regenerate a part of it",
    choices=MODES, default="generation", shown="generation",
)  # fmt: skip
STRENGTH = Option(
    "transfer_strength", ("--transfer_strength",), "transfer strength",
    "for transfer: how much of the sound to replace", float, 0, 1, " (1: forget the sound)",
    metavar="X", shown="0.5",
)  # fmt: skip
TIME_RANGE = Option(
    "time_range", ("--time_range",), "time range",
    "for inpaint and superres: seconds to regenerate, at all frequencies", float, 0, MAX_DURATION, " seconds",
    metavar=("START", "END"), values=2,
)  # fmt: skip
FREQUENCY_RANGE = Option(
    "frequency_range", ("--frequency_range",), "frequency range",
    "for inpaint and superres: Hz to regenerate, at all times", float, 0, TOP, " Hz",
    metavar=("LOW", "HIGH"), values=2, shown="superres: 4000 8000",
)  # fmt: skip
EDITING = (MODE, STRENGTH, TIME_RANGE, FREQUENCY_RANGE)

TEXT = Option(
    "text", ("-t", "--text"), "words",
    "a text, an image (URL, file or data URI) or a saved embedding (.npy); repeat it to mix prompts; "
    "or a folder/ of images or a list of prompts (.txt, .csv, .jsonl), processed row by row",
    metavar="PROMPT", values="append",
)  # fmt: skip
SOUND = Option(
    "file_path", ("-f", "--file_path"), "sound",
    "a sound file: make sounds like it, or begin with it in other modes", metavar="FILE", once=True,
)  # fmt: skip
WEIGHTS = Option(
    "weights", ("--weights",), "weights",
    "one weight per prompt, in the order of -t, then -f; negative: avoid the prompt", float,
    metavar="W", values="+", once=True, shown="1 each",
)  # fmt: skip
NEGATIVE = Option(
    "negative_prompt", ("--negative_prompt",), "what to avoid",
    "what the sound should avoid; needs a guidance scale above 1", metavar="PROMPT", once=True,
)  # fmt: skip
EMBEDDING = Option(
    "save_embedding", ("--save_embedding",), "embedding",
    "write the prompts' vector as a .npy file, which -t takes again", metavar="FILE", once=True,
)  # fmt: skip
PROMPTS = (TEXT, SOUND, WEIGHTS, NEGATIVE, EMBEDDING)

MODEL_NAME = Option(
    "model_name", ("--model_name",), "model", "a model's name or folder", metavar="NAME", shown="starter",
)  # fmt: skip
CHECKPOINT = Option(
    "ckpt_path", ("-ckpt", "--ckpt_path"), "checkpoint", "model folder or .ckpt file; overrides --model_name",
    metavar="PATH",
)  # fmt: skip
TRANSLATOR = Option(
    "translator", ("--translator",), "translator", "translator for images", metavar="NAME",
    shown="the model's default",
)  # fmt: skip
DEVICE = Option(
    "device", ("--device",), "device", "auto, cpu, cuda or mps", metavar="NAME", default="auto", shown="auto",
)  # fmt: skip
PRECISION = Option(
    "precision", ("--precision",), "precision", "numbers to compute in; fp32 is exact, the others are faster",
    choices=PRECISIONS, default="auto", shown="auto: what the machine is fast with",
)  # fmt: skip
BATCH = Option(
    "batch", ("--batch",), "number of sounds at once", "sounds and candidates to make together", int, 1, 64,
    metavar="N", shown="what the device is fast with",
)  # fmt: skip
MODEL = (MODEL_NAME, CHECKPOINT, TRANSLATOR, DEVICE, PRECISION, BATCH)
SERVED = (MODEL_NAME, CHECKPOINT, DEVICE, PRECISION, BATCH)  # what a server settles for its visitors


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


def _number(name: str, value: object, low: float, high: float, unit: str = "") -> None:
    # Written so that NaN, which compares false with everything, fails.
    if not (isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= cast(Any, value) <= high):
        raise InputError(f"the {name} must be a number from {low} to {high}{unit}, not {_shown(value)}")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise InputError(f"the {name} must be a whole number from {low} to {high}, not {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
