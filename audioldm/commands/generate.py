"""The command ``audioldm``: flags → GenerateOptions → wavs. stdout has the results, stderr all else."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__, registry
from ..errors import InputError
from ..options import MODES, SAMPLERS, GenerateOptions
from .common import Parser, Progress, command

if TYPE_CHECKING:
    from ..inputs.prompt import Prompt
    from ..inputs.sounds import Original
    from ..latent_diffusion.model import LatentDiffusion



class _Once(argparse.Action):
    """An option that would lose its first value if it were given twice."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest, None) is not None:
            raise argparse.ArgumentError(self, "it was given twice, and only one value can be used")
        setattr(namespace, self.dest, values)


def _add_what(what: argparse._ArgumentGroup) -> None:
    what.add_argument("prompts", nargs="*", metavar="PROMPT", help="the same as -t PROMPT")
    what.add_argument(
        "-t",
        "--text",
        action="append",
        metavar="PROMPT",
        help="a text, an image (URL, file or data URI) or a saved embedding (.npy); repeat it to mix prompts; "
        "or a folder/ of images or a list of prompts (.txt, .csv, .jsonl), processed row by row",
    )
    what.add_argument(
        "-f", "--file_path", metavar="FILE", action=_Once,
        help="a sound file: make sounds like it, or begin with it in other modes"
    )
    what.add_argument(
        "--weights",
        nargs="+",
        action=_Once,
        type=float,
        metavar="W",
        help="one weight per prompt, in the order of -t, then -f; negative: avoid the prompt [1 each]",
    )
    what.add_argument(
        "--negative_prompt", metavar="PROMPT", action=_Once,
        help="what it shall not sound like; needs a guidance scale above 1"
    )
    what.add_argument(
        "--save_embedding", metavar="FILE", action=_Once,
        help="write the prompts' vector as a .npy file, which -t takes again"
    )
    what.add_argument(
        "--mode",
        choices=MODES,
        default="generation",
        help="transfer restyles the sound -f, inpaint and superres regenerate a part of it [generation]",
    )
    what.add_argument(
        "--transfer_strength", type=float, metavar="X", help="for transfer: 0 (keep the sound) to 1 (ignore it) [0.5]"
    )
    what.add_argument(
        "--time_range",
        nargs=2,
        type=float,
        metavar=("START", "END"),
        help="for inpaint and superres: seconds to regenerate, at all frequencies",
    )
    what.add_argument(
        "--frequency_range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="for inpaint and superres: Hz to regenerate, at all times [superres: 4000 8000]",
    )


