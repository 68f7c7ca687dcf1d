"""Damaged, hostile and foreign bytes, files and data URIs: each gives one sentence, and none does harm."""

import base64
import os
import random
import resource
import time
import urllib.parse
import warnings

import numpy as np
import pytest
from pictures import CORNERS, decode, encode, huge, refused
from PIL import Image, ImageFile

from audioldm.errors import InputError
from audioldm.inputs import images, pixels
from audioldm.inputs.images import decode_image, load_image
from audioldm.inputs.web import LIMITS, Limits

# Hostile bytes


@pytest.mark.parametrize("format", ["PNG", "GIF", "GIF frame", "PPM", "BMP", "JPEG", "TIFF", "WEBP"])
def test_a_claim_of_too_many_pixels_is_refused_before_any_is_allocated(format):
    data = huge(format)
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(InputError, match="claims more than 40 megapixels"):
        decode(data)
    assert time.perf_counter() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 50_000  # KB


def test_sizes_near_the_limit_of_pixels():
    limits = Limits(max_pixels=110)
    assert decode_image(encode(Image.new("L", (10, 11))), "it", limits).size == (10, 11)
    with pytest.raises(InputError, match="claims more than 0.00011 megapixels"):
        decode_image(encode(Image.new("L", (10, 12))), "it", limits)


