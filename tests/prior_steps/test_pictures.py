"""WIT's and Conceptual Captions' scripts from end to end, against a server on this machine that is at its worst."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pictures import JPEG, encode
from PIL import Image
from runs import assert_near, rows_of, state_of
from server import Server
from wit_table import wit_line, write_wit

from audioldm.inputs.images import decode_image
from audioldm.inputs.web import Limits
from prior_steps.conceptual_captions import embedding as conceptual_captions
from prior_steps.engine import run
from prior_steps.engine.cache import Cache
from prior_steps.engine.fetch import Settings, WebFetcher
from prior_steps.engine.worker import AHEAD, SLICE, Job, Worker
from prior_steps.readers.rows import Row
from prior_steps.wit import embedding as wit
from prior_steps.wit.reader import Wit

LIMITS = Limits(connect_s=2, read_s=2, total_s=4)  # seconds; the machine may be busy


@pytest.fixture(autouse=True)
def private_addresses_allowed(monkeypatch) -> None:
    monkeypatch.setenv("AUDIOLDM_ALLOW_PRIVATE_URLS", "1")


def busy(server: Server, path: str) -> str:
    """A URL whose first answer is 429."""
    asked = []

    def handle(handler) -> None:
        asked.append(path)
        handler.send_response(429 if len(asked) == 1 else 200)
        handler.send_header("Content-Length", str(0 if len(asked) == 1 else len(JPEG)))
        handler.send_header("Retry-After", "0")
        handler.end_headers()
        if len(asked) > 1:
            handler.wfile.write(JPEG)

    return server.route(path, handle)


def strangers(server: Server, path: str) -> list[tuple[str, str]]:
    """(URL, the status it leads to) of every kind of answer that takes no time."""
    frames = [Image.new("P", (70, 80), shade) for shade in (1, 2, 3)]
    gif = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    return [
        (server.answer(f"{path}/jpeg", JPEG), "ok"),
        (server.answer(f"{path}/gif", gif), "ok"),
        (server.answer(f"{path}/cmyk", encode(Image.new("CMYK", (90, 70), (9, 99, 0, 0)), "JPEG")), "ok"),
        (server.redirect(f"{path}/moved", server.answer(f"{path}/there", JPEG)), "ok"),
        (busy(server, f"{path}/busy"), "ok"),
        (server.url(f"{path}/nothing"), "http_404"),
        (f"http://127.0.0.1:1{path}/dead", "unreachable"),
        (server.answer(f"{path}/html", b"<html>not found</html>"), "not_an_image"),
        (server.answer(f"{path}/svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not_an_image"),
        (server.answer(f"{path}/huge", b"\xff", Content_Length="20000001"), "too_large"),
        (server.answer(f"{path}/cut", JPEG[:600]), "damaged_image"),
    ]


def broken(server: Server, path: str) -> str:
    """A URL whose answer never comes to its end."""
    return server.raw(path, [b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + JPEG[:500]])


def table(folder: Path, server: Server, rounds: int, slow: int) -> tuple[Path, Counter[str]]:
    """A TSV of WIT with each kind of row ``rounds`` times, the slow ones ``slow`` times; and what to expect."""
    lines, wanted = [], Counter()
    for i in range(rounds):
        urls = strangers(server, f"/{i}")
        if i < slow:
            urls += [(server.stall(f"/{i}/slow"), "timeout"), (broken(server, f"/{i}/broken"), "incomplete")]
        for url, status in urls:
            lines.append(wit_line(url, f"caption {len(lines)}"))
            wanted[status] += 1
        lines.append(wit_line(f"http://a/{i}", "ein Hund", language="de"))
        lines.append(wit_line(f"http://a/{i}.svg", "a map", mime="image/svg+xml"))
        lines.append(lines[-3])
        wanted.update(["other_language", "other_type", "duplicate"])
    return write_wit(folder / "wit_v1.train.tsv.gz", *lines), wanted


def test_every_row_is_accounted_for(server, tiny_folder, tmp_path) -> None:
    source, wanted = table(tmp_path, server, 22, slow=6)
    assert wanted.total() == 320
    settings = Settings(tmp_path / "cache", workers=8, per_host=4, tries=2, backoff_s=0.02, limits=LIMITS)
    job = Job(Wit(source), "image", str(tiny_folder), "cpu", fetcher=partial(WebFetcher, settings), shard_rows=100)
    folder = run.run(job, tmp_path / "out")
    assert folder.statuses == wanted
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == [row.id for row in job.reader] and len({row["id"] for row in rows}) == 320
    for row in rows:
        assert (row["status"] == "ok") == (row["clip"] is not None) == (row["clap"] is not None) == (not row["error"])
        assert row["clip_kind"] == "image" and row["source"] == "wit" and row["split"] == "train"
        assert row["error"] is None or "\n" not in row["error"]
    encoder = Worker(job).embedder.model
    first = next(row for row in rows if row["status"] == "ok")
    picture = encoder.clip.encode_image([decode_image(JPEG, "it")])[0]
    np.testing.assert_allclose(first["clip"], picture, atol=1e-5)
    assert_near(first["clap"], encoder.clap.encode_text([first["caption"]])[0])
    before, asked = state_of(tmp_path / "out"), len(server.requests)
    run.run(job, tmp_path / "out")
    assert state_of(tmp_path / "out") == before and len(server.requests) == asked


def test_a_killed_run_goes_on(server, tiny_folder, tmp_path, capsys) -> None:
    source, wanted = table(tmp_path, server, 20, slow=0)
    out = tmp_path / "out"
    arguments = [
        str(source), "--model", str(tiny_folder), "--out", str(out), "--cache", str(tmp_path / "cache"),
        "--rows_per_shard", "20", "--per_host", "4", "--contact", "me@example.org",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "prior_steps.wit.embedding", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while len(list(out.glob("*.parquet"))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished, cache = state_of(out), Cache(tmp_path / "cache")
    kept = [i for i in range(20) if cache.get(server.url(f"/{i}/jpeg"))]
    assert wit.main(arguments) == 1  # some of the rows failed
    assert {name: state_of(out)[name] for name in finished} == finished
    assert Counter(row["status"] for row in rows_of(out)) == wanted
    assert [row["id"] for row in rows_of(out)] == [row.id for row in Wit(source)]
    assert f"total{wanted.total():>8,}".split() == capsys.readouterr().out.splitlines()[-2].split()
    asked = Counter(server.paths)
    assert len(kept) >= 4 and all(asked[f"/{i}/jpeg"] == 1 for i in kept)
    assert all(asked[f"/{i}/jpeg"] <= 2 for i in range(20))  # twice: it was on its way when the run was killed
    assert all("me@example.org" in headers["User-Agent"] for _, headers in server.requests)


def test_what_may_pass_is_tried_again_when_asked_to(server, tiny_folder, tmp_path, capsys) -> None:
    urls = [server.answer(f"/{i}", JPEG) for i in range(60)]
    server.answer("/33", status=403)
    server.answer("/5", status=404)  # for good
    lines = [wit_line(url, f"caption {i}") for i, url in enumerate(urls)]
    lines.append(wit_line("http://a/", "ein Hund", language="de"))
    source, out = write_wit(tmp_path / "wit.tsv", *lines), tmp_path / "out"
    arguments = [
        str(source), "--model", str(tiny_folder), "--out", str(out), "--cache", str(tmp_path / "cache"),
        "--rows_per_shard", "20", "--contact", "me@example.org",
    ]  # fmt: skip
    assert wit.main(arguments) == 1
    said = capsys.readouterr().err
    assert "1 pictures failed temporarily; rerun with --retry" in said and "2 rows failed; the shards have" in said
    before = state_of(out)
    server.requests.clear()
    server.answer("/33", JPEG)
    assert wit.main(arguments) == 1 and state_of(out) == before
    for _ in range(2):  # the second time, nothing is left to do
        assert wit.main([*arguments, "--retry"]) == 1
        assert server.paths == ["/33"]
        after = state_of(out)
        assert [name for name in after if after[name] != before[name]] == ["wit-00001.parquet"]
    assert "is already finished" in capsys.readouterr().err
    assert Counter(row["status"] for row in rows_of(out)) == {"ok": 59, "http_404": 1, "other_language": 1}
    assert json.loads((out / "manifest.json").read_text())["finished"]


def test_without_a_network_no_shard_is_written(server, tiny_folder, tmp_path, capsys) -> None:
    def table(name: str, dead: int) -> Path:
        lines = [wit_line(f"http://127.0.0.1:1/{i}", f"caption {i}") for i in range(dead)]
        return write_wit(tmp_path / name, *lines, wit_line("http://a/", "ein Hund", language="de"))

    common = ["--model", str(tiny_folder), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert wit.main([str(table("wit.tsv", 70)), *common]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "none of the 70 pictures of a shard could be reached; is there a network?" in error
    assert not state_of(tmp_path / "out")
    common[3] = str(tmp_path / "few")  # servers that are no more
    assert wit.main([str(table("few.tsv", 3)), *common]) == 1
    assert Counter(row["status"] for row in rows_of(tmp_path / "few")) == {"unreachable": 3, "other_language": 1}


def test_what_is_not_for_ai_is_a_setting_of_the_run(server, tiny_folder, tmp_path, capsys) -> None:
    source = write_wit(tmp_path / "wit.tsv", wit_line(server.answer("/a", JPEG, X_Robots_Tag="noai"), "a dog"))
    arguments = [str(source), "--model", str(tiny_folder), "--cache", str(tmp_path / "cache"), "--out"]
    assert wit.main([*arguments, str(tmp_path / "out")]) == 0
    assert wit.main([*arguments, str(tmp_path / "out"), "--ignore_noai"]) == 2
    assert "ignore_noai is unset there and True here" in capsys.readouterr().err
    assert wit.main([*arguments, str(tmp_path / "all"), "--ignore_noai"]) == 0
    assert [row["status"] for row in rows_of(tmp_path / "all")] == ["ok"]
    assert wit.main([*arguments, str(tmp_path / "all")]) == 2
    assert wit.main([*arguments, str(tmp_path / "png"), "--mime", "image/png"]) == 0
    assert [row["status"] for row in rows_of(tmp_path / "png")] == ["other_type"]


def test_pictures_in_memory_are_few(tiny_folder, tmp_path) -> None:
    class Picture(bytes):
        alive = most = 0

        def __init__(self, *_: object) -> None:
            Picture.alive += 1
            Picture.most = max(Picture.most, Picture.alive)

        def __del__(self) -> None:
            Picture.alive -= 1

    class Pictures:
        name = fingerprint = "pictures"
        total = 700

        def __iter__(self):
            return (Row(str(i), "pictures", "rain", content=Picture(JPEG)) for i in range(self.total))

    folder = run.run(Job(Pictures(), "image", str(tiny_folder), "cpu", shard_rows=600), tmp_path / "out")
    assert folder.statuses == {"ok": 700} and len(folder.done) == 2
    assert 0 < Picture.most <= SLICE * AHEAD + 1  # and one that the reader has in hand


def test_pictures_that_come_with_their_captions(tiny_folder, tmp_path) -> None:
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for i in range(70):
            picture = encode(Image.new("RGB", (70, 70 + i), (i, 2 * i, 200)), "PNG")
            for ending, content in {"jpg": picture, "txt": f"caption {i}".encode()}.items():
                member = tarfile.TarInfo(f"{i:05}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    arguments = [str(tmp_path / "00000.tar"), "--model", str(tiny_folder), "--out", str(tmp_path / "out")]
    assert conceptual_captions.main([*arguments, "--limit", "68"]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["statuses"] == {"ok": 68} and manifest["settings"]["clip_kind"] == "image"
    assert [row["caption"] for row in rows_of(tmp_path / "out")] == [f"caption {i}" for i in range(68)]


def test_wikimedia_asks_for_a_contact(tiny_folder, tmp_path, capsys) -> None:
    source = write_wit(tmp_path / "wit.tsv", wit_line("https://upload.wikimedia.org/a.jpg", "a dog"))
    assert wit.main([str(source), "--model", str(tiny_folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("wit.embedding: error: upload.wikimedia.org requires a contact")
