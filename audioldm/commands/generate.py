"""The command ``audioldm``: flags → GenerateOptions → wavs. stdout has the results, stderr all else."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError
from ..options import EDITING, MODEL, PROMPTS, SAMPLING, Option
from .common import Job, Parser, Progress, command, condition, given_options, make, steps

if TYPE_CHECKING:
    from ..latent_diffusion.model import LatentDiffusion


class _Once(argparse.Action):
    """An option that would lose its first value if it were given twice."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        if getattr(namespace, self.dest, None) is not None:
            raise argparse.ArgumentError(self, "it was given twice, and only one value can be used")
        setattr(namespace, self.dest, values)


def parser() -> Parser:
    p = Parser("audioldm", description="Make a sound from a picture, a text or another sound.", allow_abbrev=False)
    what = p.add_argument_group("what to make")
    what.add_argument("prompts", nargs="*", metavar="PROMPT", help="the same as -t PROMPT")
    add_options(what, (*PROMPTS, *EDITING))
    add_options(
        p.add_argument_group("how to make it (defaults: the model's own values, otherwise those in brackets)"), SAMPLING
    )
    model = p.add_argument_group("with which model")
    add_options(model, MODEL)
    model.add_argument("--list", action="store_true", help="list models, or the translators of --model_name")
    where = p.add_argument_group("where to write it")
    where.add_argument("-s", "--save_path", default="./output", metavar="FOLDER", help="[./output]")
    where.add_argument(
        "-o", "--output", metavar="FILE", action=_Once, help="name of the wav, instead of one made up in FOLDER"
    )
    p.add_argument("-V", "--version", action="version", version=f"audioldm {__version__}")
    return p


def add_options(group: argparse._ArgumentGroup, options: Iterable[Option]) -> None:
    """Give the command the flags of ``options``."""
    for option in options:
        more: dict[str, Any] = {"action": _Once} if option.once else {}
        if option.values == "append":
            more["action"] = "append"
        elif option.values != 1:
            more["nargs"] = option.values
        if option.choices:
            more["choices"] = option.choices
        shown = f" [{option.shown}]" if option.shown else ""
        group.add_argument(
            *option.flags, dest=option.name, type=option.kind, metavar=option.metavar, default=option.default,
            help=option.described + shown, **more,
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``audioldm``; returns its exit code. Of a list, 1 also says that some of its rows failed."""
    return command(lambda: run(parser().parse_args(argv)), as_program=argv is None)


def run(args: argparse.Namespace) -> int:
    """Make the sounds and print their paths; returns the exit code. Everything is checked before anything is made."""
    if args.list:
        from .list import listing, listing_of

        named = args.ckpt_path or args.model_name
        print("\n".join(listing() if named is None else listing_of(named)))
        return 0
    _take_positional(args)
    began = time.perf_counter()
    from .. import registry
    from ..inputs.prompt import is_list
    from ..outputs.destination import Destination
    from . import batch

    many = any(is_list(text) for text in args.text or ())
    job = _read(args, many)  # all that needs no model, which may be a download of gigabytes
    name = registry.DEFAULT_MODEL if args.model_name is None else args.model_name
    where = os.path.abspath(os.path.expanduser(args.ckpt_path)) if args.ckpt_path else name
    registry.check_before_download(args.translator, where)
    model = registry.build_model(
        args.ckpt_path, model_name=name, device=args.device, precision=args.precision, batch=args.batch
    )
    options = job.check(model)
    if many:
        return batch.run(
            args.text[0], model, options, args.save_path, args.translator,
            negative=job.negative, original=job.original, announce=lambda: _announce(args, model),
        )  # fmt: skip
    for text in (text.strip() for text in args.text or ()):
        if os.path.isdir(text):
            print(f'audioldm: "{text}" is taken as words; {text}/ is the folder of that name', file=sys.stderr)
    names = [prompt.source for prompt in job.prompts]
    with Destination.plan(args.save_path, args.output, names, options.batchsize, args.save_embedding) as destination:
        _announce(args, model)
        conditions = condition(model, job)
        model.release("clip", "image_encoder")
        destination.write_embedding(conditions[0][0].cpu().numpy())
        with Progress(steps(model, options), "step") as progress:
            for sound, record in make(model, job, options, conditions, began, progress.update, frugal=True):
                progress.say(str(destination.write(sound.item, sound.wave, record)), sys.stdout)
    return 0


def _take_positional(args: argparse.Namespace) -> None:
    """Put prompts that were given without -t to the others. Raises InputError if they are words without quotes."""
    from translator.files import printable

    from ..inputs.prompt import is_file_or_address

    words = [prompt for prompt in args.prompts if not is_file_or_address(prompt)]
    if words and len(args.prompts) > 1:
        sentence = printable(" ".join(args.prompts))
        raise InputError(f'put words in quotes: audioldm "{sentence}"; several prompts take a -t each')
    if args.prompts:
        args.text = [*args.prompts, *(args.text or ())]


def _announce(args: argparse.Namespace, model: LatentDiffusion) -> None:
    if args.model_name is None and args.ckpt_path is None:
        print(
            f"audioldm: using the small bundled model {model.folder.name}; choose another with --model_name",
            file=sys.stderr,
        )


def _read(args: argparse.Namespace, many: bool) -> Job:
    """The job that the arguments describe, checked as far as possible without a model. Raises InputError.

    ``many``: -t names a list or folder, whose prompts are not read here.
    """
    from ..conditioning import check_weights
    from ..inputs.prompt import read_prompt, read_prompts
    from ..inputs.sounds import read_original

    edits = args.mode != "generation"
    if many:
        _refuse_with_list(args, edits)
    original = read_original(args.file_path, args.mode, args.duration) if edits else None
    given = given_options({option.name: getattr(args, option.name) for option in (*SAMPLING, *EDITING)}, original)
    if edits and not args.text:
        raise InputError(f"--mode {args.mode} needs a prompt (-t)")
    prompts = () if many else read_prompts(args.text, None if edits else args.file_path)
    weights = None if args.weights is None else check_weights(args.weights, len(prompts))
    negative = read_prompt(args.negative_prompt) if (args.negative_prompt or "").strip() else None
    return Job(given, prompts, weights, negative, original, args.translator)


def _refuse_with_list(args: argparse.Namespace, edits: bool) -> None:
    alone = "a list or folder of prompts is processed row by row"
    if len(args.text) > 1 or args.weights is not None or (args.file_path is not None and not edits):
        raise InputError(f"{alone} and cannot be mixed with other prompts, weights or a sound")
    if args.output is not None or args.save_embedding is not None:
        raise InputError(f"{alone} into the folder -s; -o and --save_embedding work only with one prompt")
