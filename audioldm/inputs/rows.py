"""Many prompts: a folder of images, or a list as text, CSV or JSON lines.

Lists are read row by row, never whole. What is wrong with one row is said in that row, and the others go on; only a
list that cannot be meant raises InputError.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..errors import InputError
from .prompt import in_folder, is_image_name, is_list_name, slug

PROMPT_KEYS = ("prompt", "caption", "text", "image", "url", "file")  # the first that is not blank is the prompt
OPTIONS = {  # GenerateOptions' that a row may set, and what a text means there
    "duration": float, "ddim_steps": int, "guidance_scale": float, "sampler": str, "seed": int, "batchsize": int,
    "n_candidates": int, "transfer_strength": float,
}  # fmt: skip
KEYS = (*PROMPT_KEYS, "id", "name", "translator", *OPTIONS)
BLANK = (None, "")

log = logging.getLogger("audioldm")


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt of a list, or what is wrong with it."""

    number: int  # from 1: the line in a list, the place in a folder
    prompt: str = ""
    id: str = ""  # the list's own, an image's file name in a folder, or else the number
    name: str | None = None  # what files and rerun know it by, where the list or the folder says so
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # "translator" and those of OPTIONS
    error: str | None = None  # one sentence: why nothing can be made of it

    @property
    def stem(self) -> str:
        """How its files begin: the same in every run over the same list."""
        return f"{self.number:05d}_{slug(self.prompt)}" if self.name is None else slug(self.name)


def is_list(prompt: str) -> bool:
    """Whether ``prompt`` is a folder, or a .txt, .csv or .jsonl file that is there.

    A folder has a separator in its name, or is ".", ".." or "~": a folder called "rain" in the current one does not
    change what the word means.
    """
    path = os.path.expanduser(prompt.strip())
    if os.path.isdir(path):
        return prompt.strip() in (".", "..", "~") or "/" in prompt or os.sep in prompt
    return is_list_name(path) and os.path.isfile(path)


def read(source: str, on_note: Callable[[str], object] = log.warning) -> Iterator[Row]:
    """The rows of a list or folder. Raises InputError at the first: unreadable, not UTF-8, no prompt column, empty.

    ``on_note`` receives each remark for the user.
    """
    path = os.path.expanduser(source.strip())
    if os.path.isdir(path):
        rows, what = _images(path), "image files"
    else:
        readers = {".txt": _texts, ".csv": partial(_table, on_note=on_note), ".jsonl": _objects}
        rows, what = readers[os.path.splitext(path)[1].lower()](path), "prompts"
    first = next(rows, None)
    if first is None:
        raise InputError(f"{source.strip()} has no {what}")
    yield first
    yield from rows


