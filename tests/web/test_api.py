"""The page for programs: gradio_client against a server over the tiny model."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import soundfile
from server import Server
from web_site import ROOT, Site, raw, start, stop, wait_until

gradio_client = pytest.importorskip("gradio_client")
DOG, BARK = ROOT / "examples" / "dog.jpg", ROOT / "examples" / "dog.wav"
META = {"_type": "gradio.FileData"}
ENDLESS = {"words": "rain", "ddim_steps": 1000, "batchsize": 64}


@pytest.fixture
def connect(site: Site, tmp_path: Path) -> Iterator[Any]:
    """Makes clients, each a visitor of its own."""
    clients = []

    def connect() -> Any:
        slow = {"timeout": 60}  # on a busy machine
        client = gradio_client.Client(site.url, verbose=False, download_files=str(tmp_path), httpx_kwargs=slow)
        clients.append(client)
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def make(client: Any, **values: Any) -> list[tuple[Path, dict[str, Any]]]:
    """The sounds that come back, each with its record."""
    _, files = client.predict(**values, api_name="/generate")
    paths = [Path(file) for file in files]
    return [(wav, json.loads(about.read_text())) for wav, about in zip(paths[::2], paths[1::2], strict=True)]


def test_a_picture_and_words_come_back_as_sounds_with_their_records(connect: Any):
    picture = gradio_client.handle_file(str(DOG))
    sounds = make(connect(), picture=picture, words="rain", words_weight=-0.5, batchsize=2, duration=1.5, seed=7)
    assert [about["item"] for _, about in sounds] == [0, 1]
    for wav, about in sounds:
        assert soundfile.info(wav).frames == 24_000 and wav.name == about["file"]
        assert [(one["prompt"], one["kind"], one["weight"]) for one in about["prompts"]] == [
            ("dog.jpg", "image", 1), ("rain", "text", -0.5),
        ]  # fmt: skip
        assert about["options"]["seed"] == 7 and about["options"]["ddim_steps"] == 3  # the model's own default
        assert "/" not in json.dumps(about["prompts"])


def test_several_pictures_get_a_sound_each(connect: Any, tmp_path: Path):
    """The bytes that each would have alone; one that is damaged ends nothing."""
    (tmp_path / "damaged.jpg").write_bytes(DOG.read_bytes()[:3_000])
    photos = [DOG, tmp_path / "damaged.jpg", DOG.with_name("drums.jpg")]
    given, client = {"duration": 1, "seed": 5, "words": "rain"}, connect()
    sent = [gradio_client.handle_file(str(photo)) for photo in photos]
    message, files = client.predict(pictures=sent, **given, api_name="/generate")
    assert "2 sounds are made" in message and "damaged.jpg is damaged" in message
    records = [json.loads(Path(about).read_text()) for about in files[1::2]]
    assert [about["prompts"][0]["prompt"] for about in records] == ["dog.jpg", "drums.jpg"]
    for photo, wav in zip(photos[::2], files[::2], strict=True):
        ((alone, _),) = make(client, picture=gradio_client.handle_file(str(photo)), **given)
        assert alone.read_bytes() == Path(wav).read_bytes()


def test_the_page_makes_what_the_command_makes(connect: Any, tiny_folder: Path, tmp_path: Path):
    ((wav, _),) = make(connect(), words="rain", seed=3, duration=1, negative_prompt="wind")
    arguments = ["-t", "rain", "--seed", "3", "-dur", "1", "--negative_prompt", "wind", "-o", str(tmp_path / "x.wav")]
    command = [sys.executable, "-m", "audioldm", "--model_name", str(tiny_folder), "--device", "cpu", *arguments]
    # As many threads as the site has: sums are rounded differently with others.
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    ours, theirs = (soundfile.read(file, dtype="int16")[0].tolist() for file in (wav, tmp_path / "x.wav"))
    assert ours == theirs


def test_the_other_modes(connect: Any):
    client, sound = connect(), gradio_client.handle_file(str(BARK))
    ((wav, about),) = make(client, mode="inpaint", sound=sound, words="rain", time_range=[1, 2.5])
    assert about["options"]["time_range"] == [1, 2.5] and about["original"]["file"] == "dog.wav"
    assert soundfile.info(wav).frames == 80_000
    ((_, about),) = make(client, mode="transfer", sound=sound, words="rain", transfer_strength=0.4)
    assert about["options"]["transfer_strength"] == 0.4
    ((_, about),) = make(client, mode="superres", sound=sound, words="rain", duration=1)
    assert about["options"]["frequency_range"] == [4000, 8000] and about["samples"] == 16_000


def test_ten_at_once_get_their_own(connect: Any):
    clients = [connect() for _ in range(5)]
    jobs = [clients[i % 5].submit(words="rain", seed=i, duration=1 + i / 10, api_name="/generate") for i in range(10)]
    for i, job in enumerate(jobs):
        wav, about = map(Path, job.result(timeout=120)[1])
        record = json.loads(about.read_text())
        assert record["options"]["seed"] == i and soundfile.info(wav).frames == 16_000 + 1_600 * i


def test_a_slow_address_holds_up_nobody_else(connect: Any):
    release, data = threading.Event(), DOG.read_bytes()

    def slowly() -> Iterator[bytes]:
        at = 0
        while not release.wait(0.2):
            yield data[at : at + 1]
            at += 1
        yield data[at:]

    with Server() as server:
        slow = connect().submit(url=server.stream("/slow.jpg", slowly()), duration=1, api_name="/generate")
        assert wait_until(lambda: server.paths == ["/slow.jpg"])
        assert len(make(connect(), words="rain", duration=1)) == 1
        assert not slow.done()
        release.set()
        _, about = slow.result(timeout=60)[1]
        assert json.loads(Path(about).read_text())["prompt"].endswith("/slow.jpg")


def test_cancel_stops_the_sampler_and_the_next_one_is_served(connect: Any):
    waiting = connect()
    job = waiting.submit(**ENDLESS, api_name="/generate")
    assert wait_until(lambda: any("step" in str(status) for status, *_ in job.outputs()))
    job.cancel()
    assert len(make(connect(), words="dog", duration=1)) == 1
    job = waiting.submit(**ENDLESS, api_name="/generate")
    assert wait_until(lambda: any("step" in str(status) for status, *_ in job.outputs()))
    waiting.predict(api_name="/cancel")
    assert "Cancelling" in job.result(timeout=20)[0]


def test_files_made_before_a_cancel_are_named(connect: Any):
    client = connect()
    pictures = [gradio_client.handle_file(str(DOG.with_name(name))) for name in ("dog.jpg", "drums.jpg")]
    job = client.submit(pictures=pictures, ddim_steps=1000, api_name="/generate")
    assert wait_until(lambda: any("2 of 2: Making" in str(status) for status, *_ in job.outputs()))
    client.predict(api_name="/cancel")
    status, files, *_ = job.result(timeout=20)
    assert "Cancelling" in status and [Path(file).suffix for file in files] == [".wav", ".json"]


def test_a_client_that_is_killed_leaves_the_queue_working(site: Site, connect: Any):
    program = (
        "import sys; from gradio_client import Client; client = Client(sys.argv[1], verbose=False)\n"
        f"job = client.submit(**{ENDLESS}, api_name='/generate')\n"
        "while not any('step' in str(status) for status, *_ in job.outputs()): pass\n"
        "print('working', flush=True); job.result()"
    )
    client = subprocess.Popen([sys.executable, "-c", program, site.url], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None and client.stdout.readline() == "working\n"
    client.kill()
    client.wait()
    assert len(make(connect(), words="dog", duration=1)) == 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "give a picture or words or a sound"),
        ({"words": "x", "duration": 700}, "from 0.5 to 600.0 seconds, not 700"),
        ({"words": "x", "translator": "/etc/passwd"}, 'unknown translator "/etc/passwd"'),
        ({"words": "x", "model_name": "/etc"}, 'the model "/etc" is not installed on this server'),
        ({"words": "x", "negative_prompt": "y", "guidance_scale": 1}, "needs a guidance scale above 1$"),
        ({"url": "file:///etc/passwd"}, "begins with http"),
        ({"words": "x", "words_weight": 0}, "not all zero"),
        ({"pictures": [gradio_client.handle_file(str(DOG))], "url": "http://example.org/"}, "one picture or several"),
        ({"pictures": [gradio_client.handle_file(str(DOG))] * 25}, "may have 24 pictures, not 25"),
    ],
)
def test_faults_come_back_as_one_sentence(connect: Any, values: dict[str, Any], sentence: str):
    with pytest.raises(gradio_client.exceptions.AppError, match=sentence):
        make(connect(), **values)


def test_limits_of_time_and_of_addresses(tiny_folder: Path, tmp_path: Path):
    site = start(tmp_path, "--model_name", str(tiny_folder), "--device", "cpu", "--time_limit", "1")
    client = gradio_client.Client(site.url, verbose=False)
    with pytest.raises(gradio_client.exceptions.AppError, match="longer than the 1 seconds that this server allows"):
        make(client, **ENDLESS)
    with pytest.raises(gradio_client.exceptions.AppError, match="has the address 127.0.0.1, which is not public$"):
        make(client, url="http://127.0.0.1:1/dog.jpg")
    assert stop(site) == 0
    assert not site.kept()


@pytest.mark.parametrize("path", ["/etc/passwd", str(DOG), "http://127.0.0.1:1/x.png", "HTTPS://example.org/x.png"])
@pytest.mark.parametrize("name", ["picture", "sound", "vector"])
def test_a_field_for_a_file_takes_uploads_only(site: Site, name: str, path: str):
    answer = raw(site, words="x", **{name: {"path": path, "meta": META, "orig_name": "x"}})
    assert "event: error" in answer
    assert "not uploaded here" in answer or "is uploaded, not given by its address" in answer


@pytest.mark.parametrize(
    "value",
    ["x.jpg", 7, [], {}, {"path": 7}, {"path": "\0", "meta": META}, {"path": "x", "meta": META, "orig_name": ["x"]}],
)
@pytest.mark.parametrize("field", ["picture", "sound", "vector", "words", "duration", "time_range"])
def test_a_value_that_is_none_of_the_field(site: Site, field: str, value: Any):
    said = raw(site, **{"words": "rain", field: value})
    if "event: error" in said:
        (line,) = re.findall(r"event: error\ndata: (.*)", said)
        sentence = json.loads(line)["error"]
        assert sentence.isprintable() and len(sentence) < 300
        assert not re.search(rf"Traceback|Error\b|gradio|/tmp|{re.escape(str(ROOT))}|[<>]", sentence), sentence
    else:
        assert "event: complete" in said and "/results/" in said


@pytest.mark.parametrize("name", ["picture", "sound", "vector"])
def test_a_folder_is_no_upload(site: Site, name: str):
    (root,) = site.files.glob("audioldm-web-*")
    for path in (root, root / "missing.png"):
        answer = raw(site, words="x", **{name: {"path": str(path), "meta": META}})
        assert "event: error" in answer and "upload it again" in answer


def test_nothing_of_the_server_is_served_and_nothing_fetched(site: Site):
    for path in (
        "file=/etc/passwd", "gradio_api/file=/etc/passwd", f"gradio_api/file={DOG}",
        "gradio_api/file=..%2f..%2fetc/passwd", "gradio_api/file=http://example.org",
        "gradio_api/file=HTTP://example.org", "gradio_api/file/http://example.org",
        "gradio_api/proxy=http://example.org", "monitoring", "gradio_api/deep_link?session_hash=x",
    ):  # fmt: skip
        assert requests.get(site.url + path, timeout=20).status_code in (403, 404), path


def test_limits_of_size(site: Site):
    assert requests.get(f"{site.url}health", timeout=20).text == "ok\n"

    def endless() -> Iterator[bytes]:
        yield from (b"x" * 1_000_000 for _ in range(110))

    for path, size in (("call/generate", 31_000_000), ("upload", 102_000_000)):
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(site.url).port, timeout=20)
        connection.putrequest("POST", f"/gradio_api/{path}")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        assert connection.getresponse().status == 413
    try:
        answer = requests.post(f"{site.url}gradio_api/call/generate", data=endless(), timeout=60)
    except requests.ConnectionError:
        pass
    else:
        assert answer.status_code >= 400
    assert requests.get(f"{site.url}health", timeout=20).text == "ok\n"


def test_files_go_with_the_visitor(site: Site, connect: Any):
    before = set(site.kept())
    client = connect()
    make(client, picture=gradio_client.handle_file(str(DOG.with_name("dog.png"))), duration=1)
    names = sorted(path.name for path in set(site.kept()) - before)
    assert "dog.png" in names and "prompt.npy" in names
    client.close()
    assert wait_until(lambda: set(site.kept()) <= before)


def test_memory_is_flat(site: Site, connect: Any):
    client = connect()

    def requests_made(count: int) -> float:
        for seed in range(count):
            make(client, words="rain", seed=seed, duration=1)
        return site.memory()

    first = requests_made(8)
    assert requests_made(24) < first + 12  # megabytes


def test_it_needs_no_network(site: Site):
    """The server was not to open a connection to another machine, and wrote down each that it tried to."""
    time.sleep(0.5)
    assert (site.files.parent / "connections").read_text() == ""
