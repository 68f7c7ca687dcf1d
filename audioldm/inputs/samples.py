"""A sound as the user has it, a file or a Python object → its samples and their rate.

libsndfile reads most files, PyAV (FFmpeg) the others: m4a, mp4, mov, webm, wma … Their content decides, not the name.
"""

from __future__ import annotations

import io
import logging
import numbers
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

from translator.files import printable

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz
OUR_RATE = 16_000  # Hz, of an array that comes without a rate
MAX_CHANNELS = 32  # an array's shorter side may be its channels
HEADERLESS = (".raw", ".pcm")
# FFmpeg's readers of files that hold their own sound; playlists and the like would open other files or addresses.
READERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,aac,ogg,mp3,flac,wav,w64,avi,flv,mpegts,mpeg,amr,ac3,eac3,aiff,caf,ape,wv,"
    "tta,mpc,mpc8,dsf,iff,au,rm,mxf,dts,truehd,opus,amrnb,amrwb,loas,latm,swf,dv,voc,xwma,tak"
)
PICTURE = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF....WEBP|....ftyp(avif|hei|mif1)", re.S)  # how its file begins
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
        found = _from_bytes(bytes(source), "the sound", seconds, on_note)
    elif hasattr(source, "read"):
        found = _from_bytes(_read(source), str(getattr(source, "name", "the open file")), seconds, on_note)
    else:
        found = _from_array(source, seconds)
    if not LOWEST_RATE <= found.rate <= HIGHEST_RATE:
        raise InputError(f"{printable(found.name)} claims {found.rate} samples per second, which no sound has")
    if not np.isfinite(found.values).all():
        raise InputError(f"{printable(found.name)} contains samples that are not numbers")
    return found


def duration(path: str | PathLike[str]) -> float:
    """Seconds of sound in a file. Raises InputError."""
    import soundfile

    name = _checked(os.fsdecode(path))
    if not name.lower().endswith(HEADERLESS):
        try:
            with open(os.path.expanduser(name), "rb") as file:
                return float(soundfile.info(file).duration)
        except (OSError, soundfile.LibsndfileError, RuntimeError, TypeError):
            pass
    found = read_samples(name)
    return len(found.values) / found.rate


def _checked(name: str) -> str:
    """The name of an existing file. Raises InputError, which says what to give instead."""
    if re.match(r"(https?|ftp)://", name.strip(), re.I):
        raise InputError(f"{printable(name)} is an address; a sound is read from a file: download it first")
    path, shown = os.path.expanduser(name), printable(name)
    if os.path.isdir(path):
        raise InputError(f"{shown} is a folder; give the name of one sound file")
    if not os.path.exists(path):
        raise InputError(f"no such audio file: {shown}")
    if not os.path.isfile(path):
        raise InputError(f"{shown} is not a regular file")
    return name


def _from_file(name: str, seconds: float | None, on_note: OnNote) -> Samples:
    path = os.path.expanduser(_checked(name))
    try:
        if name.lower().endswith(HEADERLESS):  # libsndfile would go by that name
            with open(path, "rb") as file:
                return _from_bytes(file.read(), name, seconds, on_note)
        return _decoded(lambda: os.fsencode(path), lambda: open(path, "rb"), name, seconds, on_note)
    except OSError as error:
        raise InputError(f"{printable(name)} cannot be read: {error.strerror}") from None


def _from_bytes(data: bytes, name: str, seconds: float | None, on_note: OnNote) -> Samples:
    return _decoded(lambda: io.BytesIO(data), lambda: io.BytesIO(data), name, seconds, on_note)


def _read(file: Any) -> bytes:
    name = printable(str(getattr(file, "name", "the open file")))
    try:
        data = file.read()
    except (OSError, ValueError):
        raise InputError(f'{name} cannot be read; open it with mode "rb"') from None
    if not isinstance(data, bytes):
        raise InputError(f'{name} is open as text; open it with mode "rb"')
    return data


def _decoded(
    for_sndfile: Callable[[], Any], for_av: Callable[[], BinaryIO], name: str, seconds: float | None, on_note: OnNote
) -> Samples:
    import soundfile

    try:
        with soundfile.SoundFile(for_sndfile()) as file:
            frames = -1 if seconds is None else round(seconds * file.samplerate)
            return Samples(file.read(frames, dtype="float32", always_2d=True), file.samplerate, name)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        why = str(error).rpartition("': ")[2].rpartition(">: ")[2].strip().rstrip(".")
    with for_av() as file:
        return _by_av(file, name, seconds, why, on_note)


def _by_av(file: BinaryIO, name: str, seconds: float | None, why: str, on_note: OnNote) -> Samples:
    """The first sound track in ``file``. ``why``: the reason of libsndfile not to read it."""
    import av
    import numpy as np

    head, name, given = file.read(16), printable(name), name
    file.seek(0)
    if not head:
        raise InputError(f"{name} is not a readable audio file: it is empty")
    if name.lower().endswith(HEADERLESS):
        raise InputError(f"{name} has no header that says rate and format; save it as WAV first")
    parts, count, rate, failure = [], 0, 0, None
    try:
        with av.open(file, options={"format_whitelist": READERS}, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise InputError(f"{name} holds no sound: it has no sound track")
            stream, resampler = container.streams.audio[0], av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                rate = rate or frame.sample_rate
                for part in resampler.resample(frame):
                    parts.append(part.to_ndarray())
                    count += parts[-1].shape[1]
                if seconds is not None and count >= seconds * rate:
                    break
    except InputError:
        raise
    except Exception as error:  # FFmpeg's errors are of many classes
        failure = error
    if not count:
        if PICTURE.match(head):
            raise InputError(f"{name} is a picture, not a sound; give it with -t")
        if failure is None:
            raise InputError(f"{name} holds no sound: it has no sound track")
        raise InputError(f"{name} is not a readable audio file: {why}") from failure
    if failure is not None:
        on_note(f"{name} is damaged after {count / rate:.1f} seconds; what comes before is used")
    values = np.concatenate(parts, axis=1).T[: None if seconds is None else round(seconds * rate)]
    return Samples(np.ascontiguousarray(values, np.float32), rate, given)


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
    if isinstance(rate, bool) or rate != int(rate):
        raise InputError(f"the rate of a sound must be a whole number of samples a second, not {rate}")
    try:
        values = np.asarray(source)
    except Exception:  # a tensor on a GPU
        raise InputError(f"the sound is not an array that can be read; {ARRAY}") from None
    while values.ndim > 2 and 1 in values.shape:  # this package returns (1, 1, samples)
        values = values.squeeze(values.shape.index(1))
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


