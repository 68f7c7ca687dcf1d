"""Files: the kinds that names mean, names for new files, writing whole or not at all, locks and hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from . import InputError

BLOCK = 1 << 20  # bytes
PART = ".part"  # suffix of temporary names; they begin with a dot
MAX_SLUG, MAX_SLUG_BYTES = 60, 180  # characters, bytes; time, number and ending follow, and file systems take 255
_KEPT = "LMN"  # Unicode's letters, marks and numbers
_JOINERS = "\u200c\u200d"  # between letters of Persian and Indian scripts, and parts of an emoji

# Names that mean a file of some kind, readable here or not: a missing "dog.heic" is a missing file, not words.
IMAGE = re.compile(
    r"\.(jpe?g|jpe|jfif|mpo|png|apng|webp|gif|bmp|tiff?|avifs?|p[pgbn]m|hei[cf]s?|hif|svg|jp2|j2k|jxl|tga|pcx|qoi|dds|exr)$",
    re.I,
)
_LIST = re.compile(r"\.(txt|csv|jsonl)$", re.I)
_SOUND = re.compile(
    r"\.(wave?|mp[1-4]|mpe?g|mpga|flac|og[gamv]|opus|spx|aif[fc]?|m4[abprv]|aac|wm[av]|mov|webm|weba|mk[av]|avi|flv|f4v|"
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


def printable(text: str, length: int = 200) -> str:
    """`text` with "?" for characters that a terminal does not show as they are, cut to `length` characters."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def label(source: str) -> str:
    """`source` as a message may show it: printable, short, without credentials and without the query."""
    if "://" in source:
        source = re.split(r"[?#]", re.sub(r"//[^/?#]*@", "//", source))[0]
    return printable(source, 100)


def is_image_name(name: str) -> bool:
    """Whether this is the name of an image, in a format that can be read or not."""
    return IMAGE.search(name) is not None


def is_list_name(name: str) -> bool:
    """Whether this is the name of a list of prompts."""
    return _LIST.search(name) is not None


def is_sound_name(name: str) -> bool:
    """Whether this is the name of a sound, or of a film with one."""
    return _SOUND.search(name) is not None


def is_other_name(name: str) -> bool:
    """Whether this is the name of a file that is no prompt."""
    return _OTHER.search(name) is not None


def is_data_uri(prompt: str) -> bool:
    """`data:…`, complete or not; "data: a modem dialling" is words, because a URI has no blank there."""
    return re.match(r"data:(?!\s+\S)", prompt, re.I) is not None


def unwrapped(text: str) -> str:
    """`text` without blanks around it; an address or a file's name also without quotes, brackets or a Markdown link.

    Words keep their quotes, and so does a file that is really called so.
    """
    text = text.strip()
    plain = text.strip(_UNSEEN).strip()
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
    return os.path.lexists(_expanded(name)) if "\0" not in name else False


def _expanded(name: str) -> str:
    try:
        return os.path.expanduser(name)
    except ValueError:  # zero bytes, halves of characters
        return name


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
    elif is_image_name(prompt) or "\0" not in prompt and os.path.isfile(_expanded(prompt)):
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


def output_path(name: str | os.PathLike[str]) -> Path:
    """The place of what is to be written, "~" being the home folder. Raises InputError: no name, nobody's home."""
    text = os.path.expanduser(os.fspath(name))
    if not text.strip():
        raise InputError("the name of the output is empty")
    if text.startswith("~"):
        raise InputError(f"{printable(text)} is in the home folder of nobody; ./{printable(text)} is a name with a ~")
    return Path(text)


def write(path: Path, content: bytes) -> None:
    """Write the file ``path``, in place of an existing one. Raises OSError."""
    with writing(path) as file:
        file.write(content)


def write_new(path: Path, content: bytes) -> None:
    """Write the new file ``path``. Raises FileExistsError if it exists, else OSError if it cannot be written."""
    with writing(path, replace=False) as file:
        file.write(content)


@contextmanager
def writing(path: Path, *, replace: bool = True, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the name ``path`` when the block ends; a failure removes it.

    Args:
        path: its folder is made if it does not exist.
        replace: whether an existing file may be replaced; if not, FileExistsError is raised.
        sync: flush the bytes to the disk first, so that even a power cut leaves a whole file.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{PART}")
    try:
        with open(part, "xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if replace:
            os.replace(part, path)
        else:
            _take_new_name(part, path)
    finally:
        part.unlink(missing_ok=True)


def _take_new_name(part: Path, path: Path) -> None:
    try:
        os.link(part, path)  # a rename would replace an existing file
    except FileExistsError:
        raise
    except OSError:  # FAT and some network drives have no hard links
        with open(part, "rb") as source, open(path, "xb") as file:
            shutil.copyfileobj(source, file)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder that takes the name ``path`` when the block ends; a failure removes it.

    Raises OSError, also if ``path`` is a file or a folder that is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}-", suffix=PART, dir=path.parent) as scratch:
        folder = Path(scratch) / "folder"  # with the usual permissions; those of the scratch folder are for secrets
        folder.mkdir()
        yield folder
        os.rename(folder, path)


@contextmanager
def lock(path: Path, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold a lock against other processes until the block, or the process, ends.

    Args:
        path: the lock file; made if it does not exist, and left there.
        on_wait: called once before waiting for another process; None: do not wait but raise filelock.Timeout.

    Raises OSError, of which filelock.Timeout is one.
    """
    held = FileLock(path, timeout=0, thread_local=False)
    try:
        held.acquire()
    except Timeout:
        if on_wait is None:
            raise
        on_wait()
        held.acquire(timeout=-1)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
            raise
    try:
        yield
    finally:
        held.release()


def sha256(path: str | bytes | Path) -> str:
    """The SHA-256 of a file, 64 hex digits; about a second for a gigabyte. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
