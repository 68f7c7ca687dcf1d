"""How long are the vectors? Histograms of shards' norms, their figures, and what follows for who trains on them."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audioldm.errors import InputError
from translator import TranslatorError
from translator.files import write_new
from translator.shards.parquet import Shard, open_shards

from . import command
from .engine.write import damaged

MODULE = "prior_steps.histograms"
UNIT = 1e-3  # a vector within this of length 1 is one of length 1
POINTS = (0, 1, 50, 99, 100)  # percent


def norms(shards: Iterable[Shard]) -> dict[str, np.ndarray]:
    """Lengths of the vectors, float64 (N,), of "CLIP, text", "CLIP, image" and "CLAP", as far as there are any.

    Raises InputError: a shard is damaged. TranslatorError: it is gone.
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


def _batches(shard: Shard) -> Iterator[Any]:
    """The columns of vectors. A footer may be good where what is before it is not."""
    with shard.open() as file:
        columns = [name for name in ("clip", "clip_kind", "clap") if name in file.schema_arrow.names]
        try:
            yield from file.iter_batches(columns=columns)
        except (OSError, ValueError):  # what Arrow raises is one of these
            raise InputError(damaged(shard.path)) from None


def _lengths(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a column have a vector, and how long those are."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    vectors = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return there, np.linalg.norm(vectors.astype(np.float64), axis=1)


def figures(lengths: np.ndarray) -> dict[str, float]:
    """How many, their mean, standard deviation and percentiles."""
    points = {f"p{point}": float(value) for point, value in zip(POINTS, np.percentile(lengths, POINTS), strict=True)}
    return {"count": len(lengths), "mean": float(lengths.mean()), "std": float(lengths.std()), **points}


def advice(found: Mapping[str, np.ndarray]) -> list[str]:
    """What follows from the norms, a sentence for each space and one for CLIP's two kinds."""
    told = []
    for name, lengths in found.items():
        if np.abs(lengths - 1).max() < UNIT:
            told.append(f"{name}: all have length 1; use them as they are.")
        else:
            low, high = np.percentile(lengths, (1, 99))
            told.append(
                f"{name}: lengths go from {low:.3g} to {high:.3g}, and only directions mean something; "
                "normalise before use."
            )
    middles = {name: float(np.median(lengths)) for name, lengths in found.items() if name.startswith("CLIP")}
    if len(middles) == 2:
        (one, first), (two, second) = middles.items()
        told.append(
            f"Half of {one} are longer than {first:.3g}, half of {two} than {second:.3g}: who forgets to normalise "
            "trains on one length and is asked with another."
        )
    return told


def draw(found: Mapping[str, np.ndarray]) -> bytes:
    """The histograms side by side, as a PNG. Raises InputError if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("histograms are drawn by matplotlib, which is not installed: pip install matplotlib") from None

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
    """Do what the arguments say; returns the exit code. Raises InputError."""
    example = "build/embeddings/audiocaps --out build/norms.png"
    about = "Draw the norms of shards' vectors, and say what follows from them."
    p = command.parser(MODULE, about, example, "after prior_steps.audiocaps.embedding")
    p.add_argument("shards", nargs="+", metavar="PATH", help=".parquet files, or folders of them")
    p.add_argument("--out", default="build/norms.png", metavar="FILE", help="new, with a .json beside [%(default)s]")
    args = p.parse_args(argv)
    out = Path(os.path.expanduser(args.out))
    if out.suffix != ".png":
        raise InputError(f"{out} must be the name of a .png")
    try:
        found = norms(open_shards(args.shards))
    except TranslatorError as error:
        raise InputError(str(error)) from None
    if not found:
        raise InputError("the shards have no vectors: all of their rows have failed")
    summary = {"norms": {name: figures(lengths) for name, lengths in found.items()}, "advice": advice(found)}
    _write(out, draw(found), (json.dumps(summary, indent=2) + "\n").encode())
    for name, values in summary["norms"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in values.items()))
    print("\n".join(summary["advice"]))
    print(out)
    return 0


def _write(out: Path, picture: bytes, numbers: bytes) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in (out, beside := out.with_suffix(".json")):
            if os.path.lexists(path):
                raise FileExistsError(f"{path} exists already, and nothing is overwritten")
        write_new(beside, numbers)
        write_new(out, picture)
    except FileExistsError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return command.main(MODULE, work, argv)


if __name__ == "__main__":
    sys.exit(main())
