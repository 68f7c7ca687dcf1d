"""AudioCaps (Kim et al., NAACL 2019): 57,188 captions of sounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from audioldm.errors import InputError

from ..readers.captions import CLEANING, Cleaning
from ..readers.files import FileReader, Sources, find_files
from ..readers.rows import Row
from ..readers.tables import open_table, table_rows

COLUMNS = ("audiocap_id", "caption")  # of those in the published tables, the ones that are read
SPLITS = ["train", "val", "test"]
# The captions of the paper's three tables, with a column for the split (github.com/cdjkim/audiocaps, commit 80fb3ad).
BUNDLED = Path(__file__).with_name("captions.csv.gz")


class AudioCaps(FileReader):
    """Captions without pictures. Ids are the publisher's."""

    name = "audiocaps"
    rename = False

    def __init__(
        self, sources: Sources | None = None, *, splits: Iterable[str] | None = None, cleaning: Cleaning = CLEANING
    ) -> None:
        """Args:
            sources: CSV files as published, whose names are the splits, or folders or patterns; None: the captions
                that come with this package.
            splits: their names; None: all, train before val before test.
            cleaning: the requirements on captions.

        Raises InputError: a file is missing or not a table of AudioCaps; there is no such split.
        """
        self._splits = None if splits is None else tuple(splits)
        if sources is None:
            files, available = [BUNDLED], SPLITS
        else:
            files = sorted(find_files(sources, (".csv",)), key=lambda path: [*SPLITS, path.stem].index(path.stem))
            available = [path.stem for path in files]
        for split in self._splits or ():
            if split not in available:
                raise InputError(f"AudioCaps has no split {split} here; available: {', '.join(available)}")
        if self._splits is not None and sources is not None:
            files = [files[available.index(split)] for split in self._splits]
        options = {"splits": self._splits} if self._splits is not None and sources is None else {}
        super().__init__(files, cleaning, **options)
        self.refuse_if_all(lambda path: open_table(path, None, COLUMNS))

    @property
    def total(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sum(1 for _ in self._all_rows())

    def rows(self, path: Path) -> Iterator[Row]:
        table = open_table(path, None, COLUMNS)
        identity, caption = (table.names.index(name) for name in COLUMNS)
        split = table.names.index("split") if "split" in table.names else None
        for row, fields in table_rows(table, self.name, path.stem):
            if not row.error:
                row = replace(row, id=fields[identity] or row.id, caption=fields[caption])
                row = row if split is None else replace(row, split=fields[split])
            if split is None or self._splits is None or row.split in self._splits:
                yield row
