"""ImageHear: 101 photographs of thirty things that sound, the test set of the field.

Sheffer and Adi, "I Hear Your True Colors: Image Guided Audio Generation", arXiv 2211.03089; in the repository im2wav.
The class is the file's name without digits. NEVER TRAIN OR TUNE ON IT: its figures are compared between papers, and
mean nothing for a model, a prompt or a setting that was chosen by looking at it. The photographs are other people's
and come with no licence of their own, so they are fetched for the evaluation and not shipped.
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
    """The photographs, in the folder ``cache``; what is there and whole is not fetched again.

    ``fetch`` gives the bytes behind a URL, and raises ValueError with one sentence. Its request must accept JSON, or
    ``listing``, which is GitHub's contents API, refuses it. ``files`` is where names in the listing are found. Every
    file is compared with the hash that the listing says.

    Raises InputError: something cannot be fetched (the next call goes on from there), or is not what was listed.
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
                    raise InputError(f"{name} is not what ImageHear lists under that name; was it cut short?")
                write(path, content)
            pictures.append(Picture(name, str(path), label_of(name)))
        return pictures
    except OSError as error:
        raise InputError(f"ImageHear cannot be kept in {cache}: {error.strerror}") from None


def _names(listing: bytes) -> list[tuple[str, str]]:
    """Names and git hashes of the photographs in GitHub's listing, by name. Raises InputError."""
    try:
        entries = [(entry["name"], entry["sha"]) for entry in json.loads(listing) if entry["type"] == "file"]
        pictures = sorted((name, sha) for name, sha in entries if is_picture(name))
        plain = all(re.fullmatch(r"[A-Za-z]\w*\.\w+", name, re.ASCII) and label_of(name) for name, _ in pictures)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        plain, pictures = False, []
    if not plain or not pictures:
        raise InputError("the listing of ImageHear is not a list of files called by class and number")
    return pictures


def _git_hash(content: bytes) -> str:
    """What git, and so GitHub's listing, calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _fetch(fetch: Callable[[str], bytes], url: str) -> bytes:
    try:
        return fetch(url)
    except ValueError as error:
        raise InputError(f"ImageHear is not complete yet, and running again goes on from here: {error}") from None
