"""What the tests of sounds share: files as libsndfile and FFmpeg write them, the odd ones among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def encode(path: Path, codec: str, wave: np.ndarray = TONE, rate: int = RATE, video: bool = False) -> Path:
    """Write a sound file, or a film of a grey picture with it, by FFmpeg."""
    import av

    with av.open(str(path), "w") as container:
        picture = None
        if video:
            picture = container.add_stream("mpeg4" if path.suffix != ".webm" else "libvpx", rate=10)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = None
        if len(wave):
            sound = container.add_stream(codec, rate=rate, layout="mono")
            sound.bit_rate = 96_000
            frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), "fltp", "mono")
            frame.sample_rate = rate
            resampler = av.AudioResampler(sound.format, sound.layout, rate, frame_size=sound.frame_size or 1024)
            frames = [*resampler.resample(frame), *resampler.resample(None)]
        if picture is not None:
            for _ in range(10):
                container.mux(picture.encode(av.VideoFrame(64, 48, "yuv420p")))
            container.mux(picture.encode())
        if sound is not None:
            for part in frames:
                container.mux(sound.encode(part))
            container.mux(sound.encode())
    return path


def sndfile(path: Path, format: str | None = None, subtype: str | None = None, seconds: float = 3) -> Path:
    tone = np.resize(TONE, round(RATE * seconds)) * np.linspace(0.2, 1, round(RATE * seconds))
    soundfile.write(path, tone, RATE if subtype != "OPUS" else 48_000, format=format, subtype=subtype)
    return path


def of_16_channels(path: Path) -> Path:
    """Write a QuickTime file with more channels than FFmpeg's frames hold."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="hexadecagonal")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16 * 900), np.int16), "s16", "hexadecagonal")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
    return path
