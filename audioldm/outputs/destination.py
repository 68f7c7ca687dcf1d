"""Results on disk: wavs under names of time and prompt, each with a JSON that holds all it takes to make it again.

Nothing is overwritten. The JSON leaves out two things: the data of a data URI (the hash of its picture is there), and
a URL's password.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from translator.files import output_path, sha256, slug, write_new

from .. import registry
from ..errors import InputError
from ..inputs.vector import SUFFIX, write_vector

if TYPE_CHECKING:
    import numpy as np

    from ..inputs.prompt import Prompt
    from ..inputs.sounds import Original
    from ..latent_diffusion.model import LatentDiffusion
    from ..options import GenerateOptions

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")  # whatever may change the bytes


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

    def write(self, index: int, wave: np.ndarray, record: Mapping[str, object] | None = None) -> Path:
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


def write_wave(path: str | Path, wave: np.ndarray) -> None:
    """Write float32 (N,) in [-1, 1] as 16-bit PCM WAV at 16 kHz, whole or not at all.

    A louder wave is scaled as a whole, never clipped. Raises InputError if the folder cannot be written, and
    FileExistsError if ``path`` exists: no result is ever overwritten.
    """
    import numpy as np
    import soundfile

    from ..audio import SAMPLE_RATE

    path, buffer = Path(path), io.BytesIO()
    if not path.parent.is_dir():
        raise InputError(f"cannot write to the folder {path.parent}: it does not exist")
    loudest = max(1.0, float(np.abs(wave).max(initial=0)))
    pcm = (wave / np.float32(loudest) * 32767).round().astype(np.int16)
    soundfile.write(buffer, pcm, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    try:
        write_new(path, buffer.getvalue())
    except FileExistsError:
        raise
    except OSError as error:
        raise InputError(f"cannot write to the folder {path.parent}: {error.strerror}") from None


def _write(path: Path, wave: np.ndarray, record: Mapping[str, object] | None) -> None:
    """Wav and JSON, both or neither. Raises FileExistsError if one of the two exists."""
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


def make_record(
    model: LatentDiffusion,
    prompts: Prompt | Sequence[Prompt],
    translator: str | None,
    options: GenerateOptions,
    *,
    weights: Sequence[float] | None = None,
    negative: Prompt | None = None,
    original: Original | None = None,
) -> dict[str, object]:
    """What all sounds of a run share: prompts, model, translator (each with its hash), options, versions.

    ``weights``: of the prompts; ``negative``: the prompt to avoid; ``original``: the sound that an edit begins with.
    """
    import torch

    from .. import __version__
    from ..generation import batch_size

    prompts = [prompts] if not isinstance(prompts, Sequence) else list(prompts)
    described = [prompt.record for prompt in prompts]
    if len(prompts) > 1 or weights is not None:
        weights = weights or [1.0] * len(prompts)
        mixed = [{**one, "weight": weight} for one, weight in zip(described, weights, strict=True)]
    else:
        mixed = None
    used = None
    if any(prompt.kind == "image" for prompt in (*prompts, negative) if prompt):
        entry = registry.find_translator(model, translator)
        facts = {key: value for key, value in entry.metadata.items() if key != "captions"}  # 2,000 of a memory
        used = {"name": entry.name, "sha256": sha256(entry.path), **facts}
    return {
        **(described[0] if len(prompts) == 1 else {"prompt": described[0]["prompt"], "kind": "mix"}),
        "prompts": mixed,  # where there is more than the one above
        "negative_prompt": negative.record if negative else None,
        "original": original.record if original else None,
        "model": {"name": model.folder.name, "sha256": model.sha256},
        "translator": used,
        "options": options.chosen,
        "device": str(model.device),
        "precision": model.precision,
        "batch": batch_size(model),
        "threads": torch.get_num_threads(),
        "versions": {
            "audioldm": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
