"""Readers: from published files to rows. Rejected records are rows, too, with a status.

The readers are ``audiocaps.reader.AudioCaps``, ``wit.reader.Wit`` and
``conceptual_captions.reader.ConceptualCaptions``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .rows import Row


class Reader(Protocol):
    """An iterable of rows, in the same order at every iteration.

    Readers stream: memory grows only by 11 bytes per row, to recognise duplicates. They can be pickled. If a file
    cannot be read to its end, a row says so. Iterating raises InputError if nothing at all can be read.
    """

    @property
    def name(self) -> str:
        """The source: ``Row.source`` of every row."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the files and options, independent of the folder."""
        ...

    @property
    def total(self) -> int | None:
        """The number of rows, rejected ones included; None if unknown without reading."""
        ...

    def __iter__(self) -> Iterator[Row]: ...
