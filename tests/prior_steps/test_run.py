"""The engine, run as its commands are: shards come whole, what is killed goes on, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from runs import assert_near, rows_of, state_of, write_csv

from audioldm.errors import InputError
from prior_steps import histograms
from prior_steps.audiocaps import csvtotxt, embedding, embedding_clap, embedding_clip
from prior_steps.engine.progress import Progress, Stages, table
from prior_steps.engine.worker import map_ahead
from prior_steps.engine.write import Folder, read_shard
from translator.shards.parquet import open_shards
from translator.shards.text_files import text_pairs


@pytest.fixture
def arguments(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """Of a run over 230 rows, in three shards."""
    table = write_csv(tmp_path, 230)
    return ["--csv", str(table), "--model", str(tiny_folder), "--rows_per_shard", "100", "--out", str(tmp_path / "out")]


def test_every_row_is_there_with_its_status(arguments, tiny_model, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out.split()[:8] == ["ok", "205", "duplicate", "23", "empty_caption", "2", "total", "230"]
    assert "230 of 230 rows" in shown.err
    shards = open_shards([tmp_path / "out"])
    assert [shard.rows for shard in shards] == [100, 100, 30]
    assert {(shard.source, shard.clip_space, shard.clap_space) for shard in shards} == {
        ("audiocaps", *tiny_model.spaces)
    }
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == [str(i) for i in range(230)]
    assert {(row["source"], row["split"], row["clip_kind"], row["url"]) for row in rows} == {
        ("audiocaps", "train", "text", None)
    }
    for row in rows:
        assert (row["status"] == "ok") == (row["clip"] is not None) == (row["clap"] is not None) == (not row["error"])
    ok = [row for row in rows if row["status"] == "ok"]
    captions = [row["caption"] for row in ok]
    assert_near([row["clip"] for row in ok], tiny_model.clip.encode_text(captions))
    assert_near([row["clap"] for row in ok], tiny_model.clap.encode_text(captions))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["statuses"] == {"ok": 205, "duplicate": 23, "empty_caption": 2} and manifest["finished"]
    assert manifest["rows"] == 230 and manifest["rows_per_second"] > 0 and manifest["versions"]["torch"]


def test_a_rerun_does_nothing(arguments, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    before, told = state_of(tmp_path / "out"), capsys.readouterr().out
    assert embedding.main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == told and "is already finished" in shown.err
    assert state_of(tmp_path / "out") == before


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--limit", "100"], "limit is unset there and 100 here"),
        (["--rows_per_shard", "50"], "rows_per_shard is 100 there and 50 here"),
        (["--model", "starter"], "clip_space is"),
    ],
)
def test_a_folder_is_for_one_run(more, sentence, arguments, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    before = state_of(tmp_path / "out")
    assert embedding.main([*arguments, *more]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("audiocaps.embedding: error: ") and sentence in error and "--out" in error
    assert state_of(tmp_path / "out") == before


def test_after_a_file_was_replaced_its_rows_are_made_again(arguments, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    capsys.readouterr()
    write_csv(tmp_path, 231)
    assert embedding.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "train.csv has changed since: 3 of the shards in" in err and "total          231" in out


def test_what_was_killed_goes_on(arguments, tiny_folder, tmp_path) -> None:
    """kill -9 at any moment: no row is lost, none is there twice, and no finished shard is done again."""
    write_csv(tmp_path, 6000)
    arguments[arguments.index("100")] = "60"
    out, environment = tmp_path / "out", {**os.environ, "OMP_NUM_THREADS": "1"}
    for wanted in (2, 40):
        process = subprocess.Popen(
            [sys.executable, "-m", "prior_steps.audiocaps.embedding", *arguments],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(list(out.glob("*.parquet"))) < wanted and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        finished = state_of(out)
        assert wanted <= len(finished) < 100
        assert [shard.rows for shard in open_shards([out])] == [60] * len(finished)
    (out / ".audiocaps-00099.parquet-1.part").write_bytes(b"PAR1 and no more")
    assert embedding.main(arguments) == 0
    assert {name: state_of(out)[name] for name in finished} == finished
    assert not list(out.glob(".*.part"))
    assert [row["id"] for row in rows_of(out)] == [str(i) for i in range(6000)]
    statuses = json.loads((out / "manifest.json").read_text())["statuses"]
    assert statuses == Counter(row["status"] for row in rows_of(out))
    assert statuses == {"ok": 5340, "duplicate": 600, "empty_caption": 60}


def test_one_run_at_a_time(tmp_path) -> None:
    with Folder(tmp_path, {}, {}), pytest.raises(InputError, match="another run is writing"):
        Folder(tmp_path, {}, {})
    Folder(tmp_path, {}, {}).__exit__()


def test_folders_that_are_something_else(arguments, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("[]")
    assert embedding.main(arguments) == 2
    (out / "manifest.json").unlink()
    (out / "mine.parquet").write_bytes(b"PAR1")
    assert embedding.main(arguments) == 2
    assert embedding.main([*arguments, "--out", str(tmp_path / "train.csv")]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert "not the manifest" in first and "has shards but no manifest.json" in second and "cannot write" in third
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == ["mine.parquet"]


@pytest.mark.parametrize("more", [["--limit", "0"], ["--workers", "2"], ["--engine", "dask"], ["--splits", "dev"]])
def test_bad_flags(more, arguments, tmp_path, capsys) -> None:
    assert embedding.main([*arguments, *more]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_two_steps_give_what_one_gives(arguments, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    arguments[-1] = str(tmp_path / "steps")
    assert embedding_clap.main(["--out", arguments[-1], *arguments[2:4]]) == 2
    said = capsys.readouterr().err
    assert "audioldm-embed audiocaps_clip --out" in said and said.rstrip().endswith(f"--model {arguments[3]}")
    assert embedding_clip.main(arguments) == 0
    assert not any(shard.clap_space for shard in open_shards([tmp_path / "steps"]))
    assert csvtotxt.main(["--shards", arguments[-1], "--out", str(tmp_path / "txt")]) == 2
    assert "no CLAP vectors" in capsys.readouterr().err
    for _ in range(2):  # the second time, nothing is left to do
        assert embedding_clap.main(["--out", arguments[-1]]) == 0, "the model is the one of the shards"
    assert rows_of(tmp_path / "steps") == rows_of(tmp_path / "out")
    before = state_of(tmp_path / "steps")
    assert embedding.main(arguments) == 0  # it is such a folder now
    assert embedding_clip.main(arguments) == 0  # and has what the first step makes
    assert state_of(tmp_path / "steps") == before
    (tmp_path / "steps" / "audiocaps-00001.parquet").unlink()
    assert embedding_clip.main(arguments) == 2  # which would make it with CLIP's vectors alone
    assert "towers is clip and clap there and clip here" in capsys.readouterr().err


def test_clap_of_another_model_is_refused(arguments, tmp_path, capsys) -> None:
    assert embedding_clip.main(arguments) == 0
    assert embedding_clap.main(["--out", arguments[-1], "--model", "starter"]) == 2
    assert "clip_space is" in capsys.readouterr().err


def test_text_files(arguments, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    export = ["--shards", str(tmp_path / "out"), "--out", str(tmp_path / "txt")]
    assert csvtotxt.main([*export, "--limit", "150"]) == 0
    ok = [row for row in rows_of(tmp_path / "out") if row["status"] == "ok"]
    found = list(text_pairs(tmp_path / "txt"))
    assert [name for name, *_ in found] == [f"muestra_{i}" for i in range(150)]
    for (_, clip, clap), row in zip(found, ok, strict=False):
        assert clip.tolist() == row["clip"] and clap.tolist() == row["clap"]
    capsys.readouterr()
    assert csvtotxt.main(export) == 2
    assert "already exists" in capsys.readouterr().err and len(list((tmp_path / "txt").iterdir())) == 150
    assert not list(tmp_path.glob(".txt-*"))


def test_histograms(arguments, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    capsys.readouterr()
    picture = tmp_path / "norms" / "all.png"
    assert histograms.main([str(tmp_path / "out"), "--out", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "CLIP, text: lengths range from" in shown and "normalise before use" in shown
    assert "CLAP: all have length 1" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    numbers = json.loads(picture.with_suffix(".json").read_text())["norms"]
    vectors = [row["clip"] for row in rows_of(tmp_path / "out") if row["clip"]]
    assert numbers["CLIP, text"]["count"] == len(vectors) == 205
    assert numbers["CLIP, text"]["mean"] == pytest.approx(np.linalg.norm(vectors, axis=1).mean(), rel=1e-6)
    assert histograms.main([str(tmp_path / "out"), "--out", str(picture)]) == 2
    assert histograms.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "b.png")]) == 2
    assert histograms.main([str(tmp_path / "out"), "--out", str(tmp_path / "b.jpg")]) == 2
    assert ["already exists" in line for line in capsys.readouterr().err.splitlines()] == [True, False, False]


def test_a_damaged_shard_is_named(arguments, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    shard = tmp_path / "out" / "audiocaps-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:1000])
    assert embedding.main(arguments) == 2
    assert "audiocaps-00001.parquet is damaged; delete it" in capsys.readouterr().err
    shard.unlink()
    assert embedding.main(arguments) == 0
    assert len(rows_of(tmp_path / "out")) == 230


def test_histograms_of_a_shard_whose_middle_is_damaged(arguments, tmp_path, capsys) -> None:
    assert embedding.main(arguments) == 0
    shard = tmp_path / "out" / "audiocaps-00001.parquet"
    data = bytearray(shard.read_bytes())
    data[4 : len(data) - 8000] = bytes(len(data) - 8004)  # the footer is as it was
    shard.write_bytes(data)
    assert open_shards([shard])
    assert histograms.main([str(tmp_path / "out"), "--out", str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("histograms: error: the shard ") and "audiocaps-00001.parquet is damaged" in error


def test_shards_are_read_as_they_were_written(arguments, tmp_path) -> None:
    assert embedding_clip.main(arguments) == 0
    found = read_shard(tmp_path / "out" / "audiocaps-00000.parquet")
    assert found.clap is None and found.clip.shape == (100, 512)
    assert np.isnan(found.clip[:, 0]).tolist() == [row.status != "ok" for row in found.rows]


def test_threads_are_ahead_by_no_more_than_their_number() -> None:
    taken, lock = [], threading.Lock()

    def numbers():
        for i in range(20):
            with lock:
                taken.append(i)
            yield i

    for done, result in enumerate(map_ahead(lambda i: i * i, numbers(), 3)):
        assert result == done * done and len(taken) <= done + 3


def test_the_time_that_is_left(capsys) -> None:
    """At first by the estimate, at last by the pace so far."""
    stages = Stages("make", {"embedding": 60.0, "training": 40.0})
    stages.begin("embedding")
    assert stages.left(0) == 100 and 100 < stages.left(10) < 115
    rows = stages.rows(1000, 600)  # 600 of 1000 were there before
    rows.add(200)
    assert 65 < stages.left(30) < 75
    stages.begin("training")
    stages.done(0.75)
    assert 18 < stages.left(180) < 20, "all takes twice as long as estimated"
    stages.done(1.0)
    assert stages.left(200) == 0


def test_progress_without_a_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setattr("prior_steps.engine.progress.EVERY", 0)
    with Progress("wit", 100, 20) as progress:
        time.sleep(0.05)
        progress.add(40)
    first, _ = capsys.readouterr().err.splitlines()
    assert first.startswith("wit: 60 of 100 rows, ") and first.endswith("0:00 left") and "rows/s" in first
    assert table({"http_404": 2, "ok": 1000}) == "ok        1,000\nhttp_404      2\ntotal     1,002"


def test_nothing_heavy_is_imported_for_help() -> None:
    program = (
        "import importlib, sys\n"
        "for name in ('audiocaps', 'wit', 'conceptual_captions'):\n"
        "    one = importlib.import_module(f'prior_steps.{name}.embedding')\n"
        "    try: one.main(['-h'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'pyarrow', 'ray', 'matplotlib', 'transformers'} & set(sys.modules), sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert shown.count("example:") == 3 and shown.count("with that file of https://") == 2
