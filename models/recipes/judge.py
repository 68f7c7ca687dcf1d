"""A judge of sounds: which of the ten environmental classes is heard? Trained on folds that the generator never saw.

    python -m models.recipes.judge                 # its accuracy on real recordings
    python -m models.recipes.judge output/*.wav    # what it hears in files

A support vector machine over statistics of the log-mel spectrogram: no network, so nothing is shared with CLAP.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from audioldm.audio import log_mel, read_wave

from . import data

BANDS, COARSE = 32, 8  # of frequency, for levels and for rhythm
RHYTHM_EDGES = (0, 2, 4, 8, 16, 32, 64, 128)  # bins of 0.195 Hz: modulation up to 25 Hz


def statistics(wave: np.ndarray) -> np.ndarray:
    """Float32 (N,) at 16 kHz, loudness ignored -> (276,): level, spread, steps and rhythm of the mel bands."""
    wave = wave - wave.mean()
    wave = 0.5 * wave / max(np.abs(wave).max(), 1e-4)
    mel = log_mel(torch.from_numpy(wave.astype(np.float32))[None])[0, 0].numpy().T
    mel = mel.reshape(BANDS, 2, -1).mean(axis=1)
    steps = np.diff(mel, axis=1)
    levels = [mel.mean(1), mel.std(1), *np.percentile(mel, (10, 90), axis=1), steps.std(1), np.abs(steps).max(1)]
    coarse = mel.reshape(COARSE, BANDS // COARSE, -1).mean(axis=1)
    together = np.nan_to_num(np.corrcoef(coarse))[np.triu_indices(COARSE, 1)]
    centred = (coarse - coarse.mean(1, keepdims=True))[:, :512]
    centred = np.pad(centred, ((0, 0), (0, 512 - centred.shape[1])))
    spectrum = np.abs(np.fft.rfft(centred, axis=1))[:, 1:129]
    rhythm = [np.log(1e-3 + spectrum[:, a:b].mean(1)) for a, b in zip(RHYTHM_EDGES, RHYTHM_EDGES[1:], strict=False)]
    return np.concatenate([*levels, together, *rhythm]).astype(np.float32)


def recordings(folds: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
    """Statistics (N, 276) and labels of the real recordings in ``folds`` of the ten classes."""
    clips = [c for c in data.clips(data.TEN) + data.clips(data.TEN, judge=True) if c.fold in folds]
    return np.stack([statistics(data.load(c, 5.0)) for c in clips]), [c.label for c in clips]


def train(folds: tuple[str, ...] = data.JUDGE_FOLDS) -> Pipeline:
    """The judge, trained on real recordings of ``folds``."""
    judge = make_pipeline(StandardScaler(), SVC(C=10, gamma=0.001))
    return judge.fit(*recordings(folds))


def confusion(truth: list[str], heard: list[str]) -> str:
    """A table in Markdown: a row per true sound, a column per answer."""
    lines = ["| | " + " | ".join(data.TEN) + " | right |", "|---" * (len(data.TEN) + 2) + "|"]
    for name in [n for n in data.TEN if n in truth]:
        answers = [h for t, h in zip(truth, heard, strict=True) if t == name]
        cells = [str(answers.count(other) or "·") for other in data.TEN]
        lines.append(f"| **{name}** | " + " | ".join(cells) + f" | {answers.count(name) / len(answers):.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    if options.files:
        heard = train().predict(np.stack([statistics(read_wave(f, 5.0)) for f in options.files]))
        for file, label in zip(options.files, heard, strict=True):
            print(f"{label}\t{file}")
        return
    for taught, asked in ((("4",), ("5",)), (("5",), ("4",)), (data.JUDGE_FOLDS, ("1", "2", "3"))):
        features, labels = recordings(asked)
        print(f"trained on folds {taught}, right on {asked}: {train(taught).score(features, labels):.1%}")


if __name__ == "__main__":
    main()