def test_no_warning_escapes_between_our_limit_and_pillows():
    """Pillow warns from 89 megapixels on and raises from 179 on; ours is below both."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for side in (7_000, 10_000, 20_000):
            with pytest.raises(InputError, match="megapixels"):
                decode(huge("PNG", side))
    assert not caught


@pytest.mark.parametrize("size", [(1, 60_000), (101, 1), (20_000, 199)])
def test_a_sliver_is_refused(size):
    """An encoder makes the short side some 200 pixels long: 1 × 60000 would become 16 GB."""
    with pytest.raises(InputError, match=f"^it is too elongated .{size[0]} × {size[1]} pixels"):
        decode(Image.new("L", size))


def test_a_jpeg_of_endless_scans_is_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_JPEG_WORK", 16 * 16 * 100)
    data = encode(Image.effect_noise((16, 16), 50), "JPEG", progressive=True)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    more = 100 - data.count(b"\xff\xda")
    assert decode(data[:end] + data[start:end] * more + data[end:]).shape == (16, 16, 3)
    with pytest.raises(InputError, match="damaged"):
        decode(data[:end] + data[start:end] * (more + 1) + data[end:])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_a_truncated_image_is_refused(format):
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    data = encode(Image.effect_noise((40, 40), 80).convert("RGB"), format)
    for length in (1, 10, 30, len(data) // 3, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(InputError, match="damaged"):
            decode(data[:length])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_flipped_bytes_give_an_image_or_a_sentence(format):
    chance = random.Random(format)
    data = encode(Image.effect_noise((24, 24), 80).convert("RGB"), format)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(min(len(data), 600))] = chance.randrange(256)
        try:
            assert decode_image(bytes(damaged), "it", Limits(max_pixels=10**6)).mode == "RGB"
        except InputError as error:
            assert str(error).startswith("it ")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"\0", "not an image that can be read"),
        (b"just words", "not an image that can be read"),
        (b"%PDF-1.7\n", "is a PDF; save the picture in it as PNG or JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is PostScript; export it to PNG"),
        (b"\n<!DOCTYPE HTML><title>404</title>", "web page"),
        (b"<html><body><svg></svg>", "web page"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG .* PNG"),
        (b"\xef\xbb\xbf<svg/>", "SVG .* PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC .* JPEG"),
    ],
)
def test_other_content_is_named(data, sentence):
    with pytest.raises(InputError, match=f"^it is .*{sentence.removeprefix('is ')}"):
        decode(data)


# Local files


def test_the_name_does_not_decide(tmp_path, monkeypatch):
    (tmp_path / "dog.gif").write_bytes(encode(Image.fromarray(CORNERS)))
    assert (np.asarray(load_image(str(tmp_path / "dog.gif"))) == CORNERS).all()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (np.asarray(load_image("~/dog.gif")) == CORNERS).all()
    monkeypatch.chdir(tmp_path)
    assert (np.asarray(load_image(" dog.gif ")) == CORNERS).all()


def test_bad_files(tmp_path):
    refused(tmp_path / "none.jpg", "no such file")
    refused(tmp_path, "folder")
    (tmp_path / "empty.jpg").touch()
    refused(tmp_path / "empty.jpg", "empty.jpg is empty")
    refused(tmp_path / "empty.jpg" / "dog.jpg", "cannot be read")
    refused(tmp_path / ("x" * 300), "cannot be read: File name too long")
    refused("nul\0.jpg", "not a file name")
    refused("~no-such-user-here/dog.jpg", "not a file name")
    refused("", "folder")
    (tmp_path / "words.txt").write_text("a dog barking")
    refused(tmp_path / "words.txt", "not an image")
    (tmp_path / "\x1b[31mred\n.jpg").touch()
    refused(tmp_path / "\x1b[31mred\n.jpg", r"\?\[31mred\?.jpg is empty")


def test_a_file_too_large(tmp_path):
    with open(tmp_path / "big.jpg", "wb") as file:
        file.truncate(20_000_001)
    refused(tmp_path / "big.jpg", "larger than 20 MB", limits=LIMITS)
    refused(tmp_path / "big.jpg", "not an image")  # the limits of the web are not those of one's own files
    with open(tmp_path / "big.jpg", "wb") as file:
        file.truncate(20_000_000)
    refused(tmp_path / "big.jpg", "not an image", limits=LIMITS)
    with open(tmp_path / "big.jpg", "wb") as file:
        file.truncate(2_000_000_001)
    refused(tmp_path / "big.jpg", "larger than 2000 MB")


def test_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    refused(tmp_path / "pipe.jpg", "not a regular file")
    refused("/dev/zero", "not a regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "secret.jpg").chmod(0)
    refused(tmp_path / "secret.jpg", "cannot be read: Permission denied")


# Data URIs

PNG = encode(Image.fromarray(CORNERS))
BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64," + BASE64,
        "DATA:IMAGE/PNG;BASE64," + BASE64,
        "data:;base64," + BASE64,
        "data:text/html;charset=utf-8;base64," + BASE64,
        "data:image/png;base64," + urllib.parse.quote(BASE64, safe=""),
        "data:image/png;base64," + "\n".join(BASE64[i : i + 60] for i in range(0, len(BASE64), 60)) + "\n",
        "data:image/png," + urllib.parse.quote_from_bytes(PNG),
        "data:," + "".join(f"%{byte:02x}" for byte in PNG),
    ],
)
def test_data_uris(uri):
    assert (np.asarray(load_image(uri)) == CORNERS).all()


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("data:", "no comma"),
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,", "data URI is empty"),
        ("data:,", "data URI is empty"),
        ("data:image/png;base64,@@@@", "not valid base64"),
        ("data:image/png;base64," + BASE64.rstrip("=")[:-2] + "=", "not valid base64"),
        ("data:image/png;base64," + BASE64[:40] + "-_" + BASE64[42:], "not valid base64"),
        ("data:image/png;base64," + BASE64[:60], "damaged"),
        ("data:image/png;base64,ж", "neither base64 nor percent-encoded"),
        ("data:image/png,%8", "neither base64 nor percent-encoded"),
        ("data:image/png,%zz", "neither base64 nor percent-encoded"),
        ("data:text/plain,hello", "not an image"),
        ("data:image/svg+xml,%3Csvg%2F%3E", "SVG"),
    ],
)
def test_bad_data_uris(uri, sentence):
    refused(uri, sentence)


def test_data_uris_too_large():
    limits = Limits(max_bytes=3000)
    for body in (";base64," + "A" * 4004, ";base64," + "A" * 10_000, "," + "x" * 3001, "," + "%41" * 3001):
        refused("data:" + body, "larger than 0.003 MB", limits=limits)
    for body in (";base64," + "A" * 4000, "," + "x" * 3000, "," + "%41" * 3000):
        refused("data:" + body, "not an image", limits=limits)


def test_data_uris_too_large_are_not_even_decoded(monkeypatch):
    limits = Limits(max_bytes=3000)
    monkeypatch.setattr(pixels.base64, "b64decode", None)
    refused("data:;base64," + "A" * 4004, "larger than 0.003 MB", limits=limits)
    monkeypatch.setattr(pixels, "unquote_to_bytes", None)
    refused("data:," + "x" * 9001, "larger than 0.003 MB", limits=limits)
