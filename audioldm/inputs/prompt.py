"""A prompt: its kind (words, image, sound, saved vector), its content, and the name of files made from it."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from ..errors import InputError
from ..options import MAX_DURATION
from .vector import SUFFIX, as_vector, read_vector

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PROMPTS = 64
MAX_SLUG = 60  # characters
ACCEPTED = "a prompt is words, an http(s) URL, a data URI or the name of an image file"

# Names that mean an image file, readable here or not, or a list: a missing "dog.heic" is a missing file, not words.
_IMAGE_NAME = re.compile(r"\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|p[pgb]m|hei[cf]|svg|jp2|jxl)$", re.I)
_LIST_NAME = re.compile(r"\.(txt|csv|jsonl)$", re.I)
_ANY_EXTENSION = re.compile(r"\.[A-Za-z]\w{0,4}$")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
_SCHEME_WITHOUT_SLASHES = re.compile(r"(https?|file|ftps?):(?=\S)", re.I)
_PATH = re.compile(r"(~\w*|\.{1,2})?/\S*$")  # /x, ./x, ../x, ~/x: one word that can only be a path
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP|....ftyp(avif|hei|mif1)|P[1-6]\s", re.DOTALL
)


@dataclass(frozen=True)
class Prompt:
    """What to make a sound of, read and found good."""

    kind: Literal["text", "image", "audio", "vector"]
    source: str  # as the user gave it: words, URL, file name …
    content: Any  # text: str; image: RGB PIL image; audio: float32 (N,) at 16 kHz; vector: float32 (512,), unit
    gain: float = 1.0  # what the samples of a sound were multiplied by, for they went beyond full scale


def read_prompt(
    prompt: str | PathLike[str] | Image | None = None, audio_file: str | Path | None = None
) -> Prompt:
    """Read a prompt: words, an image (URL, file, data URI, PIL image) or a saved vector (.npy), or else a sound file.

    A path (not a str) is that of an image or a vector, whatever it looks like. Of a sound, the first ten minutes
    count. Raises InputError.
    """
    if (prompt is None) == (audio_file is None):
        raise InputError("give one prompt: either a text or an image (-t), or a sound file (-f)")
    if audio_file is not None:
        from .sounds import hear

        heard = hear(audio_file, MAX_DURATION)
        return Prompt("audio", heard.name, heard.wave, heard.gain)
    if isinstance(prompt, str | PathLike) and _is_vector(prompt):
        path = str(prompt).strip()
        return Prompt("vector", path, read_vector(path))
    if isinstance(prompt, PathLike):
        from .images import load_image

        return Prompt("image", str(prompt), load_image(str(prompt)))
    if not isinstance(prompt, str):
        return _from_python(prompt)
    if kind_of(prompt) == "text":
        # A terminal may hand over bytes that are no UTF-8, which Python keeps as lone surrogates.
        words = prompt.strip().encode(errors="replace").decode()
        return Prompt("text", words, words)
    from .images import load_image

    return Prompt("image", prompt.strip(), load_image(prompt))


def _from_python(prompt: Any) -> Prompt:
    """A prompt of bytes, an open file, a PIL image or an array; an array of one dimension is a vector."""
    if getattr(prompt, "ndim", None) == 1:
        return Prompt("vector", "vector", as_vector(prompt, "the vector"))
    if not any(hasattr(prompt, name) for name in ("read", "__array__", "getexif", "hex", "tobytes")):
        raise InputError(f"{ACCEPTED}, or in Python a PIL image, bytes or an array; not {type(prompt).__name__}")
    from .images import load_image

    name = getattr(prompt, "name", None) or getattr(prompt, "filename", None)
    return Prompt("image", name if isinstance(name, str) and name else "image", load_image(prompt))


def read_prompts(texts: Any, audio_file: str | Path | None = None) -> tuple[Prompt, ...]:
    """Read one prompt or a list of them, and the sound file after them, if any. Raises InputError."""
    texts = [] if texts is None else list(texts) if isinstance(texts, list | tuple) else [texts]
    if len(texts) + (audio_file is not None) > MAX_PROMPTS:
        raise InputError(f"at most {MAX_PROMPTS} prompts can be mixed")
    prompts = [read_prompt(text) for text in texts]
    if audio_file is not None:
        prompts.append(read_prompt(audio_file=audio_file))
    if not prompts:
        raise InputError("give a prompt: a text or an image (-t), or a sound file (-f)")
    return tuple(prompts)


def _is_vector(prompt: str | PathLike[str]) -> bool:
    name = os.fspath(prompt)
    return isinstance(name, str) and name.strip().lower().endswith(SUFFIX) and "://" not in name


def kind_of(prompt: str) -> Literal["text", "image"]:
    """Tell whether `prompt` stands for an image or is the words themselves.

    Images are http(s) URLs, `data:` URIs and local files; whether they hold a readable image is for
    `audioldm.inputs.images.load_image` to say. A bare word is a file only if that file is an image, so a file named
    "rain" in the current folder does not change what the word means.

    Raises:
        InputError: the prompt is empty, has another scheme, names a folder, or is like a file and missing.
    """
    prompt = prompt.strip()
    if not prompt:
        raise InputError(f"the prompt is empty: {ACCEPTED}")
    scheme = _SCHEME.match(prompt) or _SCHEME_WITHOUT_SLASHES.match(prompt)
    if scheme:
        return _check_url(prompt, scheme[1].lower())
    if is_data_uri(prompt):
        return "image"
    return _kind_of_path(prompt)


def is_data_uri(prompt: str) -> bool:
    """`data:…`, complete or not; "data: a modem dialling" is words, because a URI has no blank there."""
    return re.match(r"data:(?!\s+\S)", prompt, re.I) is not None


def is_image_name(name: str) -> bool:
    """Whether a file of this name is meant to be an image, be it one that can be read or not."""
    return _IMAGE_NAME.search(name) is not None


def is_list_name(name: str) -> bool:
    """Whether a file of this name is meant to be a list of prompts."""
    return _LIST_NAME.search(name) is not None


def in_folder(prompt: str, folder: str) -> str:
    """`prompt`, or the path of the file in `folder` that it names; what may name a file is as for `kind_of`."""
    path = os.path.join(folder, prompt)
    relative = prompt and not (_SCHEME.match(prompt) or is_data_uri(prompt) or prompt[0] in "~/")
    return path if relative and os.path.isfile(path) and _means_file(prompt, path) else prompt


def _check_url(prompt: str, scheme: str) -> Literal["image"]:
    if scheme not in ("http", "https"):
        raise InputError(f"{scheme}: addresses are not supported; {ACCEPTED}")
    if not re.match(r"https?://[^/?#\s]", prompt, re.I):
        raise InputError(f"the URL has no host name; it must begin like {scheme}://example.org/")
    return "image"


def _kind_of_path(prompt: str) -> Literal["text", "image"]:
    path = os.path.expanduser(prompt)
    has_separator = bool(re.search(r"[/\\]", prompt))
    if os.path.isdir(path):
        if has_separator or prompt in (".", "..", "~"):
            raise InputError(f"{_quoted(prompt)} is a folder; {ACCEPTED}")
        return "text"
    if os.path.exists(path):
        return "image" if _means_file(prompt, path) else "text"
    if is_image_name(prompt) or is_list_name(prompt) or _PATH.match(prompt):
        raise InputError(f"no such file: {_quoted(prompt)}")
    return "text"


def _means_file(prompt: str, path: str) -> bool:
    """Whether `prompt` means the file at `path`, which exists: a bare word does only if that is an image."""
    return bool(re.search(r"[/\\]", prompt) or _ANY_EXTENSION.search(prompt)) or _holds_image(path)


def _holds_image(path: str) -> bool:
    """Whether a regular file begins like an image (no other kind of file is opened: a FIFO would block)."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return _MAGIC.match(file.read(16)) is not None
    except OSError:
        return False


def _quoted(text: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return f'"{shown[:100]}…"' if len(shown) > 100 else f'"{shown}"'


def slug(prompt: str) -> str:
    """A short name for files made from `prompt`: 1 to 60 characters out of A-Z, a-z, 0-9, "_" and "-".

    URLs and files give their base name without query and image extension, data URIs "image".
    Never raises: any string has a slug.
    """
    prompt = prompt.strip()
    if is_data_uri(prompt):
        return "image"
    name = prompt
    if _SCHEME.match(prompt):
        name = _url_name(prompt)
    elif _IMAGE_NAME.search(prompt) or os.path.isfile(os.path.expanduser(prompt)):
        name = re.split(r"[/\\]", prompt)[-1]
    name = _IMAGE_NAME.sub("", name)
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe_name = re.sub(r"[^A-Za-z0-9-]+", "_", ascii_name).strip("_-")
    return safe_name[:MAX_SLUG].rstrip("_-") or "prompt"


def _url_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        return unquote(parts.path).rstrip("/").rpartition("/")[2] or parts.hostname or "image"
    except ValueError:  # malformed, such as http://[
        return "image"
