"""Large files from known servers: resumed where they broke off, checked before they get their name, and repaired.

Beside a file FILE lie, while it is fetched, FILE.part (what has arrived) and FILE.part.json (which version of the
file that is); afterwards FILE.sha256 (as sha256sum writes it) and FILE.verified.json (size and time of the file when
it was last hashed). A file that still has that size and time is taken as it is; any other is hashed again, so that a
damaged one, or half of one that another program left, is found before anything reads it.

The addresses are published.py's, not a stranger's: here, unlike in inputs/web.py, proxies and private addresses are
fine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from translator import files

from ..errors import InputError
from .layout import cache_dir
from .published import UPSTREAM
from .transfer import PAUSES, Transfer, format_size, remove_version_note

BLOCK = 1 << 20  # bytes read at once for hashing
LARGE = 500_000_000  # bytes; hashing more takes seconds, so it is announced
PICKLE = b"\x80"  # first byte of a file of torch.save before 1.6; later ones are zips

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class _Requirements:
    """What a file must be: as download's arguments say."""

    size: int | None
    md5: str | None
    check: Callable[[Path], str | None] | None


def checkpoint_path(name: str) -> Path:
    """Where the checkpoint of published.UPSTREAM called ``name`` is, or will be."""
    return cache_dir() / f"{name}.ckpt"


def checkpoint(name: str) -> Path:
    """The verified file of the checkpoint of published.UPSTREAM called ``name``, downloaded if necessary.

    Raises InputError: offline, disk full, not the publisher's file …
    """
    known = UPSTREAM[name]
    return download(
        known.url,
        checkpoint_path(name),
        size=known.bytes,
        md5=known.md5,
        about=known.about,
        note=f"licence: {known.licence}",
        check=damage_of_checkpoint,
    )


def state(name: str) -> str:
    """What is there of the checkpoint called ``name``, in words; neither opens the file nor asks a server."""
    known, path = UPSTREAM[name], checkpoint_path(name)
    if path.is_file():
        return "downloaded" if _is_verified(path, known.md5) else "downloaded, to be checked at its next use"
    with contextlib.suppress(OSError):
        if arrived := part_of(path).stat().st_size:
            return f"{format_size(arrived)} of it downloaded"
    return "not downloaded"


def download(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    about: int | None = None,
    note: str = "",
    check: Callable[[Path], str | None] | None = None,
    pauses: tuple[float, ...] = PAUSES,
) -> Path:
    """Get the file at ``url`` as ``path``, whole and verified, unless it exists already. Returns its path.

    Two processes may ask for the same file: one fetches, the other waits for it.

    Args:
        size: the file's exact length in bytes, if it is known.
        md5: its hash, 32 hex digits, if the publisher's is known; otherwise the hash of the first download counts.
        about: its approximate length in bytes, for messages.
        note: said in the line that announces the download.
        check: returns a fault of the file, or None; called if no hash is known yet.
        pauses: seconds between one try and the next.

    Raises:
        InputError: the server cannot be reached or refuses, the file is a wrong one, the disk is full.
    """
    path, wanted = Path(path), _Requirements(size, md5, check)
    if _is_verified(path, md5):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part_of(path)) as part:
            if _is_verified(path, md5) or (path.is_file() and _passes(path, wanted)):
                os.truncate(part, 0)  # another process was quicker, or the file was put there by hand
                remove_version_note(part)
                return path
            transfer = Transfer(url, part, path, size=size, about=about, note=note, pauses=pauses)
            for last_try in (False, True):
                whole_at_once = transfer.run()
                hashes, fault = _examine(part, path, wanted)
                if fault is None:
                    break
                remove_version_note(part)
                os.truncate(part, 0)
                if whole_at_once or last_try:  # otherwise the pieces may be of different versions: start over once
                    raise InputError(f"the file from {url} {fault}; it was deleted")
            _sync(part)
            os.replace(part, path)
            remove_version_note(part)
            _record(path, hashes)
            _sync(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def damage_of_checkpoint(path: Path) -> str | None:
    """What is wrong with a file of torch.save, or None: a zip, whose members have checksums. Seconds per GB.

    (For AudioLDM's files, PyTorch reports a truncated archive. An old pickle has nothing to check.)
    """
    with open(path, "rb") as file:
        if file.read(1) == PICKLE:
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError):
        return "is not a whole checkpoint"
    return f"is damaged (in {damaged})" if damaged else None


