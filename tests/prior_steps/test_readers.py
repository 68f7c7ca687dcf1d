"""Readers of captions and pictures: the real AudioCaps, and files in the published forms, sound and damaged."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import re
import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from pictures import JPEG, encode
from PIL import Image
from wit_table import COLUMNS, wit_line, write_wit

from audioldm.errors import InputError
from prior_steps.audiocaps.reader import BUNDLED, AudioCaps
from prior_steps.conceptual_captions.reader import ConceptualCaptions
from prior_steps.readers.captions import Cleaning, Seen, clean, digest
from prior_steps.readers.files import find_files, split_of
from prior_steps.readers.rows import OK, Row
from prior_steps.wit.reader import Wit

AUDIOCAPS = Path(__file__).resolve().parents[3] / "shared" / "audiocaps"
HEADER = "audiocap_id,youtube_id,start_time,caption\n"
PNG = encode(Image.new("L", (9, 9)))


def statuses(rows) -> dict[str, int]:
    return dict(Counter(row.status for row in rows))


# What all readers do


@pytest.fixture
def readers(tmp_path):
    """One of each kind, with rejected rows among them."""
    (tmp_path / "train.csv").write_text(HEADER + "1,a,0,A dog barks\n2,b,0,A dog barks\nbroken\n")
    write_wit(tmp_path / "w.tsv", wit_line("http://a/1", "one"), wit_line("http://a/1", "one"), ["x"])
    (tmp_path / "c.tsv").write_text("a cat\thttp://a/1\na cat\thttp://a/1\nbroken\n")
    write_tar(tmp_path / "c.tar", {"1.jpg": JPEG, "1.txt": b"a cat", "2.jpg": JPEG, "2.txt": b"a cat", "3.jpg": JPEG})
    return [
        AudioCaps(tmp_path / "train.csv"),
        Wit(tmp_path / "w.tsv"),
        ConceptualCaptions(tmp_path / "c.tsv"),
        ConceptualCaptions(tmp_path / "c.tar"),
    ]


def test_every_reading_is_the_same_and_every_row_has_its_id(readers):
    for reader in readers:
        rows = list(reader)
        assert statuses(rows) == {OK: 1, "duplicate": 1, "malformed": 1}
        assert list(reader) == rows == list(pickle.loads(pickle.dumps(reader)))
        assert len({row.id for row in rows}) == len(rows) == (reader.total or 3)
        assert {row.source for row in rows} == {reader.name}
        for row in rows:
            assert (row.status == OK) == (row.error is None)
            assert row.status == OK or row.content is None


def test_the_same_pair_has_the_same_id_in_any_file(tmp_path):
    first, second = tmp_path / "a.tsv", tmp_path / "b.tsv"
    first.write_text("a cat\thttp://a/1\na dog\thttp://a/2\n")
    second.write_text("a  dog \thttp://a/2\n")
    assert [row.id for row in ConceptualCaptions(second)] == [row.id for row in ConceptualCaptions(first)][1:]


def test_fingerprints(tmp_path):
    def write(folder, text):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "c.tsv").write_text(text)
        return ConceptualCaptions(tmp_path / folder).fingerprint

    known = write("a", "a cat\thttp://a/1\n")
    assert len(known) == 16 and write("b", "a cat\thttp://a/1\n") == known  # wherever it lies
    assert write("a", "a cow\thttp://a/1\n") != known
    assert ConceptualCaptions(tmp_path / "b", cleaning=Cleaning(max_characters=9)).fingerprint != known
    (tmp_path / "b" / "c.tsv").rename(tmp_path / "b" / "d.tsv")
    assert ConceptualCaptions(tmp_path / "b").fingerprint != known
    write_wit(tmp_path / "w.tsv", wit_line("http://a/1", "one"))
    options = {}, {"language": "de"}, {"language": None}, {"captions": ["caption_alt_text_description"]}
    assert len({Wit(tmp_path / "w.tsv", **each).fingerprint for each in (*options, {"mime_types": None})}) == 5


def test_a_large_file_is_told_by_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("prior_steps.readers.files.HASHED", 1000)
    path, prints = tmp_path / "c.tsv", set()
    for text in (b"a" * 3000, b"b" + b"a" * 2999, b"a" * 2999 + b"b", b"a" * 3001):
        path.write_bytes(text)
        prints.add(ConceptualCaptions(path).fingerprint)
    assert len(prints) == 4


def test_files_folders_and_patterns(tmp_path):
    for name in ("b.tsv", "a.tsv.gz", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in find_files(tmp_path, (".tsv", ".tsv.gz"))]
    assert names == ["a.tsv.gz", "b.tsv"]
    assert [path.name for path in find_files(str(tmp_path / "*.tsv*"), (".tsv", ".tsv.gz"))] == names
    both = [tmp_path / "b.tsv", tmp_path]
    assert [path.name for path in find_files(both, (".tsv", ".tsv.gz"))] == names[::-1]
    with pytest.raises(InputError, match="no such file"):
        find_files(tmp_path / "*.csv", (".csv",))
    with pytest.raises(InputError, match="is none of .csv"):
        find_files(tmp_path / "c.txt", (".csv",))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.tsv").write_bytes(b"")
    with pytest.raises(InputError, match="two of the files are called b.tsv"):
        find_files([tmp_path / "b.tsv", tmp_path / "more"], (".tsv",))


def test_splits():
    names = "wit_v1.train.all-00000-of-00010.tsv.gz Train_GCC-training.tsv Validation_GCC-1.1.0-Validation.tsv test.tsv"
    assert [split_of(Path(name)) for name in names.split()] == ["train", "train", "val", "test"]
    assert [split_of(Path(name)) for name in ("cc3m-00001.tar", "latest.tsv", "trainer.tsv")] == ["", "", ""]


# Captions


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  A  dog\tbarks\n", "A dog barks"),
        ("Th\u00c3\u00a9\u00c3\u00a2tre de la Ville", "Th\u00e9\u00e2tre de la Ville"),  # read as Latin-1 once
        ("Laurel &amp; Hardy", "Laurel & Hardy"),
        ("R&amp;B &lt;live&gt;", "R&B <live>"),
        ("\u201cquoted\u201d", '"quoted"'),
        ("e\u0301tude", "\u00e9tude"),
        ("no\u00a0break\x07 bell", "no break bell"),
        ("\u72ac", "\u72ac"),
        ("\u200b", "\u200b"),
    ],
)
def test_captions_are_repaired(text, wanted):
    assert clean(text) == wanted


def test_empty_long_and_repeated_captions_are_counted():
    captions = ["A dog", " \n ", "x" * 10, "x" * 11, "A  dog", "a dog"]
    rows = [Row(str(number), "s", text, content=b"a picture") for number, text in enumerate(captions)]
    cleaned = list(Cleaning(max_characters=10)(rows))
    assert [row.status for row in cleaned] == [OK, "empty_caption", OK, "long_caption", "duplicate", OK]
    assert [row.id for row in cleaned] == [row.id for row in rows]
    assert "11 characters" in cleaned[3].error and cleaned[3].content is None
    kept = Cleaning(drop_duplicates=False)
    assert statuses(kept(rows)) == {OK: 5, "empty_caption": 1}
    renamed = list(kept([Row("1", "s", "A dog"), Row("2", "s", "A dog")], rename=True))
    assert renamed[0].id != "1" and renamed[1].id == "2"  # unique all the same


def test_the_same_caption_of_another_picture_is_none_repeated():
    rows = [Row("1", "s", "x", url="u"), Row("2", "s", "x", url="v"), Row("3", "s", "x")]
    rows += [Row("4", "s", "x", content=b"a")]
    assert statuses(Cleaning()([*rows, Row("5", "s", "x", content=b"b")])) == {OK: 5}
    assert statuses(Cleaning()([*rows, *rows])) == {OK: 4, "duplicate": 4}


def test_a_row_that_failed_before_is_no_first_of_its_kind():
    rows = [Row("1", "s", "x").failed("other_type", "it is none"), Row("2", "s", "x")]
    assert [row.status for row in Cleaning()(rows)] == ["other_type", OK]


def test_seen_costs_little():
    keys = [digest(str(number)) for number in range(200_000)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    seen = Seen()
    assert all(seen.add(key) for key in keys)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert not any(seen.add(key) for key in keys[::7])
    assert grown < 9.5 * len(keys) + 100 * 2**Seen.BITS  # an empty array is 80 bytes


# AudioCaps


@pytest.mark.skipif(not AUDIOCAPS.is_dir(), reason="needs the shared files")
def test_the_real_audiocaps():
    reader = AudioCaps(AUDIOCAPS)
    rows = list(reader)
    assert reader.total == len(rows) == len({row.id for row in rows}) == 57_188
    assert rows[0] == Row("91139", "audiocaps", "A woman talks nearby as water pours", "train")
    assert Counter(row.split for row in rows) == {"train": 49_838, "val": 2_475, "test": 4_875}
    assert statuses(rows) == {OK: 52_248, "duplicate": 4_940}
    assert statuses(AudioCaps(AUDIOCAPS, cleaning=Cleaning(drop_duplicates=False))) == {OK: 57_188}
    assert [path.name for path in AudioCaps(AUDIOCAPS, splits=["test", "val"]).files] == ["test.csv", "val.csv"]
    assert list(AudioCaps()) == rows and AudioCaps().total == 57_188, "the bundled captions are the published ones"


def test_audiocaps_comes_with_the_package():
    assert BUNDLED.stat().st_size < 2_000_000
    reader = AudioCaps(splits=["test", "val"])
    rows = list(reader)
    assert Counter(row.split for row in rows) == {"val": 2_475, "test": 4_875} and reader.total == len(rows)
    assert reader.fingerprint != AudioCaps().fingerprint


def test_malformed_lines_are_rows(tmp_path):
    lines = [
        b'1,a,0,"Waves crash softly, someone hums"',
        b"2,b,0",
        b"3,c,0,A m\xe4n speaks",
        b"4,d,0,A zero \0 byte",
        b"",
        b'5,e,0,"A quote that never ends',
        b'6,f,0,A "quote" inside',
        b'7,g,0,"Two',
        b'lines"',
        b"8,h,0," + b"x" * 1_100_000,
        b",i,0,No id",
        b"9,j,0,The last line has no end",
    ]
    (tmp_path / "val.csv").write_bytes(b"\xef\xbb\xbf" + HEADER.encode() + b"\n".join(lines))
    reader = AudioCaps(tmp_path, cleaning=Cleaning(max_characters=40))
    rows = list(reader)
    assert [(row.id, row.caption) for row in rows if row.status == OK] == [
        ("1", "Waves crash softly, someone hums"),
        ("5", '"A quote that never ends'),
        ("6", 'A "quote" inside'),
        ("7", "Two lines"),
        ("val.csv:12", "No id"),
        ("9", "The last line has no end"),
    ]
    failed = {row.id: row.error for row in rows if row.status == "malformed"}
    assert list(failed) == ["val.csv:3", "val.csv:4", "val.csv:5", "val.csv:11"]
    assert "3 columns instead of 4" in failed["val.csv:3"] and "is not UTF-8" in failed["val.csv:4"]
    assert reader.total == len(rows) == 10


@pytest.mark.parametrize("text", ["", "id,caption\n", "\xff\xfe", "audiocap_id:youtube_id:start_time:caption\n"])
def test_what_is_no_audiocaps(tmp_path, text):
    (tmp_path / "val.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="val.csv has no column"):
        AudioCaps(tmp_path)


def test_an_unknown_split(tmp_path):
    (tmp_path / "val.csv").write_text(HEADER)
    assert list(AudioCaps(tmp_path)) == []
    with pytest.raises(InputError, match="AudioCaps has no split train here; available: val"):
        AudioCaps(tmp_path, splits=["train"])
    with pytest.raises(InputError, match="AudioCaps has no split dev"):
        AudioCaps(splits=["dev"])


# WIT


def test_wit_tables(tmp_path):
    lines = [
        wit_line("http://a/1", "the reference", "the alt text"),
        wit_line("http://a/2", alt="the alt text"),
        wit_line("http://a/3", "auf Deutsch", language="de"),
        wit_line("http://a/4", "a drawing", mime="image/svg+xml"),
        wit_line("http://a/5"),
        wit_line("http://a/1", "the reference"),
        wit_line("", "no address"),
        ["too", "few"],
        wit_line("http://a/6", 'He said "hi"', context_page_description='tabs\t"and"\nlines', section_title="a\nb"),
        wit_line("http://a/7", "x" * 513),
        wit_line("http://a/8", "Th\u00c3\u00a9\u00c3\u00a2tre"),
    ]
    for name in ("wit_v1.val.tsv", "wit_v1.val.tsv.gz"):
        rows = list(Wit(write_wit(tmp_path / name, *lines)))
        assert [row.status for row in rows] == [
            OK, OK, "other_language", "other_type", "empty_caption", "duplicate", "malformed", "malformed", OK,
            "long_caption", OK,
        ]  # fmt: skip
        good = {row.url: row.caption for row in rows if row.status == OK}
        assert list(good.values()) == ["the reference", "the alt text", 'He said "hi"', "Th\u00e9\u00e2tre"]
        assert {row.split for row in rows} == {"val"} and rows[2].id == f"{name}:4"


def test_wit_options(tmp_path):
    path = write_wit(
        tmp_path / "wit.tsv",
        wit_line("http://a/1", "the reference", "the alt text"),
        wit_line("http://a/2", "auf Deutsch", language="de", mime="image/svg+xml"),
    )
    assert [row.caption for row in Wit(path, captions=["caption_alt_text_description"])][:1] == ["the alt text"]
    assert statuses(Wit(path, language=None)) == {OK: 1, "other_type": 1}
    assert statuses(Wit(path, language=None, mime_types=None)) == {OK: 2}
    assert statuses(Wit(path, language=None, mime_types=["image/SVG+xml"])) == {OK: 1, "other_type": 1}
    assert statuses(Wit(path, language="de", mime_types=None)) == {OK: 1, "other_language": 1}
    with pytest.raises(InputError, match="has no column nonsense"):
        Wit(path, captions=["nonsense"])


def test_quotes_that_mean_nothing(tmp_path):
    captions = ['"An open', 'a " b', '"x" y']
    lines = [COLUMNS, *(wit_line("http://a/1", caption) for caption in captions)]
    (tmp_path / "wit.tsv").write_text("\n".join(map("\t".join, lines)))
    assert [row.caption for row in Wit(tmp_path)] == captions


def test_a_damaged_gz_is_one_sentence(tmp_path):
    path = write_wit(tmp_path / "wit.tsv.gz", *(wit_line(f"http://a/{n}", str(n * n)) for n in range(20_000)))
    path.write_bytes(path.read_bytes()[:-2000])
    *rows, rest = Wit(path)
    assert len(rows) > 10_000 and statuses(rows) == {OK: len(rows)} and rest.status == "damaged_file"
    assert re.match(rf"cannot read .*wit.tsv.gz: .*; what follows row {len(rows)} of it is missing", rest.error)
    path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(InputError, match="cannot read .*wit.tsv.gz"):
        Wit(path)
    path.write_bytes(b"not packed")
    with pytest.raises(InputError, match="wit.tsv.gz has no column language"):
        Wit(path)


def write_parquet(path: Path, records: list[dict], as_list: bool = False) -> Path:
    """``wit_features`` as the published files have it, a struct of lists, or as a list of structs."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    page = {"language": pa.string(), "page_title": pa.string(), "caption_reference_description": pa.string(),
            "caption_alt_text_description": pa.string()}  # fmt: skip
    if as_list:
        features = pa.list_(pa.struct(list(page.items())))
        records = [record | {"wit_features": _pages(record)} for record in records]
    else:
        features = pa.struct([(name, pa.list_(kind)) for name, kind in page.items()])
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = {"image": image, "b64_bytes": pa.string(), "image_url": pa.string(), "embedding": pa.list_(pa.float64()),
             "mime_type": pa.string(), "wit_features": features}  # fmt: skip
    fields = [(name, types[name]) for name in types if any(name in record for record in records)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(records, pa.schema(fields)), path)
    return path


