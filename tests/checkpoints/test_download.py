"""Downloads from a real server that breaks off, lies and changes its mind: what gets its name is whole and right."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from fileserver import BODY, MD5, OTHER, PAUSES, Source, Step, broken_after, files, start, status
from server import Server

from audioldm.checkpoints import download as module
from audioldm.checkpoints import transfer
from audioldm.checkpoints.download import download
from audioldm.errors import InputError
from audioldm.inputs.web import read_retry_after


@pytest.fixture
def source() -> Iterator[Source]:
    with Server() as server:
        yield Source(server)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "model.ckpt"


WHOLE = ["", ".sha256", ".verified.json"]


def test_a_download_is_whole_verified_and_asked_for_once(source: Source, path: Path, caplog) -> None:
    assert download(source.url, path, size=len(BODY), md5=MD5, note="licence: CC0") == path
    assert path.read_bytes() == BODY and files(path) == WHOLE
    (announced,) = caplog.messages
    assert "model.ckpt (2 MB) from 127.0.0.1" in announced and announced.endswith("; licence: CC0")
    assert path.with_name("model.ckpt.sha256").read_text() == f"{hashlib.sha256(BODY).hexdigest()}  model.ckpt\n"
    assert download(source.url, path, md5=MD5) == path and len(source.asked) == 1


def test_a_broken_connection_is_taken_up_where_it_broke(source: Source, path: Path) -> None:
    source.steps = [broken_after(700_000), broken_after(300_000)]
    download(source.url, path, md5=MD5, pauses=PAUSES)
    assert path.read_bytes() == BODY and files(path) == WHOLE
    first, second, third = (int((asked or "bytes=0-")[6:-1]) for asked in source.asked)
    assert first == 0 and 0 < second <= 700_000 and second < third <= 1_000_000
    assert source.server.requests[1][1]["If-Range"] == '"1"'


def test_a_later_call_takes_up_what_an_earlier_one_left(source: Source, path: Path, caplog) -> None:
    arrived = start(source, path)
    assert arrived > 0 and files(path) == [".part", ".part.json"]
    download(source.url, path, pauses=())
    assert path.read_bytes() == BODY and source.asked == [f"bytes={arrived}-"]
    assert "are there already" in caplog.messages[-1]


def test_people_see_a_bar_with_the_time_left(source: Source, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    start(source, path)
    source.steps = [lambda source, handler: source.serve(handler, pause=0.1)]
    download(source.url, path, pauses=())
    assert "model.ckpt:" in terminal.getvalue() and "/1.50M" in terminal.getvalue()


def test_a_server_without_ranges_is_asked_from_the_start(source: Source, path: Path) -> None:
    source.ranges, source.steps = False, [broken_after(700_000)]
    download(source.url, path, md5=MD5, pauses=PAUSES)
    assert path.read_bytes() == BODY and len(source.asked) == 2


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_two_versions_are_never_mixed(source: Source, path: Path, heeds_if_range: bool) -> None:
    arrived = start(source, path)
    source.body, source.etag = OTHER, '"2"'
    if not heeds_if_range:
        source.steps = [status(206, ETag='"2"', Content_Range=f"bytes {arrived}-1499999/1500000", Content_Length="9")]
    download(source.url, path, pauses=PAUSES)
    assert path.read_bytes() == OTHER


def test_another_length_is_another_version(source: Source, path: Path) -> None:
    source.etag = None
    start(source, path)
    source.body = OTHER[:-1]
    download(source.url, path, pauses=PAUSES)
    assert path.read_bytes() == OTHER[:-1]


def test_pieces_that_do_not_fit_are_fetched_once_more_as_a_whole(source: Source, path: Path) -> None:
    source.etag = None
    arrived = start(source, path)
    source.body = OTHER  # of the same length, and the server does not tell
    download(source.url, path, md5=hashlib.md5(OTHER).hexdigest(), pauses=PAUSES)
    assert path.read_bytes() == OTHER and source.asked == [f"bytes={arrived}-", None]


def test_what_another_address_gave_is_not_continued(source: Source, path: Path) -> None:
    start(source, path)
    other = Source(source.server, "/other.ckpt", OTHER)
    download(other.url, path, pauses=())
    assert path.read_bytes() == OTHER and source.asked == [None]


def test_a_part_that_is_complete_needs_only_its_name(source: Source, path: Path) -> None:
    start(source, path)
    module.part_of(path).write_bytes(BODY)
    download(source.url, path, size=len(BODY), md5=MD5, pauses=())
    assert path.read_bytes() == BODY and source.asked == []


@pytest.mark.parametrize("length", [len(BODY), len(BODY) + 5])
def test_range_not_satisfiable(source: Source, path: Path, length: int) -> None:
    start(source, path)
    version = path.with_name("model.ckpt.part.json")  # of a server that did not say how long the file is
    version.write_text(json.dumps({**json.loads(version.read_text()), "total": None}))
    module.part_of(path).write_bytes((BODY + b"12345")[:length])
    download(source.url, path, md5=MD5, pauses=PAUSES)
    assert path.read_bytes() == BODY and source.asked == [f"bytes={length}-", None][: 1 + (length > len(BODY))]


@pytest.mark.parametrize("answer", [status(503), status(429, Retry_After="0"), status(500), broken_after(0)])
def test_what_passes_is_waited_for(source: Source, path: Path, answer: Step) -> None:
    source.steps = [answer, answer]
    download(source.url, path, md5=MD5, pauses=PAUSES)
    assert path.read_bytes() == BODY and len(source.asked) == 3


def test_retry_after_is_heeded_within_limits(source: Source, path: Path, monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    source.steps = [status(429, Retry_After="7"), status(503)]
    download(source.url, path, md5=MD5)
    assert waits == [7.0, 2.0]
    source.steps = [status(429, Retry_After="86400")]
    with pytest.raises(InputError, match="429 Too Many Requests"):
        download(source.url, path.with_name("b.ckpt"))
    assert len(waits) == 2
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    soon = read_retry_after({"Retry-After": date})
    assert soon is not None and 25 < soon <= 30


def test_it_is_given_up_when_nothing_comes(source: Source, path: Path) -> None:
    source.steps = [status(503)] * 9
    with pytest.raises(InputError, match="503 Service Unavailable"):
        download(source.url, path, pauses=PAUSES)
    assert len(source.asked) == 4 and files(path) == []


def test_progress_renews_patience(source: Source, path: Path, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "PROGRESS", 100_000)
    source.steps = [broken_after(400_000)] * 4
    download(source.url, path, md5=MD5, pauses=PAUSES[:1])
    assert path.read_bytes() == BODY and len(source.asked) > 3


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (status(404), "answered 404 Not Found"),
        (status(403), "answered 403 Forbidden"),
        (status(200, Content_Type="text/html; charset=utf-8", Content_Length="5"), "a web page instead of"),
        (status(200, Content_Length="12"), "12 bytes instead of 1500000"),
    ],
)
def test_what_does_not_pass_is_said_at_once(source: Source, path: Path, answer: Step, sentence: str) -> None:
    source.steps = [answer]
    with pytest.raises(InputError, match=sentence):
        download(source.url, path, size=len(BODY), pauses=PAUSES)
    assert len(source.asked) == 1 and files(path) == []


@pytest.mark.parametrize("known", [{"md5": MD5}, {"check": lambda _: "is a poem"}])
def test_wrong_bytes_get_no_name(source: Source, path: Path, known: dict) -> None:
    source.body = OTHER
    with pytest.raises(InputError, match="another MD5 hash|is a poem"):
        download(source.url, path, **known, pauses=PAUSES)
    assert len(source.asked) == 1 and files(path) == []


def test_a_file_that_ends_early_without_a_length_is_found(source: Source, path: Path) -> None:
    url = source.server.stream("/unsized", [BODY[:1000]])
    with pytest.raises(InputError, match="1000 bytes instead of 1500000"):
        download(url, path, size=len(BODY), pauses=PAUSES)
    assert files(path) == []


def test_offline_is_one_sentence_that_helps(source: Source, path: Path) -> None:
    with Server() as gone:
        url = gone.url("/file.ckpt")
    for address in (url, url.replace("127.0.0.1", "no-such-host.invalid")):
        with pytest.raises(InputError, match="cannot be reached") as error:
            download(address, path, pauses=PAUSES)
        assert address in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
        assert files(path) == []
    arrived = start(source, path)
    module.part_of(path).with_name("model.ckpt.part.json").write_text(json.dumps({"url": url}))
    with pytest.raises(InputError, match="kept for the next try"):
        download(url, path, pauses=PAUSES)
    assert module.part_of(path).stat().st_size == arrived


def test_no_space_is_said_before_anything_is_fetched(source: Source, path: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 9000, 9000))
    with pytest.raises(InputError, match="needs 2 MB more, but .* has only 9 kB free; AUDIOLDM_CACHE_DIR"):
        download(source.url, path, pauses=PAUSES)
    assert files(path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        download(source.url, tmp_path / "file" / "model.ckpt")


# A file that is there already


def damage(path: Path) -> None:
    """Change one byte in the middle; the size stays."""
    with open(path, "r+b") as file:
        file.seek(700_000)
        file.write(b"?!")


@pytest.mark.parametrize("known", [{"md5": MD5}, {}])
def test_a_damaged_file_is_found_and_replaced(source: Source, path: Path, known: dict, caplog) -> None:
    download(source.url, path, **known)
    damage(path)
    download(source.url, path, **known)
    assert path.read_bytes() == BODY and files(path) == ["", ".corrupt", ".sha256", ".verified.json"]
    assert sum("model.ckpt.corrupt and is downloaded again" in message for message in caplog.messages) == 1


def test_a_shortened_file_is_found_and_replaced(source: Source, path: Path) -> None:
    download(source.url, path)
    os.truncate(path, 1000)
    download(source.url, path)
    assert path.read_bytes() == BODY


def test_a_recorded_hash_counts_ever_after(source: Source, path: Path) -> None:
    download(source.url, path)
    path.unlink()
    source.body = OTHER
    with pytest.raises(InputError, match=r"another hash than at its first download \(.*model\.ckpt\.sha256"):
        download(source.url, path)
    assert not path.exists()
    source.body = BODY
    assert download(source.url, path).read_bytes() == BODY


def test_a_touched_file_is_hashed_not_fetched(source: Source, path: Path) -> None:
    download(source.url, path)
    os.utime(path, (1, 1))
    download(source.url, path)
    stamp = json.loads(path.with_name("model.ckpt.verified.json").read_text())
    assert len(source.asked) == 1 and stamp["mtime_ns"] == 10**9


def test_a_hash_that_became_known_later_is_checked(source: Source, path: Path) -> None:
    source.body = OTHER
    download(source.url, path)
    source.body = BODY
    assert download(source.url, path, md5=MD5).read_bytes() == BODY


def test_a_file_put_there_by_hand_is_checked_and_used(source: Source, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(BODY)
    download(source.url, path, size=len(BODY), md5=MD5)
    assert source.asked == [] and files(path) == WHOLE


# Interrupted, and two at once

PROGRAM = """
import sys
from audioldm.checkpoints.download import download
download(sys.argv[1], sys.argv[2])
"""


def command(source: Source, path: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, source.url, str(path)], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_process_leaves_what_the_next_goes_on_with(source: Source, path: Path, how) -> None:
    source.steps = [lambda source, handler: source.serve(handler, upto=900_000, pause=0.05)]
    process = command(source, path)
    deadline, part = time.monotonic() + 30, module.part_of(path)
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate(timeout=20)
    arrived = part.stat().st_size
    assert process.returncode != 0 and arrived > 0 and not path.exists()
    download(source.url, path, pauses=())
    assert path.read_bytes() == BODY and source.asked == [None, f"bytes={arrived}-"]


def test_of_two_processes_one_waits_for_the_other(source: Source, path: Path) -> None:
    source.steps = [lambda source, handler: source.serve(handler, pause=0.1)]
    processes = [command(source, path) for _ in range(2)]
    errors = [process.communicate(timeout=40)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert path.read_bytes() == BODY and files(path) == WHOLE and source.asked == [None]
    assert sum("waiting for another process" in error for error in errors) == 1
