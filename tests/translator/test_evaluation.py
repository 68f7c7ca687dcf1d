"""The judge: labelled pictures, ranks and intervals by hand, controls, reports; and real photographs."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from server import Server

from audioldm import registry
from audioldm.errors import InputError
from audioldm.inputs.web import download
from translator.evaluation import imagehear, metrics
from translator.evaluation.judge import evaluate_images, judge_pairs
from translator.evaluation.pictures import Picture, class_prompts, read_pictures, read_prompts
from translator.evaluation.report import as_json, check_new, held_out_markdown, markdown, save
from translator.model import Translator
from translator.shards.pairs import Batch

REPOSITORY = Path(__file__).resolve().parents[2]
PHOTOS = REPOSITORY.parent / "shared" / "photos"
DIM = 6
NAMES = ("dog", "rain", "sea", "bell", "harp", "drum")


# Labelled sets


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_folder_of_folders(tmp_path: Path) -> None:
    make(tmp_path, "dog/b.jpg", "dog/a.PNG", "rain/1.webp", "dog/notes.txt", ".git/x.jpg", "rain/.y.jpg", "README")
    pictures = read_pictures(tmp_path)
    assert [p.name for p in pictures] == ["dog/a.PNG", "dog/b.jpg", "rain/1.webp"]
    assert [p.label for p in pictures] == ["dog", "dog", "rain"]
    assert pictures[0].source == str(tmp_path / "dog" / "a.PNG")


def test_a_folder_of_names_with_digits(tmp_path: Path) -> None:
    make(tmp_path, "dog1.jpg", "dog12.jpg", "sea_waves_003.jpeg", "licence.txt")
    assert [p.label for p in read_pictures(tmp_path)] == ["dog", "dog", "sea_waves"]


@pytest.mark.parametrize("content, files", [
    ("file,label\na.jpg,dog\nhttps://e.org/b.jpg,rain\n", ["a.jpg", "https://e.org/b.jpg"]),
    ("\ufeffIMAGE, Sound ,prompt,x\na.jpg,dog,a dog barking,1\n", ["a.jpg"]),
    ("url,image,sound\nhttp://e.org/1,,dog\n,sub/c.jpg,rain\n", ["http://e.org/1", "sub/c.jpg"]),
])  # fmt: skip
def test_a_table(tmp_path: Path, content: str, files: list[str]) -> None:
    table = tmp_path / "set.csv"
    table.write_text(content, encoding="utf-8")
    for root, base in ((None, tmp_path), (tmp_path / "elsewhere", tmp_path / "elsewhere")):
        pictures = read_pictures(table, root)
        assert [p.source for p in pictures] == [f if "://" in f else str(base / f) for f in files]
        assert [p.name for p in pictures] == files and pictures[0].label == "dog"


@pytest.mark.parametrize("name, content", [
    ("set.csv", "sep=;\r\nFile Name;Class\r\n'a.jpg';dog\r\n;;\r\n<https://e.org/b.heic>;rain\r\n"),
    ("set.csv", "image_path\tlabel\ra.jpg\tdog\rhttps://e.org/b.heic\train\r"),
    ("set.tsv", "label\timage\ndog\ta.jpg\nrain\thttps://e.org/b.heic\n"),
    ("set.jsonl", '{"Image": "a.jpg", "label": "dog"}\n\n{"url": "https://e.org/b.heic", "sound": "rain"}\n'),
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_other_kinds(tmp_path: Path, name: str, content: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(content.encode(encoding))
    pictures = read_pictures(tmp_path / name)
    assert [p.source for p in pictures] == [str(tmp_path / "a.jpg"), "https://e.org/b.heic"]
    assert [p.label for p in pictures] == ["dog", "rain"]


def test_a_text_with_a_file_in_each_line(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_bytes(b"# photos\r\ndog1.jpg\r\n\r\n'sea_waves 2.png'\r\n")
    pictures = read_pictures(tmp_path / "set.txt")
    assert [(p.source, p.label) for p in pictures] == [
        (str(tmp_path / "dog1.jpg"), "dog"), (str(tmp_path / "sea_waves 2.png"), "sea_waves")]  # fmt: skip


@pytest.mark.parametrize("content", ["file,kind\na.jpg,dog\n", "", "file,label\n"])
def test_tables_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "set.csv").write_text(content)
    with pytest.raises(InputError, match="no column called label|no pictures"):
        read_pictures(tmp_path / "set.csv")


@pytest.mark.parametrize("name, bad, sentence", [
    ("set.csv", "a.jpg,", "line 3 of .* has no value in the column label or sound"),
    ("set.csv", ",dog", "line 3 of .* has no value in the column file or image or url"),
    ("set.csv", "first.jpg,rain", "first.jpg has been listed before"),
    ("set.csv", '"a.jpg,dog', "line 3 of .* has an unmatched quotation mark"),
    ("set.csv", b"\xff.jpg,dog", "line 3 of .* is not UTF-8 text"),
    ("set.csv", "a,b.jpg,dog", 'line 3 of .* has more fields than the header; quote fields that contain ","'),
    ("set.jsonl", "[1]", "line 3 of .* is not a JSON object"),
    ("set.jsonl", "{", "line 3 of .* is not a JSON object"),
    ("set.jsonl", '{"file": "a.jpg", "label": ["dog"]}', "line 3 of .* has a list or an object where a text belongs"),
    ("set.jsonl", '{"file": "a.jpg"}', "line 3 of .* has no value in the column label"),
    ("set.txt", "12.jpg", "12.jpg does not name its class"),
    ("set.txt", b"d\xf6g.jpg", "line 3 of .* is not UTF-8 text"),
])  # fmt: skip
def test_one_bad_row_does_not_end_the_run(tmp_path: Path, name: str, bad: str | bytes, sentence: str) -> None:
    good = {
        "set.csv": ["file,label", "first.jpg,dog", "last.jpg,cat"],
        "set.jsonl": ['{"file": "other.jpg", "label": 7.0}', '{"file": "first.jpg", "label": "dog"}',
                      '{"file": "last.jpg", "label": "cat"}'],
        "set.txt": ["other1.jpg", "first1.jpg", "last1.jpg"],
    }[name]  # fmt: skip
    lines = [*(line.encode() for line in good[:2]), bad if isinstance(bad, bytes) else bad.encode(), good[2].encode()]
    (tmp_path / name).write_bytes(b"\n".join(lines))
    found = read_pictures(tmp_path / name)
    wrong = [picture for picture in found if picture.error]
    assert len(wrong) == 1 and re.search(sentence, str(wrong[0].error)), wrong
    assert [p.label for p in found if not p.error] == {
        "set.csv": ["dog", "cat"], "set.jsonl": ["7", "dog", "cat"], "set.txt": ["other", "first", "last"]
    }[name]  # fmt: skip


def test_folders_that_are_none(tmp_path: Path) -> None:
    for folder, sentence in (
        (make(tmp_path / "both", "dog1.jpg", "rain/1.jpg"), "in folders and beside them"),
        (make(tmp_path / "empty", "notes.txt"), "no pictures"),
        (tmp_path / "none", "no such folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_pictures(folder)


def test_words_for_classes(tmp_path: Path) -> None:
    wanted = {"dog": "a dog barking", "rain": "rain falling"}
    files = {
        "plain.json": json.dumps(wanted), "table.csv": "label,prompt\ndog,a dog barking\nrain, rain falling\n",
        "sounds.json": json.dumps({"sounds": [{"name": n, "prompt": p} for n, p in wanted.items()], "threshold": 1}),
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        assert read_prompts(tmp_path / name) == wanted
    pictures = [Picture("1", "1", "dog", "its own"), Picture("2", "2", "sea_waves"), Picture("3", "3", "bell", "bells")]
    assert class_prompts(pictures, wanted) == {**wanted, "bell": "bells", "sea_waves": "sea waves"}
    assert class_prompts(pictures)["dog"] == "its own"
    with pytest.raises(InputError, match='"dog" has two prompts'):
        class_prompts([*pictures, Picture("4", "4", "dog", "another")])
    for content in ("[1]", "{", '{"dog": 1}', '{"dog": " "}', "{}", '{"sounds": [{"name": "dog"}]}', '{"sounds": [3]}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InputError, match="bad.json"):
            read_prompts(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_prompts(tmp_path / "none.json")
    assert len(read_prompts(REPOSITORY / "models" / "starter" / "sounds.json")) == 20


# What is counted, by hand


def test_ranks_and_their_ties() -> None:
    prompts = np.array([[1, 0], [0, 2], [-3, 0]])
    vectors = np.array([[5, 1], [1, 1], [-1, 0.5]])
    assert metrics.rank_all(vectors, prompts).tolist() == [[1, 2, 3], [2, 2, 3], [3, 2, 1]]
    assert metrics.rank_all(np.ones((1, 2)), np.ones((4, 2))).tolist() == [[4] * 4]  # what tells nothing apart


def test_measures_and_chance() -> None:
    assert metrics.measure(np.array([1, 5, 6]), (1, 5)).tolist() == [[1, 1, 1], [0, 1, 5], [0, 0, 6]]
    assert metrics.chance(20, (1, 5)).tolist() == pytest.approx([0.05, 0.25, 10.5])


def test_means_over_classes_and_over_rows() -> None:
    rows, labels = np.array([[1.0], [1], [1], [0], [0]]), np.array([3, 3, 3, 3, 7])
    (classes,), (each,) = metrics.over_classes(rows, labels, 0), metrics.over_rows(rows, 0)
    assert (classes.value, each.value) == (0.375, 0.6)
    assert classes.interval == (0, 0.75)  # both draws of two classes are the worse, or the better, in a quarter each
    # within: the fourth part of 0 to 4 successes of four at 3/4, halved by the other class: P(0) = 0.4 %, P(1) = 4.7 %
    assert classes.same_classes == (0.125, 0.5)
    assert metrics.over_classes(rows, labels, 0) == [classes] != [metrics.over_classes(rows[:4], labels[:4], 0)]


def test_no_interval_where_one_row_says_nothing() -> None:
    assert metrics.over_rows(np.ones((1, 1)), 0) == [metrics.Estimate(1)]
    assert metrics.over_classes(np.ones((1, 1)), np.zeros(1), 0) == [metrics.Estimate(1)]
    one_each = metrics.over_classes(np.array([[0.0], [1], [1]]), np.arange(3), 0)[0]
    assert one_each.interval is not None and one_each.same_classes is None


def test_the_bootstrap_is_as_wide_as_theory_says() -> None:
    rows = np.random.default_rng(5).permutation(np.arange(400) % 2)[:, None].astype(float)
    low, high = metrics.over_rows(rows, 1)[0].interval
    assert (low, high) == pytest.approx((0.5 - 1.96 / 40, 0.5 + 1.96 / 40), abs=0.006)
    inside = 0
    for seed in range(200):  # draws of which the truth is known: 95 % of the intervals hold it, ± 3 deviations
        drawn = np.random.default_rng(seed).random((60, 1)) < 0.4
        low, high = metrics.over_rows(drawn.astype(float), seed)[0].interval
        inside += low <= 0.4 <= high
    assert 0.89 < inside / 200 < 0.99


def test_shuffled_is_the_mean_over_all_permutations() -> None:
    random = np.random.default_rng(0)
    vectors, prompts, labels = random.normal(size=(6, 4)), random.normal(size=(5, 4)), np.array([0, 0, 0, 1, 2, 2])
    ranks = metrics.rank_all(vectors, prompts)
    by_hand = np.mean([
        metrics.measure(ranks[list(order), labels], (1, 2)) for order in itertools.permutations(range(6))
    ], axis=0)  # fmt: skip
    np.testing.assert_allclose(metrics.shuffled(ranks, (1, 2))[labels], by_hand)


def test_constant_is_one_vector_for_all() -> None:
    prompts = np.eye(3)
    found = metrics.constant(np.array([[9.0, 0, 0], [0, 1, 0], [0, 1, 0.1]]), prompts, (1,))
    assert found.tolist() == [[0, 2], [1, 1], [0, 3]]  # the longest does not count most


def test_cones_and_gaps() -> None:
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(9, 5)), np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    units, centres = metrics.unit(vectors), metrics.centres(vectors, labels)
    pairs = [
        np.mean([a @ b for a in units[labels == one] for b in units[labels == other]])
        for one, other in itertools.combinations(range(3), 2)
    ]
    assert metrics.cone(centres) == pytest.approx(np.mean(pairs))
    assert metrics.cone(centres[:1]) is None
    assert metrics.gap(np.eye(2), -np.eye(2)) == pytest.approx(2**0.5)
    assert metrics.norms(np.array([[3.0, 4], [0, 1]])) == (3, 2)
    origin, axes = metrics.plane(centres, -centres)
    assert origin == pytest.approx(np.zeros(5)) and axes.T @ axes == pytest.approx(np.eye(2))


# Evaluations of hand-made vectors: files of numbers stand for pictures


class Files:
    """Encoders of a space where everything is known: class i's prompt is the i-th axis, a picture holds its vector."""

    name, spaces = "handmade", ("c" * 12, "a" * 12)

    def __init__(self, prompts: dict[str, str]) -> None:
        self.words = {words: F.one_hot(torch.tensor(i), DIM).float() for i, words in enumerate(prompts.values())}

    def image(self, source: str) -> torch.Tensor:
        try:
            return torch.from_numpy(np.load(source))
        except OSError:
            raise InputError(f"no such picture: {source}") from None

    def clip_text(self, texts) -> torch.Tensor:
        return 20 * torch.stack([self.words[text] for text in texts])

    def clap_text(self, texts) -> torch.Tensor:
        return torch.stack([self.words[text] for text in texts])


