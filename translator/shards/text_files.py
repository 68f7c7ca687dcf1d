"""The thesis's vectors: text files, one per pair, in its two layouts, and the tables that it made before.

They are parsed, never evaluated as Python.

For captions: "CLIP Embedding:", one number per line, "CLAP Embedding:", one number per line. For pictures:
"embedding CLIP", a tensor as torch prints it, "embedding CLAP", another tensor.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .. import InputError
from ..files import writing
from ..tables import WORDS as WORD_COLUMNS
from ..tables import Table, column_name
from ..zoo import SPACE

ROW_NUMBERS = ("", "unnamed:_0", "index")  # names of the column in which pandas writes them
HEADING = re.compile(r"^[ \t]*(?:(CLIP|CLAP) Embedding:|embedding (CLIP|CLAP))[ \t]*$", re.MULTILINE)
WORDS = re.compile(r"\b(?:tensor|array)\(|\b\w+=.*", re.DOTALL)  # around the numbers, and after them: device=…, dtype=…
PRINTED = ("[", "tensor(", "array(")  # what a printed vector begins with
MAX_BYTES = 1_000_000  # of a file; 1,024 numbers take at most 30 kB


def write_text_pair(path: Path, clip: Sequence[float] | np.ndarray, clap: Sequence[float] | np.ndarray) -> None:
    """Write one pair in the layout for captions, in full precision. Raises FileExistsError."""
    with open(path, "x", encoding="ascii") as file:
        file.write("CLIP Embedding:\n")
        np.savetxt(file, np.asarray(clip, np.float64))
        file.write("\n\nCLAP Embedding:\n")
        np.savetxt(file, np.asarray(clap, np.float64))


def read_text_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the CLIP and the CLAP vector, float32 (dim,), of a file of either layout. Raises InputError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is too large to hold one pair of vectors")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} is not a readable text file") from None
    headings = list(HEADING.finditer(text))
    if [match[1] or match[2] for match in headings] != ["CLIP", "CLAP"]:
        raise InputError(f"{path} does not have one CLIP and one CLAP embedding under their headings")
    first, second = headings
    clip = _numbers(text[first.end() : second.start()], path)
    clap = _numbers(text[second.end() :], path)
    if len(clip) != len(clap):
        raise InputError(f"{path} has {len(clip)} numbers for CLIP and {len(clap)} for CLAP")
    return clip, clap


def _numbers(text: str, path: Path) -> np.ndarray:
    words = re.split(r"[\s,\[\]()]+", WORDS.sub(" ", text))
    if "..." in words:
        raise InputError(f"{path} has a shortened printout: the numbers in the middle are missing")
    try:
        numbers = [float(word) for word in words if word]
    except ValueError:
        raise InputError(f"{path} has text among the numbers") from None
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"{path} has {'numbers that are not finite' if numbers else 'no numbers'}")
    if not any(numbers):
        raise InputError(f"{path} has a vector of zeros, which has no direction")
    return np.array(numbers, np.float32)


def text_pairs(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, clip, clap) of every .txt file in ``folder``, sorted by the numbers in their names.

    Raises InputError.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    files = sorted(folder.glob("*.txt"), key=lambda path: [(len(n), n) for n in re.findall(r"\d+|\D+", path.stem)])
    if not files:
        raise InputError(f"there are no .txt files in {folder}")
    for path in files:
        yield (path.stem, *read_text_pair(path))


def table_pairs(clip: Path, clap: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(number, clip, clap) of every row of two tables, of CLIP's and CLAP's vectors in the same order.

    A vector is one field as Python prints a list or an array, whatever the other fields are, or a field for each
    number; of these, columns of captions and of pandas's row numbers are left out. There may be a header. Raises
    InputError: the tables have no or unequal numbers of rows, or a row is no vector, or two.
    """
    both = _vectors(clip), _vectors(clap)
    count = 0
    for one, other in itertools.zip_longest(*both):
        count += 1
        if one is None or other is None:
            raise InputError(f"{clip} and {clap} have different numbers of rows")
        if len(one) != len(other):
            raise InputError(f"row {count} has {len(one)} numbers in {clip} and {len(other)} in {clap}")
        yield str(count), one, other
    if not count:
        raise InputError(f"{clip} has no rows")


