"""Downloads from a real server on this machine that misbehaves in every way a stranger's may."""

import base64
import gzip
import io
import itertools
import socket
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pictures import JPEG, SILENT, SLOW, SMALL, refused
from PIL import Image

from audioldm.inputs.images import load_image
from audioldm.inputs.web import Limits, download
from translator.files import label

PHOTOS = sorted((Path(__file__).resolve().parents[3] / "shared" / "photos").glob("*.jpg"))
BUFFERED = 8_000_000  # bytes that a server can write into the buffers of two sockets and a library; generous
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def private_addresses_allowed(monkeypatch):
    """The server of these tests is at one; test_fetch_addresses.py is about the rest."""
    monkeypatch.setenv("AUDIOLDM_ALLOW_PRIVATE_URLS", "1")


def same_as(image, data):
    return (np.asarray(image) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


# What works


@pytest.mark.parametrize("kind", ["image/jpeg", "text/html", "application/octet-stream", "nonsense"])
def test_content_type_does_not_matter(server, kind):
    server.answer("/dog", JPEG, Content_Type=kind)
    assert same_as(load_image(server.url("/dog")), JPEG)


def test_the_request(server):
    server.answer("/a dog.jpg", JPEG)
    server.answer("/a%20dog.jpg", JPEG)
    load_image(server.url("/a dog.jpg?q=1#fragment"))
    ((path, headers),) = server.requests
    assert path == "/a%20dog.jpg?q=1"
    assert "audioldm" in headers["User-Agent"] and headers["Host"] == f"127.0.0.1:{server.port}"
    assert "Authorization" not in headers and "Cookie" not in headers


@pytest.mark.parametrize("pieces", [1, 7])
def test_chunked_and_unannounced_lengths(server, pieces):
    step = len(JPEG) // pieces + 1
    parts = [JPEG[i : i + step] for i in range(0, len(JPEG), step)]
    server.stream("/closed", parts)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    server.raw("/chunked", [CHUNKED + chunks])
    for path in ("/closed", "/chunked"):
        assert same_as(load_image(server.url(path)), JPEG)


def test_compressed_although_not_asked_for(server):
    url = server.answer("/dog.jpg", gzip.compress(JPEG), Content_Encoding="gzip")
    assert same_as(load_image(url), JPEG)


@pytest.mark.skipif(not PHOTOS, reason="../shared/photos is not here")
def test_a_photograph_is_the_same_by_every_way(server):
    data = PHOTOS[207].read_bytes()
    url = server.answer("/photo", data, Content_Type="text/plain")
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    images = [load_image(source) for source in (str(PHOTOS[207]), url, uri)]
    assert all(same_as(image, data) for image in images)


# Redirects


def chain(server, length):
    for hop in range(length):
        server.redirect(f"/{hop}", f"/{hop + 1}")  # relative, as most are
    server.answer(f"/{length}", JPEG)
    return server.url("/0")


def test_five_redirects_are_followed(server):
    assert same_as(load_image(chain(server, 5)), JPEG)
    assert server.paths == ["/0", "/1", "/2", "/3", "/4", "/5"]


def test_six_are_too_many(server):
    refused(chain(server, 6), "more than 5 redirects")
    assert "/6" not in server.paths


def test_a_loop_ends(server):
    refused(server.redirect("/loop", "/loop"), "more than 5 redirects")
    assert len(server.paths) == 6


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_redirect_status(server, status):
    server.answer("/dög.jpg", JPEG)
    server.answer("/d%C3%B6g.jpg", JPEG)
    url = server.redirect("/old", server.url("/dög.jpg").encode().decode("latin-1"), status)
    assert load_image(url).size == (64, 64)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("file:///etc/passwd", "file:///etc/passwd is not an http or https address"),
        ("ftp://127.0.0.1/dog.jpg", "not an http or https address"),
        ("data:image/png;base64,AAAA", "not an http or https address"),
        ("http://[::1/", "not a valid URL"),
        ("http://127.0.0.1:99999/", "not a valid URL"),
    ],
)
def test_redirects_that_lead_nowhere(server, target, sentence):
    refused(server.redirect("/old", target), sentence)


def test_a_redirect_without_target_is_an_error(server):
    refused(server.answer("/old", status=302), "answered 302 Found")


