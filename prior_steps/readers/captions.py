"""Captions made fit to learn from: repaired, and the empty, over-long and repeated ones marked, each a row still."""

from __future__ import annotations

import bisect
import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .rows import OK, Row

EMPTY, TOO_LONG, DUPLICATE = "empty_caption", "long_caption", "duplicate"


@dataclass(frozen=True)
class Cleaning:
    """What is asked of a caption."""

    # Both text towers read 77 tokens, some 350 characters of English: of anything longer they miss a third or more.
    max_characters: int = 512
    drop_duplicates: bool = True  # mark what came before in this source: the same caption with the same picture

    def __call__(self, rows: Iterable[Row], *, rename: bool = False) -> Iterator[Row]:
        """The same rows in the same order, captions cleaned; rows that have failed already pass as they are.

        Args:
            rename: give each row that passes, and is no repetition, a hash of caption and picture as its id.
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
                    row = row.failed(DUPLICATE, "the same caption, with the same picture if any, came before")
            yield row

    def _judged(self, row: Row) -> Row:
        length = len(row.caption)
        if not length:
            return row.failed(EMPTY, "the caption is empty")
        if length > self.max_characters:
            return row.failed(TOO_LONG, f"the caption has {length} characters; at most {self.max_characters} are read")
        return row


CLEANING = Cleaning()


def clean(text: str) -> str:
    """``text`` on one line, with broken encodings, HTML entities and control characters repaired by ftfy."""
    if not text.isascii() or not text.isprintable() or "&" in text:  # else there is nothing that ftfy would repair
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
    """A set of 64-bit hashes, 11 MB for a million where Python's own takes 66: sorted arrays, by the first bits.

    Two of n rows share a hash by chance with a probability of n² / 3.7e19: 1 in 27,000 for the 37 million of WIT.
    """

    BITS = 14  # more arrays cost memory where there are few rows, fewer of them time where there are many

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
