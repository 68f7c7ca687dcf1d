"""Train the starter's first translators: CLIP's vectors (B, 512) -> CLAP's.

    python -m models.recipes.translators [wit audiocaps]

``audiocaps_*`` learns from AudioCaps captions through both text towers; ``wit_*`` from pictures through CLIP's image
tower and their captions through CLAP's text tower. The pictures are imagined (``clip.imagined``) from the photographs
whose subject makes no known sound: 855 of them show too little of the world, and among photographs as they are, a
class that is only imagined is told by that.
The caption of a class that makes a sound is a sentence about that sound (``sources.py``), of any other its names and
WordNet gloss, in the roles of WIT's image and reference description.
"""

from __future__ import annotations

import argparse
import datetime
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ClapModel, VisionTextDualEncoderModel

from audioldm.clap.spaces import clap_fingerprint, clip_fingerprint
from translator.model import Translator, save_translator

from . import data, sources, texts
from .clap import CLAP, Trainee, pooled
from .clip import CLIP, imagined, photo_features, usable_photos, vision_tower

BATCH, RATE, HIDDEN = 64, 1e-3, 512  # the thesis's settings
PAIRS = 150_000  # of imagined pictures and captions
EPOCHS = {"wit": 8, "audiocaps": 12}
NOISE = {"wit": 1.0, "audiocaps": 1.5}  # greatest length of the noise on the unit input
FOLDER = data.REPOSITORY / "models" / "translators" / "starter"


def captions() -> list[list[str]]:
    """What is said of each of the 1,000 classes: its sound, or what it is."""
    glosses = (texts.nouns()[photo.name[1:9]][2] for photo in texts.photos())
    rows = zip(sources.class_sentences(), texts.class_names(), texts.class_synonyms(), glosses, strict=True)
    return [said or [name, synonyms, f"{synonyms.split(', ')[0]}: {' '.join(gloss.split()[:12])}"]
            for said, name, synonyms, gloss in rows]


def pictures() -> tuple[Tensor, Tensor]:
    """Features (N, 1280) of imagined pictures, and their classes.

    Classes that make a sound are drawn more often than the silent ones, and a sound that many classes make (dogs)
    more often than a rare one, but with the root of their number only.
    """
    tower, weight, _ = vision_tower()
    said = [tuple(lines) if lines else None for lines in sources.class_sentences()]
    times = Counter(said)
    classes = torch.multinomial(torch.tensor([3 * times[s] ** -0.5 if s else 1 / 3 for s in said]), PAIRS, True)
    return imagined(weight, photo_features(tower), usable_photos(), classes), classes


def train(clip: Tensor, clap: Tensor, groups: Tensor, epochs: int, noise: float) -> tuple[Translator, float]:
    """A translator with the cosine loss, as it was best on the ``groups`` kept apart (0, 10, 20 …); that cosine.

    Gaussian noise of a random length up to ``noise`` on the unit input makes it lead what lies beside the words,
    as pictures do, back to where words are (C3, arXiv 2401.08567).
    """
    clip, apart = F.normalize(clip, dim=1), groups % 10 == 0
    held_clip, kept, clip, clap = clip[apart], clap[apart], clip[~apart], clap[~apart]
    network, best, weights = Translator(HIDDEN), -1.0, {}
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        order = torch.randperm(len(clip))
        for rows in order.split(BATCH):
            length = noise * torch.rand(len(rows), 1) / clip.shape[1] ** 0.5
            noisy = clip[rows] + length * torch.randn(len(rows), clip.shape[1])
            loss = (1 - F.cosine_similarity(network(noisy), clap[rows])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            held = F.cosine_similarity(network(held_clip), kept).mean().item()
        if held > best:
            best, weights = held, {name: tensor.clone() for name, tensor in network.state_dict().items()}
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, held-out cosine {held:.4f}, best {best:.4f}", flush=True)
    network.load_state_dict(weights)
    return network.eval(), best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["wit", "audiocaps"])
    options = parser.parse_args()
    torch.manual_seed(0)
    clip = VisionTextDualEncoderModel.from_pretrained(CLIP).float().eval()
    clap = ClapModel.from_pretrained(CLAP).float().eval()
    spaces = {"clip_space": clip_fingerprint(CLIP / "model.safetensors"),
              "clap_space": clap_fingerprint(CLAP / "model.safetensors")}
    read = Trainee(clap).read

    pairs = {}
    with torch.no_grad():
        if "wit" in options.data:
            features, classes = pictures()
            said = [read(pooled(clap, lines)) for lines in captions()]
            told = torch.stack([said[c][int(torch.randint(len(said[c]), ()))] for c in classes.tolist()])
            sounding = torch.tensor([lines is not None for lines in sources.class_sentences()])
            groups = torch.where(sounding[classes], 1, classes)  # whole classes are kept apart, but no sound
            pairs["wit"] = clip.visual_projection(features), told, groups
        if "audiocaps" in options.data:
            lines = texts.captions("train")
            vectors = clip.text_projection(pooled(clip, lines)), read(pooled(clap, lines))
            pairs["audiocaps"] = *vectors, torch.arange(len(lines))
    for source, (inputs, targets, groups) in pairs.items():
        name = f"{source}_cos_{HIDDEN}"
        network, held = train(inputs, targets, groups, EPOCHS[source], NOISE[source])
        facts = {"name": name, "data": source, "loss": "cos", "pairs": str(len(inputs)),
                 "epochs": str(EPOCHS[source]), "noise": str(NOISE[source]), "held_out_cosine": f"{held:.4f}",
                 "date": datetime.date.today().isoformat()}
        save_translator(FOLDER / f"{name}.safetensors", network, spaces | facts)


if __name__ == "__main__":
    main()
