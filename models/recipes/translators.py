"""Train the starter's first translators: CLIP's vectors (B, 512) -> CLAP's.

    python -m models.recipes.translators

``audiocaps_*`` learns from AudioCaps captions through both text towers; ``wit_*`` from pictures through CLIP's image
tower and their captions through CLAP's text tower. The pictures are the photographs whose subject makes no known
sound; their captions are class names and WordNet glosses, in the roles of WIT's image and reference description.
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
from .clip import CLIP, held_out_photos, photo_features, vision_tower

EPOCHS, BATCH, RATE, HIDDEN = 50, 64, 1e-3, 512  # the thesis's settings
FOLDER = data.REPOSITORY / "models" / "translators" / "starter"


def photo_captions() -> list[tuple[int, str]]:
    """(row of the photograph, caption), several each, of the photographs that may be learnt from."""
    pairs = []
    for row, (photo, name) in enumerate(zip(texts.photos(), texts.class_names(), strict=True)):
        if photo.name not in held_out_photos():
            words = name.split(", ")
            gloss = texts.nouns()[photo.name[1:9]][2]
            pairs += [(row, name), (row, f"a {words[0]}"), (row, f"{words[0]}: {' '.join(gloss.split()[:12])}")]
    return pairs


def train(clip: Tensor, clap: Tensor) -> tuple[Translator, float]:
    """A translator with the cosine loss, and its mean cosine on the tenth of the pairs kept apart."""
    kept, rest = clap[::10], torch.arange(len(clap)) % 10 != 0
    held_clip, clip, clap = clip[::10], clip[rest], clap[rest]
    network = Translator(HIDDEN)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(clip))
        for rows in order.split(BATCH):
            loss = (1 - F.cosine_similarity(network(clip[rows]), clap[rows])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch % 10 == 9:
            with torch.no_grad():
                held = F.cosine_similarity(network(held_clip), kept).mean().item()
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}, held-out cosine {held:.4f}", flush=True)
    return network.eval(), held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    torch.manual_seed(0)
    clip = VisionTextDualEncoderModel.from_pretrained(CLIP).float().eval()
    clap = ClapModel.from_pretrained(CLAP).float().eval()
    spaces = {"clip_space": clip_fingerprint(CLIP / "model.safetensors"),
              "clap_space": clap_fingerprint(CLAP / "model.safetensors")}
    read = Trainee(clap).read

    captions = texts.captions("train")
    rows, sentences = zip(*photo_captions(), strict=True)
    views = photo_features(vision_tower()[0])[list(rows)]
    with torch.no_grad():
        said = clip.text_projection(pooled(clip, captions)), read(pooled(clap, captions))
        seen = clip.visual_projection(views.flatten(0, 1))
        told = read(pooled(clap, sentences)).repeat_interleave(views.shape[1], dim=0)
    pairs = {"audiocaps": said, "wit": (seen, told)}
    for source, (inputs, targets) in pairs.items():
        name = f"{source}_cos_{HIDDEN}"
        network, held = train(inputs.clone(), targets.clone())
        facts = {"name": name, "data": source, "loss": "cos", "pairs": str(len(inputs)), "epochs": str(EPOCHS),
                 "held_out_cosine": f"{held:.4f}", "date": datetime.date.today().isoformat()}
        save_translator(FOLDER / f"{name}.safetensors", network, spaces | facts)


if __name__ == "__main__":
    main()
