"""The first picture with AudioLDM's own checkpoint, from empty caches, at full size and without the internet.

    python benchmarks/first_use.py SCRATCH [zenodo] [hub] [make] [--limit 12000] [--quick]

Random weights in the right shapes take the place of the published ones: a checkpoint of 2.6 GB in the original format,
the same model in the hub's layout, and a CLIP of ViT-B/32's size. A local server takes the place of Zenodo and of the
hub. ``zenodo`` and ``hub`` run ``audioldm -t photo.jpg`` with the checkpoint's name and with the repository's, once
from empty caches and once without any server. ``make`` runs ``audioldm-translator make audiocaps_cos_512``, which is
killed twice with signal 9 on the way and then resumed. Seconds are of the processor, as other work may run beside it.
SCRATCH is a folder with 15 GB; what is made there is left for the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

from full_size import REPOSITORY, checkpoint
from hub_layout import write_hub_folder
from server import Server
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

MODEL, REPO, CLIP, ROBERTA = (
    "audioldm-s-full-v2", "cvssp/audioldm-s-full-v2", "openai/clip-vit-base-patch32", "FacebookAI/roberta-base",
)  # fmt: skip
SHA = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"
CODE = """
import sys, dataclasses
from audioldm.checkpoints.published import UPSTREAM
known = UPSTREAM[{model!r}]
UPSTREAM[{model!r}] = dataclasses.replace(known, url={url!r})
from {module} import main
sys.exit(main(sys.argv[1:]))
"""


def tokenizer(folder: Path, end: str | None = None) -> int:
    """Train a tokenizer on AudioCaps' captions, one token for most words; returns the number of its last token."""
    from prior_steps.audiocaps.reader import AudioCaps

    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    words.train_from_iterator((row.caption for row in AudioCaps()), trainer)
    if end is not None:
        words.add_special_tokens([end])
    last = words.token_to_id(end or "</s>")
    words.post_processor = processors.RobertaProcessing((end or "</s>", last), ("<s>", 0), add_prefix_space=False)
    folder.mkdir(parents=True, exist_ok=True)
    words.save(str(folder / "tokenizer.json"))
    return last


def prepare(published: Path) -> None:
    """Write what the servers serve, if it is not there."""
    from transformers import CLIPConfig, CLIPModel

    from audioldm.convert.checkpoint import convert

    if (published / "ready").exists():
        return
    shutil.rmtree(published, ignore_errors=True)
    tokenizer(published / ROBERTA)
    last = tokenizer(published / CLIP, "<|endoftext|>")
    CLIPModel(CLIPConfig(text_config={"eos_token_id": last, "bos_token_id": 0, "pad_token_id": 1})).save_pretrained(
        published / CLIP
    )
    settings = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224},
                "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}  # fmt: skip
    (published / CLIP / "preprocessor_config.json").write_text(json.dumps(settings))
    checkpoint("s", published / "checkpoint.ckpt")
    folder = convert(published / "checkpoint.ckpt", published / "converted", tokenizer=published / ROBERTA)
    write_hub_folder(folder, published / REPO)
    shutil.rmtree(folder)
    (published / "ready").touch()


def serve(server: Server, published: Path) -> str:
    """Serve the files as the hub and as Zenodo do; returns the checkpoint's URL."""
    for repo in (REPO, CLIP, ROBERTA):
        files = sorted(path for path in (published / repo).rglob("*") if path.is_file())
        names = [path.relative_to(published / repo).as_posix() for path in files]
        about = {"id": repo, "sha": SHA, "siblings": [{"rfilename": name} for name in names]}
        tree = [{"type": "file", "path": name, "size": path.stat().st_size, "oid": _tag(path)}
                for path, name in zip(files, names, strict=True)]  # fmt: skip
        for place, answer in (("", about), ("/revision/main", about), ("/tree/main", tree), (f"/tree/{SHA}", tree)):
            content = json.dumps(answer).encode()
            server.answer(f"/api/models/{repo}{place}", content, Content_Type="application/json")
        for path, name in zip(files, names, strict=True):
            _file(server, f"/{repo}/resolve/{SHA}/{name}", path)
    return _file(server, "/checkpoint", published / "checkpoint.ckpt")


