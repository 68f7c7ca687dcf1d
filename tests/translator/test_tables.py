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
