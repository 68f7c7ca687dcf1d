"""What only some pictures need: arrays, data URIs, colours beyond 8 bits, damaged files, and the errors about them."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image

from ..errors import InputError
from .vector import to_numpy
from .web import Limits, too_many_bytes

# Usual values of white beyond 8 bits: data of 8, 10, 12, 14 and 16 bits. Above them, the brightest pixel is white.
DEPTHS = (255, 1_023, 4_095, 16_383, 65_535)
UNUSED_BITS = 64  # an 8-bit channel below this may be the upper half of 14 bits or fewer
PICTURE_ARRAY = "a picture is an array (height, width), (height, width, 3) or (height, width, 4)"
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
CANNOT = "cannot be decoded: it is damaged or of an unusual kind; export it to JPEG first"
PNG = b"\x89PNG\r\n\x1a\n"
# What decides on the pixels of a PNG; texts, times and colour profiles are left out.
CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT")
IF_WHOLE = b"eXIf"  # how the picture is turned


def deep(image: Image.Image, reopen: Callable[[], Any]) -> Image.Image:
    """`image`, or a copy of it that uses the lower half of 16-bit colours whose upper half is nearly empty.

    Pillow reads the upper half of 16-bit colours alone, in which data of 12 bits are black. Read in the other byte
    order, the same file gives the lower half. `image` is not loaded yet; `reopen` opens the same file once more.
    """
    tiles = [_swapped(tile) for tile in getattr(image, "tile", [])] if image.mode in ("RGB", "RGBA") else []
    if not tiles or None in tiles:
        return image
    image.load()
    if max(high for _, high in cast(Any, image.getextrema())[:3]) >= UNUSED_BITS:
        return image
    with reopen() as other:
        other.tile = tiles
        low = np.asarray(other, np.uint16)
    values = np.asarray(image, np.uint16) * 256 + low
    values[..., :3] = _scaled(values[..., :3])
    values[..., 3:] = _scaled(values[..., 3:]) if values.shape[-1] > 3 else 0
    return Image.fromarray(values.astype(np.uint8))


def from_array(array: Any, name: str = "the picture") -> Image.Image:
    """The picture in an array (height, width) or (height, width, 1, 3 or 4), or with channels first.

    Whole numbers from 0 to 255, 16-bit ones, or floats from 0 to 1 (or to 255). Raises InputError.
    """
    values = to_numpy(array, f"{name} is not an array that can be read; {PICTURE_ARRAY}")
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if not values.size or values.ndim not in (2, 3) or values.ndim == 3 and values.shape[2] not in (3, 4):
        raise InputError(f"{name} has the shape {values.shape}; {PICTURE_ARRAY}")
    return Image.fromarray(np.ascontiguousarray(_eight_bits(values, name)))


def _eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """An array of any numbers as uint8. Raises InputError."""
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf":
        raise InputError(f"{name} is an array of {values.dtype}; a picture is made of numbers")
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite numbers, which are no colours")
    if values.min() < 0:
        raise InputError(f"{name} holds negative numbers; scale it to 0 … 1, or to whole numbers from 0 to 255")
    return _scaled(values, (1, *DEPTHS) if values.dtype.kind == "f" else DEPTHS)


def to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits ("I;16…"), 32 bits ("I") or floats ("F") → mode "L"; 0 stays black."""
    values = np.array(image, dtype=np.float32)
    np.nan_to_num(values, copy=False, posinf=0)
    transparent = image.info.get("transparency")  # the one grey that stands for "nothing here"
    hidden = None if transparent is None else values == transparent
    if hidden is not None and not hidden.all():
        values[hidden] = 0
    grey = _scaled(values, (1, *DEPTHS) if image.mode == "F" else DEPTHS)
    if hidden is None:
        return Image.fromarray(grey)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))))


def _scaled(values: np.ndarray, depths: tuple[int, ...] = DEPTHS) -> np.ndarray:
    """Numbers as uint8: the lowest of `depths` that none exceeds becomes 255; negative ones become 0."""
    brightest = float(values.max())
    white = next((depth for depth in depths if brightest <= depth), brightest)
    return (values * np.float32(255 / white)).clip(0, 255).round().astype(np.uint8)


def _swapped(tile: Any) -> Any:
    """A tile of 16-bit colours in the other byte order, as Pillow describes it; None if it is another kind of tile."""
    arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    kind, _, order = str(arguments[0]).partition(";16") if arguments else ("", "", "")
    if kind not in ("RGB", "RGBA", "RGBX") or order not in ("B", "L", "N"):
        return None
    swapped = f"{kind};16{'L' if order == 'B' else 'B'}"
    return tile._replace(args=(swapped, *arguments[1:]) if isinstance(tile.args, tuple) else swapped)


def without_metadata(data: bytes) -> bytes:
    """A PNG without the chunks that no pixel depends on, however large or damaged they are."""
    view, at = memoryview(data), len(PNG)
    kept: list[bytes | memoryview] = [PNG]
    while at + 8 <= len(data):
        length, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 12 + length
        if kind in CHUNKS:
            kept.append(view[at:end])
        else:
            whole = zlib.crc32(view[at + 4 : end - 4]).to_bytes(4, "big") == view[end - 4 : end]
            if whole and kind == IF_WHOLE:
                kept.append(view[at:end])
            following = -1 if whole else data.find(b"IDAT", at + 8)
            end = following - 4 if following >= 0 else end  # its length may be damaged
        at = max(end, at + 12)
    return b"".join(kept)


def data_uri(source: str, limits: Limits) -> bytes:
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


def what_else(data: bytes, formats: Sequence[str]) -> str:
    """The end of an error about ``data``, which is not an image in one of ``formats``."""
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
    return f"is not an image that can be read ({', '.join(formats)}), or it is damaged"


def damaged(data: bytes) -> str:
    """The end of an error about ``data``, which begins as an image."""
    return f"is a HEIC photo that {CANNOT}" if HEIC.match(data[:12]) else "is damaged or truncated"