def _file(server: Server, url: str, path: Path) -> str:
    def handle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        size = path.stat().st_size
        for header, value in (("Content-Length", size), ("ETag", f'"{_tag(path)}"'), ("X-Repo-Commit", SHA)):
            handler.send_header(header, str(value))
        handler.end_headers()
        if handler.command == "GET":
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    handler.wfile.write(block)

    return server.route(unquote(url), handle)


def _tag(path: Path) -> str:
    return hashlib.sha1(str(path).encode()).hexdigest()


class Machine:
    """A user's machine: caches of its own, and the addresses that it reaches."""

    def __init__(self, folder: Path, hub: str, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **os.environ, "PYTHONPATH": str(REPOSITORY), "AUDIOLDM_CACHE_DIR": str(folder / "cache"),
            "HF_HOME": str(folder / "hub"), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip

    def start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        code = CODE.format(model=MODEL, url=self.url, module=module)
        return subprocess.Popen([sys.executable, "-c", code, *arguments], env=self.environment, cwd=self.folder)

    def run(self, what: str, module: str, *arguments: str) -> None:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        status = self.start(module, *arguments).wait()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        print(f"== {what}: exit code {status}, {spent:.0f} s of CPU, {time.monotonic() - began:.0f} s by the clock,"
              f" load {os.getloadavg()[0]:.0f}", flush=True)  # fmt: skip


def picture(machines: Path, published: Path, name: str, quick: list[str]) -> None:
    photo = str(REPOSITORY / "examples" / "dog.jpg")
    arguments = ["-t", photo, "--model_name", name, *quick]
    folder = machines / name.replace("/", "--")
    shutil.rmtree(folder, ignore_errors=True)
    with Server() as server:
        url = serve(server, published)
        machine = Machine(folder, server.url("").rstrip("/"), url)
        machine.run(f"{name}, empty caches", "audioldm.commands.generate", *arguments)
    Machine(folder, NOWHERE, f"{NOWHERE}/").run(
        f"{name}, no network", "audioldm.commands.generate", *arguments, "--ddim_steps", "2", "-dur", "2.5", "-n", "1"
    )


def make(machines: Path, limit: int) -> None:
    """Uses the caches that ``zenodo`` filled."""
    machine = Machine(machines / MODEL, NOWHERE, f"{NOWHERE}/")
    arguments = ["make", "audiocaps_cos_512", "--model", MODEL, "--limit", str(limit), "--device", "cpu"]
    work = machine.folder / "cache" / "make"
    shutil.rmtree(work, ignore_errors=True)
    for sign in ("audiocaps-00001.parquet", ".audiocaps_cos_512.state"):
        process = machine.start("prior_steps.make", *arguments)
        while not list(work.rglob(sign)) and process.poll() is None:
            time.sleep(0.2)
        process.kill()
        print(f"== killed when there was {sign}: exit code {process.wait()}", flush=True)
    machine.run("make, resumed", "prior_steps.make", *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("what", nargs="*", help="zenodo, hub, make")
    parser.add_argument("--limit", type=int, default=12_000)
    parser.add_argument("--quick", action="store_true", help="two steps, 2.5 s and one candidate also in first runs")
    args = parser.parse_args()
    quick = ["--ddim_steps", "2", "-dur", "2.5", "-n", "1"] if args.quick else []
    published, machines = args.scratch / "published", args.scratch / "machines"
    prepare(published)
    if "zenodo" in args.what:
        picture(machines, published, MODEL, quick)
    if "make" in args.what:
        make(machines, args.limit)
    if "hub" in args.what:
        picture(machines, published, REPO, quick)


if __name__ == "__main__":
    main()
