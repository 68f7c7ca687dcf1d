"""Conceptual Captions (Sharma et al., ACL 2018): pictures of the web with their cleaned alt texts, 3.3 or 12 million.

They are published as TSV files of captions and URLs. Others pack them as webdataset tars, where the caption of KEY.jpg
is in KEY.txt or KEY.json.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from audioldm.errors import InputError
from audioldm.inputs.web import LIMITS, too_many_bytes
from translator.tables import PICTURES as ADDRESSES
from translator.tables import WORDS, Table, column_name, read_lines

from ..readers.captions import CLEANING, Cleaning
from ..readers.files import FileReader, Sources, find_files, reading, split_of
from ..readers.rows import MALFORMED, TOO_LARGE, Row
from ..readers.tables import table_rows

TABLES, TARS = (".tsv", ".tsv.gz"), (".tar", ".tar.gz")
PICTURES = ("jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "avif", "tif", "tiff", "heic", "heif")
LOOKED_AT = 100  # rows, among which there must be the address of a picture
MAX_TEXT = 1 << 20  # bytes of a caption, its JSON or the header of a file
HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
           tarfile.GNUTYPE_LONGLINK)  # fmt: skip


class ConceptualCaptions(FileReader):
    """Captions with the URLs of pictures (TSV) or the pictures themselves (tar)."""

    name = "conceptual_captions"
    version = 2

    def __init__(self, sources: Sources, *, cleaning: Cleaning = CLEANING) -> None:
        """Args:
            sources: .tsv, .tsv.gz, .tar and .tar.gz files, folders or patterns.
            cleaning: the requirements on captions.

        Raises InputError: a file is missing.
        """
        super().__init__(find_files(sources, TABLES + TARS), cleaning)

    def __iter__(self) -> Iterator[Row]:
        for path in self.files:
            if path.name.endswith(TABLES) and _is_readable(path):
                _layout(path)  # a table without addresses ends the run, before it begins
        return super().__iter__()

    def rows(self, path: Path) -> Iterator[Row]:
        return self._from_table(path) if path.name.endswith(TABLES) else self._from_tar(path)

    def _from_table(self, path: Path) -> Iterator[Row]:
        split = split_of(path)
        table, caption, url = _layout(path)
        for row, fields in table_rows(table, self.name, split):
            if not row.error:
                row = replace(row, caption=fields[caption], url=fields[url].strip() or None)
                row = row if row.url else row.failed(MALFORMED, f"{row.id} has no address")
            yield row

    def _from_tar(self, path: Path) -> Iterator[Row]:
        split = split_of(path)
        for number, (key, members) in enumerate(_samples(path)):
            row = Row(f"{path.name}:{number}:{key}", self.name, split=split)  # a tar may have a key twice
            try:
                yield _sample(row, members)
            except InputError as error:
                yield row.failed(MALFORMED, f"{row.id} {error}")


def _is_readable(path: Path) -> bool:
    """Whether the table has a first line; one that cannot be read is a row that says so."""
    try:
        return next(read_lines(path), None) is not None
    except InputError:
        return False


def _layout(path: Path) -> tuple[Table, int, int]:
    """The table at ``path``, and which of its columns holds captions and which addresses.

    Published are caption, address (3M) and address, caption (12M), both without a header; others add one. Raises
    InputError: the first rows have no address.
    """
    # Not quoted: quotation marks in the published captions are part of them.
    first = [record.fields for record in islice(Table(path, "\t", quoted=False, header=False), LOOKED_AT)]
    names = [column_name(name) for name in first[0]] if first else []
    known = [next((names.index(name) for name in wanted if name in names), -1) for wanted in (WORDS, ADDRESSES)]
    header = -1 not in known and not any(map(_is_address, first[0]))
    rows = first[1:] if header else first
    width = max(2, len(names))
    counts = [sum(len(row) > column and _is_address(row[column]) for row in rows) for column in range(width)]
    caption, url = known if header else (0, 1) if counts[1] >= counts[0] else (1, 0)
    if rows and not counts[url]:
        raise InputError(
            f"{path} has no address of a picture in its first {LOOKED_AT} rows; each row must have a caption and an "
            "address, separated by a tab"
        )
    columns = len(names) if header else 2
    return Table(path, "\t", quoted=False, header=header, columns=columns), caption, url


def _is_address(text: str) -> bool:
    return re.match(r"https?://\S", text.strip(), re.I) is not None


class _Member(tarfile.TarInfo):
    """A member whose header is not read if it claims to be huge, as tarfile would load it as a whole."""

    ended = False  # whether the mark was seen that every archive ends with; of a subclass for each archive

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Member:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue]
            cls.ended = True
            raise
        if member.type in HEADERS and member.size > MAX_TEXT:
            raise tarfile.ReadError(f"the header of a file in it claims {member.size / 1e6:.1f} MB")
        return member


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Key and files by ending, for files next to each other in the tar; None for a file that is too large."""
    key, ending, members = "", "", dict[str, bytes | None]()
    kind = type("_MemberOfOne", (_Member,), {})
    with reading(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*", tarinfo=kind) as tar:
                for member in tar:
                    tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or it keeps every header
                    folder, _, name = member.name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    if not (member.isfile() and stem):
                        continue
                    if not ending:  # as webdataset does, which has no use for a name without a dot
                        continue
                    if f"{folder}/{stem}" != key and members:
                        yield key.lstrip("./"), members
                        members = {}
                    key, ending = f"{folder}/{stem}", ending.lower()
                    members.setdefault(ending, None)
                    if ending in (*PICTURES, "txt", "json"):
                        most = LIMITS.max_bytes if ending in PICTURES else MAX_TEXT
                        content = tar.extractfile(member) if member.size <= most else None
                        members[ending] = content.read() if content else None
        except (tarfile.TarError, EOFError, zlib.error, RecursionError) as error:  # RecursionError: nested headers
            members.pop(ending, None)  # it may be cut off
            if members:
                yield key.lstrip("./"), members
            raise InputError(f"cannot read {path}: {error}") from error
    if members:
        yield key.lstrip("./"), members
    if not kind.ended:  # cut between two files, which tarfile takes for the end
        raise InputError(f"cannot read {path}: it has no end")


def _sample(row: Row, members: dict[str, bytes | None]) -> Row:
    """Fill ``row`` from ``members``. Raises InputError with the end of a sentence about their fault."""
    ending = next((ending for ending in PICTURES if ending in members), None)
    if ending is None:
        others = ", ".join(f".{name}" for name in members)
        raise InputError(f"has no picture, but {others}; pictures end in {', '.join(PICTURES)}")
    content = members[ending]
    if content is None:
        return row.failed(TOO_LARGE, str(too_many_bytes(f"the picture of {row.id}", LIMITS)))
    facts = _facts(members["json"]) if "json" in members else {}
    try:
        text = (members["txt"] or b"").decode("utf-8-sig") if "txt" in members else facts.get("caption")
    except UnicodeDecodeError as error:
        raise InputError("has a caption that is not UTF-8") from error
    if not isinstance(text, str):
        raise InputError("has no caption: no .txt, and no caption in a .json")
    url = facts.get("url")
    return Row(row.id, row.source, text, row.split, url if isinstance(url, str) else None, content)


def _facts(data: bytes | None) -> dict[str, Any]:
    try:
        facts = json.loads(data or b"")
    except (ValueError, RecursionError) as error:
        raise InputError("has an invalid .json") from error
    return facts if isinstance(facts, dict) else {}
