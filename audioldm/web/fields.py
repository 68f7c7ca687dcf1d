"""The fields of the page, made from the table of options; and those for files, which stay as they were sent."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio import component_meta
from gradio.components import Component
from gradio.data_classes import ListFiles

from ..options import Option
from .request import Upload

component_meta.create_or_modify_pyi = lambda *_: None  # Gradio would write a fields.pyi beside this file

HERE = Path(__file__).parent
RANGE = {
    "html_template": (HERE / "range.html").read_text(encoding="utf-8"),
    "css_template": (HERE / "range.css").read_text(encoding="utf-8"),
    "js_on_load": (HERE / "range.js").read_text(encoding="utf-8"),
}

if TYPE_CHECKING:
    Base = Component
else:
    Base = object


class _AsSent(Base):
    """A field for a file, which Gradio neither fetches from elsewhere nor decodes: our own readers do that."""

    def preprocess(self, payload: Any) -> Upload | list[Upload] | None:
        if isinstance(payload, ListFiles):
            return [upload for one in payload.root if (upload := self._sent(one)) is not None]
        return self._sent(payload)

    def _sent(self, payload: Any) -> Upload | None:
        if payload is None or not payload.path:
            return None
        path = Path(payload.path)
        if not path.is_file():
            raise gr.Error("the file is not on the server any more; upload it again", print_exception=False)
        return Upload(payload.path, Path(payload.orig_name or "").name or path.name)

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        if str(url_or_file_path).lower().startswith(("http://", "https://")):
            raise gr.Error("a file is uploaded, not given by its address", print_exception=False)
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class Picture(_AsSent, gr.Image):
    """A picture: uploaded, pasted or taken with the camera."""

    def get_block_name(self) -> str:
        return "image"


class Sound(_AsSent, gr.Audio):
    """A sound: uploaded or recorded."""

    def get_block_name(self) -> str:
        return "audio"


class File(_AsSent, gr.File):
    """Any other file, or several."""

    def get_block_name(self) -> str:
        return "file"


class Choice(gr.Dropdown):
    """One of several names; a wrong one is refused by our own check, in its words."""

    def preprocess(self, payload: Any) -> Any:
        return payload

    def get_block_name(self) -> str:
        return "dropdown"


class Amount(gr.Textbox):
    """A number or nothing, which Gradio's own field for numbers would show as 0; our own check sees to its range."""

    def preprocess(self, payload: Any) -> Any:
        if not isinstance(payload, str):
            return payload
        for read in (int, float):
            with contextlib.suppress(ValueError):
                return read(payload.strip().replace(",", "."))
        return payload.strip() or None

    def api_info(self) -> dict[str, Any]:
        return {"type": "number"}

    def example_payload(self) -> Any:
        return 1

    def get_block_name(self) -> str:
        return "textbox"


class Range(gr.HTML):
    """Two handles over what may be a waveform: [first, last], or None."""

    def preprocess(self, payload: Any) -> Any:
        return payload.get("chosen") if isinstance(payload, dict) else payload

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "number"}}

    def example_payload(self) -> Any:
        return [1.0, 2.5]

    example_value = example_payload


def span(length: float, peaks: Sequence[float] = ()) -> dict[str, Any]:
    """The value of a Range with nothing chosen yet. ``peaks``: of the waveform, from 0 to 1, evenly over ``length``."""
    return {"chosen": None, "length": length, "peaks": list(peaks)}


def field(option: Option, default: Any = None, **more: Any) -> Component:
    """The field for ``option``. ``default``: what the model uses where it stays empty."""
    label, info = option.title.capitalize(), option.described
    left_out = f"{default:g}" if isinstance(default, float | int) else default
    if option.values == 2:
        unit = option.note.strip()
        words = {"LABEL": label, "HINT": info, "UNIT": unit, "STEP": "0.01" if unit == "seconds" else "10"}
        filled = {
            part: reduce(lambda text, word: text.replace(word, words[word]), words, text)
            for part, text in RANGE.items()
        }
        return Range(span(option.high or 0), label=label, **filled, **more)
    if option.choices:
        return Choice([(f"automatic: {default}", ""), *option.choices], value="", label=label, info=info, **more)
    if option.kind is str:
        return gr.Textbox(label=label, info=info, **more)
    return Amount(label=label, info=info, placeholder=None if left_out is None else str(left_out), **more)


def weight(what: str) -> Amount:
    """The weight of one prompt among the others."""
    return Amount("1", label=f"{what} weight", min_width=110, scale=0)
