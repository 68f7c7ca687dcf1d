"""Results on disk: wavs under names of time and prompt, each with its JSON. Nothing is overwritten."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..inputs.prompt import slug
from ..inputs.vector import SUFFIX, write_vector

if TYPE_CHECKING:
    import numpy as np


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
                raise InputError(f"the file of an embedding must end in {SUFFIX}, and {embedding} does not")
            _refuse_existing(Path(os.path.expanduser(embedding)), beside=False)
        prompt = prompts if isinstance(prompts, str) else prompts[0]
        if not isinstance(prompts, str) and len(prompts) > 1:
            prompt = " ".join(slug(one) for one in prompts)
        if file is None:
            destination = cls(Path(os.path.expanduser(folder)), f"{get_time()}_{slug(prompt)}", count=count)
        else:
            path = Path(os.path.expanduser(file))
            if path.suffix.lower() != ".wav":
                raise InputError(f"the output file must end in .wav, and {file} does not")
            destination = cls(path.parent, path.stem, path, count)
            for index in range(count):
                _refuse_existing(destination.path(index))
        made = check_folder(destination.folder)
        if embedding is None:
            return dataclasses.replace(destination, made=made)
        path = Path(os.path.expanduser(embedding))
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


def save_wave(waveform: np.ndarray, savepath: str | Path, name: str = "outwav") -> list[Path]:
    """Write float32 (B, 1, N) at 16 kHz as ``savepath``/``name``_0.wav … and return the paths.

    Of ``name`` (a prompt, a path or a URL will do) only what suits a file name is kept; where a file exists,
    the new one gets a further number. Raises InputError if the folder cannot be written.
    """
    folder = Path(os.path.expanduser(savepath))
    check_folder(folder)
    destination = Destination(folder, slug(str(name)), count=len(waveform))
    return [destination.write(index, wave) for index, wave in enumerate(waveform[:, 0])]


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
        raise InputError(f"{taken} exists already, and nothing is overwritten")
