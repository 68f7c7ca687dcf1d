"""Pictures of rows from a real server on this machine that is dead, slow, moody or shy."""

from __future__ import annotations

import email.utils
import gzip
import io
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from pictures import JPEG, encode
from PIL import Image
from server import Server
from wit_table import COLUMNS, wit_line

from audioldm.errors import InputError
from audioldm.inputs.web import Limits
from prior_steps.engine.cache import Cache
from prior_steps.engine.fetch import Settings, WebFetcher
from prior_steps.readers.rows import OK, Row
from prior_steps.wit.reader import Wit

LIMITS = Limits(max_bytes=300_000, connect_s=2, read_s=0.8, total_s=1.5)
BROKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + JPEG[:500]


@pytest.fixture(autouse=True)
def private_addresses_allowed(monkeypatch):
    monkeypatch.setenv("AUDIOLDM_ALLOW_PRIVATE_URLS", "1")


@pytest.fixture
def settings(tmp_path):
    """Called with what shall be different: quick settings and the same cache each time."""
    quick = {"cache": tmp_path / "cache", "backoff_s": 0.02, "patience_s": 2, "limits": LIMITS}
    return lambda **options: Settings(**{**quick, **options})


def rows_of(*urls: str) -> list[Row]:
    return [Row(str(number), "wit", "a caption", url=url) for number, url in enumerate(urls)]


def fetch(settings: Settings, *urls: str) -> list[Row]:
    rows = rows_of(*urls)
    fetched = WebFetcher(settings).fetch_all(rows)
    assert [row.id for row in fetched] == [row.id for row in rows]
    for row in fetched:
        assert (row.status == OK) == (row.content is not None) == (row.error is None)
        assert row.error is None or row.error.isprintable() and "\n" not in row.error
    return fetched


def statuses(settings: Settings, *urls: str) -> list[str]:
    return [row.status for row in fetch(settings, *urls)]


def sequence(server: Server, path: str, *answers: tuple[int, dict[str, str]]) -> str:
    """A URL that gives these (status, headers) one after the other, and then the picture."""
    left = list(answers)

    def handle(handler):
        status, headers = left.pop(0) if left else (200, {})
        body = JPEG if status == 200 else b"<html>no</html>"
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return server.route(path, handle)


# What becomes of a row


def test_pictures(server, settings):
    frames = [Image.new("P", (20, 10), color) for color in (1, 2, 3)]
    gif = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    cmyk = encode(Image.effect_noise((64, 64), 60).convert("CMYK"), "JPEG")
    png = encode(Image.new("L", (9, 9)))
    bodies = {"/a.jpg": JPEG, "/moving.gif": gif, "/cmyk.jpg": cmyk, "/named wrongly.html": png}
    for path, body in bodies.items():
        server.answer(path.replace(" ", "%20"), body, Content_Type="text/html")
    server.redirect("/moved", "/a.jpg", 301)
    rows = fetch(settings(), *(server.url(path) for path in bodies), server.url("/moved"))
    assert [row.content for row in rows] == [*bodies.values(), JPEG]


def test_a_failure_is_a_row_with_its_kind(server, settings):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    html = b"<!doctype html><html>not found</html>"
    claimed = encode(Image.new("1", (8_000, 6_000)))  # 48 megapixels in 6 kB
    kinds = {
        server.url("/missing"): "http_404",
        server.answer("/gone", status=410): "http_410",
        server.answer("/mine", status=403): "http_403",
        server.answer("/page.jpg", html, Content_Type="image/jpeg"): "not_an_image",
        server.answer("/drawing.svg", svg, Content_Type="image/svg+xml"): "not_an_image",
        server.answer("/empty.jpg"): "unusable_image",
        server.answer("/huge.jpg", b"\xff" * 300_001): "too_large",
        server.answer("/announced.jpg", JPEG, Content_Length="999999999"): "too_large",
        server.answer("/bomb.jpg", gzip.compress(bytes(3_000_000)), Content_Encoding="gzip"): "too_large",
        server.answer("/claimed.png", claimed): "too_large",
        server.stream("/slow.jpg", [JPEG[i : i + 9] for i in range(0, len(JPEG), 9)], pause=0.05): "timeout",
        server.stall("/silent.jpg"): "timeout",
        server.raw("/truncated.jpg", [BROKEN]): "incomplete",
        server.redirect("/loop", "/loop"): "redirects",
        server.redirect("/elsewhere", "ftp://example.org/a.jpg"): "bad_url",
        server.answer("/busy", status=503): "http_503",
        "http://127.0.0.1:1/nobody.jpg": "unreachable",
        "http://no-such-name.invalid/a.jpg": "unreachable",
        "http://[::1/a.jpg": "bad_url",
        "a.jpg": "bad_url",
    }
    assert dict(zip(kinds, statuses(settings(per_host=4), *kinds), strict=True)) == kinds


