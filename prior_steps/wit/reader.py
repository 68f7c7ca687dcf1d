"""WIT, Wikipedia's pictures with their captions (Srinivasan et al., 2021), in both published forms.

Google's TSV files, ``wit_v1.train.all-*.tsv.gz``, have 37 million rows, one for each picture on a page, with its URL.
Wikimedia's Parquet files, ``wikimedia/wit_base``, have 6.5 million pictures, 300 pixels wide, each with the captions of
all pages that show it; here, each of these captions makes a row.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audioldm.errors import InputError
from audioldm.inputs.web import LIMITS, too_many_bytes
from translator.programs import pip_install
from translator.tables import Table

from ..readers.captions import CLEANING, Cleaning
from ..readers.files import FileReader, Sources, find_files, split_of
from ..readers.rows import MALFORMED, OTHER_LANGUAGE, OTHER_TYPE, TOO_LARGE, Row
from ..readers.tables import open_table, table_rows

CAPTIONS = ("caption_reference_description", "caption_alt_text_description")
# The readable types in WIT. SVG is not; Wikimedia's files have rendered pictures of SVG files under the same name.
RASTER = ("image/jpeg", "image/jpg", "image/png", "image/gif", "image/webp", "image/tiff", "image/bmp")
AT_ONCE = 16  # pictures that are read from a Parquet file at once


class Wit(FileReader):
    """Captions with the URLs of pictures (TSV) or the pictures themselves (Parquet)."""

    name = "wit"

    def __init__(
        self,
        sources: Sources,
        *,
        language: str | None = "en",
        captions: Sequence[str] = CAPTIONS,
        mime_types: Iterable[str] | None = RASTER,
        cleaning: Cleaning = CLEANING,
    ) -> None:
        """Args:
            sources: .tsv, .tsv.gz and .parquet files, folders or patterns.
            language: Wikipedia's code; None: all.
            captions: columns; the first one that is not empty is the caption.
            mime_types: of the files behind a TSV's URLs; None: all. (Pictures in Parquet files are never SVG.)
            cleaning: the requirements on captions.

        Raises InputError: a file or column is missing; a Parquet file requires pyarrow.
        """
        self.language, self.captions = language, tuple(captions)
        self.mime_types = None if mime_types is None else frozenset(map(str.lower, mime_types))
        files = find_files(sources, (".tsv", ".tsv.gz", ".parquet"))
        options = {"language": language, "captions": self.captions, "mime_types": sorted(self.mime_types or ())}
        super().__init__(files, cleaning, **options)
        self.refuse_if_all(self._open)

    def rows(self, path: Path) -> Iterator[Row]:
        return self._from_parquet(path) if path.suffix == ".parquet" else self._from_table(path)

    def _open(self, path: Path) -> None:
        """Raises InputError if nothing can be read of a file."""
        if path.suffix != ".parquet":
            self._table(path)
        else:
            with _Parquet(path, self.captions):
                pass

    def _table(self, path: Path) -> Table:
        return open_table(path, "\t", ("language", "image_url", "mime_type", *self.captions))

    def _from_table(self, path: Path) -> Iterator[Row]:
        table = self._table(path)
        names, split = table.names, split_of(path)
        language, url, mime = (names.index(name) for name in ("language", "image_url", "mime_type"))
        captions = [names.index(name) for name in self.captions]
        for row, fields in table_rows(table, self.name, split):
            if row.error:
                yield row
                continue
            caption = next((fields[index] for index in captions if fields[index].strip()), "")
            row = replace(row, caption=caption, url=fields[url].strip() or None)
            if self.language not in (None, fields[language]):
                row = row.failed(OTHER_LANGUAGE, f"the caption's language is {fields[language]}, not {self.language}")
            elif row.url is None:
                row = row.failed(MALFORMED, f"{row.id} has no image_url")
            elif self.mime_types is not None and fields[mime].lower() not in self.mime_types:
                row = row.failed(OTHER_TYPE, f"the type of the picture is {fields[mime]}")
            yield row

    def _from_parquet(self, path: Path) -> Iterator[Row]:
        split = split_of(path)
        with _Parquet(path, self.captions) as file:
            for number, record in enumerate(file.records()):
                picture = Row(f"{path.name}:{number}", self.name, split=split)
                try:
                    yield from self._pairs(picture, record)
                except InputError as error:
                    yield picture.failed(MALFORMED, f"{picture.id} {error}")

    def _pairs(self, picture: Row, record: dict[str, Any]) -> list[Row]:
        """A row for each caption of a record. Raises InputError with the end of a sentence about its fault."""
        content = _content(record)
        picture = replace(picture, url=_text(record.get("image_url"), "image_url") or None)
        if content is None:
            raise InputError("holds no picture")
        if len(content) > LIMITS.max_bytes:
            return [picture.failed(TOO_LARGE, str(too_many_bytes(f"the picture of {picture.id}", LIMITS)))]
        pages = [page for page in _pages(record.get("wit_features")) if self.language in (None, page.get("language"))]
        if not pages:
            return [picture.failed(OTHER_LANGUAGE, f"the picture has no caption in the language {self.language}")]
        rows = []
        for index, page in enumerate(pages):
            captions = (_text(page.get(name), name) for name in self.captions)
            caption = next((text for text in captions if text.strip()), "")
            rows.append(replace(picture, id=f"{picture.id}:{index}", caption=caption, content=content))
        return rows


class _Parquet:
    """An open file of wit_base. Only the required columns are read, not its embeddings and articles."""

    def __init__(self, path: Path, captions: Sequence[str]) -> None:
        self._path, self._captions = path, captions

    def __enter__(self) -> _Parquet:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise InputError(f"reading {self._path} requires pyarrow: {pip_install('pyarrow')}") from error
        try:
            self._file = pyarrow.parquet.ParquetFile(self._path)
        except (OSError, ValueError) as error:  # Arrow raises one of these
            raise InputError(f"cannot read {self._path}: {_first_line(error)}") from error
        try:
            self._columns = self._needed()
        except InputError:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def records(self) -> Iterator[dict[str, Any]]:
        try:
            for batch in self._file.iter_batches(AT_ONCE, columns=self._columns):
                yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {self._path}: {_first_line(error)}") from error

    def _needed(self) -> list[str]:
        """Paths of the columns to read; wit_features may be a list of structs or a struct of lists."""
        schema = self._file.schema
        paths = [schema.column(index).path for index in range(len(schema))]
        images = [path for path in paths if path in ("image.bytes", "b64_bytes", "image")]
        if not images:
            raise InputError(f"{self._path} has no pictures: neither a column image, of bytes and path, nor b64_bytes")
        parts = [path.split(".") for path in paths]
        needed = images[:1] + [path for path in paths if path == "image_url"]
        for name in ("language", *self._captions):
            within = [".".join(part) for part in parts if part[0] == "wit_features" and name in part]
            if not within:
                raise InputError(f"{self._path} has no {name} in a column wit_features")
            needed += within
        return needed


def _pages(features: Any) -> list[dict[str, Any]]:
    """A struct of lists, as in the published files, or a list of structs → a dict for each page. Raises InputError."""
    if isinstance(features, dict):
        given = {name: values for name, values in features.items() if values is not None}
        if len({len(values) for values in given.values()}) > 1:
            raise InputError("has lists of unequal length in wit_features")
        return [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    return [page for page in features or [] if page is not None]


def _text(value: Any, name: str) -> str:
    """The text ``value``, "" for None. Raises InputError."""
    if not isinstance(value, str | None):
        raise InputError(f"has no text but a {type(value).__name__} under {name}")
    return value or ""


def _content(record: dict[str, Any]) -> bytes | None:
    """The picture's file; None if there is none."""
    image = record.get("image", record.get("b64_bytes"))
    if isinstance(image, dict):
        image = image.get("bytes")
    if isinstance(image, str):
        try:
            image = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            return None
    return image if isinstance(image, bytes) and image else None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
