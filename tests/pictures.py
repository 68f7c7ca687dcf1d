"""What the tests of images share: encoded pictures, and the check that a refusal is one clear sentence."""

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
