"""From prompts to the condition: 1 check, 2 condition. Words, pictures, sounds and saved vectors end as one vector.

Torch is imported where it is needed, so that a bad prompt is refused before that takes its seconds.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import embedding
from .errors import InputError
from .latent_diffusion import LatentDiffusion
from .options import MAX_DURATION

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from translator.model import Memory

VECTOR_SUFFIX = embedding.SUFFIX
MAX_PROMPTS = 64

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class Prompt:
    """What to make a sound of, read and found good."""

    kind: Literal["text", "image", "audio", "vector"]
    source: str  # as the user gave it: words, URL, file name …
    content: Any  # text: str; image: RGB PIL image; audio: float32 (N,) at 16 kHz; vector: float32 (512,), unit


def read_prompt(
    prompt: str | PathLike[str] | Image | None = None, audio_file: str | Path | None = None
) -> Prompt:
    """Read a prompt: words, an image (URL, file, data URI, PIL image) or a saved vector (.npy), or else a sound file.

    A path (not a str) is that of an image or a vector, whatever it looks like. Of a sound, the first ten minutes
    count. Raises InputError.
    """
    if (prompt is None) == (audio_file is None):
        raise InputError("give one prompt: either a text or an image (-t), or a sound file (-f)")
    if audio_file is not None:
        from .audio import read_wave

        return Prompt("audio", str(audio_file), read_wave(audio_file, MAX_DURATION))
    if isinstance(prompt, str | PathLike) and _is_vector(prompt):
        path = str(prompt).strip()
        return Prompt("vector", path, embedding.read_vector(path))
    if isinstance(prompt, PathLike):
        from .images import load_image

        return Prompt("image", str(prompt), load_image(str(prompt)))
    if not isinstance(prompt, str):
        from .images import to_rgb

        return Prompt("image", "image", to_rgb(prompt))
    from .prompts import kind_of

    if kind_of(prompt) == "text":
        # A terminal may hand over bytes that are no UTF-8, which Python keeps as lone surrogates.
        words = prompt.strip().encode(errors="replace").decode()
        return Prompt("text", words, words)
    from .images import load_image

    return Prompt("image", prompt.strip(), load_image(prompt))


def read_prompts(texts: Any, audio_file: str | Path | None = None) -> tuple[Prompt, ...]:
    """Read one prompt or a list of them, and the sound file after them, if any. Raises InputError."""
    texts = [] if texts is None else list(texts) if isinstance(texts, list | tuple) else [texts]
    if len(texts) + (audio_file is not None) > MAX_PROMPTS:
        raise InputError(f"at most {MAX_PROMPTS} prompts can be mixed")
    prompts = [read_prompt(text) for text in texts]
    if audio_file is not None:
        prompts.append(read_prompt(audio_file=audio_file))
    if not prompts:
        raise InputError("give a prompt: a text or an image (-t), or a sound file (-f)")
    return tuple(prompts)


def read_negative(negative_prompt: Any, guidance_scale: float) -> Prompt | None:
    """The prompt to go away from, if there is one. Raises InputError, also if nothing would come of it."""
    negative = None if negative_prompt is None else read_prompt(negative_prompt)
    check_negative(negative, guidance_scale)
    return negative


def check_negative(negative: Prompt | None, guidance_scale: float) -> None:
    """Raises InputError if nothing would come of the negative prompt."""
    if negative is not None and guidance_scale == 1:
        raise InputError("a negative prompt needs a guidance scale above 1 (-gs), which leads away from it")


def _is_vector(prompt: str | PathLike[str]) -> bool:
    name = os.fspath(prompt)
    return isinstance(name, str) and name.strip().lower().endswith(VECTOR_SUFFIX) and "://" not in name


def check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One finite weight for each of ``count`` prompts, not all zero; None: 1 each. Negative: away from that prompt.

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
            f"there are {len(numbers)} weights for {count} prompts; each prompt takes one, "
            "in the order of -t, then -f"
        )
    if not all(math.isfinite(weight) for weight in numbers) or not any(numbers):
        raise InputError("the weights must be finite numbers, and not all zero")
    return numbers


def check_prompts(model: LatentDiffusion, prompts: Sequence[Prompt], translator: str | None = None) -> None:
    """See whether ``model`` can encode the prompts: translator, audio tower, dimension. Raises InputError."""
    for prompt in prompts:
        if prompt.kind == "image":
            model.translator(translator)
        elif prompt.kind == "audio" and not model.clap.hears:
            from .checkpoints.hub import text_only

            raise InputError(text_only(model.folder))
        elif prompt.kind == "vector":
            if len(prompt.content) != model.dimension:
                raise InputError(
                    f"{prompt.source} holds {len(prompt.content)} numbers, "
                    f"but a vector of the model {model.folder.name} has {model.dimension}"
                )


def encode_prompt(model: LatentDiffusion, prompt: Prompt, translator: str | None = None) -> Tensor:
    """The prompt as a (1, 512) unit vector in CLAP space, on the model's device. Raises InputError.

    ``translator``: name or file of the one for an image; None is the model's default.
    """
    check_prompts(model, [prompt], translator)
    if prompt.kind == "image":
        found = model.translator(translator)
        if hasattr(found, "leaned_on"):
            return _remembered(model, prompt, found)
        return model.image_encoder([prompt.content], found)
    if prompt.kind == "audio":
        return model.clap.encode_audio([prompt.content])
    if prompt.kind == "vector":
        import torch

        return torch.from_numpy(prompt.content)[None].to(model.device)
    return model.clap.encode_text([prompt.content])


def _remembered(model: LatentDiffusion, prompt: Prompt, memory: Memory) -> Tensor:
    """What encode_prompt gives for a picture; and says, in one line, on which captions the memory leaned."""
    clip = model.clip.encode_image([prompt.content])
    memory = memory.to(clip.device)  # as the image encoder moves its translators
    said = ", ".join(f'{weight:.0%} "{caption}"' for caption, weight in memory.leaned_on(clip))
    log.warning("the memory leaned on %s", said)
    return memory(clip)


def condition(model: LatentDiffusion, prompt: Prompt, translator: str | None = None) -> Tensor:
    """As encode_prompt; and warns, in one line, of a prompt unlike everything the model was trained on, where the
    model knows that for this kind of prompt."""
    vector = encode_prompt(model, prompt, translator)
    names, known, thresholds = model.known_sounds
    if known is not None and prompt.kind in thresholds:
        similarity = (known @ vector[0]).cpu()
        if similarity.max() < thresholds[prompt.kind]:
            near = ", ".join(names[i] for i in similarity.topk(min(3, len(names))).indices)
            log.warning(
                "the model %s may not know this; the nearest sounds it knows: %s",
                model.folder.name,
                near,
            )
    return vector


def mix(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The direction of the weighted sum of (1, 512) unit vectors: (1, 512), of length 1.

    What has the weight 0 does not count, and one vector alone stays as it is, to the bit. Raises InputError if
    nothing is left of the sum.
    """
    counted = [(weight, vector) for weight, vector in zip(weights, vectors, strict=True) if weight]
    if len(counted) == 1:
        weight, vector = counted[0]
        return vector if weight > 0 else -vector
    largest = max(abs(weight) for weight, _ in counted)  # 1e300 squared is no number
    total = sum(weight / largest * vector.double() for weight, vector in counted)
    length = float(total.norm())
    if not length > 1e-4:
        raise InputError("the weighted prompts cancel each other out")
    return (total / length).float()


def condition_all(
    model: LatentDiffusion,
    prompts: Sequence[Prompt],
    weights: Sequence[float] | None = None,
    translator: str | None = None,
) -> Tensor:
    """All prompts, each by its weight, as one (1, 512) unit vector. Raises InputError."""
    weights = check_weights(weights, len(prompts))
    check_prompts(model, prompts, translator)
    return mix([condition(model, prompt, translator) for prompt in prompts], weights)
