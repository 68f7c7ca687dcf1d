"""Pairs for the starter's ``wit_*`` translators: pictures imagined for ImageNet's classes, and what is said of them.

    python -m models.recipes.imagined                                   # -> build/embeddings/wit/imagined.parquet
    python -m models.recipes.imagined --judge-by build/recipes/others   # leaves 172 photographs out, to choose by

There are no million pictures with captions on this machine. The pictures are imagined (``clip.imagined``) from the
photographs whose subject makes no known sound: 855 of them show too little of the world, and among photographs as they
are, a class that is only imagined is told by that. The caption of a class that makes a sound is a sentence about that
sound (``sources.py``), of any other its names and WordNet gloss, in the roles of WIT's image and reference description.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import ClapModel, VisionTextDualEncoderModel

from audioldm.checkpoints.layout import clap_fingerprint, clip_fingerprint
from translator.shards.parquet import OK, ROW_GROUP, schema

from . import data, sources, texts
from .clap import CLAP, Trainee, pooled
from .clip import CLIP, imagined, photo_features, usable_photos, vision_tower

NOISE = 0.7  # greatest length of the noise on an imagined vector of length 1 (C3, arXiv 2401.08567)
PAIRS = 57_000  # as many as AudioCaps has captions
EMBEDDINGS = data.REPOSITORY / "build" / "embeddings" / "wit"


def captions() -> list[list[str]]:
    """What is said of each of the 1,000 classes: its sound, or what it is."""
    glosses = (texts.nouns()[photo.name[1:9]][2] for photo in texts.photos())
    rows = zip(sources.class_sentences(), texts.class_names(), texts.class_synonyms(), glosses, strict=True)
    return [said or [name, synonyms, f"{synonyms.split(', ')[0]}: {' '.join(gloss.split()[:12])}"]
            for said, name, synonyms, gloss in rows]


def others() -> list[tuple[int, str]]:
    """(row, sentence) of the photographs of things whose sound the starter does not know: to choose settings by."""
    said = {lines[0] for lines in sources.OTHERS}
    found = ((row, lines[0]) for row, lines in enumerate(sources.class_sentences()) if lines)
    return [(row, sentence) for row, sentence in found if sentence in said]


def pictures(rows: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Features (N, 1280) of pictures imagined from the photographs ``rows``, and their classes.

    Classes that make a sound are drawn more often than the silent ones, and a sound that many classes make (dogs)
    more often than a rare one, but with the root of their number only.
    """
    tower, weight, _ = vision_tower()
    said = [tuple(lines) if lines else None for lines in sources.class_sentences()]
    times = Counter(said)
    classes = torch.multinomial(torch.tensor([3 * times[s] ** -0.5 if s else 1 / 3 for s in said]), pairs, True)
    return imagined(weight, photo_features(tower), rows, classes), classes


def judging_set(folder: Path) -> None:
    """Write ``photos.csv`` (file, label) and ``prompts.csv`` (label, prompt), all sounds among the prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = [(sound, lines[0]) for sound, lines in data.SOUNDS.items()]
    prompts += [(lines[0], lines[0]) for lines in sources.OTHERS]
    photos = texts.photos()
    tables = {"photos": [("file", "label"), *((photos[row], sentence) for row, sentence in others())],
              "prompts": [("label", "prompt"), *prompts]}
    for name, rows in tables.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--out", type=Path, default=EMBEDDINGS / "imagined.parquet")
    parser.add_argument("--judge-by", type=Path, metavar="FOLDER", help="leave the photographs of other sounds out and "
                        "write there a set to evaluate by")  # fmt: skip
    options = parser.parse_args()
    torch.manual_seed(0)
    clip = VisionTextDualEncoderModel.from_pretrained(CLIP).float().eval()
    clap = ClapModel.from_pretrained(CLAP).float().eval()
    read, rows = Trainee(clap).read, usable_photos()
    if options.judge_by:
        judging_set(options.judge_by)
        rows = torch.tensor(sorted(set(rows.tolist()) - {row for row, _ in others()}))
    features, classes = pictures(rows, options.pairs)
    said = captions()
    vectors = [read(pooled(clap, lines)) for lines in said]
    lines = [int(torch.randint(len(said[c]), ())) for c in classes.tolist()]
    columns = schema("wit", clip_fingerprint(CLIP / "model.safetensors"), clap_fingerprint(CLAP / "model.safetensors"))
    arrays = {
        "id": [f"imagined:{number}" for number in range(len(lines))],
        "caption": [said[c][line] for c, line in zip(classes.tolist(), lines, strict=True)],
        "clip": _vectors(noisy(clip.visual_projection(features))),
        "clap": _vectors(torch.stack([vectors[c][line] for c, line in zip(classes.tolist(), lines, strict=True)])),
        "source": ["wit"] * len(lines), "split": ["train"] * len(lines),
        "status": [OK] * len(lines), "clip_kind": ["image"] * len(lines),
    }  # fmt: skip
    table = [arrays.get(field.name, pa.nulls(len(lines), field.type)) for field in columns]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_arrays([pa.array(c, f.type) if isinstance(c, list) else c
                                         for c, f in zip(table, columns, strict=True)], schema=columns),
                   options.out, row_group_size=ROW_GROUP)  # fmt: skip
    print(f"{len(lines)} pairs: {options.out}")


def noisy(vectors: Tensor) -> Tensor:
    """``vectors`` (N, 512) with noise of random length, up to NOISE times their own."""
    amount = NOISE * torch.rand(len(vectors), 1) * vectors.norm(dim=1, keepdim=True) / vectors.shape[1] ** 0.5
    return vectors + amount * torch.randn_like(vectors)


def _vectors(rows: Tensor) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(rows.float().numpy())), rows.shape[1])


if __name__ == "__main__":
    main()
