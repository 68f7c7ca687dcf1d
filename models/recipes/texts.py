"""The sentences that the text towers learn from: captions, class names with their parents, glosses.

WordNet 3.0 is read from the files of Debian's ``wordnet-base``; class names are those of the ImageNet photographs
in ``shared/photos`` (file name = synset and name), which the image tower's 1,000 outputs follow in order.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

from .data import SHARED, SOUNDS

WORDNET = Path("/usr/share/wordnet/data.noun")


@cache
def nouns() -> dict[str, tuple[list[str], list[str], str]]:
    """Synset offset -> (lemmas, offsets of its parents, gloss without examples)."""
    synsets = {}
    for line in WORDNET.read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue  # the licence
        fields, gloss = line.split(" | ", 1)
        fields = fields.split()
        count = int(fields[3], 16)
        lemmas = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
        pointers = fields[4 + 2 * count + 1 :]
        parents = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "@i")]
        synsets[fields[0]] = (lemmas, parents, re.sub(r'; ?".*', "", gloss).strip())
    return synsets


def photos() -> list[Path]:
    """The 1,000 photographs in the order of the classifier's outputs (synsets sorted)."""
    return sorted((SHARED / "photos").glob("n*.jpg"), key=lambda path: path.name[:9])


@cache
def class_names() -> list[str]:
    """What each of the 1,000 classes is, in words: "golden retriever, retriever, dog" (up to five ancestors).

    Ancestors stop where they say nothing about a sound or a thing ("matter", "whole", "artifact").
    """
    vague = {"whole", "unit", "artifact", "artefact", "object", "physical object", "matter", "entity", "organism",
             "living thing", "animate thing", "being", "instrumentality", "placental", "placental mammal", "chordate",
             "vertebrate", "craniate", "eutherian", "eutherian mammal", "mammal", "animal", "animate being",
             "carnivore", "physical entity", "causal agent", "substance", "commodity", "consumer goods",
             "domestic animal",
             "domesticated animal", "covering", "system", "abstraction", "canine", "canid", "device", "structure",
             "construction", "equipment", "implement", "container", "conveyance", "transport", "abstract entity"}
    synsets, names = nouns(), []
    for path in photos():
        lemmas, parents, _ = synsets[path.name[1:9]]
        words = [lemmas[0]]
        while parents and len(words) < 6:
            lemmas, parents, _ = synsets[parents[0]]
            if lemmas[0] not in vague:
                words.append(lemmas[0])
        names.append(", ".join(words))
    return names


@cache
def class_lineage() -> list[set[str]]:
    """For each of the 1,000 classes every name, in lower case, of it and of all its ancestors."""
    synsets, lineages = nouns(), []
    for path in photos():
        names, ahead = set(), [path.name[1:9]]
        while ahead:
            lemmas, parents, _ = synsets[ahead.pop()]
            names.update(lemma.lower() for lemma in lemmas)
            ahead += parents
        lineages.append(names)
    return lineages


def class_synonyms() -> list[str]:
    """Up to four names of each of the 1,000 classes: "cornet, horn, trumpet, trump"."""
    lemmas = (nouns()[path.name[1:9]][0] for path in photos())
    return [", ".join(dict.fromkeys(lemma.lower() for lemma in names[:4])) for names in lemmas]


def captions(split: str) -> list[str]:
    """AudioCaps' captions of ``split`` (train, val, test), duplicates removed, in order."""
    with open(SHARED / "audiocaps" / f"{split}.csv", newline="", encoding="utf-8") as file:
        return list(dict.fromkeys(row["caption"].strip() for row in csv.DictReader(file)))


def corpus() -> list[str]:
    """About 150,000 sentences and names for distillation; AudioCaps' validation and test captions stay out."""
    sentences = captions("train") + class_names() + [prompt for prompts in SOUNDS.values() for prompt in prompts]
    for number, (lemmas, _, gloss) in enumerate(nouns().values()):
        sentences.append(", ".join(lemmas[:2]))
        if number % 3 == 0:
            sentences.append(f"{lemmas[0]}: {' '.join(gloss.split()[:12])}")
    return list(dict.fromkeys(sentences))