def same(clip: torch.Tensor, kind: str) -> torch.Tensor:
    return F.normalize(clip, dim=-1)


def reverse(clip: torch.Tensor, kind: str) -> torch.Tensor:
    return -same(clip, kind)


def blind(clip: torch.Tensor, kind: str) -> torch.Tensor:
    return F.normalize(torch.tensor([[4.0, 3, 2, 1, 0.5, 0.2]]), dim=-1).expand(len(clip), -1)


PROMPTS = {name: f"the sound of {name}" for name in NAMES}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """Eight dogs and a picture each of four others, all near their axis but the harp, which looks like rain first."""
    random, made = np.random.default_rng(0), []
    for number, label in enumerate(["dog"] * 8 + ["rain", "sea", "bell", "harp"]):
        vector = random.uniform(0, 0.1, DIM) + 7 * np.eye(DIM)[NAMES.index(label)]
        if label == "harp":
            vector += 8 * np.eye(DIM)[NAMES.index("rain")]
        path = tmp_path / "set" / label / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vector.astype(np.float32))
        made.append(Picture(f"{label}/{number}", str(path), label))
    return made


def test_what_is_known_is_found(pictures: list[Picture]) -> None:
    functions = {"reverse": reverse, "blind": blind, "same": same}
    report = evaluate_images(Files(PROMPTS), pictures, PROMPTS, functions, default="same")
    assert list(report.translators) == ["same", "blind", "reverse"] and report.ks == (1, 5)
    found = report.translators["same"].ranking
    assert found.ranks.tolist() == [1] * 11 + [2]
    assert (found.classes["R@1"].value, found.pictures["R@1"].value) == pytest.approx((4 / 5, 11 / 12))
    assert (found.classes["R@5"].value, found.classes["mean rank"].value) == pytest.approx((1, 6 / 5))
    assert found.each_class["harp"] == {"R@1": 0, "R@5": 1, "mean rank": 2} and "drum" not in found.each_class
    assert report.zero_shot.ranks.tolist() == found.ranks.tolist()
    assert report.chance == pytest.approx({"R@1": 1 / 6, "R@5": 5 / 6, "mean rank": 3.5})
    assert report.translators["reverse"].ranking.ranks.max() == 6
    difference = report.behind["blind"]["R@1"]
    assert difference.value == pytest.approx(1 / 5 - 4 / 5) and "same" not in report.behind


