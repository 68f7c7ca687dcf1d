"""Downloads on disk, one file per URL, so that no server is asked twice. Any number of processes can share a cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from translator import InputError
from translator.files import write

from ..readers.rows import OK


@dataclass(frozen=True)
class Answer:
    """The result of a download: a picture's file, or the reason why there is none."""

    status: str = OK
    error: str | None = None
    content: bytes | None = None
    noai: bool = False  # whether the server forbids the use for AI
    max_bytes: int = 0  # the limit when it was downloaded


class Cache:
    """A folder of answers. It and its files may be deleted at any time; missing ones are downloaded again.

    A file holds a line of JSON, then the picture's bytes. Its name is a hash of the URL.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.expanduser(folder))

    def get(self, url: str) -> Answer | None:
        """The answer for ``url``; None if there is none, or its file is damaged."""
        damaged = ValueError, TypeError, LookupError, AttributeError
        with contextlib.suppress(OSError, *damaged), open(self._path(url), "rb") as file:
            facts, content = json.loads(file.readline()), file.read()
            if facts.pop("url") == url and facts.pop("bytes") == len(content):
                return Answer(**facts, content=content if facts["status"] == OK else None)
        return None

    def put(self, url: str, answer: Answer) -> None:
        """Store ``answer`` for ``url``, in place of any other. Raises InputError if it cannot be written."""
        content, path = answer.content or b"", self._path(url)
        facts = {
            "url": url,
            "status": answer.status,
            "error": answer.error,
            "noai": answer.noai,
            "max_bytes": answer.max_bytes,
            "bytes": len(content),
        }
        try:
            write(path, json.dumps(facts).encode() + b"\n" + content)
        except OSError as error:
            raise InputError(f"cannot write into {self.folder}: {error.strerror or error}") from error

    def _path(self, url: str) -> Path:
        name = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / name[2:4] / name[4:]  # 170 files per folder for WIT's 11 million pictures
