"""Draw the README's pictures: each example photograph beside the mel spectrogram of its sound.

    python -m models.recipes.gallery

Generates ``examples/<name>.wav`` and ``.json`` with the command, then ``examples/<name>.png``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from PIL import Image

from audioldm.audio import FRAMES_PER_SECOND, log_mel
from audioldm.inputs.sounds import read_wave

from .data import REPOSITORY

matplotlib.use("Agg")
EXAMPLES = REPOSITORY / "examples"


def draw(name: str) -> None:
    """``examples/<name>.png``: photograph left, log-mel of the wave right."""
    wave = read_wave(EXAMPLES / f"{name}.wav")
    mel = log_mel(torch.from_numpy(wave)[None])[0, 0].numpy().T
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.4), width_ratios=[1, 2.2], layout="constrained")
    left.imshow(Image.open(EXAMPLES / f"{name}.jpg"))
    left.axis("off")
    extent = (0, mel.shape[1] / FRAMES_PER_SECOND, 0, mel.shape[0])
    right.imshow(mel, origin="lower", aspect="auto", extent=extent, vmin=-11, vmax=2, cmap="magma")
    right.set(xlabel="seconds", ylabel="mel band")
    figure.savefig(EXAMPLES / f"{name}.png", dpi=90)
    plt.close(figure)


def main() -> None:
    os.chdir(REPOSITORY)  # names in the records are relative
    for photo in sorted(Path("examples").glob("*.jpg")):
        for suffix in (".wav", ".json"):
            photo.with_suffix(suffix).unlink(missing_ok=True)
        subprocess.run(["bin/audioldm", "-t", str(photo), "-o", str(photo.with_suffix(".wav"))], check=True)
        draw(photo.stem)


if __name__ == "__main__":
    main()