def part_of(path: Path) -> Path:
    """The partial file of ``path``."""
    return path.with_name(f"{path.name}.part")


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[Path]:
    """The file ``part``, created if necessary, for this process alone until the block ends.

    Afterwards it is removed if it is empty.
    """
    waiting = f"waiting for another process that downloads {part.stem}"
    lock = part.with_suffix(".lock")
    with files.lock(lock, on_wait=lambda: log.warning(waiting)):
        part.touch()
        try:
            yield part
        finally:
            if part.is_file() and part.stat().st_size == 0:
                part.unlink()
                remove_version_note(part)
            with contextlib.suppress(OSError):  # Windows deletes no open file
                lock.unlink()  # still locked: a waiting process sees that it is gone


def _is_verified(path: Path, md5: str | None) -> bool:
    """Whether ``path`` is as it was when it was last hashed, to judge by size and time, and had the right hash."""
    stamp = _read_json(path.with_name(f"{path.name}.verified.json"))
    with contextlib.suppress(OSError):
        facts = path.stat()
        unchanged = (stamp.get("bytes"), stamp.get("mtime_ns")) == (facts.st_size, facts.st_mtime_ns)
        return unchanged and md5 in (None, stamp.get("md5"))
    return False


def _passes(path: Path, wanted: _Requirements) -> bool:
    """Whether the unverified file ``path`` is sound; a sound one is recorded, any other put aside, which is said."""
    hashes, fault = _examine(path, path, wanted)
    if fault is None:
        _record(path, hashes)
        return True
    aside = path.with_name(f"{path.name}.corrupt")
    os.replace(path, aside)
    log.warning("%s %s; it is now called %s and is downloaded again", path, fault, aside.name)
    return False


def _examine(file: Path, path: Path, wanted: _Requirements) -> tuple[dict[str, str], str | None]:
    """The hashes of ``file``, which is or becomes ``path``, and the end of a sentence about its fault, if any.

    The first known one of these decides: the publisher's hash, the hash of an earlier download, the file's structure.
    """
    actual = file.stat().st_size
    if wanted.size not in (None, actual):
        return {}, f"has {actual} bytes instead of {wanted.size}"
    if actual > LARGE:
        log.warning("checking %s", path.name)
    hashes = _hashes(file)
    recorded = _recorded(path)
    if wanted.md5 is not None:
        fault = None if hashes["md5"] == wanted.md5 else "has another MD5 hash than its publisher says"
    elif recorded is not None:
        known = hashes["sha256"] == recorded
        note = f"{path}.sha256, to be deleted if the publisher has changed the file"
        fault = None if known else f"has another hash than at its first download ({note})"
    else:
        fault = wanted.check(file) if wanted.check else None
    return hashes, fault


def _record(path: Path, hashes: dict[str, str]) -> None:
    """Note that ``path`` is sound: its hash, for ever, and its size and time, for a quick look."""
    path.with_name(f"{path.name}.sha256").write_text(f"{hashes['sha256']}  {path.name}\n", encoding="utf-8")
    facts = path.stat()
    stamp = {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, **hashes}
    path.with_name(f"{path.name}.verified.json").write_text(json.dumps(stamp) + "\n", encoding="utf-8")


def _recorded(path: Path) -> str | None:
    """The SHA-256 hash that was noted when ``path`` was first downloaded."""
    try:
        text = path.with_name(f"{path.name}.sha256").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    match = re.match(r"[0-9a-fA-F]{64}\b", text)
    return match[0].lower() if match else None


def _hashes(path: Path) -> dict[str, str]:
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha256")}
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            for digest in digests.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _sync(path: Path) -> None:
    """Make the system write ``path``, a file or folder, to its disk: a power cut must not leave a name without data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
