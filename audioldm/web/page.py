"""The page: fields left, sounds right. Everything that it does is make_results; this file only arranges and shows."""

from __future__ import annotations

import inspect
import shutil
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import numpy as np
from gradio import themes

from .. import registry
from ..commands.common import time_left
from ..errors import InputError
from ..inputs.sounds import read_original
from ..options import (
    EDITING,
    FREQUENCY_RANGE,
    MAX_DURATION,
    MODE,
    NEGATIVE,
    SAMPLING,
    STRENGTH,
    TIME_RANGE,
    TOP,
    GenerateOptions,
)
from .engine import Cancelled, Engine, Task
from .fields import Choice, File, Picture, Sound, field, span, weight
from .request import Upload, for_page, named
from .results import Result, make_results
from .sessions import Sessions

TITLE = "audioldm: a picture in, its sound out"
SHOWN = 24  # results of a session that the page shows, the newest first
PEAKS = 300  # of the waveform over which seconds are chosen
EDITED = {"transfer": (STRENGTH,), "inpaint": (TIME_RANGE, FREQUENCY_RANGE), "superres": (TIME_RANGE, FREQUENCY_RANGE)}
MODES_SHOWN = {
    "generation": "make a sound", "transfer": "restyle a sound (transfer)",
    "inpaint": "replace a part (inpaint)", "superres": "add high notes (superres)",
}  # fmt: skip
CSS = """
progress { width: 100%; height: 1.2em; }
.result img { width: 100%; height: 110px; }
"""


def theme() -> themes.Base:
    """Gradio's own, in the fonts of the visitor's system."""
    return themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build(engine: Engine, sessions: Sessions) -> gr.Blocks:
    """The page over ``engine``, whose visitors' files are those of ``sessions``."""
    running = Running()
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Row():
            with gr.Column():
                fields = _prompt_fields(engine, sessions.root / "examples") | _settings(engine)
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
            api_name="generate", concurrency_id="engine", concurrency_limit=1, show_progress="minimal",
            show_progress_on=[status], scroll_to_output=True,
        )  # fmt: skip
        event.failure(running.fault, outputs=status, api_visibility="private", queue=False, show_progress="hidden")
        cancel.click(
            running.cancel, outputs=status, cancels=[event], queue=False, api_name="cancel", show_progress="hidden"
        )
        _connect(engine, sessions, fields)

        def leave(request: gr.Request) -> None:
            sessions.remove(request.session_hash or "")

        page.unload(leave)
    return page


class Running:
    """The tasks of each visitor, and why the last one failed."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self._tasks: dict[str, set[Task]] = defaultdict(set)

    def add(self, session: str, task: Task) -> None:
        self._tasks[session].add(task)

    def remove(self, session: str, task: Task) -> None:
        self._tasks[session].discard(task)
        if not self._tasks[session]:
            del self._tasks[session]

    def cancel(self, request: gr.Request) -> str:
        """Stop what this visitor waits for."""
        for task in tuple(self._tasks.get(request.session_hash or "", ())):
            task.cancel()
        return _said("Cancelled.")

    def fault(self, request: gr.Request) -> str:
        """Say why the last task of this visitor failed."""
        return _said(self.faults.pop(request.session_hash or "", "Nothing was made."), role="alert")


def _prompt_fields(engine: Engine, folder: Path) -> dict[str, Any]:
    modes = [(MODES_SHOWN[mode], mode) for mode in MODE.choices]
    fields: dict[str, Any] = {"mode": gr.Radio(modes, value=MODE.default, label=MODE.title.capitalize())}
    fields["picture"] = Picture(label="Picture", sources=["upload", "clipboard", "webcam"], buttons=[], height=240)
    with gr.Row():
        fields["url"] = gr.Textbox(label="Address of a picture", placeholder="https://example.org/sea.jpg", scale=4)
        fields["picture_weight"] = weight("Picture")
    with gr.Row():
        fields["words"] = gr.Textbox(label="Words", placeholder="a dog barking", info=_known(engine), scale=4)
        fields["words_weight"] = weight("Words")
    with gr.Row():
        fields["sound"] = Sound(label="Sound", sources=["upload", "microphone"], buttons=[], scale=4)
        fields["sound_weight"] = weight("Sound")
    for option in EDITING[1:]:
        fields[option.name] = field(option, visible=False)
    fields["negative_prompt"] = field(NEGATIVE)
    _examples(fields["picture"], folder)
    return fields


def _examples(picture: Picture, folder: Path) -> None:
    """A gallery of the checkout's photographs, if it is one; a press on one of them takes its copy in ``folder``."""
    photos = sorted((registry.models_dir().parent / "examples").glob("*.jpg"))
    if not photos:
        return
    folder.mkdir(parents=True, exist_ok=True)
    paths = [shutil.copy(photo, folder) for photo in photos]
    gallery = gr.Gallery(
        [(path, Path(path).stem) for path in paths], label="Examples", columns=3, height=150, allow_preview=False,
        interactive=False, buttons=[], object_fit="cover",
    )  # fmt: skip

    def take(event: gr.SelectData) -> str:
        return paths[event.index]

    gallery.select(take, None, picture, api_visibility="private", queue=False, show_progress="hidden")


