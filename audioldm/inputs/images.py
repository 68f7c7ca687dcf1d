"""Bytes from a stranger, or the user's own → an RGB image, safely.

A source is an http(s) URL, a `data:` URI, a local file, or what Python has for a picture. Its content alone decides
what it is, not its name or header. Whatever is wrong with it ends in one `InputError`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from PIL import Image

from translator.files import label

from ..errors import InputError
from . import pixels, salvage
from .pixels import to_rgb as to_rgb
from .web import LIMITS, Limits, download, too_many_bytes

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "HEIF")  # no EPS: it runs programs
OWN = Limits(max_bytes=2_000_000_000, max_pixels=300_000_000)  # of local files; a JPEG of 200 megapixels takes 300 MB
SOUND = re.compile(rb"RIFF....WAVE|fLaC|OggS|ID3|FORM....AIFF|....ftypM4A", re.S)  # how its file begins
HEIC = re.compile(rb"....ftyp(hei|hev|hif|mif1|msf1)", re.S)
KNOWN = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi[fs]", re.S)
OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the picture; `git lfs pull` fetches it",
    b"\x1f\x8b": "packed by gzip; unpack it first", b"PK\3\4": "a ZIP file; unpack it first",
    b"%PDF": "a PDF; save the picture in it as PNG or JPEG first", b"8BPS": "a Photoshop file; export it to PNG first",
    b"\0\0\0\x0cjP": "JPEG 2000, which is not read; export it to PNG or JPEG first",
    b"\0\0\0\x0cJXL": "JPEG XL, which is not read; export it to PNG or JPEG first",
    b"\0\0\1\0": "an icon; export it to PNG first", b"%!PS": "PostScript; export it to PNG first",
}  # fmt: skip
# Each scan of a progressive JPEG, however short, costs a pass over all pixels: 1e10 take a core about 10 s.
MAX_JPEG_WORK = 10_000_000_000  # pixels × scans; a photo of 40 megapixels with 12 scans has 5e8

CANNOT = "cannot be decoded: it is damaged or of an unusual kind; export it to JPEG first"

log = logging.getLogger("audioldm")

OnNote = Callable[[str], object]  # receives a remark for the user

_WARNINGS = threading.Lock()  # warning filters belong to the whole process


def load_image(
    source: Any, *, allow_private: bool | None = None, limits: Limits | None = None, on_note: OnNote = log.warning
) -> Image.Image:
    """Load the image at `source`: upright (EXIF), on white, 8 bits per channel, mode "RGB".

    Args:
        source: http(s) URL, `data:` URI, or name of a local file ("~" is the home folder); or the bytes of an image
            file, an open one, a PIL image, or an array as `pixels.from_array` takes it.
        allow_private: whether URLs may lead to addresses that are not public;
            None: only if the environment says AUDIOLDM_ALLOW_PRIVATE_URLS=1.
        limits: sizes and times; None: LIMITS for what comes from the web or in a data URI, OWN for the user's own.
        on_note: receives each remark for the user.

    Raises:
        InputError: the source is malformed, unreachable, forbidden, too large, too slow or not an image. A file that
            ends a little too early gives what is there of the picture, with a warning.
    """
    if not isinstance(source, str | PathLike):
        return _from_python(source, limits or OWN, on_note)
    source = os.fsdecode(source).strip()
    if source[:5].lower() == "data:":
        limits = limits or LIMITS
        return decode_image(_data_uri(source, limits), "the data URI", limits, on_note=on_note)
    if re.match(r"[a-z][a-z0-9+.-]*://", source, re.I):
        limits = limits or LIMITS
        data = download(source, allow_private=allow_private, limits=limits)
    else:
        limits = limits or OWN
        data = _read_file(source, limits)
    return decode_image(data, label(source), limits, on_note=on_note)


def decode_image(data: bytes, name: str, limits: Limits = LIMITS, *, on_note: OnNote | None = None) -> Image.Image:
    """The image in the bytes of an image file, as `load_image` returns it; `name` stands for it in messages.

    `on_note`: where a file ends a little too early, take what is there, and say so to this; None: refuse it.

    Raises:
        InputError: `data` is empty, damaged, no image of a known format, too elongated, or claims too many
            pixels.
    """
    try:
        picture = _decoded(data, name, limits, on_note)
    except InputError:
        if on_note is None:
            raise
        saved = salvage.by_filling(data, name, lambda filled: _decoded(filled, name, limits, None), on_note)
        if saved is None:
            raise
        picture = saved
    return picture if on_note is None else _seen(picture, name, on_note)


def _seen(picture: Image.Image, name: str, on_note: OnNote) -> Image.Image:
    """`picture`, with a remark if nothing can be seen on it."""
    if pixels.is_blank(picture):
        on_note(f"{name} is blank: all of it is of one colour")
    return picture


def _decoded(data: bytes, name: str, limits: Limits, on_note: OnNote | None) -> Image.Image:
    with _opened(data, name, limits) as image:
        try:
            loaded = pixels.deep(image, lambda: _open(data, limits))
            loaded.load()
        except Exception:
            scans = data.count(b"\xff\xda")
            if on_note is None:
                raise
            loaded = salvage.load_cut_short(lambda: _open(data, limits), name, scans, on_note)
            if loaded is None:
                raise
        return pixels.visible_frame(loaded, name)


def check_header(data: bytes, name: str, limits: Limits = LIMITS) -> None:
    """Raise InputError as `decode_image` does, but for what only decoding would show; microseconds."""
    with _opened(data, name, limits):
        pass


def _open(data: bytes, limits: Limits) -> Image.Image:
    """The image in `data`, its header read; a JPEG beyond 40 megapixels is decoded at a half, quarter or eighth."""
    formats = FORMATS if HEIC.match(data[:12]) else FORMATS[:-1]
    if formats == FORMATS:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limits.max_pixels  # Pillow refuses twice as many
    try:
        image = Image.open(io.BytesIO(pixels.without_metadata(data)), formats=formats)
    finally:
        Image.MAX_IMAGE_PIXELS = before
    _refuse_bombs(image, data, limits)
    if image.format in ("JPEG", "MPO") and image.width * image.height > pixels.LARGE:
        scale = next(n for n in (2, 4, 8) if n == 8 or image.width * image.height <= pixels.LARGE * n * n)
        image.draft(None, (image.width // scale, image.height // scale))
    return image


@contextlib.contextmanager
def _opened(data: bytes, name: str, limits: Limits) -> Iterator[Image.Image]:
    """The image in `data`, its header read; whatever is wrong with it then, or within the block, is an InputError."""
    if not data:
        raise InputError(f"{name} is empty")
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on sizes and broken metadata: the verdict is ours
        try:
            with _open(data, limits) as image:
                yield image
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            raise InputError(f"{name} claims more than {limits.max_pixels / 1e6:g} megapixels") from error
        except Image.UnidentifiedImageError as error:
            raise InputError(f"{name} {_what_else(data)}") from error
        except Exception as error:  # decoders that are fed damaged data raise nearly anything
            raise InputError(f"{name} {_damaged(data)}") from error


def _from_python(source: Any, limits: Limits, on_note: OnNote) -> Image.Image:
    """The image in bytes, an open file, a PIL image or an array."""
    if isinstance(source, Image.Image):
        name = label(str(getattr(source, "filename", "") or "the picture"))
        try:
            return _seen(pixels.visible_frame(source, name), name, on_note)
        except InputError:
            raise
        except Exception as error:  # closed, or its file is damaged
            raise InputError(f"{name} is a PIL image that cannot be decoded") from error
    if isinstance(source, bytes | bytearray | memoryview):
        return decode_image(bytes(source), "the picture", limits, on_note=on_note)
    if hasattr(source, "read"):
        name = label(str(getattr(source, "name", "the open file")))
        try:
            data = source.read()
        except (OSError, ValueError) as error:
            raise InputError(f"{name} cannot be read; open it with mode \"rb\"") from error
        if data == b"" and _told(source):
            raise InputError(f"{name} has been read to its end; seek(0) goes back to its beginning")
        if not isinstance(data, bytes):
            raise InputError(f"{name} is open as text; open it with mode \"rb\"")
        return decode_image(data, name, limits, on_note=on_note)
    if hasattr(source, "__array__"):
        return _seen(pixels.from_array(source), "the picture", on_note)
    raise InputError(
        "a picture is a URL, a file, a data URI, bytes, an open file, a PIL image or an array, "
        f"not {type(source).__name__}"
    )


def _read_file(source: str, limits: Limits) -> bytes:
    name = label(source)
    try:
        path = Path(source).expanduser()
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name} is a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
            raise InputError(f"{name} is not a regular file")
        if status.st_size > limits.max_bytes:
            raise too_many_bytes(name, limits)
        return path.read_bytes()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"no such file: {name}") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, RuntimeError) as error:  # a zero byte in the name; no home folder for "~name"
        raise InputError(f"{name} is not a file name") from error


def _data_uri(source: str, limits: Limits) -> bytes:
    """The data of `data:[type][;base64],data` (RFC 2397); line breaks within base64 are accepted."""
    head, comma, body = source[5:].partition(",")
    if not comma:
        raise InputError("the data URI is malformed: no comma between its type and its data")
    if len(body) > 3 * limits.max_bytes:  # characters: "%41" is one byte
        raise too_many_bytes("the data URI", limits)
    if not body.isascii() or re.search(r"%(?![0-9A-Fa-f]{2})", body):
        raise InputError("the data URI is malformed: its data is neither base64 nor percent-encoded")
    data = unquote_to_bytes(body)
    if head.lower().endswith(";base64"):
        data = _base64(b"".join(data.split()), limits)
    if len(data) > limits.max_bytes:
        raise too_many_bytes("the data URI", limits)
    return data


def _base64(text: bytes, limits: Limits) -> bytes:
    if len(text) * 3 / 4 > limits.max_bytes + 2:  # at most 2 bytes of padding
        raise too_many_bytes("the data URI", limits)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InputError("the data URI is malformed: its data is not valid base64") from error


def _refuse_bombs(image: Image.Image, data: bytes, limits: Limits) -> None:
    count = image.width * image.height
    if count > limits.max_pixels:
        raise Image.DecompressionBombError
    if image.format in ("JPEG", "MPO") and count * data.count(b"\xff\xda") > MAX_JPEG_WORK:
        raise ValueError("more scans than any photo has")


def _told(file: Any) -> int:
    """How far an open file has been read; 0 if it does not say."""
    try:
        return int(file.tell())
    except Exception:
        return 0


def _what_else(data: bytes) -> str:
    head = data[:4096].lower()
    if b"<html" in head or b"<!doctype html" in head:
        return "is a web page, not an image; give the address of the image itself"
    if b"<svg" in head:
        return "is an SVG drawing; vector images must be exported to PNG first"
    if SOUND.match(data):
        return "is a sound, not a picture; give it with -f"
    if HEIC.match(data):
        return f"is a HEIC photo that {CANNOT}"
    if KNOWN.match(data):
        return "is damaged or truncated"
    if what := next((what for begin, what in OTHERS.items() if data.startswith(begin)), None):
        return f"is {what}"
    return f"is not an image that can be read ({', '.join(FORMATS)}), or it is damaged"


def _damaged(data: bytes) -> str:
    return f"is a HEIC photo that {CANNOT}" if HEIC.match(data[:12]) else "is damaged or truncated"
