"""Many prompts in one run: the rows of a list → sounds → a manifest with a line for each, made or failed.

A rerun skips the rows that the manifest calls done. It repeats rows that failed or whose files are missing. A row's
key is a hash over its name, its words or picture, the options, the model and the translator.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from translator.files import printable, sha256

from .. import conditioning, generation, registry
from ..errors import InputError
from ..inputs import rows
from ..inputs.prompt import Prompt, kind_of, read_prompt
from ..inputs.vector import SUFFIX
from ..outputs.destination import Destination, make_record
from ..outputs.manifest import FIELDS, Manifest
from .common import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from ..inputs.rows import Row
    from ..inputs.sounds import Original
    from ..latent_diffusion.model import LatentDiffusion
    from ..options import GenerateOptions

log = logging.getLogger("audioldm")


def run(
    source: str,
    model: LatentDiffusion,
    options: GenerateOptions,
    folder: str = "./output",
    translator: str | None = None,
    *,
    negative: Prompt | None = None,
    original: Original | None = None,
    announce: Callable[[], object] = lambda: None,
) -> int:
    """Make the missing sounds of the list or folder ``source``; returns the exit code: 0, or 1 if rows failed.

    ``options`` and ``translator`` are for rows that do not say otherwise, ``negative`` and ``original`` (the sound
    that an edit begins with) for all. ``announce`` is called once all is well and before anything is made. The paths
    of the new wavs go to stdout, all else to stderr.

    Raises InputError: the list as a whole is bad, the folder cannot be written or is another run's, or the model is
    damaged. What is wrong with a row is a failed row.
    """
    listed = rows.read(source)
    first = next(listed)  # a bad list is reported before a folder is made
    with Manifest(folder) as manifest:
        announce()
        batch = Batch(model, options, translator, manifest, negative, original)
        try:
            total = sum(1 for _ in rows.read(source, on_note=lambda note: None))
            with Progress(total, "row") as progress:
                for row in itertools.chain([first], listed):
                    _show(batch.do(row), manifest.folder, progress)
        except KeyboardInterrupt:
            if batch.count:
                print(batch.summary(), file=sys.stderr)
            raise
        print(batch.summary(), file=sys.stderr)
    return 1 if batch.count["failed"] else 0


class Batch:
    """What the rows of a run share."""

    def __init__(
        self,
        model: LatentDiffusion,
        options: GenerateOptions,
        translator: str | None,
        manifest: Manifest,
        negative: Prompt | None = None,
        original: Original | None = None,
    ) -> None:
        self.model, self.options, self.translator, self.manifest = model, options, translator, manifest
        self.negative, self.original = negative, original
        self.count: Counter[str] = Counter()  # rows: ok, failed, skipped, with a warning
        self._hash = lru_cache(maxsize=None)(sha256)  # of translators, which are few
        self._negative_vectors: dict[str | None, Tensor] = {}  # by translator

    def do(self, row: Row) -> dict[str, Any] | None:
        """Make a row's sounds and return its line of the manifest, or None if they are there already.

        A failure, of whatever kind, is a line too; Ctrl-C leaves neither line nor files. Raises InputError if the
        model is damaged, and OSError if the manifest cannot be written.
        """
        began = time.perf_counter()
        text = Prompt("image", row.prompt, None).shown
        entry = {**dict.fromkeys(FIELDS), "id": row.id, "prompt": text, "model": self.model.folder.name}
        try:
            options, translator, negative = self._check(row, entry)
        except Exception as error:
            return self._finish(entry, began, error)
        if self.manifest.take_done(entry["key"]):
            self.count["skipped"] += 1
            return None
        _ = self.model.unet, self.model.vae, self.model.vocoder  # if they are damaged, it is no row's failure
        paths: list[Path] = []
        try:
            notes = self._make(row, options, translator, negative, paths)
            entry |= {"files": [path.name for path in paths], "warning": " ".join(notes) or None}
            return self._finish(entry, began)
        except Exception as error:
            _remove(paths)
            return self._finish(entry, began, error)
        except BaseException:
            _remove(paths)
            raise

    def _check(self, row: Row, entry: dict[str, Any]) -> tuple[GenerateOptions, str | None, str | None]:
        """A row's options, translator and own negative prompt, noted with its key in ``entry``. Raises InputError."""
        if row.error is not None:
            raise InputError(row.error)
        settings = dict(row.settings)
        translator, against = settings.pop("translator", self.translator), settings.pop("negative_prompt", None)
        options = dataclasses.replace(self.options, **settings).check()
        conditioning.check_negative(self.negative if against is None else against, options.guidance_scale)
        prompt, name, kind, translator_hash = row.prompt.strip(), row.name, kind_of(row.prompt), None
        path = os.path.expanduser(prompt)
        seen = kind == "image" and not prompt.lower().endswith(SUFFIX)
        if against is not None:
            seen = seen or kind_of(against) == "image"
        elif self.negative is not None:
            seen = seen or self.negative.kind == "image"
        if seen:
            found = registry.find_or_make_translator(self.model, translator)
            translator_hash = self._hash(found.path)
            entry["translator"] = found.name
        if kind == "image" and os.path.isfile(path):
            prompt, name = sha256(path), name or os.path.basename(path)
        parts = [name, kind, prompt, options.chosen, translator_hash, *self._shared]
        if against is not None:
            parts.append(sha256(file) if os.path.isfile(file := os.path.expanduser(against)) else against)
        entry["key"] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        entry["seed"] = options.seed
        return options, translator, against

    @cached_property
    def _shared(self) -> list[str | None]:
        """What is in the keys of all rows."""
        negative = None if self.negative is None else self.negative.sha256
        original = None if self.original is None else self.original.sha256
        return [self.model.sha256, negative, original]

    def _make(
        self, row: Row, options: GenerateOptions, translator: str | None, against: str | None, paths: list[Path]
    ) -> list[str]:
        """Make and write a row's sounds, as a run of its own would; ``paths`` grows by each wav. Returns the notes."""
        began, notes = time.perf_counter(), []
        prompt = read_prompt(row.prompt, on_note=notes.append)
        vector = conditioning.condition(self.model, prompt, translator, notes.append)
        rejected = self.negative if against is None else read_prompt(against, on_note=notes.append)
        negative = self._negative_vectors.get(translator) if against is None else None
        if rejected is not None and negative is None:
            negative = conditioning.encode_prompt(self.model, rejected, translator, notes.append)
            if against is None:
                self._negative_vectors = {translator: negative}
        facts = make_record(self.model, prompt, translator, options, negative=rejected, original=self.original)
        destination = Destination(self.manifest.folder, row.stem, count=options.batchsize)
        for sound in generation.generate(
            self.model, vector, options, negative=negative, original=self.original, on_note=notes.append
        ):
            own = sound.record(time.perf_counter() - began)
            paths.append(destination.write(sound.item, sound.wave, {**facts, **own}))
        return notes

    def _finish(self, entry: dict[str, Any], began: float, error: Exception | None = None) -> dict[str, Any]:
        if error is not None and os.environ.get("AUDIOLDM_DEBUG") == "1":
            traceback.print_exception(error)
        entry |= {"status": "ok" if error is None else "failed", "seconds": round(time.perf_counter() - began, 3)}
        if error is not None:
            entry |= {"files": [], "warning": None, "error": _sentence(error)}
        self.manifest.append(entry)
        self.count.update([entry["status"], *(["with a warning"] if entry["warning"] else [])])
        return entry

    def summary(self) -> str:
        """One sentence about all rows."""
        text = f"audioldm: {self.count['ok']} made, {self.count['skipped']} made before, {self.count['failed']} failed"
        doubts = f" ({self.count['with a warning']} with a warning)" if self.count["with a warning"] else ""
        return f"{text}{doubts}; {self.manifest.path} has a line for each"


def _show(entry: dict[str, Any] | None, folder: Path, progress: Progress) -> None:
    """A row is over (None: it was skipped): stdout gets the paths of its wavs, stderr its failure."""
    if entry is not None and entry["error"] is not None:
        text = f"audioldm: row {entry['id']} failed: {entry['error']}"
        progress.say(printable(text, len(text)), sys.stderr)
    for name in entry["files"] if entry is not None else ():
        progress.say(str(folder / name), sys.stdout)
    progress.update()


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _remove(wavs: list[Path]) -> None:
    """Remove the sounds of a failed row."""
    for path in wavs:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
