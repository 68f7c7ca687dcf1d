"""What came from a URL, on disk: a file for each, so that nobody is asked twice. Any number of processes share it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from audioldm.errors import InputError

from ..readers.rows import OK


@dataclass(frozen=True)
class Answer:
    """What came from a URL: a picture's file, or why none did."""

    status: str = OK
    error: str | None = None
    content: bytes | None = None
    noai: bool = False  # whether the server said that it is not for this
    max_bytes: int = 0  # how much was accepted when it was asked for


class Cache:
    """A folder of answers. It may be deleted at any time, and files in it too: what is missing is fetched anew.

    A file is a line of JSON and then the picture's bytes, named after a hash of the URL.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    def get(self, url: str) -> Answer | None:
        """What was put there for ``url``; None: nothing, or a file that is not whole."""
        # whatever a damaged file may hold where the facts should be
        damaged = ValueError, TypeError, LookupError, AttributeError
        with contextlib.suppress(OSError, *damaged), open(self._path(url), "rb") as file:
            facts, content = json.loads(file.readline()), file.read()
            if facts.pop("url") == url and facts.pop("bytes") == len(content):
                return Answer(**facts, content=content if facts["status"] == OK else None)
        return None

    def put(self, url: str, answer: Answer) -> None:
        """Keep ``answer``, in place of any other for ``url``. Raises InputError: it cannot be written."""
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
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(suffix=".part", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(json.dumps(facts).encode() + b"\n")
                    file.write(content)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise InputError(f"cannot write into {self.folder}: {error.strerror or error}") from error

    def _path(self, url: str) -> Path:
        name = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / name[2:4] / name[4:]  # of WIT's 11 million pictures, 170 to a folder
