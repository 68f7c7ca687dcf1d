"""Picture files with a damaged part that no pixel depends on, or without their last bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile

PNG = b"\x89PNG\r\n\x1a\n"
# What decides on the pixels of a PNG; texts, times and colour profiles are left out.
CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT")
IF_WHOLE = b"eXIf"  # how the picture is turned
LOST = 1 / 8  # of the rows, at most, may be missing
SCANS = 5  # of a progressive JPEG, which is seen whole from then on


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


def load_cut_short(
    open_it: Callable[[], Image.Image], name: str, scans: int, on_note: Callable[[str], object]
) -> Image.Image | None:
    """What is there of a picture whose file ends too early, loaded and cropped to it; None: too much is missing.

    Args:
        open_it: opens the file anew.
        name: of the file, for the remark that says what is missing.
        scans: how often the file begins a scan, if it is a JPEG.
        on_note: receives that remark.
    """
    image = open_it()
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, IndexError):
        pass
    rows = _rows_with_content(image)
    if image.info.get("progressive") or image.info.get("progression"):
        missing, said = (0, "its finest details are") if scans >= SCANS else (image.height, "")
    else:
        missing = image.height - rows.nonzero()[0].max(initial=-1) - 1
        if (~rows).sum() > missing + LOST * image.height:  # interlaced: the gaps are everywhere
            return None
        said = ""
    image = open_it()
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, IndexError):
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    missing = min(missing, _flat_rows(image))
    if missing > LOST * image.height:
        return None
    said = said or (f"its last {missing} of {image.height} rows are" if missing else "next to nothing is")
    on_note(f"{name} is cut short: {said} missing, and the rest is used")
    if missing:
        whole, image = image, image.crop((0, 0, image.width, image.height - missing))
        image.info, image._exif = whole.info, whole.getexif()
    return image


def _rows_with_content(image: Image.Image) -> np.ndarray:
    """For each row, whether the decoder has written anything but zeros to it."""
    if image._im is None:
        return np.zeros(image.height, bool)
    found = Image.new(image.mode, (1, 1))._new(image._im)  # pyright: ignore[reportArgumentType]
    values = np.asarray(found).reshape(image.height, -1)
    return np.asarray(values.any(axis=1))


def _flat_rows(image: Image.Image) -> int:
    """How many of the last rows are of one colour, as decoders fill in what they lack."""
    values = np.asarray(image)
    differs = (values != values[-1, -1]).reshape(image.height, -1).any(axis=1)
    return image.height - int(differs.nonzero()[0].max(initial=-1)) - 1
