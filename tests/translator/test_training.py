"""Training: it learns, each translator is the same alone or beside others, interrupted or not, and nothing is lost."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pairs import CLAP, CLIP, DIM, make_rows, read_pairs, write_shard
from PIL import Image
from safetensors.torch import load_file

from translator import InputError
from translator.model import load_translator
from translator.settings import Settings, parse
from translator.shards import pairs as data
from translator.shards.pairs import Pairs
from translator.shards.parquet import open_shards
from translator.training import closed_form, job, memory, named, record, train
from translator.training.mix import Mix

SHORT = {"epochs": 4, "batch": 32, "hidden": 24, "patience": 0}


def settings(name: str, **more: Any) -> Settings:
    return replace(parse(name), **{**SHORT, **more})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of both sources: captions and pictures."""
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "audiocaps.parquet", make_rows(600))
    write_shard(folder / "wit.parquet", make_rows(300, "w", "image", seed=1), "wit")
    return folder


@pytest.fixture
def sources(folder: Path) -> dict[str, Pairs]:
    return {name: read_pairs(folder / f"{name}.parquet") for name in ("audiocaps", "wit")}


def weights(out: Path, name: str) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in load_file(out / f"{name}.safetensors").items()}


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small networks take several times as long where two threads wait for each other on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# It learns


@pytest.mark.parametrize("name", ["audiocaps_mse_256", "audiocaps_wit_cl_256", "wit_cos_256_noise_centred"])
def test_it_learns(sources: dict[str, Pairs], tmp_path: Path, name: str) -> None:
    """What no constant vector can know, of pairs that it never saw."""
    wanted = settings(name, epochs=15, batch=16, lr=5e-3, hidden=64, dropout=0.0)
    train.train([wanted], sources, tmp_path, report=quiet)
    made = json.loads((tmp_path / f"{name}.json").read_text())
    metrics, history = made["metrics"], list(csv.DictReader(open(tmp_path / f"{name}.csv")))
    assert metrics["held_out_cosine"] > metrics["constant_cosine"] + 0.3 * (1 - metrics["constant_cosine"])
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])
    translator = load_translator(tmp_path / f"{name}.safetensors")
    held = Mix([sources[source] for source in wanted.sources]).held_out_pairs()
    cosine = F.cosine_similarity(translator(held.clip, held.kind), held.clap).mean().item()
    assert cosine == pytest.approx(metrics["held_out_cosine"], abs=1e-5), "the figures are those of the file"


def test_the_constant_is_the_best_single_vector(sources: dict[str, Pairs]) -> None:
    both = Mix(list(sources.values()), weights=(2, 1), batch=12)
    clap = [np.concatenate([b.clap for b in pairs.buffers(data.TRAIN)]).mean(0) for pairs in both.sources]
    mean = torch.tensor(2 / 3 * clap[0] + 1 / 3 * clap[1])
    held = both.held_out_pairs()
    expected = F.cosine_similarity(mean[None], held.clap).mean().item()
    assert closed_form.constant_cosine(both, held) == pytest.approx(expected, abs=1e-6)


# What is written