def test_private_addresses_are_forbidden(server, settings):
    urls = server.answer("/a.jpg", JPEG), server.url("/b.jpg", host="localhost")
    assert statuses(settings(allow_private=False), *urls) == ["forbidden_address"] * 2
    assert server.connections == 0
    assert statuses(settings(), urls[0]) == [OK]  # it was not remembered


def test_rows_that_need_nothing_pass(server, settings):
    url = server.answer("/a.jpg", JPEG)
    rows = [
        Row("1", "wit", "no picture"),
        Row("2", "wit", "has it", url=url, content=b"its own"),
        Row("3", "wit", url=url).failed("other_language", "it is French"),
    ]
    assert WebFetcher(settings()).fetch_all(rows) == rows
    assert server.requests == []
    assert WebFetcher(settings()).fetch_all([]) == []
    wanted = Row("4", "wit", "wants it", url=url)
    assert [row.content for row in WebFetcher(settings()).fetch_all([*rows, wanted])] == [None, b"its own", None, JPEG]


# Manners


def test_the_same_url_is_fetched_once(server, settings):
    url = server.answer("/a.jpg", JPEG)
    assert statuses(settings(), *[url] * 20) == [OK] * 20
    assert len(server.requests) == 1


def test_one_host_is_asked_gently_and_many_hosts_at_once(server, settings):
    busy, most, lock = {}, {}, threading.Lock()

    def handle(handler):
        host = handler.headers["Host"].partition(":")[0]
        with lock:
            busy[host] = busy.get(host, 0) + 1
            most[host] = max(most.get(host, 0), busy[host])
            most["all"] = max(most.get("all", 0), sum(busy.values()))
        time.sleep(0.02)
        with lock:
            busy[host] -= 1
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG)

    urls = []
    for number in range(24):
        server.route(f"/{number}.jpg", handle)
        urls.append(server.url(f"/{number}.jpg", host=("127.0.0.1", "localhost")[number % 2]))
    fetcher = WebFetcher(settings())
    halves = [rows_of(*urls[:12]), rows_of(*urls[12:])]  # from two threads: the limit is the fetcher's
    threads = [threading.Thread(target=fetcher.fetch_all, args=[half]) for half in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 24
    assert most["127.0.0.1"] == most["localhost"] == 2 and most["all"] > 2


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(server, settings, status):
    url = sequence(server, "/a.jpg", (status, {"Retry-After": "1"}))
    began = time.monotonic()
    assert statuses(settings(), url) == [OK]
    assert time.monotonic() - began >= 1


def test_retry_after_holds_for_the_whole_host(server, settings):
    times = []
    first = sequence(server, "/0.jpg", (429, {"Retry-After": "1"}))
    urls = [first, *(server.route(f"/{n}.jpg", lambda handler: times.append(time.monotonic())) for n in range(1, 4))]
    began = time.monotonic()
    fetch(settings(per_host=1, tries=2), *urls)
    assert min(times) - began >= 1


def test_retry_after_as_a_date(server, settings):
    moment = datetime.now(timezone.utc) + timedelta(seconds=2)  # HTTP dates have no fractions: 1 to 2 seconds
    date = email.utils.format_datetime(moment, usegmt=True)
    url = sequence(server, "/a.jpg", (429, {"Retry-After": date}))
    began = time.monotonic()
    assert statuses(settings(), url) == [OK]
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize("value", ["soon", "-5", "Thu, 99 Foo 2020", "Thu, 01 Jan 1970 00:00:00 GMT", ""])
def test_retry_after_that_makes_no_sense(server, settings, value):
    url = sequence(server, "/a.jpg", (429, {"Retry-After": value}))
    assert statuses(settings(), url) == [OK]


def test_a_host_that_wants_a_long_pause_gets_it(server, settings):
    url = sequence(server, "/0.jpg", (429, {"Retry-After": "86400"}))
    other = server.answer("/1.jpg", JPEG)
    began = time.monotonic()
    fetcher = WebFetcher(settings(per_host=1))
    for rows in (rows_of(url, other), rows_of(other)):
        assert {row.status for row in fetcher.fetch_all(rows)} == {"http_429"}
    assert time.monotonic() - began < 20
    assert server.paths == ["/0.jpg"]
    assert statuses(settings(), url, other) == [OK, OK]  # the next run


def test_tries_come_to_an_end_and_pauses_grow(server, settings):
    url = server.answer("/a.jpg", status=500)
    began = time.monotonic()
    assert statuses(settings(tries=4, backoff_s=0.1), url) == ["http_500"]
    assert len(server.requests) == 4
    assert time.monotonic() - began >= 0.35  # at least half of 0.1 + 0.2 + 0.4


def test_what_is_broken_off_is_tried_again(server, settings):
    bodies = [BROKEN, b"HTTP/1.1 200 OK\r\n\r\n" + JPEG]
    url = server.route("/a.jpg", lambda handler: handler.wfile.write(bodies.pop(0)))
    assert fetch(settings(), url)[0].content == JPEG


def test_wikimedia_wants_a_contact(settings):
    urls = ["https://upload.wikimedia.org/a.jpg", "https://en.wikipedia.org/b.jpg", "https://UPLOAD.wikimedia.org./c"]
    for url in urls:
        with pytest.raises(InputError, match="requires a contact"):
            WebFetcher(settings(allow_private=False)).fetch_all(rows_of(url))


@pytest.mark.parametrize("contact", ["me@example.org", "https://example.org/about"])
def test_the_contact_is_in_the_user_agent(server, settings, contact):
    fetch(settings(contact=contact), server.answer("/a.jpg", JPEG))
    agent = server.requests[0][1]["User-Agent"]
    assert agent.startswith("audioldm-vision/") and contact in agent


@pytest.mark.parametrize("contact", ["", "me", "a@b\r\nX: y", "ü@example.org", "ftp://example.org"])
def test_what_is_no_contact(settings, contact):
    with pytest.raises(InputError, match="e-mail address or the address of a web page"):
        settings(contact=contact)


@pytest.mark.parametrize("tag", ["noai", "NoImageAI", "noindex, noai", "somebot: noimageai", "max-snippet: 9, noai"])
def test_noai_is_honoured(server, settings, tag):
    url = server.answer("/a.jpg", JPEG, X_Robots_Tag=tag)
    moved = server.redirect("/moved", "/a.jpg")
    assert statuses(settings(), url, moved) == ["noai", "noai"]
    assert statuses(settings(), url) == ["noai"] and len(server.requests) == 3  # remembered
    assert statuses(settings(honour_noai=False), url) == [OK]
    assert statuses(settings(), url) == ["noai"] and len(server.requests) == 4  # of the picture in the cache as well


@pytest.mark.parametrize("tag", ["noindex", "noaim", "none", ""])
def test_other_robots_tags_are_about_something_else(server, settings, tag):
    assert statuses(settings(), server.answer("/a.jpg", JPEG, X_Robots_Tag=tag)) == [OK]


# The cache


def test_a_rerun_asks_for_nothing_but_what_may_have_changed(server, settings):
    final = {
        server.answer("/a.jpg", JPEG): OK,
        server.url("/missing"): "http_404",
        server.answer("/page", b"<html>"): "not_an_image",
        server.answer("/huge", b"\xff" * 300_001): "too_large",
        server.redirect("/loop", "/loop"): "redirects",
    }
    changing = {
        server.answer("/busy", status=503): "http_503",
        server.answer("/limited", status=429): "http_429",
        server.answer("/mine", status=403): "http_403",
        server.stall("/silent"): "timeout",
        server.raw("/broken", [BROKEN]): "incomplete",
    }
    kinds = {**final, **changing}
    once = settings(tries=1, per_host=1)
    assert statuses(once, *kinds) == list(kinds.values())
    server.requests.clear()
    for url in changing:
        server.answer(url.removeprefix(server.url("")), JPEG)
    rows = fetch(once, *kinds)
    assert [row.status for row in rows] == [*final.values(), *[OK] * len(changing)]
    assert rows[0].content == JPEG
    assert sorted(server.paths) == sorted(url.removeprefix(server.url("")) for url in changing)


def test_larger_limits_ask_again(server, settings):
    url = server.answer("/noise.png", encode(Image.effect_noise((700, 700), 90)))
    assert statuses(settings(), url) == ["too_large"]
    assert statuses(settings(limits=Limits()), url) == [OK]


def test_damaged_files_of_the_cache_are_fetched_anew(server, settings, tmp_path):
    url = server.answer("/a.jpg", JPEG)
    for spoil in (lambda data: data[:-1], lambda data: b"{}\n" + data, lambda data: b"\xff" * 99, lambda data: b"[]"):
        fetch(settings(), url)
        (file,) = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        file.write_bytes(spoil(file.read_bytes()))
        assert Cache(tmp_path / "cache").get(url) is None
        assert fetch(settings(), url)[0].content == JPEG


def test_a_cache_that_cannot_be_written(server, settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write into"):
        WebFetcher(settings(cache=tmp_path / "file")).fetch_all(rows_of(server.answer("/a.jpg", JPEG)))


PROCESS = """
import sys
from prior_steps.engine.fetch import Settings, WebFetcher
from prior_steps.readers.rows import Row
cache, *urls = sys.argv[1:]
rows = WebFetcher(Settings(cache)).fetch_all([Row(url, "wit", "x", url=url) for url in urls])
assert all(row.status == "ok" and len(row.content) > 500 for row in rows), rows
"""


def test_several_processes_share_a_cache(server, tmp_path):
    urls = [server.answer(f"/{number}.jpg", JPEG) for number in range(10)]
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "cache"), *urls]
    processes = [subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) == 10 and not any(path.suffix == ".part" for path in files)
    for url in urls:
        assert Image.open(io.BytesIO(Cache(tmp_path / "cache").get(url).content)).size == (64, 64)