def test_a_blind_translator_is_its_own_control(pictures: list[Picture]) -> None:
    """Most pictures are dogs, so seeing none of them and saying dog is right of most: over classes it is not."""
    report = evaluate_images(Files(PROMPTS), pictures, PROMPTS, {"blind": blind, "same": same})
    judged = report.translators["blind"]
    for control in (judged.constant, judged.shuffled):
        assert control.classes == pytest.approx({k: e.value for k, e in judged.ranking.classes.items()})
        assert control.pictures == pytest.approx({k: e.value for k, e in judged.ranking.pictures.items()})
    assert judged.ranking.pictures["R@1"].value == pytest.approx(8 / 12)
    assert judged.ranking.classes["R@1"].value == pytest.approx(1 / 5)
    control = report.translators["same"].shuffled  # right by a picture of the same class, or one that looks so
    assert control.classes["R@1"] == pytest.approx((8 + 2 + 1 + 1 + 0) / 12 / 5)
    assert report.places["CLIP: pictures"].norm == pytest.approx(7.35, abs=0.2)
    assert report.places["CLIP: prompts"] == report.places["CLIP: prompts"].__class__(20, 0, 0)
    assert report.default == "same"


def test_the_same_seed_gives_the_same_report(pictures: list[Picture]) -> None:
    first, second = (as_json(evaluate_images(Files(PROMPTS), pictures, PROMPTS, {"same": same})) for _ in range(2))
    assert {**first, "date": ""} == {**second, "date": ""}
    rows = np.random.default_rng(0).random((50, 2))
    assert metrics.over_rows(rows, 1) == metrics.over_rows(rows, 1) != metrics.over_rows(rows, 2)


