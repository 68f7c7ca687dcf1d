"""From a Job to what the page shows of its sounds: files in a folder of the visitor's, and what the model saw."""

from __future__ import annotations

import re
import time
import traceback
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import conditioning
from ..commands import common
from ..errors import InputError
from ..inputs.web import download
from ..outputs.destination import Destination
from ..registry import did_you_mean
from .engine import POLL_S
from .request import addresses, each_picture, read_job

if TYPE_CHECKING:
    from .engine import Engine, Task

NEAREST = 5  # known sounds shown for a picture
QUIET, LOUD = -11.0, 2.0  # natural logarithms of magnitude: the darkest and the brightest of the picture
BAND, COLUMN = 3, 2  # pixels of the picture for each mel band, and for each frame
# Anchors of a colour scale from black over red to pale yellow, even in lightness as seen.
COLOURS = np.array([[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]])


@dataclass(frozen=True)
class Result:
    """One sound: its files, the seed that makes it alone, and what the page says about it."""

    wav: Path
    json: Path
    picture: Path  # of its log-mel spectrogram
    vector: Path  # the condition as .npy
    title: str
    seed: int
    seconds: float
    nearest: tuple[tuple[str, float], ...]  # known sounds with their cosine, where a picture was a prompt
    notes: tuple[str, ...]
    packed: Path | None = None  # the ZIP file with all sounds of the request, if there are several


def result_files(results: list[Result]) -> list[Path]:
    """The wav and the JSON of each."""
    return [path for result in results for path in (result.wav, result.json)]


def make_results(
    engine: Engine, task: Task, values: Mapping[str, Any], folder: Path
) -> tuple[list[Result], list[InputError]]:
    """Make the sounds that the fields ask for, into ``folder``; and why some of several pictures are not finished.

    Each sound is in ``task.made`` as soon as it is finished, and stays there however the task ends. Addresses are
    fetched before the turn with the model: a slow server holds up nobody else. Between two pictures, others have their
    turn. Raises InputError, and Cancelled.
    """
    parts = each_picture(values)
    fetched = _fetched(engine, task, addresses(values))
    failed: list[InputError] = []
    for number, part in enumerate(parts, 1):
        task.part = f"{number} of {len(parts)}: " if len(parts) > 1 else ""
        own = folder / f"{number:02d}" if len(parts) > 1 else folder
        own.mkdir(exist_ok=True)
        try:
            with task.turn():
                _make(engine, task, part, fetched, own)
        except InputError as error:
            if len(parts) == 1:
                raise
            failed.append(error)
        except (MemoryError, OSError, RuntimeError) as error:
            if len(parts) == 1:
                raise
            traceback.print_exc()
            failed.append(InputError(f"picture {number} is not finished: {type(error).__name__}"))
    if not task.made:
        raise failed[0]
    return _packed(task.made, folder), failed


def _fetched(engine: Engine, task: Task, named: set[str]) -> dict[str, bytes]:
    """What lies at the addresses ``named``, by address; at most ``AT_ONCE`` requests fetch together."""
    if not named:
        return {}
    while not engine.fetching.acquire(timeout=POLL_S):
        task.check()
    try:
        task.check()
        task.text = "Fetching the picture"
        return {address: download(address) for address in named}
    finally:
        engine.fetching.release()


def _packed(results: list[Result], folder: Path) -> list[Result]:
    """Several sounds, with a ZIP file of them all."""
    if len(results) == 1:
        return results
    path = folder / "sounds.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in result_files(results):
            archive.write(file, file.relative_to(folder))
    return [replace(result, packed=path) for result in results]


def _make(
    engine: Engine, task: Task, values: Mapping[str, Any], fetched: Mapping[str, bytes], folder: Path
) -> None:
    began, notes = time.perf_counter(), []
    task.text = "Reading the prompts"
    job = read_job(values, fetched, notes.append)
    task.check()
    task.text = "Loading the model"
    model = engine.load(values.get("model_name") or None)
    if job.translator and job.translator not in (fitting := engine.translators(values.get("model_name") or None)):
        raise InputError(f'unknown translator "{job.translator}"{did_you_mean(job.translator, fitting)}')
    options = job.check(model)
    task.text = "Reading the prompts"
    conditions = common.condition(model, job, notes.append)
    pictures = [prompt for prompt in job.prompts if prompt.kind == "image"]
    near: list[tuple[str, float]] = []
    if pictures:
        seen = conditioning.encode_prompt(model, pictures[0], job.translator, lambda note: None)
        near = [(name.replace("_", " "), cosine) for name, cosine in conditioning.nearest(model, seen, NEAREST)]
    names = [prompt.source.replace("/", " ") if prompt.kind == "text" else prompt.source for prompt in job.prompts]
    destination = Destination.plan(str(folder), None, names, options.batchsize, str(folder / "prompt.npy"))
    vector = destination.write_embedding(conditions[0][0].cpu().numpy())
    assert vector is not None
    task.text = "Making the sound" if options.batchsize == 1 else "Making the sounds"
    task.begin(common.steps(model, options))
    for sound, record in common.make(model, job, options, conditions, began, task.step, notes.append):
        wav = destination.write(sound.item, sound.wave, record)
        title = " + ".join(_short(prompt.shown) for prompt in job.prompts)
        task.made.append(Result(
            wav, wav.with_suffix(".json"), draw(sound.wave, wav.with_suffix(".png")), vector, title, sound.noise_seed,
            len(sound.wave) / 16_000, tuple(near), tuple(dict.fromkeys(notes)),
        ))  # fmt: skip


def _short(text: str) -> str:
    text = " ".join(text.split())
    text = re.sub(r"^https?://[^/]*/(.*/)?(?=[^/])", "", text)
    return text if len(text) <= 40 else text[:39] + "…"


def draw(wave: np.ndarray, path: Path) -> Path:
    """Write the log-mel spectrogram of float32 (N,) at 16 kHz as a PNG, low notes at the bottom."""
    import torch
    from PIL import Image

    from ..audio import N_FFT, log_mel

    padded = np.pad(wave, (0, max(0, N_FFT - len(wave))))
    mel = log_mel(torch.from_numpy(padded)[None])[0, 0].numpy().T[::-1]
    shade = np.clip((mel - QUIET) / (LOUD - QUIET), 0, 1) * (len(COLOURS) - 1)
    rgb = np.stack([np.interp(shade, range(len(COLOURS)), COLOURS[:, c]) for c in range(3)], axis=-1)
    image = Image.fromarray(rgb.round().astype(np.uint8))
    width = min(2000, image.width * COLUMN)
    image.resize((width, image.height * BAND), Image.Resampling.BILINEAR).save(path)
    return path
