"""Tables that people made, read record by record: .csv and .tsv, also packed by gzip.

The text may be UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one. Lines may end in LF, CR LF or
CR. A first line ``sep=;``, as spreadsheets write it, names the delimiter. A damaged line costs one record, not the rest
of the table.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from . import InputError
from .files import printable

DELIMITERS = ",;\t|"
HEAD = 1 << 16  # bytes; they decide on the encoding and the line ends
MAX_LINE = 1 << 20  # characters; a longer line is not read
MAX_JOINED = 200  # lines of a record whose quoted fields contain line breaks; a printed vector of 512 has 86 to 128
UNREADABLE = f"is not UTF-8 text (save the file as UTF-8), or is longer than {MAX_LINE >> 20} MiB"
# A text that has many zero bytes is UTF-16 without a byte order mark, or no text at all.
MOST_ZEROS = 1 / 8
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
OTHERS = {b"\x1f\x8b": "a gzip file", b"PK\x03\x04": "a ZIP or Office file", b"%PDF": "a PDF",
          b"\xff\xd8\xff": "a picture", b"\x89PNG": "a picture"}  # fmt: skip
BAD_QUOTES = "has an unmatched quotation mark"

# Fields that mean no picture.
NOTHING = ("", "nan", "null", "none", "n/a", "#n/a", "<na>", "-", "--", "?")
# Columns of pictures, and of words for them, under the names that lists and data sets give them; the first counts.
PICTURES = (
    "image", "image_url", "image_path", "image_file", "image_name", "image_link", "img", "img_url", "img_path",
    "picture", "photo", "file", "file_name", "filename", "file_path", "filepath", "path", "url", "link", "src",
    "images", "pictures", "photos", "files", "urls",
)  # fmt: skip
WORDS = ("caption", "captions", "text", "description", "image_caption", "alt", "alt_text", "title", "sentence")

Line = tuple[int, str]  # number, from 1, and text


@dataclass(frozen=True)
class Record:
    """One row of a table."""

    line: int  # number of its first line, from 1
    fields: list[str]  # of a damaged line: its text, split at every delimiter
    error: str | None = None  # what the line "is" or "has": UNREADABLE, BAD_QUOTES, or too many fields


class Table:
    """The rows of a table; blank lines are skipped. Every iteration reads the file from its start.

    Args:
        path: a file packed by gzip is unpacked.
        delimiter: None: whichever of comma, semicolon, tab and "|" the first line has most of.
        quoted: whether quotation marks enclose fields; if not, they are ordinary characters.
        header: whether the first line names the columns; ``names`` has them as ``column_name`` gives them.
        columns: fields of every record. A line whose quotes lead to another number is split at every delimiter and
            marked BAD_QUOTES. None: any number, but more than the header has are an error unless they are blank.

    Raises InputError, also while iterating: the file cannot be read.
    """

    def __init__(
        self,
        path: Path,
        delimiter: str | None = None,
        *,
        quoted: bool = True,
        header: bool = True,
        columns: int | None = None,
    ) -> None:
        self.path, self.quoted, self.header, self.columns = path, quoted, header, columns
        number, first = next((line for line in read_lines(path) if line[1].strip()), (0, ""))
        separator = re.fullmatch(r'"?sep=(.)"?\s*', first, re.I)
        self._skipped = 0  # number of the line that names the delimiter
        if separator:
            self._skipped, delimiter = number, delimiter or separator[1]
        self.delimiter = delimiter or max(DELIMITERS, key=first.count)
        self.names: list[str] = []
        named = next(self._records(), None) if header else None
        self.names = [column_name(name) for name in named.fields] if named else []

    def __iter__(self) -> Iterator[Record]:
        records = self._records()
        if self.header:
            next(records, None)
        return records

    def _records(self) -> Iterator[Record]:
        lines, ahead = read_lines(self.path), deque[Line]()
        while line := ahead.popleft() if ahead else next(lines, None):
            number, text = line
            plain = text.rstrip("\r\n")
            if not plain.strip() or number == self._skipped:
                continue
            fields, error = plain.split(self.delimiter), None
            if is_damaged(text):
                error = UNREADABLE
            elif self.quoted and '"' in text:
                joined = self._unquote(line, ahead, lines)
                fields, error = (joined, None) if joined else (fields, BAD_QUOTES)
            if error is None and self.names and any(field.strip() for field in fields[len(self.names) :]):
                error = f'has more fields than the header; quote fields that contain "{self.delimiter}"'
            yield Record(number, fields, error)

    def _unquote(self, line: Line, ahead: deque[Line], lines: Iterator[Line]) -> list[str] | None:
        """The fields of a line with quotation marks and of those that a quoted field goes on to.

        None, and all lines but the first left in ``ahead``, if that does not work out.
        """
        taken: list[Line] = []

        def texts() -> Iterator[str]:
            yield line[1]
            while len(taken) < MAX_JOINED and (following := ahead.popleft() if ahead else next(lines, None)):
                taken.append(following)
                if is_damaged(following[1]):
                    return
                yield following[1]

        try:
            fields = next(csv.reader(texts(), delimiter=self.delimiter, strict=True, skipinitialspace=True))
        except (csv.Error, StopIteration):
            fields = None
        if fields is None or self.columns not in (None, len(fields)):
            ahead.extendleft(reversed(taken))
            return None
        return fields


def column_name(text: str) -> str:
    """A column's name without regard to case, blanks, hyphens, quotes and "#": "Image URL" is image_url."""
    return re.sub(r"[\s_-]+", "_", text.strip().strip("#\"'“”‘’„«»").strip().lower())


