"""The files of each visitor, results and uploads, which are deleted when the visitor leaves."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import defaultdict
from pathlib import Path

UNUSED_S = 3_600.0  # seconds after which an upload goes that nobody used
SILENT_S = 86_400.0  # seconds after which a visitor has left who did not say so


class Sessions:
    """Which visitor has which files below ``root``, where Gradio puts the uploads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._paths: dict[str, dict[Path, int | None]] = defaultdict(dict)  # of files, which one it was (its inode)
        self._seen: dict[str, float] = {}  # when each visitor was here last, on time.time's clock
        self._ours: set[Path] = set()

    def protect(self) -> None:
        """The files that are there now are the page's own: visitors may use them, and they stay."""
        with self._lock:
            self._ours = {path for path in self.root.rglob("*") if path.is_file()}

    def new_folder(self, session: str) -> Path:
        """A new folder under a name that nobody can guess."""
        folder = self.root / "results" / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        with self._lock:
            self._seen[session] = time.time()
            self._paths[session][folder] = None
        return folder

    def keep(self, session: str, path: Path) -> None:
        """Note that the visitor has this file. A folder may hold files of others, and is not the visitor's."""
        with self._lock:
            self._seen[session] = time.time()
            if self.root in path.parents and path not in self._ours and not path.is_dir():
                self._paths[session][path] = _inode(path)

    def remove(self, session: str) -> None:
        """Delete what a visitor has, but for uploads that another one has sent as well.

        Gradio puts the same picture of two visitors in one place. Where it lies there anew, the second visitor has
        not said so yet; if that never happens, ``sweep`` deletes it.
        """
        with self._lock:
            self._seen.pop(session, None)
            for path, inode in self._paths.pop(session, {}).items():
                others = any(path in paths for paths in self._paths.values())
                if not others and (inode is None or inode == _inode(path)):
                    _delete(path)

    def sweep(self, now: float | None = None) -> None:
        """Delete what is left of visitors who went without a word."""
        now = time.time() if now is None else now
        with self._lock:
            gone = [session for session, seen in self._seen.items() if now - seen > SILENT_S]
        for session in gone:
            self.remove(session)
        with self._lock:
            kept = self._ours.union(*self._paths.values())
            for path in self.root.rglob("*"):
                if path.is_file() and not kept & {path, *path.parents} and now - path.stat().st_mtime > UNUSED_S:
                    _delete(path)


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
