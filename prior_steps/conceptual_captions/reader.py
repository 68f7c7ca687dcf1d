"""Conceptual Captions (Sharma et al., ACL 2018): pictures of the web with their cleaned alt texts, 3.3 or 12 million.

They are published as TSV files of captions and URLs. Others pack them as webdataset tars, where the caption of KEY.jpg
is in KEY.txt or KEY.json.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from audioldm.errors import InputError
from audioldm.inputs.web import LIMITS, too_many_bytes
from translator.tables import Table

from ..readers.captions import CLEANING, Cleaning
from ..readers.files import FileReader, Sources, find_files, reading, split_of
from ..readers.rows import MALFORMED, TOO_LARGE, Row
from ..readers.tables import table_rows

TABLES, TARS = (".tsv", ".tsv.gz"), (".tar", ".tar.gz")
PICTURES = ("jpg", "jpeg", "png", "webp", "gif")
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

    def rows(self, path: Path) -> Iterator[Row]:
        return self._from_table(path) if path.name.endswith(TABLES) else self._from_tar(path)

    def _from_table(self, path: Path) -> Iterator[Row]:
        split = split_of(path)
        # Not quoted: quotation marks in the published captions are part of them.
        for row, fields in table_rows(Table(path, "\t", quoted=False, header=False, columns=2), self.name, split):
            if not row.error:
                row = replace(row, caption=fields[0], url=fields[1].strip() or None)
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


class _Member(tarfile.TarInfo):
    """A member whose header is not read if it claims to be huge, as tarfile would load it as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Member:  # pyright: ignore[reportIncompatibleMethodOverride]
        member = super().frombuf(buf, encoding, errors)
        if member.type in HEADERS and member.size > MAX_TEXT:
            raise tarfile.ReadError(f"the header of a file in it claims {member.size / 1e6:.1f} MB")
        return member


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Key and files by ending, for files next to each other in the tar; None for a file that is too large."""
    key, members = "", dict[str, bytes | None]()
    with reading(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar:
                for member in tar:
                    tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or it keeps every header
                    folder, _, name = member.name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    if not (member.isfile() and stem):
                        continue
                    if f"{folder}/{stem}" != key and members:
                        yield key.lstrip("./"), members
                        members = {}
                    key, ending = f"{folder}/{stem}", ending.lower()
                    if ending in (*PICTURES, "txt", "json"):
                        most = LIMITS.max_bytes if ending in PICTURES else MAX_TEXT
                        content = tar.extractfile(member) if member.size <= most else None
                        members[ending] = content.read() if content else None
        except (tarfile.TarError, EOFError, zlib.error, RecursionError) as error:  # RecursionError: nested headers
            raise InputError(f"cannot read {path}: {error}") from error
    if members:
        yield key.lstrip("./"), members


def _sample(row: Row, members: dict[str, bytes | None]) -> Row:
    """Fill ``row`` from ``members``. Raises InputError with the end of a sentence on what is wrong with them."""
    ending = next((ending for ending in PICTURES if ending in members), None)
    if ending is None:
        raise InputError("has no picture")
    content = members[ending]
    if content is None:
        return row.failed(TOO_LARGE, str(too_many_bytes(f"the picture of {row.id}", LIMITS)))
    facts = _facts(members["json"]) if "json" in members else {}
    try:
        text = (members["txt"] or b"").decode("utf-8") if "txt" in members else facts.get("caption")
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
