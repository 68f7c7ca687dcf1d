"""What the tests of images share: encoded and hostile pictures, and the check that a refusal is one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audioldm.errors import InputError
from audioldm.inputs.images import decode_image, load_image
from audioldm.inputs.web import Limits

# Four corners that tell every rotation and reflection apart: red, green / blue, yellow.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decode(image: Image.Image | bytes, format: str = "PNG", **options: Any) -> np.ndarray:
    """The pixels, (height, width, 3) uint8, that come out of an image or of the bytes of one."""
    data = encode(image, format, **options) if isinstance(image, Image.Image) else image
    decoded = decode_image(data, "it")
    assert decoded.mode == "RGB" and type(decoded) is Image.Image
    return np.asarray(decoded)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge(format: str, side: int = 60_000) -> bytes:
    """The header of an image of side × side pixels, followed by next to nothing."""
    if format == "PNG":
        header = png_chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0))
        return (
            b"\x89PNG\r\n\x1a\n"
            + header
            + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
            + png_chunk(b"IEND", b"")
        )
    if format == "GIF":
        return b"GIF89a" + struct.pack("<2H3B", side, side, 0x80, 0, 0) + bytes(6) + gif_frame(side, side)
    if format == "GIF frame":  # a small canvas around a huge frame
        return b"GIF89a" + struct.pack("<2H3B", 8, 8, 0x80, 0, 0) + bytes(6) + gif_frame(side, side)
    if format == "PPM":
        return b"P6 %d %d 255\n" % (side, side) + bytes(100)
    if format == "BMP":
        information = struct.pack("<3I2H6I", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<3I", 1000, 0, 54) + information + bytes(99)
    if format == "JPEG":
        data = bytearray(encode(Image.new("RGB", (8, 8)), "JPEG"))
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">2H", side, side)
        return bytes(data)
    if format == "WEBP":
        frames = [Image.new("RGBA", (8, 8), colour) for colour in ("red", "blue")]
        data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
        at = data.index(b"VP8X") + 12
        data[at : at + 6] = (16_382).to_bytes(3, "little") * 2  # the largest that WebP knows
        return bytes(data)
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: 100}  # a TIFF
    entries = b"".join(struct.pack("<2H2I", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(104)


def gif_frame(width: int, height: int) -> bytes:
    return b"," + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"


def refused(source: object, sentence: str, **options: Any) -> str:
    """Assert that `load_image` answers with one sentence that holds the pattern `sentence`; return it."""
    with pytest.raises(InputError, match=sentence) as caught:
        load_image(str(source), **options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 250
    return message


# A small photo-like JPEG, and limits for tests of slowness and size.
JPEG = encode(Image.effect_noise((64, 64), 60), "JPEG")
SILENT = Limits(connect_s=0.2, read_s=0.2)  # one of these two ends the wait,
SLOW = Limits(total_s=0.3)  # or this one: the test sees which by the sentence
SMALL = Limits(max_bytes=300_000)
