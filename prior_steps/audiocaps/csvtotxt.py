"""Shards → the thesis's text files, muestra_0.txt and on, one for each pair: for programs that read those.

The original joined two CSV files here, of CLIP's and CLAP's vectors; today a shard has both.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from audioldm.errors import InputError
from translator import TranslatorError
from translator.shards.parquet import open_shards
from translator.shards.text_files import write_text_pair

from .. import command
from ..engine.progress import Progress
from ..engine.write import read_shard

MODULE = "prior_steps.audiocaps.csvtotxt"
NEEDS = "after prior_steps.audiocaps.embedding"


def export(shards: Sequence[str | Path], out: str | Path, limit: int | None = None) -> int:
    """Write the pairs of ``shards`` into the new folder ``out``, whole or not at all; returns how many. 26 kB each.

    Raises InputError: no shards; they lack CLAP's vectors; ``out`` is there; it cannot be written.
    """
    out = Path(os.path.expanduser(out))
    if os.path.lexists(out):
        raise InputError(f"{out} exists already, and nothing is overwritten")
    try:
        found = open_shards(shards)
    except TranslatorError as error:
        raise InputError(str(error)) from None
    if not found[0].clap_space:
        raise InputError(f"{found[0].path} has no vectors of CLAP; embedding_clap adds them")
    pairs = (pair for shard in found for pair in _pairs(shard.path))
    number = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            folder = Path(scratch) / "pairs"
            folder.mkdir()
            with Progress("csvtotxt", limit) as progress:
                for number, pair in enumerate(islice(pairs, limit), 1):
                    write_text_pair(folder / f"muestra_{number - 1}.txt", *pair)
                    progress.add(1)
            folder.rename(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None
    return number


def _pairs(shard: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    embedded = read_shard(shard)
    if embedded.clip is None or embedded.clap is None:
        return
    both = ~np.isnan(embedded.clip[:, 0]) & ~np.isnan(embedded.clap[:, 0])
    yield from zip(embedded.clip[both], embedded.clap[both], strict=True)


def work(argv: Sequence[str] | None) -> int:
    """Do what the arguments say; returns the exit code. Raises InputError."""
    p = command.parser(MODULE, "Write shards as text files, one for each pair.", "--limit 10", NEEDS)
    default = "build/embeddings/audiocaps"
    p.add_argument("--shards", nargs="+", default=[default], metavar="PATH", help=f"files or folders [{default}]")
    p.add_argument(
        "--out", default="build/embeddings/audiocaps_txt", metavar="FOLDER", help="a new one [%(default)s]"
    )
    p.add_argument("--limit", type=command.positive, metavar="N", help="pairs to write [all]")
    args = p.parse_args(argv)
    print(f"{args.out}: {export(args.shards, args.out, args.limit):,} pairs")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command.main(MODULE, work, argv)


if __name__ == "__main__":
    sys.exit(main())
