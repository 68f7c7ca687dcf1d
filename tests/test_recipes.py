"""What the recipes keep apart stays apart."""

import csv
import json

import pytest

from models.recipes import data

needs_sounds = pytest.mark.skipif(
    not (data.SHARED / "sounds").is_dir(), reason="shared/sounds is not beside this checkout"
)


@needs_sounds
def test_the_judges_recordings_are_in_no_training():
    train, judge = data.clips(), data.clips(judge=True)
    assert not {c.path for c in train} & {c.path for c in judge}
    recorded = [c for c in judge if c.label in data.TEN]
    assert {(c.label, c.fold) for c in recorded} == {(label, fold) for label in data.TEN for fold in data.JUDGE_FOLDS}
    assert all(sum(c.label == label for c in recorded) == 16 for label in data.TEN)
    instruments = set(data.SOUNDS) - set(data.TEN)
    assert all(sum(c.label == label for c in judge) == len(data.JUDGE_MELODIES) for label in instruments)
    assert len(judge) == 16 * len(data.TEN) + 6 * len(instruments)
    # Freesound clips cut from one recording share the number in their name; a fold keeps them together.
    def recordings(clips):
        return {(c.label, c.path.name.split("-")[1]) for c in clips if c.fold != "0"}

    assert not recordings(train) & recordings(judge)


@needs_sounds
def test_every_known_sound_has_recordings_of_the_length_that_is_trained():
    for label in data.SOUNDS:
        clips = data.clips([label])
        assert len(clips) >= 8
        wave = data.load(clips[0])
        assert wave.shape == (81920,) and 0.3 < abs(wave).max() <= 0.51


def test_the_bundled_model_knows_what_the_recipes_say():
    known = json.loads((data.STARTER / "sounds.json").read_text())["sounds"]
    assert [(row["name"], row["prompt"]) for row in known] == [(n, p[0]) for n, p in data.SOUNDS.items()]


def test_photographs_that_judge_show_known_sounds():
    with open(data.REPOSITORY / "models" / "recipes" / "photos.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["file"] for row in rows}) == len(rows) >= 100
    assert {row["sound"] for row in rows} <= set(data.SOUNDS)
