"""Names that people give: what kind of file a name means, and what is meant by a quoted one."""

from __future__ import annotations

import os
import re

# Names that mean a file of some kind, readable here or not: a missing "dog.heic" is a missing file, not words.
IMAGE = re.compile(
    r"\.(jpe?g?|jfif|mpo|png|apng|webp|gif|bmp|tiff?|avifs?|p[pgbn]m|hei[cf]s?|hif|svg|jp2|j2k|jxl|tga|pcx|qoi|dds|exr)$",
    re.I,
)
_LIST = re.compile(r"\.(txt|csv|jsonl)$", re.I)
_SOUND = re.compile(
    r"\.(wave?|mp[1-4]|mpe?g|mpga|flac|og[gamv]|opus|spx|aif[fc]|aiff|m4[abprv]|aac|wm[av]|mov|webm|weba|mk[av]|avi|flv|f4v|"
    r"3gp?[p2]?|m?ts|m2ts|vob|amr|midi?|au|caf|ac3|eac3|dts|ape|wv|tta|w64|rf64|raw|pcm)$",
    re.I,
)
_OTHER = re.compile(
    r"\.(tsv|json|pdf|docx?|xlsx?|od[st]|pptx?|rtf|epub|md|html?|xml|ya?ml|srt|vtt|log|zip|tar|t?gz|bz2|xz|7z|rar|parquet|"
    r"arrow|np[z]|pt|pth|ckpt|onnx|pkl|h5|safetensors|py|ipynb|psd|ai|eps|ico|icns|cr[23]|nef|arw|dng|orf|rw2|raf)$",
    re.I,
)
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
_QUOTES = ('""', "''", "``", "“”", "„“", "””", "‘’", "‚‘", "’’", "«»", "»«", "‹›", "›‹", "「」", "<>", "()", "[]", "{}")
_STRAY = "\"'`“”‘’,;"  # what is left at the ends of a name that was cut out of a text
# Seen nowhere, and copied along with a name: a byte order mark, marks of width and direction.
_UNSEEN = "\ufeff\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069"
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^\s>]+?)>?(\s+[\"'(].*[\"')])?\s*\)")  # Markdown: [text](address "title")
_TAG = re.compile(r"<(?:a|img)\s[^>]*?\b(?:src|href)\s*=\s*[\"']?([^\"'>\s]+)[^>]*>", re.I)  # HTML


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
    text, plain = text.strip(), text.strip(f" \t\r\n{_UNSEEN}")
    link = _LINK.fullmatch(plain) or _TAG.fullmatch(plain)
    if link:
        inner = link[1]
    elif len(plain) > 1 and plain[0] + plain[-1] in _QUOTES:
        inner = plain[1:-1].strip()
        if not inner:
            return ""
    elif plain != text:
        inner = plain
    else:
        inner = text.strip(_STRAY).strip()
    if inner == text:
        return text
    if inner == plain and not _exists(text):
        return unwrapped(plain)
    inner = unwrapped(inner)
    kinds = (IMAGE, _LIST, _SOUND, _OTHER, re.compile(r"\.npy$", re.I))
    named = re.match(r"https?://\S+$", inner, re.I) or is_data_uri(inner) or any(kind.search(inner) for kind in kinds)
    if not (named or _exists(inner) and ("/" in inner or os.sep in inner)) or _exists(text):
        return text
    return inner


def _exists(name: str) -> bool:
    return os.path.lexists(os.path.expanduser(name)) if "\0" not in name else False
