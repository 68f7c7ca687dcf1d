"""What our commands share: a parser, exit codes, and how errors are said."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from ..errors import InputError

DEBUG = "AUDIOLDM_DEBUG"  # environment variable: "1" shows tracebacks and the libraries' warnings
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message.rstrip('.')}; {self.prog} -h lists the options")


def command(run: Callable[[], int], as_program: bool, name: str = "audioldm") -> int:
    """Run one of our commands and return its exit code: 0, 2 (bad input), 130 (Ctrl-C) or 1 (anything else).

    ``as_program``: whether the process ends with it. ``name``: the command's, which its messages begin with.
    """
    debug = os.environ.get(DEBUG) == "1"
    try:
        if not debug:
            _quiet()
        return run()
    except InputError as error:
        print(f"{name}: error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        if as_program:  # Python may remember the interrupt and end by the signal instead
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
            f"{name}: error: {type(error).__name__}: {_one_line(error)} ({DEBUG}=1 shows more)",
            file=sys.stderr,
        )
        return FAILED


def _quiet() -> None:
    """Silence what libraries print; must run before they are imported."""
    import warnings

    warnings.filterwarnings("ignore")
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
