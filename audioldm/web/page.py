"""The page: fields left, sounds right. Everything that it does is make_results; this file only arranges and shows."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio import themes
from gradio.exceptions import InvalidPathError

from ..commands.common import time_left
from ..errors import InputError
from .engine import AT_ONCE, Cancelled, Engine, Task
from .form import connect, prompt_fields, refusal, settings
from .request import Upload, for_page
from .results import Result, make_results, result_files
from .sessions import Sessions

TITLE = "audioldm: a picture in, its sound out"
SHOWN = 24  # results of a session that the page shows, the newest first
KEPT_ENDS = 1000  # sessions whose last sentence is kept
PASTE = (Path(__file__).parent / "paste.js").read_text(encoding="utf-8")
CSS = """
progress { width: 100%; height: 1.2em; }
.result img { width: 100%; height: 110px; }
"""


def theme() -> themes.Base:
    """Gradio's own, in the fonts of the visitor's system."""
    return themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


class Page(gr.Blocks):
    """Gradio's blocks, which answer in a sentence what no field can take."""

    async def preprocess_data(self, *args: Any, **more: Any) -> Any:
        try:
            return await super().preprocess_data(*args, **more)
        except gr.Error:
            raise
        except InvalidPathError:
            sentence = "a file was not uploaded here, or has a name that begins with a dot; upload it as another"
            raise gr.Error(sentence, print_exception=False) from None
        except Exception as error:
            raise gr.Error("a field was sent a value of a kind that it does not take") from error


