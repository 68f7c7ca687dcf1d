"""What a reader gives and every step hands on: one row for each pair, whatever became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from translator.shards.parquet import OK

MALFORMED = "malformed"  # the status of a row that its source does not hold in full
TOO_LARGE = "too_large"  # of a picture in the source, as of one that is fetched


@dataclass(frozen=True)
class Row:
    """A caption, with or without a picture. A failure is a row, too: ``status`` says which kind, ``error`` why."""

    id: str  # unique in its source, the same at every reading
    source: str  # audiocaps, wit, conceptual_captions …
    caption: str = ""
    split: str = ""  # as published; empty where the source has none
    url: str | None = None  # of the picture
    content: bytes | None = None  # the picture's file, where the source holds it or it was fetched
    status: str = OK
    error: str | None = None

    def failed(self, status: str, error: str) -> Row:
        """The same row with what went wrong, and without the picture's bytes."""
        return replace(self, status=status, error=error, content=None)
