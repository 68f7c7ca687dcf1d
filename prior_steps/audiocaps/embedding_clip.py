"""AudioCaps' captions through CLIP's text tower; ``embedding_clap`` adds CLAP's, ``embedding`` makes both."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import command
from ..engine.embed import CLIP
from . import embedding

MODULE = "prior_steps.audiocaps.embedding_clip"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.main(MODULE, lambda argv: embedding.work(argv, MODULE, (CLIP,)), argv)


if __name__ == "__main__":
    sys.exit(main())
