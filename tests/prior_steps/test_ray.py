"""The engine on a real Ray, two workers, on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from runs import assert_near, rows_of, state_of, write_csv
from wit_table import wit_line, write_wit

from audioldm.errors import InputError
from prior_steps.audiocaps import embedding
from prior_steps.audiocaps.reader import AudioCaps
from prior_steps.engine.fetch import Settings, WebFetcher
from prior_steps.engine.run import run
from prior_steps.engine.worker import Job
from prior_steps.wit.reader import Wit


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    yield
    ray.shutdown()


def workers() -> list[int]:
    """Process ids of those of our Ray's workers that have the model."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"_RayWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))

    def is_ours(process: int) -> bool:
        return process == os.getpid() or process in parents and is_ours(parents[process])

    return list(filter(is_ours, found))


def test_the_rows_are_those_of_one_process(cluster, tiny_folder, tmp_path, capsys) -> None:
    arguments = ["--csv", str(write_csv(tmp_path, 230)), "--model", str(tiny_folder), "--rows_per_shard", "50"]
    assert embedding.main([*arguments, "--out", str(tmp_path / "here")]) == 0
    expected = capsys.readouterr().out.splitlines()[:-1]
    on_ray = [*arguments, "--out", str(tmp_path / "ray"), "--engine", "ray", "--workers", "2"]
    assert embedding.main(on_ray) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == expected
    for row, wanted in zip(rows_of(tmp_path / "ray"), rows_of(tmp_path / "here"), strict=True):
        vectors = [(one.pop("clip"), one.pop("clap")) for one in (row, wanted)]
        assert row == wanted
        if row["status"] == "ok":  # other processes may round otherwise
            assert_near(*vectors)
        else:
            assert vectors == [(None, None)] * 2
    before = state_of(tmp_path / "ray")
    assert embedding.main(on_ray) == 0 and state_of(tmp_path / "ray") == before


def test_only_what_a_replaced_file_touches_is_made_again(cluster, tiny_folder, tmp_path, capsys) -> None:
    for name, rows in (("train", 100), ("val", 60)):
        write_csv(tmp_path, rows, name)
    arguments = ["--csv", str(tmp_path), "--model", str(tiny_folder), "--rows_per_shard", "50"]
    arguments += ["--out", str(tmp_path / "out"), "--engine", "ray", "--workers", "2"]
    assert embedding.main(arguments) == 0
    before = state_of(tmp_path / "out")
    write_csv(tmp_path, 30, "val")
    assert embedding.main(arguments) == 0
    after = state_of(tmp_path / "out")
    assert "val.csv has changed since: 2 of the shards" in capsys.readouterr().err
    names = sorted(before)
    assert (len(before), sorted(after)) == (4, names[:3])
    assert [before[name] == after[name] for name in names[:3]] == [True, True, False]


def test_settings_of_others_are_as_they_were(cluster, tiny_folder, tmp_path) -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    run(Job(AudioCaps(write_csv(tmp_path, 20)), model=str(tiny_folder), device="cpu"), tmp_path / "out", engine="ray")
    assert before[0] > 1 and before == (context.target_max_block_size, context.enable_progress_bars)


def test_no_network_is_said_by_the_worker(cluster, tiny_folder, tmp_path) -> None:
    source = write_wit(tmp_path / "wit.tsv", *(wit_line(f"http://127.0.0.1:1/{i}", f"caption {i}") for i in range(70)))
    fetcher = partial(WebFetcher, Settings(tmp_path / "cache", tries=1, allow_private=True))
    job = Job(Wit(source), "image", str(tiny_folder), "cpu", fetcher=fetcher)
    with pytest.raises(InputError, match="none of the 70 pictures of a shard could be reached"):
        run(job, tmp_path / "out", engine="ray", workers=1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for the workers in /proc")
def test_a_killed_worker_loses_nothing(cluster, tiny_folder, tmp_path) -> None:
    job = Job(AudioCaps(write_csv(tmp_path, 4000)), model=str(tiny_folder), device="cpu", shard_rows=40)
    out, killed = tmp_path / "out", []

    def kill() -> None:
        while len(list(out.glob("*.parquet"))) < 3:
            time.sleep(0.005)
        killed.append(workers()[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    folder = run(job, out, engine="ray", workers=2)
    thread.join(10)
    assert killed and folder.finished
    assert [row["id"] for row in rows_of(out)] == [str(i) for i in range(4000)]
    assert folder.statuses == {"ok": 3560, "duplicate": 400, "empty_caption": 40}
    assert not list(out.glob(".*.part"))


def test_what_is_wrong_is_said_in_one_sentence(cluster, tiny_folder, tmp_path) -> None:
    lines = [wit_line(f"http://127.0.0.1:1/{i}", f"caption {i} {os.urandom(40).hex()}") for i in range(2000)]
    source = write_wit(tmp_path / "wit.tsv.gz", *lines)
    reader = Wit(source)
    source.unlink()  # a file that is cut is no error but a row, see test_damaged_inputs.py
    job = Job(reader, "image", str(tiny_folder), "cpu", shard_rows=100)
    with pytest.raises(InputError, match="wit.tsv.gz"):
        run(job, tmp_path / "out", engine="ray", workers=1)


def test_no_cluster_and_no_ray(tiny_folder, tmp_path, capsys, monkeypatch) -> None:
    arguments = ["--csv", str(write_csv(tmp_path, 10)), "--model", str(tiny_folder), "--out", str(tmp_path / "out")]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert embedding.main([*arguments, "--engine", "ray"]) == 2
    assert "--engine ray requires Ray" in capsys.readouterr().err
