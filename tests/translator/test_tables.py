"""The one reader of tables: delimiters, encodings, line ends, quotes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from translator import InputError
from translator.tables import BAD_QUOTES, UNREADABLE, Record, Table

ROWS = ["File;Label\n", "dög.jpg;dog\n", '"a;b";"two\nlines"\n']


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gz"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets(tmp_path: Path, delimiter: str, encoding: str, end: str) -> None:
    text = "".join(ROWS).replace(";", delimiter).replace("\n", end)
    path = tmp_path / ("t.csv.gz" if encoding == "gz" else "t.csv")
    path.write_bytes(gzip.compress(text.encode()) if encoding == "gz" else text.encode(encoding))
    table = Table(path)
    assert (table.delimiter, table.names) == (delimiter, ["file", "label"])
    wanted = [["dög.jpg", "dog"], [f"a{delimiter}b", f"two{end}lines"]]
    assert [record.fields for record in table] == [record.fields for record in table] == wanted
    assert [record.line for record in table] == [2, 3] and not any(record.error for record in table)


def test_a_damaged_line_costs_one_record(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\nname,label\n"open,dog\n\xff,dog\na\0,b\n' + b"x" * 1_100_000 + b'\n"a","b"\nlast,one')
    assert [(record.line, record.error) for record in Table(path)] == [
        (3, BAD_QUOTES), (4, UNREADABLE), (5, UNREADABLE), (6, UNREADABLE), (7, None), (8, None)
    ]  # fmt: skip


def test_quotes_that_lead_to_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text('a\tb\n"x\ty"\n"1"\t"2"\n')
    table = Table(path)
    table.columns = 2
    assert list(table) == [Record(2, ['"x', 'y"'], BAD_QUOTES), Record(3, ["1", "2"])]
    plain = Table(path, "\t", quoted=False, header=False)
    assert [record.fields for record in plain] == [["a", "b"], ['"x', 'y"'], ['"1"', '"2"']]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b")[:9])
    for path in (tmp_path / "none.csv", tmp_path / "t.csv.gz", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            Table(path)
    (tmp_path / "empty.csv").write_bytes(b"")
    assert (table := Table(tmp_path / "empty.csv")).names == list(table) == []


@pytest.mark.parametrize("header", ["file|label", "#file,label", "“file”,“label”", "# File ; Label"])
def test_more_headers(tmp_path: Path, header: str) -> None:
    delimiter = next(sign for sign in "|,;" if sign in header)
    (tmp_path / "t.csv").write_text(f"{header}\ndog.jpg{delimiter}dog\n")
    table = Table(tmp_path / "t.csv")
    assert table.names == ["file", "label"] and [record.fields for record in table] == [["dog.jpg", "dog"]]


def test_a_text_that_begins_with_capitals(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("RIFFs,label\na,b\n")
    assert Table(tmp_path / "t.csv").names == ["riffs", "label"]


@pytest.mark.parametrize("content", [gzip.compress(b"file,label\na,b\n"), b"file,label\na,b\n"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_the_content_decides_whether_a_file_is_packed(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert [record.fields for record in Table(tmp_path / name)] == [["a", "b"]]


def test_utf_32(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("file,label\n犬.jpg,dog\n".encode("utf-32"))
    assert [record.fields for record in Table(tmp_path / "t.csv")] == [["犬.jpg", "dog"]]


def test_damage_in_utf_16_costs_one_record(tmp_path: Path) -> None:
    data = "file,label\na.jpg,dog\nb.jpg,cat\n".encode("utf-16-le").replace("dog".encode("utf-16-le"), b"\x00\xdcog")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe" + data)
    assert [record.error for record in Table(tmp_path / "t.csv")] == [UNREADABLE, None]


def test_a_zero_byte_costs_one_record(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"file,label\na\0.jpg,dog\nb.jpg,cat\n")
    assert [record.error for record in Table(tmp_path / "t.csv")] == [UNREADABLE, None]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,label\na,b\n".encode("utf-16-le"), "UTF-16 without a byte order mark; save it as UTF-8"),
        ("file,label\na,b\n".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        (b"PK\3\4" + bytes(60), "is not a text, but a ZIP or Office file"), (b"%PDF-1.7 x", "but a PDF"),
        (b"\x89PNG\r\n\x1a\n", "but a picture"), (bytes(99), "is not a text"),
    ],
)  # fmt: skip
def test_files_that_are_no_text(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        Table(tmp_path / "t.csv")


def test_more_fields_than_the_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,label\na.jpg,dog,\na,b.jpg,dog\n")
    first, second = Table(tmp_path / "t.csv")
    assert first.error is None and str(second.error).startswith("has more fields than the header")
