"""Many prompts: a folder of images, or a list as text, CSV or JSON lines.

Lists are read row by row, never whole. What is wrong with one row is said in that row, and the others go on; only a
list that cannot be meant raises InputError.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from translator.files import (
    SCHEME,
    is_data_uri,
    is_image_name,
    is_list_name,
    is_other_name,
    is_sound_name,
    printable,
    slug,
    unwrapped,
)  # fmt: skip
from translator.tables import PICTURES, UNREADABLE, WORDS, Table, column_name, first_given, is_damaged, read_lines

from ..errors import InputError
from .prompt import in_folder

PROMPT_KEYS = ("prompt", *PICTURES, *WORDS)  # the first that is not blank is the prompt
OPTIONS = {  # options that a row may set, and their types
    "duration": float, "ddim_steps": int, "guidance_scale": float, "sampler": str, "seed": int, "batchsize": int,
    "n_candidates": int, "transfer_strength": float,
}  # fmt: skip
SETTINGS = ("translator", "negative_prompt", *OPTIONS)
KEYS = (*PROMPT_KEYS, "id", "name", *SETTINGS)

log = logging.getLogger("audioldm")

OnNote = Callable[[str], object]  # receives a remark for the user


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt of a list, or its fault."""

    number: int  # from 1: the line in a list, the place in a folder
    prompt: str = ""
    id: str = ""  # the list's own, an image's file name in a folder, or else the number
    name: str | None = None  # identifies it in file names and reruns, if the list or the folder gives one
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # those of SETTINGS
    error: str | None = None  # one sentence: why nothing can be made of it

    @property
    def stem(self) -> str:
        """How its files begin: the same in every run over the same list."""
        return f"{self.number:05d}_{slug(self.prompt)}" if self.name is None else slug(self.name)


def read(source: str, on_note: OnNote = log.warning) -> Iterator[Row]:
    """The rows of a list or folder. Raises InputError at the first: unreadable, no prompt column, empty.

    ``on_note`` receives each remark for the user.
    """
    source = unwrapped(source)
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        rows, what = _images(path), "image files"
    else:
        reader = {".txt": _texts, ".csv": _table, ".jsonl": _objects}[os.path.splitext(path)[1].lower()]
        rows, what = reader(path, _once(on_note)), "prompts"
    first = next(rows, None)
    if first is None:
        raise InputError(f"{printable(source)} has no {what}")
    yield first
    yield from rows


def _once(on_note: OnNote) -> OnNote:
    """``on_note``, without repetitions."""
    seen: set[str] = set()

    def tell(note: str) -> None:
        if note not in seen:
            seen.add(note)
            on_note(note)

    return tell


def _images(folder: str) -> Iterator[Row]:
    """The image files of a folder by name, without hidden ones and subfolders."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name for entry in entries
                if is_image_name(entry.name) and not entry.name.startswith(".") and not os.path.isdir(entry.path)
            )  # fmt: skip
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from None
    for number, name in enumerate(names, 1):
        yield Row(number, os.path.join(folder, name), id=name, name=name)


def _texts(path: str, on_note: OnNote) -> Iterator[Row]:
    """One prompt a line, without blank lines and those that begin with "#"; or a table, if its first line says so."""
    names = Table(Path(path)).names
    if len(names) > 1 and set(names) <= set(KEYS) and not set(names).isdisjoint(PICTURES):
        on_note(f"{printable(path)} is read as a table: its first line names columns")
        yield from _table(path, on_note)
        return
    for number, line in read_lines(Path(path)):
        text = line.strip()
        if is_damaged(line):
            yield _bad(number, UNREADABLE, text)
        elif not text.startswith("#") and _has_caption(text):
            what = "has words behind the name of a picture; save the list as .csv with the columns image and caption"
            yield _bad(number, what, text)
        elif text and not text.startswith("#"):
            yield _row(path, number, {"prompt": text})


def _has_caption(line: str) -> bool:
    """Whether a line is a picture's name and more, as data sets of captions have it: "dog.jpg<TAB>a dog barks"."""
    parts = re.match(r"([^\t,;|]+?)(#\d+)?\s*[\t,;|](?=.*\w)", line)
    return bool(parts and is_image_name(parts[1]) and not SCHEME.match(line) and not os.path.exists(line))


def _objects(path: str, on_note: OnNote) -> Iterator[Row]:
    """One JSON value a line: an object, or a text, which is the prompt."""
    for number, line in read_lines(Path(path)):
        text = line.strip()
        if is_damaged(line):
            yield _bad(number, UNREADABLE, text)
            continue
        if not text:
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            if text in ("[", "{", "[{") and number == 1:
                what = "is JSON over several lines; JSON lines have each object whole on a line of its own"
                raise InputError(f"{printable(path)} {what}") from None
            yield _bad(number, "is not JSON", text)
            continue
        data = {"prompt": value} if isinstance(value, str) else value
        if not isinstance(data, dict):
            yield _bad(number, "is neither a JSON object nor a text", text)
            continue
        data = {column_name(key): value for key, value in reversed(data.items())}
        _tell_unused(path, "key", list(data)[::-1], on_note)
        yield _row(path, number, data, on_note)


