"""``audioldm-translator make``: data, embedding, training, evaluation and installation in one command.

The console script ``audioldm-translator`` begins here: of the three packages, this one may use both others.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from audioldm.commands import translator as command
from translator import InputError, actions, settings

if TYPE_CHECKING:
    from translator.actions import HostModel

    from .engine.progress import Stages
    from .plan import Part

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
    names = settings.expand(args.names)
    sources = _sources(names, with_pictures=bool(args.wit or args.cc))
    from . import plan

    plan.check(args, names, sources)
    model = host(args.model)
    work = args.work.expanduser() / "-".join(model.spaces)
    parts = plan.parts(args, sources, args.model or "starter", work)
    out = work / f"translators-{_digest(parts)}"
    names = _not_installed(names, out, model, args.replace)
    if names:
        _make(names, parts, out, model, args.replace)


def _sources(names: Sequence[str], with_pictures: bool) -> set[str]:
    """The sources that the translators learn from. Raises InputError: a name has no meaning."""
    found = set[str]()
    for name in names:
        if name in (*settings.CLOSED_FORM, settings.MEMORY):
            found |= {"audiocaps", "wit"} if with_pictures else {"audiocaps"}  # pictures are better with their own mean
            continue
        wanted = settings.parse(name)
        found |= {*wanted.sources, "wit"} if wanted.centred else {*wanted.sources}
    return found


def _digest(parts: Sequence[Part]) -> str:
    return hashlib.sha256(" ".join(part.folder.name for part in parts).encode()).hexdigest()[:8]


def _not_installed(names: Sequence[str], out: Path, model: HostModel, replace: bool) -> list[str]:
    """The translators that are not made and installed yet. Raises InputError: one of other data is."""
    left = []
    for name in names:
        installed, made = actions.installed_path(name, model), out / f"{name}.safetensors"
        if not installed.exists():
            left.append(name)
        elif made.exists() and made.read_bytes() == installed.read_bytes():
            _say(f"{name} is made and installed: {installed}")
        elif replace:
            left.append(name)
        else:
            raise InputError(f"another translator called {name} is installed: {installed}; --replace replaces it")
    return left


def _make(names: list[str], parts: Sequence[Part], out: Path, model: HostModel, replace: bool) -> None:
    from translator.shards.parquet import open_shards
    from translator.training import named
    from translator.training.train import estimate

    from .engine.progress import Stages, duration
    from .engine.run import run as embed

    order = named.Order(names, {})
    steps = {f"embedding {part.name}": part.seconds() for part in parts}
    counts = dict[str, int]()
    for part in parts:
        source = settings.PART_OF.get(part.name, part.name)
        counts[source] = counts.get(source, 0) + part.count
    todo = [one for one in order.settings(list(counts)) if not (out / f"{one.name}.safetensors").exists()]
    steps["training"] = 2.0 + estimate(todo, counts, model.dim)
    _say(f"{NAME}: about {duration(sum(steps.values()))}: " + ", ".join(
        f"{step} {duration(seconds)}" for step, seconds in steps.items() if seconds))  # fmt: skip
    _say(f"shards are kept in {parts[0].work} for the next translators")
    with Stages(NAME, steps) as stages:
        for part in parts:
            stages.begin(f"embedding {part.name}")
            embed(part.job, part.folder, show=stages.rows)
        stages.begin("training")
        shards = open_shards(part.folder for part in parts)
        pairs = named.make_all(order, shards, out, partial(_report, stages), stages.done)
    _evaluate(names, pairs, out)
    for name in names:
        actions.install_file(out / f"{name}.safetensors", model, replace=replace)


def _report(stages: Stages, line: str) -> None:
    """Say what is not said by the display."""
    if "epoch" not in line:
        stages.say(line)


def _evaluate(names: Sequence[str], pairs: dict, out: Path) -> None:
    """Print how near the translators come to held-out pairs."""
    from translator.evaluation import judge, report
    from translator.model import load_translator
    from translator.shards.pairs import join

    held_out = join([some.held_out_pairs() for some in pairs.values() if some.held_out])
    found = judge.judge_pairs(held_out, {name: load_translator(out / f"{name}.safetensors") for name in names})
    print(report.held_out_markdown(found))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``audioldm-translator``; returns its exit code."""
    return command.main(argv, {"make": (HELP, add_arguments, run)})


if __name__ == "__main__":
    sys.exit(main())
