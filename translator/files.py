"""Files: written whole or not at all, never over another; and their hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

BLOCK = 1 << 20  # bytes


def write_new(path: Path, content: bytes) -> None:
    """Write ``content`` as the new file ``path``, under a temporary name first.

    Raises FileExistsError if ``path`` exists, and OSError if it cannot be written.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        try:
            os.link(temporary, path)  # a rename would replace what has the name already
        except FileExistsError:
            raise
        except OSError:  # FAT and some network drives have no hard links
            with open(path, "xb") as file:
                file.write(content)
    finally:
        os.unlink(temporary)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hex digits; about a second for a gigabyte. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
