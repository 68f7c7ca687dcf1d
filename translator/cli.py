"""The command ``audioldm-translator``: its sub-commands and flags. ``actions`` carries them out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from . import actions
from .actions import HostModel
from .settings import Settings

EPILOG = """examples:
  audioldm-translator list
  audioldm-translator train all --data shards/audiocaps shards/wit -o translators
  audioldm-translator train wit_cos_512_noise ridge --data shards/wit
  audioldm-translator evaluate --images photos/ -o judged
  audioldm-translator show translators/wit_cos_512.safetensors
  audioldm-translator install translators/wit_cos_512.safetensors
"""
TRAIN = """\
A name is <data>_<mse|cos|cl>_<hidden>, with _noise or _centred appended for those variants.
"all" means the thesis's eighteen. procrustes and ridge are fitted in closed form; memory needs no training.
The defaults are the thesis's settings. An interrupted training resumes when the same command runs again.
"""


# A sub-command of another package: its help, what adds its flags, and what runs it.
Extra = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace, actions.Host], int | None]]


def add_arguments(parser: argparse.ArgumentParser, extras: Mapping[str, Extra]) -> None:
    """Add the sub-commands and their flags; ``extras``: further ones by name."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.description = "Train, evaluate and install translators from CLIP's space to CLAP's."
    whole_flags: Any = partial(type(parser), allow_abbrev=False)  # argparse calls it, though its stub wants a class
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=whole_flags)
    _add_model(commands.add_parser("list", help="list the translators of a model with their figures"))
    for name, (about, add_flags, _) in extras.items():
        add_flags(commands.add_parser(name, help=about))
    _add_train(commands.add_parser("train", help="train translators on embedding shards"))
    _add_evaluate(commands.add_parser("evaluate", help="evaluate translators on photographs and held-out pairs"))
    show = commands.add_parser("show", help="print the contents and metadata of a translator file")
    show.add_argument("file", type=Path, metavar="FILE")
    install = commands.add_parser("install", help="install a translator under its name")
    install.add_argument("file", type=Path, metavar="FILE", help="a .safetensors file, or a .pth file of the thesis")
    _add_model(install)
    convert = commands.add_parser("import", help="convert the thesis's text files or tables to an embedding shard")
    files = "folder of .txt files, one per pair; or two .csv files, of CLIP's vectors and of CLAP's"
    convert.add_argument("files", type=Path, nargs="+", metavar="PATH", help=files)
    convert.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.parquet", help="shard to write")
    convert.add_argument("--source", required=True, metavar="NAME", help="name of the data set: audiocaps, wit …")
    convert.add_argument("--kind", choices=("text", "image"), required=True, help="CLIP tower of the vectors")
    convert.add_argument("--spaces", nargs=2, metavar=("CLIP", "CLAP"), help="fingerprints; instead of --model")
    _add_model(convert)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="model whose spaces are used: a name or folder [starter]")


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.description = argparse.RawDescriptionHelpFormatter, TRAIN
    parser.add_argument("names", nargs="+", metavar="NAME", help="translators to train, or all")
    parser.add_argument(
        "--data", nargs="+", required=True, type=Path, metavar="PATH", help="embedding shards, or folders of shards"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("translators"), metavar="FOLDER", help="output folder [./translators]"
    )
    for flag, (kind, meaning) in actions.SETTINGS.items():
        default = Settings.__dataclass_fields__[flag].default if flag != "hidden" else "256 or 512"
        parser.add_argument(f"--{flag}", type=kind, metavar="X", help=f"{meaning} [{default}]")
    parser.add_argument("--weights", nargs="+", metavar="SOURCE=X", help="shares of the sources in a batch [equal]")
    parser.add_argument("--captions", type=int, default=2000, metavar="N", help="captions in a memory [2000]")
    parser.add_argument("--half", action="store_true", help="save weights as 16-bit numbers")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu, which is fast enough for these networks]")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="translators or files [all of the model]")
    parser.add_argument(
        "--images", metavar="PATH",
        help="folder of <class>/<photo> or <class><number>.jpg, list (.csv, .tsv, .jsonl) with file and label, .txt of "
        "such files, or imagehear",
    )  # fmt: skip
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="folder of the CSV's files [the CSV's own]")
    parser.add_argument(
        "--prompts", metavar="FILE", help="CSV or JSON file with a prompt for each class; further classes are "
        "distractors; \"known\" means the model's own sounds [class names]",
    )  # fmt: skip
    parser.add_argument("--data", nargs="+", type=Path, metavar="PATH", help="shards; also evaluate on held-out pairs")
    parser.add_argument(
        "--held_out", type=float, default=0.05, metavar="X", help="share of held-out pairs, as in training [0.05]"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap intervals [0]")
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="new folder for tables, JSON and pictures")
    _add_model(parser)


def run(args: argparse.Namespace, host: Callable[[str | None], HostModel], extras: Mapping[str, Extra]) -> int:
    """Run the sub-command in ``args`` and return the exit code; ``host`` opens a model by name. Raises InputError."""
    verbs: dict[str, Callable[..., int | None]] = {
        "list": actions.list_translators,
        "train": actions.train,
        "evaluate": actions.evaluate,
        "show": actions.show,
        "install": actions.install,
        "import": actions.import_text_files,
        **{name: action for name, (_, _, action) in extras.items()},
    }
    return verbs[args.command](args, host) or 0
