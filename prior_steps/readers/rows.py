"""Rows: one for each pair, from the reader to the shard, also if it fails on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from translator.shards.parquet import OK

MALFORMED = "malformed"  # the status of a row that its source does not hold in full
DAMAGED = "damaged_file"  # of a file that cannot be read to its end: a row stands for all that is missing
TOO_LARGE = "too_large"  # of a picture in the source, as of one that is fetched
EMPTY, TOO_LONG, DUPLICATE = "empty_caption", "long_caption", "duplicate"
OTHER_LANGUAGE, OTHER_TYPE = "other_language", "other_type"
NOAI = "noai"  # of a picture whose server forbids the use for AI
# Rows that the cleaning of captions and the options of a run leave out; all other statuses but OK are failures.
LEFT_OUT = (EMPTY, TOO_LONG, DUPLICATE, OTHER_LANGUAGE, OTHER_TYPE, NOAI)


@dataclass(frozen=True)
class Row:
    """A caption, with or without a picture. ``status`` tells whether and how it failed, ``error`` explains."""

    id: str  # unique in its source, the same at every iteration
    source: str  # audiocaps, wit, conceptual_captions …
    caption: str = ""
    split: str = ""  # as published; empty where the source has none
    url: str | None = None  # of the picture
    content: bytes | None = None  # the picture's file, from the source or downloaded
    status: str = OK
    error: str | None = None

    def failed(self, status: str, error: str) -> Row:
        """A copy with a failed status and without the picture's bytes."""
        return replace(self, status=status, error=error, content=None)