def _pages(record: dict) -> list[dict] | None:
    features = record["wit_features"]
    if features is None:
        return None
    return [dict(zip(features, values, strict=True)) for values in zip(*features.values(), strict=True)]


def features(*pages: tuple[str, str | None, str | None]) -> dict[str, list]:
    languages, references, alts = zip(*pages, strict=True) if pages else ((), (), ())
    return {
        "language": list(languages),
        "page_title": ["x"] * len(pages),
        "caption_reference_description": list(references),
        "caption_alt_text_description": list(alts),
    }


@pytest.mark.parametrize("as_list", [False, True])
def test_wit_base(tmp_path, as_list):
    pages = ("de", "ein Hund", None), ("en", "a dog", "alt"), ("en", None, "a hound"), ("en", "a dog", None)
    jpeg, png = {"bytes": JPEG, "path": None}, {"bytes": PNG, "path": None}
    records = [
        {"image": jpeg, "image_url": "http://a/1", "wit_features": features(*pages)},
        {"image": png, "image_url": "http://a/2", "wit_features": features(*pages[:1])},
        {"image": png, "image_url": "http://a/3", "wit_features": features(("en", None, None))},
        {"image": None, "image_url": "http://a/4", "wit_features": features(pages[1])},
        {"image": png, "image_url": "http://a/5", "wit_features": None},
    ]
    records = [{**record, "embedding": [0.5] * 8, "mime_type": "image/svg+xml"} for record in records]
    rows = list(Wit(write_parquet(tmp_path / "train-00000-of-00330.parquet", records, as_list)))
    assert [(row.caption, row.content) for row in rows if row.status == OK] == [("a dog", JPEG), ("a hound", JPEG)]
    failed = ["duplicate", "other_language", "empty_caption", "malformed", "other_language"]
    assert [row.status for row in rows] == [OK, OK, *failed]
    assert len({row.id for row in rows}) == len(rows) and {row.split for row in rows} == {"train"}


