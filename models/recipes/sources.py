"""Which of the 1,000 ImageNet classes make a sound, and the sentences that say which.

A class makes a sound if it, or one of its parents in WordNet, has a name listed here: so 118 breeds bark without
being listed. Pictures of these classes are described by their sound (``imagined.py``), and teach the UNet what the
sounds that it knows look like (``unet.py``). Which photographs judge is another list, ``photos.csv``.
"""

from __future__ import annotations

from functools import cache

from . import data, texts

# a sound that the starter knows -> what makes it
KNOWN: dict[str, list[str]] = {
    "dog": ["domestic dog"], "rooster": ["cock", "hen"], "rain": ["umbrella"],
    "sea_waves": ["seashore", "promontory", "sandbar", "breakwater"],
    "crying_baby": ["cradle", "crib", "bassinet", "bib", "diaper"], "clock_tick": ["clock", "stopwatch"],
    "chainsaw": ["chain saw"], "crackling_fire": ["stove", "torch", "matchstick", "candle"], "piano": ["piano"],
    "violin": ["violin"], "acoustic_guitar": ["guitar"], "flute": ["flute"], "trumpet": ["cornet"],
    "drums": ["drum", "drumstick"], "church_organ": ["pipe organ"], "accordion": ["accordion"], "harp": ["harp"],
    "saxophone": ["sax"],
}
# sentences for other sounds -> what makes them; so a cat is no dog, and a later starter knows where to begin
OTHERS: dict[tuple[str, ...], list[str]] = {
    ("a cat meowing", "cat", "a cat purrs"): ["domestic cat"],
    ("a lion roaring", "a tiger growls"): ["big cat"],
    ("birds chirping", "a bird sings"): ["passerine"],
    ("a frog croaking", "frogs"): ["frog"],
    ("a monkey screaming", "an ape calls"): ["monkey", "ape"],
    ("a snake hissing",): ["snake"],
    ("insects buzzing", "a bee buzzes", "crickets chirp"): ["insect"],
    ("a duck quacking", "goose honks"): ["anseriform bird"],
    ("an owl hooting",): ["owl"],
    ("a sheep bleating", "a goat bleats"): ["sheep", "goat"],
    ("a cow mooing", "an ox lows"): ["bovine"],
    ("a pig oinking", "a boar grunts"): ["swine"],
    ("a wolf howling",): ["wolf"],
    ("a bear growling",): ["bear"],
    ("a horse trotting",): ["equine", "horse cart"],
    ("a grouse calling",): ["grouse"],
    ("a car engine running", "a car passes"): ["motorcar"],
    ("a truck driving",): ["motortruck"],
    ("a bus passing by",): ["bus", "trolleybus"],
    ("a train passing", "a steam locomotive"): ["locomotive", "bullet train"],
    ("an airplane flying", "a jet engine"): ["airplane"],
    ("a ship horn blowing",): ["ship"],
    ("a boat on the water", "water splashing"): ["boat"],
    ("a motorcycle engine",): ["moped", "motor scooter"],
    ("a gunshot",): ["gun"],
    ("typing on a keyboard",): ["computer keyboard", "typewriter keyboard"],
    ("water flowing", "a stream"): ["fountain", "geyser", "dam"],
    ("a telephone ringing",): ["telephone"],
    ("a whistle blowing",): ["whistle"],
    ("a church bell ringing", "bells"): ["bell cote", "church"],
    ("a washing machine running", "a vacuum cleaner"): ["washer", "vacuum", "dishwasher"],
    ("a lawn mower",): ["lawn mower"],
    ("a gong", "a cymbal"): ["gong"],
    ("a toilet flushing",): ["toilet seat"],
}


@cache
def class_sentences() -> list[list[str] | None]:
    """For each of the 1,000 classes the sentences that describe its sound; None for a class that makes none."""
    rows = [(names, data.SOUNDS[sound]) for sound, names in KNOWN.items()]
    rows += [(names, list(sentences)) for sentences, names in OTHERS.items()]
    return [next((said for names, said in rows if own.intersection(names)), None) for own in texts.class_lineage()]


@cache
def class_sounds() -> list[str | None]:
    """For each class the name of the known sound that it makes, or None."""
    return [next((sound for sound, names in KNOWN.items() if own.intersection(names)), None)
            for own in texts.class_lineage()]
