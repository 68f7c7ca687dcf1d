"""The sound that an edit begins with, read from the user's file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..options import MAX_DURATION

SHORTEST = 0.5  # seconds; a shorter sound is followed by silence


@dataclass(frozen=True)
class Original:
    """The sound that an edit begins with: ``wave`` float32 (N,) at 16 kHz, and its file's name."""

    path: str
    wave: np.ndarray

    @property
    def duration(self) -> float:
        """Seconds, within what can be generated."""
        from ..audio import SAMPLE_RATE

        return max(SHORTEST, len(self.wave) / SAMPLE_RATE)

    @property
    def sha256(self) -> str:
        """Hash of the float32 samples, 64 hex digits."""
        return hashlib.sha256(self.wave.tobytes()).hexdigest()


def read_original(path: str | Path | None, mode: str, duration: float | None = None) -> Original:
    """Read the sound to edit: any file that libsndfile reads, at any rate, channels averaged.

    ``duration``: what the user asked for, in seconds; None: all of it, which must not be more than 600 s.
    Raises InputError.
    """
    if path is None or not str(path):
        raise InputError(f"--mode {mode} needs a sound file (-f)")
    from ..audio import SAMPLE_RATE, read_wave

    wave = read_wave(path, MAX_DURATION + 1)
    if duration is None and len(wave) > MAX_DURATION * SAMPLE_RATE:
        raise InputError(f"{path} is longer than {MAX_DURATION:g} s; use only a part of it with -dur")
    return Original(str(path), wave)
