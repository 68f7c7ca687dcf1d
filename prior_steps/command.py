"""What the scripts share: parsers, flags, and the way from flags to a run and its table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from audioldm.commands import common
from audioldm.errors import InputError
from audioldm.registry import DEFAULT_MODEL
from translator.programs import program

if TYPE_CHECKING:  # the engine is imported where it is used: to list flags takes none of it
    from .engine.embed import Kind
    from .engine.worker import Fetcher
    from .engine.write import Folder
    from .readers import Reader

SEE = "the shards have the reason of each in the column error"  # of rows that failed
COMMANDS = {  # of audioldm-embed -> the scripts, and what they do
    "audiocaps": ("audiocaps.embedding", "AudioCaps' captions through CLIP and CLAP"),
    "audiocaps_clip": ("audiocaps.embedding_clip", "the same through CLIP alone"),
    "audiocaps_clap": ("audiocaps.embedding_clap", "CLAP's vectors, added to what audiocaps_clip made"),
    "wit": ("wit.embedding", "WIT's pictures through CLIP, their captions through CLAP"),
    "conceptual_captions": ("conceptual_captions.embedding", "the same of Conceptual Captions"),
    "histograms": ("histograms", "norms of the vectors in shards, with advice"),
    "csvtotxt": ("audiocaps.csvtotxt", "shards to the thesis's text files"),
}


def parser(module: str, description: str, example: str, needs: str = "") -> common.Parser:
    """A parser for the script ``module``, which is a sub-command of ``audioldm-embed``.

    Args:
        module: the script.
        description: one sentence.
        example: arguments that work as they are, in a checkout.
        needs: a condition for the example, if any.
    """
    name = called(module)
    return common.Parser(
        name,
        description=description,
        epilog=f"example:  {name} {example}".strip() + (f"\n          ({needs})" if needs else ""),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def called(module: str) -> str:
    """The command that runs the script ``module``, to be pasted into a shell."""
    name = next(name for name, (script, _) in COMMANDS.items() if f"prior_steps.{script}" == module)
    return f"{program('audioldm-embed')} {name}"


def add_run(p: argparse.ArgumentParser, out: str) -> None:
    """Add the flags of every run; ``out`` is the default folder."""
    from .engine.run import ENGINES

    p.add_argument("--out", default=out, metavar="FOLDER", help="output folder; a run in it is resumed [%(default)s]")
    p.add_argument("--limit", type=positive, metavar="N", help="number of rows to read [all]")
    p.add_argument("--rows_per_shard", type=positive, metavar="N", help="shard size [10000 captions or 1000 pictures]")
    add_model(p)
    p.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="run in this process or on Ray [%(default)s]")
    p.add_argument("--address", metavar="HOST:PORT", help="address of a Ray cluster [Ray on this machine]")
    p.add_argument("--workers", type=positive, metavar="N", help="Ray workers, each with a model [one per two cores]")


def add_fetch(p: argparse.ArgumentParser) -> None:
    """Add the flags of downloading pictures."""
    p.add_argument(
        "--contact", metavar="MAIL", help="your e-mail address or web page, for the User-Agent; required by Wikimedia"
    )
    p.add_argument("--cache", default="build/fetched", metavar="FOLDER", help="folder of downloads [%(default)s]")
    p.add_argument("--downloads", type=positive, default=16, metavar="N", help="simultaneous downloads [%(default)s]")
    p.add_argument("--per_host", type=positive, default=2, metavar="N", help="the same per host [%(default)s]")
    p.add_argument("--retry", action="store_true", help="make shards with temporarily failed pictures again")
    p.add_argument("--ignore_noai", action="store_true", help="also use pictures whose server forbids the use for AI")


def fetcher(args: argparse.Namespace) -> Callable[[], Fetcher]:
    """A function that makes the fetcher that the flags of ``add_fetch`` describe. Raises InputError."""
    from .engine.fetch import Settings, WebFetcher

    settings = Settings(
        args.cache, args.contact, workers=args.downloads, per_host=args.per_host, honour_noai=not args.ignore_noai
    )
    return partial(WebFetcher, settings)


def add_model(p: argparse.ArgumentParser, default: str | None = DEFAULT_MODEL) -> None:
    """Add the flags of the model and its device; ``default``: None: the model of the shards."""
    p.add_argument(
        "--model", default=default, metavar="NAME",
        help=f"name or folder of the audioldm model whose CLIP and CLAP are used [{default or 'that of the shards'}]",
    )  # fmt: skip
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda [auto]")


def positive(text: str) -> int:
    """Parse a whole number from 1 on, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number from 1 on')
    return number


def embed(
    args: argparse.Namespace,
    reader: Reader,
    fetcher: Callable[[], Fetcher] | None = None,
    *,
    kind: Kind = "text",
    towers: tuple[str, ...] = ("clip", "clap"),
) -> int:
    """Embed the reader's rows as the flags of ``add_run`` say, and print the table; returns the exit code (``end``)."""
    from .engine.run import run
    from .engine.worker import Job

    if args.engine != "ray" and (args.address or args.workers):
        raise InputError("--address and --workers require --engine ray")
    job = Job(
        reader, kind, args.model, args.device, towers, fetcher,
        limit=args.limit, shard_rows=args.rows_per_shard, retry=fetcher is not None and args.retry,
    )  # fmt: skip
    folder = run(job, args.out, engine=args.engine, address=args.address, workers=args.workers)
    return end(folder)


def end(folder: Folder) -> int:
    """Print the table of a run; returns the exit code: 0, or 1 if rows failed, as of a list of prompts."""
    from .engine.run import failures, report

    print(report(folder))
    if not folder.statuses.total():
        raise InputError("the input has no rows")
    if failed := failures(folder).total():
        print(f"{failed:,} rows failed; {SEE}", file=sys.stderr)
    return 1 if failed else 0


def script(module: str, work: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """The ``main`` of a script: runs ``work`` with the error handling of audioldm's commands."""

    def main(argv: Sequence[str] | None = None, as_program: bool | None = None, name: str | None = None) -> int:
        """``as_program``: whether the process ends with it; None: if no ``argv`` is given. ``name``: how it was called,
        if not as this script."""
        ends = argv is None if as_program is None else as_program
        called = name or module.rpartition("prior_steps.")[2]
        return common.command(lambda: work(argv), as_program=ends, name=called)

    return main