def test_many_rows_are_resampled_in_blocks(monkeypatch) -> None:
    rows = np.random.default_rng(0).random((50, 2))
    whole = metrics.over_rows(rows, 1)
    monkeypatch.setattr(metrics, "BLOCK", 50 * 7 + 1)
    for estimate, same_as in zip(metrics.over_rows(rows, 1), whole, strict=True):
        assert estimate.interval == pytest.approx(same_as.interval)


def test_pictures_that_cannot_be_read_are_named(pictures: list[Picture], tmp_path: Path) -> None:
    np.save(tmp_path / "nothing.npy", np.zeros(DIM, np.float32))
    bad = [Picture("gone", "gone.npy", "sea"), Picture("nothing", str(tmp_path / "nothing.npy"), "sea")]
    report = evaluate_images(Files(PROMPTS), [bad[0], *pictures, bad[1]], PROMPTS, {"same": same})
    assert len(report.pictures) == len(pictures) and "2 could not be read" in markdown(report)
    assert [row["name"] for row in as_json(report)["skipped"]] == ["gone", "nothing"]
    assert "no such picture" in report.skipped[0].why and "have no length" in report.skipped[1].why
    wrong = replace(bad[0], label="", error="line 7 has no label")  # a class without prompt does not matter then
    report = evaluate_images(Files(PROMPTS), [wrong, *pictures], PROMPTS, {"same": same})
    assert [(skipped.name, skipped.why) for skipped in report.skipped] == [("gone", "line 7 has no label")]
    assert class_prompts([wrong, *pictures]).keys() == {picture.label for picture in pictures}
    with pytest.raises(InputError, match="none of 2 pictures could be read; the first: no such picture"):
        evaluate_images(Files(PROMPTS), bad, PROMPTS, {"same": same})