def _images(folder: str) -> Iterator[Row]:
    """The image files of a folder by name, without hidden ones and subfolders."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name for entry in entries
                if is_image_name(entry.name) and not entry.name.startswith(".") and not entry.is_dir()
            )  # fmt: skip
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from None
    for number, name in enumerate(names, 1):
        yield Row(number, os.path.join(folder, name), id=name, name=name)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Numbers and lines, with "\\n" as their end; bytes that are not UTF-8 are kept as lone surrogates."""
    try:
        with open(path, "rb") as file:
            head = file.peek(4096)
            if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4096]:
                raise InputError(f"{path} is not a text in UTF-8")
            for number, line in enumerate(file, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                yield number, text.decode("utf-8", "surrogateescape").rstrip("\r\n") + "\n"
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _texts(path: str) -> Iterator[Row]:
    """One prompt a line, without blank lines and those that begin with "#"."""
    for number, line in _lines(path):
        text = line.strip()
        if text and not text.startswith("#"):
            yield _row(path, number, {"prompt": text}) if _is_utf8(text) else _not_utf8(number, text)


def _objects(path: str) -> Iterator[Row]:
    """One JSON value a line: an object, or a text, which is the prompt."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        if not _is_utf8(line):
            yield _not_utf8(number, line.strip())
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield _bad(number, "is not JSON", line.strip())
            continue
        data = {"prompt": value} if isinstance(value, str) else value
        unknown = [str(key) for key in data if key not in KEYS] if isinstance(data, dict) else []
        if not isinstance(data, dict):
            yield _bad(number, "is neither a JSON object nor a text", line.strip())
        elif unknown:
            yield _bad(number, f'has the unknown key "{unknown[0][:40]}"; there are {", ".join(KEYS)}', line.strip())
        else:
            yield _row(path, number, data)


def _table(path: str, on_note: Callable[[str], object]) -> Iterator[Row]:
    """A table with a header; comma, semicolon or tab is what the header has most of."""
    lines = itertools.dropwhile(lambda line: not line[1].strip(), _lines(path))
    first = next(lines, None)
    if first is None:
        return
    delimiter = max(",;\t", key=first[1].count)
    records = _records(itertools.chain([first], lines), delimiter)
    header = [name.strip().lower() for name in next(records)[1] or ()]
    if not any(key in header for key in PROMPT_KEYS):
        raise InputError(f'{path} has no column "prompt" (nor {", ".join(PROMPT_KEYS[1:])}) in its first line')
    unknown = [name for name in header if name and name not in KEYS]
    if unknown:
        on_note(f"{path}: not used: column {', '.join(unknown)}".encode(errors="replace").decode())
    for number, fields in records:
        if fields is None:
            yield _bad(number, "has a quotation mark too many or too few, or a field beyond 131072 characters")
        elif not _is_utf8("".join(fields)):
            yield _not_utf8(number, delimiter.join(fields))
        elif any(field.strip() for field in fields[len(header) :]):
            text = delimiter.join(fields)
            yield _bad(number, f'has more fields than the header; quote what has a "{delimiter}" in it', text)
        elif any(field.strip() for field in fields):
            yield _row(path, number, {key: value for key, value in zip(header, fields, strict=False) if key in KEYS})


def _records(lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, list[str] | None]]:
    """Line number and fields of each record; None for a malformed one, after which the next line is tried afresh.

    So a quotation mark that is never closed costs its own line, not the rest of the list.
    """
    waiting: deque[tuple[int, str]] = deque()
    taken: list[tuple[int, str]] = []

    def feed() -> Iterator[str]:
        while line := waiting.popleft() if waiting else next(lines, None):
            taken.append(line)
            yield line[1]

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            fields = None
            waiting.extendleft(reversed(taken[1:]))
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        yield taken[0][0], fields


def _row(path: str, number: int, data: dict[str, Any]) -> Row:
    """A row out of what a list says under known keys."""
    data = {key: value.strip() if isinstance(value, str) else value for key, value in data.items()}
    given = {key: value for key, value in data.items() if value not in BLANK}
    prompt = next((given[key] for key in PROMPT_KEYS if key in given), "")
    for key, value in (("prompt", prompt), ("translator", given.get("translator", ""))):
        if not isinstance(value, str):
            return _bad(number, f"has a {key} that is not a text")
    names = [given[key] for key in ("name", "id") if key in given]
    if any(isinstance(name, bool) or not isinstance(name, str | int | float) for name in names):
        return _bad(number, "has an id or a name that is neither a text nor a number", prompt)
    settings = {key: _value(key, given[key]) for key in ("translator", *OPTIONS) if key in given}
    return Row(
        number,
        in_folder(prompt, os.path.dirname(path)),
        id=str(given.get("id", number)),
        name=str(names[0]) if names else None,
        settings=settings,
    )


def _value(name: str, value: Any) -> Any:
    """A number written as text as that number; what is none is left to the options' own check to refuse."""
    if not isinstance(value, str) or name not in OPTIONS:
        return value
    try:
        return OPTIONS[name](value)
    except ValueError:
        return int(float(value)) if value.endswith(".0") and value[:-2].isdecimal() else value  # spreadsheets' 7.0


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


def _not_utf8(number: int, text: str) -> Row:
    return _bad(number, "is not UTF-8", text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _bad(number: int, what: str, text: str = "") -> Row:
    """A row of which nothing can be made; ``text`` is shown in place of its prompt."""
    return Row(number, text[:200], id=str(number), error=f"the line {what}")
