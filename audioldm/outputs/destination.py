"""Results on disk: wavs under names of time and prompt, each with its JSON. Nothing is overwritten."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from translator.files import output_path

from ..errors import InputError
from ..inputs.names import slug
from ..inputs.samples import as_float
from ..inputs.vector import SUFFIX, write_vector

if TYPE_CHECKING:
    import numpy as np


MOST_CHANNELS = 32  # an array of fewer samples than that, and of more sounds, is one of (samples, channels)

log = logging.getLogger("audioldm")


def get_time() -> str:
    """Local time for file names, sorting as time does: "2025-01-31_23-59-59"."""
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def check_folder(folder: Path) -> tuple[Path, ...]:
    """Make ``folder`` and see that files can be written there; raises InputError.

    Returns the folders that were not there before, the deepest first.
    """
    made = tuple(path for path in (folder, *folder.parents) if not os.path.exists(path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a folder's name"
        reason = "it is a file" if isinstance(error, FileExistsError) else reason
        raise InputError(f"cannot write to the output folder {folder}: {reason}") from None
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of ``folders``, the deepest first, that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


@dataclasses.dataclass(frozen=True)
class Destination:
    """Where the sounds of one run go: into ``folder`` under a name of time and prompt, or to ``file``.

    As a context manager, it takes the folders that ``plan`` made away again if nothing was written to them.
    """

    folder: Path
    stem: str
    file: Path | None = None
    count: int = 1
    embedding: Path | None = None  # where the condition is saved, if it is
    made: tuple[Path, ...] = ()  # folders, the deepest first

    @classmethod
    def plan(
        cls, folder: str, file: str | None, prompts: str | Sequence[str], count: int, embedding: str | None = None
    ) -> Destination:
        """Decide on the names and check that they can be written, before anything is computed.

        Raises InputError.
        """
        if embedding is not None:
            if not embedding.lower().endswith(SUFFIX):
                raise InputError(f"the embedding file must end in {SUFFIX}, not {embedding}")
            _refuse_existing(output_path(embedding), beside=False)
        prompt = prompts if isinstance(prompts, str) else prompts[0]
        if not isinstance(prompts, str) and len(prompts) > 1:
            prompt = " ".join(slug(one) for one in prompts)
        if file is None:
            destination = cls(output_path(folder), f"{get_time()}_{slug(prompt)}", count=count)
        else:
            path = output_path(file)
            if path.suffix.lower() != ".wav":
                raise InputError(f"the output file must end in .wav, not {file}")
            destination = cls(path.parent, path.stem, path, count)
            for index in range(count):
                _refuse_existing(destination.path(index))
        made = check_folder(destination.folder)
        if embedding is None:
            return dataclasses.replace(destination, made=made)
        path = output_path(embedding)
        try:
            made = (*check_folder(path.parent), *made)
        except InputError:
            remove_empty(made)
            raise
        return dataclasses.replace(destination, embedding=path, made=made)

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *_: object) -> None:
        remove_empty(self.made)

    def write_embedding(self, vector: np.ndarray) -> Path | None:
        """Write the condition, float32 (512,), where the plan says, whole or not at all. Raises InputError."""
        if self.embedding is not None:
            write_vector(self.embedding, vector)
        return self.embedding

    def path(self, index: int) -> Path:
        """The file of sound ``index``, from 0. Several sounds for one ``file`` are numbered from 1."""
        if self.file is None:
            return self.folder / f"{self.stem}_{index}.wav"
        return self.file if self.count == 1 else self.file.with_stem(f"{self.stem}-{index + 1}")

    def write(self, index: int, wave: np.ndarray, record: dict[str, Any] | None = None) -> Path:
        """Write sound ``index``, float32 (N,) at 16 kHz, with its ``record`` as JSON; returns the wav's path.

        Where a file of that name exists, a number is added to a name that we chose; for one that the user
        chose, and if the folder cannot be written, raises InputError.
        """
        path, tries = self.path(index), 1
        while True:
            try:
                _write(path, wave, record)
                return path
            except FileExistsError:
                if self.file is not None:
                    _refuse_existing(path)
                tries += 1
                path = self.path(index).with_stem(f"{self.path(index).stem}-{tries}")


def save_wave(waveform: Any, savepath: str | Path, name: str | Sequence[str] = "outwav") -> list[Path]:
    """Write waves at 16 kHz as ``savepath``/``name``_0.wav … and return the paths.

    Args:
        waveform: (B, 1, N), (B, N) or (N,), floats within ±1 or 8-, 16- or 32-bit integers. What is louder than full
            scale is made softer as a whole, with a warning; nothing is clipped.
        savepath: a folder, which is made if need be.
        name: a prompt, a path or a URL, of which only what suits a file name is kept; or one for each wave. Where a
            file exists, the new one gets a further number.

    Raises InputError, also if the folder cannot be written.
    """
    waves = _waves(waveform)
    names = [name] * len(waves) if isinstance(name, str | os.PathLike) else name
    names = list(names) if isinstance(names, list | tuple) else []
    if len(names) != len(waves) or not all(isinstance(one, str | os.PathLike) for one in names):
        raise InputError(f"there are {len(waves)} sounds: give save_wave one name, or a list of {len(waves)} names")
    if not isinstance(savepath, str | os.PathLike):
        raise InputError("savepath must be the name of a folder")
    folder = output_path(savepath)
    check_folder(folder)
    return [
        Destination(folder, slug(_without_ending(os.fsdecode(one))), count=len(waves)).write(index, wave)
        for index, (one, wave) in enumerate(zip(names, waves, strict=True))
    ]


def _without_ending(name: str) -> str:
    return name[:-4].rpartition("/")[2] if name.lower().endswith(".wav") else name


def _waves(waveform: Any) -> list[np.ndarray]:
    """Each wave as float32 (N,) within ±1. Raises InputError."""
    import numpy as np

    try:
        values = np.asarray(waveform)
    except Exception:  # a tensor on a GPU, a ragged list
        raise InputError("the waveform is not an array that can be read; give (sounds, 1, samples)") from None
    if values.ndim == 3 and values.shape[1] == 1:
        values = values[:, 0]
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size or values.shape[1] < MOST_CHANNELS < len(values):
        raise InputError(f"the waveform has the shape {np.shape(waveform)}; give (sounds, 1, samples)")
    values = as_float(values, "the waveform")
    if not np.isfinite(values).all():
        raise InputError("the waveform holds NaN or infinite numbers, which are no sound")
    waves = []
    for number, wave in enumerate(values):
        loudest = float(np.abs(wave).max())
        if loudest > 1:
            softer = 20 * np.log10(loudest)
            log.warning("sound %d goes %.1f dB beyond full scale; all of it is made softer", number, softer)
        waves.append(wave / np.float32(max(1, loudest)))
    return waves


def _write(path: Path, wave: np.ndarray, record: dict[str, Any] | None) -> None:
    """Wav and JSON, both or neither. Raises FileExistsError if one of the two exists."""
    from ..audio import write_wave

    if record is None:
        return write_wave(path, wave)
    if path.exists():  # write_wave sees to it for good; this only spares the JSON
        raise FileExistsError(path)
    text = json.dumps({"file": path.name, **record}, indent=2, ensure_ascii=False, default=lambda x: x.item())
    beside = path.with_suffix(".json")
    try:
        file = open(beside, "x", encoding="utf-8", errors="backslashreplace")
    except FileExistsError:
        raise
    except OSError as error:
        raise InputError(f"cannot write to the output folder {path.parent}: {error.strerror}") from None
    try:
        with file:
            file.write(text + "\n")
        write_wave(path, wave)
    except BaseException:  # Ctrl-C too
        beside.unlink()
        raise


def _refuse_existing(path: Path, beside: bool = True) -> None:
    """Raises InputError if ``path``, or the JSON ``beside`` it, exists or cannot."""
    for taken in (path, path.with_suffix(".json")) if beside else (path,):
        try:
            taken.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # a name too long, a folder that may not be looked into …
            raise InputError(f"cannot write {taken}: {error.strerror}") from None
        raise InputError(f"{taken} already exists; refusing to overwrite it")