def _table(path: str, on_note: OnNote) -> Iterator[Row]:
    """A table with a header; the most frequent of comma, semicolon, tab and "|" in it separates columns."""
    table = Table(Path(path))
    if not any(key in table.names for key in PROMPT_KEYS):
        if table.names:
            raise InputError(
                f"{printable(path)} has no column of prompts in its first line: call it prompt, caption or text, "
                "or image, file or url for pictures"
            )
        return
    _tell_unused(path, "column", table.names, on_note)
    for record in table:
        fields, text = record.fields, table.delimiter.join(record.fields)
        if record.error:
            yield _bad(record.line, record.error, text)
        elif any(field.strip() for field in fields):
            pairs = list(zip(table.names, fields, strict=False))
            yield _row(path, record.line, dict(reversed(pairs)), on_note)


def _tell_unused(path: str, what: str, names: list[str], on_note: OnNote) -> None:
    unknown = [name for name in names if name and name not in KEYS]
    for name in sorted({name for name in names if name in KEYS and names.count(name) > 1}):
        on_note(f"{printable(path)}: the {what} {name} is there more than once; the first is used")
    if unknown:
        on_note(f"{printable(path)}: not used: {what} {printable(', '.join(unknown))}")


def _row(path: str, number: int, data: dict[str, Any], on_note: OnNote = lambda note: None) -> Row:
    """A row from a list's values under known keys."""
    key, prompt = first_given(data, PROMPT_KEYS) or ("prompt", "")
    given = {name: found[1] for name in KEYS if (found := first_given(data, (name,)))}
    texts = {"prompt": prompt, **{name: given.get(name, "") for name in ("translator", "negative_prompt")}}
    for name, value in texts.items():
        if not isinstance(value, str):
            return _bad(number, f"has a {name} that is not a text")
        if is_damaged(value):
            return _bad(number, f"has a {name} with characters that no text has")
    others = [name for name in data if name in PROMPT_KEYS and name != key]
    if key in PICTURES and others:
        note = f"the prompts are the pictures in {key}; a row without one takes {', '.join(others)}"
        on_note(f"{printable(path)}: {note}")
    names = [given[name] for name in ("name", "id") if name in given]
    if any(isinstance(name, bool) or not isinstance(name, str | int | float) for name in names):
        return _bad(number, "has an id or a name that is neither a text nor a number", prompt)
    names = [int(name) if isinstance(name, float) and name.is_integer() else name for name in names]
    folder, error = os.path.dirname(path), None
    prompt = in_folder(unwrapped(prompt), folder)
    if key in PICTURES and not _names_file(prompt):
        prompt, error = _beside(prompt, folder)
    settings = {name: _value(name, given[name]) for name in SETTINGS if name in given}
    if "negative_prompt" in settings:
        settings["negative_prompt"] = in_folder(unwrapped(settings["negative_prompt"]), folder)
    return Row(
        number,
        prompt,
        id=str(names[-1] if "id" in given else number),
        name=str(names[0]) if names else None,
        settings=settings,
        error=error,
    )


def _names_file(prompt: str) -> bool:
    """Whether this can only be an address or a file's name, of whatever kind."""
    kinds = (is_image_name, is_list_name, is_sound_name, is_other_name)
    return "://" in prompt or is_data_uri(prompt) or "/" in prompt or any(kind(prompt) for kind in kinds)


def _beside(name: str, folder: str) -> tuple[str, str | None]:
    """The path of the file ``name`` in ``folder``, and a fault, if any: a column of pictures holds no words."""
    path = os.path.join(folder, name)
    if "\0" not in path and os.path.isfile(path):
        return os.path.join(os.curdir, path) if not folder else path, None
    return name, "the line names a picture that is not there"


def _value(name: str, value: Any) -> Any:
    """A number that was written as text, or a whole one as 7.0; the options' check refuses anything else."""
    if name not in OPTIONS:
        return value
    if isinstance(value, str) and OPTIONS[name] is float and re.fullmatch(r"[+-]?\d*,(\d{1,2}|\d{4,})", value.strip()):
        value = value.replace(",", ".")  # as most of Europe writes it; three digits may be thousands
    try:
        number = float(value) if isinstance(value, str) else value
        if OPTIONS[name] is int and isinstance(number, float):
            if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
                return int(value)  # float would round a long one
            return int(number) if number.is_integer() else value
        return OPTIONS[name](value) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return value


def _bad(number: int, what: str, text: str = "") -> Row:
    """A row that cannot be used; ``text`` is shown instead of its prompt."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if is_damaged(text) else text
    return Row(number, text[:200], id=str(number), error=f"the line {what}")