def test_what_is_written(sources: dict[str, Pairs], tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "new" / "folder"
    paths = train.train([settings("wit_cos_512"), settings("wit_mse_512_centred")], sources, out, report=said.append)
    assert paths == [out / "wit_cos_512.safetensors", out / "wit_mse_512_centred.safetensors"]
    names = [f"{path.stem}.{suffix}" for path in paths for suffix in ("csv", "json", "png", "safetensors")]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    made = json.loads((out / "wit_cos_512.json").read_text())
    assert (made["name"], made["kind"]) == ("wit_cos_512", "network")
    assert (made["clip_space"], made["clap_space"]) == (CLIP, CLAP)
    assert set(made["data"]) == {"wit"} and made["data"]["wit"]["pairs"] == sources["wit"].train
    assert made["settings"]["hidden"] == 24 and made["settings"]["loss"] == "cos" and made["settings"]["lr"] == 1e-3
    assert made["metrics"]["epochs"] == 4 and len(made["date"]) == 10
    rows = list(csv.DictReader(open(out / "wit_cos_512.csv")))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert set(rows[0]) == {"epoch", "train_loss", "held_out_loss", "held_out_cosine", "seconds"}
    best = min(rows, key=lambda row: float(row["held_out_loss"]))
    assert int(best["epoch"]) == made["metrics"]["best_epoch"]
    with Image.open(out / "wit_cos_512.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 400
    plain, centred = (load_translator(path) for path in paths)
    assert plain.clip_means is None and centred.clip_means.shape == (2, DIM) and centred.dim == DIM
    assert plain.metadata["data"] == f"wit {sources['wit'].train}" and plain.metadata["clip_space"] == CLIP
    assert centred.metadata["centred"] == "True" and "noise" not in plain.metadata
    assert len([line for line in said if "held-out cosine up to" in line and "pairs/s" in line]) == 4
    assert any("left" in line for line in said) and any("best epoch" in line for line in said)


def test_half_precision_halves_the_file(sources: dict[str, Pairs], tmp_path: Path) -> None:
    for half in (False, True):
        train.train([settings("wit_cos_256")], sources, tmp_path / str(half), half=half, report=quiet)
    full, halved = (load_file(tmp_path / f"{half}" / "wit_cos_256.safetensors") for half in (False, True))
    for name, tensor in full.items():
        assert halved[name].dtype == torch.float16 and torch.equal(halved[name], tensor.half())
    assert load_translator(tmp_path / "True" / "wit_cos_256.safetensors")(torch.randn(1, DIM)).dtype == torch.float32


# The same whatever is beside it and however often it stops


VARIANTS = ("wit_cos_256", "wit_cl_512", "wit_mse_256_noise", "wit_cos_256_centred", "audiocaps_wit_cl_256")


@pytest.fixture(scope="module")
def together(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of VARIANTS, trained in one go; the last has dropout."""
    out = tmp_path_factory.mktemp("together")
    sources = {name: read_pairs(folder / f"{name}.parquet") for name in ("audiocaps", "wit")}
    train.train([settings(name) for name in VARIANTS], sources, out, report=quiet)
    return out


@pytest.mark.parametrize("name", VARIANTS)
def test_alone_or_beside_others(sources: dict[str, Pairs], together: Path, tmp_path: Path, name: str) -> None:
    train.train([settings(name)], sources, tmp_path, report=quiet)
    assert weights(tmp_path, name) == weights(together, name)


def test_they_differ_where_they_should(together: Path) -> None:
    assert len({tuple(sorted(weights(together, name).items())) for name in VARIANTS}) == len(VARIANTS)


def test_another_seed_is_another_translator(sources: dict[str, Pairs], together: Path, tmp_path: Path) -> None:
    train.train([settings("wit_cos_256", seed=1)], sources, tmp_path, report=quiet)
    assert weights(tmp_path, "wit_cos_256") != weights(together, "wit_cos_256")


@pytest.mark.parametrize("stop_at", [1, 3])
def test_interrupted_and_gone_on(sources: dict[str, Pairs], together: Path, tmp_path: Path, stop_at: int) -> None:
    """Weights are the same to the bit; also when more names come in at the second run."""
    def interrupt(line: str) -> None:
        if f"epoch {stop_at}," in line:
            raise KeyboardInterrupt

    for names in (VARIANTS[:1], VARIANTS[4:]):
        with pytest.raises(KeyboardInterrupt):
            train.train([settings(name) for name in names], sources, tmp_path, report=interrupt)
    assert not list(tmp_path.glob("*.safetensors")) and len(list(tmp_path.glob(".*.state"))) == 2
    assert job.epochs_done(settings(VARIANTS[0]), tmp_path) == stop_at
    assert job.epochs_done(settings(VARIANTS[1]), tmp_path) == 0
    said, shares = list[str](), list[float]()
    wanted = [settings(name) for name in VARIANTS]
    train.train(wanted, sources, tmp_path, report=said.append, on_share=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    assert all(weights(tmp_path, name) == weights(together, name) for name in VARIANTS)
    assert f"wit: epoch {stop_at + 1}, 4 of 4" in "\n".join(said) and not list(tmp_path.glob(".*"))
    assert f"audiocaps+wit: epoch {stop_at}," not in "\n".join(said)


def test_interrupted_between_the_last_epoch_and_the_end(sources, together: Path, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(record, "save", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.train([settings("wit_cos_256")], sources, tmp_path, report=quiet)
    assert not (tmp_path / "wit_cos_256.safetensors").exists()
    train.train([settings("wit_cos_256")], sources, tmp_path, report=quiet)
    assert weights(tmp_path, "wit_cos_256") == weights(together, "wit_cos_256")
    assert not list(tmp_path.glob(".*"))


def test_killed_in_an_epoch(folder: Path, together: Path, tmp_path: Path) -> None:
    """By kill -9, in a process of its own, after its second epoch."""
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[up]) for up in (2, 0, 1)]}
from pathlib import Path
from test_training import read_pairs, settings, train
sources = {{"wit": read_pairs(Path({str(folder)!r}) / "wit.parquet")}}
wait = train._epoch
def slow(jobs, mix, number, *rest):
    if number == 2:
        print("third", flush=True)
        sys.stdin.read()
    wait(jobs, mix, number, *rest)
if len(sys.argv) > 1:
    train._epoch = slow
train.train([settings("wit_cos_256")], sources, Path({str(tmp_path)!r}), report=print)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first = subprocess.Popen([sys.executable, "-c", code, "slowly"], **pipes, env=environment)
    assert any(line == "third\n" for line in first.stdout)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (state,) = tmp_path.iterdir()
    assert state.name == ".wit_cos_256.state" and first.returncode == -signal.SIGKILL
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "epoch 3," in again.stdout and "epoch 2," not in again.stdout
    assert weights(tmp_path, "wit_cos_256") == weights(together, "wit_cos_256")


# When it stops


def history(job_settings: Settings, *losses: float) -> train.Job:
    rows = [{"epoch": i, "held_out_loss": loss} for i, loss in enumerate(losses, 1)]
    return train.Job(job_settings, None, None, 2.0, rows)


@pytest.mark.parametrize(
    "losses, done, best",
    [
        ((), False, 0), ((1.0,), False, 1), ((1.0, 0.9, 0.8, 0.7), False, 4), ((1.0, 0.8, 0.85, 0.9), True, 2),
        ((1.0, 0.8, 0.799, 0.798), True, 4),  # falls, but by less than a gain worth waiting for; the best is kept
        ((1.0, 0.995, 0.985, 0.98), False, 4),  # small steps add up
        ((1.0, 0.5, 0.6, 0.4), False, 4), ((1, 0.9, 0.8, 0.7, 0.6, 0.5), True, 6),
    ],
)  # fmt: skip
def test_when_it_is_done(losses: tuple[float, ...], done: bool, best: int) -> None:
    job = history(settings("wit_cos_256", epochs=6, patience=2, gain=0.01), *losses)
    assert (job.done, job.best_epoch) == (done, best)
    endless = history(settings("wit_cos_256", epochs=99, patience=0), *losses)
    assert not endless.done


def test_it_stops_early_and_keeps_the_best(sources: dict[str, Pairs], tmp_path: Path) -> None:
    wanted = settings("wit_mse_256", epochs=60, patience=2, gain=0.05, lr=0.02, hidden=64)
    train.train([wanted], sources, tmp_path, report=quiet)
    metrics = json.loads((tmp_path / "wit_mse_256.json").read_text())["metrics"]
    rows = list(csv.DictReader(open(tmp_path / "wit_mse_256.csv")))
    assert metrics["epochs"] == len(rows) < 60
    assert metrics["held_out_loss"] == pytest.approx(min(float(row["held_out_loss"]) for row in rows), abs=1e-5)


def test_others_go_on_when_one_stops(sources: dict[str, Pairs], tmp_path: Path) -> None:
    both = [settings("wit_cos_256", epochs=2), settings("wit_mse_256", epochs=5)]
    said: list[str] = []
    train.train(both, sources, tmp_path, report=said.append)
    lengths = [len((tmp_path / f"{one.name}.csv").read_text().splitlines()) - 1 for one in both]
    assert lengths == [2, 5] and "epoch 3, 1 of 2 learning" in "\n".join(said)


# What is there stays


def test_what_is_finished_is_left_as_it_is(sources: dict[str, Pairs], together: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in together.iterdir()}
    said: list[str] = []
    train.train([settings(name) for name in VARIANTS], sources, together, report=said.append)
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in together.iterdir()}
    assert said == [f"{name}: already in {together}" for name in VARIANTS]
    (together / ".wit_cos_256.state").touch()  # killed just before this was deleted
    train.train([settings("wit_cos_256")], sources, together, report=quiet)
    assert not list(together.glob(".*"))


def test_two_runs_in_one_folder(sources: dict[str, Pairs], together: Path, tmp_path: Path) -> None:
    """The second begins while the first is at its third epoch, and ends before it."""
    def begin_again(line: str) -> None:
        if "epoch 2," in line and not (tmp_path / "wit_cos_256.safetensors").exists():
            train.train([settings("wit_cos_256")], sources, tmp_path, report=quiet)

    train.train([settings("wit_cos_256")], sources, tmp_path, report=begin_again)
    assert weights(tmp_path, "wit_cos_256") == weights(together, "wit_cos_256")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"epochs": 5}, {"hidden": 25}, {"seed": 3}, {"noise": 0.5}])
def test_made_otherwise_is_refused(sources: dict[str, Pairs], together: Path, change: dict) -> None:
    before = {path: path.read_bytes() for path in together.iterdir()}
    with pytest.raises(InputError, match="wit_cos_256.safetensors already exists, made with other settings or"):
        train.train([settings("wit_cl_256"), settings("wit_cos_256", **change)], sources, together, report=quiet)
    assert before == {path: path.read_bytes() for path in together.iterdir()}


def test_made_of_other_data_is_refused(together: Path, tmp_path: Path) -> None:
    other = {"wit": read_pairs(write_shard(tmp_path / "wit.parquet", make_rows(299, "w", "image", seed=1), "wit"))}
    with pytest.raises(InputError, match="already exists, made with other settings or data"):
        train.train([settings("wit_cos_256")], other, together, report=quiet)


def test_the_same_words_with_other_vectors_are_other_data(tmp_path: Path) -> None:
    one, other = (
        read_pairs(write_shard(tmp_path / f"{seed}.parquet", make_rows(99, seed=seed), group=group))
        for seed, group in ((0, 50), (1, 50))
    )
    again = read_pairs(write_shard(tmp_path / "again.parquet", make_rows(99, seed=0), group=7))
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_centred_translators_take_pictures(folder: Path, tmp_path: Path) -> None:
    texts = {"audiocaps": read_pairs(folder / "audiocaps.parquet")}
    with pytest.raises(InputError, match="require pictures"):
        train.train([settings("audiocaps_cos_256_centred")], texts, tmp_path / "out", report=quiet)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_training_of_other_settings_is_refused(sources: dict[str, Pairs], tmp_path: Path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train([settings("wit_cos_256")], sources, tmp_path, report=interrupt)
    state = tmp_path / ".wit_cos_256.state"
    before = state.read_bytes()
    with pytest.raises(InputError, match="with other settings or data; delete .wit_cos_256.state there"):
        train.train([settings("wit_cos_256", lr=0.5)], sources, tmp_path, report=quiet)
    assert state.read_bytes() == before and list(tmp_path.iterdir()) == [state]
    torch.save([1, 2], other := tmp_path / "other")
    for content in (before[:-200], b"", b"no state", other.read_bytes()):
        state.write_bytes(content)
        with pytest.raises(InputError, match=".wit_cos_256.state, the state of an interrupted .* is damaged; del"):
            train.train([settings("wit_cos_256")], sources, tmp_path, report=quiet)
        assert state.read_bytes() == content


# Data that are none: nothing is written


@pytest.mark.parametrize("spoilt", ["clip", "clap"])
def test_rows_that_are_no_vectors_write_nothing(tmp_path: Path, monkeypatch, spoilt: str) -> None:
    """Also if they come last, in a stream."""
    monkeypatch.setattr(data, "BUFFER", 60)
    rows = make_rows(200)
    rows[-1][spoilt] = np.full(DIM, np.nan, np.float32)
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", rows), held_out=0.1)
    with pytest.raises(InputError, match=f"1 of its {spoilt} vectors are not finite"):
        train.train([settings("audiocaps_cos_256")], {"audiocaps": pairs}, tmp_path / "out", report=quiet)
    assert not (tmp_path / "out").exists()


def test_one_row_and_no_clap_vectors_write_nothing(tmp_path: Path) -> None:
    one = read_pairs(write_shard(tmp_path / "a.parquet", make_rows(1)))
    rows = make_rows(40, paired=False)
    blind = read_pairs(write_shard(tmp_path / "b.parquet", rows, clap_space=None))
    for pairs, sentence in ((one, "1 usable pairs"), (blind, "the data have no CLAP vectors")):
        for make in (
            lambda p, o: train.train([settings("audiocaps_cos_256")], {"audiocaps": p}, o, report=quiet),
            lambda p, o: closed_form.make("ridge", {"audiocaps": p}, o),
        ):
            with pytest.raises(InputError, match=sentence):
                make(pairs, tmp_path / "out")
    with pytest.raises(InputError, match="two different captions"):
        memory.make({"audiocaps": one}, tmp_path / "out", size=10)
    assert not (tmp_path / "out").exists()


def test_a_training_that_blows_up_is_told(sources: dict[str, Pairs], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the training of wit_mse_256 diverged"):
        train.train([settings("wit_mse_256", lr=1e38)], sources, tmp_path / "out", report=quiet)
    assert not (tmp_path / "out").exists()


# Closed forms and the memory, as files


def test_closed_forms_and_memory_are_written_once(sources: dict[str, Pairs], tmp_path: Path) -> None:
    makes = {
        "procrustes": lambda s: closed_form.make("procrustes", s, tmp_path),
        "ridge": lambda s: closed_form.make("ridge", s, tmp_path),
        "memory": lambda s: memory.make(s, tmp_path, size=20),
    }
    for name, make in makes.items():
        assert make(sources) == tmp_path / f"{name}.safetensors"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert sorted(path.name for path in before) == sorted(f"{n}.{s}" for n in makes for s in ("json", "safetensors"))
    for name, make in makes.items():
        made = json.loads((tmp_path / f"{name}.json").read_text())
        assert made["data"].keys() == sources.keys() and made["clip_space"] == CLIP
        make(sources)
        with pytest.raises(InputError, match=f"{name}.safetensors already exists, made with other settings or"):
            make({"wit": sources["wit"]})
        if name != "memory":
            assert made["metrics"]["held_out_cosine"] > made["metrics"]["constant_cosine"] + 0.05
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_a_memory_whose_captions_no_header_holds(sources: dict[str, Pairs], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("translator.training.memory.MAX_CAPTIONS", 500)
    with pytest.raises(InputError, match="100 captions do not fit into a file's header; keep fewer"):
        memory.make(sources, tmp_path / "out", size=100)
    assert not (tmp_path / "out").exists()
    memory.make(sources, tmp_path / "out", size=10)


# By name, from shards


def both_collections(folder: Path) -> Path:
    """Shards of AudioCaps, WIT and Conceptual Captions; the last two share a picture with its caption."""
    write_shard(folder / "audiocaps.parquet", make_rows(120))
    write_shard(folder / "wit.parquet", make_rows(100, "w", "image", seed=1), "wit")
    rows = make_rows(80, "c", "image", seed=2)
    rows[0] |= {key: make_rows(1, "w", "image", seed=1)[0][key] for key in ("id", "caption")}
    write_shard(folder / "cc.parquet", rows, "conceptual_captions")
    return folder


def test_conceptual_captions_counts_as_wit(tmp_path: Path) -> None:
    shards, said = open_shards([both_collections(tmp_path / "shards")]), list[str]()
    order = named.Order(["wit_cos_8", "audiocaps_wit_mse_8"], {"epochs": 1})
    named.make_all(order, shards, tmp_path / "out", said.append)
    found = json.loads((tmp_path / "out" / "wit_cos_8.json").read_text())["data"]
    assert list(found) == ["wit"] and found["wit"]["collections"] == {"wit": 100, "conceptual_captions": 80}
    assert found["wit"]["pairs"] + found["wit"]["held_out"] == 180
    mixed = json.loads((tmp_path / "out" / "audiocaps_wit_mse_8.json").read_text())["data"]
    assert mixed["wit"] == found["wit"] and "collections" not in mixed["audiocaps"]
    assert not [line for line in said if "not used" in line]


def test_a_shard_that_no_name_uses_is_said(tmp_path: Path) -> None:
    shards, said, shares = open_shards([both_collections(tmp_path / "shards")]), list[str](), list[float]()
    order = named.Order(["audiocaps_cos_8"], {"epochs": 2})
    named.make_all(order, shards, tmp_path / "out", said.append, shares.append)
    (line,) = [line for line in said if "not used" in line]
    assert "2 shards of wit" in line and "audiocaps_cos_8" in line
    assert shares == sorted(shares) and shares[-1] == 1
