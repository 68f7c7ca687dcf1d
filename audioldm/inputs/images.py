"""Bytes from a stranger, or the user's own → an RGB image, safely.

A source is an http(s) URL, a `data:` URI, a local file, or a Python object that is a picture. Its content alone decides
its format, not its name or header. Every fault becomes one `InputError`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps

from translator.files import label

from ..errors import InputError
from . import pixels, salvage
from .vector import content_of
from .web import LIMITS, Limits, download, too_many_bytes

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "HEIF")  # no EPS: it runs programs
OWN = Limits(max_bytes=2_000_000_000, max_pixels=300_000_000)  # of local files; a JPEG of 200 megapixels takes 300 MB
EIGHT_BITS = ("JPEG", "MPO", "WEBP", "GIF")  # formats whose colours have no more
# Each scan of a progressive JPEG, however short, costs a pass over all pixels: 1e10 take a core about 10 s.
MAX_JPEG_WORK = 10_000_000_000  # pixels × scans; a photo of 40 megapixels with 12 scans has 5e8
MAX_ELONGATION = 100  # long side : short side; an encoder enlarges the short side to some 200 pixels
LARGE = 40_000_000  # pixels; a larger picture is reduced by a whole factor
SMALL = 64  # pixels; contrast is measured on so small a copy
BLANK, CLEAR = 4.0, 24.0  # contrast: below the first nothing can be seen, above the second enough
ONE_COLOUR = 2  # steps of 255 by which one colour may differ from pixel to pixel
MAX_FRAMES, MAX_FRAME_PIXELS = 100, 400_000_000  # how far an animation is searched, and in pixels of all frames
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "TIFF", "HEIF")  # an MPO's second picture is the other eye's

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
        limits: sizes and times; None: LIMITS for the web and data URIs, OWN for the user's own pictures.
        on_note: receives each remark for the user.

    Raises:
        InputError: the source is malformed, unreachable, forbidden, too large, too slow or not an image. A file that
            ends a little too early gives its part of the picture, with a warning.
    """
    if not isinstance(source, str | PathLike):
        return _from_python(source, limits or OWN, on_note)
    source = os.fsdecode(source).strip()
    if source[:5].lower() == "data:":
        limits = limits or LIMITS
        return decode_image(pixels.data_uri(source, limits), "the data URI", limits, on_note=on_note)
    if re.match(r"[a-z][a-z0-9+.-]*://", source, re.I):
        limits = limits or LIMITS
        data = download(source, allow_private=allow_private, limits=limits)
    else:
        limits = limits or OWN
        data = _read_file(source, limits)
    return decode_image(data, label(source), limits, on_note=on_note)


def decode_image(data: bytes, name: str, limits: Limits = LIMITS, *, on_note: OnNote | None = None) -> Image.Image:
    """The image in the bytes of an image file, as `load_image` returns it; `name` stands for it in messages.

    `on_note`: receives a remark if a file ends a little too early and its part is used; None: refuse it.

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
    if all(high - low <= ONE_COLOUR for low, high in cast(Any, picture.getextrema())):
        on_note(f"{name} is blank: all of it is of one colour")
    return picture


def _decoded(data: bytes, name: str, limits: Limits, on_note: OnNote | None) -> Image.Image:
    with _opened(data, name, limits) as image:
        try:
            loaded = image if image.format in EIGHT_BITS else pixels.deep(image, lambda: _open(data, limits))
            loaded.load()
        except Exception:
            scans = data.count(b"\xff\xda")
            if on_note is None:
                raise
            loaded = salvage.load_cut_short(lambda: _open(data, limits), name, scans, on_note)
            if loaded is None:
                raise
        return visible_frame(loaded, name)


def check_header(data: bytes, name: str, limits: Limits = LIMITS) -> None:
    """Raise InputError as `decode_image` does, except for faults that only decoding shows; microseconds."""
    with _opened(data, name, limits):
        pass


def _open(data: bytes, limits: Limits) -> Image.Image:
    """The image in `data`, its header read; a JPEG beyond 40 megapixels is decoded at a half, quarter or eighth."""
    formats = FORMATS if pixels.HEIC.match(data[:12]) else FORMATS[:-1]
    if formats == FORMATS:
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limits.max_pixels  # Pillow refuses twice as many
    try:
        content = pixels.without_metadata(data) if data.startswith(pixels.PNG) else data
        image = Image.open(io.BytesIO(content), formats=formats)
    finally:
        Image.MAX_IMAGE_PIXELS = before
    _refuse_bombs(image, data, limits)
    if image.format in ("JPEG", "MPO") and image.width * image.height > LARGE:
        scale = next(n for n in (2, 4, 8) if n == 8 or image.width * image.height <= LARGE * n * n)
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
            raise InputError(f"{name} {pixels.what_else(data, FORMATS)}") from error
        except Exception as error:  # decoders that are fed damaged data raise nearly anything
            raise InputError(f"{name} {pixels.damaged(data)}") from error


def _from_python(source: Any, limits: Limits, on_note: OnNote) -> Image.Image:
    """The image in bytes, an open file, a PIL image or an array."""
    if isinstance(source, Image.Image):
        name = label(str(getattr(source, "filename", "") or "the picture"))
        try:
            return _seen(visible_frame(source, name), name, on_note)
        except InputError:
            raise
        except Exception as error:  # closed, or its file is damaged
            raise InputError(f"{name} is a PIL image that cannot be decoded") from error
    if isinstance(source, bytes | bytearray | memoryview):
        return decode_image(bytes(source), "the picture", limits, on_note=on_note)
    if hasattr(source, "read"):
        name = label(str(getattr(source, "name", "the open file")))
        return decode_image(content_of(source, name), name, limits, on_note=on_note)
    if hasattr(source, "__array__"):
        return _seen(to_rgb(pixels.from_array(source), "the picture"), "the picture", on_note)
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


def _refuse_bombs(image: Image.Image, data: bytes, limits: Limits) -> None:
    count = image.width * image.height
    if count > limits.max_pixels:
        raise Image.DecompressionBombError
    if image.format in ("JPEG", "MPO") and count * data.count(b"\xff\xda") > MAX_JPEG_WORK:
        raise ValueError("more scans than any photo has")


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
        image = pixels.to_8_bits(image)
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


def contrast(image: Image.Image) -> float:
    """The standard deviation of the grey values of an RGB picture, 0 to 127."""
    return float(np.asarray(image.convert("L").resize((SMALL, SMALL), Image.Resampling.BOX), np.float32).std())


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
