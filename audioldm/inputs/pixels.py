"""Whatever Pillow or Python has in hand → 8-bit RGB pixels on which something can be seen.

Also of PNG files with a damaged part that no pixel depends on.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from .vector import to_numpy

MAX_ELONGATION = 100  # long side : short side; an encoder enlarges the short side to some 200 pixels
LARGE = 40_000_000  # pixels; a larger picture is reduced by a whole factor
# Usual values of white beyond 8 bits: data of 8, 10, 12, 14 and 16 bits. Above them, the brightest pixel is white.
DEPTHS = (255, 1_023, 4_095, 16_383, 65_535)
UNUSED_BITS = 64  # an 8-bit channel below this may be the upper half of 14 bits or fewer
SMALL = 64  # pixels; contrast is measured on so small a copy
BLANK, CLEAR = 4.0, 24.0  # contrast: below the first nothing can be seen, above the second enough
ONE_COLOUR = 2  # steps of 255 by which one colour may differ from pixel to pixel
MAX_FRAMES, MAX_FRAME_PIXELS = 100, 400_000_000  # how far an animation is searched, and in pixels of all frames
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "TIFF", "HEIF")  # an MPO's second picture is the other eye's
PICTURE_ARRAY = "a picture is an array (height, width), (height, width, 3) or (height, width, 4)"
PNG = b"\x89PNG\r\n\x1a\n"
# What decides on the pixels of a PNG; texts, times and colour profiles are left out.
CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT")
IF_WHOLE = b"eXIf"  # how the picture is turned


def to_rgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """A copy of `image` as `load_image` returns it: upright (EXIF), on white, 8 bits per channel, mode "RGB".

    What is white on transparency is laid on black. A picture of more than 40 megapixels is reduced.

    Raises:
        InputError: one side is more than 100 times the other; `name` stands for the image in the message.
    """
    if not 0 < max(image.size) <= MAX_ELONGATION * min(image.size):
        size = f"{image.width} × {image.height}"
        raise InputError(f"{name} is too elongated ({size} pixels): at most {MAX_ELONGATION} : 1 can be seen")
    image = _reduced(image)
    with contextlib.suppress(Exception):  # broken EXIF does not spoil the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        image = _to_8_bits(image)
    return _opaque(image.convert("RGBA")) if image.has_transparency_data else image.convert("RGB")


def visible_frame(image: Image.Image, name: str) -> Image.Image:
    """The first frame of `image`, as `to_rgb` gives it; if that is blank, the first one that is not.

    Raises whatever Pillow raises.
    """
    best = to_rgb(image, name)
    if image.format not in ANIMATED or contrast(best) >= BLANK:
        return best
    with contextlib.suppress(Exception):  # damaged later frames do not spoil the first one
        pixels = 0
        for number in range(1, MAX_FRAMES):
            image.seek(number)
            pixels += image.width * image.height
            if pixels > MAX_FRAME_PIXELS:
                break
            frame = to_rgb(image, name)
            best = max(best, frame, key=contrast)
            if contrast(best) >= CLEAR:
                break
    return best


def is_blank(image: Image.Image) -> bool:
    """Whether an RGB picture is of one colour."""
    return all(high - low <= ONE_COLOUR for low, high in cast(Any, image.getextrema()))


def contrast(image: Image.Image) -> float:
    """The standard deviation of the grey values of an RGB picture, 0 to 127."""
    return float(np.asarray(image.convert("L").resize((SMALL, SMALL), Image.Resampling.BOX), np.float32).std())


def deep(image: Image.Image, reopen: Callable[[], Image.Image]) -> Image.Image:
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
    """The picture, mode "RGB", in an array (height, width) or (height, width, 1, 3 or 4), or with channels first.

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
    return to_rgb(Image.fromarray(np.ascontiguousarray(_eight_bits(values, name))), name)


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


def _reduced(image: Image.Image) -> Image.Image:
    """`image`, or a copy reduced by a whole factor to at most LARGE pixels."""
    factor = math.ceil(math.sqrt(image.width * image.height / LARGE))
    if factor <= 1:
        return image
    orientation = image.getexif().get(0x0112)
    if image.mode in ("L", "RGB", "RGBA", "CMYK", "LA", "YCbCr"):
        reduced = image.reduce(factor)
    else:
        reduced = image.resize((image.width // factor or 1, image.height // factor or 1), Image.Resampling.NEAREST)
    reduced.info = {key: value for key, value in image.info.items() if key == "transparency"}
    if orientation:
        reduced.getexif()[0x0112] = orientation
    return reduced


def _opaque(image: Image.Image) -> Image.Image:
    """An RGBA picture on white; on black if hardly anything is seen on white; without alpha if that hides all."""
    if image.getchannel("A").getextrema()[1] == 0:
        plain = image.convert("RGB")
        return plain if contrast(plain) >= BLANK else Image.new("RGB", image.size, "white")
    small = image if max(image.size) <= 4 * SMALL else image.resize((4 * SMALL, 4 * SMALL), Image.Resampling.BOX)
    on_white, on_black = (contrast(_laid_on(colour, small)) for colour in ("white", "black"))
    return _laid_on("black" if on_white < on_black / 8 else "white", image)


def _laid_on(colour: str, image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image).convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
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
    """Numbers as uint8: the lowest of `depths` that none exceeds becomes 255; what is below 0 becomes 0."""
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
    """A PNG without the chunks that no pixel depends on, however large or damaged they are; other data as they are."""
    if not data.startswith(PNG):
        return data
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
            end = following - 4 if following >= 0 else end  # its length may be what is damaged
        at = max(end, at + 12)
    return b"".join(kept)