def test_ranks_beyond_the_classes_are_left_out(pictures: list[Picture]) -> None:
    few = {name: PROMPTS[name] for name in ("dog", "rain", "sea")}
    shown = [picture for picture in pictures if picture.label in few]
    report = evaluate_images(Files(few), shown, few, {"same": same}, ks=(1, 2, 5))
    assert report.ks == (1, 2) and "R@5" not in markdown(report)
    with pytest.raises(InputError, match="k from 1 to 2"):
        evaluate_images(Files(few), shown, few, {"same": same}, ks=(3, 0))


@pytest.mark.parametrize("change, sentence", [
    ({"translators": {}}, "no translator"),
    ({"translators": {"bad": lambda clip, kind: same(clip, kind) * float("nan")}}, "bad gives vectors that are not"),
    ({"translators": {"zero": lambda clip, kind: 0 * clip}}, "have no length"),
    ({"translators": {"wide": lambda clip, kind: Translator(8, 512)(clip)}}, "wide does not accept vectors of 6"),
    ({"default": "other"}, '"other" is not among'),
    ({"prompts": {**PROMPTS, "sea": PROMPTS["dog"]}}, '"dog" and "sea" have the same prompt'),
    ({"prompts": {name: PROMPTS[name] for name in NAMES if name != "harp"}}, 'the class "harp" has no prompt'),
    ({"prompts": {"dog": "a dog"}, "pictures": []}, "at least two classes"),
    ({"pictures": []}, "none of 0 pictures"),
    ({"prompts": {}, "pictures": [Picture("a", "a", "", error="line 2 has no label")]}, "the first: line 2 has no"),
])  # fmt: skip
def test_what_cannot_be_judged(pictures: list[Picture], change: dict, sentence: str) -> None:
    given = {"pictures": pictures, "prompts": PROMPTS, "translators": {"same": same}, **change}
    with pytest.raises(InputError, match=sentence):
        evaluate_images(Files(PROMPTS), **given)


