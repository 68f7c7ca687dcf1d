"""Shards → the thesis's text files muestra_0.txt, muestra_1.txt …, one per pair, for programs that read those.

The thesis's script of this name joined two CSV files, of CLIP's and CLAP's vectors; here a shard has both.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from audioldm.errors import InputError
from translator.files import output_path, writing_folder
from translator.programs import program
from translator.shards.parquet import open_shards
from translator.shards.text_files import write_text_pair

from .. import command
from ..engine.progress import Progress
from ..engine.write import read_shard

MODULE = "prior_steps.audiocaps.csvtotxt"
NEEDS = "after audioldm-embed audiocaps"


def export(shards: Sequence[str | Path], out: str | Path, limit: int | None = None) -> int:
    """Write the pairs of ``shards`` (26 kB each) as the new folder ``out``, whole or not at all; returns their number.

    Raises InputError: there are no shards, they lack CLAP's vectors, or ``out`` exists or cannot be written.
    """
    out = output_path(out)
    if os.path.lexists(out):
        raise InputError(f"{out} already exists; refusing to overwrite")
    found = open_shards(shards)
    if not found[0].clap_space:
        add = f"{program('audioldm-embed')} audiocaps_clap --out {shlex.quote(str(found[0].path.parent))}"
        raise InputError(f"{found[0].path} has no CLAP vectors; to add them: {add}")
    pairs = (pair for shard in found for pair in _pairs(shard.path))
    number = 0
    try:
        with writing_folder(out) as folder, Progress("csvtotxt", limit) as progress:
            for number, pair in enumerate(islice(pairs, limit), 1):
                write_text_pair(folder / f"muestra_{number - 1}.txt", *pair)
                progress.add(1)
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
    """Run the command; returns the exit code. Raises InputError."""
    p = command.parser(MODULE, "Convert shards to text files, one per pair.", "--limit 10", NEEDS)
    default = "build/embeddings/audiocaps"
    p.add_argument("--shards", nargs="+", default=[default], metavar="PATH", help=f"shards or folders [{default}]")
    p.add_argument(
        "--out", default="build/embeddings/audiocaps_txt", metavar="FOLDER", help="new output folder [%(default)s]"
    )
    p.add_argument("--limit", type=command.positive, metavar="N", help="number of pairs to write [all]")
    args = p.parse_args(argv)
    print(f"{args.out}: {export(args.shards, args.out, args.limit):,} pairs")
    return 0


main = command.script(MODULE, work)

if __name__ == "__main__":
    sys.exit(main())