def test_wit_in_base64(tmp_path):
    coded = base64.b64encode(JPEG).decode()
    records = [{"b64_bytes": text, "wit_features": features(("en", "a dog", None))} for text in (coded, "%", "", None)]
    rows = list(Wit(write_parquet(tmp_path / "a.parquet", records)))
    assert rows[0].content == JPEG and statuses(rows) == {OK: 1, "malformed": 3}


def test_a_large_picture_is_told_wherever_it_comes_from(tmp_path):
    contents = (b"\xff" * 20_000_000, b"\xff" * 20_000_001)
    pages = features(("en", "a dog", None))
    records = [{"image": {"bytes": content, "path": None}, "wit_features": pages} for content in contents]
    first, second = Wit(write_parquet(tmp_path / "a.parquet", records))
    assert (first.status, second.status, second.content) == (OK, "too_large", None)
    assert second.error == "the picture of a.parquet:1 is larger than 20 MB"


def test_what_is_no_wit_base(tmp_path):
    with pytest.raises(InputError, match="no pictures: neither a column image"):
        Wit(write_parquet(tmp_path / "a.parquet", [{"image_url": "x", "wit_features": features()}]))
    with pytest.raises(InputError, match="has no language in a column wit_features"):
        Wit(write_parquet(tmp_path / "b.parquet", [{"b64_bytes": "x"}]))
    (tmp_path / "c.parquet").write_bytes(b"PAR1 but not for long PAR1")
    with pytest.raises(InputError, match="cannot read .*c.parquet"):
        Wit(tmp_path / "c.parquet")


