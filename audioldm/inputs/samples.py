"""A sound as the user has it, a file or what Python holds → its samples and their rate."""

from __future__ import annotations

import io
import logging
import math
import numbers
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

from translator.files import SCHEME, is_data_uri, printable, unwrapped

from ..errors import InputError
from .decoding import DAMAGED, SLACK, UNKNOWN, Decoded, by_av, by_sndfile
from .vector import content_of, to_numpy

if TYPE_CHECKING:
    import numpy as np

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz
OUR_RATE = 16_000  # Hz, of an array that comes without a rate
MAX_CHANNELS = 32  # an array's shorter side may be its channels
HEADERLESS = (".raw", ".pcm")
PICTURE = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF....WEBP|....ftyp(avif|hei|mif1)", re.S)  # how its file begins
MP3, OGG = re.compile(rb"ID3|\xff[\xe2-\xff]"), b"OggS"
ARRAY = "a sound is an array (samples,), (samples, channels) or (channels, samples), alone (at 16 kHz) or with its rate"

log = logging.getLogger("audioldm")

OnNote = Callable[[str], object]  # receives a remark for the user


@dataclass(frozen=True)
class Samples:
    """``values`` float32 (N, channels), with full scale as ±1; ``rate`` in Hz; ``name`` for messages and records."""

    values: np.ndarray
    rate: int
    name: str


def read_samples(source: Any, seconds: float | None = None, on_note: OnNote = log.warning) -> Samples:
    """Read a sound: a file's name, an open file or its bytes, an array at 16 kHz, or (rate, array).

    ``seconds`` cuts a longer sound; ``on_note`` receives each remark for the user. Raises InputError.
    """
    import numpy as np

    if isinstance(source, str | PathLike):
        found = _from_file(os.fsdecode(source), seconds, on_note)
    elif isinstance(source, bytes | bytearray | memoryview):
        found = _decoded(lambda: io.BytesIO(source), "the sound", seconds, on_note)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "the open file"))
        data = content_of(source, printable(name))
        found = _decoded(lambda: io.BytesIO(data), name, seconds, on_note)
    else:
        found = _from_array(source, seconds)
    if not LOWEST_RATE <= found.rate <= HIGHEST_RATE:
        raise InputError(f"{printable(found.name)} claims {found.rate} samples per second, which no sound has")
    if not np.isfinite(found.values).all():
        raise InputError(f"{printable(found.name)} contains samples that are not numbers")
    return found


def duration(path: str | PathLike[str]) -> float:
    """Seconds of sound in a file. Raises InputError."""
    found = read_samples(os.fsdecode(path))
    return len(found.values) / found.rate


def _checked(name: str) -> str:
    """The name of a file that is there; raises InputError, saying what to give instead of anything else."""
    if SCHEME.match(name.strip()) or is_data_uri(name.strip()):
        raise InputError(f"{printable(name)} is an address; a sound is read from a file: download it first")
    name = unwrapped(name)
    path, shown = os.path.expanduser(name), printable(name)
    if not name:
        raise InputError("the name of the sound is empty")
    if os.path.isdir(path):
        raise InputError(f"{shown} is a folder; give the name of one sound file")
    if not os.path.exists(path):
        more = "; a sound cannot be read from standard input" if name == "-" else ""
        raise InputError(f"no such audio file: {shown}{more}")
    if not os.path.isfile(path):
        raise InputError(f"{shown} is not a regular file")
    return name


def _from_file(name: str, seconds: float | None, on_note: OnNote) -> Samples:
    name = _checked(name)
    path = os.path.expanduser(name)
    try:
        return _decoded(lambda: open(path, "rb"), name, seconds, on_note)
    except OSError as error:
        raise InputError(f"{printable(name)} cannot be read: {error.strerror}") from None


def _decoded(open_it: Callable[[], BinaryIO], name: str, seconds: float | None, on_note: OnNote) -> Samples:
    """The first sound track of a file, by the first library that reads it whole, or else reads the most of it."""
    shown = printable(name)
    with open_it() as file:
        head = file.read(16)
    if not head:
        raise InputError(f"{shown} is not a readable audio file: it is empty")
    if PICTURE.match(head):
        raise InputError(f"{shown} is a picture, not a sound; give it with -t")
    # FFmpeg saves more of a damaged MP3 or Ogg, and libsndfile would write of the former to stderr.
    libraries = (by_sndfile, by_av)
    if MP3.match(head) or head.startswith(OGG):
        libraries = (by_av, by_sndfile)[: 1 if MP3.match(head) else 2]
    tried: list[Decoded] = []
    for library in libraries:
        with open_it() as file:
            tried.append(library(file, shown, seconds))
        if tried[-1].whole:
            break
    found = max(tried, key=lambda one: one.seconds)
    if found.values is None:
        if name.lower().endswith(HEADERLESS):
            raise InputError(f"{shown} has no header that says rate and format; save it as WAV first")
        why = DAMAGED if any(one.why == DAMAGED for one in tried) else UNKNOWN
        why = "its index is missing, as in one that is cut short" if head[4:8] == b"ftyp" else why  # m4a, mp4, mov
        raise InputError(f"{shown} is not a readable audio file: {why}")
    enough = seconds is not None and found.seconds >= seconds - SLACK
    if found.seconds and not enough and not (found.whole and tried[0].why != DAMAGED):
        claimed = max(one.claimed for one in tried)
        of = f" of its {claimed:.1f}" if claimed > found.seconds + SLACK else ""
        on_note(f"{shown} is damaged or cut short: {found.seconds:.1f}{of} seconds can be read and are used")
    return Samples(found.values, found.rate, name)


def _from_array(source: Any, seconds: float | None) -> Samples:
    import numpy as np

    rate: Any = OUR_RATE
    if isinstance(source, tuple | list) and len(source) == 2:
        first, second = source
        if not isinstance(first, numbers.Number):  # soundfile's and librosa's order
            first, second = second, first
        if isinstance(first, numbers.Real) and hasattr(second, "__len__"):
            rate, source = first, second
    if isinstance(source, list):
        source = np.asarray(source, np.float32) if all(isinstance(one, numbers.Real) for one in source) else source
    if not hasattr(source, "__array__"):
        raise InputError(
            f"a sound is a file's name, bytes, an open file, an array or (rate, array), not {type(source).__name__}"
        )
    if isinstance(rate, bool) or not math.isfinite(rate) or rate != int(rate):
        raise InputError(f"the rate of a sound must be a whole number of samples a second, not {rate}")
    values = to_numpy(source, f"the sound is not an array that can be read; {ARRAY}")
    while values.ndim > 2 and 1 in values.shape:  # what this package returns: (1, 1, samples)
        values = values.squeeze(values.shape.index(1))
    if not values.size:
        raise InputError("the sound is an array that contains no sound: it is empty")
    if values.ndim == 2 and values.shape[0] <= MAX_CHANNELS and values.shape[0] < values.shape[1]:
        values = values.T
    if values.ndim not in (1, 2) or values.ndim == 2 and values.shape[1] > MAX_CHANNELS:
        raise InputError(f"the sound has the shape {values.shape}; {ARRAY}")
    values = as_float(values if values.ndim == 2 else values[:, None], "the sound")
    return Samples(values[: None if seconds is None else round(seconds * int(rate))], int(rate), "the sound")


def as_float(values: np.ndarray, name: str) -> np.ndarray:
    """Samples of any kind as float32, full scale of whole numbers as ±1. Raises InputError."""
    import numpy as np

    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype in (np.int8, np.int16, np.int32):
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    raise InputError(f"{name} is an array of {values.dtype}; give float32 within ±1, or int16")


