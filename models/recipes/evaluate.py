"""Does the starter mean what it sounds? An independent listener says so (``listener.py``); figures for the card.

    python -m models.recipes.evaluate parts      # kept-out recordings: as they are, through vocoder, VAE, Griffin-Lim
    python -m models.recipes.evaluate text       # generated from sentences, with the command's defaults
    python -m models.recipes.evaluate photos     # generated from photographs of known sources
    python -m models.recipes.evaluate variety    # how far apart are two seeds, and two recordings of one class?

The wavs lie in ``build/recipes/heard``, and what the listener heard in each of them in ``heard.txt`` there.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audioldm.audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, log_mel, mel_filters
from audioldm.conditioning import condition
from audioldm.generation import generate
from audioldm.inputs.prompt import read_prompt
from audioldm.inputs.sounds import read_wave
from audioldm.options import GenerateOptions
from audioldm.outputs.destination import write_wave
from audioldm.pipeline import build_model

from . import data, listener
from .clip import held_out_photos
from .training import WORK

HEARD = WORK / "heard"
SECONDS = 5
PARTS = ["real", "mel_griffin_lim", "vae_griffin_lim", "mel_vocoder", "vae_vocoder"]


def magnitudes(mel: Tensor, iterations: int = 50) -> Tensor:
    """Log-mel (B, T, 64) -> the least-squares STFT magnitudes (B, 513, T) that are not negative.

    By multiplicative updates (Lee and Seung, 2000): the pseudo-inverse has negative values, and cut off they cost
    Griffin-Lim a third of the sounds that the listener recognises.
    """
    filters, wanted = mel_filters(), mel.exp().transpose(1, 2)
    numerator = filters.T @ wanted
    estimate = numerator / (filters.sum(0)[:, None] + 1e-8) + 1e-6
    for _ in range(iterations):
        estimate = estimate * numerator / (filters.T @ (filters @ estimate) + 1e-9)
    return estimate


def griffin_lim(mel: Tensor, iterations: int = 32) -> Tensor:
    """Log-mel (B, T, 64) -> waves (B, 160 T) without a network: the phase is found by going to and fro.

    Griffin and Lim (1984) from random phases. Its faster variant makes noise tonal, and rain is no longer heard.
    """
    window, magnitude = torch.hann_window(N_FFT), magnitudes(torch.cat([mel, mel[:, -1:]], dim=1))
    random = torch.Generator().manual_seed(0)
    phase = 2 * torch.pi * torch.rand(magnitude.shape, generator=random)
    length = HOP_LENGTH * (magnitude.shape[2] - 1)
    for _ in range(iterations):
        wave = torch.istft(torch.polar(magnitude, phase), N_FFT, HOP_LENGTH, window=window, length=length)
        phase = torch.stft(wave, N_FFT, HOP_LENGTH, window=window, return_complex=True).angle()
    return torch.istft(torch.polar(magnitude, phase), N_FFT, HOP_LENGTH, window=window, length=length)


def keep(kind: str, sound: str, number: int, wave: np.ndarray) -> None:
    """Write ``wave`` where the listener's table looks for it, in the place of an earlier one."""
    HEARD.mkdir(parents=True, exist_ok=True)
    path = HEARD / f"{kind}.{sound}.{number:02}.wav"
    path.unlink(missing_ok=True)
    write_wave(path, wave[: SECONDS * SAMPLE_RATE])


