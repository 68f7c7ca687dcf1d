"""The form: the fields of a request, and what follows when one of them changes."""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from .. import registry
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
from .engine import Engine
from .fields import Choice, File, Picture, Sound, field, span, weight
from .request import MAX_PICTURES, Upload, for_page, named
from .sessions import Sessions

PEAKS = 300  # of the waveform over which seconds are chosen
EDITED = {"transfer": (STRENGTH,), "inpaint": (TIME_RANGE, FREQUENCY_RANGE), "superres": (TIME_RANGE, FREQUENCY_RANGE)}
MODES_SHOWN = {
    "generation": "make a sound", "transfer": "restyle a sound (transfer)",
    "inpaint": "replace a part (inpaint)", "superres": "add high notes (superres)",
}  # fmt: skip


def prompt_fields(engine: Engine, folder: Path) -> dict[str, Any]:
    """Mode and prompts, by name of the field. ``folder`` is for copies of the examples."""
    modes = [(MODES_SHOWN[mode], mode) for mode in MODE.choices]
    fields: dict[str, Any] = {"mode": gr.Radio(modes, value=MODE.default, label=MODE.title.capitalize())}
    fields["picture"] = Picture(
        label="Picture", sources=["upload", "clipboard", "webcam"], buttons=[], height=240, elem_id="picture"
    )
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
    with gr.Accordion("Several pictures, a sound for each", open=False):
        fields["pictures"] = File(label=f"Pictures, at most {MAX_PICTURES}", file_count="multiple", height=140)
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


def settings(engine: Engine) -> dict[str, Any]:
    """What stands behind the fold, by name of the field."""
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


def refusal(error: InputError) -> gr.Error:
    """What shows the sentence in the page and hands it to programs."""
    sentence = re.sub(r"[<>]|&(?=[\w#])", lambda found: escape(found[0]), for_page(str(error)))  # it is shown as HTML
    return gr.Error(sentence, print_exception=False)


def connect(engine: Engine, sessions: Sessions, fields: dict[str, Any]) -> None:
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
        try:
            model = engine.open(name)
            defaults = GenerateOptions.build({}, model.defaults)
        except InputError as error:
            raise refusal(error) from None
        choices = [("automatic", ""), *engine.translators(name)]
        numbers = [gr.update(placeholder=f"{getattr(defaults, option.name):g}") for option in counted]
        return [gr.update(choices=choices, value=""), *numbers]

    mute: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    edits = [fields[option.name] for option in EDITING[1:]]
    fields["mode"].change(show_edit, [fields["mode"], fields["sound"]], edits, **mute)
    fields["sound"].change(heard, fields["sound"], fields["time_range"], **mute)
    fields["picture"].upload(keep, fields["picture"], None, **mute)
    numbers = [fields[option.name] for option in counted]
    fields["model_name"].change(use_model, fields["model_name"], [fields["translator"], *numbers], **mute)
