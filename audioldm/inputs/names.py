"""Names: what is meant by those that people give (see translator.names), and names for files made from a prompt."""

from __future__ import annotations

import os
import re
import unicodedata
from urllib.parse import unquote, urlsplit

from translator.names import IMAGE, SCHEME, is_data_uri, is_image_name, unwrapped

MAX_SLUG, MAX_SLUG_BYTES = 60, 180  # characters, bytes; time, number and ending follow, and file systems take 255
_KEPT = "LMN"  # Unicode's letters, marks and numbers
_JOINERS = "\u200c\u200d"  # between letters of Persian and Indian scripts, and parts of an emoji


def slug(prompt: str) -> str:
    """A short name for files made from `prompt`: letters and digits of any script, "_" and "-"; 1 to 60 characters.

    URLs and files give their base name without query and image extension, data URIs "image".
    Never raises: any string has a slug.
    """
    prompt = unwrapped(prompt)
    if is_data_uri(prompt):
        return "image"
    name = prompt
    if SCHEME.match(prompt):
        name = _url_name(prompt)
    elif is_image_name(prompt) or "\0" not in prompt and os.path.isfile(os.path.expanduser(prompt)):
        name = re.split(r"[/\\]", prompt)[-1]
    name = unicodedata.normalize("NFC", IMAGE.sub("", name))
    kept = "".join(character if _is_kept(character) else "_" for character in name)
    kept = re.sub(r"_+", "_", kept).strip(f"_-{_JOINERS}")[:MAX_SLUG]
    while len(kept.encode()) > MAX_SLUG_BYTES:
        kept = kept[:-1]
    return kept.rstrip(f"_-{_JOINERS}") or "prompt"


def _is_kept(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character == "-"
    category = unicodedata.category(character)
    return category[0] in _KEPT or category == "So" or character in _JOINERS


def _url_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        return unquote(parts.path).rstrip("/").rpartition("/")[2] or parts.hostname or "image"
    except ValueError:  # malformed, such as http://[
        return "image"
