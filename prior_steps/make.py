"""``audioldm-translator make``: data, embedding, training, evaluation and installation in one command.

The console script ``audioldm-translator`` begins here: of the three packages, this one may use both others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from audioldm.commands import translator as command
from audioldm.registry import DEFAULT_MODEL
from translator import InputError, actions, settings
from translator.files import output_path

from .command import SEE

if TYPE_CHECKING:
    from translator.actions import HostModel

    from .engine.progress import Stages
    from .parts import Part
    from .plan import Lot

NAME = "audioldm-translator make"
HELP = "data, embedding, training, evaluation and installation in one command"
ABOUT = """\
Make translators for a model: embed captions and pictures with its towers, train, evaluate on held-out pairs, install.
AudioCaps' captions, for audiocaps_*, ridge and procrustes, come with this package. wit_* and audiocaps_wit_* learn from
WIT (--wit), Conceptual Captions (--cc) or both. An interrupted run resumes when the same command runs again.
"""
EXAMPLES = """examples:
  audioldm-translator make audiocaps_cos_512 --model audioldm-s-full-v2
  audioldm-translator make all --wit sample --contact you@example.org --model audioldm-s-full-v2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``make``."""
    from audioldm.checkpoints.layout import cache_dir

    from .command import add_fetch, positive

    parser.formatter_class, parser.description = argparse.RawDescriptionHelpFormatter, ABOUT
    parser.epilog = EXAMPLES
    parser.add_argument("names", nargs="+", metavar="NAME", help="translators to make, or all (the thesis's eighteen)")
    parser.add_argument("--model", metavar="NAME", help="model for which they are: a name or folder [starter]")
    parser.add_argument("--wit", metavar="FILE", help='.tsv.gz or .parquet of WIT; "sample": a hundredth, downloaded')
    parser.add_argument("--cc", metavar="FILE", help=".tsv or .tar of Conceptual Captions")
    parser.add_argument("--limit", type=positive, metavar="N", help="number of rows to read of each collection [all]")
    parser.add_argument("--replace", action="store_true", help="replace installed translators of these names")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda [auto]")
    work = cache_dir() / "make"
    parser.add_argument("--work", type=Path, default=work, metavar="FOLDER", help=f"folder of shards [{work}]")
    add_fetch(parser)
    parser.set_defaults(cache=str(cache_dir() / "fetched"))


def run(args: argparse.Namespace, host: Callable[[str | None], HostModel]) -> None:
    """Make what is not made yet. Raises InputError."""
    names, work = settings.expand(args.names), _folder(args.work)
    from . import plan

    plan.check(args, names)
    model = host(args.model)
    lots = plan.lots(args, names, args.model or DEFAULT_MODEL, work / "-".join(model.spaces))
    for lot in lots:
        lot.names = _not_installed(lot, lot.embedded, model, args.replace, _say)
    if lots := [lot for lot in lots if lot.names]:
        _make(lots, model, args.replace)


def _folder(name: Path) -> Path:
    """The folder called ``name``, which may not exist yet. Raises InputError: there is a file in its place."""
    folder = output_path(name)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; --work must be a folder")
    return folder


def _not_installed(
    lot: Lot, embedded: bool, model: HostModel, replace: bool, say: Callable[[str], object]
) -> list[str]:
    """The translators that are not made and installed yet. Raises InputError: one of other data is.

    While not all is ``embedded``, the data are not known, but if none of it is, then they are others.
    """
    left = []
    for name in lot.names:
        installed = actions.installed_path(name, model)
        made = lot.out / installed.name if embedded else None
        if not installed.exists():
            left.append(name)
        elif made and made.exists() and made.read_bytes() == installed.read_bytes():
            say(f"{name} is made and installed: {installed}")
        elif replace or not embedded and lot.begun:
            left.append(name)
        else:
            raise InputError(f"another translator called {name} is installed: {installed}; --replace replaces it")
    return left


def _make(lots: list[Lot], model: HostModel, replace: bool) -> None:
    from translator.training import named

    from .engine.progress import Stages, duration

    parts = dict.fromkeys(part for lot in lots for part in lot.parts)
    steps = {f"embedding {part.name}": part.seconds() for part in parts}
    training = {lot: lot.seconds(model.dim) for lot in lots}
    steps["training"] = sum(training.values())
    _say(f"{NAME}: about {duration(sum(steps.values()))}: " + ", ".join(
        f"{step} {duration(seconds)}" for step, seconds in steps.items() if seconds))  # fmt: skip
    _say(f"shards are kept in {lots[0].parts[0].work} for the next translators")
    with Stages(NAME, steps) as stages:
        for part in parts:
            stages.begin(f"embedding {part.name}")
            _embed(part, stages)
        for lot in lots:
            lot.names = _not_installed(lot, True, model, replace, stages.say)
        lots = [lot for lot in lots if lot.names]
        stages.begin("training")
        whole, before = sum(training[lot] for lot in lots), 0.0
        for lot in lots:

            def on_share(share: float, own: float = training[lot], before: float = before) -> None:
                stages.done((before + share * own) / whole)

            named.make_from(lot.pairs, named.Order(lot.names, {}), lot.out, partial(_report, stages), on_share)
            before += training[lot]
    if lots:
        _evaluate(lots)
    for lot in lots:
        for name in lot.names:
            actions.install_file(lot.out / f"{name}.safetensors", model, replace=replace)


def _embed(part: Part, stages: Stages) -> None:
    """Embed what is left of ``part``, and say which rows failed."""
    from .engine.run import failures
    from .engine.run import run as embed

    folder = embed(part.job, part.folder, show=lambda name, total, done: stages.rows(part.rows, done))
    if failed := failures(folder):
        why = ", ".join(f"{status} {rows:,}" for status, rows in failed.most_common())
        stages.say(f"{failed.total():,} rows of {part.name} failed ({why}); {SEE}")


def _report(stages: Stages, line: str) -> None:
    """Say what is not said by the display."""
    if "epoch" not in line:
        stages.say(line)


def _evaluate(lots: Sequence[Lot]) -> None:
    """Print how near the translators come to held-out pairs."""
    from translator.evaluation import judge, report
    from translator.model import load_translator
    from translator.shards.pairs import join

    pairs = {source: pairs for lot in lots for source, pairs in sorted(lot.pairs.items())}
    held_out = join([some.held_out_pairs() for some in pairs.values() if some.held_out])
    files = {name: lot.out / f"{name}.safetensors" for lot in lots for name in lot.names}
    found = judge.judge_pairs(held_out, {name: load_translator(file) for name, file in files.items()})
    print(report.held_out_markdown(found))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``audioldm-translator``; returns its exit code."""
    return command.main(argv, {"make": (HELP, add_arguments, run)})


if __name__ == "__main__":
    sys.exit(main())
