"""What our commands share: a parser, exit codes, and how errors are said."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from ..errors import InputError

DEBUG = "AUDIOLDM_DEBUG"  # environment variable: "1" shows tracebacks and the libraries' warnings
# What torch reads when it is imported. Its threads wait for each other by counting, and where other programs have the
# cores, a run takes five times as long; asleep they cost nothing. What Apple's GPU lacks, the CPU does.
MACHINE = {"OMP_WAIT_POLICY": "PASSIVE", "PYTORCH_ENABLE_MPS_FALLBACK": "1"}
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
    if as_program:
        _open_streams()
        for variable, value in MACHINE.items():
            os.environ.setdefault(variable, value)
    try:
        with _configured_logging(debug):
            return run()
    except InputError as error:
        _say(f"{name}: error: {_one_line(error)}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say(f"{name}: interrupted")
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
        _say(f"{name}: error: {type(error).__name__}: {_one_line(error)} ({DEBUG}=1 shows more)")
        return FAILED


def _open_streams() -> None:
    """See to it that all standard streams are open, and that stdout takes the name of any file as its bytes.

    Where one is closed, the next file to be opened would take its number, and whatever is printed go into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)  # takes the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def _say(text: str) -> None:
    """Print a line to stderr, if it can be written to."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


@contextmanager
def _configured_logging(debug: bool) -> Iterator[None]:
    """Print the remarks of our modules to stderr, and nothing of the libraries; must run before these are imported."""
    if not debug:
        warnings.filterwarnings("ignore")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
            os.environ.setdefault(name, "error")
    handler = _ToStderr(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
