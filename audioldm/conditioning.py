"""From prompts to the condition. Words, pictures, sounds and saved vectors end as one vector.

Torch is imported where it is needed, so that a bad prompt is refused before that takes its seconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from . import registry
from .checkpoints.published import explain_text_only
from .errors import InputError
from .inputs.prompt import Prompt, read_prompt

if TYPE_CHECKING:
    from torch import Tensor

    from .latent_diffusion.model import LatentDiffusion

OnNote = Callable[[str], object]

log = logging.getLogger("audioldm")


def read_negative(negative_prompt: object, guidance_scale: float) -> Prompt | None:
    """The prompt to avoid, if there is one. Raises InputError, also if it would have no effect."""
    empty = isinstance(negative_prompt, str) and not negative_prompt.strip()  # as interfaces send if nothing is given
    negative = None if negative_prompt is None or empty else read_prompt(negative_prompt)
    check_negative(negative, guidance_scale)
    return negative


def check_negative(negative: Prompt | str | None, guidance_scale: float) -> None:
    """Raises InputError if the negative prompt would have no effect."""
    if negative is not None and guidance_scale <= 1:
        raise InputError("a negative prompt needs a guidance scale above 1 (-gs)")


def check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One finite weight for each of ``count`` prompts, not all zero; None: 1 each. Negative: avoid that prompt.

    Raises InputError.
    """
    if weights is None:
        return (1.0,) * count
    try:
        numbers = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        raise InputError("the weights must be numbers, one for each prompt") from None
    if len(numbers) != count:
        raise InputError(
            f"{len(numbers)} weights were given for {count} prompts; give one per prompt, "
            "in the order of -t, then -f"
        )
    for place, weight in enumerate(numbers, 1):
        if math.isnan(weight):
            raise InputError(f"weight {place} is NaN, which is not a number; give each prompt a finite one")
    if not all(math.isfinite(weight) for weight in numbers) or not any(numbers):
        raise InputError("the weights must be finite numbers, and not all zero")
    return numbers


def check_prompts(model: LatentDiffusion, prompts: Sequence[Prompt], translator: str | None = None) -> None:
    """Check that ``model`` can encode the prompts: translator, audio tower, dimension. Raises InputError."""
    for prompt in prompts:
        if prompt.kind == "image":
            registry.load_translator(model, translator)
        elif prompt.kind == "audio" and not model.clap.hears:
            raise InputError(explain_text_only(model.folder))
        elif prompt.kind == "vector":
            if len(prompt.content) != model.dimension:
                raise InputError(
                    f"{prompt.source} holds {len(prompt.content)} numbers, "
                    f"but a vector of the model {model.folder.name} has {model.dimension}"
                )


def encode_prompt(
    model: LatentDiffusion, prompt: Prompt, translator: str | None = None, on_note: OnNote = log.warning
) -> Tensor:
    """The prompt as a (1, 512) unit vector in CLAP space, on the model's device. Raises InputError.

    ``translator``: name or file of the one for an image; None: the model's default. ``on_note`` receives each remark
    for the user, such as the captions on which a memory leaned.
    """
    check_prompts(model, [prompt], translator)
    if prompt.kind == "image":
        from translator.model import Memory

        network = registry.load_translator(model, translator).to(model.device)
        if not isinstance(network, Memory):
            return model.image_encoder([prompt.content], network)
        clip = model.clip.encode_image([prompt.content])
        leaned_on = network.leaned_on(clip)
        prompt.found["leaned_on"] = [{"caption": caption, "weight": round(weight, 4)} for caption, weight in leaned_on]
        said = (f'{weight:.0%} "{caption}"' for caption, weight in leaned_on)
        on_note(f"the memory leaned on {', '.join(said)}")
        return network(clip)
    if prompt.kind == "audio":
        return model.clap.encode_audio([prompt.content])
    if prompt.kind == "vector":
        import torch

        return torch.from_numpy(prompt.content)[None].to(model.device)
    unread = model.clap.unread(prompt.content)
    if unread:
        shown = " ".join(unread.split())
        on_note(f'the prompt is longer than the model reads; not read: "{shown[:60]}{"…" if len(shown) > 60 else ""}"')
    return model.clap.encode_text([prompt.content])


def condition(
    model: LatentDiffusion, prompt: Prompt, translator: str | None = None, on_note: OnNote = log.warning
) -> Tensor:
    """As encode_prompt, with a note if the prompt is unlike everything that the model was trained on. Not all models
    know that for every kind of prompt."""
    vector = encode_prompt(model, prompt, translator, on_note)
    threshold = model.known_sounds[2].get(prompt.kind)
    near = nearest(model, vector, 3)
    if near and threshold is not None and near[0][1] < threshold:
        names = ", ".join(name for name, _ in near)
        on_note(f"the model {model.folder.name} may not know this; the nearest sounds it knows: {names}")
    return vector


def nearest(model: LatentDiffusion, vector: Tensor, count: int) -> list[tuple[str, float]]:
    """The known sounds nearest to ``vector`` (1, 512), each with its cosine; none if the model does not say."""
    names, known, _ = model.known_sounds
    if known is None:
        return []
    best = (known @ vector[0]).cpu().topk(min(count, len(names)))
    return [(names[i], float(cosine)) for cosine, i in zip(best.values, best.indices.tolist(), strict=True)]


def mix(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The direction of the weighted sum of (1, 512) unit vectors: (1, 512), of length 1.

    Vectors of weight 0 do not count, and a single vector stays as it is, to the bit. Raises InputError if
    the sum is zero.
    """
    counted = [(weight, vector) for weight, vector in zip(weights, vectors, strict=True) if weight]
    if len(counted) == 1:
        weight, vector = counted[0]
        return vector if weight > 0 else -vector
    largest = max(abs(weight) for weight, _ in counted)  # 1e300 squared is no number
    total = reduce(add, (weight / largest * vector.cpu().double() for weight, vector in counted))
    length = float(total.norm())
    if not length > 1e-4:
        raise InputError("the weighted prompts cancel each other out")
    return (total / length).float().to(vectors[0].device)


def condition_all(
    model: LatentDiffusion,
    prompts: Sequence[Prompt],
    weights: Sequence[float] | None = None,
    translator: str | None = None,
    on_note: OnNote = log.warning,
) -> Tensor:
    """All prompts, each by its weight, as one (1, 512) unit vector. Raises InputError."""
    weights = check_weights(weights, len(prompts))
    check_prompts(model, prompts, translator)
    return mix([condition(model, prompt, translator, on_note) for prompt in prompts], weights)
