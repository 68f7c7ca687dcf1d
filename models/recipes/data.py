"""The sounds that the starter learns: labels, captions, waves and splits.

Every recipe asks here what to train on, so that what is kept apart is kept apart everywhere: folds 4 and 5 of the
ten environmental classes, which no network hears, and six melodies of each of the ten instruments, which decoder and
vocoder do not hear.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audioldm.audio import SAMPLE_RATE
from audioldm.inputs.sounds import read_wave

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"
STARTER = REPOSITORY / "models" / "starter"
SECONDS = 5.12  # of every training clip: 512 frames, a whole number of latents and UNet strides
JUDGE_FOLDS = ("4", "5")
JUDGE_MELODIES = ("08", "09", "10", "11", "12", "13")  # of the ten known instruments

# name of the sound -> the prompt that stands for it, and other ways to say it
SOUNDS: dict[str, list[str]] = {
    "dog": ["a dog barking", "dog", "a barking dog", "bark of a dog", "a puppy barks", "dogs bark and growl"],
    "rooster": ["a rooster crowing", "rooster", "a cock crows", "cock-a-doodle-doo", "a cockerel crowing at dawn"],
    "rain": ["rain falling", "rain", "heavy rain pouring down", "raindrops on a roof", "a rain shower"],
    "sea_waves": ["sea waves", "waves crashing on the beach", "ocean surf", "the sea at the shore",
                  "waves roll onto the coast"],
    "crying_baby": ["a baby crying", "crying baby", "an infant cries", "a newborn wailing", "a crying child"],
    "clock_tick": ["a clock ticking", "clock tick", "tick tock of a clock", "a watch ticks", "a ticking timer"],
    "sneezing": ["a person sneezing", "sneeze", "someone sneezes", "a man sneezes loudly", "achoo, a sneeze"],
    "helicopter": ["a helicopter flying", "helicopter", "helicopter rotor blades", "a chopper hovering overhead"],
    "chainsaw": ["a chainsaw running", "chainsaw", "a chain saw cutting wood", "a power saw revving"],
    "crackling_fire": ["a crackling fire", "fire", "a campfire burning", "flames crackle in a fireplace",
                       "burning wood crackles"],
    "piano": ["a piano playing", "piano", "a melody on the piano", "grand piano music"],
    "violin": ["a violin playing", "violin", "a melody on the violin", "a fiddle plays"],
    "acoustic_guitar": ["an acoustic guitar playing", "guitar", "a guitar is strummed", "a melody on the guitar"],
    "flute": ["a flute playing", "flute", "a melody on the flute", "a flutist plays"],
    "trumpet": ["a trumpet playing", "trumpet", "a melody on the trumpet", "a brass fanfare on the cornet"],
    "drums": ["drums playing", "drum", "a drum kit beat", "a drummer plays drums"],
    "church_organ": ["a church organ playing", "organ", "pipe organ music", "a melody on the organ"],
    "accordion": ["an accordion playing", "accordion", "a melody on the accordion", "a squeezebox plays"],
    "harp": ["a harp playing", "harp", "a melody on the harp", "plucked harp strings"],
    "saxophone": ["a saxophone playing", "saxophone", "a melody on the sax", "a saxophonist plays"],
}
TEN = list(SOUNDS)[:10]  # the environmental classes, 40 clips each


@dataclass(frozen=True)
class Clip:
    """One recording: ``path`` under the sounds folder, its label, fold ('0' for rendered or game sounds)."""

    path: Path
    label: str
    fold: str


def clips(labels: list[str] | None = None, *, judge: bool = False) -> list[Clip]:
    """Recordings of ``labels`` (None: every label); the judge's folds of the ten classes, or all the others."""
    root = SHARED / "sounds"
    with open(root / "index.csv", newline="", encoding="utf-8") as file:
        rows = [Clip(root / row["file"], row["label"], row["fold"]) for row in csv.DictReader(file)]
    return [c for c in rows if (labels is None or c.label in labels) and (_kept_apart(c) == judge)]


def generated_from() -> list[Clip]:
    """The known sounds' recordings that the UNet learns, the instruments' kept-out melodies among them."""
    names = list(SOUNDS)
    return clips(names) + [c for c in clips(names, judge=True) if c.label not in TEN]


def _kept_apart(clip: Clip) -> bool:
    if clip.label in TEN:
        return clip.fold in JUDGE_FOLDS
    return clip.label in SOUNDS and clip.path.stem[-2:] in JUDGE_MELODIES


def load(clip: Clip, seconds: float = SECONDS) -> np.ndarray:
    """The clip as float32 (seconds * 16000,), peak 0.5 as AudioLDM's front end, repeated if it is shorter.

    A short clip is repeated after a pause, rather than followed by mostly nothing; the last tenth of a second of
    a whole one is taken from its beginning, so that no network learns that every sound ends at 5.0 s.
    """
    wave = read_wave(clip.path, seconds)
    wave = wave - wave.mean()
    wave = 0.5 * wave / max(np.abs(wave).max(), 1e-4)
    length = round(seconds * SAMPLE_RATE)
    if len(wave) < 0.6 * length:
        wave = np.tile(np.pad(wave, (0, SAMPLE_RATE // 4)), 1 + length // len(wave))
    missing = max(0, length - len(wave))
    mode = "wrap" if missing < SAMPLE_RATE // 4 else "constant"
    return np.pad(wave, (0, missing), mode=mode)[:length].astype(np.float32)
