"""What our commands share: a parser, exit codes, and how errors are said."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from ..errors import InputError

DEBUG = "AUDIOLDM_DEBUG"  # environment variable: "1" shows tracebacks and the libraries' warnings
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes

log = logging.getLogger("audioldm")


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
        _configure_logging(debug)
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


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)


def _configure_logging(debug: bool) -> None:
    """Print the remarks of our modules to stderr, and nothing of the libraries; must run before these are imported."""
    if not log.handlers:
        log.addHandler(_ToStderr(logging.WARNING))
    if debug:
        return
    warnings.filterwarnings("ignore")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