def _vectors(path: Path) -> Iterator[np.ndarray]:
    records = iter(Table(path, header=False))
    first = next(records, None)
    if first is None:
        return
    names = [column_name(field) for field in first.fields] if _names_columns(first.fields) else []
    left_out = [number for number, name in enumerate(names) if name in (*WORD_COLUMNS, *ROW_NUMBERS)]
    for record in records if names else itertools.chain([first], records):
        place = f"{path}, line {record.line},"
        if record.error or names and len(record.fields) != len(names):
            raise InputError(f"{place} {record.error or 'does not have as many fields as the header'}")
        fields = [field for number, field in enumerate(record.fields) if number not in left_out]
        printed = list(filter(_is_printed, fields))
        if len(printed) > 1:
            raise InputError(f"{place} has {len(printed)} vectors; one table is needed of CLIP's, and one of CLAP's")
        yield _numbers(" ".join(printed or fields), Path(place))


def _is_printed(field: str) -> bool:
    """Whether a field is a vector as Python prints it."""
    return field.strip(' "').startswith(PRINTED)


def _names_columns(fields: Sequence[str]) -> bool:
    """Whether these are names, among them the numbers from 0 on that pandas takes, and not a vector's numbers."""
    try:
        numbers = [float(field) for field in fields if field.strip()]
    except ValueError:  # words, or a printed vector
        return not any(map(_is_printed, fields))
    return numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def check_import(given: Sequence[Path], out: Path, source: str) -> None:
    """Raise InputError if ``import_pairs`` would, whatever the spaces and the vectors are."""
    if out.suffix != ".parquet":
        raise InputError(f"the name of a shard must end in .parquet, not {out}")
    if out.exists():
        raise InputError(f"{out} already exists; refusing to overwrite")
    if not source.strip():
        raise InputError("the name of the source is empty")
    if given[0].is_file() if len(given) == 1 else len(given) > 2 or any(path.is_dir() for path in given):
        raise InputError("give one folder of text files, or two tables: CLIP's vectors and CLAP's")
    if absent := [path for path in given if not path.exists()]:
        raise InputError(f"no such file or folder: {absent[0]}")


def import_pairs(
    given: Sequence[Path], out: Path, source: str, kind: str, clip_space: str, clap_space: str, dim: int | None = None
) -> int:
    """Convert a folder of text files, or two tables, to the new embedding shard ``out``; returns the number of pairs.

    They have no captions, so pairs are held out by their names. ``dim``: dimensions of the spaces, where they are
    known. Raises InputError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from .parquet import OK, ROW_GROUP, schema

    check_import(given, out, source)
    if not all(map(SPACE.fullmatch, (clip_space, clap_space))):
        raise InputError(
            f'a space is named by small letters and digits, as in 9514d24e30e0, not "{clip_space}" and "{clap_space}"'
        )
    pairs = text_pairs(given[0]) if len(given) == 1 else table_pairs(*given)
    first = next(pairs)
    if dim not in (None, len(first[1])):
        raise InputError(f"{first[0]} in {given[0]} has {len(first[1])} numbers, the model's spaces have {dim}")
    columns = schema(source, clip_space, clap_space, dim=len(first[1]))
    rows, count = itertools.chain([first], pairs), 0
    with writing(out, replace=False) as file, pq.ParquetWriter(file, columns) as writer:
        while lot := list(itertools.islice(rows, ROW_GROUP)):
            for name, clip, _ in lot:
                if len(clip) != len(first[1]):
                    raise InputError(f"{name} in {given[0]} has {len(clip)} numbers, {first[0]} has {len(first[1])}")
            table = [{"id": name, "source": source, "status": OK, "clip": clip, "clip_kind": kind, "clap": clap}
                     for name, clip, clap in lot]  # fmt: skip
            writer.write_table(pa.Table.from_pylist(table, columns))
            count += len(lot)
    return count
