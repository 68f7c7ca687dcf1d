"""Names that people give: what kind of file a name means, and what is meant by a quoted one."""

from __future__ import annotations

import os
import re

# Names that mean a file of some kind, readable here or not: a missing "dog.heic" is a missing file, not words.
IMAGE = re.compile(r"\.(jpe?g|jfif|png|apng|webp|gif|bmp|tiff?|avif|p[pgb]m|hei[cf]|hif|svg|jp2|jxl)$", re.I)
_LIST = re.compile(r"\.(txt|csv|jsonl)$", re.I)
_SOUND = re.compile(
    r"\.(wave?|mp[34]|flac|og[gav]|opus|aif[fc]?|m4[abv]|aac|wma|wmv|mov|webm|mkv|avi|3gpp?|amr|mid|au|caf|ac3|w64|raw|pcm)$",
    re.I,
)
_OTHER = re.compile(
    r"\.(tsv|json|pdf|docx?|xlsx?|ods|odt|pptx?|md|html?|xml|ya?ml|zip|tar|gz|parquet|npz|pt|safetensors|psd|ai|eps|"
    r"ico|icns|cr[23]|nef|arw|dng|orf|rw2|raf)$",
    re.I,
)
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "‘": "’", "«": "»", "<": ">", "(": ")", "[": "]"}
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^\s>]+?)>?(\s+[\"'(].*[\"')])?\s*\)")  # Markdown: [text](address "title")


def printable(text: str) -> str:
    """`text` with "?" for what a terminal would not show as it is, and not more than 200 characters of it."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= 200 else shown[:199] + "…"


def is_image_name(name: str) -> bool:
    """Whether a file of this name is meant to be an image, be it one that can be read or not."""
    return IMAGE.search(name) is not None


def is_list_name(name: str) -> bool:
    """Whether a file of this name is meant to be a list of prompts."""
    return _LIST.search(name) is not None


def is_sound_name(name: str) -> bool:
    """Whether a file of this name is meant to be a sound, or a film with one."""
    return _SOUND.search(name) is not None


def is_other_name(name: str) -> bool:
    """Whether a file of this name is meant to be something that is no prompt."""
    return _OTHER.search(name) is not None


def is_data_uri(prompt: str) -> bool:
    """`data:…`, complete or not; "data: a modem dialling" is words, because a URI has no blank there."""
    return re.match(r"data:(?!\s+\S)", prompt, re.I) is not None


def unwrapped(text: str) -> str:
    """`text` without blanks around it; an address or a file's name also without quotes, brackets or a Markdown link.

    Words keep their quotes, and so does a file that is really called so.
    """
    text = text.strip()
    link = _LINK.fullmatch(text)
    if link:
        inner = link[1]
    elif len(text) > 2 and _QUOTES.get(text[0]) == text[-1]:
        inner = text[1:-1].strip()
    else:
        return text
    inner = unwrapped(inner)
    kinds = (IMAGE, _LIST, _SOUND, _OTHER, re.compile(r"\.npy$", re.I))
    named = re.match(r"https?://\S+$", inner, re.I) or is_data_uri(inner) or any(kind.search(inner) for kind in kinds)
    if not (named or _exists(inner) and ("/" in inner or os.sep in inner)) or _exists(text):
        return text
    return inner


def _exists(name: str) -> bool:
    return os.path.lexists(os.path.expanduser(name)) if "\0" not in name else False