# Conceptual Captions


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_conceptual_captions_tables(tmp_path):
    lines = [
        b"a very typical bus station\thttp://lh6.example.com/a.jpg",
        b'" beginning with a quote\thttp://b.example.com/b.jpg',
        b'another "\thttp://b.example.com/c.jpg\r',
        b"no address",
        b"an empty one\t",
        b"\thttp://no.caption.example.com/",
        b"one\ttwo\tthree",
        b"a caf\xe9\thttp://d.example.com/",
    ]
    (tmp_path / "Train_GCC-training.tsv").write_bytes(b"\n".join(lines))
    rows = list(ConceptualCaptions(tmp_path))
    assert [row.caption for row in rows[:3]] == ["a very typical bus station", '" beginning with a quote', 'another "']
    assert rows[2].url == "http://b.example.com/c.jpg" and rows[0].split == "train"
    failed = ["malformed", "malformed", "empty_caption", "malformed", "malformed"]
    assert [row.status for row in rows] == [OK, OK, OK, *failed]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_webdataset(tmp_path, ending):
    facts = json.dumps({"caption": "from json", "url": "http://a/2"}).encode()
    members = {
        "00000/000.jpg": JPEG, "00000/000.txt": b"a cat\n", "00000/000.cls": b"3",
        "00000/001.json": facts, "00000/001.png": PNG,
        "00000/002.jpg": JPEG,
        "00000/003.txt": b"no picture",
        "00000/004.jpg": JPEG, "00000/004.json": b"{",
        "00000/005.jpg": JPEG, "00000/005.txt": b"\xff",
        "00000/006.jpg": b"\xff" * 20_000_001, "00000/006.txt": b"huge",
        "00000/007.jpg": JPEG, "00000/007.txt": b"",
        "00000/008.jpg": JPEG, "00000/008.json": b'{"caption": null}',
        "00000/009.jpg": JPEG, "00000/009.txt": b"text wins", "00000/009.json": facts,
        "README": b"",
        "010.jpg": PNG, "010.txt": b"a cat",
    }  # fmt: skip
    rows = list(ConceptualCaptions(write_tar(tmp_path / f"cc3m{ending}", members)))
    good = [(row.caption, row.url, row.content) for row in rows if row.status == OK]
    assert good == [
        ("a cat", None, JPEG),
        ("from json", "http://a/2", PNG),
        ("text wins", "http://a/2", JPEG),
        ("a cat", None, PNG),
    ]
    assert statuses(rows) == {OK: 4, "malformed": 5, "too_large": 1, "empty_caption": 1}
    assert [row.id for row in rows if row.status == "malformed"][0] == f"cc3m{ending}:2:00000/002"


