"""A prompt: its kind (words, image, sound, saved vector), its content, and the name of files made from it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal
from urllib.parse import unquote

from translator.files import (
    SCHEME,
    is_data_uri,
    is_image_name,
    is_list_name,
    is_other_name,
    is_sound_name,
    printable,
    unwrapped,
)  # fmt: skip

from ..errors import InputError
from ..options import MAX_DURATION
from .vector import SUFFIX, as_vector, read_vector

MAX_PROMPTS = 64
INSTEAD = {  # of files that are no prompts, by the endings of their names
    "tsv xls xlsx ods": "save it as .csv",
    "json": "save it as .jsonl, one row in each line",
    "zip tar gz tgz bz2 xz 7z rar": "unpack it first, and give the folder with a / at its end",
    "pdf psd ai eps ico icns cr2 cr3 nef arw dng orf rw2 raf": "export it to JPEG or PNG",
    "doc docx odt rtf md html htm": "save its words as .txt",
}
ACCEPTED = "a prompt is words, an http(s) URL, a data URI or the name of an image file"

_ANY_EXTENSION = re.compile(r"\.[A-Za-z]\w{0,4}$")
_SCHEME_WITHOUT_SLASHES = re.compile(r"(https?|file|ftps?):(?=\S)", re.I)
_PATH = re.compile(r"(~\w*|\.{1,2})?/\S*$|~\w+$|\S+/$")  # /x, ./x, ../x, ~/x, ~x, x/: one word that can only be a path
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP|....ftyp(avif|hei|mif1)|P[1-6]\s", re.DOTALL
)


log = logging.getLogger("audioldm")

OnNote = Callable[[str], object]  # receives a remark for the user


@dataclass(frozen=True)
class Prompt:
    """What to make a sound of, read and found good."""

    kind: Literal["text", "image", "audio", "vector"]
    source: str  # as the user gave it: words, URL, file name …
    content: Any  # text: str; image: RGB PIL image; audio: float32 (N,) at 16 kHz; vector: float32 (512,), unit
    gain: float = 1.0  # factor on the samples of a sound, if they were beyond full scale
    found: dict[str, object] = field(default_factory=dict, compare=False)  # facts for the record

    @property
    def record(self) -> dict[str, object]:
        """What a sound's JSON says of it; the hash is of UTF-8, RGB pixels, float32 samples or float32 numbers."""
        gain = {} if self.gain == 1 else {"gain": self.gain}
        return {"prompt": self.shown, "kind": self.kind, "content_sha256": self.sha256, **gain, **self.found}

    @property
    def shown(self) -> str:
        """The source; but of a data URI only its beginning and length, and of a URL no user or password."""
        if self.kind != "image":
            return self.source
        if is_data_uri(self.source) and len(self.source) > 80:
            return f"{self.source[:60]}… ({len(self.source)} characters)"
        return re.sub(r"^(https?://)[^/?#]*@", r"\1", self.source, flags=re.I)

    @property
    def sha256(self) -> str:
        """A hash of the content, 64 hex digits."""
        return hashlib.sha256(self.content.encode() if self.kind == "text" else self.content.tobytes()).hexdigest()


def read_prompt(prompt: Any = None, audio_file: Any = None, on_note: OnNote = log.warning) -> Prompt:
    """Read a prompt: words, an image (URL, file, data URI …) or a saved vector (.npy), or else a sound.

    A path (not a str) always means an image or a vector. Python may also give an image as
    ``images.load_image``, and a sound as ``samples.read_samples`` takes it, of which the first ten minutes count.
    ``on_note`` receives each remark for the user. Raises InputError.
    """
    if (prompt is None) == (audio_file is None):
        raise InputError("give one prompt: either a text or an image (-t), or a sound file (-f)")
    if audio_file is not None:
        from .sounds import read_mono

        recording = read_mono(audio_file, MAX_DURATION, on_note)
        return Prompt("audio", recording.name, recording.wave, recording.gain)
    if not isinstance(prompt, str | PathLike):
        return _from_python(prompt, on_note)
    source = unwrapped(prompt) if isinstance(prompt, str) else os.fsdecode(prompt)
    if _is_vector(source):
        return Prompt("vector", source, read_vector(source))
    if isinstance(prompt, str):
        _refuse_other_files(source)
        if kind_of(source) == "text":
            # A terminal may hand over bytes that are no UTF-8, which Python keeps as lone surrogates.
            words = source.encode(errors="replace").decode()
            return Prompt("text", words, words)
    from .images import load_image

    return Prompt("image", source, load_image(source, on_note=on_note))


def _refuse_other_files(name: str) -> None:
    """Raises InputError if ``name`` names a sound, or a file that is no prompt, whether or not it exists."""
    if SCHEME.match(name) or is_data_uri(name) or _holds_image(os.path.expanduser(name)):
        return
    if is_sound_name(name):
        raise InputError(f"{_quoted(name)} is the name of a sound: give it with -f, not with -t")
    if is_other_name(name):
        ending = name.rpartition(".")[2].lower()
        more = next((f"; {how}" for endings, how in INSTEAD.items() if ending in endings.split()), "")
        raise InputError(
            f"{_quoted(name)} is not a file that -t takes: pictures (.jpg, .png, .webp, .heic …), "
            f"lists (.txt, .csv, .jsonl) and .npy{more}"
        )