def kept_out(per_sound: int) -> Iterator[tuple[str, int, data.Clip]]:
    """(sound, number, recording) of those that no decoder and no vocoder was trained on, both folds alike."""
    for sound in data.SOUNDS:
        clips = data.clips([sound], judge=True)
        for number, clip in enumerate(clips[:: max(1, len(clips) // per_sound)][:per_sound]):
            yield sound, number, clip


@torch.inference_mode()
def parts(model, per_sound: int, kinds: list[str]) -> None:
    """Kept-out recordings through parts of the model."""
    for sound, number, clip in kept_out(per_sound):
        wave = torch.from_numpy(data.load(clip))
        for kind in kinds:
            made = wave if kind == "real" else through(model, kind, wave)
            keep(kind, sound, number, made.cpu().numpy())


def through(model, kind: str, wave: Tensor) -> Tensor:
    """Wave (N,) -> log-mel, or that decoded from its latents -> wave (N,), as the words of ``kind`` say."""
    mel = log_mel(wave[None])[:, :, :512].to(model.device)
    if kind.startswith("vae"):
        mel = model.vae.decode(model.vae.encode(mel).latent_dist.mean).sample
    return model.vocoder(mel[:, 0])[0] if kind.endswith("vocoder") else griffin_lim(mel[:, 0].cpu())[0]


def sounds(model, kind: str, prompts: list[tuple[str, str]], options: GenerateOptions, translator: str | None) -> None:
    """Generate a sound for each (sound, prompt)."""
    numbers: dict[str, int] = {}
    for row, (sound, prompt) in enumerate(prompts):
        number = numbers[sound] = numbers.get(sound, -1) + 1
        vector = condition(model, read_prompt(prompt), translator)
        made = next(generate(model, vector, GenerateOptions(**{**vars(options), "seed": 1000 + number})))
        keep(kind, sound, number, made.wave)
        print(f"{row + 1} of {len(prompts)}", end="\r", flush=True)


def photographs(folder: Path | None = None) -> list[tuple[str, str]]:
    """(sound, file): of ``folder``/<sound>/, or those of ``photos.csv`` in ``shared/photos``."""
    if folder:
        return [(p.parent.name, str(p)) for p in sorted(folder.glob("*/*")) if p.parent.name in data.SOUNDS]
    return [(sound, str(data.SHARED / "photos" / name)) for name, sound in held_out_photos().items()]


def in_turn(prompts: list[tuple[str, str]], per_sound: int) -> list[tuple[str, str]]:
    """``per_sound`` (sound, prompt) of each sound that has any, its prompts in turn."""
    by_sound = {name: [prompt for sound, prompt in prompts if sound == name] for name in data.SOUNDS}
    return [(name, prompt) for name, own in by_sound.items() if own
            for prompt in itertools.islice(itertools.cycle(own), per_sound)]


def distance(waves: list[np.ndarray]) -> float:
    """Mean absolute log-mel distance between any two of ``waves``, each first brought to a peak of 0.5."""
    mels = [log_mel(torch.from_numpy(0.5 * w / max(np.abs(w).max(), 1e-4))[None]) for w in waves]
    length = min(m.shape[2] for m in mels)
    pairs = itertools.combinations([m[:, :, :length] for m in mels], 2)
    return float(np.mean([(a - b).abs().mean().item() for a, b in pairs]))


def variety(model, options: GenerateOptions, per_sound: int) -> None:
    """Print the distance between seeds of one prompt beside that between recordings of its class."""
    rows = []
    for sound, sentences in data.SOUNDS.items():
        sounds(model, "seeds", [(sound, sentences[0])] * per_sound, options, None)
        made = [read_wave(p) for p in sorted(HEARD.glob(f"seeds.{sound}.*.wav"))[:per_sound]]
        real = [data.load(clip)[: SECONDS * SAMPLE_RATE] for clip in data.clips([sound])[:8]]
        rows.append((distance(made), distance(real)))
        print(f"| {sound} | {rows[-1][0]:.2f} | {rows[-1][1]:.2f} |", flush=True)
    between, among = np.mean(rows, axis=0)
    print(f"two seeds {between:.2f} nepers, two recordings of one class {among:.2f}: {between / among:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["parts", "text", "photos", "variety"])
    parser.add_argument("--per-sound", type=int, default=6)
    parser.add_argument("--model", help="a model folder instead of the bundled one")
    parser.add_argument("--photos", type=Path, help="a folder of <sound>/<photograph> instead of photos.csv")
    parser.add_argument("--translator", help="of photographs, instead of the model's default")
    parser.add_argument("--candidates", type=int, help="instead of the model's default")
    parser.add_argument("--guidance", type=float, help="instead of the model's default")
    parser.add_argument("--steps", type=int, help="instead of the model's default")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="of the parts")
    options = parser.parse_args()
    model = build_model(options.model, precision=options.precision)
    given = {"n_candidates": options.candidates, "guidance_scale": options.guidance, "ddim_steps": options.steps}
    settings = GenerateOptions.build(given, model.defaults)
    if options.what == "variety":
        variety(model, settings, 3)
        return
    if options.what == "parts":
        parts(model, options.per_sound, options.only)
    elif options.what == "text":
        texts = [(sound, sentence) for sound, sentences in data.SOUNDS.items() for sentence in sentences]
        sounds(model, "text", in_turn(texts, options.per_sound), settings, None)
    else:
        sounds(model, "photos", in_turn(photographs(options.photos), options.per_sound), settings, options.translator)
    print(listener.table(HEARD, options.only if options.what == "parts" else [options.what]))


if __name__ == "__main__":
    main()
