"""Rows per second of prior_steps beside the original's way, and its memory: ``python benchmarks/embeddings.py all``.

The original embedded one caption at a time, which CLIP's and CLAP's packages pad to 77 tokens, and loaded both again
for every picture. Both ways take turns in one run and on the same rows, so that what else the machine does is shared by
both; what counts is the median of the rounds. ``--model full``: at the sizes of the original's models.

    text      captions through both text towers
    images    pictures through CLIP, their captions through CLAP
    memory    peak of a run over 10 thousand and over a million generated captions, with a tiny model
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from audioldm import registry  # noqa: E402
from prior_steps.engine.embed import Embedder, Kind  # noqa: E402
from prior_steps.engine.worker import Job, Worker  # noqa: E402
from prior_steps.engine.write import write_shard  # noqa: E402
from prior_steps.readers.rows import Row  # noqa: E402

WORDS = "dog rain church organ sea waves bird engine train bell door wind fire clock water horse".split()
LENGTH = 77  # tokens
SIZES = (10_000, 1_000_000)  # rows


class Rows:
    """A reader of rows that are in memory."""

    name = "benchmark"
    fingerprint = "benchmark"

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows, self.total = rows, len(rows)

    def __iter__(self):
        return iter(self.rows)


def captions(count: int) -> list[str]:
    """AudioCaps' captions where they lie beside the checkout, else others of similar length."""
    table = ROOT.parent / "shared" / "audiocaps" / "train.csv"
    if table.is_file():
        with open(table, encoding="utf-8", newline="") as file:
            return [line["caption"] for line in itertools.islice(csv.DictReader(file), count)]
    return [" ".join(WORDS[(i * 7 + j * (i % 5 + 1)) % 16] for j in range(4 + i % 12)) for i in range(count)]


def pictures(count: int) -> list[bytes]:
    """JPEG files of the size of WIT's thumbnails, cut from the example photographs."""
    from PIL import Image

    photos = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples").glob("*.jpg"))]
    files = []
    for i in range(count):
        photo, file = photos[i % len(photos)].resize((480, 360)), io.BytesIO()
        photo.crop((i % 40, i % 30, 440, 330)).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that ``work`` takes: of the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def engine(model: str, kind: Kind, rows: Sequence[Row], folder: Path) -> Callable[[], object]:
    """The way from rows in memory to a shard on disk, its model read before."""
    worker = Worker(Job(Rows(rows), kind, model, "cpu", shard_rows=len(rows)))
    list(worker.embed([(0, list(rows[:2]))]))

    def work() -> None:
        for k, embedded in worker.embed(worker.job.slices()):
            worker.write(folder, k, embedded)

    return work


