"""Pictures whose class is known, and the prompts for the classes.

Four ways to say it: a folder of folders, ``dog/rex.jpg``; a folder of files named by class, ``dog1.jpg``; a CSV or JSON
lines with the columns ``file`` and ``label``; a text with a file named by class in each line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import InputError
from ..files import is_image_name, printable, unwrapped
from ..tables import PICTURES, UNREADABLE, Table, column_name, is_damaged, read_lines

SOURCES = ("file", "image", "url", *PICTURES)  # names of columns; the first that is not blank counts
LISTS = (".csv", ".tsv", ".jsonl", ".txt")
LABELS = ("label", "sound", "class", "category")


@dataclass(frozen=True)
class Picture:
    """A picture and its class, or a fault of its row."""

    name: str  # in its set
    source: str  # file or URL
    label: str  # its class
    prompt: str = ""  # for the class, if the set has one
    error: str | None = None  # one sentence: why it cannot be judged


def read_pictures(path: str | Path, root: str | Path | None = None) -> list[Picture]:
    """The pictures of a folder or a list, in order of names or rows. The pictures themselves are not opened.

    A folder holds folders called by class, or files called by class and digits (``dog1.jpg``); anything but image files
    in it is passed over. A list (.csv, .tsv, .jsonl) has the columns file (or image, url …) and label (or sound), and
    may have prompt; its file names are relative to ``root``, or else to its own folder. What is wrong with one row, or
    with one file's name, is the ``error`` of that picture.

    Raises InputError: there are no pictures, or no column of classes.
    """
    path = Path(path)
    if path.is_dir():
        pictures = _read_folder(path)
    elif path.is_file() and path.suffix.lower() not in LISTS:
        raise InputError(f"{printable(str(path))} is not a list of pictures: its name must end in {', '.join(LISTS)}")
    elif path.is_file():
        pictures = list(_read_list(path, Path(root) if root is not None else path.parent))
    else:
        raise InputError(f"no such folder or list: {path}")
    if not pictures:
        raise InputError(f"there are no pictures in {path}")
    seen: set[str] = set()
    for place, picture in enumerate(pictures):
        if picture.error is None and picture.source in seen:
            pictures[place] = replace(picture, error=f"{picture.name} has been listed before")
        seen.add(picture.source)
    return pictures


def read_prompts(path: str | Path) -> dict[str, str]:
    """Read prompts, class -> prompt, from a CSV or TSV file (columns label, sound or name; prompt) or a JSON file.

    The JSON is an object {class: prompt}, or {"sounds": [{"name": class, "prompt": prompt}]} as in a model's
    sounds.json. Raises InputError.
    """
    path = Path(path)
    rows: Iterable[tuple[object, object]]
    if path.suffix.lower() in (".csv", ".tsv"):
        table = [row if isinstance(row, dict) else {} for _, row in _rows(path)]
        rows = [(_first(row, (*LABELS, "name")), row.get("prompt")) for row in table]
    else:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            sounds = found.get("sounds")
            rows = [(row["name"], row["prompt"]) for row in sounds] if isinstance(sounds, list) else found.items()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise InputError(f"{path} is not a JSON object of classes and prompts") from None
    prompts: dict[str, str] = {}
    for label, words in rows:
        if not isinstance(label, str) or not isinstance(words, str) or not label.strip() or not words.strip():
            raise InputError(f"{path} must have a prompt for each class, both as text that is not blank")
        if prompts.setdefault(label.strip(), words.strip()) != words.strip():
            raise InputError(f'{path} gives the class "{label.strip()}" two prompts')
    if not prompts:
        raise InputError(f"{path} names no classes")
    return prompts


def class_prompts(pictures: Sequence[Picture], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The prompt of every class: the ``given`` one, else the set's own, else the label with spaces for _.

    Classes of ``given`` without pictures are kept as distractors. Raises InputError if the set has two prompts for a
    class.
    """
    prompts = dict(given or {})
    for label in sorted({picture.label for picture in pictures if picture.error is None} - set(prompts)):
        said = sorted({picture.prompt for picture in pictures if picture.label == label and picture.prompt})
        if len(said) > 1:
            raise InputError(f'the class "{label}" has two prompts: "{said[0]}" and "{said[1]}"')
        prompts[label] = said[0] if said else label.replace("_", " ")
    return prompts