def parser() -> Parser:
    default = GenerateOptions()
    p = Parser("audioldm", description="Make a sound from a picture, a text or another sound.", allow_abbrev=False)
    _add_what(p.add_argument_group("what to make"))

    how = p.add_argument_group("how to make it (defaults: the model's own values, otherwise those in brackets)")
    how.add_argument("-dur", "--duration", type=float, metavar="S", help=f"seconds [{default.duration}]")
    how.add_argument("-b", "--batchsize", type=int, metavar="N", help=f"number of sounds [{default.batchsize}]")
    how.add_argument("--seed", type=int, metavar="N", help=f"same seed, same sounds [{default.seed}]")
    how.add_argument(
        "-gs",
        "--guidance_scale",
        type=float,
        metavar="X",
        help=f"how closely to follow the prompt, 0 to 50 [{default.guidance_scale}]",
    )
    how.add_argument(
        "-n",
        "--n_candidate_gen_per_text",
        type=int,
        metavar="N",
        help=f"candidates per sound; the best is kept [{default.n_candidates}]",
    )
    how.add_argument("--ddim_steps", type=int, metavar="N", help=f"sampler steps [{default.ddim_steps}]")
    how.add_argument("--sampler", choices=SAMPLERS, help=f"[{default.sampler}]")

    model = p.add_argument_group("with which model")
    model.add_argument("--model_name", metavar="NAME", help=f"a model's name or folder [{registry.DEFAULT_MODEL}]")
    model.add_argument(
        "-ckpt", "--ckpt_path", metavar="PATH", help="model folder or .ckpt file; overrides --model_name"
    )
    model.add_argument("--translator", metavar="NAME", help="translator for images [the model's default]")
    model.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda [auto]")
    model.add_argument("--list", action="store_true", help="list models and translators and exit")

    where = p.add_argument_group("where to write it")
    where.add_argument("-s", "--save_path", default="./output", metavar="FOLDER", help="[./output]")
    where.add_argument(
        "-o", "--output", metavar="FILE", action=_Once, help="name of the wav, instead of one made up in FOLDER"
    )
    p.add_argument("-V", "--version", action="version", version=f"audioldm {__version__}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``audioldm``; returns its exit code. Of a list, 1 also says that some of its rows failed."""
    return command(lambda: run(parser().parse_args(argv)), as_program=argv is None)


def run(args: argparse.Namespace) -> int:
    """Make the sounds and print their paths; returns the exit code. Everything is checked before anything is made."""
    if args.list:
        from .list import listing

        print("\n".join(listing()))
        return 0
    _take_positional(args)
    began = time.perf_counter()
    from .. import conditioning, generation
    from ..inputs.prompt import is_list
    from ..outputs.destination import Destination, make_record
    from . import batch

    many = any(is_list(text) for text in args.text or ())
    inputs = _read(args, many)  # all that needs no model, which may be a download of gigabytes
    name = registry.DEFAULT_MODEL if args.model_name is None else args.model_name
    model = registry.build_model(args.ckpt_path, model_name=name, device=args.device)
    job = _check(args, model, inputs)
    if many:
        return batch.run(
            args.text[0], model, job.options, args.save_path, args.translator,
            negative=job.negative, original=job.original, announce=lambda: _announce(args, model),
        )  # fmt: skip
    for text in (text.strip() for text in args.text or ()):
        if os.path.isdir(text):
            print(f'audioldm: "{text}" is taken as words; {text}/ is the folder of that name', file=sys.stderr)
    with Destination.plan(
        args.save_path,
        args.output,
        [prompt.source for prompt in job.prompts],
        job.options.batchsize,
        args.save_embedding,
    ) as destination:
        _announce(args, model)
        vector = conditioning.condition_all(model, job.prompts, job.weights, args.translator)
        negative = conditioning.encode_prompt(model, job.negative, args.translator) if job.negative else None
        model.release("clip", "image_encoder")
        if args.save_embedding is not None:
            destination.write_embedding(vector[0].cpu().numpy())
        record = make_record(
            model, job.prompts, args.translator, job.options,
            weights=args.weights, negative=job.negative, original=job.original,
        )  # fmt: skip
        options = job.options
        with Progress(options.steps_run * options.batchsize * options.n_candidates, "step") as progress:
            sounds = generation.generate(
                model, vector, options, progress.update, negative=negative, original=job.original, frugal=True
            )
            for sound in sounds:
                own = sound.record(time.perf_counter() - began)
                path = destination.write(sound.item, sound.wave, {**record, **own})
                progress.say(str(path), sys.stdout)
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


class _Job(NamedTuple):
    options: GenerateOptions
    prompts: tuple[Prompt, ...]
    weights: tuple[float, ...]
    negative: Prompt | None
    original: Original | None


def _read(args: argparse.Namespace, many: bool) -> _Job:
    """What the arguments say, read and checked as far as that needs no model; raises InputError.

    ``many``: -t names a list or folder, whose prompts are not read here.
    """
    from ..conditioning import check_weights
    from ..inputs.prompt import read_prompt, read_prompts
    from ..inputs.sounds import read_original

    edits = args.mode != "generation"
    if many:
        _refuse_with_list(args, edits)
    original = read_original(args.file_path, args.mode, args.duration) if edits else None
    options = GenerateOptions.build(_given(args, original))
    if edits and not args.text:
        raise InputError(f"--mode {args.mode} needs a prompt (-t)")
    prompts = () if many else read_prompts(args.text, None if edits else args.file_path)
    weights = check_weights(args.weights, len(prompts))
    negative = read_prompt(args.negative_prompt) if (args.negative_prompt or "").strip() else None
    return _Job(options, prompts, weights, negative, original)


def _check(args: argparse.Namespace, model: LatentDiffusion, inputs: _Job) -> _Job:
    """The same with the model's own defaults, once it is known that the model can do it; raises InputError."""
    from ..conditioning import check_negative, check_prompts

    options = GenerateOptions.build(_given(args, inputs.original), model.defaults)
    check_negative(inputs.negative, options.guidance_scale)
    if args.translator is not None:
        registry.find_or_make_translator(model, args.translator)
    if args.device != "auto":
        _ = model.device  # is it there?
    if args.translator is not None:
        registry.load_translator(model, args.translator)
    prompts = [*inputs.prompts, inputs.negative] if inputs.negative else inputs.prompts
    check_prompts(model, prompts, args.translator)
    return inputs._replace(options=options)


def _refuse_with_list(args: argparse.Namespace, edits: bool) -> None:
    alone = "a list or folder of prompts is processed row by row"
    if len(args.text) > 1 or args.weights is not None or (args.file_path is not None and not edits):
        raise InputError(f"{alone} and cannot be mixed with other prompts, weights or a sound")
    if args.output is not None or args.save_embedding is not None:
        raise InputError(f"{alone} into the folder -s; -o and --save_embedding work only with one prompt")


def _given(args: argparse.Namespace, original: Original | None) -> dict[str, object]:
    names = ("duration", "batchsize", "seed", "guidance_scale", "ddim_steps", "sampler", "mode", "transfer_strength")
    given = {**{name: getattr(args, name) for name in names}, "n_candidates": args.n_candidate_gen_per_text}
    for name in ("time_range", "frequency_range"):
        pair = getattr(args, name)
        given[name] = None if pair is None else tuple(pair)
    if original is not None and args.duration is None:
        given["duration"] = original.duration
    return given
