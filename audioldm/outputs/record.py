"""What the JSON beside a wav says: all it takes to make the sound again.

Two things it leaves out: the data of a data URI (the hash of its picture is there), and a URL's password.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import re
import time
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from translator.files import sha256
from translator.names import is_data_uri

from .. import translators

if TYPE_CHECKING:
    from ..generation import Sound
    from ..inputs.prompt import Prompt
    from ..inputs.sounds import Original
    from ..latent_diffusion.model import LatentDiffusion
    from ..options import GenerateOptions

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")  # whatever may change the bytes


def make_record(
    model: LatentDiffusion,
    prompts: Prompt | Sequence[Prompt],
    translator: str | None,
    options: GenerateOptions,
    *,
    weights: Sequence[float] | None = None,
    negative: Prompt | None = None,
    original: Original | None = None,
) -> dict[str, Any]:
    """What all sounds of a run share: prompts, model, translator (each with its hash), options, versions.

    ``weights``: of the prompts; ``negative``: the prompt gone away from; ``original``: the sound begun with.
    """
    import torch

    from .. import __version__

    prompts = [prompts] if not isinstance(prompts, Sequence) else list(prompts)
    described = [_prompt_record(prompt) for prompt in prompts]
    if len(prompts) > 1 or weights is not None:
        weights = weights or [1.0] * len(prompts)
        mixed = [{**one, "weight": weight} for one, weight in zip(described, weights, strict=True)]
    else:
        mixed = None
    asked = [*prompts, negative] if negative else prompts
    return {
        **(described[0] if len(prompts) == 1 else {"prompt": described[0]["prompt"], "kind": "mix"}),
        "prompts": mixed,  # where there is more than the one above
        "negative_prompt": _prompt_record(negative) if negative else None,
        "original": _original_record(original) if original else None,
        "model": _model_record(model),
        "translator": _translator_record(model, translator) if any(p.kind == "image" for p in asked) else None,
        "options": _options_record(options),
        "device": str(model.device),
        "precision": model.precision,
        "batch": model.batch,
        "threads": torch.get_num_threads(),
        "versions": {
            "audioldm": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def sound_record(sound: Sound, elapsed: float) -> dict[str, Any]:
    """What is a sound's own. ``elapsed``: seconds since the run began."""
    return {
        "item": sound.item,
        "candidate": sound.candidate,
        "noise_seed": sound.noise_seed,
        "similarity": sound.similarity,
        "samples": len(sound.wave),
        **({} if sound.gain == 1 else {"gain": sound.gain}),  # all of it was made softer, to fit full scale
        "elapsed_seconds": round(elapsed, 3),
    }


def shown_source(prompt: Prompt) -> str:
    """The prompt as given, but of a data URI only its beginning and length, and of a URL no user or password."""
    source = prompt.source
    if prompt.kind != "image":
        return source
    if is_data_uri(source) and len(source) > 80:
        return f"{source[:60]}… ({len(source)} characters)"
    return re.sub(r"^(https?://)[^/?#]*@", r"\1", source, flags=re.I)


def _prompt_record(prompt: Prompt) -> dict[str, Any]:
    gain = {} if prompt.gain == 1 else {"gain": prompt.gain}  # of a sound beyond full scale
    described = {"prompt": shown_source(prompt), "kind": prompt.kind, "content_sha256": content_hash(prompt)}
    return {**described, **gain, **prompt.found}


def _original_record(original: Original) -> dict[str, Any]:
    """Its name, the SHA-256 of its float32 samples at 16 kHz, and what its own were multiplied by."""
    return {"file": original.path, "content_sha256": original.sha256, "gain": original.gain}


def _options_record(options: GenerateOptions) -> dict[str, Any]:
    """All options, without those that another mode would have."""
    return {name: value for name, value in dataclasses.asdict(options).items() if value is not None}


def content_hash(prompt: Prompt) -> str:
    """SHA-256 of what was encoded: UTF-8 of a text, RGB pixels, float32 samples of a sound or numbers of a vector."""
    if prompt.kind == "text":
        return hashlib.sha256(prompt.content.encode()).hexdigest()
    return hashlib.sha256(prompt.content.tobytes()).hexdigest()


def _model_record(model: LatentDiffusion) -> dict[str, Any]:
    return {"name": model.folder.name, "sha256": model.sha256}


def _translator_record(model: LatentDiffusion, name: str | None) -> dict[str, Any]:
    entry = translators.find(model, name)
    return {
        "name": entry.name,
        "sha256": sha256(entry.path),
        **{key: value for key, value in entry.metadata.items() if key != "captions"},  # 2,000 of a memory
    }
