"""ImageHear: 101 photographs of thirty things that make sounds, the usual test set.

Sheffer and Adi, "I Hear Your True Colors: Image Guided Audio Generation", arXiv 2211.03089; in the repository im2wav.
The class is the file's name without digits. NEVER TRAIN OR TUNE ON IT: papers compare their figures on it, which are
meaningless for a model, prompt or setting that was chosen on it. The photographs belong to others and have no licence,
so they are downloaded for the evaluation and not distributed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from .. import InputError
from ..files import write
from .pictures import Picture, is_picture, label_of

_AT = "RoySheffer/im2wav", "Data/ImageHear", "ee1ba8d3b4dea9f95626fdae71e061c4cdf50d8d"  # a commit: it cannot change
LISTING = "https://api.github.com/repos/{}/contents/{}?ref={}".format(*_AT)
FILES = "https://raw.githubusercontent.com/{0}/{2}/{1}/".format(*_AT)


def photographs(
    cache: str | Path, fetch: Callable[[str], bytes], *, listing: str = LISTING, files: str = FILES
) -> list[Picture]:
    """Download the photographs into the folder ``cache``, except those that are already there.

    ``fetch`` returns the bytes at a URL, or raises ValueError; its requests must accept JSON, which ``listing``,
    GitHub's contents API, requires. ``files`` is the folder of the listed names. Hashes are compared with the listing.

    Raises InputError: a download fails (the next call resumes there) or is not the listed file.
    """
    cache = Path(cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        listed = cache / "listing.json"
        if not listed.is_file():
            content = _fetch(fetch, listing)
            _names(content)
            write(listed, content)
        pictures = []
        for name, sha in _names(listed.read_bytes()):
            path = cache / name
            if not path.is_file() or _git_hash(path.read_bytes()) != sha:
                content = _fetch(fetch, files + quote(name))
                if _git_hash(content) != sha:
                    raise InputError(f"{name} is not the file that ImageHear lists; is it cut short?")
                write(path, content)
            pictures.append(Picture(name, str(path), label_of(name)))
        return pictures
    except OSError as error:
        raise InputError(f"cannot write ImageHear to {cache}: {error.strerror}") from None


def _names(listing: bytes) -> list[tuple[str, str]]:
    """Names and git hashes of the photographs in GitHub's listing, by name. Raises InputError."""
    try:
        entries = [(entry["name"], entry["sha"]) for entry in json.loads(listing) if entry["type"] == "file"]
        pictures = sorted((name, sha) for name, sha in entries if is_picture(name))
        plain = all(re.fullmatch(r"[A-Za-z]\w*\.\w+", name, re.ASCII) and label_of(name) for name, _ in pictures)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        plain, pictures = False, []
    if not plain or not pictures:
        raise InputError("the listing of ImageHear is not a list of files named by class and number")
    return pictures


def _git_hash(content: bytes) -> str:
    """The hash by which git, and GitHub's listing, identify a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _fetch(fetch: Callable[[str], bytes], url: str) -> bytes:
    try:
        return fetch(url)
    except ValueError as error:
        raise InputError(f"ImageHear is incomplete; rerun to resume the download: {error}") from None
