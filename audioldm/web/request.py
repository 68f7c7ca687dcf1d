"""What a visitor sends → a Job. Words are words and addresses are addresses: nothing names a file of the server."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from translator.files import is_data_uri, label, printable

from ..commands.common import Job, given_options
from ..conditioning import check_weights
from ..errors import InputError
from ..inputs.images import decode_image, load_image
from ..inputs.prompt import Prompt, read_prompt
from ..inputs.sounds import read_original
from ..inputs.vector import read_vector
from ..inputs.web import LIMITS
from ..options import EDITING, MODE, SAMPLING, Option

SOURCES = ("picture", "words", "sound", "vector")  # what is mixed, each with a weight, in this order
MAX_WORDS = 10_000  # characters
MAX_PICTURES = 24  # in one request, each with a sound of its own
MAX_UPLOAD = 100_000_000  # bytes: ten minutes of a sound as WAV; a picture may have what one from the web may

ADDRESS = re.compile(r"https?://", re.I)

OnNote = Callable[[str], object]


@dataclass(frozen=True)
class Upload:
    """A file that a visitor sent: where it lies, and its name there."""

    path: str
    name: str


def named(upload: Upload) -> BinaryIO:
    """The content of an upload as an open file, under the visitor's name of it. Raises InputError if it is gone."""
    try:
        file: Any = io.BytesIO(Path(upload.path).read_bytes())
    except OSError:
        raise InputError(f"{printable(upload.name)} is no longer here; upload it again") from None
    file.name = upload.name
    return file


def addresses(values: Mapping[str, Any]) -> set[str]:
    """The addresses in the fields, which are fetched before the request has its turn."""
    texts = {_text(values, name) for name in ("url", "words", "negative_prompt")}
    return {text for text in texts if ADDRESS.match(text)}


def each_picture(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The fields once for each of ``pictures``, as if it had come alone; or as they are. Raises InputError."""
    pictures: list[Upload] = values.get("pictures") or []
    if pictures and (values.get("picture") or _text(values, "url")):
        raise InputError("give one picture or several, not both")
    if len(pictures) > MAX_PICTURES:
        raise InputError(f"one request may have {MAX_PICTURES} pictures, not {len(pictures)}")
    return [{**values, "picture": picture} for picture in pictures] or [values]


def read_job(values: Mapping[str, Any], fetched: Mapping[str, bytes], on_note: OnNote) -> Job:
    """The job that the fields say. Raises InputError.

    ``values``: picture, sound and vector (Upload or None), url, words and negative_prompt (str), the weight of each as
    <name>_weight, translator, and options by name; what is missing or None is left to the model. ``fetched``: what
    lies at their ``addresses``.
    """
    given = {option.name: _plain(option, values.get(option.name)) for option in (*SAMPLING, *EDITING)}
    mode = given["mode"] = given["mode"] or MODE.default
    MODE.check(mode)
    edits, original = mode != MODE.default, None
    sound: Upload | None = values.get("sound")
    if edits:
        if sound is None:
            raise InputError("this mode begins with a sound: upload or record one")
        original = read_original(named(sound), mode, given["duration"], on_note)
    given = given_options(given, original)
    read: dict[str, Callable[[], Prompt | None]] = {
        "picture": lambda: _picture(values.get("picture"), _text(values, "url"), fetched, on_note),
        "words": lambda: _words_or_address(_text(values, "words"), fetched, on_note),
        "sound": lambda: read_prompt(audio_file=named(sound), on_note=on_note) if sound and not edits else None,
        "vector": lambda: _vector(values.get("vector")),
    }
    found = {source: prompt for source in SOURCES if (prompt := read[source]()) is not None}
    if not found:
        more = " for what is new in the sound" if edits else " or a sound"
        raise InputError(f"give a picture or words{more}")
    weights = tuple(1.0 if (weight := values.get(f"{source}_weight")) is None else weight for source in found)
    return Job(
        given,
        tuple(found.values()),
        None if weights == (1.0,) else check_weights(weights, len(found)),
        _words_or_address(_text(values, "negative_prompt"), fetched, on_note),
        original,
        values.get("translator") or None,
    )


def _plain(option: Option, value: Any) -> Any:
    """A pair as a tuple, 7.0 as 7 where a whole number belongs; nothing, and what an empty field sends, as None."""
    if isinstance(value, list):
        return tuple(value) or None
    if option.kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return None if value == "" else value


def for_page(sentence: str) -> str:
    """An error of ours without the flags and variables of the command, which a visitor does not know."""
    return re.sub(r"--(?=\w)", "", re.sub(r" \(--?\w+\)|; (give it with -\w\b|AUDIOLDM_.*)", "", sentence))


def _text(values: Mapping[str, Any], name: str) -> str:
    return str(values.get(name) or "").strip()


def _words_or_address(text: str, fetched: Mapping[str, bytes], on_note: OnNote) -> Prompt | None:
    """As -t takes them, but for names of files."""
    if text in fetched:
        return Prompt("image", text, decode_image(fetched[text], label(text), LIMITS, on_note=on_note))
    if is_data_uri(text):
        return Prompt("image", text, load_image(text, on_note=on_note))
    if len(text) > MAX_WORDS:
        raise InputError(f"words may have {MAX_WORDS:,} characters, not {len(text):,}")
    words = text.encode(errors="replace").decode()
    return Prompt("text", words, words) if words else None


def _picture(upload: Upload | None, url: str, fetched: Mapping[str, bytes], on_note: OnNote) -> Prompt | None:
    if upload and url:
        raise InputError("give the picture or its address, not both")
    if url and not (ADDRESS.match(url) or is_data_uri(url)):
        raise InputError("the address of a picture begins with http:// or https://")
    if not upload:
        return _words_or_address(url, fetched, on_note)
    name, data = printable(upload.name, 100), named(upload).read()
    if len(data) > LIMITS.max_bytes:
        raise InputError(f"{name} has more than {LIMITS.max_bytes / 1e6:.0f} MB, the limit for pictures here")
    return Prompt("image", upload.name, decode_image(data, name, LIMITS, on_note=on_note))


def _vector(upload: Upload | None) -> Prompt | None:
    if upload is None:
        return None
    return Prompt("vector", upload.name, read_vector(upload.path, printable(upload.name)))
