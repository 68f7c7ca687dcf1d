"""The thesis's text files: both layouts read back equal, nothing is run, and what is no pair is told."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pairs import CLAP, CLIP

from translator import InputError
from translator.shards.parquet import open_shards
from translator.shards.text_files import (
    MAX_BYTES,
    import_pairs,
    read_text_pair,
    table_pairs,
    text_pairs,
    write_text_pair,
)


def pair(seed: int = 0, dim: int = 512) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    clip, clap = draw.standard_normal((2, dim)).astype(np.float32)
    clip[:3] = 1e-7, -3.4e5, 0  # these are printed in scientific notation, and change how all others are
    return clip, clap / np.linalg.norm(clap)


def captions_layout(clip: object, clap: object) -> str:
    return f"CLIP Embedding:\n{clip}\n\nCLAP Embedding:\n{clap}\n"


def pictures_layout(clip: object, clap: object) -> str:
    return f"embedding CLIP\n{clip}\nembedding CLAP\n{clap}\n"


# Layout for captions


def test_all_digits_read_back_equal(tmp_path: Path) -> None:
    clip, clap = pair()
    write_text_pair(tmp_path / "1.txt", clip.tolist(), clap)
    text = (tmp_path / "1.txt").read_text()
    assert text.startswith("CLIP Embedding:\n") and "\nCLAP Embedding:\n" in text and len(text.splitlines()) > 1024
    for ours, true in zip(read_text_pair(tmp_path / "1.txt"), (clip, clap), strict=True):
        assert ours.dtype == np.float32 and np.array_equal(ours, true)
    with pytest.raises(FileExistsError):
        write_text_pair(tmp_path / "1.txt", clap, clip)
    assert (tmp_path / "1.txt").read_text() == text


@pytest.mark.parametrize("form", ["%.18e", "%r", "%s"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_numbers_one_a_line(tmp_path: Path, form: str, end: str, encoding: str) -> None:
    clip, clap = (vector.astype(float) for vector in pair())
    text = captions_layout(*("\n".join(form % float(x) for x in v) for v in (clip, clap)))
    (tmp_path / "1.txt").write_bytes(text.replace("\n", end).encode(encoding))
    assert all(map(np.array_equal, read_text_pair(tmp_path / "1.txt"), pair()))


# Layout for pictures: tensors as torch and numpy print them


def printed(vector: np.ndarray, more: str) -> str:
    """As torch prints it: on a GPU it adds the device, with gradients their function."""
    with torch_prints_all():
        text = str(torch.from_numpy(vector)[None])
    return text[:-1] + more + ")"


class torch_prints_all:
    """All digits, and nothing left out (torch shortens from 1000 numbers on; one vector has 512)."""

    def __enter__(self) -> None:
        torch.set_printoptions(precision=9)

    def __exit__(self, *_: object) -> None:
        torch.set_printoptions(profile="default")


@pytest.mark.parametrize(
    "more",
    ["", ", device='cuda:0'", ", dtype=torch.float16", ", device='cuda:0', dtype=torch.float16",
     ",\n       device='cuda:0'", ", grad_fn=<DivBackward0>", ", device='cuda:0',\n       grad_fn=<CloneBackward0>",
     ", requires_grad=True"],
)  # fmt: skip
def test_printed_tensors(tmp_path: Path, more: str) -> None:
    clip, clap = pair()
    (tmp_path / "1.txt").write_text(pictures_layout(printed(clip, more), printed(clap, more)))
    for ours, true in zip(read_text_pair(tmp_path / "1.txt"), (clip, clap), strict=True):
        np.testing.assert_allclose(ours, true, rtol=1e-6, atol=1e-9)


def test_what_torch_itself_adds(tmp_path: Path) -> None:
    clip, clap = (torch.from_numpy(vector)[None] for vector in pair())
    clap = torch.nn.functional.normalize(clap.requires_grad_(), dim=-1)
    text = pictures_layout(clip.half().clamp(-9, 9), clap)
    assert "dtype=torch.float16" in text and "grad_fn=<DivBackward0>" in text
    (tmp_path / "1.txt").write_text(text)
    ours = read_text_pair(tmp_path / "1.txt")
    np.testing.assert_allclose(ours[0], clip[0].clamp(-9, 9), atol=5e-3)  # four digits are printed
    np.testing.assert_allclose(ours[1], clap[0].detach(), atol=5e-5)


@pytest.mark.parametrize("show", [str, repr, np.ndarray.tolist, lambda v: repr(v[None].astype(np.float16))])
def test_arrays_as_numpy_and_python_print_them(tmp_path: Path, show: Callable[[np.ndarray], object]) -> None:
    clip, clap = (vector.clip(-9, 9) for vector in pair())
    (tmp_path / "1.txt").write_text(pictures_layout(show(clip), show(clap)))
    for ours, true in zip(read_text_pair(tmp_path / "1.txt"), (clip, clap), strict=True):
        np.testing.assert_allclose(ours, true, atol=5e-3)


def test_layouts_may_lie_side_by_side_and_count_by_number(tmp_path: Path) -> None:
    for i in (10, 9, 100, 1):
        clip, clap = pair(i, dim=8)
        if i % 2:
            write_text_pair(tmp_path / f"embedding_{i}.txt", clip, clap)
        else:
            (tmp_path / f"embedding_{i}.txt").write_text(pictures_layout(clip.tolist(), clap.tolist()))
    (tmp_path / "readme.md").write_text("not one of them")
    found = list(text_pairs(tmp_path))
    assert [name for name, _, _ in found] == [f"embedding_{i}" for i in (1, 9, 10, 100)]
    for name, clip, clap in found:
        assert all(map(np.array_equal, (clip, clap), pair(int(name.split("_")[1]), dim=8)))


# What is no pair


@pytest.mark.parametrize(
    "text, sentence",
    [
        (captions_layout("__import__('os').system('touch ran')", "1"), "text among the numbers"),
        (pictures_layout("tensor([__import__('os').system('touch ran')])", "[1]"), "text among the numbers"),
        (pictures_layout("tensor([1., 2.], device=__import__('os').system('touch ran'))", "[1]"), "2 numbers for CLIP"),
        (pictures_layout("tensor([[ 0.1,  0.2,  ...,  0.3]])", "[1, 2, 3]"), "shortened printout"),
        (pictures_layout("[0.1 0.2 ... 0.3]", "[1, 2, 3]"), "shortened printout"),
        (captions_layout("1\nnan", "1\n2"), "not finite"), (captions_layout("1\n2", "1\n-inf"), "not finite"),
        (captions_layout("1\n1e999", "1\n2"), "not finite"),
        (captions_layout("0\n0", "1\n2"), "a vector of zeros"), (captions_layout("", "1"), "no numbers"),
        (captions_layout("1", ""), "no numbers"), (captions_layout("1\n2", "1"), "2 numbers for CLIP and 1 for CLAP"),
        (captions_layout("1.0.0", "1"), "text among the numbers"),
        (captions_layout("one", "1"), "text among the numbers"),
        ("", "under their headings"), ("1\n2\n3", "under their headings"), ("CLIP Embedding:\n1", "under their head"),
        ("CLAP Embedding:\n1\nCLIP Embedding:\n1", "under their headings"),
        (captions_layout("1", "1") * 2, "one CLIP and one CLAP"),
        (captions_layout("1", "1") + "0" * MAX_BYTES, "too large"),
        ("CLIP Embedding:\n1\nCLAP Embedding:\n\udcff", "not a readable text file"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_told_in_a_sentence(tmp_path: Path, monkeypatch, text: str, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "1.txt"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=f"^{path} .*{sentence}"):
        read_text_pair(path)
    with pytest.raises(InputError, match=sentence):
        import_pairs([tmp_path], tmp_path / "out" / "x.parquet", "wit", "image", CLIP, CLAP)
    assert [file.name for file in tmp_path.iterdir()] == ["1.txt"], "nothing was run and nothing written"


def test_there_must_be_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no .txt files in"):
        list(text_pairs(tmp_path))
    with pytest.raises(InputError, match="no such folder: .*nowhere"):
        list(text_pairs(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="not a readable text file"):
        read_text_pair(tmp_path / "1.txt")
    (tmp_path / "1.txt").mkdir()
    with pytest.raises(InputError, match="not a readable text file"):
        list(text_pairs(tmp_path))


# As a shard


def write_folder(folder: Path, count: int, dim: int = 8) -> Path:
    folder.mkdir()
    for i in range(count):
        write_text_pair(folder / f"{i}.txt", *pair(i, dim))
    return folder


def test_a_folder_becomes_a_shard(tmp_path: Path) -> None:
    from translator.shards.pairs import HELD_OUT, KINDS, TRAIN, Pairs

    folder, out = write_folder(tmp_path / "texts", 40), tmp_path / "new" / "wit.parquet"
    assert import_pairs([folder], out, "wit", "image", CLIP, CLAP) == 40
    shards = open_shards([out])
    assert (shards[0].source, shards[0].clip_space, shards[0].clap_space, shards[0].dim) == ("wit", CLIP, CLAP, 8)
    pairs = Pairs(shards, held_out=0.2)
    assert pairs.train + pairs.held_out == 40 and 0 < pairs.held_out < 20
    for batch in pairs.buffers(TRAIN, HELD_OUT):
        assert {KINDS[kind] for kind in batch.kind} == {"image"}
        expected = [pair(i, 8) for i in range(40)]
        assert all(map(np.array_equal, (batch.clip, batch.clap), map(np.stack, zip(*expected, strict=True))))
    before = out.read_bytes()
    with pytest.raises(InputError, match="wit.parquet already exists"):
        import_pairs([folder], out, "wit", "image", CLIP, CLAP)
    assert out.read_bytes() == before and [path.name for path in out.parent.iterdir()] == ["wit.parquet"]


def test_a_bad_file_among_good_ones_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("translator.shards.parquet.ROW_GROUP", 4)  # some are written before it comes
    folder = write_folder(tmp_path / "texts", 10)
    write_text_pair(folder / "8b.txt", *pair(0, dim=9))
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="8b in .* has 9 numbers, 0 has 8"):
        import_pairs([folder], tmp_path / "out" / "x.parquet", "wit", "image", CLIP, CLAP)
    assert not list((tmp_path / "out").iterdir())


def test_the_tables_that_the_thesis_made_before(tmp_path: Path) -> None:
    """CLIP's vectors a number to a field, or printed beside their caption; CLAP's as Python prints a list."""
    draw = np.random.default_rng(0)
    clip, clap = (draw.standard_normal((30, 512)).astype(np.float32) for _ in range(2))
    numbers, printed, lists = (tmp_path / f"{name}.csv" for name in ("numbers", "printed", "CLAP"))
    with open(numbers, "w", newline="") as file:
        csv.writer(file).writerows([range(512), *clip.tolist()])
    with open(printed, "w", newline="") as file:
        csv.writer(file).writerows([["caption", "embedding"], *(["a dog, 2 cats", str(row[None])] for row in clip)])
    with open(lists, "w", newline="") as file:
        csv.writer(file).writerows([["embedding"], *([str(row)] for row in clap.tolist())])
    for number, table in enumerate((numbers, printed)):
        out = tmp_path / f"{number}.parquet"
        assert import_pairs([table, lists], out, "audiocaps", "text", CLIP, CLAP) == 30
        rows = pq.read_table(out).to_pylist()
        np.testing.assert_allclose([row["clip"] for row in rows], clip, atol=1e-6)
        np.testing.assert_allclose([row["clap"] for row in rows], clap, atol=1e-6)
    with open(lists, "a", newline="") as file:
        csv.writer(file).writerow([str(clap[0].tolist())])
    with pytest.raises(InputError, match="different numbers of rows"):
        import_pairs([numbers, lists], tmp_path / "x.parquet", "audiocaps", "text", CLIP, CLAP)
    with pytest.raises(InputError, match="one folder of text files, or two tables"):
        import_pairs([numbers, lists, printed], tmp_path / "x.parquet", "audiocaps", "text", CLIP, CLAP)
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("header", [None, [""], ["Unnamed: 0"]])
def test_no_pair_is_lost_to_a_missing_header_and_no_row_number_is_taken_for_a_number(
    tmp_path: Path, header: list[str] | None
) -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    numbers, printed = tmp_path / "numbers.csv", tmp_path / "printed.csv"
    with open(numbers, "w", newline="") as file:
        rows = vectors.tolist() if header is None else [[i, *row] for i, row in enumerate(vectors.tolist())]
        csv.writer(file).writerows(rows if header is None else [[*header, *range(16)], *rows])
    with open(printed, "w", newline="") as file:
        csv.writer(file).writerows([str(row)] for row in vectors.tolist())
    found = list(table_pairs(numbers, printed))
    assert [name for name, _, _ in found] == ["1", "2", "3", "4", "5"]
    np.testing.assert_allclose([clip for _, clip, _ in found], vectors, atol=1e-6)
    np.testing.assert_allclose([clap for _, _, clap in found], vectors, atol=1e-6)
    with open(numbers, "a", newline="") as file:
        csv.writer(file).writerow([1.0] * 30)
    with pytest.raises(InputError, match="as many fields as the header" if header else "different|30 numbers"):
        list(table_pairs(numbers, printed))


def test_of_a_printed_vector_and_other_fields_only_the_vector_is_taken(tmp_path: Path) -> None:
    """As AudioCaps has them: ids, start times and captions, in any order and with any names, also without a header."""
    vectors = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    tables = {
        "ids": [["audiocap_id", "embedding"], *([1000 + i, row.tolist()] for i, row in enumerate(vectors))],
        "all": [["embedding", "audiocap_id", "youtube_id", "start_time", "caption"],
                *([str(row), i, "x-y_z", 30, "[a dog barks]"] for i, row in enumerate(vectors))],
        "bare": [[f"tensor({row.tolist()})", i, "youtube"] for i, row in enumerate(vectors)],
    }  # fmt: skip
    for name, rows in tables.items():
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
        found = list(table_pairs(tmp_path / f"{name}.csv", tmp_path / "ids.csv"))
        for place in (1, 2):
            np.testing.assert_allclose([pair[place] for pair in found], vectors, atol=1e-6)
    with open(tmp_path / "both.csv", "w", newline="") as file:
        csv.writer(file).writerows([["caption", "clip", "clap"], ["a dog", vectors[0].tolist(), vectors[1].tolist()]])
    with pytest.raises(InputError, match="both.csv, line 2, has 2 vectors"):
        list(table_pairs(tmp_path / "both.csv", tmp_path / "both.csv"))


def test_the_length_of_the_vectors_is_that_of_the_spaces(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "texts", 3)
    with pytest.raises(InputError, match="0 in .*texts has 8 numbers, the model's spaces have 512"):
        import_pairs([folder], tmp_path / "x.parquet", "wit", "image", CLIP, CLAP, 512)
    assert import_pairs([folder], tmp_path / "x.parquet", "wit", "image", CLIP, CLAP, 8) == 3


@pytest.mark.parametrize(
    "given, out, source, spaces, said",
    [
        (["a.csv"], "x.parquet", "wit", (CLIP, CLAP), "one folder of text files, or two tables"),
        (["a.csv", "texts"], "x.parquet", "wit", (CLIP, CLAP), "one folder of text files, or two tables"),
        (["nowhere"], "x.parquet", "wit", (CLIP, CLAP), "no such file or folder: nowhere"),
        (["a.csv", "nowhere.csv"], "x.parquet", "wit", (CLIP, CLAP), "no such file or folder: nowhere.csv"),
        (["texts"], "x", "wit", (CLIP, CLAP), "must end in .parquet, not x"),
        (["texts"], "x.parquet", " ", (CLIP, CLAP), "the name of the source is empty"),
        (["texts"], "x.parquet", "wit", ("bad name", CLAP), 'not "bad name"'),
        (["texts"], "x.parquet", "wit", (CLIP, "UP"), '"UP"'),
    ],
)
def test_what_cannot_be_imported_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch, given: list[str], out: str, source: str, spaces: tuple[str, str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("texts"), 3)
    Path("a.csv").write_text("1,2\n")
    with pytest.raises(InputError, match=said):
        import_pairs(list(map(Path, given)), Path(out), source, "text", *spaces)
    assert sorted(path.name for path in Path().iterdir()) == ["a.csv", "texts"]