def test_credentials_do_not_follow_a_redirect(server):
    server.answer("/dog.jpg", JPEG)
    server.redirect("/old", f"http://localhost:{server.port}/dog.jpg")
    load_image(server.url("/old", host="user:secret@127.0.0.1"))
    assert [headers.get("Authorization") for _, headers in server.requests] == [
        "Basic dXNlcjpzZWNyZXQ=",
        None,
    ]


def test_the_body_of_a_redirect_is_not_read(server):
    server.stream("/old", itertools.repeat(bytes(65536)), status=302, Location="/dog.jpg")
    server.answer("/dog.jpg", JPEG)
    assert load_image(server.url("/old"), limits=Limits(total_s=5)).size == (64, 64)
    assert server.bytes_sent < BUFFERED


# What goes wrong


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "http://no-such-host.invalid/dog.jpg",
            "no-such-host.invalid cannot be reached: no address is known",
        ),
        ("http://" + "x" * 70 + ".org/", "cannot be reached|not a valid URL"),
        ("http://", "not a valid URL"),
        ("http:///dog.jpg", "not a valid URL"),
        ("http://[::1", "not a valid URL"),
        ("http://a b/", "not a valid URL|a%20b cannot be reached"),
        ("http://127.0.0.1:port/", "not a valid URL"),
        ("http://\0/", "not a valid URL|cannot be reached"),
        ("file:///etc/passwd", "file:///etc/passwd is not an http or https address"),
        ("ftp://example.org/dog.jpg", "not an http or https address"),
    ],
)
def test_bad_urls(url, sentence):
    refused(url, sentence)


def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        refused(
            f"http://127.0.0.1:{unused.getsockname()[1]}/",
            "127.0.0.1 cannot be reached: the connection was refused",
        )


def test_nobody_answers():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:  # fill the queue, so that the kernel ignores whoever comes next
            each.setblocking(False)
            each.connect_ex(address)
        start = time.perf_counter()
        refused(
            f"http://127.0.0.1:{address[1]}/",
            "127.0.0.1 cannot be reached: it does not answer",
            limits=SILENT,
        )
        assert time.perf_counter() - start < 3
        for each in waiting:
            each.close()


@pytest.mark.parametrize(
    ("status", "phrase"), [(404, "404 Not Found"), (500, "500 Internal Server Error"), (599, "599")]
)
def test_http_errors(server, status, phrase):
    url = server.answer("/dog.jpg", JPEG, status=status)
    assert refused(url, "the server answered").endswith(
        f"/dog.jpg cannot be downloaded: the server answered {phrase}"
    )


def test_the_servers_own_words_are_not_repeated(server):
    server.raw("/dog.jpg", [b"HTTP/1.1 404 \x1b[31mcall this number\r\n\r\n"])
    assert "number" not in refused(server.url("/dog.jpg"), "404 Not Found")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "is empty"),
        (b"<!doctype html><title>Please log in</title>", "is a web page, not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        (b"nothing at all", "is not an image that can be read"),
        (JPEG[: len(JPEG) // 2], "is damaged or truncated"),
    ],
)
def test_bodies_that_are_no_image(server, body, sentence):
    assert refused(server.answer("/dog.jpg", body, Content_Type="image/jpeg"), sentence).startswith(
        server.url("/dog")
    )


def test_no_content(server):
    refused(server.answer("/dog.jpg", status=204), "is empty")


BROKE_OFF = "cannot be downloaded: the connection ended before everything had arrived"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(JPEG)) + JPEG, BROKE_OFF),
        (CHUNKED + b"%x\r\n" % (2 * len(JPEG)) + JPEG, BROKE_OFF),
        (CHUNKED + b"%x\r\n%s\r\n" % (len(JPEG), JPEG), BROKE_OFF),
        (CHUNKED + b"nonsense\r\n", BROKE_OFF),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n" + JPEG, BROKE_OFF),
        (b"SSH-2.0-OpenSSH_9.2\r\n", BROKE_OFF),
        (b"", BROKE_OFF),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "is empty"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + JPEG[: len(JPEG) // 2], "is damaged or truncated"),
    ],
)
def test_answers_that_break_off(server, answer, sentence):
    server.raw("/dog.jpg", [answer])
    refused(server.url("/dog.jpg"), sentence)


def test_a_length_longer_than_the_body(server):
    """The image is whole, yet the server announced more; nobody knows what is missing."""
    url = server.answer("/dog.jpg", JPEG, Content_Length=str(len(JPEG) + 1))
    refused(url, "the connection ended before everything had arrived")


def test_a_broken_compressed_body(server):
    refused(server.answer("/dog.jpg", JPEG, Content_Encoding="gzip"), "its compressed body is damaged")


