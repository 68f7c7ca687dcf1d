"""Files and folders that are written whole or not at all, locks between processes, and hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from . import InputError
from .names import printable

BLOCK = 1 << 20  # bytes
PART = ".part"  # suffix of temporary names; they begin with a dot


def output_path(name: str | os.PathLike[str]) -> Path:
    """The place of what is to be written, "~" being the home folder. Raises InputError: no name, nobody's home."""
    text = os.path.expanduser(os.fspath(name))
    if not text.strip():
        raise InputError("the name of the output is empty")
    if text.startswith("~"):
        raise InputError(f"{printable(text)} is in the home folder of nobody; ./{printable(text)} is a name with a ~")
    return Path(text)


def write(path: Path, content: bytes) -> None:
    """Write the file ``path``, in place of an existing one. Raises OSError."""
    with writing(path) as file:
        file.write(content)


def write_new(path: Path, content: bytes) -> None:
    """Write the new file ``path``. Raises FileExistsError if it exists, else OSError if it cannot be written."""
    with writing(path, replace=False) as file:
        file.write(content)


@contextmanager
def writing(path: Path, *, replace: bool = True, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the name ``path`` when the block ends; a failure removes it.

    Args:
        path: its folder is made if it does not exist.
        replace: whether an existing file may be replaced; if not, FileExistsError is raised.
        sync: flush the bytes to the disk first, so that even a power cut leaves a whole file.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{PART}")
    try:
        with open(part, "xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if replace:
            os.replace(part, path)
        else:
            _take_new_name(part, path)
    finally:
        part.unlink(missing_ok=True)


def _take_new_name(part: Path, path: Path) -> None:
    try:
        os.link(part, path)  # a rename would replace an existing file
    except FileExistsError:
        raise
    except OSError:  # FAT and some network drives have no hard links
        with open(part, "rb") as source, open(path, "xb") as file:
            shutil.copyfileobj(source, file)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder that takes the name ``path`` when the block ends; a failure removes it.

    Raises OSError, also if ``path`` is a file or a folder that is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}-", suffix=PART, dir=path.parent) as scratch:
        folder = Path(scratch) / "folder"  # with the usual permissions; those of the scratch folder are for secrets
        folder.mkdir()
        yield folder
        os.rename(folder, path)


@contextmanager
def lock(path: Path, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold a lock against other processes until the block, or the process, ends.

    Args:
        path: the lock file; made if it does not exist, and left there.
        on_wait: called once before waiting for another process; None: do not wait but raise filelock.Timeout.

    Raises OSError, of which filelock.Timeout is one.
    """
    held = FileLock(path, timeout=0, thread_local=False)
    try:
        held.acquire()
    except Timeout:
        if on_wait is None:
            raise
        on_wait()
        held.acquire(timeout=-1)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
            raise
    try:
        yield
    finally:
        held.release()


def sha256(path: str | bytes | Path) -> str:
    """The SHA-256 of a file, 64 hex digits; about a second for a gigabyte. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
