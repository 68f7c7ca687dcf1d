"""What the scripts share: their flags, and the way from flags to a run and its table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from audioldm.commands import common
from audioldm.errors import InputError
from audioldm.registry import DEFAULT_MODEL

from .engine.run import ENGINES, report, run
from .engine.worker import Fetcher, Job
from .readers import Reader


def parser(module: str, description: str, example: str, needs: str = "") -> common.Parser:
    """A parser for ``python -m MODULE``.

    Args:
        example: arguments that run as they are, from a checkout.
        needs: what has to be there before, if anything.
    """
    name = f"python -m {module}"
    return common.Parser(
        name,
        description=description,
        epilog=f"example:  {name} {example}".strip() + (f"\n          ({needs})" if needs else ""),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run(p: argparse.ArgumentParser, out: str) -> None:
    """The flags of every run. ``out``: the folder where nothing else is said."""
    p.add_argument("--out", default=out, metavar="FOLDER", help="of the run, which goes on where it was [%(default)s]")
    p.add_argument("--limit", type=positive, metavar="N", help="rows to read [all]")
    p.add_argument("--rows_per_shard", type=positive, metavar="N", help="[10000 captions or 1000 pictures]")
    add_model(p)
    p.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="in this process, or on Ray [%(default)s]")
    p.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster [Ray on this machine]")
    p.add_argument("--workers", type=positive, metavar="N", help="of Ray, each with its own model [one per two cores]")


def add_fetch(p: argparse.ArgumentParser) -> None:
    """The flags of fetching pictures from the web."""
    p.add_argument(
        "--contact", metavar="MAIL", help="your mail address or web page, for the User-Agent; Wikimedia insists on it"
    )
    p.add_argument(
        "--cache", default="build/fetched", metavar="FOLDER", help="what was fetched once [%(default)s]"
    )
    p.add_argument("--downloads", type=positive, default=16, metavar="N", help="at once [%(default)s]")
    p.add_argument("--per_host", type=positive, default=2, metavar="N", help="of them, from one host [%(default)s]")
    p.add_argument(
        "--retry", action="store_true", help="make shards again whose pictures failed in ways that may pass"
    )
    p.add_argument(
        "--ignore_noai", action="store_true", help="take pictures whose server says that they are not for AI, too"
    )


def fetcher(args: argparse.Namespace) -> Callable[[], Fetcher]:
    """What makes the fetcher that the flags of ``add_fetch`` describe. Raises InputError."""
    from .engine.fetch import Fetcher, Settings

    settings = Settings(
        args.cache,
        args.contact,
        workers=args.downloads,
        per_host=args.per_host,
        honour_noai=not args.ignore_noai,
    )
    return partial(Fetcher, settings)


def add_model(p: argparse.ArgumentParser) -> None:
    """The flags that say whose towers, and where they run."""
    p.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME", help="a model of audioldm or its folder, whose CLIP and CLAP "
        "are used [%(default)s]",
    )  # fmt: skip
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda [auto]")


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number from 1 on')
    return number


def embed(args: argparse.Namespace, reader: Reader, fetcher: Callable[[], Fetcher] | None = None, **job: object) -> int:
    """Run what the flags of ``add_run`` say and print the table; returns the exit code. ``job``: more of a Job."""
    if args.engine != "ray" and (args.address or args.workers):
        raise InputError("--address and --workers are for --engine ray")
    settings = Job(
        reader, model=args.model, device=args.device, fetcher=fetcher,
        limit=args.limit, shard_rows=args.rows_per_shard, **job,
    )  # fmt: skip
    folder = run(settings, args.out, engine=args.engine, address=args.address, workers=args.workers)
    print(report(folder))
    return 0


def main(module: str, work: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    """Run a script's ``work`` as the commands of audioldm are run; returns the exit code."""
    return common.command(lambda: work(argv), as_program=argv is None, name=module.rpartition("prior_steps.")[2])
