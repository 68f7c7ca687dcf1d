"""Train the starter's first translators: CLIP's vectors (B, 512) -> CLAP's.

    python -m models.recipes.translators [wit audiocaps]

``audiocaps_*`` learns from AudioCaps captions through both text towers; ``wit_*`` from pictures through CLIP's image
tower and their captions through CLAP's text tower. The pictures are the photographs whose subject makes no known
sound, and features imagined for every class (``clip.imagined``), since 855 photographs show too little of the world;
captions are class names, synonyms and WordNet glosses, in the roles of WIT's image and reference description.
"""

from __future__ import annotations

import argparse
import datetime

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ClapModel, VisionTextDualEncoderModel

from audioldm.clap.spaces import clap_fingerprint, clip_fingerprint
from translator.model import Translator, save_translator

from . import data, texts
from .clap import CLAP, Trainee, pooled
from .clip import CLIP, VIEWS, imagined, photo_features, usable_photos, vision_tower

BATCH, RATE, HIDDEN = 64, 1e-3, 512  # the thesis's settings
IMAGINED = 6  # features of each class
FOLDER = data.REPOSITORY / "models" / "translators" / "starter"


def descriptions() -> list[list[str]]:
    """Captions of each of the 1,000 classes."""
    glosses = (texts.nouns()[photo.name[1:9]][2] for photo in texts.photos())
    rows = zip(texts.class_names(), texts.class_synonyms(), glosses, strict=True)
    return [[name, synonyms, f"{synonyms.split(', ')[0]}: {' '.join(gloss.split()[:12])}"]
            for name, synonyms, gloss in rows]


def pictures() -> tuple[Tensor, Tensor]:
    """Features (N, 1280) and their classes: photographs that may be learnt from, all views, and imagined ones."""
    tower, weight, _ = vision_tower()
    views = photo_features(tower)
    rows = usable_photos()
    features, classes = imagined(weight, views, rows, IMAGINED)
    return torch.cat([views[rows].flatten(0, 1), features]), torch.cat([rows.repeat_interleave(VIEWS), classes])


def train(clip: Tensor, clap: Tensor, groups: Tensor, epochs: int, noise: float) -> tuple[Translator, float]:
    """A translator with the cosine loss, as it was best on the tenth of the ``groups`` kept apart; that cosine.

    Gaussian noise of a random length up to ``noise`` on the unit input makes it lead what lies beside the words,
    as pictures do, back to where words are (C3, arXiv 2401.08567).
    """
    clip, apart = F.normalize(clip, dim=1), groups % 10 == 0
    held_clip, kept, clip, clap = clip[apart], clap[apart], clip[~apart], clap[~apart]
    network, best, weights = Translator(HIDDEN), -1.0, {}
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    for epoch in range(epochs):
        order = torch.randperm(len(clip))
        for rows in order.split(BATCH):
            length = noise * torch.rand(len(rows), 1) / clip.shape[1] ** 0.5
            noisy = clip[rows] + length * torch.randn(len(rows), clip.shape[1])
            loss = (1 - F.cosine_similarity(network(noisy), clap[rows])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
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
    parser.add_argument("--epochs", type=int, default=50, help="the thesis has 50")
    parser.add_argument("--noise", type=float, default=1.2, help="greatest length of the noise on the unit input")
    options = parser.parse_args()
    torch.manual_seed(0)
    clip = VisionTextDualEncoderModel.from_pretrained(CLIP).float().eval()
    clap = ClapModel.from_pretrained(CLAP).float().eval()
    spaces = {"clip_space": clip_fingerprint(CLIP / "model.safetensors"),
              "clap_space": clap_fingerprint(CLAP / "model.safetensors")}
    read = Trainee(clap).read

    captions = texts.captions("train") if "audiocaps" in options.data else []
    features, classes = pictures()
    pairs = {}
    with torch.no_grad():
        if "wit" in options.data:
            said = torch.stack([read(pooled(clap, lines)) for lines in zip(*descriptions(), strict=True)])
            told = said[torch.randint(len(said), (len(classes),)), classes]
            pairs["wit"] = clip.visual_projection(features), told, classes
        if captions:
            vectors = clip.text_projection(pooled(clip, captions)), read(pooled(clap, captions))
            pairs["audiocaps"] = *vectors, torch.arange(len(captions))
    for source, (inputs, targets, groups) in pairs.items():
        name = f"{source}_cos_{HIDDEN}"
        network, held = train(inputs, targets, groups, options.epochs, options.noise)
        facts = {"name": name, "data": source, "loss": "cos", "pairs": str(len(inputs)),
                 "epochs": str(options.epochs), "noise": str(options.noise), "held_out_cosine": f"{held:.4f}",
                 "date": datetime.date.today().isoformat()}
        save_translator(FOLDER / f"{name}.safetensors", network, spaces | facts)


if __name__ == "__main__":
    main()
