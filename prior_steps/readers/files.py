"""What the readers share: which files, and what identifies them."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from audioldm.errors import InputError

from .captions import CLEANING, Cleaning
from .rows import Row

HASHED = 32 << 20  # bytes; of larger files the beginning and the end are hashed, and the length

Sources = str | Path | Iterable[str | Path]  # files, folders of them, patterns such as "wit*.tsv.gz"


class FileReader:
    """A reader (see readers.Reader) of files, by default one whose rows get hashes for ids."""

    name: str
    rename = True
    version = 1  # of what the reader makes of a file; part of the fingerprint
    total: int | None = None

    def __init__(self, files: Sequence[Path], cleaning: Cleaning = CLEANING, **options: Any) -> None:
        self.files, self.cleaning, self.options = tuple(files), cleaning, options

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.files, self.version, reader=self.name, cleaning=self.cleaning, **self.options)

    def __iter__(self) -> Iterator[Row]:
        return self.cleaning((row for path in self.files for row in self.rows(path)), rename=self.rename)

    def rows(self, path: Path) -> Iterator[Row]:
        """The rows of one file, their captions as published; ids are places in the files."""
        raise NotImplementedError


def find_files(sources: Sources, endings: tuple[str, ...]) -> list[Path]:
    """The files that ``sources`` mean, in the order given; those of a folder or pattern by name.

    Raises InputError: a source that means no file; two files of the same name, which is part of the rows' ids.
    """
    found: dict[Path, None] = {}
    for source in [sources] if isinstance(sources, (str, Path)) else sources:
        path = Path(source).expanduser()
        if path.is_file():
            paths = [path]
        elif path.is_dir():
            paths = sorted(file for file in path.iterdir() if file.name.endswith(endings) and file.is_file())
        else:
            paths = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if os.path.isfile(name)]
        if not paths:
            raise InputError(f"{source}: no such file, and no folder or pattern with files {', '.join(endings)}")
        found |= dict.fromkeys(Path(os.path.abspath(file)) for file in paths)
    names: set[str] = set()
    for file in found:
        if not file.name.endswith(endings):
            raise InputError(f"{file} is none of {', '.join(endings)}")
        if file.name in names:
            raise InputError(f"two of the files are called {file.name}: give each a name of its own")
        names.add(file.name)
    return list(found)


def fingerprint(files: Sequence[Path], version: int, **options: Any) -> str:
    """16 hex digits over names, lengths and contents of ``files``, and the version and options of their reader."""
    digest = hashlib.sha256(json.dumps([version, options], sort_keys=True, default=repr).encode())
    for path in files:
        with reading(path) as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{path.name}\0{size}\0".encode("utf-8", "surrogateescape"))
            if size > HASHED:
                digest.update(file.read(HASHED // 2))
                file.seek(-HASHED // 2, os.SEEK_END)
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def split_of(path: Path) -> str:
    """train, val or test, if the file's name has such a word (wit_v1.train.all…, Validation_GCC…); else empty."""
    found = re.search(r"(?<![a-z])(train|val|test)(?:ing|idation)?(?![a-z])", path.name.lower())
    return found[1] if found else ""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The open file ``path``; raises InputError where it cannot be read, or the block finds it damaged."""
    try:
        with open(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:  # a damaged .gz is any of these
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
