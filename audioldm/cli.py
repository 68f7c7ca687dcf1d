"""The command ``audioldm``: flags → GenerateOptions → wavs. stdout has the results, stderr all else."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from . import __version__
from .checkpoints.registry import DEFAULT_MODEL
from .errors import InputError
from .options import SAMPLERS, GenerateOptions

DEBUG = "AUDIOLDM_DEBUG"  # environment variable: "1" shows tracebacks and the libraries' warnings
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message.rstrip('.')}; audioldm -h lists the options")


def parser() -> Parser:
    default = GenerateOptions()
    p = Parser(
        "audioldm", description="Make a sound from a picture, a text or another sound.", allow_abbrev=False
    )
    what = p.add_argument_group("what to make")
    what.add_argument("-t", "--text", metavar="PROMPT", help="a text, or an image: URL, file or data URI")
    what.add_argument("-f", "--file_path", metavar="FILE", help="a sound file: make sounds like it")
    what.add_argument("--mode", choices=("generation", "transfer"), default="generation")
    what.add_argument("--transfer_strength", type=float, default=0.5, metavar="X", help="for --mode transfer")

    how = p.add_argument_group("how (left out: the model's own values, else those in brackets)")
    how.add_argument("-dur", "--duration", type=float, metavar="S", help=f"seconds [{default.duration}]")
    how.add_argument(
        "-b", "--batchsize", type=int, metavar="N", help=f"number of sounds [{default.batchsize}]"
    )
    how.add_argument("--seed", type=int, metavar="N", help=f"same seed, same sounds [{default.seed}]")
    how.add_argument(
        "-gs",
        "--guidance_scale",
        type=float,
        metavar="X",
        help=f"how closely to follow the prompt, 1 to 50 [{default.guidance_scale}]",
    )
    how.add_argument(
        "-n",
        "--n_candidate_gen_per_text",
        type=int,
        metavar="N",
        help=f"candidates for each sound, of which the best is kept [{default.n_candidates}]",
    )
    how.add_argument(
        "--ddim_steps", type=int, metavar="N", help=f"steps of the sampler [{default.ddim_steps}]"
    )
    how.add_argument("--sampler", choices=SAMPLERS, help=f"[{default.sampler}]")

    model = p.add_argument_group("with what")
    model.add_argument("--model_name", metavar="NAME", help=f"a model's name or folder [{DEFAULT_MODEL}]")
    model.add_argument(
        "-ckpt", "--ckpt_path", metavar="FOLDER", help="a model's folder; goes before --model_name"
    )
    model.add_argument("--translator", metavar="NAME", help="from image to sound [the model's default]")
    model.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda [auto]")
    model.add_argument("--list", action="store_true", help="list models and translators, and exit")

    where = p.add_argument_group("where to")
    where.add_argument("-s", "--save_path", default="./output", metavar="FOLDER", help="[./output]")
    where.add_argument(
        "-o", "--output", metavar="FILE", help="name of the wav, instead of one made up in FOLDER"
    )
    p.add_argument("-V", "--version", action="version", version=f"audioldm {__version__}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 (bad input), 130 (Ctrl-C) or 1 (anything else)."""
    debug = os.environ.get(DEBUG) == "1"
    try:
        args = parser().parse_args(argv)
        if not debug:
            _quiet()
        if args.list:
            from .listing import listing

            print("\n".join(listing()))
        else:
            run(args)
        return 0
    except InputError as error:
        print(f"audioldm: error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("audioldm: interrupted", file=sys.stderr)
        if argv is None:  # as a program: Python may remember the interrupt and end by the signal instead
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read stdout has gone; let the interpreter's last flush succeed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            raise
        print(
            f"audioldm: error: {type(error).__name__}: {_one_line(error)} ({DEBUG}=1 shows more)",
            file=sys.stderr,
        )
        return FAILED


def run(args: argparse.Namespace) -> None:
    """Make the sounds and print their paths. Everything is checked before anything is made."""
    began = time.perf_counter()
    if args.mode == "transfer":
        raise InputError("--mode transfer comes with a later version; this one has --mode generation")
    from . import output, pipeline

    name = DEFAULT_MODEL if args.model_name is None else args.model_name
    model = pipeline.build_model(args.ckpt_path, model_name=name, device=args.device)
    options = GenerateOptions.build(_given(args), model.defaults)
    if args.translator is not None:
        model.find_translator(args.translator)
    prompt = pipeline.read_prompt(args.text, args.file_path)
    if args.device != "auto":
        _ = model.device  # is it there?
    if prompt.kind == "image" or args.translator is not None:
        model.translator(args.translator)
    with output.Destination.plan(args.save_path, args.output, prompt.source, options.batchsize) as destination:
        if args.model_name is None and args.ckpt_path is None:
            print(
                f"audioldm: using the small bundled model {model.folder.name}; --model_name chooses another",
                file=sys.stderr,
            )
        vector = pipeline.condition(model, prompt, args.translator)
        record = output.make_record(model, prompt, args.translator, options)
        with _progress(options.ddim_steps * options.batchsize * options.n_candidates) as on_step:
            for sound in pipeline.generate(model, vector, options, on_step):
                sound_record = output.sound_record(sound, time.perf_counter() - began)
                path = destination.write(sound.item, sound.wave, {**record, **sound_record})
                print(path, flush=True)


def _given(args: argparse.Namespace) -> dict[str, object]:
    names = ("duration", "batchsize", "seed", "guidance_scale", "ddim_steps", "sampler")
    return {**{name: getattr(args, name) for name in names}, "n_candidates": args.n_candidate_gen_per_text}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """A bar over all steps with the time left, on stderr, for people only."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="step", file=sys.stderr, leave=False, dynamic_ncols=True) as bar:
        yield bar.update


def _quiet() -> None:
    """Silence what libraries print; must run before they are imported."""
    import warnings

    warnings.filterwarnings("ignore")
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",  # everything is read from folders
    }.items():
        os.environ.setdefault(name, value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
