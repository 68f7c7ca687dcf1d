"""What became of each row of a list: ``manifest.jsonl`` in the output folder, a line for a row, which only grows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from translator import files

from ..errors import InputError
from .destination import check_folder, remove_empty

NAME = "manifest.jsonl"
LOCK = ".manifest.lock"
FIELDS = ("id", "prompt", "status", "error", "warning", "files", "seed", "model", "translator", "seconds", "key")


class Manifest:
    """The manifest of ``folder``, which is created if necessary; locked for other runs while it is open.

    Raises InputError: the folder cannot be written, or another run is writing there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = files.output_path(folder)
        self.path = self.folder / NAME
        self._done: dict[str, dict[tuple[str, ...], None]] = {}  # by key, the files of each time it was made
        self._made = check_folder(self.folder)
        self._resources = ExitStack()
        try:
            self._resources.enter_context(files.lock(self.folder / LOCK))
            self._file = self._resources.enter_context(open(self.path, "a+b"))
        except files.Timeout:
            text = f"another run is writing to {self.folder}; wait for it, or choose another folder with -s"
            raise InputError(text) from None
        except OSError as error:
            self._resources.close()
            raise InputError(f"cannot write {self.path}: {error.strerror}") from None
        self._read()

    def _read(self) -> None:
        """Note which rows are done, and repair a last line that a crash cut off."""
        self._file.seek(0)
        size, line, known = 0, b"", False  # bytes, up to the last line
        for following in self._file:
            size, line = size + len(line), following
            known = self._note(line)
        if line and not line.endswith(b"\n"):
            if known:  # all but its end was written
                self._file.write(b"\n")
                self._file.flush()
            else:
                self._file.truncate(size)

    def _note(self, line: bytes) -> bool:
        """Whether ``line`` is an entry of ours; if it says that a row is done, that is remembered."""
        try:
            entry = json.loads(line)
            key, files, status = entry["key"], entry["files"], entry["status"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if status == "ok" and files and isinstance(key, str) and isinstance(files, list):
            self._done.setdefault(key, {})[tuple(map(str, files))] = None
        return True

    def take_done(self, key: str) -> bool:
        """Whether ``key`` is done and its files are there. Each time it was made is good for one row only."""
        made = self._done.get(key, {})
        while made:
            files, _ = made.popitem()
            if all((self.folder / name).is_file() for name in files):
                return True
        return False

    def append(self, entry: Mapping[str, object]) -> None:
        """Add a line, at once. Raises OSError."""
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        self._file.write(line.encode(errors="backslashreplace"))  # a lone surrogate's escape is JSON's as well
        self._file.flush()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        empty = os.fstat(self._file.fileno()).st_size == 0
        self._file.close()
        if empty:  # the run made nothing: leave the disk as it was
            self.path.unlink(missing_ok=True)
        with suppress(OSError):  # Windows deletes no open file
            (self.folder / LOCK).unlink(missing_ok=True)  # still locked: a waiting process sees that it is gone
        self._resources.close()
        if empty:
            remove_empty(self._made)
