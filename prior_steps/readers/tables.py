"""Published tables of captions: a row for each record, whatever state the lines are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from translator import InputError
from translator.tables import UNREADABLE, Table

from .rows import MALFORMED, Row


def open_table(path: Path, delimiter: str | None, wanted: Sequence[str]) -> Table:
    """The table at ``path``, all of whose records have the columns of its first line.

    Raises InputError: it cannot be read, or lacks a column of ``wanted``.
    """
    table = Table(path, delimiter)
    if missing := [name for name in wanted if name not in table.names]:
        raise InputError(f"{path} has no column {missing[0]} in its first line; required: {', '.join(wanted)}")
    table.columns = len(table.names)
    return table


def table_rows(table: Table, source: str, split: str) -> Iterator[tuple[Row, list[str]]]:
    """For each record, a row that has its place, FILE:LINE, as id, and the record's fields.

    The row has failed if the record lacks columns, has too many or cannot be read.
    """
    for record in table:
        place = f"{table.path.name}:{record.line}"
        row, count = Row(place, source, split=split), len(record.fields)
        if record.error == UNREADABLE:
            row = row.failed(MALFORMED, f"{place} {UNREADABLE}")
        elif count != table.columns:
            row = row.failed(MALFORMED, f"{place} has {count} columns instead of {table.columns}")
        yield row, record.fields
