"""Picture files without their last bytes: what is there of the picture, cropped to it, with a remark."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageFile

from ..errors import InputError

LOST = 1 / 8  # of the rows, at most, may be missing
SCANS = 5  # of a progressive JPEG, which is seen whole from then on
TRIES, ENOUGH = 24, 3  # stand-ins for the missing bytes, and how many of them must make a picture
PATIENCE = 20  # seconds, within which each of them is begun
BLOCKS = 72  # rows that AVIF and HEIC lose at least, however little is missing; at most a quarter of the picture

OnNote = Callable[[str], object]


def load_cut_short(
    open_it: Callable[[], Image.Image], name: str, scans: int, on_note: OnNote
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
    rows, height = _rows_with_content(image), image.height
    fine = bool(image.info.get("progressive") or image.info.get("progression"))
    if fine and scans < SCANS or not (fine or rows.any()):
        return None
    first, last = (0, height - 1) if fine else (int(rows.argmax()), height - 1 - int(rows[::-1].argmax()))
    first = first if image.format == "BMP" else 0  # the only one that begins with its last row
    if (~rows[first : last + 1]).sum() > LOST * height and not fine:
        return None
    image = open_it()
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, IndexError):
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    last = max(last, height - 1 - _flat_rows(image)) if not fine else last
    missing = height - 1 - last + first
    if missing > LOST * height:
        return None
    filled = 0 if fine else _fill_gaps(image, rows)
    if fine:
        said = "its finest details are"
    else:
        said = f"{missing + filled} of its {height} rows are" if missing + filled else "next to nothing is"
    on_note(f"{name} is cut short: {said} missing, and the rest is used")
    if not missing:
        return image
    whole, image = image, image.crop((0, first, image.width, last + 1))
    image.info, image._exif = whole.info, whole.getexif()
    return image


def by_filling(
    data: bytes, name: str, decode: Callable[[bytes], Image.Image], on_note: OnNote
) -> Image.Image | None:
    """What is there of a WebP, AVIF or HEIC file that is shorter than it says; None: it is not, or too much is missing.

    ``decode`` makes a picture of a whole file, or raises InputError.
    """
    lacking = _length(data) - len(data)
    if not 0 < lacking <= len(data):
        return None
    pictures, until = list[np.ndarray](), time.monotonic() + PATIENCE
    for number in range(TRIES):
        try:
            pictures.append(np.asarray(decode(data + _stand_in(lacking, number))))
        except InputError:
            continue
        if len(pictures) == ENOUGH or time.monotonic() > until:
            break
    if len(pictures) < 2 or len({picture.shape for picture in pictures}) > 1:
        return None
    # Where they differ, the pixels depend on what is missing.
    differ = np.any([(picture != pictures[0]).any(axis=2) for picture in pictures[1:]], axis=0)
    turned = differ.any(axis=1).all()  # by its EXIF data: then, columns are missing
    lines = differ.any(axis=0 if turned else 1)
    count = len(lines)
    first, last = _longest_run(~lines)
    if count - (last - first) > max(LOST * count, min(BLOCKS, count / 4)):
        return None
    missing = count - (last - first)
    said = f"{missing} of its {count} {'columns' if turned else 'rows'} are" if missing else "next to nothing is"
    on_note(f"{name} is cut short: {said} missing, and the rest is used")
    kept = pictures[0][:, first:last] if turned else pictures[0][first:last]
    return Image.fromarray(np.ascontiguousarray(kept))


def _stand_in(count: int, number: int) -> bytes:
    """``count`` bytes, other ones for each ``number``: of some, fewer and fewer bits are 1."""
    random = Random(number)
    bits = random.getrandbits(8 * count)
    for _ in range(number % 4):
        bits &= random.getrandbits(8 * count)
    return bytes([number * 11 % 256]) + bits.to_bytes(count, "little")[1:]


def _length(data: bytes) -> int:
    """How long a RIFF file (WebP), or one of boxes (AVIF, HEIC), says that it is; 0 for others."""
    if data.startswith(b"RIFF"):
        return 8 + int.from_bytes(data[4:8], "little")
    at = 0
    while data[4:8] == b"ftyp" and at + 16 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        if size < 8:  # 0: to the end of the file
            return 0
        at += size
    return at


def _longest_run(kept: np.ndarray) -> tuple[int, int]:
    """The longest run of True: its first place, and the one after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(np.int8), [0]])))
    runs = edges.reshape(-1, 2)
    first, last = runs[(runs[:, 1] - runs[:, 0]).argmax()] if len(runs) else (0, 0)
    return int(first), int(last)


def _fill_gaps(image: Image.Image, rows: np.ndarray) -> int:
    """Repeat the row above each single row that is missing, as in an interlaced file; returns their number."""
    gaps = np.flatnonzero(~rows[1:-1] & rows[:-2] & rows[2:]) + 1
    for row in gaps.tolist():
        image.paste(image.crop((0, row - 1, image.width, row)), (0, row))
    return len(gaps)


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
