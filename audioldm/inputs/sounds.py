"""The user's sound as 16 kHz mono: a prompt, or the beginning of an edit."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from translator.files import printable

from ..errors import InputError
from ..options import MAX_DURATION
from .samples import OnNote, read_samples

SHORTEST = 0.5  # seconds; a shorter sound is followed by silence
SILENCE = 1e-4  # of full scale, -80 dB: smaller differences are silence
SHORT = 0.02  # seconds; a shorter sound is hardly audible
CANCELLED = 0.1  # of the loudest channel's level: a softer mix has lost its content

log = logging.getLogger("audioldm")


@dataclass(frozen=True)
class Recording:
    """A sound: ``wave`` float32 (N,) at 16 kHz, the factor that made it fit full scale, and its name."""

    wave: np.ndarray
    gain: float
    name: str


@dataclass(frozen=True)
class Original:
    """The sound that an edit begins with: ``wave`` float32 (N,) at 16 kHz, its file's name, and its gain."""

    path: str
    wave: np.ndarray
    gain: float = 1.0  # factor on the file's samples, if they were beyond full scale

    @property
    def record(self) -> dict[str, object]:
        """What a sound's JSON says of it."""
        return {"file": self.path, "content_sha256": self.sha256, "gain": self.gain}

    @property
    def duration(self) -> float:
        """Seconds, within the range that can be generated."""
        from ..audio import SAMPLE_RATE

        return max(SHORTEST, len(self.wave) / SAMPLE_RATE)

    @property
    def sha256(self) -> str:
        """Hash of the float32 samples, 64 hex digits."""
        return hashlib.sha256(self.wave.tobytes()).hexdigest()


def read_wave(source: Any, seconds: float | None = None) -> np.ndarray:
    """A sound, as ``samples.read_samples`` takes it -> float32 (N,) in [-1, 1], 16 kHz mono. Raises InputError."""
    return read_mono(source, seconds).wave


def read_mono(source: Any, seconds: float | None = None, on_note: OnNote = log.warning) -> Recording:
    """Read a sound as 16 kHz mono: channels averaged; as a whole made softer if it goes beyond full scale.

    ``seconds`` cuts a longer sound. ``on_note`` receives each remark for the user, among them that the sound is
    nearly silent. Raises InputError if it is missing, empty or no sound.
    """
    from ..audio import SAMPLE_RATE, resample

    samples = read_samples(source, seconds, on_note)
    name = printable(samples.name)
    if not len(samples.values):
        raise InputError(f"{name} contains no sound: it is empty")
    mono = _mixed(samples.values, name, on_note)
    loudest = float(np.abs(mono).max(initial=0))
    gain = 1.0 if loudest <= 1 else 1 / loudest
    if gain < 1:
        mono = mono * np.float32(gain)
        on_note(f"{name} goes {20 * np.log10(loudest):.1f} dB beyond full scale; all of it is made softer")
    wave = resample(mono, samples.rate, SAMPLE_RATE)
    if not len(wave):  # in the file, or after resampling a few samples of a high rate
        raise InputError(f"{name} contains no sound: it is empty")
    if len(wave) < SHORT * SAMPLE_RATE:
        on_note(f"{name} is only {len(mono) / samples.rate:.2g} seconds long, too short to hear much")
    elif np.ptp(mono) < SILENCE:
        on_note(f"{name} is silent")
    return Recording(wave, gain, samples.name)


def _mixed(values: np.ndarray, name: str, on_note: OnNote) -> np.ndarray:
    """The mean of the channels of (N, channels); where they cancel each other out, the loudest one, with a warning."""
    mono = values.mean(axis=1)
    if values.shape[1] < 2 or not len(values):
        return mono
    levels = values.std(axis=0)
    if levels.max() > SILENCE and mono.std() < CANCELLED * levels.max():
        on_note(f"{name}: its channels cancel each other out (opposite phase); only the loudest is used")
        return np.ascontiguousarray(values[:, int(levels.argmax())])
    return mono


def read_original(
    source: Any, mode: str, duration: float | None = None, on_note: OnNote = log.warning
) -> Original:
    """Read the sound to edit, given as for ``read_mono``.

    ``duration``: requested seconds; None: the whole sound, at most 600 s.
    Raises InputError.
    """
    if source is None or isinstance(source, str) and not source.strip():
        raise InputError(f"--mode {mode} needs a sound file (-f)")
    from ..audio import SAMPLE_RATE

    notes: list[str] = []
    recording = read_mono(source, MAX_DURATION + 1, notes.append)
    if duration is None and len(recording.wave) > MAX_DURATION * SAMPLE_RATE:
        raise InputError(f"{printable(recording.name)} is longer than {MAX_DURATION:g} s; use a part of it with -dur")
    for note in notes:
        on_note(note)
    return Original(recording.name, recording.wave, recording.gain)