def build(engine: Engine, sessions: Sessions) -> gr.Blocks:
    """The page over ``engine``, whose visitors' files are those of ``sessions``."""
    running = Running()
    with Page(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Row():
            with gr.Column():
                fields = prompt_fields(engine, sessions.root / "examples") | settings(engine)
                with gr.Row():
                    make = gr.Button("Make the sound", variant="primary", elem_id="make")
                    cancel = gr.Button("Cancel", variant="stop", elem_id="cancel")
            with gr.Column():
                status = gr.HTML(_said("Give a picture, words or a sound."), elem_id="status", label="Status")
                history = gr.State([])
                files = gr.File(label="Files of the last request", file_count="multiple", visible="hidden")
                _show_results(history, fields)
        event = gr.on(
            [make.click, fields["words"].submit, fields["url"].submit],
            _named_inputs(_generator(engine, sessions, running), list(fields)),
            inputs=[history], inputs_kwargs=fields, outputs=[status, files, history],
            api_name="generate", concurrency_id="engine", concurrency_limit=AT_ONCE, show_progress="minimal",
            show_progress_on=[status], scroll_to_output=True,
        )  # fmt: skip
        ended = event.failure(
            running.end, outputs=status, queue=False, api_visibility="private", show_progress="hidden",
        )  # fmt: skip
        ended.then(  # queued: else the page would not show the new history
            running.made, inputs=history, outputs=history, api_visibility="private", show_progress="hidden",
        )  # fmt: skip
        cancel.click(running.cancel, cancels=[event], queue=False, api_name="cancel", show_progress="hidden")
        connect(engine, sessions, fields)
        page.load(None, js=PASTE, api_visibility="private")

        def leave(request: gr.Request) -> None:
            session = request.session_hash or ""
            running.ends.pop(session, None)
            sessions.remove(session)

        page.unload(leave)
    return page


class Running:
    """The tasks of each visitor, and how the last one ended."""

    def __init__(self) -> None:
        self.ends: dict[str, tuple[str, list[Result]]] = {}  # last words as HTML, and the sounds made before
        self._tasks: dict[str, set[Task]] = defaultdict(set)
        self._told: set[Task] = set()  # of them those that the page calls cancelled already

    def add(self, session: str, task: Task) -> None:
        self._tasks[session].add(task)

    def remove(self, session: str, task: Task) -> None:
        self._tasks[session].discard(task)
        self._told.discard(task)
        if not self._tasks[session]:
            del self._tasks[session]

    def cancel(self, request: gr.Request) -> None:
        """Stop what this visitor waits for."""
        for task in tuple(self._tasks.get(request.session_hash or "", ())):
            task.cancel()

    def cancelled(self, task: Task) -> str:
        """The last words of a cancelled task, which are not the page's last unless it has asked (``end``)."""
        return "Cancelled." if task in self._told else "Cancelling …"

    def ended(self, session: str, why: str, made: list[Result]) -> None:
        """Keep ``why``, HTML, and what was made until the page asks; of the newest sessions, as programs never ask."""
        self.ends[session] = why, made
        while len(self.ends) > KEPT_ENDS:
            del self.ends[next(iter(self.ends))]

    def end(self, request: gr.Request) -> Any:
        """Say why the last task of this visitor failed, or that it was cancelled.

        The page asks when its order to cancel is done. That order also ends a task that began after it was sent, so
        "Cancelled." is not said before. A task that is still here is being closed.
        """
        session = request.session_hash or ""
        if tasks := tuple(self._tasks.get(session, ())):
            self._told.update(tasks)
            self.cancel(request)
            self.ended(session, _said("Cancelled."), [one for task in tasks for one in task.made])
        return self.ends[session][0] if session in self.ends else gr.skip()

    def made(self, request: gr.Request, history: list[Result]) -> list[Result]:
        """``history``, and before it what the last task had made when it was ended."""
        return _newest(self.ends.pop(request.session_hash or "", ("", []))[1], history)


def _generator(engine: Engine, sessions: Sessions, running: Running) -> Any:
    def generate(request: gr.Request, history: list[Result], **values: Any) -> Iterator[tuple[Any, Any, Any]]:
        session = request.session_hash or ""
        for upload in [*values.values(), *(values["pictures"] or ())]:
            if isinstance(upload, Upload):
                sessions.keep(session, Path(upload.path))
        folder = sessions.new_folder(session)
        task = Task(engine, lambda task: make_results(engine, task, values, folder))
        history = running.made(request, history)
        running.add(session, task)
        running.ended(session, _said("Cancelled."), task.made)  # if nothing else is said
        try:
            with task.running():
                while not task.wait():
                    yield _progress(task), gr.skip(), gr.skip()
                results, failed = task.result
            running.ended(session, _finished(results, failed), results)  # an order to cancel may keep it from the page
            yield _finished(results, failed), [*map(str, result_files(results))], _newest(results, history)
            running.ends.pop(session, None)
        except Cancelled:
            yield _said(running.cancelled(task)), [*map(str, result_files(task.made))], _newest(task.made, history)
        except InputError as error:
            running.ended(session, _said(for_page(str(error)), role="alert"), task.made)
            raise refusal(error) from None
        finally:
            running.remove(session, task)

    return generate


def _newest(results: list[Result], history: list[Result]) -> list[Result]:
    """What the page shows: ``results`` and then what it had."""
    return [*results, *(one for one in history if one not in results)][:SHOWN]


def _named_inputs(function: Any, names: list[str]) -> Any:
    """``function`` with its keywords in its signature, from which Gradio's API takes names and defaults."""
    keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    first = [one for one in inspect.signature(function).parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    function.__signature__ = inspect.Signature([*first, *keywords])
    return function


def _progress(task: Task) -> str:
    if not task.total:
        return f'<p role="status">{escape(task.shown)} …</p>'
    left = task.seconds_left
    more = "" if left is None else f", about {time_left(left)} left"
    return (
        f'<progress max="{task.total}" value="{task.done}" aria-label="Progress"></progress>'
        f"<p>{escape(task.shown)}: step {task.done} of {task.total}{more}</p>"
    )


def _said(text: str, role: str = "status") -> str:
    return f'<p role="{role}">{escape(text)}</p>'


def _finished(results: list[Result], failed: list[InputError]) -> str:
    count = "The sound is" if len(results) == 1 else f"{len(results)} sounds are"
    return _said(f"{count} made.") + "".join(_said(for_page(str(error)), role="alert") for error in failed)


def _show_results(history: gr.State, fields: dict[str, Any]) -> None:
    @gr.render(inputs=[history], triggers=[history.change])
    def show(results: list[Result]) -> None:
        before = None
        for result in results:
            if result.packed not in (None, before):
                gr.DownloadButton("These sounds as ZIP", str(result.packed), size="sm", key=f"{result.packed}")
            before = result.packed
            with gr.Column(variant="panel", elem_classes="result"):
                _show(result, fields)


def _show(result: Result, fields: dict[str, Any]) -> None:
    about = f"seed {result.seed}, {result.seconds:g} s"
    gr.Audio(
        str(result.wav), label=f"{result.title} ({about})", interactive=False, buttons=[], key=f"{result.wav}",
        type="filepath",
    )  # fmt: skip
    alt = escape(f"log-mel spectrogram of {result.title}")
    lines = "".join(f"<p>{escape(line)}</p>" for line in _lines(result))
    gr.HTML(f'<img src="gradio_api/file={quote(str(result.picture))}" alt="{alt}">{lines}', key=f"{result.picture}")
    with gr.Row():
        gr.DownloadButton("WAV", str(result.wav), size="sm")
        gr.DownloadButton("JSON", str(result.json), size="sm")
        gr.DownloadButton("Embedding", str(result.vector), size="sm")
        again = gr.Button("Again with this seed", size="sm")
        use = gr.Button("Use as sound prompt", size="sm")
    again.click(
        lambda: (result.seed, 1, 1), outputs=[fields["seed"], fields["batchsize"], fields["n_candidates"]],
        api_visibility="private", queue=False,
    )  # fmt: skip
    use.click(lambda: str(result.wav), outputs=fields["sound"], api_visibility="private", queue=False)


def _lines(result: Result) -> list[str]:
    near = ", ".join(f"{name} {cosine:.2f}" for name, cosine in result.nearest)
    return [*([f"What the model sees (known sounds nearest to the picture, with the cosine): {near}"] if near else []),
            *(f"{note[:1].upper()}{note[1:]}." for note in result.notes)]  # fmt: skip


