"""Conceptual Captions' pictures through CLIP's image tower, and their captions through CLAP's text tower.

https://ai.google.com/research/ConceptualCaptions/download has the .tsv files; tars in webdataset's layout contain the
pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import command
from .reader import ConceptualCaptions

MODULE = "prior_steps.conceptual_captions.embedding"
EXAMPLE = "Validation_GCC-1.1.0-Validation.tsv --contact you@example.org --limit 1000"
NEEDS = "with that file of https://ai.google.com/research/ConceptualCaptions/download in this folder"


def work(argv: Sequence[str] | None) -> int:
    """Run the command; returns the exit code. Raises InputError."""
    about = "Embed Conceptual Captions' pictures with CLIP and their captions with CLAP."
    p = command.parser(MODULE, about, EXAMPLE, NEEDS)
    p.add_argument("files", nargs="+", metavar="FILE", help="published .tsv, .tsv.gz or .tar files, or their folder")
    command.add_fetch(p)
    command.add_run(p, "build/embeddings/conceptual_captions")
    args = p.parse_args(argv)
    return command.embed(args, ConceptualCaptions(args.files), command.fetcher(args), kind="image")


main = command.script(MODULE, work)

if __name__ == "__main__":
    sys.exit(main())
