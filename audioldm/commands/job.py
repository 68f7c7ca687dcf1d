"""One request, from the command or from the page: read, checked against the model, and made."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..options import GenerateOptions

if TYPE_CHECKING:
    from torch import Tensor

    from ..generation import Sound
    from ..inputs.prompt import Prompt
    from ..inputs.sounds import Original
    from ..latent_diffusion.model import LatentDiffusion

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class Job:
    """What to make, read and found good as far as that needs no model."""

    given: dict[str, Any]  # options by name; None: left to the model
    prompts: tuple[Prompt, ...] = ()
    weights: tuple[float, ...] | None = None  # one for each prompt; None: 1 each
    negative: Prompt | None = None
    original: Original | None = None  # the sound that an edit begins with
    translator: str | None = None

    def check(self, model: LatentDiffusion) -> GenerateOptions:
        """The options over the model's own defaults, once it is known that it can make this. Raises InputError."""
        from .. import translators
        from ..conditioning import check_negative, check_prompts

        options = GenerateOptions.build(self.given, model.defaults)
        check_negative(self.negative, options.guidance_scale)
        if self.translator is not None:
            translators.load(model, self.translator)
        prompts = [*self.prompts, self.negative] if self.negative else self.prompts
        check_prompts(model, prompts, self.translator)
        return options


def given_options(values: dict[str, Any], original: Original | None) -> dict[str, Any]:
    """``values`` by name of option, with the length of the sound to edit where no duration is among them.

    Raises InputError if they cannot be right for any model.
    """
    given = dict(values)
    if original is not None and given.get("duration") is None:
        given["duration"] = original.duration
    GenerateOptions.build(given)
    return given


def steps(options: GenerateOptions) -> int:
    """How often ``make`` calls ``on_step``."""
    return options.steps_run * options.batchsize * options.n_candidates


def condition(
    model: LatentDiffusion, job: Job, on_note: Callable[[str], object] = log.warning
) -> tuple[Tensor, Tensor | None]:
    """The condition (1, 512) of all prompts, and the one to avoid, if any. Raises InputError."""
    from .. import conditioning

    vector = conditioning.condition_all(model, job.prompts, job.weights, job.translator, on_note)
    negative = conditioning.encode_prompt(model, job.negative, job.translator, on_note) if job.negative else None
    return vector, negative


def make(
    model: LatentDiffusion,
    job: Job,
    options: GenerateOptions,
    conditions: tuple[Tensor, Tensor | None],
    began: float,
    on_step: Callable[[], object] | None = None,
    on_note: Callable[[str], object] = log.warning,
    frugal: bool = False,
) -> Iterator[tuple[Sound, dict[str, Any]]]:
    """Each sound as soon as it is made, with its record.

    Args:
        options: those that ``job.check`` returned.
        conditions: those that ``condition`` returned.
        began: when the run began, on the clock of time.perf_counter.
        on_step, on_note, frugal: as for generation.generate.
    """
    from .. import generation
    from ..outputs import record

    vector, negative = conditions
    shared = record.make_record(
        model, job.prompts, job.translator, options,
        weights=job.weights, negative=job.negative, original=job.original,
    )  # fmt: skip
    sounds = generation.generate(
        model, vector, options, on_step, negative=negative, original=job.original, frugal=frugal, on_note=on_note
    )
    for sound in sounds:
        yield sound, {**shared, **record.sound_record(sound, time.perf_counter() - began)}
