"""The command ``audioldm-web``: serve the page until Ctrl-C."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence

from translator.programs import pip_install

from .. import __version__
from ..commands.common import Parser, command
from ..commands.generate import add_options
from ..errors import InputError
from ..options import SERVED

NAME = "audioldm-web"


def parser() -> Parser:
    p = Parser(
        NAME, description="A page that makes sounds from pictures, words and sounds.", allow_abbrev=False
    )
    where = p.add_argument_group("where to serve it")
    where.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="0.0.0.0 opens it to the network; there is no password [127.0.0.1, which only this machine reaches]",
    )  # fmt: skip
    where.add_argument("--port", type=int, metavar="N", help="[the first free one from 7860 on]")
    where.add_argument(
        "--time_limit", type=float, default=600.0, metavar="S", help="seconds that one request may work [600]"
    )
    add_options(p.add_argument_group("with which model"), SERVED)
    p.add_argument("-V", "--version", action="version", version=f"{NAME} {__version__}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``audioldm-web``; returns its exit code."""
    return command(lambda: run(parser().parse_args(argv)), as_program=argv is None, name=NAME)


def run(args: argparse.Namespace) -> int:
    """Print the address and serve until Ctrl-C. Raises InputError."""
    if not args.time_limit > 0:
        raise InputError(f"the time limit must be a number of seconds above 0, not {args.time_limit:g}")
    if args.port is not None and not 0 < args.port < 65536:
        raise InputError(f"the port must be a number from 1 to 65535, not {args.port}")
    if importlib.util.find_spec("gradio") is None:
        raise InputError(f"the page needs Gradio: {pip_install('gradio')}")
    from .engine import Engine
    from .server import serve

    engine = Engine(
        args.ckpt_path, args.model_name, args.time_limit,
        device=args.device, precision=args.precision, batch=args.batch,
    )  # fmt: skip
    return serve(engine, args.host, args.port, lambda address: print(address, flush=True))
