"""Readers: from files as their publishers give them to rows. What is rejected is a row, too, with its status.

The readers are ``audiocaps.reader.AudioCaps``, ``wit.reader.Wit`` and
``conceptual_captions.reader.ConceptualCaptions``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .rows import Row


class Reader(Protocol):
    """Gives rows, in a fixed order that is the same at every reading; may be iterated any number of times.

    Readers stream: memory does not grow with the files, but for 11 bytes a row to tell repetitions. They can be
    pickled. Iterating raises InputError where a file cannot be read to its end.
    """

    @property
    def name(self) -> str:
        """The source: ``Row.source`` of every row."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change if the files or the options do, but not with the folder they lie in."""

    @property
    def total(self) -> int | None:
        """How many rows there will be, rejected ones included; None where only reading would tell."""

    def __iter__(self) -> Iterator[Row]: ...
