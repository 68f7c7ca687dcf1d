"""WIT's pictures through CLIP's image tower, and their captions through CLAP's text tower.

https://github.com/google-research-datasets/wit has the .tsv.gz files, one of them a 1 % sample. Hugging Face has the
.parquet files of ``wikimedia/wit_base``, which contain the pictures.
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
    """Run the command; returns the exit code. Raises InputError."""
    p = command.parser(MODULE, "Embed WIT's pictures with CLIP and their captions with CLAP.", EXAMPLE, NEEDS)
    p.add_argument("files", nargs="+", metavar="FILE", help="published .tsv, .tsv.gz or .parquet file, or its folder")
    p.add_argument("--language", default="en", metavar="CODE", help="language of the captions, or all [%(default)s]")
    p.add_argument(
        "--captions",
        nargs="+",
        default=list(CAPTIONS),
        metavar="COLUMN",
        help=f"caption columns; the first one that is not empty is used [{' '.join(CAPTIONS)}]",
    )
    types = "MIME types of the pictures behind a .tsv's URLs [all readable raster formats]"
    p.add_argument("--mime", nargs="+", default=RASTER, metavar="TYPE", help=types)
    command.add_fetch(p)
    command.add_run(p, "build/embeddings/wit")
    args = p.parse_args(argv)
    language = None if args.language == "all" else args.language
    reader = Wit(args.files, language=language, captions=args.captions, mime_types=args.mime)
    return command.embed(args, reader, command.fetcher(args), kind="image")


main = command.script(MODULE, work)

if __name__ == "__main__":
    sys.exit(main())
