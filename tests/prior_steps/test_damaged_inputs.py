"""Data sets as they come: other layouts, cut files, odd records; one bad row is a row, and the rest goes on."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pictures import encode
from PIL import Image
from runs import rows_of

from audioldm.commands import translator
from audioldm.errors import InputError
from prior_steps.audiocaps import embedding as audiocaps
from prior_steps.audiocaps.reader import AudioCaps
from prior_steps.conceptual_captions import embedding
from prior_steps.conceptual_captions.reader import ConceptualCaptions
from prior_steps.engine.write import Folder, shard_path, shards
from prior_steps.readers.rows import OK, Row
from prior_steps.wit.reader import Wit

JPEG = encode(Image.effect_noise((16, 16), 50).convert("RGB"), "JPEG")


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def statuses(rows: list[Row]) -> list[str]:
    return [row.status for row in rows]


# 7: layouts


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("", "{caption}\t{url}"),
        ("", "{url}\t{caption}"),
        ("caption\turl", "{caption}\t{url}"),
        ("url\tcaption", "{url}\t{caption}"),
        ("Image URL\tText", "{url}\t{caption}"),
        ("key\turl\tcaption\tlicence", "7\t{url}\t{caption}\tMIT"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_addresses(tmp_path: Path, header: str, order: str, end: str, encoding: str) -> None:
    pairs = [(f'a "dog" {n}', f"https://example.org/{n}.jpg") for n in range(5)]
    lines = [header] * bool(header) + [order.format(caption=caption, url=url) for caption, url in pairs]
    (tmp_path / "cc12m.tsv").write_bytes((end.join(lines) + end).encode(encoding))
    assert [(row.caption, row.url) for row in ConceptualCaptions(tmp_path)] == pairs


@pytest.mark.parametrize("line", ["a dog\tno address", "one\ttwo", "a dog,https://example.org/a.jpg", "https\tftp://a/b"])
def test_a_table_without_addresses_ends_the_run(tmp_path: Path, line: str) -> None:
    (tmp_path / "cc.tsv").write_text("\n".join([line] * 200))
    with pytest.raises(InputError, match="has no address of a picture in its first 100 rows; each row must have"):
        list(ConceptualCaptions(tmp_path))


@pytest.mark.parametrize("ending", ["avif", "bmp", "JPG", "tiff", "heic"])
def test_members_of_all_kinds_of_pictures(tmp_path: Path, ending: str) -> None:
    path = write_tar(tmp_path / "a.tar", {f"x/a.b/1.{ending}": JPEG, "x/a.b/1.txt": b"a dog"})
    (row,) = ConceptualCaptions(path)
    assert (row.status, row.caption, row.content) == (OK, "a dog", JPEG)


def test_no_member_vanishes(tmp_path: Path) -> None:
    members = {"1.jpg": JPEG, "1.txt": b"a dog", "2.mp4": b"x", "3.v2.jpg": JPEG, "3.v2.txt": b"x", "4.cls": b"1",
               "./5.jpg": JPEG, "./5.txt": b"a cat"}  # fmt: skip
    rows = list(ConceptualCaptions(write_tar(tmp_path / "a.tar", members)))
    assert statuses(rows) == [OK, "malformed", "malformed", "malformed", OK]
    assert "has no picture, but .v2.jpg, .v2.txt; pictures end in jpg" in str(rows[2].error)


# 9: cut files


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_cut_tar_costs_a_row_and_the_rest_goes_on(tmp_path: Path, ending: str, share: float) -> None:
    members = {f"{n}.{kind}": data for n in range(40) for kind, data in (("jpg", JPEG), ("txt", b"dog %d" % n))}
    whole = write_tar(tmp_path / f"a{ending}", members).read_bytes()
    if ending == ".tar.gz":
        whole = gzip.compress(gzip.decompress(whole), 0)
    (tmp_path / f"a{ending}").write_bytes(whole[: int(len(whole) * share)])
    write_tar(tmp_path / f"b{ending}", {"x.jpg": JPEG, "x.txt": b"a cat"})
    rows = list(ConceptualCaptions(tmp_path))
    assert rows[-1].caption == "a cat" and rows[-2].status == "damaged_file"
    assert f"cannot read {tmp_path}/a{ending}" in str(rows[-2].error) and "is missing" in str(rows[-2].error)
    assert sum(row.status == OK for row in rows) > 10 and len({row.id for row in rows}) == len(rows)


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_cut_gz_costs_a_row_and_the_rest_goes_on(tmp_path: Path, place: str) -> None:
    lines = "".join(f"dog {n * n}\thttps://example.org/{n * n}\n" for n in range(20_000))
    packed = gzip.compress(lines.encode())
    (tmp_path / ("a.tsv.gz" if place == "first" else "c.tsv.gz")).write_bytes(packed[:-2_000])
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b"a cat\thttps://example.org/cat\n"))
    rows = list(ConceptualCaptions(tmp_path))
    assert sum(row.status == "damaged_file" for row in rows) == 1 and any(row.caption == "a cat" for row in rows)
    assert len(rows) > 10_000


def test_an_id_that_comes_twice(tmp_path: Path) -> None:
    table = "audiocap_id,youtube_id,start_time,caption\n1,a,0,rain\n1,b,0,wind\n2,c,0,waves\n"
    (tmp_path / "val.csv").write_text(table)
    rows = list(AudioCaps(tmp_path))
    assert statuses(rows) == [OK, "duplicate", OK] and len({row.id for row in rows}) == 3
    assert rows[1].error == "the id 1 occurred before"


def test_a_caption_with_a_bare_line_end(tmp_path: Path) -> None:
    head = b"audiocap_id,youtube_id,start_time,caption\n"
    (tmp_path / "val.csv").write_bytes(head + b'1,a,0,a dog\rbarks\n2,b,0,"a cat\nmews"\n3,c,0,a\nb\n4,d,0,rain\n')
    rows = list(AudioCaps(tmp_path))
    good = [row.caption for row in rows if row.status == OK]
    assert good[:2] == ["a dog barks", "a cat mews"] and good[-1] == "rain" and statuses(rows).count("malformed") == 1


# 9: odd records of Parquet files


def parquet(path: Path, records: list[dict[str, Any]], schema: Any = None) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(records, schema=schema), path)
    return path


def page(**columns: Any) -> dict[str, Any]:
    given = {"language": ["en"], "caption_reference_description": ["a dog"], "caption_alt_text_description": [None]}
    return {**given, **columns}


def test_records_with_nulls_and_lists_of_unequal_length(tmp_path: Path) -> None:
    image = {"bytes": JPEG, "path": None}
    records = [
        {"image": image, "image_url": None, "wit_features": page()},
        {"image": None, "image_url": "http://a/1", "wit_features": page()},
        {"image": {"bytes": None, "path": None}, "image_url": "http://a/1", "wit_features": page()},
        {"image": image, "image_url": "http://a/2", "wit_features": None},
        {"image": image, "image_url": "http://a/3", "wit_features": page(language=["en", "de"])},
        {"image": image, "image_url": "http://a/4", "wit_features": page(caption_reference_description=None)},
        {"image": image, "image_url": "http://a/5", "wit_features": page(caption_reference_description=["a cat"])},
    ]
    rows = list(Wit(parquet(tmp_path / "a.parquet", records)))
    assert statuses(rows) == [OK, "malformed", "malformed", "other_language", "malformed", "empty_caption", OK]
    assert "lists of unequal length" in str(rows[4].error)


def test_numbers_where_text_belongs(tmp_path: Path) -> None:
    image = {"bytes": JPEG, "path": None}
    rows = list(Wit(parquet(tmp_path / "a.parquet", [
        {"image": image, "image_url": 7, "wit_features": page()},
    ])))  # fmt: skip
    assert statuses(rows) == ["malformed"] and "no text but a int under image_url" in str(rows[0].error)
    rows = list(Wit(parquet(tmp_path / "b.parquet", [
        {"image": image, "wit_features": page(caption_reference_description=[5])},
    ])))  # fmt: skip
    assert statuses(rows) == ["malformed"] and "under caption_reference_description" in str(rows[0].error)


def test_a_cut_parquet_file_beside_a_whole_one(tmp_path: Path) -> None:
    records = [{"image": {"bytes": JPEG, "path": None}, "wit_features": page()}]
    whole = parquet(tmp_path / "b.parquet", records).read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-100])
    rows = list(Wit(tmp_path))
    assert statuses(rows) == ["damaged_file", OK]
    with pytest.raises(InputError, match="cannot read"):
        Wit(tmp_path / "a.parquet")


# 9: a rerun after a file was replaced or removed


def settings(reader: ConceptualCaptions) -> dict[str, Any]:
    return {"input": reader.fingerprint, "files": reader.parts, "reading": reader.fingerprint_of_options,
            "rows_per_shard": 2, "towers": ["clip"]}  # fmt: skip


def make_run(source: Path, out: Path) -> None:
    """What a run leaves behind, without a model: shards of two rows each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = ConceptualCaptions(source)
    with Folder(out, settings(reader), {}) as folder:
        rows = list(reader)
        folder.manifest["starts"] = dict(reader.starts)
        for k in range(0, (len(rows) + 1) // 2):
            if k not in folder.done:
                part = rows[2 * k : 2 * k + 2]
                columns = {"id": [row.id for row in part], "status": [row.status for row in part]}
                pq.write_table(pa.table(columns), shard_path(out, reader.name, k))
                folder.add(k, {OK: len(part)}, 0)
        folder.finish()


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_rerun_goes_on_after_a_file_changed(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        lines = "".join(f"{name} {n}\thttps://example.org/{name}/{n}\n" for n in range(4))
        (tmp_path / "in" / f"{name}.tsv").write_text(lines)
    make_run(tmp_path / "in", tmp_path / "out")
    before = {k: path.stat().st_mtime_ns for k, path in shards(tmp_path / "out").items()}
    assert list(before) == [0, 1, 2, 3, 4, 5]
    if change == "replaced":
        (tmp_path / "in" / "b.tsv").write_text("new\thttps://example.org/new\n" * 1)
    else:
        (tmp_path / "in" / "b.tsv").unlink()
    make_run(tmp_path / "in", tmp_path / "out")
    assert "b.tsv has changed since: 4 of the shards" in caplog.text
    after = {k: path.stat().st_mtime_ns for k, path in shards(tmp_path / "out").items()}
    assert list(after) == ([0, 1, 2, 3, 4] if change == "replaced" else [0, 1, 2, 3])
    assert [k for k in after if after[k] == before[k]] == [0, 1]


def test_another_input_is_refused_still(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.tsv").write_text(f"{name}\thttps://example.org/{name}\n")
    make_run(tmp_path / "a", tmp_path / "out")
    with pytest.raises(InputError, match="belongs to another run: input"):
        make_run(tmp_path / "b", tmp_path / "out")


# 9: the whole way, from damaged files to a trained translator


def test_train_on_what_damaged_and_odd_sets_gave(tmp_path: Path, tiny_folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("AUDIOLDM_CACHE_DIR", str(tmp_path / "cache"))
    noise = [encode(Image.effect_noise((24, 24), 20 + n).convert("RGB"), "JPEG") for n in range(60)]
    members = {f"{n}.{kind}": data for n in range(60) for kind, data in (("jpg", noise[n]), ("txt", b"sound %d" % n))}
    members |= {"x.jpg": b"no picture", "x.txt": b"rain", "y.jpg": noise[0], "z.txt": b"wind", "w.jpg": noise[1],
                "w.txt": b"\xff\xfe", "v.jpg": noise[2][:300], "v.txt": b"waves"}  # fmt: skip
    whole = write_tar(tmp_path / "in.tar", members).read_bytes()
    others = {f"a{name}": data.replace(b"sound", b"noise") for name, data in members.items()}
    cut = write_tar(tmp_path / "more.tar", others).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "in" / "b.tar").write_bytes(whole)
    (tmp_path / "in" / "c.tsv").write_text("a dog\tno address\nrain\thttp://127.0.0.1:1/x.jpg\ttoo many\nrain\t\n"
                                          "wind\thttp://127.0.0.1:1/y.jpg\n")  # fmt: skip
    arguments = [str(tmp_path / "in"), "--model", str(tiny_folder), "--rows_per_shard", "40", "--device", "cpu",
                 "--cache", str(tmp_path / "fetched"), "--out", str(tmp_path / "shards")]  # fmt: skip
    assert embedding.main(arguments) == 1  # rows failed
    found = Counter(row["status"] for row in rows_of(tmp_path / "shards"))
    assert found[OK] > 80 and found["malformed"] >= 5 and found["damaged_file"] == 1, found
    assert found["not_an_image"] == 1 and found["damaged_image"] == 1, found
    names = ["wit_cos_16", "ridge"]
    command = ["train", *names, "--data", str(tmp_path / "shards"), "--epochs", "2", "-o", str(tmp_path / "made")]
    assert translator.main(command) == 0, capsys.readouterr().err
    assert {path.stem for path in (tmp_path / "made").glob("*.safetensors")} == set(names)


# 2 and 9: captions of sounds in other tables, and one bad file among good ones

HEADER = "audiocap_id,youtube_id,start_time,caption\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_captions_in_tables_of_all_kinds(tmp_path: Path, delimiter: str, encoding: str) -> None:
    text = f"{HEADER}1,a,0,rain\n2,b,0,wind\n".replace(",", delimiter)
    (tmp_path / "val.csv").write_bytes(text.encode(encoding))
    assert [(row.id, row.caption) for row in AudioCaps(tmp_path)] == [("1", "rain"), ("2", "wind")]


@pytest.mark.parametrize("bad", [b"", b"x,y\n1,2\n", b"PK\3\4" + bytes(40)])
def test_one_bad_table_does_not_end_the_run(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "train.csv").write_text(f"{HEADER}1,a,0,rain\n")
    (tmp_path / "val.csv").write_bytes(bad)
    reader = AudioCaps(tmp_path)
    assert statuses(list(reader)) == [OK, "damaged_file"] and reader.total == 2


def test_one_damaged_table_of_addresses_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(b"\x1f\x8b cut")
    (tmp_path / "b.tsv").write_text("a cat\thttps://example.org/cat\n")
    (tmp_path / "c.tsv").write_bytes(gzip.compress(b"a dog\thttps://example.org/dog\n"))  # packed, by another name
    rows = list(ConceptualCaptions(tmp_path))
    assert sorted(statuses(rows)) == ["damaged_file", OK, OK]
    assert {row.caption for row in rows if row.status == OK} == {"a cat", "a dog"}


def test_no_rows_are_no_success(tmp_path: Path, tiny_folder: Path, capsys) -> None:
    (tmp_path / "val.csv").write_text(HEADER)
    arguments = ["--csv", str(tmp_path / "val.csv"), "--model", str(tiny_folder), "--out", str(tmp_path / "out")]
    assert audiocaps.main(arguments) == 2 and "the input has no rows" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "says"), [("--csv", "no such file"), ("--out", "home folder of nobody")])
def test_the_home_of_nobody(tmp_path: Path, tiny_folder: Path, flag: str, says: str, capsys) -> None:
    (tmp_path / "val.csv").write_text(f"{HEADER}1,a,0,rain\n")
    given = {"--csv": str(tmp_path / "val.csv"), "--model": str(tiny_folder), "--out": str(tmp_path / "out")}
    arguments = [word for pair in {**given, flag: "~nosuch/x"}.items() for word in pair]
    assert audiocaps.main(arguments) == 2 and says in capsys.readouterr().err
