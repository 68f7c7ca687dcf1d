"""What our commands share: a parser, exit codes, messages, how far a run is, and the job to do."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from ..errors import InputError
from ..options import GenerateOptions

if TYPE_CHECKING:
    from torch import Tensor
    from tqdm import tqdm

    from ..generation import Sound
    from ..inputs.prompt import Prompt
    from ..inputs.sounds import Original
    from ..latent_diffusion.model import LatentDiffusion

DEBUG = "AUDIOLDM_DEBUG"  # environment variable: "1" shows tracebacks and the libraries' warnings
# What torch reads when it is imported. Its threads wait for each other by counting, and where other programs have the
# cores, a run takes five times as long; asleep they cost nothing. What Apple's GPU lacks, the CPU does.
MACHINE = {"OMP_WAIT_POLICY": "PASSIVE", "PYTORCH_ENABLE_MPS_FALLBACK": "1"}
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes
EVERY_S = 10.0  # seconds between two lines of progress

log = logging.getLogger("audioldm")


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage."""

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
        os.getcwd()  # torch's libraries would end the process without it
    except OSError:
        _say(f"{name}: error: the current folder does not exist any more; change to another one")
        return BAD_INPUT
    try:
        with _configured_logging(debug):
            code = run()
            sys.stdout.flush()
            return code
    except InputError as error:
        _say(f"{name}: error: {_one_line(error)}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say(f"{name}: interrupted")
        if as_program:  # Python may remember the interrupt and end by the signal instead
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout is gone
        _forget_stdout()
        return FAILED
    except OSError as error:  # a full disk, a closed device …
        if debug:
            raise
        where = f": {error.filename}" if error.filename else ""
        _say(f"{name}: error: {error.strerror or _one_line(error)}{where}")
        _forget_stdout()
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
        file = getattr(sys.stderr.buffer, "raw", sys.stderr.buffer)  # the latter with PYTHONUNBUFFERED
        if sys.stderr is sys.__stderr__ and type(file) is io.FileIO:
            raw = _Remarks(sys.stderr.fileno(), "w", closefd=False)
            sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw), sys.stderr.encoding, line_buffering=True)
        sys.stderr.reconfigure(errors="backslashreplace")


class _Remarks(io.FileIO):
    """What cannot be written here is lost, and the run goes on: its results are elsewhere."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _forget_stdout() -> None:
    """If stdout cannot be written to, let the interpreter's last flush succeed: the exit code says it already."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # stderr may be another program's object
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
        self._bar: tqdm[NoReturn] | None = None
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
        left = time_left(seconds / self.done * (self.total - self.done))
        return f"{self.done} of {self.total} {self.unit}s are done, about {left} left"


def time_left(seconds: float) -> str:
    """ "90 s", "5 min" or "3 h"."""
    left = round(seconds)
    return f"{left} s" if left < 120 else f"{left // 60} min" if left < 7200 else f"{left // 3600} h"


@dataclass(frozen=True)
class Job:
    """One request, from the command or the page: read, and checked as far as possible without a model."""

    given: dict[str, Any]  # options by name; None: left to the model
    prompts: tuple[Prompt, ...] = ()
    weights: tuple[float, ...] | None = None  # one for each prompt; None: 1 each
    negative: Prompt | None = None
    original: Original | None = None  # the sound that an edit begins with
    translator: str | None = None

    def check(self, model: LatentDiffusion) -> GenerateOptions:
        """The options over the model's own defaults, once it is known that it can make this. Raises InputError."""
        from .. import registry
        from ..conditioning import check_negative, check_prompts

        options = GenerateOptions.build(self.given, model.defaults)
        check_negative(self.negative, options.guidance_scale)
        if self.translator is not None:
            registry.load_translator(model, self.translator)
        prompts = [*self.prompts, self.negative] if self.negative else self.prompts
        check_prompts(model, prompts, self.translator)
        return options


def given_options(values: dict[str, Any], original: Original | None) -> dict[str, Any]:
    """``values`` by name of option, with the length of the sound to edit where no duration is among them.

    Raises InputError if they cannot be right for any model.
    """
    given = dict(values)
    if original is not None and given.get("duration") is None:
        given["duration"] = original.duration
    GenerateOptions.build(given)
    return given


def steps(model: LatentDiffusion, options: GenerateOptions) -> int:
    """How often ``make`` calls ``on_step``."""
    return (options if model.folder.hears else dataclasses.replace(options, n_candidates=1)).evaluations


def condition(
    model: LatentDiffusion, job: Job, on_note: Callable[[str], object] = log.warning
) -> tuple[Tensor, Tensor | None]:
    """The condition (1, 512) of all prompts, and the one to avoid, if any. Raises InputError."""
    from .. import conditioning

    vector = conditioning.condition_all(model, job.prompts, job.weights, job.translator, on_note)
    negative = conditioning.encode_prompt(model, job.negative, job.translator, on_note) if job.negative else None
    return vector, negative


def make(
    model: LatentDiffusion,
    job: Job,
    options: GenerateOptions,
    conditions: tuple[Tensor, Tensor | None],
    began: float,
    on_step: Callable[[], object] | None = None,
    on_note: Callable[[str], object] = log.warning,
    frugal: bool = False,
) -> Iterator[tuple[Sound, dict[str, object]]]:
    """Each sound as soon as it is made, with its record.

    Args:
        options: those that ``job.check`` returned.
        conditions: those that ``condition`` returned.
        began: when the run began, on the clock of time.perf_counter.
        on_step, on_note, frugal: as for generation.generate.
    """
    from .. import generation
    from ..outputs.destination import make_record

    vector, negative = conditions
    shared = make_record(
        model, job.prompts, job.translator, options,
        weights=job.weights, negative=job.negative, original=job.original,
    )  # fmt: skip
    sounds = generation.generate(
        model, vector, options, on_step, negative=negative, original=job.original, frugal=frugal, on_note=on_note
    )
    for sound in sounds:
        yield sound, {**shared, **sound.record(time.perf_counter() - began)}
