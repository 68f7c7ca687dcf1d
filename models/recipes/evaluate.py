"""Does the starter mean what it sounds? Figures for the card.

    python -m models.recipes.evaluate sounds --per-sound 8   # does the judge hear what was asked for?
    python -m models.recipes.evaluate parts --per-sound 8    # what do VAE and vocoder leave of real recordings?

``sounds`` generates from text and from photographs and lets the judge name them; no sound and no photograph that it
uses was trained on. Translators are judged by ``audioldm-translator evaluate``.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from audioldm.audio import SAMPLE_RATE, log_mel, write_wave
from audioldm.conditioning import condition
from audioldm.generation import generate
from audioldm.inputs.prompt import read_prompt
from audioldm.options import GenerateOptions
from audioldm.pipeline import build_model

from . import data
from .clip import held_out_photos
from .judge import confusion, recordings, statistics, train
from .training import WORK


def photographs(folder: Path | None = None) -> list[tuple[Path, str]]:
    """(file, sound): of ``folder``/<sound>/, or those of ``photos.csv`` in ``shared/photos``."""
    if folder:
        return [(p, p.parent.name) for p in sorted(folder.glob("*/*")) if p.parent.name in data.SOUNDS]
    return [(data.SHARED / "photos" / name, sound) for name, sound in held_out_photos().items()]


def balanced(rights: Iterable[tuple[str, bool]]) -> tuple[float, dict[str, float]]:
    """Mean over sounds of the share that is right, and that share for each."""
    by_sound: dict[str, list[bool]] = {}
    for sound, right in rights:
        by_sound.setdefault(sound, []).append(right)
    shares = {sound: float(np.mean(answers)) for sound, answers in by_sound.items()}
    return float(np.mean(list(shares.values()))), shares


def sounds(
    model, prompts: list[tuple[str, str]], options: GenerateOptions, folder: Path, title: str,
    translator: str | None = None,
) -> None:
    """Generate one sound for each (prompt, sound), keep it in ``folder``, print what the judge hears."""
    folder.mkdir(parents=True, exist_ok=True)
    judge, heard, truth = train(), [], []
    for number, (prompt, sound) in enumerate(prompts):
        vector = condition(model, read_prompt(prompt), translator)
        made = next(generate(model, vector, GenerateOptions(**{**vars(options), "seed": 1000 + number})))
        path = folder / f"{sound}_{number:03}.wav"
        path.unlink(missing_ok=True)
        write_wave(path, made.wave)
        heard.append(str(judge.predict(statistics(made.wave)[None])[0]))
        truth.append(sound)
        print(f"{number + 1} of {len(prompts)}: {sound} heard as {heard[-1]}", end="\r", flush=True)
    share, _ = balanced((t, t == h) for t, h in zip(truth, heard, strict=True))
    print(f"\n{title}: {share:.1%} right of {len(truth)} sounds (mean over sounds; chance 10 %)\n")
    print(confusion(truth, heard))


@torch.inference_mode()
def parts(model, per_sound: int) -> None:
    """Print how many of the first recordings of each sound the judge still names after vocoder, or VAE and vocoder."""
    by_sound = {s: [c for c in data.clips([s]) if c.fold in ("1", "2", "3")][:per_sound] for s in data.TEN}
    clips, judge = [clip for chosen in by_sound.values() for clip in chosen], train()
    for through in ("nothing", "the vocoder", "VAE and vocoder"):
        heard = []
        for clip in clips:
            wave = data.load(clip)
            if through != "nothing":
                mel = log_mel(torch.from_numpy(wave)[None])[:, :, :512].to(model.device)
                if through == "VAE and vocoder":
                    mel = model.vae.decode(model.vae.encode(mel).latent_dist.mean).sample
                wave = model.vocoder(mel[:, 0])[0].cpu().numpy()
            heard.append(str(judge.predict(statistics(wave[: 5 * SAMPLE_RATE])[None])[0]))
        right = np.mean([h == c.label for h, c in zip(heard, clips, strict=True)])
        print(f"{len(clips)} real recordings through {through}: {right:.1%} right", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sounds", "parts"])
    parser.add_argument("--per-sound", type=int, default=8)
    parser.add_argument("--photos", type=Path, help="a folder of <sound>/<photograph> instead of photos.csv")
    parser.add_argument("--translator", help="of photographs, instead of the model's default")
    parser.add_argument("--candidates", type=int, help="instead of the model's default")
    parser.add_argument("--guidance", type=float, help="instead of the model's default")
    parser.add_argument("--only", choices=["text", "photos"])
    options = parser.parse_args()
    model = build_model()
    if options.what == "parts":
        parts(model, options.per_sound)
        return
    given = {"n_candidates": options.candidates, "guidance_scale": options.guidance}
    settings = GenerateOptions.build(given, model.defaults)
    if options.only != "photos":
        # every sound by its sentences in turn
        texts = [(p, s) for s in data.TEN for p in itertools.islice(itertools.cycle(data.SOUNDS[s]), options.per_sound)]
        sounds(model, texts, settings, WORK / "heard" / "text", "generated from text")
    if options.only != "text":
        pictures = [(str(p), s) for p, s in photographs(options.photos) if s in data.TEN]
        by_sound = {s: [p for p, sound in pictures if sound == s] for s in data.TEN}
        chosen = [(p, s) for s, paths in by_sound.items() if paths
                  for p in itertools.islice(itertools.cycle(paths), options.per_sound)]
        sounds(model, chosen, settings, WORK / "heard" / "photos", "generated from photographs", options.translator)
    features, labels = recordings(("1", "2", "3"))
    print(f"\nthe judge on real recordings it never saw: {train().score(features, labels):.1%}")


if __name__ == "__main__":
    main()
