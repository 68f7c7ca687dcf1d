"""AudioCaps' captions through the text towers of CLIP and CLAP, both at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import command
from ..engine.embed import TOWERS
from .reader import AudioCaps

MODULE = "prior_steps.audiocaps.embedding"


def work(argv: Sequence[str] | None, module: str = MODULE, towers: tuple[str, ...] = TOWERS) -> int:
    """Run the command; returns the exit code. Raises InputError."""
    who = " and ".join(tower.upper() for tower in towers)
    p = command.parser(module, f"Embed AudioCaps' captions with {who}.", "--limit 1000")
    files = "train.csv, val.csv, test.csv, or their folder [the captions that come with this package]"
    p.add_argument("--csv", nargs="+", metavar="FILE", help=files)
    p.add_argument("--splits", nargs="+", metavar="NAME", help="splits to embed: train, val, test [all]")
    command.add_run(p, "build/embeddings/audiocaps")
    args = p.parse_args(argv)
    return command.embed(args, AudioCaps(args.csv, splits=args.splits), towers=towers)


main = command.script(MODULE, work)

if __name__ == "__main__":
    sys.exit(main())
