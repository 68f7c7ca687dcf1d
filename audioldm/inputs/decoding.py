"""The sound in a file: libsndfile reads most files, PyAV (FFmpeg) the others: m4a, mp4, mov, webm, wma …"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

# FFmpeg's readers of files that hold their own sound; playlists and the like would open other files or addresses.
READERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,aac,ogg,mp3,flac,wav,w64,avi,flv,mpegts,mpeg,amr,ac3,eac3,aiff,caf,ape,wv,"
    "tta,mpc,mpc8,dsf,iff,au,rm,mxf,dts,truehd,opus,amrnb,amrwb,loas,latm,swf,dv,voc,xwma,tak"
)
EXACT = ("mov", "matroska", "asf", "flac", "wav", "aiff", "ogg")  # those that know how long a file is
XING = re.compile(rb"(?:Xing|Info)\0\0\0[\1\3\5\7\x09\x0b\x0d\x0f](....)", re.S)  # the number of an MP3's frames
TIME = re.compile(r"(\d+):(\d\d):(\d\d\.?\d*)")  # how Matroska writes a track's duration
CUT = re.compile(r"^ *(?:data|SSND|riff) : (\d+) \(should be (\d+)\)", re.M)  # libsndfile's remark, in bytes
UNLIMITED = 0x7FFF_0000  # bytes; recorders that do not know the length write more
BLOCK = 1 << 20  # samples of each channel, read at once
MAX_VALUES = 400_000_000  # samples of all channels, 1.6 GB; a small file of silence may decode to many more
LOOKED_AT = 1 << 20  # bytes at the beginning or end of a file
SLACK = 0.06  # seconds by which whole files differ from what they say, by the coder's delay
WEEK = 7 * 86_400  # seconds; what claims more is not believed
AV_CHANNELS = 8  # of PyAV's planar frames: beyond, it reads memory that is not there
DAMAGED, UNKNOWN = "it is damaged or cut short", "it is damaged, cut short or of an unknown format"


@dataclass(frozen=True)
class Decoded:
    """What a library has read of a file, up to the seconds asked for."""

    values: np.ndarray | None  # float32 (N, channels)
    rate: int = 0
    claimed: float = 0.0  # seconds that the file says to have
    why: str = ""  # reading ended before the file's end

    @property
    def seconds(self) -> float:
        return 0.0 if self.values is None else len(self.values) / self.rate

    @property
    def whole(self) -> bool:
        return not self.why and 0 < self.seconds >= self.claimed - max(SLACK, self.claimed / 500)


def _refuse_too_many(values: float, seconds: float | None, name: str) -> None:
    if seconds is not None and values > MAX_VALUES:  # None: the user's own file, as long as it is
        raise InputError(f"{name} is too large to decode: use a shorter part, fewer channels or a lower rate")


def by_sndfile(file: BinaryIO, name: str, seconds: float | None) -> Decoded:
    """Raises InputError if that is more than MAX_VALUES samples."""
    import numpy as np
    import soundfile

    parts: list[np.ndarray] = []
    rate, claimed, why = 0, 0.0, ""
    try:
        with soundfile.SoundFile(file) as sound:
            rate, wanted = sound.samplerate, math.inf if seconds is None else round(seconds * sound.samplerate)
            _refuse_too_many(sound.channels * min(sound.frames, wanted), seconds, name)
            parts.append(np.zeros((0, sound.channels), np.float32))
            while wanted > 0 and len(part := sound.read(int(min(wanted, BLOCK)), "float32", always_2d=True)):
                parts.append(part)
                wanted -= len(part)
            if wanted:
                said = [(int(one), int(other)) for one, other in CUT.findall(sound.extra_info)]
                share = max((one / other for one, other in said if other < one < UNLIMITED), default=1)
                claimed = share * max(sound.frames, sum(map(len, parts))) / rate
    except InputError:
        raise
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
        why = DAMAGED if "malformed" in str(error) or parts else UNKNOWN
    return Decoded(np.concatenate(parts) if parts else None, rate, claimed if claimed < WEEK else 0, why)


def by_av(file: BinaryIO, name: str, seconds: float | None) -> Decoded:
    """Raises InputError: no sound track, too many samples, or more channels than FFmpeg's frames hold."""
    import av
    import numpy as np

    parts: list[np.ndarray] = []
    rate, claimed, why, count = 0, 0.0, "", 0
    layout, kind, resampler = "", None, None
    try:
        with av.open(file, options={"format_whitelist": READERS}, metadata_errors="ignore") as container:
            if len(container.streams) and not container.streams.audio:
                raise InputError(f"{name} holds no sound: it has no sound track")
            stream = container.streams.audio[0]
            claimed = _claimed(container, stream, file)
            for frame in container.decode(stream):
                if frame.layout.nb_channels > AV_CHANNELS and not parts:
                    raise InputError(f"{name} has more than {AV_CHANNELS} channels; save it with fewer")
                if frame.layout.nb_channels > AV_CHANNELS:  # a damaged frame; more than PyAV may touch
                    raise ValueError(DAMAGED)
                rate, layout = rate or frame.sample_rate, layout or frame.layout.name
                if resampler is None or kind != (frame.format.name, frame.sample_rate, frame.layout.name):
                    kind = (frame.format.name, frame.sample_rate, frame.layout.name)
                    resampler = av.AudioResampler("fltp", layout, rate)
                for part in resampler.resample(frame):
                    parts.append(part.to_ndarray())
                    count += parts[-1].shape[1]
                _refuse_too_many(count * frame.layout.nb_channels, seconds, name)
                if seconds is not None and count >= seconds * rate:
                    claimed = 0.0
                    break
            else:
                why = "" if _ends(container.format.name, file) else DAMAGED
    except InputError:
        raise
    except Exception:  # FFmpeg's errors are of many classes
        why = DAMAGED if parts else UNKNOWN
    if not parts:
        return Decoded(None, why=why or UNKNOWN)
    values = np.concatenate(parts, axis=1).T[: None if seconds is None else round(seconds * rate)]
    return Decoded(np.ascontiguousarray(values, np.float32), rate, claimed if claimed < WEEK else 0, why)


def _claimed(container: Any, stream: Any, file: BinaryIO) -> float:
    """Seconds that the file says to have; 0 where FFmpeg would only guess."""
    kind, at = container.format.name, file.tell()
    if kind == "mp3":
        file.seek(0)
        frames = XING.search(file.read(LOOKED_AT))
        file.seek(at)
        each = 1152 if stream.rate >= 32_000 else 576  # samples; two frames are the coder's delay
        return 0.0 if frames is None else (int.from_bytes(frames[1], "big") - 2) * each / stream.rate
    if not kind.startswith(EXACT):
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    track = TIME.match(stream.metadata.get("DURATION", ""))
    if track:
        return int(track[1]) * 3600 + int(track[2]) * 60 + float(track[3])
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _ends(kind: str, file: BinaryIO) -> bool:
    """Whether the last page of an Ogg file is whole and marked as the last; True for other files."""
    if kind != "ogg":
        return True
    file.seek(max(0, file.seek(0, os.SEEK_END) - LOOKED_AT))
    page = (data := file.read())[data.rfind(b"OggS") :]
    if len(page) < 27:
        return False
    head = 27 + page[26]  # followed by as many lengths of segments
    return bool(page[5] & 4) and len(page) >= head + sum(page[27:head])
