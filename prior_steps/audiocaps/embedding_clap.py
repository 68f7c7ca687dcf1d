"""CLAP's vectors for the shards of ``embedding_clip``, which are so complete. ``embedding`` does both at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import command
from ..engine.complete import add_clap
from ..engine.run import report

MODULE = "prior_steps.audiocaps.embedding_clap"
NEEDS = "after prior_steps.audiocaps.embedding_clip"


def work(argv: Sequence[str] | None) -> int:
    """Do what the arguments say; returns the exit code. Raises InputError."""
    p = command.parser(MODULE, "Add CLAP's vectors to the shards that embedding_clip made.", "", NEEDS)
    p.add_argument(
        "--out", default="build/embeddings/audiocaps", metavar="FOLDER", help="that of embedding_clip [%(default)s]"
    )
    command.add_model(p)
    args = p.parse_args(argv)
    print(report(add_clap(args.out, args.model, args.device)))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command.main(MODULE, work, argv)


if __name__ == "__main__":
    sys.exit(main())
