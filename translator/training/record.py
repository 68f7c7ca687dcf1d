"""The record of a translator, in its header and in a JSON file beside it: its data, settings and scores."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import InputError
from ..files import write
from ..model import BaseTranslator, save_translator
from ..settings import Settings
from ..shards.pairs import Pairs
from ..zoo import current


def data_facts(sources: dict[str, Pairs]) -> dict[str, Any]:
    """The facts about the data: the spaces, and the pairs of every source."""
    shards = [shard for pairs in sources.values() for shard in pairs.shards]
    claps = [shard.clap_space for shard in shards if shard.clap_space]
    if not claps:
        raise InputError("the data have no CLAP vectors")
    data = {
        name: {
            "pairs": pairs.train,
            "held_out": pairs.held_out,
            "pictures": pairs.pictures,
            "unused": pairs.unused,
            "share_held_out": pairs.share,
            "rows": pairs.fingerprint,
            **({"collections": pairs.collections} if len(pairs.collections) > 1 else {}),
        }
        for name, pairs in sources.items()
    }
    return {"clip_space": shards[0].clip_space, "clap_space": claps[0], "data": data}


def made_of(settings: Settings, facts: dict[str, Any]) -> dict[str, object]:
    """Spaces, data and settings; trainings in which these are equal give equal translators."""
    data = {name: facts["data"][name] for name in settings.sources}
    chosen = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
    means = {"means_of": facts["data"]} if settings.centred else {}
    return {**facts, "data": data, **means, "settings": chosen}


def matches(found: dict[str, Any], made: dict[str, Any]) -> bool:
    """Whether ``found`` has all that ``made`` says; a space may have a former name. Raises KeyError, TypeError."""
    return all((current(found[key]) if key.endswith("_space") else found[key]) == made[key] for key in made)


def is_finished(path: Path, made: dict[str, Any]) -> bool:
    """Whether ``path`` exists and was made as ``made`` says. Raises InputError if it was made otherwise."""
    if not path.exists():
        return False
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        same = matches(found, made)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise InputError(f"{path} already exists, made with other settings or data; choose another folder")
    return True


def save(
    translator: BaseTranslator,
    name: str,
    kind: str,
    made: dict[str, Any],
    out: Path,
    half: bool,
    more: dict[str, str] | None = None,
) -> Path:
    """Write <name>.json with all facts about a translator, then <name>.safetensors with a summary as metadata."""
    made = {"name": name, "kind": kind, **made, "date": datetime.date.today().isoformat(), "torch": torch.__version__}
    metrics = made.get("metrics", {})
    summary = {
        "name": name, "kind": kind, "clip_space": made["clip_space"], "clap_space": made["clap_space"],
        "data": ", ".join(f"{source} {facts['pairs']}" for source, facts in made["data"].items()),
        "held_out": str(min(facts["share_held_out"] for facts in made["data"].values())),
        "date": made["date"], **(more or {}),
        **{key: str(metrics[key]) for key in ("held_out_cosine", "constant_cosine") if key in metrics},
        **{key: str(value) for key, value in made.get("settings", {}).items()
           if key in ("loss", "noise", "centred") and value},
    }  # fmt: skip
    write(out / f"{name}.json", (json.dumps(made, indent=2) + "\n").encode())
    path = out / f"{name}.safetensors"
    save_translator(path, translator, summary, torch.float16 if half else torch.float32)
    return path
