"""Pairs per second of ``translator.training`` beside one text file for each pair, and its memory.

    python benchmarks/translators.py throughput   # a minute or two
    python benchmarks/translators.py memory       # 100 thousand to 5 million rows: minutes, 3 GB of disk under build/

The thesis kept each pair in a text file and read it again in every epoch, with one training for each translator. Here
the same network, loss, optimiser and batch learn from text files and from an embedding shard, in turns and in one
process; the median of the rounds counts. All files are in the system's cache, which favours the many small ones.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from translator.model import Translator  # noqa: E402
from translator.settings import EIGHTEEN, Settings, parse  # noqa: E402
from translator.shards import pairs as data  # noqa: E402
from translator.shards.pairs import Batch, Pairs  # noqa: E402
from translator.shards.parquet import DIM, OK, ROW_GROUP, open_shards, schema  # noqa: E402
from translator.shards.text_files import write_text_pair  # noqa: E402
from translator.training import train  # noqa: E402
from translator.training.job import Job, batch_loss  # noqa: E402
from translator.training.mix import Mix  # noqa: E402

SIZES = (100_000, 1_000_000, 5_000_000)  # rows
LEVELS = 16  # different numbers in the vectors of the memory test, so that five million rows take 3 GB and not 20


def write_rows(path: Path, count: int, levels: int = 0, first: int = 0) -> None:
    """A shard of ``count`` made-up captions; ``levels``: so many different numbers, 0 for as many as there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, draw = schema("audiocaps", "c" * 12, "a" * 12), np.random.default_rng(0)
    vectors = draw.standard_normal((2, ROW_GROUP, DIM)).astype(np.float32)
    if levels:
        vectors = np.ceil(vectors.clip(-2.9, 2.9) / 6 * levels) / levels + np.float32(0.01)
    words = {name: "zstd" for name in ("id", "caption", "source", "status")}
    with pq.ParquetWriter(path, columns, compression=words) as writer:
        for start in range(0, count, ROW_GROUP):
            size = min(ROW_GROUP, count - start)
            rows = range(first + start, first + start + size)
            clip, clap = (
                pa.FixedSizeListArray.from_arrays(pa.array(np.roll(v, start // ROW_GROUP, axis=1)[:size].ravel()), DIM)
                for v in vectors
            )
            table = {
                "id": [str(i) for i in rows], "source": ["audiocaps"] * size, "split": ["train"] * size,
                "caption": [f"a sound that is number {i}" for i in rows], "url": [None] * size, "status": [OK] * size,
                "error": [None] * size, "clip": clip, "clip_kind": ["text"] * size, "clap": clap,
            }  # fmt: skip
            writer.write_table(pa.table(table, columns), row_group_size=ROW_GROUP)


# Throughput


def read_lines(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair of the layout for captions: numbers, one a line."""
    clip, clap = path.read_text().split("CLAP Embedding:")
    return tuple(torch.tensor([float(line) for line in part.split()]) for part in (clip.split(":")[1], clap))


def read_printed(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair of the layout for pictures: evaluated, which is safe only as this very script wrote it."""
    clip, clap = path.read_text().split("embedding CLAP")
    names = {"tensor": torch.tensor}
    return tuple(eval(part, names)[0] for part in (clip.removeprefix("embedding CLIP").strip(), clap.strip()))


READERS = {"numbers, one a line": read_lines, "tensors as torch prints them": read_printed}


def write_texts(folder: Path, pairs: Pairs, count: int) -> dict[str, list[Path]]:
    """The first ``count`` pairs as text files, in both layouts."""
    batch = next(pairs.buffers(data.TRAIN))
    found: dict[str, list[Path]] = {}
    for layout in READERS:
        place = folder / layout.split()[0].strip(",")
        place.mkdir()
        for i in range(count):
            path = place / f"{i}.txt"
            if layout == "numbers, one a line":
                write_text_pair(path, batch.clip[i], batch.clap[i])
            else:
                path.write_text(f"embedding CLIP\n{batch.clip[i][None]}\nembedding CLAP\n{batch.clap[i][None]}\n")
            found.setdefault(layout, []).append(path)
    return found


def text_batches(paths: Sequence[Path], read: Callable[[Path], tuple[torch.Tensor, ...]], size: int) -> Iterator[Batch]:
    for start in range(0, len(paths), size):
        clip, clap = map(torch.stack, zip(*map(read, paths[start : start + size]), strict=True))
        yield Batch(clip, clap, torch.zeros(len(clip), dtype=torch.int64))


def jobs(wanted: Sequence[Settings]) -> list[Job]:
    made = []
    for settings in wanted:
        network = Translator(settings.hidden)
        made.append(Job(settings, network, torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)))
    return made


def epoch(batches: Iterator[Batch], learning: Sequence[Job]) -> float:
    """Pairs per second of one pass; each pair counts once for each of the translators that learn from it."""
    generator, began, rows = torch.Generator(), time.perf_counter(), 0
    for batch in batches:
        rows += len(batch.clip)
        for job in learning:
            loss = batch_loss(job, batch, generator)
            job.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            job.optimizer.step()
    return rows * max(len(learning), 1) / (time.perf_counter() - began)


def throughput(args: argparse.Namespace) -> None:
    one, six = jobs([parse("audiocaps_cos_512")]), jobs([parse(n) for n in EIGHTEEN if n.startswith("audiocaps_")][:6])
    with tempfile.TemporaryDirectory(dir=build()) as folder:
        shard = Path(folder) / "audiocaps.parquet"
        write_rows(shard, args.rows)
        mix = Mix([Pairs(open_shards([shard]))])
        texts = write_texts(Path(folder), mix.sources[0], args.texts)
        print(f"{mix.pairs:,} pairs in a shard, {args.texts:,} as text files, {torch.get_num_threads()} threads")
        whats = {"reading alone": [], "audiocaps_cos_512": one, "the six of audiocaps": six}
        rates: dict[tuple[str, str], list[float]] = {}
        for number in range(args.rounds):
            for what, learning in whats.items():
                rates.setdefault((what, "shard"), []).append(epoch(mix.epoch(number), learning))
                for layout, paths in texts.items():
                    # One training for each translator: six of them read every file six times.
                    each = [epoch(text_batches(paths, READERS[layout], 64), [job]) for job in learning[:6]]
                    each = each or [epoch(text_batches(paths, READERS[layout], 64), [])]
                    rates.setdefault((what, layout), []).append(statistics.harmonic_mean(each))
    print("\n| pairs/s | shard | " + " | ".join(f"text: {layout}" for layout in READERS) + " |")
    print("|---" * (len(READERS) + 2) + "|")
    for what in whats:
        shard_rate = statistics.median(rates[what, "shard"])
        cells = []
        for layout in READERS:
            ratios = [a / b for a, b in zip(rates[what, "shard"], rates[what, layout], strict=True)]
            cells.append(f"{statistics.median(rates[what, layout]):,.0f} (1/{statistics.median(ratios):.1f})")
        print(f"| {what} | {shard_rate:,.0f} | " + " | ".join(cells) + " |")


# Memory


def memory(args: argparse.Namespace) -> None:
    print("| rows | index, s | epoch, s | peak memory, MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=build()) as folder:
        there = 0
        for size in args.sizes:
            for first in range(there, size, 100_000):
                write_rows(Path(folder) / f"{first:08}.parquet", min(100_000, size - first), LEVELS, first)
            there = size
            child = [sys.executable, __file__, "child", folder]
            print(subprocess.run(child, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def child(args: argparse.Namespace) -> None:
    """Index the rows, train a tiny network for one epoch as the command does, and say what it took."""
    began = time.perf_counter()
    pairs = Pairs(open_shards([args.folder]))
    indexed = time.perf_counter()
    settings = replace(parse("audiocaps_cos_8"), epochs=1, batch=512)
    out = args.folder / "out"
    train.train([settings], {"audiocaps": pairs}, out, report=lambda _: None)
    shutil.rmtree(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: KiB
    rows, seconds = pairs.train + pairs.held_out, time.perf_counter() - indexed
    print(f"| {rows:,} | {indexed - began:.0f} | {seconds:.0f} | {peak:.0f} |")


def build() -> Path:
    """A folder on the disk: what lies in /tmp may lie in memory."""
    (ROOT / "build").mkdir(exist_ok=True)
    return ROOT / "build"


def main() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="throughput|memory")
    part = commands.add_parser("throughput")
    part.add_argument("--rows", type=int, default=40_000, help="pairs in the shard, more than are kept in memory")
    part.add_argument("--texts", type=int, default=1000, help="of them as text files")
    part.add_argument("--rounds", type=int, default=5)
    part.set_defaults(work=throughput)
    part = commands.add_parser("memory")
    part.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows")
    part.set_defaults(work=memory)
    part = commands.add_parser("child")
    part.add_argument("folder", type=Path)
    part.set_defaults(work=child)
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