def _settings(engine: Engine) -> dict[str, Any]:
    models = engine.models()
    names = engine.translators(None)
    with gr.Accordion("Model and settings", open=False):
        fields: dict[str, Any] = {
            "model_name": Choice(models, value=models[0], label="Model", info="those installed here"),
            "translator": Choice([("automatic", ""), *names], value="", label="Translator", info="for pictures"),
        }
        defaults = GenerateOptions.build({}, engine.first.defaults)
        for option in SAMPLING:
            fields[option.name] = field(option, getattr(defaults, option.name))
        fields["vector"] = File(label="Saved embedding (.npy)", height=140)
        fields["vector_weight"] = weight("Embedding")
    return fields


def _known(engine: Engine) -> str | None:
    names = engine.known(engine.first)
    return f"this model knows: {', '.join(names)}" if names else None


def _generator(engine: Engine, sessions: Sessions, running: Running) -> Any:
    def generate(request: gr.Request, history: list[Result], **values: Any) -> Iterator[tuple[Any, Any, Any]]:
        session = request.session_hash or ""
        for upload in values.values():
            if isinstance(upload, Upload):
                sessions.keep(session, Path(upload.path))
        folder = sessions.new_folder(session)
        task = Task(engine, lambda task: make_results(engine, task, values, folder))
        running.add(session, task)
        try:
            with task.running():
                while not task.wait():
                    yield _progress(task), gr.skip(), gr.skip()
                results = task.result
        except Cancelled:
            yield _said("Cancelled."), gr.skip(), gr.skip()
            return
        except InputError as error:
            running.faults[session] = for_page(str(error))
            raise refusal(error) from None
        finally:
            running.remove(session, task)
        paths = [str(path) for result in results for path in (result.wav, result.json)]
        yield _finished(results), paths, [*results, *history][:SHOWN]

    return generate


def refusal(error: InputError) -> gr.Error:
    """What shows the sentence in the page and hands it to programs."""
    return gr.Error(escape(for_page(str(error)), quote=False), print_exception=False)


def _named_inputs(function: Any, names: list[str]) -> Any:
    """``function`` with its keywords in its signature, from which Gradio's API takes names and defaults."""
    keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    first = [one for one in inspect.signature(function).parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    function.__signature__ = inspect.Signature([*first, *keywords])
    return function


def _progress(task: Task) -> str:
    if not task.total:
        return f'<p role="status">{escape(task.text)} …</p>'
    left = task.seconds_left
    more = "" if left is None else f", about {time_left(left)} left"
    return (
        f'<progress max="{task.total}" value="{task.done}" aria-label="Progress"></progress>'
        f"<p>{escape(task.text)}: step {task.done} of {task.total}{more}</p>"
    )


def _said(text: str, role: str = "status") -> str:
    return f'<p role="{role}">{escape(text)}</p>'


def _finished(results: list[Result]) -> str:
    count = "The sound is" if len(results) == 1 else f"{len(results)} sounds are"
    return _said(f"{count} made.")


def _show_results(history: gr.State, fields: dict[str, Any]) -> None:
    @gr.render(inputs=[history], triggers=[history.change])
    def show(results: list[Result]) -> None:
        for result in results:
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


def _connect(engine: Engine, sessions: Sessions, fields: dict[str, Any]) -> None:
    """What follows when a field changes."""
    counted = [option for option in SAMPLING if not option.choices]

    def show_edit(request: gr.Request, mode: str, sound: Upload | None) -> list[Any]:
        shown = EDITED.get(mode, ())
        values = (None, heard(request, sound), span(TOP))
        return [
            gr.update(visible=option in shown, value=value)
            for option, value in zip(EDITING[1:], values, strict=True)
        ]

    def heard(request: gr.Request, sound: Upload | None) -> Any:
        if sound is None:
            return span(MAX_DURATION)
        sessions.keep(request.session_hash or "", Path(sound.path))
        try:
            original = read_original(named(sound), "inpaint", on_note=lambda note: None)
        except InputError as error:
            raise refusal(error) from None
        parts = np.array_split(np.abs(original.wave), PEAKS)
        peaks = [float(part.max(initial=0)) for part in parts]
        return span(round(original.duration, 2), peaks)

    def keep(request: gr.Request, picture: Upload | None) -> None:
        if picture is not None:
            sessions.keep(request.session_hash or "", Path(picture.path))

    def use_model(name: str) -> list[Any]:
        model = engine.open(name)
        defaults = GenerateOptions.build({}, model.defaults)
        choices = [("automatic", ""), *engine.translators(name)]
        numbers = [gr.update(placeholder=f"{getattr(defaults, option.name):g}") for option in counted]
        return [gr.update(choices=choices, value=""), *numbers]

    mute: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
    edits = [fields[option.name] for option in EDITING[1:]]
    fields["mode"].change(show_edit, [fields["mode"], fields["sound"]], edits, **mute)
    fields["sound"].change(heard, fields["sound"], fields["time_range"], **mute)
    fields["picture"].upload(keep, fields["picture"], None, **mute)
    numbers = [fields[option.name] for option in counted]
    fields["model_name"].change(use_model, fields["model_name"], [fields["translator"], *numbers], **mute)
