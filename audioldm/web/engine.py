"""The models of the server, and the one request at a time that works with them."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from translator import settings, zoo

from .. import registry
from ..checkpoints import download
from ..checkpoints.layout import read_json
from ..checkpoints.published import UPSTREAM
from ..errors import InputError

if TYPE_CHECKING:
    from ..latent_diffusion.model import LatentDiffusion

AT_ONCE = 16  # requests that are begun: one has its turn with the model, the others fetch addresses or wait in line
POLL_S, WAITING_S = 0.25, 1.0  # seconds between two looks at a request that works, and at one that waits

WAITING = "Waiting for the model"

log = logging.getLogger("audioldm")


class Cancelled(Exception):
    """The person who asked for it does not want it any more."""


class Line:
    """Who waits for the model. The turn goes to whoever has waited longest."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._line: list[object] = []  # the first one has the turn

    def ahead(self, who: object) -> int:
        """How many have their turn before ``who``."""
        with self._moved:
            return self._line.index(who) if who in self._line else 0

    @contextmanager
    def turn(self, who: object, check: Callable[[], object] = lambda: None) -> Iterator[None]:
        """The turn of ``who``, once it comes; whoever does not wait any more raises in ``check``."""
        with self._moved:
            self._line.append(who)
        try:
            with self._moved:
                while not self._moved.wait_for(lambda: self._line[0] is who, POLL_S):
                    check()
            yield
        finally:
            with self._moved:
                self._line.remove(who)
                self._moved.notify_all()


class Engine:
    """Loads one model at a time, the one that was asked for last. Who works with it has the turn of ``line``."""

    def __init__(
        self, checkpoint: str | None, name: str | None, time_limit: float = 600.0, **how: Any
    ) -> None:
        """``checkpoint``, ``name``: the model to begin with, as of the command; it is found, not loaded yet.

        ``time_limit``: seconds that one request may work. ``how``: device, precision and batch, as of
        registry.build_model. Raises InputError.
        """
        self.time_limit, self.line, self._how = time_limit, Line(), how
        self.fetching = threading.BoundedSemaphore(AT_ONCE)  # a download that was cancelled may go on for a minute
        self.first = registry.build_model(checkpoint, model_name=name or registry.DEFAULT_MODEL, **how)
        self.default = self.first.folder.name  # no visitor sees its path
        self._loaded = (self.default, self.first)

    def models(self) -> list[str]:
        """Names of the models that can be used without a download, the default first."""
        downloaded = [name for name in UPSTREAM if download.state(name).startswith("downloaded")]
        return list(dict.fromkeys([self.default, *registry.model_names(), *downloaded]))

    def translators(self, name: str | None) -> list[str]:
        """Names of the translators that fit a model, its own default first; what is not trained, last."""
        model = self.open(name)
        try:
            spaces = model.spaces
        except InputError:
            return []
        found = [entry.name for root in registry.translator_roots(model) for entry in zoo.available(root)
                 if entry.fits(*spaces)]  # fmt: skip
        return list(dict.fromkeys([registry.default_name(model), *sorted(found), settings.MEMORY]))

    def known(self, model: LatentDiffusion) -> list[str]:
        """Names of the sounds that a model was trained on, as far as it says."""
        path = model.folder.path / "sounds.json"
        known = read_json(path)["sounds"] if path.is_file() else []
        return [str(sound["name"]).replace("_", " ") for sound in known]

    def open(self, name: str | None) -> LatentDiffusion:
        """The model ``name``, one of ``models``; None: the default. Raises InputError."""
        name = self.default if name is None else name
        known, model = self._loaded
        if name == known:
            return model
        if name == self.default:
            return self.first
        if name not in self.models():
            near = registry.did_you_mean(name, self.models())
            raise InputError(f'the model "{name}" is not installed on this server{near}')
        return registry.build_model(model_name=name, **self._how)

    def load(self, name: str | None) -> LatentDiffusion:
        """As ``open``, and the memory of another model is free again; for whoever has the turn."""
        model = self.open(name)
        wanted = self.default if name is None else name
        if wanted != self._loaded[0]:
            self._loaded[1].release(*PARTS)
            self._loaded = (wanted, model)
        return model

    def warm_up(self) -> None:
        """Load what a picture needs, so that the first request does not wait for it. Says nothing if it fails."""
        with self.line.turn(self):
            try:
                model = self.load(None)
                _ = model.unet, model.vae, model.vocoder, model.unconditional, model.sha256
                registry.load_translator(model)
                _ = model.image_encoder, model.clap
            except Exception as error:
                log.warning("%s", " ".join(str(error).split()))


PARTS = ("unet", "vae", "vocoder", "clap", "clip", "image_encoder", "unconditional", "known_sounds")


class Task:
    """One request, worked on in a thread of its own, while its owner looks at how far it is and may cancel it."""

    def __init__(self, engine: Engine, work: Callable[[Task], Any]) -> None:
        """``work`` waits for its ``turn`` and then calls ``step`` often; what it returns is the result."""
        self.done, self.total = 0, 0  # steps
        self.part, self.text = "", "Waiting"
        self.made: list[Any] = []  # what can be shown before the whole is done
        self._engine, self._work = engine, work
        self._result: Any = None
        self._error: Exception | None = None
        self._cancelled, self._finished = threading.Event(), threading.Event()
        self._began, self._deadline = 0.0, math.inf

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The time in which the model is this task's alone, once those before it are done. Raises Cancelled."""
        self.text, self.total, self._deadline = WAITING, 0, math.inf
        with self._engine.line.turn(self, self.check):
            self._deadline = time.monotonic() + self._engine.time_limit
            self.check()
            yield

    @property
    def shown(self) -> str:
        """What it is doing."""
        if self.text != WAITING or not (ahead := self._engine.line.ahead(self)):
            return self.part + self.text
        return f"{self.part}{WAITING}, {ahead} request{'s' if ahead > 1 else ''} before yours"

    def begin(self, total: int) -> None:
        """From now on it is ``total`` steps."""
        self.done, self.total, self._began = 0, total, time.monotonic()

    def step(self) -> None:
        """One step is done. Raises Cancelled, or InputError if the time is over."""
        self.check()
        self.done += 1

    def check(self) -> None:
        """Raises Cancelled, or InputError if the time is over."""
        if self._cancelled.is_set():
            raise Cancelled
        if time.monotonic() > self._deadline:
            limit = self._engine.time_limit
            raise InputError(f"this takes longer than the {limit:g} seconds that this server allows; ask for less")

    @property
    def seconds_left(self) -> float | None:
        """From the pace so far; None: unknown."""
        if not self.done or not self.total:
            return None
        return (time.monotonic() - self._began) / self.done * (self.total - self.done)

    def cancel(self) -> None:
        """The work ends at its next step."""
        self._cancelled.set()

    @contextmanager
    def running(self) -> Iterator[Task]:
        """Work while the block runs; whatever ends the block cancels it."""
        threading.Thread(target=self._run, daemon=True, name="audioldm-request").start()
        try:
            yield self
        finally:
            self.cancel()

    def wait(self) -> bool:
        """Whether the work is over, after at most a second."""
        return self._finished.wait(POLL_S if self.total else WAITING_S)

    @property
    def result(self) -> Any:
        """What ``work`` returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._work(self)
        except (Cancelled, InputError) as error:
            self._error = error
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            self._error = InputError(f"{type(error).__name__}: {' '.join(str(error).split())}")
        finally:
            self._finished.set()
