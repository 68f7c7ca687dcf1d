"""Pairs from embedding shards: what is held out, what comes in an epoch, and data that are none."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import CLIP, DIM, make_rows, read_pairs, write_shard

from translator import InputError
from translator.shards import pairs as data
from translator.shards.pairs import HELD_OUT, PICTURE, TRAIN, Pairs
from translator.shards.parquet import open_shards
from translator.training.mix import Mix


def keys(batch: data.Batch) -> list[tuple[bytes, bytes, int]]:
    """Rows as things that can be counted."""
    rows = zip(batch.clip.numpy(), batch.clap.numpy(), batch.kind.tolist(), strict=True)
    return [(clip.tobytes(), clap.tobytes(), kind) for clip, clap, kind in rows]


def rows_of(pairs: Pairs, *marks: int) -> list[tuple[bytes, bytes, int]]:
    return [key for buffer in pairs.buffers(*marks) for key in keys(buffer)]


def held(pairs: Pairs) -> set[bytes]:
    return {clip for clip, _, _ in rows_of(pairs, HELD_OUT)}


# The split


def test_the_same_words_are_never_on_both_sides(tmp_path: Path) -> None:
    """Over cases, spaces, shards and sources."""
    rows = make_rows(300)
    again = make_rows(300, name="b", seed=1)
    for row, twin in zip(rows, again, strict=True):
        twin["caption"] = "  " + row["caption"].upper().replace(" ", " \t") + "\n"
    one = read_pairs(write_shard(tmp_path / "1.parquet", rows), write_shard(tmp_path / "2.parquet", again))
    other = read_pairs(write_shard(tmp_path / "3.parquet", again, "wit"))
    out = held(one)
    assert 0 < one.held_out < 300 and one.train + one.held_out == 600
    for row, twin in zip(rows, again, strict=True):
        assert (row["clip"].tobytes() in out) == (twin["clip"].tobytes() in out)
        assert (twin["clip"].tobytes() in out) == (twin["clip"].tobytes() in held(other))


def test_the_split_knows_no_order_and_no_layout(tmp_path: Path) -> None:
    rows = make_rows(200)
    first = read_pairs(write_shard(tmp_path / "a.parquet", rows, group=7))
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(200)]
    parts = [write_shard(tmp_path / "b" / f"{i}.parquet", shuffled[i::3], group=200) for i in range(3)]
    assert held(first) == held(read_pairs(*parts))
    assert held(first) < held(read_pairs(tmp_path / "a.parquet", held_out=0.5)), "a greater share holds out more"


def test_the_split_has_its_share(tmp_path: Path) -> None:
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", make_rows(4000), group=1000), held_out=0.2)
    assert pairs.held_out == pytest.approx(800, abs=100)  # four standard deviations


def test_without_a_caption_the_id_decides(tmp_path: Path) -> None:
    rows = [{**row, "caption": caption} for row, caption in zip(make_rows(200), [None, "", " "] * 67, strict=False)]
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", rows))
    out = held(pairs)
    assert pairs.train + pairs.held_out == 200
    for start in range(3):
        assert 0 < sum(row["clip"].tobytes() in out for row in rows[start::3]) < 20


def test_rows_that_failed_are_left_out_and_pictures_alone_give_means_only(tmp_path: Path) -> None:
    good, failed, alone = make_rows(100), make_rows(10, "failed"), make_rows(20, "p", "image", seed=2, paired=False)
    for row in failed:
        row.update(status="too large", clip=None, clap=None)
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", failed[:5] + good + alone + failed[5:], group=13))
    assert (pairs.unused, pairs.pictures, pairs.train + pairs.held_out) == (10, 20, 100)
    clips = [clip for clip, _, _ in rows_of(pairs, TRAIN) + rows_of(pairs, HELD_OUT)]
    assert sorted(clips) == sorted(row["clip"].tobytes() for row in good)
    pictures = rows_of(pairs, PICTURE)
    assert sorted(clip for clip, _, _ in pictures) == sorted(row["clip"].tobytes() for row in alone)
    assert {(clap, kind) for _, clap, kind in pictures} == {(b"", 1)}


def test_shards_of_pictures_without_captions_have_no_clap_space(tmp_path: Path) -> None:
    alone = write_shard(tmp_path / "p.parquet", make_rows(20, "p", "image", paired=False), "wit", clap_space=None)
    pairs = read_pairs(alone, write_shard(tmp_path / "q.parquet", make_rows(20), "wit"))
    assert (pairs.pictures, pairs.train + pairs.held_out) == (20, 20)


# Epochs


@pytest.fixture
def small_buffer(monkeypatch) -> None:
    monkeypatch.setattr(data, "BUFFER", 60)


def mix(paths: list[Path], **more) -> Mix:
    return Mix([read_pairs(path) for path in paths], **more)


def test_every_pair_comes_once_in_an_epoch(tmp_path: Path, small_buffer) -> None:
    one = mix([write_shard(tmp_path / "a.parquet", make_rows(403), group=17)], batch=32)
    expected = Counter(rows_of(one.sources[0], TRAIN))
    epochs = [[keys(batch) for batch in one.epoch(number)] for number in (0, 1, 0)]
    for batches in epochs:
        assert len(batches) == len(one) and {len(batch) for batch in batches[:-1]} == {32}
        assert Counter(key for batch in batches for key in batch) == expected
    assert epochs[0] == epochs[2] != epochs[1]
    assert epochs[0] != [keys(batch) for batch in Mix(one.sources, batch=32, seed=1).epoch(0)]
    assert not set(expected) & set(rows_of(one.sources[0], HELD_OUT))


def test_streamed_is_the_same_as_in_memory(tmp_path: Path, monkeypatch) -> None:
    rows = make_rows(500) + make_rows(99, "p", "image", seed=1, paired=False)
    path = write_shard(tmp_path / "a.parquet", rows, group=23)
    found = {}
    for buffer in (10_000, 100, 1):
        monkeypatch.setattr(data, "BUFFER", buffer)
        pairs = read_pairs(path)
        found[buffer] = [Counter(rows_of(pairs, mark)) for mark in (TRAIN, HELD_OUT, PICTURE)]
        assert len(list(pairs.buffers(TRAIN))) == {10_000: 1, 100: 5, 1: 22}[buffer]
    assert found[10_000] == found[100] == found[1]


def test_a_batch_is_not_one_row_group(tmp_path: Path, small_buffer) -> None:
    """Pairs that lie together in the file are spread over what is in hand."""
    rows = make_rows(400)
    where = {row["clip"].tobytes(): number // 10 for number, row in enumerate(rows)}
    one = mix([write_shard(tmp_path / "a.parquet", rows, group=10)], batch=30)
    groups = [len({where[clip] for clip, _, _ in keys(batch)}) for batch in one.epoch(0)]
    assert min(groups[:-1]) >= 5


@pytest.mark.parametrize("weights, counts", [((), [32, 32]), ((3, 1), [48, 16]), ((1, 63), [1, 63])])
def test_a_mix_has_its_shares_in_every_batch(tmp_path: Path, small_buffer, weights, counts) -> None:
    paths = [
        write_shard(tmp_path / "a.parquet", make_rows(300), group=11),
        write_shard(tmp_path / "w.parquet", make_rows(90, "w", "image", seed=5), "wit", group=11),
    ]
    both = mix(paths, weights=weights)
    batches = list(both.epoch(3))
    assert len(batches) == len(both) == -(-both.pairs // 64)
    assert all(torch.bincount(batch.kind, minlength=2).tolist() == counts for batch in batches)
    assert both.weights == pytest.approx([count / 64 for count in counts])
    seen = Counter(key for batch in batches for key in keys(batch) if key[2] == 1)
    assert set(seen) <= set(rows_of(both.sources[1], TRAIN))
    assert max(seen.values()) - min(seen.values()) <= 1, "the smaller source comes round evenly"


@pytest.mark.parametrize(
    "more, sentence",
    [({"weights": (1,)}, "give 2 weights"), ({"weights": (1, 0)}, "above 0"), ({"weights": (1, -2)}, "above 0"),
     ({"weights": (1, float("nan"))}, "above 0"), ({"weights": (1000, 1)}, "too small .* share of 0.000999"),
     ({"batch": 1}, "too small")],
)  # fmt: skip
def test_shares_that_are_none(tmp_path: Path, more: dict, sentence: str) -> None:
    paths = [write_shard(tmp_path / f"{name}.parquet", make_rows(40), name) for name in ("audiocaps", "wit")]
    with pytest.raises(InputError, match=sentence):
        mix(paths, **more)


def test_held_out_pairs_are_at_most_so_many(tmp_path: Path, monkeypatch) -> None:
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", make_rows(300)), held_out=0.5)
    assert sorted(keys(pairs.held_out_pairs())) == sorted(rows_of(pairs, HELD_OUT))
    monkeypatch.setattr(data, "HELD_OUT_ROWS", 40)
    assert set(keys(pairs.held_out_pairs())) < set(rows_of(pairs, HELD_OUT))
    assert len(pairs.held_out_pairs().clip) == 40


# Data that are none


def test_an_id_may_stand_once(tmp_path: Path) -> None:
    rows = make_rows(30)
    rows[20]["id"] = "a3"
    with pytest.raises(InputError, match='^the id "a3" occurs more than once in the shards of audiocaps; '):
        read_pairs(write_shard(tmp_path / "a.parquet", rows))
    one, two = (write_shard(tmp_path / f"{i}.parquet", make_rows(5)) for i in (1, 2))
    with pytest.raises(InputError, match='the id "a[0-4]" occurs more than once'):
        read_pairs(one, two)


def test_many_ids_are_compared_in_parts(tmp_path: Path) -> None:
    """What five million rows need, on few: the hashes in three parts."""
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", make_rows(30)))
    hashes = np.array([data._hash(f"a{i}") for i in range(30)], np.uint64)
    many = np.concatenate([hashes, np.arange(2_500_000, dtype=np.uint64)])
    pairs._refuse_duplicates(many)
    with pytest.raises(InputError, match='"a7"'):
        pairs._refuse_duplicates(np.concatenate([many, hashes[7:8]]))


@pytest.mark.parametrize("place", ["clip", "clap"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_that_are_none(tmp_path: Path, place: str, value: float) -> None:
    rows = make_rows(40)
    for row in rows[10:13]:
        row[place] = row[place].copy()
        row[place][slice(None) if value == 0 else 3] = value
    pairs = read_pairs(write_shard(tmp_path / "a.parquet", rows), held_out=0.001)
    with pytest.raises(InputError, match=f"a.parquet is damaged: 3 of its {place} vectors are not finite or"):
        rows_of(pairs, TRAIN)


def test_a_good_row_must_have_its_vectors_and_its_kind(tmp_path: Path) -> None:
    for place, value, sentence in (
        ("clip", None, 'rows of status "ok" without a clip vector'),
        ("clip_kind", "sound", "clip_kind is neither text nor image"),
        ("clip_kind", None, "clip_kind is neither"),
    ):
        rows = make_rows(9)
        rows[4][place] = value
        pairs = read_pairs(write_shard(tmp_path / "a.parquet", rows), held_out=0.001)
        with pytest.raises(InputError, match=sentence):
            rows_of(pairs, TRAIN)


@pytest.mark.parametrize("count, usable", [(0, 0), (1, 1), (2, 2)])
def test_too_few_pairs(tmp_path: Path, count: int, usable: int) -> None:
    path = write_shard(tmp_path / "a.parquet", make_rows(count))
    with pytest.raises(InputError, match=f"^audiocaps has {usable} usable pairs: too few to train on"):
        mix([path])


def test_places_without_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no .parquet files in"):
        open_shards([tmp_path])
    with pytest.raises(InputError, match="no such file or folder: .*nowhere"):
        open_shards([tmp_path / "nowhere"])
    path = write_shard(tmp_path / "deep" / "a.parquet", make_rows(3))
    assert [shard.path for shard in open_shards([tmp_path])] == [path]
    with pytest.raises(InputError, match="a.parquet is given twice"):
        open_shards([tmp_path, path])


def test_files_that_are_no_shards(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = write_shard(tmp_path / "good" / "a.parquet", make_rows(100))
    content = good.read_bytes()
    for name, part in (("cut", content[:-100]), ("half", content[: len(content) // 2]), ("empty", b"")):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(part)
        with pytest.raises(InputError, match=f"{name}.parquet is not a readable Parquet file; is it cut"):
            open_shards([path])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="is not an embedding shard: it lacks id, status, caption, .*clip_space"):
        open_shards([tmp_path / "foreign.parquet"])
    table = pq.read_table(good)
    other = table.set_column(3, "caption", table["caption"].cast(pa.binary()))
    pq.write_table(other.replace_schema_metadata(table.schema.metadata), tmp_path / "binary.parquet")
    with pytest.raises(InputError, match="binary.parquet is not an embedding shard: its caption must be a string"):
        open_shards([tmp_path / "binary.parquet"])
    for vector in (pa.list_(pa.float32()), pa.list_(pa.float64(), DIM), pa.list_(pa.int32(), DIM)):
        other = table.set_column(table.schema.get_field_index("clip"), "clip", table["clip"].cast(vector, safe=False))
        pq.write_table(other.replace_schema_metadata(table.schema.metadata), tmp_path / "odd.parquet")
        with pytest.raises(InputError, match="its vectors must be lists of float32, all of one length"):
            open_shards([tmp_path / "odd.parquet"])


def test_damage_behind_a_good_footer(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pq.read_table(write_shard(tmp_path / "b.parquet", make_rows(300))), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.parquet is damaged: its rows cannot be read"):
        read_pairs(path)


@pytest.mark.parametrize("other", [{"clip_space": "d" * 12}, {"clap_space": "d" * 12}, {"dim": 8}])
def test_shards_of_different_spaces(tmp_path: Path, other: dict) -> None:
    one = write_shard(tmp_path / "1.parquet", make_rows(3))
    two = write_shard(tmp_path / "2.parquet", make_rows(3, "b", dim=other.get("dim", DIM)), "wit", **other)
    with pytest.raises(InputError, match="different spaces cannot be used together: .*1.parquet and .*2.parquet"):
        open_shards([one, two])


def test_reading_footers_only(tmp_path: Path) -> None:
    shard = open_shards([write_shard(tmp_path / "a.parquet", make_rows(120), "wit", group=50)])[0]
    assert (shard.source, shard.clip_space, shard.dim) == ("wit", CLIP, DIM)
    assert (shard.groups, shard.rows) == ((50, 50, 20), 120)


def test_an_epoch_leaves_no_rows_behind(tmp_path: Path, monkeypatch) -> None:
    """Its rows are given back at its end, and not when the collector of cycles gets to it."""
    monkeypatch.setattr(data, "BUFFER", 60)
    shard = write_shard(tmp_path / "a.parquet", make_rows(400))
    mix = Mix([read_pairs(shard)])
    alive: list[weakref.ref] = []
    load = Pairs._load
    monkeypatch.setattr(Pairs, "_load", lambda *args: (batch := load(*args), alive.append(weakref.ref(batch.clip)))[0])
    gc.collect()
    gc.disable()
    try:
        assert sum(len(batch.clip) for batch in mix.epoch(0)) == mix.pairs
        assert len(alive) > 3 and not [one for one in alive if one() is not None]
    finally:
        gc.enable()
