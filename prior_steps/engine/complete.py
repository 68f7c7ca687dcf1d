"""CLAP's vectors for shards that have only CLIP's: the second of the thesis's two steps."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

from audioldm.errors import InputError
from audioldm.registry import DEFAULT_MODEL
from translator.programs import program

from .embed import CLAP, TOWERS, Embedded, Embedder
from .progress import Progress
from .worker import shard_schema
from .write import Folder, read_manifest, read_shard, shards, write_shard


def add_clap(out: str | Path, model: str | None = None, device: str = "auto") -> Folder:
    """Complete the shards of the finished run in ``out``, each in its place, whole or not at all.

    ``model``: None: the one that made the shards.
    Raises InputError: there is no such run, it is not finished, or it was made with another model.
    """
    path = Path(os.path.expanduser(out))
    manifest = read_manifest(path)
    if manifest is None:
        more = "" if model is None else f" --model {shlex.quote(model)}"
        first = f"{program('audioldm-embed')} audiocaps_clip --out {shlex.quote(str(path))}{more}"
        raise InputError(f"{path} has no shards; first run: {first}")
    if not manifest.get("finished"):
        raise InputError(f"{path} is not finished; rerun the command that started it")
    settings = manifest["settings"]
    embedder = Embedder(model or settings.get("model", DEFAULT_MODEL), device, towers=(CLAP,))
    spaces = dict(zip(("clip_space", "clap_space"), embedder.model.spaces, strict=True))
    with Folder(path, {**settings, **spaces}, embedder.versions) as folder:
        if CLAP in settings["towers"]:
            print(f"{path} already has CLAP's vectors", file=sys.stderr)
            return folder
        schema = shard_schema(embedder, settings["source"])
        began = time.monotonic()
        with Progress(settings["source"], folder.statuses.total()) as progress:
            folder.statuses.clear()
            for shard in shards(path).values():
                before = read_shard(shard)
                after = before if before.clap is not None else _complete(before, embedder)
                folder.statuses += write_shard(shard, after, schema, settings["clip_kind"])
                progress.add(len(after.rows))
        folder.manifest["settings"]["towers"] = list(TOWERS)
        folder.manifest["seconds"] += time.monotonic() - began
        folder.save()
    return folder


def _complete(shard: Embedded, embedder: Embedder) -> Embedded:
    """Add CLAP's vectors; a row that CLAP fails loses CLIP's vector, too."""
    added = embedder([(row, None) for row in shard.rows])
    return Embedded(added.rows, shard.clip, added.clap)
