"""One file over HTTP into a .part file that survives any interruption. download.py calls it."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import requests
import urllib3

from ..errors import InputError
from ..inputs.web import read_retry_after

if TYPE_CHECKING:
    from tqdm import tqdm

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new try; with them used up and nothing gained, it is given up
MAX_WAIT = 120.0  # seconds; the longest wait a server may ask for (Retry-After)
PROGRESS = 1 << 20  # bytes that must have arrived for the pauses to start over
CHUNK = 1 << 17  # bytes written at once
TIMEOUT = (10.0, 60.0)  # seconds to connect, and without a byte
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # HTTP status codes after which it is tried again
HEADERS = {
    "User-Agent": f"audioldm (fetches model weights) python-requests/{metadata.version('requests')}",
    "Accept-Encoding": "identity",  # a range is counted in the bytes of the file
}

log = logging.getLogger("audioldm")


class _TemporaryFailure(Exception):
    """The attempt failed temporarily; ``wait`` is the pause that the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Transfer:
    """The download of ``url`` into the existing file ``part``; ``path`` is its final name, for messages.

    ``size``, exact, and ``about`` are bytes; ``note`` goes into the announcement; ``pauses`` are seconds.
    """

    def __init__(
        self,
        url: str,
        part: Path,
        path: Path,
        *,
        size: int | None = None,
        about: int | None = None,
        note: str = "",
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self.url, self.part, self.path, self.note, self.pauses = url, part, path, note, pauses
        self.host = urlsplit(url).hostname or url
        self._size, self._about = size, about
        self._reached = self._announced = False  # has the server answered? was the download announced?
        self._bar: tqdm[NoReturn] | None = None

    def run(self) -> bool:
        """Fetch the missing bytes. Returns whether the file came in one piece. Raises InputError."""
        self._drop_unless_known()
        failures = 0
        with contextlib.ExitStack() as stack, requests.Session() as session:
            stack.callback(lambda: self._bar and self._bar.close())
            while not self._complete():
                before = self._arrived()
                try:
                    began_at = self._attempt(session)
                    return began_at == 0
                except _TemporaryFailure as failure:
                    failures = 1 if self._arrived() - before >= PROGRESS else failures + 1
                    self._wait(failure, failures)
        return False

    def _complete(self) -> bool:
        total = self._size or self._version().get("total")
        return total is not None and self._arrived() == total

    def _drop_unless_known(self) -> None:
        """Start over if the partial file is of another address, or longer than the file."""
        total = self._size or self._version().get("total")
        if self._version().get("url") != self.url or (isinstance(total, int) and self._arrived() > total):
            self._drop()

    def _drop(self) -> None:
        os.truncate(self.part, 0)
        remove_version_note(self.part)

    def _attempt(self, session: requests.Session) -> int:
        """Send one request and write the answer as it comes; return where it began.

        Raises _TemporaryFailure or InputError.
        """
        offset, version = self._arrived(), self._version()
        headers = dict(HEADERS)
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if same := version.get("etag") or version.get("modified"):
                headers["If-Range"] = same
        with self._explaining(), session.get(self.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            self._reached = True
            begin, total = self._accept(response, offset, version)
            if begin is None:
                return offset
            offset = begin
            self._make_room(offset, total)
            self._announce(offset, total)
            with open(self.part, "r+b") as file:
                file.seek(offset)
                file.truncate()
                for chunk in response.iter_content(CHUNK):  # urllib3 compares the end with Content-Length
                    file.write(chunk)
                    if self._bar is not None:
                        self._bar.update(len(chunk))
        if total is not None and self._arrived() != total:
            raise _TemporaryFailure("the connection ended early")
        return offset

    def _accept(
        self, response: requests.Response, offset: int, version: dict[str, Any]
    ) -> tuple[int | None, int | None]:
        """Where the body begins in the file (None: there is nothing left to fetch), and the file's length."""
        status, headers = response.status_code, response.headers
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
        whole = int(span[2]) if span and span[2] != "*" else None
        if status in TEMPORARY:
            raise _TemporaryFailure(f"the server answered {_phrase(status)}", read_retry_after(headers))
        if status == 416 and offset:
            if whole == offset and self._size in (None, offset):
                return None, whole
            self._drop()
            raise _TemporaryFailure("the server's file has changed", 0)
        if status == 206 and offset:
            changed = version.get("etag") and _etag(headers) not in (None, version["etag"])
            total = whole or version.get("total")
            if span is None or span[1] != str(offset) or changed or total != (version.get("total") or total):
                self._drop()
                raise _TemporaryFailure("the server's file has changed", 0)
        elif status == 200:
            length = headers.get("Content-Length", "")
            offset, total = 0, int(length) if length.isdecimal() else None
            if headers.get("Content-Type", "").lower().startswith("text/html"):
                raise InputError(f"{self.host} answered with a web page instead of {self.path.name}: {self._by_hand()}")
        else:
            raise InputError(f"{self.host} answered {_phrase(status)} when asked for {self.path.name}, at {self.url}")
        if None not in (self._size, total) and total != self._size:
            raise InputError(f"{self.url} has {total} bytes instead of {self._size}; it is the wrong file")
        self._note_version(headers, total)
        return offset, total

    def _announce(self, offset: int, total: int | None) -> None:
        total = total or self._size or self._about
        if not self._announced:
            self._announced = True
            done = f", of which {format_size(offset)} are there already" if offset else ""
            log.warning(
                "downloading %s%s from %s to %s%s%s",
                self.path.name,
                f" ({format_size(total)}{done})" if total else "",
                self.host,
                self.path.parent,
                "; " * bool(self.note),
                self.note,
            )
        if not sys.stderr.isatty():
            return
        from tqdm import tqdm

        if self._bar is not None:
            self._bar.close()
        look = {"unit": "B", "unit_scale": True, "file": sys.stderr, "leave": False, "dynamic_ncols": True}
        self._bar = tqdm(desc=self.path.name, total=total, initial=offset, **look)

    def _make_room(self, offset: int, total: int | None) -> None:
        needed = (total or self._size or self._about or offset) - offset
        free = shutil.disk_usage(self.part.parent).free
        if needed > free:
            raise InputError(
                f"{self.path.name} needs {format_size(needed)} more, but {self.part.parent} has only "
                f"{format_size(free)} free; AUDIOLDM_CACHE_DIR names another folder"
            )

    def _wait(self, failure: _TemporaryFailure, failures: int) -> None:
        """Pause before the next try, or raise InputError when there is none."""
        pauses = self.pauses if self._reached else self.pauses[:1]
        wait = failure.wait
        if failures > len(pauses) or (wait is not None and wait > MAX_WAIT):
            self._give_up(failure)
        wait = pauses[failures - 1] if wait is None else wait
        if self._reached:
            if self._bar is not None:
                self._bar.clear()
            arrived = format_size(self._arrived())
            log.warning("%s after %s: %s; going on in %g s", self.path.name, arrived, failure, wait)
        time.sleep(wait)

    def _give_up(self, failure: _TemporaryFailure) -> NoReturn:
        arrived = self._arrived()
        kept = f"; what has arrived, {format_size(arrived)}, is kept for the next try" if arrived else ""
        if not self._reached:
            raise InputError(
                f"{self.host} cannot be reached ({failure}), so {self.path.name} is not downloaded{kept}; "
                f"without a connection here, {self._by_hand()}"
            ) from failure
        raise InputError(f"{self.path.name} cannot be downloaded from {self.host} now: {failure}{kept}") from failure

    def _by_hand(self) -> str:
        return f"fetch {self.url} elsewhere and save it as {self.path}"

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except requests.exceptions.SSLError as error:
            raise InputError(f"the certificate of {self.host} cannot be verified, or TLS failed: {self.url}") from error
        except requests.Timeout as error:
            raise _TemporaryFailure("it does not answer") from error
        except requests.ConnectionError as error:
            cause = getattr(error.args[0] if error.args else None, "reason", None)
            unknown = isinstance(cause, urllib3.exceptions.NameResolutionError)
            refused = isinstance(cause, urllib3.exceptions.NewConnectionError)
            why = "no address is known for this name" if unknown else "the connection failed" if refused else None
            raise _TemporaryFailure(why or "the connection broke off") from error
        except (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError) as error:
            raise _TemporaryFailure("the connection broke off") from error
        except requests.RequestException as error:  # malformed address, too many redirects …
            raise InputError(f"{self.url} cannot be downloaded: {type(error).__name__}") from error

    # Which version of the server's file has been begun

    def _version(self) -> dict[str, Any]:
        try:
            content = json.loads(_version_file(self.part).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _note_version(self, headers: Mapping[str, str], total: int | None) -> None:
        version = {"url": self.url, "etag": _etag(headers), "modified": headers.get("Last-Modified"), "total": total}
        _version_file(self.part).write_text(json.dumps(version) + "\n", encoding="utf-8")

    def _arrived(self) -> int:
        return self.part.stat().st_size


def remove_version_note(part: Path) -> None:
    """Remove the note on which version of the server's file ``part`` is."""
    _version_file(part).unlink(missing_ok=True)


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def format_size(count: int) -> str:
    """A number of bytes for people: 2.6 GB, 12 MB, 7 kB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.{1 if unit == 'GB' else 0}f} {unit}"
    return f"{count} bytes"


def _etag(headers: Mapping[str, str]) -> str | None:
    """The answer's strong ETag; a weak one does not promise the same bytes."""
    etag = headers.get("ETag", "").strip()
    return etag if etag.startswith('"') else None


def _phrase(status: int) -> str:
    return f"{status} {http.client.responses.get(status, '')}".strip()
