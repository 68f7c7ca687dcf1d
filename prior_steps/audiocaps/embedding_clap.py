"""CLAP's vectors, added to the shards of ``embedding_clip``; ``embedding`` makes both at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import command
from ..engine.complete import add_clap

MODULE = "prior_steps.audiocaps.embedding_clap"
NEEDS = "after audioldm-embed audiocaps_clip"


def work(argv: Sequence[str] | None) -> int:
    """Run the command; returns the exit code. Raises InputError."""
    p = command.parser(MODULE, "Add CLAP's vectors to the shards that embedding_clip made.", "", NEEDS)
    default = "build/embeddings/audiocaps"
    p.add_argument("--out", default=default, metavar="FOLDER", help="output folder of embedding_clip [%(default)s]")
    command.add_model(p, default=None)
    args = p.parse_args(argv)
    return command.end(add_clap(args.out, args.model, args.device))


main = command.script(MODULE, work)

if __name__ == "__main__":
    sys.exit(main())
