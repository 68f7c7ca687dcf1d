"""Histograms of the vectors' lengths in shards, their figures, and advice for training on them."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audioldm.errors import InputError
from translator.files import output_path, write_new
from translator.programs import pip_install
from translator.shards.parquet import Shard, open_shards

from . import command
from .engine.write import damaged

if TYPE_CHECKING:
    import pyarrow as pa

MODULE = "prior_steps.histograms"
UNIT = 1e-3  # tolerance for a length of 1
POINTS = (0, 1, 50, 99, 100)  # percent


def norms(shards: Iterable[Shard]) -> dict[str, np.ndarray]:
    """Lengths of the vectors, float64 (N,), of "CLIP, text", "CLIP, image" and "CLAP", as far as there are any.

    Raises InputError if a shard is damaged or missing.
    """
    found: dict[str, list[np.ndarray]] = {}
    for shard in shards:
        for batch in _batches(shard):
            kinds = np.array(batch["clip_kind"].to_pylist(), dtype=str)
            there, lengths = _lengths(batch["clip"])
            for kind in np.unique(kinds[there]):
                found.setdefault(f"CLIP, {kind}", []).append(lengths[kinds[there] == kind])
            if "clap" in batch.schema.names and len(lengths := _lengths(batch["clap"])[1]):
                found.setdefault("CLAP", []).append(lengths)
    return {name: np.concatenate(parts) for name, parts in sorted(found.items(), reverse=True)}


def _batches(shard: Shard) -> Iterator[pa.RecordBatch]:
    """The columns of vectors. Raises InputError if they are damaged, though the footer is not."""
    with shard.open() as file:
        columns = [name for name in ("clip", "clip_kind", "clap") if name in file.schema_arrow.names]
        try:
            yield from file.iter_batches(columns=columns)
        except (OSError, ValueError):  # all of Arrow's errors are one of these
            raise InputError(damaged(shard.path)) from None


def _lengths(column: pa.FixedSizeListArray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a column have a vector, and the lengths of these vectors."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    vectors = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return there, np.linalg.norm(vectors.astype(np.float64), axis=1)


def figures(lengths: np.ndarray) -> dict[str, float]:
    """Count, mean, standard deviation and percentiles."""
    points = {f"p{point}": float(value) for point, value in zip(POINTS, np.percentile(lengths, POINTS), strict=True)}
    return {"count": len(lengths), "mean": float(lengths.mean()), "std": float(lengths.std()), **points}


def advice(found: Mapping[str, np.ndarray]) -> list[str]:
    """Advice from the norms: a sentence for each space, and one for CLIP's two kinds."""
    sentences = []
    for name, lengths in found.items():
        if np.abs(lengths - 1).max() < UNIT:
            sentences.append(f"{name}: all have length 1; use them as they are.")
        else:
            low, high = np.percentile(lengths, (1, 99))
            sentences.append(
                f"{name}: lengths range from {low:.3g} to {high:.3g}, but only directions carry meaning; "
                "normalise before use."
            )
    middles = {name: float(np.median(lengths)) for name, lengths in found.items() if name.startswith("CLIP")}
    if len(middles) == 2:
        (one, first), (two, second) = middles.items()
        sentences.append(
            f"The median length is {first:.3g} for {one} and {second:.3g} for {two}: without normalising, a translator "
            "is trained on one length and used on another."
        )
    return sentences


def draw(found: Mapping[str, np.ndarray]) -> bytes:
    """The histograms side by side, as a PNG. Raises InputError if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(f"matplotlib, which draws histograms, is not installed: {pip_install('matplotlib')}") from None

    figure = Figure(figsize=(4 * len(found), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, lengths) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        spread = np.ptp(lengths) > UNIT
        axis.hist(lengths, bins=100, range=None if spread else (0.9, 1.1), color="#3b6ea5")
        axis.set(title=f"{name} ({len(lengths):,})", xlabel="norm", ylabel="vectors")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def work(argv: Sequence[str] | None) -> int:
    """Run the command; returns the exit code. Raises InputError."""
    example = "build/embeddings/audiocaps --out build/norms.png"
    about = "Draw histograms of the norms of shards' vectors, and print advice."
    p = command.parser(MODULE, about, example, "after audioldm-embed audiocaps")
    p.add_argument("shards", nargs="+", metavar="PATH", help="shards, or folders of shards")
    p.add_argument(
        "--out", default="build/norms.png", metavar="FILE", help="new file, with a .json beside [%(default)s]"
    )
    args = p.parse_args(argv)
    out = output_path(args.out)
    if out.suffix != ".png":
        raise InputError(f"{out} must end in .png")
    found = norms(open_shards(args.shards))
    if not found:
        raise InputError("the shards have no vectors: all their rows have failed")
    numbers, sentences = {name: figures(lengths) for name, lengths in found.items()}, advice(found)
    content = json.dumps({"norms": numbers, "advice": sentences}, indent=2) + "\n"
    _write(out, draw(found), content.encode())
    for name, values in numbers.items():
        print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in values.items()))
    print("\n".join(sentences))
    print(out)
    return 0


def _write(out: Path, picture: bytes, numbers: bytes) -> None:
    try:
        for path in (out, beside := out.with_suffix(".json")):
            if os.path.lexists(path):
                raise FileExistsError(f"{path} already exists; refusing to overwrite")
        write_new(beside, numbers)
        write_new(out, picture)
    except FileExistsError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None


main = command.script(MODULE, work)

if __name__ == "__main__":
    sys.exit(main())
