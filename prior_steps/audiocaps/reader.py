"""AudioCaps (Kim et al., NAACL 2019): 57,188 captions of sounds, in a CSV for each split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from audioldm.checkpoints.download import cache_dir, download
from audioldm.errors import InputError
from translator.files import sha256

from ..readers.captions import CLEANING, Cleaning
from ..readers.files import FileReader, Sources, find_files
from ..readers.rows import Row
from ..readers.tables import open_table, table_rows

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
# The paper's files, at the last commit that touched them; dataset2.0/ in the same repository is another collection.
COMMIT = "80fb3ade6d400d4311354a360db25da051a48cc1"
URL = f"https://raw.githubusercontent.com/cdjkim/audiocaps/{COMMIT}/dataset/"
SHA256 = {
    "train": "c0c5223db682b3bf724ce7e7ce58d5b36929f74572e8526a7211f92d2eef7c8e",
    "val": "dab1c96641d5f3053ddb99dca3949450da9a75737bda53e11cc0aa8b102be0c3",
    "test": "b91c4b7ded2f4f6e7db5b9c4983dc1e1dca3d556f505b61e3fd65cac7e1c638a",
}


def published(splits: Iterable[str] = tuple(SHA256), folder: Path | None = None) -> list[Path]:
    """The published CSV files of ``splits``, downloaded unless they are there and whole.

    Args:
        folder: where they are; None: ``audiocaps`` in the folder for checkpoints.

    Raises InputError: no such split; offline, no space, not the published bytes.
    """
    folder, files = folder or cache_dir() / "audiocaps", []
    for split in splits:
        if split not in SHA256:
            raise InputError(f"AudioCaps has no split {split}, but {', '.join(SHA256)}")
        check = partial(_fault, wanted=SHA256[split])
        path = download(f"{URL}{split}.csv", folder / f"{split}.csv", check=check)
        if fault := check(path):  # download knows what it got the first time, not what it should have got
            raise InputError(f"{path} {fault}; delete it to have it downloaded anew")
        files.append(path)
    return files


def _fault(path: Path, wanted: str) -> str | None:
    return None if sha256(path) == wanted else "is not the published file: it has another SHA-256"


class AudioCaps(FileReader):
    """Captions without pictures. The split is the file's name, the id the publisher's."""

    name = "audiocaps"
    rename = False

    def __init__(
        self, sources: Sources | None = None, *, splits: Iterable[str] | None = None, cleaning: Cleaning = CLEANING
    ) -> None:
        """Args:
            sources: CSV files, folders of them, or patterns; None: the published files, downloaded if need be.
            splits: names of files without their ending, in this order; None: all, train before val before test.
            cleaning: what is asked of a caption.

        Raises InputError: no such file; not a table of AudioCaps; the download failed.
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
                    raise InputError(f"there is no {split}.csv, but {', '.join(path.name for path in files)}")
            files = [by_name[split] for split in splits]
        for path in files:
            open_table(path, ",", COLUMNS)
        super().__init__(files, cleaning)

    @cached_property
    def total(self) -> int:  # type: ignore[override]
        return sum(1 for path in self.files for _ in self.rows(path))

    def rows(self, path: Path) -> Iterator[Row]:
        table = open_table(path, ",", COLUMNS)
        identity, caption = table.names.index("audiocap_id"), table.names.index("caption")
        for row, fields in table_rows(table, self.name, path.stem):
            yield row if row.error else replace(row, id=fields[identity] or row.id, caption=fields[caption])
