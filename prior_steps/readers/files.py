"""What the readers share: finding files, and fingerprints of their content."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from audioldm.errors import InputError

from .captions import CLEANING, Cleaning, Seen, digest
from .rows import DAMAGED, DUPLICATE, OK, Row

HASHED = 32 << 20  # bytes; of larger files, the first and last of them and the length are hashed

Sources = str | Path | Iterable[str | Path]  # files, folders of them, patterns such as "wit*.tsv.gz"


class FileReader:
    """Base class of the readers (see readers.Reader) of files."""

    name: str
    rename = True  # whether ids become hashes
    version = 1  # of the reader's output; part of the fingerprint
    total: int | None = None

    def __init__(self, files: Sequence[Path], cleaning: Cleaning = CLEANING, **options: Any) -> None:
        self.files, self.cleaning, self.options = tuple(files), cleaning, options
        self.starts: dict[str, int] = {}  # number of each file's first row, as far as they have been read

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.files, self.version, reader=self.name, cleaning=self.cleaning, **self.options)

    @property
    def parts(self) -> dict[str, str]:
        """A fingerprint of each file's name and content alone, in the order of reading."""
        return {path.name: fingerprint([path], 0) for path in self.files}

    @property
    def fingerprint_of_options(self) -> str:
        """16 hex digits over everything but the files."""
        return fingerprint([], self.version, reader=self.name, cleaning=self.cleaning, **self.options)

    def refuse_if_all(self, look: Callable[[Path], object]) -> None:
        """Raises the first InputError that ``look`` has for a file, if it has one for all; otherwise, rows say so."""
        failures = list[InputError]()
        for path in self.files:
            try:
                look(path)
            except InputError as error:
                failures.append(error)
        if failures and len(failures) == len(self.files):
            raise failures[0]

    def __iter__(self) -> Iterator[Row]:
        return self.cleaning(self._all_rows(), rename=self.rename)

    def _all_rows(self) -> Iterator[Row]:
        """The rows of all files. One that cannot be read to its end costs a row, which says so."""
        count, seen, waiting = 0, Seen(), list[Row]()
        failure: InputError | None = None
        for path in self.files:
            self.starts[path.name] = count + len(waiting)
            number = 0
            try:
                for row in self.rows(path):
                    number += 1
                    yield from waiting
                    count, waiting = count + len(waiting) + 1, []
                    if not self.rename and row.status == OK and not seen.add(digest(row.id)):
                        row = replace(row, id=f"{row.id}:{count}").failed(DUPLICATE, f"the id {row.id} occurred before")
                    yield row
            except InputError as error:
                failure = failure or error
                rest = Row(f"{path.name}:{number + 1}:", self.name, split=split_of(path))
                waiting.append(rest.failed(DAMAGED, f"{error}; what follows row {number} of it is missing"))
        if failure is not None and not count:
            raise failure
        yield from waiting

    def rows(self, path: Path) -> Iterator[Row]:
        """The rows of one file, with captions as published and places in the file as ids."""
        raise NotImplementedError


def find_files(sources: Sources, endings: tuple[str, ...]) -> list[Path]:
    """Find the files of ``sources``, in this order; those of a folder or pattern are sorted by name.

    Raises InputError: a source has no files; two files have the same name, which is part of the rows' ids.
    """
    found: dict[Path, None] = {}
    for source in [sources] if isinstance(sources, (str, Path)) else sources:
        path = Path(os.path.expanduser(source))
        if path.is_file():
            paths = [path]
        elif path.is_dir():
            paths = sorted(file for file in path.iterdir() if file.name.endswith(endings) and file.is_file())
        else:
            paths = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if os.path.isfile(name)]
        if not paths:
            raise InputError(f"{source}: no such file, and no folder or pattern with {', '.join(endings)} files")
        found |= dict.fromkeys(Path(os.path.abspath(file)) for file in paths)
    names: set[str] = set()
    for file in found:
        if not file.name.endswith(endings):
            raise InputError(f"{file} is none of {', '.join(endings)}")
        if file.name in names:
            raise InputError(f"two of the files are called {file.name}; rename one")
        names.add(file.name)
    return list(found)


def fingerprint(files: Sequence[Path], version: int, **options: Any) -> str:
    """16 hex digits over names, lengths and contents of ``files``, and the version and options of the reader."""
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
    """train, val or test, if the name has such a word (wit_v1.train.all…, Validation_GCC…); otherwise empty."""
    found = re.search(r"(?<![a-z])(train|val|test)(?:ing|idation)?(?![a-z])", path.name.lower())
    return found[1] if found else ""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open the file ``path``. Raises InputError if it cannot be read, also within the block."""
    try:
        with open(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:  # a damaged .gz is any of these
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