def test_a_key_that_comes_twice_in_a_tar(tmp_path):
    path = write_tar(tmp_path / "d.tar", {"k.txt": b"no picture", "x.jpg": JPEG, "x.txt": b"a cat", "k.json": b"{}"})
    rows = list(ConceptualCaptions(path))
    assert statuses(rows) == {OK: 1, "malformed": 2} and len({row.id for row in rows}) == 3


def test_a_damaged_tar_is_one_sentence(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.jpg": JPEG * 99, "1.txt": b"a cat"})
    for data in (path.read_bytes()[:2000], b"no tar at all" * 99):
        path.write_bytes(data)
        with pytest.raises(InputError, match="cannot read .*a.tar"):
            list(ConceptualCaptions(path))


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_would_fill_the_memory(tmp_path, kind):
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(header(kind, 30 << 20))
        for _ in range(30):
            file.write(bytes(1 << 20))
        file.write(header(tarfile.REGTYPE, 0))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"cannot read .*a.tar.gz: the header of a file in it claims 31.5 MB"):
        list(ConceptualCaptions(tmp_path / "a.tar.gz"))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 << 20


def test_headers_upon_headers_are_one_sentence(tmp_path):
    (tmp_path / "a.tar").write_bytes(header(tarfile.XHDTYPE, 0) * 3000 + header(tarfile.REGTYPE, 0))
    with pytest.raises(InputError, match=r"cannot read .*a.tar: "):
        list(ConceptualCaptions(tmp_path / "a.tar"))


# Memory


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.tsv"
        with open(path, "w") as file:
            file.writelines(f"caption {number} of many\thttp://a.example.com/{number}\n" for number in range(count))
        reader = ConceptualCaptions(path)
        tracemalloc.start()
        assert sum(1 for _ in reader) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_000) - peak(2_000) < 18_000 * 15 + 60 * 2**14  # and small arrays are not packed as well