def _from_python(prompt: Any, on_note: OnNote) -> Prompt:
    """A prompt of bytes, an open file, a PIL image or an array; an array of one dimension is a vector."""
    if getattr(prompt, "ndim", None) == 1 and not isinstance(prompt, memoryview):
        return Prompt("vector", "vector", as_vector(prompt, "the vector"))
    if not any(hasattr(prompt, name) for name in ("read", "__array__", "getexif", "hex", "tobytes")):
        raise InputError(f"{ACCEPTED}, or in Python a PIL image, bytes or an array; not {type(prompt).__name__}")
    from .images import load_image

    name = getattr(prompt, "name", None) or getattr(prompt, "filename", None)
    return Prompt("image", name if isinstance(name, str) and name else "image", load_image(prompt, on_note=on_note))


def read_prompts(texts: Any, audio_file: Any = None, on_note: OnNote = log.warning) -> tuple[Prompt, ...]:
    """Read one prompt or a list of them, and the sound file after them, if any. Raises InputError."""
    texts = [] if texts is None else list(texts) if isinstance(texts, list | tuple) else [texts]
    if len(texts) + (audio_file is not None) > MAX_PROMPTS:
        raise InputError(f"at most {MAX_PROMPTS} prompts can be mixed")
    prompts = [read_prompt(text, on_note=on_note) for text in texts]
    if audio_file is not None:
        prompts.append(read_prompt(audio_file=audio_file, on_note=on_note))
    if not prompts:
        raise InputError("give a prompt: a text or an image (-t), or a sound file (-f)")
    return tuple(prompts)


def _is_vector(name: str) -> bool:
    return name.lower().endswith(SUFFIX) and "://" not in name


def kind_of(prompt: str) -> Literal["text", "image"]:
    """Tell whether `prompt` stands for an image or is the words themselves.

    Images are http(s) URLs, `data:` URIs and local files; whether they hold a readable image is for
    `audioldm.inputs.images.load_image` to say. A bare word is a file only if that file is an image, so a file named
    "rain" in the current folder does not change what the word means.

    Raises:
        InputError: the prompt is empty, has another scheme, names a folder, or is like a file and missing.
    """
    prompt = unwrapped(prompt)
    if not prompt:
        raise InputError(f"the prompt is empty: {ACCEPTED}")
    if prompt == "-":
        raise InputError(f"a prompt cannot be read from standard input: {ACCEPTED}")
    scheme = SCHEME.match(prompt) or _SCHEME_WITHOUT_SLASHES.match(prompt)
    if scheme:
        return _check_url(prompt, scheme[1].lower())
    if is_data_uri(prompt):
        return "image"
    return _kind_of_path(prompt)


def is_file_or_address(prompt: str) -> bool:
    """Whether `prompt` can only mean a file, a folder or an address, whether or not it exists."""
    prompt = unwrapped(prompt)
    kinds = (is_image_name, is_list_name, is_sound_name, is_other_name, _is_vector)
    named = any(kind(prompt) for kind in kinds) or _PATH.match(prompt) or prompt.endswith("/")
    return bool(named or SCHEME.match(prompt) or is_data_uri(prompt) or _holds_image(os.path.expanduser(prompt)))


def is_list(prompt: str) -> bool:
    """Whether ``prompt`` is a folder, or a .txt, .csv or .jsonl file that is there.

    A folder has a separator in its name, or is ".", ".." or "~": a folder called "rain" in the current one does not
    change what the word means.
    """
    prompt = unwrapped(prompt)
    path = os.path.expanduser(prompt)
    if "\0" not in path and os.path.isdir(path):
        return prompt in (".", "..", "~") or "/" in prompt or os.sep in prompt
    return is_list_name(path) and os.path.isfile(path)


def in_folder(prompt: str, folder: str) -> str:
    """`prompt`, or the path of the file in `folder` that it names, by the rules of `kind_of`."""
    path = os.path.join(folder, prompt)
    relative = prompt and not (SCHEME.match(prompt) or is_data_uri(prompt) or prompt[0] in "~/")
    return path if relative and os.path.isfile(path) and _means_file(prompt, path) else prompt


def _check_url(prompt: str, scheme: str) -> Literal["image"]:
    if scheme == "file":
        name = unquote(re.sub(r"(?i)file:(//localhost(?=/)|//)?", "", prompt))
        raise InputError(f"file: addresses are not supported; give the name of the file: {printable(name)}")
    if scheme not in ("http", "https"):
        raise InputError(f"{scheme}: addresses are not supported; {ACCEPTED}")
    if not re.match(r"https?://[^/?#\s]", prompt, re.I):
        raise InputError(f"the URL has no host name; a URL begins like {scheme}://example.org/")
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
        more = "; an address begins with https://" if re.match(r"www\.\S", prompt, re.I) else ""
        raise InputError(f"no such file: {_quoted(prompt)}{more}")
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
    except (OSError, ValueError):
        return False


def _quoted(text: str) -> str:
    return f'"{printable(text, 101)}"'