def first_given(row: Mapping[str, Any], names: Iterable[str]) -> tuple[str, Any] | None:
    """The first of ``names`` with a value in ``row``, and the value; texts are stripped."""
    for name in names:
        value = row.get(name)
        value = value.strip() if isinstance(value, str) else value
        nothing = NOTHING if name in PICTURES else ("",)
        if value is not None and (not isinstance(value, str) or value.lower() not in nothing):
            return name, value
    return None


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a text with their numbers; bytes that are not UTF-8 are lone surrogates. Raises InputError."""
    try:
        with _open(path) as file:
            head = file.read(HEAD)
        wide = next((encoding for mark, encoding in WIDE.items() if head.startswith(mark)), None)
        encoding, errors = (wide, "replace") if wide else ("utf-8-sig", "surrogateescape")
        other = next((kind for begin, kind in OTHERS.items() if head.startswith(begin)), None)
        if other or not wide and head.count(b"\0") > len(head) * MOST_ZEROS:
            what = f", but {other}" if other else ", or is in UTF-16 without a byte order mark; save it as UTF-8"
            raise InputError(f"{printable(str(path))} is not a text{what}")
        shown = head.decode(encoding, "replace")
        end = "\r" if "\r" in shown and "\n" not in shown else "\n"
        with io.TextIOWrapper(_open(path), encoding, errors, end) as file:
            number = 0
            while text := file.readline(MAX_LINE):
                number, rest = number + 1, text
                if wide:  # damage, as UTF-8 has it
                    text = text.replace("\ufffd", "\udcff")
                while len(rest) == MAX_LINE and not rest.endswith(end):
                    rest = file.readline(MAX_LINE)
                yield number, text
    except (OSError, EOFError, zlib.error) as error:  # a damaged .gz is any of these
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _open(path: Path) -> BinaryIO:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"  # whatever its name says
    return cast(BinaryIO, gzip.open(path)) if packed else open(path, "rb")


def is_damaged(text: str) -> bool:
    """Whether a line is too long, or holds zero bytes or bytes that are not UTF-8."""
    if len(text) == MAX_LINE or "\0" in text:
        return True
    try:
        text.encode()
        return False
    except UnicodeEncodeError:  # bytes that are not UTF-8 were decoded to lone surrogates
        return True