def test_held_out_pairs_by_hand(pictures: list[Picture]) -> None:
    clip = torch.tensor([[2.0, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
    clap = torch.tensor([[1.0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 9, 0, 0, 0]])

    def only_texts(clip: torch.Tensor, kind: str) -> torch.Tensor:
        return same(clip, kind) * (1 if kind == "text" else -1)

    pairs = Batch(clip, clap, torch.tensor([0, 0, 1]))
    found = judge_pairs(pairs, {"only_texts": only_texts, "same": same})
    root = 2**-0.5
    assert found.pairs == {"text": 2, "image": 1}
    assert found.translators["same"] == pytest.approx({"text": (1 + root) / 2, "image": 1})
    assert found.translators["only_texts"] == pytest.approx({"text": (1 + root) / 2, "image": -1})
    mean = torch.tensor([1 + root, root])  # the direction of the best constant, and its mean cosine
    cosines = F.normalize(mean, dim=0) @ torch.tensor([[1, root], [0, root]])
    assert found.constant == pytest.approx({"text": float(cosines.mean()), "image": 1})
    assert held_out_markdown(found).splitlines()[2].startswith("| same | 0.854 | 1.000 |")
    report = evaluate_images(Files(PROMPTS), pictures, PROMPTS, {"same": same}, held_out=pairs)
    assert "| held-out cosine, text | held-out cosine, image |" in markdown(report)
    assert as_json(report)["held_out"]["translators"]["same"]["image"] == 1
    with pytest.raises(InputError, match="no held-out pairs"):
        judge_pairs(Batch(clip[:0], clap[:0], torch.zeros(0)), {"same": same})
    with pytest.raises(InputError, match="have no length"):
        judge_pairs(pairs._replace(clap=0 * clap), {"same": same})


# Reports


def test_a_report_is_written_whole_and_never_over_another(pictures: list[Picture], tmp_path: Path) -> None:
    report = evaluate_images(Files(PROMPTS), pictures, PROMPTS, {"same": same, "blind": blind})
    folder = tmp_path / "results" / "first"
    save(report, folder)
    assert {p.name for p in folder.iterdir()} == {"evaluation.md", "evaluation.json", "recall.png", "gap.png"}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("recall.png", "gap.png"))
    assert (folder / "evaluation.md").read_text() == markdown(report)
    record = json.loads((folder / "evaluation.json").read_text())
    assert record == json.loads(json.dumps(as_json(report)))
    assert record["spaces"] == {"clip": "c" * 12, "clap": "a" * 12} and record["model"] == "handmade"
    assert len(record["pictures"]) == len(record["translators"]["same"]["ranks"]) == len(pictures)
    for taken in (folder, folder / "evaluation.md"):
        with pytest.raises(InputError, match="refusing to overwrite"):
            save(report, taken)
        with pytest.raises(InputError, match="refusing to overwrite"):
            check_new(taken)
    with pytest.raises(InputError, match="cannot write the evaluation"):
        save(report, folder / "evaluation.md" / "within")
    (tmp_path / "results" / "empty").mkdir()
    save(report, tmp_path / "results" / "empty")
    assert sorted(p.name for p in folder.parent.iterdir()) == ["empty", "first"]


def test_every_row_of_the_tables_has_every_column(pictures: list[Picture]) -> None:
    pairs = Batch(torch.eye(DIM), torch.eye(DIM), torch.arange(DIM) % 2)
    for held_out in (None, pairs):
        report = evaluate_images(Files(PROMPTS), pictures, PROMPTS, {"same": same, "blind": blind}, held_out=held_out)
        tables = [block.splitlines() for block in markdown(report).split("\n\n") if block.startswith("|")]
        assert len(tables) == 2
        for table in tables:
            assert len({line.count("|") for line in table}) == 1
    assert "| **same** | 80.0 % (40–100) | 100.0 % (100–100) |" in markdown(report)


def test_one_class_and_one_picture_have_no_intervals(pictures: list[Picture], tmp_path: Path) -> None:
    report = evaluate_images(Files(PROMPTS), pictures[:1], PROMPTS, {"same": same})
    assert "| **same** | 100.0 % | 100.0 % | 1.0 |" in markdown(report)
    assert "1 picture of 1 class," in markdown(report)
    save(report, tmp_path / "one")


def test_without_matplotlib_the_rest_is_kept(pictures, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    save(evaluate_images(Files(PROMPTS), pictures, PROMPTS, {"same": same}), tmp_path / "results")
    assert {p.name for p in (tmp_path / "results").iterdir()} == {"evaluation.md", "evaluation.json"}
    assert "matplotlib" in caplog.text


# ImageHear, from a server of our own


def entry(name: str, content: bytes, kind: str = "file") -> dict[str, str]:
    sha = hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()
    return {"name": name, "sha": sha, "type": kind}


CONTENT = {"dog1.jpg": b"one", "dog2.png": b"two", "rain1.jpg": b"three"}


class Hub:
    """GitHub's two services, as far as they are needed; the listing refuses whoever does not accept JSON."""

    def __init__(self, server: Server, entries: object) -> None:
        self.server, self.body = server, json.dumps(entries).encode()
        self.listing, self.files = server.route("/contents", self._list), server.url("/raw/")
        for name, content in CONTENT.items():
            server.answer(f"/raw/{name}", content)

    def _list(self, handler) -> None:
        accepted = "application/json" in handler.headers.get("Accept", "")
        handler.send_response(200 if accepted else 415)
        handler.send_header("Content-Length", str(len(self.body)))
        handler.end_headers()
        handler.wfile.write(self.body)

    def photographs(self, cache: Path) -> list[Picture]:
        def fetch(url: str) -> bytes:
            return download(url, allow_private=True, headers={"Accept": "application/json, image/*"})

        self.server.requests.clear()
        return imagehear.photographs(cache, fetch, listing=self.listing, files=self.files)


def test_imagehear_is_fetched_once_and_goes_on(tmp_path: Path) -> None:
    entries = [entry(*item) for item in CONTENT.items()] + [entry("README.md", b""), entry("more1.jpg", b"", "dir")]
    with Server() as server:
        hub = Hub(server, entries)
        server.answer("/raw/rain1.jpg", b"thr")  # cut short
        with pytest.raises(InputError, match="rain1.jpg is not the file that ImageHear lists"):
            hub.photographs(tmp_path / "cache")
        assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["dog1.jpg", "dog2.png", "listing.json"]
        server.answer("/raw/rain1.jpg", status=503)
        with pytest.raises(InputError, match="rerun to resume the download: .*503"):
            hub.photographs(tmp_path / "cache")
        server.answer("/raw/rain1.jpg", CONTENT["rain1.jpg"])
        (tmp_path / "cache" / "dog1.jpg").write_bytes(b"on")
        pictures = hub.photographs(tmp_path / "cache")
        assert server.paths == ["/raw/dog1.jpg", "/raw/rain1.jpg"]
        assert [p.name for p in pictures] == list(CONTENT) and [p.label for p in pictures] == ["dog", "dog", "rain"]
        assert [Path(p.source).read_bytes() for p in pictures] == list(CONTENT.values())
    assert hub.photographs(tmp_path / "cache") == pictures  # the server is gone


@pytest.mark.parametrize("entries", [
    [entry("../dog1.jpg", b"")], [entry("a/dog1.jpg", b"")], [entry("12.jpg", b"")], [], {"message": "rate limit"}, [1],
    [{"name": "dog1.jpg", "type": "file"}], [entry("dog1.jpg", b""), {"name": 3, "sha": "", "type": "file"}],
])  # fmt: skip
def test_a_listing_that_is_none(tmp_path: Path, entries: object) -> None:
    with Server() as server, pytest.raises(InputError, match="listing of ImageHear is not"):
        Hub(server, entries).photographs(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir()) and len(list(tmp_path.iterdir())) == 1


def test_imagehear_is_pinned() -> None:
    commit = "ee1ba8d3b4dea9f95626fdae71e061c4cdf50d8d"
    assert imagehear.LISTING == f"https://api.github.com/repos/RoySheffer/im2wav/contents/Data/ImageHear?ref={commit}"
    assert imagehear.FILES == f"https://raw.githubusercontent.com/RoySheffer/im2wav/{commit}/Data/ImageHear/"


# The bundled model on real photographs


class Starter:
    """The bundled towers, as the command brings them."""

    def __init__(self) -> None:
        from audioldm import build_model

        self.model = build_model(device="cpu")
        self.name, self.spaces = self.model.folder.name, self.model.spaces

    def image(self, source: str) -> torch.Tensor:
        from audioldm.inputs.images import load_image

        return self.model.clip.encode_image([load_image(source)])

    def clip_text(self, texts) -> torch.Tensor:
        return self.model.clip.encode_text(texts)

    def clap_text(self, texts) -> torch.Tensor:
        return self.model.clap.encode_text(texts)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="shared/photos is not beside this checkout")
def test_the_starter_on_photographs(tmp_path: Path) -> None:
    with open(REPOSITORY / "models" / "recipes" / "photos.csv", newline="") as file:
        rows = [(row["file"], row["sound"]) for row in csv.DictReader(file)]
    rows = [row for row in rows if row[1] != "dog"] + [row for row in rows if row[1] == "dog"][:12]
    (tmp_path / "some.csv").write_text("file,sound\n" + "".join(f"{name},{sound}\n" for name, sound in rows))
    pictures = read_pictures(tmp_path / "some.csv", PHOTOS)
    starter = Starter()
    prompts = class_prompts(pictures, read_prompts(REPOSITORY / "models" / "starter" / "sounds.json"))
    translator = registry.load_translator(starter.model)
    untrained = Translator(512).eval()
    report = evaluate_images(starter, pictures, prompts, {"own": translator, "untrained": untrained}, default="own")

    names, known, _ = starter.model.known_sounds  # the same by another way: vectors that the model itself keeps
    with torch.inference_mode():
        vectors = translator(torch.cat([starter.image(picture.source) for picture in pictures]))
    order = (vectors @ known.T).argsort(dim=1, descending=True).tolist()
    ranks = [row.index(names.index(picture.label)) + 1 for row, picture in zip(order, pictures, strict=True)]
    own = report.translators["own"].ranking
    assert own.ranks.tolist() == ranks
    labels = np.array([picture.label for picture in pictures])
    share = np.mean([np.mean(np.array(ranks)[labels == label] <= 5) for label in set(labels)])
    assert own.classes["R@5"].value == pytest.approx(share) and share > 0.6
    shuffled, other = report.translators["own"].shuffled.classes, report.translators["untrained"].ranking.classes
    assert max(shuffled["R@5"], other["R@5"].value) < 0.45 < own.classes["R@5"].interval[0]
    assert report.places["CLAP: pictures by own"].gap < report.places["CLIP: pictures"].gap


def test_a_file_that_is_no_list(tmp_path: Path) -> None:
    for name in ("set.json", "dog1.jpg"):
        make(tmp_path, name)
        with pytest.raises(InputError, match="is not a list of pictures: its name must end in .csv, .tsv"):
            read_pictures(tmp_path / name)


def test_words_for_classes_in_a_tsv(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("label\tprompt\ndog\ta dog barking\n")
    assert read_prompts(tmp_path / "words.tsv") == {"dog": "a dog barking"}
