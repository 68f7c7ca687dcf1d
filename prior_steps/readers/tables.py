"""Tables of text, .csv or .tsv, packed or not: a record at a time, whatever state the lines are in."""

from __future__ import annotations

import csv
import gzip
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from audioldm.errors import InputError

from . import MALFORMED
from .files import reading
from .rows import Row

MAX_LINE = 1 << 20  # bytes; of a longer line nothing is read
MAX_JOINED = 20  # lines of a record whose quoted fields contain line breaks


@dataclass(frozen=True)
class Record:
    """A row of a table: its place, and its fields or the sentence on what is wrong with it."""

    place: str  # "FILE:LINE"
    fields: Sequence[str] = ()
    error: str | None = None

    def failed(self, source: str, split: str = "") -> Row:
        return Row(self.place, source, split=split).failed(MALFORMED, self.error or "")


def columns_of(path: Path, delimiter: str, wanted: Sequence[str]) -> list[str]:
    """The names in a table's first line; raises InputError unless all ``wanted`` are among them."""
    with reading(path) as file:
        line = next(_lines(path, file), (0, b""))[1]
    try:
        names = line.decode("utf-8").rstrip("\r\n").split(delimiter)
    except UnicodeDecodeError:
        names = []
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]} in its first line; needed are {', '.join(wanted)}")
    return names


def records(path: Path, columns: int, delimiter: str, *, header: bool, quoted: bool = True) -> Iterator[Record]:
    """The records of a table with so many columns; blank lines and the header are skipped.

    Quoted fields may contain line breaks; a line whose quotes are no such thing is split as it stands. What does not
    have its columns even so is a record with an error, and reading goes on behind it.

    Raises InputError: the file cannot be read, or is damaged.
    """
    with reading(path) as file:
        lines, ahead = _lines(path, file), deque[tuple[int, bytes]]()
        while ahead or _more(ahead, lines):
            number, line = ahead.popleft()
            if header and number == 1:
                continue
            text = _text(line)
            if text is not None and not text.strip():
                continue
            fields = _quoted(text, line, ahead, lines, columns, delimiter) if quoted and text and '"' in text else None
            fields = fields or (text or "").split(delimiter)
            place, error = f"{path.name}:{number}", None
            if text is None:
                error = f"{place} is not UTF-8 text in lines of at most {MAX_LINE >> 20} MiB"
            elif len(fields) != columns:
                error = f"{place} has {len(fields)} columns instead of {columns}"
            yield Record(place, fields, error)


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines and their numbers, from 1; of one longer than MAX_LINE, its beginning."""
    content = gzip.GzipFile(fileobj=file) if path.name.endswith(".gz") else file
    number = 0
    while line := content.readline(MAX_LINE):
        number += 1
        rest = line
        while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
            rest = content.readline(MAX_LINE)
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _more(ahead: deque[tuple[int, bytes]], lines: Iterator[tuple[int, bytes]]) -> bool:
    """Read one more line ahead, if there is one."""
    line = next(lines, None)
    if line:
        ahead.append(line)
    return line is not None


def _text(line: bytes) -> str | None:
    """A line as text; None if it is too long, not UTF-8, or has zero bytes."""
    if len(line) == MAX_LINE or b"\0" in line:
        return None
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return None


def _quoted(
    text: str,
    line: bytes,
    ahead: deque[tuple[int, bytes]],
    lines: Iterator[tuple[int, bytes]],
    columns: int,
    delimiter: str,
) -> list[str] | None:
    """The fields of a line with quotes, and of those behind it where a quote is open; None if that does not work out.

    Lines behind it are taken out of ``ahead`` only if they belong to the record.
    """
    for taken in range(MAX_JOINED):
        try:
            fields = next(csv.reader([text], delimiter=delimiter, strict=True))
        except csv.Error as error:
            open_quote = "unexpected end" in str(error)
            if not open_quote or not (len(ahead) > taken or _more(ahead, lines)):
                return None
            line += ahead[taken][1]
            joined = _text(line)
            if joined is None:
                return None
            text = joined
            continue
        if len(fields) != columns:
            return None
        for _ in range(taken):
            ahead.popleft()
        return fields
    return None
