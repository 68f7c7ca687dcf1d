"""What our commands share: a parser, exit codes, messages and how far a run is."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from ..errors import InputError

DEBUG = "AUDIOLDM_DEBUG"  # environment variable: "1" shows tracebacks and the libraries' warnings
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes
EVERY_S = 10.0  # seconds between two lines of progress

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


class Progress:
    """How far a run is, on stderr: a bar for a terminal, and a line every ten seconds for a notebook or a log.

    Counts up to ``total`` (None: unknown) of ``unit``, "step" or "row"; a context.
    """

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit, self.done = total, unit, 0
        self._began = self._told = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit, file=sys.stderr, leave=False, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        """One more is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._told >= EVERY_S and self.done != self.total:
            self._told = now
            print(f"audioldm: {self._line(now - self._began)}", file=sys.stderr, flush=True)

    def say(self, text: str, file: TextIO) -> None:
        """Print a line clear of the bar."""
        with self._bar.external_write_mode(file) if self._bar is not None else contextlib.nullcontext():
            print(text, file=file, flush=True)

    def _line(self, seconds: float) -> str:
        if self.total is None:
            return f"{self.done} {self.unit}s are done"
        left = round(seconds / self.done * (self.total - self.done))
        told = f"{left} s" if left < 120 else f"{left // 60} min" if left < 7200 else f"{left // 3600} h"
        return f"{self.done} of {self.total} {self.unit}s are done, about {told} left"
