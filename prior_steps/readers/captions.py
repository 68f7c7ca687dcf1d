"""Cleaning of captions: they are repaired; empty, overlong and repeated ones are marked as failed rows."""

from __future__ import annotations

import bisect
import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .rows import DUPLICATE, EMPTY, OK, TOO_LONG, Row


@dataclass(frozen=True)
class Cleaning:
    """The requirements on a caption."""

    # Both text towers read 77 tokens, about 350 characters of English; of longer texts they miss a third or more.
    max_characters: int = 512
    drop_duplicates: bool = True  # mark repeated captions with the same picture, if any

    def __call__(self, rows: Iterable[Row], *, rename: bool = False) -> Iterator[Row]:
        """Clean the captions of ``rows``; rows that have already failed are unchanged.

        Args:
            rows: from one source.
            rename: whether the id of each row that is no duplicate becomes a hash of caption and picture.
        """
        seen = Seen()
        for row in rows:
            if row.status == OK:
                row = self._judged(replace(row, caption=clean(row.caption)))
            if row.status == OK:
                key = digest(row.caption, row.url or "", row.content or b"" if not row.url else b"")
                new = seen.add(key)
                if new and rename:
                    row = replace(row, id=f"{key:016x}")
                elif not new and self.drop_duplicates:
                    row = row.failed(DUPLICATE, "the same caption, with the same picture if any, occurred before")
            yield row

    def _judged(self, row: Row) -> Row:
        length = len(row.caption)
        if not length:
            return row.failed(EMPTY, "the caption is empty")
        if length > self.max_characters:
            return row.failed(TOO_LONG, f"the caption has {length} characters; the maximum is {self.max_characters}")
        return row


CLEANING = Cleaning()


def clean(text: str) -> str:
    """Put ``text`` on one line; ftfy repairs broken encodings, HTML entities and control characters."""
    if not text.isascii() or not text.isprintable() or "&" in text:  # otherwise ftfy has nothing to repair
        import ftfy

        text = ftfy.fix_text(text, unescape_html=True)
    return " ".join(text.split())


def digest(*parts: str | bytes) -> int:
    """A hash of 64 bits over ``parts``, the same on every machine."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big") + data)
    return int.from_bytes(hashed.digest(), "big")


class Seen:
    """A set of 64-bit hashes in sorted arrays: 11 MB for a million, where Python's own set takes 66 MB.

    Two of n rows share a hash by chance with a probability of n² / 3.7e19: 1 in 27,000 for WIT's 37 million.
    """

    BITS = 14  # more arrays cost memory with few rows, fewer arrays cost time with many rows

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(1 << self.BITS)]

    def add(self, key: int) -> bool:
        """Add ``key``; returns whether it was new."""
        bucket = self._buckets[key >> (64 - self.BITS)]
        at = bisect.bisect_left(bucket, key)
        if at < len(bucket) and bucket[at] == key:
            return False
        bucket.insert(at, key)
        return True
