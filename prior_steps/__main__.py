"""The command ``audioldm-embed``: the scripts of this package under one name, as ``python -m prior_steps`` is, too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from audioldm.commands.common import Parser, command

from .command import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``audioldm-embed``; returns its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given and given[0] in COMMANDS:
        script = import_module(f"prior_steps.{COMMANDS[given[0]][0]}")
        return int(script.main(given[1:], as_program=argv is None, name=f"audioldm-embed {given[0]}"))
    return command(lambda: _help(given), as_program=argv is None, name="audioldm-embed")


def _help(given: Sequence[str]) -> int:
    parser = Parser(
        "audioldm-embed",
        description="Captions and pictures to shards of embeddings, on which translators are trained.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (_, about) in COMMANDS.items():
        commands.add_parser(name, help=about)
    parser.parse_args(given or ["-h"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