# Too much


@pytest.mark.parametrize("announced", ["20000001", "9" * 30])
def test_an_announced_length_is_believed_when_too_large(server, announced):
    server.stream("/dog.jpg", [b"x"], Content_Length=announced)
    refused(server.url("/dog.jpg"), "larger than 20 MB")


def test_a_body_without_end(server):
    refused(server.stream("/dog.jpg", itertools.repeat(bytes(65536))), "larger than 0.3 MB", limits=SMALL)
    assert server.bytes_sent < BUFFERED


def test_a_chunked_body_without_end(server):
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    server.raw("/dog.jpg", itertools.chain([CHUNKED], itertools.repeat(chunk)))
    refused(server.url("/dog.jpg"), "larger than 0.3 MB", limits=SMALL)
    assert server.bytes_sent < BUFFERED


def test_the_limit_to_the_byte(server):
    url = server.answer("/dog.jpg", bytes(300_000))
    assert len(download(url, limits=SMALL)) == 300_000
    url = server.stream("/dog.jpg", [bytes(300_001)])
    refused(url, "larger than 0.3 MB", limits=SMALL)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_of_gzip(server, layers):
    body = bytes(50_000_000)
    for _ in range(layers):
        body = gzip.compress(body, 1)
    url = server.answer("/dog.jpg", body, Content_Encoding=", ".join(["gzip"] * layers))
    tracemalloc.start()
    try:
        refused(url, "larger than 0.3 MB", limits=SMALL)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # it is not unpacked first and weighed then
    finally:
        tracemalloc.stop()


# Too slow


@pytest.mark.parametrize("way", ["stall", "stall in headers", "stall in body"])
def test_a_server_that_falls_silent(server, way):
    if way == "stall":
        url = server.stall("/dog.jpg")
    else:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n" + b"\r\nabc" * (way == "stall in body")
        url = server.raw("/dog.jpg", [head, b""], pause=5)
    start = time.perf_counter()
    refused(url, "the server sent nothing for 0.2 seconds", limits=SILENT)
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        CHUNKED,
    ],
    ids=["headers", "body", "body of unknown length", "chunked body"],
)
def test_a_server_that_sends_a_byte_now_and_then(server, head):
    server.raw("/dog.jpg", itertools.chain([head], itertools.repeat(b"1")), pause=0.05)
    start = time.perf_counter()
    refused(server.url("/dog.jpg"), "took longer than 0.3 seconds", limits=SLOW)
    assert time.perf_counter() - start < 3


def test_slow_redirects_share_one_deadline(server):
    for hop in range(5):
        location = f"Location: /{hop + 1}\r\n\r\n".encode()
        server.raw(f"/{hop}", [b"HTTP/1.1 302 Found\r\n", location], pause=0.1)
    start = time.perf_counter()
    refused(server.url("/0"), "took longer than 0.3 seconds", limits=SLOW)
    assert time.perf_counter() - start < 3


def test_time_spent_on_the_name_is_counted(server, monkeypatch):
    true_resolver = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args, **how: time.sleep(0.4) or true_resolver(*args, **how)
    )
    server.stream("/dog.jpg", itertools.repeat(b"1"), pause=0.05)
    refused(server.url("/dog.jpg"), "took longer than 0.3 seconds", limits=SLOW)


# Messages


def test_credentials_and_queries_are_not_echoed(server):
    url = server.answer("/dog.jpg", b"", status=403)
    secret = url.replace("127", "user:secret@127") + "?token=secret#secret"
    assert refused(secret, "403 Forbidden").startswith(url)
    assert server.requests[0][0] == "/dog.jpg?token=secret"
    assert "secret" not in refused("http://user:secret@no-such-host.invalid/?secret", "cannot be reached")
    assert "secret" not in refused("http://user:secret@[/?secret", "not a valid URL")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://u:p@h.org/a.jpg?q#f", "https://h.org/a.jpg"),
        ("https://h.org/@user/a.jpg", "https://h.org/@user/a.jpg"),
        ("photos/a?b.jpg", "photos/a?b.jpg"),
        ("a\nb\x1b[0m", "a?b?[0m"),
        ("x" * 101, "x" * 99 + "…"),
    ],
)
def test_labels(source, shown):
    assert label(source) == shown


def test_a_long_url_makes_no_long_message(server):
    message = refused(server.url("/" + "x" * 5000), "404")
    assert len(message) < 200 and "x…" in message
