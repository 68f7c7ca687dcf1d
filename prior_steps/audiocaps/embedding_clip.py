"""AudioCaps' captions through CLIP's text tower; ``embedding_clap`` adds CLAP's, ``embedding`` makes both."""

from __future__ import annotations

import sys

from .. import command
from ..engine.embed import CLIP
from . import embedding

MODULE = "prior_steps.audiocaps.embedding_clip"

main = command.script(MODULE, lambda argv: embedding.work(argv, MODULE, (CLIP,)))

if __name__ == "__main__":
    sys.exit(main())
