"""WIT's pictures through CLIP's image tower, and their captions through CLAP's text tower.

https://github.com/google-research-datasets/wit has the .tsv.gz files, one of them a sample of 1 %; Hugging Face has the
.parquet files of ``wikimedia/wit_base``, with the pictures in them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import command
from .reader import CAPTIONS, RASTER, Wit

MODULE = "prior_steps.wit.embedding"
EXAMPLE = "wit_v1.train.all-1percent_sample.tsv.gz --contact you@example.org --limit 1000"
NEEDS = "with that file of https://github.com/google-research-datasets/wit in this folder"


def work(argv: Sequence[str] | None) -> int:
    """Do what the arguments say; returns the exit code. Raises InputError."""
    p = command.parser(MODULE, "Embed WIT's pictures with CLIP and their captions with CLAP.", EXAMPLE, NEEDS)
    p.add_argument("files", nargs="+", metavar="FILE", help=".tsv, .tsv.gz or .parquet as published, or their folder")
    p.add_argument("--language", default="en", metavar="CODE", help="of the captions; all takes any [%(default)s]")
    p.add_argument(
        "--captions",
        nargs="+",
        default=list(CAPTIONS),
        metavar="COLUMN",
        help=f"the first that is not empty is taken [{' '.join(CAPTIONS)}]",
    )
    types = "of the pictures behind a .tsv's addresses [those of photographs that can be read]"
    p.add_argument("--mime", nargs="+", default=RASTER, metavar="TYPE", help=types)
    command.add_fetch(p)
    command.add_run(p, "build/embeddings/wit")
    args = p.parse_args(argv)
    language = None if args.language == "all" else args.language
    reader = Wit(args.files, language=language, captions=args.captions, mime_types=args.mime)
    return command.embed(args, reader, command.fetcher(args), kind="image", retry=args.retry)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command.main(MODULE, work, argv)


if __name__ == "__main__":
    sys.exit(main())