def label_of(name: str) -> str:
    """The class in a file name: the name without suffix and digits; may be empty."""
    return re.sub(r"\d+", "", Path(name).stem).strip(" _-.")


def is_picture(name: str) -> bool:
    """Whether this is the name of an image file."""
    return not name.startswith(".") and is_image_name(name)


def _read_folder(folder: Path) -> list[Picture]:
    try:
        inside = [path for path in sorted(folder.glob("*/*")) if not path.parent.name.startswith(".")]
        inside = [path for path in inside if is_picture(path.name) and path.is_file()]
        beside = [path for path in sorted(folder.iterdir()) if is_picture(path.name) and path.is_file()]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    if inside and beside:
        raise InputError(
            f"{folder} has pictures in folders and beside them ({beside[0].name}), so their classes are ambiguous"
        )
    if inside:
        return [Picture(f"{path.parent.name}/{path.name}", str(path), path.parent.name) for path in inside]
    return [_named_by_class(path.name, str(path)) for path in beside]


def _named_by_class(name: str, source: str) -> Picture:
    label = label_of(name)
    error = None if label else f"{printable(name)} does not name its class; expected a name like dog1.jpg or dog/1.jpg"
    return Picture(name, source, label, error=error)


def _read_list(path: Path, root: Path) -> Iterable[Picture]:
    by_name = path.suffix.lower() == ".txt"
    for number, row in _lines(path) if by_name else _rows(path):
        place = f"line {number} of {path}"
        if isinstance(row, str):
            yield Picture(f"line {number}", "", "", error=f"{place} {row}")
            continue
        name = unwrapped(_first(row, SOURCES))
        source = name if re.match(r"https?://|data:|~", name, re.I) else str(root / name)
        if by_name:
            yield _named_by_class(name, source)
            continue
        label, error = _first(row, LABELS), None
        if not name or not label:
            lacking = SOURCES[:3] if not name else LABELS[:2]
            error = f"{place} has no value in the column {' or '.join(lacking)}"
        yield Picture(name or f"line {number}", source, label, _first(row, ("prompt",)), error)


Numbered = tuple[int, "dict[str, str] | str"]  # number of a line, and its columns by name, or its fault


def _lines(path: Path) -> Iterable[Numbered]:
    """The file that each line of a text names."""
    for number, text in read_lines(path):
        if is_damaged(text):
            yield number, UNREADABLE
        elif text.strip() and not text.lstrip().startswith("#"):
            yield number, {"file": text}


def _rows(path: Path) -> Iterable[Numbered]:
    """The rows of a CSV or of JSON lines. Raises InputError."""
    if path.suffix.lower() == ".jsonl":
        yield from _objects(path)
        return
    table = Table(path)
    if not {*LABELS, "name"} & set(table.names):
        raise InputError(f"{path} has no column called label (or sound) in its first line")
    for record in table:
        if record.error:
            yield record.line, record.error
        elif any(field.strip() for field in record.fields):
            yield record.line, dict(zip(table.names, record.fields, strict=False))


def _objects(path: Path) -> Iterable[Numbered]:
    for number, text in read_lines(path):
        if is_damaged(text):
            yield number, UNREADABLE
        elif text.strip():
            try:
                values = json.loads(text)
                yield number, {column_name(key): _plain(value) for key, value in values.items()}
            except (ValueError, AttributeError, RecursionError):
                yield number, "is not a JSON object"
            except TypeError as error:
                yield number, f"has {error} where a text belongs"


def _plain(value: object) -> str:
    """A value of JSON as the text that a CSV would have: 7.0 is 7. Raises TypeError."""
    if isinstance(value, list | dict):
        raise TypeError("a list or an object")
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _first(row: Mapping[str, str | None], columns: Sequence[str]) -> str:
    return next((value.strip() for name in columns if (value := row.get(name)) and value.strip()), "")
