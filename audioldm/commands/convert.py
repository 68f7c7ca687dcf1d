"""The command ``audioldm-convert``: an original checkpoint → a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.layout import read_json, reporting
from ..convert import checkpoint
from .common import Parser, command


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``audioldm-convert``. Returns its exit code, as audioldm's."""
    parser = Parser("audioldm-convert", description="Write an original AudioLDM checkpoint as a model folder.")
    parser.add_argument("checkpoint", metavar="IN.ckpt", type=Path)
    parser.add_argument("folder", metavar="OUT_FOLDER", type=Path)
    parser.add_argument("--dtype", choices=checkpoint.DTYPES, default="fp32", help="of the weights [fp32]")
    parser.add_argument("--tokenizer", metavar="FOLDER", type=Path, help="RoBERTa's [beside IN.ckpt, or the hub]")
    parser.add_argument("--config", metavar="JSON", type=Path, help="upstream's configuration, for another size")

    def run() -> int:
        args = parser.parse_args(argv)
        untold = None
        if args.config is not None:
            with reporting(args.config):
                untold = checkpoint.Untold.from_config(read_json(args.config))
        checkpoint.split(checkpoint.read(args.checkpoint))
        tokenizer = args.tokenizer or checkpoint.find_tokenizer(args.checkpoint)
        print(checkpoint.convert(args.checkpoint, args.folder, args.dtype, tokenizer, untold))
        return 0

    return command(run, argv is None, parser.prog)