def padded(texts: list[str], tokenize: Callable[..., dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Inputs of a text tower of LENGTH tokens, as CLIP's and CLAP's own packages make them of every caption."""
    inputs = tokenize(*texts)
    missing = LENGTH - inputs["input_ids"].shape[1]
    pads = {"input_ids": 1, "attention_mask": 0}
    return {name: F.pad(value, (0, missing), value=pads[name]) for name, value in inputs.items()}


def one_by_one(folder: Path, rows: Sequence[Row], pad: bool = True) -> Callable[[], object]:
    """Captions as the original embedded them, its model read before; or without padding."""
    model = Embedder(str(folder), "cpu").model
    towers = (model.clip._text, model.clip._tokenize), (model.clap._text_model, model.clap._tokenize)

    @torch.inference_mode()
    def work() -> None:
        for row, (tower, tokenize) in itertools.product(rows, towers):
            tower(**(padded([row.caption], tokenize) if pad else tokenize(row.caption)))

    return work


def read_whole(folder: Path) -> nn.Module:
    """A model with all its towers, as CLIP's and CLAP's packages read theirs: initialised at random, then filled."""
    from transformers import AutoConfig, AutoModel

    model = AutoModel.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return model


def model_by_model(folder: Path, rows: Sequence[Row]) -> Callable[[], object]:
    """Pictures as the original embedded them: for each, CLIP and CLAP are read."""
    from audioldm.inputs.images import decode_image

    ours = Embedder(str(folder), "cpu").model
    tokenize = ours.clap._tokenize

    @torch.inference_mode()
    def work() -> None:
        for row in rows:
            clip, clap = (read_whole(folder / part) for part in ("clip", "clap"))
            clip.get_image_features(ours.clip.pixels(decode_image(row.content, "it"))[None])
            clap.get_text_features(**padded([row.caption], tokenize))

    return work


def compare(kind: Kind, folder: Path, rounds: int, many: int, few: int) -> None:
    """Print the rows per second of both ways: the engine does ``many`` rows a round, the original's way ``few``."""
    files = pictures(many) if kind == "image" else [None] * many
    rows = [
        Row(str(i), "benchmark", caption, content=file)
        for i, (caption, file) in enumerate(zip(captions(many), files, strict=True))
    ]
    if kind == "text":
        ways = {"the original's way": one_by_one(folder, rows[:few])}
        ways["not padded"] = one_by_one(folder, rows[:few], pad=False)
    else:
        ways = {"the original's way": model_by_model(folder, rows[:few])}
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as out:
        ways = {"prior_steps": engine(str(folder), kind, rows, Path(out)), **ways}
        for _ in range(rounds):
            for name, way in ways.items():
                took, count = timed(way), many if name == "prior_steps" else few
                seconds.setdefault(name, []).append((took[0] / count, took[1] / count))
    ours = seconds["prior_steps"]
    for name, theirs in seconds.items():
        clock, processor = (
            statistics.median(b[i] / a[i] for a, b in zip(ours, theirs, strict=True)) for i in range(2)
        )
        rate = 1 / statistics.median(took[0] for took in theirs)
        print(
            f"{kind}, {name}: {rate:.1f} rows/s; prior_steps is {clock:.1f} times as fast, "
            f"{processor:.1f} times by processor time",
            flush=True,
        )


def full_size(scratch: Path) -> Path:
    """A model with random towers of the sizes that the original used: CLIP ViT-B/32, and CLAP with RoBERTa-base."""
    import tiny
    from transformers import ClapConfig, ClapModel, CLIPConfig, CLIPModel

    folder = tiny.build(scratch, clip="clip")
    settings = (folder / "clip" / "preprocessor_config.json").read_text()
    CLIPModel(CLIPConfig()).save_pretrained(folder / "clip")
    ClapModel(ClapConfig()).save_pretrained(folder / "clap")
    sizes = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps({**json.loads(settings), **sizes}))
    for part in ("clip", "clap"):  # tiny's own knows some ten words, so that captions would be long
        shutil.copy(registry.models_dir() / "starter" / "clap" / "tokenizer.json", folder / part / "tokenizer.json")
    return folder


def memory() -> None:
    """Print the peak memory of a run over each of SIZES."""
    import tiny

    with tempfile.TemporaryDirectory() as folder:
        model = tiny.build(Path(folder))
        for size in SIZES:
            table = Path(folder) / f"{size}.csv"
            with open(table, "w", encoding="utf-8", newline="") as file:
                lines = csv.writer(file)
                lines.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
                lines.writerows([i, "x", 0, f"{WORDS[i % 16]} {i}"] for i in range(size))
            command = [sys.executable, __file__, "peak", "--model", str(model), "--csv", str(table)]
            peak, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            print(f"memory: {size:9,} rows, peak {float(peak):.3f} GiB, {float(seconds):.0f} s", flush=True)


def peak(model: str, table: str) -> None:
    """Run over ``table`` and print the peak memory in GiB and the seconds. A million rows would be 4 GB of shards: each
    is deleted afterwards."""
    from prior_steps.audiocaps.reader import AudioCaps
    from prior_steps.engine import run, worker

    def write_and_delete(path: Path, *args: object) -> object:
        statuses = write_shard(path, *args)
        path.unlink()
        return statuses

    worker.write_shard = write_and_delete
    with tempfile.TemporaryDirectory() as folder:
        seconds, _ = timed(lambda: run.run(Job(AudioCaps(table), "text", model, "cpu"), folder))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, seconds)  # Linux: KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("all", "text", "images", "memory", "peak"))
    parser.add_argument("--model", default="starter", help="name or folder; full makes a random one of the usual sizes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what == "peak":
        return peak(args.model, args.csv)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, {args.model}")
    full = args.model == "full"
    with tempfile.TemporaryDirectory() as scratch:
        folder = full_size(Path(scratch)) if full else registry.find_model(args.model).path
        if args.what in ("all", "text"):
            compare("text", folder, args.rounds, many=200 if full else 2000, few=20 if full else 200)
        if args.what in ("all", "images"):
            compare("image", folder, args.rounds, many=64 if full else 160, few=2 if full else 10)
    if args.what in ("all", "memory"):
        memory()


if __name__ == "__main__":
    main()
