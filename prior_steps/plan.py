"""What ``make`` has to do: which translators learn from which collections, and what must be there for it."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from audioldm.checkpoints.download import download
from audioldm.checkpoints.layout import cache_dir
from audioldm.errors import InputError
from audioldm.latent_diffusion.model import check_how
from translator import settings

from .audiocaps.reader import AudioCaps
from .command import fetcher
from .conceptual_captions.reader import ConceptualCaptions
from .engine.worker import Job
from .parts import SHARD_ROWS, Part
from .wit.reader import Wit

if TYPE_CHECKING:
    from translator.shards.pairs import Pairs

    from .engine.embed import Kind
    from .engine.worker import Fetcher
    from .readers import Reader

SAMPLE = "sample"
SAMPLE_URL = "https://storage.googleapis.com/gresearch/wit/wit_v1.train.all-1percent_sample.tsv.gz"
SAMPLE_BYTES = 250_000_000  # about: a hundredth of WIT's 25 GB


@dataclass(eq=False)
class Source:
    """What translators learn from under one name: a collection, or two that count as one."""

    name: str
    parts: list[Part]

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs of the shards, once all are there. Raises InputError."""
        from translator.shards.pairs import Pairs
        from translator.shards.parquet import open_shards

        return Pairs(open_shards(part.folder for part in self.parts), settings.Settings.held_out, self.name)


@dataclass(eq=False)
class Lot:
    """Translators that learn from the same sources."""

    names: list[str]
    sources: list[Source]

    @property
    def parts(self) -> list[Part]:
        return [part for source in self.sources for part in source.parts]

    @property
    def begun(self) -> bool:
        """Whether something of each part is embedded."""
        return all(part.folder.exists() for part in self.parts)

    @property
    def embedded(self) -> bool:
        return not any(part.left for part in self.parts)

    @property
    def pairs(self) -> dict[str, Pairs]:
        return {source.name: source.pairs for source in self.sources}

    @cached_property
    def out(self) -> Path:
        """The folder of the translators, named by the content of the shards, once all are there. Raises InputError."""
        from translator.training.record import data_facts

        facts = json.dumps(data_facts(self.pairs), sort_keys=True)
        return self.parts[0].work / f"translators-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"

    def seconds(self, dim: int) -> float:
        """About how long the rest of the training takes."""
        from translator.training.named import Order
        from translator.training.train import estimate

        counts = {source.name: sum(part.count for part in source.parts) for source in self.sources}
        wanted, out = Order(self.names, {}).settings(list(counts)), self.out if self.embedded else None
        todo = [one for one in wanted if out is None or not (out / f"{one.name}.safetensors").exists()]
        return 2.0 + estimate(todo, counts, dim, out)


def uses(name: str, pictures: bool) -> frozenset[str]:
    """The sources that the translator called ``name`` learns from. Raises InputError: the name has no meaning.

    ``pictures``: whether there are any; those that are made of all pairs use them, too.
    """
    of_all = name in (*settings.CLOSED_FORM, settings.MEMORY)
    own = ("audiocaps",) if of_all else settings.parse(name).sources
    return frozenset(own) | ({"wit"} if settings.needs_pictures(name) or of_all and pictures else set())


def lots(args: argparse.Namespace, names: list[str], model: str, work: Path) -> list[Lot]:
    """The translators ``names``, by the sources that they learn from. Raises InputError."""
    groups, sources = dict[frozenset[str], list[str]](), dict[str, Source]()
    for name in names:
        groups.setdefault(uses(name, _has_pictures(args)), []).append(name)
    for reader, kind, fetch in _readers(args, frozenset().union(*groups), with_sample=True):
        job = Job(reader, kind, model, args.device, fetcher=fetch, limit=args.limit, shard_rows=SHARD_ROWS[kind],
                  retry=fetch is not None and args.retry)  # fmt: skip
        source = settings.PART_OF.get(reader.name, reader.name)
        part = Part(job, work, ignores_noai=fetch is not None and args.ignore_noai)
        sources.setdefault(source, Source(source, [])).parts.append(part)
    return [Lot(group, [sources[source] for source in sorted(used)]) for used, group in groups.items()]


def _has_pictures(args: argparse.Namespace) -> bool:
    return bool(args.wit or args.cc)


def _readers(
    args: argparse.Namespace, sources: Collection[str], with_sample: bool
) -> Iterator[tuple[Reader, Kind, Callable[[], Fetcher] | None]]:
    """The reader of each collection, the kind of its rows and what fetches its pictures. Raises InputError.

    ``with_sample``: whether the sample of WIT, which is downloaded, is one of them.
    """
    if "audiocaps" in sources:
        yield AudioCaps(), "text", None
    if "wit" not in sources:
        return
    fetch = fetcher(args)
    if args.wit and (args.wit != SAMPLE or with_sample):
        yield Wit(sample() if args.wit == SAMPLE else args.wit), "image", fetch
    if args.cc:
        yield ConceptualCaptions(args.cc), "image", fetch


def check(args: argparse.Namespace, names: list[str]) -> None:
    """Look at everything that needs no download, and say which files are not used.

    Raises InputError: a name has no meaning, a file, the contact or the device is missing or wrong.
    """
    sources = frozenset().union(*(uses(name, _has_pictures(args)) for name in names))
    if "wit" not in sources:
        for flag, file in (("--wit", args.wit), ("--cc", args.cc)):
            if file:
                print(f"not used by {', '.join(names)}: {flag} {file}", file=sys.stderr)
    elif not _has_pictures(args):
        raise InputError(
            f"{next(filter(settings.needs_pictures, names))} learns from pictures with captions: give --wit {SAMPLE} "
            f"(a hundredth of WIT, {SAMPLE_BYTES / 1e6:.0f} MB, and its pictures), --wit FILE of WIT or --cc FILE of "
            "Conceptual Captions"
        )
    elif args.wit and not args.wit.endswith(".parquet") and not args.contact:
        raise InputError("the pictures of WIT are Wikimedia's, which requires a contact: --contact YOUR@MAIL")
    for reader, _, _ in _readers(args, sources, with_sample=False):
        iter(reader)
    check_how(args.device, "auto", None)


def sample() -> Path:
    """Google's sample of WIT, downloaded once. Raises InputError."""
    path = cache_dir() / "wit" / SAMPLE_URL.rpartition("/")[2]
    return download(SAMPLE_URL, path, about=SAMPLE_BYTES, note="licence: CC BY-SA 3.0")
