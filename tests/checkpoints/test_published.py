"""AudioLDM's six checkpoints: where they come from, what is done with a bad one, and what the list says of them."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fileserver import BODY, Source, files, start
from server import Server

from audioldm import registry
from audioldm.checkpoints import download as module
from audioldm.checkpoints import published as published_files
from audioldm.checkpoints.download import checkpoint, state
from audioldm.commands.list import listing
from audioldm.errors import InputError


@pytest.fixture
def source() -> Iterator[Source]:
    with Server() as server:
        yield Source(server)


def archive(content: bytes = BODY) -> bytes:
    """What torch.save writes is a zip without compression."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as made:
            made.writestr(zipfile.ZipInfo("archive/data/0"), content)  # no clock: the bytes are compared
        return file.getvalue()


@pytest.fixture
def published(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first of the six comes from the test's server; returns where it will be."""
    monkeypatch.setenv("AUDIOLDM_CACHE_DIR", str(tmp_path / "cache"))
    source.body = archive()
    known = published_files.Checkpoint(source.url, about=len(source.body))
    monkeypatch.setitem(published_files.UPSTREAM, "audioldm-s-full", known)
    return tmp_path / "cache" / "audioldm-s-full.ckpt"


def test_the_six_are_known() -> None:
    names = ["s-full", "s-full-v2", "m-full", "l-full", "s-text-ft", "m-text-ft"]
    assert list(published_files.UPSTREAM) == [f"audioldm-{name}" for name in names]
    for known in published_files.UPSTREAM.values():
        assert known.url.startswith("https://zenodo.org/records/") and "CC BY-NC-SA 4.0" in known.licence
        assert known.bytes in (None, known.about) and (known.md5 is None or len(known.md5) == 32)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUDIOLDM_CACHE_DIR", str(tmp_path))
    assert module.checkpoint_path("audioldm-m-full") == tmp_path / "audioldm-m-full.ckpt"
    monkeypatch.delenv("AUDIOLDM_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module.cache_dir() == tmp_path / ".cache" / "audioldm"


def test_a_checkpoint_is_downloaded_with_its_licence(published: Path, caplog) -> None:
    assert checkpoint("audioldm-s-full") == published and published.read_bytes() == archive()
    assert "CC BY-NC-SA 4.0" in caplog.text


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: data.replace(BODY[5:9], b"?!?!")])
def test_half_a_checkpoint_that_upstream_left_is_found_and_repaired(published: Path, spoil, caplog) -> None:
    published.parent.mkdir()
    published.write_bytes(spoil(archive()))
    assert "to be checked" in state("audioldm-s-full")
    assert checkpoint("audioldm-s-full").read_bytes() == archive()
    assert "downloaded again" in caplog.text and published.with_name(f"{published.name}.corrupt").is_file()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes_is_a_whole_checkpoint(tmp_path: Path, zipped: bool) -> None:
    import torch

    path, content = tmp_path / "a.ckpt", {"state_dict": {"a": torch.rand(100, 100), "b": torch.arange(9)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert module.damage_of_checkpoint(path) is None
    if zipped:
        os.truncate(path, path.stat().st_size - 100)
        assert module.damage_of_checkpoint(path) == "is not a whole checkpoint"


def test_what_is_no_checkpoint_is_not_kept(published: Path, source: Source) -> None:
    source.body = BODY
    with pytest.raises(InputError, match="not a whole checkpoint"):
        checkpoint("audioldm-s-full")
    assert files(published) == []


def test_find_downloads_and_converts(published: Path, tiny_folder: Path, monkeypatch, tmp_path: Path) -> None:
    import audioldm.convert.checkpoint as convert

    calls = []
    monkeypatch.setattr(convert, "cached", lambda path, name=None: calls.append((path, name)) or tiny_folder)
    assert registry.find_model("audioldm-s-full").path == tiny_folder
    mine = tmp_path / "mine.ckpt"
    mine.write_bytes(archive())
    assert registry.find_model(str(mine)).path == registry.open_path(mine).path == tiny_folder
    assert calls == [(published, "audioldm-s-full"), (mine, None), (mine, None)]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("audioldm-s-ful", "did you mean audioldm-s-full"),
        ("nowhere.ckpt", "no such checkpoint file"),
        ("no/such/folder", "no such model folder"),
        ("tests/nothing", "no such model folder"),
        ("", 'unknown model ""'),
        ("x" * 5000, "unknown model"),
    ],
)
def test_unknown_names(name: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(InputError, match=sentence):
        registry.find_model(name)


def test_the_list_says_what_is_there(published: Path, source: Source, caplog) -> None:
    caplog.set_level(logging.CRITICAL)

    def line() -> str:
        return next(line for line in listing() if line.split()[:1] == ["audioldm-s-full"])

    assert " 2 MB " in line() and line().endswith("not downloaded")
    assert any("CC BY-NC-SA 4.0" in line for line in listing())
    assert any(str(published.parent) in line for line in listing())
    start(source, published)
    assert line().endswith("of it downloaded")
    checkpoint("audioldm-s-full")
    assert line().endswith(" downloaded") and "not" not in line()


def test_the_list_needs_neither_torch_nor_a_connection() -> None:
    program = (
        "import socket, sys; socket.socket.connect = None\n"
        "from audioldm.commands.list import listing; listing(); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
