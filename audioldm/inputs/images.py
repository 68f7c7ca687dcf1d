"""Bytes from a stranger → an RGB image, safely.

A source is an http(s) URL, a `data:` URI or a local file. Its content alone decides what it is, not its name
or header. Whatever is wrong with it ends in one `InputError`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from .web import LIMITS, Limits, download, label, too_many_bytes

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")  # no EPS: it runs programs
# Each scan of a progressive JPEG, however short, costs a pass over all pixels: 1e10 take a core about 10 s.
MAX_JPEG_WORK = 10_000_000_000  # pixels × scans; a photo of 40 megapixels with 12 scans has 5e8
MAX_ELONGATION = 100  # long side : short side; an encoder enlarges the short side to some 200 pixels
# Usual values of white in grey images beyond 8 bits; where pixels exceed them, the brightest one is white.
FULL_SCALE = {"I": (65_535,), "F": (1, 255, 65_535)}

_WARNINGS = threading.Lock()  # warning filters belong to the whole process


def load_image(source: str, *, allow_private: bool | None = None, limits: Limits = LIMITS) -> Image.Image:
    """Load the image at `source`: upright (EXIF), first frame, on white, 8 bits per channel, mode "RGB".

    Args:
        source: http(s) URL, `data:` URI, or name of a local file ("~" is the home folder).
        allow_private: whether URLs may lead to addresses that are not public;
            None: only if the environment says AUDIOLDM_ALLOW_PRIVATE_URLS=1.
        limits: sizes and times.

    Raises:
        InputError: the source is malformed, unreachable, forbidden, too large, too slow or not a whole image.
    """
    source = source.strip()
    if source[:5].lower() == "data:":
        return decode_image(_data_uri(source, limits), "the data URI", limits)
    if re.match(r"[a-z][a-z0-9+.-]*://", source, re.I):
        data = download(source, allow_private=allow_private, limits=limits)
    else:
        data = _read_file(source, limits)
    return decode_image(data, label(source), limits)


def decode_image(data: bytes, name: str, limits: Limits = LIMITS) -> Image.Image:
    """The image in the bytes of an image file, as `load_image` returns it; `name` stands for it in messages.

    Raises:
        InputError: `data` is empty, damaged, no image of a known format, too elongated, or claims too many
            pixels.
    """
    with _opened(data, name, limits) as image:
        image.load()
        return to_rgb(image, name)


def check_header(data: bytes, name: str, limits: Limits = LIMITS) -> None:
    """Raise InputError as `decode_image` does, but for what only decoding would show; microseconds."""
    with _opened(data, name, limits):
        pass


@contextlib.contextmanager
def _opened(data: bytes, name: str, limits: Limits) -> Iterator[Image.Image]:
    """The image in `data`, its header read; whatever is wrong with it then, or within the block, is an InputError."""
    if not data:
        raise InputError(f"{name} is empty")
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on sizes and broken metadata: the verdict is ours
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # reads the header alone
                _refuse_bombs(image, data, limits)
                yield image
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            raise InputError(f"{name} claims more than {limits.max_pixels / 1e6:g} megapixels") from error
        except Image.UnidentifiedImageError as error:
            raise InputError(f"{name} {_what_else(data)}") from error
        except Exception as error:  # decoders that are fed damaged data raise nearly anything
            raise InputError(f"{name} is damaged or truncated") from error


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
    pixels = image.width * image.height
    if pixels > limits.max_pixels:
        raise Image.DecompressionBombError
    if image.format in ("JPEG", "MPO") and pixels * data.count(b"\xff\xda") > MAX_JPEG_WORK:
        raise ValueError("more scans than any photo has")


def _what_else(data: bytes) -> str:
    head = data[:4096].lower()
    if b"<html" in head or b"<!doctype html" in head:
        return "is a web page, not an image; give the address of the image itself"
    if b"<svg" in head:
        return "is an SVG drawing; vector images must be exported to PNG first"
    if re.match(rb"....ftyp(hei|hev|mif1|msf1)", head, re.S):
        return "is a HEIC photo; it must be exported to JPEG first"
    return f"is not an image that can be read ({', '.join(FORMATS)}), or it is damaged"


def to_rgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """A copy of `image` as `load_image` returns it: upright (EXIF), on white, 8 bits per channel, mode "RGB".

    Raises:
        InputError: one side is more than 100 times the other; `name` stands for the image in the message.
    """
    if not 0 < max(image.size) <= MAX_ELONGATION * min(image.size):
        size = f"{image.width} × {image.height}"
        raise InputError(f"{name} is too elongated ({size} pixels): at most {MAX_ELONGATION} : 1 can be seen")
    with contextlib.suppress(Exception):  # broken EXIF does not spoil the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        image = _to_8_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits ("I;16…"), 32 bits ("I") or floats ("F") → mode "L"; 0 stays black."""
    values = np.array(image, dtype=np.float32)
    np.nan_to_num(values, copy=False, posinf=0)
    brightest = values.max()
    white = next((scale for scale in FULL_SCALE.get(image.mode, (65_535,)) if brightest <= scale), brightest)
    transparent = image.info.get("transparency")  # the one grey that stands for "nothing here"
    if transparent is not None:
        values[values == transparent] = white
    values *= 255 / white
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
