"""AudioCaps (Kim et al., NAACL 2019): 57,188 captions of sounds, in a CSV for each split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from audioldm.checkpoints.download import cache_dir, download
from audioldm.errors import InputError
from translator.files import sha256

from ..readers.captions import CLEANING, Cleaning
from ..readers.files import FileReader, Sources, find_files
from ..readers.rows import Row
from ..readers.tables import open_table, table_rows

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
# The paper's files, at the last commit that changed them; dataset2.0/ in the same repository is another collection.
COMMIT = "80fb3ade6d400d4311354a360db25da051a48cc1"
URL = f"https://raw.githubusercontent.com/cdjkim/audiocaps/{COMMIT}/dataset/"
SHA256 = {
    "train": "c0c5223db682b3bf724ce7e7ce58d5b36929f74572e8526a7211f92d2eef7c8e",
    "val": "dab1c96641d5f3053ddb99dca3949450da9a75737bda53e11cc0aa8b102be0c3",
    "test": "b91c4b7ded2f4f6e7db5b9c4983dc1e1dca3d556f505b61e3fd65cac7e1c638a",
}


def published(splits: Iterable[str] = tuple(SHA256), folder: Path | None = None) -> list[Path]:
    """The published CSV files of ``splits``; they are downloaded once.

    Args:
        splits: train, val, test.
        folder: where to keep them; None: ``audiocaps`` in the folder for checkpoints.

    Raises InputError: there is no such split; the download fails or is not the published file.
    """
    folder, files = folder or cache_dir() / "audiocaps", []
    for split in splits:
        if split not in SHA256:
            raise InputError(f"AudioCaps has no split {split}; available: {', '.join(SHA256)}")
        check = partial(_fault, wanted=SHA256[split])
        path = download(f"{URL}{split}.csv", folder / f"{split}.csv", check=check)
        if fault := check(path):  # ``download`` compares with the first download, not with the published hash
            raise InputError(f"{path} {fault}; delete it to download it again")
        files.append(path)
    return files


def _fault(path: Path, wanted: str) -> str | None:
    return None if sha256(path) == wanted else "is not the published file: its SHA-256 differs"


class AudioCaps(FileReader):
    """Captions without pictures. The split is the file's name; ids are the publisher's."""

    name = "audiocaps"
    rename = False

    def __init__(
        self, sources: Sources | None = None, *, splits: Iterable[str] | None = None, cleaning: Cleaning = CLEANING
    ) -> None:
        """Args:
            sources: CSV files, folders or patterns; None: the published files, which are downloaded.
            splits: names of files without their ending, in this order; None: all, train before val before test.
            cleaning: the requirements on captions.

        Raises InputError: a file is missing or not a table of AudioCaps; the download fails.
        """
        splits = None if splits is None else list(splits)
        if sources is None:
            files = published(SHA256 if splits is None else splits)
        else:
            order = list(SHA256)
            files = sorted(find_files(sources, (".csv",)), key=lambda path: [*order, path.stem].index(path.stem))
        if splits is not None:
            by_name = {path.stem: path for path in files}
            for split in splits:
                if split not in by_name:
                    raise InputError(f"there is no {split}.csv; available: {', '.join(path.name for path in files)}")
            files = [by_name[split] for split in splits]
        super().__init__(files, cleaning)
        self.refuse_if_all(lambda path: open_table(path, None, COLUMNS))

    @property
    def total(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sum(1 for _ in self._all_rows())

    def rows(self, path: Path) -> Iterator[Row]:
        table = open_table(path, None, COLUMNS)
        identity, caption = table.names.index("audiocap_id"), table.names.index("caption")
        for row, fields in table_rows(table, self.name, path.stem):
            yield row if row.error else replace(row, id=fields[identity] or row.id, caption=fields[caption])