def test_the_program_can_end_while_a_server_is_slow(server, tmp_path):
    url = server.answer("/a.jpg", status=429, Retry_After="100")
    code = (
        "import sys, threading, time; from prior_steps.engine.fetch import *; "
        "fetcher = WebFetcher(Settings(sys.argv[1])); rows = [Row('1', 'wit', 'x', url=sys.argv[2])]; "
        "threading.Thread(target=fetcher.fetch_all, args=[rows]).start(); time.sleep(0.5)"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code, str(tmp_path), url], stderr=subprocess.DEVNULL, timeout=30)
    assert len(server.requests) == 1 and time.monotonic() - began < 20


# All of it


def test_every_row_of_a_wit_table_is_accounted_for(server, settings, tmp_path):
    """360 rows: twelve kinds of answers, each 25 times in English, and rows that are not fetched at all."""
    kinds = {
        lambda path: server.answer(path, JPEG): OK,
        lambda path: server.answer(path, encode(Image.new("P", (9, 9)), "GIF", save_all=True)): OK,
        lambda path: server.answer(path, encode(Image.new("CMYK", (9, 9)), "JPEG")): OK,
        lambda path: server.redirect(path, server.answer(f"{path}.jpg", JPEG)): OK,
        lambda path: sequence(server, path, (429, {"Retry-After": "0"})): OK,
        lambda path: server.url(path): "http_404",
        lambda path: f"http://127.0.0.1:1{path}": "unreachable",
        lambda path: server.answer(path, b"<html>"): "not_an_image",
        lambda path: server.answer(path, b"<svg/>"): "not_an_image",
        lambda path: server.answer(path, b"\xff" * 300_001): "too_large",
        lambda path: server.raw(path, [BROKEN]): "incomplete",
        lambda path: server.answer(path, JPEG, X_Robots_Tag="noai"): "noai",
    }
    lines, wanted = ["\t".join(COLUMNS)], Counter()
    for number in range(300):
        make, status = list(kinds.items())[number % len(kinds)]
        lines.append("\t".join(wit_line(make(f"/{number}"), f"caption {number}")))
        wanted[status] += 1
    lines += [lines[1]] * 20 + ["\t".join(wit_line("http://a/", "ein Hund", language="de"))] * 20
    lines += ["\t".join(wit_line("http://a/", "a map", mime="image/svg+xml"))] * 10 + ["damaged\tline"] * 10
    wanted += {"duplicate": 20, "other_language": 20, "other_type": 10, "malformed": 10}
    (tmp_path / "wit_v1.train.tsv").write_text("\n".join(lines))
    rows = list(Wit(tmp_path))
    for _ in range(2):
        fetched = WebFetcher(settings(tries=2)).fetch_all(rows)
        assert [row.id for row in fetched] == [row.id for row in rows] and len({row.id for row in rows}) == 360
        assert Counter(row.status for row in fetched) == wanted
        asked, server.requests[:] = len(server.requests), []
    assert asked == 2 * wanted["incomplete"]  # the second time, of what may have changed, each with its two tries
